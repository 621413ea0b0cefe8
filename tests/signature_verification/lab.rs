//! A CA with signers of every kind, and signatures that OpenSSL makes with their keys.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use crate::common::openssl::openssl_ok;
use sealgate::{
    domain::timestamp::Timestamp,
    pki::{Certificate, trust::TrustStore},
    verification::{Judgement, Verdict, VerificationError, judge, judge_detached},
};
use tempfile::TempDir;

pub const CA: &str = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash";
pub const SIGNER: &str =
    "basicConstraints=CA:FALSE\nkeyUsage=critical,digitalSignature,nonRepudiation\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid";
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
