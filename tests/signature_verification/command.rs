//! `sealgate verify`: offline, with exit codes and JSON.

use std::process::{Command, Output};

use crate::lab::{CONTENT, Lab, P256, SIGNER, days};

fn verify(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sealgate")).arg("verify").args(arguments).output().unwrap()
}

fn report(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[test]
fn the_command_says_who_signed_and_whether_it_holds() {
    let lab = Lab::new();
    let signer = lab.signer("signer", P256);
    let (root, content) = (lab.path("root.pem"), lab.write("document", CONTENT));
    let other = lab.write("other", b"other");
    let detached = lab.write("detached.p7s", &lab.sign("signer", &["-cades"]));
    let pem = lab.write("attached.pem", &lab.sign("signer", &["-nodetach", "-outform", "PEM"]));
    let good = verify(&["--json", "--trust", &root, "--content", &content, &detached]);
    let said = report(&good);
    assert_eq!((good.status.code(), &said["valid"], &said["attached"]), (Some(0), &true.into(), &false.into()));
    assert_eq!(said["signers"][0]["serial"], signer.serial());
    assert_eq!(said["signers"][0]["algorithm"], "ecdsa-sha256");
    let attached = verify(&["--trust", &root, &pem]);
    assert_eq!(attached.status.code(), Some(0), "{attached:?}");
    assert!(String::from_utf8_lossy(&attached.stdout).starts_with("valid\n  good: signed by CN=signer,O=Ромашка with ecdsa-sha256"));
    let wrong = verify(&["--json", "--trust", &root, "--content", &other, &detached]);
    assert_eq!(wrong.status.code(), Some(1));
    assert_eq!(report(&wrong)["signers"][0]["reason"], "the content is not the one that was signed");
    let nonsense = verify(&["--json", "--trust", &root, &other]);
    assert_eq!((nonsense.status.code(), &report(&nonsense)["valid"]), (Some(1), &false.into()));
}

#[test]
fn wrong_usage_is_told_from_a_bad_signature() {
    let lab = Lab::new();
    lab.signer("signer", P256);
    let detached = lab.write("detached.p7s", &lab.sign("signer", &[]));
    let root = lab.path("root.pem");
    for arguments in [&[detached.as_str()][..], &["--trust", &root, &detached]] {
        assert_eq!(verify(arguments).status.code(), Some(2), "{arguments:?}");
    }
    assert_eq!(verify(&["--trust", &root, "/nonexistent"]).status.code(), Some(1));
}

#[test]
fn the_command_judges_as_of_another_time_and_says_what_the_time_stamp_says() {
    let lab = Lab::new();
    let signer = lab.certificate("signer", P256, SIGNER, "30");
    lab.authority("tsa");
    let (root, content) = (lab.path("root.pem"), lab.write("document", CONTENT));
    let (plain, long) = (lab.sign("signer", &["-cades"]), lab.x_long("signer", &signer, &[]));
    let (plain, long) = (lab.write("plain.p7s", &plain), lab.write("long.p7s", &long));
    let later = days(5 * 365).to_rfc3339();
    let verify_as =
        |more: &[&str], signature: &str| verify(&[&["--json", "--trust", &root, "--content", &content], more, &[signature]].concat());
    let expired = verify_as(&["--at", &later], &plain);
    assert_eq!(expired.status.code(), Some(1));
    assert!(report(&expired)["signers"][0]["reason"].as_str().unwrap().contains("it had expired on"));
    let held = verify_as(&["--at", &later, "--require-time-stamp"], &long);
    let said = report(&held);
    assert_eq!(held.status.code(), Some(0), "{said}");
    assert_eq!(said["signers"][0]["judged_at"], said["signers"][0]["time_stamp"]["time"]);
    assert_eq!(said["signers"][0]["time_stamp"]["authority"], "CN=tsa,O=Ромашка");
    assert_eq!(verify_as(&["--require-time-stamp"], &plain).status.code(), Some(1));
    let demanded = verify_as(&["--revocation", "required"], &plain);
    assert!(report(&demanded)["signers"][0]["reason"].as_str().unwrap().contains("whether it was revoked cannot be said"));
    for wrong in [["--at", "tomorrow"], ["--revocation", "perhaps"]] {
        assert_eq!(verify_as(&wrong, &plain).status.code(), Some(2), "{wrong:?}");
    }
}
