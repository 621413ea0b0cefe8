//! Certificates of the development CA as OpenSSL sees them.

#![allow(clippy::unwrap_used)] // in the helpers of tests

#[path = "common/mod.rs"]
mod common;

use std::{
    fs,
    path::Path,
    time::{Duration, SystemTime},
};

use common::openssl::{openssl, openssl_ok};
use sealgate::{
    domain::{algorithm::KeyKind, timestamp::Timestamp},
    pki::{Certificate, DevCa, Validity},
};
use tempfile::TempDir;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// One key of each kind, as `openssl genpkey` is asked for it.
const KEYS: [(&str, &[&str]); 5] = [
    ("RSA 2048", &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]),
    ("EC P-256", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]),
    ("EC P-384", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"]),
    ("EC P-521", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521"]),
    ("Ed25519", &["-algorithm", "ED25519"]),
];

fn now() -> Timestamp {
    Timestamp::from(SystemTime::now())
}

fn ca() -> DevCa {
    DevCa::create("Sealgate development CA", Validity::new(now(), now().after(DAY * 3650)).unwrap()).unwrap()
}

fn write(dir: &TempDir, name: &str, bytes: impl AsRef<[u8]>) -> String {
    let path = dir.path().join(name);
    fs::write(&path, bytes).unwrap();
    text(&path)
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// The public key of a new key that OpenSSL makes.
fn new_spki(dir: &TempDir, of_kind: &[&str]) -> Vec<u8> {
    let key = text(&dir.path().join("leaf.key"));
    openssl_ok([&["genpkey", "-out", &key][..], of_kind].concat());
    openssl_ok(["pkey", "-in", &key, "-pubout", "-outform", "DER"])
}

#[test]
fn openssl_trusts_leaves_of_every_kind_strictly() {
    let (dir, ca) = (tempfile::tempdir().unwrap(), ca());
    let ca_file = write(&dir, "ca.pem", ca.certificate().to_pem());
    for (kind, of_kind) in KEYS {
        let spki = new_spki(&dir, of_kind);
        let leaf = ca.issue(&spki, kind, Validity::new(now(), now().after(DAY * 365)).unwrap()).unwrap();
        assert_eq!(leaf.key_kind().to_string(), kind);
        assert_eq!(leaf.spki(), spki);
        let leaf_file = write(&dir, "leaf.pem", leaf.to_pem());
        openssl_ok(["verify", "-x509_strict", "-purpose", "smimesign", "-CAfile", &ca_file, &leaf_file]);
    }
}

#[test]
fn openssl_does_not_trust_a_leaf_of_another_ca() {
    let (dir, ca) = (tempfile::tempdir().unwrap(), ca());
    let stranger = DevCa::create("Sealgate development CA", Validity::new(now(), now().after(DAY)).unwrap()).unwrap();
    let ca_file = write(&dir, "ca.pem", stranger.certificate().to_pem());
    let leaf = ca.issue(&new_spki(&dir, KEYS[1].1), "leaf", Validity::new(now(), now().after(DAY)).unwrap()).unwrap();
    let leaf_file = write(&dir, "leaf.pem", leaf.to_pem());
    assert!(!openssl(["verify", "-CAfile", &ca_file, &leaf_file]).status.success());
}

#[test]
fn openssl_reads_names_key_usage_and_the_stored_key() {
    let (dir, ca) = (tempfile::tempdir().unwrap(), ca());
    let leaf = ca.issue(&new_spki(&dir, KEYS[4].1), "Підписувач №1", Validity::new(now(), now().after(DAY)).unwrap()).unwrap();
    let leaf_file = write(&dir, "leaf.pem", leaf.to_pem());
    let shown = openssl_ok(["x509", "-in", &leaf_file, "-noout", "-subject", "-nameopt", "utf8", "-ext", "keyUsage"]);
    let shown = String::from_utf8(shown).unwrap();
    assert!(shown.contains("CN=Підписувач №1"), "{shown}");
    assert!(shown.contains("X509v3 Key Usage: critical\n    Digital Signature, Non Repudiation"), "{shown}");
    let key_file = write(&dir, "ca.key", ca.key_pem().unwrap().as_bytes());
    assert_eq!(openssl_ok(["pkey", "-in", &key_file, "-pubout", "-outform", "DER"]), ca.certificate().spki());
}

#[test]
fn a_certificate_of_openssl_is_read_as_it_was_made() {
    let dir = tempfile::tempdir().unwrap();
    let (key, certificate) = (text(&dir.path().join("key")), text(&dir.path().join("certificate")));
    openssl_ok([
        "req",
        "-x509",
        "-newkey",
        "rsa:3072",
        "-nodes",
        "-keyout",
        &key,
        "-out",
        &certificate,
        "-subj",
        "/O=A+OU=B/CN=C",
        "-set_serial",
        "0xdeadbeef",
        "-days",
        "2",
        "-multivalue-rdn",
    ]);
    let read = Certificate::from_pem(&fs::read_to_string(&certificate).unwrap()).unwrap();
    assert_eq!(read.key_kind(), KeyKind::Rsa { modulus_bits: 3072 });
    assert_eq!((read.subject().as_str(), read.serial().as_str()), ("CN=C,O=A+OU=B", "deadbeef"));
    assert_eq!(read.key_usage(), None);
    assert!(read.valid_at(now()) && !read.valid_at(now().after(DAY * 3)));
    assert_eq!(read.as_der(), openssl_ok(["x509", "-in", &certificate, "-outform", "DER"]));
}
