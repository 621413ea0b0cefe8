//! Why a certificate request does not go on.

use crate::{
    domain::{
        enrolment::{EnrolmentState, WrongStep},
        job::KeyAddress,
    },
    pki::csr::RequestError,
    signing::service::Denied,
    store::{Conflict, StoreError},
    token::{driver::DeviceError, slot::SlotError},
};

/// Why something that was asked for was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnrolmentError {
    /// There is no such request, or it is somebody else's.
    #[error("there is no such certificate request")]
    NotFound,
    /// What was asked for cannot be done for this request.
    #[error("{0}")]
    Fault(#[from] Fault),
    /// The token, the CA or the store is away; nothing was changed, and the same may be asked again.
    #[error("{0}")]
    Unavailable(String),
    /// Somebody else changed the request meanwhile; looking again tells how it stands.
    #[error("the certificate request was changed meanwhile")]
    Overtaken,
}

/// What is wrong with a request, or with what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The id was used for another request.
    #[error("another request has this id")]
    OtherRequest,
    /// The name of the holder is not that of the account.
    #[error("the holder's name is not the account's")]
    OtherName,
    /// No profile is configured, or not this one.
    #[error("there is no such enrolment profile; add one to the configuration")]
    NoProfile,
    /// The organisation has too many requests that have not ended.
    #[error("the organisation has {0} open requests, the most it may have")]
    TooMany(usize),
    /// The key's name belongs to somebody else.
    #[error("the key name {0} is taken; change `key_name` of the profile")]
    NameTaken(String),
    /// What the client sent as a certificate request.
    #[error("{0}")]
    Request(#[from] RequestFault),
    /// The key that was named cannot be used.
    #[error("the key cannot be used: {0}")]
    Key(String),
    /// The request is in another state.
    #[error("the request is {0}")]
    State(EnrolmentState),
    /// Its certificate was replaced by another one.
    #[error("the certificate has been replaced by a newer one")]
    Replaced,
    /// No key on the token goes with the certificate.
    #[error("no private key on the token has the certificate's CKA_ID")]
    NoKey,
    /// Several do.
    #[error("{0} private keys on the token have the certificate's CKA_ID")]
    SeveralKeys(usize),
    /// The public keys of certificate, request and token are not one.
    #[error("the public keys of certificate, request and token differ")]
    OtherKey,
    /// The certificate's chain does not lead to an anchor.
    #[error("{0}")]
    Path(String),
    /// The certificate is not valid yet.
    #[error("the certificate is not valid yet")]
    NotYetValid,
    /// The certificate has expired.
    #[error("the certificate has expired")]
    Expired,
    /// The certificate's key is not for signatures.
    #[error("the certificate's keyUsage does not have digitalSignature")]
    KeyUsage,
    /// The key did not prove that it is there.
    #[error("the proof of possession does not verify with the certificate's key")]
    Proof,
    /// The confirmation's signature is not one of the holder over the application.
    #[error("the confirmation is not good: {0}")]
    Confirmation(String),
    /// What an operator brought is not the certificate of this request.
    #[error("{0}")]
    Certificate(String),
}

/// What is wrong with a certificate request that a client sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestFault {
    /// It cannot be read, or is not right.
    #[error("{0}")]
    Request(#[from] RequestError),
    /// It is not in the CMS that it should be in.
    #[error("the CMS has no attached certificate request: {0}")]
    Cms(String),
    /// The kind of key that is to be made is not known.
    #[error("keys of the type {0} are not made")]
    KeyType(String),
}

impl From<RequestFault> for EnrolmentError {
    fn from(fault: RequestFault) -> Self {
        Self::Fault(fault.into())
    }
}

impl From<RequestError> for EnrolmentError {
    fn from(error: RequestError) -> Self {
        RequestFault::from(error).into()
    }
}

impl From<WrongStep> for EnrolmentError {
    fn from(error: WrongStep) -> Self {
        Self::Fault(Fault::State(error.state))
    }
}

impl From<StoreError> for EnrolmentError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict(Conflict::EnrolmentGone) => Self::NotFound,
            StoreError::Conflict(_) => Self::Overtaken,
            StoreError::Unavailable(why) => Self::Unavailable(format!("the store is not available: {why}")),
        }
    }
}

impl EnrolmentError {
    /// What a token's refusal means while a key is looked for.
    pub(super) fn of_lookup(error: SlotError) -> Self {
        match error {
            SlotError::Device(DeviceError::KeyNotFound(_)) => Fault::NoKey.into(),
            SlotError::Device(DeviceError::KeyAmbiguous { count, .. }) => Fault::SeveralKeys(count).into(),
            other => Self::Unavailable(other.to_string()),
        }
    }

    /// What a refusal to sign means for a request; `at` is the key.
    pub(super) fn of_signature(error: &Denied, at: &KeyAddress) -> Self {
        match error {
            Denied::Quarantined => Fault::Proof.into(),
            Denied::KeyNotFound => Fault::NoKey.into(),
            Denied::KeyAmbiguous(count) => Fault::SeveralKeys(*count).into(),
            Denied::NotSupported(why) => Fault::Key(why.clone()).into(),
            Denied::NoPublicKey => Fault::Key(format!("the public half of {} cannot be read", at.uri())).into(),
            other => Self::Unavailable(other.to_string()),
        }
    }
}
