//! One webhook: how notices are signed, sent, and sent again.
//!
//! Invariants: notices of one webhook are sent one at a time, in order; no redirect is followed, so nothing goes to a host that the
//! configuration does not name; a receiver can tell by the signature that a notice is ours, and by its time that it is not an old one.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use aws_lc_rs::hmac;
use reqwest::{Client, Url, header, redirect::Policy};
use tokio::{sync::mpsc::Receiver, time::sleep};
use tracing::{debug, error};
use zeroize::Zeroizing;

use super::{DELIVERED, GIVEN_UP, notice::Notice};
use crate::{
    domain::{notice::NoticeKind, timestamp::Timestamp},
    telemetry::metrics::WEBHOOK_NOTICES,
};

/// The header with the time at which a notice was sent, in seconds since the Unix epoch.
pub const TIMESTAMP_HEADER: &str = "x-sealgate-timestamp";
/// The header with the [`signature`].
pub const SIGNATURE_HEADER: &str = "x-sealgate-signature";

/// How often a notice is tried before it is given up: over about five minutes.
const TRIES: u32 = 10;
/// The pause after the first try; it doubles up to the longest.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// How long a receiver may take to be reached, and to answer.
const CONNECT_MAX: Duration = Duration::from_secs(5);
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// The least that a secret has, in bytes.
const SECRET_MIN: usize = 16;

/// Why there is no webhook.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// Not a URL that notices may be sent to.
    #[error("use an https:// URL without a user; http:// for loopback addresses only")]
    Url,
    /// A secret that can be guessed.
    #[error("the secret of a webhook has at least {SECRET_MIN} characters; make one with: openssl rand -hex 32")]
    Secret,
    /// There is no HTTP client.
    #[error("no HTTP client could be made: {0}")]
    Client(#[from] reqwest::Error),
}

/// What notices are signed with. `Debug` shows nothing; the memory is wiped when it is dropped.
#[derive(Clone)]
pub struct WebhookSecret(Zeroizing<String>);

impl WebhookSecret {
    /// Takes a secret.
    ///
    /// # Errors
    /// [`WebhookError::Secret`] if it is short.
    pub fn new(text: Zeroizing<String>) -> Result<Self, WebhookError> {
        if text.len() < SECRET_MIN { Err(WebhookError::Secret) } else { Ok(Self(text)) }
    }
}

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookSecret(…)")
    }
}

/// The signature of a notice: `v1=` and the HMAC-SHA256, in hex, of the timestamp, a full stop and the body.
#[must_use]
pub fn signature(secret: &WebhookSecret, timestamp: &str, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.0.as_bytes());
    let mut context = hmac::Context::with_key(&key);
    context.update(timestamp.as_bytes());
    context.update(b".");
    context.update(body);
    format!("v1={}", hex::encode(context.sign()))
}

/// Where notices go.
#[derive(Debug, Clone)]
pub struct Webhook {
    url: Url,
    secret: WebhookSecret,
    kinds: Vec<NoticeKind>,
}

impl Webhook {
    /// A webhook that is told of these kinds.
    ///
    /// # Errors
    /// [`WebhookError::Url`].
    pub fn new(url: &str, secret: WebhookSecret, kinds: Vec<NoticeKind>) -> Result<Self, WebhookError> {
        let url: Url = url.parse().map_err(|_| WebhookError::Url)?;
        let address = url.host_str().map(|host| host.trim_start_matches('[').trim_end_matches(']').to_owned()).unwrap_or_default();
        let loopback = address == "localhost" || address.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        let lawful = url.scheme() == "https" || (url.scheme() == "http" && loopback);
        if !lawful || address.is_empty() || !url.username().is_empty() || url.password().is_some() {
            return Err(WebhookError::Url);
        }
        Ok(Self { url, secret, kinds })
    }

    /// What it is called in the log: its path and query may hold a secret.
    #[must_use]
    pub fn name(&self) -> String {
        self.url.origin().ascii_serialization()
    }

    /// What it is told of.
    #[must_use]
    pub fn kinds(&self) -> &[NoticeKind] {
        &self.kinds
    }

    /// What sends its notices.
    pub(super) fn deliverer(self) -> Result<Deliverer, WebhookError> {
        let http = Client::builder()
            .redirect(Policy::none())
            .connect_timeout(CONNECT_MAX)
            .timeout(ANSWER_MAX)
            .user_agent(concat!("sealgate/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Deliverer { webhook: self, http })
    }
}

/// Sends the notices of one webhook.
pub(super) struct Deliverer {
    webhook: Webhook,
    http: Client,
}

impl Deliverer {
    /// Sends what comes, one at a time, until nothing more can come.
    pub(super) async fn deliver(self, mut notices: Receiver<Arc<Notice>>) {
        while let Some(notice) = notices.recv().await {
            self.deliver_one(&notice).await;
        }
    }

    async fn deliver_one(&self, notice: &Notice) {
        // INVARIANT: a notice is plain data with text for keys, which has a JSON form.
        let Ok(body) = serde_json::to_vec(notice) else { return };
        let mut pause = PAUSE;
        for attempt in 1..=TRIES {
            let failure = match self.try_once(body.clone()).await {
                Ok(()) => {
                    WEBHOOK_NOTICES.counter(&[DELIVERED]).increment(1);
                    return;
                }
                Err(failure) => failure,
            };
            debug!("the webhook {} was not told of {} (try {attempt} of {TRIES}): {failure}", self.webhook.name(), notice.kind());
            if attempt == TRIES {
                WEBHOOK_NOTICES.counter(&[GIVEN_UP]).increment(1);
                error!(
                    "the webhook {} could not be told of {}: {failure}; given up after {TRIES} tries",
                    self.webhook.name(),
                    notice.kind()
                );
                return;
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn try_once(&self, body: Vec<u8>) -> Result<(), String> {
        let timestamp = (Timestamp::from(SystemTime::now()).as_millis() / 1000).to_string();
        let signed = signature(&self.webhook.secret, &timestamp, &body);
        let request = self
            .http
            .post(self.webhook.url.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .header(TIMESTAMP_HEADER, timestamp)
            .header(SIGNATURE_HEADER, signed)
            .body(body);
        // The URL may hold a secret.
        let answer = request.send().await.map_err(|error| error.without_url().to_string())?;
        let status = answer.status();
        if status.is_success() { Ok(()) } else { Err(format!("it answered {status}")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> WebhookSecret {
        WebhookSecret::new(Zeroizing::new("0123456789abcdef".to_owned())).unwrap()
    }

    #[test]
    fn a_signature_is_that_of_time_and_body() {
        // printf '1700000000.{}' | openssl dgst -sha256 -hmac 0123456789abcdef
        let expected = "v1=e4f8e2ecae2295b2ddb2f0b5584c8275e226c0ebe9b3b819e70156bb67122e3e";
        let made = signature(&secret(), "1700000000", b"{}");
        assert_eq!(made, expected);
        assert_ne!(made, signature(&secret(), "1700000001", b"{}"));
        assert_ne!(made, signature(&secret(), "1700000000", b"{ }"));
    }

    #[test]
    fn notices_go_out_encrypted_or_stay_on_this_machine() {
        let taken = |url: &str| Webhook::new(url, secret(), Vec::new()).is_ok();
        for good in ["https://hooks.example/sealgate?x=1", "http://127.0.0.1:8080/", "http://[::1]:1/x", "http://localhost/x"] {
            assert!(taken(good), "{good}");
        }
        for bad in
            ["http://hooks.example/", "https://user@hooks.example/", "https://user:pw@hooks.example/", "ftp://127.0.0.1/", "hooks", ""]
        {
            assert!(!taken(bad), "{bad}");
        }
    }

    #[test]
    fn neither_the_secret_nor_the_path_of_a_webhook_is_shown() {
        let webhook = Webhook::new("https://hooks.example/path-with-token", secret(), Vec::new()).unwrap();
        assert_eq!(webhook.name(), "https://hooks.example");
        assert!(!format!("{:?}", webhook.secret).contains("0123"));
        assert!(WebhookSecret::new(Zeroizing::new("short".to_owned())).is_err());
    }
}
