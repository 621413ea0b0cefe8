//! The operators' console as a browser without a script uses it.

use std::collections::HashMap;

use futures_util::StreamExt as _;
use reqwest::{Client, Method, Response, StatusCode, header::HeaderMap, redirect::Policy};
use sealgate::{
    auth::Password,
    domain::{
        audit::{AuditEvent, AuditRecord},
        caller::KeyAccess,
        operator::{Operator, Role},
    },
};

use super::gateway::{Gateway, PATIENCE};

pub const PASSWORD: &str = "a good long password";

/// A browser: cookies, and no following of redirects.
pub struct Browser {
    pub http: Client,
    pub base: String,
    pub cookies: HashMap<String, String>,
}

/// An answer, read.
pub struct Page {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
}

impl Browser {
    pub fn new(gateway: &Gateway) -> Self {
        let http = Client::builder().no_proxy().redirect(Policy::none()).build().unwrap();
        Self { http, base: gateway.urls[0].clone(), cookies: HashMap::new() }
    }

    pub async fn send(&mut self, method: Method, path: &str, body: Option<String>) -> Page {
        let answer = self.request(method, path, body).await;
        let (status, headers) = (answer.status(), answer.headers().clone());
        for cookie in headers.get_all("set-cookie") {
            let (pair, _) = cookie.to_str().unwrap().split_once(';').unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            self.cookies.insert(name.to_owned(), value.to_owned());
        }
        Page { status, headers, body: answer.text().await.unwrap() }
    }

    pub async fn request(&self, method: Method, path: &str, body: Option<String>) -> Response {
        let cookies: Vec<_> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut request = self.http.request(method, format!("{}/console{path}", self.base)).header("accept", "text/html");
        if !cookies.is_empty() {
            request = request.header("cookie", cookies.join("; "));
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/x-www-form-urlencoded").body(body);
        }
        request.send().await.unwrap()
    }

    pub async fn get(&mut self, path: &str) -> Page {
        self.send(Method::GET, path, None).await
    }

    /// Sends a form as it stands on the page at `from`.
    pub async fn post(&mut self, from: &str, path: &str, fields: &[(&str, &str)]) -> Page {
        let token = self.get(from).await.token();
        self.post_with(&token, path, fields).await
    }

    pub async fn post_with(&mut self, token: &str, path: &str, fields: &[(&str, &str)]) -> Page {
        let fields = fields.iter().copied().chain([("token", token)]);
        let body = fields.map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect::<Vec<_>>().join("&");
        self.send(Method::POST, path, Some(body)).await
    }

    pub async fn log_in(&mut self, name: &str, password: &str) -> Page {
        self.post("/login", "/login", &[("name", name), ("password", password)]).await
    }
}

impl Page {
    /// The token of the page's forms.
    pub fn token(&self) -> String {
        let (_, rest) = self.body.split_once(r#"name="token" value=""#).unwrap_or_else(|| panic!("no form: {} {}", self.status, self.body));
        rest.split_once('"').unwrap().0.to_owned()
    }

    pub fn location(&self) -> &str {
        self.headers["location"].to_str().unwrap()
    }

    pub fn set_cookie(&self, name: &str) -> &str {
        let cookies = self.headers.get_all("set-cookie").iter().map(|cookie| cookie.to_str().unwrap());
        cookies.into_iter().find(|cookie| cookie.starts_with(name)).unwrap()
    }
}

pub fn encode(text: &str) -> String {
    text.bytes().map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

pub async fn add(gateway: &Gateway, name: &str, role: Role, keys: KeyAccess) {
    let operator = Operator { name: name.parse().unwrap(), role, keys };
    gateway.operators.add(operator, Password::chosen(PASSWORD).unwrap(), "test").await.unwrap();
}

pub async fn logged_in(gateway: &Gateway, name: &str) -> Browser {
    let mut browser = Browser::new(gateway);
    let page = browser.log_in(name, PASSWORD).await;
    assert_eq!((page.status, page.location()), (StatusCode::SEE_OTHER, "/console"));
    browser
}

pub async fn events(gateway: &Gateway) -> Vec<AuditEvent> {
    let head = gateway.store.audit_head().await.unwrap();
    let records = gateway.store.audit_records(head.gateway, 1, 10_000).await.unwrap();
    records.iter().map(|record| serde_json::from_str::<AuditRecord>(&record.text).unwrap().event).collect()
}

/// Reads events until one says `text`.
pub async fn until(stream: Response, text: &str) {
    let mut pieces = stream.bytes_stream();
    let mut seen = String::new();
    while !seen.contains(text) {
        let piece = tokio::time::timeout(PATIENCE, pieces.next()).await.expect("an event").expect("no end").unwrap();
        seen.push_str(std::str::from_utf8(&piece).unwrap());
    }
}
