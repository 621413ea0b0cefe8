//! Time stamps for signatures: from time-stamping authorities elsewhere, or from the gateway's own.
//!
//! Used by `ticket`, which wants them for signatures, and by `http`, which answers for the gateway's own authority. Invariants: nothing here
//! waits for a token slot that others sign with while a network is slow; a time stamp is checked before anybody gets it, also one of our own;
//! where this deployment trusts anybody, it is one of an authority that this deployment trusts.

mod authority;

use std::{sync::Arc, time::Duration};

use const_oid::ObjectIdentifier;

pub use self::authority::{Authority, AuthoritySettings};
pub use crate::cms::time_stamp::REQUEST_MAX;
use crate::{
    cms::time_stamp::{TimeStamp, TimeStampError, TimeStampQuery},
    domain::{digest::Digest, revocation::RevocationCheck},
    pki::{
        trust::Trust,
        tsa::{TsaClient, TsaError},
    },
    store::Store,
    verification::{Judgement, TimeStampFault, judge_time_stamp},
};

/// Why there is no time stamp.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StampError {
    /// The authorities did not give one.
    #[error(transparent)]
    Authorities(#[from] TsaError),
    /// The gateway's own authority did not make one, or not a good one.
    #[error("the gateway's own time-stamping authority: {0}")]
    Own(AnswerFault),
    /// It took too long.
    #[error("no time stamp was had within {} s", .0.as_secs())]
    TimedOut(Duration),
}

/// Why an answer is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnswerFault {
    /// It is no good answer.
    #[error(transparent)]
    Answer(#[from] TimeStampError),
    /// It is of an authority that verifiers here would not believe.
    #[error("verifiers here would not believe it: {0}; add the authority's CA to `[trust]`")]
    NotBelieved(#[from] TimeStampFault),
    /// Checking it did not end well.
    #[error("its answer could not be checked")]
    Unchecked,
}

/// Where time stamps come from.
pub enum StampSource {
    /// From authorities elsewhere.
    Remote(TsaClient),
    /// From the gateway's own authority.
    Own(Arc<Authority>),
}

/// What a deployment says about the time stamps that it asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StampSettings {
    /// The policy that is asked for; any, if it is `None`.
    pub policy: Option<ObjectIdentifier>,
    /// How long one time stamp may take in all, waiting for a turn included.
    pub total: Duration,
}

/// Asks for time stamps.
pub struct TimeStamps {
    source: Option<StampSource>,
    settings: StampSettings,
    trusting: Option<Trusting>,
}

/// By what authorities are judged: whom to trust, and whose clock says when.
#[derive(Clone)]
struct Trusting {
    trust: Trust,
    store: Arc<dyn Store>,
}

impl TimeStamps {
    /// Time stamps from this source; without one, none can be had.
    #[must_use]
    pub const fn new(source: Option<StampSource>, settings: StampSettings) -> Self {
        Self { source, settings, trusting: None }
    }

    /// The same, of authorities that are trusted now, as far as anybody is.
    #[must_use]
    pub fn trusting(self, trust: Trust, store: Arc<dyn Store>) -> Self {
        Self { trusting: Some(Trusting { trust, store }), ..self }
    }

    /// Whether there is anybody to ask.
    #[must_use]
    pub const fn are_available(&self) -> bool {
        self.source.is_some()
    }

    /// Asks for a time stamp of data with this digest, and checks it.
    ///
    /// # Errors
    /// [`StampError`].
    pub async fn stamp(&self, imprint: &Digest) -> Result<TimeStamp, StampError> {
        let total = self.settings.total;
        tokio::time::timeout(total, self.ask(imprint)).await.unwrap_or(Err(StampError::TimedOut(total)))
    }

    async fn ask(&self, imprint: &Digest) -> Result<TimeStamp, StampError> {
        let prepare = || {
            let query = TimeStampQuery::new(imprint.clone(), self.settings.policy)?;
            let request = query.to_der()?;
            Ok::<_, AnswerFault>((query, request))
        };
        let accept = |query: TimeStampQuery, answer: Vec<u8>| self.accept(imprint, query, answer);
        match &self.source {
            None => Err(TsaError::NoneConfigured.into()),
            Some(StampSource::Remote(client)) => Ok(client.ask(prepare, accept).await?),
            Some(StampSource::Own(authority)) => {
                let (query, request) = prepare().map_err(StampError::Own)?;
                accept(query, authority.answer(&request, None).await).await.map_err(StampError::Own)
            }
        }
    }

    /// Takes a good answer of an authority that is trusted. Paths take time: on a blocking thread.
    async fn accept(&self, imprint: &Digest, query: TimeStampQuery, answer: Vec<u8>) -> Result<TimeStamp, AnswerFault> {
        let (trusting, imprint) = (self.trusting.clone(), imprint.clone());
        let accepted = tokio::task::spawn_blocking(move || {
            let stamp = query.accept(&answer)?;
            let Some(Trusting { trust, store }) = trusting else { return Ok(stamp) };
            let trust = trust.current();
            if trust.anchors().is_empty() {
                return Ok(stamp);
            }
            // Nobody waits for evidence here: whether the authority was revoked is a question of whoever verifies.
            let judgement = Judgement { revocation_of_time_stamps: RevocationCheck::Off, ..Judgement::of_documents(&trust, store.now()) };
            judge_time_stamp(stamp.as_der(), &|hash| Some(imprint.clone()).filter(|digest| digest.algorithm() == hash), &judgement)?;
            Ok(stamp)
        });
        accepted.await.unwrap_or(Err(AnswerFault::Unchecked))
    }
}
