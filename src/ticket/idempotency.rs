//! Requests that a client may send again: what an idempotency key stands for.

use super::{TicketError, TicketService};
use crate::{
    domain::{
        audit::Sha256,
        caller::Caller,
        idempotency::{IdempotentRequest, RequestDone},
        ids::{CallerId, IdempotencyKey, TicketId},
        ticket::TicketSigning,
        timestamp::Timestamp,
    },
    store::Change,
};

/// A request with an idempotency key, and what it asks for.
pub(super) struct NamedRequest {
    caller: CallerId,
    key: IdempotencyKey,
    fingerprint: Sha256,
}

impl NamedRequest {
    pub(super) fn new(caller: &Caller, key: IdempotencyKey, what: &str, ticket: TicketId, parts: &[Vec<u8>]) -> Self {
        let mut text = format!("{what} {ticket}\n").into_bytes();
        for part in parts {
            text.extend_from_slice(format!("{}:", part.len()).as_bytes());
            text.extend_from_slice(part);
        }
        Self { caller: caller.id.clone(), key, fingerprint: Sha256::of(&text) }
    }

    /// The change that remembers what is done for it: for as long as the jobs themselves are kept.
    pub(super) fn keep(&self, signings: Vec<TicketSigning>, now: Timestamp) -> Change {
        Change::KeepRequest(IdempotentRequest {
            caller: self.caller.clone(),
            key: self.key.clone(),
            done: RequestDone { fingerprint: self.fingerprint, signings },
            expires: now,
        })
    }
}

impl TicketService {
    /// What was done for this request before; `None` if it is new, or has no key.
    pub(super) async fn known_request(&self, named: Option<&NamedRequest>) -> Result<Option<Vec<TicketSigning>>, TicketError> {
        let Some(named) = named else { return Ok(None) };
        match self.store.find_request(&named.caller, &named.key).await? {
            None => Ok(None),
            Some(known) if known.done.fingerprint == named.fingerprint => Ok(Some(known.done.signings)),
            Some(_) => Err(TicketError::KeyReused),
        }
    }
}
