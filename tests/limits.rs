//! Nobody can take the gateway from the others: requests a second, requests that are held open, bodies that never end.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::time::Duration;

use common::gateway::{Answer, CI_KEY, Gateway, OTHER_KEY, PATIENCE, Plan, send};
use reqwest::Method;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sealgate::{
    auth::{Rate, TrustedProxies},
    domain::{caller::ConsentPolicy, token::LoginMode},
    http::app::LimitSettings,
    permit::PermitSettings,
    token::fake::{Call, Script},
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::Mutex,
    task::JoinSet,
};

/// As little as can be said.
const ONE_A_SECOND: Rate = Rate { per_second: 1, burst: 1 };
const UNLIMITED: Rate = Rate { per_second: 0, burst: 1 };

fn limited(per_caller: Rate, per_address: Rate) -> Plan {
    let mut plan = Plan::new();
    plan.http.limits = LimitSettings { per_caller, per_address, this_machine: true, ..LimitSettings::default() };
    plan
}

async fn features(gateway: &Gateway, key: Option<&str>, forwarded_for: Option<&str>) -> Answer {
    let request = gateway.anonymous(Method::GET, "/api/v1/features");
    let request = key.into_iter().fold(request, |request, key| request.bearer_auth(key));
    send(forwarded_for.into_iter().fold(request, |request, address| request.header("x-forwarded-for", address))).await
}

/// Asks until it is refused for asking too often. Time passes meanwhile, so that some may be taken.
async fn until_refused(mut ask: impl AsyncFnMut() -> Answer) -> Answer {
    for _ in 0..1000 {
        let answer = ask().await;
        if answer.status == 429 {
            assert_eq!(answer.header("retry-after"), Some("1"));
            return answer;
        }
    }
    panic!("a thousand requests were taken");
}

#[tokio::test]
async fn a_caller_who_asks_too_often_is_told_when_to_come_back_and_others_are_served() {
    let gateway = limited(ONE_A_SECOND, UNLIMITED).start().await;
    let refused = until_refused(async || features(&gateway, Some(CI_KEY), None).await).await;
    assert!(refused.message().contains("1"), "{}", refused.text());
    assert_eq!(features(&gateway, Some(OTHER_KEY), None).await.status, 200);
    // Whoever is not known is no caller, and asks on nobody's account.
    assert_eq!(features(&gateway, None, None).await.status, 401);
    gateway.stop().await;
}

#[tokio::test]
async fn an_address_that_asks_too_often_gets_nothing_of_any_api_and_another_address_is_served() {
    let mut plan = limited(UNLIMITED, ONE_A_SECOND);
    plan.http.trusted_proxies = TrustedProxies::new(vec!["127.0.0.1/32".parse().unwrap()]);
    let gateway = plan.start().await;
    until_refused(async || features(&gateway, None, Some("192.0.2.7")).await).await;
    until_refused(async || features(&gateway, Some(CI_KEY), Some("192.0.2.7")).await).await;
    until_refused(async || send_health(&gateway, "192.0.2.7").await).await;
    assert_eq!(features(&gateway, Some(CI_KEY), Some("192.0.2.8")).await.status, 200);
    assert_eq!(send_health(&gateway, "192.0.2.9").await.status, 200);
    gateway.stop().await;
}

async fn send_health(gateway: &Gateway, forwarded_for: &str) -> Answer {
    let response = gateway.anonymous(Method::GET, "/readyz").header("x-forwarded-for", forwarded_for).send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Answer { status, headers, body: response.bytes().await.unwrap().to_vec() }
}

#[tokio::test]
async fn programs_on_this_machine_are_not_limited_unless_a_proxy_passes_them_on() {
    let mut plan = limited(ONE_A_SECOND, ONE_A_SECOND);
    plan.http.limits.this_machine = false;
    let gateway = plan.start().await;
    for _ in 0..100 {
        assert_eq!(features(&gateway, Some(CI_KEY), None).await.status, 200);
    }
    until_refused(async || features(&gateway, Some(CI_KEY), Some("192.0.2.7")).await).await;
    gateway.stop().await;
}

/// Starts a signature for a new ticket of the caller with this key, and gives back the ticket's path.
async fn start(gateway: &Gateway, api_key: &str, key: &str) -> String {
    let ask = |method, path: String| gateway.anonymous(method, &format!("/api/v1{path}")).bearer_auth(api_key);
    let created = send(ask(Method::POST, "/ticket".to_owned())).await;
    let ticket = format!("/ticket/{}", created.json()["ticketUuid"].as_str().unwrap());
    let uploaded = ask(Method::POST, format!("{ticket}/data")).json(&json!({ "base64Data": "aGVsbG8=" }));
    assert_eq!(send(uploaded).await.status, 200);
    let chosen = send(ask(Method::PUT, format!("{ticket}/keyStore")).json(&json!({ "keyStorePath": key }))).await;
    assert_eq!(chosen.status, 200, "{}", chosen.text());
    let started = send(ask(Method::POST, format!("{ticket}/ds/creator"))).await;
    assert_eq!(started.status, 200, "{}", started.text());
    ticket
}

async fn fetch(gateway: &Gateway, api_key: &str, ticket: &str) -> Answer {
    send(gateway.anonymous(Method::GET, &format!("/api/v1{ticket}/ds/data")).bearer_auth(api_key)).await
}

#[tokio::test]
async fn a_caller_may_have_so_many_requests_waiting_and_what_is_ready_does_not_wait() {
    let script = Script::new("limits");
    let mut plan = Plan::scripted(&script, LoginMode::Configured, &["seal"]);
    plan.http.limits.held_open_per_caller = 2;
    let gateway = plan.start().await;
    let ready = start(&gateway, CI_KEY, "seal").await;
    assert_eq!(fetch(&gateway, CI_KEY, &ready).await.status, 200);
    let gate = script.hang(Call::Sign, 1);
    let ticket = start(&gateway, CI_KEY, "seal").await;
    let others = start(&gateway, OTHER_KEY, "seal").await;
    let mut waiting = JoinSet::new();
    for _ in 0..3 {
        let url = format!("{}/api/v1{ticket}/ds/data", gateway.urls[0]);
        waiting.spawn(send(reqwest::Client::builder().no_proxy().build().unwrap().get(url).bearer_auth(CI_KEY)));
    }
    // Two of them wait; so the first that is answered is the third.
    let refused = waiting.join_next().await.unwrap().unwrap();
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("1")), "{}", refused.text());
    assert_eq!(gateway.server.held_open(&"ci".parse().unwrap()), 2);
    assert_eq!(fetch(&gateway, CI_KEY, &ready).await.status, 200);
    assert_eq!(gateway.get(&format!("{ticket}/ds/creator")).await.status, 202);
    gate.release();
    // Whoever is another caller waits on an account of its own.
    assert_eq!(fetch(&gateway, OTHER_KEY, &others).await.status, 200);
    while let Some(answer) = waiting.join_next().await {
        assert_eq!(answer.unwrap().status, 200);
    }
    assert_eq!(gateway.server.held_open(&"ci".parse().unwrap()), 0);
    gateway.stop().await;
}

/// One test at a time has thousands of connections, or their files would not suffice.
static MANY_FILES: Mutex<()> = Mutex::const_new(());

/// Lets this process have so many files.
fn raise_file_limit(files: u64) {
    let hard = getrlimit(Resource::Nofile).maximum;
    assert!(hard.is_none_or(|hard| hard >= files), "this test needs {files} open files; raise the hard limit (ulimit -Hn)");
    setrlimit(Resource::Nofile, Rlimit { current: Some(files), maximum: hard }).unwrap();
}

/// Sends the same request on so many connections, and waits for no answer.
async fn hold(gateway: &Gateway, request: &str, count: usize) -> Vec<TcpStream> {
    let mut held = Vec::with_capacity(count);
    for _ in 0..count {
        let mut connection = TcpStream::connect(gateway.server.addresses()[0]).await.unwrap();
        connection.write_all(request.as_bytes()).await.unwrap();
        held.push(connection);
    }
    held
}

/// Waits until just so many requests of `ci` are held open.
async fn until_held(gateway: &Gateway, count: usize) {
    let ci = "ci".parse().unwrap();
    let reached = async {
        while gateway.server.held_open(&ci) != count {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, reached).await.unwrap_or_else(|_| panic!("{} and not {count} are held", gateway.server.held_open(&ci)));
}

async fn others_sign(gateway: &Gateway) {
    for _ in 0..20 {
        let ticket = start(gateway, OTHER_KEY, "quick").await;
        assert_eq!(fetch(gateway, OTHER_KEY, &ticket).await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_thousand_requests_for_consent_do_not_stop_anothers_signing() {
    const HELD: usize = 5_000;
    let _alone = MANY_FILES.lock().await;
    raise_file_limit(2 * HELD as u64 + 1_000);
    let mut plan = Plan::scripted(&Script::new("consent"), LoginMode::Configured, &["quick"]);
    plan.caller("ci").caller.consent = ConsentPolicy::Operator.into();
    plan.http.limits.held_open_per_caller = HELD;
    plan.permits = PermitSettings { waiting_per_caller: HELD, decision_time: 10 * PATIENCE, ..PermitSettings::default() };
    let gateway = plan.start().await;
    let body = r#"{"accessTimesNumber":1}"#;
    let request = format!(
        "POST /api/v1/accessToken HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {CI_KEY}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let held = hold(&gateway, &request, HELD).await;
    until_held(&gateway, HELD).await;
    others_sign(&gateway).await;
    assert_eq!(gateway.server.held_open(&"ci".parse().unwrap()), HELD, "they were held all the time");
    let refused = gateway.post_json("/accessToken", json!({ "accessTimesNumber": 1 })).await;
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("1")), "{}", refused.text());
    // Whoever goes away takes what was asked for along.
    drop(held);
    until_held(&gateway, 0).await;
    others_sign(&gateway).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_five_thousand_requests_for_consent_as_many_are_held_as_may_wait_and_the_others_are_answered_at_once() {
    const ASKED: usize = 5_000;
    let _alone = MANY_FILES.lock().await;
    raise_file_limit(2 * ASKED as u64 + 1_000);
    let mut plan = Plan::scripted(&Script::new("capped"), LoginMode::Configured, &["quick"]);
    plan.caller("ci").caller.consent = ConsentPolicy::Operator.into();
    plan.permits.decision_time = 10 * PATIENCE;
    let waiting = plan.permits.waiting_per_caller;
    let gateway = plan.start().await;
    let mut asked = JoinSet::new();
    for _ in 0..ASKED {
        asked.spawn(send(gateway.request(Method::POST, "/accessToken").json(&json!({ "accessTimesNumber": 1 }))));
    }
    for _ in 0..ASKED - waiting {
        let answer = tokio::time::timeout(PATIENCE, asked.join_next()).await.expect("an answer at once").unwrap().unwrap();
        assert_eq!((answer.status, answer.header("retry-after").is_some()), (429, true), "{}", answer.text());
    }
    assert_eq!(gateway.server.held_open(&"ci".parse().unwrap()), waiting);
    others_sign(&gateway).await;
    asked.abort_all();
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_thousand_requests_held_open_by_one_caller_do_not_stop_anothers_signing() {
    const HELD: usize = 5_000;
    let _alone = MANY_FILES.lock().await;
    raise_file_limit(2 * HELD as u64 + 1_000);
    let (slow, quick) = (Script::new("slow"), Script::new("quick"));
    let mut plan = Plan::scripted(&slow, LoginMode::Configured, &["slow"]);
    plan.add_scripted("second", &quick, &["quick"]);
    plan.http.limits.held_open_per_caller = HELD;
    plan.tickets.blocking_get_bound = 10 * PATIENCE;
    let gateway = plan.start().await;
    let ci = "ci".parse().unwrap();
    let gate = slow.hang(Call::Sign, 1);
    let ticket = start(&gateway, CI_KEY, "slow").await;
    let request = format!("GET /api/v1{ticket}/ds/data HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {CI_KEY}\r\n\r\n");
    let mut held = hold(&gateway, &request, HELD).await;
    until_held(&gateway, HELD).await;
    others_sign(&gateway).await;
    assert_eq!(gateway.server.held_open(&ci), HELD, "they were held all the time");
    // Its own calls that do not wait are answered, too; one more that would is refused.
    assert_eq!(gateway.get(&format!("{ticket}/ds/creator")).await.status, 202);
    assert_eq!(fetch(&gateway, CI_KEY, &ticket).await.status, 429);
    gate.release();
    for connection in &mut held {
        let mut status = [0; 12];
        connection.read_exact(&mut status).await.unwrap();
        assert_eq!(&status, b"HTTP/1.1 200");
    }
    drop(held);
    gateway.stop().await;
}

#[tokio::test]
async fn a_body_that_comes_on_and_on_is_cut_off() {
    let mut plan = Plan::new();
    plan.http.upload_total_max = Duration::from_millis(300);
    let gateway = plan.start().await;
    let ticket = gateway.ticket().await;
    let connection = TcpStream::connect(gateway.server.addresses()[0]).await.unwrap();
    let (mut reading, mut writing) = connection.into_split();
    let head = format!(
        "POST /api/v1{ticket}/data HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {CI_KEY}\r\n\
         Content-Type: application/octet-stream\r\nContent-Length: 100000000\r\n\r\n"
    );
    writing.write_all(head.as_bytes()).await.unwrap();
    // It is never idle for long, and would take hours.
    let trickle = tokio::spawn(async move { while writing.write_all(b"x").await.is_ok() {} });
    let mut answer = vec![0; 12];
    tokio::time::timeout(PATIENCE, reading.read_exact(&mut answer)).await.expect("an answer").unwrap();
    assert_eq!(String::from_utf8_lossy(&answer), "HTTP/1.1 408");
    trickle.abort();
    gateway.stop().await;
}
