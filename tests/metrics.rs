//! What `/metrics` shows: every metric moves with the event that it is for, to whom it is shown, and how many series there can be.
//!
//! The recorder is one for the process, so each test has a token and keys of its own names and looks at those. The gateways in this process
//! are scraped over HTTP; the one with SoftHSM is the real program.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::{
    collections::BTreeSet,
    fs,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    process::Command,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use common::{
    gateway::{Gateway, PATIENCE, Plan, send},
    program::{self, dev_json, path_in},
    prometheus::{Scrape, promtool},
};
use reqwest::{Client, Method};
use sealgate::{
    auth::AllowedPeers,
    domain::{caller::ConsentPolicy, token::LoginMode},
    signing::recovery::{LastRun, settle_claims},
    telemetry::metrics::{ALL, Exporter, Kind},
    token::{
        driver::DeviceError,
        fake::{Call, FAKE_PIN, Script},
    },
};
use serde_json::json;

fn exporter() -> Exporter {
    static EXPORTER: OnceLock<Exporter> = OnceLock::new();
    EXPORTER.get_or_init(|| Exporter::install().unwrap()).clone()
}

fn client() -> Client {
    Client::builder().no_proxy().timeout(PATIENCE).build().unwrap()
}

/// A gateway over a scripted token of this name with one key of the same name.
fn scripted(name: &str, login: LoginMode) -> (Script, Plan) {
    let exporter = exporter();
    let script = Script::new(name);
    let mut plan = Plan::scripted(&script, login, &[name]);
    plan.http.metrics.exporter = Some(exporter);
    (script, plan)
}

async fn scrape(url: &str) -> Scrape {
    let response = client().get(format!("{url}/metrics")).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    Scrape::parse(&response.text().await.unwrap())
}

/// Scrapes until what is looked for is there. A client may have its answer a moment before the answer is counted.
async fn until(url: &str, what: impl Fn(&Scrape) -> bool) -> Scrape {
    let began = Instant::now();
    loop {
        let scrape = scrape(url).await;
        if what(&scrape) {
            return scrape;
        }
        assert!(began.elapsed() < PATIENCE, "it did not come: {scrape:?}");
    }
}

async fn counted(gateway: &Gateway, key: &str, result: &str) -> Scrape {
    until(&gateway.urls[0], |scrape| scrape.sum("sealgate_signatures_total", &[("key", key), ("result", result)]) == 1.0).await
}

/// The token's label value: its URI.
fn token(gateway: &Gateway) -> String {
    gateway.tokens.slots()[0].token().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_gateway_shows_every_metric_in_a_form_that_prometheus_reads() {
    let parent = tempfile::tempdir().unwrap();
    let mut gateway = program::Gateway::dev(parent.path());
    let dev = dev_json(parent.path());
    let url = gateway.url.clone();
    let file = parent.path().join("document");
    fs::write(&file, "content").unwrap();
    let mut sign = program::sealgate();
    sign.env("SEALGATE_API_KEY", dev["api_key"].as_str().unwrap()).args(["sign", "--url", &url, "--key", "ec-p256"]).arg(&file);
    assert!(sign.output().unwrap().status.success());
    let signed = [("key", "ec-p256"), ("result", "signed")];
    let scrape = until(&url, |scrape| scrape.sum("sealgate_signatures_total", &signed) == 1.0).await;

    let text = client().get(format!("{url}/metrics")).send().await.unwrap().text().await.unwrap();
    promtool(&["check", "metrics"], &text);
    for metric in ALL {
        assert_eq!(scrape.types.get(metric.name), Some(&metric.kind.to_string()), "{}", metric.name);
        let series = if let Kind::Histogram(_) = metric.kind { format!("{}_count", metric.name) } else { metric.name.to_owned() };
        for (labels, _) in scrape.all(&series) {
            assert_eq!(
                labels.keys().map(String::as_str).collect::<BTreeSet<_>>(),
                metric.labels.iter().copied().collect(),
                "{}",
                metric.name
            );
        }
    }
    let foreign: Vec<&String> = scrape.types.keys().filter(|name| !ALL.iter().any(|metric| metric.name == *name)).collect();
    assert!(foreign.is_empty(), "not in the table: {foreign:?}");

    let token = dev["token_uri"].as_str().unwrap();
    assert_eq!(scrape.sum("sealgate_token_state", &[("state", "ready")]), 1.0, "{token}");
    assert_eq!(scrape.sum("sealgate_token_state", &[]), 1.0, "a token is in one state");
    for histogram in ["job_queue_seconds", "job_token_seconds", "verify_seconds"] {
        assert_eq!(scrape.sum(&format!("sealgate_{histogram}_count"), &[]), 1.0, "{histogram}");
        assert!(scrape.sum(&format!("sealgate_{histogram}_sum"), &[]) < 10.0, "{histogram}");
    }
    assert!(scrape.sum("sealgate_commits_total", &[]) >= 3.0, "a ticket, a job and its end");
    assert_eq!(scrape.sum("sealgate_commit_batch_size_count", &[]), scrape.sum("sealgate_commit_seconds_count", &[]));
    assert_eq!(scrape.sum("sealgate_store_reachable", &[]), 1.0);
    assert_eq!(scrape.sum("sealgate_build_info", &[("version", env!("CARGO_PKG_VERSION"))]), 1.0);
    assert_eq!(scrape.sum("sealgate_module_restarts_total", &[]), 0.0);
    assert!(scrape.sum("sealgate_http_requests_total", &[("api", "ticket"), ("method", "POST"), ("status", "200")]) >= 2.0);

    // The module's process dies and another one takes its place.
    let [child] = gateway.children()[..] else { panic!("one module, one process") };
    assert!(Command::new("kill").args(["-s", "KILL", &child.to_string()]).status().unwrap().success());
    gateway.wait_for("does not run and is started again");
    until(&url, |scrape| scrape.sum("sealgate_token_state", &[("state", "ready")]) == 1.0).await;
    let restarted = until(&url, |scrape| scrape.sum("sealgate_module_restarts_total", &[("reason", "failed")]) == 1.0).await;
    assert_eq!(restarted.sum("sealgate_module_restarts_total", &[("reason", "missing-token")]), 0.0);
    assert!(path_in(&dev["config"]).exists());
    assert!(gateway.stop().0.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_end_of_a_job_is_counted_by_key_and_result() {
    let (script, plan) = scripted("ends", LoginMode::Configured);
    let gateway = plan.start().await;
    let token = token(&gateway);
    let ticket = gateway.ticket_with(b"x").await;
    gateway.sign(&ticket).await;
    counted(&gateway, "ends", "signed").await;

    let failing = async |call: Call, error: DeviceError, result: &str| {
        script.fail(call, 1, error);
        assert_eq!(gateway.post(&format!("{ticket}/ds/creator")).await.status, 200);
        assert_eq!(gateway.get(&format!("{ticket}/ds/data")).await.status, 500);
        counted(&gateway, "ends", result).await;
    };
    failing(Call::SignInit, DeviceError::Refused("no".to_owned()), "device").await;
    failing(Call::Sign, DeviceError::Unclear("CKR_DEVICE_ERROR".to_owned()), "in-doubt").await;

    // One hangs at the token; another waits behind it and is deleted.
    let gate = script.hang(Call::Sign, 1);
    assert_eq!(gateway.post(&format!("{ticket}/ds/creator")).await.status, 200);
    gate.wait_entered();
    let mut behind = Vec::new();
    // What is claimed already cannot be cancelled: a batch of sixteen less the one that hangs.
    for _ in 0..16 {
        let waiting = gateway.ticket_with(b"x").await;
        assert_eq!(gateway.post(&format!("{waiting}/ds/creator")).await.status, 200);
        behind.push(waiting);
    }
    let last = behind.pop().unwrap();
    let waiting = until(&gateway.urls[0], |scrape| scrape.sum("sealgate_queue_depth", &[("token", &token)]) >= 1.0).await;
    assert!(waiting.sum("sealgate_queue_oldest_age_seconds", &[("token", &token)]) > 0.0);
    assert_eq!(gateway.delete(&last).await.status, 200);
    counted(&gateway, "ends", "cancelled").await;
    gate.release();
    let ended = until(&gateway.urls[0], |scrape| {
        scrape.sum("sealgate_signatures_total", &[("key", "ends"), ("result", "signed")]) == 2.0 + behind.len() as f64
    })
    .await;
    assert_eq!(ended.sum("sealgate_queue_depth", &[("token", &token)]), 0.0);
    assert_eq!(ended.sum("sealgate_queue_oldest_age_seconds", &[("token", &token)]), 0.0);

    // The last of all: the key is quarantined after it.
    script.sign_wrongly();
    assert_eq!(gateway.post(&format!("{ticket}/ds/creator")).await.status, 200);
    assert_eq!(gateway.get(&format!("{ticket}/ds/data")).await.status, 500);
    let all = counted(&gateway, "ends", "wrong-signature").await;
    // Cancelled before it came to the token, refused before the signature: these took no time of it.
    let at_token = 1.0 + 1.0 + 1.0 + behind.len() as f64 + 1.0;
    for histogram in ["sealgate_job_queue_seconds_count", "sealgate_job_token_seconds_count"] {
        assert_eq!(all.sum(histogram, &[("token", &token)]), at_token, "{histogram}");
    }
    assert!(all.sum("sealgate_tickets", &[("caller", "ci")]) >= 16.0);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_waits_too_long_for_its_token_is_counted_as_expired() {
    let (script, mut plan) = scripted("expiry", LoginMode::Configured);
    plan.signing.job_deadline = Duration::ZERO;
    let gateway = plan.start().await;
    let ticket = gateway.ticket_with(b"x").await;
    assert_eq!(gateway.post(&format!("{ticket}/ds/creator")).await.status, 200);
    let scrape = counted(&gateway, "expiry", "expired").await;
    assert_eq!(scrape.sum("sealgate_job_token_seconds_count", &[("token", &token(&gateway))]), 0.0);
    assert_eq!(script.count(Call::Sign), 0);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_a_start_finds_in_doubt_is_counted_once_and_not_as_what_came_too_late() {
    let (script, plan) = scripted("crash", LoginMode::Configured);
    let gateway = plan.start().await;
    let gate = script.hang(Call::Sign, 1);
    let ticket = gateway.ticket_with(b"x").await;
    assert_eq!(gateway.post(&format!("{ticket}/ds/creator")).await.status, 200);
    gate.wait_entered();
    // As after a power loss: another run of the gateway finds what this one has claimed.
    let last_run = LastRun { marks: gateway.directory.path(), marks_are_whole: false };
    settle_claims(&*gateway.store, last_run, &gateway.keys).await.unwrap();
    counted(&gateway, "crash", "in-doubt").await;
    gate.release();
    let another = gateway.ticket_with(b"x").await;
    gateway.sign(&another).await;
    // Tokens sign in order: the first signature has come back before the second.
    let scrape = counted(&gateway, "crash", "signed").await;
    assert_eq!(scrape.sum("sealgate_signatures_total", &[("key", "crash")]), 2.0);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_state_of_a_token_and_the_pins_that_it_rejects_are_shown() {
    let (script, plan) = scripted("states", LoginMode::PerRequest);
    let gateway = plan.start().await;
    let token = token(&gateway);
    let state = |scrape: &Scrape, state: &str| scrape.sum("sealgate_token_state", &[("token", &token), ("state", state)]);
    let url = &gateway.urls[0];
    until(url, |scrape| state(scrape, "present") == 1.0).await;
    let ticket = gateway.ticket_with(b"x").await;
    let body = json!({ "keyStorePassword": "654321" });
    gateway.post_json(&format!("{ticket}/ds/creator"), body.clone()).await;
    let rejected = until(url, |scrape| scrape.sum("sealgate_pin_rejections_total", &[("token", &token)]) == 1.0).await;
    assert_eq!(rejected.sum("sealgate_token_state", &[("token", &token)]), 1.0);
    // Refused by our own record: the token rejects nothing.
    gateway.post_json(&format!("{ticket}/ds/creator"), body).await;
    assert_eq!(script.count(Call::Login), 1);
    assert_eq!(scrape(url).await.sum("sealgate_pin_rejections_total", &[("token", &token)]), 1.0);
    script.pull();
    let pulled = until(url, |scrape| state(scrape, "absent") == 1.0).await;
    assert_eq!(state(&pulled, "present"), 0.0);
    script.put_back();
    until(url, |scrape| state(scrape, "present") == 1.0).await;
    let good = gateway.ticket_with(b"x").await;
    gateway.post_json(&format!("{good}/ds/creator"), json!({ "keyStorePassword": FAKE_PIN })).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_clients_send_makes_no_new_series() {
    let (_, plan) = scripted("bounded", LoginMode::Configured);
    let gateway = plan.start().await;
    let ticket = gateway.ticket_with(b"x").await;
    let round = async |n: usize| {
        let uri = format!("pkcs11:object=nobody-{n};serial={n}");
        gateway.put_json(&format!("{ticket}/keyStore"), json!({ "keyStorePath": uri })).await;
        gateway.post(&format!("{ticket}/ds/creator")).await;
        let path = format!("/api/v1/ticket/no-{n}/data/{n}");
        let unknown =
            gateway.anonymous(Method::GET, &path).bearer_auth(format!("key-{n:060}")).header("origin", format!("https://o{n}.example"));
        send(unknown.header("x-request-id", format!("id-{n}"))).await;
        let method = Method::from_bytes(format!("M{n}").as_bytes()).unwrap();
        let outside = gateway.anonymous(method, &format!("/some/where/{n}")).header("user-agent", n.to_string());
        outside.send().await.unwrap();
        gateway.anonymous(Method::GET, &format!("/readyz/key/key-{n}")).send().await.unwrap();
    };
    round(0).await;
    let ours = |scrape: &Scrape| {
        let names =
            ["sealgate_http_requests_total", "sealgate_http_request_seconds_count", "sealgate_signatures_total", "sealgate_tickets"];
        // Other tests of this process have keys and tokens of their own.
        let mine = |labels: &std::collections::BTreeMap<String, String>| {
            labels.get("key").is_none_or(|key| ["bounded", "-"].contains(&key.as_str()))
                && labels.get("api").is_none_or(|api| api != "ticket")
        };
        names.map(|name| scrape.all(name).filter(|(labels, _)| mine(labels)).map(|(labels, _)| labels).collect::<BTreeSet<_>>())
    };
    let before = ours(&scrape(&gateway.urls[0]).await);
    for n in 1..=1000 {
        round(n).await;
    }
    let after = scrape(&gateway.urls[0]).await;
    assert_eq!(ours(&after), before);
    let text: String = after.all("sealgate_http_requests_total").map(|(labels, _)| format!("{labels:?}")).collect();
    assert!(!text.contains("M1000") && !text.contains("somewhere"), "{text}");
    let known: BTreeSet<&str> = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "-"].into();
    for (labels, _) in after.all("sealgate_http_requests_total") {
        assert!(
            known.contains(labels["method"].as_str()) && ["ticket", "ops", "control", "-"].contains(&labels["api"].as_str()),
            "{labels:?}"
        );
    }
    assert!(after.sum("sealgate_http_requests_total", &[("api", "-"), ("method", "-")]) >= 1000.0);
    assert!(after.len() < 2000, "{}", after.len());
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_for_consent_that_ends_with_its_ticket_is_withdrawn() {
    let (_, mut plan) = scripted("withdrawn", LoginMode::Configured);
    plan.caller("ci").caller.consent = ConsentPolicy::Operator.into();
    let gateway = plan.start().await;
    let withdrawn = async || scrape(&gateway.urls[0]).await.sum("sealgate_consent_decisions_total", &[("result", "withdrawn")]);
    let before = withdrawn().await;
    let ticket = gateway.ticket_with(b"x").await;
    assert_eq!(gateway.post(&format!("{ticket}/ds/creator")).await.status, 200);
    assert_eq!(gateway.delete(&ticket).await.status, 200);
    assert_eq!(withdrawn().await, before + 1.0);
    gateway.stop().await;
}

/// An address of this machine that is not a loopback one.
fn own_address() -> std::net::IpAddr {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    // Nothing is sent: the system only chooses the address it would send from.
    socket.connect("192.0.2.254:9").expect("a route; this test needs a network interface beside the loopback one");
    socket.local_addr().unwrap().ip()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_this_machine_directly_and_the_allowed_networks_see_the_metrics() {
    let own = own_address();
    let start = async |name: &str, allow: AllowedPeers| {
        let (_, mut plan) = scripted(name, LoginMode::Configured);
        plan.http.metrics.allow = allow;
        plan.address = Ipv4Addr::UNSPECIFIED.into();
        plan.start().await
    };
    let gateway = start("closed", AllowedPeers::default()).await;
    let port = gateway.urls[0].parse::<reqwest::Url>().unwrap().port().unwrap();
    let get = |host: &str| client().get(format!("http://{}/metrics", SocketAddr::new(host.parse().unwrap(), port)));
    let status = async |request: reqwest::RequestBuilder| request.send().await.unwrap().status().as_u16();
    assert_eq!(status(get("127.0.0.1")).await, 200);
    let refused = get(&own.to_string()).send().await.unwrap();
    assert_eq!(refused.status(), 403);
    let refused = refused.text().await.unwrap();
    assert!(refused.contains("[metrics] allow") && !refused.contains("sealgate_"), "{refused}");
    // Through a proxy on this machine, or a page whose name was made to point here.
    for header in ["forwarded", "x-forwarded-for", "x-real-ip", "via"] {
        assert_eq!(status(get("127.0.0.1").header(header, "198.51.100.9")).await, 403, "{header}");
    }
    assert_eq!(status(get("127.0.0.1").header("host", "evil.example")).await, 403);
    gateway.stop().await;

    let gateway = start("open", AllowedPeers::new(vec![own.into()])).await;
    let port = gateway.urls[0].parse::<reqwest::Url>().unwrap().port().unwrap();
    let url = format!("http://{}", SocketAddr::new(own, port));
    assert!(scrape(&url).await.len() > 0);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_with_a_listener_of_their_own_are_nowhere_else_and_nothing_else_is_there() {
    let parent = tempfile::tempdir().unwrap();
    // Makes the token and a configuration, which is then served with another section.
    program::Gateway::dev(parent.path()).stop();
    let config = parent.path().join("sealgate.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{text}\n[metrics]\nlisten = \"127.0.0.1:0\"\n\n[log]\nformat = \"json\"\n")).unwrap();
    let gateway = program::Gateway::serve(&config);
    let line: serde_json::Value = serde_json::from_str(gateway.said("metrics are at")).unwrap();
    let place = line["message"].as_str().unwrap().trim_start_matches("metrics are at ").trim_end_matches("/metrics").to_owned();
    assert_eq!(scrape(&place).await.sum("sealgate_store_reachable", &[]), 1.0);
    let url = &gateway.url;
    let status = async |url: String| client().get(url).send().await.unwrap().status().as_u16();
    assert_eq!(status(format!("{url}/metrics")).await, 404);
    assert_eq!(status(format!("{url}/healthz")).await, 200);
    for elsewhere in ["/healthz", "/api/v1/status", "/slots"] {
        assert_eq!(status(format!("{place}{elsewhere}")).await, 404, "{elsewhere}");
    }
    assert!(gateway.stop().0.success());
}

#[test]
fn the_documented_table_is_the_table_in_the_code() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let operations = fs::read_to_string(root.join("docs/operations.md")).unwrap();
    let rows: Vec<Vec<&str>> = operations
        .lines()
        .filter(|line| line.starts_with("| `sealgate_"))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let documented: BTreeSet<(String, String, String)> =
        rows.iter().map(|row| (row[0].trim_matches('`').to_owned(), row[1].to_owned(), row[2].replace(['`', ' '], ""))).collect();
    let coded: BTreeSet<_> = ALL.iter().map(|metric| (metric.name.to_owned(), metric.kind.to_string(), metric.labels.join(","))).collect();
    assert_eq!(documented, coded);

    let rules = fs::read_to_string(root.join("docs/examples/prometheus-alerts.yml")).unwrap();
    let words = rules.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| word.starts_with("sealgate_"));
    for word in words {
        let plain = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| word.strip_suffix(suffix)).unwrap_or(word);
        assert!(ALL.iter().any(|metric| metric.name == plain || metric.name == word), "{word} is no metric");
    }
    promtool(&["check", "rules", root.join("docs/examples/prometheus-alerts.yml").to_str().unwrap()], "");
}

#[test]
fn a_second_recorder_is_refused() {
    let first = exporter();
    assert!(Exporter::install().is_err());
    assert!(Arc::new(first).render().contains("sealgate_build_info"));
}
