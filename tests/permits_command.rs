//! `sealgate permits`: an operator's decisions from a terminal or a pipe, through the control socket of the real program.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use common::program::{Gateway, dev_json, run, sealgate, stderr, stdout};
use serde_json::Value;

struct Rig {
    directory: tempfile::TempDir,
    gateway: Gateway,
    key: String,
}

impl Rig {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let gateway = Gateway::dev(directory.path());
        let key = dev_json(directory.path())["consent_api_key"].as_str().unwrap().to_owned();
        Self { directory, gateway, key }
    }

    fn dir(&self) -> &Path {
        self.directory.path()
    }

    fn permits(&self, arguments: &[&str]) -> Output {
        run(["permits"].iter().chain(arguments).copied().chain(["--dir", self.dir().to_str().unwrap()]))
    }

    fn done(&self, arguments: &[&str]) -> String {
        let output = self.permits(arguments);
        assert!(output.status.success(), "{}", stderr(&output));
        stdout(&output)
    }

    /// Asks for a permission in a program of its own, which waits for the answer.
    fn ask(&self, body: &str) -> Child {
        let (authorization, url) = (format!("Authorization: Bearer {}", self.key), format!("{}/api/v1/accessToken", self.gateway.url));
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--header", &authorization, "--header", "Content-Type: application/json", "--data", body, &url]);
        curl.stdout(Stdio::piped()).spawn().unwrap()
    }

    /// `permits watch` with a pipe on both sides.
    fn watch(&self) -> Child {
        let mut command = sealgate();
        command.args(["permits", "watch", "--dir"]).arg(self.dir()).stdin(Stdio::piped()).stdout(Stdio::piped());
        command.spawn().unwrap()
    }
}

fn answer(asking: Child) -> Value {
    serde_json::from_slice(&asking.wait_with_output().unwrap().stdout).unwrap()
}

#[test]
fn requests_are_decided_in_place_as_they_come() {
    let rig = Rig::new();
    let mut watch = rig.watch();
    let (mut answers, mut shown) = (watch.stdin.take().unwrap(), BufReader::new(watch.stdout.take().unwrap()).lines());
    let mut until = |text: &str| {
        let mut said = String::new();
        loop {
            let line = shown.next().expect("more to read").unwrap();
            said.push_str(&line);
            said.push('\n');
            if line.contains(text) {
                return said;
            }
        }
    };
    let asking = rig.ask(r#"{"accessTimesNumber":3,"metaData":"<b>three letters</b>\u001b[2J"}"#);
    let said = until("allow 3 signatures? [y/N/number]");
    assert!(said.contains("consent") && said.contains("<b>three letters</b>[2J") && !said.contains('\u{1b}'), "{said}");
    answers.write_all(b"perhaps\n2\n").unwrap();
    until("answer y, n, or how many");
    until("consent may have 2 signatures made");
    assert!(answer(asking)["message"].as_str().unwrap().ends_with(": 2."));

    let asking = rig.ask(r#"{"accessTimesNumber":1}"#);
    until("allow 1 signatures?");
    answers.write_all(b"\n").unwrap();
    until("is refused");
    assert_eq!(answer(asking)["message"], "Запит на використання ЕП відхилено користувачем.");
    drop(answers);
    assert!(watch.wait().unwrap().success());
    let last = rig.ask(r#"{"accessTimesNumber":1}"#);
    // The request is on its way: what happens inside another program can only be asked for.
    let id = loop {
        let listed: Value = serde_json::from_str(&rig.done(&["list", "--json"])).unwrap();
        if let Some(id) = listed["waiting"][0]["id"].as_str() {
            break id.to_owned();
        }
    };
    rig.done(&["grant", &id]);
    assert_eq!(answer(last)["accessTokenUuid"], *id);
}

#[test]
fn a_permission_is_listed_shown_and_taken_back_and_mistakes_say_what_to_do() {
    let rig = Rig::new();
    let mut watch = rig.watch();
    let mut answers = watch.stdin.take().unwrap();
    answers.write_all(b"y\n").unwrap();
    drop(answers);
    let granted = answer(rig.ask(r#"{"accessTimesNumber":2}"#));
    assert!(watch.wait().unwrap().success());
    let id = granted["accessTokenUuid"].as_str().unwrap();
    assert!(rig.done(&["list"]).contains(id));
    let shown = rig.done(&["show", id]);
    let user = stdout(&Command::new("id").arg("-un").output().unwrap());
    assert!(shown.contains("2 of 2") && shown.contains(user.trim()), "{shown}");
    for (arguments, hint) in [
        (["grant", id], "it is decided already: granted"),
        (["refuse", id], "permits show"),
        (["show", "85a3bdd5-0000-4000-8000-000000000000"], "permits list"),
    ] {
        let refused = rig.permits(&arguments);
        assert!(!refused.status.success() && stderr(&refused).contains(hint), "{}", stderr(&refused));
    }
    assert!(rig.done(&["revoke", id]).contains("is revoked"));
    assert!(!rig.done(&["list"]).contains(id));
}
