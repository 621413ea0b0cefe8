//! A record of PIN tries in memory: enough for one run of the gateway.
//!
//! Rejected values are kept as HMAC-SHA-256 under a secret that is made at random for this run and never leaves it, so the record says
//! nothing about a PIN to anybody. Invariant: looking and opening an attempt are one step under one mutex, so two slots of one card never
//! try at once.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use aws_lc_rs::{hmac, rand::SystemRandom};

use crate::domain::pin::{LedgerEntry, LedgerKey, LedgerRefusal, LoginAttempt, LoginVerdict, Pin, PinLedger, PinTag};

/// A ledger in memory. It forgets everything when the process ends; no method blocks.
pub struct MemoryPinLedger {
    secret: hmac::Key,
    entries: Mutex<HashMap<LedgerKey, LedgerEntry>>,
}

impl MemoryPinLedger {
    /// Makes an empty ledger under a new random secret.
    ///
    /// # Errors
    /// [`LedgerRefusal::Unavailable`] if the system has no random numbers.
    pub fn new() -> Result<Self, LedgerRefusal> {
        let secret = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())
            .map_err(|_| LedgerRefusal::Unavailable("the system has no random numbers".to_owned()))?;
        Ok(Self { secret, entries: Mutex::default() })
    }

    fn tag(&self, token: &LedgerKey, pin: &Pin) -> PinTag {
        let mut context = hmac::Context::with_key(&self.secret);
        // The token is part of it: equal PINs of two tokens must not look equal. Its length ends it.
        context.update(&(token.as_str().len() as u64).to_be_bytes());
        context.update(token.as_str().as_bytes());
        context.update(pin.reveal().as_bytes());
        let mut tag = [0; 32];
        tag.copy_from_slice(context.sign().as_ref());
        PinTag(tag)
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<LedgerKey, LedgerEntry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PinLedger for MemoryPinLedger {
    fn begin(&self, attempt: &LoginAttempt<'_>) -> Result<(), LedgerRefusal> {
        let tag = self.tag(&attempt.token, attempt.pin);
        let mut entries = self.entries();
        let entry = entries.entry(attempt.token.clone()).or_default();
        if attempt.known_good {
            entry.begin_known_good(&tag, attempt.instance)
        } else {
            entry.begin(&tag, attempt.origin, attempt.instance)
        }
    }

    fn end(&self, attempt: &LoginAttempt<'_>, verdict: LoginVerdict) {
        let tag = self.tag(&attempt.token, attempt.pin);
        self.entries().entry(attempt.token.clone()).or_default().end(&tag, verdict);
    }

    fn forget(&self, token: &LedgerKey) {
        self.entries().remove(token);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{
        pin::{LedgerInstance, PinOrigin},
        token::TokenIdentity,
    };

    fn token(serial: &str) -> LedgerKey {
        let text = |text: &str| text.to_owned();
        LedgerKey::of(&TokenIdentity {
            module: "softhsm".parse().unwrap(),
            manufacturer: text("SoftHSM project"),
            model: text("SoftHSM v2"),
            serial: text(serial),
            label: text("one"),
        })
    }

    fn attempt<'a>(pin: &'a Pin, serial: &str, origin: PinOrigin) -> LoginAttempt<'a> {
        LoginAttempt { token: token(serial), pin, origin, known_good: false, instance: LedgerInstance(1) }
    }

    fn pin(text: &str) -> Pin {
        Pin::new(text.to_owned()).unwrap()
    }

    #[test]
    fn a_rejected_pin_is_refused_for_its_token_only_until_an_operator_clears_it() {
        let ledger = MemoryPinLedger::new().unwrap();
        let wrong = pin("0000");
        ledger.begin(&attempt(&wrong, "a", PinOrigin::Configured)).unwrap();
        ledger.end(&attempt(&wrong, "a", PinOrigin::Configured), LoginVerdict::Rejected);
        assert_eq!(ledger.begin(&attempt(&wrong, "a", PinOrigin::Configured)), Err(LedgerRefusal::RejectedBefore));
        assert_eq!(ledger.begin(&attempt(&wrong, "b", PinOrigin::Configured)), Ok(()));
        ledger.forget(&token("a"));
        assert_eq!(ledger.begin(&attempt(&wrong, "a", PinOrigin::Configured)), Ok(()));
    }

    #[test]
    fn of_many_threads_that_try_at_once_one_may() {
        let ledger = MemoryPinLedger::new().unwrap();
        let (barrier, ledger) = (&std::sync::Barrier::new(8), &ledger);
        let allowed = std::thread::scope(|scope| {
            let tries: Vec<_> = (0..8)
                .map(|n| {
                    scope.spawn(move || {
                        let pin = pin(&format!("{n:04}"));
                        barrier.wait();
                        ledger.begin(&attempt(&pin, "a", PinOrigin::Operator { insist: false })).is_ok()
                    })
                })
                .collect();
            tries.into_iter().map(|tried| tried.join().unwrap()).filter(|allowed| *allowed).count()
        });
        assert_eq!(allowed, 1);
    }

    #[test]
    fn the_same_pin_looks_different_on_two_tokens_and_in_two_runs() {
        let (one, other) = (MemoryPinLedger::new().unwrap(), MemoryPinLedger::new().unwrap());
        let pin = pin("1234");
        assert_eq!(one.tag(&token("a"), &pin), one.tag(&token("a"), &pin));
        assert_ne!(one.tag(&token("a"), &pin), one.tag(&token("b"), &pin));
        assert_ne!(one.tag(&token("a"), &pin), other.tag(&token("a"), &pin));
    }
}
