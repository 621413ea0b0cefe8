//! What is measured of a token: the state of its slot, the PINs it rejects, the new starts of its module.

use std::sync::Arc;

use metrics::{Counter, Gauge};

use crate::{
    domain::{
        ids::ModuleName,
        pin::{LedgerKey, LedgerRefusal, LoginAttempt, LoginVerdict, PinLedger},
        token::{SlotState, TokenIdentity},
    },
    telemetry::metrics::{MODULE_RESTARTS, PIN_REJECTIONS, TOKEN_STATE},
};

/// The states that a slot's handle is told of, and how they are labelled. `Busy` is not among them: it comes and goes with each signature.
const STATES: [(SlotState, &str); 10] = [
    (SlotState::Absent, "absent"),
    (SlotState::Present, "present"),
    (SlotState::NeedsPin, "needs-pin"),
    (SlotState::Ready, "ready"),
    (SlotState::WaitingAtReader, "waiting-at-reader"),
    (SlotState::Recovering, "recovering"),
    (SlotState::PinRejected, "pin-rejected"),
    (SlotState::PinLocked, "pin-locked"),
    (SlotState::Wedged, "wedged"),
    (SlotState::Quarantined, "quarantined"),
];

/// The handles of one token.
pub(super) struct TokenMeter {
    states: [(SlotState, Gauge); STATES.len()],
    rejections: Counter,
}

impl TokenMeter {
    pub(super) fn of(token: &TokenIdentity) -> Self {
        let token = token.to_string();
        let states = STATES.map(|(state, label)| (state, TOKEN_STATE.gauge(&[&token, label])));
        Self { states, rejections: PIN_REJECTIONS.counter(&[&token]) }
    }

    /// Shows the state that the token is in now.
    pub(super) fn show(&self, now: SlotState) {
        for (state, gauge) in &self.states {
            gauge.set(f64::from(u8::from(*state == now)));
        }
    }

    /// Counts a PIN try that the token has rejected.
    pub(super) fn pin_rejected(&self) {
        self.rejections.increment(1);
    }
}

/// The handles of one module.
pub(super) struct ModuleMeter {
    failed: Counter,
    missing_token: Counter,
}

impl ModuleMeter {
    pub(super) fn of(module: &ModuleName) -> Self {
        let counter = |reason| MODULE_RESTARTS.counter(&[module.as_str(), reason]);
        Self { failed: counter("failed"), missing_token: counter("missing-token") }
    }

    /// Counts a new start: because the module failed, or only to see whether a token is back.
    pub(super) fn restarts(&self, only_to_look: bool) {
        if only_to_look { &self.missing_token } else { &self.failed }.increment(1);
    }
}

/// A ledger that counts rejections on their way to the real one: it is asked about every try, whoever's PIN it is.
pub(super) struct MeteredLedger<F> {
    pub(super) ledger: Arc<dyn PinLedger>,
    /// Counts a rejection by the token with this key.
    pub(super) rejected: F,
}

impl<F: Fn(&LedgerKey) + Send + Sync> PinLedger for MeteredLedger<F> {
    fn begin(&self, attempt: &LoginAttempt<'_>) -> Result<(), LedgerRefusal> {
        self.ledger.begin(attempt)
    }

    fn end(&self, attempt: &LoginAttempt<'_>, verdict: LoginVerdict) {
        if verdict == LoginVerdict::Rejected {
            (self.rejected)(&attempt.token);
        }
        self.ledger.end(attempt, verdict);
    }

    fn forget(&self, token: &LedgerKey) {
        self.ledger.forget(token);
    }
}
