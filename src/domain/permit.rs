//! Permits: consent for N signatures, spent once per signature.
//!
//! How consent is asked for and decided stands in [`consent`](super::consent). Invariants: `reserved + committed ≤ uses`; a use is reserved
//! before a job is queued, committed with its result, or given back when the token certainly never signed; a permit that was not granted
//! has no uses.

use serde::{Deserialize, Serialize};

use super::{
    audit::Consent,
    consent::{Approval, ConsentAsk, PermitScope},
    ids::{CallerId, PermitId},
    job::SigningJob,
    timestamp::Timestamp,
};

/// Where a permit stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PermitState {
    /// An operator has not decided yet.
    Asked,
    /// It may be used, as long as it lasts and has uses left.
    Granted,
    /// An operator refused it.
    Refused,
    /// Nobody decided in time.
    TimedOut,
    /// Whoever asked did not wait for the decision.
    Withdrawn,
    /// It was granted and taken back.
    Revoked,
}

impl PermitState {
    /// The state in one word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Granted => "granted",
            Self::Refused => "refused",
            Self::TimedOut => "timed-out",
            Self::Withdrawn => "withdrawn",
            Self::Revoked => "revoked",
        }
    }
}

/// Consent for a number of signatures, given or asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permit {
    /// Its id: the ticket API's `accessTokenUuid`.
    pub id: PermitId,
    /// The caller that asked for it; nobody else can use it.
    pub caller: CallerId,
    /// Where it stands.
    pub state: PermitState,
    /// How many signatures it allows; none before it is granted.
    pub uses: u32,
    /// Uses held by jobs that have not ended.
    pub reserved: u32,
    /// Uses spent.
    pub committed: u32,
    /// When it ends, spent or not; of one that was not granted, when that had to be decided.
    pub expires: Timestamp,
    /// What it is good for.
    pub scope: PermitScope,
    /// What an operator was asked; `None` where the configuration gave it.
    pub ask: Option<Box<ConsentAsk>>,
    /// The operators who allowed it, in the order in which they did.
    pub approvals: Vec<Approval>,
}

/// Why a permit cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PermitRefusal {
    /// There is no such permit, or it is another caller's: the two look the same from outside.
    #[error("there is no such permission")]
    Unknown,
    /// Every use is spent or reserved.
    #[error("the permission is used up")]
    UsedUp,
    /// Its time is over.
    #[error("the permission has expired")]
    Expired,
    /// It was taken back.
    #[error("the permission was revoked")]
    Revoked,
    /// It is for other keys.
    #[error("the permission is not for this key")]
    OtherKey,
    /// It is for exact digests, and this is none of them.
    #[error("the permission is not for this content")]
    OtherContent,
    /// The caller's policy allows no signature with this key.
    #[error("this caller may not have anything signed with this key")]
    ByPolicy,
}

impl Permit {
    /// A permit that the configuration gives.
    #[must_use]
    pub const fn by_policy(id: PermitId, caller: CallerId, uses: u32, expires: Timestamp) -> Self {
        Self {
            id,
            caller,
            state: PermitState::Granted,
            uses,
            reserved: 0,
            committed: 0,
            expires,
            scope: PermitScope::ANY,
            ask: None,
            approvals: Vec::new(),
        }
    }

    /// Uses that are neither spent nor reserved.
    #[must_use]
    pub const fn uses_left(&self) -> u32 {
        self.uses.saturating_sub(self.reserved + self.committed)
    }

    /// Whether a use of it could still be reserved at `now`.
    #[must_use]
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.state == PermitState::Granted && self.expires > now && self.uses_left() > 0
    }

    /// Whether it was taken back.
    #[must_use]
    pub fn is_revoked(&self) -> bool {
        self.state == PermitState::Revoked
    }

    /// Who gave it.
    #[must_use]
    pub fn consent(&self) -> Consent {
        match self.approvals.as_slice() {
            [] => Consent::Policy,
            [only] => Consent::Operator(only.by.clone()),
            several => Consent::Operators(several.iter().map(|approval| approval.by.clone()).collect()),
        }
    }

    /// Reserves one use for a job, at the time at which it is accepted.
    ///
    /// # Errors
    /// The [`PermitRefusal`]; the permit is unchanged then.
    pub fn reserve(&mut self, job: &SigningJob) -> Result<(), PermitRefusal> {
        if self.caller != job.caller {
            return Err(PermitRefusal::Unknown);
        }
        match self.state {
            PermitState::Granted => {}
            PermitState::Revoked => return Err(PermitRefusal::Revoked),
            // Nobody has been told of it.
            PermitState::Asked | PermitState::Refused | PermitState::TimedOut | PermitState::Withdrawn => {
                return Err(PermitRefusal::Unknown);
            }
        }
        if self.expires <= job.accepted {
            return Err(PermitRefusal::Expired);
        }
        if self.uses_left() == 0 {
            return Err(PermitRefusal::UsedUp);
        }
        self.scope.check(job)?;
        self.reserved += 1;
        Ok(())
    }

    /// Spends a reserved use; also when the permit has expired or was revoked meanwhile, for the signature exists.
    pub fn commit(&mut self) {
        debug_assert!(self.reserved > 0, "a use is committed only after it was reserved");
        self.reserved = self.reserved.saturating_sub(1);
        self.committed = self.committed.saturating_add(1);
    }

    /// Gives a spent use back: an operator found that the token had not signed after all.
    pub fn give_back(&mut self) {
        self.committed = self.committed.saturating_sub(1);
    }

    /// Gives a reserved use back.
    pub fn release(&mut self) {
        debug_assert!(self.reserved > 0, "a use is given back only after it was reserved");
        self.reserved = self.reserved.saturating_sub(1);
    }

    /// Takes it back. Jobs that it pays for already go on. Nothing happens to one that was taken back before.
    ///
    /// # Errors
    /// [`PermitRefusal::Unknown`] if it was never granted.
    pub fn revoke(&mut self) -> Result<(), PermitRefusal> {
        match self.state {
            PermitState::Granted | PermitState::Revoked => {
                self.state = PermitState::Revoked;
                Ok(())
            }
            _ => Err(PermitRefusal::Unknown),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::{
        algorithm::{HashAlgorithm, SignatureAlgorithm},
        caller::Provenance,
        digest::{Digest, SigningInput, ToSign},
        ids::JobId,
        job::{JobState, KeyAddress},
        token::{KeySelector, TokenIdentity},
    };

    pub(in crate::domain) fn job(caller: &str, key: &str, accepted: u64) -> SigningJob {
        let [manufacturer, model, serial, label] = ["m", "o", "s", "l"].map(str::to_owned);
        let token = TokenIdentity { module: "softhsm".parse().unwrap(), manufacturer, model, serial, label };
        let digest = Digest::new(HashAlgorithm::Sha256, vec![7; 32]).unwrap();
        SigningJob {
            id: JobId::random(),
            caller: caller.parse().unwrap(),
            from: Provenance::default(),
            key: KeyAddress { token, selector: KeySelector { id: Some(vec![1]), label: None }, name: key.parse().ok() },
            to_sign: ToSign::new(SignatureAlgorithm::Ecdsa(HashAlgorithm::Sha256), SigningInput::Digest(digest)).unwrap(),
            certificate_serial: None,
            consent: Consent::Policy,
            permit: None,
            with_pin: false,
            accepted: Timestamp::from_millis(accepted),
            deadline: Timestamp::from_millis(accepted + 1_000),
            state: JobState::Queued,
            claim: None,
            outcome: None,
        }
    }

    fn permit(uses: u32) -> Permit {
        Permit::by_policy(PermitId::random(), "ci".parse().unwrap(), uses, Timestamp::from_millis(1_000))
    }

    proptest! {
        #[test]
        fn a_permit_is_never_over_spent(uses in 1u32..6, steps in proptest::collection::vec(0u8..3, 0..60)) {
            let mut permit = permit(uses);
            let job = job("ci", "seal", 1);
            let mut open = 0u32;
            for step in steps {
                match step {
                    0 => open += u32::from(permit.reserve(&job).is_ok()),
                    1 if open > 0 => { permit.commit(); open -= 1; }
                    2 if open > 0 => { permit.release(); open -= 1; }
                    _ => {}
                }
                prop_assert!(permit.reserved + permit.committed <= permit.uses);
                prop_assert_eq!(permit.reserved, open);
            }
        }
    }

    #[test]
    fn each_refusal_has_its_own_reason() {
        let mut one = permit(1);
        let fits = job("ci", "seal", 1);
        assert_eq!(one.reserve(&job("other", "seal", 1)), Err(PermitRefusal::Unknown));
        assert_eq!(one.reserve(&job("ci", "seal", 1_000)), Err(PermitRefusal::Expired));
        one.scope.digests = vec!["sha256:00".to_owned()];
        assert_eq!(one.reserve(&fits), Err(PermitRefusal::OtherContent));
        one.scope.digests.push(fits.to_sign.fingerprint());
        one.scope.keys = crate::domain::consent::KeyScope::Named(vec!["other".parse().unwrap()]);
        assert_eq!(one.reserve(&fits), Err(PermitRefusal::OtherKey));
        one.scope.keys = crate::domain::consent::KeyScope::Named(vec!["seal".parse().unwrap()]);
        assert_eq!(one.reserve(&fits), Ok(()));
        assert_eq!(one.reserve(&fits), Err(PermitRefusal::UsedUp));
        one.revoke().unwrap();
        assert_eq!(one.reserve(&fits), Err(PermitRefusal::Revoked));
    }
}
