//! Software keys and a two-step CA, all made by OpenSSL, in a temporary directory.

use std::{
    fs,
    path::{Path, PathBuf},
};

use der::{Decode, Sequence, asn1::UintRef};
use sealgate::domain::{
    algorithm::{Curve, KeyKind, SignatureAlgorithm},
    digest::{SigningInput, ToSign},
    signature::SignatureValue,
};
use tempfile::TempDir;

use crate::common::openssl::openssl_ok;

/// The sections are those that [`Lab::certify`] names.
const OPENSSL_CONFIG: &str = "
[req]
distinguished_name = dn
[dn]
[ca]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[leaf]
basicConstraints = CA:FALSE
keyUsage = critical, digitalSignature, nonRepudiation
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
";

const EC: [&str; 3] = ["-algorithm", "EC", "-pkeyopt"];
const RSA: [&str; 3] = ["-algorithm", "RSA", "-pkeyopt"];

/// A directory with `root.pem`, a CA below it (`ca.pem`, `ca.der`), and for each signer its key and certificate.
pub(crate) struct Lab {
    dir: TempDir,
    pub(crate) signers: Vec<Signer>,
}

/// A key in software that signs as a token would.
pub(crate) struct Signer {
    pub(crate) name: &'static str,
    pub(crate) kind: KeyKind,
    pub(crate) certificate_der: Vec<u8>,
    key: PathBuf,
}

impl Lab {
    pub(crate) fn new() -> Self {
        let mut lab = Self { dir: tempfile::tempdir().unwrap(), signers: Vec::new() };
        lab.write("openssl.cnf", OPENSSL_CONFIG.as_bytes());
        lab.make_cas();
        lab.signers = vec![
            lab.make_signer("rsa-2048", KeyKind::Rsa { modulus_bits: 2048 }, &[&RSA[..], &["rsa_keygen_bits:2048"]].concat()),
            lab.make_signer("rsa-3072", KeyKind::Rsa { modulus_bits: 3072 }, &[&RSA[..], &["rsa_keygen_bits:3072"]].concat()),
            lab.make_signer("ec-p256", KeyKind::Ec(Curve::P256), &[&EC[..], &["ec_paramgen_curve:P-256"]].concat()),
            lab.make_signer("ec-p384", KeyKind::Ec(Curve::P384), &[&EC[..], &["ec_paramgen_curve:P-384"]].concat()),
            lab.make_signer("ec-p521", KeyKind::Ec(Curve::P521), &[&EC[..], &["ec_paramgen_curve:P-521"]].concat()),
            lab.make_signer("ed25519", KeyKind::Ed25519, &["-algorithm", "ED25519"]),
        ];
        lab
    }

    /// The path of a file of the lab, as text for a command line.
    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }

    /// Writes a file and gives back its path.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.path(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    fn make_cas(&self) {
        for name in ["root", "ca"] {
            self.make_key(name, &[&EC[..], &["ec_paramgen_curve:P-256"]].concat());
        }
        let files = ["-config", &self.path("openssl.cnf"), "-key", &self.path("root.key"), "-out", &self.path("root.pem")];
        openssl_ok([&["req", "-x509", "-days", "2", "-subj", "/CN=Root", "-extensions", "ca"][..], &files].concat());
        openssl_ok(["x509", "-in", &self.path("root.pem"), "-outform", "DER", "-out", &self.path("root.der")]);
        self.certify("ca", "root", "ca");
    }

    fn make_key(&self, name: &str, of_kind: &[&str]) {
        openssl_ok([&["genpkey", "-out", &self.path(&format!("{name}.key"))], of_kind].concat());
    }

    /// Certifies the key `name` by `issuer`, with the extensions of `section`, in PEM and DER.
    fn certify(&self, name: &str, issuer: &str, section: &str) {
        let file = |name: &str, extension: &str| self.path(&format!("{name}.{extension}"));
        let (config, request, certificate) = (self.path("openssl.cnf"), file(name, "csr"), file(name, "pem"));
        let subject = format!("/C=UA/O=Тест/CN={name}");
        let (key, ca, ca_key) = (file(name, "key"), file(issuer, "pem"), file(issuer, "key"));
        openssl_ok(["req", "-new", "-utf8", "-config", &config, "-key", &key, "-subj", &subject, "-out", &request]);
        let issued = ["-CA", &ca, "-CAkey", &ca_key, "-CAcreateserial", "-days", "2", "-extfile", &config, "-extensions", section];
        openssl_ok([&["x509", "-req", "-in", &request, "-out", &certificate][..], &issued].concat());
        openssl_ok(["x509", "-in", &certificate, "-outform", "DER", "-out", &file(name, "der")]);
    }

    fn make_signer(&self, name: &'static str, kind: KeyKind, of_kind: &[&str]) -> Signer {
        self.make_key(name, of_kind);
        self.certify(name, "ca", "leaf");
        let key = Path::new(&self.path(&format!("{name}.key"))).to_owned();
        Signer { name, kind, certificate_der: self.read(&format!("{name}.der")), key }
    }
}

impl Signer {
    /// Signs with OpenSSL what a token would be given.
    pub(crate) fn sign(&self, to_sign: &ToSign) -> SignatureValue {
        let input = match to_sign.input() {
            SigningInput::Digest(digest) => digest.as_bytes(),
            SigningInput::Message(message) => message,
        };
        let file = self.key.with_extension("to-sign");
        fs::write(&file, input).unwrap();
        let command = ["pkeyutl", "-sign", "-inkey", self.key.to_str().unwrap(), "-in", file.to_str().unwrap()];
        let bytes = openssl_ok(command.map(str::to_owned).into_iter().chain(pkeyutl_options(to_sign.algorithm())));
        let bytes = match self.kind {
            KeyKind::Ec(curve) => raw_ecdsa(curve, &bytes),
            _ => bytes,
        };
        SignatureValue::from_token(&self.kind, bytes).unwrap()
    }
}

/// How `openssl pkeyutl` signs as a token does.
fn pkeyutl_options(algorithm: SignatureAlgorithm) -> Vec<String> {
    let options = match algorithm {
        SignatureAlgorithm::RsaPkcs1(hash) => vec![format!("digest:{hash}"), "rsa_padding_mode:pkcs1".to_owned()],
        SignatureAlgorithm::RsaPss(hash) => {
            vec![format!("digest:{hash}"), "rsa_padding_mode:pss".to_owned(), "rsa_pss_saltlen:digest".to_owned()]
        }
        SignatureAlgorithm::Ecdsa(_) => Vec::new(),
        SignatureAlgorithm::Ed25519 => return vec!["-rawin".to_owned()],
    };
    options.into_iter().flat_map(|option| ["-pkeyopt".to_owned(), option]).collect()
}

/// r‖s, as a token returns it.
fn raw_ecdsa(curve: Curve, der: &[u8]) -> Vec<u8> {
    #[derive(Sequence)]
    struct EcdsaSigValue<'a> {
        r: UintRef<'a>,
        s: UintRef<'a>,
    }
    let value = EcdsaSigValue::from_der(der).unwrap();
    let widened = |number: UintRef<'_>| [vec![0; curve.field_len() - number.as_bytes().len()], number.as_bytes().to_vec()].concat();
    [widened(value.r), widened(value.s)].concat()
}
