//! Who may do what: scopes, and callers that come and go while the gateway runs.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::{fs, path::Path};

use common::{
    gateway::{Plan, send},
    program::{self, Gateway, dev_json, path_in, run, stderr, stdout},
};
use reqwest::{Method, StatusCode};
use sealgate::domain::caller::{Rate, Scope};
use serde_json::Value;

#[tokio::test]
async fn a_caller_without_the_scope_of_the_ticket_api_is_told_so_in_its_form() {
    let mut plan = Plan::new();
    plan.caller("ci").caller.scopes = [Scope::CscApi].into_iter().collect();
    let gateway = plan.start().await;
    for (method, path) in [(Method::GET, "/features"), (Method::POST, "/ticket"), (Method::GET, "/no-such-path")] {
        let refused = send(gateway.request(method, path).header("accept-language", "en")).await;
        assert_eq!((refused.status, refused.message().contains("may not use this service")), (403, true), "{}", refused.text());
    }
    gateway.stop().await;
}

#[tokio::test]
async fn a_callers_own_rate_goes_before_that_of_all() {
    let mut plan = Plan::new();
    plan.http.limits.this_machine = true;
    plan.caller("ci").caller.rate = Some(Rate { per_second: 1, burst: 1 });
    let gateway = plan.start().await;
    let mut statuses = Vec::new();
    // Time passes meanwhile, so that some more may be taken.
    while statuses.last() != Some(&429) && statuses.len() < 1000 {
        statuses.push(gateway.get("/features").await.status);
    }
    assert!(statuses.contains(&200) && statuses.len() < 1000, "{statuses:?}");
    let other = gateway.anonymous(Method::GET, "/api/v1/features").bearer_auth(common::gateway::OTHER_KEY);
    assert_eq!(send(other).await.status, 200);
    gateway.stop().await;
}

/// `sealgate callers …` on the gateway of this folder.
fn callers(dir: &Path, arguments: &[&str]) -> std::process::Output {
    let (verb, rest) = arguments.split_first().unwrap();
    run(["callers", verb, "--dir", dir.to_str().unwrap()].iter().chain(rest))
}

/// The same, and what it prints.
fn done(dir: &Path, arguments: &[&str]) -> String {
    let output = callers(dir, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
    stdout(&output).trim().to_owned()
}

async fn features(url: &str, key: &str) -> StatusCode {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    client.get(format!("{url}/api/v1/features")).bearer_auth(key).send().await.unwrap().status()
}

#[tokio::test]
async fn callers_come_and_go_while_the_gateway_runs_and_while_it_does_not() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("dev");
    let gateway = Gateway::dev(&dir);
    let add =
        ["add", "erp", "--key", "ec-p256", "--rate", "50/100", "--expires", "30d", "--consent", "auto", "--consent-for", "ec-p256=deny"];
    let first = done(&dir, &add);
    assert!(first.len() == 38 && first.chars().all(|c| c.is_ascii_alphanumeric()), "{first}");
    assert_eq!(features(&gateway.url, &first).await, 200);

    let second = done(&dir, &["rotate", "erp", "--grace", "1h"]);
    assert_eq!([features(&gateway.url, &first).await, features(&gateway.url, &second).await], [StatusCode::OK; 2]);
    let third = done(&dir, &["rotate", "erp", "--grace", "0"]);
    assert_eq!([features(&gateway.url, &first).await, features(&gateway.url, &second).await], [StatusCode::UNAUTHORIZED; 2]);
    assert_eq!(features(&gateway.url, &third).await, 200);

    let listed: Value = serde_json::from_str(&done(&dir, &["list", "--json"])).unwrap();
    let erp = listed["callers"].as_array().unwrap().iter().find(|caller| caller["name"] == "erp").unwrap();
    assert_eq!((&erp["state"], &erp["rate"]["burst"], &erp["keys"]["only"][0]), (&"active".into(), &100.into(), &"ec-p256".into()));
    assert_eq!(erp["consent_for"]["ec-p256"], "deny", "{erp}");
    assert!(done(&dir, &["show", "erp"]).contains("auto, ec-p256: deny"));
    for refused in [&["add", "dev", "--all-keys"][..], &["rotate", "dev"], &["revoke", "nobody"], &["add", "crm", "--key", "no-such-key"]] {
        let output = callers(&dir, refused);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{refused:?}: {}", stderr(&output));
    }

    // Without a gateway the same commands work on its folder, and the next start knows what they did.
    let config = path_in(&dev_json(&dir)["config"]);
    gateway.stop();
    let fourth = done(&dir, &["rotate", "erp", "--grace", "1h"]);
    let gateway = Gateway::serve(&config);
    assert_eq!([features(&gateway.url, &third).await, features(&gateway.url, &fourth).await], [StatusCode::OK; 2]);
    done(&dir, &["revoke", "erp"]);
    assert_eq!([features(&gateway.url, &third).await, features(&gateway.url, &fourth).await], [StatusCode::UNAUTHORIZED; 2]);
    let (status, log) = gateway.stop();
    assert!(status.success() && ![&first, &second, &third, &fourth].iter().any(|key| log.contains(*key)), "{log}");
    let kept = fs::read(dir.join("sealgate.db")).unwrap();
    assert!(!kept.windows(38).any(|window| window == fourth.as_bytes()), "the database holds an API key");

    let export = run(["audit", "verify", dir.to_str().unwrap()]);
    assert!(export.status.success(), "{}", stderr(&export));
}

#[tokio::test]
async fn the_bank_token_of_development_mode_is_a_caller_for_the_certificate_request_api_alone() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("dev");
    let gateway = Gateway::dev(&dir);
    let token = dev_json(&dir)["bank_token"].as_str().unwrap().to_owned();
    assert!(token.len() == 38 && token.chars().all(|c| c.is_ascii_alphanumeric()));
    assert_eq!(features(&gateway.url, &token).await, 403);
    let shown: Value = serde_json::from_str(&done(&dir, &["show", "bank", "--json"])).unwrap();
    assert_eq!((shown["configured"].as_bool(), shown["account"]["eio"].as_bool()), (Some(true), Some(true)), "{shown}");
    drop(gateway);
}

#[test]
fn a_name_in_the_configuration_and_among_the_added_stops_the_start_and_says_how_to_go_on() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("dev");
    Gateway::dev(&dir).stop();
    done(&dir, &["add", "erp", "--all-keys"]);
    let config = dir.join("sealgate.toml");
    let text = fs::read_to_string(&config).unwrap().replace("name = \"dev\"", "name = \"erp\"");
    fs::write(&config, text).unwrap();
    let output = program::run(["serve", "--config", config.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("sealgate callers remove erp"), "{}", stderr(&output));
    done(&dir, &["remove", "erp"]);
    Gateway::serve(&config).stop();
}

/// Every call of the ticket API that names something by an id: method, path, body. `{}` is the id.
const BY_TICKET: [(&str, &str, &str); 27] = [
    ("POST", "/ticket/{}/data", "content"),
    ("PUT", "/ticket/{}/metadata", r#"{"metaData":"bWV0YQ=="}"#),
    ("PUT", "/ticket/{}/option", r#"{"duplicateSign":false}"#),
    ("PUT", "/ticket/{}/keyStore", "{}"),
    ("PUT", "/ticket/{}/keyStore/verifier", r#"{"keyStorePassword":"1234"}"#),
    ("PUT", "/ticket/{}/keyStore/certificate/info/signature", r#"{"keyStorePassword":"1234"}"#),
    ("PUT", "/ticket/{}/keyStore/certificate/base64/signature", r#"{"keyStorePassword":"1234"}"#),
    ("GET", "/ticket/{}/ds/creator", ""),
    ("POST", "/ticket/{}/ds/creator", ""),
    ("POST", "/ticket/{}/ds/creator/data.bulk", r#"["47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="]"#),
    ("GET", "/ticket/{}/ds/data", ""),
    ("POST", "/ticket/{}/ds/data", ""),
    ("GET", "/ticket/{}/ds/base64Data", ""),
    ("GET", "/ticket/{}/ds/verifier", ""),
    ("POST", "/ticket/{}/ds/verifier", ""),
    ("GET", "/ticket/{}/ds/signedData", ""),
    ("GET", "/ticket/{}/ds/base64SignedData", ""),
    ("GET", "/ticket/{}/ds/modifier", ""),
    ("POST", "/ticket/{}/ds/modifier", ""),
    ("GET", "/ticket/{}/ds/modifiedData", ""),
    ("GET", "/ticket/{}/ds/base64ModifiedData", ""),
    ("GET", "/ticket/{}/ts/creator", ""),
    ("POST", "/ticket/{}/ts/creator", ""),
    ("GET", "/ticket/{}/ts/data", ""),
    ("GET", "/ticket/{}/ts/base64Data", ""),
    ("GET", "/ticket/{}/ts/verifier", ""),
    // The last one, for it would end the ticket.
    ("DELETE", "/ticket/{}", ""),
];
const BY_PERMIT: [(&str, &str, &str); 2] = [("GET", "/accessToken/{}", ""), ("DELETE", "/accessToken/{}", "")];

#[tokio::test]
async fn what_a_caller_makes_does_not_exist_for_another_whatever_is_asked() {
    let script = sealgate::token::fake::Script::new("fake");
    let gateway = Plan::scripted(&script, sealgate::domain::token::LoginMode::Configured, &["seal"]).start().await;
    let ticket = gateway.ticket_with(b"content").await;
    let signature = gateway.sign(&ticket).await;
    let permit = gateway.post_json("/accessToken", serde_json::json!({ "accessTimesNumber": 3 })).await.json();
    let permit = permit["accessTokenUuid"].as_str().unwrap().to_owned();
    let ask = async |key: &str, (method, path, body): (&str, &str, &str), id: &str| {
        let path = format!("/api/v1{}", path.replace("{}", id));
        let request = gateway.anonymous(method.parse().unwrap(), &path).bearer_auth(key).header("accept-language", "en");
        let kind = if body == "content" { "application/octet-stream" } else { "application/json" };
        let request = if body.is_empty() { request } else { request.header("content-type", kind).body(body.to_owned()) };
        let answer = send(request).await;
        (answer.status, answer.text())
    };
    let id = ticket.strip_prefix("/ticket/").unwrap();
    let unknown = uuid::Uuid::new_v4().to_string();
    let all = BY_TICKET.iter().map(|call| (call, id)).chain(BY_PERMIT.iter().map(|call| (call, permit.as_str())));
    for (call, id) in all {
        let foreign = ask(common::gateway::OTHER_KEY, *call, id).await;
        let nothing = ask(common::gateway::OTHER_KEY, *call, &unknown).await;
        assert_eq!(foreign, nothing, "{call:?}");
        assert!((400..500).contains(&foreign.0), "{call:?}: {}", foreign.1);
    }
    // Another's permission pays for nothing, and nothing of its owner's has changed.
    let own = send(gateway.anonymous(Method::POST, "/api/v1/ticket").bearer_auth(common::gateway::OTHER_KEY)).await.json();
    let own = own["ticketUuid"].as_str().unwrap().to_owned();
    ask(common::gateway::OTHER_KEY, ("POST", "/ticket/{}/data", "content"), &own).await;
    let with = |token: &str| format!(r#"{{"accessTokenUuid":"{token}"}}"#);
    let foreign = ask(common::gateway::OTHER_KEY, ("POST", "/ticket/{}/ds/creator", &with(&permit)), &own).await;
    let nothing = ask(common::gateway::OTHER_KEY, ("POST", "/ticket/{}/ds/creator", &with(&unknown)), &own).await;
    assert_eq!((foreign.0, foreign == nothing), (nothing.0, true), "{} {}", foreign.1, nothing.1);
    let left = gateway.get(&format!("/accessToken/{permit}")).await;
    assert_eq!(left.status, 200, "{}", left.text());
    let fetched = gateway.get(&format!("{ticket}/ds/data")).await;
    assert_eq!((fetched.status, fetched.body), (200, signature));
    gateway.stop().await;
}
