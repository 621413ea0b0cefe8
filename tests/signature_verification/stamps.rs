//! Time stamps on signatures: what they prove, which ones prove nothing, and what the options demand.

use der::Encode;
use sealgate::{
    domain::{ticket::TimeStampCheck, timestamp::Timestamp},
    verification::{Judgement, SignerVerdict, judge_detached},
};
use x509_cert::attr::Attribute;

use crate::{
    edit::{attribute_of, edit_signer, resign, signature_value, with_unsigned},
    lab::{CONTENT, CONTENT_TIME_STAMP, Lab, P256, SIGNATURE_TIME_STAMP, SIGNER, TSA, days, judgement, now},
};

/// The verdict on the only signer, with this demanded of time stamps of both kinds.
fn verdict(lab: &Lab, signature: &[u8], at: Timestamp, demanded: TimeStampCheck) -> SignerVerdict {
    let trust = lab.trust();
    let judgement =
        Judgement { signature_time_stamp: demanded, content_time_stamp: TimeStampCheck::VerifyIfPresent, ..judgement(&trust, at) };
    judge_detached(signature, CONTENT, &judgement).unwrap().signers.remove(0)
}

/// The reason why a signature with this stamp is refused where stamps are looked at; it is good where they are ignored.
fn reason(lab: &Lab, signature: &[u8], token: &[u8]) -> String {
    let stamped = with_unsigned(signature, &[attribute_of(SIGNATURE_TIME_STAMP, token)]);
    assert_eq!(verdict(lab, &stamped, now(), TimeStampCheck::Ignore).outcome, Ok(()), "a bad stamp proves nothing, and spoils nothing");
    verdict(lab, &stamped, now(), TimeStampCheck::VerifyIfPresent).outcome.unwrap_err().to_string()
}

#[test]
fn a_stamped_signature_outlives_its_signers_certificate() {
    let lab = Lab::new();
    lab.certificate("signer", P256, SIGNER, "30");
    let authority = lab.authority("tsa");
    let (plain, stamped) = (lab.sign("signer", &["-cades"]), lab.stamped("signer", "tsa", &[]));
    let later = days(5 * 365);
    let expired = verdict(&lab, &plain, later, TimeStampCheck::VerifyIfPresent);
    assert!(expired.outcome.unwrap_err().to_string().contains("it had expired on"));
    for demanded in [TimeStampCheck::Ignore, TimeStampCheck::VerifyIfPresent, TimeStampCheck::VerifyOrFailIfNotPresent] {
        let good = verdict(&lab, &stamped, later, demanded);
        assert_eq!(good.outcome, Ok(()), "{demanded:?}");
        let stamp = good.signature_time_stamp.unwrap();
        assert_eq!((stamp.time, stamp.authority), (good.best_time, authority.clone()));
        assert!(good.best_time < now(), "the stamp's time, not {later:?}");
    }
    // Of several, the earliest counts.
    let earlier = lab.token("tsa", &signature_value(&stamped), Some(now()));
    let twice = with_unsigned(&stamped, &[attribute_of("1.2.3", &earlier)]);
    assert_eq!(verdict(&lab, &twice, later, TimeStampCheck::VerifyIfPresent).outcome, Ok(()));
    // It proves nothing any more when the authority's own certificate is over.
    let over = verdict(&lab, &stamped, days(3200), TimeStampCheck::VerifyIfPresent).outcome.unwrap_err().to_string();
    assert!(over.contains("the time stamp of the signature is not valid: of the authority, certificate \"CN=tsa"), "{over}");
    assert!(over.contains("it had expired on"), "{over}");
    let over = verdict(&lab, &stamped, days(3200), TimeStampCheck::Ignore).outcome.unwrap_err().to_string();
    assert!(over.starts_with("certificate \"CN=signer"), "{over}");
}

#[test]
fn what_is_demanded_and_missing_is_refused_and_what_is_ignored_is_not() {
    let lab = Lab::new();
    lab.signer("signer", P256);
    let plain = lab.sign("signer", &["-cades"]);
    let outcome = |demanded| verdict(&lab, &plain, now(), demanded).outcome.map_err(|reason| reason.to_string());
    assert_eq!(outcome(TimeStampCheck::Ignore), Ok(()));
    assert_eq!(outcome(TimeStampCheck::VerifyIfPresent), Ok(()));
    assert_eq!(outcome(TimeStampCheck::VerifyOrFailIfNotPresent), Err("there is no time stamp of the signature".to_owned()));
}

#[test]
fn each_stamp_that_proves_nothing_has_its_reason() {
    let lab = Lab::new();
    lab.signer("signer", P256);
    let signature = lab.sign("signer", &["-cades"]);
    let value = signature_value(&signature);
    lab.authority("tsa");
    let good = lab.token("tsa", &value, None);
    let of = |token: &[u8]| reason(&lab, &signature, token);
    let expect = |token: &[u8], expected: &str| {
        let reason = of(token);
        let expected = format!("the time stamp of the signature is not valid: {expected}");
        assert!(reason.starts_with(&expected), "{reason}\n{expected}");
    };
    expect(&lab.token("tsa", CONTENT, None), "the token is for other data");
    let mut broken = good.clone();
    *broken.last_mut().unwrap() ^= 1;
    expect(&broken, "the token's signature is wrong");
    expect(&attribute_of("1.2.3", &good), "it cannot be read");
    expect(&signature, "it is no time-stamp token: its content is not of the type TSTInfo");
    expect(&lab.token("signer", &value, None), "the authority's certificate: it does not say that it is for time stamping");
    lab.certificate("two", P256, "extendedKeyUsage=critical,timeStamping,codeSigning", "30");
    expect(&lab.token("two", &value, None), "the authority's certificate: it is not for time stamping alone");
    lab.certificate("lax", P256, "extendedKeyUsage=timeStamping", "30");
    expect(&lab.token("lax", &value, None), "the authority's certificate: its purpose, time stamping, is not marked critical");
    lab.certificate_between("over", "ca", TSA, [days(-10), days(-1)]);
    expect(&lab.token("over", &value, None), "the authority's certificate was not valid at the time of the token");
    expect(&lab.token("over", &value, Some(days(-2))), "of the authority, certificate \"CN=over\": it had expired on");
    expect(&lab.token("tsa", &value, Some(days(2))), "it is from the future");
    expect(&lab.token("tsa", &value, Some(days(-2))), "the authority's certificate was not valid at the time of the token");
    let stranger = Lab::new();
    stranger.authority("tsa");
    expect(&stranger.token("tsa", &value, None), "of the authority, certificate \"CN=CA\": its signature is wrong");
}

/// A signature whose content was stamped first, by a token of this.
fn with_content_stamp(lab: &Lab, of: &[u8], time: Option<Timestamp>) -> Vec<u8> {
    let token = lab.token("tsa", of, time);
    let attribute = <Attribute as der::Decode>::from_der(&attribute_of(CONTENT_TIME_STAMP, &token)).unwrap();
    resign(lab, "signer", &lab.sign("signer", &["-cades"]), |attributes| attributes.push(attribute))
}

#[test]
fn a_stamp_of_the_content_is_judged_over_the_content() {
    let lab = Lab::new();
    lab.signer("signer", P256);
    lab.authority("tsa");
    let good = with_content_stamp(&lab, CONTENT, None);
    let verdict_on = |signature: &[u8]| verdict(&lab, signature, now(), TimeStampCheck::VerifyIfPresent);
    let found = verdict_on(&good);
    assert_eq!((found.outcome, found.signature_time_stamp.is_some()), (Ok(()), false));
    assert!(found.content_time_stamp.is_some());
    assert_eq!(found.best_time, verdict_on(&lab.sign("signer", &[])).best_time.min(found.best_time), "it says nothing about the signature");
    let other = verdict_on(&with_content_stamp(&lab, b"other", None)).outcome.unwrap_err().to_string();
    assert_eq!(
        other,
        "the time stamp of the content is not valid: the token is for other data: its imprint is not the one that was asked for"
    );
    // Content that was stamped after the signature over that very stamp.
    lab.certificate_between("old", "ca", TSA, [days(-30), days(300)]);
    let token = lab.token("old", &signature_value(&good), Some(days(-5)));
    let backwards = with_unsigned(&good, &[attribute_of(SIGNATURE_TIME_STAMP, &token)]);
    let reason = verdict_on(&backwards).outcome.unwrap_err().to_string();
    assert!(reason.contains("is later than that of the signature"), "{reason}");
}

#[test]
fn a_stamp_is_of_its_own_signature_only() {
    let lab = Lab::new();
    lab.signer("signer", P256);
    lab.authority("tsa");
    let (one, other) = (lab.stamped("signer", "tsa", &[]), lab.sign("signer", &["-cades"]));
    let moved = edit_signer(&other, |signer| {
        use der::Decode;
        let info = cms::content_info::ContentInfo::from_der(&one).unwrap();
        let data: cms::signed_data::SignedData = info.content.decode_as().unwrap();
        signer.unsigned_attrs.clone_from(&data.signer_infos.0.get(0).unwrap().unsigned_attrs);
    });
    assert!(moved.to_der().is_ok());
    let reason = verdict(&lab, &moved, now(), TimeStampCheck::VerifyIfPresent).outcome.unwrap_err().to_string();
    assert!(reason.contains("the token is for other data"), "{reason}");
}
