//! The life of a request, over HTTP, as a bank's client lives it.

use std::{fs, process::Command, sync::Arc};

use reqwest::Method;
use sealgate::{
    domain::{
        algorithm::{Curve, KeyKind},
        enrolment::{EnrolmentState, Refusal, profile::CaChoice},
    },
    enrolment::{EnrolmentError, Fault, UploadedCertificate, ca::DevelopmentCa},
    pki::csr::{CertificateRequest, REQUEST_MAX, decode_pem},
};
use serde_json::{Value, json};

use crate::{
    common::{
        gateway::{Gateway, Plan},
        openssl::{openssl_ok, openssl_takes_cms},
    },
    rig::{EIO_KEY, JSON, OWN_KEY, V1, ask, audited, body, ca, id, newest, profile, softhsm, until, valid_for, with_bank},
};

/// A ticket-API signature with the key of this name, checked by openssl against the certificate.
async fn sign_and_verify(gateway: &Gateway, key_name: &str, certificate: &[u8], content: &[u8]) {
    let ticket = gateway.ticket_with(content).await;
    let chosen = gateway.put_json(&format!("{ticket}/keyStore"), json!({ "keyStorePath": key_name })).await;
    assert_eq!(chosen.status, 200, "{}", chosen.text());
    let signature = gateway.sign(&ticket).await;
    let dir = tempfile::tempdir().unwrap();
    let (der, pem) = (dir.path().join("certificate.der"), dir.path().join("certificate.pem").display().to_string());
    fs::write(&der, certificate).unwrap();
    openssl_ok(["x509", "-inform", "der", "-in", &der.display().to_string(), "-out", &pem]);
    openssl_takes_cms(dir.path(), &signature, content, ["-certfile", &pem]);
}

async fn info(gateway: &Gateway) -> Value {
    let answer = ask(gateway, Method::GET, &format!("{V1}/eio"), EIO_KEY, None).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some(JSON)), "{}", answer.text());
    assert_eq!((&answer.json()["certCenterCode"], &answer.json()["certCenterNum"]), (&json!("A00B"), &json!("0001")));
    answer.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_made_certified_activated_and_signs() {
    let gateway = softhsm().await;
    for (number, method, kind) in [(1, Method::GET, "EC:P-256"), (2, Method::POST, "RSA:2048"), (3, Method::POST, "EC:P-384")] {
        let id = id(number);
        let mut wanted = body(&id, "director", "Иванов Иван Иванович");
        wanted["pkcs10"] = json!({ "keyType": kind });
        let created = ask(&gateway, Method::POST, &format!("{V1}/cert-requests/eio"), EIO_KEY, Some(&wanted)).await;
        assert_eq!((created.status, created.header("content-type")), (201, Some(JSON)), "{}", created.text());
        let created = created.json();
        assert_eq!(
            (&created["userName"], &created["bankStatus"], &created["bankComment"]),
            (&wanted["userName"], &json!("ACCEPTED_BY_ABS"), &json!(""))
        );
        let (_, der) = decode_pem(created["pkcs10"]["cms"].as_str().unwrap(), REQUEST_MAX).unwrap();
        assert!(CertificateRequest::from_der(&der).unwrap().subject().to_string().contains("Иванов Иван Иванович"));
        let path = format!("{V1}/cert-requests/eio/{id}");
        until(&gateway, &path, EIO_KEY, "PUBLISHED_BY_BANK").await;
        for _ in 0..2 {
            let activated = ask(&gateway, method.clone(), &format!("{path}/activate"), EIO_KEY, None).await;
            assert_eq!((activated.status, activated.body.len()), (200, 0), "{}", activated.text());
        }
        until(&gateway, &path, EIO_KEY, "IMPLEMENTED").await;
        let enrolment = newest(&gateway).await;
        assert!(enrolment.active && enrolment.key.is_some());
        let users = info(&gateway).await;
        let infos = users["cryptoUserInfos"][0]["cryptoProfileInfos"][0]["certificateInfos"].as_array().unwrap().clone();
        let active: Vec<_> = infos.iter().filter(|info| info["active"] == true).collect();
        assert_eq!((infos.len(), active.len()), (number as usize, 1), "{users}");
        assert_eq!(active[0]["uuid"], enrolment.id.to_string());
        sign_and_verify(&gateway, "director", &enrolment.issued.unwrap().certificate, b"the document").await;
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_request_is_the_same_and_another_one_with_its_id_is_refused() {
    let gateway = softhsm().await;
    let path = format!("{V1}/cert-requests");
    let wanted = body(&id(1), "", "Петров Пётр");
    let mut wanted = wanted;
    wanted.as_object_mut().unwrap().remove("login");
    let both = tokio::join!(
        ask(&gateway, Method::POST, &path, OWN_KEY, Some(&wanted)),
        ask(&gateway, Method::POST, &path, OWN_KEY, Some(&wanted))
    );
    assert_eq!((both.0.status, both.1.status), (201, 201), "{} {}", both.0.text(), both.1.text());
    assert_eq!(both.0.json()["pkcs10"], both.1.json()["pkcs10"]);
    let v2 = ask(&gateway, Method::POST, "/fintech/api/v2/crypto/cert-requests", OWN_KEY, Some(&wanted)).await;
    assert_eq!(v2.status, 200, "{}", v2.text());
    wanted["userPosition"] = "Бухгалтер".into();
    let other = ask(&gateway, Method::POST, &path, OWN_KEY, Some(&wanted)).await;
    assert_eq!((other.status, &other.json()["cause"]), (400, &json!("WORKFLOW_FAULT")), "{}", other.text());
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clients_own_request_is_taken_bare_and_in_a_cms() {
    let mut plan = Plan::softhsm(&[("seal", KeyKind::Ec(Curve::P256)), ("second", KeyKind::Ec(Curve::P256))], 64).await;
    with_bank(&mut plan);
    let ca = ca();
    plan.profiles = vec![profile("contract", CaChoice::Development, &ca)];
    plan.authorities.insert(CaChoice::Development, Arc::new(DevelopmentCa::new(ca)));
    let gateway = plan.start().await;
    // What a client would make with its own tool: here the gateway's token signs it, too.
    let mut named = body(&id(1), "maker", "Кто Угодно");
    named["pkcs10"] = json!({ "key": "pkcs11:token=contract;object=second" });
    let made = ask(&gateway, Method::POST, &format!("{V1}/cert-requests/eio"), EIO_KEY, Some(&named)).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let pem = made.json()["pkcs10"]["cms"].as_str().unwrap().to_owned();
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let (_, der) = decode_pem(&pem, REQUEST_MAX).unwrap();
    fs::write(at("request.der"), &der).unwrap();
    openssl_ok([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-keyout",
        &at("key"),
        "-out",
        &at("cert"),
        "-subj",
        "/CN=a",
    ]);
    openssl_ok([
        "cms",
        "-sign",
        "-binary",
        "-nodetach",
        "-in",
        &at("request.der"),
        "-signer",
        &at("cert"),
        "-inkey",
        &at("key"),
        "-outform",
        "pem",
        "-out",
        &at("cms.pem"),
    ]);
    let cms = fs::read_to_string(at("cms.pem")).unwrap();
    for (number, text) in [(2, pem), (3, cms)] {
        let mut sent = body(&id(number), "director", "Иванов Иван Иванович");
        sent["pkcs10"] = json!({ "cms": text, "bicryptId": "A00B0001sИванов И.И." });
        let created = ask(&gateway, Method::POST, &format!("{V1}/cert-requests/eio"), EIO_KEY, Some(&sent)).await;
        assert_eq!(created.status, 201, "{}", created.text());
        let path = format!("{V1}/cert-requests/eio/{}", id(number));
        until(&gateway, &path, EIO_KEY, "PUBLISHED_BY_BANK").await;
        let activated = ask(&gateway, Method::GET, &format!("{path}/activate"), EIO_KEY, None).await;
        assert_eq!(activated.status, 200, "{}", activated.text());
        sign_and_verify(&gateway, "director", &newest(&gateway).await.issued.unwrap().certificate, b"x").await;
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_brings_the_certificate_and_a_wrong_one_is_refused() {
    let mut plan = Plan::softhsm(&[("seal", KeyKind::Ec(Curve::P256))], 64).await;
    with_bank(&mut plan);
    let ca = ca();
    plan.profiles = vec![profile("contract", CaChoice::Manual, &ca)];
    let gateway = plan.start().await;
    let wanted = body(&id(1), "director", "Иванов Иван Иванович");
    let created = ask(&gateway, Method::POST, &format!("{V1}/cert-requests/eio"), EIO_KEY, Some(&wanted)).await;
    assert_eq!(created.status, 201, "{}", created.text());
    gateway.enrolment.work_once().await.unwrap();
    let request = newest(&gateway).await;
    assert_eq!((request.state, request.approved), (EnrolmentState::AwaitingIssue, false));
    let csr = CertificateRequest::from_der(&request.request.unwrap().0).unwrap();
    let issued = ca.issue_to(csr.spki(), csr.subject(), valid_for(365)).unwrap();
    let stranger = ca.issue_to(ca.certificate().spki(), csr.subject(), valid_for(365)).unwrap();
    let wrong = UploadedCertificate::from_pem(&stranger.to_pem()).unwrap();
    assert!(gateway.enrolment.upload(request.id, wrong, "olga").await.is_err());
    let both = format!("{}{}", ca.certificate().to_pem(), issued.to_pem());
    let uploaded = gateway.enrolment.upload(request.id, UploadedCertificate::from_pem(&both).unwrap(), "olga").await.unwrap();
    assert_eq!(uploaded.state, EnrolmentState::Issued);
    gateway.enrolment.activate_by_operator(request.id, "olga").await.unwrap();
    sign_and_verify(&gateway, "director", issued.as_der(), b"x").await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_of_a_refused_request_is_deleted_from_its_token_and_no_other_one() {
    let gateway = softhsm().await;
    let create = |number, key: Option<String>| {
        let mut wanted = body(&id(number), "director", "Иванов Иван Иванович");
        if let Some(uri) = key {
            wanted["pkcs10"] = json!({ "key": uri });
        }
        let gateway = &gateway;
        async move {
            let created = ask(gateway, Method::POST, &format!("{V1}/cert-requests/eio"), EIO_KEY, Some(&wanted)).await;
            assert_eq!(created.status, 201, "{}", created.text());
            newest(gateway).await
        }
    };
    let keys = async || gateway.signing.desk().keys().await.len();
    let service = &gateway.enrolment;
    let first = create(1, None).await;
    assert_eq!(service.delete_key(first.id, "olga").await, Err(Fault::State(EnrolmentState::AwaitingIssue).into()));
    service.refuse(first.id, Refusal::ByOperator, "не сейчас", "olga").await.unwrap();
    assert_eq!(keys().await, 2);
    // Another request is for the same key: it stays.
    let second = create(2, first.key.as_ref().map(|key| key.uri())).await;
    assert!(matches!(service.delete_key(first.id, "olga").await, Err(EnrolmentError::Fault(Fault::Key(_)))));
    service.refuse(second.id, Refusal::ByOperator, "", "olga").await.unwrap();
    assert!(
        matches!(service.delete_key(second.id, "olga").await, Err(EnrolmentError::Fault(Fault::Key(_)))),
        "it was not made for this one"
    );
    let deleted = service.delete_key(first.id, "olga").await.unwrap();
    assert_eq!((&deleted.key, deleted.key_made_here, keys().await), (&None, false, 1));
    assert_eq!(service.delete_key(first.id, "olga").await, Ok(deleted));
    let steps = audited(&gateway, "certificate-request").await;
    assert_eq!(steps.last().map(|step| (&step["step"], &step["by"])), Some((&json!("key-deleted"), &json!("olga"))), "{steps:?}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_application_is_printed_with_everything_that_it_says() {
    let gateway = softhsm().await;
    let wanted = body(&id(1), "director", "Иванов Иван Иванович");
    ask(&gateway, Method::POST, &format!("{V1}/cert-requests/eio"), EIO_KEY, Some(&wanted)).await;
    for (base, with_request) in [(V1, false), ("/fintech/api/v2/crypto", true)] {
        let printed = ask(&gateway, Method::GET, &format!("{base}/cert-requests/eio/{}/print", id(1)), EIO_KEY, None).await;
        assert_eq!((printed.status, printed.header("content-type")), (200, Some("application/pdf")), "{}", printed.status);
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("application.pdf");
        fs::write(&file, &printed.body).unwrap();
        if let Some(kept) = std::env::var_os("SEALGATE_KEEP_PDF") {
            fs::write(std::path::Path::new(&kept).join(format!("application-{with_request}.pdf")), &printed.body).unwrap();
        }
        let text = Command::new("pdftotext")
            .args(["-layout"])
            .arg(&file)
            .arg("-")
            .output()
            .expect("pdftotext; scripts/setup.sh --tests installs it");
        let text = String::from_utf8(text.stdout).unwrap();
        for part in
            ["Иванов Иван Иванович", "Генеральный директор", "ООО Ромашка", "ivanov@romashka.example", &id(1), "EC P-256", "30 59 30 13"]
        {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        assert_eq!(text.contains("BEGIN CERTIFICATE REQUEST"), with_request, "{text}");
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_confirms_the_next_request_with_the_key_that_is_active() {
    let mut plan = Plan::softhsm(&[("seal", KeyKind::Ec(Curve::P256))], 64).await;
    with_bank(&mut plan);
    let ca = ca();
    plan.profiles = vec![profile("contract", CaChoice::Development, &ca)];
    plan.profiles[0].confirm = true;
    plan.authorities.insert(CaChoice::Development, Arc::new(DevelopmentCa::new(ca)));
    let gateway = plan.start().await;
    let paths: Vec<_> = [1, 2].map(|number| format!("{V1}/cert-requests/eio/{}", id(number))).to_vec();
    let create = |number| {
        let wanted = body(&id(number), "director", "Иванов Иван Иванович");
        let gateway = &gateway;
        async move { ask(gateway, Method::POST, &format!("{V1}/cert-requests/eio"), EIO_KEY, Some(&wanted)).await.json() }
    };
    assert_eq!(create(1).await["bankStatus"], "ACCEPTED_BY_ABS");
    until(&gateway, &paths[0], EIO_KEY, "PUBLISHED_BY_BANK").await;
    ask(&gateway, Method::POST, &format!("{}/activate", paths[0]), EIO_KEY, None).await;
    let first = newest(&gateway).await;
    assert_eq!(create(2).await["bankStatus"], "AWAITING_CONFIRMATION");
    let application = ask(&gateway, Method::GET, &format!("{}/print", paths[1]), EIO_KEY, None).await.body;
    let sign = async |content: &[u8]| {
        let ticket = gateway.ticket_with(content).await;
        gateway.put_json(&format!("{ticket}/keyStore"), json!({ "keyStorePath": "director" })).await;
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(gateway.sign(&ticket).await)
    };
    let wrong =
        json!({ "digestSignatures": [{ "base64Encoded": sign(b"something else").await, "certificateUuid": first.id.to_string() }] });
    let refused = ask(&gateway, Method::POST, &format!("{}/confirm", paths[1]), EIO_KEY, Some(&wrong)).await;
    assert_eq!((refused.status, &refused.json()["cause"]), (400, &json!("WORKFLOW_FAULT")), "{}", refused.text());
    let right = json!({ "digestSignatures": [{ "base64Encoded": sign(&application).await, "certificateUuid": first.id.to_string() }] });
    let confirmed = ask(&gateway, Method::POST, &format!("{}/confirm", paths[1]), EIO_KEY, Some(&right)).await;
    assert_eq!(confirmed.status, 200, "{}", confirmed.text());
    until(&gateway, &paths[1], EIO_KEY, "PUBLISHED_BY_BANK").await;
    gateway.stop().await;
}
