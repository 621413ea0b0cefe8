//! Web pages as clients, in real Chromium over real SoftHSM: the demo page of `docs/examples/browser`, served as its README says, and the operator who
//! decides in the console.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::{path::Path, process::Command, time::Duration};

use common::{
    bank, browser,
    console::{PASSWORD, add, events},
    daemon::Daemon,
    gateway::{CI_KEY, Gateway, OTHER_KEY, Plan},
    tls::TlsCa,
};
use reqwest::Method;
use sealgate::{
    domain::{
        algorithm::{Curve, KeyKind},
        audit::AuditEvent,
        caller::{ConsentPolicy, KeyAccess},
        enrolment::profile::CaChoice,
        ids::CallerId,
        operator::Role,
    },
    permit::PermitSettings,
    pki::csr::CertificateRequest,
};
use serde_json::{Value, json};

/// What serves the demo page. It has the same files for every name of this machine, and each name is another origin.
struct Pages {
    _server: Daemon,
    port: String,
}

impl Pages {
    fn serve() -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/examples/browser");
        let mut command = Command::new("python3");
        command.args(["-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory"]).arg(folder);
        let (server, line) = Daemon::start_saying(&mut command, "Serving HTTP on ");
        let (_, rest) = line.split_once(" port ").unwrap();
        Self { _server: server, port: rest.split(' ').next().unwrap().to_owned() }
    }

    fn at(&self, host: &str) -> String {
        format!("http://{host}:{}", self.port)
    }

    /// Where the page lives whose origin is configured.
    fn home(&self) -> String {
        self.at("127.0.0.1")
    }
}

async fn plan() -> Plan {
    Plan::softhsm(&[("seal", KeyKind::Ec(Curve::P256))], 64).await
}

/// A plan in which an operator decides about what the page at `origin` asks, and what `ci` does.
async fn asking_plan(origin: &str) -> Plan {
    let mut plan = plan().await;
    for name in ["page", "ci", "old"] {
        plan.caller(name).caller.consent = ConsentPolicy::Operator.into();
    }
    plan.caller("page").origins = vec![origin.parse().unwrap()];
    // Whoever sends no credentials to the second address is the caller `old`.
    plan.listeners = vec![None, Some("old")];
    plan
}

/// Starts it, with an administrator.
async fn start(plan: Plan) -> Gateway {
    let gateway = plan.start().await;
    add(&gateway, "root", Role::Administrator, KeyAccess::All).await;
    gateway
}

/// What a script has to know.
fn facts(gateway: &Gateway, pages: &Pages) -> Value {
    let ca = gateway.directory.path().join("ca.pem");
    std::fs::write(&ca, gateway.ca.certificate().to_pem()).unwrap();
    json!({
        "gateway": gateway.urls[0],
        "open_gateway": gateway.urls.get(1),
        "page": pages.home(),
        "foreign_page": pages.at("localhost"),
        "insecure_page": pages.at("shop.test"),
        "operator": "root",
        "password": PASSWORD,
        "api_key": CI_KEY,
        "ca": ca,
    })
}

/// Runs a script with this gateway, beside which it must not keep the test's own threads.
async fn run(script: &'static str, facts: &Value) {
    let facts = facts.to_string();
    tokio::task::spawn_blocking(move || browser::run_ok(script, &[&facts])).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_gets_what_the_operator_allows_and_nothing_else() {
    let pages = Pages::serve();
    let gateway = start(asking_plan(&pages.home()).await).await;
    run("web_pages.mjs", &facts(&gateway, &pages)).await;
    gateway.stop().await;
}

/// Makes a certificate request, and the certificate that its CA would issue, as a file beside the gateway's.
async fn certified(gateway: &Gateway, ca: &sealgate::pki::DevCa) -> std::path::PathBuf {
    let wanted = bank::body(&bank::id(1), "director", "Иванов Иван Иванович");
    let path = format!("{}/cert-requests/eio", bank::V1);
    let created = bank::ask(gateway, Method::POST, &path, bank::EIO_KEY, Some(&wanted)).await;
    assert_eq!(created.status, 201, "{}", created.text());
    let request = CertificateRequest::from_der(&bank::newest(gateway).await.request.unwrap().0).unwrap();
    let issued = ca.issue_to(request.spki(), request.subject(), bank::valid_for(365)).unwrap();
    let file = gateway.directory.path().join("issued.pem");
    std::fs::write(&file, format!("{}{}", issued.to_pem(), ca.certificate().to_pem())).unwrap();
    file
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_work_with_the_console() {
    let mut plan = plan().await;
    plan.caller("ci").caller.consent = ConsentPolicy::Operator.into();
    plan.caller("other").caller.consent = ConsentPolicy::TwoOperators.into();
    bank::with_bank(&mut plan);
    let ca = bank::ca();
    plan.profiles = vec![bank::profile("contract", CaChoice::Manual, &ca)];
    let gateway = start(plan).await;
    add(&gateway, "ann", Role::Approver, KeyAccess::All).await;
    add(&gateway, "ben", Role::Approver, KeyAccess::All).await;
    let facts = json!({
        "gateway": gateway.urls[0],
        "password": PASSWORD,
        "api_key": CI_KEY,
        "two_operators_key": OTHER_KEY,
        "certificate": certified(&gateway, &ca).await,
    });
    run("console.mjs", &facts).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tls_the_session_goes_nowhere_in_clear() {
    let mut plan = plan().await;
    plan.caller("ci").caller.consent = ConsentPolicy::Operator.into();
    let ca = TlsCa::new(plan.directory.path(), "tls");
    plan.tls = Some(ca.server("gateway").listener(None));
    let gateway = start(plan).await;
    let facts = json!({ "gateway": gateway.urls[0], "operator": "root", "password": PASSWORD, "api_key": CI_KEY });
    run("console_tls.mjs", &facts).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_decides_is_refused_when_its_time_is_over() {
    let pages = Pages::serve();
    let mut plan = asking_plan(&pages.home()).await;
    plan.permits = PermitSettings { decision_time: Duration::from_secs(1), ..PermitSettings::default() };
    let gateway = start(plan).await;
    run("web_pages_undecided.mjs", &facts(&gateway, &pages)).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_words_run_nothing_load_nothing_and_break_nothing() {
    let pages = Pages::serve();
    let gateway = start(asking_plan(&pages.home()).await).await;
    run("hostile_words.mjs", &facts(&gateway, &pages)).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_of_a_foreign_origin_gets_nothing_and_makes_nothing() {
    let pages = Pages::serve();
    let gateway = start(asking_plan(&pages.home()).await).await;
    run("foreign_pages.mjs", &facts(&gateway, &pages)).await;
    let page: CallerId = "page".parse().unwrap();
    let mut asked = 0;
    for event in events(&gateway).await {
        match event {
            // Of the page at home, which shows that there was something to be got.
            AuditEvent::ConsentAsked { caller, .. } if caller == page => asked += 1,
            AuditEvent::ConsentAsked { .. } | AuditEvent::TicketOpened { .. } | AuditEvent::ContentReceived { .. } => panic!("{event:?}"),
            _ => {}
        }
    }
    assert_eq!(asked, 1);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chromium_guards_the_loopback_address_as_docs_browsers_md_says() {
    let pages = Pages::serve();
    let mut plan = plan().await;
    // The configuration consents to what this caller signs: here it is the browser that asks.
    let origins = ["127.0.0.1", "localhost", "shop.test"].map(|host| pages.at(host).parse().unwrap());
    plan.caller("ci").origins = origins.to_vec();
    let gateway = start(plan).await;
    let facts = facts(&gateway, &pages);
    run("local_network.mjs", &facts).await;

    let policies = json!({
        "LoopbackNetworkAllowedForUrls": [pages.home(), pages.at("shop.test")],
        "LoopbackNetworkBlockedForUrls": [pages.at("localhost")],
    });
    let run = move || browser::run_ok_with_policies(&policies, "local_network_policies.mjs", &[&facts.to_string()]);
    tokio::task::spawn_blocking(run).await.unwrap();
    gateway.stop().await;
}
