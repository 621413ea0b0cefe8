//! Signing jobs: their states and which state may follow which.
//!
//! Invariant: a job that was accepted ends; what may have been signed and is not known is `InDoubt`, and is never signed again by itself.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{
    audit::Consent,
    caller::Provenance,
    digest::ToSign,
    ids::{CallerId, ClaimId, JobId, KeyName, PermitId},
    key_uri::Pkcs11Uri,
    signature::SignatureValue,
    timestamp::Timestamp,
    token::{KeySelector, TokenIdentity},
};

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobState {
    /// The operator has not decided yet.
    AwaitingConsent,
    /// Accepted; a use of its permit is reserved.
    Queued,
    /// Claimed for the token; from here on it may have been signed.
    Signing,
    /// The signature is there and verified.
    Signed,
    /// It ended without a signature.
    Failed,
    /// The token may have signed and nobody knows.
    InDoubt,
    /// It was taken back before it was claimed.
    Cancelled,
    /// Its deadline passed before it was claimed.
    Expired,
}

impl JobState {
    /// Whether nothing follows, but for an operator who resolves an `InDoubt`.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Signed | Self::Failed | Self::InDoubt | Self::Cancelled | Self::Expired)
    }

    /// Whether a job in this state may come into `next`.
    #[must_use]
    pub const fn may_become(self, next: Self) -> bool {
        use JobState::{AwaitingConsent, Cancelled, Expired, Failed, InDoubt, Queued, Signed, Signing};
        match self {
            AwaitingConsent => matches!(next, Queued | Failed | Cancelled | Expired),
            Queued => matches!(next, Signing | Failed | Cancelled | Expired),
            Signing => matches!(next, Queued | Signed | Failed | InDoubt | Cancelled | Expired),
            InDoubt => matches!(next, Failed),
            Signed | Failed | Cancelled | Expired => false,
        }
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AwaitingConsent => "awaiting consent",
            Self::Queued => "queued",
            Self::Signing => "signing",
            Self::Signed => "signed",
            Self::Failed => "failed",
            Self::InDoubt => "in doubt",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        })
    }
}

/// Which key a job signs with, resolved: exactly one key on exactly one token.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KeyAddress {
    /// The token.
    pub token: TokenIdentity,
    /// The key on it.
    pub selector: KeySelector,
    /// Its configured name; `None` for a key that a client chose by URI.
    pub name: Option<KeyName>,
}

impl KeyAddress {
    /// The key as an RFC 7512 URI: its token's attributes and its own.
    #[must_use]
    pub fn uri(&self) -> String {
        let KeySelector { id, label } = self.selector.clone();
        Pkcs11Uri { id, object: label, ..self.token.uri() }.to_string()
    }
}

/// One signature to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SigningJob {
    /// Its id.
    pub id: JobId,
    /// Who asked.
    pub caller: CallerId,
    /// From where.
    pub from: Provenance,
    /// With which key.
    pub key: KeyAddress,
    /// What is signed, and how.
    pub to_sign: ToSign,
    /// Serial number of the signer's certificate, in hex, for the audit log.
    pub certificate_serial: Option<String>,
    /// The permit that pays for it; `None` where the PIN that came with it is the consent.
    pub permit: Option<PermitId>,
    /// Who consented.
    pub consent: Consent,
    /// It was submitted with a PIN, which is kept in memory only.
    pub with_pin: bool,
    /// When it was accepted.
    pub accepted: Timestamp,
    /// When it expires if it has not been claimed.
    pub deadline: Timestamp,
    /// Where it stands.
    pub state: JobState,
    /// The claim under which it is `Signing`, or was last.
    pub claim: Option<ClaimId>,
    /// What came out; `None` until it has ended.
    pub outcome: Option<JobOutcome>,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobOutcome {
    /// The verified signature.
    Signed(SignatureValue),
    /// It ended without a signature that could be handed out.
    NotSigned {
        /// Why.
        cause: FailureCause,
        /// Detail for the operator and the client: no internals, no secrets.
        detail: String,
    },
}

/// How many jobs wait for a token, and since when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueLength {
    /// The token.
    pub token: TokenIdentity,
    /// How many jobs are queued for it.
    pub queued: usize,
    /// When the oldest of them was accepted.
    pub oldest: Timestamp,
}

/// Why a job ended without a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureCause {
    /// The PIN that came with it was wrong, or may not be tried.
    PinRefused,
    /// The PIN that it was submitted with is gone after a restart.
    PinForgotten,
    /// The key is not on the token, or more than one key matches.
    KeyNotUsable,
    /// Neither token nor verifier can do what was asked.
    NotSupported,
    /// The token could not sign.
    Device,
    /// The signature did not verify; the key is quarantined.
    WrongSignature,
    /// The token may have signed; nobody knows.
    OutcomeUnknown,
    /// The deadline passed while it waited.
    DeadlinePassed,
    /// It was taken back.
    Cancelled,
    /// An operator refused it, or could not be asked to the end.
    ConsentRefused,
    /// No operator decided in time.
    ConsentTimedOut,
    /// It was in doubt, and an operator found that the token had signed; the signature is not here.
    ResolvedSigned,
    /// It was in doubt, and an operator found that the token had not signed.
    ResolvedNotSigned,
}

impl FailureCause {
    /// The cause of a job whose doubt an operator resolved.
    #[must_use]
    pub const fn resolved(signed: bool) -> Self {
        if signed { Self::ResolvedSigned } else { Self::ResolvedNotSigned }
    }

    /// The state that a job which ends for this cause comes into.
    #[must_use]
    pub const fn final_state(self) -> JobState {
        match self {
            Self::OutcomeUnknown => JobState::InDoubt,
            Self::DeadlinePassed => JobState::Expired,
            Self::Cancelled => JobState::Cancelled,
            Self::PinRefused
            | Self::PinForgotten
            | Self::KeyNotUsable
            | Self::NotSupported
            | Self::Device
            | Self::WrongSignature
            | Self::ConsentRefused
            | Self::ConsentTimedOut
            | Self::ResolvedSigned
            | Self::ResolvedNotSigned => JobState::Failed,
        }
    }

    /// Whether the token may have made a signature, so that the permit's use stays spent.
    #[must_use]
    pub const fn spends_the_use(self) -> bool {
        matches!(self, Self::WrongSignature | Self::OutcomeUnknown | Self::ResolvedSigned)
    }
}

impl JobOutcome {
    /// An end without a signature.
    #[must_use]
    pub fn not_signed(cause: FailureCause, detail: &str) -> Self {
        Self::NotSigned { cause, detail: detail.to_owned() }
    }

    /// The state that goes with the outcome.
    #[must_use]
    pub const fn final_state(&self) -> JobState {
        match self {
            Self::Signed(_) => JobState::Signed,
            Self::NotSigned { cause, .. } => cause.final_state(),
        }
    }

    /// Whether the permit's use is spent (committed) or given back (released).
    #[must_use]
    pub const fn spends_the_use(&self) -> bool {
        match self {
            Self::Signed(_) => true,
            Self::NotSigned { cause, .. } => cause.spends_the_use(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [JobState; 8] = [
        JobState::AwaitingConsent,
        JobState::Queued,
        JobState::Signing,
        JobState::Signed,
        JobState::Failed,
        JobState::InDoubt,
        JobState::Cancelled,
        JobState::Expired,
    ];

    #[test]
    fn nothing_follows_a_final_state_but_the_resolution_of_a_doubt() {
        for from in ALL.into_iter().filter(|state| state.is_final()) {
            for to in ALL {
                let resolved = from == JobState::InDoubt && to == JobState::Failed;
                assert_eq!(from.may_become(to), resolved, "{from} → {to}");
            }
        }
    }

    #[test]
    fn a_job_comes_to_the_token_only_through_the_queue() {
        for from in ALL {
            assert_eq!(from.may_become(JobState::Signing), from == JobState::Queued, "{from}");
        }
    }

    #[test]
    fn what_may_have_been_signed_keeps_its_use() {
        let unknown = JobOutcome::NotSigned { cause: FailureCause::OutcomeUnknown, detail: String::new() };
        assert_eq!(unknown.final_state(), JobState::InDoubt);
        assert!(unknown.spends_the_use());
        let refused = JobOutcome::NotSigned { cause: FailureCause::PinRefused, detail: String::new() };
        assert!(!refused.spends_the_use());
    }
}
