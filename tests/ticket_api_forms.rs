//! The ticket API without any token: sessions, uploads, options, who may come in, and the form of every answer.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use common::gateway::{Answer, CI_KEY, CI_ORIGIN, Gateway, OTHER_KEY, PAGE_ORIGIN, Plan, send};
use reqwest::Method;
use sealgate::{
    domain::token::{LoginMode, SlotState},
    pki::trust::authority_id,
    token::fake::Script,
};
use serde_json::{Value, json};

const SESSION_MISSING: &str = "Сесія відсутня.";
const UPLOADED: &str = "Дані сесії успішно завантажені.";
const NOT_UPLOADED: &str = "Помилка при завантаженні даних сесії.";

/// Content in a form, between two other parts.
fn form(element: &str, content: &[u8]) -> (String, Vec<u8>) {
    let part = |name: &str, content: &[u8]| {
        let head = format!("--cut\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"f\"\r\nContent-Type: text/plain\r\n\r\n");
        [head.as_bytes(), content, b"\r\n"].concat()
    };
    let body = [part("first", b"1"), part(element, content), part("last", b"2"), b"--cut--\r\n".to_vec()].concat();
    ("multipart/form-data; boundary=cut".to_owned(), body)
}

fn base64_json(content: &[u8]) -> Vec<u8> {
    json!({ "base64Data": STANDARD.encode(content), "other": [1, { "a": "}" }] }).to_string().into_bytes()
}

async fn call(gateway: &Gateway, method: &str, path: &str) -> Answer {
    send(gateway.request(method.parse().unwrap(), path)).await
}

#[tokio::test]
async fn a_session_is_made_used_and_deleted() {
    let gateway = Plan::new().start().await;
    let made = gateway.post("/ticket").await;
    assert_eq!((made.status, made.message().as_str()), (200, "Створена сесія."));
    let id = made.json()["ticketUuid"].as_str().unwrap().to_owned();
    assert_eq!(id.len(), 36);
    let deleted = gateway.delete(&format!("/ticket/{id}")).await;
    assert_eq!(deleted.json(), json!({ "message": "Сесію видалено.", "ticketUuid": id }));
    let again = gateway.delete(&format!("/ticket/{id}")).await;
    assert_eq!((again.status, again.message().as_str()), (400, SESSION_MISSING));
}

#[tokio::test]
async fn any_body_may_come_with_a_new_session_and_slashes_and_queries_do_not_matter() {
    let gateway = Plan::new().start().await;
    for (content_type, body) in [("application/json", ""), ("application/json", "[]"), ("text/plain", "{}"), ("x/y", "abc")] {
        let request = gateway.request(Method::POST, "/ticket").header("content-type", content_type).body(body);
        assert_eq!(send(request).await.status, 200, "{content_type} {body}");
    }
    for path in ["/api/v1/ticket", "/api/v1/ticket/", "/ccs/api/v1/ticket", "/ccs/api/v1/ticket/?_=1700000000000&x"] {
        assert_eq!(send(gateway.anonymous(Method::POST, path).bearer_auth(CI_KEY)).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn every_call_of_a_session_that_is_not_there_says_so() {
    let gateway = Plan::new().start().await;
    let foreign = send(gateway.anonymous(Method::POST, "/api/v1/ticket").bearer_auth(OTHER_KEY)).await.json();
    let foreign = foreign["ticketUuid"].as_str().unwrap().to_owned();
    let calls = [
        "DELETE ",
        "POST /data",
        "PUT /metadata",
        "PUT /option",
        "PUT /keyStore",
        "PUT /keyStore/verifier",
        "PUT /keyStore/certificate/info/signature",
        "PUT /keyStore/certificate/base64/signature",
        "POST /ds/creator",
        "GET /ds/creator",
        "GET /ds/data",
        "GET /ds/base64Data",
        "POST /ds/creator/data.bulk",
        "POST /ds/data",
        "POST /ds/verifier",
        "GET /ds/verifier",
        "GET /ds/signedData",
        "POST /ds/modifier",
        "POST /ts/creator",
        "GET /ts/data",
        "GET /ts/verifier",
    ];
    for id in ["00000000-0000-4000-8000-000000000000", "x", "00000000000040008000000000000000", "%20", &foreign] {
        for call_ in calls {
            let (method, rest) = call_.split_once(' ').unwrap();
            let answer = call(&gateway, method, &format!("/ticket/{id}{rest}")).await;
            assert_eq!((answer.status, answer.message().as_str()), (400, SESSION_MISSING), "{method} {id}{rest}");
        }
    }
    let mine = send(gateway.anonymous(Method::DELETE, &format!("/api/v1/ticket/{foreign}")).bearer_auth(OTHER_KEY)).await;
    assert_eq!(mine.status, 200);
}

#[tokio::test]
async fn content_is_taken_in_three_forms_and_replaced_by_the_next() {
    let gateway = Plan::new().start().await;
    let ticket = gateway.ticket().await;
    for content in [b"".as_slice(), b"text", &[0xff; 300_000]] {
        let (form_type, form_body) = form("uploadTicketData", content);
        let bodies = [
            ("application/octet-stream".to_owned(), content.to_vec()),
            ("application/json; charset=utf-8".to_owned(), base64_json(content)),
            (form_type, form_body),
        ];
        for (content_type, body) in bodies {
            let answer = gateway.upload(&ticket, &content_type, body).await;
            assert_eq!((answer.status, answer.message().as_str()), (200, UPLOADED), "{content_type} {}", content.len());
        }
    }
}

#[tokio::test]
async fn an_upload_that_cannot_be_read_says_why() {
    let gateway = Plan::new().start().await;
    let ticket = gateway.ticket().await;
    let (form_type, wrong_element) = form("somethingElse", b"x");
    let broken_form = wrong_element[..40].to_vec();
    let bad = [
        ("application/json", b"{\"base64Data\":\"!!!\"}".to_vec(), "Base64"),
        ("application/json", b"{\"base64Data\":\"YQ=\"}".to_vec(), "Base64"),
        ("application/json", b"{\"base64Data\":\"YQ==\"".to_vec(), "JSON"),
        ("application/json", b"not json".to_vec(), "JSON"),
        ("application/json", b"".to_vec(), "JSON"),
        ("application/json", b"{\"data\":\"YQ==\"}".to_vec(), "base64Data"),
        ("text/plain", b"x".to_vec(), "Content-Type"),
        ("application/x-www-form-urlencoded", b"x=1".to_vec(), "Content-Type"),
        (&form_type, wrong_element, "uploadTicketData"),
        (&form_type, broken_form, "multipart/form-data"),
        ("multipart/form-data", b"x".to_vec(), "multipart/form-data"),
    ];
    for (content_type, body, cause) in bad {
        let answer = gateway.upload(&ticket, content_type, body).await;
        assert_eq!((answer.status, answer.message().as_str()), (500, NOT_UPLOADED), "{content_type}");
        assert!(answer.cause().contains(cause), "{}", answer.text());
    }
}

#[tokio::test]
async fn what_is_too_long_is_refused_in_every_form_and_leaves_nothing_behind() {
    let mut plan = Plan::new();
    plan.tickets.upload_bytes_max = 50_000;
    plan.tickets.spool_threshold = 1_000;
    plan.http.body_bytes_max = 10_000;
    let gateway = plan.start().await;
    let ticket = gateway.ticket().await;
    let (fits, too_long) = (vec![7; 50_000], vec![7; 50_001]);
    for content in [fits, too_long] {
        let (form_type, form_body) = form("uploadTicketData", &content);
        let json_body = base64_json(&content);
        for (content_type, body) in
            [("application/octet-stream", content.clone()), ("application/json", json_body), (&form_type, form_body)]
        {
            let answer = gateway.upload(&ticket, content_type, body).await;
            let expected = if content.len() == 50_000 { 200 } else { 413 };
            assert_eq!(answer.status, expected, "{content_type}");
            assert!(expected == 200 || answer.message().contains("50000"), "{}", answer.text());
        }
    }
    let padded = [b"{\"base64Data\":\"", vec![b' '; 2_000_000].as_slice(), b"\"}"].concat();
    assert_eq!(gateway.upload(&ticket, "application/json", padded).await.status, 413);
    let metadata = gateway.put_json(&format!("{ticket}/metadata"), json!({ "metaData": "x".repeat(10_000) })).await;
    assert_eq!((metadata.status, metadata.message().contains("10000")), (413, true));
    // One spooled file, of the content that is in force; none of those it replaced, or that were refused.
    let spooled = || std::fs::read_dir(gateway.directory.path().join("spool")).unwrap().count() - 1;
    wait_until(|| spooled() == 1).await;
    assert_eq!(gateway.delete(&ticket).await.status, 200);
    wait_until(|| spooled() == 0).await;
}

/// Waits for something that another thread is about to do.
async fn wait_until(condition: impl Fn() -> bool) {
    let reached = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(common::gateway::PATIENCE, reached).await.expect("it does not come about");
}

#[tokio::test]
async fn metadata_comes_after_data() {
    let gateway = Plan::new().start().await;
    let ticket = gateway.ticket().await;
    let metadata = json!({ "metaData": "<b>Договір</b>" });
    let early = gateway.put_json(&format!("{ticket}/metadata"), metadata.clone()).await;
    assert_eq!((early.status, early.message().as_str()), (400, "Дані сесії не були завантажені перед встановленням метаданих."));
    gateway.upload(&ticket, "application/octet-stream", b"x".to_vec()).await;
    let set = gateway.put_json(&format!("{ticket}/metadata"), metadata).await;
    assert_eq!((set.status, set.message().as_str()), (200, "Метадані сесії успішно завантажені."));
    for bad in [json!({}), json!({ "metaData": 1 }), json!([]), json!("x")] {
        assert_eq!(gateway.put_json(&format!("{ticket}/metadata"), bad.clone()).await.status, 400, "{bad}");
    }
}

#[tokio::test]
async fn options_are_echoed_and_kept_and_set_all_together_or_not_at_all() {
    let gateway = Plan::new().start().await;
    let option = format!("{}/option", gateway.ticket().await);
    let ca = authority_id(gateway.ca.certificate());
    let set = gateway.put_json(&option, json!({ "signatureType": "ATTACHED", "caId": ca, "unknown": true })).await;
    assert_eq!(set.status, 200);
    assert_eq!(set.json()["settedOptions"]["signatureType"], "attached");
    let refused = gateway.put_json(&option, json!({ "signatureType": "detached", "cadesType": "CAdESXLong" })).await;
    assert_eq!(refused.status, 400);
    let kept = gateway.put_json(&option, json!({})).await.json();
    assert_eq!(
        kept["settedOptions"],
        json!({
            "signatureType": "attached", "cadesType": "undefined", "embedCertificateType": "signerCert", "embedSignatureTs": false,
            "embedDataTs": false, "signatureTsVerifyOption": "ignore", "dataTsVerifyOption": "ignore", "tsAdditionalVerifying": false,
            "duplicateSign": false, "dataToSignQualifier": "notSignedBefore", "asicForm": "NONE", "caId": ca
        })
    );
}

#[tokio::test]
async fn an_option_that_cannot_be_served_is_named() {
    let gateway = Plan::new().start().await;
    let option = format!("{}/option", gateway.ticket().await);
    let later = [
        ("cadesType", json!("CAdEST")),
        ("cadesType", json!("CADES_C")),
        ("cadesType", json!("CAdESXLong")),
        ("embedSignatureTs", json!(true)),
        ("embedDataTs", json!("true")),
    ];
    for (name, value) in later {
        let answer = gateway.put_json(&option, json!({ name: value })).await;
        assert_eq!(answer.status, 400, "{name} {value}");
        assert!(answer.message().contains(name) && answer.message().contains("недоступний на цьому шлюзі"), "{}", answer.text());
    }
    let bad = gateway.put_json(&option, json!({ "cadesType": "CAdES" })).await;
    assert_eq!(bad.status, 400);
    assert!(bad.message().contains("cadesType") && bad.message().contains("CAdESBES, CAdEST"), "{}", bad.text());
    let bare = gateway.put_json(&option, json!({ "cadesType": "CAdESBES", "embedCertificateType": "nothing" })).await;
    assert_eq!((bare.status, bare.message().contains("embedCertificateType")), (400, true));
    for broken in ["", "[]", "{", "cadesType=undefined", "{\"cadesType\":}"] {
        let answer = send(gateway.request(Method::PUT, &option).body(broken)).await;
        assert_eq!((answer.status, answer.message().contains("JSON")), (400, true), "{broken}");
    }
}

#[tokio::test]
async fn a_permission_is_granted_read_and_revoked_by_its_caller_only() {
    let gateway = Plan::new().start().await;
    let granted = gateway.post_json("/accessToken", json!({ "accessTimesNumber": 2, "metaData": "<p>", "prefViewWidth": 640.5 })).await;
    assert_eq!(granted.message(), "Запит на використання ЕП успішно оброблений. Кількість спроб: 2.");
    let path = format!("/accessToken/{}", granted.json()["accessTokenUuid"].as_str().unwrap());
    let read = gateway.get(&path).await.json();
    assert_eq!((&read["usesLeft"], &read["revoked"]), (&json!(2), &json!(false)));
    assert!(read["expires"].as_str().unwrap().ends_with('Z'));
    let foreign = send(gateway.anonymous(Method::GET, &format!("/api/v1{path}")).bearer_auth(OTHER_KEY)).await;
    assert_eq!((foreign.status, foreign.message().as_str()), (403, "Дозвіл на використання ЕП відсутній."));
    assert_eq!(gateway.delete(&path).await.status, 200);
    assert_eq!(gateway.get(&path).await.json()["revoked"], json!(true));
    assert_eq!(gateway.get("/accessToken/none").await.status, 403);
}

#[tokio::test]
async fn a_permission_for_no_number_of_signatures_is_refused() {
    let gateway = Plan::new().start().await;
    let wrong = "Запит на використання ЕП містить неправильний формат параметру \"accessTimesNumber\".";
    for number in ["0", "-1", "1.5", "1001", "\"2\"", "null", "true", "18446744073709551616"] {
        let answer = send(gateway.request(Method::POST, "/accessToken").body(format!("{{\"accessTimesNumber\":{number}}}"))).await;
        assert_eq!((answer.status, answer.message().as_str()), (400, wrong), "{number}");
    }
    for body in ["", "{}", "[]", "x"] {
        assert_eq!(send(gateway.request(Method::POST, "/accessToken").body(body)).await.status, 400, "{body}");
    }
}

#[tokio::test]
async fn a_signature_that_cannot_be_begun_says_why() {
    let gateway = Plan::new().start().await;
    let (empty, full) = (gateway.ticket().await, gateway.ticket_with(b"x").await);
    let failed = "Помилка при ініціюванні асинхронної операції створення електронного підпису.";
    let start = |ticket: &str, body: &str| {
        let request = gateway.request(Method::POST, &format!("{ticket}/ds/creator")).body(body.to_owned());
        async move { send(request).await }
    };
    let causes = [
        (&empty, "", "Дані сесії не були завантажені."),
        (&full, "", "Ключ не вибрано"),
        (&full, "{\"keyStorePassword\":\"\"}", "PIN-код відсутній"),
        (&full, "{\"keyStorePassword\":1.5}", "не є PIN-кодом"),
        (&full, "{\"accessTokenUuid\":1}", "accessTokenUuid"),
        (&full, "{\"accessTokenUuid\":\"x\",\"keyStorePassword\":\"1\"}", "Потрібно щось одне"),
        (&full, "hello", "JSON"),
    ];
    for (ticket, body, cause) in causes {
        let answer = start(ticket, body).await;
        assert_eq!((answer.status, answer.message().as_str()), (500, failed), "{body}");
        assert!(answer.cause().contains(cause), "{}", answer.text());
    }
    assert_eq!(start(&full, "{\"accessTokenUuid\":\"x\"}").await.status, 403);
    for path in ["/ds/creator", "/ds/data", "/ds/base64Data"] {
        let answer = gateway.get(&format!("{full}{path}")).await;
        assert_eq!((answer.status, answer.message().as_str()), (500, "Електронний підпис не створено."));
        assert_eq!(answer.cause(), "Створення електронного підпису не було запитано.");
    }
}

#[tokio::test]
async fn a_key_is_chosen_by_uri_and_containers_are_refused() {
    let gateway = Plan::new().start().await;
    let ticket = gateway.ticket_with(b"x").await;
    let key_store = format!("{ticket}/keyStore");
    let container =
        send(gateway.request(Method::PUT, &key_store).header("content-type", "application/octet-stream").body(vec![0x30; 99])).await;
    assert_eq!((container.status, container.cause().contains("pkcs11:")), (500, true));
    let bad = [
        (json!({ "base64Data": "MII=" }), "токенах"),
        (json!({ "keyStorePath": "C:\\key.dat" }), "pkcs11:"),
        (json!({ "keyStorePath": "pkcs11:?pin-value=123456" }), "pin-value"),
        (json!({ "keyStorePath": 1 }), "keyStorePath"),
        (json!({}), "keyStorePath"),
        (json!([]), "JSON"),
    ];
    for (body, cause) in bad {
        let answer = gateway.put_json(&key_store, body).await;
        assert_eq!(answer.status, 500, "{}", answer.text());
        assert!(answer.cause().contains(cause) && !answer.cause().contains("123456"), "{}", answer.text());
    }
    assert_eq!(gateway.put_json(&key_store, json!({ "keyStorePath": "pkcs11:token=nobody" })).await.status, 200);
    let start = gateway.post(&format!("{ticket}/ds/creator")).await;
    assert_eq!((start.status, start.cause().as_str()), (500, "Токен, що відповідає цьому URI, не підключено."));
}

#[tokio::test]
async fn the_service_says_what_it_has_also_where_it_has_nothing() {
    let gateway = Plan::new().start().await;
    let status = gateway.get("/status").await;
    assert_eq!((status.status, status.message().as_str()), (503, "Сервіс виконання криптографічних операцій не запущено."));
    assert!(status.header("retry-after").unwrap().parse::<u32>().unwrap() > 0);
    let authorities = gateway.get("/certificateAuthority/supported").await.json()["ca"].clone();
    assert_eq!(authorities.as_array().unwrap().iter().map(|ca| ca["name"].clone()).collect::<Vec<_>>(), ["Test CA"]);
    assert!(!gateway.get("/features").await.json()["features"].as_array().unwrap().is_empty());
    let connected = gateway.get("/token/connected").await.json();
    for list in ["passiveTokenPath", "activeTokenPath", "tokenInfo"] {
        assert_eq!(connected[list], json!([]));
    }
    for path in ["/certificateInfo/signature", "/certificateInfo/keyAgreement", "/certificate/base64/signature"] {
        assert_eq!(gateway.get(path).await.json(), json!({}), "{path}");
    }
    assert_eq!(gateway.get("/certificateInfo/other").await.status, 400);
}

#[tokio::test]
async fn unknown_paths_and_methods_are_answered_in_json() {
    let gateway = Plan::new().start().await;
    for path in ["/nothing", "/ticket/a/b/c", "/", ""] {
        assert_eq!(gateway.get(path).await.status, 404, "{path}");
    }
    assert_eq!(send(gateway.anonymous(Method::GET, "/elsewhere")).await.status, 404);
    let wrong = gateway.get("/ticket").await;
    assert_eq!((wrong.status, wrong.header("allow")), (405, Some("POST")));
    assert_eq!(call(&gateway, "PATCH", "/ticket/x/ds/creator").await.header("allow"), Some("GET, POST"));
}

#[tokio::test]
async fn messages_come_in_three_languages() {
    let gateway = Plan::new().start().await;
    let created = |language: Option<&'static str>| {
        let request = gateway.request(Method::POST, "/ticket");
        let request = language.map_or(request.try_clone().unwrap(), |language| request.header("accept-language", language));
        async move { send(request).await.message() }
    };
    assert_eq!(created(None).await, "Створена сесія.");
    assert_eq!(created(Some("ru-RU,ru;q=0.9")).await, "Создана сессия.");
    assert_eq!(created(Some("de, en;q=0.5")).await, "The session was created.");
    assert_eq!(created(Some("*")).await, "Створена сесія.");
    assert_eq!(gateway.post("/language/xx").await.status, 400);
    assert_eq!(gateway.post("/language/ru").await.status, 200);
    assert_eq!(created(None).await, "Создана сессия.");
    assert_eq!(created(Some("en")).await, "The session was created.");
    let missing = send(gateway.request(Method::DELETE, "/ticket/x")).await;
    assert_eq!(missing.message(), "Сессия отсутствует.");
    let other = send(gateway.anonymous(Method::POST, "/api/v1/ticket").bearer_auth(OTHER_KEY)).await;
    assert_eq!(other.message(), "Створена сесія.");
}

#[tokio::test]
async fn a_page_that_chose_a_language_keeps_it_whatever_its_browser_sends() {
    let gateway = Plan::new().start().await;
    let page =
        |method, path: &str| gateway.anonymous(method, path).header("origin", PAGE_ORIGIN).header("accept-language", "en-US,en;q=0.9");
    assert_eq!(send(page(Method::POST, "/api/v1/ticket")).await.message(), "The session was created.");
    send(page(Method::POST, "/api/v1/language/uk")).await;
    assert_eq!(send(page(Method::POST, "/api/v1/ticket")).await.message(), "Створена сесія.");
}

#[tokio::test]
async fn nobody_unknown_comes_in() {
    let gateway = Plan::new().start().await;
    let ask = |request: reqwest::RequestBuilder| async move { send(request).await };
    for path in ["/api/v1/status", "/ccs/api/v1/features", "/api/v1/nothing"] {
        let unknown = ask(gateway.anonymous(Method::GET, path)).await;
        assert_eq!((unknown.status, unknown.header("www-authenticate")), (401, Some("Bearer")), "{path}");
        assert_eq!(ask(gateway.anonymous(Method::GET, path).bearer_auth("wrong")).await.status, 401);
        let foreign = gateway.anonymous(Method::GET, path).bearer_auth(CI_KEY).header("origin", "https://evil.example");
        assert_eq!(ask(foreign).await.status, 403);
        let rebound = gateway.anonymous(Method::GET, path).bearer_auth(CI_KEY).header("host", "evil.example");
        assert_eq!(ask(rebound).await.status, 403);
    }
    // What a page of any origin can send without asking first.
    let simple = gateway
        .anonymous(Method::POST, "/api/v1/ticket")
        .header("origin", "https://evil.example")
        .header("content-type", "text/plain")
        .body("{}");
    let refused = send(simple).await;
    assert_eq!((refused.status, refused.header("access-control-allow-origin")), (403, None));
}

#[tokio::test]
async fn configured_pages_are_served_and_told_so() {
    let gateway = Plan::new().start().await;
    let by_origin = send(gateway.anonymous(Method::POST, "/api/v1/ticket").header("origin", PAGE_ORIGIN)).await;
    assert_eq!((by_origin.status, by_origin.header("access-control-allow-origin")), (200, Some(PAGE_ORIGIN)));
    let with_key = send(gateway.request(Method::DELETE, "/ticket/x").header("origin", CI_ORIGIN)).await;
    assert_eq!((with_key.status, with_key.header("access-control-allow-origin")), (400, Some(CI_ORIGIN)));
    let wrong_page = send(gateway.request(Method::GET, "/status").header("origin", PAGE_ORIGIN)).await;
    assert_eq!(wrong_page.status, 403);
    assert_eq!(send(gateway.request(Method::GET, "/features")).await.header("access-control-allow-origin"), None);
}

#[tokio::test]
async fn a_preflight_is_granted_to_configured_origins_only() {
    let gateway = Plan::new().start().await;
    let preflight = |origin: &str, private: bool| {
        let request = gateway
            .anonymous(Method::OPTIONS, "/api/v1/ticket/x/data")
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "content-type,authorization,access-control-allow-origin");
        if private { request.header("access-control-request-private-network", "true") } else { request }
    };
    let granted = send(preflight(PAGE_ORIGIN, false)).await;
    assert_eq!((granted.status, granted.header("access-control-allow-origin")), (204, Some(PAGE_ORIGIN)));
    assert_eq!(granted.header("access-control-allow-methods"), Some("GET, POST, PUT, DELETE, OPTIONS"));
    let headers = "Content-Type, Accept, Authorization, Idempotency-Key, X-Request-Id, Access-Control-Allow-Origin";
    assert_eq!(granted.header("access-control-allow-headers"), Some(headers));
    assert_eq!(granted.header("access-control-allow-private-network"), None);
    assert!(granted.header("vary").unwrap().contains("Origin"));
    assert_eq!(send(preflight(PAGE_ORIGIN, true)).await.header("access-control-allow-private-network"), Some("true"));
    let refused = send(preflight("https://evil.example", true)).await;
    assert_eq!((refused.status, refused.header("access-control-allow-origin")), (403, None));
    assert_eq!(refused.header("access-control-allow-private-network"), None);
}

#[tokio::test]
async fn a_listener_that_is_bound_to_a_caller_serves_clients_without_credentials() {
    let mut plan = Plan::new();
    plan.listeners = vec![None, Some("old")];
    let gateway = plan.start().await;
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let bare = |url: &str| http.post(format!("{url}/api/v1/ticket"));
    assert_eq!(send(bare(&gateway.urls[0])).await.status, 401);
    let made = send(bare(&gateway.urls[1])).await;
    assert_eq!(made.status, 200);
    let ticket = made.json()["ticketUuid"].as_str().unwrap().to_owned();
    assert_eq!(gateway.delete(&format!("/ticket/{ticket}")).await.status, 400);
    assert_eq!(send(http.delete(format!("{}/api/v1/ticket/{ticket}", gateway.urls[1]))).await.status, 200);
    assert_eq!(send(bare(&gateway.urls[1]).header("origin", PAGE_ORIGIN)).await.status, 403);
}

#[tokio::test]
async fn a_caller_has_a_limited_number_of_sessions_which_end_when_they_are_idle() {
    let mut plan = Plan::new();
    plan.tickets.tickets_per_caller = 2;
    plan.tickets.spool_threshold = 10;
    let gateway = plan.start().await;
    gateway.ticket_with(&[0; 100]).await;
    gateway.ticket().await;
    let one_more = gateway.post("/ticket").await;
    assert_eq!((one_more.status, one_more.header("retry-after").is_some()), (429, true));
    let hour = Duration::from_secs(3601);
    let in_an_hour = sealgate::domain::timestamp::Timestamp::from(std::time::SystemTime::now()).after(hour);
    assert_eq!(gateway.tickets.remove_idle(in_an_hour).await, Ok(2));
    wait_until(|| std::fs::read_dir(gateway.directory.path().join("spool")).unwrap().count() == 1).await;
    assert_eq!(gateway.post("/ticket").await.status, 200);
}

#[tokio::test]
async fn the_routes_of_operators_are_not_served_to_callers() {
    let gateway = Plan::new().start().await;
    for path in ["/slots", "/keys", "/unlock", "/health"] {
        assert_eq!(send(gateway.anonymous(Method::GET, path).bearer_auth(CI_KEY)).await.status, 404, "{path}");
    }
    let http = reqwest::Client::builder().unix_socket(gateway.control_socket.clone()).build().unwrap();
    let health = http.get("http://gateway/health").send().await.unwrap();
    assert_eq!(health.json::<Value>().await.unwrap(), json!({ "can_sign": false, "module_problems": {} }));
    let ticket = http.post("http://gateway/api/v1/ticket").send().await.unwrap();
    assert_eq!(ticket.status(), 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_is_told_without_credentials() {
    let script = Script::new("fake");
    let gateway = Plan::scripted(&script, LoginMode::Configured, &["one"]).start().await;
    let ask = async |path: &str| {
        let answer = gateway.anonymous(Method::GET, path).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    assert_eq!(ask("/healthz").await, (200, json!({ "status": "alive" })));
    assert_eq!(ask("/readyz").await, (200, json!({ "status": "ready" })));
    assert_eq!(ask("/readyz/key/one").await, (200, json!({ "status": "ready" })));
    assert_eq!(ask("/readyz/key/none").await.0, 404);
    script.pull();
    let slot = gateway.tokens.find(&"pkcs11:".parse().unwrap()).unwrap();
    slot.watch().wait_for(|status| status.state == SlotState::Absent).await.unwrap();
    let (status, body) = ask("/readyz/key/one").await;
    assert_eq!((status, &body["status"]), (503, &json!("not ready")));
    assert!(body["reason"].as_str().unwrap().contains("absent"), "{body}");
    assert_eq!(ask("/readyz").await.0, 200);
    gateway.stop().await;
}
