//! What is true of a token at the moment: whether it is in its reader, under which slot number, what its PIN can still take.
//!
//! The bench owns this state; module processes have a copy, which they fetch again when the bench's generation has moved on. `epoch` counts
//! the ends of all sessions (removal, expiry): sessions and handles of an earlier epoch are dead.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{function::FunctionSet, rv::Rv};

/// What names a token in all places where the real module's slot numbers cannot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenId {
    /// `CK_TOKEN_INFO.serialNumber`, without its padding.
    pub serial: String,
    /// `CK_TOKEN_INFO.label`, without its padding.
    pub label: String,
}

impl TokenId {
    /// Whether `name` is this token's serial number or label.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.serial == name || self.label == name
    }
}

/// What a removal does to the slot that the token was in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reader {
    /// It stays in the list, empty: a card reader.
    #[default]
    Stays,
    /// It goes with the token: a USB token whose reader is built in.
    Goes,
}

/// What ended the sessions of the epochs before the current one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Ended {
    /// The token was pulled. Until the module has noticed that itself (which it does in `C_GetSlotList` and the like), calls on the
    /// old sessions get this answer; after that `CKR_SESSION_HANDLE_INVALID`.
    Removed(Rv),
    /// The sessions ran out, with the token in place. Calls on them get this answer.
    Expired(Rv),
}

/// How a token counts PIN tries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PinPolicy {
    /// Tries after a good login.
    pub tries: u64,
    /// The flags that the token sets when it should; an empty list is a token that sets none.
    #[serde(default = "PinFlag::all")]
    pub shows: Vec<PinFlag>,
    /// What a wrong PIN is answered with when it was the last try.
    #[serde(default = "pin_incorrect")]
    pub last_answer: Rv,
    /// What any PIN is answered with when the PIN is locked.
    #[serde(default = "pin_locked")]
    pub locked_answer: Rv,
}

impl PinPolicy {
    /// So many tries, all flags, `CKR_PIN_INCORRECT` for the last of them and `CKR_PIN_LOCKED` from then on.
    #[must_use]
    pub fn tries(tries: u64) -> Self {
        Self { tries, shows: PinFlag::all(), last_answer: Rv::PIN_INCORRECT, locked_answer: Rv::PIN_LOCKED }
    }

    /// Sets only these flags.
    #[must_use]
    pub fn shows(mut self, flags: &[PinFlag]) -> Self {
        self.shows = flags.to_vec();
        self
    }

    /// Answers so when it is locked; `CKR_PIN_INCORRECT` is what the OpenPGP card says.
    #[must_use]
    pub const fn says_when_locked(mut self, rv: Rv) -> Self {
        self.locked_answer = rv;
        self
    }

    /// Answers so to the wrong PIN that locks it; `CKR_PIN_LOCKED` is what Kryoptic says.
    #[must_use]
    pub const fn says_at_the_last_try(mut self, rv: Rv) -> Self {
        self.last_answer = rv;
        self
    }
}

/// A warning in `CK_TOKEN_INFO.flags`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PinFlag {
    /// `CKF_USER_PIN_COUNT_LOW`: a wrong PIN was given since the last good one.
    CountLow,
    /// `CKF_USER_PIN_FINAL_TRY`: one try is left.
    FinalTry,
    /// `CKF_USER_PIN_LOCKED`: none is.
    Locked,
}

impl PinFlag {
    fn all() -> Vec<Self> {
        vec![Self::CountLow, Self::FinalTry, Self::Locked]
    }

    /// Whether a token that is honest about this flag sets it with `left` of `tries` left.
    pub(crate) const fn is_due(self, left: u64, tries: u64) -> bool {
        match self {
            Self::CountLow => left < tries,
            Self::FinalTry => left == 1,
            Self::Locked => left == 0,
        }
    }
}

const fn pin_incorrect() -> Rv {
    Rv::PIN_INCORRECT
}

const fn pin_locked() -> Rv {
    Rv::PIN_LOCKED
}

/// The state of one token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TokenState {
    pub(crate) present: bool,
    pub(crate) reader: Reader,
    pub(crate) epoch: u64,
    pub(crate) ended: Ended,
    /// How often it was pulled or put in, for `C_WaitForSlotEvent`.
    pub(crate) moves: u64,
    /// The slot number that callers see, if it is another than the real one.
    pub(crate) slot: Option<u64>,
    /// How often its login was lost with the sessions living on.
    pub(crate) logouts: u64,
    /// Sessions that one process may have open.
    pub(crate) max_sessions: Option<u64>,
    pub(crate) pin: Option<PinPolicy>,
    pub(crate) pin_pad: bool,
    /// `CKA_ID`s, in hex, of keys that want a login for each signature.
    pub(crate) always_authenticate: Vec<String>,
}

impl Default for TokenState {
    fn default() -> Self {
        Self {
            present: true,
            reader: Reader::Stays,
            epoch: 0,
            ended: Ended::Removed(Rv::DEVICE_REMOVED),
            moves: 0,
            slot: None,
            logouts: 0,
            max_sessions: None,
            pin: None,
            pin_pad: false,
            always_authenticate: Vec::new(),
        }
    }
}

impl TokenState {
    pub(crate) fn remove(&mut self, answer: Rv, reader: Reader) {
        if self.present {
            self.present = false;
            self.reader = reader;
            self.epoch += 1;
            self.moves += 1;
            self.ended = Ended::Removed(answer);
        }
    }

    pub(crate) fn insert(&mut self, slot: Option<u64>) {
        if !self.present {
            self.present = true;
            self.moves += 1;
        }
        self.slot = slot.or(self.slot);
    }

    pub(crate) fn expire_sessions(&mut self, answer: Rv) {
        self.epoch += 1;
        self.ended = Ended::Expired(answer);
    }

    /// As at the start, but for the counters, which processes compare with what they have seen.
    fn heal(&mut self) {
        self.insert(None);
        *self = Self { epoch: self.epoch, ended: self.ended, moves: self.moves, logouts: self.logouts, ..Self::default() };
    }
}

/// The state of all tokens: of those that were named, and of all others.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Tokens {
    others: TokenState,
    named: BTreeMap<String, TokenState>,
}

impl Tokens {
    /// The state of this token. A name by serial number goes before one by label.
    pub(crate) fn of(&self, token: &TokenId) -> &TokenState {
        self.named.get(&token.serial).or_else(|| self.named.get(&token.label)).unwrap_or(&self.others)
    }

    /// Changes the state of the token of this name, or of all. `known` is that token, if the bench has met it: it may have a state under
    /// its other name.
    pub(crate) fn change(&mut self, name: Option<&str>, known: Option<&TokenId>, change: impl Fn(&mut TokenState)) {
        let Some(name) = name else { return self.all_mut().for_each(change) };
        let other_name = known.into_iter().flat_map(|token| [&token.serial, &token.label]).find(|name| self.named.contains_key(*name));
        let name = if self.named.contains_key(name) { name } else { other_name.map_or(name, String::as_str) };
        change(self.named.entry(name.to_owned()).or_insert_with(|| self.others.clone()));
    }

    /// How many tokens have a state under a name.
    pub(crate) fn named(&self) -> usize {
        self.named.len()
    }

    pub(crate) fn heal(&mut self) {
        self.all_mut().for_each(TokenState::heal);
    }

    /// Whether any token is so.
    pub(crate) fn any(&self, is_so: impl Fn(&TokenState) -> bool) -> bool {
        is_so(&self.others) || self.named.values().any(is_so)
    }

    fn all_mut(&mut self) -> impl Iterator<Item = &mut TokenState> {
        std::iter::once(&mut self.others).chain(self.named.values_mut())
    }
}

/// Functions that fail in every process that was initialised before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Poison {
    /// How often modules were poisoned.
    pub(crate) count: u64,
    pub(crate) on: FunctionSet,
    pub(crate) answer: Rv,
}

impl Default for Poison {
    fn default() -> Self {
        Self { count: 0, on: FunctionSet::default(), answer: Rv::GENERAL_ERROR }
    }
}

/// All that a module process needs to know between calls.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct State {
    /// Grows with every change.
    pub(crate) generation: u64,
    /// Functions whose calls the bench wants to be told of; all others go straight through.
    pub(crate) interest: FunctionSet,
    pub(crate) tokens: Tokens,
    pub(crate) poison: Poison,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(serial: &str, label: &str) -> TokenId {
        TokenId { serial: serial.to_owned(), label: label.to_owned() }
    }

    #[test]
    fn a_removal_ends_the_epoch_and_a_second_one_changes_nothing() {
        let mut state = TokenState::default();
        state.remove(Rv::DEVICE_ERROR, Reader::Stays);
        state.remove(Rv::DEVICE_REMOVED, Reader::Goes);
        assert_eq!((state.present, state.epoch, state.moves), (false, 1, 1));
        assert_eq!((state.reader, state.ended), (Reader::Stays, Ended::Removed(Rv::DEVICE_ERROR)));
        state.insert(Some(7));
        assert_eq!((state.present, state.epoch, state.moves, state.slot), (true, 1, 2, Some(7)));
    }

    #[test]
    fn a_named_token_has_a_state_of_its_own_and_takes_part_in_what_meets_all() {
        let mut tokens = Tokens::default();
        tokens.change(Some("A1"), None, |state| state.remove(Rv::DEVICE_REMOVED, Reader::Stays));
        assert!(!tokens.of(&token("A1", "x")).present && tokens.of(&token("B2", "x")).present);
        tokens.change(None, None, |state| state.expire_sessions(Rv::SESSION_CLOSED));
        assert_eq!((tokens.of(&token("A1", "x")).epoch, tokens.of(&token("B2", "x")).epoch), (2, 1));
    }

    #[test]
    fn a_token_that_is_known_is_found_by_either_name() {
        let mut tokens = Tokens::default();
        let known = token("A1", "x");
        tokens.change(Some("x"), Some(&known), |state| state.pin_pad = true);
        tokens.change(Some("A1"), Some(&known), |state| state.remove(Rv::DEVICE_REMOVED, Reader::Stays));
        let state = tokens.of(&known);
        assert!(state.pin_pad && !state.present);
    }

    #[test]
    fn healing_keeps_the_counters_so_that_dead_sessions_stay_dead() {
        let mut tokens = Tokens::default();
        tokens.change(None, None, |state| state.remove(Rv::DEVICE_REMOVED, Reader::Goes));
        tokens.change(None, None, |state| state.pin_pad = true);
        tokens.heal();
        let state = tokens.of(&token("A1", "x"));
        assert_eq!((state.present, state.epoch, state.moves, state.pin_pad, state.reader), (true, 1, 2, false, Reader::Stays));
    }

    #[test]
    fn pin_flags_are_due_as_the_standard_has_it() {
        let due = |left| [PinFlag::CountLow, PinFlag::FinalTry, PinFlag::Locked].map(|flag| flag.is_due(left, 3));
        assert_eq!(due(3), [false, false, false]);
        assert_eq!(due(2), [true, false, false]);
        assert_eq!(due(1), [true, true, false]);
        assert_eq!(due(0), [true, false, true]);
    }
}
