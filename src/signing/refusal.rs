//! Why a signature is not made: the key cannot be had, or the job was not accepted.

use std::time::Duration;

use tracing::error;

use crate::{
    domain::{ids::KeyName, permit::PermitRefusal, timestamp::Timestamp, token::SlotStatus},
    store::{Conflict, StoreError},
};

/// What a client whose job found the queue full is told to wait at least, and at most.
const RETRY_AFTER: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Why a signature is not allowed, or its key not usable now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The caller has no default key and named none.
    #[error("no key was chosen and this caller has no default key")]
    NoKey,
    /// No configured key has this name, or the caller may not use it: the two look the same.
    #[error("there is no key {0} that this caller may use")]
    UnknownKey(KeyName),
    /// The caller may not choose keys by URI, or this one.
    #[error("this caller may not use the key at this URI")]
    ForeignKey,
    /// No token matches; the key may come when the token is plugged in.
    #[error("the token of this key is not plugged in")]
    TokenAbsent,
    /// More than one token matches.
    #[error("{0} tokens match this URI; add the serial number")]
    TokenAmbiguous(usize),
    /// No key on the token matches.
    #[error("there is no such key on the token")]
    KeyNotFound,
    /// More than one key on the token matches.
    #[error("{0} keys on the token match; name one by its id")]
    KeyAmbiguous(usize),
    /// The slot will not sign before a person does something.
    #[error("the token cannot sign now: {0}")]
    SlotUnavailable(SlotStatus),
    /// The key cannot sign with this algorithm, or the gateway could not verify what it signs.
    #[error("{0}")]
    NotSupported(String),
    /// The key has neither a public key nor a certificate on the token.
    #[error("the key has neither a public key nor a certificate, so its signatures could not be verified")]
    NoPublicKey,
    /// A wrong or unwelcome PIN.
    #[error("{0}")]
    PinRefused(String),
    /// Its certificate is not one to sign with now.
    #[error("the key's certificate {0}")]
    CertificateNotInForce(CertificateFault),
    /// The key made a wrong signature and is not used before an operator has looked.
    #[error("the key is quarantined: it made a signature that did not verify")]
    Quarantined,
    /// The token did not answer as it should.
    #[error("{0}")]
    Device(String),
}

/// What is wrong with a certificate that a signature was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CertificateFault {
    /// Its time has not come.
    #[error("is not valid before {}", .0.to_rfc3339())]
    NotYetValid(Timestamp),
    /// Its time is over.
    #[error("has expired at {}; renew it", .0.to_rfc3339())]
    Expired(Timestamp),
    /// Another one has taken its place.
    #[error("was replaced by another one; choose the key by its name")]
    Replaced,
}

/// Why a job was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// The permit cannot be used.
    #[error("{0}")]
    Permit(#[from] PermitRefusal),
    /// The token's queue is full: come again after `retry_after`.
    #[error("{bound} signatures are waiting for this token; try again in {} s", retry_after.as_secs())]
    QueueFull {
        /// The most that may wait.
        bound: usize,
        /// When to try again.
        retry_after: Duration,
    },
    /// As many requests of the caller wait for operators as may.
    #[error("{limit} requests of this caller wait for operators already")]
    TooManyWaiting {
        /// The most that may.
        limit: usize,
    },
    /// A request with the same idempotency key was quicker.
    #[error("a request with this idempotency key was made before")]
    RequestKnown,
    /// Something that was to be changed together with the job has been changed meanwhile.
    #[error("the request was overtaken by another one")]
    Overtaken,
    /// The slot stopped being able to sign.
    #[error("{0}")]
    Denied(#[from] Denied),
    /// The store was not reached; nothing was accepted.
    #[error("the store is not available")]
    StoreUnavailable,
}

impl Denied {
    /// Whether the caller was not allowed what it asked for; otherwise it asked for what cannot be done, or cannot be done now.
    #[must_use]
    pub const fn is_refusal(&self) -> bool {
        matches!(self, Self::UnknownKey(_) | Self::ForeignKey | Self::PinRefused(_) | Self::Quarantined)
    }
}

/// What a store that did not accept a job means for whoever asked for it.
pub(super) fn refused(error: StoreError) -> SubmitError {
    match error {
        StoreError::Conflict(Conflict::Permit(refusal)) => SubmitError::Permit(refusal),
        StoreError::Conflict(Conflict::QueueFull { bound }) => SubmitError::QueueFull { bound, retry_after: retry_after(bound) },
        StoreError::Conflict(Conflict::TooManyWaiting { limit }) => SubmitError::TooManyWaiting { limit },
        StoreError::Conflict(Conflict::RequestKnown) => SubmitError::RequestKnown,
        StoreError::Conflict(_) => SubmitError::Overtaken,
        StoreError::Unavailable(reason) => {
            error!(error = %reason, "the store is not available");
            SubmitError::StoreUnavailable
        }
    }
}

/// A token makes some fifty signatures a second, if it is a slow one: by then half of a full queue has gone.
fn retry_after(bound: usize) -> Duration {
    Duration::from_secs(bound as u64 / 100).clamp(RETRY_AFTER.0, RETRY_AFTER.1)
}
