//! What the log says of requests and jobs, and what it never says.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::{fs, path::Path, time::Duration};

use common::{
    gateway::{CI_KEY, Plan},
    program::{self, Gateway, dev_json},
};
use reqwest::{Client, Method, RequestBuilder};
use sealgate::{domain::token::LoginMode, token::fake::Script};
use serde_json::{Value, json};
use uuid::Uuid;

const REQUEST_ID: &str = "x-request-id";
const PATIENCE: Duration = Duration::from_secs(60);

/// A gateway of the real program and a client of it.
struct Session {
    gateway: Gateway,
    dev: Value,
    http: Client,
}

impl Session {
    fn start(directory: &Path, variables: &[(&str, &str)]) -> Self {
        let mut command = program::sealgate();
        command.args(["dev", "--listen", "127.0.0.1:0", "--dir"]).arg(directory).envs(variables.iter().copied());
        let gateway = Gateway::start(&mut command);
        let http = Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
        Self { gateway, dev: dev_json(directory), http }
    }

    fn text(&self, member: &str) -> String {
        self.dev[member].as_str().unwrap().to_owned()
    }

    fn anonymous(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}/api/v1{path}", self.gateway.url))
    }

    /// A request of the caller; returns status and JSON, if it is any.
    async fn ask(&self, method: Method, path: &str, change: impl FnOnce(RequestBuilder) -> RequestBuilder) -> (u16, Value) {
        let response = change(self.anonymous(method, path).bearer_auth(self.text("api_key"))).send().await.unwrap();
        let status = response.status().as_u16();
        (status, serde_json::from_slice(&response.bytes().await.unwrap()).unwrap_or_default())
    }

    async fn ticket_with(&self, content: &str) -> String {
        let (_, made) = self.ask(Method::POST, "/ticket", |request| request).await;
        let ticket = format!("/ticket/{}", made["ticketUuid"].as_str().unwrap());
        let upload = |request: RequestBuilder| request.header("content-type", "application/octet-stream").body(content.to_owned());
        assert_eq!(self.ask(Method::POST, &format!("{ticket}/data"), upload).await.0, 200);
        ticket
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_reference_of_a_notice_stands_in_the_log_with_what_the_client_is_not_told() {
    let directory = tempfile::tempdir().unwrap();
    let session = Session::start(directory.path(), &[("SEALGATE_LOG_FORMAT", "json")]);
    let base = format!("{}/fintech/api/v1/crypto/cert-requests/eio", session.gateway.url);
    let wrong = "wrong000000000000000000000000000000000";
    let mut notices = Vec::new();
    for (token, path) in [(wrong, "/x/state"), (&*session.text("bank_token"), "/0b2c6d6e-1111-4a31-8c3e-000000000001/state")] {
        let answer = session.http.get(format!("{base}{path}")).bearer_auth(token).send().await.unwrap();
        notices.push(serde_json::from_slice::<Value>(&answer.bytes().await.unwrap()).unwrap());
    }
    let key = json!({
        "externalId": "0b2c6d6e-1111-4a31-8c3e-000000000002", "email": "a@b.example", "login": "petrov", "number": "1",
        "userName": "Петров Пётр", "userPosition": "Бухгалтер", "pkcs10": { "key": "pkcs11:object=none" },
    });
    let answer = session.http.post(&base).bearer_auth(session.text("bank_token")).body(key.to_string()).send().await.unwrap();
    notices.push(serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap());
    let (status, log) = session.gateway.stop();
    assert!(status.success() && !log.contains(wrong), "{log}");
    let lines: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    for notice in &notices {
        let found: Vec<_> = lines.iter().filter(|line| line["reference.id"] == notice["referenceId"]).collect();
        assert_eq!((found.len(), &found[0]["notice.cause"]), (1, &notice["cause"]), "{notice} {log}");
    }
    let told = &lines.iter().find(|line| line["reference.id"] == notices[2]["referenceId"]).unwrap()["detail"];
    assert!(told.as_str().is_some_and(|detail| !detail.is_empty()) && !notices[2].to_string().contains(told.as_str().unwrap()), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_has_the_id_of_its_request() {
    let gateway = Plan::scripted(&Script::new("ids"), LoginMode::Configured, &["ids"]).start().await;
    let id_of = async |request: RequestBuilder| request.send().await.unwrap().headers()[REQUEST_ID].to_str().unwrap().to_owned();
    let ours = |id: &str| Uuid::parse_str(id).is_ok_and(|id| id.get_version_num() == 7);
    // Good ones, refused ones, unknown ones, ones that cannot be decoded.
    for path in ["/healthz", "/readyz/key/none", "/api/v1/ticket", "/api/v1/ticket/%ff/data", "/nowhere"] {
        let get = || gateway.anonymous(Method::GET, path);
        assert_eq!(id_of(get().header(REQUEST_ID, "build-42.x_y")).await, "build-42.x_y", "{path}");
        let first = id_of(get()).await;
        assert!(ours(&first) && first != id_of(get()).await, "{path}");
        for bad in ["two words", "<script>", &"x".repeat(65), ""] {
            assert!(ours(&id_of(get().header(REQUEST_ID, bad)).await), "{path} {bad}");
        }
    }
    // Which of two is meant?
    let twice = gateway.anonymous(Method::GET, "/healthz").header(REQUEST_ID, "a").header(REQUEST_ID, "b");
    assert_eq!(id_of(twice).await, "a");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_has_one_line_that_names_its_request_and_its_times() {
    let parent = tempfile::tempdir().unwrap();
    let mut session = Session::start(parent.path(), &[("SEALGATE_LOG_FORMAT", "json"), ("SEALGATE_LOG", "debug")]);
    let ticket = session.ticket_with("content").await;
    let creator = format!("{ticket}/ds/creator");
    assert_eq!(session.ask(Method::POST, &creator, |request| request.header(REQUEST_ID, "order-7")).await.0, 200);
    assert_eq!(session.ask(Method::GET, &format!("{ticket}/ds/data"), |request| request).await.0, 200);
    session.gateway.wait_for("\"job.state\"");
    let dev = session.dev.clone();
    let (status, log) = session.gateway.stop();
    assert!(status.success(), "{log}");
    // The program's words for whoever started it are no log lines; everything else is JSON, the module's process included.
    let lines: Vec<Value> = log
        .lines()
        .filter(|line| !line.starts_with("sealgate: "))
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    let jobs: Vec<&Value> = lines.iter().filter(|line| line.get("job.state").is_some()).collect();
    let [job] = jobs[..] else { panic!("{jobs:?}") };
    assert_eq!((&job["level"], &job["job.state"], &job["key.name"]), (&json!("INFO"), &json!("signed"), &json!("ec-p256")));
    assert_eq!((&job["request.id"], job.get("job.cause")), (&json!("order-7"), None));
    assert_eq!(job["job.caller"], "dev");
    assert!(job["queue_ms"].as_u64().unwrap() < 60_000 && job["token_ms"].as_u64().unwrap() < 60_000, "{job}");
    assert!(job["job.id"].as_str().unwrap().parse::<Uuid>().is_ok(), "{job}");
    assert!(!job["slot.token"].as_str().unwrap().is_empty() && dev["token_uri"].is_string(), "{job}");
    let of_request = |line: &&Value| line["span"]["request.id"] == "order-7";
    assert!(lines.iter().filter(of_request).any(|line| line["http.status"] == 200), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_line_at_any_level_holds_a_pin_a_key_a_permission_or_content() {
    const WRONG_PIN: &str = "wrong-pin-one";
    const BROKEN_PIN: &str = "pin-in-broken-json";
    const OPERATORS_PIN: &str = "wrong-pin-of-an-operator";
    const CONTENT: &str = "the content of a confidential document";
    const FOREIGN_KEY: &str = "an-api-key-that-nobody-has-000000000000000";
    let parent = tempfile::tempdir().unwrap();
    let mut session = Session::start(parent.path(), &[("SEALGATE_LOG", "trace")]);
    let pin = session.text("user_pin");
    assert_eq!(session.anonymous(Method::POST, "/ticket").bearer_auth(FOREIGN_KEY).send().await.unwrap().status(), 401);
    let ticket = session.ticket_with(CONTENT).await;
    let creator = format!("{ticket}/ds/creator");
    let metadata = |request: RequestBuilder| request.json(&json!({ "documentName": CONTENT }));
    session.ask(Method::PUT, &format!("{ticket}/metadata"), metadata).await;
    let with_pin = |pin: &str| {
        let body = json!({ "keyStorePassword": pin });
        move |request: RequestBuilder| request.json(&body)
    };
    let wrong = session.ask(Method::PUT, &format!("{ticket}/keyStore/verifier"), with_pin(WRONG_PIN)).await;
    assert_eq!(wrong.0, 500, "{wrong:?}");
    assert_eq!(session.ask(Method::POST, &creator, with_pin(WRONG_PIN)).await.0, 500);
    let broken = |request: RequestBuilder| request.body(format!("{{\"keyStorePassword\":\"{BROKEN_PIN}\""));
    assert_ne!(session.ask(Method::POST, &creator, broken).await.0, 200);
    let in_uri = |request: RequestBuilder| request.json(&json!({ "keyStorePath": format!("pkcs11:object=x?pin-value={BROKEN_PIN}") }));
    assert_ne!(session.ask(Method::PUT, &format!("{ticket}/keyStore"), in_uri).await.0, 200);
    assert_eq!(session.ask(Method::POST, &creator, with_pin(&pin)).await.0, 200);
    assert_eq!(session.ask(Method::GET, &format!("{ticket}/ds/data"), |request| request).await.0, 200);
    let uses = |request: RequestBuilder| request.json(&json!({ "accessTimesNumber": 2 }));
    let (_, granted) = session.ask(Method::POST, "/accessToken", uses).await;
    let permission = granted["accessTokenUuid"].as_str().unwrap_or_else(|| panic!("{granted}")).to_owned();
    let paid = session.ticket_with(CONTENT).await;
    let pay = |request: RequestBuilder| request.json(&json!({ "accessTokenUuid": permission }));
    assert_eq!(session.ask(Method::POST, &format!("{paid}/ds/creator"), pay).await.0, 200);
    assert_eq!(session.ask(Method::GET, &format!("{paid}/ds/data"), |request| request).await.0, 200);
    assert_eq!(session.ask(Method::DELETE, &format!("/accessToken/{permission}"), |request| request).await.0, 200);
    // An operator's wrong PIN, and a module that dies and is logged in again.
    let pin_file = parent.path().join("operators-pin");
    fs::write(&pin_file, OPERATORS_PIN).unwrap();
    fs::set_permissions(&pin_file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let dir = parent.path().to_str().unwrap();
    let lock = program::run(["lock", "--dir", dir]);
    assert!(lock.status.success(), "{}", program::stderr(&lock));
    let unlock = program::run(["unlock", "--dir", dir, "--pin-file", pin_file.to_str().unwrap()]);
    assert_eq!(unlock.status.code(), Some(1), "{}", program::stderr(&unlock));
    let right = parent.path().join("pin");
    assert!(program::run(["unlock", "--dir", dir, "--pin-file", right.to_str().unwrap()]).status.success());
    let [child] = session.gateway.children()[..] else { panic!("one module, one process") };
    assert!(std::process::Command::new("kill").args(["-s", "KILL", &child.to_string()]).status().unwrap().success());
    session.gateway.wait_for("is started again");
    let api_key = session.text("api_key");
    let (status, log) = session.gateway.stop();
    assert!(status.success());
    assert!(log.lines().any(|line| line.contains("TRACE")), "nothing was traced");
    let bytes = |text: &str| text.bytes().map(|byte| byte.to_string()).collect::<Vec<_>>().join(", ");
    for (what, secret) in [
        ("the token's PIN", pin.as_str()),
        ("a wrong PIN", WRONG_PIN),
        ("a PIN in a request that is no JSON", BROKEN_PIN),
        ("an operator's PIN", OPERATORS_PIN),
        ("the API key", &api_key),
        ("a foreign API key", FOREIGN_KEY),
        ("content", CONTENT),
        ("a permission", &permission),
    ] {
        for form in [secret.to_owned(), hex::encode(secret), base64(secret), bytes(secret)] {
            let leak = log.lines().find(|line| line.contains(&form));
            assert_eq!(leak, None, "{what}");
        }
    }
    assert!(!log.contains(CI_KEY));
}

fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD_NO_PAD.encode(text)
}
