//! A CA with signers of every kind, and signatures that OpenSSL makes with their keys.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::LazyLock,
    time::{Duration, SystemTime},
};

use der::Decode;
use sealgate::{
    cms::unsigned::{PathEvidence, PathMaterial},
    domain::{ticket::CadesType, timestamp::Timestamp},
    pki::{
        Certificate,
        revocation::{Moment, Subject},
        trust::TrustStore,
    },
    verification::{Judgement, Verdict, VerificationError, judge, judge_detached},
};
use tempfile::TempDir;

use crate::{
    common::openssl::openssl_ok,
    edit::{attribute_of, signature_value, with_unsigned},
};

pub const CA: &str = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash";
pub const SIGNER: &str =
    "basicConstraints=CA:FALSE\nkeyUsage=critical,digitalSignature,nonRepudiation\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid";
pub const TSA: &str = "keyUsage=critical,digitalSignature\nextendedKeyUsage=critical,timeStamping";
pub const SIGNATURE_TIME_STAMP: &str = "1.2.840.113549.1.9.16.2.14";
pub const CONTENT_TIME_STAMP: &str = "1.2.840.113549.1.9.16.2.20";
pub const P256: &[&str] = &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
pub const RSA: &[&str] = &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"];
pub const CONTENT: &[u8] = b"I owe you 100 hryvnias.\r\n\x00\xff";

/// A folder with `root`, `ca` below it, and signers below that.
pub struct Lab {
    folder: TempDir,
    pub root: Certificate,
    pub ca: Certificate,
}

impl Lab {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("content"), CONTENT).unwrap();
        let root = make(&folder, "root", None, "/CN=Root", P256, CA, "3650");
        let ca = make(&folder, "ca", Some("root"), "/CN=CA", P256, CA, "3650");
        Self { folder, root, ca }
    }

    pub fn signer(&self, name: &str, key: &[&str]) -> Certificate {
        self.certificate(name, key, SIGNER, "400")
    }

    pub fn certificate(&self, name: &str, key: &[&str], extensions: &str, days: &str) -> Certificate {
        make(&self.folder, name, Some("ca"), &format!("/O=Ромашка/CN={name}"), key, extensions, days)
    }

    /// A certificate of the CA `issuer`, or of its own where that is `None`, for a time that may be over or to come.
    pub fn certificate_between(&self, name: &str, issuer: &str, extensions: &str, [begin, end]: [Timestamp; 2]) -> Certificate {
        let file = |suffix: &str| self.path(&format!("{name}.{suffix}"));
        let (key, csr, ext, out) = (file("key"), file("csr"), file("ext"), file("pem"));
        openssl_ok([&["genpkey", "-out", &key], P256].concat());
        fs::write(&ext, extensions).unwrap();
        openssl_ok(["req", "-new", "-utf8", "-key", &key, "-subj", &format!("/CN={name}"), "-out", &csr]);
        let config = self.ca_config(issuer, "");
        let (begin, end) = (asn1_time(begin), asn1_time(end));
        let times = ["-startdate", &begin, "-enddate", &end, "-rand_serial", "-utf8", "-notext", "-batch"];
        openssl_ok([&["ca", "-config", &config, "-in", &csr, "-extfile", &ext, "-out", &out][..], &times].concat());
        Certificate::from_pem(&fs::read_to_string(out).unwrap()).unwrap()
    }

    /// A certificate of an authority that makes time stamps.
    pub fn authority(&self, name: &str) -> Certificate {
        self.certificate(name, P256, TSA, "3000")
    }

    /// A CRL of the CA `issuer`, in DER; a reason may be empty.
    pub fn crl(&self, issuer: &str, revoked: &[(&Certificate, Timestamp, &str)], [begin, end]: [Timestamp; 2]) -> Vec<u8> {
        let short = |time| asn1_time(time)[2..].to_owned();
        let entries = revoked.iter().map(|(certificate, since, reason)| {
            let reason = if reason.is_empty() { String::new() } else { format!(",{reason}") };
            format!("R\t490101000000Z\t{}{reason}\t{}\tunknown\t/CN=revoked\n", short(*since), certificate.serial().to_uppercase())
        });
        let config = self.ca_config(issuer, &entries.collect::<String>());
        let (pem, der) = (self.path("crl.pem"), self.path("crl.der"));
        let (begin, end) = (asn1_time(begin), asn1_time(end));
        openssl_ok(["ca", "-gencrl", "-config", &config, "-crl_lastupdate", &begin, "-crl_nextupdate", &end, "-out", &pem]);
        openssl_ok(["crl", "-in", &pem, "-outform", "DER", "-out", &der]);
        fs::read(der).unwrap()
    }

    /// What a responder says about a certificate of `ca`: an `OCSPResponse` for a week, signed by `signer`.
    pub fn answer(&self, name: &str, signer: &str, revoked: Option<(Timestamp, &str)>) -> Vec<u8> {
        let (index, request, response) = (self.path("ocsp.txt"), self.path("ocsp.req"), self.path("ocsp.resp"));
        let certificate = self.path(&format!("{name}.pem"));
        let serial = Certificate::from_pem(&fs::read_to_string(&certificate).unwrap()).unwrap().serial().to_uppercase();
        let (status, since) = match revoked {
            Some((since, reason)) => ("R", format!("{},{reason}", &asn1_time(since)[2..])),
            None => ("V", String::new()),
        };
        fs::write(&index, format!("{status}\t490101000000Z\t{since}\t{serial}\tunknown\t/CN=x\n")).unwrap();
        let (ca, signer, key) = (self.path("ca.pem"), self.path(&format!("{signer}.pem")), self.path(&format!("{signer}.key")));
        openssl_ok(["ocsp", "-issuer", &ca, "-cert", &certificate, "-no_nonce", "-reqout", &request]);
        let answering = ["ocsp", "-index", &index, "-CA", &ca, "-rsigner", &signer, "-rkey", &key, "-ndays", "7"];
        openssl_ok([&answering[..], &["-reqin", &request, "-respout", &response]].concat());
        fs::read(response).unwrap()
    }

    /// A time stamp of `data`, signed by `authority`, which need not be one, with a time that may be another than now.
    pub fn token(&self, authority: &str, data: &[u8], time: Option<Timestamp>) -> Vec<u8> {
        if !Path::new(&self.path("clock.pem")).exists() {
            self.authority("clock");
        }
        let dir = self.path("");
        let config = format!(
            "[tsa]\ndefault_tsa = one\n[one]\nserial = {dir}tsa-serial\nsigner_cert = {dir}clock.pem\nsigner_key = {dir}clock.key\n\
             default_policy = 1.2.3.4.1\ndigests = sha256, sha384, sha512\nsigner_digest = sha256\ness_cert_id_alg = sha256\n"
        );
        let (config, data) = (self.write("tsa.cnf", config.as_bytes()), self.write("stamped", data));
        let (query, token, info, made) = (self.path("tsq"), self.path("token"), self.path("info"), self.path("made"));
        openssl_ok(["ts", "-query", "-data", &data, "-sha256", "-cert", "-out", &query]);
        openssl_ok(["ts", "-reply", "-config", &config, "-queryfile", &query, "-token_out", "-out", &token]);
        openssl_ok(["cms", "-verify", "-noverify", "-inform", "DER", "-in", &token, "-out", &info]);
        if let Some(time) = time {
            let mut bytes = fs::read(&info).unwrap();
            let at = bytes.windows(2).position(|header| header == [0x18, 15]).unwrap() + 2;
            bytes[at..at + 15].copy_from_slice(asn1_time(time).as_bytes());
            fs::write(&info, bytes).unwrap();
        }
        let (certificate, key, ca) = (self.path(&format!("{authority}.pem")), self.path(&format!("{authority}.key")), self.path("ca.pem"));
        let sign = ["cms", "-sign", "-binary", "-nodetach", "-nosmimecap", "-cades", "-md", "sha256", "-outform", "DER"];
        let what = ["-econtent_type", "id-smime-ct-TSTInfo", "-in", &info, "-out", &made];
        openssl_ok([&sign[..], &what, &["-signer", &certificate, "-inkey", &key, "-certfile", &ca]].concat());
        fs::read(made).unwrap()
    }

    /// A signature by `signer` with a time stamp of now by `authority`: CAdES-T.
    pub fn stamped(&self, signer: &str, authority: &str, more: &[&str]) -> Vec<u8> {
        let signature = self.sign(signer, &[&["-cades"], more].concat());
        let token = self.token(authority, &signature_value(&signature), None);
        with_unsigned(&signature, &[attribute_of(SIGNATURE_TIME_STAMP, &token)])
    }

    /// References and values of the signer's path with these CRLs, of `ca` and of `root`: what X Long has beside T.
    pub fn path_material(&self, signer: &Certificate, [of_ca, of_root]: [&[u8]; 2]) -> PathMaterial {
        let evidence = |crl: &[u8], certificate: &Certificate, issuer: &Certificate| {
            let parsed = |certificate: &Certificate| x509_cert::Certificate::from_der(certificate.as_der()).unwrap();
            let subject = Subject { certificate: &parsed(certificate), issuer: &parsed(issuer) };
            let checked = sealgate::pki::revocation::crl::check(crl, &subject, Moment::present(now())).unwrap();
            PathEvidence::Crl { list: checked.der, issuer: checked.issuer, this_update: checked.this_update, number: checked.number }
        };
        PathMaterial {
            signer: signer.as_der().to_vec(),
            authorities: vec![self.ca.as_der().to_vec(), self.root.as_der().to_vec()],
            evidence: vec![evidence(of_ca, signer, &self.ca), evidence(of_root, &self.ca, &self.root), PathEvidence::Trusted],
        }
    }

    /// A signature of the form X Long with CRLs that nobody is on.
    pub fn x_long(&self, signer: &str, certificate: &Certificate, more: &[&str]) -> Vec<u8> {
        let week = [days(-1), days(6)];
        let material = self.path_material(certificate, [&self.crl("ca", &[], week), &self.crl("root", &[], week)]);
        with_unsigned(&self.stamped(signer, "tsa", more), &material.attributes(CadesType::XLong).unwrap())
    }

    fn ca_config(&self, issuer: &str, index: &str) -> String {
        let dir = self.path("");
        self.write("index.txt", index.as_bytes());
        self.write("index.txt.attr", b"unique_subject = no\n");
        let config = format!(
            "[ca]\ndefault_ca = one\n[one]\ndatabase = {dir}index.txt\nserial = {dir}serial\nnew_certs_dir = {dir}\ncertificate = {dir}{issuer}.pem\n\
             private_key = {dir}{issuer}.key\ncrlnumber = {dir}{issuer}.crlnumber\ndefault_md = sha256\npolicy = names\n[names]\n\
             organizationName = optional\ncommonName = supplied\n"
        );
        if !Path::new(&self.path(&format!("{issuer}.crlnumber"))).exists() {
            self.write(&format!("{issuer}.crlnumber"), b"01\n");
        }
        self.write("ca.cnf", config.as_bytes())
    }

    pub fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    pub fn write(&self, name: &str, bytes: &[u8]) -> String {
        let path: PathBuf = self.folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// A signature by `signer`, with its CA's certificate inside, and more arguments of `openssl cms`.
    pub fn sign(&self, signer: &str, more: &[&str]) -> Vec<u8> {
        let file = |suffix: &str| self.path(&format!("{signer}.{suffix}"));
        let (certificate, key, content, ca, out) = (file("pem"), file("key"), self.path("content"), self.path("ca.pem"), self.path("out"));
        let form: &[&str] = if more.contains(&"-outform") { &[] } else { &["-outform", "DER"] };
        let common = ["cms", "-sign", "-binary", "-in", &content, "-out", &out, "-certfile", &ca, "-nosmimecap"];
        openssl_ok([&common[..], &["-signer", &certificate, "-inkey", &key], form, more].concat());
        fs::read(out).unwrap()
    }

    pub fn trust(&self) -> TrustStore {
        TrustStore::new(vec![self.root.clone()], Vec::new())
    }

    pub fn judge(&self, signature: &[u8], content: Option<&[u8]>) -> Result<Verdict, VerificationError> {
        self.judge_at(signature, content, now())
    }

    pub fn judge_at(&self, signature: &[u8], content: Option<&[u8]>, now: Timestamp) -> Result<Verdict, VerificationError> {
        let trust = self.trust();
        let judgement = judgement(&trust, now);
        match content {
            Some(content) => judge_detached(signature, content, &judgement),
            None => judge(&mut sealgate::cms::verify::SignedMessage::read(std::io::Cursor::new(signature))?, None, &judgement),
        }
    }

    /// The reason why it is not good.
    pub fn reason(&self, signature: &[u8], content: Option<&[u8]>) -> String {
        match self.judge(signature, content) {
            Ok(verdict) => verdict.reason().unwrap().to_string(),
            Err(error) => error.to_string(),
        }
    }
}

/// So many days from now, or ago.
pub fn days(count: i64) -> Timestamp {
    // Of one moment for the whole test, so that the same days are the same times.
    static NOW: LazyLock<i64> = LazyLock::new(|| i64::try_from(Timestamp::from(SystemTime::now()).as_millis()).unwrap() / 1000 * 1000);
    Timestamp::from_millis(u64::try_from(*NOW + count * 24 * 3600 * 1000).unwrap())
}

/// As `GeneralizedTime` has it.
fn asn1_time(time: Timestamp) -> String {
    time.to_rfc3339().chars().filter(|c| c.is_ascii_digit() || *c == 'Z').collect()
}

pub const fn judgement(trust: &TrustStore, now: Timestamp) -> Judgement<'_> {
    Judgement::of_documents(trust, now)
}

pub fn now() -> Timestamp {
    Timestamp::from(SystemTime::now()).after(Duration::from_secs(60))
}

fn make(folder: &TempDir, name: &str, issuer: Option<&str>, subject: &str, key: &[&str], extensions: &str, days: &str) -> Certificate {
    let file = |name: &str, suffix: &str| folder.path().join(format!("{name}.{suffix}")).to_str().unwrap().to_owned();
    let (own_key, csr, ext, out) = (file(name, "key"), file(name, "csr"), file(name, "ext"), file(name, "pem"));
    openssl_ok([&["genpkey", "-out", &own_key], key].concat());
    fs::write(&ext, extensions).unwrap();
    openssl_ok(["req", "-new", "-utf8", "-key", &own_key, "-subj", subject, "-out", &csr]);
    let (issuer_key, issuer_file) = (issuer.map(|issuer| file(issuer, "key")), issuer.map(|issuer| file(issuer, "pem")));
    let signer: Vec<&str> = match (&issuer_key, &issuer_file) {
        (Some(key), Some(certificate)) => vec!["-CA", certificate, "-CAkey", key],
        _ => vec!["-signkey", &own_key],
    };
    openssl_ok([&["x509", "-req", "-in", &csr, "-days", days, "-extfile", &ext, "-out", &out, "-sha256"][..], &signer].concat());
    Certificate::from_pem(&fs::read_to_string(out).unwrap()).unwrap()
}
