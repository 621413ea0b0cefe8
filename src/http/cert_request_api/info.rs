//! What an account, or everybody of an organisation, has of keys and certificates.

use std::collections::BTreeMap;

use actix_web::{HttpResponse, http::header};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    State,
    error::{JSON, Notice},
    request::Asking,
};
use crate::{
    domain::enrolment::Enrolment,
    enrolment::{EnrolmentService, certificate_facts},
};

/// The most certificates that are shown.
const SHOWN_MAX: usize = 1_000;

pub(super) async fn own(state: State, Asking(who): Asking) -> Result<HttpResponse, Notice> {
    let certificates = state.services.enrolment.certificates(&who, SHOWN_MAX).await?;
    let mut body = centre(&state.services.enrolment);
    let anchor = state.services.enrolment.anchors().into_iter().next();
    body["certBank"] = anchor.as_ref().map(|anchor| STANDARD.encode(anchor.as_der())).into();
    body["certBankUuid"] = anchor.map(|anchor| uuid_of(&anchor.fingerprint())).into();
    body["cryptoProfileInfos"] = profiles(&certificates);
    Ok(answer(&body))
}

pub(super) async fn of_all(state: State, Asking(who): Asking) -> Result<HttpResponse, Notice> {
    let mut by_login: BTreeMap<String, Vec<Enrolment>> = BTreeMap::new();
    for enrolment in state.services.enrolment.certificates(&who, SHOWN_MAX).await? {
        by_login.entry(enrolment.login.clone()).or_default().push(enrolment);
    }
    let mut body = centre(&state.services.enrolment);
    let user = |(login, certificates): (String, Vec<Enrolment>)| json!({ "sub": login, "cryptoProfileInfos": profiles(&certificates) });
    body["cryptoUserInfos"] = by_login.into_iter().map(user).collect();
    Ok(answer(&body))
}

fn answer(body: &Value) -> HttpResponse {
    HttpResponse::Ok().insert_header((header::CONTENT_TYPE, JSON)).body(body.to_string())
}

/// Whom certificates lead to, and how the CA of the first profile is numbered; empty where it is not.
fn centre(service: &EnrolmentService) -> Value {
    let anchors: Vec<_> = service.anchors().iter().map(|anchor| STANDARD.encode(anchor.as_der())).collect();
    let centre = service.profiles().first().and_then(|profile| profile.centre.as_ref());
    let (code, number) = centre.map_or(("", ""), |centre| (centre.code(), centre.number()));
    json!({ "certCenterCode": code, "certCenterNum": number, "certsCA": anchors })
}

/// The certificates by the key that they are of.
fn profiles(certificates: &[Enrolment]) -> Value {
    let mut by_name: BTreeMap<&str, (String, Vec<Value>)> = BTreeMap::new();
    for enrolment in certificates {
        let Some(facts) = enrolment.issued.as_ref().and_then(|issued| certificate_facts(&issued.certificate)) else { continue };
        let (_, infos) = by_name.entry(enrolment.key_name.as_str()).or_insert_with(|| (facts.key_kind, Vec::new()));
        infos.push(json!({
            "active": enrolment.active,
            "cert": STANDARD.encode(&facts.der),
            "issuer": facts.issuer,
            "serialNumber": facts.serial,
            "uuid": enrolment.id.to_string(),
        }));
    }
    let profile = |(alias, (type_name, infos)): (&str, (String, Vec<Value>))| json!({ "alias": alias, "typeName": type_name, "certificateInfos": infos });
    by_name.into_iter().map(profile).collect()
}

/// An id that is always the same for a certificate that has none of its own.
fn uuid_of(fingerprint: &[u8; 32]) -> String {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&fingerprint[..16]);
    Uuid::from_bytes(bytes).to_string()
}
