//! Signatures that do not hold, each broken in one place, and the reason that each is given.

use std::time::Duration;

use cms::{
    content_info::ContentInfo,
    signed_data::{SignedData, SignerInfos},
};
use const_oid::{ObjectIdentifier, db::rfc5911};
use der::{
    Any, Decode, Encode,
    asn1::{ObjectIdentifier as Oid, OctetString, SetOfVec},
};
use sealgate::{domain::timestamp::Timestamp, verification::judge_detached};
use x509_cert::attr::Attribute;

use crate::{
    edit::{attribute, edit, edit_attributes, edit_signer, octets, resign, values},
    lab::{CONTENT, Lab, P256, RSA, SIGNER, judgement, now},
};

/// `id-ct-TSTInfo`: the content of time stamps.
const TST_INFO: Oid = Oid::new_unwrap("1.2.840.113549.1.9.16.1.4");
const DAY: Duration = Duration::from_secs(24 * 3600);

/// The last place where `part` stands in `whole`.
fn find(whole: &[u8], part: &[u8]) -> usize {
    whole.windows(part.len()).rposition(|window| window == part).unwrap()
}

#[test]
fn what_is_no_signature_is_refused_with_what_it_is() {
    let lab = Lab::new();
    lab.signer("signer", P256);
    let good = lab.sign("signer", &["-cades"]);
    let reason = |signature: &[u8]| lab.reason(signature, Some(CONTENT));
    assert_eq!(reason(b""), "not a CMS signature: it is cut off");
    assert_eq!(reason(b"\x04\x01x"), "not a CMS signature: something else stands where SignedData has its members");
    for keep in [1, 4, 30, good.len() / 2, good.len() - 1] {
        assert_eq!(reason(&good[..keep]), "not a CMS signature: it is cut off", "{keep}");
    }
    assert_eq!(reason(&[&good[..], &[0]].concat()), "bytes follow the end of the signature");
    let data = ContentInfo { content_type: rfc5911::ID_DATA, content: octets(b"x") };
    assert_eq!(reason(&data.to_der().unwrap()), "not a CMS signature: it is CMS, but no SignedData");
    let nobody = edit(&good, |signed_data| signed_data.signer_infos = SignerInfos(SetOfVec::new()));
    assert_eq!(reason(&nobody), "nobody signed: there are certificates only");
    let other_type = edit(&good, |signed_data| signed_data.encap_content_info.econtent_type = TST_INFO);
    assert_eq!(reason(&other_type), "the signature is not one of a document: its content is of the type 1.2.840.113549.1.9.16.1.4");
    let crowd = edit(&good, |signed_data| {
        let one = signed_data.certificates.as_ref().unwrap().0.get(0).unwrap().clone();
        signed_data.certificates = Some(SetOfVec::try_from(vec![one; 65]).unwrap().into());
    });
    assert_eq!(reason(&crowd), "the signature has more certificates than are looked at");
    // A length that is longer than it must be.
    let mut long = good.clone();
    assert_eq!(long[1], 0x82);
    long.splice(1..2, [0x83, 0]);
    assert_eq!(reason(&long), "not a CMS signature: a length is not in its shortest form, or too long");
}

#[test]
fn content_must_be_the_one_that_was_signed() {
    let lab = Lab::new();
    lab.signer("signer", P256);
    let (detached, attached) = (lab.sign("signer", &[]), lab.sign("signer", &["-nodetach"]));
    assert_eq!(lab.reason(&detached, Some(b"I owe you 1000 hryvnias.")), "the content is not the one that was signed");
    assert_eq!(lab.reason(&detached, None), "the content is not in the signature and was not given");
    let mut changed = attached.clone();
    let at = find(&attached, b"100 hryvnias");
    changed[at] = b'9';
    assert_eq!(lab.reason(&changed, None), "the content is not the one that was signed");
    assert_eq!(lab.reason(&attached, Some(b"other")), "the content that was given is not the one in the signature");
}

#[test]
fn each_signed_attribute_that_is_wrong_has_its_reason() {
    let lab = Lab::new();
    lab.signer("signer", P256);
    let other = lab.signer("other", P256);
    let good = lab.sign("signer", &["-cades"]);
    let with = |change: &dyn Fn(&mut Vec<Attribute>)| lab.reason(&resign(&lab, "signer", &good, change), Some(CONTENT));
    let set = |oid: ObjectIdentifier, all: &[Any]| {
        let all = values(all);
        with(&move |attributes| attribute(attributes, oid).values = all.clone())
    };
    let without = |oid: ObjectIdentifier| with(&move |attributes| attributes.retain(|attribute| attribute.oid != oid));
    // What the edits rest on: an edit that changes nothing is good.
    assert!(lab.judge(&resign(&lab, "signer", &good, |_| {}), Some(CONTENT)).unwrap().is_good());
    assert_eq!(set(rfc5911::ID_MESSAGE_DIGEST, &[octets(&[7; 32])]), "the content is not the one that was signed");
    assert_eq!(without(rfc5911::ID_MESSAGE_DIGEST), "its signed attributes have no message-digest");
    assert_eq!(set(rfc5911::ID_MESSAGE_DIGEST, &[Any::null()]), "its message-digest cannot be read");
    let twice = set(rfc5911::ID_MESSAGE_DIGEST, &[octets(&[1; 32]), octets(&[2; 32])]);
    assert_eq!(twice, "its attribute 1.2.840.113549.1.9.4 has not exactly one value");
    assert_eq!(set(rfc5911::ID_MESSAGE_DIGEST, &[]), "its attribute 1.2.840.113549.1.9.4 has not exactly one value");
    assert_eq!(without(rfc5911::ID_CONTENT_TYPE), "its signed attributes have no content-type");
    let other_type = Any::encode_from::<Oid>(&TST_INFO).unwrap();
    assert_eq!(set(rfc5911::ID_CONTENT_TYPE, &[other_type]), "the type of the content is not the one that was signed");
    let double = with(&|attributes| {
        let mut again = attribute(attributes, rfc5911::ID_MESSAGE_DIGEST).clone();
        again.values = values(&[octets(&[9; 32])]);
        attributes.push(again);
    });
    assert_eq!(double, "its signed attribute 1.2.840.113549.1.9.4 stands twice");
    assert_eq!(set(rfc5911::ID_SIGNING_TIME, &[octets(b"noon")]), "its signing-time cannot be read");
    let of_other = lab.sign("other", &["-cades"]);
    let signing_certificate = edit_attributes(&of_other, rfc5911::ID_AA_SIGNING_CERTIFICATE_V_2);
    assert_eq!(
        set(rfc5911::ID_AA_SIGNING_CERTIFICATE_V_2, &[signing_certificate]),
        "its signing-certificate attribute names another certificate"
    );
    assert_eq!(set(rfc5911::ID_AA_SIGNING_CERTIFICATE_V_2, &[octets(b"x")]), "its attributes cannot be read");
    drop(other);
}

#[test]
fn attributes_are_judged_as_the_bytes_that_came() {
    let lab = Lab::new();
    lab.signer("signer", P256);
    let good = lab.sign("signer", &["-cades"]);
    let signer = {
        let info = ContentInfo::from_der(&good).unwrap();
        let signed_data: SignedData = info.content.decode_as().unwrap();
        signed_data.signer_infos.0.get(0).unwrap().clone()
    };
    // The same attributes in another order are other bytes, and no DER.
    let attributes: Vec<Vec<u8>> = signer.signed_attrs.unwrap().iter().map(|attribute| attribute.to_der().unwrap()).collect();
    let (sorted, reversed) = (attributes.concat(), attributes.iter().rev().cloned().collect::<Vec<_>>().concat());
    let mut unsorted = good.clone();
    let at = find(&good, &sorted);
    unsorted[at..at + sorted.len()].copy_from_slice(&reversed);
    assert_eq!(lab.reason(&unsorted, Some(CONTENT)), "its signed attributes are not in DER's order");
    // An attribute that was changed and not signed again.
    let mut changed = good.clone();
    // The last digit of its seconds: the time stays a time.
    let digit = find(&good, b"Z0") - 1;
    changed[digit] ^= 1;
    assert_eq!(lab.reason(&changed, Some(CONTENT)), "the signature value is wrong");
    let stripped = edit_signer(&good, |signer| signer.signed_attrs = None);
    assert_eq!(lab.reason(&stripped, Some(CONTENT)), "the signature value is wrong");
}

#[test]
fn a_wrong_signature_value_is_wrong() {
    let lab = Lab::new();
    lab.signer("signer", P256);
    let other = lab.signer("other", P256);
    let good = lab.sign("signer", &[]);
    let wrong = |value: &[u8]| lab.reason(&edit_signer(&good, |signer| signer.signature = OctetString::new(value).unwrap()), Some(CONTENT));
    assert_eq!(wrong(&[]), "the signature value is wrong");
    assert_eq!(wrong(&[0x30, 0]), "the signature value is wrong");
    // Signed with another's key in the signer's name.
    let forged = resign(&lab, "other", &good, |_| {});
    assert_eq!(lab.reason(&forged, Some(CONTENT)), "the signature value is wrong");
    drop(other);
}

#[test]
fn algorithms_that_are_not_accepted_are_named() {
    let lab = Lab::new();
    lab.signer("signer", P256);
    lab.signer("rsa", RSA);
    let good = lab.sign("signer", &[]);
    let algorithm = |oid: &str, parameters: Option<Any>| {
        let oid = Oid::new(oid).unwrap();
        lab.reason(&edit_signer(&good, |signer| signer.signature_algorithm = spki::AlgorithmIdentifier { oid, parameters }), Some(CONTENT))
    };
    assert!(lab.reason(&lab.sign("rsa", &["-md", "sha1"]), Some(CONTENT)).contains("1.3.14.3.2.26"));
    assert_eq!(algorithm("1.2.840.10045.4.3.3", None), "ecdsa-sha384 does not go with a digest of sha256");
    assert_eq!(algorithm("1.2.3", None), "the signature algorithm 1.2.3 is not accepted");
    assert!(algorithm("1.2.840.10045.4.3.2", Some(octets(b"x"))).ends_with("takes no parameters"));
    assert_eq!(algorithm("1.2.840.113549.1.1.10", None), "the parameters of RSASSA-PSS cannot be read");
    assert_eq!(
        algorithm("1.2.840.113549.1.1.1", None),
        "the signature cannot be verified: rsa-pkcs1-sha256 with EC P-256 cannot be verified"
    );
    let pss = lab.sign("rsa", &["-keyopt", "rsa_padding_mode:pss", "-keyopt", "rsa_pss_saltlen:20"]);
    assert!(lab.reason(&pss, Some(CONTENT)).contains("20 bytes of salt"));
    // GOST R 34.10-2012, as others of this field sign.
    assert!(algorithm("1.2.643.7.1.1.3.2", None).contains("1.2.643.7.1.1.3.2"));
}

#[test]
fn the_signers_certificate_must_be_there_and_the_one_that_is_named() {
    let lab = Lab::new();
    let signer = lab.signer("signer", P256);
    let other = lab.signer("other", P256);
    let good = lab.sign("signer", &["-cades"]);
    let missing = "its certificate is not in the signature and was not given";
    assert_eq!(lab.reason(&lab.sign("signer", &["-nocerts"]), Some(CONTENT)), missing);
    let of_other = {
        let info = ContentInfo::from_der(&lab.sign("other", &[])).unwrap();
        let signed_data: SignedData = info.content.decode_as().unwrap();
        signed_data.signer_infos.0.get(0).unwrap().sid.clone()
    };
    assert_eq!(lab.reason(&edit_signer(&good, |signer| signer.sid = of_other.clone()), Some(CONTENT)), missing);
    drop((signer, other));
}

#[test]
fn the_certificate_must_have_been_good() {
    let lab = Lab::new();
    lab.certificate("signer", P256, SIGNER, "30");
    let good = lab.sign("signer", &["-cades"]);
    let at = |when: Timestamp| lab.judge_at(&good, Some(CONTENT), when).unwrap().reason().unwrap().to_string();
    assert!(at(now().after(DAY * 31)).contains("it had expired on"));
    assert!(at(Timestamp::from_millis(now().as_millis() - DAY.as_millis() as u64)).contains("it was not yet valid"));
    let usage = |name: &str, extensions: &str| {
        lab.certificate(name, P256, extensions, "30");
        lab.reason(&lab.sign(name, &["-cades"]), Some(CONTENT))
    };
    assert!(usage("enciphers", "keyUsage=keyEncipherment").ends_with("its keyUsage does not allow signatures"));
    assert!(usage("signs-code", "extendedKeyUsage=codeSigning").ends_with("its extKeyUsage does not allow signatures of documents"));
    assert!(usage("serves", "extendedKeyUsage=serverAuth").ends_with("its extKeyUsage does not allow signatures of documents"));
    assert!(usage("strange", "1.2.3.4=critical,ASN1:NULL").ends_with("that is not understood: 1.2.3.4"));
    let trust = lab.trust();
    let mut untrusting = judgement(&trust, now());
    let nobody = sealgate::pki::trust::TrustStore::default();
    untrusting.trust = &nobody;
    let reason = judge_detached(&good, CONTENT, &untrusting).unwrap().reason().unwrap().to_string();
    assert!(reason.contains("no trusted certificate was found for its issuer \"CN=Root\""), "{reason}");
    let alone = edit(&good, |signed_data| {
        let certificates = signed_data.certificates.take().unwrap().0.into_vec();
        let of_signer =
            certificates.into_iter().filter(|certificate| certificate.to_der().unwrap().windows(6).any(|part| part == b"signer"));
        signed_data.certificates = Some(SetOfVec::try_from(of_signer.collect::<Vec<_>>()).unwrap().into());
    });
    assert!(lab.reason(&alone, Some(CONTENT)).contains("for its issuer \"CN=CA\""));
}
