//! Consent: what operators are asked, what they see of it, and what a decision makes of a permit.
//!
//! Invariants: a permit is decided once; nobody decides for keys that are not theirs, and what is granted is good for no key of which any of
//! those who allowed it is not in charge; no more is granted than the least of what each of them allowed.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    audit::{AuditEvent, Sha256},
    caller::{KeyAccess, Provenance},
    ids::{GatewayId, JobId, KeyName, OperatorName, TicketId},
    job::{FailureCause, KeyAddress, SigningJob},
    permit::{Permit, PermitRefusal, PermitState},
    timestamp::Timestamp,
};

/// What a permit is good for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PermitScope {
    /// With which keys.
    pub keys: KeyScope,
    /// For these only, each as [`ToSign::fingerprint`](super::digest::ToSign::fingerprint) has it; empty for whatever the caller asks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub digests: Vec<String>,
}

/// With which keys a permit may be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyScope {
    /// Every key that its caller may use, but these.
    AnyBut(Vec<KeyName>),
    /// These.
    Named(Vec<KeyName>),
    /// This one, which has no name in the configuration.
    Unnamed(Box<KeyAddress>),
}

impl PermitScope {
    /// Every key that the caller may use, and whatever it asks.
    pub const ANY: Self = Self { keys: KeyScope::AnyBut(Vec::new()), digests: Vec::new() };

    /// Whether a job is within it.
    pub(super) fn check(&self, job: &SigningJob) -> Result<(), PermitRefusal> {
        if !self.keys.allows(&job.key) {
            return Err(PermitRefusal::OtherKey);
        }
        if !self.digests.is_empty() && !self.digests.contains(&job.to_sign.fingerprint()) {
            return Err(PermitRefusal::OtherContent);
        }
        Ok(())
    }
}

impl KeyScope {
    /// Just this key.
    #[must_use]
    pub fn of(key: &KeyAddress) -> Self {
        key.name.as_ref().map_or_else(|| Self::Unnamed(Box::new(key.clone())), |name| Self::Named(vec![name.clone()]))
    }

    /// Whether the key is among them.
    #[must_use]
    pub fn allows(&self, key: &KeyAddress) -> bool {
        match self {
            Self::AnyBut(others) => key.name.as_ref().is_none_or(|name| !others.contains(name)),
            Self::Named(names) => key.name.as_ref().is_some_and(|name| names.contains(name)),
            Self::Unnamed(only) => **only == *key,
        }
    }

    /// What of it is within `keys`; `None` if nothing is.
    #[must_use]
    pub fn within(&self, keys: &KeyAccess) -> Option<Self> {
        let KeyAccess::Only(own) = keys else { return Some(self.clone()) };
        let named: Vec<_> = match self {
            Self::AnyBut(others) => own.iter().filter(|key| !others.contains(key)).cloned().collect(),
            Self::Named(names) => names.iter().filter(|key| own.contains(key)).cloned().collect(),
            Self::Unnamed(_) => Vec::new(),
        };
        (!named.is_empty()).then_some(Self::Named(named))
    }
}

impl fmt::Display for KeyScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |names: &[KeyName]| names.iter().map(KeyName::as_str).collect::<Vec<_>>().join(", ");
        match self {
            Self::AnyBut(others) if others.is_empty() => f.write_str("any key"),
            Self::AnyBut(others) => write!(f, "any key but {}", list(others)),
            Self::Named(names) => f.write_str(&list(names)),
            Self::Unnamed(key) => f.write_str(&key.uri()),
        }
    }
}

/// The size in which what the caller says of its request would like to be shown, in CSS pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ViewSize {
    /// How wide.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub width: Option<u16>,
    /// How high.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub height: Option<u16>,
}

/// The least and the most CSS pixels that a request may be shown in, across and down.
pub const VIEW_MIN: u16 = 160;
/// See [`VIEW_MIN`].
pub const VIEW_MAX: u16 = 2_000;

impl ViewSize {
    /// A wished size, brought within what is shown.
    #[must_use]
    pub fn wished(width: Option<u64>, height: Option<u64>) -> Self {
        let bounded = |pixels: u64| u16::try_from(pixels).unwrap_or(VIEW_MAX).clamp(VIEW_MIN, VIEW_MAX);
        Self { width: width.map(bounded), height: height.map(bounded) }
    }
}

/// What an operator is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsentAsk {
    /// From where the request came.
    pub from: Provenance,
    /// The gateway that it came to.
    pub gateway: GatewayId,
    /// For how many signatures.
    pub uses: u32,
    /// How many operators must agree.
    pub operators: u8,
    /// When it was asked.
    pub asked: Timestamp,
    /// When it counts as refused.
    pub decide_by: Timestamp,
    /// The size in which the caller's words would like to be shown.
    pub view: ViewSize,
    /// The one signature that it is for, where its job waits for the decision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<WaitingSignature>,
}

/// A signature whose job waits for a decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingSignature {
    /// The job.
    pub job: JobId,
    /// What will be signed, where the gateway has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document: Option<ShownDocument>,
}

/// A document that an operator can look at before deciding. It does not change any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownDocument {
    /// The ticket whose content it is; the ticket's metadata are the caller's words.
    pub ticket: TicketId,
    /// SHA-256 of the content.
    pub sha256: Sha256,
    /// Its length in bytes.
    pub len: u64,
}

/// That an operator allowed signatures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// Who.
    pub by: OperatorName,
    /// When.
    pub at: Timestamp,
    /// How many signatures.
    pub uses: u32,
}

/// What becomes of a permit that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// An operator allows it.
    Allow {
        /// Who.
        by: OperatorName,
        /// The keys that are theirs.
        keys: KeyAccess,
        /// For so many signatures; `None` for as many as were asked for.
        uses: Option<u32>,
        /// How long the permit lasts.
        lifetime: Duration,
    },
    /// An operator refuses it.
    Refuse {
        /// Who.
        by: OperatorName,
        /// The keys that are theirs.
        keys: KeyAccess,
    },
    /// Nobody decided in time.
    TimeOut,
    /// Whoever asked does not wait any more.
    Withdraw,
    /// The gateway at which it was asked has been started again, so nobody waits any more.
    Restart,
}

/// Why a decision does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecisionRefusal {
    /// There is no such request, or it is about keys that are not this operator's: the two look the same.
    #[error("there is no such request, or it is about keys that are not yours")]
    NotFound,
    /// It is decided already.
    #[error("it is decided already: {}", .0.as_str())]
    Decided(PermitState),
    /// Its time is over.
    #[error("the time to decide is over")]
    TooLate,
    /// More signatures than were asked for, or none.
    #[error("it is for 1 to {max} signatures")]
    Uses {
        /// As many as were asked for.
        max: u32,
    },
    /// Two operators must agree, and this one has agreed already.
    #[error("you have allowed it already; another operator must agree")]
    SameOperator,
}

impl Permit {
    /// Whether an operator in charge of `keys` may see it, and decide.
    #[must_use]
    pub fn concerns(&self, keys: &KeyAccess) -> bool {
        self.scope.keys.within(keys).is_some()
    }

    /// The job that waits for the decision.
    #[must_use]
    pub fn waiting_job(&self) -> Option<JobId> {
        self.ask.as_ref()?.waiting.as_ref().map(|waiting| waiting.job)
    }

    /// Decides it, or brings it nearer to a decision where more operators must agree; what happened is for the audit log.
    ///
    /// # Errors
    /// The [`DecisionRefusal`]; the permit is unchanged then.
    pub fn decide(&mut self, decision: &Decision, now: Timestamp) -> Result<AuditEvent, DecisionRefusal> {
        let ask = self.ask.as_deref().ok_or(DecisionRefusal::NotFound)?.clone();
        if let Decision::Allow { keys, .. } | Decision::Refuse { keys, .. } = decision
            && !self.concerns(keys)
        {
            return Err(DecisionRefusal::NotFound);
        }
        if self.state != PermitState::Asked {
            return Err(DecisionRefusal::Decided(self.state));
        }
        let (state, reason, by) = match decision {
            Decision::Allow { by, keys, uses, lifetime } => return self.allow(&ask, by, keys, *uses, now, *lifetime),
            Decision::Refuse { by, .. } => (PermitState::Refused, RefusalReason::Operator, Some(by.clone())),
            Decision::TimeOut => (PermitState::TimedOut, RefusalReason::TimedOut, None),
            Decision::Withdraw => (PermitState::Withdrawn, RefusalReason::Withdrawn, None),
            Decision::Restart => (PermitState::Refused, RefusalReason::Restarted, None),
        };
        self.state = state;
        Ok(AuditEvent::ConsentRefused { permit: self.id, caller: self.caller.clone(), from: ask.from, reason, by })
    }

    fn allow(
        &mut self,
        ask: &ConsentAsk,
        by: &OperatorName,
        keys: &KeyAccess,
        uses: Option<u32>,
        now: Timestamp,
        lifetime: Duration,
    ) -> Result<AuditEvent, DecisionRefusal> {
        if ask.decide_by <= now {
            return Err(DecisionRefusal::TooLate);
        }
        let uses = uses.unwrap_or(ask.uses);
        if uses == 0 || uses > ask.uses {
            return Err(DecisionRefusal::Uses { max: ask.uses });
        }
        if self.approvals.iter().any(|approval| approval.by == *by) {
            return Err(DecisionRefusal::SameOperator);
        }
        self.scope.keys = self.scope.keys.within(keys).ok_or(DecisionRefusal::NotFound)?;
        self.approvals.push(Approval { by: by.clone(), at: now, uses });
        if self.approvals.len() < usize::from(ask.operators) {
            return Ok(AuditEvent::ConsentSeconded { permit: self.id, caller: self.caller.clone(), uses, by: by.clone() });
        }
        self.state = PermitState::Granted;
        self.uses = self.approvals.iter().map(|approval| approval.uses).min().unwrap_or(0);
        self.expires = now.after(lifetime);
        Ok(AuditEvent::ConsentGiven {
            permit: self.id,
            caller: self.caller.clone(),
            from: ask.from.clone(),
            uses: self.uses,
            expires: self.expires,
            keys: Some(self.scope.keys.to_string()),
            by: self.consent(),
        })
    }

    /// Why the job that waited for it ends, if the decision ends it.
    #[must_use]
    pub const fn job_ends_for(&self) -> Option<FailureCause> {
        match self.state {
            PermitState::Refused => Some(FailureCause::ConsentRefused),
            PermitState::TimedOut => Some(FailureCause::ConsentTimedOut),
            PermitState::Withdrawn => Some(FailureCause::Cancelled),
            PermitState::Asked | PermitState::Granted | PermitState::Revoked => None,
        }
    }
}

/// Why consent was not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RefusalReason {
    /// An operator refused.
    Operator,
    /// Nobody decided in time.
    TimedOut,
    /// Whoever asked did not wait for the decision.
    Withdrawn,
    /// The gateway was started again meanwhile.
    Restarted,
}

#[cfg(test)]
mod tests;
