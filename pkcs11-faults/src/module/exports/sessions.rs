//! Sessions and logins.

use std::ffi::c_void;

use cryptoki_sys::{
    CK_FLAGS, CK_NOTIFY, CK_RV, CK_SESSION_HANDLE, CK_SESSION_INFO, CK_SLOT_ID, CK_ULONG, CK_USER_TYPE, CK_UTF8CHAR, CKS_RW_SO_FUNCTIONS,
};

use super::{guarded, slots::check_presence};
use crate::{
    function::Function,
    module::{
        call::{Call, Passage, Tells},
        memory,
        real::real_call,
        slots::Slot,
    },
    rv::Rv,
};

#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_OpenSession(
    slot: CK_SLOT_ID,
    flags: CK_FLAGS,
    application: *mut c_void,
    notify: CK_NOTIFY,
    session: *mut CK_SESSION_HANDLE,
) -> CK_RV {
    guarded(|module| {
        module.on_slot(Function::C_OpenSession, slot, |passage, slot| {
            make_room(passage, slot)?;
            if session.is_null() {
                return Err(Rv::ARGUMENTS_BAD);
            }
            let mut real = 0;
            // SAFETY: the caller's own arguments, but for the slot's number and the handle, which is valid for the one write.
            let rv = unsafe { real_call!(module.real, C_OpenSession(slot.real, flags, application, notify, &raw mut real)) };
            if rv.is_ok() {
                let epoch = slot.state(&passage.state).map_or(0, |token| token.epoch);
                let handle = module.sessions.open(real, slot.real, slot.token.clone(), epoch, flags);
                // SAFETY: the caller owes a valid pointer, and it is not null.
                unsafe { session.write(handle) };
            }
            Ok(rv)
        })
    })
}

/// The token is there, what remained of its last time is gone, and it takes one more session.
fn make_room(passage: &Passage<'_, '_>, slot: &Slot) -> Result<(), Rv> {
    check_presence(passage, slot)?;
    passage.module.notice(slot, &passage.state);
    if !passage.module.sessions.wait_for_burials(slot.real) {
        return Err(Rv::DEVICE_ERROR);
    }
    match slot.state(&passage.state).and_then(|token| token.max_sessions) {
        Some(max) if passage.module.sessions.count(slot.real) >= max => Err(Rv::SESSION_COUNT),
        _ => Ok(()),
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_CloseSession(session: CK_SESSION_HANDLE) -> CK_RV {
    guarded(|module| {
        module.in_session(&Call::in_session(Function::C_CloseSession, session), |_, session| {
            // SAFETY: nothing is passed but a number.
            let rv = unsafe { real_call!(module.real, C_CloseSession(session.real())) };
            if rv.is_ok() || rv == Rv::SESSION_HANDLE_INVALID {
                module.sessions.forget(session.handle);
            }
            Ok(rv)
        })
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_CloseAllSessions(slot: CK_SLOT_ID) -> CK_RV {
    guarded(|module| {
        module.on_slot(Function::C_CloseAllSessions, slot, |_, slot| {
            // SAFETY: nothing is passed but a number.
            let rv = unsafe { real_call!(module.real, C_CloseAllSessions(slot.real)) };
            if rv.is_ok() {
                module.sessions.forget_slot(slot.real);
            }
            Ok(rv)
        })
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetSessionInfo(session: CK_SESSION_HANDLE, info: *mut CK_SESSION_INFO) -> CK_RV {
    guarded(|module| {
        module.in_session(&Call::in_session(Function::C_GetSessionInfo, session), |passage, session| {
            // SAFETY: the caller's own argument, and the real module's session.
            let rv = unsafe { real_call!(module.real, C_GetSessionInfo(session.real(), info)) };
            if rv.is_ok() {
                // SAFETY: the real module has just written there.
                let info = unsafe { &mut *info };
                info.slotID = Slot { real: session.slot, token: session.token.clone() }.shown(&passage.state);
            }
            Ok(rv)
        })
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_Login(session: CK_SESSION_HANDLE, user: CK_USER_TYPE, pin: *mut CK_UTF8CHAR, length: CK_ULONG) -> CK_RV {
    // SAFETY: the caller owes a PIN that is null or as long as it says, until the call returns.
    let given = unsafe { memory::bytes(pin, length) };
    guarded(|module| {
        let call = Call::in_session(Function::C_Login, session).telling(Tells::Login { user, pin: given });
        module.in_session(&call, |passage, session| {
            if !module.sessions.wait_for_burials(session.slot) {
                return Err(Rv::DEVICE_ERROR);
            }
            passage.login(session, user, given, |pin| {
                let (start, length) = pin.map_or((pin_of_nobody(), 0), |pin| (pin.as_ptr().cast_mut(), pin.len() as CK_ULONG));
                // SAFETY: `start` is null, or as many bytes as `length` says; the standard has modules only read them.
                unsafe { real_call!(module.real, C_Login(session.real(), user, start, length)) }
            })
        })
    })
}

const fn pin_of_nobody() -> *mut CK_UTF8CHAR {
    std::ptr::null_mut()
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_Logout(session: CK_SESSION_HANDLE) -> CK_RV {
    guarded(|module| {
        module.in_session(&Call::in_session(Function::C_Logout, session), |_, session| {
            // SAFETY: nothing is passed but a number.
            let rv = unsafe { real_call!(module.real, C_Logout(session.real())) };
            if rv.is_ok() {
                module.key_ids.forget_slot(session.slot);
                module.slots.note(session.slot, |notes| notes.user_pin = None);
            }
            Ok(rv)
        })
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_InitPIN(session: CK_SESSION_HANDLE, pin: *mut CK_UTF8CHAR, length: CK_ULONG) -> CK_RV {
    guarded(|module| {
        module.in_session(&Call::in_session(Function::C_InitPIN, session), |passage, session| {
            // SAFETY: the caller's own arguments, and the real module's session.
            let rv = unsafe { real_call!(module.real, C_InitPIN(session.real(), pin, length)) };
            if rv.is_ok() {
                passage.refill_tries(session)?;
            }
            Ok(rv)
        })
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_SetPIN(
    session: CK_SESSION_HANDLE,
    old: *mut CK_UTF8CHAR,
    old_length: CK_ULONG,
    new: *mut CK_UTF8CHAR,
    new_length: CK_ULONG,
) -> CK_RV {
    // SAFETY: the caller owes a PIN that is null or as long as it says, until the call returns.
    let given = unsafe { memory::bytes(new, new_length) };
    guarded(|module| {
        module.in_session(&Call::in_session(Function::C_SetPIN, session), |passage, session| {
            let of_officer = module.real.session_info(session.real()).is_ok_and(|info| info.state == CKS_RW_SO_FUNCTIONS);
            let policy = if of_officer { None } else { passage.token(session).and_then(|token| token.pin.clone()) };
            let rv = passage.try_pin(session, policy.as_ref(), |_| {
                // SAFETY: the caller's own arguments, and the real module's session.
                Ok(unsafe { real_call!(module.real, C_SetPIN(session.real(), old, old_length, new, new_length)) })
            })?;
            if rv.is_ok() && !of_officer {
                let hash = given.map(|pin| module.salt.hash(pin));
                module.slots.note(session.slot, |notes| notes.user_pin = notes.user_pin.take().and(hash));
            }
            Ok(rv)
        })
    })
}
