//! Every row of the table of errors, in the order of the checks; and what no body may bring about.

use std::num::NonZeroU32;

use proptest::{prelude::*, strategy::ValueTree as _, test_runner::TestRunner};
use reqwest::Method;
use sealgate::domain::{enrolment::profile::CaChoice, token::LoginMode};
use sealgate::token::{
    driver::DeviceError,
    fake::{Call, Script},
};
use serde_json::{Value, json};

use crate::{
    common::gateway::{Gateway, PATIENCE, Plan},
    rig::{Answer, EIO_KEY, FOREIGN_KEY, JSON, OWN_KEY, STRANGER_KEY, V1, answer, ask, body, ca, id, profile, with_bank},
};

async fn gateway(script: &Script) -> Gateway {
    let mut plan = Plan::scripted(script, LoginMode::Configured, &["seal"]);
    with_bank(&mut plan);
    plan.profiles = vec![profile("bank-token", CaChoice::Manual, &ca())];
    plan.start().await
}

/// Checks the form of a notice; gives back its cause, message, checks and names of fields.
fn notice(answer: &Answer, status: u16) -> (String, String, Value, Value) {
    assert_eq!((answer.status, answer.header("content-type")), (status, Some(JSON)), "{}", answer.text());
    let body = answer.json();
    let reference = body["referenceId"].as_str().unwrap();
    assert!(uuid::Uuid::parse_str(reference).is_ok(), "{reference}");
    let has_checks = body.get("checks").is_some();
    assert_eq!((has_checks, body.get("fieldNames").is_some()), (status == 400, status == 400), "{}", answer.text());
    let text = |name: &str| body[name].as_str().unwrap().to_owned();
    (text("cause"), text("message"), body["checks"].clone(), body["fieldNames"].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_row_of_the_table_comes_in_the_order_of_the_checks() {
    let script = Script::new("bank-token");
    let gateway = gateway(&script).await;
    let eio = format!("{V1}/cert-requests/eio");
    let bad = format!("{eio}/NO-ID/activate");
    // Token before scope, scope before format, format before existence.
    for token in ["", "short", &format!("{}!", &EIO_KEY[..37]), "unknown0000000000000000000000000unknow"] {
        let refused = ask(&gateway, Method::POST, &bad, token, None).await;
        let (cause, message, ..) = notice(&refused, 401);
        let shown: String = token.chars().filter(char::is_ascii_alphanumeric).take(4).collect();
        assert_eq!((cause.as_str(), message), ("UNAUTHORIZED", format!("accessToken not found by value = {shown}…")));
        assert!(token.len() < 5 || !refused.text().contains(token), "{}", refused.text());
    }
    for token in [STRANGER_KEY, OWN_KEY] {
        let (cause, message, ..) = notice(&ask(&gateway, Method::POST, &bad, token, None).await, 403);
        assert_eq!(
            (cause.as_str(), message.as_str()),
            ("ACTION_ACCESS_EXCEPTION", "Операция не может быть выполнена: доступ к ресурсу запрещен")
        );
    }
    let (cause, message, checks, fields) = notice(&ask(&gateway, Method::POST, &bad, EIO_KEY, None).await, 400);
    assert_eq!(cause, "WORKFLOW_FAULT");
    assert_eq!(
        message,
        "Параметр \"externalId\" не соответствует регулярному выражению: [0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
    );
    assert_eq!((checks, fields), (json!([]), Value::Null));
    let created = ask(&gateway, Method::POST, &eio, EIO_KEY, Some(&body(&id(1), "director", "Иванов Иван Иванович"))).await;
    assert_eq!(created.status, 201, "{}", created.text());
    for (token, number) in [(EIO_KEY, 2), (FOREIGN_KEY, 1)] {
        let missing = ask(&gateway, Method::GET, &format!("{eio}/{}/state", id(number)), token, None).await;
        assert_eq!(notice(&missing, 404).0, "DATA_NOT_FOUND");
    }
    // Somebody else's request does not exist in the own form.
    let foreign = ask(&gateway, Method::GET, &format!("{V1}/cert-requests/{}/state", id(1)), OWN_KEY, None).await;
    assert_eq!(notice(&foreign, 404).0, "DATA_NOT_FOUND");
    let early = ask(&gateway, Method::GET, &format!("{eio}/{}/activate", id(1)), EIO_KEY, None).await;
    let (cause, message, checks, fields) = notice(&early, 400);
    assert_eq!((cause.as_str(), checks, fields), ("WORKFLOW_FAULT", json!([]), Value::Null));
    assert!(message.contains("ACCEPTED_BY_ABS"), "{message}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_body_is_said_of_each_member() {
    let script = Script::new("bank-token");
    let gateway = gateway(&script).await;
    let eio = format!("{V1}/cert-requests/eio");
    let good = body(&id(1), "director", "Иванов Иван Иванович");
    let with = |name: &str, value: Value| {
        let mut changed = good.clone();
        changed[name] = value;
        changed
    };
    for (sent, cause, fields) in [
        (json!([]), "DESERIALIZATION_FAULT", Value::Null),
        (json!({}), "DESERIALIZATION_FAULT", json!(["externalId", "email", "login", "number", "userName", "userPosition"])),
        (with("email", json!(1)), "DESERIALIZATION_FAULT", json!(["email"])),
        (with("pkcs10", json!("x")), "DESERIALIZATION_FAULT", json!(["pkcs10"])),
        (with("externalId", json!("0B2C")), "WORKFLOW_FAULT", Value::Null),
        (with("email", json!("nobody")), "VALIDATION_FAULT", json!(["email"])),
        (with("userName", json!("Иванов  Иван")), "VALIDATION_FAULT", json!(["userName"])),
        (with("userName", json!("Иванов Пётр")), "WORKFLOW_FAULT", Value::Null),
        (with("pkcs10", json!({ "bicryptId": "x" })), "VALIDATION_FAULT", json!(["pkcs10.bicryptId"])),
        (with("pkcs10", json!({ "cms": "x" })), "VALIDATION_FAULT", json!(["pkcs10.cms"])),
        (with("pkcs10", json!({ "keyType": "GOST" })), "VALIDATION_FAULT", json!(["pkcs10.keyType"])),
        (with("pkcs10", json!({ "key": "pkcs11:token=bank-token" })), "VALIDATION_FAULT", json!(["pkcs10.key"])),
        (with("pkcs10", json!({ "key": "pkcs11:token=bank-token;object=none" })), "WORKFLOW_FAULT", Value::Null),
        (with("pkcs10", json!({ "profile": "other" })), "WORKFLOW_FAULT", Value::Null),
    ] {
        let refused = ask(&gateway, Method::POST, &eio, EIO_KEY, Some(&sent)).await;
        let (found, _, checks, names) = notice(&refused, 400);
        assert_eq!((found.as_str(), names.clone()), (cause, fields), "{sent} {}", refused.text());
        let of_checks: Vec<_> = checks.as_array().unwrap().iter().map(|check| check["fields"][0].clone()).collect();
        assert_eq!(Value::from(of_checks), if names.is_null() { json!([]) } else { names });
    }
    let refused = ask(&gateway, Method::POST, &eio, EIO_KEY, Some(&with("userName", json!("Иванов Пётр")))).await;
    assert_eq!(notice(&refused, 400).1, "Значение ФИО в запросе не совпадает со значением ФИО учетной записи");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_away_is_a_503_and_a_caller_that_asks_too_much_a_429() {
    let script = Script::new("bank-token");
    let mut plan = Plan::scripted(&script, LoginMode::Configured, &["seal"]);
    with_bank(&mut plan);
    plan.profiles = vec![profile("another-token", CaChoice::Manual, &ca())];
    plan.http.limits.this_machine = true;
    plan.http.limits.per_caller.per_second = 1;
    plan.http.limits.per_caller.burst = 2;
    let gateway = plan.start().await;
    let wanted = body(&id(1), "director", "Иванов Иван Иванович");
    let away = ask(&gateway, Method::POST, &format!("{V1}/cert-requests/eio"), EIO_KEY, Some(&wanted)).await;
    assert_eq!(notice(&away, 503).0, "UNAVAILABLE_RESOURCE_EXCEPTION");
    assert!(away.header("retry-after").is_some());
    let mut limited = None;
    for _ in 0..20 {
        let next = ask(&gateway, Method::GET, &format!("{V1}/eio"), EIO_KEY, None).await;
        if next.status == 429 {
            limited = Some(next);
            break;
        }
    }
    let limited = limited.expect("a limit");
    let (cause, message, ..) = notice(&limited, 429);
    assert_eq!((cause.as_str(), message.as_str()), ("TOO_MANY_REQUESTS", "Превышен лимит запросов. Повторите операцию позже."));
    assert!(limited.header("retry-after").is_some());
    // Each method is counted by itself: another one is still answered.
    let other = ask(&gateway, Method::GET, &format!("{V1}/cert-requests/eio/{}/state", id(9)), EIO_KEY, None).await;
    assert_eq!(other.status, 404, "{}", other.text());
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_token_or_the_profile_never_takes_is_refused_for_good_and_leaves_no_key() {
    let script = Script::new("bank-token");
    let mut plan = Plan::scripted(&script, LoginMode::Configured, &["seal"]);
    with_bank(&mut plan);
    plan.profiles = vec![profile("bank-token", CaChoice::Manual, &ca())];
    plan.profiles[0].subject.push("C={number}".parse().unwrap());
    let gateway = plan.start().await;
    let eio = format!("{V1}/cert-requests/eio");
    let before = script.count_objects();
    // The token makes no such keys.
    script.fail(Call::GenerateKeyPair, 1, DeviceError::Unsupported("no such keys".to_owned()));
    let mut country = body(&id(1), "director", "Иванов Иван Иванович");
    country["number"] = "RU".into();
    let refused = ask(&gateway, Method::POST, &eio, EIO_KEY, Some(&country)).await;
    assert_eq!(notice(&refused, 400).0, "WORKFLOW_FAULT");
    // The subject cannot be written, which is found when the key is there.
    let no_country = body(&id(2), "director", "Иванов Иван Иванович");
    let refused = ask(&gateway, Method::POST, &eio, EIO_KEY, Some(&no_country)).await;
    assert_eq!(notice(&refused, 400).0, "VALIDATION_FAULT");
    for (number, sent) in [(1, &country), (2, &no_country)] {
        let state = ask(&gateway, Method::GET, &format!("{eio}/{}/state", id(number)), EIO_KEY, None).await;
        assert_eq!(state.json()["bankStatus"], "REQUISITEERROR", "{}", state.text());
        let again = ask(&gateway, Method::POST, &eio, EIO_KEY, Some(sent)).await;
        assert_eq!((again.status, &again.json()["bankStatus"]), (201, &json!("REQUISITEERROR")), "{}", again.text());
    }
    assert_eq!(script.count_objects(), before);
    gateway.stop().await;
}

/// JSON of any form whose objects have the members of a request now and then.
fn any_body() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        ".{0,20}",
        Just("0b2c6d6e-1111-4a31-8c3e-000000000001".to_owned()),
        Just("a@b.ru".to_owned()),
        Just("Иванов Иван Иванович".to_owned()),
        Just("-----BEGIN CERTIFICATE REQUEST-----\nMA==\n-----END CERTIFICATE REQUEST-----".to_owned()),
        Just("pkcs11:token=bank-token;id=%01".to_owned())
    ];
    let leaf =
        prop_oneof![Just(Value::Null), any::<bool>().prop_map(Value::from), any::<i64>().prop_map(Value::from), text.prop_map(Value::from)];
    leaf.prop_recursive(3, 24, 8, |inner| {
        let name = prop_oneof![
            Just("externalId"),
            Just("email"),
            Just("login"),
            Just("number"),
            Just("orgName"),
            Just("userName"),
            Just("userPosition"),
            Just("pkcs10"),
            Just("cms"),
            Just("key"),
            Just("keyType"),
            Just("bicryptId"),
            Just("profile"),
            Just("digestSignatures"),
            Just("base64Encoded"),
            Just("certificateUuid")
        ];
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(name, inner, 0..10).prop_map(|members| members
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect::<serde_json::Map<_, _>>()
                .into()),
        ]
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_requests_of_any_form_bring_about_no_500() {
    let script = Script::new("bank-token");
    let gateway = gateway(&script).await;
    let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
    let mut runner = TestRunner::deterministic();
    let (bodies, paths) = (any_body(), "[a-z0-9%/-]{0,40}");
    let good = body(&id(7), "director", "Иванов Иван Иванович");
    for number in 0..2_000u32 {
        let mut sent = bodies.new_tree(&mut runner).unwrap().current();
        // Most are a good request with one member changed, which comes further than noise does.
        if NonZeroU32::new(number % 3).is_some()
            && let Some((name, value)) =
                sent.as_object().and_then(|object| object.iter().next()).map(|(name, value)| (name.clone(), value.clone()))
        {
            sent = good.clone();
            sent["externalId"] = id(1_000 + number).into();
            sent[name.as_str()] = value;
        }
        let (method, path) = match number % 10 {
            8 => (Method::POST, format!("{V1}/cert-requests/eio/{}/confirm", id(1))),
            9 => (Method::GET, format!("{V1}/{}", paths.new_tree(&mut runner).unwrap().current())),
            _ => (Method::POST, format!("{V1}/cert-requests/eio")),
        };
        let text = if number % 7 == 0 { sent.to_string()[..sent.to_string().floor_char_boundary(20)].to_owned() } else { sent.to_string() };
        let request = client.request(method, format!("{}{path}", gateway.urls[0])).bearer_auth(EIO_KEY).body(text.clone());
        let told = answer(request).await;
        assert!(told.status < 500, "{path} {text}: {}", told.text());
    }
    gateway.stop().await;
}
