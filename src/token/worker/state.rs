//! What the gateway is told of a slot: its state, its token's flags, and that its module fails in a row.

use std::time::{Instant, SystemTime};

use tracing::warn;

use crate::{
    domain::token::{LoginMode, SlotState, SlotStatus},
    token::driver::DeviceError,
};

use super::{Worker, session::Session};

/// So many failures in a row, and the module is taken for one that recovers only by being started again. An error that leaves the outcome of
/// a signature open counts twice: at most two jobs end in doubt before the module is replaced.
const FAILURES_MAX: u32 = 4;

impl Worker {
    pub(super) fn state_logged_out(&self) -> SlotState {
        if self.parts.login == LoginMode::PerRequest { SlotState::Present } else { SlotState::NeedsPin }
    }

    /// Reports the state of a slot that is open and does nothing.
    pub(super) fn report_idle(&mut self) {
        let Some(session) = &self.session else { return };
        let flags = session.flags;
        if flags.user_pin_locked {
            self.report(SlotState::PinLocked, "unblock the PIN with the vendor's tool");
        } else if session.logged_in || !flags.login_required {
            self.report(SlotState::Ready, "");
        } else if matches!(self.status, Some((SlotState::PinRejected, _))) {
            // Stays until a good login or an operator's log-out.
        } else {
            let hint = match self.parts.login {
                LoginMode::PerRequest | LoginMode::Configured => "",
                LoginMode::Operator => "an operator must unlock it",
                LoginMode::Protected => "an operator must unlock it at the reader",
            };
            self.report(self.state_logged_out(), hint);
        }
    }

    pub(super) fn refresh_flags(&mut self) {
        if let Some(session) = self.session.as_mut()
            && let Ok(flags) = session.driver.flags()
        {
            session.flags = flags;
            session.flags_read = Instant::now();
            self.parts.sighting.flags = flags;
        }
        self.tell_flags();
    }

    /// Tells the gateway of flags that changed since it was told last; a state that is told brings them along.
    pub(super) fn tell_flags(&mut self) {
        let flags = self.parts.sighting.flags;
        if self.told.is_some_and(|told| told != flags) {
            self.told = Some(flags);
            self.parts.events.flags(self.parts.slot, flags);
        }
    }

    /// Tells the gateway of a state; says nothing if nothing changed.
    pub(super) fn report(&mut self, state: SlotState, reason: &str) {
        if self.status.as_ref().is_some_and(|(was, why)| *was == state && why == reason) {
            return;
        }
        if state.needs_a_person() && state != SlotState::NeedsPin {
            warn!(slot.token = %self.parts.sighting.token, slot.state = %state, "{state}: {reason}");
        }
        self.status = Some((state, reason.to_owned()));
        let status = SlotStatus { state, reason: reason.to_owned(), since: SystemTime::now().into() };
        self.told = Some(self.parts.sighting.flags);
        self.parts.events.status(self.parts.slot, status, self.parts.sighting.flags);
    }
    /// Asks for a new start of the module if it fails in a row: some recover by nothing else (seen: tpm2-pkcs11 after its TPM was restarted,
    /// p11-kit's client after its server was, SoftHSM after its directory was moved).
    pub(super) fn count_failures(&mut self, error: Option<&DeviceError>) {
        self.failures += match error {
            None => return self.failures = 0,
            Some(DeviceError::ModuleLost(_)) => FAILURES_MAX,
            Some(DeviceError::Unclear(_)) => 2,
            Some(DeviceError::Failed(_) | DeviceError::SessionLost(_)) => 1,
            Some(_) => return,
        };
        if self.failures >= FAILURES_MAX {
            self.failures = 0;
            let reason = error.map(ToString::to_string).unwrap_or_default();
            self.parts.events.replace(reason);
        }
    }

    /// Says that a signature waits for a person's touch, where the token has a button and could sign.
    pub(super) fn report_touch(&mut self) {
        let per_request = self.parts.login == LoginMode::PerRequest;
        let could_sign = |session: &Session| session.logged_in || per_request || !session.flags.login_required;
        if self.parts.quirks.waits_for_touch && self.session.as_ref().is_some_and(could_sign) {
            self.report(SlotState::WaitingAtReader, "touch the token");
        }
    }

    pub(super) fn report_touched(&mut self) {
        if matches!(self.status, Some((SlotState::WaitingAtReader, _))) {
            self.report_idle();
        }
    }

    /// A call that was reported as one that does not return has returned: the state is told anew.
    pub(super) fn report_return(&mut self) {
        if self.parts.module.watch.take_overdue() {
            self.status = None;
            self.report_idle();
        }
    }
}
