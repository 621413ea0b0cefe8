//! A backup that is put in place signs nothing twice and lets nobody spend what was spent.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use common::program::{Gateway, dev_json, run, stderr, stdout};
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

#[test]
fn what_is_no_backup_is_not_restored() {
    let dev = folder();
    Gateway::dev(&dev.dir).stop();
    let restored = dev.verb("restore", &["--replace"]);
    assert!(stderr(&restored).contains("is no backup"), "{}", stderr(&restored));
}
