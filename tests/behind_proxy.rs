//! The gateway behind nginx, with the configuration of docs/examples/nginx.conf.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::{
    collections::HashMap,
    env, fs,
    net::{IpAddr, TcpListener},
    process::Command,
    time::Duration,
};

use common::{
    console::{Browser, PASSWORD, add, until},
    daemon::Daemon,
    gateway::{Answer, CI_KEY, Gateway, PATIENCE, Plan, send},
    tls::{TlsCa, client},
};
use reqwest::{Client, Method, RequestBuilder, redirect::Policy};
use sealgate::{
    auth::{AllowedHosts, AllowedPeers, Rate, TrustedProxies},
    domain::{
        caller::{ConsentPolicy, KeyAccess},
        operator::Role,
        token::LoginMode,
    },
    http::app::LimitSettings,
    token::fake::{Call, Script},
};
use serde_json::json;

/// Set to make requests wait for as long as they may in earnest.
const LONG: &str = "SEALGATE_TEST_LONG";
/// nginx's default, after which it gives a request up.
const NGINX_READ_TIMEOUT: Duration = Duration::from_secs(60);

/// A gateway that trusts 127.0.0.1, and an nginx before it.
struct Rig {
    _nginx: Daemon,
    ca: TlsCa,
    port: u16,
    gateway: Gateway,
}

impl Rig {
    async fn start(mut plan: Plan) -> Self {
        plan.http.trusted_proxies = TrustedProxies::new(vec!["127.0.0.1/32".parse().unwrap()]);
        plan.http.hosts = AllowedHosts::new(["sign.example.org".to_owned()]).unwrap();
        let gateway = plan.start().await;
        let dir = gateway.directory.path().join("nginx");
        fs::create_dir(&dir).unwrap();
        let ca = TlsCa::new(&dir, "ca");
        let files = ca.server("nginx");
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let example = include_str!("../docs/examples/nginx.conf");
        let mut site = example.to_owned();
        for (written, here) in [
            ("127.0.0.1:9091;", format!("{};", gateway.server.addresses()[0])),
            ("listen 443 ssl;", format!("listen 127.0.0.1:{port} ssl;")),
            ("/etc/ssl/sealgate/cert.pem", files.certificate.display().to_string()),
            ("/etc/ssl/sealgate/key.pem", files.key.display().to_string()),
        ] {
            assert!(site.contains(written), "{written}");
            site = site.replace(written, &here);
        }
        fs::write(dir.join("site.conf"), site).unwrap();
        let temp = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|kind| format!("{kind}_temp_path temp-{kind};\n")).concat();
        let main = format!(
            "user root;\nworker_processes 1;\npid nginx.pid;\nerror_log stderr notice;\nevents {{}}\nhttp {{\naccess_log off;\n{temp}include site.conf;\n}}\n"
        );
        fs::write(dir.join("nginx.conf"), main).unwrap();
        let mut nginx = Command::new("nginx");
        nginx.env("PATH", "/usr/sbin:/usr/local/sbin:/usr/bin:/bin");
        // In the foreground and as one process: it ends with the test.
        nginx.args(["-e", "stderr", "-g", "daemon off; master_process off;", "-c", "nginx.conf", "-p"]).arg(&dir);
        let nginx = Daemon::start(&mut nginx, "OS: ");
        Self { _nginx: nginx, ca, port, gateway }
    }

    /// A client of nginx that has this loopback address, and knows it by its public name.
    fn client(&self, address: &str) -> Client {
        let server = format!("127.0.0.1:{}", self.port).parse().unwrap();
        let builder = client(&self.ca).local_address(address.parse::<IpAddr>().unwrap()).tls_danger_accept_invalid_hostnames(true);
        builder.resolve("sign.example.org", server).redirect(Policy::none()).timeout(5 * PATIENCE).build().unwrap()
    }

    fn ask(&self, client: &Client, method: Method, path: &str) -> RequestBuilder {
        client.request(method, format!("https://sign.example.org:{}{path}", self.port))
    }

    async fn features(&self, client: &Client) -> Answer {
        send(self.ask(client, Method::GET, "/api/v1/features").bearer_auth(CI_KEY)).await
    }
}

#[tokio::test]
async fn the_address_that_counts_is_the_clients_and_a_forged_one_is_nobodys() {
    let mut plan = Plan::new();
    let (one, none) = (Rate { per_second: 1, burst: 1 }, Rate { per_second: 0, burst: 1 });
    plan.http.limits = LimitSettings { per_caller: none, per_address: one, this_machine: true, ..LimitSettings::default() };
    let rig = Rig::start(plan).await;
    let (one, two) = (rig.client("127.0.0.2"), rig.client("127.0.0.3"));
    let mut refused = false;
    for n in 0..1000 {
        // A new address with each request would be a new account each time, if it were believed.
        let forged = rig.ask(&one, Method::GET, "/api/v1/features").bearer_auth(CI_KEY).header("x-forwarded-for", format!("192.0.2.{n}"));
        refused = send(forged).await.status == 429;
        if refused {
            break;
        }
    }
    assert!(refused, "a forged X-Forwarded-For was believed");
    assert_eq!(rig.features(&two).await.status, 200, "another client of the same proxy");
    rig.gateway.stop().await;
}

#[tokio::test]
async fn a_client_that_is_no_proxy_is_not_believed() {
    let rig = Rig::start(Plan::new()).await;
    let direct = Client::builder().no_proxy().local_address("127.0.0.9".parse::<IpAddr>().unwrap()).build().unwrap();
    let url = format!("{}/api/v1/features", rig.gateway.urls[0]);
    // It may call itself what it wants; only `Host` counts, and that one counts for everybody.
    let ask = |host: &str, told: &str| direct.get(&url).bearer_auth(CI_KEY).header("host", host).header("x-forwarded-host", told);
    assert_eq!(send(ask("sign.example.org", "evil.example")).await.status, 200);
    assert_eq!(send(ask("evil.example", "sign.example.org")).await.status, 403);
    // The audit log has the address that the gateway saw itself, and through the proxy the one that the proxy saw.
    let ticket = |client: &Client, url: String| send(client.post(url).bearer_auth(CI_KEY).header("x-forwarded-for", "192.0.2.66"));
    assert_eq!(ticket(&direct, format!("{}/api/v1/ticket", rig.gateway.urls[0])).await.status, 200);
    let proxied = rig.client("127.0.0.7");
    assert_eq!(ticket(&proxied, format!("https://sign.example.org:{}/api/v1/ticket", rig.port)).await.status, 200);
    let store = &rig.gateway.store;
    let log = store.audit_logs().await.unwrap()[0];
    let records = format!("{:?}", store.audit_records(log, 0, 100).await.unwrap());
    assert!(records.contains("127.0.0.9") && records.contains("127.0.0.7") && !records.contains("192.0.2.66"), "{records}");
    rig.gateway.stop().await;
}

#[tokio::test]
async fn a_name_that_is_not_the_gateways_is_refused_behind_the_proxy_too() {
    let rig = Rig::start(Plan::new()).await;
    let client = rig.client("127.0.0.2");
    assert_eq!(rig.features(&client).await.status, 200);
    let rebound = rig.ask(&client, Method::GET, "/api/v1/features").bearer_auth(CI_KEY).header("host", "evil.example");
    assert_eq!(send(rebound.header("x-forwarded-host", "sign.example.org")).await.status, 403);
    rig.gateway.stop().await;
}

#[tokio::test]
async fn a_listener_that_stands_for_a_caller_does_not_stand_for_those_behind_the_proxy() {
    let mut plan = Plan::new();
    plan.listeners = vec![Some("old")];
    plan.http.metrics.allow = AllowedPeers::default();
    let rig = Rig::start(plan).await;
    let anonymous = rig.gateway.anonymous(Method::GET, "/api/v1/features");
    assert_eq!(send(anonymous).await.status, 200);
    let told = rig.gateway.anonymous(Method::GET, "/api/v1/features").header("x-forwarded-for", "192.0.2.7");
    assert_eq!(send(told).await.status, 401);
    rig.gateway.stop().await;
}

#[tokio::test]
async fn the_numbers_are_not_shown_through_the_proxy() {
    let rig = Rig::start(Plan::new()).await;
    let answer = rig.ask(&rig.client("127.0.0.2"), Method::GET, "/metrics").send().await.unwrap();
    assert_eq!(answer.status(), 404);
    rig.gateway.stop().await;
}

#[tokio::test]
async fn uploads_and_requests_that_wait_go_through_whole() {
    let script = Script::new("proxied");
    let mut plan = Plan::scripted(&script, LoginMode::Configured, &["seal"]);
    let long = env::var_os(LONG).is_some();
    plan.tickets.blocking_get_bound = if long { 2 * NGINX_READ_TIMEOUT + Duration::from_secs(5) } else { Duration::from_secs(2) };
    plan.signing.job_deadline = Duration::from_secs(600);
    let rig = Rig::start(plan).await;
    let client = rig.client("127.0.0.2");
    let ask = |method, path: &str| rig.ask(&client, method, &format!("/api/v1{path}")).bearer_auth(CI_KEY);
    let created = send(ask(Method::POST, "/ticket")).await;
    let ticket = format!("/ticket/{}", created.json()["ticketUuid"].as_str().unwrap());
    // More than nginx takes by default.
    let upload = ask(Method::POST, &format!("{ticket}/data")).header("content-type", "application/octet-stream").body(vec![7; 8 << 20]);
    assert_eq!(send(upload).await.status, 200);
    let gate = script.hang(Call::Sign, 1);
    assert_eq!(send(ask(Method::POST, &format!("{ticket}/ds/creator"))).await.status, 200);
    // For as long as the gateway lets it wait the answer is the gateway's own, not a gateway timeout of nginx.
    assert_eq!(send(ask(Method::GET, &format!("{ticket}/ds/data"))).await.status, 202);
    gate.release();
    assert_eq!(send(ask(Method::GET, &format!("{ticket}/ds/data"))).await.status, 200);
    rig.gateway.stop().await;
}

/// Two requests at once: one is shown to an operator as it comes and is decided; the other waits for its two minutes, twice as long as nginx waits
/// by default.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consent_is_waited_for_and_given_through_the_proxy() {
    let script = Script::new("proxied");
    let mut plan = Plan::scripted(&script, LoginMode::Configured, &["seal"]);
    plan.caller("ci").caller.consent = ConsentPolicy::Operator.into();
    let rig = Rig::start(plan).await;
    add(&rig.gateway, "ann", Role::Approver, KeyAccess::All).await;
    let base = format!("https://sign.example.org:{}", rig.port);
    let mut ann = Browser { http: rig.client("127.0.0.3"), base, cookies: HashMap::new() };
    let page = ann.log_in("ann", PASSWORD).await;
    assert_eq!(page.status, 303, "{}", page.body);
    assert!(page.set_cookie("__Secure-").contains("; Secure"), "the console knows that the browser speaks TLS");
    let stream = ann.request(Method::GET, "/events", None).await;
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    let client = rig.client("127.0.0.2");
    let ask = |uses: u32| {
        let request = rig.ask(&client, Method::POST, "/api/v1/accessToken").bearer_auth(CI_KEY);
        tokio::spawn(send(request.json(&json!({ "accessTimesNumber": uses }))))
    };
    let decided = ask(2);
    until(stream, r#""waiting":1"#).await;
    let page = ann.get("/consent").await;
    let (_, id) = page.body.split_once("/console/consent/").unwrap();
    let allow = format!("/consent/{}/allow", &id[..36]);
    let page = ann.post("/consent", &allow, &[("uses", "2")]).await;
    assert_eq!(page.location(), "/console/consent?done=allowed");
    assert_eq!(decided.await.unwrap().status, 200);

    let left_alone = ask(3).await.unwrap();
    assert_eq!((left_alone.status, left_alone.message().as_str()), (403, "Запит на використання ЕП відхилено користувачем."));
    rig.gateway.stop().await;
}
