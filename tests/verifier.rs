//! `ds/verifier` over HTTP: signatures go in, in every form that clients send, and verdicts come out.

#![allow(clippy::unwrap_used)] // in the helpers of tests

mod common;
#[path = "signature_verification/edit.rs"]
#[allow(dead_code)]
mod edit;
#[path = "signature_verification/lab.rs"]
#[allow(dead_code)]
mod lab;

use base64::{Engine, engine::general_purpose::STANDARD};
use common::gateway::{Answer, Gateway, OTHER_KEY, Plan, send};
use lab::{CONTENT, Lab, P256, RSA};
use reqwest::Method;
use sealgate::{
    domain::algorithm::{Curve, KeyKind},
    pki::{
        Certificate,
        trust::{TrustStore, authority_id},
    },
};
use serde_json::json;

const UPLOADED: &str = "Дані ЕП успішно завантажені.";
const STARTED: &str = "Ініційована операція перевірки електронного підпису.";

async fn upload(gateway: &Gateway, ticket: &str, content_type: &str, body: Vec<u8>) -> Answer {
    send(gateway.request(Method::POST, &format!("{ticket}/ds/data")).header("content-type", content_type).body(body)).await
}

/// Uploads a signature to a ticket, asks for its verification and waits for it.
async fn verify(gateway: &Gateway, ticket: &str, signature: &[u8]) -> Answer {
    let uploaded = upload(gateway, ticket, "application/octet-stream", signature.to_vec()).await;
    assert_eq!((uploaded.status, uploaded.message().as_str()), (200, UPLOADED));
    result(gateway, ticket).await
}

async fn result(gateway: &Gateway, ticket: &str) -> Answer {
    let started = gateway.post(&format!("{ticket}/ds/verifier")).await;
    assert_eq!((started.status, started.message().as_str()), (200, STARTED));
    gateway.get(&format!("{ticket}/ds/verifier")).await
}

async fn gateway_that_trusts(lab: &Lab) -> Gateway {
    let mut plan = Plan::new();
    plan.trust = lab.trust();
    plan.start().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_gateway_signs_it_verifies_with_every_kind_of_key() {
    let keys = [
        ("ec-p256", KeyKind::Ec(Curve::P256)),
        ("ec-p384", KeyKind::Ec(Curve::P384)),
        ("rsa-2048", KeyKind::Rsa { modulus_bits: 2048 }),
        ("ed25519", KeyKind::Ed25519),
    ];
    let gateway = Plan::softhsm(&keys, 64).await.start().await;
    for (name, _) in keys {
        for (cades, kind) in [("CAdESBES", "detached"), ("CAdESBES", "attached"), ("undefined", "attached")] {
            let ticket = gateway.ticket_with(CONTENT).await;
            gateway.put_json(&format!("{ticket}/option"), json!({ "cadesType": cades, "signatureType": kind })).await;
            let chosen = gateway.put_json(&format!("{ticket}/keyStore"), json!({ "keyStorePath": format!("pkcs11:object={name}") })).await;
            assert_eq!(chosen.status, 200, "{}", chosen.text());
            let signature = gateway.sign(&ticket).await;
            // A ticket whose signature was made can verify others: of this content.
            let answer = verify(&gateway, &ticket, &signature).await;
            assert_eq!(answer.status, 200, "{name} {cades} {kind}: {}", answer.text());
            let results = answer.json()["verifyResults"].clone();
            assert_eq!(results[0]["status"], "SUCCESS");
            assert_eq!(results[0].get("failureCause"), None);
            assert_eq!(results[0]["signerInfo"]["ownerCertificateInfo"]["value"]["ownerFullName"]["value"], name);
            assert_eq!(results.as_array().unwrap().len(), 1);
        }
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signature_is_taken_in_every_form_that_clients_send() {
    let lab = Lab::new();
    lab.signer("signer", P256);
    let gateway = gateway_that_trusts(&lab).await;
    let der = lab.sign("signer", &["-cades", "-nodetach"]);
    let (base64, pem) =
        (STANDARD.encode(&der), String::from_utf8(lab.sign("signer", &["-cades", "-nodetach", "-outform", "PEM"])).unwrap());
    let form = |bytes: &[u8]| {
        let head = "--x\r\nContent-Disposition: form-data; name=\"uploadDsData\"; filename=\"a.p7s\"\r\n\r\n".as_bytes();
        [head, bytes, b"\r\n--x--\r\n"].concat()
    };
    let forms = [
        ("application/octet-stream", der.clone()),
        ("application/octet-stream", base64.clone().into_bytes()),
        ("application/octet-stream", pem.clone().into_bytes()),
        ("application/json", json!({ "base64Data": base64 }).to_string().into_bytes()),
        ("application/json", json!({ "base64Data": STANDARD.encode(&pem) }).to_string().into_bytes()),
        ("multipart/form-data; boundary=x", form(&der)),
        ("multipart/form-data; boundary=x", form(pem.as_bytes())),
    ];
    for (content_type, body) in forms {
        let ticket = gateway.ticket().await;
        let uploaded = upload(&gateway, &ticket, content_type, body).await;
        assert_eq!(uploaded.status, 200, "{content_type}: {}", uploaded.text());
        let answer = result(&gateway, &ticket).await;
        assert_eq!(answer.status, 200, "{content_type}: {}", answer.text());
        let data = gateway.get(&format!("{ticket}/ds/signedData")).await;
        assert_eq!((data.status, data.body.as_slice(), data.header("content-type")), (200, CONTENT, Some("application/octet-stream")));
        let data = gateway.get(&format!("{ticket}/ds/base64SignedData")).await;
        assert_eq!(data.json()["base64Data"], STANDARD.encode(CONTENT));
    }
    let ticket = gateway.ticket().await;
    let cut = upload(&gateway, &ticket, "application/octet-stream", b"-----BEGIN CMS-----\nMII*".to_vec()).await;
    assert_eq!(cut.status, 500, "{}", cut.text());
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signature_that_does_not_hold_is_answered_with_406_and_the_reason() {
    let lab = Lab::new();
    let certificate = lab.signer("signer", RSA);
    let gateway = gateway_that_trusts(&lab).await;
    let (detached, attached) = (lab.sign("signer", &["-cades"]), lab.sign("signer", &["-nodetach"]));
    let refused = async |content: Option<&[u8]>, signature: &[u8]| {
        let ticket = match content {
            Some(content) => gateway.ticket_with(content).await,
            None => gateway.ticket().await,
        };
        let answer = verify(&gateway, &ticket, signature).await;
        assert_eq!(answer.status, 406, "{}", answer.text());
        assert_eq!(answer.json()["verifyResults"][0]["status"], "FAILURE");
        assert_eq!(answer.json().get("failureCause"), None);
        answer.json()["verifyResults"][0].clone()
    };
    let other = refused(Some(b"other"), &detached).await;
    assert_eq!(other["failureCause"], "the content is not the one that was signed");
    assert_eq!(other["signerInfo"]["certificateSerialNumber"]["value"], certificate.serial());
    assert_eq!(refused(Some(b"other"), &attached).await["failureCause"], "the content that was given is not the one in the signature");
    let cut = refused(None, &attached[..attached.len() - 1]).await;
    assert_eq!((cut["failureCause"].as_str(), &cut["signerInfo"]), (Some("not a CMS signature: it is cut off"), &json!({})));
    assert_eq!(refused(None, &[&attached[..], b"x"].concat()).await["failureCause"], "bytes follow the end of the signature");
    // Where the document is missing there is nothing to be said about it.
    let ticket = gateway.ticket().await;
    let answer = verify(&gateway, &ticket, &detached).await;
    assert_eq!((answer.status, answer.cause().as_str()), (500, "Дані сесії не були завантажені."));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verdict_is_of_what_was_uploaded_when_it_was_asked_for() {
    let lab = Lab::new();
    lab.signer("signer", P256);
    let gateway = gateway_that_trusts(&lab).await;
    let ticket = gateway.ticket().await;
    let path = format!("{ticket}/ds/verifier");
    let unasked = gateway.get(&path).await;
    assert_eq!((unasked.status, unasked.cause().as_str()), (500, "Перевірка електронного підпису не була ініційована."));
    let nothing = gateway.post(&path).await;
    assert_eq!((nothing.status, nothing.cause().as_str()), (500, "Дані ЕП не були завантажені."));
    let signature = lab.sign("signer", &["-nodetach"]);
    assert_eq!(verify(&gateway, &ticket, &signature).await.status, 200);
    // It may be fetched again, and asked for again.
    assert_eq!(gateway.get(&path).await.status, 200);
    assert_eq!(result(&gateway, &ticket).await.status, 200);
    // Another upload makes the verdict one of something that is not there any more.
    upload(&gateway, &ticket, "application/octet-stream", signature[..100].to_vec()).await;
    assert_eq!(gateway.get(&path).await.status, 500);
    assert_eq!(result(&gateway, &ticket).await.status, 406);
    // Nobody else sees the ticket.
    let foreign = send(gateway.anonymous(Method::GET, &format!("/api/v1{path}")).bearer_auth(OTHER_KEY)).await;
    assert_eq!(foreign.status, 400);
    assert_eq!(gateway.delete(&ticket).await.status, 200);
    assert_eq!(gateway.store.content_usage().await.unwrap(), sealgate::store::ContentUsage::default());
    let log = gateway.store.audit_head().await.unwrap();
    let records = gateway.store.audit_records(log.gateway, 1, 100).await.unwrap();
    let verified = records.iter().filter(|record| record.text.contains("\"verified\"")).count();
    assert_eq!(verified, 3, "{records:?}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_attached_signature_is_spooled_verified_and_given_back() {
    let lab = Lab::new();
    lab.signer("signer", P256);
    let gateway = gateway_that_trusts(&lab).await;
    let content: Vec<u8> = (0..2_000_000_u32).map(|number| (number % 253) as u8).collect();
    lab.write("content", &content);
    for more in [&["-nodetach"][..], &["-nodetach", "-stream"]] {
        let ticket = gateway.ticket().await;
        let answer = verify(&gateway, &ticket, &lab.sign("signer", more)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(gateway.get(&format!("{ticket}/ds/signedData")).await.body, content);
        gateway.delete(&ticket).await;
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_authorities_that_are_known_are_listed() {
    let lab = Lab::new();
    let mut plan = Plan::new();
    plan.trust = TrustStore::new(vec![lab.root.clone()], vec![lab.ca.clone()]);
    let gateway = plan.start().await;
    let listed = gateway.get("/certificateAuthority/supported").await.json();
    let expected = json!([{ "id": authority_id(&lab.root), "name": "Root" }, { "id": authority_id(&lab.ca), "name": "CA" }]);
    assert_eq!(listed["ca"], expected);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ca_that_is_named_is_the_only_one_that_signers_may_come_from() {
    let (lab, other) = (Lab::new(), Lab::new());
    lab.signer("signer", P256);
    let mut plan = Plan::new();
    plan.trust = TrustStore::new(vec![lab.root.clone(), other.root.clone()], vec![lab.ca.clone()]);
    let gateway = plan.start().await;
    let signature = lab.sign("signer", &["-nodetach"]);
    let named = async |certificate: &Certificate| {
        let ticket = gateway.ticket().await;
        let set = gateway.put_json(&format!("{ticket}/option"), json!({ "caId": authority_id(certificate) })).await;
        assert_eq!(set.status, 200, "{}", set.text());
        let answer = verify(&gateway, &ticket, &signature).await;
        (answer.status, answer.json()["verifyResults"][0]["failureCause"].as_str().unwrap_or_default().to_owned())
    };
    for certificate in [&lab.root, &lab.ca] {
        assert_eq!(named(certificate).await, (200, String::new()));
    }
    let foreign = named(&other.root).await;
    assert_eq!(foreign, (406, "certificate \"CN=signer,O=Ромашка\": its path does not lead through the CA \"CN=Root\"".to_owned()));
    let ticket = gateway.ticket().await;
    let option = format!("{ticket}/option");
    let unknown = gateway.put_json(&option, json!({ "caId": authority_id(&other.ca) })).await;
    assert_eq!(unknown.status, 400);
    assert!(unknown.message().contains("caId") && unknown.message().contains(&authority_id(&lab.ca)), "{}", unknown.text());
    assert_eq!(gateway.put_json(&option, json!({ "caId": "" })).await.status, 200);
    assert_eq!(verify(&gateway, &ticket, &signature).await.status, 200);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_options_demand_of_time_stamps_decides() {
    let lab = Lab::new();
    lab.signer("signer", P256);
    lab.authority("tsa");
    let gateway = gateway_that_trusts(&lab).await;
    let (plain, stamped) = (lab.sign("signer", &["-cades"]), lab.stamped("signer", "tsa", &[]));
    let broken = {
        let token = lab.token("tsa", b"other", None);
        edit::with_unsigned(&plain, &[edit::attribute_of(lab::SIGNATURE_TIME_STAMP, &token)])
    };
    let answer = async |option: &str, value: &str, signature: &[u8]| {
        let ticket = gateway.ticket_with(CONTENT).await;
        assert_eq!(gateway.put_json(&format!("{ticket}/option"), json!({ option: value })).await.status, 200);
        verify(&gateway, &ticket, signature).await
    };
    const OPTION: &str = "signatureTsVerifyOption";
    let expected = [("ignore", [200, 200, 200]), ("verifyIfPresent", [200, 200, 406]), ("verifyOrFailIfNotPresent", [406, 200, 406])];
    for (value, statuses) in expected {
        for (signature, status) in [&plain, &stamped, &broken].into_iter().zip(statuses) {
            let answer = answer(OPTION, value, signature).await;
            assert_eq!(answer.status, status, "{value}: {}", answer.text());
        }
    }
    let found = answer(OPTION, "verifyIfPresent", &stamped).await.json()["verifyResults"][0]["signatureTimeStamp"].clone();
    assert_eq!(found["tsaCertificateIssuerX500Name"], "CN=CA");
    assert!(found["dateTime"].as_str().unwrap().ends_with('Z') && !found["tsaCertificateSerialNumber"].as_str().unwrap().is_empty());
    assert_eq!(answer(OPTION, "ignore", &broken).await.json()["verifyResults"][0].get("signatureTimeStamp"), None);
    // The content has no stamp.
    assert_eq!(answer("dataTsVerifyOption", "verifyIfPresent", &stamped).await.status, 200);
    assert_eq!(answer("dataTsVerifyOption", "verifyOrFailIfNotPresent", &stamped).await.status, 406);
    // Nobody knows whether the authority was revoked, which counts where that is demanded.
    let ticket = gateway.ticket_with(CONTENT).await;
    gateway.put_json(&format!("{ticket}/option"), json!({ OPTION: "verifyIfPresent", "tsAdditionalVerifying": true })).await;
    let strict = verify(&gateway, &ticket, &stamped).await;
    assert!(strict.status == 406 && strict.text().contains("whether it was revoked cannot be said"), "{}", strict.text());
    gateway.stop().await;
}
