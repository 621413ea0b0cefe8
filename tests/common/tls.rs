//! Certificates for TLS, made with `openssl` as docs/operations.md does it.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use sealgate::http::tls::TlsFiles;

use super::openssl::openssl_ok;

/// A CA with its files in a folder.
pub struct TlsCa {
    dir: PathBuf,
    name: &'static str,
}

/// A certificate and its key, as PEM files.
pub struct Issued {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

const EC: [&str; 5] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];

fn run(words: &[&str]) {
    openssl_ok(words);
}

impl TlsCa {
    /// Makes a CA.
    pub fn new(dir: &Path, name: &'static str) -> Self {
        let ca = Self { dir: dir.to_owned(), name };
        let (key, certificate) = (ca.path("ca.key"), ca.path("ca.pem"));
        let subject = format!("/CN={name}");
        run(&[&["req", "-x509"], &EC[..], &["-keyout", &key, "-out", &certificate, "-subj", &subject, "-days", "2"]].concat());
        ca
    }

    fn path(&self, name: &str) -> String {
        self.dir.join(format!("{}-{name}", self.name)).to_str().expect("a path").to_owned()
    }

    /// Its certificate.
    pub fn certificate(&self) -> PathBuf {
        self.path("ca.pem").into()
    }

    /// Issues a certificate for this machine's loopback address, in files of this name.
    pub fn server(&self, name: &str) -> Issued {
        self.issue(name, "/CN=gateway", "subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth\n")
    }

    /// Issues a certificate for a client with this subject (`/O=Example/CN=erp`).
    pub fn client(&self, name: &str, subject: &str) -> Issued {
        self.issue(name, subject, "extendedKeyUsage=clientAuth\n")
    }

    fn issue(&self, name: &str, subject: &str, extensions: &str) -> Issued {
        let [key, request, certificate, file] = ["key", "csr", "pem", "ext"].map(|end| self.path(&format!("{name}.{end}")));
        fs::write(&file, extensions).expect("a file");
        run(&[&["req", "-new"], &EC[..], &["-keyout", &key, "-out", &request, "-subj", subject]].concat());
        let (ca, ca_key) = (self.path("ca.pem"), self.path("ca.key"));
        let sign = ["x509", "-req", "-in", &request, "-CA", &ca, "-CAkey", &ca_key, "-CAcreateserial", "-days", "1", "-extfile", &file];
        run(&[&sign[..], &["-out", &certificate]].concat());
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("a mode");
        Issued { certificate: certificate.into(), key: key.into() }
    }
}

impl Issued {
    /// The files of a listener that has this certificate.
    pub fn listener(&self, client_ca: Option<&Path>) -> TlsFiles {
        TlsFiles { certificate: self.certificate.clone(), key: self.key.clone(), client_ca: client_ca.map(Path::to_owned) }
    }

    /// What a client shows.
    pub fn identity(&self) -> reqwest::Identity {
        let pem = [&self.certificate, &self.key].map(|file| fs::read(file).expect("a PEM file")).concat();
        reqwest::Identity::from_pem(&pem).expect("an identity")
    }

    /// The certificate in DER.
    pub fn der(&self) -> Vec<u8> {
        openssl_ok(["x509", "-in", self.certificate.to_str().expect("a path"), "-outform", "der"])
    }
}

/// A client that trusts this CA alone.
pub fn client(ca: &TlsCa) -> reqwest::ClientBuilder {
    let pem = fs::read(ca.certificate()).expect("the CA's certificate");
    let certificate = reqwest::Certificate::from_pem(&pem).expect("a certificate");
    reqwest::Client::builder().no_proxy().tls_certs_only([certificate]).timeout(super::gateway::PATIENCE)
}
