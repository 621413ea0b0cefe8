//! The `openssl` program: an independent judge of signatures and maker of keys. A missing program fails the test.

use std::{
    ffi::{OsStr, OsString},
    fs,
    path::Path,
    process::{Command, Output},
};

use sealgate::domain::algorithm::{HashAlgorithm, SignatureAlgorithm};

/// Runs `openssl` with these arguments and gives back how it ended.
pub fn openssl<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Output {
    Command::new("openssl")
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("`openssl` does not start ({error}); install it: apt-get install openssl"))
}

/// Runs `openssl`, which must succeed, and gives back what it printed.
pub fn openssl_ok<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Vec<u8> {
    let arguments = arguments.into_iter().map(|argument| argument.as_ref().to_owned()).collect::<Vec<_>>();
    let output = openssl(&arguments);
    assert!(output.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Whether OpenSSL accepts `signature` (ECDSA in DER) over `message` for the key in `spki`.
pub fn verifies(spki: &[u8], algorithm: SignatureAlgorithm, message: &[u8], signature: &[u8]) -> bool {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = |name: &str, content: &[u8]| {
        let path = directory.path().join(name);
        fs::write(&path, content).expect("a file for OpenSSL");
        path.into_os_string()
    };
    let (key, message, signature) = (file("key.der", spki), file("message", message), file("signature", signature));
    let mut arguments: Vec<OsString> = Vec::new();
    let mut say = |words: &[&str]| arguments.extend(words.iter().map(OsString::from));
    match algorithm {
        SignatureAlgorithm::Ed25519 => {
            say(&["pkeyutl", "-verify", "-pubin", "-keyform", "DER", "-rawin", "-inkey"]);
            arguments.extend([key, "-sigfile".into(), signature, "-in".into(), message]);
        }
        SignatureAlgorithm::RsaPkcs1(hash) | SignatureAlgorithm::RsaPss(hash) | SignatureAlgorithm::Ecdsa(hash) => {
            say(&["dgst", digest_option(hash)]);
            if matches!(algorithm, SignatureAlgorithm::RsaPss(_)) {
                say(&["-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest"]);
            }
            say(&["-keyform", "DER", "-verify"]);
            arguments.extend([key, "-signature".into(), signature, message]);
        }
    }
    openssl(arguments).status.success()
}

/// Has OpenSSL verify a detached signature, wherever the signer's certificate leads; `more` is an option and its value.
pub fn openssl_takes_cms(dir: &Path, cms: &[u8], content: &[u8], more: [&str; 2]) {
    let file = |name: &str, bytes: &[u8]| {
        fs::write(dir.join(name), bytes).expect("a file for OpenSSL");
        dir.join(name).display().to_string()
    };
    let (cms, content) = (file("cms", cms), file("content", content));
    let verify = ["cms", "-verify", "-binary", "-noverify", "-inform", "der", "-in", &cms, "-content", &content, "-out", "/dev/null"];
    openssl_ok([&verify[..], &more].concat());
}

/// Makes a private key in PKCS#8 (PEM) at `path`, and returns its public key in DER.
pub fn private_key(path: &Path, algorithm: &[&str]) -> Vec<u8> {
    let path = path.as_os_str();
    openssl_ok([OsStr::new("genpkey")].into_iter().chain(algorithm.iter().map(OsStr::new)).chain([OsStr::new("-out"), path]));
    openssl_ok(["pkey", "-pubout", "-outform", "DER", "-in"].map(OsStr::new).into_iter().chain([path]))
}

const fn digest_option(hash: HashAlgorithm) -> &'static str {
    match hash {
        HashAlgorithm::Sha256 => "-sha256",
        HashAlgorithm::Sha384 => "-sha384",
        HashAlgorithm::Sha512 => "-sha512",
    }
}
