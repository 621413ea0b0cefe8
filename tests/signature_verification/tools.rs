//! Good signatures of programs that share no code with OpenSSL: pyHanko in all its forms, and GnuPG's S/MIME tool.

use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use sealgate::{
    domain::{revocation::RevocationCheck, ticket::TimeStampCheck},
    verification::{Judgement, Verdict, judge},
};
use serde_json::json;

use crate::{
    common::{openssl::openssl_ok, pyhanko},
    lab::{CONTENT, Lab, P256, RSA, TSA, days, judgement, now},
};

/// The verdict on a file, as far as stamps are there with them.
fn verdict(lab: &Lab, file: &Path, attached: bool, check: RevocationCheck) -> Verdict {
    let trust = lab.trust();
    let judgement = Judgement {
        signature_time_stamp: TimeStampCheck::VerifyIfPresent,
        content_time_stamp: TimeStampCheck::VerifyIfPresent,
        revocation: check,
        ..judgement(&trust, now())
    };
    let mut message = sealgate::cms::verify::SignedMessage::read(fs::File::open(file).unwrap()).unwrap();
    let mut content = CONTENT;
    let given = (!attached).then_some(&mut content as &mut dyn std::io::Read);
    let verdict = judge(&mut message, given, &judgement).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    if attached {
        let mut inside = Vec::new();
        message.copy_content(&mut inside).unwrap();
        assert_eq!(inside, CONTENT, "{}", file.display());
    }
    verdict
}

#[test]
fn what_pyhanko_signs_holds_in_every_form_that_it_has() {
    let lab = Lab::new();
    // pyHanko's own authority signs with RSA only.
    lab.certificate("tsa", RSA, TSA, "3000");
    let week = [days(-1), days(6)];
    let (of_ca, of_root) = (lab.crl("ca", &[], week), lab.crl("root", &[], week));
    let lists = [lab.write("ca.crl", &of_ca), lab.write("root.crl", &of_root)];
    for (name, key) in [("rsa", RSA), ("p256", P256)] {
        let certificate = lab.signer(name, key);
        let out = tempfile::tempdir().unwrap();
        let file = |name: &str, suffix: &str| lab.path(&format!("{name}.{suffix}"));
        let manifest = json!({
            "key": file(name, "key"), "certificate": file(name, "pem"), "ca": file("ca", "pem"), "tsa_key": file("tsa", "key"),
            "tsa_certificate": file("tsa", "pem"), "content": lab.path("content"), "crls": lists, "out": out.path(),
        });
        let manifest = lab.write("manifest.json", manifest.to_string().as_bytes());
        let output = pyhanko::run("sign_cms.py", [manifest.as_ref()]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let made: Vec<String> = serde_json::from_slice(&output.stdout).unwrap();
        assert!(made.len() >= 8, "{made:?}");
        for form in made {
            let check = if form == "lt" { RevocationCheck::Required } else { RevocationCheck::WhereNamed };
            let verdict = verdict(&lab, &out.path().join(format!("{form}.p7s")), form.ends_with("attached"), check);
            assert!(verdict.is_good(), "{name} {form}: {:?}", verdict.reason());
            let [signer] = verdict.signers.as_slice() else { panic!("{name} {form}") };
            assert_eq!(signer.certificate.as_ref(), Some(&certificate), "{name} {form}");
            let stamped = form.starts_with('t') || form == "lt" || form == "content-stamp";
            assert_eq!(signer.signature_time_stamp.is_some(), stamped, "{name} {form}");
            assert_eq!(signer.content_time_stamp.is_some(), form == "content-stamp", "{name} {form}");
        }
    }
}

/// GnuPG's S/MIME tool with a home of its own, whose agent ends with it.
struct Gpgsm {
    home: tempfile::TempDir,
}

impl Gpgsm {
    const PASSPHRASE: &str = "passphrase";

    fn run(&self, arguments: &[&str]) {
        let mut command = Command::new("gpgsm");
        command.env("GNUPGHOME", self.home.path()).args(["--batch", "--yes", "--pinentry-mode", "loopback", "--passphrase-fd", "0"]);
        let started = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = started.unwrap_or_else(|error| panic!("gpgsm does not start ({error}); run scripts/setup.sh --tests"));
        child.stdin.take().unwrap().write_all(Self::PASSPHRASE.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "gpgsm {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for Gpgsm {
    fn drop(&mut self) {
        let _ = Command::new("gpgconf").env("GNUPGHOME", self.home.path()).args(["--kill", "all"]).status();
    }
}

#[test]
fn what_gpgsm_signs_holds_attached_and_detached() {
    let lab = Lab::new();
    let certificate = lab.signer("signer", RSA);
    // GnuPG's sockets have short paths.
    let gpgsm = Gpgsm { home: tempfile::Builder::new().prefix("g").tempdir_in("/tmp").unwrap() };
    fs::write(gpgsm.home.path().join("trustlist.txt"), format!("{} S relax\n", fingerprint(&lab.path("root.pem")))).unwrap();
    let (chain, p12) = (lab.path("chain.pem"), lab.path("signer.p12"));
    fs::write(&chain, [fs::read(lab.path("ca.pem")).unwrap(), fs::read(lab.path("root.pem")).unwrap()].concat()).unwrap();
    let (key, own, pass) = (lab.path("signer.key"), lab.path("signer.pem"), format!("pass:{}", Gpgsm::PASSPHRASE));
    // What GnuPG 2.2 reads.
    let old = ["-certpbe", "PBE-SHA1-3DES", "-keypbe", "PBE-SHA1-3DES", "-macalg", "sha1"];
    let export = ["pkcs12", "-export", "-in", &own, "-inkey", &key, "-certfile", &chain, "-out", &p12, "-passout", &pass];
    openssl_ok([&export[..], &old].concat());
    gpgsm.run(&["--import", &p12]);
    let (content, out, user) = (lab.path("content"), lab.path("gpgsm.p7s"), fingerprint(&own));
    for (how, attached) in [("--detach-sign", false), ("--sign", true)] {
        for digest in ["SHA256", "SHA512"] {
            gpgsm.run(&["--disable-crl-checks", "--digest-algo", digest, "--local-user", &user, "--output", &out, how, &content]);
            let verdict = verdict(&lab, Path::new(&out), attached, RevocationCheck::WhereNamed);
            assert!(verdict.is_good(), "{how} {digest}: {:?}", verdict.reason());
            assert_eq!(verdict.signers[0].certificate.as_ref(), Some(&certificate), "{how} {digest}");
            fs::remove_file(&out).unwrap();
        }
    }
}

/// What GnuPG names a certificate by.
fn fingerprint(certificate: &str) -> String {
    let line = String::from_utf8(openssl_ok(["x509", "-in", certificate, "-noout", "-fingerprint", "-sha1"])).unwrap();
    line.trim().split('=').next_back().unwrap().replace(':', "")
}
