//! The calls that `cryptoki` 0.12 has no safe form for; the one place of the PKCS#11 side with `unsafe`.
//!
//! `cryptoki` signs with `C_SignInit` and two `C_Sign` (the first asks for the length), and leaves no room for the login that
//! `CKA_ALWAYS_AUTHENTICATE` keys want between them. So `C_SignInit` and `C_Sign` are called here, on the same loaded library: the dynamic
//! linker answers a second load of one path with the first one's instance. Invariant: that library is never unloaded.
#![allow(unsafe_code)]

use std::{ffi::CStr, path::Path, ptr, ptr::NonNull};

use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Function, Pkcs11},
    error::{Error, Rv, RvError},
    mechanism::Mechanism,
    object::ObjectHandle,
    session::Session,
};
use cryptoki_sys::{CK_BYTE, CK_C_GetInfo, CK_C_Sign, CK_C_SignInit, CK_FUNCTION_LIST, CK_INFO, CK_MECHANISM, CK_OBJECT_HANDLE, CK_ULONG};

use super::return_value::{classify, from_cryptoki};
use crate::token::driver::{DeviceError, KeyHandle};

/// The signing functions of a loaded module.
#[derive(Debug, Clone, Copy)]
pub(super) struct SignFunctions {
    get_info: CK_C_GetInfo,
    sign_init: CK_C_SignInit,
    sign: CK_C_Sign,
}

impl SignFunctions {
    /// Loads the module at `path`, which `cryptoki` has loaded already, for its signing functions.
    ///
    /// # Errors
    /// The dynamic linker's, or what `C_GetFunctionList` said.
    pub(super) fn load(path: &Path) -> Result<Self, Error> {
        // SAFETY: loading a library runs its initialisers, and trusting them is what configuring the module means. `cryptoki` loaded this
        // very path just before, so nothing runs that has not run.
        let library = unsafe { cryptoki_sys::Pkcs11::new(path) }?;
        let get_function_list = *library.C_GetFunctionList.as_ref().map_err(|_| Error::MissingSymbol("C_GetFunctionList"))?;
        let mut list: *mut CK_FUNCTION_LIST = ptr::null_mut();
        // SAFETY: the symbol has the standard's type in every PKCS#11 module, and `list` is valid for the one write.
        let rv = unsafe { get_function_list(&raw mut list) };
        Rv::from(rv).into_result(Function::GetFunctionList)?;
        if list.is_null() {
            return Err(Error::NullFunctionPointer);
        }
        // SAFETY: the standard has the list outlive the module's use (section 5.4.4), and the list is only read. It is at least as long as
        // this type: version 2.40 is the shortest there is.
        let functions = unsafe { *list };
        // The function pointers stay valid because the library stays loaded. Modules leave threads and exit handlers behind, which makes
        // unloading one a danger of its own.
        std::mem::forget(library);
        Ok(Self { get_info: functions.C_GetInfo, sign_init: functions.C_SignInit, sign: functions.C_Sign })
    }

    /// Whether these functions belong to the instance that `cryptoki` has initialised.
    ///
    /// p11-kit's proxy and client make an instance of their own for whoever asks for the function list; sessions are unknown to the others.
    pub(super) fn are_initialised(&self) -> bool {
        let mut info = CK_INFO::default();
        // SAFETY: a function of the loaded module, called after `C_Initialize`, with memory valid for its one write.
        self.get_info.is_some_and(|get_info| Rv::from(unsafe { get_info(&raw mut info) }) == Rv::Ok)
    }

    /// `C_SignInit`.
    ///
    /// # Errors
    /// What the module said; nothing was signed.
    pub(super) fn sign_init(&self, session: &Session, mechanism: &Mechanism<'_>, key: KeyHandle) -> Result<(), DeviceError> {
        let sign_init = self.sign_init.ok_or_else(|| from_cryptoki(Error::NullFunctionPointer))?;
        let mut mechanism = CK_MECHANISM::from(mechanism);
        // SAFETY: a function of the loaded module; the mechanism and the parameters that it points to live until it returns. Session and
        // key are numbers that the module looks up. `Session` is not `Sync`, so no other thread is in a call on this session.
        let rv = unsafe { sign_init(session.handle(), &raw mut mechanism, raw_handle(key)) };
        outcome(rv, Function::SignInit)
    }

    /// `C_Sign`, once: the signature is written to `signature`, and its length returned.
    ///
    /// # Errors
    /// What the module said; [`DeviceError::Unclear`] if it may have signed.
    pub(super) fn sign(&self, session: &Session, data: &mut [u8], signature: &mut [u8]) -> Result<usize, DeviceError> {
        let sign = self.sign.ok_or_else(|| from_cryptoki(Error::NullFunctionPointer))?;
        let mut length = signature.len() as CK_ULONG;
        let signature_start: *mut CK_BYTE = signature.as_mut_ptr();
        // SAFETY: as in `sign_init`; both buffers are exclusively borrowed, given with their own lengths, and outlive the call.
        let rv = unsafe { sign(session.handle(), data.as_mut_ptr(), data.len() as CK_ULONG, signature_start, &raw mut length) };
        outcome(rv, Function::Sign)?;
        Ok(length as usize)
    }
}

fn outcome(rv: cryptoki_sys::CK_RV, function: Function) -> Result<(), DeviceError> {
    match Rv::from(rv) {
        Rv::Ok => Ok(()),
        Rv::Error(error) => Err(classify(error, function)),
    }
}

/// `C_Initialize` with a text for `pReserved`, which NSS-like modules want.
///
/// # Errors
/// What the module said.
pub(super) fn initialize_with(pkcs11: &Pkcs11, flags: CInitializeFlags, reserved: &CStr) -> Result<(), Error> {
    let text = NonNull::new(reserved.as_ptr().cast_mut()).ok_or(Error::Pkcs11(RvError::ArgumentsBad, Function::Initialize))?;
    // SAFETY: the text ends with a NUL and outlives the call; modules that take `pReserved` read it in the call and do not write to it.
    let args = unsafe { CInitializeArgs::new_with_reserved(flags, text.cast()) };
    pkcs11.initialize(args)
}

/// The handle as `cryptoki` wants it.
pub(super) fn object_handle(key: KeyHandle) -> ObjectHandle {
    // SAFETY: nothing is dereferenced; a number that is no handle is answered with an error by the module.
    unsafe { ObjectHandle::new_from_raw(raw_handle(key)) }
}

/// A handle came from the module as a `CK_OBJECT_HANDLE`, so it is one, also where that type has 32 bits.
const fn raw_handle(key: KeyHandle) -> CK_OBJECT_HANDLE {
    key.0 as CK_OBJECT_HANDLE
}
