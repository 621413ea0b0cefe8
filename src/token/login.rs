//! How a slot thread logs in without ever spending a PIN try that it should not.
//!
//! The order is always: the token's own flags, then the ledger, then `C_Login`, then the ledger again. Invariant: `C_Login` is called only
//! between a granted `begin` and its `end`, and never on a token whose flags forbid it.

use std::{sync::Arc, thread, time::Duration};

use aws_lc_rs::{hmac, rand::SystemRandom};

use crate::domain::{
    pin::{LedgerInstance, LedgerKey, LedgerRefusal, LoginAttempt, LoginVerdict, Pin, PinLedger, PinOrigin},
    token::TokenFlags,
};

use super::{
    driver::{DeviceError, TokenDriver},
    host::fence::lock_in_memory,
};

/// How often, and how long, a login waits for another login on the same card to end.
const LEDGER_WAITS: (u32, Duration) = (100, Duration::from_millis(50));

/// The login side of one slot thread.
pub(super) struct LoginDesk {
    ledger: Arc<dyn PinLedger>,
    token: LedgerKey,
    instance: LedgerInstance,
    hash_key: hmac::Key,
    /// Keyed hash of the PIN that logged in last. Survives the session: it lets the same PIN in again although another one was wrong.
    good: Option<hmac::Tag>,
    /// The PIN that keeps the slot logged in, for logging in again after a lost session. Wiped on log-out and rejection.
    kept: Option<(Pin, PinOrigin)>,
}

impl LoginDesk {
    pub(super) fn new(ledger: Arc<dyn PinLedger>, token: LedgerKey, instance: LedgerInstance) -> Result<Self, DeviceError> {
        let hash_key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())
            .map_err(|_| DeviceError::Failed("the system has no random numbers".to_owned()))?;
        Ok(Self { ledger, token, instance, hash_key, good: None, kept: None })
    }

    /// Whether `pin` is the one that logged in last. Takes the same time for every answer.
    pub(super) fn is_known_good(&self, pin: &Pin) -> bool {
        self.good.as_ref().is_some_and(|good| hmac::verify(&self.hash_key, pin.reveal().as_bytes(), good.as_ref()).is_ok())
    }

    /// Logs in and keeps the PIN, so that a lost session can be opened again.
    pub(super) fn login_and_keep(&mut self, driver: &mut dyn TokenDriver, pin: Pin, origin: PinOrigin) -> Result<(), DeviceError> {
        self.login(driver, &pin, origin)?;
        lock_in_memory(&pin);
        self.kept = Some((pin, origin));
        Ok(())
    }

    /// Logs in again with the PIN that was kept; `None` if there is none.
    pub(super) fn login_again(&mut self, driver: &mut dyn TokenDriver) -> Option<Result<(), DeviceError>> {
        let (pin, origin) = self.kept.take()?;
        let result = self.login(driver, &pin, origin);
        if !matches!(result, Err(DeviceError::PinRejected)) {
            self.kept = Some((pin, origin));
        }
        Some(result)
    }

    /// The kept PIN of a configured login: what an always-authenticate key is given when the request brings none.
    pub(super) fn configured_pin(&self) -> Option<Pin> {
        match &self.kept {
            Some((pin, PinOrigin::Configured)) => Some(pin.duplicate()),
            _ => None,
        }
    }

    /// Forgets the kept PIN.
    pub(super) fn forget(&mut self) {
        self.kept = None;
    }

    /// Logs in with `pin`, within the rules.
    pub(super) fn login(&mut self, driver: &mut dyn TokenDriver, pin: &Pin, origin: PinOrigin) -> Result<(), DeviceError> {
        self.attempt(driver, pin, origin, |driver| match driver.login(Some(pin)) {
            // Somebody's earlier login of this process still holds. It proves nothing about this PIN, so it is ended first.
            Err(DeviceError::AlreadyLoggedIn) => driver.logout().and_then(|()| driver.login(Some(pin))),
            other => other,
        })
    }

    /// Makes a call that spends a PIN try if `pin` is wrong, within the rules.
    pub(super) fn attempt<T>(
        &mut self,
        driver: &mut dyn TokenDriver,
        pin: &Pin,
        origin: PinOrigin,
        call: impl FnOnce(&mut dyn TokenDriver) -> Result<T, DeviceError>,
    ) -> Result<T, DeviceError> {
        let known_good = self.is_known_good(pin);
        permitted_by_flags(driver.flags()?, origin, known_good)?;
        let attempt = LoginAttempt { token: self.token.clone(), pin, origin, known_good, instance: self.instance };
        self.begin(&attempt)?;
        let result = call(driver);
        let verdict = match &result {
            Ok(_) => LoginVerdict::Accepted,
            Err(DeviceError::PinRejected) => LoginVerdict::Rejected,
            Err(_) => LoginVerdict::NotTried,
        };
        self.ledger.end(&attempt, verdict);
        match verdict {
            LoginVerdict::Accepted => self.good = Some(hmac::sign(&self.hash_key, pin.reveal().as_bytes())),
            LoginVerdict::Rejected if known_good => self.good = None,
            LoginVerdict::Rejected | LoginVerdict::NotTried => {}
        }
        result
    }

    fn begin(&self, attempt: &LoginAttempt<'_>) -> Result<(), DeviceError> {
        let (waits, pause) = LEDGER_WAITS;
        for _ in 0..waits {
            match self.ledger.begin(attempt) {
                Err(LedgerRefusal::UnderWay) => thread::sleep(pause),
                other => return other.map_err(|refusal| DeviceError::PinNotTried(refusal.to_string())),
            }
        }
        Err(DeviceError::PinNotTried(LedgerRefusal::UnderWay.to_string()))
    }
}

/// The token's own word on whether a PIN may be tried now.
pub(super) fn permitted_by_flags(flags: TokenFlags, origin: PinOrigin, known_good: bool) -> Result<(), DeviceError> {
    if flags.user_pin_locked {
        return Err(DeviceError::PinLocked);
    }
    let insisted = matches!(origin, PinOrigin::Operator { insist: true });
    if flags.user_pin_final_try && !insisted {
        return Err(DeviceError::FinalTry);
    }
    if flags.user_pin_count_low && origin == PinOrigin::Request && !known_good {
        let why =
            "a wrong PIN was entered since the last good login, so PINs from requests are not tried; an operator must unlock the token";
        return Err(DeviceError::PinNotTried(why.to_owned()));
    }
    Ok(())
}
