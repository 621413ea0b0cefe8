//! Signatures with time stamps through the ticket API: what they look like, and what happens when the authority is away.

use std::{fs, path::Path, sync::Arc, time::Duration};

use der::{Decode, Encode};
use sealgate::{
    cms::time_stamp::TimeStamp,
    domain::algorithm::{Curve, KeyKind},
};
use serde_json::{Value, json};

use crate::common::{
    gateway::{Gateway, Plan},
    openssl::openssl,
    tsa::{Manner, TestTsa, TsaLab, openssl_takes_token},
};

const CONTENT: &[u8] = b"what is signed";
const KEYS: [(&str, KeyKind); 2] = [("ec-p256", KeyKind::Ec(Curve::P256)), ("tsa-p256", KeyKind::Ec(Curve::P256))];

const SIGNATURE_TIME_STAMP: &str = "1.2.840.113549.1.9.16.2.14";
const CONTENT_TIME_STAMP: &str = "1.2.840.113549.1.9.16.2.20";

/// The attribute's value, if the signature's only signer has it.
fn attribute(signature: &[u8], signed: bool, oid: &str) -> Option<Vec<u8>> {
    let info = cms::content_info::ContentInfo::from_der(signature).unwrap();
    let data: cms::signed_data::SignedData = info.content.decode_as().unwrap();
    let signer = data.signer_infos.0.get(0).unwrap();
    let attributes = if signed { &signer.signed_attrs } else { &signer.unsigned_attrs };
    let found = attributes.as_ref()?.iter().find(|attribute| attribute.oid.to_string() == oid)?;
    assert_eq!(found.values.len(), 1);
    Some(found.values.get(0).unwrap().to_der().unwrap())
}

/// The value of the signature, and the signed attributes.
fn signed_part(signature: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let info = cms::content_info::ContentInfo::from_der(signature).unwrap();
    let data: cms::signed_data::SignedData = info.content.decode_as().unwrap();
    let signer = data.signer_infos.0.get(0).unwrap();
    (signer.signature.as_bytes().to_vec(), signer.signed_attrs.to_der().unwrap())
}

async fn ticket(gateway: &Gateway, options: Value) -> String {
    let ticket = gateway.ticket_with(CONTENT).await;
    let set = gateway.put_json(&format!("{ticket}/option"), options).await;
    assert_eq!(set.status, 200, "{}", set.text());
    ticket
}

fn openssl_takes(dir: &Path, ca: &str, signature: &[u8], detached: bool, cades: bool) {
    let (file, content) = (dir.join("s.p7s"), dir.join("content"));
    fs::write(&file, signature).unwrap();
    fs::write(&content, CONTENT).unwrap();
    let (file, content, out) = (file.to_str().unwrap(), content.to_str().unwrap(), dir.join("out"));
    let mut command = vec!["cms", "-verify", "-binary", "-inform", "DER", "-in", file, "-CAfile", ca, "-out", out.to_str().unwrap()];
    if detached {
        command.extend(["-content", content]);
    }
    if cades {
        command.push("-cades");
    }
    let output = openssl(command);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(fs::read(dir.join("out")).unwrap(), CONTENT);
}

#[tokio::test(flavor = "multi_thread")]
async fn cades_t_and_plain_cms_get_the_time_stamps_that_their_options_ask_for() {
    let gateway = Plan::softhsm(&KEYS, 64).await.start().await;
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.pem");
    fs::write(&ca, gateway.ca.certificate().to_pem()).unwrap();
    for kind in ["detached", "attached"] {
        let cases = [
            (json!({ "cadesType": "CAdEST" }), true, false, true),
            (json!({ "cadesType": "CAdEST", "embedDataTs": true }), true, false, true),
            (json!({ "cadesType": "CAdESBES", "embedSignatureTs": true }), false, false, true),
            (json!({ "embedSignatureTs": true }), true, false, false),
            (json!({ "embedDataTs": true }), false, true, false),
            (json!({ "embedDataTs": true, "embedSignatureTs": true, "embedCertificateType": "signerCertAndCaInfo" }), true, true, true),
        ];
        for (mut options, of_signature, of_content, cades) in cases {
            options["signatureType"] = kind.into();
            let ticket = ticket(&gateway, options.clone()).await;
            let signature = gateway.sign(&ticket).await;
            openssl_takes(dir.path(), ca.to_str().unwrap(), &signature, kind == "detached", cades);
            let stamp = attribute(&signature, false, SIGNATURE_TIME_STAMP);
            assert_eq!(stamp.is_some(), of_signature, "{options}");
            if let Some(token) = stamp {
                assert_eq!(openssl_takes_token(dir.path(), &ca, &token, &signed_part(&signature).0), Ok(()), "{options}");
            }
            let stamp = attribute(&signature, true, CONTENT_TIME_STAMP);
            assert_eq!(stamp.is_some(), of_content, "{options}");
            if let Some(token) = stamp {
                assert_eq!(openssl_takes_token(dir.path(), &ca, &token, CONTENT), Ok(()), "{options}");
            }
            assert_eq!(gateway.get(&format!("{ticket}/ds/data")).await.body, signature, "what is fetched again is the same");
        }
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_that_is_away_costs_no_second_signature_and_no_second_permission() {
    let tsa = TestTsa::start(Arc::new(TsaLab::new()), Manner::HttpStatus).await;
    let mut plan = Plan::softhsm(&KEYS[..1], 64).await;
    plan.stamped_by(&tsa);
    let gateway = plan.start().await;
    let permission = gateway.post_json("/accessToken", json!({ "accessTimesNumber": 1 })).await.json()["accessTokenUuid"].clone();
    let ticket = ticket(&gateway, json!({ "cadesType": "CAdEST" })).await;
    let start = json!({ "accessTokenUuid": permission });
    let creator = format!("{ticket}/ds/creator");
    assert_eq!(gateway.post_json(&creator, start.clone()).await.status, 200);
    let failed = gateway.get(&format!("{ticket}/ds/data")).await;
    assert_eq!(failed.status, 500, "{}", failed.text());
    assert!(failed.cause().contains("503") && failed.cause().contains("127.0.0.1"), "{}", failed.text());
    assert_eq!(gateway.get(&creator).await.status, 500);
    let uses = gateway.get(&format!("/accessToken/{}", permission.as_str().unwrap())).await.json();
    let jobs = gateway.store.list_jobs(&Default::default(), 10).await.unwrap();
    assert_eq!(jobs.len(), 1);
    // Asking again tries the time stamp, with the same permission that has no use left.
    assert_eq!(gateway.post_json(&creator, start.clone()).await.status, 200);
    assert_eq!(gateway.get(&format!("{ticket}/ds/data")).await.status, 500);
    tsa.set(Manner::Good);
    assert_eq!(gateway.post_json(&creator, start).await.status, 200);
    let signature = gateway.get(&format!("{ticket}/ds/data")).await;
    assert_eq!(signature.status, 200, "{}", signature.text());
    assert_eq!(gateway.get(&creator).await.status, 200);
    let token = attribute(&signature.body, false, SIGNATURE_TIME_STAMP).unwrap();
    TimeStamp::from_token(&token).unwrap();
    let after = gateway.store.list_jobs(&Default::default(), 10).await.unwrap();
    assert_eq!((after.len(), after[0].outcome.clone()), (1, jobs[0].outcome.clone()));
    assert_eq!(gateway.get(&format!("/accessToken/{}", permission.as_str().unwrap())).await.json(), uses);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_after_a_crash_between_signature_and_time_stamp_completes_the_same_signature() {
    let tsa = TestTsa::start(Arc::new(TsaLab::new()), Manner::Silent).await;
    let mut plan = Plan::softhsm(&KEYS[..1], 64).await;
    plan.stamped_by(&tsa);
    plan.tickets.blocking_get_bound = Duration::from_millis(1);
    let store = Arc::clone(&plan.store);
    let mut next = Plan::new();
    next.store = Arc::clone(&store);
    next.stamped_by(&tsa);
    let gateway = plan.start().await;
    let ticket = ticket(&gateway, json!({ "cadesType": "CAdEST" })).await;
    assert_eq!(gateway.post(&format!("{ticket}/ds/creator")).await.status, 200);
    tsa.wait_for_requests(1).await;
    assert_eq!(gateway.get(&format!("{ticket}/ds/creator")).await.status, 202);
    assert_eq!(gateway.get(&format!("{ticket}/ds/data")).await.status, 202);
    gateway.stop().await;
    let before = store.list_jobs(&Default::default(), 10).await.unwrap();
    // The next start has no token at all: nothing can be signed any more.
    tsa.set(Manner::Good);
    let gateway = next.start().await;
    let signature = gateway.get(&format!("{ticket}/ds/data")).await;
    assert_eq!(signature.status, 200, "{}", signature.text());
    assert!(attribute(&signature.body, false, SIGNATURE_TIME_STAMP).is_some());
    assert_eq!(store.list_jobs(&Default::default(), 10).await.unwrap()[0].outcome, before[0].outcome);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_time_stamp_over_the_content_nothing_is_signed() {
    let tsa = TestTsa::start(Arc::new(TsaLab::new()), Manner::Garbage).await;
    let mut plan = Plan::softhsm(&KEYS[..1], 64).await;
    plan.stamped_by(&tsa);
    let gateway = plan.start().await;
    let ticket = ticket(&gateway, json!({ "embedDataTs": true })).await;
    let refused = gateway.post(&format!("{ticket}/ds/creator")).await;
    assert_eq!(refused.status, 500, "{}", refused.text());
    assert_eq!(gateway.store.list_jobs(&Default::default(), 10).await.unwrap().len(), 0);
    // Nothing is frozen by that.
    assert_eq!(gateway.put_json(&format!("{ticket}/option"), json!({ "embedDataTs": false })).await.status, 200);
    gateway.sign(&ticket).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_signature_of_a_bulk_gets_a_time_stamp_of_its_own() {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let gateway = Plan::softhsm(&KEYS, 64).await.start().await;
    let ticket = ticket(&gateway, json!({ "cadesType": "CAdEST", "embedDataTs": true })).await;
    let hashes: Vec<_> = (0..5_u8).map(|n| STANDARD.encode([n; 32])).collect();
    let answer = gateway.post_json(&format!("{ticket}/ds/creator/data.bulk"), json!({ "dataToSign": hashes })).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let signatures = answer.json();
    let mut serials = std::collections::HashSet::new();
    for signature in signatures.as_array().unwrap() {
        let signature = STANDARD.decode(signature.as_str().unwrap()).unwrap();
        let stamp = TimeStamp::from_token(&attribute(&signature, false, SIGNATURE_TIME_STAMP).unwrap()).unwrap();
        let value = signed_part(&signature).0;
        stamp.check_imprint(&sealgate::cms::digest(stamp.imprint_hash(), &value)).unwrap();
        serials.insert(stamp.serial());
    }
    assert_eq!(serials.len(), 5);
    gateway.stop().await;
}
