//! What becomes of the PINs of tokens, for the audit log: a slot that comes to a stand because of its PIN is recorded, whoever caused it.

use std::{collections::HashMap, sync::Arc};

use tokio::sync::watch;
use tracing::error;

use crate::{
    domain::{
        audit::{AuditEvent, PinIncident},
        token::{LoginMode, SlotState, TokenIdentity},
    },
    store::Change,
    token::slot::SlotHandle,
};

use super::dispatcher::Workshop;

/// Records every slot that stops because of its PIN, until `stop` is set.
pub(super) async fn watch_pins(workshop: Arc<Workshop>, mut stop: watch::Receiver<bool>) {
    let mut changes = workshop.keyring.tokens().changes();
    let mut seen: HashMap<TokenIdentity, SlotState> = HashMap::new();
    while !*stop.borrow_and_update() {
        changes.mark_unchanged();
        for slot in workshop.keyring.tokens().slots() {
            let state = slot.watch().borrow().state;
            if seen.insert(slot.token().clone(), state) != Some(state)
                && let Some(what) = incident(&slot, state)
            {
                record(&workshop, &slot, what, None).await;
            }
        }
        tokio::select! {
            _ = changes.changed() => {}
            _ = stop.changed() => {}
        }
    }
}

/// What a slot's state tells of its PIN. A PIN that an operator typed is told of by the desk, which knows who did.
fn incident(slot: &SlotHandle, state: SlotState) -> Option<PinIncident> {
    match state {
        SlotState::PinRejected if slot.login_mode() == LoginMode::Configured => Some(PinIncident::Rejected),
        SlotState::PinLocked => Some(PinIncident::TokenLocked),
        _ => None,
    }
}

/// Records what happened to the PIN of a slot's token.
pub(super) async fn record(workshop: &Workshop, slot: &SlotHandle, what: PinIncident, by: Option<&str>) {
    let detail = match what {
        PinIncident::Rejected | PinIncident::TokenLocked => slot.status().reason,
        PinIncident::Unlocked | PinIncident::Locked | PinIncident::RejectionForgotten => String::new(),
    };
    let event = AuditEvent::Pin { token: slot.token().uri().to_string(), what, detail, by: by.map(str::to_owned) };
    if let Err(error) = workshop.store.commit(vec![Change::Audit(event)]).await {
        error!(error = %error, slot.token = %slot.token(), "what happened to a PIN is not in the audit log");
    }
}
