//! Slots as the real module has them, the tokens in them, and what this process has noticed of each.
//!
//! Slot numbers that callers see are translated here, both ways. Locks are never held across a call into the real module.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use cryptoki_sys::{CK_SLOT_ID, CK_TOKEN_INFO, CKF_TOKEN_INITIALIZED};

use super::real::Real;
use crate::{
    rv::Rv,
    token::{Reader, State, TokenId, TokenState},
};

/// A slot of the real module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slot {
    /// Its number there.
    pub(super) real: CK_SLOT_ID,
    /// The initialised token in it. Faults of tokens do not concern slots without one.
    pub(super) token: Option<TokenId>,
}

impl Slot {
    pub(super) fn state<'a>(&self, state: &'a State) -> Option<&'a TokenState> {
        self.token.as_ref().map(|token| state.tokens.of(token))
    }

    /// Its number as callers see it.
    pub(super) fn shown(&self, state: &State) -> CK_SLOT_ID {
        self.state(state).and_then(|token| token.slot).unwrap_or(self.real)
    }

    pub(super) fn is_pulled(&self, state: &State) -> bool {
        self.state(state).is_some_and(|token| !token.present)
    }

    pub(super) fn is_gone(&self, state: &State) -> bool {
        self.state(state).is_some_and(|token| !token.present && token.reader == Reader::Goes)
    }
}

/// What this process has noticed of a slot's token, and done about it.
#[derive(Debug, Clone, Default)]
pub(super) struct Notes {
    token: Option<TokenId>,
    /// Sessions of epochs before this one are closed.
    pub(super) epoch: u64,
    /// `TokenState::moves` of the last event that was reported.
    moves: u64,
    /// `TokenState::logouts` that were carried out.
    pub(super) logouts: u64,
    /// The login was lost, and there was no other since.
    pub(super) logged_out: bool,
    /// Hash of the PIN of the last good login.
    pub(super) user_pin: Option<String>,
}

/// All slots.
#[derive(Debug, Default)]
pub(super) struct Slots {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    slots: Vec<Slot>,
    notes: HashMap<CK_SLOT_ID, Notes>,
}

impl Slots {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the real module's slots again.
    pub(super) fn refresh(&self, real: &Real, state: &State) -> Result<Vec<Slot>, Rv> {
        let look = |slot| Slot { real: slot, token: real.token_info(slot).ok().as_ref().and_then(token_of) };
        let slots: Vec<Slot> = real.slots()?.into_iter().map(look).collect();
        let mut known = self.lock();
        for slot in &slots {
            let notes = known.notes.entry(slot.real).or_default();
            // A token is met as it is now; what happened to it before is nothing that this process has to notice.
            if let Some(token) = slot.state(state).filter(|_| notes.token != slot.token) {
                *notes =
                    Notes { token: slot.token.clone(), epoch: token.epoch, moves: token.moves, logouts: token.logouts, ..Notes::default() };
            }
        }
        known.slots.clone_from(&slots);
        Ok(slots)
    }

    /// The slot that callers see under this number.
    pub(super) fn find(&self, shown: CK_SLOT_ID, real: &Real, state: &State) -> Result<Slot, Rv> {
        let known = self.lock().slots.clone();
        match pick(&known, shown, state) {
            Some(slot) => Ok(slot),
            None => pick(&self.refresh(real, state)?, shown, state).ok_or(Rv::SLOT_ID_INVALID),
        }
    }

    /// Reads or changes what this process has noticed of a slot.
    pub(super) fn note<T>(&self, slot: CK_SLOT_ID, change: impl FnOnce(&mut Notes) -> T) -> T {
        change(self.lock().notes.entry(slot).or_default())
    }

    /// A slot whose token was pulled or put in since the last such report.
    pub(super) fn take_event(&self, state: &State) -> Option<Slot> {
        let mut known = self.lock();
        let moves = |slot: &Slot| slot.state(state).map(|token| token.moves);
        let moved = |slot: &&Slot| moves(slot).is_some_and(|moves| known.notes.get(&slot.real).is_some_and(|notes| notes.moves != moves));
        let slot = known.slots.iter().find(moved)?.clone();
        let moves = moves(&slot)?;
        known.notes.entry(slot.real).or_default().moves = moves;
        Some(slot)
    }

    /// The real module was finalised; its slots may have other numbers next time.
    pub(super) fn forget_all(&self) {
        *self.lock() = Known::default();
    }
}

fn pick(slots: &[Slot], shown: CK_SLOT_ID, state: &State) -> Option<Slot> {
    slots.iter().find(|slot| slot.shown(state) == shown && !slot.is_gone(state)).cloned()
}

fn token_of(info: &CK_TOKEN_INFO) -> Option<TokenId> {
    let text = |padded: &[u8]| String::from_utf8_lossy(padded).trim_end_matches([' ', '\0']).to_owned();
    let initialised = info.flags & CKF_TOKEN_INITIALIZED != 0;
    initialised.then(|| TokenId { serial: text(&info.serialNumber), label: text(&info.label) })
}
