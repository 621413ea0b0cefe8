//! `sealgate operators`: accounts of the people who log in to the console, while a gateway runs and while none does.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use common::program::{self, Gateway, dev_json};
use serde_json::Value;

fn operators(dir: &Path, arguments: &[&str]) -> std::process::Output {
    let mut command = program::sealgate();
    command.args(["operators", arguments[0], "--dir"]).arg(dir).args(&arguments[1..]);
    command.output().unwrap()
}

fn done(dir: &Path, arguments: &[&str]) -> String {
    let output = operators(dir, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", program::stderr(&output));
    program::stdout(&output)
}

fn refused(dir: &Path, arguments: &[&str]) -> String {
    let output = operators(dir, arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    program::stderr(&output)
}

fn listed(dir: &Path) -> Vec<Value> {
    let list: Value = serde_json::from_str(&done(dir, &["list", "--json"])).unwrap();
    list["operators"].as_array().unwrap().clone()
}

#[test]
fn operators_are_looked_after_while_the_gateway_runs_and_while_it_does_not() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("dev");
    let gateway = Gateway::dev(&dir);
    let dev = dev_json(&dir);
    assert_eq!((dev["operator_user"].as_str(), dev["operator_password"].as_str().map(str::len)), (Some("dev"), Some(20)));

    let made = done(&dir, &["add", "ann", "--key", "ec-p256", "--key", "ed25519", "--generate"]);
    assert_eq!(made.trim().len(), 20, "the password alone is on standard output: {made}");
    let ann = &listed(&dir)[0];
    assert_eq!(
        (ann["name"].as_str(), ann["role"].as_str(), ann["keys"].as_array().map(Vec::len)),
        (Some("ann"), Some("approver"), Some(2))
    );
    assert!(refused(&dir, &["add", "ann", "--generate"]).contains("already"));
    assert!(refused(&dir, &["disable", "nobody"]).contains("no operator"));
    assert!(refused(&dir, &["remove", "dev"]).contains("last administrator"));

    let file = parent.path().join("password");
    fs::write(&file, "too short\n").unwrap();
    assert!(refused(&dir, &["password", "ann", "--password-file", file.to_str().unwrap()]).contains("chmod 600"));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(refused(&dir, &["password", "ann", "--password-file", file.to_str().unwrap()]).contains("at least 12"));
    fs::write(&file, "long enough for anybody\n").unwrap();
    done(&dir, &["password", "ann", "--password-file", file.to_str().unwrap()]);
    done(&dir, &["disable", "ann"]);
    assert_eq!(listed(&dir)[0]["disabled"], true);

    let (status, log) = gateway.stop();
    assert!(status.success() && !log.contains(made.trim()) && !log.contains(dev["operator_password"].as_str().unwrap()), "{log}");
    done(&dir, &["enable", "ann"]);
    done(&dir, &["log-out", "ann"]);
    assert_eq!(listed(&dir)[0]["disabled"], false);
    done(&dir, &["remove", "ann"]);
    assert_eq!(listed(&dir).len(), 1);
}
