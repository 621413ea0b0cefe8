//! Requests of clients whose algorithms nobody here knows, as their own programs write them: GOST R 34.10-2012, DSTU 4145.

use der::{
    Any, Encode as _, Tag,
    asn1::{BitString, ContextSpecific, ObjectIdentifier, OctetString, SetOfVec},
};
use reqwest::Method;
use sealgate::{
    domain::{enrolment::profile::CaChoice, token::LoginMode},
    enrolment::request_in_pem,
    token::fake::Script,
};
use serde_json::json;
use spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};
use x509_cert::{
    name::Name,
    request::{CertReq, CertReqInfo, Version},
};

use crate::{
    common::gateway::Plan,
    rig::{EIO_KEY, V1, ask, body, ca, id, profile, with_bank},
};

fn oid(text: &str) -> ObjectIdentifier {
    text.parse().unwrap()
}

fn sequence(parts: &[Vec<u8>]) -> Any {
    Any::new(Tag::Sequence, parts.concat()).unwrap()
}

fn algorithm(kind: &str, parameters: Option<Any>) -> AlgorithmIdentifierOwned {
    AlgorithmIdentifierOwned { oid: oid(kind), parameters }
}

/// A request with such a key; the key and the signature are octets of the right length, since nobody here can look at them.
fn request(key: AlgorithmIdentifierOwned, key_octets: usize, signature: AlgorithmIdentifierOwned, signature_octets: usize) -> Vec<u8> {
    let inner = OctetString::new(vec![0x5a; key_octets]).unwrap().to_der().unwrap();
    let public_key = SubjectPublicKeyInfoOwned { algorithm: key, subject_public_key: BitString::from_bytes(&inner).unwrap() };
    let subject: Name = "CN=Иванов Иван Иванович,O=ООО Ромашка,C=RU".parse().unwrap();
    let info = CertReqInfo { version: Version::V1, subject, public_key, attributes: SetOfVec::new() };
    CertReq { info, algorithm: signature, signature: BitString::from_bytes(&vec![0xa5; signature_octets]).unwrap() }.to_der().unwrap()
}

/// As CryptoPro CSP writes it (RFC 9215): parameters name curve and digest; the signature's algorithm has none.
fn gost_2012(bits: usize) -> Vec<u8> {
    let (key, curve, digest, signature) = match bits {
        256 => ("1.2.643.7.1.1.1.1", "1.2.643.2.2.36.0", "1.2.643.7.1.1.2.2", "1.2.643.7.1.1.3.2"),
        _ => ("1.2.643.7.1.1.1.2", "1.2.643.7.1.2.1.2.1", "1.2.643.7.1.1.2.3", "1.2.643.7.1.1.3.3"),
    };
    let parameters = sequence(&[oid(curve).to_der().unwrap(), oid(digest).to_der().unwrap()]);
    request(algorithm(key, Some(parameters)), bits / 4, algorithm(signature, None), bits / 4)
}

/// As Ukrainian CAs' clients write it: a named binary curve and the substitution box of GOST 28147.
fn dstu() -> Vec<u8> {
    let parameters =
        sequence(&[oid("1.2.804.2.1.1.1.1.3.1.1.2.6").to_der().unwrap(), OctetString::new(vec![0xa9; 64]).unwrap().to_der().unwrap()]);
    request(algorithm("1.2.804.2.1.1.1.1.3.1.1", Some(parameters)), 33, algorithm("1.2.804.2.1.1.1.1.3.1.1", None), 66)
}

/// The request in a CMS whose signer is of the same algorithm (RFC 5652, RFC 9215).
fn in_cms(content: &[u8], digest: &str, signature: &str) -> String {
    let digest_algorithm = algorithm(digest, None).to_der().unwrap();
    let explicit =
        |value: Any| ContextSpecific { tag_number: der::TagNumber(0), tag_mode: der::TagMode::Explicit, value }.to_der().unwrap();
    let octets = Any::new(Tag::OctetString, content).unwrap();
    let encapsulated = sequence(&[oid("1.2.840.113549.1.7.1").to_der().unwrap(), explicit(octets)]).to_der().unwrap();
    let issuer: Name = "CN=CA".parse().unwrap();
    let signer_id = sequence(&[issuer.to_der().unwrap(), vec![2, 1, 7]]).to_der().unwrap();
    let value = OctetString::new(vec![0xa5; 64]).unwrap().to_der().unwrap();
    let signer = sequence(&[vec![2, 1, 1], signer_id, digest_algorithm.clone(), algorithm(signature, None).to_der().unwrap(), value]);
    let set = |inner: Vec<u8>| Any::new(Tag::Set, inner).unwrap().to_der().unwrap();
    let signed = sequence(&[vec![2, 1, 1], set(digest_algorithm), encapsulated, set(signer.to_der().unwrap())]);
    let message = sequence(&[oid("1.2.840.113549.1.7.2").to_der().unwrap(), explicit(signed)]);
    der::pem::encode_string("CMS", der::pem::LineEnding::LF, &message.to_der().unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_algorithm_that_nobody_here_knows_is_named_however_the_request_comes() {
    let script = Script::new("bank-token");
    let mut plan = Plan::scripted(&script, LoginMode::Configured, &["seal"]);
    with_bank(&mut plan);
    plan.profiles = vec![profile("bank-token", CaChoice::Manual, &ca())];
    let gateway = plan.start().await;
    let eio = format!("{V1}/cert-requests/eio");
    let mut number = 0;
    for (der, digest, signature, name) in [
        (gost_2012(256), "1.2.643.7.1.1.2.2", "1.2.643.7.1.1.1.1", "GOST R 34.10-2012 with 256 bits"),
        (gost_2012(512), "1.2.643.7.1.1.2.3", "1.2.643.7.1.1.1.2", "GOST R 34.10-2012 with 512 bits"),
        (dstu(), "1.2.804.2.1.1.1.1.2.1", "1.2.804.2.1.1.1.1.3.1.1", "DSTU 4145-2002"),
    ] {
        for pem in [request_in_pem(&der), in_cms(&der, digest, signature)] {
            number += 1;
            let mut sent = body(&id(number), "director", "Иванов Иван Иванович");
            sent["pkcs10"] = json!({ "cms": pem });
            let refused = ask(&gateway, Method::POST, &eio, EIO_KEY, Some(&sent)).await;
            let notice = refused.json();
            assert_eq!((refused.status, &notice["cause"]), (400, &json!("VALIDATION_FAULT")), "{name}: {}", refused.text());
            assert_eq!(notice["fieldNames"], json!(["pkcs10.cms"]), "{name}");
            assert!(notice["checks"][0]["message"].as_str().unwrap().contains(name), "{name}: {}", refused.text());
            // Nothing of it is kept.
            let state = ask(&gateway, Method::GET, &format!("{eio}/{}/state", id(number)), EIO_KEY, None).await;
            assert_eq!(state.status, 404, "{}", state.text());
        }
    }
    gateway.stop().await;
}
