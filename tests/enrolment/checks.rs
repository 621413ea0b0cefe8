//! The nine checks of an activation, each made to fail alone; two at once; and a crash between any two steps.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use sealgate::{
    domain::{
        enrolment::{Enrolment, EnrolmentState, IssuedCertificate, Step, profile::CaChoice},
        timestamp::Timestamp,
        token::LoginMode,
    },
    enrolment::{EnrolmentError, EnrolmentParts, EnrolmentService, ExpiryWarning, Fault, KeyWish, NewRequest, Requester},
    permit::{PermitService, PermitSettings},
    pki::{DevCa, Validity, csr::CertificateRequest},
    signing::service::{SigningService, SigningSettings},
    store::{Change, Store},
    token::{
        driver::DeviceError,
        fake::{Call, Script},
        supervisor::Tokens,
    },
};

use crate::{
    common::gateway::{Gateway, Plan},
    rig::{ca, id, profile, valid_for, with_bank},
};

/// A gateway over a scripted token, with a request that waits for its certificate.
pub struct Rig {
    pub script: Script,
    pub gateway: Gateway,
    pub ca: DevCa,
    pub who: Requester,
    pub request: Enrolment,
}

impl Rig {
    pub async fn new() -> Self {
        let script = Script::new("bank-token");
        script.set_removable(false);
        let mut plan = Plan::scripted(&script, LoginMode::Configured, &["seal"]);
        with_bank(&mut plan);
        let ca = ca();
        plan.profiles = vec![profile("bank-token", CaChoice::Manual, &ca)];
        let caller = Arc::new(plan.caller("eio").caller.clone());
        let account = caller.account.clone().unwrap();
        let who = Requester { caller, account, for_all: true };
        let gateway = plan.start().await;
        let request = gateway.enrolment.create(&who, new_request(1)).await.unwrap();
        Self { script, gateway, ca, who, request }
    }

    pub fn csr(&self) -> CertificateRequest {
        CertificateRequest::from_der(&self.request.request.as_ref().unwrap().0).unwrap()
    }

    /// Puts a certificate there as if a CA had issued it, whatever it is.
    pub async fn publish(&self, certificate: Vec<u8>, chain: Vec<Vec<u8>>) {
        let mut request = self.stored().await;
        let issued = Step::Issued(IssuedCertificate::new(certificate, chain));
        request.step(issued, Timestamp::from_millis(1), "test").unwrap();
        self.gateway.store.commit(vec![Change::UpdateEnrolment(Box::new(request))]).await.unwrap();
    }

    /// Has the right certificate there.
    async fn issue(&self) -> Vec<u8> {
        self.issue_for(365).await
    }

    /// As that, for so many days.
    pub async fn issue_for(&self, days: u32) -> Vec<u8> {
        let csr = self.csr();
        let certificate = self.ca.issue_to(csr.spki(), csr.subject(), valid_for(days)).unwrap().as_der().to_vec();
        self.publish(certificate.clone(), Vec::new()).await;
        certificate
    }

    pub async fn stored(&self) -> Enrolment {
        self.gateway.store.find_enrolment(self.request.id).await.unwrap().unwrap()
    }

    pub async fn activate(&self) -> Result<Enrolment, EnrolmentError> {
        self.gateway.enrolment.activate(&self.who, &self.request.external_id).await
    }

    /// The activation fails so, and the request stands where it stood.
    async fn fails(self, wanted: impl Fn(&EnrolmentError) -> bool) {
        let failed = self.activate().await.unwrap_err();
        assert!(wanted(&failed), "{failed:?}");
        assert_eq!((self.stored().await.state, self.stored().await.active), (EnrolmentState::Issued, false));
        self.gateway.stop().await;
    }
}

fn new_request(number: u32) -> NewRequest {
    NewRequest {
        external_id: id(number).parse().unwrap(),
        login: Some("director".to_owned()),
        application: sealgate::domain::enrolment::Application {
            number: "1".to_owned(),
            email: "a@b.example".to_owned(),
            organisation: Some("ООО Ромашка".to_owned()),
            full_name: "Иванов Иван Иванович".to_owned(),
            position: "Директор".to_owned(),
            key_identifier: None,
        },
        key: KeyWish::Make(None),
        profile: None,
        body: "{}".to_owned(),
        fingerprint: sealgate::domain::audit::Sha256::of(&number.to_be_bytes()),
    }
}

fn fault(wanted: Fault) -> impl Fn(&EnrolmentError) -> bool {
    move |error| *error == EnrolmentError::Fault(wanted.clone())
}

fn unavailable(error: &EnrolmentError) -> bool {
    matches!(error, EnrolmentError::Unavailable(_))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_has_no_certificate_is_not_activated() {
    let rig = Rig::new().await;
    assert_eq!(rig.activate().await, Err(Fault::State(EnrolmentState::AwaitingIssue).into()));
    rig.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_was_pulled_is_unavailable_and_a_repetition_works() {
    let rig = Rig::new().await;
    rig.issue().await;
    rig.script.pull();
    let failed = rig.activate().await.unwrap_err();
    assert!(unavailable(&failed), "{failed:?}");
    rig.script.put_back();
    let again = async {
        while let Err(error) = rig.activate().await {
            assert!(unavailable(&error), "{error:?}");
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(crate::common::gateway::PATIENCE, again).await.expect("the token comes back");
    rig.gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_was_deleted_is_missed() {
    let rig = Rig::new().await;
    rig.issue().await;
    rig.script.remove_key(rig.request.key.as_ref().unwrap().selector.id.as_ref().unwrap());
    rig.fails(fault(Fault::NoKey)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_keys_of_one_id_are_an_error() {
    let rig = Rig::new().await;
    rig.issue().await;
    rig.script.add_key(rig.request.key.as_ref().unwrap().selector.id.as_ref().unwrap(), "twin");
    rig.fails(fault(Fault::SeveralKeys(2))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_key_is_refused() {
    let rig = Rig::new().await;
    let other = rig.ca.issue_to(rig.ca.certificate().spki(), rig.csr().subject(), valid_for(365)).unwrap();
    rig.publish(other.as_der().to_vec(), Vec::new()).await;
    rig.fails(fault(Fault::OtherKey)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_ca_is_refused() {
    let rig = Rig::new().await;
    let (csr, stranger) = (rig.csr(), ca());
    let certificate = stranger.issue_to(csr.spki(), csr.subject(), valid_for(365)).unwrap();
    rig.publish(certificate.as_der().to_vec(), vec![stranger.certificate().as_der().to_vec()]).await;
    rig.fails(|error| matches!(error, EnrolmentError::Fault(Fault::Path(_)))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_out_of_its_time_is_refused() {
    let day = 86_400_000;
    let now = Timestamp::from(std::time::SystemTime::now()).as_millis();
    for (from, to, wanted) in [(now - day / 2, now - day / 4, Fault::Expired), (now + day, now + 2 * day, Fault::NotYetValid)] {
        let rig = Rig::new().await;
        let csr = rig.csr();
        let validity = Validity::new(Timestamp::from_millis(from), Timestamp::from_millis(to)).unwrap();
        let certificate = rig.ca.issue_to(csr.spki(), csr.subject(), validity).unwrap();
        rig.publish(certificate.as_der().to_vec(), Vec::new()).await;
        rig.fails(fault(wanted)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_not_for_signatures_is_refused() {
    let rig = Rig::new().await;
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    std::fs::write(at("ca.pem"), rig.ca.certificate().to_pem()).unwrap();
    std::fs::write(at("ca.key"), rig.ca.key_pem().unwrap().as_bytes()).unwrap();
    std::fs::write(at("csr.pem"), rig.csr().to_pem()).unwrap();
    std::fs::write(at("ext"), "keyUsage=critical,keyAgreement\n").unwrap();
    let arguments = [
        "x509",
        "-req",
        "-in",
        &at("csr.pem"),
        "-CA",
        &at("ca.pem"),
        "-CAkey",
        &at("ca.key"),
        "-days",
        "9",
        "-extfile",
        &at("ext"),
        "-outform",
        "der",
    ];
    let certificate = crate::common::openssl::openssl_ok(arguments);
    rig.publish(certificate, Vec::new()).await;
    rig.fails(fault(Fault::KeyUsage)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_cannot_be_written_is_unavailable_and_left_as_it_was() {
    for error in
        [DeviceError::NotWritable("CKR_DEVICE_MEMORY".to_owned()), DeviceError::NotWritable("CKR_TOKEN_WRITE_PROTECTED".to_owned())]
    {
        let rig = Rig::new().await;
        rig.issue().await;
        let before = rig.script.count_objects();
        rig.script.fail(Call::WriteCertificate, 1, error);
        let script = rig.script.clone();
        rig.fails(unavailable).await;
        assert_eq!(script.count_objects(), before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_that_does_not_verify_is_refused() {
    let rig = Rig::new().await;
    rig.issue().await;
    rig.script.sign_wrongly();
    rig.fails(fault(Fault::Proof)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_at_once_one_does_the_work_and_both_are_answered() {
    let rig = Rig::new().await;
    rig.issue().await;
    let (one, other) = tokio::join!(rig.activate(), rig.activate());
    assert!(one.unwrap().active && other.unwrap().active);
    assert_eq!(rig.script.count(Call::WriteCertificate), 1);
    let activated =
        rig.stored().await.history.iter().filter(|entry| entry.what == sealgate::domain::enrolment::StepKind::Activated).count();
    assert_eq!(activated, 1);
    rig.gateway.stop().await;
}

/// A second gateway's service on the same store and the same token.
async fn second(rig: &Rig) -> (Arc<EnrolmentService>, Arc<SigningService>) {
    second_that_tells(rig, None).await
}

/// As that, one that tells there of certificates that come to their end.
pub async fn second_that_tells(
    rig: &Rig,
    warnings: Option<tokio::sync::mpsc::Sender<ExpiryWarning>>,
) -> (Arc<EnrolmentService>, Arc<SigningService>) {
    let (store, tokens): (Arc<dyn Store>, Tokens) = (Arc::clone(&rig.gateway.store), rig.gateway.tokens.clone());
    let profiles = rig.gateway.enrolment.profiles().to_vec();
    let permits = Arc::new(PermitService::new(Arc::clone(&store), PermitSettings::default()));
    let settings = SigningSettings { canary_every: None, ..SigningSettings::default() };
    let signing = SigningService::start(tokens.clone(), Vec::new(), Arc::clone(&store), permits, settings).unwrap();
    let authorities = std::collections::HashMap::new();
    let parts = EnrolmentParts { store, signing: Arc::clone(&signing), tokens, profiles, authorities, renew_days: None, warnings };
    (Arc::new(EnrolmentService::new(parts).await.unwrap()), signing)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_gateways_activate_at_once_and_one_certificate_is_active() {
    let rig = Rig::new().await;
    rig.issue().await;
    let (other, signing) = second(&rig).await;
    let (one, two) = tokio::join!(rig.activate(), other.activate(&rig.who, &rig.request.external_id));
    assert!(one.unwrap().active && two.unwrap().active);
    let activated =
        rig.stored().await.history.iter().filter(|entry| entry.what == sealgate::domain::enrolment::StepKind::Activated).count();
    assert_eq!(activated, 1);
    signing.stop().await;
    rig.gateway.stop().await;
}

/// Runs a future for so many steps and drops it then, as a crash would; whether it came to its end.
async fn crash_after<T>(steps: usize, future: impl Future<Output = T>) -> Option<T> {
    let mut future = Box::pin(future);
    let mut polls = 0;
    std::future::poll_fn(move |context: &mut Context<'_>| {
        let polled = Pin::as_mut(&mut future).poll(context);
        polls += 1;
        match polled {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending if polls > steps => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_any_two_steps_leaves_what_a_repetition_ends() {
    let _ = Waker::noop();
    let mut steps = 0;
    loop {
        let rig = Rig::new().await;
        rig.issue().await;
        let ended = crash_after(steps, rig.activate()).await.is_some();
        let stored = rig.stored().await;
        assert!(matches!(stored.state, EnrolmentState::Issued | EnrolmentState::Activated), "{:?}", stored.state);
        // Another run of the gateway, which knows only what is stored.
        let (again, signing) = second(&rig).await;
        assert!(again.activate(&rig.who, &rig.request.external_id).await.unwrap().active, "after {steps} steps");
        assert_eq!(rig.script.count_objects(), (2, 1), "after {steps} steps");
        signing.stop().await;
        rig.gateway.stop().await;
        if ended {
            assert!(steps > 3, "there are steps to crash between");
            return;
        }
        steps += 1;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_former_certificate_signs_nothing_more_under_whatever_name() {
    let rig = Rig::new().await;
    rig.issue().await;
    rig.activate().await.unwrap();
    let first = rig.stored().await;
    let second_request = rig.gateway.enrolment.create(&rig.who, new_request(2)).await.unwrap();
    let csr = CertificateRequest::from_der(&second_request.request.as_ref().unwrap().0).unwrap();
    let certificate = rig.ca.issue_to(csr.spki(), csr.subject(), valid_for(365)).unwrap();
    let uploaded = sealgate::enrolment::UploadedCertificate(vec![certificate.as_der().to_vec()]);
    rig.gateway.enrolment.upload(second_request.id, uploaded, "olga").await.unwrap();
    rig.gateway.enrolment.activate(&rig.who, &second_request.external_id).await.unwrap();
    assert!(!rig.stored().await.active);
    let uri = first.key.unwrap().uri();
    let ticket = rig.gateway.ticket_with(b"x").await;
    let chosen = rig.gateway.put_json(&format!("{ticket}/keyStore"), serde_json::json!({ "keyStorePath": uri })).await;
    assert_eq!(chosen.status, 200, "{}", chosen.text());
    let refused = rig.gateway.post(&format!("{ticket}/ds/creator")).await;
    assert_eq!(refused.status, 500, "{}", refused.text());
    assert!(refused.cause().contains("замінено"), "{}", refused.text());
    rig.gateway.stop().await;
}
