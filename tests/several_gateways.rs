//! Several gateways on one PostgreSQL database: the real program, real SoftHSM tokens, a real server that is stopped and started.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use common::{
    openssl::openssl,
    postgres::Postgres,
    program::{Gateway, dev_json, path_in, run, sealgate, stderr, stdout},
};
use sealgate::domain::audit::Sha256;
use tempfile::TempDir;

/// After so long a test that waits for an event has failed.
const PATIENCE: Duration = Duration::from_secs(90);
const API_KEY: &str = "several00000000000000000000000gateways";
const BANK_TOKEN: &str = "bank0000000000000000000000000000000000";

/// A SoftHSM token with keys and certificates, as development mode makes them.
struct Token {
    directory: TempDir,
    uri: String,
    key_uri: String,
    ca: PathBuf,
}

impl Token {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let maker = Gateway::dev(directory.path());
        let made = dev_json(directory.path());
        maker.stop();
        let key = made["keys"].as_array().unwrap().iter().find(|key| key["name"] == "ec-p256").unwrap();
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        Self { uri: text(&made["token_uri"]), key_uri: text(&key["uri"]), ca: path_in(&made["ca_certificate"]), directory }
    }

    fn softhsm_conf(&self) -> PathBuf {
        self.directory.path().join("softhsm2.conf")
    }
}

/// What gateways have in common: a database, and tokens whose keys are called `key-0`, `key-1` and so on at each of them.
struct Rig {
    server: Postgres,
    database: String,
    tokens: Vec<Token>,
    directory: TempDir,
    /// Where all of them keep long documents, if they do.
    spool: Option<PathBuf>,
    /// Whether a bank's client may ask for certificates, which development mode's CA issues.
    certifies: bool,
}

impl Rig {
    fn new(tokens: usize) -> Self {
        let server = Postgres::start_new();
        let database = server.new_database();
        Self {
            server,
            database,
            tokens: (0..tokens).map(|_| Token::new()).collect(),
            directory: tempfile::tempdir().unwrap(),
            spool: None,
            certifies: false,
        }
    }

    fn data_dir(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn config(&self, name: &str) -> PathBuf {
        self.directory.path().join(format!("{name}.toml"))
    }

    /// A gateway with this name, which has this token.
    fn gateway(&self, name: &str, token: usize) -> Gateway {
        self.gateway_of(name, &self.tokens[token].softhsm_conf())
    }

    /// A gateway with this name, and the tokens of this SoftHSM configuration.
    fn gateway_of(&self, name: &str, conf: &Path) -> Gateway {
        let module = dev_module();
        let spool = self.spool.as_ref().map(|folder| format!("spool_dir = {folder:?}\n")).unwrap_or_default();
        let hash = Sha256::of(API_KEY.as_bytes());
        let mut config = format!(
            "data_dir = {:?}\n[store]\nurl = {:?}\nname = {name:?}\n{spool}[[listener]]\naddress = \"127.0.0.1:0\"\n[[module]]\nname = \"softhsm\"\n\
             path = {module:?}\nenv = {{ SOFTHSM2_CONF = {conf:?} }}\n[[caller]]\nname = \"ci\"\napi_key_sha256 = \"{hash}\"\n\
             default_key = \"key-0\"\nconsent = \"auto\"\n",
            self.data_dir(name),
            self.database
        );
        for (n, token) in self.tokens.iter().enumerate() {
            let pin = token.directory.path().join("pin");
            config.push_str(&format!("[[token]]\nuri = {:?}\nlogin = \"configured\"\npin = {{ file = {pin:?} }}\n", token.uri));
            config.push_str(&format!("[[key]]\nname = \"key-{n}\"\nuri = {:?}\nchain = [{:?}]\n", token.key_uri, token.ca));
        }
        if self.certifies {
            config = format!("development = true\n{config}{}", self.certificate_requests());
        }
        fs::write(self.config(name), config).unwrap();
        Gateway::serve(&self.config(name))
    }

    /// The part of a configuration for certificate requests.
    fn certificate_requests(&self) -> String {
        let Token { uri, ca, directory, .. } = &self.tokens[0];
        let (key, hash) = (directory.path().join("ca-key.pem"), Sha256::of(BANK_TOKEN.as_bytes()));
        format!(
            "[[caller]]\nname = \"bank\"\napi_key_sha256 = \"{hash}\"\nscopes = [\"CRYPTO_CERT_REQUEST_EIO\"]\n\
             account = {{ login = \"director\", full_name = \"Иванов Иван\", organisation = \"Ромашка\", eio = true }}\n\
             [enrolment]\ndev_ca = {{ key = {key:?}, certificate = {ca:?} }}\n\
             [[enrolment.profile]]\nname = \"bank\"\ntoken = {uri:?}\nca = \"dev\"\napproval = \"auto\"\n\
             subject = [\"CN={{full_name}}\"]\nanchors = [{ca:?}]\n"
        )
    }

    /// A call of a bank's client; status and body.
    fn bank(&self, gateway: &str, path: &str, more: &[&str]) -> (String, String) {
        let url = format!("{gateway}/fintech/api/v1/crypto/cert-requests/eio{path}");
        let authorization = format!("Authorization: Bearer {BANK_TOKEN}");
        let fixed = ["-sS", "-w", "\n%{http_code}", "-H", &authorization, &url];
        let answer = stdout(&Command::new("curl").args(fixed).args(more).output().unwrap());
        let (body, status) = answer.rsplit_once('\n').unwrap();
        (status.to_owned(), body.to_owned())
    }

    /// A client that signs a document through a gateway.
    fn sign(&self, gateway: &Gateway, key: &str, n: usize) -> Signing {
        let document = self.directory.path().join(format!("document {n}"));
        let signature = self.directory.path().join(format!("signature {n}"));
        fs::write(&document, format!("document {n}")).unwrap();
        let mut command = sealgate();
        command.args(["sign", "--url", &gateway.url, "--key", key, "-o"]).arg(&signature).arg(&document).env("SEALGATE_API_KEY", API_KEY);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        Signing { child, document, signature }
    }

    /// A request to a gateway's ticket API; the answer's body.
    fn call(&self, gateway: &Gateway, method: &str, path: &str, more: &[&str]) -> Vec<u8> {
        let (url, authorization) = (format!("{}/api/v1{path}", gateway.url), format!("Authorization: Bearer {API_KEY}"));
        let output = Command::new("curl").args(["-sS", "--fail", "-X", method, "-H", &authorization, &url]).args(more).output().unwrap();
        assert!(output.status.success(), "{method} {path}: {}{}", stdout(&output), stderr(&output));
        output.stdout
    }

    fn sql(&self, sql: &str) -> String {
        self.server.sql(&self.database, sql)
    }

    /// What `sealgate slots` prints for a gateway.
    fn slots(&self, name: &str) -> String {
        let output = run(["slots".as_ref(), "--config".as_ref(), self.config(name).as_os_str()]);
        assert!(output.status.success(), "{}", stderr(&output));
        stdout(&output)
    }

    /// Carries the audit logs out of the database while the gateways run, and proves them; the looking leaves nothing behind.
    fn proves_both_audit_logs(&self) {
        let (config, export) = (self.config("a"), self.directory.path().join("audit.jsonl"));
        let exported = run(["audit", "export", "--config", config.to_str().unwrap(), "-o", export.to_str().unwrap()]);
        assert!(exported.status.success(), "{}", stderr(&exported));
        let head = run(["audit", "head", "--config", config.to_str().unwrap()]);
        assert_eq!(stdout(&head).lines().count(), 2, "one head a gateway: {}{}", stdout(&head), stderr(&head));
        let proved = run(["audit", "verify", export.to_str().unwrap(), "--json"]);
        let proved: serde_json::Value = serde_json::from_slice(&proved.stdout).unwrap_or_else(|_| panic!("{}", stderr(&proved)));
        assert_eq!((&proved["sound"], proved["chains"].as_array().map(Vec::len)), (&true.into(), Some(2)), "{proved}");
        let text = fs::read_to_string(&export).unwrap();
        fs::write(&export, text.replacen("\"event\":\"signed\"", "\"event\":\"singed\"", 1)).unwrap();
        assert_eq!(run(["audit", "verify", export.to_str().unwrap()]).status.code(), Some(1));
        assert_eq!(self.sql("SELECT count(*) FROM gateways"), "2");
    }

    /// Waits until a key can sign, as seen by a gateway.
    fn wait_for_key(&self, gateway: &Gateway, key: &str) {
        let url = format!("{}/readyz/key/{key}", gateway.url);
        wait(&format!("{key} at {}", gateway.url), || {
            let curl =
                Command::new("curl").args(["--silent", "--output", "/dev/null", "--write-out", "%{http_code}", &url]).output().unwrap();
            stdout(&curl) == "200"
        });
    }
}

/// A client that waits for its signature.
struct Signing {
    child: Child,
    document: PathBuf,
    signature: PathBuf,
}

impl Signing {
    /// What the client said when it failed; `None` if it got its signature, which OpenSSL accepts.
    fn failure(self, ca: &Path) -> Option<String> {
        let output = self.child.wait_with_output().unwrap();
        if !output.status.success() {
            return Some(stderr(&output));
        }
        let arguments = ["cms", "-verify", "-binary", "-inform", "DER", "-purpose", "any", "-out", "/dev/null", "-CAfile"].map(Into::into);
        let paths = [ca.as_os_str(), "-in".as_ref(), self.signature.as_os_str(), "-content".as_ref(), self.document.as_os_str()];
        let verified = openssl(arguments.iter().map(|text: &std::ffi::OsString| text.as_os_str()).chain(paths));
        assert!(verified.status.success(), "{}", stderr(&verified));
        None
    }

    fn succeeds(self, ca: &Path) {
        assert_eq!(self.failure(ca), None);
    }
}

fn dev_module() -> PathBuf {
    common::softhsm::SoftHsm::module()
}

/// Asks until it is so: what happens inside another program can only be asked for.
fn wait(what: &str, is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "not within {} s: {what}", PATIENCE.as_secs());
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn signal(pid: u32, signal: &str) {
    // Who has just ended needs no signal.
    let _ = Command::new("kill").args(["-s", signal, &pid.to_string()]).stderr(Stdio::null()).status();
}

/// Stops a gateway's modules where they stand, so that signatures that have begun do not end.
fn freeze_modules(gateway: &Gateway) -> Vec<u32> {
    let modules = gateway.children();
    modules.iter().for_each(|pid| signal(*pid, "STOP"));
    modules
}

/// Ends a gateway as a crash does, with its modules.
fn kill(mut gateway: Gateway, modules: &[u32]) {
    gateway.signal("KILL");
    modules.iter().for_each(|pid| signal(*pid, "KILL"));
    gateway.wait();
}

#[test]
fn a_client_of_one_gateway_gets_a_signature_of_another_ones_token() {
    let rig = Rig::new(2);
    let (a, b) = (rig.gateway("a", 0), rig.gateway("b", 1));
    for gateway in [&a, &b] {
        rig.wait_for_key(gateway, "key-0");
        rig.wait_for_key(gateway, "key-1");
    }
    rig.sign(&a, "key-1", 1).succeeds(&rig.tokens[1].ca);
    rig.sign(&b, "key-0", 2).succeeds(&rig.tokens[0].ca);
    rig.sign(&a, "key-0", 3).succeeds(&rig.tokens[0].ca);
    // Who signed has it in its own audit log.
    let signed_at = "SELECT string_agg(g.name || ':' || n, ' ' ORDER BY g.name) FROM gateways g JOIN \
                     (SELECT gateway, count(*) AS n FROM audit WHERE text LIKE '%\"event\":\"signed\"%' GROUP BY gateway) s ON s.gateway = g.id";
    assert_eq!(rig.sql(signed_at), "a:2 b:1");
    rig.proves_both_audit_logs();
    // A lease that a busy machine let lapse is announced again.
    wait("the other gateway's token is shown", || rig.slots("a").contains("at gateway b"));
    // Content that only one gateway could read is not taken.
    let big = rig.directory.path().join("document 4");
    let signing = rig.sign(&a, "key-0", 4);
    signing.succeeds(&rig.tokens[0].ca);
    fs::write(&big, vec![0; 3 << 20]).unwrap();
    let refused = sealgate()
        .args(["sign", "--url", &a.url, "--key", "key-0", "-o"])
        .arg(rig.directory.path().join("none"))
        .arg(&big)
        .env("SEALGATE_API_KEY", API_KEY)
        .output()
        .unwrap();
    assert!(!refused.status.success() && stderr(&refused).contains("413"), "{}", stderr(&refused));
    assert!(a.stop().0.success() && b.stop().0.success());
}

#[test]
fn of_two_gateways_that_activate_at_once_one_does_the_work_both_answer_and_the_key_signs_at_both() {
    const ID: &str = "0b2c6d6e-1111-4a31-8c3e-000000000001";
    let mut rig = Rig::new(1);
    rig.certifies = true;
    let a = rig.gateway("a", 0);
    rig.wait_for_key(&a, "key-0");
    let mut b = rig.gateway("b", 0);
    b.wait_until_said("gateway a has the token");
    let wanted = format!(
        r#"{{"externalId":"{ID}","email":"a@b.example","login":"director","number":"1","userName":"Иванов Иван","userPosition":"Директор"}}"#
    );
    // Keys are made by whoever has the token, and the same request again goes on there.
    let (status, refused) = rig.bank(&b.url, "", &["--json", &wanted]);
    assert_eq!(status, "503", "{refused}");
    let (status, created) = rig.bank(&a.url, "", &["--json", &wanted]);
    assert_eq!(status, "201", "{created}");
    wait("the certificate is issued", || rig.bank(&b.url, &format!("/{ID}/state"), &[]).1.contains("PUBLISHED_BY_BANK"));
    let path = format!("/{ID}/activate");
    let answers = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..8)
            .map(|n| {
                let (rig, gateway, path) = (&rig, if n % 2 == 0 { &a.url } else { &b.url }, &path);
                scope.spawn(move || rig.bank(gateway, path, &["-X", "POST"]))
            })
            .collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect::<Vec<_>>()
    });
    assert!(answers.iter().all(|answer| *answer == ("200".to_owned(), String::new())), "{answers:?}");
    let activated =
        "SELECT count(*) FROM audit WHERE text LIKE '%\"event\":\"certificate-request\"%' AND text LIKE '%\"step\":\"activated\"%'";
    assert_eq!(rig.sql(activated), "1");
    assert_eq!(rig.sql("SELECT count(*) FROM audit WHERE text LIKE '%proof of possession%'"), "1");
    for (n, gateway) in [&a, &b].into_iter().enumerate() {
        rig.wait_for_key(gateway, "director");
        rig.sign(gateway, "director", n).succeeds(&rig.tokens[0].ca);
    }
    assert!(a.stop().0.success() && b.stop().0.success());
}

#[test]
fn a_long_document_that_one_gateway_has_taken_is_read_and_signed_at_another_one() {
    let mut rig = Rig::new(2);
    rig.spool = Some(rig.directory.path().join("spool"));
    let (a, b) = (rig.gateway("a", 0), rig.gateway("b", 1));
    rig.wait_for_key(&a, "key-1");
    rig.wait_for_key(&b, "key-1");
    let document = rig.directory.path().join("long");
    fs::write(&document, vec![0x5a; 3 << 20]).unwrap();
    let made: serde_json::Value = serde_json::from_slice(&rig.call(&a, "POST", "/ticket", &[])).unwrap();
    let ticket = format!("/ticket/{}", made["ticketUuid"].as_str().unwrap_or_else(|| panic!("{made}")));
    rig.call(&a, "PUT", &format!("{ticket}/keyStore"), &["--json", r#"{"keyStorePath":"key-1"}"#]);
    rig.call(&a, "PUT", &format!("{ticket}/option"), &["--json", r#"{"signatureType":"attached"}"#]);
    let body = format!("@{}", document.display());
    rig.call(&a, "POST", &format!("{ticket}/data"), &["-H", "Content-Type: application/octet-stream", "--data-binary", &body]);
    assert_eq!(fs::read_dir(rig.spool.as_ref().unwrap()).unwrap().count(), 2, "the document and the lock");
    rig.call(&b, "POST", &format!("{ticket}/ds/creator"), &[]);
    let answer = rig.call(&b, "GET", &format!("{ticket}/ds/data"), &["-H", "Accept: application/octet-stream"]);
    let (signature, read) = (rig.directory.path().join("signature"), rig.directory.path().join("read"));
    fs::write(&signature, answer).unwrap();
    let arguments = ["cms", "-verify", "-binary", "-inform", "DER", "-purpose", "any", "-CAfile"].map(std::ffi::OsStr::new);
    let paths = [rig.tokens[1].ca.as_os_str(), "-in".as_ref(), signature.as_os_str(), "-out".as_ref(), read.as_os_str()];
    let verified = openssl(arguments.into_iter().chain(paths));
    assert!(verified.status.success(), "{}", stderr(&verified));
    assert!(fs::read(&read).unwrap() == fs::read(&document).unwrap(), "what was signed is what was uploaded");
    let signed_at =
        "SELECT string_agg(g.name, ' ') FROM audit a JOIN gateways g ON g.id = a.gateway WHERE text LIKE '%\"event\":\"signed\"%'";
    assert_eq!(rig.sql(signed_at), "b");
    // Whoever deletes it, it is gone for all.
    rig.call(&b, "DELETE", &ticket, &[]);
    wait("the document is gone", || fs::read_dir(rig.spool.as_ref().unwrap()).unwrap().count() == 1);
    assert!(a.stop().0.success() && b.stop().0.success());
}

#[test]
fn a_token_that_is_moved_from_one_gateway_to_another_signs_there_what_was_asked_for_meanwhile() {
    let rig = Rig::new(1);
    // A place to plug a token into, for each of them.
    let places = ["place-a", "place-b"].map(|name| rig.directory.path().join(name));
    let confs = places.each_ref().map(|place| {
        fs::create_dir(place).unwrap();
        let conf = place.with_extension("conf");
        let made = fs::read_to_string(rig.tokens[0].softhsm_conf()).unwrap();
        let line = |line: &str| {
            if line.starts_with("directories.tokendir") { format!("directories.tokendir = {}", place.display()) } else { line.to_owned() }
        };
        fs::write(&conf, made.lines().map(line).collect::<Vec<_>>().join("\n")).unwrap();
        conf
    });
    let made = fs::read_to_string(rig.tokens[0].softhsm_conf()).unwrap();
    let from = made.lines().find_map(|line| line.strip_prefix("directories.tokendir")).unwrap().trim_start_matches([' ', '=']).trim();
    let token = fs::read_dir(from).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.is_dir()).unwrap();
    let plugged = places.each_ref().map(|place| place.join(token.file_name().unwrap()));
    fs::rename(&token, &plugged[0]).unwrap();

    let (a, b) = (rig.gateway_of("a", &confs[0]), rig.gateway_of("b", &confs[1]));
    rig.wait_for_key(&b, "key-0");
    rig.sign(&b, "key-0", 1).succeeds(&rig.tokens[0].ca);
    let holder = "SELECT coalesce(string_agg(g.name, ' '), '') FROM token_leases l JOIN gateways g ON g.id = l.gateway";
    assert_eq!(rig.sql(holder), "a");
    fs::rename(&plugged[0], &plugged[1]).unwrap();
    // Asked for while the token is nowhere, or is not known to be anywhere else: it waits, and is signed where the token shows up.
    let meanwhile = [rig.sign(&a, "key-0", 2), rig.sign(&b, "key-0", 3)];
    wait("the token is at b", || rig.sql(holder) == "b");
    for client in meanwhile {
        client.succeeds(&rig.tokens[0].ca);
    }
    rig.sign(&a, "key-0", 4).succeeds(&rig.tokens[0].ca);
    assert_eq!(rig.sql("SELECT count(*) FROM jobs WHERE state <> 'signed'"), "0");
    assert_eq!(rig.sql("SELECT count(DISTINCT owner) FROM jobs"), "2");
    assert!(a.stop().0.success() && b.stop().0.success());
}

#[test]
fn a_database_that_was_put_back_is_settled_before_its_gateways_go_on() {
    const JOBS: usize = 20;
    let rig = Rig::new(1);
    let a = rig.gateway("a", 0);
    rig.wait_for_key(&a, "key-0");
    let granted = rig.call(&a, "POST", "/accessToken", &["--json", r#"{"accessTimesNumber":3}"#]);
    let restore = |name: &str| {
        let config = rig.config(name);
        run(["restore".as_ref(), "--database".as_ref(), "--config".as_ref(), config.as_os_str()])
    };
    let running = restore("a");
    assert!(stderr(&running).contains("another gateway uses the data folder"), "{}", stderr(&running));
    rig.gateway("b", 0).stop();
    let beside_another = restore("b");
    assert!(stderr(&beside_another).contains("gateway a runs on this database"), "{}", stderr(&beside_another));

    let modules = freeze_modules(&a);
    let clients: Vec<_> = (0..JOBS).map(|n| rig.sign(&a, "key-0", n)).collect();
    wait("all jobs are accepted, and some claimed", || {
        rig.sql(&format!("SELECT count(*) = {JOBS} AND count(*) FILTER (WHERE state = 'signing') > 0 FROM jobs")) == "t"
    });
    for mut client in clients {
        client.child.kill().unwrap();
        client.child.wait().unwrap();
    }
    kill(a, &modules);
    let id = |name: &str| fs::read_to_string(rig.data_dir(name).join("gateway-id")).unwrap();
    let before = id("a");
    // The leases of the one that was killed last for some seconds, here; those in a backup have ended long ago.
    wait("a's leases have ended", || restore("b").status.success());
    let settled = restore("a");
    assert!(stdout(&settled).contains("0 permissions were revoked and 0 jobs are in doubt"), "{}{}", stdout(&settled), stderr(&settled));
    assert_eq!(rig.sql("SELECT string_agg(DISTINCT state, ' ') FROM jobs"), "in-doubt");
    assert_eq!(rig.sql("SELECT count(*) FROM permits WHERE state = 'granted' AND reserved + committed < uses"), "0");
    assert_ne!(id("a"), before, "the audit log begins anew");
    let noted = format!("SELECT count(*) FROM audit WHERE seq = 1 AND text LIKE '%\"event\":\"restored\"%{}%'", before.trim());
    assert_eq!(rig.sql(&noted), "1");

    let a = rig.gateway("a", 0);
    rig.wait_for_key(&a, "key-0");
    let granted: serde_json::Value = serde_json::from_slice(&granted).unwrap();
    let permission = rig.call(&a, "GET", &format!("/accessToken/{}", granted["accessTokenUuid"].as_str().unwrap()), &[]);
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&permission).unwrap()["revoked"], true);
    rig.sign(&a, "key-0", JOBS).succeeds(&rig.tokens[0].ca);
    assert!(a.stop().0.success());
}

#[test]
fn of_two_gateways_with_one_token_the_second_waits_says_so_and_goes_on_when_the_first_has_stopped() {
    let rig = Rig::new(1);
    let a = rig.gateway("a", 0);
    rig.wait_for_key(&a, "key-0");
    rig.sign(&a, "key-0", 1).succeeds(&rig.tokens[0].ca);
    let mut b = rig.gateway("b", 0);
    b.wait_until_said("gateway a has the token");
    wait("b's slots say that it waits", || rig.slots("b").contains("gateway a has this token; this one waits"));
    // A client of the second one is served by the first one's session.
    rig.sign(&b, "key-0", 2).succeeds(&rig.tokens[0].ca);
    assert_eq!(rig.sql("SELECT count(DISTINCT owner) FROM jobs"), "1");
    assert!(a.stop().0.success());
    b.wait_until_said("has come to this gateway");
    rig.sign(&b, "key-0", 3).succeeds(&rig.tokens[0].ca);
    assert_eq!(rig.sql("SELECT count(DISTINCT owner) FROM jobs"), "2");
}

#[test]
fn when_a_gateway_dies_what_it_was_signing_is_in_doubt_and_what_was_queued_goes_on_at_another_one() {
    const JOBS: usize = 24;
    let rig = Rig::new(1);
    let a = rig.gateway("a", 0);
    rig.wait_for_key(&a, "key-0");
    let mut b = rig.gateway("b", 0);
    b.wait_until_said("gateway a has the token");
    let modules = freeze_modules(&a);
    let clients: Vec<_> = (0..JOBS).map(|n| rig.sign(&b, "key-0", n)).collect();
    wait("all jobs are accepted, and some claimed", || {
        rig.sql(&format!("SELECT count(*) = {JOBS} AND count(*) FILTER (WHERE state = 'signing') > 0 FROM jobs")) == "t"
    });
    let signing: usize = rig.sql("SELECT count(*) FROM jobs WHERE state = 'signing'").parse().unwrap();
    assert!(signing < JOBS);
    kill(a, &modules);
    let failures: Vec<_> = clients.into_iter().filter_map(|client| client.failure(&rig.tokens[0].ca)).collect();
    let counted = "SELECT string_agg(state || ':' || n, ' ' ORDER BY state) FROM (SELECT state, count(*) AS n FROM jobs GROUP BY state) s";
    assert_eq!(rig.sql(counted), format!("in-doubt:{signing} signed:{}", JOBS - signing), "{failures:?}");
    assert_eq!(failures.len(), signing, "{failures:?}");
    // The gateway that died comes back, and claims nothing of what was settled without it.
    let mut back = rig.gateway("a", 0);
    back.wait_until_said("gateway b has the token");
    rig.sign(&back, "key-0", JOBS).succeeds(&rig.tokens[0].ca);
}

#[test]
fn a_database_that_is_stopped_and_started_under_load_costs_nobody_a_signature() {
    const CLIENTS: usize = 12;
    let mut rig = Rig::new(2);
    let (a, b) = (rig.gateway("a", 0), rig.gateway("b", 1));
    for gateway in [&a, &b] {
        rig.wait_for_key(gateway, "key-0");
        rig.wait_for_key(gateway, "key-1");
    }
    let mut clients = Vec::new();
    for n in 0..CLIENTS * 3 {
        let (gateway, token) = if n % 2 == 0 { (&a, n / 2 % 2) } else { (&b, n / 2 % 2) };
        clients.push((rig.sign(gateway, &format!("key-{token}"), n), token));
        if n % CLIENTS == CLIENTS - 2 {
            rig.server.stop();
        } else if n % CLIENTS == CLIENTS - 1 {
            // Some of the clients come while it is away.
            rig.server.start();
        }
    }
    for (client, token) in clients {
        client.succeeds(&rig.tokens[token].ca);
    }
    assert_eq!(rig.sql("SELECT count(*) FROM jobs WHERE state <> 'signed'"), "0");
    assert!(a.stop().0.success() && b.stop().0.success());
}

#[test]
fn a_password_is_read_from_its_file_and_never_from_the_configuration() {
    let rig = Rig::new(1);
    drop(rig.gateway("a", 0));
    let file = rig.directory.path().join("password");
    fs::write(&file, "secret\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let config = fs::read_to_string(rig.config("a")).unwrap();
    fs::write(rig.config("b"), config.replace("[store]\n", &format!("[store]\npassword = {{ file = {file:?} }}\n"))).unwrap();
    drop(Gateway::serve(&rig.config("b")));
    fs::write(rig.config("c"), config.replace("sealgate@/", "sealgate:hunter2@/")).unwrap();
    let refused = run(["serve".as_ref(), "--config".as_ref(), rig.config("c").as_os_str()]);
    let said = stderr(&refused);
    assert!(!refused.status.success() && said.contains("a password does not belong in this file") && !said.contains("hunter2"), "{said}");
}

fn status_of(gateway: &Gateway, api_key: &str) -> String {
    let authorization = format!("Authorization: Bearer {api_key}");
    let url = format!("{}/api/v1/features", gateway.url);
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--output", "/dev/null", "--write-out", "%{http_code}", "--header", &authorization, &url]);
    stdout(&curl.output().unwrap())
}

#[test]
fn a_caller_that_is_added_or_revoked_at_one_gateway_is_so_at_all() {
    let rig = Rig::new(2);
    let (a, b) = (rig.gateway("a", 0), rig.gateway("b", 1));
    let callers = |gateway: &str, arguments: &[&str]| {
        let (config, (verb, rest)) = (rig.config(gateway), arguments.split_first().unwrap());
        let output = run(["callers", verb, "--config", config.to_str().unwrap()].iter().chain(rest));
        assert!(output.status.success(), "{}", stderr(&output));
        stdout(&output).trim().to_owned()
    };
    let key = callers("a", &["add", "erp", "--key", "key-0", "--consent", "auto"]);
    assert_eq!(status_of(&a, &key), "200");
    wait("the caller is known at the other gateway", || status_of(&b, &key) == "200");
    callers("b", &["revoke", "erp"]);
    assert_eq!(status_of(&b, &key), "401");
    wait("the caller is unknown at the first gateway", || status_of(&a, &key) == "401");
}

/// Asks for a permission in a program of its own, which waits for the answer.
fn ask_permission(gateway: &Gateway, api_key: &str, uses: u32) -> Child {
    let (authorization, body) = (format!("Authorization: Bearer {api_key}"), format!("{{\"accessTimesNumber\":{uses}}}"));
    let url = format!("{}/api/v1/accessToken", gateway.url);
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--header", &authorization, "--header", "Content-Type: application/json", "--data", &body, &url]);
    curl.stdout(Stdio::piped()).spawn().unwrap()
}

fn answer(asking: Child) -> serde_json::Value {
    serde_json::from_slice(&asking.wait_with_output().unwrap().stdout).unwrap()
}

#[test]
fn consent_that_is_asked_for_at_one_gateway_is_given_at_another_and_refused_by_a_restart_of_the_first() {
    let rig = Rig::new(2);
    let (a, b) = (rig.gateway("a", 0), rig.gateway("b", 1));
    let verb = |name: &str, arguments: &[&str]| {
        let config = rig.config(name);
        let output = run(arguments.iter().copied().chain(["--config", config.to_str().unwrap()]));
        assert!(output.status.success(), "{}", stderr(&output));
        stdout(&output).trim().to_owned()
    };
    let key = verb("a", &["callers", "add", "desk", "--key", "key-0"]);
    wait("the caller is known at the first gateway", || status_of(&a, &key) == "200");
    let listed = |name: &str| serde_json::from_str::<serde_json::Value>(&verb(name, &["permits", "list", "--json"])).unwrap();
    let first_waiting = |name: &str| listed(name)["waiting"][0]["id"].as_str().map(str::to_owned);

    let asking = ask_permission(&a, &key, 3);
    wait("the request is seen at the other gateway", || first_waiting("b").is_some());
    let id = first_waiting("b").unwrap();
    assert!(verb("b", &["permits", "grant", &id, "--uses", "2"]).contains("desk may have 2 signatures made"));
    let granted = answer(asking);
    assert_eq!(granted["accessTokenUuid"], *id);
    assert!(granted["message"].as_str().unwrap().ends_with(": 2."), "{granted}");

    let asking = ask_permission(&a, &key, 1);
    wait("the second request is seen", || first_waiting("b").is_some_and(|waiting| waiting != id));
    let second = first_waiting("b").unwrap();
    let modules = freeze_modules(&a);
    kill(a, &modules);
    drop(asking.wait_with_output());
    assert_eq!(first_waiting("b").as_ref(), Some(&second), "what another gateway was asked is not this one's to refuse");
    let again = rig.gateway("a", 0);
    let shown: serde_json::Value = serde_json::from_str(&verb("b", &["permits", "show", &second, "--json"])).unwrap();
    assert_eq!(shown["state"], "refused", "{shown}");
    drop((again, b));
    let config = rig.config("b");
    let told = run(["audit", "export", "--config", config.to_str().unwrap()]);
    let user = stdout(&Command::new("id").arg("-un").output().unwrap());
    let (told, by) = (stdout(&told), format!("{{\"operator\":\"{}\"}}", user.trim()));
    assert!(told.contains(&by) && told.contains("\"reason\":\"restarted\""), "{told}");
}
