//! The only outgoing HTTP of the gateway: small requests to authorities, each with a limit on time and on length.
//!
//! Invariants: no redirect is followed; nothing that an authority answers is kept beyond its limit; how long a call may take is counted from
//! its beginning to the last byte of its answer.

use std::time::Duration;

use reqwest::{
    Client, Method, Url,
    header::{ACCEPT, CONTENT_TYPE},
    redirect::Policy,
};

/// How long connecting may take.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// It was not reached, or the connection broke.
    #[error("it was not reached: {0}")]
    Unreachable(String),
    /// It took too long.
    #[error("it did not answer within {} s", .0.as_secs_f32())]
    TimedOut(Duration),
    /// It answered with another status than 200.
    #[error("it answered with HTTP status {0}")]
    Status(u16),
    /// It answered with another content type than it must.
    #[error("its answer is of the type `{0}`")]
    ContentType(String),
    /// Its answer is too long.
    #[error("its answer has more than {0} bytes")]
    TooLong(usize),
}

/// What is asked for, and what is taken.
#[derive(Debug, Clone, Copy)]
pub struct Exchange<'a> {
    /// The body and its type; nothing for a GET.
    pub post: Option<(&'a [u8], &'static str)>,
    /// The type that the answer must have; `None` for any.
    pub accept: Option<&'static str>,
    /// The most bytes of the answer.
    pub max: usize,
    /// How long all of it may take.
    pub timeout: Duration,
}

/// A client for authorities. A clone is another handle to the same one.
#[derive(Debug, Clone)]
pub struct Fetcher {
    client: Client,
}

impl Fetcher {
    /// Makes the client. Authorities with `https` addresses are trusted as this machine trusts them; what it trusts is not even looked for if
    /// none has one, for there may be nothing.
    ///
    /// # Errors
    /// [`FetchError::Unreachable`] if the machine's own trusted certificates cannot be read.
    pub fn new(speaks_tls: bool) -> Result<Self, FetchError> {
        let builder = if speaks_tls { Client::builder() } else { Client::builder().tls_certs_only([]) };
        let client = builder
            .redirect(Policy::none())
            .connect_timeout(CONNECT_MAX)
            .user_agent(concat!("sealgate/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| FetchError::Unreachable(reason(&error)))?;
        Ok(Self { client })
    }

    /// Makes one request and reads its answer.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn fetch(&self, url: &Url, exchange: &Exchange<'_>) -> Result<Vec<u8>, FetchError> {
        let fetched = tokio::time::timeout(exchange.timeout, self.exchange(url, exchange)).await;
        fetched.unwrap_or(Err(FetchError::TimedOut(exchange.timeout)))
    }

    async fn exchange(&self, url: &Url, exchange: &Exchange<'_>) -> Result<Vec<u8>, FetchError> {
        let unreachable = |error: reqwest::Error| FetchError::Unreachable(reason(&error));
        let method = if exchange.post.is_some() { Method::POST } else { Method::GET };
        let mut request = self.client.request(method, url.clone());
        if let Some((body, content_type)) = exchange.post {
            request = request.header(CONTENT_TYPE, content_type).body(body.to_vec());
        }
        if let Some(accept) = exchange.accept {
            request = request.header(ACCEPT, accept);
        }
        let mut response = request.send().await.map_err(unreachable)?;
        if response.status() != reqwest::StatusCode::OK {
            return Err(FetchError::Status(response.status().as_u16()));
        }
        if let Some(wanted) = exchange.accept {
            let got = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
            if !got.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(wanted) {
                return Err(FetchError::ContentType(got.chars().filter(|c| !c.is_control()).take(100).collect()));
            }
        }
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(unreachable)? {
            if body.len() + piece.len() > exchange.max {
                return Err(FetchError::TooLong(exchange.max));
            }
            body.extend_from_slice(&piece);
        }
        Ok(body)
    }
}

/// What went wrong, in one line; the address is said by whoever tells of it.
fn reason(error: &reqwest::Error) -> String {
    let mut deepest: &dyn std::error::Error = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}
