//! A CA's responder made of `openssl ocsp`, behind a small HTTP server that also hands out files: it answers well, or in the way that the test
//! chooses.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use super::openssl::openssl_ok;

/// How the responder answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OcspManner {
    /// The CA signs itself.
    Good,
    /// By a responder that the CA has delegated.
    Delegated,
    /// By somebody whom the CA has certified for something else.
    WrongPurpose,
    /// By somebody whom another CA has certified.
    Stranger,
    /// The certificate is revoked.
    Revoked,
    /// The certificate is not known.
    Unknown,
    /// The answer to an earlier question.
    Replayed,
    /// An answer from long ago.
    Old,
    Garbage,
}

/// The responder.
pub struct TestAuthority {
    dir: TempDir,
    manner: Mutex<OcspManner>,
    files: Mutex<HashMap<String, Vec<u8>>>,
    requests: AtomicUsize,
    first_answer: Mutex<Option<Vec<u8>>>,
    pub url: String,
}

const CONFIG: &str = "
[req]
distinguished_name = dn
[dn]
[delegated]
extendedKeyUsage = OCSPSigning
[wrong]
extendedKeyUsage = serverAuth
";

impl TestAuthority {
    /// A responder for the CA with this key and certificate, both in PEM, that knows the certificates with these serial numbers (hex).
    pub async fn start(ca_key: &str, ca_certificate: &str, serials: &[String]) -> (Arc<Self>, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let authority = Self {
            dir: tempfile::tempdir().unwrap(),
            manner: Mutex::new(OcspManner::Good),
            files: Mutex::default(),
            requests: AtomicUsize::new(0),
            first_answer: Mutex::default(),
            url,
        };
        fs::write(authority.path("ca.key"), ca_key).unwrap();
        fs::write(authority.path("ca.pem"), ca_certificate).unwrap();
        fs::write(authority.path("openssl.cnf"), CONFIG).unwrap();
        let line = |status: &str, serial: &String| {
            let revoked = if status == "R" { "200101000000Z" } else { "" };
            format!("{status}\t490101000000Z\t{revoked}\t{}\tunknown\t/CN={serial}\n", serial.to_uppercase())
        };
        let index = |status| serials.iter().map(|serial| line(status, serial)).collect::<String>();
        fs::write(authority.path("good.txt"), index("V")).unwrap();
        fs::write(authority.path("revoked.txt"), index("R")).unwrap();
        fs::write(authority.path("unknown.txt"), "").unwrap();
        authority.certify("delegated", "delegated", "ca");
        authority.certify("wrong", "wrong", "ca");
        authority.self_signed("other");
        authority.certify("stranger", "delegated", "other");
        let authority = Arc::new(authority);
        let server = tokio::spawn({
            let authority = Arc::clone(&authority);
            async move {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    let authority = Arc::clone(&authority);
                    tokio::spawn(async move { authority.serve(stream).await });
                }
            }
        });
        (authority, server)
    }

    pub fn set(&self, manner: OcspManner) {
        *self.manner.lock().unwrap() = manner;
    }

    /// Hands out a file at `/NAME`.
    pub fn put(&self, name: &str, bytes: Vec<u8>) {
        self.files.lock().unwrap().insert(format!("/{name}"), bytes);
    }

    /// How many requests have come.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn self_signed(&self, name: &str) {
        let (config, key, certificate) = (self.text("openssl.cnf"), self.text(&format!("{name}.key")), self.text(&format!("{name}.pem")));
        let new =
            ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-config", &config, "-subj", "/CN=Other"];
        openssl_ok([&new[..], &["-keyout", &key, "-out", &certificate]].concat());
    }

    fn certify(&self, name: &str, extensions: &str, ca: &str) {
        let (config, key, certificate) = (self.text("openssl.cnf"), self.text(&format!("{name}.key")), self.text(&format!("{name}.pem")));
        let (ca, ca_key, subject) = (self.text(&format!("{ca}.pem")), self.text(&format!("{ca}.key")), format!("/CN={name}"));
        let new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-config", &config, "-subj", &subject];
        openssl_ok([&new[..], &["-keyout", &key, "-out", &certificate, "-extensions", extensions, "-CA", &ca, "-CAkey", &ca_key]].concat());
    }

    /// The answer to a question, in this manner.
    fn answer(&self, manner: OcspManner, question: &[u8]) -> Vec<u8> {
        if manner == OcspManner::Garbage {
            return b"no answer".to_vec();
        }
        if manner == OcspManner::Replayed {
            return self.first_answer.lock().unwrap().clone().expect("a good answer before");
        }
        let number = self.requests();
        let (request, response) = (self.text(&format!("{number}.req")), self.text(&format!("{number}.resp")));
        fs::write(&request, question).unwrap();
        let index = match manner {
            OcspManner::Revoked => "revoked.txt",
            OcspManner::Unknown => "unknown.txt",
            _ => "good.txt",
        };
        let signer = match manner {
            OcspManner::Delegated => "delegated",
            OcspManner::WrongPurpose => "wrong",
            OcspManner::Stranger => "stranger",
            _ => "ca",
        };
        let (index, ca) = (self.text(index), self.text("ca.pem"));
        let (signer, key) = (self.text(&format!("{signer}.pem")), self.text(&format!("{signer}.key")));
        let command = ["ocsp", "-index", &index, "-CA", &ca, "-rsigner", &signer, "-rkey", &key, "-reqin", &request, "-respout", &response];
        let validity: &[&str] = if manner == OcspManner::Old { &["-nmin", "1", "-status_age", "1"] } else { &["-ndays", "7"] };
        openssl_ok([&command[..], if manner == OcspManner::Old { &[] } else { validity }].concat());
        let answer = fs::read(response).unwrap();
        self.first_answer.lock().unwrap().get_or_insert_with(|| answer.clone());
        answer
    }

    async fn serve(self: Arc<Self>, mut stream: TcpStream) -> Option<()> {
        loop {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.ok()?);
            }
            let head = String::from_utf8(head).unwrap();
            self.requests.fetch_add(1, Ordering::SeqCst);
            let path = head.split(' ').nth(1).unwrap().to_owned();
            let (content_type, body) = if head.starts_with("POST /ocsp ") {
                assert!(head.to_ascii_lowercase().contains("content-type: application/ocsp-request"), "{head}");
                let head = head.to_ascii_lowercase();
                let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next()).unwrap().parse().unwrap();
                let mut question = vec![0; length];
                stream.read_exact(&mut question).await.ok()?;
                let (this, manner) = (Arc::clone(&self), *self.manner.lock().unwrap());
                let body = tokio::task::spawn_blocking(move || this.answer(manner, &question)).await.unwrap();
                ("application/ocsp-response", Some(body))
            } else {
                ("application/pkix-crl", self.files.lock().unwrap().get(&path).cloned())
            };
            let status = if body.is_some() { "200 OK" } else { "404 Not Found" };
            let body = body.unwrap_or_default();
            let head = format!("HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n", body.len());
            stream.write_all(head.as_bytes()).await.ok()?;
            stream.write_all(&body).await.ok()?;
        }
    }
}

/// A file of the test's own.
pub fn file(dir: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, bytes).unwrap();
    path
}
