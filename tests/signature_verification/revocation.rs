//! Revocation: the evidence that a signature carries, what is fetched for it, and what is made of certificates that nobody knows about.

use std::time::{Duration, SystemTime};

use sealgate::{
    domain::{revocation::RevocationCheck, ticket::CadesType, timestamp::Timestamp},
    pki::{
        Certificate,
        fetch::Fetcher,
        revocation::{Inquiry, RevocationClient, RevocationSettings, RevocationSource, SourcePlace},
    },
    verification::{Judgement, SignerVerdict, judge_detached},
};
use tokio::sync::Semaphore;

use crate::{
    common::{authority::TestAuthority, gateway::PATIENCE, openssl::openssl_ok},
    edit::{attribute_of, basic_of, ocsp_member, with_revocation, with_unsigned},
    lab::{CONTENT, Lab, P256, SIGNER, TSA, days, judgement, now},
};

/// `id-aa-ets-revocationValues`.
const REVOCATION_VALUES: &str = "1.2.840.113549.1.9.16.2.24";
const WEEK: fn() -> [Timestamp; 2] = || [days(-1), days(6)];

fn verdict(lab: &Lab, signature: &[u8], check: RevocationCheck, at: Timestamp) -> SignerVerdict {
    let trust = lab.trust();
    let judgement = Judgement { revocation: check, revocation_of_time_stamps: check, ..judgement(&trust, at) };
    judge_detached(signature, CONTENT, &judgement).unwrap().signers.remove(0)
}

fn outcome(lab: &Lab, signature: &[u8], check: RevocationCheck) -> Result<(), String> {
    verdict(lab, signature, check, now()).outcome.map_err(|reason| reason.to_string())
}

/// A value with a tag and a length of two bytes at most.
fn wrap(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let value = parts.concat();
    let len = u16::try_from(value.len()).unwrap().to_be_bytes();
    [&[tag, 0x82][..], &len, &value].concat()
}

/// `RevocationValues` with CRLs and OCSP answers.
fn values(crls: &[&[u8]], answers: &[&[u8]]) -> Vec<u8> {
    let list = |tag, all: &[&[u8]]| if all.is_empty() { Vec::new() } else { shortest(tag, &shortest(0x30, &all.concat())) };
    shortest(0x30, &[list(0xa0, crls), list(0xa1, answers)].concat())
}

fn shortest(tag: u8, value: &[u8]) -> Vec<u8> {
    match value.len() {
        len @ 0..0x80 => [&[tag, u8::try_from(len).unwrap()], value].concat(),
        len @ 0x80..0x100 => [&[tag, 0x81, u8::try_from(len).unwrap()], value].concat(),
        _ => wrap(tag, &[value]),
    }
}

#[test]
fn evidence_is_found_wherever_a_signature_may_carry_it() {
    let lab = Lab::new();
    let signer = lab.signer("signer", P256);
    let signature = lab.sign("signer", &["-cades"]);
    let of_root = lab.crl("root", &[], WEEK());
    let good = lab.crl("ca", &[], WEEK());
    let revoked = lab.crl("ca", &[(&signer, days(-1), "keyCompromise")], WEEK());
    let since = days(-1).to_rfc3339();
    let says = |signature: &[u8]| outcome(&lab, signature, RevocationCheck::Required);
    let refused = Err(format!("certificate \"CN=signer,O=Ромашка\": it was revoked on {since} (keyCompromise)"));
    // In `SignedData`, as CRLs.
    assert_eq!(says(&with_revocation(&signature, &[good.clone(), of_root.clone()])), Ok(()));
    assert_eq!(says(&with_revocation(&signature, &[revoked.clone(), of_root.clone()])), refused);
    // In `SignedData`, as OCSP answers, of the CA itself and of a responder that it has certified.
    lab.certificate("responder", P256, "keyUsage=digitalSignature\nextendedKeyUsage=OCSPSigning", "30");
    for responder in ["ca", "responder"] {
        let answer = |revoked| ocsp_member(&lab.answer("signer", responder, revoked));
        assert_eq!(says(&with_revocation(&signature, &[answer(None), of_root.clone()])), Ok(()), "{responder}");
        assert_eq!(
            says(&with_revocation(&signature, &[answer(Some((days(-1), "keyCompromise"))), of_root.clone()])),
            refused,
            "{responder}"
        );
    }
    // Beside the signature, as values.
    let carried = |crls: &[&[u8]], answers: &[&[u8]]| with_unsigned(&signature, &[attribute_of(REVOCATION_VALUES, &values(crls, answers))]);
    assert_eq!(says(&carried(&[&good, &of_root], &[])), Ok(()));
    assert_eq!(says(&carried(&[&revoked, &of_root], &[])), refused);
    let answer = |revoked| basic_of(&lab.answer("signer", "ca", revoked));
    assert_eq!(says(&carried(&[&of_root], &[&answer(None)])), Ok(()));
    assert_eq!(says(&carried(&[&of_root], &[&answer(Some((days(-1), "keyCompromise")))])), refused);
    // One that says "revoked" counts, whatever others say.
    assert_eq!(says(&carried(&[&good, &of_root], &[&answer(Some((days(-1), "keyCompromise")))])), refused);
    // The CA itself.
    let ca_revoked = lab.crl("root", &[(&lab.ca, days(-1), "cACompromise")], WEEK());
    assert!(says(&carried(&[&good, &ca_revoked], &[])).unwrap_err().starts_with("certificate \"CN=CA\": it was revoked on"));
}

#[test]
fn evidence_that_does_not_count_has_its_reason() {
    let lab = Lab::new();
    let signer = lab.signer("signer", P256);
    let signature = lab.sign("signer", &["-cades"]);
    let of_root = lab.crl("root", &[], WEEK());
    let reason = |evidence: Vec<u8>| {
        let carried = with_revocation(&signature, &[evidence, of_root.clone()]);
        outcome(&lab, &carried, RevocationCheck::Required).expect_err("it does not count")
    };
    let expect = |evidence: Vec<u8>, expected: &str| {
        let reason = reason(evidence);
        assert!(reason.contains("whether it was revoked cannot be said") && reason.contains(expected), "{expected}: {reason}");
    };
    expect(lab.crl("ca", &[], [days(-10), days(-3)]), "it is out of date");
    expect(lab.crl("ca", &[], [days(3), days(10)]), "it is from the future");
    let mut changed = lab.crl("ca", &[], WEEK());
    *changed.last_mut().unwrap() ^= 1;
    expect(changed, "its signature");
    lab.certificate("wrong", P256, SIGNER, "30");
    expect(ocsp_member(&lab.answer("signer", "wrong", None)), "is not certified for OCSP");
    let stranger = Lab::new();
    stranger.certificate("stranger", P256, "extendedKeyUsage=OCSPSigning", "30");
    for suffix in ["pem", "key"] {
        std::fs::copy(stranger.path(&format!("stranger.{suffix}")), lab.path(&format!("stranger.{suffix}"))).unwrap();
    }
    expect(ocsp_member(&lab.answer("signer", "stranger", None)), "was not certified by the issuer");
    let mut answer = lab.answer("signer", "ca", None);
    // In the key hash that names the responder, or near it.
    answer[60] ^= 1;
    assert!(reason(ocsp_member(&answer)).contains("its OCSP answer does not count"));
    drop(signer);
}

#[test]
fn what_nobody_knows_is_taken_as_the_deployment_says() {
    let lab = Lab::new();
    lab.signer("silent", P256);
    let names = "crlDistributionPoints=URI:http://127.0.0.1:1/crl\nkeyUsage=digitalSignature";
    lab.certificate("names", P256, names, "30");
    let demands = |name: &str| RevocationCheck::ALL.map(|check| outcome(&lab, &lab.sign(name, &[]), check).is_ok());
    assert_eq!(demands("silent"), [true, true, true, false]);
    assert_eq!(demands("names"), [true, true, false, false]);
    let reason = outcome(&lab, &lab.sign("names", &[]), RevocationCheck::WhereNamed).unwrap_err();
    assert!(reason.ends_with("whether it was revoked cannot be said: there is no evidence about it"), "{reason}");
    // RFC 9608: the issuer never says anything, and that is how it should be.
    lab.certificate("brief", P256, "2.5.29.56=DER:0500\nkeyUsage=digitalSignature", "30");
    let of_root = lab.crl("root", &[], WEEK());
    assert_eq!(outcome(&lab, &with_revocation(&lab.sign("brief", &[]), &[of_root]), RevocationCheck::Required), Ok(()));
}

#[test]
fn a_certificate_that_was_revoked_after_a_good_time_stamp_is_taken_and_one_before_is_not() {
    let lab = Lab::new();
    let signer = lab.signer("signer", P256);
    lab.certificate_between("tsa", "ca", TSA, [days(-20), days(3000)]);
    let later = days(30);
    let at = |signature: &[u8]| verdict(&lab, signature, RevocationCheck::WhereNamed, later).outcome.map_err(|reason| reason.to_string());
    let list = |since: i64, reason: &str| lab.crl("ca", &[(&signer, days(since), reason)], [days(25), days(35)]);
    let (plain, stamped) = (lab.sign("signer", &["-cades"]), lab.stamped("signer", "tsa", &[]));
    let revoked_later = list(10, "keyCompromise");
    assert_eq!(at(&with_revocation(&stamped, std::slice::from_ref(&revoked_later))), Ok(()));
    assert!(at(&with_revocation(&plain, &[revoked_later])).unwrap_err().contains("it was revoked on"));
    let before = at(&with_revocation(&stamped, &[list(-1, "superseded")])).unwrap_err();
    assert!(before.ends_with(&format!("it was revoked on {} (superseded)", days(-1).to_rfc3339())), "{before}");
}

#[test]
fn an_authority_that_was_revoked_keeps_its_earlier_stamps_only_if_its_key_was_not_lost() {
    let lab = Lab::new();
    lab.certificate("signer", P256, SIGNER, "10");
    let authority = lab.authority("tsa");
    let stamped = lab.stamped("signer", "tsa", &[]);
    let at = |since: i64, reason: &str| {
        let list = lab.crl("ca", &[(&authority, days(since), reason)], [days(25), days(35)]);
        let known = with_revocation(&stamped, &[list]);
        verdict(&lab, &known, RevocationCheck::IfKnown, days(30)).outcome.map_err(|reason| reason.to_string())
    };
    for reason in ["superseded", "cessationOfOperation", "affiliationChanged"] {
        assert_eq!(at(5, reason), Ok(()), "{reason}");
        assert!(at(-1, reason).is_err(), "{reason}: the stamp was made afterwards");
    }
    for reason in ["keyCompromise", "CACompromise", ""] {
        let refused = at(5, reason).unwrap_err();
        assert!(refused.starts_with("certificate \"CN=signer") && refused.contains("it had expired on"), "{reason}: {refused}");
    }
}

#[test]
fn x_long_holds_by_itself_five_years_on() {
    let lab = Lab::new();
    let signer = lab.certificate("signer", P256, SIGNER, "30");
    lab.authority("tsa");
    let signature = lab.x_long("signer", &signer, &[]);
    let trust = lab.trust();
    for check in RevocationCheck::ALL {
        let judgement = Judgement { revocation: check, ..judgement(&trust, days(5 * 365)) };
        let verdict = judge_detached(&signature, CONTENT, &judgement).unwrap();
        assert!(verdict.is_good(), "{check:?}: {:?}", verdict.reason());
    }
    // Without its values there is nothing to go by.
    let bare = verdict(&lab, &lab.stamped("signer", "tsa", &[]), RevocationCheck::IfKnown, days(5 * 365));
    assert_eq!(bare.outcome, Ok(()));
    let trust = lab.trust();
    let judgement = Judgement { revocation: RevocationCheck::Required, ..judgement(&trust, days(5 * 365)) };
    let bare = judge_detached(&lab.stamped("signer", "tsa", &[]), CONTENT, &judgement).unwrap();
    assert!(bare.reason().unwrap().to_string().contains("whether it was revoked cannot be said"));
}

#[test]
fn references_are_to_the_values_beside_them() {
    let lab = Lab::new();
    let (signer, other) = (lab.signer("signer", P256), lab.signer("other", P256));
    lab.authority("tsa");
    let stamped = lab.stamped("signer", "tsa", &[]);
    let (of_root, of_ca) = (lab.crl("root", &[], WEEK()), lab.crl("ca", &[], WEEK()));
    let newer = lab.crl("ca", &[], [days(-1), days(9)]);
    let attributes = |material: &sealgate::cms::unsigned::PathMaterial, form| material.attributes(form).unwrap();
    let right = lab.path_material(&signer, [&of_ca, &of_root]);
    let mixed = |other: &sealgate::cms::unsigned::PathMaterial, which: usize| {
        // The references of one, the values of another.
        let (mut all, wrong) = (attributes(&right, CadesType::XLong), attributes(other, CadesType::XLong));
        all[which] = wrong[which].clone();
        outcome(&lab, &with_unsigned(&stamped, &all), RevocationCheck::WhereNamed)
    };
    assert_eq!(mixed(&right, 0), Ok(()));
    let mut strange = lab.path_material(&signer, [&newer, &of_root]);
    let crl = Err("its complete-revocation-references name a CRL that is not there".to_owned());
    assert_eq!(mixed(&strange, 1), crl);
    assert_eq!(mixed(&strange, 3), crl);
    strange.authorities = vec![other.as_der().to_vec()];
    assert_eq!(mixed(&strange, 0), Err("its complete-certificate-references name a certificate that is not there".to_owned()));
    // References alone are to what whoever verifies has to find.
    assert_eq!(outcome(&lab, &with_unsigned(&stamped, &attributes(&right, CadesType::C)), RevocationCheck::WhereNamed), Ok(()));
}

fn client(issuer: &Certificate, places: Vec<SourcePlace>) -> RevocationClient {
    let sources = vec![RevocationSource { issuer: issuer.as_der().to_vec(), places }];
    let settings = RevocationSettings { sources, timeout: PATIENCE, crl_max: 100_000, concurrent: 2 };
    RevocationClient::new(Fetcher::new(false).unwrap(), settings)
}

#[tokio::test]
async fn evidence_that_is_not_carried_is_fetched_for_certificates_on_a_path_that_holds() {
    let lab = std::sync::Arc::new(Lab::new());
    let signer = lab.signer("signer", P256);
    let key = String::from_utf8(openssl_ok(["pkey", "-in", &lab.path("ca.key")])).unwrap();
    let (authority, _server) = TestAuthority::start(&key, &lab.ca.to_pem(), &[signer.serial()]).await;
    let place = SourcePlace::Crl(format!("{}/crl", authority.url).parse().unwrap());
    let fetcher = || client(&lab.ca, vec![place.clone()]);
    let settle = async |client: &RevocationClient, signature: Vec<u8>, trusted: bool| {
        let lab = std::sync::Arc::clone(&lab);
        let now = Timestamp::from(SystemTime::now()).after(Duration::from_secs(60));
        let judge = move |inquiry: &Inquiry| {
            let trust = if trusted { lab.trust() } else { Default::default() };
            let judgement = Judgement { inquiry: Some(inquiry), ..judgement(&trust, now) };
            judge_detached(&signature, CONTENT, &judgement).unwrap().reason().map(ToString::to_string)
        };
        Inquiry::settle(Some(client), &Semaphore::new(1), now, judge).await.unwrap()
    };
    let signature = lab.sign("signer", &["-cades"]);
    // A signer whom nobody trusts is refused without a request to anywhere.
    assert!(settle(&fetcher(), signature.clone(), false).await.is_some());
    assert_eq!(authority.requests(), 0);
    let missing = settle(&fetcher(), signature.clone(), true).await.unwrap();
    assert!(missing.contains("HTTP status 404"), "{missing}");
    authority.put("crl", lab.crl("ca", &[], WEEK()));
    let client = fetcher();
    assert_eq!(settle(&client, signature.clone(), true).await, None);
    assert_eq!(settle(&client, signature.clone(), true).await, None);
    assert_eq!(authority.requests(), 2, "the one that failed, and one for both that did not");
    authority.put("crl", lab.crl("ca", &[(&signer, days(-1), "keyCompromise")], WEEK()));
    let revoked = settle(&fetcher(), signature.clone(), true).await.unwrap();
    assert!(revoked.contains("it was revoked on") && revoked.ends_with("(keyCompromise)"), "{revoked}");
    // A list that the signer has chosen to carry does not hide what is known now.
    let carried = with_revocation(&signature, &[lab.crl("ca", &[], WEEK())]);
    assert_eq!(settle(&fetcher(), carried, true).await, Some(revoked));
}
