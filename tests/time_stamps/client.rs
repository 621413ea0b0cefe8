//! The client: what it takes and what it refuses, whom it asks next, and whom it lets wait.

use std::{sync::Arc, time::Duration};

use sealgate::{
    cms::digest,
    domain::{algorithm::HashAlgorithm, digest::Digest},
    pki::{
        fetch::Fetcher,
        tsa::{TsaClient, TsaError, TsaSettings},
    },
    stamping::{StampError, StampSettings, StampSource, TimeStamps},
};

use crate::common::{
    gateway::{PATIENCE, tsa_settings},
    tsa::{Manner, TestTsa, TsaLab, openssl_takes_token},
};

const DATA: &[u8] = b"some data";

fn imprint() -> Digest {
    digest(HashAlgorithm::Sha256, DATA)
}

fn client(settings: TsaSettings, policy: Option<&str>) -> TimeStamps {
    let client = TsaClient::new(Fetcher::new(false).unwrap(), settings);
    let settings = StampSettings { policy: policy.map(|policy| policy.parse().unwrap()), total: PATIENCE };
    TimeStamps::new(Some(StampSource::Remote(client)), settings)
}

#[tokio::test]
async fn a_good_answer_is_taken_with_every_hash_function_and_either_signing_certificate_attribute() {
    let tsa = TestTsa::start(Arc::new(TsaLab::new()), Manner::Good).await;
    let client = client(tsa_settings(std::slice::from_ref(&tsa.url)), Some("1.2.3.4.1"));
    for hash in HashAlgorithm::ALL {
        let stamp = client.stamp(&digest(hash, DATA)).await.unwrap();
        assert_eq!((stamp.imprint_hash(), stamp.policy().to_string().as_str()), (hash, "1.2.3.4.1"));
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(openssl_takes_token(dir.path(), &tsa.lab().ca(), stamp.as_der(), DATA), Ok(()));
    }
    tsa.set(Manner::OldSigningCertificate);
    let (one, other) = (client.stamp(&imprint()).await.unwrap(), client.stamp(&imprint()).await.unwrap());
    assert_ne!(one.serial(), other.serial());
}

#[tokio::test]
async fn each_bad_answer_is_refused_with_its_own_reason() {
    let tsa = TestTsa::start(Arc::new(TsaLab::new()), Manner::Good).await;
    let client = client(tsa_settings(std::slice::from_ref(&tsa.url)), Some("1.2.3.4.1"));
    let mut reasons = Vec::new();
    for manner in Manner::BAD {
        tsa.set(manner);
        let error = client.stamp(&imprint()).await.expect_err(&format!("{manner:?}")).to_string();
        let expected = match manner {
            Manner::WrongImprint => "imprint",
            Manner::WrongNonce => "nonce",
            Manner::OtherPolicy => "policy is 1.2.3.4.2, not 1.2.3.4.1",
            Manner::Rejection => "status 2, badAlg",
            Manner::NoPurpose => "does not say that it is for time stamping",
            Manner::TwoPurposes => "not for time stamping alone",
            Manner::PurposeNotCritical => "not marked critical",
            Manner::BrokenSignature => "signature is wrong",
            Manner::Garbage | Manner::Empty => "cannot be read",
            Manner::Endless => "more than 262144 bytes",
            Manner::ContentType => "of the type `text/html`",
            Manner::HttpStatus => "status 503",
            Manner::HangsUp => "not reached",
            other => panic!("{other:?} is not bad"),
        };
        assert!(error.contains(expected), "{manner:?}: {error}");
        reasons.push(error);
    }
    // Not one of them has put the client off for good.
    tsa.set(Manner::Good);
    client.stamp(&imprint()).await.unwrap();
}

#[tokio::test]
async fn the_next_authority_is_asked_when_one_fails_and_the_one_that_failed_comes_last_for_a_while() {
    let lab = Arc::new(TsaLab::new());
    let (bad, good) = (TestTsa::start(Arc::clone(&lab), Manner::Garbage).await, TestTsa::start(lab, Manner::Good).await);
    let client = client(tsa_settings(&[bad.url.clone(), good.url.clone()]), None);
    client.stamp(&imprint()).await.unwrap();
    client.stamp(&imprint()).await.unwrap();
    assert_eq!((bad.requests(), good.requests()), (1, 2));
    good.set(Manner::Garbage);
    let error = client.stamp(&imprint()).await.unwrap_err();
    let StampError::Authorities(TsaError::AllFailed(reasons)) = error else { panic!("{error}") };
    assert_eq!(reasons.matches("cannot be read").count(), 2, "{reasons}");
}

#[tokio::test]
async fn who_finds_the_queue_full_is_told_at_once_and_a_silent_authority_costs_its_own_time_limit_only() {
    let tsa = TestTsa::start(Arc::new(TsaLab::new()), Manner::Silent).await;
    let one_at_a_time = TsaSettings { concurrent: 1.try_into().unwrap(), queue: 0, ..tsa_settings(std::slice::from_ref(&tsa.url)) };
    let held = Arc::new(client(one_at_a_time, None));
    let first = tokio::spawn({
        let held = Arc::clone(&held);
        async move { held.stamp(&imprint()).await }
    });
    tsa.wait_for_requests(1).await;
    assert_eq!(held.stamp(&imprint()).await, Err(StampError::Authorities(TsaError::Busy)));
    first.abort();
    let quick = TsaSettings { timeout: Duration::from_millis(50), ..tsa_settings(std::slice::from_ref(&tsa.url)) };
    let error = client(quick, None).stamp(&imprint()).await.unwrap_err().to_string();
    assert!(error.contains("did not answer within 0.05 s"), "{error}");
}
