//! `ts/creator`, `ts/data`, `ts/verifier`: a time stamp over a ticket's content.

use std::{fs, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use reqwest::Method;
use sealgate::domain::algorithm::{Curve, KeyKind};
use serde_json::json;

use crate::common::{
    gateway::{Gateway, Plan, send},
    openssl::openssl_ok,
    tsa::{Manner, TestTsa, TsaLab, openssl_takes_token},
};

const CONTENT: &[u8] = b"what is stamped";

async fn with_tsa(tsa: &TestTsa) -> Gateway {
    let mut plan = Plan::new();
    plan.stamped_by(tsa);
    plan.start().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_stamp_is_made_fetched_and_valid_for_its_content_only() {
    let keys = [("tsa-p256", KeyKind::Ec(Curve::P256))];
    let gateway = Plan::softhsm(&keys, 64).await.start().await;
    let ticket = gateway.ticket().await;
    let path = |call: &str| format!("{ticket}/ts/{call}");
    assert!(gateway.get(&path("creator")).await.cause().contains("не було"));
    assert_eq!(gateway.post(&path("creator")).await.status, 500, "without content");
    gateway.upload(&ticket, "application/octet-stream", CONTENT.to_vec()).await;
    let started = gateway.post(&path("creator")).await;
    assert_eq!((started.status, started.message().as_str()), (200, "Ініційована операція створення позначки часу."));
    let token = gateway.get(&path("data")).await;
    assert_eq!((token.status, token.header("content-type")), (200, Some("application/octet-stream")));
    assert_eq!(gateway.get(&path("creator")).await.status, 200);
    let encoded = gateway.get(&path("base64Data")).await.json();
    assert_eq!(STANDARD.decode(encoded["base64Data"].as_str().unwrap()).unwrap(), token.body);
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.pem");
    fs::write(&ca, gateway.ca.certificate().to_pem()).unwrap();
    assert_eq!(openssl_takes_token(dir.path(), &ca, &token.body, CONTENT), Ok(()));
    assert_eq!(gateway.post(&path("verifier")).await.status, 200);
    let valid = gateway.get(&path("verifier")).await;
    assert_eq!(valid.status, 200, "{}", valid.text());
    let said = valid.json();
    assert_eq!(said["tsaCertificateIssuerX500Name"], gateway.ca.certificate().subject());
    assert!(said["dateTime"].as_str().unwrap().ends_with('Z') && !said["tsaCertificateSerialNumber"].as_str().unwrap().is_empty());
    // The same token with other content, in each way that it may be brought along.
    let other = gateway.ticket_with(b"other content").await;
    let json = send(gateway.request(Method::POST, &format!("{other}/ts/data")).json(&json!({ "base64Data": encoded["base64Data"] }))).await;
    assert_eq!(json.status, 200, "{}", json.text());
    let pem = format!("-----BEGIN PKCS7-----\n{}\n-----END PKCS7-----\n", encoded["base64Data"].as_str().unwrap());
    for text in [token.body.as_slice(), encoded["base64Data"].as_str().unwrap().as_bytes(), pem.as_bytes()] {
        let head = "--x\r\nContent-Disposition: form-data; name=\"uploadTsData\"; filename=\"a.tst\"\r\n\r\n";
        let form = [head.as_bytes(), text, b"\r\n--x--\r\n"].concat();
        let upload = gateway.request(Method::POST, &format!("{other}/ts/data")).header("content-type", "multipart/form-data; boundary=x");
        let uploaded = send(upload.body(form)).await;
        assert_eq!(
            (uploaded.status, gateway.get(&format!("{other}/ts/data")).await.body),
            (200, token.body.clone()),
            "{}",
            uploaded.text()
        );
    }
    let refused = gateway.get(&format!("{other}/ts/verifier")).await;
    assert_eq!(refused.status, 406, "{}", refused.text());
    assert!(refused.message().contains("imprint"), "{}", refused.text());
    let raw = gateway.request(Method::POST, &format!("{other}/ts/data")).header("content-type", "application/octet-stream");
    assert_eq!(send(raw.body("no token")).await.status, 200);
    assert_eq!(gateway.get(&format!("{other}/ts/verifier")).await.status, 406);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_that_is_away_is_told_of_and_asked_again_by_the_next_post() {
    let tsa = TestTsa::start(Arc::new(TsaLab::new()), Manner::HttpStatus).await;
    let gateway = with_tsa(&tsa).await;
    let ticket = gateway.ticket_with(CONTENT).await;
    let creator = format!("{ticket}/ts/creator");
    assert_eq!(gateway.post(&creator).await.status, 200);
    let failed = gateway.get(&format!("{ticket}/ts/data")).await;
    assert!(failed.status == 500 && failed.cause().contains("503"), "{}", failed.text());
    assert_eq!(gateway.get(&creator).await.status, 500);
    tsa.set(Manner::Good);
    assert_eq!(gateway.post(&creator).await.status, 200);
    assert_eq!(gateway.get(&format!("{ticket}/ts/data")).await.status, 200);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_for_time_stamps_signs_no_document_unless_its_configuration_insists() {
    let keys = [("tsa-p256", KeyKind::Ec(Curve::P256)), ("tsa-for-all", KeyKind::Ec(Curve::P256))];
    let mut plan = Plan::softhsm(&keys, 64).await;
    plan.keys[1].ignore_purpose = true;
    let gateway = plan.start().await;
    let ticket = gateway.ticket_with(CONTENT).await;
    let refused = gateway.post(&format!("{ticket}/ds/creator")).await;
    assert!(refused.status == 500 && refused.cause().contains("лише для позначок часу"), "{}", refused.text());
    let hash = STANDARD.encode([7; 32]);
    let bulk = gateway.post_json(&format!("{ticket}/ds/creator/data.bulk"), json!({ "dataToSign": [hash] })).await;
    assert!(bulk.status == 500 && bulk.cause().contains("лише для позначок часу"), "{}", bulk.text());
    let checked = gateway.put_json(&format!("{ticket}/keyStore/verifier"), json!({})).await;
    assert_eq!((checked.status, &checked.json()["signature"]["canBeUsed"]), (200, &json!(false)), "{}", checked.text());
    // Its certificate can be read, and it makes time stamps.
    assert_eq!(gateway.put_json(&format!("{ticket}/keyStore/certificate/info/signature"), json!({})).await.status, 200);
    assert_eq!(gateway.post(&format!("{ticket}/ts/creator")).await.status, 200);
    assert_eq!(gateway.get(&format!("{ticket}/ts/data")).await.status, 200);
    let chosen = gateway.put_json(&format!("{ticket}/keyStore"), json!({ "keyStorePath": "tsa-for-all" })).await;
    assert_eq!(chosen.status, 200, "{}", chosen.text());
    assert!(!gateway.sign(&ticket).await.is_empty());
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_wants_a_time_stamp_is_tried_again_by_the_next_post() {
    let tsa = TestTsa::start(Arc::new(TsaLab::new()), Manner::HttpStatus).await;
    let gateway = with_tsa(&tsa).await;
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("content"), CONTENT).unwrap();
    let key = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=other", "-days", "30", "-keyout"];
    openssl_ok([&key[..], &[&path("key"), "-out", &path("pem")]].concat());
    let sign =
        ["cms", "-sign", "-binary", "-cades", "-nodetach", "-outform", "DER", "-in", &path("content"), "-signer", &path("pem"), "-inkey"];
    openssl_ok([&sign[..], &[&path("key"), "-out", &path("p7s")]].concat());
    let ticket = gateway.ticket().await;
    let upload = gateway.request(Method::POST, &format!("{ticket}/ds/data")).header("content-type", "application/octet-stream");
    assert_eq!(send(upload.body(fs::read(path("p7s")).unwrap())).await.status, 200);
    assert_eq!(gateway.put_json(&format!("{ticket}/option"), json!({ "cadesType": "CAdEST" })).await.status, 200);
    let (modifier, modified) = (format!("{ticket}/ds/modifier"), format!("{ticket}/ds/modifiedData"));
    assert_eq!(gateway.post(&modifier).await.status, 200);
    let failed = gateway.get(&modified).await;
    assert!(failed.status == 500 && failed.cause().contains("503"), "{}", failed.text());
    assert_eq!(gateway.get(&modifier).await.status, 500);
    tsa.set(Manner::Good);
    // Whoever only asks again is told what came of it; whoever wants it done says so.
    assert_eq!(gateway.get(&modified).await.status, 500);
    assert_eq!(gateway.post(&modifier).await.status, 200);
    let raised = gateway.get(&modified).await;
    assert_eq!((raised.status, gateway.get(&modified).await.body), (200, raised.body.clone()), "it is made once");
    fs::write(path("raised"), &raised.body).unwrap();
    let verify =
        ["cms", "-verify", "-binary", "-cades", "-inform", "DER", "-in", &path("raised"), "-CAfile", &path("pem"), "-out", &path("out")];
    openssl_ok([&verify[..], &["-purpose", "any"]].concat());
    assert_eq!(fs::read(path("out")).unwrap(), CONTENT);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_that_verifiers_here_would_not_believe_is_not_taken_and_its_tokens_are_not_valid() {
    let tsa = TestTsa::start(Arc::new(TsaLab::new()), Manner::Good).await;
    let mut plan = Plan::new();
    plan.tsa_urls = vec![tsa.url.clone()];
    let gateway = plan.start().await;
    let ticket = gateway.ticket_with(CONTENT).await;
    assert_eq!(gateway.post(&format!("{ticket}/ts/creator")).await.status, 200);
    let failed = gateway.get(&format!("{ticket}/ts/data")).await;
    assert!(failed.status == 500 && failed.cause().contains("verifiers here would not believe it"), "{}", failed.text());
    gateway.stop().await;
    let believing = with_tsa(&tsa).await;
    let ticket = believing.ticket_with(CONTENT).await;
    assert_eq!(believing.post(&format!("{ticket}/ts/creator")).await.status, 200);
    let token = believing.get(&format!("{ticket}/ts/data")).await;
    assert_eq!(token.status, 200, "{}", token.text());
    assert_eq!(believing.get(&format!("{ticket}/ts/verifier")).await.status, 200);
    believing.stop().await;
    // The same token, brought to a gateway that does not know the authority.
    let gateway = Plan::new().start().await;
    let ticket = gateway.ticket_with(CONTENT).await;
    let upload = gateway.request(Method::POST, &format!("{ticket}/ts/data")).header("content-type", "application/octet-stream");
    assert_eq!(send(upload.body(token.body)).await.status, 200);
    let refused = gateway.get(&format!("{ticket}/ts/verifier")).await;
    assert!(refused.status == 406 && refused.message().contains("no trusted certificate was found"), "{}", refused.text());
    assert!(refused.json()["dateTime"].is_string(), "what it says is told all the same");
    gateway.stop().await;
}
