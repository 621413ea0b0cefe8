//! A request that is sent again with its idempotency key is the same work: signed once, paid once.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::gateway::{Answer, Gateway, Plan, send};
use futures_util::future::join_all;
use reqwest::Method;
use sealgate::{
    domain::token::LoginMode,
    token::fake::{Call, Script},
};
use serde_json::{Value, json};

async fn gateway() -> (Script, Gateway) {
    let script = Script::new("scripted");
    let gateway = Plan::scripted(&script, LoginMode::Configured, &["one"]).start().await;
    (script, gateway)
}

async fn start(gateway: &Gateway, ticket: &str, key: &str) -> Answer {
    let request = gateway.request(Method::POST, &format!("{ticket}/ds/creator"));
    send(request.header("Idempotency-Key", key).json(&json!({}))).await
}

async fn bulk(gateway: &Gateway, ticket: &str, key: &str, hashes: &[&str]) -> Answer {
    let request = gateway.request(Method::POST, &format!("{ticket}/ds/creator/data.bulk"));
    send(request.header("Idempotency-Key", key).json(&json!({ "dataToSign": hashes }))).await
}

fn signatures(script: &Script) -> usize {
    script.count(Call::Sign)
}

const HASHES: [&str; 2] = ["AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_request_after_its_end_is_no_new_job() {
    let (script, gateway) = gateway().await;
    let ticket = gateway.ticket_with(b"x").await;
    assert_eq!(start(&gateway, &ticket, "order 17").await.status, 200);
    let first = gateway.get(&format!("{ticket}/ds/data")).await;
    assert_eq!(start(&gateway, &ticket, "order 17").await.status, 200);
    let again = gateway.get(&format!("{ticket}/ds/data")).await;
    assert_eq!((first.status, &first.body), (200, &again.body));
    assert_eq!(signatures(&script), 1);
    assert_eq!(start(&gateway, &ticket, "order 18").await.status, 200);
    assert_eq!(gateway.get(&format!("{ticket}/ds/data")).await.status, 200);
    assert_eq!(signatures(&script), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_request_many_times_at_once_is_one_job() {
    let (script, gateway) = gateway().await;
    let ticket = gateway.ticket_with(b"x").await;
    let answers = join_all((0..20).map(|_| start(&gateway, &ticket, "k"))).await;
    assert!(answers.iter().all(|answer| answer.status == 200), "{:?}", answers.iter().map(Answer::text).collect::<Vec<_>>());
    assert_eq!(gateway.get(&format!("{ticket}/ds/data")).await.status, 200);
    assert_eq!(signatures(&script), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bulk_that_is_sent_again_has_the_same_signatures() {
    let (script, gateway) = gateway().await;
    let ticket = gateway.ticket().await;
    let first = bulk(&gateway, &ticket, "k", &HASHES).await;
    let again = bulk(&gateway, &ticket, "k", &HASHES).await;
    assert_eq!((first.status, first.json()), (200, again.json()), "{}", first.text());
    assert_eq!(signatures(&script), 2);
    let at_once = join_all((0..8).map(|_| bulk(&gateway, &ticket, "other", &HASHES))).await;
    let bodies: Vec<Value> = at_once.iter().map(Answer::json).collect();
    assert!(bodies.iter().all(|body| *body == bodies[0] && body.is_array()), "{bodies:?}");
    assert_eq!(signatures(&script), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_stands_for_one_request_of_one_caller() {
    let (script, gateway) = gateway().await;
    let (one, two) = (gateway.ticket_with(b"x").await, gateway.ticket_with(b"x").await);
    assert_eq!(start(&gateway, &one, "k").await.status, 200);
    let reused = start(&gateway, &two, "k").await;
    assert_eq!((reused.status, reused.message()), (400, "Цей ключ ідемпотентності вже використано для іншого запиту.".to_owned()));
    assert_eq!(bulk(&gateway, &one, "k", &HASHES).await.status, 400);
    for bad in ["", &"x".repeat(256)] {
        assert_eq!(start(&gateway, &two, bad).await.status, 400, "{bad}");
    }
    assert_eq!(gateway.get(&format!("{one}/ds/data")).await.status, 200);
    assert_eq!(signatures(&script), 1);
}
