//! Logging in and out, by configuration, by an operator, at the reader, and for one request.

use crate::{
    domain::{
        pin::{Pin, PinOrigin},
        token::{LoginMode, SlotState},
    },
    token::{
        driver::{DeviceError, Retry},
        login::permitted_by_flags,
    },
};

use super::{Worker, session::no_session};

impl Worker {
    pub(super) fn login(&mut self, pin: Option<Pin>, origin: PinOrigin) -> Result<(), DeviceError> {
        self.ensure_open()?;
        let mode = self.parts.login;
        let Some(session) = self.session.as_mut() else { return Err(no_session()) };
        let result = match (pin, mode) {
            (None, LoginMode::Protected) => {
                self.report(SlotState::WaitingAtReader, "enter the PIN at the reader");
                self.login_at_reader(origin)
            }
            (None, _) => return Err(DeviceError::LoginRequired("a PIN is needed".to_owned())),
            // It was sent when the slot needed one; an operator has been quicker, and a wrong one must not log the right one out.
            (Some(_), _) if session.logged_in && origin == PinOrigin::Configured => Ok(()),
            // On a per-request slot an operator's good PIN lifts the limit on requests' PINs; the slot stays logged out.
            (Some(pin), LoginMode::PerRequest) => {
                self.desk.login(session.driver.as_mut(), &pin, origin).and_then(|()| session.driver.logout())
            }
            (Some(pin), _) if session.logged_in && self.desk.is_known_good(&pin) => Ok(()),
            (Some(pin), _) => self.desk.login_and_keep(session.driver.as_mut(), pin, origin),
        };
        self.after_login(&result, origin);
        result
    }

    fn login_at_reader(&mut self, origin: PinOrigin) -> Result<(), DeviceError> {
        let Some(session) = self.session.as_mut() else { return Err(no_session()) };
        permitted_by_flags(session.driver.flags()?, origin, false)?;
        match session.driver.login(None) {
            Err(DeviceError::AlreadyLoggedIn) => Ok(()),
            other => other,
        }
    }

    pub(super) fn after_login(&mut self, result: &Result<(), DeviceError>, origin: PinOrigin) {
        self.refresh_flags();
        match result {
            Ok(()) => {
                if let Some(session) = self.session.as_mut() {
                    session.logged_in = self.parts.login != LoginMode::PerRequest;
                    // Private objects show only after a login; what was found before may be incomplete.
                    session.keys.clear();
                }
                self.report_idle();
            }
            Err(DeviceError::PinRejected) if origin != PinOrigin::Request => {
                self.report(SlotState::PinRejected, "the token rejected the PIN; unlock it with the right one");
            }
            Err(DeviceError::PinLocked) => self.report(SlotState::PinLocked, "unblock the PIN with the vendor's tool"),
            Err(error @ (DeviceError::PinNotTried(_) | DeviceError::FinalTry)) if origin == PinOrigin::Configured => {
                self.report(SlotState::PinRejected, &error.to_string());
            }
            Err(error) if error.retry() == Retry::AfterReopen => self.drop_session(error),
            Err(_) => self.report_idle(),
        }
    }

    /// Logs in with a request's PIN, runs `call`, logs out.
    pub(super) fn logged_in_for_one<T>(
        &mut self,
        pin: &Pin,
        call: impl FnOnce(&mut Self) -> Result<T, DeviceError>,
    ) -> Result<T, DeviceError> {
        self.ensure_open()?;
        let Some(session) = self.session.as_mut() else { return Err(no_session()) };
        let login = match self.desk.login(session.driver.as_mut(), pin, PinOrigin::Request) {
            Err(error) if error.retry() == Retry::AfterReopen => {
                self.reopen(&error)?;
                let Some(session) = self.session.as_mut() else { return Err(no_session()) };
                self.desk.login(session.driver.as_mut(), pin, PinOrigin::Request)
            }
            other => other,
        };
        self.after_login(&login, PinOrigin::Request);
        login?;
        let result = call(self);
        let failed = result.as_ref().err().filter(|error| error.retry() == Retry::AfterReopen).cloned();
        let logout = self.session.as_mut().map_or(Ok(()), |session| {
            session.keys.clear();
            session.driver.logout()
        });
        // A session that cannot be logged out is closed, which logs it out.
        if let Some(error) = failed.or(logout.err()) {
            self.drop_session(&error);
        }
        result
    }

    pub(super) fn check_pin(&mut self, pin: &Pin) -> Result<(), DeviceError> {
        if self.parts.login == LoginMode::PerRequest { self.logged_in_for_one(pin, |_| Ok(())) } else { self.compare(pin) }
    }

    /// Compares a request's PIN with the one that logged in; the token is not asked.
    pub(super) fn compare(&mut self, pin: &Pin) -> Result<(), DeviceError> {
        self.require_login()?;
        if self.desk.is_known_good(pin) { Ok(()) } else { Err(DeviceError::PinMismatch) }
    }

    pub(super) fn require_login(&mut self) -> Result<(), DeviceError> {
        self.ensure_open()?;
        match &self.session {
            Some(session) if session.logged_in || !session.flags.login_required => Ok(()),
            _ => {
                let why = self.status.as_ref().map(|(state, reason)| format!("{state} {reason}")).unwrap_or_default();
                Err(DeviceError::LoginRequired(why.trim_end().to_owned()))
            }
        }
    }

    pub(super) fn logout(&mut self) -> Result<(), DeviceError> {
        self.desk.forget();
        let result = match self.session.as_mut() {
            Some(session) if session.logged_in => session.driver.logout(),
            _ => Ok(()),
        };
        match &result {
            Ok(()) => {
                if let Some(session) = self.session.as_mut() {
                    session.logged_in = false;
                    session.keys.clear();
                }
                self.report(self.state_logged_out(), "locked by an operator");
            }
            // Closing the session logs out as well.
            Err(error) => self.drop_session(error),
        }
        result
    }
}
