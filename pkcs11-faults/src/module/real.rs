//! The real module: loaded once, never unloaded, and called for what the wrapper itself wants to know.
//!
//! Callers' calls go through [`real_call!`] in `exports`, with the callers' own pointers; the functions here have pointers of their own.
#![allow(unsafe_code)]

use std::{path::Path, ptr};

use cryptoki_sys::{
    CK_ATTRIBUTE, CK_FALSE, CK_FLAGS, CK_FUNCTION_LIST, CK_OBJECT_HANDLE, CK_SESSION_HANDLE, CK_SESSION_INFO, CK_SLOT_ID, CK_TOKEN_INFO,
    CK_ULONG, CKA_ID,
};

use crate::rv::Rv;

/// The longest `CKA_ID` that is read.
const KEY_ID_MAX: usize = 256;
/// Tries to read a slot list that grows meanwhile.
const SLOT_LIST_TRIES: usize = 8;

/// Calls a function of the real module, or answers `CKR_FUNCTION_NOT_SUPPORTED` if it has none. Wants an `unsafe` block round it.
macro_rules! real_call {
    ($real:expr, $name:ident($($argument:expr),* $(,)?)) => {
        match $real.functions.$name {
            Some(function) => $crate::rv::Rv(function($($argument),*)),
            None => $crate::rv::Rv::FUNCTION_NOT_SUPPORTED,
        }
    };
}
pub(super) use real_call;

/// A loaded PKCS#11 module.
#[derive(Debug)]
pub(super) struct Real {
    pub(super) functions: CK_FUNCTION_LIST,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoadError {
    #[error("the real module {path} cannot be loaded: {reason}")]
    NotLoadable { path: String, reason: String },
    #[error("{0} is no PKCS#11 module: it has no C_GetFunctionList")]
    NotPkcs11(String),
    #[error("C_GetFunctionList of {path} says {rv}")]
    NoFunctions { path: String, rv: Rv },
    #[error("the real module's functions are this module's own: it was told to wrap itself, or was loaded with RTLD_GLOBAL or LD_PRELOAD")]
    Itself,
}

impl Real {
    pub(super) fn load(path: &Path) -> Result<Self, LoadError> {
        let shown = || path.display().to_string();
        // SAFETY: loading a library runs its initialisers, and trusting them is what naming it in the environment means.
        let library = unsafe { cryptoki_sys::Pkcs11::new(path) };
        let library = library.map_err(|error| LoadError::NotLoadable { path: shown(), reason: error.to_string() })?;
        let get_function_list = *library.C_GetFunctionList.as_ref().map_err(|_| LoadError::NotPkcs11(shown()))?;
        let own = &super::exports::FUNCTION_LIST;
        if own.C_GetFunctionList.is_some_and(|own| ptr::fn_addr_eq(own, get_function_list)) {
            return Err(LoadError::Itself);
        }
        let mut list = ptr::null_mut();
        // SAFETY: the symbol has the standard's type in every PKCS#11 module, and `list` is valid for the one write.
        let rv = Rv(unsafe { get_function_list(&raw mut list) });
        if !rv.is_ok() || list.is_null() {
            return Err(LoadError::NoFunctions { path: shown(), rv });
        }
        // SAFETY: the list lives as long as the library, which is never unloaded; version 2.40's is the shortest there is.
        let functions: CK_FUNCTION_LIST = unsafe { *list };
        // The linker may have given the real module's list our functions, which have the same names.
        if let (Some(own), Some(its)) = (own.C_Initialize, functions.C_Initialize)
            && ptr::fn_addr_eq(own, its)
        {
            return Err(LoadError::Itself);
        }
        // Modules leave threads and exit handlers behind, which makes unloading one a danger of its own.
        std::mem::forget(library);
        Ok(Self { functions })
    }

    /// All slots, with or without a token.
    pub(super) fn slots(&self) -> Result<Vec<CK_SLOT_ID>, Rv> {
        for _ in 0..SLOT_LIST_TRIES {
            let mut count: CK_ULONG = 0;
            // SAFETY: a null list asks for the count only, which `count` can take.
            ok(unsafe { real_call!(self, C_GetSlotList(CK_FALSE, ptr::null_mut(), &raw mut count)) })?;
            let mut slots = vec![0; count as usize];
            // SAFETY: `slots` has room for `count` numbers.
            let rv = unsafe { real_call!(self, C_GetSlotList(CK_FALSE, slots.as_mut_ptr(), &raw mut count)) };
            if rv != Rv::BUFFER_TOO_SMALL {
                ok(rv)?;
                slots.truncate(count as usize);
                return Ok(slots);
            }
        }
        Err(Rv::FUNCTION_FAILED)
    }

    pub(super) fn token_info(&self, slot: CK_SLOT_ID) -> Result<CK_TOKEN_INFO, Rv> {
        let mut info = CK_TOKEN_INFO::default();
        // SAFETY: `info` is valid for the one write.
        ok(unsafe { real_call!(self, C_GetTokenInfo(slot, &raw mut info)) })?;
        Ok(info)
    }

    pub(super) fn open_session(&self, slot: CK_SLOT_ID, flags: CK_FLAGS) -> Result<CK_SESSION_HANDLE, Rv> {
        let mut session = 0;
        // SAFETY: there is no callback, and `session` is valid for the one write.
        ok(unsafe { real_call!(self, C_OpenSession(slot, flags, ptr::null_mut(), None, &raw mut session)) })?;
        Ok(session)
    }

    pub(super) fn close_session(&self, session: CK_SESSION_HANDLE) -> Rv {
        // SAFETY: a number that is no session is answered with an error; no other thread is in a call on this one (`Sessions` counts them).
        unsafe { real_call!(self, C_CloseSession(session)) }
    }

    pub(super) fn logout(&self, session: CK_SESSION_HANDLE) -> Rv {
        // SAFETY: as for `close_session`, but for the last clause: modules lock what all sessions of a token share.
        unsafe { real_call!(self, C_Logout(session)) }
    }

    pub(super) fn session_info(&self, session: CK_SESSION_HANDLE) -> Result<CK_SESSION_INFO, Rv> {
        let mut info = CK_SESSION_INFO::default();
        // SAFETY: `info` is valid for the one write.
        ok(unsafe { real_call!(self, C_GetSessionInfo(session, &raw mut info)) })?;
        Ok(info)
    }

    /// `CKA_ID` of an object, if it tells.
    pub(super) fn key_id(&self, session: CK_SESSION_HANDLE, object: CK_OBJECT_HANDLE) -> Option<Vec<u8>> {
        let mut id = vec![0_u8; KEY_ID_MAX];
        let mut attribute = CK_ATTRIBUTE { type_: CKA_ID, pValue: id.as_mut_ptr().cast(), ulValueLen: id.len() as CK_ULONG };
        // SAFETY: one attribute, whose value has room for as many bytes as it says.
        ok(unsafe { real_call!(self, C_GetAttributeValue(session, object, &raw mut attribute, 1)) }).ok()?;
        let length = attribute.ulValueLen as usize;
        id.truncate(length);
        // A token that has none may say `CK_UNAVAILABLE_INFORMATION`.
        (length <= KEY_ID_MAX).then_some(id)
    }
}

fn ok(rv: Rv) -> Result<(), Rv> {
    if rv.is_ok() { Ok(()) } else { Err(rv) }
}
