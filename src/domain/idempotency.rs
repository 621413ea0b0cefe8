//! Requests that may be sent again: the same key with the same request is the same work, with another request it is a mistake.

use serde::{Deserialize, Serialize};

use super::{
    audit::Sha256,
    ids::{CallerId, IdempotencyKey},
    ticket::TicketSigning,
    timestamp::Timestamp,
};

/// What was done for a request that carried an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotentRequest {
    /// Whose request; keys of two callers never meet.
    pub caller: CallerId,
    /// The key.
    pub key: IdempotencyKey,
    /// What was remembered of it.
    pub done: RequestDone,
    /// Until when it is remembered.
    pub expires: Timestamp,
}

/// A request's content and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestDone {
    /// SHA-256 of what the request asked for.
    pub fingerprint: Sha256,
    /// The signatures that it asked for, in its order: all that is needed to hand them out again.
    pub signings: Vec<TicketSigning>,
}
