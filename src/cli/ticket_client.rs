//! A client of the ticket API, as `sign` and `bench` need it.
//!
//! Invariants: an answer with `Retry-After` is obeyed and the call repeated, so that a full queue is a wait and not a failure; nothing here
//! waits without a bound; error texts repeat what the gateway said and add what to do.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use reqwest::{
    Body, Certificate, Client, ClientBuilder, Method, RequestBuilder, Response, StatusCode,
    header::{ACCEPT_LANGUAGE, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER},
};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};

use super::{Usage, output, secret::API_KEY_VARIABLE};
use crate::domain::pin::Pin;

/// How long a call is repeated that the gateway puts off.
const PATIENCE: Duration = Duration::from_secs(300);
/// The longest single pause between two tries, whatever the gateway asks for.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// How long connecting may take.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// How long a call other than an upload may take; the gateway's own blocking calls answer earlier.
const CALL_MAX: Duration = Duration::from_secs(90);
/// How long an upload may take.
const UPLOAD_MAX: Duration = Duration::from_secs(3600);

/// A gateway's ticket API.
#[derive(Clone)]
pub(super) struct TicketClient {
    http: Client,
    base: String,
    api_key: Option<SecretString>,
}

/// A ticket that was made and not deleted yet.
pub(super) struct OpenTicket<'a> {
    client: &'a TicketClient,
    path: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Created {
    ticket_uuid: String,
}

/// The two texts of an error answer.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Complaint {
    message: String,
    failure_cause: Option<String>,
}

/// The options that `sign` sets.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Options {
    pub(super) signature_type: &'static str,
    pub(super) cades_type: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct KeyStore<'a> {
    key_store_path: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WithPin<'a> {
    key_store_password: &'a str,
}

impl TicketClient {
    /// A client of the gateway at `url`.
    ///
    /// `ca` has the certificates that a gateway's certificate must come from, in PEM; without it those that the system trusts.
    pub(super) fn new(url: &str, api_key: Option<SecretString>, ca: Option<&Path>) -> anyhow::Result<Self> {
        let base = url.trim_end_matches('/').to_owned();
        let speaks_tls = base.starts_with("https://");
        if !speaks_tls && !base.starts_with("http://") {
            return Err(Usage(format!("`{url}` is not a gateway's address; use one that begins with https:// or http://")).into());
        }
        if !speaks_tls && ca.is_some() {
            return Err(Usage("--ca is for a gateway that is spoken to over TLS; use https:// in --url".to_owned()).into());
        }
        let trusted = match ca {
            Some(file) => Some(certificates(file)?),
            // The system's are not even looked for where they are not needed: there may be none.
            None if speaks_tls => None,
            None => Some(Vec::new()),
        };
        // A proxy of the environment is for the internet, not for a gateway beside us that is given a key and documents.
        let english = HeaderMap::from_iter([(ACCEPT_LANGUAGE, HeaderValue::from_static("en"))]);
        let builder = Client::builder().no_proxy().connect_timeout(CONNECT_MAX).default_headers(english);
        let builder = trusted.into_iter().fold(builder, ClientBuilder::tls_certs_only);
        let http =
            builder.build().context("no HTTP client could be made; name the gateway's CA with --ca if this machine has none of its own")?;
        Ok(Self { http, base, api_key })
    }

    /// Makes a ticket.
    pub(super) async fn create(&self) -> anyhow::Result<OpenTicket<'_>> {
        let answer = self.send("make a ticket", || Ok(self.request(Method::POST, "/ticket"))).await?;
        let created: Created = answer.json().await.context("this is not a gateway's answer; check --url")?;
        Ok(OpenTicket { client: self, path: format!("/ticket/{}", created.ticket_uuid) })
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}/api/v1{path}", self.base)).timeout(CALL_MAX);
        match &self.api_key {
            Some(key) => request.bearer_auth(key.expose_secret()),
            None => request,
        }
    }

    /// Sends what `make` makes until the gateway no longer puts it off.
    async fn send(&self, doing: &str, make: impl Fn() -> anyhow::Result<RequestBuilder>) -> anyhow::Result<Response> {
        let began = Instant::now();
        let mut put_off = false;
        loop {
            let answer = make()?.send().await.map_err(|error| self.unreachable(&error))?;
            if answer.status().is_success() {
                return Ok(answer);
            }
            match retry_after(&answer) {
                Some(pause) if began.elapsed() + pause < PATIENCE => {
                    if !put_off {
                        put_off = true;
                        output::note(format_args!(
                            "sealgate: the gateway cannot {doing} now; trying again for up to {} s",
                            PATIENCE.as_secs()
                        ));
                    }
                    tokio::time::sleep(pause).await;
                }
                _ => return Err(refused(doing, answer).await),
            }
        }
    }

    fn unreachable(&self, error: &reqwest::Error) -> anyhow::Error {
        let why = if error.is_connect() { "cannot be reached; is it running, and is the address right?" } else { "broke off; try again" };
        anyhow::anyhow!("the gateway at {} {why} ({})", self.base, innermost(error))
    }
}

impl OpenTicket<'_> {
    /// Uploads what `body` makes, of `len` bytes; it is made anew for each try.
    pub(super) async fn upload(&self, len: u64, body: impl Fn() -> anyhow::Result<Body>) -> anyhow::Result<()> {
        let make = || {
            let request = self.client.request(Method::POST, &format!("{}/data", self.path));
            let request = request.timeout(UPLOAD_MAX).header(CONTENT_TYPE, "application/octet-stream");
            Ok(request.header(CONTENT_LENGTH, len).body(body()?))
        };
        self.client.send("upload the file", make).await.map(|_| ())
    }

    /// Chooses the key by its configured name or `pkcs11:` URI.
    pub(super) async fn choose_key(&self, key: &str) -> anyhow::Result<()> {
        let make = || Ok(self.request(Method::PUT, "/keyStore").json(&KeyStore { key_store_path: key }));
        self.client.send("choose the key", make).await.map(|_| ())
    }

    /// Sets options.
    pub(super) async fn set(&self, options: &Options) -> anyhow::Result<()> {
        let make = || Ok(self.request(Method::PUT, "/option").json(options));
        self.client.send("set the options", make).await.map(|_| ())
    }

    /// Asks for the signature.
    pub(super) async fn start(&self, pin: Option<&Pin>) -> anyhow::Result<()> {
        let make = || {
            let request = self.request(Method::POST, "/ds/creator");
            Ok(match pin {
                // The body's copy of the PIN is not wiped; the process ends soon after.
                Some(pin) => request.json(&WithPin { key_store_password: pin.reveal() }),
                None => request,
            })
        };
        self.client.send("start the signature", make).await.map(|_| ())
    }

    /// Waits for the signature, at most `bound`.
    pub(super) async fn signature(&self, bound: Duration) -> anyhow::Result<Vec<u8>> {
        let began = Instant::now();
        loop {
            let answer = self.client.send("make the signature", || Ok(self.request(Method::GET, "/ds/data"))).await?;
            if answer.status() != StatusCode::ACCEPTED {
                return Ok(answer.bytes().await.context("the signature did not arrive whole; try again")?.to_vec());
            }
            anyhow::ensure!(began.elapsed() < bound, "no signature after {} s; look at the token with `sealgate slots`", bound.as_secs());
        }
    }

    /// Deletes the ticket and all that belongs to it.
    pub(super) async fn delete(self) -> anyhow::Result<()> {
        self.client.send("delete the ticket", || Ok(self.request(Method::DELETE, ""))).await.map(|_| ())
    }

    fn request(&self, method: Method, below: &str) -> RequestBuilder {
        self.client.request(method, &format!("{}{below}", self.path))
    }
}

fn certificates(file: &Path) -> anyhow::Result<Vec<Certificate>> {
    let pem = std::fs::read(file).with_context(|| format!("{} cannot be read; check --ca", file.display()))?;
    let certificates = Certificate::from_pem_bundle(&pem).unwrap_or_default();
    anyhow::ensure!(!certificates.is_empty(), "{} holds no certificate in PEM form; check --ca", file.display());
    Ok(certificates)
}

/// How long the gateway wants us to wait before the same call again; `None` if the call is not to be repeated.
fn retry_after(answer: &Response) -> Option<Duration> {
    if !matches!(answer.status(), StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
        return None;
    }
    let seconds = answer.headers().get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    // Zero would be a busy loop of ours, whatever was meant.
    Some(Duration::from_secs(seconds).clamp(Duration::from_millis(50), PAUSE_MAX))
}

async fn refused(doing: &str, answer: Response) -> anyhow::Error {
    let status = answer.status();
    let complaint: Complaint = answer.json().await.unwrap_or_default();
    let texts = [Some(complaint.message), complaint.failure_cause, hint(status)];
    let said: Vec<String> = texts.into_iter().flatten().map(|text| text.trim_end_matches('.').to_owned()).collect();
    let said: Vec<&str> = said.iter().map(String::as_str).filter(|text| !text.is_empty()).collect();
    anyhow::anyhow!("the gateway did not {doing} ({}): {}", status.as_u16(), said.join("; "))
}

fn hint(status: StatusCode) -> Option<String> {
    Some(match status {
        StatusCode::UNAUTHORIZED => format!("set {API_KEY_VARIABLE} to an API key of this gateway"),
        StatusCode::PAYLOAD_TOO_LARGE => "sign a smaller file, or raise `upload_max_bytes` in the gateway's configuration".to_owned(),
        StatusCode::SERVICE_UNAVAILABLE => "see `sealgate slots` on the gateway's machine".to_owned(),
        StatusCode::NOT_FOUND => "check --url".to_owned(),
        _ => return None,
    })
}

/// The last error of a chain: the one that says what happened (`Connection refused`).
fn innermost(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string()
}
