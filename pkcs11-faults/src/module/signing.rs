//! Signatures: which key, which data, and the keys that want a login first.

use cryptoki_sys::{CK_MECHANISM_TYPE, CK_OBJECT_HANDLE, CK_USER_TYPE, CKU_CONTEXT_SPECIFIC, CKU_SO, CKU_USER};
use sha2::Digest;

use super::{
    Module,
    call::{Call, Passage, Tells},
    sessions::{Operation, Session},
    token_log::{Account, Subject},
};
use crate::{
    log::{DATA_MAX, Login, Signing, User, sha256},
    rv::Rv,
};

impl Module {
    /// What the log is to tell of a call, if there is a log and something to be told.
    pub(super) fn account(&self, call: &Call<'_>, session: Option<&Session>) -> Option<Account<'_>> {
        let log = self.log.as_ref()?;
        let token = session.and_then(|session| session.token.as_ref()).map(|token| token.serial.clone());
        let (function, handle) = (call.function, call.session_handle());
        let subject = match call.tells {
            Tells::Nothing => return None,
            Tells::Login { user, pin } => {
                Subject::Login(Login { session: handle, token, user: user_type(user), pin: pin.map(|pin| self.salt.hash(pin)) })
            }
            Tells::Signing(data) => {
                let operation = session.map(|session| session.operation().clone()).unwrap_or_default();
                Subject::Signing(Signing {
                    function,
                    session: handle,
                    token,
                    key_id: operation.key_id.map(hex::encode),
                    mechanism: operation.mechanism,
                    data: data.filter(|data| data.len() <= DATA_MAX).map(hex::encode),
                    data_sha256: data.map_or_else(|| hex::encode(operation.data.finalize()), sha256),
                })
            }
        };
        Some(Account::new(log, subject))
    }
}

impl Passage<'_, '_> {
    /// `C_SignInit` and `C_SignRecoverInit` for a key that is known by its real handle. `real` calls the real module.
    pub(super) fn begin_signature(
        &self,
        session: &Session,
        mechanism: Option<CK_MECHANISM_TYPE>,
        key: CK_OBJECT_HANDLE,
        real: impl FnOnce() -> Rv,
    ) -> Rv {
        let simulated = self.token(session).is_some_and(|token| !token.always_authenticate.is_empty());
        let asked = simulated || self.module.log.is_some();
        // Before C_SignInit: some modules take no other call between it and C_Sign.
        let key_id = if asked { self.module.key_ids.find(&self.module.real, session, key) } else { None };
        let rv = real();
        if rv.is_ok() {
            let wants_login = key_id.as_deref().is_some_and(|id| self.wants_a_login_each_time(session, id));
            *session.operation() = Operation { key_id, mechanism, wants_login, ..Operation::default() };
        }
        rv
    }

    /// `C_Sign`, `C_SignFinal` and `C_SignRecover`. `real` calls the real module.
    pub(super) fn sign(&mut self, session: &Session, length_query: bool, real: impl FnOnce() -> Rv) -> Result<Rv, Rv> {
        self.refuse_without_login(session)?;
        if length_query {
            return Ok(real());
        }
        self.begin()?;
        let rv = self.reached(real());
        if rv != Rv::BUFFER_TOO_SMALL {
            *session.operation() = Operation::default();
        }
        Ok(rv)
    }

    /// `C_SignUpdate`. `real` calls the real module.
    pub(super) fn update_signature(&self, session: &Session, data: Option<&[u8]>, real: impl FnOnce() -> Rv) -> Result<Rv, Rv> {
        self.refuse_without_login(session)?;
        let rv = real();
        if let Some(data) = data.filter(|_| rv.is_ok()) {
            session.operation().data.update(data);
        }
        Ok(rv)
    }

    /// A key that wants a login for each signature, and has not had it. As on the PIV card, the attempt logs the user out.
    fn refuse_without_login(&self, session: &Session) -> Result<(), Rv> {
        if session.operation().wants_login {
            self.module.log_everybody_out(session);
            return Err(Rv::USER_NOT_LOGGED_IN);
        }
        Ok(())
    }

    /// Whether the key was made one that wants a login for each signature.
    pub(super) fn wants_a_login_each_time(&self, session: &Session, key_id: &[u8]) -> bool {
        let wanted = hex::encode(key_id);
        self.token(session).is_some_and(|token| token.always_authenticate.iter().any(|id| id.eq_ignore_ascii_case(&wanted)))
    }
}

const fn user_type(user: CK_USER_TYPE) -> User {
    match user {
        CKU_SO => User::So,
        CKU_USER => User::User,
        CKU_CONTEXT_SPECIFIC => User::ContextSpecific,
        other => User::Other(other),
    }
}
