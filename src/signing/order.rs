//! What is asked of the signing service: leave for one key and algorithm, and the order that such a leave makes possible.

use std::sync::Arc;

use crate::domain::{
    algorithm::{KeyKind, SignatureAlgorithm},
    caller::{Caller, ConsentPolicy},
    certificate::Validity,
    consent::ShownDocument,
    digest::ToSign,
    ids::{JobId, PermitId},
    job::KeyAddress,
    key::KeyChoice,
    pin::Pin,
    timestamp::Timestamp,
    token::LoginMode,
};

use super::{
    keyring::{KnownKey, Site},
    refusal::{CertificateFault, Denied},
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
    /// Serial number of its certificate, in hex.
    pub certificate_serial: Option<String>,
    /// What it may sign with.
    pub algorithms: Vec<SignatureAlgorithm>,
    /// When its certificate is in force, where that matters.
    pub in_force: Option<Validity>,
    /// Another certificate has taken the place of the one it has.
    pub replaced: bool,
    /// It signs documents although its certificate is for time stamps alone.
    pub ignore_purpose: bool,
}

impl SigningKey {
    /// Checks that its certificate is one to sign with at `now`.
    ///
    /// # Errors
    /// [`Denied::CertificateNotInForce`].
    pub(super) fn check_certificate(&self, now: Timestamp) -> Result<(), Denied> {
        let fault = match self.in_force {
            _ if self.replaced => CertificateFault::Replaced,
            Some(validity) if now < validity.not_before => CertificateFault::NotYetValid(validity.not_before),
            Some(validity) if !validity.includes(now) => CertificateFault::Expired(validity.not_after),
            _ => return Ok(()),
        };
        Err(Denied::CertificateNotInForce(fault))
    }
}

/// Leave to have one signature made: caller × key × algorithm, checked. Only [`SigningService::authorise`](super::service::SigningService::authorise) makes one.
#[derive(Debug)]
pub struct Authorised {
    pub(super) caller: Caller,
    pub(super) known: Arc<KnownKey>,
    pub(super) site: Site,
    pub(super) algorithm: SignatureAlgorithm,
}

/// A job to be accepted.
#[derive(Debug)]
pub struct JobOrder {
    /// The leave to have it made.
    pub authorised: Authorised,
    /// What it will be called.
    pub job: JobId,
    /// What is signed, and how: with the algorithm of the leave.
    pub to_sign: ToSign,
    /// What pays for it.
    pub payment: Payment,
    /// What an operator who is asked can be shown.
    pub document: Option<ShownDocument>,
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

impl Authorised {
    /// The key.
    #[must_use]
    pub fn key(&self) -> &SigningKey {
        &self.known.key
    }

    /// Whether a PIN that comes with the request is consent enough: whoever knows it is logged in with it for this signature. Not where two persons
    /// must agree.
    #[must_use]
    pub fn pin_is_consent(&self) -> bool {
        let policy = self.caller.consent.with_key(self.known.key.address.name.as_ref());
        self.site.login_mode() == LoginMode::PerRequest && policy < ConsentPolicy::TwoOperators
    }

    /// The algorithm.
    #[must_use]
    pub const fn algorithm(&self) -> SignatureAlgorithm {
        self.algorithm
    }
}

impl Payment {
    /// What is asked for with it, in words for the audit log.
    pub(super) fn what(&self) -> String {
        match self {
            Self::Permit(permit) => format!("a signature with permit {permit}"),
            Self::AskNow | Self::Pin(_) => "a signature".to_owned(),
        }
    }
}

/// A wish, in words for the audit log.
pub(super) fn signature_with(choice: &KeyChoice) -> String {
    match choice {
        KeyChoice::Default => "a signature with the default key".to_owned(),
        KeyChoice::Named(name) => format!("a signature with key {name}"),
        KeyChoice::Uri(uri) => format!("a signature with the key at {uri}"),
    }
}
