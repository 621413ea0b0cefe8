//! Broken signatures through the ticket API: each is answered with 406 and a reason that no other has.

use std::{collections::BTreeMap, fs};

use cms::{
    cert::CertificateChoices,
    content_info::ContentInfo,
    signed_data::{SignedData, SignerInfos},
};
use const_oid::{ObjectIdentifier, db::rfc5911};
use der::{Any, Decode, Encode, asn1::SetOfVec};
use reqwest::Method;
use sealgate::{domain::ticket::CadesType, domain::timestamp::Timestamp};
use serde_json::{Value, json};
use x509_cert::attr::Attribute;

use crate::{
    common::gateway::{Gateway, Plan, send},
    edit::{
        attribute, attribute_of, edit, edit_attributes, edit_signer, ocsp_member, octets, resign, signature_value, values, with_revocation,
        with_unsigned,
    },
    lab::{CONTENT, CONTENT_TIME_STAMP, Lab, P256, RSA, SIGNATURE_TIME_STAMP, SIGNER, TSA, days},
};

/// A signature that does not hold.
struct Broken {
    signature: Vec<u8>,
    content: Option<&'static [u8]>,
    options: Value,
    /// What its reason has in it.
    expected: &'static str,
}

/// The broken signatures, as they are made.
struct Broke {
    lab: Lab,
    /// A good signature to break.
    good: Vec<u8>,
    all: Vec<Broken>,
}

const NAMED: &str = "keyUsage=digitalSignature\ncrlDistributionPoints=URI:http://127.0.0.1:1/crl";
const WEEK: fn() -> [Timestamp; 2] = || [days(-1), days(6)];

fn oid(text: &str) -> ObjectIdentifier {
    ObjectIdentifier::new(text).unwrap()
}

impl Broke {
    fn new() -> Self {
        let lab = Lab::new();
        lab.signer("signer", P256);
        lab.authority("tsa");
        let good = lab.sign("signer", &["-cades"]);
        Self { lab, good, all: Vec::new() }
    }

    fn add(&mut self, expected: &'static str, signature: Vec<u8>) {
        self.all.push(Broken { signature, content: Some(CONTENT), options: json!({}), expected });
    }

    fn add_of(&mut self, expected: &'static str, signature: Vec<u8>, content: Option<&'static [u8]>) {
        self.all.push(Broken { signature, content, options: json!({}), expected });
    }

    fn shape(&mut self) {
        let good = self.good.clone();
        self.add("it is cut off", good[..good.len() - 1].to_vec());
        self.add("bytes follow the end", [&good[..], &[0]].concat());
        self.add("something else stands where", vec![0x30, 3, 2, 1, 5]);
        let data = ContentInfo { content_type: rfc5911::ID_DATA, content: octets(b"x") };
        self.add("it is CMS, but no SignedData", data.to_der().unwrap());
        let mut long = good.clone();
        long.splice(1..2, [0x83, 0]);
        self.add("a length is not in its shortest form", long);
        self.add("nobody signed", edit(&good, |data| data.signer_infos = SignerInfos(SetOfVec::new())));
        let other = edit(&good, |data| data.encap_content_info.econtent_type = oid("1.2.840.113549.1.9.16.1.4"));
        self.add("is not one of a document", other);
        let crowd = edit(&good, |data| {
            let one = data.certificates.as_ref().unwrap().0.get(0).unwrap().clone();
            data.certificates = Some(SetOfVec::try_from(vec![one; 65]).unwrap().into());
        });
        self.add("more certificates than are looked at", crowd);
        let crowd = edit(&good, |data| {
            let one = data.signer_infos.0.get(0).unwrap().clone();
            data.signer_infos = SignerInfos(SetOfVec::try_from(vec![one; 65]).unwrap());
        });
        self.add("more signers than are looked at", crowd);
        self.add_of("the content is not the one that was signed", good, Some(b"other"));
        let attached = self.lab.sign("signer", &["-nodetach"]);
        self.add_of("the content that was given is not the one in the signature", attached, Some(b"other"));
    }

    /// Signs again with attributes that were changed.
    fn attributes(&mut self, expected: &'static str, change: impl FnOnce(&mut Vec<Attribute>)) {
        let changed = resign(&self.lab, "signer", &self.good, change);
        self.add(expected, changed);
    }

    fn set(&mut self, expected: &'static str, oid: ObjectIdentifier, all: &[Any]) {
        let all = values(all);
        self.attributes(expected, |attributes| attribute(attributes, oid).values = all);
    }

    fn signed_attributes(&mut self) {
        use rfc5911::{ID_AA_SIGNING_CERTIFICATE_V_2, ID_CONTENT_TYPE, ID_MESSAGE_DIGEST, ID_SIGNING_TIME};
        self.attributes("have no message-digest", |all| all.retain(|attribute| attribute.oid != ID_MESSAGE_DIGEST));
        self.attributes("have no content-type", |all| all.retain(|attribute| attribute.oid != ID_CONTENT_TYPE));
        self.set("its message-digest cannot be read", ID_MESSAGE_DIGEST, &[Any::null()]);
        self.set("its content-type cannot be read", ID_CONTENT_TYPE, &[Any::null()]);
        self.set("its signing-time cannot be read", ID_SIGNING_TIME, &[octets(b"noon")]);
        self.set("1.2.840.113549.1.9.4 has not exactly one value", ID_MESSAGE_DIGEST, &[octets(&[1; 32]), octets(&[2; 32])]);
        let type_of_stamps = Any::encode_from(&oid("1.2.840.113549.1.9.16.1.4")).unwrap();
        self.set("the type of the content is not the one that was signed", ID_CONTENT_TYPE, &[type_of_stamps]);
        self.attributes("1.2.840.113549.1.9.4 stands twice", |all| {
            let mut again = attribute(all, ID_MESSAGE_DIGEST).clone();
            again.values = values(&[octets(&[9; 32])]);
            all.push(again);
        });
        self.attributes("it has too many attributes", |all| {
            let more = (0..64).map(|number| Attribute { oid: oid(&format!("1.2.3.{number}")), values: values(&[Any::null()]) });
            all.extend(more);
        });
        self.lab.signer("other", P256);
        let of_other = edit_attributes(&self.lab.sign("other", &["-cades"]), ID_AA_SIGNING_CERTIFICATE_V_2);
        self.set("its signing-certificate attribute names another certificate", ID_AA_SIGNING_CERTIFICATE_V_2, &[of_other]);
        self.set("its attributes cannot be read", ID_AA_SIGNING_CERTIFICATE_V_2, &[octets(b"x")]);
        let empty = Any::from_der(&[0x30, 0]).unwrap();
        self.set("its signing-certificate cannot be read", ID_AA_SIGNING_CERTIFICATE_V_2, std::slice::from_ref(&empty));
        let nobody = Any::from_der(&[0x30, 2, 0x30, 0]).unwrap();
        self.set("its signing-certificate names no certificate", ID_AA_SIGNING_CERTIFICATE_V_2, &[nobody]);
        let signer = {
            let info = ContentInfo::from_der(&self.good).unwrap();
            let data: SignedData = info.content.decode_as().unwrap();
            data.signer_infos.0.get(0).unwrap().clone()
        };
        let attributes: Vec<Vec<u8>> = signer.signed_attrs.unwrap().iter().map(|attribute| attribute.to_der().unwrap()).collect();
        let (sorted, reversed) = (attributes.concat(), attributes.iter().rev().cloned().collect::<Vec<_>>().concat());
        let mut unsorted = self.good.clone();
        let at = unsorted.windows(sorted.len()).position(|window| window == sorted).unwrap();
        unsorted[at..at + sorted.len()].copy_from_slice(&reversed);
        self.add("its signed attributes are not in DER's order", unsorted);
        // Signed with another's key in the signer's name.
        let forged = resign(&self.lab, "other", &self.good, |_| {});
        self.add("the signature value is wrong", forged);
    }

    fn algorithms(&mut self) {
        let mut named = |expected, algorithm: &str, parameters: Option<Any>| {
            let identifier = spki::AlgorithmIdentifier { oid: oid(algorithm), parameters };
            let changed = edit_signer(&self.good, |signer| signer.signature_algorithm = identifier);
            self.all.push(Broken { signature: changed, content: Some(CONTENT), options: json!({}), expected });
        };
        named("ecdsa-sha384 does not go with a digest of sha256", "1.2.840.10045.4.3.3", None);
        named("the signature algorithm 1.2.3 is not accepted", "1.2.3", None);
        named("takes no parameters", "1.2.840.10045.4.3.2", Some(octets(b"x")));
        named("the parameters of RSASSA-PSS cannot be read", "1.2.840.113549.1.1.10", None);
        named("rsa-pkcs1-sha256 with EC P-256 cannot be verified", "1.2.840.113549.1.1.1", None);
        named("1.2.643.7.1.1.3.2", "1.2.643.7.1.1.3.2", None);
        self.lab.signer("rsa", RSA);
        let old = self.lab.sign("rsa", &["-md", "sha1"]);
        self.add("1.3.14.3.2.26", old);
        let salt = self.lab.sign("rsa", &["-keyopt", "rsa_padding_mode:pss", "-keyopt", "rsa_pss_saltlen:20"]);
        self.add("20 bytes of salt", salt);
        self.lab.signer("short", &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"]);
        let short = self.lab.sign("short", &[]);
        self.add("RSA 1024", short);
    }

    /// A signature by somebody whose certificate says this.
    fn by(&mut self, expected: &'static str, name: &str, extensions: &str) {
        self.lab.certificate(name, P256, extensions, "30");
        let signature = self.lab.sign(name, &["-cades"]);
        self.add(expected, signature);
    }

    fn certificates(&mut self) {
        let without = self.lab.sign("signer", &["-nocerts"]);
        self.add("its certificate is not in the signature and was not given", without);
        self.lab.certificate_between("over", "ca", SIGNER, [days(-10), days(-1)]);
        self.lab.certificate_between("early", "ca", SIGNER, [days(1), days(9)]);
        for (name, expected) in [("over", "it had expired on"), ("early", "it was not yet valid")] {
            let signature = self.lab.sign(name, &["-cades"]);
            self.add(expected, signature);
        }
        self.by("its keyUsage does not allow signatures", "enciphers", "keyUsage=keyEncipherment");
        self.by("its extKeyUsage does not allow signatures of documents", "codes", "extendedKeyUsage=codeSigning");
        self.by("that is not understood: 1.2.3.4", "strange", "1.2.3.4=critical,ASN1:NULL");
        // Issued by somebody who is no CA.
        self.lab.certificate_between("below", "signer", SIGNER, WEEK());
        let below = edit(&self.lab.sign("below", &["-cades"]), |data| {
            let signer = fs::read_to_string(self.lab.path("signer.pem")).unwrap();
            let der = sealgate::pki::Certificate::from_pem(&signer).unwrap().as_der().to_vec();
            let mut all = data.certificates.take().unwrap().0.into_vec();
            all.push(CertificateChoices::Certificate(Decode::from_der(&der).unwrap()));
            data.certificates = Some(SetOfVec::try_from(all).unwrap().into());
        });
        self.add("it is not a CA's certificate and has issued one", below);
        let stranger = Lab::new();
        stranger.signer("stranger", P256);
        self.add("certificate \"CN=CA\": its signature is wrong", stranger.sign("stranger", &["-cades"]));
        let alone = edit(&self.good, |data| {
            let all = data.certificates.take().unwrap().0.into_vec();
            let own = all.into_iter().filter(|one| one.to_der().unwrap().windows(6).any(|part| part == b"signer"));
            data.certificates = Some(SetOfVec::try_from(own.collect::<Vec<_>>()).unwrap().into());
        });
        self.add("no trusted certificate was found for its issuer \"CN=CA\"", alone);
    }

    fn revocation(&mut self) {
        let named = self.lab.certificate("named", P256, NAMED, "30");
        let signature = self.lab.sign("named", &["-cades"]);
        let with = |evidence: Vec<u8>| with_revocation(&signature, &[evidence]);
        let list = |revoked: &[_], times| self.lab.crl("ca", revoked, times);
        let mut wrong = list(&[], WEEK());
        *wrong.last_mut().unwrap() ^= 1;
        let answer = |signer, revoked| ocsp_member(&self.lab.answer("named", signer, revoked));
        self.lab.certificate("no-responder", P256, SIGNER, "30");
        let ca_revoked = self.lab.crl("root", &[(&self.lab.ca, days(-1), "CACompromise")], WEEK());
        let cases = [
            ("(keyCompromise)", with(list(&[(&named, days(-1), "keyCompromise")], WEEK()))),
            ("(certificateHold)", with(list(&[(&named, days(-1), "certificateHold")], WEEK()))),
            ("(superseded)", with(answer("ca", Some((days(-1), "superseded"))))),
            ("(cACompromise)", with_revocation(&self.good, &[ca_revoked])),
            ("there is no evidence about it", signature.clone()),
            ("its CRL does not count: it is out of date", with(list(&[], [days(-10), days(-3)]))),
            ("its CRL does not count: it is from the future", with(list(&[], [days(3), days(9)]))),
            ("its CRL does not count: its signature", with(wrong)),
            ("is not certified for OCSP", with(answer("no-responder", None))),
        ];
        cases.into_iter().for_each(|(expected, signature)| self.add(expected, signature));
    }

    fn stamp(&mut self, expected: &'static str, token: &[u8]) {
        let stamped = with_unsigned(&self.good, &[attribute_of(SIGNATURE_TIME_STAMP, token)]);
        self.add(expected, stamped);
    }

    fn stamps(&mut self) {
        let value = signature_value(&self.good);
        self.lab.certificate("two", P256, "extendedKeyUsage=critical,timeStamping,codeSigning", "30");
        self.lab.certificate("lax", P256, "extendedKeyUsage=timeStamping", "30");
        self.lab.certificate_between("late", "ca", TSA, [days(-10), days(-1)]);
        let token = |authority, time| self.lab.token(authority, &value, time);
        let mut broken = token("tsa", None);
        *broken.last_mut().unwrap() ^= 1;
        let cases = [
            ("of the signature is not valid: the token is for other data", self.lab.token("tsa", CONTENT, None)),
            ("it does not say that it is for time stamping", token("signer", None)),
            ("it is not for time stamping alone", token("two", None)),
            ("is not marked critical", token("lax", None)),
            ("of the authority, certificate \"CN=late\": it had expired on", token("late", Some(days(-2)))),
            ("was not valid at the time of the token", token("tsa", Some(days(-2)))),
            ("it is from the future, of", token("tsa", Some(days(2)))),
            ("the token's signature is wrong", broken),
            ("its content is not of the type TSTInfo", self.good.clone()),
            ("it cannot be read", vec![0x30, 0]),
        ];
        cases.into_iter().for_each(|(expected, token)| self.stamp(expected, &token));
        for (option, expected) in [
            ("signatureTsVerifyOption", "there is no time stamp of the signature"),
            ("dataTsVerifyOption", "there is no time stamp of the content"),
        ] {
            let options = json!({ option: "verifyOrFailIfNotPresent" });
            self.all.push(Broken { signature: self.good.clone(), content: Some(CONTENT), options, expected });
        }
        let of_content = |of: &[u8]| {
            let stamp = attribute_of(CONTENT_TIME_STAMP, &self.lab.token("tsa", of, None));
            resign(&self.lab, "signer", &self.good, |all| all.push(Attribute::from_der(&stamp).unwrap()))
        };
        let (wrong, right) = (of_content(b"other"), of_content(CONTENT));
        self.add("the time stamp of the content is not valid", wrong);
        self.lab.certificate_between("old", "ca", TSA, [days(-30), days(300)]);
        let before = self.lab.token("old", &signature_value(&right), Some(days(-5)));
        self.add("is later than that of the signature", with_unsigned(&right, &[attribute_of(SIGNATURE_TIME_STAMP, &before)]));
    }

    fn references(&mut self) {
        let certificate = fs::read_to_string(self.lab.path("signer.pem")).unwrap();
        let signer = sealgate::pki::Certificate::from_pem(&certificate).unwrap();
        let (of_ca, of_root) = (self.lab.crl("ca", &[], WEEK()), self.lab.crl("root", &[], WEEK()));
        let newer = self.lab.crl("ca", &[], [days(-1), days(9)]);
        let right = self.lab.path_material(&signer, [&of_ca, &of_root]).attributes(CadesType::XLong).unwrap();
        let mut strange = self.lab.path_material(&signer, [&newer, &of_root]);
        strange.authorities = vec![signer.as_der().to_vec(), strange.authorities[1].clone()];
        strange.authorities.push(Lab::new().root.as_der().to_vec());
        let strange = strange.attributes(CadesType::XLong).unwrap();
        let stamped = self.lab.stamped("signer", "tsa", &[]);
        for (number, expected) in [(0, "name a certificate that is not there"), (1, "name a CRL that is not there")] {
            let mut mixed = right.clone();
            mixed[number].clone_from(&strange[number]);
            self.add(expected, with_unsigned(&stamped, &mixed));
        }
        for (number, expected) in [
            ("21", "its complete-certificate-references cannot be read"),
            ("22", "its complete-revocation-references cannot be read"),
            ("23", "its certificate-values cannot be read"),
            ("24", "its revocation-values cannot be read"),
        ] {
            let wrong = attribute_of(&format!("1.2.840.113549.1.9.16.2.{number}"), &[5, 0]);
            self.add(expected, with_unsigned(&stamped, &[wrong]));
        }
    }
}

/// The status and the reason that the gateway answers with.
async fn answer(gateway: &Gateway, broken: &Broken) -> (u16, String) {
    let ticket = match broken.content {
        Some(content) => gateway.ticket_with(content).await,
        None => gateway.ticket().await,
    };
    let mut options = json!({ "signatureTsVerifyOption": "verifyIfPresent", "dataTsVerifyOption": "verifyIfPresent" });
    options.as_object_mut().unwrap().extend(broken.options.as_object().unwrap().clone());
    assert_eq!(gateway.put_json(&format!("{ticket}/option"), options).await.status, 200);
    let upload = gateway.request(Method::POST, &format!("{ticket}/ds/data")).header("content-type", "application/octet-stream");
    let uploaded = send(upload.body(broken.signature.clone())).await;
    assert_eq!(uploaded.status, 200, "{}: {}", broken.expected, uploaded.text());
    assert_eq!(gateway.post(&format!("{ticket}/ds/verifier")).await.status, 200);
    let answer = gateway.get(&format!("{ticket}/ds/verifier")).await;
    let item = &answer.json()["verifyResults"][0];
    assert_eq!(item["status"], "FAILURE", "{}: {}", broken.expected, answer.text());
    (answer.status, item["failureCause"].as_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_broken_signature_is_answered_with_406_and_a_reason_of_its_own() {
    let mut broke = Broke::new();
    broke.shape();
    broke.signed_attributes();
    broke.algorithms();
    broke.certificates();
    broke.revocation();
    broke.stamps();
    broke.references();
    let mut plan = Plan::new();
    plan.trust = broke.lab.trust();
    let gateway = plan.start().await;
    let mut reasons: BTreeMap<String, &str> = BTreeMap::new();
    let mut wrong = Vec::new();
    for broken in &broke.all {
        let (status, reason) = answer(&gateway, broken).await;
        if status != 406 || !reason.contains(broken.expected) {
            wrong.push(format!("{status} {reason}, not {}", broken.expected));
        }
        if let Some(earlier) = reasons.insert(reason.clone(), broken.expected) {
            wrong.push(format!("{reason}: the reason of {earlier} and of {}", broken.expected));
        }
    }
    gateway.stop().await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(reasons.len() >= 40, "{}", reasons.len());
}
