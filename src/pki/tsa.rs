//! The client of time-stamping authorities (RFC 3161 section 3.4): several addresses, one after the other, within a limit.
//!
//! It carries bytes; what makes an answer a good one is said by whoever asks. Invariants: a slow authority holds up nobody but those who wait
//! for a time stamp, and never more of them than the queue has room for; an authority that failed is asked last for a while.

use std::{
    fmt,
    num::NonZeroUsize,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use reqwest::Url;
use tokio::sync::Semaphore;
use tracing::warn;

use super::fetch::{Exchange, FetchError, Fetcher};

const QUERY: &str = "application/timestamp-query";
const REPLY: &str = "application/timestamp-reply";
/// How long an authority that failed is asked after all others.
const PUT_OFF: Duration = Duration::from_secs(60);

/// Which authorities are asked, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TsaSettings {
    /// Their addresses, in the order in which they are asked.
    pub urls: Vec<Url>,
    /// How long one of them may take.
    pub timeout: Duration,
    /// How many requests are on their way at the same time.
    pub concurrent: NonZeroUsize,
    /// How many more may wait for their turn.
    pub queue: usize,
    /// The longest response that is taken, in bytes.
    pub response_max: usize,
}

/// Why there is no time stamp.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TsaError {
    /// No authority is configured.
    #[error("no time-stamping authority is configured")]
    NoneConfigured,
    /// As many wait as may wait.
    #[error("too many requests wait for a time stamp; try again in a moment")]
    Busy,
    /// None of them gave one; the reasons stand one after the other.
    #[error("no time-stamping authority gave a good answer: {0}")]
    AllFailed(String),
}

/// A client of configured authorities.
pub struct TsaClient {
    fetcher: Fetcher,
    settings: TsaSettings,
    turns: Semaphore,
    /// Everybody who is let in: those on their way and those who wait.
    room: Semaphore,
    /// For each address: until when it is asked last.
    put_off: Mutex<Vec<Option<Instant>>>,
}

impl fmt::Debug for TsaClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TsaClient").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl TsaClient {
    /// A client of these authorities.
    #[must_use]
    pub fn new(fetcher: Fetcher, settings: TsaSettings) -> Self {
        let concurrent = settings.concurrent.get();
        Self {
            fetcher,
            turns: Semaphore::new(concurrent),
            room: Semaphore::new(concurrent.saturating_add(settings.queue).min(Semaphore::MAX_PERMITS)),
            put_off: Mutex::new(vec![None; settings.urls.len()]),
            settings,
        }
    }

    /// The longest that a request takes from its turn on, in the worst case: every authority as slow as it may be.
    #[must_use]
    pub fn worst_case(&self) -> Duration {
        self.settings.timeout.saturating_mul(u32::try_from(self.settings.urls.len()).unwrap_or(u32::MAX))
    }

    /// Asks one authority after the other until `accept` takes an answer. `prepare` makes a fresh request for each.
    ///
    /// # Errors
    /// [`TsaError`].
    pub async fn ask<Q, T, E: fmt::Display, A: Future<Output = Result<T, E>>>(
        &self,
        prepare: impl Fn() -> Result<(Q, Vec<u8>), E>,
        accept: impl Fn(Q, Vec<u8>) -> A,
    ) -> Result<T, TsaError> {
        if self.settings.urls.is_empty() {
            return Err(TsaError::NoneConfigured);
        }
        let _room = self.room.try_acquire().map_err(|_| TsaError::Busy)?;
        let _turn = self.turns.acquire().await.map_err(|_| TsaError::Busy)?;
        let mut failures = Vec::new();
        for number in self.order() {
            let url = &self.settings.urls[number];
            let (query, request) = prepare().map_err(|error| TsaError::AllFailed(error.to_string()))?;
            let accepted = match self.post(url, &request).await {
                Ok(answer) => accept(query, answer).await.map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            match accepted {
                Ok(accepted) => {
                    self.note(number, None);
                    return Ok(accepted);
                }
                Err(reason) => {
                    warn!(tsa.url = %url, error = %reason, "time-stamping authority {url}: {reason}");
                    self.note(number, Some(Instant::now() + PUT_OFF));
                    failures.push(format!("{}: {reason}", shown(url)));
                }
            }
        }
        Err(TsaError::AllFailed(failures.join("; ")))
    }

    async fn post(&self, url: &Url, request: &[u8]) -> Result<Vec<u8>, FetchError> {
        let exchange =
            Exchange { post: Some((request, QUERY)), accept: Some(REPLY), max: self.settings.response_max, timeout: self.settings.timeout };
        self.fetcher.fetch(url, &exchange).await
    }

    /// The addresses in the order in which they are asked now.
    fn order(&self) -> Vec<usize> {
        let put_off = self.put_off.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let mut order: Vec<usize> = (0..put_off.len()).collect();
        order.sort_by_key(|number| put_off[*number].is_some_and(|until| until > now));
        order
    }

    fn note(&self, number: usize, until: Option<Instant>) {
        self.put_off.lock().unwrap_or_else(PoisonError::into_inner)[number] = until;
    }
}

/// An address as clients are shown it: its host alone, for a path may hold a customer's number.
fn shown(url: &Url) -> String {
    url.host_str().unwrap_or("an authority").to_owned()
}
