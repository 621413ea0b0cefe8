//! Logins: PIN tries, PIN pads, and keys that want a login for each signature.

use cryptoki_sys::{
    CK_FLAGS, CK_USER_TYPE, CKF_PROTECTED_AUTHENTICATION_PATH, CKF_USER_PIN_COUNT_LOW, CKF_USER_PIN_FINAL_TRY, CKF_USER_PIN_LOCKED,
    CKU_CONTEXT_SPECIFIC, CKU_SO,
};

use super::{call::Passage, fail, sessions::Session, slots::Slot};
use crate::{
    hotline::PinAction,
    protocol::PersonAct,
    rv::Rv,
    token::{PinFlag, PinPolicy},
};

impl Passage<'_, '_> {
    /// `C_Login`, with what the token makes of it. `real` calls the real module with a PIN; an `Err` means that it was not called.
    pub(super) fn login(
        &mut self,
        session: &Session,
        user: CK_USER_TYPE,
        pin: Option<&[u8]>,
        real: impl FnOnce(Option<&[u8]>) -> Rv,
    ) -> Result<Rv, Rv> {
        let typed = match pin {
            None if self.token(session).is_some_and(|token| token.pin_pad) => Some(self.type_pin()?),
            _ => None,
        };
        let pin = pin.or(typed.as_deref().map(str::as_bytes));
        let hash = pin.map(|pin| self.module.salt.hash(pin));
        if user == CKU_CONTEXT_SPECIFIC && session.operation().wants_login {
            return self.login_for_a_signature(session, hash.as_deref());
        }
        let policy = if user == CKU_SO { None } else { self.token(session).and_then(|token| token.pin.clone()) };
        let rv = self.try_pin(session, policy.as_ref(), |passage| {
            passage.begin()?;
            Ok(passage.reached(real(pin)))
        })?;
        if rv.is_ok() && user != CKU_SO {
            self.module.slots.note(session.slot, |notes| {
                notes.logged_out = false;
                notes.user_pin = hash;
            });
        }
        Ok(rv)
    }

    /// Waits for the person at the PIN pad. The log tells the hash of what was typed.
    fn type_pin(&mut self) -> Result<String, Rv> {
        match self.followed.ask_person().map_err(|error| fail(&error))? {
            PersonAct::Answers(rv) => Err(rv),
            PersonAct::Enters(pin) => {
                let hash = self.module.salt.hash(pin.as_bytes());
                if let Some(account) = &mut self.account {
                    account.set_pin(hash);
                }
                Ok(pin)
            }
        }
    }

    /// The login between `C_SignInit` and `C_Sign` of a key that wants one, which the real module knows nothing of: right is the PIN that the
    /// user logged in with. As on the PIV card, a wrong one logs the user out.
    fn login_for_a_signature(&mut self, session: &Session, hash: Option<&str>) -> Result<Rv, Rv> {
        let known = self.module.slots.note(session.slot, |notes| notes.user_pin.clone());
        let right = known.is_some() && known.as_deref() == hash;
        let policy = self.token(session).and_then(|token| token.pin.clone());
        let rv = self.try_pin(session, policy.as_ref(), |passage| {
            passage.begin()?;
            Ok(passage.reached(if right { Rv::OK } else { Rv::PIN_INCORRECT }))
        })?;
        if rv.is_ok() {
            session.operation().wants_login = false;
        } else {
            self.module.log_everybody_out(session);
        }
        Ok(rv)
    }

    /// Spends a PIN try as the policy has it. `real` tries the PIN; an `Err` means that no PIN was tried.
    pub(super) fn try_pin(
        &mut self,
        session: &Session,
        policy: Option<&PinPolicy>,
        real: impl FnOnce(&mut Self) -> Result<Rv, Rv>,
    ) -> Result<Rv, Rv> {
        let (Some(policy), Some(token)) = (policy, &session.token) else { return real(self) };
        let act = |action| self.module.link.pin_tries(&token.serial, policy.tries, action).map_err(|error| fail(&error));
        let left = act(PinAction::Spend)?;
        if left == 0 {
            return Err(policy.locked_answer);
        }
        let tried = real(self);
        match tried {
            Ok(Rv::OK) => act(PinAction::Refill).map(|_| Rv::OK),
            Ok(Rv::PIN_INCORRECT) if left == 1 => Ok(policy.last_answer),
            Ok(Rv::PIN_INCORRECT) => tried,
            _ => act(PinAction::GiveBack).and(tried),
        }
    }

    /// A new PIN was set by the security officer: all tries are back.
    pub(super) fn refill_tries(&self, session: &Session) -> Result<(), Rv> {
        let policy = self.token(session).and_then(|token| token.pin.as_ref());
        if let (Some(policy), Some(token)) = (policy, &session.token) {
            let refilled = self.module.link.pin_tries(&token.serial, policy.tries, PinAction::Refill);
            refilled.map_err(|error| fail(&error))?;
        }
        Ok(())
    }

    /// `CK_TOKEN_INFO.flags` as the token's PIN policy and PIN pad have them.
    pub(super) fn token_flags(&self, slot: &Slot, flags: CK_FLAGS) -> Result<CK_FLAGS, Rv> {
        let (Some(state), Some(token)) = (slot.state(&self.state), &slot.token) else { return Ok(flags) };
        let flags = if state.pin_pad { flags | CKF_PROTECTED_AUTHENTICATION_PATH } else { flags };
        let Some(policy) = &state.pin else { return Ok(flags) };
        let left = self.module.link.pin_tries(&token.serial, policy.tries, PinAction::Ask).map_err(|error| fail(&error))?;
        let due = policy.shows.iter().filter(|flag| flag.is_due(left, policy.tries)).map(|flag| flag_bit(*flag));
        let none = flags & !(CKF_USER_PIN_COUNT_LOW | CKF_USER_PIN_FINAL_TRY | CKF_USER_PIN_LOCKED);
        Ok(due.fold(none, |flags, bit| flags | bit))
    }
}

const fn flag_bit(flag: PinFlag) -> CK_FLAGS {
    match flag {
        PinFlag::CountLow => CKF_USER_PIN_COUNT_LOW,
        PinFlag::FinalTry => CKF_USER_PIN_FINAL_TRY,
        PinFlag::Locked => CKF_USER_PIN_LOCKED,
    }
}
