//! Sessions as callers know them, and the real module's sessions behind them.
//!
//! Callers get numbers of our own, so that a session can die while the real one lives, and the real one be replaced while the caller's goes
//! on. A real session is closed only when no call is in it; until then it is a *zombie*, and its slot opens no new session: the login must
//! be gone before anybody comes back. The lock is never held across a call into the real module.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use cryptoki_sys::{CK_FLAGS, CK_OBJECT_HANDLE, CK_SESSION_HANDLE, CK_SLOT_ID};
use sha2::Sha256;

use crate::{rv::Rv, token::TokenId};

/// Ended sessions that are remembered for the answer that they owe.
const ENDED_MAX: usize = 4096;
/// How long a new session waits for calls in dead ones.
const BURIAL_PATIENCE: Duration = Duration::from_secs(5);
/// Object handles carry the epoch of their session from this bit on. No module is known whose handles reach so far.
const EPOCH_SHIFT: u32 = 48;
/// The bits of the epoch that they carry.
const EPOCH_MASK: u64 = 0x7fff;

/// One session of a caller.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) handle: CK_SESSION_HANDLE,
    pub(super) slot: CK_SLOT_ID,
    pub(super) token: Option<TokenId>,
    pub(super) epoch: u64,
    pub(super) flags: CK_FLAGS,
    real: AtomicU64,
    operation: Mutex<Operation>,
    /// The caller believes that its operation has ended, and the real module does not.
    pub(super) out_of_step: AtomicBool,
}

/// The signature that is being made in a session.
#[derive(Debug, Default, Clone)]
pub(super) struct Operation {
    pub(super) key_id: Option<Vec<u8>>,
    pub(super) mechanism: Option<u64>,
    /// The key is to be treated as one that wants a login for each signature, and has not had it.
    pub(super) wants_login: bool,
    /// What `C_SignUpdate` was given.
    pub(super) data: Sha256,
}

impl Session {
    pub(super) fn real(&self) -> CK_SESSION_HANDLE {
        self.real.load(Ordering::SeqCst)
    }

    /// Puts another real session behind this one, and gives the old one back.
    pub(super) fn replace_real(&self, real: CK_SESSION_HANDLE) -> CK_SESSION_HANDLE {
        self.real.swap(real, Ordering::SeqCst)
    }

    pub(super) fn operation(&self) -> MutexGuard<'_, Operation> {
        self.operation.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An object handle as the caller is to know it.
    pub(super) const fn mark(&self, object: CK_OBJECT_HANDLE) -> CK_OBJECT_HANDLE {
        if object == 0 { 0 } else { object | (self.epoch & EPOCH_MASK) << EPOCH_SHIFT }
    }

    /// The real module's object handle, or `invalid` if it was found in a session of another epoch.
    pub(super) const fn unmark(&self, object: CK_OBJECT_HANDLE, invalid: Rv) -> Result<CK_OBJECT_HANDLE, Rv> {
        if object == 0 {
            Ok(0)
        } else if object >> EPOCH_SHIFT == self.epoch & EPOCH_MASK {
            Ok(object & ((1 << EPOCH_SHIFT) - 1))
        } else {
            Err(invalid)
        }
    }
}

/// What is found under a session handle.
#[derive(Debug)]
pub(super) enum Found {
    Open(Arc<Session>),
    /// It has ended, and calls on it get this answer.
    Ended(Rv),
}

/// All sessions of this process.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    table: Mutex<Table>,
    buried: Condvar,
}

#[derive(Debug, Default)]
struct Table {
    last_handle: CK_SESSION_HANDLE,
    open: HashMap<CK_SESSION_HANDLE, Arc<Session>>,
    /// Calls that are in the real module.
    inside: HashMap<CK_SESSION_HANDLE, usize>,
    zombies: HashMap<CK_SESSION_HANDLE, Arc<Session>>,
    ended: BTreeMap<CK_SESSION_HANDLE, Rv>,
}

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a session that the real module has opened.
    pub(super) fn open(
        &self,
        real: CK_SESSION_HANDLE,
        slot: CK_SLOT_ID,
        token: Option<TokenId>,
        epoch: u64,
        flags: CK_FLAGS,
    ) -> CK_SESSION_HANDLE {
        let mut table = self.lock();
        table.last_handle += 1;
        let handle = table.last_handle;
        let session = Session {
            handle,
            slot,
            token,
            epoch,
            flags,
            real: AtomicU64::new(real),
            operation: Mutex::default(),
            out_of_step: AtomicBool::new(false),
        };
        table.open.insert(handle, Arc::new(session));
        handle
    }

    pub(super) fn find(&self, handle: CK_SESSION_HANDLE) -> Found {
        let table = self.lock();
        match table.open.get(&handle) {
            Some(session) => Found::Open(Arc::clone(session)),
            None => Found::Ended(table.ended.get(&handle).copied().unwrap_or(Rv::SESSION_HANDLE_INVALID)),
        }
    }

    /// How many sessions are open in a slot.
    pub(super) fn count(&self, slot: CK_SLOT_ID) -> u64 {
        self.lock().open.values().filter(|session| session.slot == slot).count() as u64
    }

    /// The session is closed in the real module, or unknown there.
    pub(super) fn forget(&self, handle: CK_SESSION_HANDLE) {
        let mut table = self.lock();
        table.open.remove(&handle);
        table.ended.remove(&handle);
    }

    pub(super) fn forget_slot(&self, slot: CK_SLOT_ID) {
        self.lock().open.retain(|_, session| session.slot != slot);
    }

    /// The real module was finalised, and knows no session any more.
    pub(super) fn forget_all(&self) {
        let mut table = self.lock();
        table.open.clear();
        table.ended.clear();
        table.zombies.clear();
        self.buried.notify_all();
    }

    /// A call goes into the real module on this session, if it has not ended meanwhile.
    pub(super) fn go_in(&self, session: &Session) -> Result<(), Rv> {
        let mut table = self.lock();
        if !table.open.contains_key(&session.handle) {
            return Err(table.ended.get(&session.handle).copied().unwrap_or(Rv::SESSION_HANDLE_INVALID));
        }
        *table.inside.entry(session.handle).or_default() += 1;
        Ok(())
    }

    /// It has come back. The session that is returned is dead and empty: it must be closed in the real module, then
    /// [`buried`](Self::buried).
    pub(super) fn come_out(&self, session: &Session) -> Option<Arc<Session>> {
        let mut table = self.lock();
        let inside = table.inside.get_mut(&session.handle)?;
        *inside -= 1;
        if *inside > 0 {
            return None;
        }
        table.inside.remove(&session.handle);
        table.zombies.get(&session.handle).cloned()
    }

    /// Ends a slot's sessions of the epochs before `epoch`; calls on them get `answer` from now on. Those that are returned must be closed
    /// in the real module, then [`buried`](Self::buried); the others are when their calls come out.
    pub(super) fn end(&self, slot: CK_SLOT_ID, epoch: u64, answer: Rv) -> Vec<Arc<Session>> {
        let mut table = self.lock();
        let dead: Vec<Arc<Session>> =
            table.open.values().filter(|session| session.slot == slot && session.epoch < epoch).cloned().collect();
        for session in &dead {
            table.open.remove(&session.handle);
            table.zombies.insert(session.handle, Arc::clone(session));
            if answer != Rv::SESSION_HANDLE_INVALID {
                table.ended.insert(session.handle, answer);
            }
        }
        while table.ended.len() > ENDED_MAX {
            table.ended.pop_first();
        }
        dead.into_iter().filter(|session| !table.inside.contains_key(&session.handle)).collect()
    }

    /// A dead session is closed in the real module.
    pub(super) fn buried(&self, session: &Session) {
        self.lock().zombies.remove(&session.handle);
        self.buried.notify_all();
    }

    /// Waits until no dead session of the slot is left in the real module; false if calls hang in one.
    pub(super) fn wait_for_burials(&self, slot: CK_SLOT_ID) -> bool {
        let haunted = |table: &mut Table| table.zombies.values().any(|session| session.slot == slot);
        let waited = self.buried.wait_timeout_while(self.lock(), BURIAL_PATIENCE, haunted);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sessions(count: u64) -> Sessions {
        let sessions = Sessions::default();
        for real in 0..count {
            assert_eq!(sessions.open(100 + real, 5, None, 0, 0), real + 1);
        }
        sessions
    }

    fn found(sessions: &Sessions, handle: CK_SESSION_HANDLE) -> Result<Arc<Session>, Rv> {
        match sessions.find(handle) {
            Found::Open(session) => Ok(session),
            Found::Ended(rv) => Err(rv),
        }
    }

    #[test]
    fn an_ended_session_owes_its_answer_until_it_is_closed() {
        let sessions = sessions(1);
        assert_eq!(sessions.end(5, 1, Rv::SESSION_CLOSED).len(), 1);
        assert_eq!(found(&sessions, 1).unwrap_err(), Rv::SESSION_CLOSED);
        sessions.forget(1);
        assert_eq!(found(&sessions, 1).unwrap_err(), Rv::SESSION_HANDLE_INVALID);
    }

    #[test]
    fn a_dead_session_with_a_call_in_it_is_closed_when_the_call_comes_out() {
        let sessions = sessions(2);
        let busy = found(&sessions, 1).unwrap();
        sessions.go_in(&busy).unwrap();
        let closable = sessions.end(5, 1, Rv::SESSION_HANDLE_INVALID);
        assert_eq!(closable.iter().map(|session| session.handle).collect::<Vec<_>>(), [2]);
        assert_eq!(sessions.come_out(&busy).unwrap().handle, 1);
        sessions.buried(&busy);
        sessions.buried(&closable[0]);
        assert!(sessions.wait_for_burials(5));
    }

    #[test]
    fn sessions_of_the_current_epoch_and_of_other_slots_go_on() {
        let sessions = sessions(1);
        sessions.open(200, 6, None, 0, 0);
        sessions.open(201, 5, None, 1, 0);
        sessions.end(5, 1, Rv::SESSION_HANDLE_INVALID);
        assert!(found(&sessions, 1).is_err() && found(&sessions, 2).is_ok() && found(&sessions, 3).is_ok());
    }

    #[test]
    fn a_handle_of_another_epoch_is_invalid_and_one_of_the_first_epoch_is_the_real_one() {
        let sessions = Sessions::default();
        let first = found(&sessions, sessions.open(1, 5, None, 0, 0)).unwrap();
        let second = found(&sessions, sessions.open(2, 5, None, 1, 0)).unwrap();
        assert_eq!(first.mark(7), 7);
        let marked = second.mark(7);
        assert_eq!(second.unmark(marked, Rv::KEY_HANDLE_INVALID), Ok(7));
        assert_eq!(second.unmark(7, Rv::KEY_HANDLE_INVALID), Err(Rv::KEY_HANDLE_INVALID));
        assert_eq!(first.unmark(marked, Rv::OBJECT_HANDLE_INVALID), Err(Rv::OBJECT_HANDLE_INVALID));
        assert_eq!((second.mark(0), second.unmark(0, Rv::OK)), (0, Ok(0)));
    }
}
