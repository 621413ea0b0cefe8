//! A time-stamping authority made of `openssl ts`, behind a small HTTP server: it answers well, or badly in the way that the test chooses.

use std::{
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
    sync::watch,
    task::JoinHandle,
};

use super::openssl::{openssl, openssl_ok};

/// How the authority answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    Good,
    /// For other data.
    WrongImprint,
    WrongNonce,
    /// Under a policy of its own, whatever is asked for.
    OtherPolicy,
    /// Refuses: the hash function is not one of its own.
    Rejection,
    /// Signed with a certificate for documents.
    NoPurpose,
    /// Signed with a certificate for time stamping and code signing.
    TwoPurposes,
    /// Signed with a certificate whose purpose is not critical.
    PurposeNotCritical,
    /// A good answer of which one byte of the signature was changed.
    BrokenSignature,
    /// Names its certificate by SHA-1, as older authorities do.
    OldSigningCertificate,
    Garbage,
    Empty,
    /// More bytes than anybody takes.
    Endless,
    ContentType,
    HttpStatus,
    /// Reads the request and never answers.
    Silent,
    /// Closes the connection.
    HangsUp,
}

impl Manner {
    pub const BAD: [Self; 14] = [
        Self::WrongImprint,
        Self::WrongNonce,
        Self::OtherPolicy,
        Self::Rejection,
        Self::NoPurpose,
        Self::TwoPurposes,
        Self::PurposeNotCritical,
        Self::BrokenSignature,
        Self::Garbage,
        Self::Empty,
        Self::Endless,
        Self::ContentType,
        Self::HttpStatus,
        Self::HangsUp,
    ];
}

/// A running authority.
pub struct TestTsa {
    lab: Arc<TsaLab>,
    manner: Arc<Mutex<Manner>>,
    requests: watch::Receiver<usize>,
    pub url: String,
    server: JoinHandle<()>,
}

/// Its CA, certificates and keys.
pub struct TsaLab {
    dir: TempDir,
    calls: AtomicUsize,
}

const CONFIG: &str = "
[req]
distinguished_name = dn
[dn]
[ca]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[good]
keyUsage = critical, digitalSignature
extendedKeyUsage = critical, timeStamping
[two]
keyUsage = critical, digitalSignature
extendedKeyUsage = critical, timeStamping, codeSigning
[lax]
keyUsage = critical, digitalSignature
extendedKeyUsage = timeStamping
[none]
keyUsage = critical, digitalSignature
";

impl TsaLab {
    pub fn new() -> Self {
        let lab = Self { dir: tempfile::tempdir().unwrap(), calls: AtomicUsize::new(0) };
        fs::write(lab.path("openssl.cnf"), CONFIG).unwrap();
        lab.request("ca", &["-x509", "-days", "7300", "-extensions", "ca", "-subj", "/CN=Time CA"]);
        for kind in ["good", "two", "lax", "none"] {
            lab.request(kind, &["-x509", "-days", "3650", "-extensions", kind, "-subj", &format!("/CN=TSA {kind}")]);
        }
        lab.responder("good", "good", "sha256, sha384, sha512", "sha256");
        lab.responder("old", "good", "sha256, sha384, sha512", "sha1");
        lab.responder("rejecting", "good", "sha1", "sha256");
        lab
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// The certificate that everything comes from, in PEM.
    pub fn ca(&self) -> PathBuf {
        self.path("ca.pem")
    }

    fn request(&self, name: &str, arguments: &[&str]) {
        let (config, key, certificate) = (self.text("openssl.cnf"), self.text(&format!("{name}.key")), self.text(&format!("{name}.pem")));
        let (ca, ca_key) = (self.text("ca.pem"), self.text("ca.key"));
        let mut command = vec!["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-config", &config];
        command.extend(["-keyout", &key, "-out", &certificate]);
        if name != "ca" {
            command.extend(["-CA", &ca, "-CAkey", &ca_key]);
        }
        openssl_ok([&command[..], arguments].concat());
    }

    fn responder(&self, name: &str, signer: &str, digests: &str, ess: &str) {
        let dir = self.dir.path().display();
        let text = format!(
            "[tsa]\ndefault_tsa = one\n[one]\nserial = {dir}/serial\nsigner_cert = {dir}/{signer}.pem\nsigner_key = {dir}/{signer}.key\n\
             certs = {dir}/ca.pem\ndefault_policy = 1.2.3.4.1\nother_policies = 1.2.3.4.2\ndigests = {digests}\naccuracy = secs:1\n\
             ess_cert_id_chain = no\ness_cert_id_alg = {ess}\nsigner_digest = sha256\n"
        );
        fs::write(self.path(&format!("{name}.cnf")), text).unwrap();
    }

    /// What `openssl ts -reply` answers, in this manner.
    pub fn reply(&self, manner: Manner, query: &[u8]) -> Vec<u8> {
        let mut query = query.to_vec();
        match manner {
            Manner::WrongImprint => flip(&mut query, &[0x04, 0x20]),
            Manner::WrongNonce => flip(&mut query, &[0x02, 0x08]),
            Manner::OtherPolicy => {
                // 1.2.3.4.1 becomes 1.2.3.4.2.
                let at = query.windows(5).rposition(|window| window == [0x04, 0x2a, 0x03, 0x04, 0x01]).expect("a policy");
                query[at + 4] = 2;
            }
            _ => {}
        }
        let config = match manner {
            Manner::Rejection => "rejecting",
            Manner::OldSigningCertificate => "old",
            _ => "good",
        };
        let number = self.calls.fetch_add(1, Ordering::SeqCst);
        let (query_file, out) = (self.text(&format!("{number}.tsq")), self.text(&format!("{number}.tsr")));
        fs::write(&query_file, query).unwrap();
        let config = self.text(&format!("{config}.cnf"));
        let command = ["ts", "-reply", "-config", &config, "-queryfile", &query_file, "-out", &out];
        let output = openssl(command);
        let mut answer = fs::read(&out).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
        match manner {
            Manner::BrokenSignature => *answer.last_mut().unwrap() ^= 1,
            Manner::NoPurpose => answer = self.signed_otherwise(&out, "none"),
            Manner::TwoPurposes => answer = self.signed_otherwise(&out, "two"),
            Manner::PurposeNotCritical => answer = self.signed_otherwise(&out, "lax"),
            _ => {}
        }
        answer
    }

    /// The answer in a file, signed by somebody with whose certificate `openssl ts` itself refuses to sign.
    fn signed_otherwise(&self, answer: &str, signer: &str) -> Vec<u8> {
        let (token, info, made) = (format!("{answer}.token"), format!("{answer}.info"), format!("{answer}.made"));
        let (certificate, key, ca) = (self.text(&format!("{signer}.pem")), self.text(&format!("{signer}.key")), self.text("ca.pem"));
        openssl_ok(["ts", "-reply", "-in", answer, "-token_out", "-out", &token]);
        openssl_ok(["cms", "-verify", "-noverify", "-inform", "DER", "-in", &token, "-out", &info]);
        let sign =
            ["cms", "-sign", "-binary", "-nodetach", "-nosmimecap", "-cades", "-md", "sha256", "-econtent_type", "id-smime-ct-TSTInfo"];
        let files = ["-in", &info, "-signer", &certificate, "-inkey", &key, "-certfile", &ca, "-outform", "DER", "-out", &made];
        openssl_ok([&sign[..], &files].concat());
        let status = [0x30, 3, 2, 1, 0];
        let token = fs::read(made).unwrap();
        let len = u16::try_from(status.len() + token.len()).unwrap().to_be_bytes();
        [&[0x30, 0x82, len[0], len[1]], &status[..], &token].concat()
    }
}

/// Changes the byte in the middle of the value whose header is `header`.
fn flip(bytes: &mut [u8], header: &[u8]) {
    let at = bytes.windows(header.len()).rposition(|window| window == header).expect("the value is there");
    bytes[at + header.len() + 3] ^= 1;
}

impl TestTsa {
    pub async fn start(lab: Arc<TsaLab>, manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/tsp", listener.local_addr().unwrap());
        let (seen, requests) = watch::channel(0);
        let manner = Arc::new(Mutex::new(manner));
        let (shared, of_server) = (Arc::clone(&manner), Arc::clone(&lab));
        let server = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (manner, lab, seen) = (Arc::clone(&shared), Arc::clone(&of_server), seen.clone());
                tokio::spawn(async move { serve(stream, &manner, &lab, &seen).await });
            }
        });
        Self { lab, manner, requests, url, server }
    }

    pub fn set(&self, manner: Manner) {
        *self.manner.lock().unwrap() = manner;
    }

    pub fn lab(&self) -> &TsaLab {
        &self.lab
    }

    /// How many requests have come.
    pub fn requests(&self) -> usize {
        *self.requests.borrow()
    }

    /// Waits until so many requests have come.
    pub async fn wait_for_requests(&self, count: usize) {
        self.requests.clone().wait_for(|seen| *seen >= count).await.unwrap();
    }
}

impl Drop for TestTsa {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(mut stream: TcpStream, manner: &Mutex<Manner>, lab: &Arc<TsaLab>, seen: &watch::Sender<usize>) -> Option<()> {
    loop {
        let query = read_request(&mut stream).await?;
        let manner = *manner.lock().unwrap();
        seen.send_modify(|seen| *seen += 1);
        if manner == Manner::HangsUp {
            return None;
        }
        if manner == Manner::Silent {
            // Until the client has had enough.
            while stream.read_u8().await.is_ok() {}
            return None;
        }
        let lab = Arc::clone(lab);
        let body = tokio::task::spawn_blocking(move || match manner {
            Manner::Garbage => b"this is no answer".to_vec(),
            Manner::Empty => Vec::new(),
            Manner::Endless => vec![0x30; 4 << 20],
            _ => lab.reply(manner, &query),
        });
        let body = body.await.unwrap();
        let content_type = if manner == Manner::ContentType { "text/html" } else { "application/timestamp-reply" };
        let status = if manner == Manner::HttpStatus { "503 Service Unavailable" } else { "200 OK" };
        let head = format!("HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).await.ok()?;
        stream.write_all(&body).await.ok()?;
    }
}

/// The body of the next request, which must be a `TimeStampReq` as RFC 3161 wants it sent.
async fn read_request(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    assert!(head.starts_with("post /tsp "), "{head}");
    assert!(head.contains("\r\ncontent-type: application/timestamp-query\r\n"), "{head}");
    assert!(head.contains("\r\naccept: application/timestamp-reply\r\n"), "{head}");
    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next()).unwrap().parse().unwrap();
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(body)
}

/// Whether OpenSSL takes `token` for a time stamp of `data`.
pub fn openssl_takes_token(dir: &Path, ca: &Path, token: &[u8], data: &[u8]) -> Result<(), String> {
    let (token_file, data_file) = (dir.join("token.der"), dir.join("stamped"));
    fs::write(&token_file, token).unwrap();
    fs::write(&data_file, data).unwrap();
    let output = openssl([
        "ts".as_ref(),
        "-verify".as_ref(),
        "-token_in".as_ref(),
        "-in".as_ref(),
        token_file.as_os_str(),
        "-data".as_ref(),
        data_file.as_os_str(),
        "-CAfile".as_ref(),
        ca.as_os_str(),
    ]);
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}
