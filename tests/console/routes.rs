//! What holds for every route of the console, whichever there are: the routes are read from the table in `src/http/console/mod.rs`.

use std::{collections::BTreeSet, fs, path::Path, sync::Arc};

use reqwest::{Method, StatusCode};
use sealgate::{
    domain::{
        algorithm::{Curve, KeyKind},
        caller::{ConsentPolicy, KeyAccess},
        enrolment::profile::CaChoice,
        operator::Role,
    },
    enrolment::ca::DevelopmentCa,
};
use serde_json::json;

use crate::common::{
    bank::{self, EIO_KEY, V1},
    console::{Browser, Page, add, logged_in},
    gateway::{Gateway, Plan},
};

const TABLE: &str = include_str!("../../src/http/console/mod.rs");
const FOREIGN_FORM: &str = "this form does not come from a page of your session";
/// What a browser is told of a page.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; frame-src 'self'; \
                           form-action 'self'; frame-ancestors 'none'; base-uri 'none'";
/// The answers that are no pages of the console, and so have policies of their own, which allow less.
const OTHER_POLICIES: [(&str, &str); 3] = [
    ("/consent/{permit}/words", "sandbox; default-src 'none'; style-src 'sha256-"),
    ("/consent/{permit}/document", "sandbox; default-src 'none'"),
    ("/consent/{permit}/view", "sandbox; default-src 'none'; frame-ancestors 'self'"),
];

/// A route of the table.
struct Route {
    path: &'static str,
    takes_get: bool,
    takes_post: bool,
    for_administrators: bool,
}

fn routes() -> Vec<Route> {
    let mut group = "";
    let mut found = Vec::new();
    for line in TABLE.lines() {
        if let Some(name) = line.strip_prefix("fn ") {
            group = name;
        }
        let Some((_, rest)) = line.split_once(".service(page(\"") else { continue };
        let (path, handlers) = rest.split_once('"').unwrap();
        found.push(Route {
            path,
            takes_get: handlers.contains("get().to("),
            takes_post: handlers.contains("post().to("),
            for_administrators: group.starts_with("administrators("),
        });
    }
    assert!(found.len() > 40 && found.iter().all(|route| route.takes_get || route.takes_post));
    found
}

/// A gateway in which every route leads to something: a request for consent with words and a document, a job, a certificate.
struct Furnished {
    gateway: Gateway,
    names: Vec<(&'static str, String)>,
}

impl Furnished {
    async fn start() -> Self {
        let mut plan = Plan::softhsm(&[("one", KeyKind::Ec(Curve::P256))], 64).await;
        plan.caller("ci").caller.consent = ConsentPolicy::Operator.into();
        bank::with_bank(&mut plan);
        let ca = bank::ca();
        plan.profiles = vec![bank::profile("contract", CaChoice::Development, &ca)];
        plan.authorities.insert(CaChoice::Development, Arc::new(DevelopmentCa::new(ca)));
        let gateway = plan.start().await;
        add(&gateway, "root", Role::Administrator, KeyAccess::All).await;
        add(&gateway, "ann", Role::Approver, KeyAccess::All).await;
        let wanted = bank::body(&bank::id(1), "director", "Иванов Иван Иванович");
        bank::ask(&gateway, Method::POST, &format!("{V1}/cert-requests/eio"), EIO_KEY, Some(&wanted)).await;
        bank::until(&gateway, &format!("{V1}/cert-requests/eio/{}", bank::id(1)), EIO_KEY, "PUBLISHED_BY_BANK").await;
        let ticket = gateway.ticket_with(b"plain text").await;
        gateway.put_json(&format!("{ticket}/metadata"), json!({ "metaData": "some words" })).await;
        assert_eq!(gateway.post(&format!("{ticket}/ds/creator")).await.status, 200);
        let job = gateway.store.list_jobs(&Default::default(), 1).await.unwrap().remove(0);
        let names = vec![
            ("{permit}", job.permit.unwrap().to_string()),
            ("{job}", job.id.to_string()),
            ("{certificate}", bank::newest(&gateway).await.id.to_string()),
            ("{caller}", "ci".to_owned()),
            ("{operator}", "ann".to_owned()),
            ("{change}", "remove".to_owned()),
            ("{name}", "console.js".to_owned()),
        ];
        Self { gateway, names }
    }

    /// A path of the table with real things in it.
    fn path(&self, route: &Route) -> String {
        let path = self.names.iter().fold(route.path.to_owned(), |path, (name, value)| path.replace(name, value));
        assert!(!path.contains('{'), "a route has a new kind of thing in it: {path}");
        path
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_form_is_taken_without_the_token_of_its_session() {
    let furnished = Furnished::start().await;
    let gateway = &furnished.gateway;
    let mut root = logged_in(gateway, "root").await;
    let foreign = logged_in(gateway, "ann").await.get("/tokens").await.token();
    let forms: Vec<_> = routes().into_iter().filter(|route| route.takes_post).map(|route| furnished.path(&route)).collect();
    let token = root.get("/tokens").await.token();
    for form in &forms {
        for body in [String::new(), "token=".to_owned(), format!("token={foreign}")] {
            let page = root.send(Method::POST, form, Some(body.clone())).await;
            assert!(page.status == StatusCode::FORBIDDEN && page.body.contains(FOREIGN_FORM), "{form} {body}: {}", page.body);
        }
        // The right token does not help a page of another site, nor one that sends it as something else than a form.
        for (header, value) in
            [("origin", "https://evil.example"), ("origin", "null"), ("sec-fetch-site", "same-site"), ("content-type", "text/plain")]
        {
            let page = sent_with(&root, form, &token, header, value).await;
            assert!(page.0 == StatusCode::FORBIDDEN && page.1.contains(FOREIGN_FORM), "{form} {header}: {value}");
        }
        let nobody = Browser::new(gateway).send(Method::POST, form, Some(format!("token={token}"))).await;
        let wanted = if form == "/login" { StatusCode::FORBIDDEN } else { StatusCode::UNAUTHORIZED };
        assert_eq!(nobody.status, wanted, "{form}");
    }
    // Nothing of it had an effect; and with the token the same forms are read.
    assert_eq!(root.get("/consent").await.body.matches("card ask").count(), 1);
    for form in &forms {
        if root.get("/account").await.status != StatusCode::OK {
            root = logged_in(gateway, "root").await;
        }
        let from = if form == "/login" { "/login" } else { "/account" };
        let page = root.post(from, form, &[]).await;
        assert!(!page.body.contains(FOREIGN_FORM), "{form}: {}", page.body);
    }
    furnished.gateway.stop().await;
}

/// Sends a form with one header that it should not have.
async fn sent_with(browser: &Browser, form: &str, token: &str, header: &'static str, value: &str) -> (StatusCode, String) {
    let session = browser.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ");
    let request = browser.http.post(format!("{}/console{form}", browser.base)).header("cookie", session);
    let request = if header == "content-type" { request } else { request.header("content-type", "application/x-www-form-urlencoded") };
    let answer = request.header(header, value).body(format!("token={token}")).send().await.unwrap();
    (answer.status(), answer.text().await.unwrap())
}

#[test]
fn every_form_of_every_template_carries_the_token_and_leads_to_a_route() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http/console/templates");
    let posts: Vec<_> = routes().into_iter().filter(|route| route.takes_post).map(|route| route.path).collect();
    let mut reached = BTreeSet::new();
    for entry in fs::read_dir(folder).unwrap() {
        let (path, text) = entry.map(|entry| (entry.path(), fs::read_to_string(entry.path()).unwrap())).unwrap();
        for form in text.split("<form ").skip(1).map(|rest| rest.split("</form>").next().unwrap()) {
            if form.starts_with("method=\"get\"") {
                continue;
            }
            assert!(form.starts_with("method=\"post\""), "{}: {form}", path.display());
            assert!(form.contains(r#"<input type="hidden" name="token" value="{{ "#), "{}: {form}", path.display());
            for action in form.split("action=\"/console").skip(1).map(|rest| rest.split('"').next().unwrap()) {
                let route = posts.iter().find(|route| fits(route, action));
                reached.insert(*route.unwrap_or_else(|| panic!("{}: {action} leads nowhere", path.display())));
            }
        }
    }
    assert_eq!(reached.into_iter().collect::<Vec<_>>(), posts.into_iter().collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>());
}

/// Whether a template's address is one of a route.
fn fits(route: &str, action: &str) -> bool {
    let mut parts = action.split('/');
    route.split('/').all(|wanted| parts.next().is_some_and(|part| part == wanted || wanted.starts_with('{'))) && parts.next().is_none()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_tells_the_browser_what_it_may_not_do() {
    let furnished = Furnished::start().await;
    let gateway = &furnished.gateway;
    let mut root = logged_in(gateway, "root").await;
    let mut stranger = Browser::new(gateway);
    for route in routes() {
        let path = furnished.path(&route);
        if path == "/events" {
            let answer = root.request(Method::GET, &path, None).await;
            assert_eq!(answer.headers()["content-security-policy"], PAGE_POLICY);
            continue;
        }
        if route.takes_get {
            let page = root.get(&path).await;
            let wanted = if path.is_empty() { StatusCode::SEE_OTHER } else { StatusCode::OK };
            assert_eq!(page.status, wanted, "{path}: {}", page.body);
            guarded(&page, &path, OTHER_POLICIES.iter().find(|(of, _)| *of == route.path).map(|(_, policy)| *policy));
        }
        if route.takes_post {
            guarded(&root.send(Method::POST, &path, Some(String::new())).await, &path, None);
        }
        for method in [Method::GET, Method::PUT] {
            guarded(&stranger.send(method, &path, None).await, &path, None);
        }
    }
    for path in
        ["/nothing", "/operators/none", "/callers/none", "/certificates/none", "/consent/none", "/jobs/none", "/%ff", "/assets/none"]
    {
        guarded(&root.get(path).await, path, None);
    }
    let foreign = root.http.get(format!("{}/console/login", root.base)).header("host", "evil.example").send().await.unwrap();
    assert_eq!(foreign.status(), StatusCode::MISDIRECTED_REQUEST);
    furnished.gateway.stop().await;
}

fn guarded(page: &Page, path: &str, other_policy: Option<&str>) {
    let header = |name: &str| page.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default();
    let policy = header("content-security-policy");
    match other_policy {
        Some(wanted) => assert!(policy.starts_with(wanted) && !policy.contains("unsafe"), "{path}: {policy}"),
        None => assert_eq!((policy, header("x-frame-options")), (PAGE_POLICY, "DENY"), "{path}"),
    }
    assert_eq!(
        (header("x-content-type-options"), header("referrer-policy"), header("cross-origin-opener-policy")),
        ("nosniff", "same-origin", "same-origin"),
        "{path}"
    );
    assert!(["no-store", "no-cache"].contains(&header("cache-control")), "{path}: {}", header("cache-control"));
    // Neither script nor style in a page, so that the policy costs nothing.
    if other_policy.is_none() && header("content-type").starts_with("text/html") {
        for bad in [" style=", " onclick=", "<style", "<script>", "//cdn", "src=\"http"] {
            assert!(!page.body.contains(bad), "{path}: {bad} in {}", page.body);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_for_administrators_is_for_nobody_else() {
    let furnished = Furnished::start().await;
    let mut ann = logged_in(&furnished.gateway, "ann").await;
    let page = ann.get("/tokens").await;
    let token = page.token();
    for route in routes().into_iter().filter(|route| route.for_administrators) {
        let path = furnished.path(&route);
        if route.takes_get {
            let page = ann.get(&path).await;
            assert!(page.status == StatusCode::FORBIDDEN && page.body.contains("this is for administrators"), "{path}: {}", page.body);
        }
        if route.takes_post {
            let answer = ann.post_with(&token, &path, &[]).await;
            assert!(answer.status == StatusCode::FORBIDDEN && answer.body.contains("this is for administrators"), "{path}");
        }
        let in_the_menu = format!("href=\"/console{}\"", route.path);
        assert!(!page.body.contains(&in_the_menu), "{path} is in an approver's menu");
    }
    furnished.gateway.stop().await;
}
