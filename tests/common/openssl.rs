//! OpenSSL's command line as an independent judge of signatures and maker of keys.

use std::{fs, path::Path, process::Command};

use sealgate::domain::algorithm::{HashAlgorithm, SignatureAlgorithm};

/// Whether OpenSSL accepts `signature` (ECDSA in DER) over `message` for the key in `spki`.
pub fn verifies(spki: &[u8], algorithm: SignatureAlgorithm, message: &[u8], signature: &[u8]) -> bool {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = |name: &str, content: &[u8]| {
        let path = directory.path().join(name);
        fs::write(&path, content).expect("a file for OpenSSL");
        path
    };
    let (key, message, signature) = (file("key.der", spki), file("message", message), file("signature", signature));
    let mut openssl = Command::new("openssl");
    match algorithm {
        SignatureAlgorithm::Ed25519 => {
            openssl.args(["pkeyutl", "-verify", "-pubin", "-keyform", "DER", "-rawin", "-inkey"]).arg(key);
            openssl.arg("-sigfile").arg(signature).arg("-in").arg(message);
        }
        SignatureAlgorithm::RsaPkcs1(hash) | SignatureAlgorithm::RsaPss(hash) | SignatureAlgorithm::Ecdsa(hash) => {
            openssl.args(["dgst", digest_option(hash), "-keyform", "DER", "-verify"]).arg(key);
            if matches!(algorithm, SignatureAlgorithm::RsaPss(_)) {
                openssl.args(["-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest"]);
            }
            openssl.arg("-signature").arg(signature).arg(message);
        }
    }
    openssl.output().expect("openssl; apt-get install openssl").status.success()
}

/// Makes a private key in PKCS#8 (PEM) at `path`, and returns its public key in DER.
pub fn private_key(path: &Path, algorithm: &[&str]) -> Vec<u8> {
    let made = Command::new("openssl").arg("genpkey").args(algorithm).arg("-out").arg(path).output().expect("openssl");
    assert!(made.status.success(), "openssl genpkey {algorithm:?}: {}", String::from_utf8_lossy(&made.stderr));
    let public = Command::new("openssl").args(["pkey", "-pubout", "-outform", "DER", "-in"]).arg(path).output().expect("openssl");
    assert!(public.status.success());
    public.stdout
}

const fn digest_option(hash: HashAlgorithm) -> &'static str {
    match hash {
        HashAlgorithm::Sha256 => "-sha256",
        HashAlgorithm::Sha384 => "-sha384",
        HashAlgorithm::Sha512 => "-sha512",
    }
}
