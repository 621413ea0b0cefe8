//! The real program under trouble: a module that hangs beside one that works, a child killed under load, PINs that are wrong. Real SoftHSM,
//! real HTTP; the token-side truth is OpenSC's spy around the module.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use common::{
    program::{Gateway, dev_json, path_in},
    softhsm::{SoftHsm, spy_count, spy_module},
};
use pkcs11_faults::{
    bench::Bench,
    fault::{Crash, Fault},
    function::Function,
    log::Log,
    module_path,
};
use reqwest::{Method, RequestBuilder, StatusCode};
use sealgate::domain::hash::digest;
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// After so long a test that waits for an event has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// One token that development mode made, to be served beside others.
struct MadeToken {
    directory: tempfile::TempDir,
    token_uri: String,
    key_uri: String,
    pin: String,
}

impl MadeToken {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let gateway = Gateway::dev(directory.path());
        let dev = dev_json(directory.path());
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let key = dev["keys"].as_array().unwrap().iter().find(|key| key["name"] == "ec-p256").unwrap();
        let made = Self { token_uri: text(&dev["token_uri"]), key_uri: text(&key["uri"]), pin: text(&dev["user_pin"]), directory };
        assert_eq!(path_in(&dev["softhsm2_conf"]), made.softhsm_conf());
        gateway.stop();
        made
    }

    fn softhsm_conf(&self) -> PathBuf {
        self.directory.path().join("softhsm2.conf")
    }
}

/// A configuration with one module, token, key and caller for each token, all of the caller's name.
struct Setup {
    data: tempfile::TempDir,
    text: String,
}

impl Setup {
    fn new() -> Self {
        let data = tempfile::tempdir().unwrap();
        let text = format!("data_dir = \"{}\"\n[[listener]]\naddress = \"127.0.0.1:0\"\n", data.path().join("data").display());
        Self { data, text }
    }

    /// A token behind `pkcs11-faults`, with its bench in this process.
    fn add_behind_faults(self, name: &str, token: &MadeToken, login: &str) -> (Self, Bench) {
        let bench = Bench::start(self.data.path()).unwrap();
        let environment = bench.environment(&SoftHsm::module());
        let variables: String =
            environment.into_iter().map(|(variable, value)| format!(", {} = \"{}\"", variable, value.to_string_lossy())).collect();
        (self.add_module(name, token, login, &module_path().unwrap(), &variables), bench)
    }

    /// `login` is the rest of the `[[token]]` section.
    fn add(self, name: &str, token: &MadeToken, login: &str, spy_log: Option<&Path>) -> Self {
        let (module, spy) = match spy_log {
            None => (SoftHsm::module(), String::new()),
            Some(log) => {
                let (spied, log) = (SoftHsm::module(), log.display());
                (spy_module(), format!(", PKCS11SPY = \"{}\", PKCS11SPY_OUTPUT = \"{log}\"", spied.display()))
            }
        };
        self.add_module(name, token, login, &module, &spy)
    }

    fn add_module(mut self, name: &str, token: &MadeToken, login: &str, module: &Path, variables: &str) -> Self {
        let hash = hex::encode(digest(sealgate::domain::algorithm::HashAlgorithm::Sha256, api_key(name).as_bytes()).as_bytes());
        write!(
            self.text,
            "[[module]]\nname = \"{name}\"\npath = \"{module}\"\nenv = {{ SOFTHSM2_CONF = \"{conf}\"{variables} }}\n\
             [[token]]\nuri = \"{token_uri}\"\n{login}\n\
             [[key]]\nname = \"{name}\"\nuri = \"{key_uri}\"\n\
             [[caller]]\nname = \"{name}\"\napi_key_sha256 = \"{hash}\"\nkeys = [\"*\"]\ndefault_key = \"{name}\"\nconsent = \"auto\"\n",
            module = module.display(),
            conf = token.softhsm_conf().display(),
            token_uri = token.token_uri,
            key_uri = token.key_uri,
        )
        .unwrap();
        self
    }

    fn configured(&self, pin: &str) -> String {
        let name = hex::encode(digest(sealgate::domain::algorithm::HashAlgorithm::Sha256, pin.as_bytes()).as_bytes());
        let file = self.data.path().join(format!("pin-{}", &name[..8]));
        fs::write(&file, pin).unwrap();
        fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        format!("login = \"configured\"\npin = {{ file = \"{}\" }}", file.display())
    }

    /// The rest of the only `[[token]]` section.
    fn login(&self) -> String {
        let begin = self.text.find("\nlogin = ").unwrap() + 1;
        let end = self.text[begin..].find("\n[[key]]").unwrap();
        self.text[begin..begin + end].to_owned()
    }

    fn spy_log(&self) -> PathBuf {
        self.data.path().join("spy.log")
    }

    fn serve(&self) -> Served {
        let config = self.data.path().join("sealgate.toml");
        fs::write(&config, &self.text).unwrap();
        let gateway = Gateway::serve(&config);
        let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
        Served { client: Arc::new(Client { url: gateway.url.clone(), http }), gateway, config }
    }
}

struct Served {
    gateway: Gateway,
    client: Arc<Client>,
    config: PathBuf,
}

impl Served {
    /// The process of this module.
    fn child(&self, module: &str) -> u32 {
        let hosts = |pid: &u32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split(|byte| *byte == 0).any(|word| word == module.as_bytes())
        };
        self.gateway.children().into_iter().find(hosts).expect("the module's process")
    }

    fn unlock(&self, token: &MadeToken, pin: &str) -> bool {
        let file = self.config.with_file_name("typed-pin");
        fs::write(&file, pin).unwrap();
        fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let mut command = common::program::sealgate();
        command.args(["unlock", "--config"]).arg(&self.config).arg("--pin-file").arg(&file).arg(&token.token_uri);
        command.status().unwrap().success()
    }
}

struct Client {
    url: String,
    http: reqwest::Client,
}

/// What came of a signature that was asked for.
#[derive(Debug, PartialEq, Eq)]
enum Came {
    Signed,
    Refused(StatusCode, String),
}

impl Client {
    fn request(&self, caller: &str, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}/api/v1{path}", self.url)).bearer_auth(api_key(caller))
    }

    /// The whole way of one signature, as a client that never polls goes it.
    async fn sign(&self, caller: &str, pin: Option<&str>) -> Came {
        let created: Value = self.request(caller, Method::POST, "/ticket").send().await.unwrap().json().await.unwrap();
        let ticket = format!("/ticket/{}", created["ticketUuid"].as_str().unwrap_or_else(|| panic!("{created}")));
        let uploaded = self.request(caller, Method::POST, &format!("{ticket}/data")).json(&json!({ "base64Data": "aGVsbG8=" }));
        assert_eq!(uploaded.send().await.unwrap().status(), 200);
        let creator = self.request(caller, Method::POST, &format!("{ticket}/ds/creator"));
        let creator = if let Some(pin) = pin { creator.json(&json!({ "keyStorePassword": pin })) } else { creator };
        let started = creator.send().await.unwrap();
        let came = if started.status() == 200 {
            let fetched = self.request(caller, Method::GET, &format!("{ticket}/ds/data")).send().await.unwrap();
            if fetched.status() == 200 { Came::Signed } else { Came::Refused(fetched.status(), fetched.text().await.unwrap()) }
        } else {
            Came::Refused(started.status(), started.text().await.unwrap())
        };
        assert_eq!(self.request(caller, Method::DELETE, &ticket).send().await.unwrap().status(), 200);
        came
    }

    async fn until_signed(&self, caller: &str) {
        let mut last = Came::Signed;
        let signed = async {
            loop {
                last = self.sign(caller, None).await;
                if last == Came::Signed {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        let in_time = tokio::time::timeout(PATIENCE, signed).await;
        assert!(in_time.is_ok(), "the token does not sign: {last:?}");
    }
}

fn api_key(caller: &str) -> String {
    format!("{caller:x<38}").replace(['-', '_'], "x")
}

fn signal(name: &str, pid: u32) {
    assert!(Command::new("kill").args([name, &pid.to_string()]).status().unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_one_module_hangs_the_clients_of_another_are_served() {
    let (left, right) = (MadeToken::new(), MadeToken::new());
    let setup = Setup::new();
    let (login_left, login_right) = (setup.configured(&left.pin), setup.configured(&right.pin));
    let setup = setup.add("left", &left, &login_left, None).add("right", &right, &login_right, None);
    let served = setup.serve();
    served.client.until_signed("left").await;
    served.client.until_signed("right").await;
    let child = served.child("left");
    signal("-STOP", child);
    let waiting = Arc::new(AtomicUsize::new(0));
    let mut hanging = JoinSet::new();
    for _ in 0..10 {
        let (client, waiting) = (Arc::clone(&served.client), Arc::clone(&waiting));
        hanging.spawn(async move {
            let came = client.sign("left", None).await;
            waiting.fetch_add(1, Ordering::SeqCst);
            came
        });
    }
    for _ in 0..30 {
        assert_eq!(served.client.sign("right", None).await, Came::Signed);
    }
    assert_eq!(waiting.load(Ordering::SeqCst), 0, "a signature came from a module that was stopped");
    signal("-CONT", child);
    while let Some(came) = hanging.join_next().await {
        assert_eq!(came.unwrap(), Came::Signed);
    }
    let (status, log) = served.gateway.stop();
    assert!(status.success(), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_module_killed_under_load_comes_back_and_its_clients_sign_on() {
    let token = MadeToken::new();
    let setup = Setup::new();
    let login = setup.configured(&token.pin);
    let setup = setup.add("killed", &token, &login, None);
    let served = setup.serve();
    served.client.until_signed("killed").await;
    let stop = Arc::new(AtomicBool::new(false));
    let signed = Arc::new(AtomicUsize::new(0));
    let mut clients = JoinSet::new();
    for _ in 0..8 {
        let (client, stop, signed) = (Arc::clone(&served.client), Arc::clone(&stop), Arc::clone(&signed));
        clients.spawn(async move {
            while !stop.load(Ordering::SeqCst) {
                match client.sign("killed", None).await {
                    Came::Signed => drop(signed.fetch_add(1, Ordering::SeqCst)),
                    // In doubt: it was in C_Sign. Or the token was away when it was asked for.
                    Came::Refused(status, text) => assert!(status == 500 || status == 503, "{status} {text}"),
                }
            }
        });
    }
    for _ in 0..3 {
        let before = signed.load(Ordering::SeqCst);
        let enough = async {
            while signed.load(Ordering::SeqCst) < before + 50 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, enough).await.expect("clients do not sign on");
        let child = served.child("killed");
        signal("-KILL", child);
        let status = served.client.request("killed", Method::GET, "/token/connected").send().await.unwrap().status();
        assert_eq!(status, 200, "the gateway answers on");
    }
    served.client.until_signed("killed").await;
    stop.store(true, Ordering::SeqCst);
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
    let (status, log) = served.gateway.stop();
    assert!(status.success(), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_asks_for_a_key_while_its_module_dies_is_told_to_come_again() {
    let token = MadeToken::new();
    let setup = Setup::new();
    let login = setup.configured(&token.pin);
    let (setup, bench) = setup.add_behind_faults("dying", &token, &login);
    let mut served = setup.serve();
    served.client.until_signed("dying").await;
    let control = bench.control();
    // What is known of its keys is not relied on after that, and whenever somebody looks for them it dies.
    control.remove(None).unwrap();
    served.gateway.wait_for(" let go: ");
    let armed = control.arm(Fault::on(Function::C_FindObjectsInit).every_time().crashes(Crash::Exit(3))).unwrap();
    control.insert(None).unwrap();
    served.gateway.wait_for(": ready");
    let met = async {
        while control.status().unwrap().faults.iter().find(|fault| fault.id == armed).unwrap().met < 3 {
            let Came::Refused(status, text) = served.client.sign("dying", None).await else { panic!("signed without a look for the key") };
            assert_eq!(status, 503, "{text}");
        }
    };
    tokio::time::timeout(PATIENCE, met).await.expect("nobody looks for keys");
    control.disarm(armed).unwrap();
    served.client.until_signed("dying").await;
    served.gateway.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_configured_pin_costs_one_try_over_fifty_requests_and_three_restarts() {
    let token = MadeToken::new();
    let setup = Setup::new();
    let (login, log) = (setup.configured("99999999"), setup.spy_log());
    let setup = setup.add("wrong", &token, &login, Some(&log));
    for _ in 0..4 {
        let mut served = setup.serve();
        served.gateway.wait_for(": PIN rejected");
        for _ in 0..50 {
            let Came::Refused(status, _) = served.client.sign("wrong", None).await else { panic!("signed with a wrong PIN") };
            assert_eq!(status, 503);
        }
        served.gateway.stop();
    }
    assert_eq!(spy_count(&log, "C_Login"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_pin_on_an_unlocked_slot_is_refused_without_the_token_being_asked() {
    let token = MadeToken::new();
    let setup = Setup::new();
    let login = setup.configured(&token.pin);
    let (setup, _bench) = setup.add_behind_faults("open", &token, &login);
    let log = setup.data.path().join("token.log");
    let served = setup.serve();
    served.client.until_signed("open").await;
    let signed = || Log::read(&log).unwrap().signings().len();
    let before = signed();
    for _ in 0..10 {
        let Came::Refused(status, text) = served.client.sign("open", Some("00000000")).await else { panic!("signed with a wrong PIN") };
        assert_eq!(status, 500);
        assert!(!text.contains("00000000"), "{text}");
    }
    // What the token itself was asked: a module that a busy machine made look stuck logs in again, with the right PIN.
    assert_eq!((Log::read(&log).unwrap().wrong_pins(), signed()), (0, before));
    assert_eq!(served.client.sign("open", Some(&token.pin)).await, Came::Signed);
    served.gateway.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_callers_wrong_pin_on_a_locked_slot_costs_one_try_and_others_sign_after_the_unlock() {
    let token = MadeToken::new();
    let setup = Setup::new();
    let log = setup.spy_log();
    let setup = setup.add("asks", &token, "login = \"per-request\"", Some(&log));
    let mut served = setup.serve();
    served.gateway.wait_for(": present");
    for wrong in ["00000000", "00000001", "00000002"] {
        let Came::Refused(status, text) = served.client.sign("asks", Some(wrong)).await else { panic!("signed with a wrong PIN") };
        assert_eq!(status, 500, "{text}");
    }
    assert_eq!(spy_count(&log, "C_Login"), 1);
    assert!(served.unlock(&token, &token.pin));
    assert_eq!(served.client.sign("asks", Some(&token.pin)).await, Came::Signed);
    served.gateway.stop();
}

/// The program, run to its end beside a gateway or without one. What it says must not be the PIN.
fn run_verb(config: &Path, arguments: &[&str]) {
    let output = common::program::sealgate().args(arguments).arg("--config").arg(config).output().unwrap();
    let said = format!("{}{}", common::program::stdout(&output), common::program::stderr(&output));
    assert!(!said.contains(WRONG), "{arguments:?}: {said}");
}

const WRONG: &str = "99999999";

impl Served {
    /// Sends the PIN by every way that the gateway has for one.
    async fn bring(&self, caller: &str, token: &MadeToken, pin: &str) {
        let client = &self.client;
        for _ in 0..8 {
            assert!(matches!(client.sign(caller, Some(pin)).await, Came::Refused(..)), "signed with a wrong PIN");
            assert!(matches!(client.sign(caller, None).await, Came::Refused(..)), "signed with no PIN");
        }
        let created: Value = client.request(caller, Method::POST, "/ticket").send().await.unwrap().json().await.unwrap();
        let ticket = format!("/ticket/{}", created["ticketUuid"].as_str().unwrap());
        let password = json!({ "keyStorePassword": pin });
        for call in ["verifier", "certificate/info/signature", "certificate/base64/signature"] {
            client.request(caller, Method::PUT, &format!("{ticket}/keyStore/{call}")).json(&password).send().await.unwrap();
        }
        let bulk = json!({ "keyStorePassword": pin, "dataToSign": ["qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqo="] });
        client.request(caller, Method::POST, &format!("{ticket}/ds/creator/data.bulk")).json(&bulk).send().await.unwrap();
        assert!(!self.unlock(token, pin), "unlocked with a wrong PIN");
        let http = reqwest::Client::builder().unix_socket(self.config.with_file_name("data").join("control.sock")).build().unwrap();
        let order = json!({ "uri": token.token_uri, "pin": pin, "insist": true }).to_string();
        let ordered = http.post("http://gateway/unlock").body(order).send().await.unwrap();
        assert_eq!(ordered.status(), 409);
        for verb in [&["slots"][..], &["keys"], &["doctor"]] {
            run_verb(&self.config, verb);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_pin_is_tried_once_by_all_who_bring_it_in_every_login_mode_over_replugs_and_restarts() {
    let token = MadeToken::new();
    let setup = Setup::new();
    let configured = setup.configured(WRONG);
    let (mut setup, bench) = setup.add_behind_faults("wrong", &token, &configured);
    let (control, log) = (bench.control(), setup.data.path().join("token.log"));
    let config = setup.data.path().join("sealgate.toml");
    let tried = || Log::read(&log).unwrap().wrong_pins();
    let modes = [
        (configured.as_str(), ": PIN rejected"),
        ("login = \"per-request\"", ": present"),
        ("login = \"operator\"", ": needs PIN"),
        (configured.as_str(), ": PIN rejected"),
    ];
    for (login, at_rest) in modes {
        setup.text = setup.text.replace(&setup.login(), login);
        let mut served = setup.serve();
        served.gateway.wait_for(at_rest);
        served.bring("wrong", &token, WRONG).await;
        control.remove(None).unwrap();
        served.gateway.wait_for(" let go: ");
        control.insert(None).unwrap();
        served.gateway.wait_for(at_rest);
        served.bring("wrong", &token, WRONG).await;
        let (status, said) = served.gateway.stop();
        assert!(status.success() && !said.contains(WRONG), "{said}");
        // Without a gateway these log in themselves.
        for verb in [&["slots"][..], &["keys"], &["doctor"]] {
            run_verb(&config, verb);
        }
        assert_eq!(tried(), 1, "{login}");
    }
    // The right one is still let in.
    let mut served = setup.serve();
    served.gateway.wait_for(": PIN rejected");
    assert!(served.unlock(&token, &token.pin));
    assert_eq!(served.client.sign("wrong", None).await, Came::Signed);
    served.gateway.stop();
    assert_eq!(tried(), 1);
}
