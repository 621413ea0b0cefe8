//! Objects whose handles or attributes the wrapper looks at itself.

use cryptoki_sys::{
    CK_ATTRIBUTE, CK_BBOOL, CK_OBJECT_HANDLE, CK_RV, CK_SESSION_HANDLE, CK_TRUE, CK_ULONG, CK_UNAVAILABLE_INFORMATION,
    CKA_ALWAYS_AUTHENTICATE,
};

use super::guarded;
use crate::{
    function::Function,
    module::{call::Call, memory, real::real_call},
    rv::Rv,
};

#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_FindObjects(
    session: CK_SESSION_HANDLE,
    objects: *mut CK_OBJECT_HANDLE,
    room: CK_ULONG,
    count: *mut CK_ULONG,
) -> CK_RV {
    guarded(|module| {
        module.in_session(&Call::in_session(Function::C_FindObjects, session), |_, session| {
            // SAFETY: the caller's own arguments, with the real module's session.
            let rv = unsafe { real_call!(module.real, C_FindObjects(session.real(), objects, room, count)) };
            if rv.is_ok() {
                // SAFETY: the real module has just written there.
                let found = unsafe { memory::read(count) }?;
                // SAFETY: the real module has just written so many handles.
                for object in unsafe { memory::items_mut(objects, found) } {
                    *object = session.mark(*object);
                }
            }
            Ok(rv)
        })
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetAttributeValue(
    session: CK_SESSION_HANDLE,
    object: CK_OBJECT_HANDLE,
    template: *mut CK_ATTRIBUTE,
    count: CK_ULONG,
) -> CK_RV {
    guarded(|module| {
        module.in_session(&Call::in_session(Function::C_GetAttributeValue, session), |passage, session| {
            let object = session.unmark(object, Rv::OBJECT_HANDLE_INVALID)?;
            // SAFETY: the caller's own arguments, with the real module's session and object.
            let rv = unsafe { real_call!(module.real, C_GetAttributeValue(session.real(), object, template, count)) };
            if passage.token(session).is_some_and(|token| !token.always_authenticate.is_empty()) {
                let id = module.key_ids.find(&module.real, session, object);
                if id.is_some_and(|id| passage.wants_a_login_each_time(session, &id)) {
                    // SAFETY: the caller owes a template that is null or has so many attributes.
                    let attributes = unsafe { memory::items_mut(template, count) };
                    attributes.iter_mut().filter(|attribute| attribute.type_ == CKA_ALWAYS_AUTHENTICATE).for_each(set_true);
                }
            }
            Ok(rv)
        })
    })
}

/// Makes the attribute true, where the real module has found room for a value.
fn set_true(attribute: &mut CK_ATTRIBUTE) {
    let room = attribute.ulValueLen;
    if room != CK_UNAVAILABLE_INFORMATION && room as usize >= size_of::<CK_BBOOL>() {
        // SAFETY: the value is null, which writes nothing, or has as much room as it says, which is enough. A null value is no mistake of the
        // caller's, who asks for the length.
        let _ = unsafe { memory::write(attribute.pValue.cast::<CK_BBOOL>(), CK_TRUE) };
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_SetAttributeValue(
    session: CK_SESSION_HANDLE,
    object: CK_OBJECT_HANDLE,
    template: *mut CK_ATTRIBUTE,
    count: CK_ULONG,
) -> CK_RV {
    guarded(|module| {
        module.in_session(&Call::in_session(Function::C_SetAttributeValue, session), |_, session| {
            let object = session.unmark(object, Rv::OBJECT_HANDLE_INVALID)?;
            module.key_ids.forget(session.slot, object);
            // SAFETY: the caller's own arguments, with the real module's session and object.
            Ok(unsafe { real_call!(module.real, C_SetAttributeValue(session.real(), object, template, count)) })
        })
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_DestroyObject(session: CK_SESSION_HANDLE, object: CK_OBJECT_HANDLE) -> CK_RV {
    guarded(|module| {
        module.in_session(&Call::in_session(Function::C_DestroyObject, session), |_, session| {
            let object = session.unmark(object, Rv::OBJECT_HANDLE_INVALID)?;
            module.key_ids.forget(session.slot, object);
            // SAFETY: nothing is passed but numbers.
            Ok(unsafe { real_call!(module.real, C_DestroyObject(session.real(), object)) })
        })
    })
}
