//! Our CMS signatures as others see them: OpenSSL and pyHanko accept every algorithm in every form, and refuse what was changed.
//!
//! The keys are software keys that OpenSSL made and signs with, so that only what stands between the two steps of `cms` is ours.

#![allow(clippy::unwrap_used)] // in the helpers of tests

#[path = "../common/mod.rs"]
mod common;
mod lab;

use std::{process::Output, sync::LazyLock, thread, time::SystemTime};

use cms::{content_info::ContentInfo, signed_data::SignedData as ReadSignedData};
use common::openssl::{openssl, openssl_ok};
use der::{Decode, Encode};
use lab::{Lab, Signer};
use sealgate::{
    cms::{SignedData, digest, embedded_certificates, signed_attributes},
    domain::{
        algorithm::SignatureAlgorithm,
        ticket::{CadesType, EmbedCertificate, SignatureType},
        timestamp::Timestamp,
        verify::verify,
    },
    pki::Certificate,
};
use serde_json::{Value, json};

/// What is signed: bytes that no conversion of line ends leaves alone.
const CONTENT: &[u8] = b"first line\nsecond line\r\nthird\r\0\xff";

static LAB: LazyLock<Lab> = LazyLock::new(Lab::new);

/// Every algorithm of every key × profile × embedded certificates × attached or detached.
static CASES: LazyLock<Vec<Case>> = LazyLock::new(|| LAB.signers.iter().flat_map(signatures_of).collect());

/// One signature.
#[derive(Clone)]
struct Case {
    name: String,
    signature_type: SignatureType,
    profile: CadesType,
    algorithm: SignatureAlgorithm,
    /// Certificates of the lab that a relying party needs beside those in the signature.
    elsewhere: Vec<&'static str>,
    signer: &'static str,
    der: Vec<u8>,
    content: Vec<u8>,
}

fn signatures_of(signer: &'static Signer) -> Vec<Case> {
    let algorithms = SignatureAlgorithm::ALL.into_iter().filter(|algorithm| algorithm.fits(&signer.kind));
    let profiles = [CadesType::Undefined, CadesType::Bes];
    algorithms
        .flat_map(|algorithm| profiles.map(|profile| (algorithm, profile)))
        .flat_map(|(algorithm, profile)| forms_of_one_signature(signer, algorithm, profile))
        .collect()
}

fn forms_of_one_signature(signer: &'static Signer, algorithm: SignatureAlgorithm, profile: CadesType) -> Vec<Case> {
    let certificate = &signer.certificate_der;
    let content_digest = digest(algorithm.message_digest_hash(), CONTENT);
    let now = Timestamp::from(SystemTime::now());
    let signed_attrs = signed_attributes(profile, &content_digest, now, certificate, algorithm).unwrap();
    let to_sign = signed_attrs.to_sign(algorithm).unwrap();
    let signature = signer.sign(&to_sign);
    assert_eq!(verify(Certificate::from_der(certificate).unwrap().spki(), &to_sign, &signature), Ok(()));
    let chain = [LAB.read("ca.der")];
    let mut cases = Vec::new();
    for embed in [EmbedCertificate::Nothing, EmbedCertificate::SignerCert, EmbedCertificate::SignerAndCaCert] {
        let certificates = embedded_certificates(embed, certificate, &chain);
        let made = SignedData {
            algorithm,
            signed_attrs: &signed_attrs,
            signature: &signature,
            signer_certificate: certificate,
            certificates: &certificates,
            unsigned_attrs: &[],
        };
        let forms = [(SignatureType::Detached, made.detached()), (SignatureType::Attached, made.attached(CONTENT))];
        cases.extend(forms.map(|(signature_type, der)| Case {
            name: format!("{}, {algorithm}, {profile:?}, {signature_type:?}, {embed:?}", signer.name),
            signature_type,
            profile,
            algorithm,
            elsewhere: match embed {
                EmbedCertificate::Nothing => vec![signer.name, "ca"],
                EmbedCertificate::SignerCert => vec!["ca"],
                EmbedCertificate::SignerAndCaCert | EmbedCertificate::SignerCertAndCaInfo => Vec::new(),
            },
            signer: signer.name,
            der: der.unwrap(),
            content: CONTENT.to_vec(),
        }));
    }
    cases
}

impl Case {
    fn file(&self, extension: &str) -> String {
        let plain = self.name.replace([',', ' '], "_");
        format!("{plain}.{extension}")
    }

    /// `openssl cms -verify`, with what a relying party would say of this signature and with `more`.
    fn verify_with_openssl(&self, more: &[&str]) -> Output {
        let signature = LAB.write(&self.file("p7s"), &self.der);
        let (out, content) = (LAB.path(&self.file("out")), LAB.write(&self.file("content"), &self.content));
        // OpenSSL takes only the signer's own certificate from -certfile; those of CAs must be in the signature or in -CAfile.
        let pem = |name: &&str| LAB.read(&format!("{name}.pem"));
        let (cas, signers) = self.elsewhere.iter().partition::<Vec<_>, _>(|name| **name == "ca");
        let trusted = LAB.write(&self.file("trusted.pem"), &["root"].iter().chain(cas).flat_map(pem).collect::<Vec<_>>());
        let certfile = LAB.write(&self.file("signer.pem"), &signers.iter().copied().flat_map(pem).collect::<Vec<_>>());
        let mut command = vec!["cms", "-verify", "-binary", "-inform", "DER", "-in", &signature, "-CAfile", &trusted, "-out", &out];
        if self.signature_type == SignatureType::Detached {
            command.extend(["-content", &content]);
        }
        if !signers.is_empty() {
            command.extend(["-certfile", &certfile]);
        }
        openssl([&command[..], more].concat())
    }

    fn cades_flag(&self) -> &'static [&'static str] {
        if self.profile == CadesType::Bes { &["-cades"] } else { &[] }
    }

    /// Why OpenSSL does not accept the signature, if it does not.
    fn refused_by_openssl(&self) -> Option<String> {
        let output = self.verify_with_openssl(self.cades_flag());
        if output.status.success() {
            return (LAB.read(&self.file("out")) != self.content).then(|| format!("{}: other content came out", self.name));
        }
        let reason = String::from_utf8_lossy(&output.stderr);
        if self.algorithm == SignatureAlgorithm::Ed25519 && reason.contains("eddsa_digest_signverify_init:invalid digest") {
            return self.refused_by_openssl_in_parts();
        }
        Some(format!("{}: {reason}", self.name))
    }

    /// OpenSSL 3.0 to 3.4 read Ed25519 in CMS but cannot verify it there (RFC 8419 names a digest, and they want none). So the certificate
    /// and the content are checked with that one step left out (and with it `-cades`), and the signature over the signed attributes by itself.
    fn refused_by_openssl_in_parts(&self) -> Option<String> {
        let without_signature = self.verify_with_openssl(&["-no_attr_verify"]);
        if !without_signature.status.success() {
            return Some(format!("{}: {}", self.name, String::from_utf8_lossy(&without_signature.stderr)));
        }
        let info = ContentInfo::from_der(&self.der).unwrap();
        let signed_data = info.content.decode_as::<ReadSignedData>().unwrap();
        let signer_info = signed_data.signer_infos.0.get(0).unwrap();
        let attributes = LAB.write(&self.file("attributes"), &signer_info.signed_attrs.to_der().unwrap());
        let value = LAB.write(&self.file("value"), signer_info.signature.as_bytes());
        let certificate = LAB.path(&format!("{}.pem", self.signer));
        let verified = openssl(["pkeyutl", "-verify", "-rawin", "-certin", "-inkey", &certificate, "-in", &attributes, "-sigfile", &value]);
        (!verified.status.success()).then(|| format!("{}: {}", self.name, String::from_utf8_lossy(&verified.stderr)))
    }

    /// The same signature over content that was changed.
    fn with_changed_content(&self) -> Self {
        let mut changed = self.clone();
        changed.name = format!("changed content, {}", self.name);
        match self.signature_type {
            SignatureType::Detached => changed.content[3] ^= 1,
            SignatureType::Attached => {
                let start = self.der.windows(CONTENT.len()).position(|window| window == CONTENT).unwrap();
                changed.der[start + 3] ^= 1;
                changed.content[3] ^= 1;
            }
        }
        changed
    }

    /// The same with a signature that was changed: its last byte, with which the DER ends.
    fn with_changed_signature(&self) -> Self {
        let mut changed = self.clone();
        changed.name = format!("changed signature, {}", self.name);
        *changed.der.last_mut().unwrap() ^= 1;
        changed
    }

    fn for_pyhanko(&self, accept: bool) -> Value {
        let detached = self.signature_type == SignatureType::Detached;
        json!({
            "name": self.name,
            "signature": LAB.write(&self.file("pyhanko.p7s"), &self.der),
            "content": detached.then(|| LAB.write(&self.file("pyhanko.content"), &self.content)),
            "certificates": self.elsewhere.iter().map(|name| LAB.path(&format!("{name}.der"))).collect::<Vec<_>>(),
            "accept": accept,
        })
    }
}

/// The changed forms of some signatures, one of each algorithm, attached and detached.
fn changed_cases() -> Vec<Case> {
    let complete = CASES.iter().filter(|case| case.elsewhere.is_empty() && case.profile == CadesType::Bes);
    complete.flat_map(|case| [case.with_changed_content(), case.with_changed_signature()]).collect()
}

/// What `judge` says of the cases, asked on two threads: it waits for other processes most of the time.
fn judge(cases: &[Case], judge: impl Fn(&Case) -> Option<String> + Sync) -> Vec<String> {
    let half = cases.len().div_ceil(2);
    thread::scope(|scope| {
        let threads = cases.chunks(half).map(|chunk| scope.spawn(|| chunk.iter().filter_map(&judge).collect::<Vec<_>>()));
        let threads = threads.collect::<Vec<_>>();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

/// What pyHanko says of these cases.
fn pyhanko(cases: Vec<Value>) -> Output {
    let manifest = json!({ "roots": [LAB.path("root.der")], "cases": cases });
    common::pyhanko::verify(LAB.write("manifest.json", manifest.to_string().as_bytes()).as_ref())
}

#[test]
fn openssl_accepts_every_signature() {
    // RSA: 2 keys × 6 algorithms; EC: 3 curves × 3 hash functions; Ed25519. Each × 2 profiles × 2 types × 3 choices of certificates.
    assert_eq!(CASES.len(), (2 * 6 + 3 * 3 + 1) * 12);
    let refused = judge(&CASES, Case::refused_by_openssl);
    assert!(refused.is_empty(), "{} of {} refused:\n{}", refused.len(), CASES.len(), refused.join("\n"));
}

#[test]
fn openssl_refuses_what_was_changed() {
    let accepted = judge(&changed_cases(), |case| case.refused_by_openssl().is_none().then(|| case.name.clone()));
    assert!(accepted.is_empty(), "accepted:\n{}", accepted.join("\n"));
}

#[test]
fn openssl_finds_no_cades_in_plain_cms() {
    let plain = CASES.iter().find(|case| case.profile == CadesType::Undefined).unwrap();
    let plain = Case { name: "plain, verified as CAdES".to_owned(), ..plain.clone() };
    let output = plain.verify_with_openssl(&["-cades"]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("missing signing certificate attribute"));
}

#[test]
fn openssl_reads_back_what_it_would_write_itself() {
    for case in CASES.iter() {
        let signature = LAB.write(&case.file("written.p7s"), &case.der);
        let written = openssl_ok(["cms", "-cmsout", "-inform", "DER", "-in", &signature, "-outform", "DER"]);
        assert!(written == case.der, "{} is written otherwise", case.name);
    }
}

#[test]
fn pyhanko_accepts_every_signature_and_refuses_what_was_changed() {
    let whole = CASES.iter().map(|case| case.for_pyhanko(true));
    let changed = changed_cases();
    let cases = whole.chain(changed.iter().map(|case| case.for_pyhanko(false))).collect::<Vec<_>>();
    let output = pyhanko(cases);
    assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
}
