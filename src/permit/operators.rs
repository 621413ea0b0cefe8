//! The operators' side: what waits for them, what they gave, and their decisions.
//!
//! Invariant: an operator sees, decides and revokes only what is about keys that are theirs; the rest looks like nothing.

use tokio::sync::watch;

use super::PermitService;
use crate::{
    domain::{
        audit::AuditEvent,
        consent::{Decision, DecisionRefusal},
        ids::PermitId,
        operator::Operator,
        permit::{Permit, PermitRefusal, PermitState},
    },
    store::{Change, Conflict, StoreError},
};

/// The most requests, and the most live permits, that are looked through at a time. What is decided first comes first.
const LIST_MAX: usize = 1_000;

/// Why an operator's word about a permit was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecisionError {
    /// The decision does not count.
    #[error("{0}")]
    Refused(#[from] DecisionRefusal),
    /// Only a permit that was granted can be revoked.
    #[error("it was not granted: {}", .0.as_str())]
    NotGranted(PermitState),
    /// The store was not reached; nothing was changed.
    #[error("the store is not available")]
    StoreUnavailable,
}

impl PermitService {
    /// What waits for this operator, the most urgent first. What the operator has allowed already and another one must allow, too, is among it.
    ///
    /// # Errors
    /// [`DecisionError::StoreUnavailable`].
    pub async fn waiting(&self, operator: &Operator) -> Result<Vec<Permit>, DecisionError> {
        let waiting = self.store.waiting_permits(LIST_MAX).await?;
        Ok(waiting.into_iter().filter(|permit| permit.concerns(&operator.keys)).collect())
    }

    /// The permits that can still be used and concern this operator, the one that ends first coming first.
    ///
    /// # Errors
    /// [`DecisionError::StoreUnavailable`].
    pub async fn live(&self, operator: &Operator) -> Result<Vec<Permit>, DecisionError> {
        let live = self.store.live_permits(self.store.now(), LIST_MAX).await?;
        Ok(live.into_iter().filter(|permit| permit.concerns(&operator.keys)).collect())
    }

    /// Finds a permit that concerns this operator, wherever it stands.
    ///
    /// # Errors
    /// [`DecisionError::Refused`] with [`DecisionRefusal::NotFound`]; [`DecisionError::StoreUnavailable`].
    pub async fn look(&self, operator: &Operator, id: PermitId) -> Result<Permit, DecisionError> {
        let permit = self.store.find_permit(id).await?.filter(|permit| permit.concerns(&operator.keys));
        Ok(permit.ok_or(DecisionRefusal::NotFound)?)
    }

    /// What the caller says of a request that waits, in its own words: text or HTML that nobody has checked. `None` if it says nothing, or the
    /// request is decided.
    ///
    /// # Errors
    /// As [`look`](Self::look).
    pub async fn words(&self, operator: &Operator, id: PermitId) -> Result<Option<String>, DecisionError> {
        let permit = self.look(operator, id).await?;
        if permit.state != PermitState::Asked {
            return Ok(None);
        }
        let waiting = permit.ask.as_ref().and_then(|ask| ask.waiting.as_ref());
        match waiting.and_then(|waiting| waiting.document.as_ref()) {
            Some(document) => Ok(self.store.find_ticket(document.ticket).await?.and_then(|ticket| ticket.metadata)),
            None => Ok(self.store.find_words(id).await?),
        }
    }

    /// Allows what was asked for, or fewer signatures of it; returns the permit as it is then: granted, or waiting for another operator.
    ///
    /// It is good for the keys of this operator only. Whoever waits for the decision is answered.
    ///
    /// # Errors
    /// [`DecisionError`].
    pub async fn grant(&self, operator: &Operator, id: PermitId, uses: Option<u32>) -> Result<Permit, DecisionError> {
        let (by, keys, lifetime) = (operator.name.clone(), operator.keys.clone(), self.settings.lifetime);
        self.decide(operator, id, Decision::Allow { by, keys, uses, lifetime }).await
    }

    /// Refuses what was asked for. Whoever waits for the decision is answered.
    ///
    /// # Errors
    /// [`DecisionError`].
    pub async fn refuse(&self, operator: &Operator, id: PermitId) -> Result<Permit, DecisionError> {
        self.decide(operator, id, Decision::Refuse { by: operator.name.clone(), keys: operator.keys.clone() }).await
    }

    /// Takes a permit back that was granted. Jobs that it pays for already go on.
    ///
    /// # Errors
    /// [`DecisionError`].
    pub async fn take_back(&self, operator: &Operator, id: PermitId) -> Result<Permit, DecisionError> {
        let permit = self.look(operator, id).await?;
        let revoked = AuditEvent::PermitRevoked { permit: id, by: format!("operator {}", operator.name) };
        match self.store.commit(vec![Change::RevokePermit(id), Change::Audit(revoked)]).await {
            Err(StoreError::Conflict(Conflict::Permit(PermitRefusal::Unknown))) => Err(DecisionError::NotGranted(permit.state)),
            done => {
                done?;
                self.look(operator, id).await
            }
        }
    }

    /// Tells when something was asked for, decided or revoked, here or at another gateway: the number is another one then.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.store.permit_changes()
    }

    /// Counts what waits for operators, whoever they are.
    ///
    /// # Errors
    /// [`DecisionError::StoreUnavailable`].
    pub async fn count_waiting(&self) -> Result<usize, DecisionError> {
        Ok(self.store.count_waiting_permits().await?)
    }

    async fn decide(&self, operator: &Operator, id: PermitId, decision: Decision) -> Result<Permit, DecisionError> {
        let job = self.look(operator, id).await?.waiting_job();
        self.store.commit(vec![Change::DecidePermit { permit: id, job, decision }]).await?;
        // What it is good for now may be narrower than before, and is this operator's still.
        let decided = self.look(operator, id).await?;
        self.note_decision(&decided, false);
        Ok(decided)
    }
}

impl From<StoreError> for DecisionError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict(Conflict::Decision(refusal)) => Self::Refused(refusal),
            StoreError::Conflict(_) => Self::Refused(DecisionRefusal::NotFound),
            StoreError::Unavailable(reason) => {
                tracing::error!(error = %reason, "the store is not available");
                Self::StoreUnavailable
            }
        }
    }
}
