//! Certificate requests on the console's pages, over real SoftHSM, with a CA whose certificates a person brings.

use std::fs;

use reqwest::{Method, StatusCode};
use sealgate::{
    domain::{
        algorithm::{Curve, KeyKind},
        audit::AuditEvent,
        caller::KeyAccess,
        enrolment::{Enrolment, StepKind, profile::CaChoice},
        operator::Role,
    },
    pki::{
        DevCa,
        csr::{CertificateRequest, REQUEST_MAX, decode_pem},
    },
};
use serde_json::json;

use crate::common::{
    bank::{self, EIO_KEY, V1, valid_for},
    console::{add, events, logged_in},
    gateway::{Gateway, Plan},
    openssl::openssl_ok,
};

/// A gateway whose CA is a person, that CA, and a request that waits for an operator, of a holder of this name.
async fn waiting(holder: &str) -> (Gateway, DevCa, Enrolment) {
    let mut plan = Plan::softhsm(&[("seal", KeyKind::Ec(Curve::P256))], 64).await;
    bank::with_bank(&mut plan);
    let ca = bank::ca();
    plan.profiles = vec![bank::profile("contract", CaChoice::Manual, &ca)];
    let gateway = plan.start().await;
    add(&gateway, "root", Role::Administrator, KeyAccess::All).await;
    let wanted = bank::body(&bank::id(1), "director", holder);
    let created = bank::ask(&gateway, Method::POST, &format!("{V1}/cert-requests/eio"), EIO_KEY, Some(&wanted)).await;
    assert_eq!(created.status, 201, "{}", created.text());
    let enrolment = bank::newest(&gateway).await;
    (gateway, ca, enrolment)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_goes_from_the_holders_form_to_a_signature_on_the_pages_alone() {
    let (gateway, ca, enrolment) = waiting("Иванов Иван Иванович").await;
    let mut root = logged_in(&gateway, "root").await;
    let path = format!("/certificates/{}", enrolment.id);
    let list = root.get("/certificates").await;
    assert!(list.body.contains("Иванов Иван Иванович") && list.body.contains(">awaiting approval<"), "{}", list.body);
    let page = root.get(&path).await;
    assert!(page.body.contains("CN=Иванов Иван Иванович") && page.body.contains("EC P-256"), "{}", page.body);

    let request = root.get(&format!("{path}/request")).await;
    assert!(request.headers["content-disposition"].to_str().unwrap().starts_with("attachment; filename=\"request-"));
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    fs::write(at("request.pem"), &request.body).unwrap();
    openssl_ok(["req", "-verify", "-noout", "-in", &at("request.pem")]);
    let printed = root.get(&format!("{path}/application")).await;
    assert!(printed.headers["content-type"] == "application/pdf" && printed.body.starts_with("%PDF-"));

    let done = root.post(&path, &format!("{path}/approve"), &[]).await;
    assert_eq!(done.location(), format!("/console{path}?done=certificate-approved"));
    gateway.enrolment.work_once().await.unwrap();
    let (_, der) = decode_pem(&request.body, REQUEST_MAX).unwrap();
    let csr = CertificateRequest::from_der(&der).unwrap();
    let stranger = ca.issue_to(ca.certificate().spki(), csr.subject(), valid_for(365)).unwrap().to_pem();
    let upload = format!("{path}/upload");
    for (wrong, told) in [("", "no certificate in PEM"), ("-----BEGIN", "no certificate in PEM"), (&stranger, "has the key of the request")]
    {
        let page = root.post(&path, &upload, &[("certificates", wrong)]).await;
        assert!(page.status == StatusCode::BAD_REQUEST && page.body.contains(told), "{} {}", page.status, page.body);
    }
    let issued = ca.issue_to(csr.spki(), csr.subject(), valid_for(20)).unwrap();
    let both = format!("{}{}", ca.certificate().to_pem(), issued.to_pem());
    assert_eq!(root.post(&path, &upload, &[("certificates", &both)]).await.status, StatusCode::SEE_OTHER);
    assert!(root.get(&path).await.body.contains("It is not active yet"));
    let chain = root.get(&format!("{path}/issued")).await.body;
    assert_eq!(chain, format!("{}{}", issued.to_pem(), ca.certificate().to_pem()));

    let done = root.post(&path, &format!("{path}/activate"), &[]).await;
    assert_eq!((done.status, done.location()), (StatusCode::SEE_OTHER, &*format!("/console{path}?done=certificate-activated")));
    let ticket = gateway.ticket_with(b"the document").await;
    let chosen = gateway.put_json(&format!("{ticket}/keyStore"), json!({ "keyStorePath": "director" })).await;
    assert_eq!(chosen.status, 200, "{}", chosen.text());
    assert!(!gateway.sign(&ticket).await.is_empty());

    // It ends in twenty days, which every page that has to do with it says.
    for (page, told) in [
        ("/overview", "The certificate of director ends soon."),
        ("/tokens", "ends soon"),
        ("/certificates", "ends soon"),
        (path.as_str(), ">active<"),
    ] {
        let page = root.get(page).await;
        assert!(page.body.contains(told), "{told}: {}", page.body);
    }
    for late in ["approve", "activate", "refuse", "upload"] {
        let fields = [("ground", "by-operator"), ("comment", "too late"), ("certificates", stranger.as_str())];
        let status = root.post("/account", &format!("{path}/{late}"), &fields).await.status;
        let wanted = match late {
            "activate" => StatusCode::SEE_OTHER, // Once more is the same.
            "upload" => StatusCode::BAD_REQUEST,
            _ => StatusCode::CONFLICT,
        };
        assert_eq!(status, wanted, "{late}");
    }
    let mut steps = Vec::new();
    for event in events(&gateway).await {
        if let AuditEvent::CertificateRequest { step, by, .. } = event
            && by == "operator root"
        {
            steps.push(step);
        }
    }
    assert_eq!(steps, [StepKind::Approved, StepKind::Issued, StepKind::Activated]);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_refused_with_a_ground_that_its_client_is_told() {
    let (gateway, _ca, enrolment) = waiting("Иванов Иван Иванович").await;
    let mut root = logged_in(&gateway, "root").await;
    let path = format!("/certificates/{}", enrolment.id);
    let refuse = format!("{path}/refuse");
    for fields in [vec![], vec![("ground", "by-operator")], vec![("comment", "x")], vec![("ground", "whim"), ("comment", "x")]] {
        assert_eq!(root.post(&path, &refuse, &fields).await.status, StatusCode::BAD_REQUEST, "{fields:?}");
    }
    let hostile = "<script>alert(1)</script>";
    let done = root.post(&path, &refuse, &[("ground", "particulars"), ("comment", hostile)]).await;
    assert_eq!(done.location(), format!("/console{path}?done=certificate-refused"));
    let page = root.get(&path).await;
    assert!(page.body.contains("refused for what it says") && !page.body.contains(hostile), "{}", page.body);
    let state = bank::ask(&gateway, Method::GET, &format!("{V1}/cert-requests/eio/{}/state", bank::id(1)), EIO_KEY, None).await;
    assert_eq!((&state.json()["bankStatus"], &state.json()["bankComment"]), (&json!("REQUISITEERROR"), &json!(hostile)));

    // Found by what it is searched for, and by nothing else.
    for (search, found) in [
        ("state=refused", true),
        ("state=issued", false),
        ("organisation=%D0%9E%D0%9E%D0%9E%20%D0%A0%D0%BE%D0%BC%D0%B0%D1%88%D0%BA%D0%B0", true),
        ("organisation=%22%3E", false),
    ] {
        let page = root.get(&format!("/certificates?{search}")).await;
        assert_eq!((page.status, page.body.contains(&enrolment.id.to_string())), (StatusCode::OK, found), "{search}: {}", page.body);
    }
    assert_eq!(root.get("/certificates?state=none").await.status, StatusCode::BAD_REQUEST);
    for path in ["/certificates/none", "/certificates/0190163d-8694-4399-bea5-966c26f8ad91"] {
        assert_eq!(root.get(path).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    gateway.stop().await;
}
