//! Webhooks: a real gateway tells a real HTTP server that a token needs its PIN, again and again until it is heard.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::Duration,
};

use common::program::{Gateway, dev_json, path_in, run, sealgate, stderr, stdout};
use sealgate::notify::{WebhookSecret, signature};
use zeroize::Zeroizing;

const PATIENCE: Duration = Duration::from_secs(60);
const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// What a receiver was sent.
struct Sent {
    timestamp: String,
    signature: String,
    body: Vec<u8>,
}

/// A receiver that answers with these, one after the other, and with 204 from then on; a redirect goes to its own `/elsewhere`.
fn receiver(answers: &'static [&'static str]) -> (String, Receiver<Sent>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hook?token=in-the-url", listener.local_addr().unwrap());
    let (sender, sent) = mpsc::channel();
    thread::spawn(move || {
        for (n, stream) in listener.incoming().enumerate() {
            let mut stream = stream.unwrap();
            let request = read(&stream);
            assert!(request.0.starts_with("POST /hook?token=in-the-url "), "a redirect was followed: {}", request.0);
            let answer = answers.get(n).unwrap_or(&"204 No Content");
            write!(stream, "HTTP/1.1 {answer}\r\ncontent-length: 0\r\nlocation: /elsewhere\r\nconnection: close\r\n\r\n").unwrap();
            if sender.send(request.1).is_err() {
                return;
            }
        }
    });
    (url, sent)
}

fn read(stream: &TcpStream) -> (String, Sent) {
    let mut reader = BufReader::new(stream);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if line.trim().is_empty() {
            break;
        }
        head.push(line.trim().to_owned());
    }
    let header = |name: &str| {
        let found = head.iter().find_map(|line| line.split_once(": ").filter(|(given, _)| given.eq_ignore_ascii_case(name)));
        found.map(|(_, value)| value.to_owned()).unwrap_or_else(|| panic!("no {name} in {head:?}"))
    };
    let mut body = vec![0; header("content-length").parse().unwrap()];
    reader.read_exact(&mut body).unwrap();
    (head[0].clone(), Sent { timestamp: header("x-sealgate-timestamp"), signature: header("x-sealgate-signature"), body })
}

/// The file with the secret of a webhook, readable by its owner alone.
fn secret_in(dir: &Path) -> PathBuf {
    let secret = dir.join("hook.secret");
    fs::write(&secret, SECRET).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    secret
}

/// The section of a webhook that is told of one kind of event.
fn webhook(url: &str, secret: &Path, event: &str) -> String {
    format!("\n[[webhook]]\nurl = \"{url}\"\nsecret_file = {secret:?}\nevents = [\"{event}\"]\n")
}

#[test]
fn a_receiver_that_fails_twice_is_told_a_third_time_and_each_time_under_a_good_signature() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("dev");
    let gateway = Gateway::dev(&dir);
    let dev = dev_json(&dir);
    gateway.stop();
    let (url, sent) = receiver(&["500 Internal Server Error", "302 Found"]);
    let (config, secret) = (path_in(&dev["config"]), dir.join("hook.secret"));
    fs::write(&secret, format!("{SECRET}\n")).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    // Nobody logs the token in.
    let text = fs::read_to_string(&config).unwrap();
    let pin = text.lines().find(|line| line.starts_with("pin = ")).unwrap().to_owned();
    let text = text.replace("login = \"configured\"", "login = \"operator\"").replace(&pin, "");
    let hook = webhook(&url, &secret, "pin-needed");
    fs::write(&config, format!("{text}{hook}")).unwrap();
    assert!(run(["config", "check", "--config", config.to_str().unwrap()]).status.success());

    let gateway = Gateway::serve(&config);
    let tries: Vec<Sent> = (0..3).map(|_| sent.recv_timeout(PATIENCE).unwrap()).collect();
    let secret = WebhookSecret::new(Zeroizing::new(SECRET.to_owned())).unwrap();
    for Sent { timestamp, signature: signed, body } in &tries {
        assert_eq!(*signed, signature(&secret, timestamp, body));
        assert!(timestamp.parse::<u64>().unwrap() > 1_700_000_000, "{timestamp}");
        assert_eq!(body, &tries[0].body, "the same notice, with the same id");
    }
    let notice: serde_json::Value = serde_json::from_slice(&tries[0].body).unwrap();
    assert_eq!((&notice["event"], notice["token"].as_str().unwrap().starts_with("pkcs11:")), (&"pin-needed".into(), true), "{notice}");
    let told = String::from_utf8_lossy(&tries[0].body).into_owned();
    assert!(!told.contains(dev["user_pin"].as_str().unwrap()), "{told}");
    let (status, log) = gateway.stop();
    assert!(status.success() && !log.contains(SECRET) && !log.contains("in-the-url"), "{log}");
}

#[test]
fn a_configured_login_is_told_of_only_when_it_is_a_persons_turn() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("dev");
    let gateway = Gateway::dev(&dir);
    let dev = dev_json(&dir);
    let config = path_in(&dev["config"]);
    gateway.stop();
    let (url, sent) = receiver(&[]);
    let secret = secret_in(&dir);
    let text = fs::read_to_string(&config).unwrap();
    let hook = webhook(&url, &secret, "pin-needed");
    fs::write(&config, format!("{text}{hook}")).unwrap();
    let mut gateway = Gateway::serve(&config);
    gateway.wait_until_said(": ready");
    // Notices come in their order: one of the start would be the first.
    let pin = dir.join("typed.pin");
    fs::write(&pin, dev["user_pin"].as_str().unwrap()).unwrap();
    fs::set_permissions(&pin, fs::Permissions::from_mode(0o600)).unwrap();
    let control = |words: &[&str]| {
        let output = run([words, &["--config", config.to_str().unwrap()]].concat());
        assert!(output.status.success(), "{}", stderr(&output));
    };
    for _ in 0..2 {
        control(&["lock"]);
        let notice: serde_json::Value = serde_json::from_slice(&sent.recv_timeout(PATIENCE).unwrap().body).unwrap();
        assert_eq!((&notice["event"], &notice["state"]), (&"pin-needed".into(), &"needs PIN".into()), "{notice}");
        assert!(sent.try_recv().is_err(), "there is one notice for one lock");
        control(&["unlock", "--pin-file", pin.to_str().unwrap()]);
    }
    gateway.stop();
}

/// A certificate of so many days for a request, from the development CA by hand.
fn issue(dir: &Path, request: &str, days: &str) -> PathBuf {
    let (csr, rules, certificate) = (dir.join("request.pem"), dir.join("rules"), dir.join("issued.pem"));
    fs::write(&csr, request).unwrap();
    fs::write(&rules, "keyUsage = critical, digitalSignature, nonRepudiation\n").unwrap();
    let mut openssl = Command::new("openssl");
    openssl.args(["x509", "-req", "-days", days, "-CAcreateserial"]).arg("-in").arg(&csr).arg("-extfile").arg(&rules);
    openssl.arg("-CA").arg(dir.join("certificates/ca.pem")).arg("-CAkey").arg(dir.join("ca-key.pem")).arg("-out").arg(&certificate);
    let output = openssl.output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    certificate
}

#[test]
fn a_certificate_that_ends_soon_is_told_of() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("dev");
    let gateway = Gateway::dev(&dir);
    let config = path_in(&dev_json(&dir)["config"]);
    gateway.stop();
    let (url, sent) = receiver(&[]);
    let secret = secret_in(&dir);
    let text = fs::read_to_string(&config).unwrap().replace("ca = \"dev\"", "ca = \"manual\"");
    let hook = webhook(&url, &secret, "certificate-expiring");
    fs::write(&config, format!("{text}{hook}")).unwrap();
    let enrol = |words: &[&str]| {
        let output = run([&["enrol"], words, &["--config", config.to_str().unwrap()]].concat());
        assert!(output.status.success(), "{words:?}: {}", stderr(&output));
        stdout(&output)
    };
    let mut gateway = Gateway::serve(&config);
    gateway.wait_until_said(": ready");
    let who = ["--full-name", "Олена Мороз", "--organisation", "Orchard", "--position", "Accountant", "--email", "moroz@orchard.example"];
    enrol(&[&["new", "--login", "moroz"], &who[..]].concat());
    let listed: serde_json::Value = serde_json::from_str(&enrol(&["list", "--json"])).unwrap();
    let request = listed["enrolments"][0]["id"].as_str().unwrap().to_owned();
    let issued = issue(&dir, &enrol(&["csr", &request]), "20");
    enrol(&["upload", &request, issued.to_str().unwrap()]);
    enrol(&["activate", &request]);
    gateway.stop();

    // It was told before the stop, or the next start finds that it was not.
    let gateway = Gateway::serve(&config);
    let notice: serde_json::Value = serde_json::from_slice(&sent.recv_timeout(PATIENCE).unwrap().body).unwrap();
    assert_eq!((&notice["event"], &notice["key"], &notice["days_left"]), (&"certificate-expiring".into(), &"moroz".into(), &19.into()));
    gateway.stop();
}

#[test]
fn a_webhook_that_nobody_should_be_told_through_is_a_mistake_of_the_configuration() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("dev");
    Gateway::dev(&dir).stop();
    let config = dir.join("sealgate.toml");
    let secret = dir.join("hook.secret");
    fs::write(&secret, "short\n").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let text = fs::read_to_string(&config).unwrap();
    let check = |url: &str| {
        fs::write(&config, format!("{text}\n[[webhook]]\nurl = \"{url}\"\nsecret_file = {secret:?}\n")).unwrap();
        let output = run(["config", "check", "--json", "--config", config.to_str().unwrap()]);
        (output.status.code(), stdout(&output))
    };
    let (code, said) = check("https://hooks.example/");
    assert!(code == Some(1) && said.contains("openssl rand"), "{said}");
    fs::write(&secret, format!("{SECRET}\n")).unwrap();
    let (code, said) = check("http://hooks.example/");
    assert!(code == Some(1) && said.contains("https://"), "{said}");
    assert_eq!(check("https://hooks.example/").0, Some(0));
}

#[test]
fn who_is_asked_for_consent_is_told_and_finds_the_inbox_open() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("dev");
    let gateway = Gateway::dev(&dir);
    let config = path_in(&dev_json(&dir)["config"]);
    gateway.stop();
    let (url, sent) = receiver(&[]);
    let (secret, pages, browser) = (secret_in(&dir), dir.join("pages"), dir.join("browser"));
    // A browser that tells the test which page it was to open.
    assert!(Command::new("mkfifo").arg(&pages).status().unwrap().success());
    fs::write(&browser, format!("#!/bin/sh\necho \"$1\" > {}\n", pages.display())).unwrap();
    fs::set_permissions(&browser, fs::Permissions::from_mode(0o700)).unwrap();
    let text = fs::read_to_string(&config).unwrap();
    let hook = webhook(&url, &secret, "consent-waiting");
    fs::write(&config, format!("{text}\n[consent]\nopen_browser = true\n{hook}")).unwrap();
    let added = run(["callers", "add", "erp", "--key", "ec-p256", "--consent", "operator", "--config", config.to_str().unwrap()]);
    assert!(added.status.success(), "{}", stderr(&added));

    let gateway = Gateway::start(sealgate().env("BROWSER", &browser).args(["serve", "--config"]).arg(&config));
    let authorization = format!("authorization: Bearer {}", stdout(&added).trim());
    let mut ask = Command::new("curl");
    ask.args(["--silent", "--header", &authorization, "--json", r#"{"accessTimesNumber":7}"#]);
    let mut asking = ask.arg(format!("{}/api/v1/accessToken", gateway.url)).stdout(Stdio::null()).spawn().unwrap();
    let notice: serde_json::Value = serde_json::from_slice(&sent.recv_timeout(PATIENCE).unwrap().body).unwrap();
    assert_eq!((&notice["event"], &notice["caller"], &notice["uses"]), (&"consent-waiting".into(), &"erp".into(), &7.into()), "{notice}");
    let page = fs::read_to_string(&pages).unwrap();
    assert_eq!(page.trim(), format!("{}/console/consent", gateway.url.trim_end_matches('/')));
    gateway.stop();
    asking.wait().unwrap();
}
