//! Good signatures of other programs.

use std::fs;

use sealgate::domain::algorithm::{HashAlgorithm, SignatureAlgorithm};

use crate::{
    common::openssl::openssl_ok,
    lab::{CONTENT, Lab, P256, RSA},
};

#[test]
fn openssl_signs_with_every_algorithm_attached_and_detached() {
    use HashAlgorithm::{Sha256, Sha384, Sha512};
    let pss = ["-keyopt", "rsa_padding_mode:pss"];
    let cases: [(&str, &[&str], Vec<&str>, SignatureAlgorithm); 8] = [
        ("rsa", RSA, vec!["-md", "sha256"], SignatureAlgorithm::RsaPkcs1(Sha256)),
        ("rsa-512", RSA, vec!["-md", "sha512"], SignatureAlgorithm::RsaPkcs1(Sha512)),
        (
            "rsa-3072",
            &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:3072"],
            vec!["-md", "sha384"],
            SignatureAlgorithm::RsaPkcs1(Sha384),
        ),
        ("pss", RSA, [&pss[..], &["-md", "sha256", "-keyopt", "rsa_pss_saltlen:digest"]].concat(), SignatureAlgorithm::RsaPss(Sha256)),
        ("pss-long", RSA, [&pss[..], &["-md", "sha384", "-keyopt", "rsa_pss_saltlen:max"]].concat(), SignatureAlgorithm::RsaPss(Sha384)),
        ("p256", P256, vec!["-md", "sha256"], SignatureAlgorithm::Ecdsa(Sha256)),
        ("p384", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"], vec!["-md", "sha384"], SignatureAlgorithm::Ecdsa(Sha384)),
        ("p521", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521"], vec!["-md", "sha512"], SignatureAlgorithm::Ecdsa(Sha512)),
    ];
    let lab = Lab::new();
    for (name, key, options, algorithm) in cases {
        let certificate = lab.signer(name, key);
        for more in [&[][..], &["-cades"], &["-nodetach"], &["-nodetach", "-cades"], &["-nodetach", "-stream"], &["-keyid"]] {
            // OpenSSL 3.0 cannot stream these; with Ed25519 it cannot sign at all.
            if more.contains(&"-stream") && name.starts_with("pss") {
                continue;
            }
            let signature = lab.sign(name, &[&options, more].concat());
            let content = (!more.contains(&"-nodetach")).then_some(CONTENT);
            let verdict = lab.judge(&signature, content).unwrap_or_else(|error| panic!("{name} {more:?}: {error}"));
            assert!(verdict.is_good(), "{name} {more:?}: {:?}", verdict.reason());
            assert_eq!(verdict.attached, content.is_none());
            let [signer] = verdict.signers.as_slice() else { panic!("{name} {more:?}") };
            assert_eq!((signer.certificate.as_ref(), signer.algorithm), (Some(&certificate), Some(algorithm)), "{name} {more:?}");
            assert!(signer.signing_time.is_some());
        }
    }
}

#[test]
fn a_signature_without_attributes_is_one_of_the_content_itself() {
    let lab = Lab::new();
    for (name, key) in [("rsa", RSA), ("p256", P256)] {
        lab.signer(name, key);
        for more in [&["-noattr", "-nodetach"][..], &["-noattr"]] {
            let content = (!more.contains(&"-nodetach")).then_some(CONTENT);
            let verdict = lab.judge(&lab.sign(name, more), content).unwrap();
            assert!(verdict.is_good(), "{name} {more:?}: {:?}", verdict.reason());
        }
        assert_eq!(lab.reason(&lab.sign(name, &["-noattr"]), Some(b"other")), "the signature value is wrong");
    }
}

#[test]
fn each_of_several_signers_is_judged() {
    let lab = Lab::new();
    let (first, second) = (lab.signer("first", RSA), lab.signer("second", P256));
    let (second_file, second_key) = (lab.path("second.pem"), lab.path("second.key"));
    let signature = lab.sign("first", &["-nodetach", "-signer", &second_file, "-inkey", &second_key]);
    let verdict = lab.judge(&signature, None).unwrap();
    assert!(verdict.is_good(), "{:?}", verdict.reason());
    let mut signers: Vec<_> = verdict.signers.iter().map(|signer| signer.certificate.as_ref().unwrap().serial()).collect();
    let mut expected = [first.serial(), second.serial()];
    signers.sort();
    expected.sort();
    assert_eq!(signers, expected);
    // One signature that a program adds to another's.
    let input = lab.write("signed", &lab.sign("first", &["-nodetach"]));
    let out = lab.path("resigned");
    let arguments = ["cms", "-resign", "-inform", "DER", "-in", &input, "-outform", "DER", "-out", &out];
    openssl_ok([&arguments[..], &["-signer", &second_file, "-inkey", &second_key]].concat());
    let verdict = lab.judge(&fs::read(out).unwrap(), None).unwrap();
    assert!(verdict.is_good() && verdict.signers.len() == 2, "{:?}", verdict.reason());
}

#[test]
fn a_certificate_that_is_not_inside_must_be_given() {
    use sealgate::verification::{Judgement, judge_detached};
    let lab = Lab::new();
    let certificate = lab.signer("signer", P256);
    let signature = lab.sign("signer", &["-nocerts"]);
    assert_eq!(lab.reason(&signature, Some(CONTENT)), "its certificate is not in the signature and was not given");
    let trust = lab.trust();
    let given = [certificate, lab.ca.clone()];
    let judgement = Judgement { certificates: &given, ..crate::lab::judgement(&trust, crate::lab::now()) };
    assert!(judge_detached(&signature, CONTENT, &judgement).unwrap().is_good());
}

#[test]
fn content_of_any_length_is_streamed_and_copied_out() {
    use sealgate::cms::verify::SignedMessage;
    let lab = Lab::new();
    lab.signer("signer", P256);
    let content: Vec<u8> = (0..3_000_000_u32).map(|number| (number % 251) as u8).collect();
    for more in [&["-nodetach"][..], &["-nodetach", "-stream"]] {
        lab.write("content", &content);
        let signature = lab.sign("signer", more);
        assert!(lab.judge(&signature, None).unwrap().is_good());
        let mut copied = Vec::new();
        let mut message = SignedMessage::read(std::io::Cursor::new(&signature)).unwrap();
        assert_eq!(message.content_len(), Some(content.len() as u64));
        assert_eq!(message.copy_content(&mut copied).unwrap(), content.len() as u64);
        assert!(copied == content, "{more:?}");
        // The same content beside it changes nothing; another is not what was signed.
        assert!(lab.judge(&signature, Some(&content)).unwrap().is_good());
        assert_eq!(lab.reason(&signature, Some(CONTENT)), "the content that was given is not the one in the signature");
    }
}
