//! A client of a gateway's control socket: what `slots`, `keys`, `unlock` and `lock` ask.

use std::{
    io,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use reqwest::{
    Client, RequestBuilder, Response,
    header::{HeaderMap, HeaderValue},
};
use serde::{Serialize, de::DeserializeOwned};

use crate::http::control::{BEFORE_SUDO, before_sudo, dto::ErrorDto};

/// How long a command may take: a person at a PIN pad may be given an hour (`person_limit_seconds`).
const COMMAND_MAX: Duration = Duration::from_secs(3_660);

/// The control socket of a gateway that runs.
pub(super) struct ControlClient {
    http: Client,
    socket: PathBuf,
}

impl ControlClient {
    /// Connects; `None` if no gateway runs there.
    pub(super) fn connect(socket: &Path) -> anyhow::Result<Option<Self>> {
        match UnixStream::connect(socket) {
            Ok(_) => {
                let http = Client::builder()
                    .unix_socket(socket)
                    .tls_certs_only([])
                    .default_headers(own_headers()?)
                    .timeout(COMMAND_MAX)
                    .build()
                    .context("no HTTP client could be made")?;
                Ok(Some(Self { http, socket: socket.to_owned() }))
            }
            // A socket at which nobody listens was left by a gateway that was killed.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => Ok(None),
            Err(error) => Err(error).with_context(|| {
                format!("the gateway's control socket {} cannot be used; run this as the user that runs the gateway", socket.display())
            }),
        }
    }

    /// Connects, or says how to start a gateway.
    pub(super) fn expect(socket: &Path) -> anyhow::Result<Self> {
        Self::connect(socket)?.with_context(|| {
            format!("no gateway runs (nobody listens at {}); start it with `sealgate serve` or `sealgate dev`", socket.display())
        })
    }

    /// Asks.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.send(self.http.get(url(path))).await
    }

    /// Asks, with a query.
    pub(super) async fn get_with<T: DeserializeOwned>(&self, path: &str, query: &impl Serialize) -> anyhow::Result<T> {
        self.send(self.http.get(url(path)).query(query)).await
    }

    /// Orders.
    pub(super) async fn post<T: DeserializeOwned>(&self, path: &str, order: &impl Serialize) -> anyhow::Result<T> {
        self.send(self.http.post(url(path)).json(order)).await
    }

    async fn send<T: DeserializeOwned>(&self, request: RequestBuilder) -> anyhow::Result<T> {
        let broke_off = || format!("the gateway at {} broke off; is it still running?", self.socket.display());
        let answer = request.send().await.with_context(broke_off)?;
        if !answer.status().is_success() {
            return Err(refused(answer).await);
        }
        answer.json().await.context("the gateway's answer is not understood; use the command line of the gateway's own version")
    }
}

/// What every order says of who gives it, beside what the kernel says.
fn own_headers() -> anyhow::Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    if let Some(name) = before_sudo() {
        headers.insert(BEFORE_SUDO, HeaderValue::from_str(name.as_str()).context("SUDO_USER is no name")?);
    }
    Ok(headers)
}

/// The host is not looked at on a Unix socket.
fn url(path: &str) -> String {
    format!("http://localhost{path}")
}

async fn refused(answer: Response) -> anyhow::Error {
    let status = answer.status();
    match answer.json::<ErrorDto>().await {
        Ok(ErrorDto { error, hint }) => anyhow!("{error}; {hint}"),
        Err(_) => anyhow!("the gateway refused ({status}); use the command line of the gateway's own version"),
    }
}
