//! The way that every call takes.
//!
//! First, where is it: which slot, which session, which token? Then the bench is told, if it is interested, and its effects *before* happen.
//! Is the token there, does the session live, is the module poisoned? Only now is the real module called; effects *after*, the log and the
//! answer follow. A call that is answered before it reaches the real module is *refused*.

use std::sync::{Arc, atomic::Ordering};

use cryptoki_sys::{CK_SESSION_HANDLE, CK_SLOT_ID, CK_USER_TYPE};

use super::{
    Module, effects, fail,
    link::Followed,
    memory::Output,
    sessions::{Found, Session},
    slots::Slot,
    token_log::Account,
};
use crate::{
    function::Function,
    hotline::Caller,
    rv::Rv,
    token::{Ended, State, TokenState},
};

/// What a call is about.
#[derive(Debug, Clone, Copy)]
enum Place {
    Nowhere,
    Slot(CK_SLOT_ID),
    Session(CK_SESSION_HANDLE),
}

/// What the log is to tell of a call.
#[derive(Debug, Clone, Copy)]
pub(super) enum Tells<'a> {
    Nothing,
    Login {
        user: CK_USER_TYPE,
        pin: Option<&'a [u8]>,
    },
    /// `None` stands for what `C_SignUpdate` was given.
    Signing(Option<&'a [u8]>),
}

/// A call, as its export describes it.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) function: Function,
    place: Place,
    output: Option<Output>,
    pub(super) tells: Tells<'a>,
}

impl<'a> Call<'a> {
    const fn new(function: Function, place: Place) -> Self {
        Self { function, place, output: None, tells: Tells::Nothing }
    }

    pub(super) const fn in_session(function: Function, session: CK_SESSION_HANDLE) -> Self {
        Self::new(function, Place::Session(session))
    }

    /// It has an output whose length can be asked for.
    pub(super) fn with_output(mut self, output: Output) -> Self {
        self.output = Some(output);
        self
    }

    /// It is logged, unless it only asks for a length.
    pub(super) fn telling(mut self, tells: Tells<'a>) -> Self {
        if !self.is_length_query() {
            self.tells = tells;
        }
        self
    }

    /// The session that the caller named, or 0.
    pub(super) const fn session_handle(&self) -> CK_SESSION_HANDLE {
        match self.place {
            Place::Session(session) => session,
            Place::Nowhere | Place::Slot(_) => 0,
        }
    }

    pub(super) fn is_length_query(&self) -> bool {
        self.output.as_ref().is_some_and(Output::is_length_query)
    }
}

/// Where a call was found to be.
#[derive(Debug, Default)]
struct Whereabouts {
    slot: Option<Slot>,
    session: Option<Arc<Session>>,
    /// It is nowhere, and this is the answer.
    lost: Option<Rv>,
}

/// A call on its way, as the code that calls the real module sees it.
pub(super) struct Passage<'c, 'l> {
    pub(super) module: &'c Module,
    pub(super) state: Arc<State>,
    pub(super) followed: &'c mut Followed<'l>,
    pub(super) account: Option<Account<'c>>,
}

impl Passage<'_, '_> {
    /// The real module is about to be called for what the log tells of.
    pub(super) fn begin(&mut self) -> Result<(), Rv> {
        self.account.as_mut().map_or(Ok(()), |account| account.begin().map_err(|error| fail(&error)))
    }

    /// It has answered.
    pub(super) const fn reached(&mut self, rv: Rv) -> Rv {
        if let Some(account) = &mut self.account {
            account.reached(rv);
        }
        rv
    }

    /// The state of a session's token, if it has one.
    pub(super) fn token(&self, session: &Session) -> Option<&TokenState> {
        session.token.as_ref().map(|token| self.state.tokens.of(token))
    }
}

impl Module {
    /// Takes a call that concerns no slot.
    pub(super) fn nowhere(&self, function: Function, forward: impl FnOnce(&mut Passage<'_, '_>) -> Result<Rv, Rv>) -> Rv {
        self.take(&Call::new(function, Place::Nowhere), |passage, _| forward(passage))
    }

    /// Takes a call about a slot.
    pub(super) fn on_slot(
        &self,
        function: Function,
        slot: CK_SLOT_ID,
        forward: impl FnOnce(&mut Passage<'_, '_>, &Slot) -> Result<Rv, Rv>,
    ) -> Rv {
        self.take(&Call::new(function, Place::Slot(slot)), |passage, whereabouts| match &whereabouts.slot {
            Some(slot) => forward(passage, slot),
            None => Err(Rv::SLOT_ID_INVALID),
        })
    }

    /// Takes a call in a session.
    pub(super) fn in_session(&self, call: &Call<'_>, forward: impl FnOnce(&mut Passage<'_, '_>, &Session) -> Result<Rv, Rv>) -> Rv {
        self.take(call, |passage, whereabouts| match &whereabouts.session {
            Some(session) => forward(passage, session),
            None => Err(Rv::SESSION_HANDLE_INVALID),
        })
    }

    /// `forward` calls the real module; an `Err` of it means that it did not.
    fn take(&self, call: &Call<'_>, forward: impl FnOnce(&mut Passage<'_, '_>, &Whereabouts) -> Result<Rv, Rv>) -> Rv {
        let passed = || {
            let state = self.link.state().map_err(|error| fail(&error))?;
            let whereabouts = self.locate(call, &state);
            let caller = caller(call, &whereabouts);
            let mut followed = self.link.enter(&state, caller).map_err(|error| fail(&error))?;
            let answer = self.pass(call, &whereabouts, &mut followed, forward).unwrap_or_else(|rv| rv);
            followed.leave(answer);
            Ok(answer)
        };
        passed().unwrap_or_else(|rv| rv)
    }

    fn locate(&self, call: &Call<'_>, state: &State) -> Whereabouts {
        let lost = |rv| Whereabouts { lost: Some(rv), ..Whereabouts::default() };
        let needs_no_initialisation =
            [Function::C_Initialize, Function::C_Finalize, Function::C_GetInfo, Function::C_GetFunctionList].contains(&call.function);
        if !needs_no_initialisation && !self.is_initialised() {
            return lost(Rv::CRYPTOKI_NOT_INITIALIZED);
        }
        match call.place {
            Place::Nowhere => Whereabouts::default(),
            Place::Slot(slot) => match self.slots.find(slot, &self.real, state) {
                Ok(slot) => Whereabouts { slot: Some(slot), ..Whereabouts::default() },
                Err(rv) => lost(rv),
            },
            Place::Session(session) => match self.sessions.find(session) {
                Found::Open(session) => Whereabouts { session: Some(session), ..Whereabouts::default() },
                Found::Ended(rv) => {
                    if call.function == Function::C_CloseSession {
                        self.sessions.forget(session);
                    }
                    lost(rv)
                }
            },
        }
    }

    fn pass(
        &self,
        call: &Call<'_>,
        whereabouts: &Whereabouts,
        followed: &mut Followed<'_>,
        forward: impl FnOnce(&mut Passage<'_, '_>, &Whereabouts) -> Result<Rv, Rv>,
    ) -> Result<Rv, Rv> {
        let plan = std::mem::take(&mut followed.plan);
        let stopped = effects::perform(&plan.before, followed, None, self.log.as_ref());
        let state = self.link.state().map_err(|error| fail(&error))?;
        let account = self.account(call, whereabouts.session.as_deref());
        let mut passage = Passage { module: self, state, followed, account };
        let admitted = stopped.map_or_else(|| self.admit(call.function, whereabouts, &passage.state), Err);
        let forwarded = admitted.and_then(|()| self.forward(whereabouts, &mut passage, forward));
        match forwarded {
            Err(rv) => self.refuse(call, whereabouts, &passage, rv),
            Ok(real) => {
                let rv = self.interrupted(call.function, whereabouts).unwrap_or(real);
                self.end(call, whereabouts, passage, &plan.after, rv)
            }
        }
    }

    fn forward(
        &self,
        whereabouts: &Whereabouts,
        passage: &mut Passage<'_, '_>,
        forward: impl FnOnce(&mut Passage<'_, '_>, &Whereabouts) -> Result<Rv, Rv>,
    ) -> Result<Rv, Rv> {
        let Some(session) = &whereabouts.session else { return forward(passage, whereabouts) };
        self.sessions.go_in(session)?;
        let answer = forward(passage, whereabouts);
        if let Some(dead) = self.sessions.come_out(session) {
            self.bury(&dead);
        }
        answer
    }

    /// The real module was not called.
    fn refuse(&self, call: &Call<'_>, whereabouts: &Whereabouts, passage: &Passage<'_, '_>, rv: Rv) -> Result<Rv, Rv> {
        if let Some(account) = &passage.account {
            account.end(Some(rv), false).map_err(|error| fail(&error))?;
        }
        if let Some(session) = whereabouts.session.as_ref().filter(|_| ends_an_operation(call.function)) {
            session.out_of_step.store(true, Ordering::SeqCst);
        }
        Ok(rv)
    }

    /// The real module was called: the log is told before anything else can happen to this process.
    fn end(
        &self,
        call: &Call<'_>,
        whereabouts: &Whereabouts,
        passage: Passage<'_, '_>,
        after: &[crate::fault::Effect],
        real: Rv,
    ) -> Result<Rv, Rv> {
        let foretold = effects::foretold(after, real);
        let corrupted = after.contains(&crate::fault::Effect::FlipBit);
        let line = passage.account.as_ref().map(|account| account.end(foretold, corrupted)).transpose().map_err(|error| fail(&error))?;
        let output = call.output.as_ref().filter(|_| real.is_ok());
        let performed = effects::perform(after, passage.followed, output, self.log.as_ref());
        let answer = performed.or(foretold).or_else(|| self.interrupted(call.function, whereabouts)).unwrap_or(real);
        if let (Some(account), Some(line), None) = (&passage.account, line, foretold) {
            account.answer(line, answer).map_err(|error| fail(&error))?;
        }
        let operation_lives = real.is_ok() && (call.is_length_query() || is_part_of_an_operation(call.function));
        if let Some(session) = whereabouts.session.as_ref().filter(|_| operation_lives && !answer.is_ok()) {
            session.out_of_step.store(true, Ordering::SeqCst);
        }
        Ok(answer)
    }

    /// Whether the call may go to the real module.
    fn admit(&self, function: Function, whereabouts: &Whereabouts, state: &State) -> Result<(), Rv> {
        if let Some(rv) = whereabouts.lost {
            return Err(rv);
        }
        if state.poison.count > self.life.poisons.load(Ordering::SeqCst) && state.poison.on.contains(function) {
            return Err(state.poison.answer);
        }
        let Some(session) = &whereabouts.session else { return Ok(()) };
        if let Some(token) = session.token.as_ref().map(|token| state.tokens.of(token)) {
            if let Some(rv) = self.fate_of(session, token, function) {
                return Err(rv);
            }
            self.lose_login(session, token);
            if self.slots.note(session.slot, |notes| notes.logged_out) && wants_a_login(function) {
                return Err(Rv::USER_NOT_LOGGED_IN);
            }
        }
        if session.out_of_step.swap(false, Ordering::SeqCst) {
            self.renew(session)?;
        }
        Ok(())
    }

    /// What a dead session answers, `None` for a living one.
    fn fate_of(&self, session: &Session, token: &TokenState, function: Function) -> Option<Rv> {
        if session.epoch == token.epoch {
            return None;
        }
        match token.ended {
            Ended::Expired(rv) => {
                self.end_sessions(session.slot, token);
                Some(rv)
            }
            // OpenSC 0.23 keeps answering these two until it has noticed the removal.
            Ended::Removed(_) if is_answered_from_memory(function) => None,
            Ended::Removed(rv) => Some(rv),
        }
    }

    /// The answer of a call whose token was pulled, or session ended, while it was in the real module.
    fn interrupted(&self, function: Function, whereabouts: &Whereabouts) -> Option<Rv> {
        let session = whereabouts.session.as_ref().filter(|_| !is_answered_from_memory(function))?;
        let state = self.link.state().ok()?;
        let token = state.tokens.of(session.token.as_ref()?);
        match token.ended {
            Ended::Removed(rv) | Ended::Expired(rv) => (session.epoch != token.epoch).then_some(rv),
        }
    }

    /// Notices that a slot's token was pulled, as modules do when they look at their readers.
    pub(super) fn notice(&self, slot: &Slot, state: &State) {
        if let Some(token) = slot.state(state) {
            self.end_sessions(slot.real, token);
        }
    }

    /// Ends the sessions of earlier epochs, and with them, in the real module, the login.
    fn end_sessions(&self, slot: CK_SLOT_ID, token: &TokenState) {
        let news = self.slots.note(slot, |notes| {
            let news = notes.epoch < token.epoch;
            if news {
                notes.epoch = token.epoch;
                notes.logged_out = false;
                notes.user_pin = None;
            }
            news
        });
        if !news {
            return;
        }
        let answer = match token.ended {
            Ended::Removed(_) => Rv::SESSION_HANDLE_INVALID,
            Ended::Expired(rv) => rv,
        };
        for dead in self.sessions.end(slot, token.epoch, answer) {
            self.bury(&dead);
        }
        self.key_ids.forget_slot(slot);
    }

    fn bury(&self, dead: &Session) {
        // What it answers is of no use to anybody.
        self.real.close_session(dead.real());
        self.sessions.buried(dead);
    }

    /// Carries out a `logout` of the bench, once.
    fn lose_login(&self, session: &Session, token: &TokenState) {
        let news = self.slots.note(session.slot, |notes| {
            let news = notes.logouts < token.logouts;
            notes.logouts = token.logouts;
            news
        });
        if news {
            self.log_everybody_out(session);
        }
    }

    /// The login is lost, and private keys say so until there is another.
    pub(super) fn log_everybody_out(&self, session: &Session) {
        self.real.logout(session.real());
        self.key_ids.forget_slot(session.slot);
        self.slots.note(session.slot, |notes| {
            notes.logged_out = true;
            notes.user_pin = None;
        });
    }

    /// Puts a new real session behind the caller's: PKCS#11 2.40 has no other way to end an operation that the caller believes has ended.
    fn renew(&self, session: &Session) -> Result<(), Rv> {
        let fresh = self.real.open_session(session.slot, session.flags)?;
        self.real.close_session(session.replace_real(fresh));
        *session.operation() = super::sessions::Operation::default();
        Ok(())
    }
}

fn caller(call: &Call<'_>, whereabouts: &Whereabouts) -> Caller {
    let of_session = || whereabouts.session.as_ref().and_then(|session| session.token.clone());
    let token = whereabouts.slot.as_ref().map_or_else(of_session, |slot| slot.token.clone());
    Caller { pid: std::process::id(), function: call.function, token, length_query: call.is_length_query() }
}

/// Whether modules answer the function without a word to the token.
const fn is_answered_from_memory(function: Function) -> bool {
    matches!(function, Function::C_GetSessionInfo | Function::C_CloseSession)
}

/// Functions that private keys answer with `CKR_USER_NOT_LOGGED_IN` when nobody is logged in.
const fn wants_a_login(function: Function) -> bool {
    use Function as F;
    matches!(
        function,
        F::C_SignInit
            | F::C_Sign
            | F::C_SignUpdate
            | F::C_SignFinal
            | F::C_SignRecoverInit
            | F::C_SignRecover
            | F::C_DecryptInit
            | F::C_Decrypt
            | F::C_DecryptUpdate
            | F::C_DecryptFinal
            | F::C_GenerateKeyPair
            | F::C_UnwrapKey
            | F::C_DeriveKey
    )
}

/// Functions of which a part of an operation is left when they succeed.
const fn is_part_of_an_operation(function: Function) -> bool {
    use Function as F;
    matches!(function, F::C_SignUpdate | F::C_VerifyUpdate | F::C_DigestUpdate | F::C_DigestKey | F::C_EncryptUpdate | F::C_DecryptUpdate)
}

/// Functions whose errors end the session's operation (PKCS#11 2.40, chapter 5), which the real module does not know if it is not called.
const fn ends_an_operation(function: Function) -> bool {
    use Function as F;
    is_part_of_an_operation(function)
        || matches!(
            function,
            F::C_Sign
                | F::C_SignFinal
                | F::C_SignRecover
                | F::C_Verify
                | F::C_VerifyFinal
                | F::C_VerifyRecover
                | F::C_Digest
                | F::C_DigestFinal
                | F::C_Encrypt
                | F::C_EncryptFinal
                | F::C_Decrypt
                | F::C_DecryptFinal
                | F::C_FindObjectsFinal
        )
}
