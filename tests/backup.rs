//! A backup that is put in place signs nothing twice and lets nobody spend what was spent.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use common::program::{Gateway, dev_json, path_in, run, stderr, stdout};
use sealgate::store::sqlite::open_to_read;
use serde_json::Value;

struct Dev {
    _folder: tempfile::TempDir,
    dir: PathBuf,
    backup: PathBuf,
}

fn folder() -> Dev {
    let folder = tempfile::tempdir().unwrap();
    let (dir, backup) = (folder.path().join("dev"), folder.path().join("backup"));
    Dev { _folder: folder, dir, backup }
}

impl Dev {
    fn verb(&self, verb: &str, more: &[&str]) -> Output {
        run([verb, "--dir", self.dir.to_str().unwrap(), self.backup.to_str().unwrap()].into_iter().chain(more.iter().copied()))
    }

    fn data(&self) -> PathBuf {
        [self.dir.join("data"), self.dir.clone()].into_iter().find(|dir| dir.join("gateway-id").exists()).unwrap()
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

struct Api {
    url: String,
    key: String,
}

impl Api {
    fn of(gateway: &Gateway, dir: &Path) -> Self {
        Self { url: gateway.url.clone(), key: dev_json(dir)["api_key"].as_str().unwrap().to_owned() }
    }

    fn curl(&self, path: &str, more: &[&str]) -> Value {
        let authorization = format!("Authorization: Bearer {}", self.key);
        let url = format!("{}/api/v1{path}", self.url);
        let output = Command::new("curl").args(["-sS", "-H", &authorization, &url]).args(more).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}{}", stdout(&output), stderr(&output)))
    }
}

#[test]
fn a_restored_state_has_no_usable_permission_and_its_open_jobs_are_in_doubt() {
    let dev = folder();
    let gateway = Gateway::dev(&dev.dir);
    let api = Api::of(&gateway, &dev.dir);
    let granted = api.curl("/accessToken", &["--json", r#"{"accessTimesNumber":3}"#]);
    let permission = granted["accessTokenUuid"].as_str().unwrap_or_else(|| panic!("{granted}")).to_owned();
    let backed_up = dev.verb("backup", &[]);
    assert!(backed_up.status.success(), "{}", stderr(&backed_up));
    assert_eq!((mode(&dev.backup), mode(&dev.backup.join("sealgate.db"))), (0o700, 0o600));
    let twice = dev.verb("backup", &[]);
    assert!(stderr(&twice).contains("not there yet"), "{}", stderr(&twice));

    let while_running = dev.verb("restore", &["--replace"]);
    assert!(stderr(&while_running).contains("another gateway uses the data folder"), "{}", stderr(&while_running));
    gateway.stop();
    let over_it = dev.verb("restore", &[]);
    assert!(stderr(&over_it).contains("--replace"), "{}", stderr(&over_it));
    let old = fs::read_to_string(dev.data().join("gateway-id")).unwrap();
    let tries = fs::read(dev.data().join("pin-tries.json")).ok();
    let restored = dev.verb("restore", &["--replace"]);
    assert!(
        stdout(&restored).contains("1 permissions were revoked and 0 jobs are in doubt"),
        "{} {}",
        stdout(&restored),
        stderr(&restored)
    );
    let new = fs::read_to_string(dev.data().join("gateway-id")).unwrap();
    assert_ne!(old, new, "the audit log begins anew");
    assert_eq!(fs::read(dev.data().join("pin-tries.json")).ok(), tries, "what was rejected stays rejected");
    let leftovers: Vec<_> = fs::read_dir(dev.data()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(!leftovers.iter().any(|name| name.starts_with("restoring") || name == "begun"), "{leftovers:?}");
    let logs = open_to_read(&dev.data().join("sealgate.db")).unwrap();
    let first = &logs.records(new.trim().parse().unwrap(), 1, 1).unwrap()[0];
    assert!(first.text.contains(r#""event":"restored""#) && first.text.contains(old.trim()), "{}", first.text);

    let gateway = Gateway::dev(&dev.dir);
    let api = Api::of(&gateway, &dev.dir);
    let read = api.curl(&format!("/accessToken/{permission}"), &[]);
    assert_eq!(read["revoked"], true, "{read}");
    gateway.stop();
}

/// An operator's browser, in which they have logged in.
struct Browser {
    jar: PathBuf,
}

impl Browser {
    fn logged_in(gateway: &Gateway, dev: &Dev) -> Self {
        let this = Self { jar: dev.dir.join("cookies") };
        let (_, page) = this.open(gateway, "/login", &[]);
        let token = page.split_once(r#"name="token" value=""#).unwrap().1.split_once('"').unwrap().0.to_owned();
        let known = dev_json(&dev.dir);
        let field = |name: &str, value: &str| format!("{name}={value}");
        let (name, password) =
            (field("name", known["operator_user"].as_str().unwrap()), field("password", known["operator_password"].as_str().unwrap()));
        let (status, _) = this.open(
            gateway,
            "/login",
            &["--data-urlencode", &name, "--data-urlencode", &password, "--data-urlencode", &field("token", &token)],
        );
        assert_eq!(status, "303");
        this
    }

    /// The status of a page, and the page.
    fn open(&self, gateway: &Gateway, path: &str, more: &[&str]) -> (String, String) {
        let mut command = Command::new("curl");
        command.args(["-sS", "-H", "Accept: text/html", "-w", "%{stderr}%{http_code}", "-b"]).arg(&self.jar).arg("-c").arg(&self.jar);
        let output = command.arg(format!("{}/console{path}", gateway.url)).args(more).output().unwrap();
        (stderr(&output), stdout(&output))
    }
}

#[test]
fn who_was_logged_in_when_the_backup_was_made_is_not_after_a_restore() {
    let dev = folder();
    let gateway = Gateway::dev(&dev.dir);
    let browser = Browser::logged_in(&gateway, &dev);
    assert_eq!(browser.open(&gateway, "/account", &[]).0, "200");
    assert!(dev.verb("backup", &[]).status.success());
    let config = path_in(&dev_json(&dev.dir)["config"]);
    gateway.stop();
    // A restart ends no session; a restore does. Development mode itself sets its operator's password at each start.
    let gateway = Gateway::serve(&config);
    assert_eq!(browser.open(&gateway, "/account", &[]).0, "200");
    gateway.stop();
    let restored = dev.verb("restore", &["--replace"]);
    assert!(restored.status.success(), "{}", stderr(&restored));
    let gateway = Gateway::serve(&config);
    assert_eq!(browser.open(&gateway, "/account", &[]).0, "303");
    gateway.stop();
}

#[test]
fn what_is_no_backup_is_not_restored() {
    let dev = folder();
    Gateway::dev(&dev.dir).stop();
    let restored = dev.verb("restore", &["--replace"]);
    assert!(stderr(&restored).contains("is no backup"), "{}", stderr(&restored));
}
