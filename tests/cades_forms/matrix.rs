//! {RSA 2048 and 3072, v1.5 and PSS, P-256, P-384, P-521, Ed25519} × {attached, detached} × {undefined, BES, T, C, X Long} × {embedded certificates}.

use std::{
    fs,
    io::{Cursor, Read},
    path::{Path, PathBuf},
    thread,
    time::{Duration, SystemTime},
};

use der::{Decode, Encode};
use futures_util::{StreamExt, stream};
use reqwest::Method;
use sealgate::{
    cms::verify::SignedMessage,
    domain::{
        algorithm::{Curve, HashAlgorithm, KeyKind, SignatureAlgorithm},
        revocation::RevocationCheck,
        ticket::TimeStampCheck,
        timestamp::Timestamp,
    },
    pki::{Certificate, trust::TrustStore},
    verification::{Judgement, judge},
};
use serde_json::{Value, json};

use crate::common::{
    gateway::{Gateway, Plan, send},
    openssl::openssl,
    pyhanko,
    tsa::openssl_takes_token,
};

const CONTENT: &[u8] = b"first line\nsecond line\r\nthird\r\0\xff";

const KEYS: [(&str, KeyKind); 7] = [
    ("rsa-2048", KeyKind::Rsa { modulus_bits: 2048 }),
    ("rsa-3072", KeyKind::Rsa { modulus_bits: 3072 }),
    ("ec-p256", KeyKind::Ec(Curve::P256)),
    ("ec-p384", KeyKind::Ec(Curve::P384)),
    ("ec-p521", KeyKind::Ec(Curve::P521)),
    ("ed25519", KeyKind::Ed25519),
    ("tsa-p256", KeyKind::Ec(Curve::P256)),
];
const FORMS: [&str; 5] = ["undefined", "CAdESBES", "CAdEST", "CAdESC", "CAdESXLong"];
const EMBED: [&str; 4] = ["nothing", "signerCert", "signerAndCaCert", "signerCertAndCaInfo"];

struct Case {
    name: String,
    key: String,
    form: &'static str,
    attached: bool,
    embed: &'static str,
    der: Vec<u8>,
}

/// A gateway with a caller for each key, and for each RSA key one that signs with PSS.
async fn gateway() -> (Gateway, Vec<String>) {
    let mut plan = Plan::softhsm(&KEYS, 64).await;
    plan.crl_from_file();
    let pss = plan.keys[..2].iter().map(|key| {
        let mut key = key.clone();
        key.name = format!("{}-pss", key.name).parse().unwrap();
        key.algorithm = Some(SignatureAlgorithm::RsaPss(HashAlgorithm::Sha256));
        key
    });
    let pss = pss.collect::<Vec<_>>();
    plan.keys.extend(pss);
    let names: Vec<_> = plan.keys.iter().map(|key| key.name.clone()).filter(|name| !name.as_str().starts_with("tsa")).collect();
    for name in &names {
        let mut entry = plan.caller("ci").clone();
        entry.caller.id = name.as_str().parse().unwrap();
        entry.caller.default_key = Some(name.clone());
        entry.origins.clear();
        entry.api_keys = Some(vec![sealgate::auth::ApiKeyHash::of(&api_key(name.as_str())).into()]);
        plan.callers.push(entry);
    }
    (plan.start().await, names.iter().map(ToString::to_string).collect())
}

fn api_key(name: &str) -> String {
    format!("{name:0>40}")
}

async fn signed(gateway: &Gateway, mut case: Case) -> Case {
    let ask = |method, path: &str| gateway.anonymous(method, &format!("/api/v1{path}")).bearer_auth(api_key(&case.key));
    let ticket = send(ask(Method::POST, "/ticket")).await.json()["ticketUuid"].as_str().unwrap().to_owned();
    let ticket = format!("/ticket/{ticket}");
    let upload = ask(Method::POST, &format!("{ticket}/data")).header("content-type", "application/octet-stream").body(CONTENT);
    assert_eq!(send(upload).await.status, 200);
    let kind = if case.attached { "attached" } else { "detached" };
    let options = json!({ "signatureType": kind, "cadesType": case.form, "embedCertificateType": case.embed });
    let set = send(ask(Method::PUT, &format!("{ticket}/option")).json(&options)).await;
    assert_eq!(set.status, 200, "{}: {}", case.name, set.text());
    let started = send(ask(Method::POST, &format!("{ticket}/ds/creator"))).await;
    assert_eq!(started.status, 200, "{}: {}", case.name, started.text());
    let fetched = send(ask(Method::GET, &format!("{ticket}/ds/data"))).await;
    assert_eq!(fetched.status, 200, "{}: {}", case.name, fetched.text());
    case.der = fetched.body;
    case
}

fn cases(keys: &[String]) -> Vec<Case> {
    let mut cases = Vec::new();
    for key in keys {
        for form in FORMS {
            for embed in EMBED.into_iter().filter(|embed| form == "undefined" || *embed != "nothing") {
                for attached in [false, true] {
                    let name = format!("{key}, {form}, {embed}, {}", if attached { "attached" } else { "detached" });
                    cases.push(Case { name, key: key.clone(), form, attached, embed, der: Vec::new() });
                }
            }
        }
    }
    cases
}

/// The certificates of the keys as they stand in the signatures that carry them, in DER files.
fn write_certificates(dir: &Path, gateway: &Gateway, cases: &[Case]) {
    fs::write(dir.join("root.der"), gateway.ca.certificate().as_der()).unwrap();
    fs::write(dir.join("root.pem"), gateway.ca.certificate().to_pem()).unwrap();
    for case in cases.iter().filter(|case| case.embed == "signerCert") {
        let info = cms::content_info::ContentInfo::from_der(&case.der).unwrap();
        let data: cms::signed_data::SignedData = info.content.decode_as().unwrap();
        let certificate = data.certificates.unwrap().0.get(0).unwrap().to_der().unwrap();
        let certificate = sealgate::pki::Certificate::from_der(&certificate).unwrap();
        fs::write(dir.join(format!("{}.der", case.key)), certificate.as_der()).unwrap();
        fs::write(dir.join(format!("{}.pem", case.key)), certificate.to_pem()).unwrap();
    }
}

struct Judge<'a> {
    dir: &'a Path,
}

impl Judge<'_> {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Why OpenSSL does not take the signature, or its time stamp.
    fn openssl(&self, number: usize, case: &Case) -> Option<String> {
        let (signature, out) = (self.path(&format!("{number}.p7s")), self.path(&format!("{number}.out")));
        fs::write(&signature, &case.der).unwrap();
        let mut command: Vec<std::ffi::OsString> = ["cms", "-verify", "-binary", "-inform", "DER", "-in"].map(Into::into).into();
        command.extend([signature.into(), "-CAfile".into(), self.path("root.pem").into(), "-out".into(), out.clone().into()]);
        if !case.attached {
            command.extend(["-content".into(), self.path("content").into()]);
        }
        if case.embed == "nothing" {
            command.extend(["-certfile".into(), self.path(&format!("{}.pem", case.key)).into()]);
        }
        // OpenSSL 3.0 to 3.4 cannot verify Ed25519 in CMS; see tests/cms_interop. The others judge these.
        if case.key == "ed25519" {
            command.push("-no_attr_verify".into());
        } else if case.form != "undefined" {
            command.push("-cades".into());
        }
        let output = openssl(command);
        if !output.status.success() {
            return Some(format!("{}: {}", case.name, String::from_utf8_lossy(&output.stderr)));
        }
        if fs::read(out).unwrap() != CONTENT {
            return Some(format!("{}: other content came out", case.name));
        }
        self.time_stamp(number, case)
    }

    fn time_stamp(&self, number: usize, case: &Case) -> Option<String> {
        let info = cms::content_info::ContentInfo::from_der(&case.der).unwrap();
        let data: cms::signed_data::SignedData = info.content.decode_as().unwrap();
        let signer = data.signer_infos.0.get(0).unwrap();
        let attributes = signer.unsigned_attrs.iter().flat_map(|attributes| attributes.iter());
        let stamp = attributes.clone().find(|attribute| attribute.oid.to_string() == "1.2.840.113549.1.9.16.2.14");
        let expected = matches!(case.form, "CAdEST" | "CAdESC" | "CAdESXLong");
        if stamp.is_some() != expected {
            return Some(format!("{}: the time stamp", case.name));
        }
        let token = stamp?.values.get(0).unwrap().to_der().unwrap();
        let dir = self.path(&format!("stamp-{number}"));
        fs::create_dir(&dir).unwrap();
        let taken = openssl_takes_token(&dir, &self.path("root.pem"), &token, signer.signature.as_bytes());
        taken.err().map(|error| format!("{}: {error}", case.name))
    }

    /// Why we do not take it ourselves: now, and one of the form X Long five years on, with nobody to be asked.
    fn ourselves(&self, case: &Case) -> Option<String> {
        let read = |name: &str| Certificate::from_der(&fs::read(self.path(name)).unwrap()).unwrap();
        let (trust, leaf) = (TrustStore::new(vec![read("root.der")], Vec::new()), read(&format!("{}.der", case.key)));
        let stamped = matches!(case.form, "CAdEST" | "CAdESC" | "CAdESXLong");
        let now = Timestamp::from(SystemTime::now());
        let later = (case.form == "CAdESXLong").then(|| now.after(Duration::from_secs(5 * 365 * 24 * 3600)));
        [Some(now), later].into_iter().flatten().find_map(|at| {
            let judgement = Judgement {
                certificates: if case.embed == "nothing" { std::slice::from_ref(&leaf) } else { &[] },
                signature_time_stamp: if stamped { TimeStampCheck::VerifyOrFailIfNotPresent } else { TimeStampCheck::Ignore },
                revocation: if case.form == "CAdESXLong" { RevocationCheck::Required } else { RevocationCheck::WhereNamed },
                ..Judgement::of_documents(&trust, at)
            };
            let mut message = SignedMessage::read(Cursor::new(&case.der)).unwrap();
            let mut content = CONTENT;
            let verdict = judge(&mut message, (!case.attached).then_some(&mut content as &mut dyn Read), &judgement).unwrap();
            verdict.reason().map(|reason| format!("{} at {}: {reason}", case.name, at.to_rfc3339()))
        })
    }

    fn manifest(&self, number: usize, case: &Case) -> Value {
        let (leaf, root) = (self.path(&format!("{}.der", case.key)), self.path("root.der"));
        let embedded = match case.embed {
            "nothing" => vec![],
            "signerAndCaCert" => vec![&leaf, &root],
            _ => vec![&leaf],
        };
        json!({
            "name": case.name, "signature": self.path(&format!("{number}.p7s")), "content": self.path("content"), "form": case.form,
            "embedded": embedded, "path": [&leaf, &root], "attached": case.attached, "signatureTs": false, "contentTs": false,
            "caInfo": case.embed == "signerCertAndCaInfo",
        })
    }

    fn manifest_for_pyhanko(&self, number: usize, case: &Case) -> Value {
        let leaf = self.path(&format!("{}.der", case.key));
        json!({
            "name": case.name, "signature": self.path(&format!("{number}.p7s")),
            "content": (!case.attached).then(|| self.path("content")),
            "certificates": if case.embed == "nothing" { vec![leaf] } else { vec![] }, "accept": true,
        })
    }
}

pub fn run(script: &str, dir: &Path, manifest: &Value) {
    let file = dir.join(format!("{script}.json"));
    fs::write(&file, manifest.to_string()).unwrap();
    let output = pyhanko::run(script, [file.as_os_str()]);
    assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn openssl_pyhanko_and_asn1crypto_take_every_signature_of_the_matrix() {
    let (gateway, keys) = gateway().await;
    let cases: Vec<Case> = stream::iter(cases(&keys)).map(|case| signed(&gateway, case)).buffered(8).collect().await;
    // Eight ways to sign, each in 2 × (4 + 4 × 3) ways.
    assert_eq!(cases.len(), 8 * 32);
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("content"), CONTENT).unwrap();
    write_certificates(dir.path(), &gateway, &cases);
    gateway.stop().await;
    let judge = Judge { dir: dir.path() };
    let numbered: Vec<_> = cases.iter().enumerate().collect();
    let refused: Vec<String> = thread::scope(|scope| {
        let threads: Vec<_> = numbered
            .chunks(numbered.len().div_ceil(2))
            .map(|chunk| {
                scope.spawn(|| {
                    chunk
                        .iter()
                        .filter_map(|(number, case)| judge.openssl(*number, case).or_else(|| judge.ourselves(case)))
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert!(refused.is_empty(), "{} refused:\n{}", refused.len(), refused.join("\n"));
    let all = |manifest: &dyn Fn(usize, &Case) -> Value| numbered.iter().map(|(number, case)| manifest(*number, case)).collect::<Vec<_>>();
    let root = dir.path().join("root.der");
    let forms = json!({ "root": root, "years": 5, "cases": all(&|number, case| judge.manifest(number, case)) });
    run("check_forms.py", dir.path(), &forms);
    let pyhanko = json!({ "roots": [root], "cases": all(&|number, case| judge.manifest_for_pyhanko(number, case)) });
    run("verify_cms.py", dir.path(), &pyhanko);
}
