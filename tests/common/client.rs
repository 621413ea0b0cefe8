//! A client of the ticket API that does not give up: it asks again when an answer is lost and waits where `Retry-After` says so.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};

use super::site::Site;

/// The pause before a gateway that cannot be reached is asked again.
const RECONNECT: Duration = Duration::from_millis(20);
/// After so long a job that has not ended is one that never will.
const PATIENCE: Duration = Duration::from_secs(240);
/// What a ticket says whose signature was not asked for.
const NOT_REQUESTED: &str = "No signature was asked for";

/// How a signature ended for its client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// It was handed out.
    Signed,
    /// It was refused, for this cause.
    NotSigned(String),
}

/// An answer, or none.
#[derive(Debug)]
pub enum Told {
    Answer {
        status: StatusCode,
        retry_after: Option<u64>,
        body: Vec<u8>,
    },
    /// The connection broke: nobody knows whether the request was served.
    Lost,
}

/// Many requests at a time share one.
pub struct Client {
    http: reqwest::Client,
    url: String,
    api_key: String,
    lost: AtomicUsize,
    signed_after_loss: AtomicUsize,
}

impl Client {
    pub fn of(site: &Site) -> Self {
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        let (url, api_key) = (site.url.clone(), site.api_key.clone());
        Self { http, url, api_key, lost: AtomicUsize::new(0), signed_after_loss: AtomicUsize::new(0) }
    }

    /// How many answers were lost, and how many signatures came to clients whose wait for them was cut off before.
    pub fn losses(&self) -> (usize, usize) {
        (self.lost.load(Ordering::SeqCst), self.signed_after_loss.load(Ordering::SeqCst))
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}/api/v1{path}", self.url)).bearer_auth(&self.api_key).header("accept-language", "en")
    }

    /// Asks once.
    pub async fn once(&self, request: RequestBuilder) -> Told {
        let answer = async {
            let response = request.send().await?;
            let status = response.status();
            let retry_after = response.headers().get("retry-after").map(|value| value.to_str().unwrap().parse().unwrap());
            Ok::<_, reqwest::Error>(Told::Answer { status, retry_after, body: response.bytes().await?.to_vec() })
        };
        answer.await.unwrap_or_else(|_| {
            self.lost.fetch_add(1, Ordering::SeqCst);
            Told::Lost
        })
    }

    /// Asks until there is an answer other than "later".
    async fn ask(&self, make: impl Fn() -> RequestBuilder) -> (StatusCode, Vec<u8>) {
        loop {
            match self.once(make()).await {
                Told::Answer { retry_after: Some(seconds), status, .. } if status == 503 || status == 429 => {
                    tokio::time::sleep(Duration::from_secs(seconds)).await;
                }
                Told::Answer { status, body, .. } => return (status, body),
                Told::Lost => tokio::time::sleep(RECONNECT).await,
            }
        }
    }

    /// Makes a ticket with this content, and gives back its id. One whose answer was lost is left behind.
    pub async fn ticket_with(&self, content: &[u8]) -> String {
        let (status, body) = self.ask(|| self.request(Method::POST, "/ticket")).await;
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        let id = json_of(&body)["ticketUuid"].as_str().unwrap().to_owned();
        let upload = || {
            let request = self.request(Method::POST, &format!("/ticket/{id}/data"));
            request.header("content-type", "application/octet-stream").body(content.to_vec())
        };
        let (status, body) = self.ask(upload).await;
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        id
    }

    /// Asks for a permit, and gives back its id.
    pub async fn permit(&self, uses: usize) -> String {
        let (status, body) = self.ask(|| self.request(Method::POST, "/accessToken").json(&json!({ "accessTimesNumber": uses }))).await;
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        json_of(&body)["accessTokenUuid"].as_str().unwrap().to_owned()
    }

    /// Asks for the ticket's signature. When the answer is lost, the ticket itself is asked before it is tried again: a second request could be
    /// a second signature.
    pub async fn start(&self, ticket: &str, permit: Option<&str>) {
        let path = format!("/ticket/{ticket}/ds/creator");
        loop {
            let post = self.request(Method::POST, &path);
            let post = permit.map_or(post.try_clone().unwrap(), |permit| post.json(&json!({ "accessTokenUuid": permit })));
            match self.once(post).await {
                Told::Answer { status, .. } if status == 200 => return,
                Told::Answer { retry_after: Some(seconds), .. } => tokio::time::sleep(Duration::from_secs(seconds)).await,
                Told::Answer { status, body, .. } => panic!("{status} {}", String::from_utf8_lossy(&body)),
                Told::Lost => {
                    let (status, body) = self.ask(|| self.request(Method::GET, &path)).await;
                    let not_requested = status == 500 && cause_of(&body).starts_with(NOT_REQUESTED);
                    if !not_requested {
                        return;
                    }
                }
            }
        }
    }

    /// Waits for the ticket's signature, from gateway to gateway.
    pub async fn wait(&self, ticket: &str) -> Ended {
        tokio::time::timeout(PATIENCE, self.wait_for_ever(ticket))
            .await
            .unwrap_or_else(|_| panic!("the job of ticket {ticket} does not end"))
    }

    async fn wait_for_ever(&self, ticket: &str) -> Ended {
        let mut cut_off = false;
        loop {
            match self.once(self.request(Method::GET, &format!("/ticket/{ticket}/ds/data"))).await {
                Told::Answer { status, .. } if status == 200 => {
                    self.signed_after_loss.fetch_add(usize::from(cut_off), Ordering::SeqCst);
                    return Ended::Signed;
                }
                Told::Answer { status, .. } if status == 202 => {}
                Told::Answer { retry_after: Some(seconds), .. } => tokio::time::sleep(Duration::from_secs(seconds)).await,
                Told::Answer { status, body, .. } if status == 500 => return Ended::NotSigned(cause_of(&body)),
                Told::Answer { status, body, .. } => panic!("{status} {}", String::from_utf8_lossy(&body)),
                Told::Lost => {
                    cut_off = true;
                    tokio::time::sleep(RECONNECT).await;
                }
            }
        }
    }
}

pub fn json_of(body: &[u8]) -> Value {
    serde_json::from_slice(body).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(body)))
}

fn cause_of(body: &[u8]) -> String {
    json_of(body)["failureCause"].as_str().unwrap_or_default().to_owned()
}
