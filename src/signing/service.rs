//! The one place that knows the order of the steps: authorise → reserve → submit → sign → verify → record.

use std::{sync::Arc, time::Duration};

use crate::{
    domain::{
        algorithm::{KeyKind, SignatureAlgorithm},
        caller::Caller,
        digest::ToSign,
        ids::{CallerId, JobId, KeyName, PermitId},
        job::{KeyAddress, SigningJob},
        key::KeyChoice,
        permit::PermitRefusal,
        pin::Pin,
        token::SlotStatus,
    },
    store::{Change, StoreError},
};

/// A key that can sign now, with everything but the private part.
#[derive(Debug)]
pub struct SigningKey {
    /// Where it is.
    pub address: KeyAddress,
    /// What it is.
    pub kind: KeyKind,
    /// `SubjectPublicKeyInfo` in DER.
    pub public_key: Vec<u8>,
    /// Its certificate in DER; a key without one signs no CMS.
    pub certificate: Option<Vec<u8>>,
    /// Certificates of its CAs in DER, nearest first.
    pub chain: Vec<Vec<u8>>,
    /// What it may sign with.
    pub algorithms: Vec<SignatureAlgorithm>,
}

/// Leave to have one signature made: caller × key × algorithm, checked. Only [`SigningService::authorise`] makes one.
#[derive(Debug)]
pub struct Authorised {
    caller: CallerId,
    key: Arc<SigningKey>,
    algorithm: SignatureAlgorithm,
}

/// What pays for a signature.
#[derive(Debug)]
pub enum Payment {
    /// A permit that the caller was given before.
    Permit(PermitId),
    /// A single-use permit, asked for now.
    AskNow,
    /// The PIN that came with the request; it pays only on slots that are logged in per request, elsewhere it is checked and a permit asked for.
    Pin(Pin),
}

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
    #[error("the token cannot sign now: {} {}", .0.state, .0.reason)]
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
    /// The key made a wrong signature and is not used before an operator has looked.
    #[error("the key is quarantined: it made a signature that did not verify")]
    Quarantined,
    /// The token did not answer as it should.
    #[error("{0}")]
    Device(String),
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

impl Authorised {
    /// The key.
    #[must_use]
    pub fn key(&self) -> &SigningKey {
        &self.key
    }

    /// The algorithm.
    #[must_use]
    pub const fn algorithm(&self) -> SignatureAlgorithm {
        self.algorithm
    }
}

/// The way of one signature, from the caller's wish to the recorded result.
pub struct SigningService {}

impl SigningService {
    /// Finds the key that `caller` chose and checks that the caller may use it, with this algorithm (or the key's own), now.
    ///
    /// `pin` is the one that came with the request, if any: it may be needed to see the key, and is checked here, within the rules.
    ///
    /// # Errors
    /// [`Denied`]; nothing is queued or spent, but for a PIN try where [`Denied::PinRefused`] says so.
    pub async fn authorise(
        &self,
        caller: &Caller,
        choice: &KeyChoice,
        algorithm: Option<SignatureAlgorithm>,
        pin: Option<&Pin>,
    ) -> Result<Authorised, Denied> {
        unimplemented!()
    }

    /// Accepts a job: durable when this returns. `with` is committed in the same step (the ticket that refers to `job`).
    ///
    /// # Errors
    /// [`SubmitError`]; nothing was changed or spent then.
    pub async fn submit(
        &self,
        authorised: Authorised,
        job: JobId,
        to_sign: ToSign,
        payment: Payment,
        with: Vec<Change>,
    ) -> Result<(), SubmitError> {
        unimplemented!()
    }

    /// Finds a job.
    ///
    /// # Errors
    /// The store was not reached.
    pub async fn find_job(&self, id: JobId) -> Result<Option<SigningJob>, StoreError> {
        unimplemented!()
    }

    /// Waits at most `bound` for the end of a job, and returns it as it then stands; `None` if there is no such job.
    ///
    /// # Errors
    /// The store was not reached.
    pub async fn wait_for_end(&self, id: JobId, bound: Duration) -> Result<Option<SigningJob>, StoreError> {
        unimplemented!()
    }
}
