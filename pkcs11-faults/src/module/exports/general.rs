//! Beginning and end of the module's use, and what concerns no slot.

use std::{ffi::c_void, sync::PoisonError, time::Duration};

use cryptoki_sys::{CK_FLAGS, CK_FUNCTION_LIST, CK_INFO, CK_RV, CK_SLOT_ID, CKF_DONT_BLOCK};

use super::{super::call::Passage, FUNCTION_LIST, guarded};
use crate::{
    function::Function,
    log::Entry,
    module::{Module, fail, memory, real::real_call},
    rv::Rv,
};

/// How often a blocking `C_WaitForSlotEvent` looks for events.
const LOOK_EVERY: Duration = Duration::from_millis(20);

#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetFunctionList(list: *mut *mut CK_FUNCTION_LIST) -> CK_RV {
    guarded(|module| {
        module.nowhere(Function::C_GetFunctionList, |_| {
            let functions = (&raw const FUNCTION_LIST).cast_mut();
            // SAFETY: the caller owes a valid pointer or null. The list is only ever read (the standard gives its type no `const`).
            unsafe { memory::write(list, functions) }.map(|()| Rv::OK)
        })
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_Initialize(arguments: *mut c_void) -> CK_RV {
    guarded(|module| {
        module.nowhere(Function::C_Initialize, |_| {
            // SAFETY: the caller's own argument.
            let rv = unsafe { real_call!(module.real, C_Initialize(arguments)) };
            if rv.is_ok() {
                module.initialised()?;
            }
            tell(module, Entry::Initialize { rv })
        })
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_Finalize(reserved: *mut c_void) -> CK_RV {
    guarded(|module| {
        module.nowhere(Function::C_Finalize, |_| {
            // SAFETY: the caller's own argument.
            let rv = unsafe { real_call!(module.real, C_Finalize(reserved)) };
            if rv.is_ok() {
                module.finalised();
                module.life.ended.notify_all();
            }
            tell(module, Entry::Finalize { rv })
        })
    })
}

fn tell(module: &Module, entry: Entry) -> Result<Rv, Rv> {
    let (Entry::Initialize { rv } | Entry::Finalize { rv }) = entry else { return Ok(Rv::OK) };
    if let Some(log) = &module.log {
        log.write(entry).map_err(|error| fail(&error))?;
    }
    Ok(rv)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetInfo(info: *mut CK_INFO) -> CK_RV {
    guarded(|module| {
        module.nowhere(Function::C_GetInfo, |_| {
            // SAFETY: the caller's own argument.
            Ok(unsafe { real_call!(module.real, C_GetInfo(info)) })
        })
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_WaitForSlotEvent(flags: CK_FLAGS, slot: *mut CK_SLOT_ID, reserved: *mut c_void) -> CK_RV {
    guarded(|module| {
        module.nowhere(Function::C_WaitForSlotEvent, |passage| {
            wait_for_slot_event(module, passage, flags, |flags| {
                let mut event = 0;
                // SAFETY: `event` is valid for the one write, and `reserved` the caller's own argument.
                let rv = unsafe { real_call!(module.real, C_WaitForSlotEvent(flags, &raw mut event, reserved)) };
                (rv, event)
            })
            .and_then(|event| {
                // SAFETY: the caller owes a valid pointer or null.
                unsafe { memory::write(slot, event) }.map(|()| Rv::OK)
            })
        })
    })
}

/// The slot of the next event, of the bench's or of the real module's. A blocking wait looks from time to time, so that it sees both, and ends
/// with `C_Finalize` also over modules that cannot block.
fn wait_for_slot_event(
    module: &Module,
    passage: &mut Passage<'_, '_>,
    flags: CK_FLAGS,
    real: impl Fn(CK_FLAGS) -> (Rv, CK_SLOT_ID),
) -> Result<CK_SLOT_ID, Rv> {
    let waits = flags & CKF_DONT_BLOCK == 0;
    if waits && module.link.is_to_nobody() {
        return shown(module, passage, real(flags));
    }
    loop {
        if let Some(slot) = module.slots.take_event(&passage.state) {
            module.notice(&slot, &passage.state);
            return Ok(slot.shown(&passage.state));
        }
        let event = shown(module, passage, real(flags | CKF_DONT_BLOCK));
        if event.is_ok() || !waits {
            return event;
        }
        let ending = module.life.ending.lock().unwrap_or_else(PoisonError::into_inner);
        drop(module.life.ended.wait_timeout(ending, LOOK_EVERY));
        if !module.is_initialised() {
            return Err(Rv::CRYPTOKI_NOT_INITIALIZED);
        }
        passage.state = module.link.state().map_err(|error| fail(&error))?;
    }
}

/// The real module's event, under the slot number that callers see.
fn shown(module: &Module, passage: &Passage<'_, '_>, (rv, event): (Rv, CK_SLOT_ID)) -> Result<CK_SLOT_ID, Rv> {
    if !rv.is_ok() {
        return Err(rv);
    }
    let slots = module.slots.refresh(&module.real, &passage.state)?;
    Ok(slots.iter().find(|slot| slot.real == event).map_or(event, |slot| slot.shown(&passage.state)))
}
