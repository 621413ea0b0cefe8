//! Slots and tokens: who is in, and under which number.

use cryptoki_sys::{
    CK_BBOOL, CK_FALSE, CK_MECHANISM_INFO, CK_MECHANISM_TYPE, CK_RV, CK_SLOT_ID, CK_SLOT_INFO, CK_TOKEN_INFO, CK_ULONG, CK_UTF8CHAR,
    CKF_TOKEN_PRESENT,
};

use super::guarded;
use crate::{
    function::Function,
    module::{call::Passage, memory, real::real_call, slots::Slot},
    rv::Rv,
};

#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetSlotList(with_token: CK_BBOOL, list: *mut CK_SLOT_ID, count: *mut CK_ULONG) -> CK_RV {
    guarded(|module| {
        module.nowhere(Function::C_GetSlotList, |passage| {
            let slots = module.slots.refresh(&module.real, &passage.state)?;
            slots.iter().for_each(|slot| module.notice(slot, &passage.state));
            let wanted = |slot: &&Slot| with_token == CK_FALSE || (!slot.is_pulled(&passage.state) && holds_token(passage, slot));
            let there = slots.iter().filter(|slot| !slot.is_gone(&passage.state)).filter(wanted);
            let shown: Vec<CK_SLOT_ID> = there.map(|slot| slot.shown(&passage.state)).collect();
            // SAFETY: the caller owes a valid count, and a list that is null or as long as the count says.
            Ok(unsafe { memory::write_list(&shown, list, count) })
        })
    })
}

/// Whether the real module has a token in this slot.
fn holds_token(passage: &Passage<'_, '_>, slot: &Slot) -> bool {
    let mut info = CK_SLOT_INFO::default();
    // SAFETY: `info` is valid for the one write.
    let rv = unsafe { real_call!(passage.module.real, C_GetSlotInfo(slot.real, &raw mut info)) };
    rv.is_ok() && info.flags & CKF_TOKEN_PRESENT != 0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetSlotInfo(slot: CK_SLOT_ID, info: *mut CK_SLOT_INFO) -> CK_RV {
    guarded(|module| {
        module.on_slot(Function::C_GetSlotInfo, slot, |passage, slot| {
            module.notice(slot, &passage.state);
            // SAFETY: the caller's own arguments, but for the slot's number.
            let rv = unsafe { real_call!(module.real, C_GetSlotInfo(slot.real, info)) };
            if rv.is_ok() && slot.is_pulled(&passage.state) {
                // SAFETY: the real module has just written there.
                unsafe { (*info).flags &= !CKF_TOKEN_PRESENT };
            }
            Ok(rv)
        })
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetTokenInfo(slot: CK_SLOT_ID, info: *mut CK_TOKEN_INFO) -> CK_RV {
    guarded(|module| {
        module.on_slot(Function::C_GetTokenInfo, slot, |passage, slot| {
            check_presence(passage, slot)?;
            // SAFETY: the caller's own arguments, but for the slot's number.
            let rv = unsafe { real_call!(module.real, C_GetTokenInfo(slot.real, info)) };
            if rv.is_ok() {
                // SAFETY: the real module has just written there.
                let info = unsafe { &mut *info };
                info.flags = passage.token_flags(slot, info.flags)?;
                if let Some(max) = slot.state(&passage.state).and_then(|token| token.max_sessions) {
                    info.ulMaxSessionCount = max;
                    info.ulSessionCount = module.sessions.count(slot.real);
                }
            }
            Ok(rv)
        })
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetMechanismList(slot: CK_SLOT_ID, list: *mut CK_MECHANISM_TYPE, count: *mut CK_ULONG) -> CK_RV {
    guarded(|module| {
        module.on_slot(Function::C_GetMechanismList, slot, |passage, slot| {
            check_presence(passage, slot)?;
            // SAFETY: the caller's own arguments, but for the slot's number.
            Ok(unsafe { real_call!(module.real, C_GetMechanismList(slot.real, list, count)) })
        })
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetMechanismInfo(slot: CK_SLOT_ID, mechanism: CK_MECHANISM_TYPE, info: *mut CK_MECHANISM_INFO) -> CK_RV {
    guarded(|module| {
        module.on_slot(Function::C_GetMechanismInfo, slot, |passage, slot| {
            check_presence(passage, slot)?;
            // SAFETY: the caller's own arguments, but for the slot's number.
            Ok(unsafe { real_call!(module.real, C_GetMechanismInfo(slot.real, mechanism, info)) })
        })
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_InitToken(slot: CK_SLOT_ID, pin: *mut CK_UTF8CHAR, length: CK_ULONG, label: *mut CK_UTF8CHAR) -> CK_RV {
    guarded(|module| {
        module.on_slot(Function::C_InitToken, slot, |passage, slot| {
            check_presence(passage, slot)?;
            // SAFETY: the caller's own arguments, but for the slot's number.
            Ok(unsafe { real_call!(module.real, C_InitToken(slot.real, pin, length, label)) })
        })
    })
}

pub(super) fn check_presence(passage: &Passage<'_, '_>, slot: &Slot) -> Result<(), Rv> {
    if slot.is_pulled(&passage.state) { Err(Rv::TOKEN_NOT_PRESENT) } else { Ok(()) }
}
