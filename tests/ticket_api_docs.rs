//! `docs/ticket-api.md` is true: its commands run as they are printed.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::{fs, process::Command};

use common::gateway::{CI_KEY, Plan};
use sealgate::domain::algorithm::{Curve, KeyKind};
use serde_json::json;

/// The commands of all `sh` blocks, in order: one session in one shell, as a reader has it.
fn commands() -> String {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/ticket-api.md")).unwrap();
    let blocks: Vec<_> = page.split("```sh\n").skip(1).map(|rest| rest.split_once("```").unwrap().0).collect();
    assert!(blocks.len() >= 8, "{} blocks", blocks.len());
    blocks.concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_commands_of_the_page_run_as_printed() {
    let keys =
        [("ec-p256", KeyKind::Ec(Curve::P256)), ("rsa-2048", KeyKind::Rsa { modulus_bits: 2048 }), ("tsa-p256", KeyKind::Ec(Curve::P256))];
    let gateway = Plan::softhsm(&keys, 1024).await.start().await;
    let folder = tempfile::tempdir().unwrap();
    let dev = folder.path().join(".sealgate-dev");
    fs::create_dir(&dev).unwrap();
    let ca = dev.join("ca.pem");
    fs::write(&ca, gateway.ca.certificate().to_pem()).unwrap();
    let keys: Vec<_> = gateway.keys.iter().map(|key| json!({ "name": key.name.as_str(), "uri": key.uri.to_string() })).collect();
    let record = json!({ "url": gateway.urls[0], "api_key": CI_KEY, "ca_certificate": ca, "keys": keys });
    fs::write(dev.join("dev.json"), record.to_string()).unwrap();

    let script = format!("set -euo pipefail\n{}", commands());
    let mut bash = Command::new("bash");
    bash.args(["-c", &script]).current_dir(folder.path()).env("NO_PROXY", "127.0.0.1");
    let output = tokio::task::spawn_blocking(move || bash.output()).await.unwrap().unwrap();
    let said = format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}\n(curl, jq and openssl must be installed: scripts/setup.sh --tests)");
    assert_eq!(said.matches("CMS Verification successful").count() + said.matches("CAdES Verification successful").count(), 5, "{said}");
    for expected in ["{\"message\":\"There is no such session.\"}", "\nec-p256\n", "\ntrue\n", "\n0\n"] {
        assert!(said.contains(expected), "{expected} is not in {said}");
    }
    gateway.stop().await;
}
