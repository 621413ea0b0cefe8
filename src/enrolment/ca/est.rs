//! A CA that speaks EST (RFC 7030): `cacerts`, `csrattrs`, `simpleenroll`, `simplereenroll`.
//!
//! Invariants: the CA's TLS certificate leads to one of the anchors that the configuration names, and to no other; no redirect is followed;
//! answers have bounds in time and length; a certificate that it issues is of the key that was asked for, or its answer does not count.

use std::time::Duration;

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use der::{Decode as _, Encode as _};
use reqwest::{
    Certificate as TlsAnchor, Client, Identity, Response, StatusCode, Url,
    header::{ACCEPT, CONTENT_TYPE, HeaderMap, RETRY_AFTER},
    redirect::Policy,
};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::OnceCell;
use tracing::warn;

use super::{CaAnswer, CaError, CaRequest, CertificateAuthority};
use crate::{
    cms::certificates_of,
    domain::enrolment::IssuedCertificate,
    enrolment::create::same_public_key,
    pki::{Certificate, csr::CertificateRequest},
};

/// The most bytes of an answer.
const ANSWER_MAX: usize = 256 * 1024;
/// How long a call may take, connecting included.
const CALL_MAX: Duration = Duration::from_secs(30);
/// When a CA that says nothing about it is asked again.
const RETRY_DEFAULT: Duration = Duration::from_secs(60);
/// The longest time that a CA may let us wait before it is asked again.
const RETRY_MAX: Duration = Duration::from_secs(24 * 3600);
/// The most characters of a CA's words that are kept.
const WORDS_MAX: usize = 300;
/// The type of a request (RFC 7030 section 4.2.1).
const PKCS10: &str = "application/pkcs10";
/// The type of certificates (section 4.1.3).
const PKCS7: &str = "application/pkcs7-mime";
/// The type of wanted attributes (section 4.5.2).
const CSR_ATTRIBUTES: &str = "application/csrattrs";

/// How a CA is reached.
#[derive(Debug)]
pub struct EstSettings {
    /// Its address up to `/.well-known/est`, with the label of a CA behind it where one server has several.
    pub url: Url,
    /// Anchors of its TLS certificate, in DER.
    pub anchors: Vec<Vec<u8>>,
    /// How it knows us.
    pub credentials: EstCredentials,
}

/// How a CA knows who asks.
#[derive(Debug)]
pub enum EstCredentials {
    /// By a name and a password (HTTP Basic).
    Basic {
        /// The name.
        user: String,
        /// The password.
        password: SecretString,
    },
    /// By a TLS client certificate: certificates and key in one PEM text.
    Certificate(SecretString),
}

/// The settings cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the EST client cannot be set up: {0}")]
pub struct EstSetupError(String);

/// A CA that speaks EST.
pub struct EstCa {
    client: Client,
    url: Url,
    basic: Option<(String, SecretString)>,
    /// What the CA wants in requests was looked at: once is enough to warn.
    attributes: OnceCell<()>,
}

impl EstCa {
    /// Makes the client; nothing is asked yet.
    ///
    /// # Errors
    /// [`EstSetupError`].
    pub fn new(settings: EstSettings) -> Result<Self, EstSetupError> {
        let problem = |error: reqwest::Error| EstSetupError(error.to_string());
        let anchors = settings.anchors.iter().map(|der| TlsAnchor::from_der(der)).collect::<Result<Vec<_>, _>>().map_err(problem)?;
        let builder = Client::builder().tls_certs_only(anchors).https_only(true).redirect(Policy::none()).timeout(CALL_MAX);
        let (builder, basic) = match settings.credentials {
            EstCredentials::Basic { user, password } => (builder, Some((user, password))),
            EstCredentials::Certificate(pem) => {
                (builder.identity(Identity::from_pem(pem.expose_secret().as_bytes()).map_err(problem)?), None)
            }
        };
        Ok(Self { client: builder.build().map_err(problem)?, url: settings.url, basic, attributes: OnceCell::new() })
    }

    fn url(&self, operation: &str) -> String {
        format!("{}/{operation}", self.url.as_str().trim_end_matches('/'))
    }

    async fn get(&self, operation: &str, accept: &'static str) -> Result<Response, CaError> {
        let request = self.client.get(self.url(operation)).header(ACCEPT, accept);
        self.send(request).await
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Response, CaError> {
        let request = match &self.basic {
            Some((user, password)) => request.basic_auth(user, Some(password.expose_secret())),
            None => request,
        };
        request.send().await.map_err(|error| away(words(&chain_of(&error))))
    }

    /// The CA's own certificates (section 4.1).
    async fn ca_certificates(&self) -> Result<Vec<Vec<u8>>, CaError> {
        let answer = self.get("cacerts", PKCS7).await?;
        if answer.status() != StatusCode::OK {
            return Err(away(format!("cacerts: HTTP status {}", answer.status().as_u16())));
        }
        let body = certificates_in(answer).await?;
        if body.is_empty() { Err(CaError::Misbehaved("cacerts has no certificate".to_owned())) } else { Ok(body) }
    }

    /// Looks at what the CA wants in requests (section 4.5), and warns of what this one does not have: the profile decides what stands in it.
    async fn look_at_attributes(&self, request: &[u8]) {
        let looked = self.attributes.get_or_try_init(|| async {
            let answer = self.get("csrattrs", CSR_ATTRIBUTES).await?;
            if !matches!(answer.status(), StatusCode::OK) {
                return Ok::<(), CaError>(());
            }
            let wanted = decoded(&read(answer).await?)?;
            let wanted = wanted_attributes(&wanted)?;
            let missing: Vec<_> =
                wanted.iter().filter(|oid| !contains(request, &oid.to_der().unwrap_or_default())).map(ToString::to_string).collect();
            if !missing.is_empty() {
                warn!(ca = %self.url, "the CA wants {} in requests; see that the profile asks for it", missing.join(", "));
            }
            Ok(())
        });
        if let Err(error) = looked.await {
            warn!(ca = %self.url, error = %error, "what the CA wants in requests is not known");
        }
    }

    async fn enroll(&self, request: CaRequest<'_>) -> Result<CaAnswer, CaError> {
        self.look_at_attributes(request.request).await;
        let operation = if request.renews.is_some() { "simplereenroll" } else { "simpleenroll" };
        let post = self.client.post(self.url(operation)).header(CONTENT_TYPE, PKCS10).header(ACCEPT, PKCS7);
        let post = post.header("Content-Transfer-Encoding", "base64").body(in_lines(&STANDARD.encode(request.request)));
        let answer = self.send(post).await?;
        match answer.status() {
            StatusCode::OK => self.issued(answer, request.request).await,
            StatusCode::ACCEPTED => {
                let retry_after = Some(retry_after(answer.headers()).unwrap_or(RETRY_DEFAULT));
                Ok(CaAnswer::Pending { reference: None, retry_after })
            }
            status @ (StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) => {
                let why = format!("HTTP status {}", status.as_u16());
                Err(CaError::Unavailable { why, retry_after: retry_after(answer.headers()) })
            }
            // Whoever set us up must look at it: the request itself is not refused.
            status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND) => {
                Err(away(format!("HTTP status {}; check `[enrolment.est]`", status.as_u16())))
            }
            status if status.is_client_error() => Ok(CaAnswer::Rejected(refusal(status, answer).await)),
            status => Err(away(format!("HTTP status {}", status.as_u16()))),
        }
    }

    async fn issued(&self, answer: Response, request: &[u8]) -> Result<CaAnswer, CaError> {
        let request = CertificateRequest::from_der(request).map_err(|error| CaError::Misbehaved(error.to_string()))?;
        let mut certificate = None;
        let mut chain = Vec::new();
        for der in certificates_in(answer).await? {
            let parsed = Certificate::from_der(&der).map_err(|error| CaError::Misbehaved(error.to_string()))?;
            if same_public_key(parsed.spki(), request.spki()) { certificate = Some(der) } else { chain.push(der) }
        }
        let certificate =
            certificate.ok_or_else(|| CaError::Misbehaved("it has no certificate of the key that was asked for".to_owned()))?;
        if chain.is_empty() {
            chain = self.ca_certificates().await?;
        }
        Ok(CaAnswer::Issued(IssuedCertificate::new(certificate, chain)))
    }
}

#[async_trait]
impl CertificateAuthority for EstCa {
    async fn submit(&self, request: CaRequest<'_>) -> Result<CaAnswer, CaError> {
        self.enroll(request).await
    }

    /// The same request is sent again (RFC 7030 section 4.2.3).
    async fn poll(&self, _: Option<&str>, request: CaRequest<'_>) -> Result<CaAnswer, CaError> {
        self.enroll(request).await
    }

    fn renews(&self) -> bool {
        true
    }
}

fn away(why: String) -> CaError {
    CaError::Unavailable { why, retry_after: None }
}

/// An error with what caused it: reqwest's own words stop at "error sending request".
fn chain_of(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text
}

/// At most so much of what others say, without control characters.
fn words(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(WORDS_MAX).collect()
}

async fn refusal(status: StatusCode, answer: Response) -> String {
    let said = read(answer).await.map(|body| words(&String::from_utf8_lossy(&body))).unwrap_or_default();
    format!("HTTP status {} {said}", status.as_u16()).trim_end().to_owned()
}

/// `Retry-After` in seconds; as a date it is not looked at.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(RETRY_MAX))
}

/// A body of limited length.
async fn read(mut answer: Response) -> Result<Vec<u8>, CaError> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| away(words(&chain_of(&error))))? {
        if body.len() + chunk.len() > ANSWER_MAX {
            return Err(CaError::Misbehaved(format!("its answer has more than {ANSWER_MAX} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The certificates of a certs-only CMS in base64.
async fn certificates_in(answer: Response) -> Result<Vec<Vec<u8>>, CaError> {
    let kind = answer.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default().to_ascii_lowercase();
    if kind.split(';').next().map(str::trim) != Some(PKCS7) {
        return Err(CaError::Misbehaved(format!("its answer is of the type `{}`, not {PKCS7}", words(&kind))));
    }
    certificates_of(&decoded(&read(answer).await?)?).map_err(|error| CaError::Misbehaved(error.to_string()))
}

fn decoded(body: &[u8]) -> Result<Vec<u8>, CaError> {
    let text: Vec<u8> = body.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    STANDARD.decode(text).map_err(|_| CaError::Misbehaved("its answer is not base64".to_owned()))
}

/// The object identifiers of `CsrAttrs` (section 4.5.2): those that stand alone, and the types of attributes with values.
///
/// # Errors
/// [`CaError::Misbehaved`].
pub fn wanted_attributes(der: &[u8]) -> Result<Vec<const_oid::ObjectIdentifier>, CaError> {
    let wrong = |error: der::Error| CaError::Misbehaved(format!("csrattrs: {error}"));
    let all = Vec::<der::Any>::from_der(der).map_err(wrong)?;
    let oid = |any: &der::Any| {
        any.decode_as::<const_oid::ObjectIdentifier>()
            .or_else(|_| any.decode_as::<x509_cert::attr::Attribute>().map(|attribute| attribute.oid))
    };
    all.iter().map(oid).collect::<Result<_, _>>().map_err(wrong)
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    !part.is_empty() && text.windows(part.len()).any(|window| window == part)
}

/// Base64 in lines of 64 characters, which some servers insist on.
fn in_lines(base64: &str) -> String {
    let lines = base64.as_bytes().chunks(64).map(String::from_utf8_lossy);
    lines.fold(String::new(), |mut text, line| {
        text.push_str(&line);
        text.push('\n');
        text
    })
}
