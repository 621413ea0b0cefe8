//! The session of a slot: opened, looked after, opened again when it was lost, closed.

use std::{
    collections::HashMap,
    thread,
    time::{Duration, Instant},
};

use tracing::{debug, info};

use crate::{
    domain::{
        pin::PinOrigin,
        token::{KeySelector, SlotState, TokenFlags},
    },
    token::driver::{CachedKey, DeviceError, Retry, TokenDriver},
};

use super::{REOPEN_PAUSE, Worker};

/// How often an idle thread reads its token's flags: another program's wrong PIN shows nowhere else.
const FLAGS_CHECK: Duration = Duration::from_secs(5);

/// One session epoch: handles found in it are worthless in the next.
pub(super) struct Session {
    pub(super) driver: Box<dyn TokenDriver>,
    pub(super) keys: HashMap<KeySelector, CachedKey>,
    pub(super) flags: TokenFlags,
    pub(super) flags_read: Instant,
    pub(super) logged_in: bool,
    pub(super) used: Instant,
}

impl Worker {
    pub(super) fn ensure_open(&mut self) -> Result<(), DeviceError> {
        if self.session.is_some() {
            return Ok(());
        }
        match &self.not_opened {
            Some((when, why)) if when.elapsed() < REOPEN_PAUSE => {
                self.was_not_asked = true;
                Err(why.clone())
            }
            _ => self.open(),
        }
    }

    /// Runs `call` on an open session; opens it again and asks once more if it was lost.
    pub(super) fn with_session<T>(&mut self, call: impl Fn(&mut Session) -> Result<T, DeviceError>) -> Result<T, DeviceError> {
        self.ensure_open()?;
        let result = self.session.as_mut().map_or_else(|| Err(no_session()), &call);
        match result {
            Err(error @ DeviceError::SessionLost(_)) => {
                self.reopen(&error)?;
                self.session.as_mut().map_or_else(|| Err(no_session()), &call)
            }
            other => other,
        }
    }
    pub(super) fn reopen(&mut self, because: &DeviceError) -> Result<(), DeviceError> {
        self.drop_session(because);
        self.open()
    }

    pub(super) fn drop_session(&mut self, because: &DeviceError) {
        if self.session.take().is_some() {
            debug!(slot.token = %self.parts.sighting.token, error = %because, "session closed");
            self.report(SlotState::Recovering, &because.to_string());
        }
    }

    /// Opens a session and logs in with the PIN that was kept, if there is one.
    pub(super) fn open(&mut self) -> Result<(), DeviceError> {
        let opened = self.parts.module.open(self.parts.sighting.slot).and_then(|mut driver| {
            let flags = driver.flags()?;
            let now = Instant::now();
            Ok(Session { driver, keys: HashMap::new(), flags, flags_read: now, logged_in: false, used: now })
        });
        thread::sleep(self.parts.quirks.settle);
        let mut session = match opened {
            Ok(session) => session,
            Err(error) => {
                self.report(SlotState::Recovering, &error.to_string());
                self.not_opened = Some((Instant::now(), error.clone()));
                return Err(error);
            }
        };
        self.not_opened = None;
        self.parts.sighting.flags = session.flags;
        self.tell_flags();
        let again = self.desk.login_again(session.driver.as_mut());
        session.logged_in = matches!(again, Some(Ok(())));
        self.session = Some(session);
        match again {
            Some(again @ Err(_)) => {
                self.after_login(&again, PinOrigin::Configured);
                // The module failed, and nobody has judged the PIN (seen: OpenSC while a card is pulled): this is not a slot that lacks a PIN.
                again.or_else(|error| if error.retry() == Retry::AfterReopen { Err(error) } else { Ok(()) })
            }
            _ => {
                self.report_idle();
                Ok(())
            }
        }
    }

    /// Looks whether the idle slot's token is still there; an error is returned if the worker must end.
    pub(in crate::token) fn look_after_token(&mut self) -> Option<DeviceError> {
        let checked = match self.session.as_mut() {
            Some(session) => session.driver.check_presence().and_then(|()| session.keep_alive(self.parts.quirks.idle_limit)),
            None => self.open(),
        };
        if checked.is_ok() && self.session.as_ref().is_some_and(|session| session.flags_read.elapsed() >= FLAGS_CHECK) {
            self.refresh_flags();
        }
        self.count_failures(checked.as_ref().err());
        self.report_return();
        match checked {
            Err(error @ DeviceError::TokenGone(_)) => Some(error),
            Err(error) => {
                self.drop_session(&error);
                None
            }
            Ok(()) => None,
        }
    }

    /// Closes the session and answers what is still queued; returns the reason in words.
    pub(in crate::token) fn close(mut self, end: Option<DeviceError>) -> String {
        self.session = None;
        let answer = end.clone().unwrap_or(DeviceError::Stopping);
        for envelope in self.parts.queue.try_iter() {
            envelope.responder.answer(Err(answer.clone()));
        }
        let reason = end.map_or_else(|| "stopped".to_owned(), |error| error.to_string());
        let token = &self.parts.sighting.token;
        info!(slot.token = %token, "token {} let go: {reason}", token.label);
        reason
    }
}

impl Session {
    /// Uses a session that would end as idle, a little before it does, and checks that the login still holds.
    fn keep_alive(&mut self, idle_limit: Option<Duration>) -> Result<(), DeviceError> {
        if idle_limit.is_none_or(|limit| self.used.elapsed() < limit * 3 / 4) {
            return Ok(());
        }
        self.used = Instant::now();
        self.driver.check_session(self.logged_in)
    }

    pub(super) fn key(&mut self, selector: &KeySelector) -> Result<CachedKey, DeviceError> {
        if let Some(key) = self.keys.get(selector) {
            return Ok(key.clone());
        }
        let key = self.driver.find_key(selector)?;
        self.keys.insert(selector.clone(), key.clone());
        Ok(key)
    }
}

pub(super) fn no_session() -> DeviceError {
    DeviceError::SessionLost("no session".to_owned())
}
