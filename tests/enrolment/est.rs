//! A CA that speaks EST, over TLS: what we send is judged by openssl, and what it answers may be wrong.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use reqwest::Method;
use sealgate::{
    domain::{
        algorithm::{Curve, KeyKind},
        enrolment::{EnrolmentState, profile::CaChoice},
        timestamp::Timestamp,
    },
    enrolment::UploadedCertificate,
    enrolment::ca::{
        CaAnswer, CaError, CaRequest, CertificateAuthority as _,
        est::{EstCa, EstCredentials, EstSettings},
    },
    pki::{Certificate, DevCa, csr::CertificateRequest},
    store::Change,
};
use serde_json::json;

use crate::{
    common::{
        gateway::{Gateway, Plan},
        openssl::{openssl_ok, openssl_takes_cms},
    },
    rig::{EIO_KEY, V1, ask, body, ca, from_to, id, newest, profile, until, with_bank},
};

/// The peer: a TLS server in Python that has openssl judge each request and issue the certificate.
const PEER: &str = include_str!("est_peer.py");

struct Peer {
    process: Child,
    url: String,
    dir: tempfile::TempDir,
    tls_anchor: Vec<u8>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Peer {
    fn start(ca: &DevCa) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        fs::write(at("ca.pem"), ca.certificate().to_pem()).unwrap();
        fs::write(at("ca.key"), ca.key_pem().unwrap().as_bytes()).unwrap();
        fs::write(at("peer.py"), PEER).unwrap();
        for (name, subject) in [("tls", "/CN=localhost"), ("client", "/CN=gateway")] {
            openssl_ok([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-days",
                "9",
                "-subj",
                subject,
                "-addext",
                "subjectAltName=DNS:localhost",
                "-addext",
                "basicConstraints=critical,CA:FALSE",
                "-keyout",
                &at(&format!("{name}.key")),
                "-out",
                &at(&format!("{name}.pem")),
            ]);
        }
        let tls_anchor = openssl_ok(["x509", "-in", &at("tls.pem"), "-outform", "der"]);
        let mut process = Command::new("python3").arg(at("peer.py")).arg(dir.path()).stdout(Stdio::piped()).spawn().expect("python3");
        let mut port = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut port).unwrap();
        Self { process, url: format!("https://localhost:{}/.well-known/est", port.trim()), dir, tls_anchor }
    }

    /// From now on the peer behaves so.
    fn behave(&self, how: &str) {
        let next = self.dir.path().join("mode.new");
        fs::write(&next, how).unwrap();
        fs::rename(next, self.dir.path().join("mode")).unwrap();
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn client(&self, credentials: EstCredentials) -> EstCa {
        EstCa::new(EstSettings { url: self.url.parse().unwrap(), anchors: vec![self.tls_anchor.clone()], credentials }).unwrap()
    }

    fn basic(&self) -> EstCa {
        self.client(EstCredentials::Basic { user: "gateway".to_owned(), password: "secret".into() })
    }

    fn certificate(&self) -> EstCa {
        let read = |name: &str| fs::read_to_string(self.dir.path().join(name)).unwrap();
        self.client(EstCredentials::Certificate(format!("{}\n{}", read("client.pem"), read("client.key")).into()))
    }
}

/// A request by openssl, in DER.
fn request(dir: &Path) -> Vec<u8> {
    let at = |name: &str| dir.join(name).display().to_string();
    openssl_ok([
        "req",
        "-new",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-subj",
        "/CN=a",
        "-keyout",
        &at("k"),
        "-outform",
        "der",
    ])
}

/// A gateway whose certificates come from `peer`, and are renewed so many days before their end; one has been asked for.
async fn with_a_request(ca: &DevCa, peer: &Peer, renew_days: Option<u32>) -> Gateway {
    let mut plan = Plan::softhsm(&[("seal", KeyKind::Ec(Curve::P256))], 64).await;
    with_bank(&mut plan);
    plan.profiles = vec![profile("contract", CaChoice::Est, ca)];
    plan.authorities.insert(CaChoice::Est, Arc::new(peer.basic()));
    plan.renew_days = renew_days;
    let gateway = plan.start().await;
    let wanted = body(&id(1), "director", "Иванов Иван Иванович");
    let created = ask(&gateway, Method::POST, &format!("{V1}/cert-requests/eio"), EIO_KEY, Some(&wanted)).await;
    assert_eq!(created.status, 201, "{}", created.text());
    gateway
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_certified_over_est_and_its_key_signs() {
    let ca = ca();
    let peer = Peer::start(&ca);
    let gateway = with_a_request(&ca, &peer, None).await;
    let path = format!("{V1}/cert-requests/eio/{}", id(1));
    until(&gateway, &path, EIO_KEY, "PUBLISHED_BY_BANK").await;
    let activated = ask(&gateway, Method::POST, &format!("{path}/activate"), EIO_KEY, None).await;
    assert_eq!(activated.status, 200, "{}", activated.text());
    assert!(peer.log().contains("POST simpleenroll application/pkcs10 basic ok"), "{}", peer.log());
    gateway.stop().await;
}

/// Signs with the key of this name until it is told to stop; what was signed, each a CMS.
async fn sign_all_the_while(gateway: &Gateway, stop: &AtomicBool) -> Vec<Vec<u8>> {
    let mut signatures = Vec::new();
    while !stop.load(Ordering::Relaxed) || signatures.is_empty() {
        let ticket = gateway.ticket_with(b"the document").await;
        let chosen = gateway.put_json(&format!("{ticket}/keyStore"), json!({ "keyStorePath": "director" })).await;
        assert_eq!(chosen.status, 200, "{}", chosen.text());
        signatures.push(gateway.sign(&ticket).await);
    }
    signatures
}

/// The serial number of the certificate that signed, which openssl finds to be good.
fn signer_of(cms: &[u8], dir: &Path) -> String {
    let signer = dir.join("signer.pem").display().to_string();
    openssl_takes_cms(dir, cms, b"the document", ["-signer", &signer]);
    let printed = openssl_ok(["x509", "-in", &signer, "-noout", "-serial"]);
    String::from_utf8(printed).unwrap().trim().trim_start_matches("serial=").to_ascii_lowercase()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_renewed_over_est_and_its_key_signs_all_the_while() {
    let ca = ca();
    let peer = Peer::start(&ca);
    let gateway = with_a_request(&ca, &peer, Some(20)).await;
    // One that was issued twenty days ago and ends in five.
    let former = newest(&gateway).await;
    let csr = CertificateRequest::from_der(&former.request.as_ref().unwrap().0).unwrap();
    let old = ca.issue_to(csr.spki(), csr.subject(), from_to(-20 * 24, 5 * 24)).unwrap();
    let uploaded = UploadedCertificate::from_pem(&format!("{}{}", old.to_pem(), ca.certificate().to_pem())).unwrap();
    gateway.enrolment.upload(former.id, uploaded, "olga").await.unwrap();
    gateway.enrolment.activate_by_operator(former.id, "olga").await.unwrap();

    let stop = AtomicBool::new(false);
    let renew = async {
        // The CA is busy at first; what was asked is asked again.
        peer.behave("busy");
        gateway.enrolment.look_at_validity().await.unwrap();
        gateway.enrolment.work_once().await.unwrap();
        peer.behave("");
        let renewal = newest(&gateway).await;
        assert_eq!((renewal.renews, renewal.state, renewal.active), (Some(former.id), EnrolmentState::AwaitingIssue, false));
        let mut due = renewal.clone();
        due.due = Some(Timestamp::from_millis(1));
        gateway.store.commit(vec![Change::UpdateEnrolment(Box::new(due))]).await.unwrap();
        gateway.enrolment.work_once().await.unwrap();
        stop.store(true, Ordering::Relaxed);
    };
    let (one, two, three, ()) =
        tokio::join!(sign_all_the_while(&gateway, &stop), sign_all_the_while(&gateway, &stop), sign_all_the_while(&gateway, &stop), renew);
    let renewed = newest(&gateway).await;
    assert!(renewed.active && renewed.key_name == former.key_name);
    let stored = gateway.store.find_enrolment(former.id).await.unwrap().unwrap();
    assert_eq!((stored.state, stored.active), (EnrolmentState::Activated, false));
    assert!(peer.log().contains("POST simplereenroll application/pkcs10 basic ok"), "{}", peer.log());
    // Nobody was refused, and whatever was signed names the certificate of its time.
    let dir = tempfile::tempdir().unwrap();
    let new = Certificate::from_der(&renewed.issued.as_ref().unwrap().certificate).unwrap();
    let serials = [old.serial(), new.serial()].map(|serial| serial.trim_start_matches('0').to_owned());
    for cms in one.iter().chain(&two).chain(&three) {
        let signer = signer_of(cms, dir.path());
        assert!(serials.contains(&signer.trim_start_matches('0').to_owned()), "{signer} {serials:?}");
    }
    let after = sign_all_the_while(&gateway, &stop).await;
    assert_eq!(signer_of(&after[0], dir.path()).trim_start_matches('0'), serials[1]);
    // A young certificate is left alone, and the renewal is made once.
    gateway.enrolment.look_at_validity().await.unwrap();
    assert_eq!(newest(&gateway).await.id, renewed.id);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pending_request_is_asked_for_again_and_renewed_with_its_own_call() {
    let peer = Peer::start(&ca());
    let dir = tempfile::tempdir().unwrap();
    let der = request(dir.path());
    let est = peer.certificate();
    let asked = CaRequest { request: &der, renews: None };
    peer.behave("pending");
    let pending = est.submit(asked).await.unwrap();
    assert_eq!(pending, CaAnswer::Pending { reference: None, retry_after: Some(std::time::Duration::from_secs(7)) });
    peer.behave("");
    let CaAnswer::Issued(issued) = est.poll(None, asked).await.unwrap() else { panic!("not issued") };
    assert!(Certificate::from_der(&issued.certificate).is_ok() && !issued.chain.is_empty());
    let again = CaRequest { request: &der, renews: Some(&issued.certificate) };
    assert!(matches!(est.submit(again).await.unwrap(), CaAnswer::Issued(_)));
    assert!(peer.log().contains("POST simplereenroll application/pkcs10 certificate ok"), "{}", peer.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_not_right_does_not_count() {
    let peer = Peer::start(&ca());
    let dir = tempfile::tempdir().unwrap();
    let der = request(dir.path());
    let est = peer.basic();
    let asked = CaRequest { request: &der, renews: None };
    for wrong in ["type", "garbage", "other-key", "huge", "empty"] {
        peer.behave(wrong);
        let answer = est.submit(asked).await;
        assert!(matches!(answer, Err(CaError::Misbehaved(_))), "{wrong}: {answer:?}");
    }
    for away in ["busy", "redirect", "unauthorized"] {
        peer.behave(away);
        let answer = est.submit(asked).await;
        assert!(matches!(answer, Err(CaError::Unavailable { .. })), "{away}: {answer:?}");
    }
    peer.behave("refused");
    assert_eq!(est.submit(asked).await, Ok(CaAnswer::Rejected("HTTP status 400 the subject is not one of ours".to_owned())));
    // A server whose certificate leads elsewhere is not talked to.
    let stranger = EstSettings {
        url: peer.url.parse().unwrap(),
        anchors: vec![ca().certificate().as_der().to_vec()],
        credentials: EstCredentials::Basic { user: "gateway".to_owned(), password: "secret".into() },
    };
    let answer = EstCa::new(stranger).unwrap().submit(asked).await;
    assert!(matches!(answer, Err(CaError::Unavailable { .. })), "{answer:?}");
}
