//! The checks of an activation on a real token: SoftHSM behind `pkcs11-faults`, which pulls it, fills it and spoils its signatures. Each check
//! fails alone, and what the client is told is looked at over HTTP.

use pkcs11_faults::{bench::Bench, control::Control, fault::Fault, function::Function, rv::Rv};
use reqwest::Method;
use sealgate::{
    domain::{
        enrolment::{Enrolment, EnrolmentState, IssuedCertificate, Step, StepKind, profile::CaChoice},
        timestamp::Timestamp,
    },
    pki::{DevCa, Validity, csr::CertificateRequest},
    store::{Change, EnrolmentFilter},
    token::watchdog::CallLimits,
};

use crate::{
    common::{
        gateway::{Gateway, PATIENCE, Plan},
        openssl::openssl_ok,
        softhsm::{SoftHsm, TOKEN_LABEL},
    },
    rig::{Answer, EIO_KEY, V1, ask, body, ca, from_to, id, profile, valid_for, with_bank},
};

/// How a certificate comes about that one check refuses.
type Spoil = fn(&DevCa, &CertificateRequest) -> IssuedCertificate;

struct Real {
    gateway: Gateway,
    bench: Bench,
    ca: DevCa,
    hsm: SoftHsm,
}

impl Real {
    async fn new() -> Self {
        let (mut plan, bench) = Plan::troubled_beside_healthy([TOKEN_LABEL, "healthy"], CallLimits::default()).await;
        with_bank(&mut plan);
        let ca = ca();
        plan.profiles = vec![profile(TOKEN_LABEL, CaChoice::Manual, &ca)];
        let gateway = plan.start().await;
        let hsm = SoftHsm::at(&gateway.directory.path().join(TOKEN_LABEL));
        Self { gateway, bench, ca, hsm }
    }

    async fn stop(self) {
        let Self { gateway, bench, .. } = self;
        // It ends itself through its socket, which goes with the gateway's folder.
        drop(bench);
        gateway.stop().await;
    }

    fn control(&self) -> Control {
        self.bench.control()
    }

    fn arm(&self, fault: Fault) {
        self.control().arm(fault).unwrap();
    }

    /// A request of its own login, so that nothing of another one's key matters.
    async fn request(&self, number: u32) -> Enrolment {
        let wanted = body(&id(number), &format!("user-{number}"), "Кто Угодно");
        let created = ask(&self.gateway, Method::POST, &format!("{V1}/cert-requests/eio"), EIO_KEY, Some(&wanted)).await;
        assert_eq!(created.status, 201, "{}", created.text());
        self.stored(number).await
    }

    async fn stored(&self, number: u32) -> Enrolment {
        let all = self.gateway.enrolment.list(&EnrolmentFilter::default(), 1_000).await.unwrap();
        all.into_iter().find(|enrolment| enrolment.external_id.as_str() == id(number)).unwrap()
    }

    /// A request whose certificate is there, as if a CA had issued it, whatever it is.
    async fn issued(&self, number: u32, how: Spoil) -> Enrolment {
        let mut request = self.request(number).await;
        let csr = CertificateRequest::from_der(&request.request.as_ref().unwrap().0).unwrap();
        request.step(Step::Issued(how(&self.ca, &csr)), Timestamp::from_millis(1), "test").unwrap();
        self.gateway.store.commit(vec![Change::UpdateEnrolment(Box::new(request))]).await.unwrap();
        self.stored(number).await
    }

    async fn activate(&self, number: u32) -> Answer {
        ask(&self.gateway, Method::POST, &format!("{V1}/cert-requests/eio/{}/activate", id(number)), EIO_KEY, None).await
    }

    /// The activation is refused so, and the request stands where it stood.
    async fn refused(&self, number: u32, status: u16, cause: &str, message: &str) {
        let answer = self.activate(number).await;
        assert_eq!((answer.status, answer.json()["cause"].as_str()), (status, Some(cause)), "{number}: {}", answer.text());
        assert_eq!(answer.json()["message"], message, "{number}");
        assert_eq!(answer.header("retry-after").is_some(), status == 503, "{number}");
        let stored = self.stored(number).await;
        assert_eq!((stored.state, stored.active), (EnrolmentState::Issued, false), "{number}");
    }

    async fn away(&self, number: u32) {
        self.refused(number, 503, "UNAVAILABLE_RESOURCE_EXCEPTION", "Ресурс недоступен. Повторите операцию позже.").await;
    }

    /// The same request again, until the token has been taken up again; it is active then, and its certificate is on the token once.
    async fn succeeds(&self, number: u32) {
        let again = async {
            loop {
                let answer = self.activate(number).await;
                match answer.status {
                    200 => return,
                    503 => tokio::task::yield_now().await,
                    _ => panic!("{}", answer.text()),
                }
            }
        };
        tokio::time::timeout(PATIENCE, again).await.expect("the token comes back");
        let stored = self.stored(number).await;
        assert!(stored.active);
        assert_eq!(stored.history.iter().filter(|entry| entry.what == StepKind::Activated).count(), 1);
        assert_eq!(self.certificates_of(&stored), 1, "{number}");
    }

    /// What another program sees on the token.
    fn certificates_of(&self, request: &Enrolment) -> usize {
        let wanted = hex::encode(key_id(request));
        let listed = self.hsm.pkcs11_tool(&["--list-objects", "--type", "cert"]);
        listed.lines().filter(|line| line.trim().strip_prefix("ID:").is_some_and(|id| id.trim() == wanted)).count()
    }

    fn certificates(&self) -> usize {
        self.hsm.pkcs11_tool(&["--list-objects", "--type", "cert"]).matches("Certificate Object").count()
    }
}

fn key_id(request: &Enrolment) -> &[u8] {
    request.key.as_ref().unwrap().selector.id.as_ref().unwrap()
}

fn certified(ca: &DevCa, csr: &CertificateRequest, validity: Validity) -> IssuedCertificate {
    let certificate = ca.issue_to(csr.spki(), csr.subject(), validity).unwrap();
    IssuedCertificate::new(certificate.as_der().to_vec(), vec![ca.certificate().as_der().to_vec()])
}

fn right(ca: &DevCa, csr: &CertificateRequest) -> IssuedCertificate {
    certified(ca, csr, valid_for(365))
}

fn of_another_key(ca: &DevCa, csr: &CertificateRequest) -> IssuedCertificate {
    let other = ca.issue_to(ca.certificate().spki(), csr.subject(), valid_for(365)).unwrap();
    IssuedCertificate::new(other.as_der().to_vec(), Vec::new())
}

fn of_another_ca(_: &DevCa, csr: &CertificateRequest) -> IssuedCertificate {
    right(&ca(), csr)
}

fn expired(ca: &DevCa, csr: &CertificateRequest) -> IssuedCertificate {
    certified(ca, csr, from_to(-12, -6))
}

fn not_yet_valid(ca: &DevCa, csr: &CertificateRequest) -> IssuedCertificate {
    certified(ca, csr, from_to(24, 48))
}

/// By openssl: our own CA gives every certificate what signatures need.
fn not_for_signatures(ca: &DevCa, csr: &CertificateRequest) -> IssuedCertificate {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (ca_pem, ca_key) = (write("ca.pem", &ca.certificate().to_pem()), write("ca.key", &ca.key_pem().unwrap()));
    let (csr, extensions) = (write("csr.pem", &csr.to_pem()), write("extensions", "keyUsage=critical,keyAgreement\n"));
    let arguments =
        ["x509", "-req", "-in", &csr, "-CA", &ca_pem, "-CAkey", &ca_key, "-days", "9", "-extfile", &extensions, "-outform", "der"];
    IssuedCertificate::new(openssl_ok(arguments), Vec::new())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_certificate_or_its_key_is_found_on_a_real_token_each_by_itself() {
    let real = Real::new().await;
    let spoilt: [(u32, Spoil, &str); 5] = [
        (1, of_another_key, "Открытые ключи сертификата, запроса и токена не совпадают"),
        (2, of_another_ca, "Цепочка сертификата не приводит к доверенному удостоверяющему центру"),
        (3, expired, "Срок действия сертификата истек"),
        (4, not_yet_valid, "Срок действия сертификата еще не начался"),
        (5, not_for_signatures, "Сертификат не предназначен для электронной подписи (digitalSignature)"),
    ];
    for (number, how, message) in spoilt {
        let request = real.issued(number, how).await;
        real.refused(number, 400, "WORKFLOW_FAULT", message).await;
        assert_eq!(real.certificates_of(&request), 0, "nothing was written for {number}");
    }
    // Another program deletes the private key.
    let deleted = real.issued(6, right).await;
    real.hsm.pkcs11_tool(&["--delete-object", "--type", "privkey", "--id", &hex::encode(key_id(&deleted))]);
    real.refused(6, 400, "WORKFLOW_FAULT", "На токене нет закрытого ключа сертификата").await;
    // A signature that does not verify: its key signs nothing more before the gateway starts again.
    real.issued(7, right).await;
    real.arm(Fault::on(Function::C_Sign).token(TOKEN_LABEL).flips_a_bit());
    for _ in 0..2 {
        real.refused(7, 400, "WORKFLOW_FAULT", "Подпись закрытым ключом не подтверждена ключом сертификата").await;
    }
    // The same token makes another request's certificate active all the while.
    let good = real.issued(8, right).await;
    assert_eq!(real.certificates_of(&good), 0, "the certificate is not on the token before");
    real.succeeds(8).await;
    real.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_cannot_be_written_is_a_503_and_is_left_as_it_was() {
    let real = Real::new().await;
    real.issued(1, right).await;
    let before = real.certificates();
    // The CA's certificate goes first, the holder's second.
    for (rv, skip) in [(Rv::TOKEN_WRITE_PROTECTED, 0), (Rv::DEVICE_MEMORY, 0), (Rv::DEVICE_MEMORY, 1)] {
        real.arm(Fault::on(Function::C_CreateObject).token(TOKEN_LABEL).skip(skip).returns(rv));
        real.away(1).await;
        assert_eq!(real.certificates(), before, "{rv:?} after {skip}");
    }
    real.succeeds(1).await;
    assert_eq!(real.certificates(), before + 2);
    real.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_goes_before_the_write_within_it_or_before_the_proof_is_a_503_and_the_same_again_ends_it() {
    let real = Real::new().await;
    let moments: [(u32, Option<Fault>); 4] = [
        (1, None),
        (2, Some(Fault::on(Function::C_CreateObject))),
        (3, Some(Fault::on(Function::C_CreateObject).after())),
        (4, Some(Fault::on(Function::C_Sign))),
    ];
    for (number, moment) in moments {
        real.issued(number, right).await;
        match moment {
            Some(fault) => real.arm(fault.token(TOKEN_LABEL).removes_the_token()),
            None => real.control().remove(Some(TOKEN_LABEL)).unwrap(),
        }
        real.away(number).await;
        real.control().insert(Some(TOKEN_LABEL)).unwrap();
        real.succeeds(number).await;
    }
    real.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_fails_while_it_signs_the_proof_is_a_503_and_the_same_again_ends_it() {
    let real = Real::new().await;
    real.issued(1, right).await;
    real.arm(Fault::on(Function::C_Sign).token(TOKEN_LABEL).returns(Rv::DEVICE_ERROR));
    real.away(1).await;
    real.succeeds(1).await;
    real.stop().await;
}
