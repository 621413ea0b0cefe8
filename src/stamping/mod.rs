//! Time stamps for signatures: from time-stamping authorities elsewhere, or from the gateway's own.
//!
//! Used by `ticket`, which wants them for signatures, and by `http`, which answers for the gateway's own authority. Invariants: nothing here
//! waits for a token slot that others sign with while a network is slow; a time stamp is checked before anybody gets it, also one of our own.

mod authority;

use std::{sync::Arc, time::Duration};

use const_oid::ObjectIdentifier;

pub use self::authority::{Authority, AuthoritySettings};
pub use crate::cms::time_stamp::REQUEST_MAX;
use crate::{
    cms::time_stamp::{TimeStamp, TimeStampError, TimeStampQuery},
    domain::digest::Digest,
    pki::tsa::{TsaClient, TsaError},
};

/// Why there is no time stamp.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StampError {
    /// The authorities did not give one.
    #[error(transparent)]
    Authorities(#[from] TsaError),
    /// The gateway's own authority did not make one, or not a good one.
    #[error("the gateway's own time-stamping authority: {0}")]
    Own(#[from] TimeStampError),
    /// It took too long.
    #[error("no time stamp was had within {} s", .0.as_secs())]
    TimedOut(Duration),
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
}

impl TimeStamps {
    /// Time stamps from this source; without one, none can be had.
    #[must_use]
    pub const fn new(source: Option<StampSource>, settings: StampSettings) -> Self {
        Self { source, settings }
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
            Ok((query, request))
        };
        match &self.source {
            None => Err(TsaError::NoneConfigured.into()),
            Some(StampSource::Remote(client)) => {
                Ok(client.ask(prepare, |query: TimeStampQuery, answer: &[u8]| query.accept(answer)).await?)
            }
            Some(StampSource::Own(authority)) => {
                let (query, request) = prepare()?;
                Ok(query.accept(&authority.answer(&request, None).await)?)
            }
        }
    }
}
