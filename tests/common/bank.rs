//! A gateway with a bank's callers and a profile, and requests to it as a bank's client sends them.

use std::{sync::Arc, time::Duration};

use reqwest::{Method, header::HeaderMap};
use sealgate::{
    auth::ApiKeyHash,
    domain::{
        algorithm::{Curve, KeyKind},
        caller::{Account, Scope},
        enrolment::{
            Enrolment,
            profile::{CaChoice, Centre, Profile, key_usages},
        },
        timestamp::Timestamp,
    },
    enrolment::ca::DevelopmentCa,
    pki::{DevCa, Validity},
};
use serde_json::{Value, json};

use super::gateway::{Gateway, OTHER_KEY, PATIENCE, Plan};

/// The token of the person who alone may act for the company.
pub const EIO_KEY: &str = "eio00000000000000000000000000000000eio";
/// The token of somebody else of the company.
pub const OWN_KEY: &str = "own00000000000000000000000000000000own";
/// The token of another company's EIO.
pub const FOREIGN_KEY: &str = "foreign000000000000000000000000foreign";
/// The token of a caller without any of the API's scopes.
pub const STRANGER_KEY: &str = OTHER_KEY;

pub const JSON: &str = "application/json;charset=UTF-8";
pub const V1: &str = "/fintech/api/v1/crypto";

/// An answer of the API.
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub fn text(&self) -> String {
        format!("{} {}", self.status, String::from_utf8_lossy(&self.body))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

fn validity(days: u32) -> Validity {
    let now = Timestamp::from(std::time::SystemTime::now()).as_millis();
    let day = 86_400_000;
    Validity::new(Timestamp::from_millis(now - day), Timestamp::from_millis(now + u64::from(days) * day)).unwrap()
}

/// From so many hours from now to so many.
pub fn from_to(from_hours: i64, to_hours: i64) -> Validity {
    let now = i64::try_from(Timestamp::from(std::time::SystemTime::now()).as_millis()).unwrap();
    let at = |hours: i64| Timestamp::from_millis((now + hours * 3_600_000).try_into().unwrap());
    Validity::new(at(from_hours), at(to_hours)).unwrap()
}

/// A CA whose key the test has.
pub fn ca() -> DevCa {
    DevCa::create("Bank CA", validity(3650)).unwrap()
}

pub fn valid_for(days: u32) -> Validity {
    validity(days)
}

pub fn profile(token: &str, ca: CaChoice, anchor: &DevCa) -> Profile {
    Profile {
        name: "bank".parse().unwrap(),
        token: format!("pkcs11:token={token}").parse().unwrap(),
        key_kind: KeyKind::Ec(Curve::P256),
        key_name: "{login}".parse().unwrap(),
        subject: ["CN={full_name}", "T={position}", "O={organisation}", "C=RU"].map(|rule| rule.parse().unwrap()).to_vec(),
        email: true,
        key_usage: key_usages(&["digitalSignature".to_owned(), "nonRepudiation".to_owned()]).unwrap(),
        extended_key_usage: Vec::new(),
        extensions: Vec::new(),
        ca,
        approval: ca == CaChoice::Manual,
        confirm: false,
        anchors: vec![anchor.certificate().as_der().to_vec()],
        centre: Centre::new("A00B".to_owned(), "0001".to_owned()),
    }
}

/// Gives the plan the bank's callers.
pub fn with_bank(plan: &mut Plan) {
    let account = |login: &str, full_name: &str, organisation: &str, eio| {
        let text = |text: &str| text.parse().unwrap();
        Some(Arc::new(Account { login: text(login), full_name: text(full_name), organisation: text(organisation), eio }))
    };
    let eio = [Scope::CryptoCertRequestEio, Scope::CertificateRequest, Scope::GetCryptoInfoEio, Scope::GetCryptoInfo, Scope::TicketApi];
    let own = [Scope::CertificateRequest, Scope::GetCryptoInfo];
    for (name, key, scopes, account) in [
        ("eio", EIO_KEY, &eio[..], account("director", "Иванов Иван Иванович", "ООО Ромашка", true)),
        ("own", OWN_KEY, &own[..], account("petrov", "Петров Пётр", "ООО Ромашка", false)),
        ("foreign", FOREIGN_KEY, &eio[..], account("director", "Сидоров Сидор", "ООО Василёк", true)),
    ] {
        let mut entry = plan.caller("other").clone();
        entry.caller.id = name.parse().unwrap();
        entry.caller.scopes = scopes.iter().copied().collect();
        entry.caller.account = account;
        entry.api_keys = Some(vec![ApiKeyHash::of(key).into()]);
        plan.callers.push(entry);
    }
}

/// A gateway over SoftHSM whose profile's CA issues at once.
pub async fn softhsm() -> Gateway {
    let mut plan = Plan::softhsm(&[("seal", KeyKind::Ec(Curve::P256))], 64).await;
    with_bank(&mut plan);
    let ca = ca();
    plan.profiles = vec![profile("contract", CaChoice::Development, &ca)];
    plan.authorities.insert(CaChoice::Development, Arc::new(DevelopmentCa::new(ca)));
    plan.start().await
}

/// A body as the bank's documents have it; the key is made on the token.
pub fn body(id: &str, login: &str, name: &str) -> Value {
    json!({
        "externalId": id, "email": "ivanov@romashka.example", "login": login, "number": "1", "orgName": "ООО Ромашка",
        "userName": name, "userPosition": "Генеральный директор",
    })
}

/// An id that nothing else has.
pub fn id(number: u32) -> String {
    format!("0b2c6d6e-1111-4a31-8c3e-{number:012x}")
}

pub async fn ask(gateway: &Gateway, method: Method, path: &str, key: &str, body: Option<&Value>) -> Answer {
    let url = format!("{}{path}", gateway.urls[0]);
    let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
    let request = client.request(method, url).bearer_auth(key);
    let request = if let Some(body) = body { request.header("content-type", "application/json").body(body.to_string()) } else { request };
    answer(request).await
}

pub async fn answer(request: reqwest::RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Answer { status, headers, body: response.bytes().await.unwrap().to_vec() }
}

/// Lets the clerk work until the request is in this state, in the API's words.
pub async fn until(gateway: &Gateway, path: &str, key: &str, wanted: &str) {
    let reached = async {
        loop {
            gateway.enrolment.work_once().await.unwrap();
            let state = ask(gateway, Method::GET, &format!("{path}/state"), key, None).await;
            assert_eq!((state.status, state.header("content-type")), (200, Some(JSON)), "{}", state.text());
            if state.json()["bankStatus"] == wanted {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), reached).await.expect("the state is reached");
}

pub async fn newest(gateway: &Gateway) -> Enrolment {
    gateway.enrolment.list(&sealgate::store::EnrolmentFilter::default(), 1).await.unwrap().remove(0)
}

/// The records of an event in the gateway's audit log.
pub async fn audited(gateway: &Gateway, event: &str) -> Vec<Value> {
    let records = gateway.store.audit_records(gateway.store.gateway(), 1, 10_000).await.unwrap();
    let read = records.iter().map(|record| serde_json::from_str::<Value>(&record.text).unwrap());
    read.filter(|record| record["event"] == event).collect()
}
