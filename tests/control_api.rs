//! What operators see and do through the control socket.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::gateway::{Gateway, Plan};
use reqwest::Method;
use sealgate::{
    domain::token::{LoginMode, SlotState},
    http::control::dto::{ErrorDto, KeyReadinessDto, KeysDto, SlotChangesDto, SlotsDto, TokenDto},
    token::fake::{Call, FAKE_PIN, Script},
};
use serde_json::{Value, json};

/// Sends a command as the command line does.
async fn command(gateway: &Gateway, method: Method, path: &str, body: &str) -> (u16, String) {
    let http = reqwest::Client::builder().unix_socket(gateway.control_socket.clone()).build().unwrap();
    let response = http.request(method, format!("http://gateway{path}")).body(body.to_owned()).send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/json");
    (response.status().as_u16(), response.text().await.unwrap())
}

async fn post(gateway: &Gateway, path: &str, body: Value) -> (u16, String) {
    command(gateway, Method::POST, path, &body.to_string()).await
}

async fn only_slot(gateway: &Gateway) -> SlotState {
    let (status, body) = command(gateway, Method::GET, "/slots", "").await;
    assert_eq!(status, 200);
    serde_json::from_str::<SlotsDto>(&body).unwrap().slots[0].state
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_unlocks_a_token_and_locks_it_again() {
    let script = Script::new("scripted");
    let gateway = Plan::scripted(&script, LoginMode::Operator, &["one"]).start().await;
    assert_eq!(only_slot(&gateway).await, SlotState::NeedsPin);
    let locked = gateway.ticket_with(b"x").await;
    let refused = gateway.post(&format!("{locked}/ds/creator")).await;
    assert_eq!((refused.status, refused.header("retry-after").is_some()), (503, true));

    let (status, body) = post(&gateway, "/unlock", json!({ "pin": FAKE_PIN })).await;
    assert_eq!(status, 200, "{body}");
    let token: TokenDto = serde_json::from_str(&body).unwrap();
    assert_eq!(token.uri.token.as_deref(), Some("scripted"));
    assert_eq!(only_slot(&gateway).await, SlotState::Ready);
    gateway.sign(&locked).await;

    let (_, body) = command(&gateway, Method::GET, "/keys", "").await;
    let keys = serde_json::from_str::<KeysDto>(&body).unwrap().keys;
    assert_eq!((keys.len(), keys[0].name.as_ref().map(|name| name.as_str())), (1, Some("one")));
    assert!(keys[0].uri.to_string().contains("object=one"));

    assert_eq!(post(&gateway, "/lock", json!({ "uri": token.uri })).await.0, 200);
    assert_eq!(only_slot(&gateway).await, SlotState::NeedsPin);
    assert_eq!(gateway.post(&format!("{}/ds/creator", gateway.ticket_with(b"x").await)).await.status, 503);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pin_that_the_token_rejected_is_not_tried_again_before_the_operator_says_so() {
    let script = Script::new("scripted");
    let gateway = Plan::scripted(&script, LoginMode::Operator, &["one"]).start().await;
    for _ in 0..3 {
        let (status, body) = post(&gateway, "/unlock", json!({ "pin": "999999" })).await;
        assert_eq!(status, 409);
        let error: ErrorDto = serde_json::from_str(&body).unwrap();
        assert!(!error.hint.is_empty() && !body.contains("999999"), "{body}");
    }
    assert_eq!(script.count(Call::Login), 1);
    script.change_pin("999999");
    assert_eq!(post(&gateway, "/unlock", json!({ "pin": "999999", "forget_rejection": true })).await.0, 200);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_cannot_be_carried_out_says_what_to_do_and_repeats_no_pin() {
    let script = Script::new("scripted");
    let gateway = Plan::scripted(&script, LoginMode::Operator, &["one"]).start().await;
    let bad = [
        (json!({ "uri": "pkcs11:token=other", "pin": "424242" }), 404),
        (json!({ "uri": "pkcs11:?pin-value=424242" }), 400),
        (json!({ "pin": 424_242 }), 400),
        (json!({ "pin": "" }), 400),
        (json!({ "pni": "424242" }), 400),
        (json!({}), 409),
    ];
    for (body, expected) in bad {
        let (status, answer) = post(&gateway, "/unlock", body.clone()).await;
        assert_eq!(status, expected, "{body} {answer}");
        let error: ErrorDto = serde_json::from_str(&answer).unwrap();
        assert!(!error.error.is_empty() && !error.hint.is_empty() && !answer.contains("424242"), "{answer}");
    }
    assert_eq!(command(&gateway, Method::POST, "/unlock", "not json").await.0, 400);
    assert_eq!(command(&gateway, Method::GET, "/nothing", "").await.0, 404);
    assert_eq!(command(&gateway, Method::POST, "/unlock", &"x".repeat(100_000)).await.0, 400);
    assert_eq!(script.count(Call::Login), 0);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_state_is_told_to_whoever_waits_for_it() {
    let script = Script::new("scripted");
    let gateway = Plan::scripted(&script, LoginMode::Operator, &["one"]).start().await;
    let changes = |query: String| {
        let http = reqwest::Client::builder().unix_socket(gateway.control_socket.clone()).build().unwrap();
        async move { http.get(format!("http://gateway/slots/changes{query}")).send().await.unwrap().json::<SlotChangesDto>().await.unwrap() }
    };
    let now = changes(String::new()).await;
    assert_eq!(now.now.slots[0].state, SlotState::NeedsPin);

    let (told, (status, _)) =
        tokio::join!(changes(format!("?since={}", now.change)), post(&gateway, "/unlock", json!({ "pin": FAKE_PIN })));
    assert_eq!(status, 200);
    assert!(told.change > now.change, "{told:?}");
    let (status, body) = command(&gateway, Method::GET, "/slots/changes?since=often", "").await;
    assert!(status == 400 && body.contains("since"), "{body}");

    let mut last = told;
    while last.now.slots[0].state != SlotState::Ready {
        last = changes(format!("?since={}", last.change)).await;
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_keys_readiness_is_told_with_the_reason() {
    let script = Script::new("scripted");
    let gateway = Plan::scripted(&script, LoginMode::Operator, &["one"]).start().await;
    let (status, body) = command(&gateway, Method::GET, "/keys/one", "").await;
    let locked: KeyReadinessDto = serde_json::from_str(&body).unwrap();
    assert!(status == 200 && !locked.ready && !locked.reason.is_empty(), "{body}");
    assert_eq!(post(&gateway, "/unlock", json!({ "pin": FAKE_PIN })).await.0, 200);
    let (_, body) = command(&gateway, Method::GET, "/keys/one", "").await;
    assert_eq!(serde_json::from_str::<KeyReadinessDto>(&body).unwrap(), KeyReadinessDto { ready: true, reason: String::new() });
    for unknown in ["/keys/two", "/keys/no%20name"] {
        assert_eq!(command(&gateway, Method::GET, unknown, "").await.0, 404);
    }
    gateway.stop().await;
}
