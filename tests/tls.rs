//! TLS of the listeners: who gets in with which certificate, and new files under load.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use common::{
    gateway::{Answer, CI_KEY, Gateway, PAGE_ORIGIN, Plan, send},
    openssl::openssl_ok,
    program,
    tls::{Issued, TlsCa, client},
};
use reqwest::{Client, Identity, tls::TlsInfo};
use sealgate::{
    domain::{audit::Sha256, certificate::ClientCertificateId, timestamp::Timestamp, token::LoginMode},
    pki::{DevCa, Validity},
    token::fake::Script,
};
use serde_json::Value;

/// A gateway that speaks TLS, takes certificates of the client CA, and knows `page` by one of them.
struct Rig {
    server_ca: TlsCa,
    client_ca: TlsCa,
    gateway: Gateway,
}

impl Rig {
    async fn start(known_by: impl FnOnce(&TlsCa) -> ClientCertificateId) -> Self {
        let mut plan = Plan::scripted(&Script::new("tls"), LoginMode::Configured, &["seal"]);
        let dir = plan.directory.path().to_owned();
        let (server_ca, client_ca) = (TlsCa::new(&dir, "servers"), TlsCa::new(&dir, "clients"));
        // A second CA in the same file, whose certificates can be of any time.
        let bundle = dir.join("client-cas.pem");
        let old_ca = old_ca();
        fs::write(&bundle, [fs::read(client_ca.certificate()).unwrap(), old_ca.certificate().to_pem().into_bytes()].concat()).unwrap();
        fs::write(dir.join("old-ca.key"), old_ca.key_pem().unwrap().as_bytes()).unwrap();
        fs::write(dir.join("old-ca.der"), old_ca.certificate().as_der()).unwrap();
        plan.tls = Some(server_ca.server("gateway").listener(Some(&bundle)));
        plan.caller("page").certificate = Some(known_by(&client_ca));
        Self { server_ca, client_ca, gateway: plan.start().await }
    }

    fn dir(&self) -> &Path {
        self.gateway.directory.path()
    }

    fn client(&self, identity: Option<Identity>) -> Client {
        let builder = client(&self.server_ca);
        identity.into_iter().fold(builder, reqwest::ClientBuilder::identity).build().unwrap()
    }

    async fn features(&self, identity: Option<Identity>, key: Option<&str>, origin: Option<&str>) -> Answer {
        let request = self.client(identity).get(format!("{}/api/v1/features", self.gateway.urls[0]));
        let request = key.into_iter().fold(request, |request, key| request.bearer_auth(key));
        send(origin.into_iter().fold(request, |request, origin| request.header("origin", origin))).await
    }

    /// Whether the connection itself comes about with this certificate.
    async fn connects(&self, identity: Identity) -> bool {
        self.client(Some(identity)).get(format!("{}/healthz", self.gateway.urls[0])).send().await.is_ok()
    }

    /// A certificate of a CA that the gateway trusts, valid for two days beginning so many days ago.
    fn issued_ago(&self, days: u64) -> Identity {
        let ca =
            DevCa::load(&fs::read_to_string(self.dir().join("old-ca.key")).unwrap(), &fs::read(self.dir().join("old-ca.der")).unwrap());
        let key = self.dir().join("ago.key");
        let key = key.to_str().unwrap();
        openssl_ok(["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", key]);
        let spki = openssl_ok(["pkey", "-in", key, "-pubout", "-outform", "der"]);
        let certificate = ca.unwrap().issue(&spki, "erp", days_ago(days, 2)).unwrap();
        Identity::from_pem(&[certificate.to_pem().into_bytes(), fs::read(key).unwrap()].concat()).unwrap()
    }
}

fn days_ago(days: u64, len: u64) -> Validity {
    let day = |n: u64| Timestamp::from(SystemTime::now() - Duration::from_secs(n * 86_400));
    Validity::new(day(days), day(days).after(Duration::from_secs(len * 86_400))).unwrap()
}

fn old_ca() -> DevCa {
    DevCa::create("Old CA", days_ago(100, 200)).unwrap()
}

fn by_subject(_: &TlsCa) -> ClientCertificateId {
    ClientCertificateId::Subject("CN=erp,O=Example".parse().unwrap())
}

#[tokio::test]
async fn the_right_certificate_is_let_in_and_a_wrong_one_or_none_is_not() {
    let rig = Rig::start(by_subject).await;
    let erp = rig.client_ca.client("erp", "/O=Example/CN=erp");
    assert_eq!(rig.features(Some(erp.identity()), None, None).await.status, 200);
    // None, and one that names nobody: the API says so in its own form.
    assert_eq!(rig.features(None, None, None).await.status, 401);
    let other = rig.client_ca.client("other", "/O=Example/CN=other");
    assert_eq!(rig.features(Some(other.identity()), None, None).await.status, 401);
    let reordered = rig.client_ca.client("reordered", "/CN=erp/O=Example");
    assert_eq!(rig.features(Some(reordered.identity()), None, None).await.status, 401);
    // The same subject from a CA that is not the client CA: there is no connection at all.
    let forged = rig.server_ca.client("forged", "/O=Example/CN=erp");
    assert!(!rig.connects(forged.identity()).await);
    rig.gateway.stop().await;
}

#[tokio::test]
async fn an_expired_certificate_makes_no_connection() {
    let rig = Rig::start(|_| ClientCertificateId::Subject("CN=erp".parse().unwrap())).await;
    let current = rig.issued_ago(1);
    assert_eq!(rig.features(Some(current), None, None).await.status, 200);
    assert!(!rig.connects(rig.issued_ago(3)).await);
    rig.gateway.stop().await;
}

#[tokio::test]
async fn a_fingerprint_lets_one_certificate_in_and_no_other_of_its_subject() {
    let rig = Rig::start(|ca| {
        let der = ca.client("erp", "/O=Example/CN=erp").der();
        ClientCertificateId::Sha256(Sha256::of(&der))
    })
    .await;
    let dir = rig.dir();
    let erp = Issued { certificate: dir.join("clients-erp.pem"), key: dir.join("clients-erp.key") };
    assert_eq!(rig.features(Some(erp.identity()), None, None).await.status, 200);
    let namesake = rig.client_ca.client("namesake", "/O=Example/CN=erp");
    assert_eq!(rig.features(Some(namesake.identity()), None, None).await.status, 401);
    rig.gateway.stop().await;
}

#[tokio::test]
async fn keys_and_origins_count_over_tls_too_and_nobody_is_two_callers() {
    let rig = Rig::start(by_subject).await;
    let erp = || rig.client_ca.client("erp", "/O=Example/CN=erp").identity();
    let other = rig.client_ca.client("other", "/O=Example/CN=other");
    assert_eq!(rig.features(None, Some(CI_KEY), None).await.status, 200);
    assert_eq!(rig.features(Some(other.identity()), Some(CI_KEY), None).await.status, 200);
    assert_eq!(rig.features(Some(erp()), Some(CI_KEY), None).await.status, 401);
    assert_eq!(rig.features(Some(erp()), Some("wrong"), None).await.status, 401);
    assert_eq!(rig.features(Some(erp()), None, Some(PAGE_ORIGIN)).await.status, 200);
    assert_eq!(rig.features(Some(erp()), None, Some("https://evil.example")).await.status, 403);
    // Who is known by a certificate is not known by its origin alone.
    assert_eq!(rig.features(None, None, Some(PAGE_ORIGIN)).await.status, 401);
    rig.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_would_rather_speak_http_2_is_served_over_http_1() {
    let rig = Rig::start(by_subject).await;
    let erp = rig.client_ca.client("erp", "/O=Example/CN=erp");
    let (base, ca) = (format!("{}/api/v1", rig.gateway.urls[0]), rig.server_ca.certificate());
    let curl = |more: &[&str], path: &str| {
        let mut command = Command::new("curl");
        command.args(["-sS", "--http2", "-w", "\n%{http_version} %{http_code}"]).arg("--cacert").arg(&ca);
        command.arg("--cert").arg(&erp.certificate).arg("--key").arg(&erp.key).args(more).arg(format!("{base}{path}"));
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let (body, status) = text.rsplit_once('\n').unwrap();
        assert_eq!(status, "1.1 200", "{path}: {text}");
        body.to_owned()
    };
    tokio::task::block_in_place(|| {
        let created: Value = serde_json::from_str(&curl(&["-X", "POST"], "/ticket")).unwrap();
        let ticket = format!("/ticket/{}", created["ticketUuid"].as_str().unwrap());
        curl(&["-H", "Content-Type: application/octet-stream", "--data-binary", "hello"], &format!("{ticket}/data"));
        curl(&["-X", "POST"], &format!("{ticket}/ds/creator"));
        let fetched: Value = serde_json::from_str(&curl(&[], &format!("{ticket}/ds/base64Data"))).unwrap();
        assert!(fetched["base64Data"].as_str().unwrap().len() > 100, "{fetched}");
    });
    rig.gateway.stop().await;
}

/// Development mode's gateway, served again with TLS.
struct Served {
    _folder: tempfile::TempDir,
    ca: TlsCa,
    /// The files that the configuration names.
    files: Issued,
    config: PathBuf,
    gateway: program::Gateway,
    api_key: String,
}

impl Served {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("dev");
        let dev = program::Gateway::dev(&dir);
        let api_key = program::dev_json(&dir)["api_key"].as_str().unwrap().to_owned();
        assert!(dev.stop().0.success());
        let ca = TlsCa::new(folder.path(), "ca");
        let files = ca.server("served");
        let config = dir.join("sealgate.toml");
        let tls = format!("tls = {{ certificate = \"{}\", key = \"{}\" }}", files.certificate.display(), files.key.display());
        let text = fs::read_to_string(&config).unwrap();
        assert!(text.contains("[[listener]]\n"), "{text}");
        fs::write(&config, text.replace("[[listener]]\n", &format!("[[listener]]\n{tls}\n"))).unwrap();
        let gateway = program::Gateway::serve(&config);
        assert!(gateway.url.starts_with("https://"), "{}", gateway.url);
        Self { _folder: folder, ca, files, config, gateway, api_key }
    }

    /// Puts another certificate in the place of the one in use, and gives it back in DER.
    fn replace(&self, name: &str) -> Vec<u8> {
        let new = self.ca.server(name);
        fs::copy(&new.key, &self.files.key).unwrap();
        fs::copy(&new.certificate, &self.files.certificate).unwrap();
        new.der()
    }
}

/// The certificate of the connection over which this client gets an answer.
async fn shown(client: &Client, url: &str) -> Vec<u8> {
    let answer = client.get(format!("{url}/healthz")).send().await.unwrap();
    answer.extensions().get::<TlsInfo>().and_then(TlsInfo::peer_certificate).unwrap().to_vec()
}

/// Makes a signature the way most clients do; every answer must be a good one.
async fn sign(client: &Client, url: &str, key: &str) {
    let call = async |request: reqwest::RequestBuilder| {
        let answer = request.bearer_auth(key).send().await.unwrap_or_else(|error| panic!("a dropped request: {error:?}"));
        assert_eq!(answer.status(), 200);
        answer.bytes().await.unwrap_or_else(|error| panic!("a dropped answer: {error:?}"))
    };
    let base = format!("{url}/api/v1/ticket");
    let created: Value = serde_json::from_slice(&call(client.post(&base)).await).unwrap();
    let ticket = format!("{base}/{}", created["ticketUuid"].as_str().unwrap());
    call(client.post(format!("{ticket}/data")).body("hello")).await;
    call(client.post(format!("{ticket}/ds/creator"))).await;
    call(client.get(format!("{ticket}/ds/data"))).await;
    call(client.delete(&ticket)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn new_files_are_taken_under_load_without_a_dropped_request() {
    let mut served = Served::start();
    let (url, key) = (served.gateway.url.clone(), served.api_key.clone());
    let with_info = || client(&served.ca).tls_info(true);
    let standing = with_info().build().unwrap();
    let first = shown(&standing, &url).await;
    let (over, signed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let load: Vec<_> = [0, 0, 4, 4]
        .map(|kept| {
            // Two clients open a connection for each request, two keep theirs.
            let client = client(&served.ca).pool_max_idle_per_host(kept).build().unwrap();
            let (url, key, over, signed) = (url.clone(), key.clone(), Arc::clone(&over), Arc::clone(&signed));
            tokio::spawn(async move {
                while !over.load(Ordering::Relaxed) {
                    sign(&client, &url, &key).await;
                    signed.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .into_iter()
        .collect();
    for round in 0..5 {
        let before = signed.load(Ordering::Relaxed);
        let new = served.replace(&format!("round-{round}"));
        served.gateway.signal("HUP");
        served.gateway.wait_for("were read again");
        assert_eq!(shown(&with_info().build().unwrap(), &url).await, new);
        assert_eq!(shown(&standing, &url).await, first, "a connection that stands goes on");
        while signed.load(Ordering::Relaxed) < before + 8 && !load.iter().any(tokio::task::JoinHandle::is_finished) {
            tokio::task::yield_now().await;
        }
    }
    over.store(true, Ordering::Relaxed);
    for client in load {
        client.await.unwrap();
    }
    assert!(signed.load(Ordering::Relaxed) >= 40);
    let (status, log) = served.gateway.stop();
    assert!(status.success(), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn new_files_that_cannot_be_used_are_told_of_and_the_old_ones_stay() {
    let mut served = Served::start();
    let url = served.gateway.url.clone();
    let fresh = || client(&served.ca).tls_info(true).build().unwrap();
    let before = shown(&fresh(), &url).await;
    let (key, certificate) = (fs::read(&served.files.key).unwrap(), fs::read(&served.files.certificate).unwrap());
    let other = served.ca.server("other");
    for (broken, said) in [(&b"no key"[..], "does not hold an unencrypted private key"), (&fs::read(&other.key).unwrap(), "together")] {
        fs::write(&served.files.key, broken).unwrap();
        served.gateway.signal("HUP");
        let line = served.gateway.wait_for("the old ones stay");
        assert!(line.contains(said), "{line}");
        assert_eq!(shown(&fresh(), &url).await, before);
    }
    fs::write(&served.files.key, key).unwrap();
    fs::write(&served.files.certificate, certificate).unwrap();
    served.gateway.signal("HUP");
    served.gateway.wait_for("were read again");
    assert_eq!(shown(&fresh(), &url).await, before);
}

#[test]
fn sealgate_sign_speaks_tls_with_the_ca_that_it_is_given() {
    let served = Served::start();
    let file = served.files.certificate.with_file_name("letter.txt");
    fs::write(&file, "hello").unwrap();
    let sign = |more: &[&str]| {
        let mut command = program::sealgate();
        command.env("SEALGATE_API_KEY", &served.api_key).args(["sign", "--url", &served.gateway.url]).args(more).arg(&file);
        command.output().unwrap()
    };
    let ca = served.ca.certificate();
    let signed = sign(&["--ca", ca.to_str().unwrap()]);
    assert!(signed.status.success(), "{}", program::stderr(&signed));
    // Neither the system's CAs nor another one will do.
    assert_eq!(sign(&[]).status.code(), Some(1));
    let other = TlsCa::new(ca.parent().unwrap(), "another");
    let refused = sign(&["--ca", other.certificate().to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(program::stderr(&refused).contains("ertificate"), "{}", program::stderr(&refused));
}

#[test]
fn a_key_that_does_not_fit_its_certificate_starts_nothing() {
    let mut served = Served::start();
    let config = served.config.to_str().unwrap().to_owned();
    served.gateway.signal("TERM");
    served.gateway.wait();
    fs::copy(served.ca.server("other").key, &served.files.key).unwrap();
    let refused = program::run(["serve", "--config", &config]);
    assert!(program::stderr(&refused).contains("cannot be used together"), "{}", program::stderr(&refused));
    let doctor = program::run(["doctor", "--config", &config]);
    assert!(program::stdout(&doctor).contains("cannot be used together"), "{}", program::stdout(&doctor));
}

/// The commands of docs/tls.md up to those that talk to a gateway, in order.
fn commands_that_make_files() -> String {
    let page = include_str!("../docs/tls.md");
    let blocks = page.split("```sh\n").skip(1).map(|rest| rest.split_once("```").unwrap().0);
    blocks.filter(|block| block.starts_with("openssl")).collect()
}

#[tokio::test]
async fn the_commands_of_the_page_make_files_that_work() {
    let folder = tempfile::tempdir().unwrap();
    let bash = Command::new("bash").args(["-euc", &commands_that_make_files()]).current_dir(folder.path()).output().unwrap();
    assert!(bash.status.success(), "{}", program::stderr(&bash));
    let said = program::stdout(&bash);
    assert!(said.contains("subject=CN=erp,O=Example\n"), "{said}");
    let file = |name: &str| folder.path().join(name);
    let mut plan = Plan::new();
    let gateway = Issued { certificate: file("gateway.pem"), key: file("gateway.key") };
    plan.tls = Some(gateway.listener(Some(&file("ca.pem"))));
    plan.caller("page").certificate = Some(by_subject(&TlsCa::new(folder.path(), "unused")));
    let gateway = plan.start().await;
    let trusted = reqwest::Certificate::from_pem(&fs::read(file("ca.pem")).unwrap()).unwrap();
    let identity = Issued { certificate: file("erp.pem"), key: file("erp.key") }.identity();
    let client = Client::builder().no_proxy().tls_certs_only([trusted]).identity(identity).build().unwrap();
    assert_eq!(send(client.get(format!("{}/api/v1/features", gateway.urls[0]))).await.status, 200);
    gateway.stop().await;
}
