//! The operators' console over real SoftHSM, as a browser without a script uses it: logging in, pages and forms, who sees what, what answers say to
//! browsers.

#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

#[path = "../common/mod.rs"]
mod common;

mod certificates;
mod routes;

use common::{
    console::{Browser, PASSWORD, Page, add, encode, events, logged_in, until},
    gateway::{Gateway, Plan},
};
use reqwest::{Method, StatusCode};
use sealgate::{
    domain::{
        algorithm::{Curve, KeyKind},
        audit::AuditEvent,
        caller::{ConsentPolicy, KeyAccess, Provenance},
        ids::TicketId,
        job::{FailureCause, JobOutcome, JobState},
        operator::Role,
        token::{LoginMode, SlotState},
    },
    store::Change,
    token::fake::{Call, FAKE_PIN, Script},
};
use serde_json::json;

const HOSTILE: &str = "<script>alert(1)</script>\"'&lt;";

fn only(key: &str) -> KeyAccess {
    KeyAccess::Only(vec![key.parse().unwrap()])
}

/// A gateway over SoftHSM with two keys, an administrator `root`, and an approver `ann` of the key `one`.
async fn gateway() -> Gateway {
    let kind = KeyKind::Ec(Curve::P256);
    let gateway = Plan::softhsm(&[("one", kind.clone()), ("two", kind)], 64).await.start().await;
    add(&gateway, "root", Role::Administrator, KeyAccess::All).await;
    add(&gateway, "ann", Role::Approver, only("one")).await;
    gateway
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_logs_in_and_out_and_the_cookie_is_the_browsers_alone() {
    let gateway = gateway().await;
    let mut browser = Browser::new(&gateway);
    let page = browser.get("/tokens").await;
    assert_eq!((page.status, page.location()), (StatusCode::SEE_OTHER, "/console/login"));
    let page = browser.log_in("root", PASSWORD).await;
    assert_eq!(page.status, StatusCode::SEE_OTHER);
    let cookie = page.set_cookie("sealgate-session=");
    assert!(cookie.ends_with("; Path=/console; HttpOnly; SameSite=Strict"), "{cookie}");
    assert_eq!(browser.get("/tokens").await.status, StatusCode::OK);

    assert_eq!(browser.log_in("ann", "wrong").await.status, StatusCode::UNAUTHORIZED, "the login page works beside a session, too");
    let kept = browser.cookies.clone();
    let page = browser.post("/tokens", "/logout", &[]).await;
    assert!(page.status == StatusCode::SEE_OTHER && page.set_cookie("sealgate-session=").contains("Max-Age=0"));
    browser.cookies = kept;
    assert_eq!(browser.get("/tokens").await.status, StatusCode::SEE_OTHER, "the session is over, not only its cookie");
    let told = events(&gateway).await;
    assert!(
        told.iter()
            .any(|event| matches!(event, AuditEvent::OperatorLoggedIn { operator, address: Some(_) } if operator.as_str() == "root"))
    );
    assert!(told.iter().any(|event| matches!(event, AuditEvent::OperatorLoggedOut { .. })));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_passwords_look_all_the_same_and_then_one_has_to_wait() {
    let gateway = gateway().await;
    let mut browser = Browser::new(&gateway);
    let wrong = browser.log_in("ann", "wrong").await;
    let unknown = browser.log_in("nobody", "wrong").await;
    let visible = |page: &Page, name: &str| page.body.replace(name, "NAME");
    assert_eq!((wrong.status, unknown.status), (StatusCode::UNAUTHORIZED, StatusCode::UNAUTHORIZED));
    assert_eq!(visible(&wrong, "ann"), visible(&unknown, "nobody"));
    let mut last = wrong;
    for _ in 0..4 {
        last = browser.log_in("ann", "wrong").await;
    }
    assert_eq!((last.status, last.headers.contains_key("retry-after")), (StatusCode::TOO_MANY_REQUESTS, true));
    assert_eq!(browser.log_in("ann", PASSWORD).await.status, StatusCode::TOO_MANY_REQUESTS, "the right one has to wait as well");
    assert_eq!(browser.log_in("root", PASSWORD).await.status, StatusCode::SEE_OTHER, "another operator has not");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_approver_sees_their_own_keys_and_no_administrators_page() {
    let gateway = gateway().await;
    for key in ["one", "two"] {
        let ticket = gateway.ticket_with(b"x").await;
        gateway.put_json(&format!("{ticket}/keyStore"), json!({ "keyStorePath": format!("pkcs11:object={key}") })).await;
        gateway.sign(&ticket).await;
    }
    let jobs = gateway.store.list_jobs(&Default::default(), 10).await.unwrap();
    let of = |key: &str| jobs.iter().find(|job| job.key.name.as_ref().unwrap().as_str() == key).unwrap().id;
    let mut ann = logged_in(&gateway, "ann").await;
    for path in ["/audit", "/audit/export", "/operators", "/operators/root"] {
        assert_eq!(ann.get(path).await.status, StatusCode::FORBIDDEN, "{path}");
    }
    let token = ann.get("/account").await.token();
    for (path, fields) in [
        ("/audit/verify", vec![]),
        ("/operators", vec![("name", "eve"), ("role", "administrator"), ("keys", "all")]),
        ("/operators/root/remove", vec![]),
        ("/operators/ann/rights", vec![("role", "administrator"), ("keys", "all")]),
        ("/tokens/restart", vec![("uri", "pkcs11:")]),
    ] {
        assert_eq!(ann.post_with(&token, path, &fields).await.status, StatusCode::FORBIDDEN, "{path}");
    }
    assert_eq!(ann.get(&format!("/jobs/{}", of("one"))).await.status, StatusCode::OK);
    assert_eq!(ann.get(&format!("/jobs/{}", of("two"))).await.status, StatusCode::NOT_FOUND);
    let list = ann.get("/jobs").await.body;
    assert!(list.contains(&of("one").to_string()) && !list.contains(&of("two").to_string()), "{list}");
    let tokens = ann.get("/tokens").await.body;
    assert!(tokens.contains(">one<") && !tokens.contains(">two<"), "{tokens}");
    let mut root = logged_in(&gateway, "root").await;
    let list = root.get("/jobs?key=two").await.body;
    assert!(!list.contains(&of("one").to_string()) && list.contains(&of("two").to_string()), "{list}");

    // An approver of a key that no token holds sees no token, and cannot lock one.
    add(&gateway, "eve", Role::Approver, only("elsewhere")).await;
    gateway.operators.set_rights(&"eve".parse().unwrap(), Role::Approver, only("elsewhere"), "test").await.unwrap();
    let mut eve = logged_in(&gateway, "eve").await;
    assert!(eve.get("/tokens").await.body.contains("No token of yours"));
    let token = eve.get("/account").await.token();
    assert_eq!(eve.post_with(&token, "/tokens/lock", &[("uri", "pkcs11:")]).await.status, StatusCode::NOT_FOUND);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_pin_costs_one_try_and_stands_in_the_log_with_the_operators_name() {
    let script = Script::new("scripted");
    let gateway = Plan::scripted(&script, LoginMode::Operator, &["one"]).start().await;
    add(&gateway, "ann", Role::Approver, only("one")).await;
    let mut ann = logged_in(&gateway, "ann").await;
    for _ in 0..3 {
        let page = ann.post("/tokens", "/tokens/unlock", &[("uri", "pkcs11:token=scripted"), ("pin", "999999")]).await;
        assert_eq!(page.status, StatusCode::CONFLICT);
        assert!(!page.body.contains("999999"), "{}", page.body);
    }
    assert_eq!(script.count(Call::Login), 1);
    let page = ann.get("/tokens").await;
    assert!(page.body.contains("PIN rejected"), "{}", page.body);
    let page = ann.post("/tokens", "/tokens/unlock", &[("uri", "pkcs11:token=scripted"), ("pin", FAKE_PIN)]).await;
    assert_eq!((page.status, page.location()), (StatusCode::SEE_OTHER, "/console/tokens?done=unlocked"));
    assert_eq!(gateway.tokens.slots()[0].status().state, SlotState::Ready);
    assert_eq!(ann.post("/tokens", "/tokens/lock", &[("uri", "pkcs11:token=scripted")]).await.status, StatusCode::SEE_OTHER);
    assert_eq!(gateway.tokens.slots()[0].status().state, SlotState::NeedsPin);
    let told = events(&gateway).await;
    let by_ann = |event: &&AuditEvent| matches!(event, AuditEvent::Pin { by: Some(by), .. } if by == "operator ann");
    assert_eq!(told.iter().filter(by_ann).count(), 3, "rejected, unlocked, locked: {told:?}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_administrator_settles_a_doubt_once() {
    let gateway = gateway().await;
    gateway.sign(&gateway.ticket_with(b"x").await).await;
    let signed = gateway.store.list_jobs(&Default::default(), 1).await.unwrap().remove(0);
    let mut job = sealgate::domain::job::SigningJob {
        id: sealgate::domain::ids::JobId::random(),
        permit: None,
        state: JobState::Queued,
        claim: None,
        outcome: None,
        ..signed
    };
    job.key.token.label = "none".to_owned();
    let token = job.key.token.clone();
    gateway.store.commit(vec![Change::AcceptJob { job: job.clone(), queue_bound: 9 }]).await.unwrap();
    let claimed = gateway.store.claim_jobs(&token, 1, job.accepted).await.unwrap().remove(0);
    let outcome = JobOutcome::not_signed(FailureCause::OutcomeUnknown, "the card was pulled");
    gateway.store.commit(vec![Change::EndJob { job: job.id, claim: claimed.claim, outcome }]).await.unwrap();

    let (mut ann, mut root) = (logged_in(&gateway, "ann").await, logged_in(&gateway, "root").await);
    let path = format!("/jobs/{}", job.id);
    assert!(ann.get(&path).await.body.contains("the card was pulled"));
    let resolve = format!("{path}/resolve");
    assert_eq!(ann.post(&path, &resolve, &[("outcome", "signed")]).await.status, StatusCode::FORBIDDEN);
    assert_eq!(root.post(&path, &resolve, &[("outcome", "perhaps")]).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(root.post(&path, &resolve, &[("outcome", "not-signed")]).await.status, StatusCode::SEE_OTHER);
    assert_eq!(root.post(&path, &resolve, &[("outcome", "signed")]).await.status, StatusCode::CONFLICT);
    assert_eq!(gateway.store.find_job(job.id).await.unwrap().unwrap().state, JobState::Failed);
    let told = events(&gateway).await;
    assert!(told.iter().any(|event| matches!(event, AuditEvent::DoubtResolved { signed: false, by, .. } if by == "operator root")));
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_callers_say_is_text_on_every_page() {
    let gateway = gateway().await;
    gateway.sign(&gateway.ticket_with(b"x").await).await;
    let signed = gateway.store.list_jobs(&Default::default(), 1).await.unwrap().remove(0);
    let from = Provenance { origin: Some(HOSTILE.to_owned()), ..signed.from.clone() };
    let mut job = sealgate::domain::job::SigningJob {
        id: sealgate::domain::ids::JobId::random(),
        permit: None,
        from: from.clone(),
        state: JobState::Queued,
        claim: None,
        outcome: None,
        ..signed
    };
    job.key.token.label = HOSTILE.to_owned();
    let token = job.key.token.clone();
    gateway.store.commit(vec![Change::AcceptJob { job: job.clone(), queue_bound: 9 }]).await.unwrap();
    let claimed = gateway.store.claim_jobs(&token, 1, job.accepted).await.unwrap().remove(0);
    let outcome = JobOutcome::not_signed(FailureCause::OutcomeUnknown, HOSTILE);
    let opened = AuditEvent::TicketOpened { ticket: TicketId::random(), caller: job.caller.clone(), from };
    gateway.store.commit(vec![Change::EndJob { job: job.id, claim: claimed.claim, outcome }, Change::Audit(opened)]).await.unwrap();
    let mut root = logged_in(&gateway, "root").await;
    let escaped = format!("/jobs?caller={}", encode(HOSTILE));
    for path in [
        "/jobs",
        "/overview",
        "/audit",
        &format!("/jobs/{}", job.id),
        &escaped,
        &format!("/operators/{}", encode(HOSTILE)),
        &format!("/tokens?done={}", encode(HOSTILE)),
    ] {
        let page = root.get(path).await;
        assert!(!page.body.contains("<script>alert") && !page.body.contains("\"'&lt;"), "{path}: {}", page.body);
    }
    assert!(root.get("/jobs").await.body.contains("alert(1)"), "it is shown, as text");
    let mut stranger = Browser::new(&gateway);
    let page = stranger.log_in(HOSTILE, "x").await;
    assert!(page.status == StatusCode::UNAUTHORIZED && !page.body.contains("<script>alert"), "{}", page.body);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_are_looked_after_and_a_made_password_is_shown_once() {
    let gateway = gateway().await;
    let mut root = logged_in(&gateway, "root").await;
    let page = root.post("/operators", "/operators", &[("name", "ben"), ("role", "approver"), ("keys", "named"), ("key", "one")]).await;
    let (_, rest) = page.body.split_once(r#"<output id="secret">"#).unwrap();
    let made = rest.split_once('<').unwrap().0.to_owned();
    assert_eq!((page.status, made.len()), (StatusCode::OK, 20));
    let mut ben = Browser::new(&gateway);
    assert_eq!(ben.log_in("ben", &made).await.status, StatusCode::SEE_OTHER);
    assert!(!root.get("/operators/ben").await.body.contains(&made));
    for (fields, wanted) in [
        (vec![("name", "ben"), ("role", "approver"), ("keys", "all")], StatusCode::CONFLICT),
        (vec![("name", "<b>"), ("role", "approver"), ("keys", "all")], StatusCode::BAD_REQUEST),
        (vec![("name", "eve"), ("role", "approver"), ("keys", "named")], StatusCode::BAD_REQUEST),
        (vec![("name", "eve"), ("role", "approver"), ("keys", "all"), ("password", "short")], StatusCode::BAD_REQUEST),
    ] {
        assert_eq!(root.post("/operators", "/operators", &fields).await.status, wanted, "{fields:?}");
    }
    let page =
        ben.post("/account", "/account/password", &[("old", &made), ("new", "another long one"), ("again", "another long one")]).await;
    assert_eq!((page.status, page.location()), (StatusCode::SEE_OTHER, "/console/login?done=own-password"));
    assert_eq!(ben.get("/account").await.status, StatusCode::SEE_OTHER, "all sessions have ended");
    assert_eq!(ben.log_in("ben", "another long one").await.status, StatusCode::SEE_OTHER);
    assert_eq!(root.post("/operators/ben", "/operators/ben/disable", &[]).await.status, StatusCode::SEE_OTHER);
    assert_eq!(ben.get("/account").await.status, StatusCode::SEE_OTHER);
    assert_eq!(root.post("/operators/root", "/operators/root/remove", &[]).await.status, StatusCode::CONFLICT);
    assert_eq!(root.post("/operators/ben", "/operators/ben/remove", &[]).await.status, StatusCode::SEE_OTHER);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_audit_log_is_proved_and_carried_out() {
    let gateway = gateway().await;
    gateway.sign(&gateway.ticket_with(b"x").await).await;
    let mut root = logged_in(&gateway, "root").await;
    let events_stream = root.request(Method::GET, "/events", None).await;
    assert_eq!(root.post("/audit", "/audit/verify", &[]).await.status, StatusCode::SEE_OTHER);
    until(events_stream, "event: audit").await;
    let page = root.get("/audit").await;
    assert!(page.body.contains(">sound<") && page.body.contains("operator logged in"), "{}", page.body);
    let export = root.get("/audit/export").await;
    assert!(export.headers["content-disposition"].to_str().unwrap().starts_with("attachment"));
    let sound = sealgate::audit::verify::verify_export(export.body.as_bytes(), &Default::default()).unwrap();
    assert_eq!(sound[0].head.seq as usize, export.body.lines().count());
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_tell_of_changes_and_end_when_the_server_stops() {
    let script = Script::new("scripted");
    let gateway = Plan::scripted(&script, LoginMode::Operator, &["one"]).start().await;
    add(&gateway, "ann", Role::Approver, only("one")).await;
    assert_eq!(Browser::new(&gateway).get("/events").await.status, StatusCode::SEE_OTHER);
    let mut ann = logged_in(&gateway, "ann").await;
    let stream = ann.request(Method::GET, "/events", None).await;
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    let page = ann.post("/tokens", "/tokens/unlock", &[("uri", "pkcs11:token=scripted"), ("pin", FAKE_PIN)]).await;
    assert_eq!(page.status, StatusCode::SEE_OTHER);
    until(stream, "event: tokens").await;

    let mut streams = Vec::new();
    for _ in 0..16 {
        streams.push(ann.request(Method::GET, "/events", None).await);
    }
    assert!(streams.iter().all(|stream| stream.status() == StatusCode::OK));
    assert_eq!(ann.get("/events").await.status, StatusCode::SERVICE_UNAVAILABLE);
    let last = streams.remove(0);
    drop(streams);
    let (ended, ()) = tokio::join!(last.text(), gateway.stop());
    assert!(ended.unwrap().starts_with("retry: "));
}

/// A gateway whose caller `ci` needs an operator's consent, with approvers `ann` of key `one` and `bob` of key `two`.
async fn asking() -> Gateway {
    let kind = KeyKind::Ec(Curve::P256);
    let mut plan = Plan::softhsm(&[("one", kind.clone()), ("two", kind)], 64).await;
    plan.caller("ci").caller.consent = ConsentPolicy::Operator.into();
    let gateway = plan.start().await;
    add(&gateway, "root", Role::Administrator, KeyAccess::All).await;
    add(&gateway, "ann", Role::Approver, only("one")).await;
    add(&gateway, "bob", Role::Approver, only("two")).await;
    gateway
}

/// The id of the only request on the page.
fn only_ask(page: &Page) -> String {
    let (_, rest) = page.body.split_once(r#"class="card ask" data-key=""#).unwrap_or_else(|| panic!("no request: {}", page.body));
    rest.split_once('"').unwrap().0.to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_shows_up_at_once_and_is_allowed_for_fewer() {
    let gateway = asking().await;
    let mut ann = logged_in(&gateway, "ann").await;
    let stream = ann.request(Method::GET, "/events", None).await;
    let words = format!("<h1>Invoices</h1><img src=x onerror=alert(1)>{HOSTILE}<p style=\"background:url(https://evil.example)\">two</p>");
    let body = json!({ "accessTimesNumber": 3, "metaData": words, "prefViewWidth": 500, "prefViewHeight": 99_999 });
    let asked = gateway.request(Method::POST, "/accessToken").header("origin", common::gateway::CI_ORIGIN).json(&body);
    let asked = tokio::spawn(asked.send());
    until(stream, r#"{"waiting":1}"#).await;

    let page = ann.get("/consent").await;
    let id = only_ask(&page);
    assert!(
        page.body.contains("<b>ci</b> asks for up to <b>3 signatures</b>") && page.body.contains(common::gateway::CI_ORIGIN),
        "{}",
        page.body
    );
    assert!(
        page.body.contains(r#"width="500" height="2000""#)
            && page.body.contains("Nobody has verified it")
            && page.body.contains(r#"<iframe sandbox="""#),
        "{}",
        page.body
    );
    assert!(!page.body.contains("Invoices"), "a caller's words are in a frame of their own");
    assert!(ann.get("/overview").await.body.contains("<title>(1) Overview"));
    let framed = ann.get(&format!("/consent/{id}/words")).await;
    let policy = framed.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("sandbox; default-src 'none'; style-src 'sha256-") && !policy.contains("unsafe"), "{policy}");
    assert!(framed.body.contains("<h1>Invoices</h1>") && framed.body.contains("<p>two</p>"), "{}", framed.body);
    assert!(!framed.body.contains("<img") && !framed.body.contains("<script") && !framed.body.contains("evil"), "{}", framed.body);

    let allow = format!("/consent/{id}/allow");
    assert_eq!(ann.post("/consent", &allow, &[("uses", "4")]).await.status, StatusCode::BAD_REQUEST);
    let page = ann.post("/consent", &allow, &[("uses", "2")]).await;
    assert_eq!((page.status, page.location()), (StatusCode::SEE_OTHER, "/console/consent?done=allowed"));
    let answer = asked.await.unwrap().unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let token: serde_json::Value = answer.json().await.unwrap();
    assert_eq!(token["accessTokenUuid"].as_str(), Some(id.as_str()), "{token}");
    let token = ann.get("/account").await.token();
    assert_eq!(ann.post_with(&token, &allow, &[]).await.status, StatusCode::CONFLICT, "it is decided already");
    assert!(ann.get("/permits").await.body.contains("2 of 2 left"));
    assert_eq!(ann.post("/permits", &format!("/permits/{id}/revoke"), &[]).await.status, StatusCode::SEE_OTHER);
    assert!(ann.get("/permits").await.body.contains("No permit can be used now"));
    let told = serde_json::to_string(&events(&gateway).await).unwrap();
    assert!(told.contains("\"ann\""), "the decision carries the operator's name: {told}");
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_is_added_on_the_page_has_another_policy_for_a_key() {
    let gateway = asking().await;
    let mut root = logged_in(&gateway, "root").await;
    let fields = [("name", "erp"), ("with_api_key", "yes"), ("consent", "auto"), ("keys", "all"), ("default_key", "two")];
    let page = root.post("/callers", "/callers", &[&fields[..], &[("consent_for", "one=whim")]].concat()).await;
    assert_eq!(page.status, StatusCode::BAD_REQUEST);
    let page = root.post("/callers", "/callers", &[&fields[..], &[("consent_for", "one=operator"), ("consent_for", "")]].concat()).await;
    let (_, rest) = page.body.split_once(r#"<output id="secret">"#).unwrap();
    let key = rest.split_once('<').unwrap().0;
    let page = root.get("/callers/erp").await;
    assert!(page.body.contains("nobody: it is trusted\nwith one: an operator"), "{}", page.body);

    let ask = |method, path: String| gateway.anonymous(method, &format!("/api/v1{path}")).bearer_auth(key);
    for (name, waits) in [("two", false), ("one", true)] {
        let created = common::gateway::send(ask(Method::POST, "/ticket".to_owned())).await.json();
        let ticket = format!("/ticket/{}", created["ticketUuid"].as_str().unwrap());
        common::gateway::send(ask(Method::POST, format!("{ticket}/data")).json(&json!({ "base64Data": "aGVsbG8=" }))).await;
        common::gateway::send(ask(Method::PUT, format!("{ticket}/keyStore")).json(&json!({ "keyStorePath": name }))).await;
        assert_eq!(common::gateway::send(ask(Method::POST, format!("{ticket}/ds/creator"))).await.status, 200);
        if !waits {
            assert_eq!(common::gateway::send(ask(Method::GET, format!("{ticket}/ds/data"))).await.status, 200, "nobody is asked");
        }
        assert_eq!(root.get("/consent").await.body.contains("<b>erp</b> asks for"), waits, "{name}");
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_document_is_looked_at_refused_and_never_seen_by_an_operator_of_another_key() {
    let gateway = asking().await;
    let (mut ann, mut bob) = (logged_in(&gateway, "ann").await, logged_in(&gateway, "bob").await);
    let ticket = gateway.ticket_with(b"<script>alert(1)</script> contract").await;
    gateway.put_json(&format!("{ticket}/metadata"), json!({ "metaData": "plain words" })).await;
    let started = gateway.post(&format!("{ticket}/ds/creator")).await;
    assert_eq!(started.status, 200, "{}", started.text());

    let page = ann.get("/consent").await;
    let id = only_ask(&page);
    assert!(page.body.contains("Document of 34 bytes, SHA-256"), "{}", page.body);
    assert!(bob.get("/consent").await.body.contains("Nothing waits for you"));
    for path in ["", "/words", "/view", "/document"] {
        assert_eq!(bob.get(&format!("/consent/{id}{path}")).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    let token = bob.get("/account").await.token();
    for decision in ["allow", "refuse"] {
        assert_eq!(bob.post_with(&token, &format!("/consent/{id}/{decision}"), &[]).await.status, StatusCode::NOT_FOUND);
    }
    let view = ann.get(&format!("/consent/{id}/view")).await;
    assert_eq!(view.headers["content-type"], "text/plain; charset=utf-8", "what looks like a page is text");
    assert_eq!(view.body, "<script>alert(1)</script> contract");
    assert!(view.headers["content-security-policy"].to_str().unwrap().starts_with("sandbox; default-src 'none'"));
    let file = ann.get(&format!("/consent/{id}/document")).await;
    assert!(file.headers["content-disposition"].to_str().unwrap().starts_with("attachment;") && file.body == view.body);
    assert!(ann.get(&format!("/consent/{id}")).await.body.contains("As text; nothing in it runs"));

    assert_eq!(ann.post("/consent", &format!("/consent/{id}/refuse"), &[]).await.status, StatusCode::SEE_OTHER);
    assert_eq!(gateway.get(&format!("{ticket}/ds/creator")).await.status, 403);
    assert_eq!(ann.get(&format!("/consent/{id}/document")).await.status, StatusCode::NOT_FOUND, "what is decided is not shown any more");
    gateway.stop().await;
}
