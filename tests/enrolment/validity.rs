//! Certificates and time: who is told that one comes to its end, and what a key signs out of its certificate's time.

use sealgate::{domain::certificate::validity, enrolment::ExpiryWarning};
use tokio::sync::mpsc::{self, error::TryRecvError};

use crate::checks::{Rig, second_that_tells};

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
