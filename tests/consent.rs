//! Operators' consent, as the ticket API's clients meet it: what is asked, what is answered, and what a decision makes of it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::{sync::Arc, time::Duration};

use common::{
    gateway::{Answer, CI_KEY, Gateway, OTHER_KEY, PATIENCE, Plan, send},
    openssl::openssl_ok,
};
use reqwest::Method;
use sealgate::{
    domain::{
        audit::{AuditEvent, AuditRecord},
        caller::{ConsentPolicy, KeyAccess},
        consent::ViewSize,
        ids::{GatewayId, PermitId},
        operator::{Operator, Role},
        permit::{Permit, PermitState},
        token::LoginMode,
    },
    permit::PermitSettings,
    store::sqlite::{SqliteSettings, SqliteStore},
    ticket::TicketError,
    token::fake::{FAKE_PIN, Script},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinHandle,
};

const GRANTED_2: &str = "Запит на використання ЕП успішно оброблений. Кількість спроб: 2.";
const REFUSED: &str = "Запит на використання ЕП відхилено користувачем.";
const BAD_USES: &str = "Запит на використання ЕП містить неправильний формат параметру \"accessTimesNumber\".";
const NO_STORAGE: &str = "Сервіс зберігання даних не запущено.";
const STARTED: &str = "Ініційована операція створення електронного підпису.";
const PENDING: &str = "Операція \"Створення електронного підпису\" знаходиться у стадії виконання.";

fn plan(script: &Script, policy: ConsentPolicy) -> Plan {
    let mut plan = Plan::scripted(script, LoginMode::Configured, &["seal", "stamp"]);
    plan.caller("ci").caller.consent = policy.into();
    plan
}

async fn asking() -> Arc<Gateway> {
    Arc::new(plan(&Script::new("fake"), ConsentPolicy::Operator).start().await)
}

fn operator(name: &str) -> Operator {
    Operator { name: name.parse().unwrap(), role: Role::Approver, keys: KeyAccess::All }
}

/// Asks for a permission in a task of its own, which waits for the answer.
fn ask(gateway: &Arc<Gateway>, body: Value) -> JoinHandle<Answer> {
    let gateway = Arc::clone(gateway);
    tokio::spawn(async move { gateway.post_json("/accessToken", body).await })
}

/// The only request that waits, once there is one.
async fn waiting(gateway: &Gateway) -> Permit {
    let mut changes = gateway.permits.watch();
    let waiting = async {
        loop {
            changes.borrow_and_update();
            if let Some(permit) = gateway.store.waiting_permits(9).await.unwrap().pop() {
                return permit;
            }
            changes.changed().await.unwrap();
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("nothing was asked for")
}

async fn start(gateway: &Gateway, ticket: &str, body: Value) -> Answer {
    gateway.post_json(&format!("{ticket}/ds/creator"), body).await
}

async fn events(gateway: &Gateway) -> Vec<AuditEvent> {
    let records = gateway.store.audit_records(gateway.store.gateway(), 1, 1_000).await.unwrap();
    records.iter().map(|record| serde_json::from_str::<AuditRecord>(&record.text).unwrap().event).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_answer_to_a_request_for_a_permission_is_the_one_that_clients_know() {
    let gateway = asking().await;
    let asked = ask(&gateway, json!({"accessTimesNumber": 2, "metaData": "<b>два</b>", "prefViewWidth": 640, "prefViewHeight": 99999}));
    let request = waiting(&gateway).await;
    let shown = request.ask.as_ref().unwrap();
    assert_eq!((shown.uses, shown.view), (2, ViewSize { width: Some(640), height: Some(2_000) }));
    assert!(shown.from.address.is_some_and(|address| address.is_loopback()));
    assert_eq!(gateway.permits.words(&operator("anna"), request.id).await.unwrap().as_deref(), Some("<b>два</b>"));
    gateway.permits.grant(&operator("anna"), request.id, None).await.unwrap();
    let granted = asked.await.unwrap();
    assert_eq!(granted.json(), json!({"message": GRANTED_2, "accessTokenUuid": request.id.to_string()}));
    assert_eq!(granted.status, 200);

    let asked = ask(&gateway, json!({"accessTimesNumber": 1}));
    gateway.permits.refuse(&operator("anna"), waiting(&gateway).await.id).await.unwrap();
    let refused = asked.await.unwrap();
    assert_eq!((refused.status, refused.json()), (403, json!({"message": REFUSED})));

    for wrong in [json!({}), json!({"accessTimesNumber": 0}), json!({"accessTimesNumber": "x"}), json!({"accessTimesNumber": 1.5})] {
        let answer = gateway.post_json("/accessToken", wrong).await;
        assert_eq!((answer.status, answer.json()), (400, json!({"message": BAD_USES})));
    }
    let too_many = gateway.post_json("/accessToken", json!({"accessTimesNumber": 1_001})).await;
    assert_eq!((too_many.status, too_many.message()), (400, BAD_USES.to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_decision_in_time_is_a_refusal_and_a_store_that_is_away_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(SqliteStore::open(SqliteSettings::new(directory.path().join("db"), GatewayId::random())).unwrap());
    let mut plan = plan(&Script::new("fake"), ConsentPolicy::Operator);
    plan.permits = PermitSettings { decision_time: Duration::ZERO, ..PermitSettings::default() };
    plan.store = store.clone();
    let gateway = Arc::new(plan.start().await);
    let answer = gateway.post_json("/accessToken", json!({"accessTimesNumber": 1})).await;
    assert_eq!((answer.status, answer.json()), (403, json!({"message": REFUSED})));
    let ticket = gateway.ticket_with(b"document").await;
    assert_eq!(start(&gateway, &ticket, json!({})).await.status, 200);
    let fetched = gateway.get(&format!("{ticket}/ds/data")).await;
    assert_eq!((fetched.status, fetched.json()), (403, json!({"message": REFUSED})));
    tokio::task::spawn_blocking(move || store.close()).await.unwrap();
    let answer = gateway.post_json("/accessToken", json!({"accessTimesNumber": 1})).await;
    assert_eq!((answer.status, answer.json()), (503, json!({"message": NO_STORAGE})));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_is_signed_than_the_operator_allowed() {
    let gateway = asking().await;
    let asked = ask(&gateway, json!({"accessTimesNumber": 3}));
    let request = waiting(&gateway).await;
    gateway.permits.grant(&operator("anna"), request.id, Some(2)).await.unwrap();
    let granted = asked.await.unwrap();
    assert_eq!(granted.message(), GRANTED_2);
    let payment = json!({"accessTokenUuid": request.id.to_string()});
    for document in [b"one", b"two"] {
        let ticket = gateway.ticket_with(document).await;
        assert_eq!(start(&gateway, &ticket, payment.clone()).await.message(), STARTED);
        assert_eq!(gateway.get(&format!("{ticket}/ds/data")).await.status, 200);
    }
    let ticket = gateway.ticket_with(b"three").await;
    let third = start(&gateway, &ticket, payment.clone()).await;
    assert_eq!((third.status, third.message().as_str()), (403, "Дозвіл на використання ЕП вичерпано."));
    // Another caller is told what it would be told of one that never was.
    let as_other = |id: String| send(gateway.anonymous(Method::GET, &format!("/api/v1/accessToken/{id}")).bearer_auth(OTHER_KEY));
    let (foreign, none) = (as_other(request.id.to_string()).await, as_other(PermitId::random().to_string()).await);
    assert_eq!((foreign.status, foreign.json()), (none.status, none.json()));
    let consents = events(&gateway).await.into_iter().filter_map(|event| match event {
        AuditEvent::Signed { consent, .. } => Some(serde_json::to_value(consent).unwrap()),
        _ => None,
    });
    assert_eq!(consents.collect::<Vec<_>>(), vec![json!({"operator": "anna"}); 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_jobs_at_once_get_as_many_signatures_as_were_allowed() {
    let gateway = asking().await;
    let asked = ask(&gateway, json!({"accessTimesNumber": 50}));
    let request = waiting(&gateway).await;
    gateway.permits.grant(&operator("anna"), request.id, Some(20)).await.unwrap();
    assert_eq!(asked.await.unwrap().status, 200);
    let payment = json!({"accessTokenUuid": request.id.to_string()});
    let jobs: Vec<_> = (0..1_000)
        .map(|n: u32| {
            let (gateway, payment) = (Arc::clone(&gateway), payment.clone());
            tokio::spawn(async move {
                let ticket = gateway.ticket_with(&n.to_be_bytes()).await;
                let started = start(&gateway, &ticket, payment).await;
                match started.status {
                    200 => usize::from(gateway.get(&format!("{ticket}/ds/data")).await.status == 200),
                    status => {
                        assert_eq!(status, 403, "{}", started.text());
                        0
                    }
                }
            })
        })
        .collect();
    let mut signatures = 0;
    for job in jobs {
        signatures += job.await.unwrap();
    }
    assert_eq!(signatures, 20);
    let permit = gateway.store.find_permit(request.id).await.unwrap().unwrap();
    assert_eq!((permit.uses, permit.reserved, permit.committed), (20, 0, 20));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signature_without_a_permission_waits_for_the_operator_and_what_was_shown_is_signed() {
    let gateway = asking().await;
    let ticket = gateway.ticket_with(b"document").await;
    gateway.put_json(&format!("{ticket}/metadata"), json!({"metaData": "one letter"})).await;
    assert_eq!(start(&gateway, &ticket, json!({})).await.message(), STARTED);
    let status = gateway.get(&format!("{ticket}/ds/creator")).await;
    assert_eq!((status.status, status.message().as_str()), (202, PENDING));
    let request = waiting(&gateway).await;
    assert_eq!(gateway.permits.words(&operator("anna"), request.id).await.unwrap().as_deref(), Some("one letter"));
    let document = request.ask.as_ref().unwrap().waiting.as_ref().unwrap().document.clone().unwrap();
    assert_eq!((document.len, format!("/ticket/{}", document.ticket)), (8, ticket.clone()));
    let shown = gateway.tickets.document_asked_about(&operator("anna"), request.id).await.unwrap();
    let pieces: Vec<_> = futures_util::TryStreamExt::try_collect(shown.into_pieces()).await.unwrap();
    assert_eq!(pieces.concat(), b"document");
    let stranger = Operator { keys: KeyAccess::Only(vec!["stamp".parse().unwrap()]), ..operator("olga") };
    assert_eq!(gateway.tickets.document_asked_about(&stranger, request.id).await.err(), Some(TicketError::Missing));
    // Asked again it is the same request, and nothing can be changed any more.
    assert_eq!(start(&gateway, &ticket, json!({})).await.message(), STARTED);
    assert_eq!(gateway.store.count_waiting_permits().await, Ok(1));
    assert_eq!(gateway.upload(&ticket, "application/octet-stream", b"other".to_vec()).await.status, 500);
    for (path, body) in [
        ("metadata", json!({"metaData": "another"})),
        ("option", json!({"signatureType": "attached"})),
        ("keyStore", json!({"keyStorePath": "pkcs11:object=stamp"})),
    ] {
        assert_eq!(gateway.put_json(&format!("{ticket}/{path}"), body).await.status, 500, "{path}");
    }
    let fetching = {
        let (gateway, path) = (Arc::clone(&gateway), format!("{ticket}/ds/data"));
        tokio::spawn(async move { gateway.get(&path).await })
    };
    gateway.permits.grant(&operator("anna"), request.id, None).await.unwrap();
    assert_eq!(fetching.await.unwrap().status, 200);
    let signed: Vec<_> = events(&gateway)
        .await
        .into_iter()
        .filter_map(|event| match event {
            AuditEvent::Signed { facts, .. } => Some(facts.digest),
            _ => None,
        })
        .collect();
    assert_eq!(signed, request.scope.digests);
}

/// What an operator is shown of the only request that waits, and its digest as the request has it.
async fn shown(gateway: &Gateway) -> (Permit, Vec<u8>, String) {
    let request = waiting(gateway).await;
    let document = request.ask.as_ref().unwrap().waiting.as_ref().unwrap().document.clone().unwrap();
    let shown = gateway.tickets.document_asked_about(&operator("anna"), request.id).await.unwrap();
    let pieces: Vec<_> = futures_util::TryStreamExt::try_collect(shown.into_pieces()).await.unwrap();
    (request, pieces.concat(), document.sha256.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_signs_beside_others_is_shown_the_document_and_of_several_objects_what_will_be_their_container() {
    let gateway = asking().await;
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("document"), b"document").unwrap();
    let key = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=other", "-days", "30", "-keyout"];
    openssl_ok([&key[..], &[&path("key"), "-out", &path("pem")]].concat());
    let sign = ["cms", "-sign", "-binary", "-nodetach", "-outform", "DER", "-in", &path("document"), "-signer", &path("pem"), "-inkey"];
    openssl_ok([&sign[..], &[&path("key"), "-out", &path("p7s")]].concat());
    let digest = |bytes: &[u8]| sealgate::domain::audit::Sha256::of(bytes).to_string();

    let ticket = gateway.ticket_with(&std::fs::read(path("p7s")).unwrap()).await;
    gateway.put_json(&format!("{ticket}/option"), json!({ "dataToSignQualifier": "alreadySigned" })).await;
    assert_eq!(start(&gateway, &ticket, json!({})).await.message(), STARTED);
    let (request, document, sha256) = shown(&gateway).await;
    assert_eq!((document.as_slice(), sha256), (b"document".as_slice(), digest(b"document")));
    gateway.permits.grant(&operator("anna"), request.id, None).await.unwrap();
    assert_eq!(gateway.get(&format!("{ticket}/ds/data")).await.status, 200);

    let part =
        |name: &str| format!("--x\r\nContent-Disposition: form-data; name=\"uploadTicketData\"; filename=\"{name}\"\r\n\r\n{name}\r\n");
    let form = format!("{}{}--x--\r\n", part("one"), part("two"));
    let ticket = gateway.ticket().await;
    assert_eq!(gateway.upload(&ticket, "multipart/form-data; boundary=x", form.into_bytes()).await.status, 200);
    gateway.put_json(&format!("{ticket}/option"), json!({ "asicForm": "ASIC_E" })).await;
    assert_eq!(start(&gateway, &ticket, json!({})).await.message(), STARTED);
    let (request, container, sha256) = shown(&gateway).await;
    let mut container = zip::ZipArchive::new(std::io::Cursor::new(container)).unwrap();
    let names: Vec<_> = container.file_names().map(|name| name.unwrap().into_owned()).collect();
    assert_eq!(names, ["mimetype", "one", "two", "META-INF/ASiCManifest001.xml"]);
    let mut manifest = Vec::new();
    std::io::Read::read_to_end(&mut container.by_name("META-INF/ASiCManifest001.xml").unwrap(), &mut manifest).unwrap();
    assert_eq!(sha256, digest(&manifest));
    gateway.permits.grant(&operator("anna"), request.id, None).await.unwrap();
    assert_eq!(gateway.get(&format!("{ticket}/ds/data")).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_signature_is_forbidden_and_can_be_asked_for_again() {
    let gateway = asking().await;
    let ticket = gateway.ticket_with(b"document").await;
    assert_eq!(start(&gateway, &ticket, json!({})).await.status, 200);
    gateway.permits.refuse(&operator("anna"), waiting(&gateway).await.id).await.unwrap();
    for path in ["ds/creator", "ds/data", "ds/base64Data"] {
        let answer = gateway.get(&format!("{ticket}/{path}")).await;
        assert_eq!((answer.status, answer.json()), (403, json!({"message": REFUSED})), "{path}");
    }
    assert_eq!(start(&gateway, &ticket, json!({})).await.status, 200);
    gateway.permits.grant(&operator("anna"), waiting(&gateway).await.id, None).await.unwrap();
    assert_eq!(gateway.get(&format!("{ticket}/ds/data")).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_that_is_deleted_and_a_client_that_hangs_up_withdraw_what_they_asked() {
    let gateway = asking().await;
    let ticket = gateway.ticket_with(b"document").await;
    assert_eq!(start(&gateway, &ticket, json!({})).await.status, 200);
    let request = waiting(&gateway).await;
    assert_eq!(gateway.delete(&ticket).await.status, 200);
    assert_eq!(gateway.store.wait_for_decision(request.id).await.unwrap().state, PermitState::Withdrawn);

    let mut client = TcpStream::connect(gateway.urls[0].trim_start_matches("http://")).await.unwrap();
    let body = r#"{"accessTimesNumber":1}"#;
    let head = format!(
        "POST /api/v1/accessToken HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {CI_KEY}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    client.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    let request = waiting(&gateway).await;
    drop(client);
    let ended = tokio::time::timeout(PATIENCE, gateway.store.wait_for_decision(request.id)).await.expect("it is asked still");
    assert_eq!(ended.unwrap().state, PermitState::Withdrawn);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bulk_is_asked_about_once_for_exactly_its_hashes() {
    let gateway = asking().await;
    let ticket = gateway.ticket().await;
    let hashes: Vec<_> =
        [[1_u8; 32], [2; 32]].iter().map(|hash| base64::Engine::encode(&base64::engine::general_purpose::STANDARD, hash)).collect();
    let bulk = {
        let (gateway, path) = (Arc::clone(&gateway), format!("{ticket}/ds/creator/data.bulk"));
        tokio::spawn(async move { gateway.post_json(&path, json!({"dataToSign": hashes})).await })
    };
    let request = waiting(&gateway).await;
    assert_eq!((request.ask.as_ref().unwrap().uses, request.scope.digests.len()), (2, 2));
    gateway.permits.grant(&operator("anna"), request.id, None).await.unwrap();
    let signed = bulk.await.unwrap();
    assert_eq!((signed.status, signed.json().as_array().map(Vec::len)), (200, Some(2)), "{}", signed.text());
    let other = gateway.ticket_with(b"something else").await;
    gateway.permits.take_back(&operator("anna"), request.id).await.unwrap();
    let refused = start(&gateway, &other, json!({"accessTokenUuid": request.id.to_string()})).await;
    assert_eq!(refused.status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pin_is_consent_only_where_it_logs_in() {
    let with_pin = json!({"keyStorePassword": FAKE_PIN});
    let mut per_request = Plan::scripted(&Script::new("fake"), LoginMode::PerRequest, &["seal"]);
    per_request.caller("ci").caller.consent = ConsentPolicy::Operator.into();
    let gateway = per_request.start().await;
    let ticket = gateway.ticket_with(b"document").await;
    assert_eq!(start(&gateway, &ticket, with_pin.clone()).await.status, 200);
    assert_eq!(gateway.get(&format!("{ticket}/ds/data")).await.status, 200);

    let gateway = asking().await;
    let ticket = gateway.ticket_with(b"document").await;
    assert_eq!(start(&gateway, &ticket, with_pin).await.status, 200);
    gateway.permits.grant(&operator("anna"), waiting(&gateway).await.id, None).await.unwrap();
    assert_eq!(gateway.get(&format!("{ticket}/ds/data")).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_key_has_its_own_policy() {
    let mut plan = plan(&Script::new("fake"), ConsentPolicy::Auto);
    let rules = &mut plan.caller("ci").caller.consent.of_keys;
    rules.insert("seal".parse().unwrap(), ConsentPolicy::Deny);
    rules.insert("stamp".parse().unwrap(), ConsentPolicy::TwoOperators);
    let gateway = Arc::new(plan.start().await);
    let denied = gateway.ticket_with(b"document").await;
    let answer = start(&gateway, &denied, json!({})).await;
    assert_eq!((answer.status, answer.message().as_str()), (403, "Цьому клієнту не дозволено підписувати цим ключем."));
    // A permission that the configuration gives is none for a key about which two people decide.
    let auto = gateway.post_json("/accessToken", json!({"accessTimesNumber": 1})).await;
    let ticket = gateway.ticket_with(b"document").await;
    gateway.put_json(&format!("{ticket}/keyStore"), json!({"keyStorePath": "pkcs11:object=stamp"})).await;
    let answer = start(&gateway, &ticket, json!({"accessTokenUuid": auto.json()["accessTokenUuid"]})).await;
    assert_eq!((answer.status, answer.message().as_str()), (403, "Дозвіл на використання ЕП видано для інших ключів."));
    assert_eq!(start(&gateway, &ticket, json!({})).await.status, 200);
    let request = waiting(&gateway).await;
    let first = gateway.permits.grant(&operator("anna"), request.id, None).await.unwrap();
    assert_eq!(first.state, PermitState::Asked);
    assert_eq!(gateway.get(&format!("{ticket}/ds/creator")).await.status, 202);
    gateway.permits.grant(&operator("boris"), request.id, None).await.unwrap();
    assert_eq!(gateway.get(&format!("{ticket}/ds/data")).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_wait_for_an_operator_are_bounded_and_keep_nobody_else_waiting() {
    let mut plan = plan(&Script::new("fake"), ConsentPolicy::Operator);
    plan.http.limits.held_open_per_caller = 2;
    plan.permits = PermitSettings { waiting_per_caller: 1, ..PermitSettings::default() };
    let gateway = Arc::new(plan.start().await);
    let first = ask(&gateway, json!({"accessTimesNumber": 1}));
    let request = waiting(&gateway).await;
    assert_eq!(gateway.server.held_open(&"ci".parse().unwrap()), 1);
    let ticket = gateway.ticket_with(b"document").await;
    let refused = start(&gateway, &ticket, json!({})).await;
    assert_eq!((refused.status, refused.header("retry-after").is_some()), (429, true), "{}", refused.text());
    assert_eq!(gateway.post_json("/accessToken", json!({"accessTimesNumber": 1})).await.status, 429);
    let other = send(gateway.anonymous(Method::POST, "/api/v1/accessToken").bearer_auth(OTHER_KEY).json(&json!({"accessTimesNumber": 1})));
    assert_eq!(other.await.status, 200);
    gateway.permits.refuse(&operator("anna"), request.id).await.unwrap();
    assert_eq!(first.await.unwrap().status, 403);
    assert_eq!(gateway.server.held_open(&"ci".parse().unwrap()), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_when_the_server_stops_is_answered_and_asks_no_longer() {
    let gateway = asking().await;
    let mut client = TcpStream::connect(gateway.urls[0].trim_start_matches("http://")).await.unwrap();
    let body = r#"{"accessTimesNumber":1}"#;
    let head = format!(
        "POST /api/v1/accessToken HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {CI_KEY}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    client.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    let request = waiting(&gateway).await;
    let store = Arc::clone(&gateway.store);
    let Ok(gateway) = Arc::try_unwrap(gateway) else { panic!("somebody has the gateway still") };
    gateway.stop().await;
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE, client.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    let ended = tokio::time::timeout(PATIENCE, store.wait_for_decision(request.id)).await.expect("it is asked still");
    assert_eq!(ended.unwrap().state, PermitState::Withdrawn);
}
