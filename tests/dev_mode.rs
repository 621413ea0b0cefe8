//! `sealgate dev`, the real program with real SoftHSM: what it makes, what it leaves, what it says when something is missing.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use common::{
    openssl::openssl_ok,
    program::{self, Gateway, dev_json, path_in},
    softhsm::SoftHsm,
};
use tempfile::TempDir;

const KEYS: [&str; 4] = ["rsa-2048", "ec-p256", "ec-p384", "ed25519"];

fn folder() -> (TempDir, std::path::PathBuf) {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("dev");
    (parent, dir)
}

fn refused(dir: &Path) -> String {
    let output = program::run(["dev", "--listen", "127.0.0.1:0", "--dir", dir.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1), "{}", program::stderr(&output));
    program::stderr(&output)
}

/// What another program sees on the token.
fn objects(dev: &serde_json::Value) -> String {
    let mut tool = Command::new("pkcs11-tool");
    tool.arg("--module").arg(SoftHsm::module()).args(["--login", "--list-objects", "--pin", dev["user_pin"].as_str().unwrap()]);
    let output = tool.env("SOFTHSM2_CONF", dev["softhsm2_conf"].as_str().unwrap()).output().expect("pkcs11-tool; apt-get install opensc");
    assert!(output.status.success(), "{}", program::stderr(&output));
    program::stdout(&output)
}

#[test]
fn a_first_start_makes_everything_and_a_stop_leaves_no_secret_and_no_process() {
    let (_parent, dir) = folder();
    let gateway = Gateway::dev(&dir);
    let dev = dev_json(&dir);
    assert_eq!(dev["url"], gateway.url.as_str());
    assert_eq!(fs::metadata(dir.join("dev.json")).unwrap().permissions().mode() & 0o777, 0o600);
    let names: Vec<&str> = dev["keys"].as_array().unwrap().iter().map(|key| key["name"].as_str().unwrap()).collect();
    assert_eq!(names, KEYS);
    for path in ["ca_certificate", "config", "module", "softhsm2_conf"] {
        assert!(path_in(&dev[path]).is_absolute() && path_in(&dev[path]).is_file(), "{path}");
    }
    let ca = path_in(&dev["ca_certificate"]);
    for key in dev["keys"].as_array().unwrap() {
        let certificate = path_in(&key["certificate"]);
        openssl_ok([Path::new("verify"), Path::new("-CAfile"), &ca, &certificate]);
        let text = openssl_ok([Path::new("x509"), Path::new("-noout"), Path::new("-text"), Path::new("-in"), &certificate]);
        assert!(String::from_utf8_lossy(&text).contains("Digital Signature, Non Repudiation"), "{key}");
    }
    assert_eq!(gateway.children().len(), 1, "the module's process");
    let (status, log) = gateway.stop();
    assert!(status.success(), "{log}");
    assert!(!log.contains(dev["user_pin"].as_str().unwrap()) && !log.contains(dev["api_key"].as_str().unwrap()), "{log}");
    for gone in ["dev.json", "control.sock"] {
        assert!(!dir.join(gone).exists(), "{gone}");
    }
}

#[test]
fn the_keys_are_made_on_the_token_and_cannot_leave_it() {
    let (_parent, dir) = folder();
    let _gateway = Gateway::dev(&dir);
    let objects = objects(&dev_json(&dir));
    let kept = objects.matches("sensitive, always sensitive, never extractable, local").count();
    // Beside the keys for callers there is the one of the time-stamping authority.
    assert_eq!(kept, KEYS.len() + 1, "{objects}");
    assert_eq!(objects.matches("Certificate Object").count(), KEYS.len() + 1, "{objects}");
}

#[test]
fn a_second_start_uses_the_same_token_on_another_address() {
    let (_parent, dir) = folder();
    let first = Gateway::dev(&dir);
    let before = dev_json(&dir);
    assert!(first.stop().0.success());
    let second = Gateway::dev(&dir);
    let after = dev_json(&dir);
    for same in ["token_uri", "keys", "user_pin", "ca_certificate"] {
        assert_eq!(after[same], before[same], "{same}");
    }
    assert_ne!(after["api_key"], before["api_key"], "an API key is on disk only while it serves");
    assert_eq!(after["url"], second.url.as_str());
}

#[test]
fn a_folder_that_was_moved_works_where_it_is() {
    let (parent, dir) = folder();
    assert!(Gateway::dev(&dir).stop().0.success());
    let moved = parent.path().join("moved");
    fs::rename(&dir, &moved).unwrap();
    let _gateway = Gateway::dev(&moved);
    assert!(path_in(&dev_json(&moved)["softhsm2_conf"]).starts_with(&moved));
}

#[test]
fn one_process_at_a_time_uses_a_folder() {
    let (_parent, dir) = folder();
    let gateway = Gateway::dev(&dir);
    let error = refused(&dir);
    assert!(error.contains("another `sealgate dev`"), "{error}");
    assert!(dir.join("dev.json").exists(), "the one that serves is left alone");
    drop(gateway);
}

#[test]
fn a_token_folder_that_was_moved_away_is_an_error_that_says_so() {
    let (parent, dir) = folder();
    assert!(Gateway::dev(&dir).stop().0.success());
    fs::rename(dir.join("tokens"), parent.path().join("tokens")).unwrap();
    let error = refused(&dir);
    assert!(error.contains("token folder") && error.contains("put it back"), "{error}");
    assert!(!dir.join("dev.json").exists());
    fs::rename(parent.path().join("tokens"), dir.join("tokens")).unwrap();
    Gateway::dev(&dir);
}

#[test]
fn an_interrupted_first_start_is_done_over() {
    let (_parent, dir) = folder();
    assert!(Gateway::dev(&dir).stop().0.success());
    // As if it had been killed before the last step.
    fs::remove_file(dir.join("token.json")).unwrap();
    let _gateway = Gateway::dev(&dir);
    assert_eq!(fs::read_dir(dir.join("tokens")).unwrap().count(), 1);
}

#[test]
fn what_a_killed_gateway_left_is_cleared_away() {
    let (_parent, dir) = folder();
    let mut gateway = Gateway::dev(&dir);
    let children = gateway.children();
    gateway.signal("KILL");
    gateway.wait();
    assert!(dir.join("dev.json").exists());
    let stale = fs::read(dir.join("dev.json")).unwrap();
    let _gateway = Gateway::dev(&dir);
    assert_ne!(fs::read(dir.join("dev.json")).unwrap(), stale);
    for child in children {
        assert!(!Path::new(&format!("/proc/{child}/fd/0")).exists(), "the module's process ends with its gateway");
    }
}

#[test]
fn a_second_signal_stops_at_once_although_a_module_hangs() {
    let (_parent, dir) = folder();
    let mut gateway = Gateway::dev(&dir);
    let module = gateway.children()[0].to_string();
    assert!(Command::new("kill").args(["-s", "STOP", &module]).status().unwrap().success());
    gateway.signal("TERM");
    gateway.wait_for("stopping: modules are closed");
    gateway.signal("TERM");
    // Comes back only when the module's process has ended too, for that holds the log open.
    let (status, log) = gateway.wait();
    assert!(status.success() && log.contains("did not finish in time: modules are closed"), "{log}");
    assert!(!dir.join("control.sock").exists() && !dir.join("dev.json").exists());
}

#[test]
fn without_softhsm_the_error_says_what_to_install() {
    let (_parent, dir) = folder();
    let mut command = program::sealgate();
    command.args(["dev", "--dir"]).arg(&dir).env("SEALGATE_SOFTHSM", "/no/such/libsofthsm2.so");
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(program::stderr(&output).contains("SEALGATE_SOFTHSM"), "{}", program::stderr(&output));
}

#[test]
fn development_mode_does_not_listen_to_other_machines() {
    let (_parent, dir) = folder();
    let output = program::run(["dev", "--listen", "0.0.0.0:0", "--dir", dir.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(!dir.exists());
}
