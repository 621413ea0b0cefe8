//! Signing functions, which the log tells of.

use cryptoki_sys::{CK_BYTE, CK_MECHANISM, CK_OBJECT_HANDLE, CK_RV, CK_SESSION_HANDLE, CK_ULONG};

use super::guarded;
use crate::{
    function::Function,
    module::{
        call::{Call, Tells},
        memory::{self, Output},
        real::real_call,
    },
    rv::Rv,
};

macro_rules! export_sign_inits {
    ($($name:ident),*) => {
        $(
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $name(session: CK_SESSION_HANDLE, mechanism: *mut CK_MECHANISM, key: CK_OBJECT_HANDLE) -> CK_RV {
                guarded(|module| {
                    module.in_session(&Call::in_session(Function::$name, session), |passage, session| {
                        let key = session.unmark(key, Rv::KEY_HANDLE_INVALID)?;
                        // SAFETY: the caller owes a valid pointer or null.
                        let wanted = unsafe { memory::read(mechanism) }.ok().map(|mechanism| mechanism.mechanism);
                        Ok(passage.begin_signature(session, wanted, key, || {
                            // SAFETY: the caller's own arguments, with the real module's session and key.
                            unsafe { real_call!(module.real, $name(session.real(), mechanism, key)) }
                        }))
                    })
                })
            }
        )*
    };
}
export_sign_inits!(C_SignInit, C_SignRecoverInit);

macro_rules! export_signs {
    ($($name:ident),*) => {
        $(
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $name(
                session: CK_SESSION_HANDLE,
                data: *mut CK_BYTE,
                length: CK_ULONG,
                signature: *mut CK_BYTE,
                signature_length: *mut CK_ULONG,
            ) -> CK_RV {
                // SAFETY: the caller owes data that are null or as long as it says, until the call returns.
                let given = unsafe { memory::bytes(data, length) }.unwrap_or_default();
                // SAFETY: the caller owes a buffer for the signature, or null for either, and the call ends before it does.
                let output = unsafe { Output::new(signature, signature_length) };
                guarded(|module| {
                    let call = Call::in_session(Function::$name, session).with_output(output).telling(Tells::Signing(Some(given)));
                    module.in_session(&call, |passage, session| {
                        passage.sign(session, call.is_length_query(), || {
                            // SAFETY: the caller's own arguments, with the real module's session.
                            unsafe { real_call!(module.real, $name(session.real(), data, length, signature, signature_length)) }
                        })
                    })
                })
            }
        )*
    };
}
export_signs!(C_Sign, C_SignRecover);

#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_SignUpdate(session: CK_SESSION_HANDLE, part: *mut CK_BYTE, length: CK_ULONG) -> CK_RV {
    // SAFETY: the caller owes data that are null or as long as it says, until the call returns.
    let given = unsafe { memory::bytes(part, length) };
    guarded(|module| {
        module.in_session(&Call::in_session(Function::C_SignUpdate, session), |passage, session| {
            passage.update_signature(session, given, || {
                // SAFETY: the caller's own arguments, with the real module's session.
                unsafe { real_call!(module.real, C_SignUpdate(session.real(), part, length)) }
            })
        })
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_SignFinal(session: CK_SESSION_HANDLE, signature: *mut CK_BYTE, signature_length: *mut CK_ULONG) -> CK_RV {
    // SAFETY: the caller owes a buffer for the signature, or null for either, and the call ends before it does.
    let output = unsafe { Output::new(signature, signature_length) };
    guarded(|module| {
        let call = Call::in_session(Function::C_SignFinal, session).with_output(output).telling(Tells::Signing(None));
        module.in_session(&call, |passage, session| {
            passage.sign(session, call.is_length_query(), || {
                // SAFETY: the caller's own arguments, with the real module's session.
                unsafe { real_call!(module.real, C_SignFinal(session.real(), signature, signature_length)) }
            })
        })
    })
}
