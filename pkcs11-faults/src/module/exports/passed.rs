//! Functions that are passed on as they are, but for their handles.

use cryptoki_sys::{CK_ATTRIBUTE, CK_BYTE, CK_MECHANISM, CK_OBJECT_HANDLE, CK_RV, CK_SESSION_HANDLE, CK_ULONG};

use super::guarded;
use crate::{
    function::Function,
    module::{call::Call, memory::Output, real::real_call},
    rv::Rv,
};

/// Exports functions whose first argument is a session. `output a b`: the caller may ask for the length of `a` only, in `b`. `handle h = RV`:
/// an object handle that comes in, and what a dead one is answered with. `new h`: one that comes out.
macro_rules! export_passed {
    ($(
        $name:ident($($argument:ident: $kind:ty),*)
        $(, output $output:ident $length:ident)? $(, handle $handle:ident = $invalid:ident)* $(, new $new:ident)*;
    )*) => {
        $(
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $name(session: CK_SESSION_HANDLE, $($argument: $kind),*) -> CK_RV {
                guarded(|module| {
                    let call = Call::in_session(Function::$name, session);
                    $(
                        // SAFETY: the caller owes a buffer, or null for either, and the call ends before it does.
                        let call = call.with_output(unsafe { Output::new($output, $length) });
                    )?
                    module.in_session(&call, |_, session| {
                        $(let $handle = session.unmark($handle, Rv::$invalid)?;)*
                        // SAFETY: the caller's own arguments, with the real module's handles.
                        let rv = unsafe { real_call!(module.real, $name(session.real(), $($argument),*)) };
                        $(
                            // SAFETY: the real module has written there if it says so, unless it is null, as C_DeriveKey allows.
                            if let Some(object) = unsafe { $new.as_mut() }.filter(|_| rv.is_ok()) {
                                *object = session.mark(*object);
                            }
                        )*
                        Ok(rv)
                    })
                })
            }
        )*
    };
}

export_passed! {
    C_GetOperationState(state: *mut CK_BYTE, length: *mut CK_ULONG), output state length;
    C_SetOperationState(state: *mut CK_BYTE, length: CK_ULONG, encryption_key: CK_OBJECT_HANDLE, authentication_key: CK_OBJECT_HANDLE),
        handle encryption_key = KEY_HANDLE_INVALID, handle authentication_key = KEY_HANDLE_INVALID;
    C_CreateObject(template: *mut CK_ATTRIBUTE, count: CK_ULONG, object: *mut CK_OBJECT_HANDLE), new object;
    C_CopyObject(object: CK_OBJECT_HANDLE, template: *mut CK_ATTRIBUTE, count: CK_ULONG, copy: *mut CK_OBJECT_HANDLE),
        handle object = OBJECT_HANDLE_INVALID, new copy;
    C_GetObjectSize(object: CK_OBJECT_HANDLE, size: *mut CK_ULONG), handle object = OBJECT_HANDLE_INVALID;
    C_FindObjectsInit(template: *mut CK_ATTRIBUTE, count: CK_ULONG);
    C_FindObjectsFinal();
    C_EncryptInit(mechanism: *mut CK_MECHANISM, key: CK_OBJECT_HANDLE), handle key = KEY_HANDLE_INVALID;
    C_Encrypt(data: *mut CK_BYTE, data_length: CK_ULONG, out: *mut CK_BYTE, length: *mut CK_ULONG), output out length;
    C_EncryptUpdate(part: *mut CK_BYTE, part_length: CK_ULONG, out: *mut CK_BYTE, length: *mut CK_ULONG), output out length;
    C_EncryptFinal(out: *mut CK_BYTE, length: *mut CK_ULONG), output out length;
    C_DecryptInit(mechanism: *mut CK_MECHANISM, key: CK_OBJECT_HANDLE), handle key = KEY_HANDLE_INVALID;
    C_Decrypt(data: *mut CK_BYTE, data_length: CK_ULONG, out: *mut CK_BYTE, length: *mut CK_ULONG), output out length;
    C_DecryptUpdate(part: *mut CK_BYTE, part_length: CK_ULONG, out: *mut CK_BYTE, length: *mut CK_ULONG), output out length;
    C_DecryptFinal(out: *mut CK_BYTE, length: *mut CK_ULONG), output out length;
    C_DigestInit(mechanism: *mut CK_MECHANISM);
    C_Digest(data: *mut CK_BYTE, data_length: CK_ULONG, out: *mut CK_BYTE, length: *mut CK_ULONG), output out length;
    C_DigestUpdate(part: *mut CK_BYTE, part_length: CK_ULONG);
    C_DigestKey(key: CK_OBJECT_HANDLE), handle key = KEY_HANDLE_INVALID;
    C_DigestFinal(out: *mut CK_BYTE, length: *mut CK_ULONG), output out length;
    C_VerifyInit(mechanism: *mut CK_MECHANISM, key: CK_OBJECT_HANDLE), handle key = KEY_HANDLE_INVALID;
    C_Verify(data: *mut CK_BYTE, data_length: CK_ULONG, signature: *mut CK_BYTE, signature_length: CK_ULONG);
    C_VerifyUpdate(part: *mut CK_BYTE, part_length: CK_ULONG);
    C_VerifyFinal(signature: *mut CK_BYTE, signature_length: CK_ULONG);
    C_VerifyRecoverInit(mechanism: *mut CK_MECHANISM, key: CK_OBJECT_HANDLE), handle key = KEY_HANDLE_INVALID;
    C_VerifyRecover(signature: *mut CK_BYTE, signature_length: CK_ULONG, out: *mut CK_BYTE, length: *mut CK_ULONG), output out length;
    C_DigestEncryptUpdate(part: *mut CK_BYTE, part_length: CK_ULONG, out: *mut CK_BYTE, length: *mut CK_ULONG), output out length;
    C_DecryptDigestUpdate(part: *mut CK_BYTE, part_length: CK_ULONG, out: *mut CK_BYTE, length: *mut CK_ULONG), output out length;
    C_SignEncryptUpdate(part: *mut CK_BYTE, part_length: CK_ULONG, out: *mut CK_BYTE, length: *mut CK_ULONG), output out length;
    C_DecryptVerifyUpdate(part: *mut CK_BYTE, part_length: CK_ULONG, out: *mut CK_BYTE, length: *mut CK_ULONG), output out length;
    C_GenerateKey(mechanism: *mut CK_MECHANISM, template: *mut CK_ATTRIBUTE, count: CK_ULONG, key: *mut CK_OBJECT_HANDLE), new key;
    C_GenerateKeyPair(
        mechanism: *mut CK_MECHANISM, public_template: *mut CK_ATTRIBUTE, public_count: CK_ULONG, private_template: *mut CK_ATTRIBUTE,
        private_count: CK_ULONG, public_key: *mut CK_OBJECT_HANDLE, private_key: *mut CK_OBJECT_HANDLE
    ), new public_key, new private_key;
    C_WrapKey(
        mechanism: *mut CK_MECHANISM, wrapping_key: CK_OBJECT_HANDLE, key: CK_OBJECT_HANDLE, out: *mut CK_BYTE, length: *mut CK_ULONG
    ), output out length, handle wrapping_key = WRAPPING_KEY_HANDLE_INVALID, handle key = KEY_HANDLE_INVALID;
    C_UnwrapKey(
        mechanism: *mut CK_MECHANISM, unwrapping_key: CK_OBJECT_HANDLE, wrapped: *mut CK_BYTE, wrapped_length: CK_ULONG,
        template: *mut CK_ATTRIBUTE, count: CK_ULONG, key: *mut CK_OBJECT_HANDLE
    ), handle unwrapping_key = UNWRAPPING_KEY_HANDLE_INVALID, new key;
    C_DeriveKey(
        mechanism: *mut CK_MECHANISM, base_key: CK_OBJECT_HANDLE, template: *mut CK_ATTRIBUTE, count: CK_ULONG, key: *mut CK_OBJECT_HANDLE
    ), handle base_key = KEY_HANDLE_INVALID, new key;
    C_SeedRandom(seed: *mut CK_BYTE, length: CK_ULONG);
    C_GenerateRandom(random: *mut CK_BYTE, length: CK_ULONG);
    C_GetFunctionStatus();
    C_CancelFunction();
}
