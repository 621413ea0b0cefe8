//! Certificates and time: who is told that one comes to its end, and what a key signs out of its certificate's time.

use sealgate::{
    domain::{
        algorithm::{Curve, KeyKind},
        certificate::validity,
    },
    enrolment::ExpiryWarning,
    pki::Validity,
    signing::tokens::KeyReport,
    token::command::{CertificateOrder, Command},
};
use serde_json::json;
use tokio::sync::mpsc::{self, error::TryRecvError};

use crate::{
    checks::{Rig, second_that_tells},
    common::gateway::{Gateway, Plan},
    rig::from_to,
};

#[tokio::test(flavor = "multi_thread")]
async fn of_several_gateways_one_tells_once_that_a_certificate_ends_soon_over_restarts_too() {
    let rig = Rig::new().await;
    let certificate = rig.issue_for(5).await;
    let active = rig.activate().await.unwrap();
    let (sender, mut told) = mpsc::channel(16);
    let (one, one_signing) = second_that_tells(&rig, Some(sender.clone())).await;
    let (other, other_signing) = second_that_tells(&rig, Some(sender.clone())).await;
    let (first, second) = tokio::join!(one.look_at_validity(), other.look_at_validity());
    first.unwrap();
    second.unwrap();
    let not_after = validity(&certificate).unwrap().not_after;
    assert_eq!(told.try_recv(), Ok(ExpiryWarning { key: active.key_name.clone(), not_after, days_left: 4 }));
    // Another run of a gateway, which knows only what is stored.
    let (again, again_signing) = second_that_tells(&rig, Some(sender)).await;
    again.look_at_validity().await.unwrap();
    assert_eq!(told.try_recv(), Err(TryRecvError::Empty));
    // What a page shows.
    let expiring = again.expiring(30).await.unwrap();
    assert_eq!(
        expiring.iter().map(|found| (found.enrolment.id, found.days_left(), found.expired())).collect::<Vec<_>>(),
        [(active.id, 4, false)]
    );
    assert!(again.expiring(3).await.unwrap().is_empty());
    let recorded = crate::rig::audited(&rig.gateway, "certificate-expires").await;
    assert_eq!(recorded.len(), 1, "{recorded:?}");
    for signing in [one_signing, other_signing, again_signing] {
        signing.stop().await;
    }
    let Rig { gateway, .. } = rig;
    gateway.stop().await;
}

/// The one key of this name, as the gateway sees it.
async fn key_report(gateway: &Gateway, name: &str) -> KeyReport {
    let keys = gateway.signing.desk().keys().await;
    keys.into_iter().find(|key| key.name.as_ref().is_some_and(|named| named.as_str() == name)).unwrap()
}

/// Puts another certificate of the same key on the token in place of the one that is there.
async fn replace_certificate(gateway: &Gateway, name: &str, validity: Validity) {
    let KeyReport { key, token, .. } = key_report(gateway, name).await;
    let certificate = gateway.ca.issue(key.public_key.as_ref().unwrap(), name, validity).unwrap().as_der().to_vec();
    let order = CertificateOrder { id: key.id, label: name.to_owned(), certificate, chain: Vec::new(), replace: true };
    gateway.tokens.find(&token.uri()).unwrap().call(Command::WriteCertificate(order)).await.unwrap();
    gateway.signing.token_changed(&token);
}

async fn start_signature(gateway: &Gateway, name: &str) -> (String, crate::common::gateway::Answer) {
    let ticket = gateway.ticket_with(b"the document").await;
    let chosen = gateway.put_json(&format!("{ticket}/keyStore"), json!({ "keyStorePath": name })).await;
    assert_eq!(chosen.status, 200, "{}", chosen.text());
    let started = gateway.post(&format!("{ticket}/ds/creator")).await;
    (ticket, started)
}

#[tokio::test(flavor = "multi_thread")]
async fn out_of_its_certificates_time_a_key_signs_only_if_its_configuration_says_so() {
    let kind = || KeyKind::Ec(Curve::P256);
    let mut plan = Plan::softhsm(&[("past", kind()), ("future", kind()), ("whenever", kind())], 64).await;
    plan.keys.iter_mut().filter(|key| key.name.as_str() == "whenever").for_each(|key| key.ignore_validity = true);
    let gateway = plan.start().await;
    let (past, future) = (from_to(-48, -24), from_to(24, 48));
    for (name, validity) in [("past", past), ("future", future), ("whenever", past)] {
        replace_certificate(&gateway, name, validity).await;
    }
    let end = validity(key_report(&gateway, "past").await.certificate.as_ref().unwrap()).unwrap().not_after;
    let beginning = validity(key_report(&gateway, "future").await.certificate.as_ref().unwrap()).unwrap().not_before;
    for (name, cause) in [
        ("past", format!("Строк чинності сертифіката минув {}; його потрібно перевипустити.", end.to_rfc3339())),
        ("future", format!("Сертифікат ще не чинний: його строк починається {}.", beginning.to_rfc3339())),
    ] {
        let (_, refused) = start_signature(&gateway, name).await;
        assert_eq!((refused.status, refused.cause()), (500, cause), "{}", refused.text());
    }
    let (ticket, started) = start_signature(&gateway, "whenever").await;
    assert_eq!(started.status, 200, "{}", started.text());
    let signature = gateway.get(&format!("{ticket}/ds/base64Data")).await;
    assert_eq!(signature.status, 200, "{}", signature.text());
    gateway.stop().await;
}
