//! The C functions, as a program sees them.
//!
//! Each describes its call and hands it to [`Module`]; the closure it gives along is the call of the real module, with the
//! caller's own pointers. The safety of all of them is the same: the caller owes the module what PKCS#11 2.40 asks of its callers, and this
//! module passes that on; what it reads or writes itself goes through [`memory`](super::memory).
#![allow(unsafe_code, non_snake_case)]
// The standard says what a caller must see to, once for all functions; see above.
#![allow(clippy::missing_safety_doc)]

mod general;
mod objects;
mod passed;
mod sessions;
mod signing;
mod slots;

use std::panic::{AssertUnwindSafe, catch_unwind};

use cryptoki_sys::{CK_FUNCTION_LIST, CK_RV, CK_VERSION};

use self::{general::*, objects::*, passed::*, sessions::*, signing::*, slots::*};
use super::{Module, fail, module};
use crate::{function::for_each_function, rv::Rv};

macro_rules! list_functions {
    ($($name:ident),*) => {
        /// What `C_GetFunctionList` gives.
        pub(super) static FUNCTION_LIST: CK_FUNCTION_LIST =
            CK_FUNCTION_LIST { version: CK_VERSION { major: 2, minor: 40 }, $($name: Some($name)),* };
    };
}
for_each_function!(list_functions);

/// Runs an export: the module is there, and no panic reaches the caller.
fn guarded(export: impl FnOnce(&'static Module) -> Rv) -> CK_RV {
    let ran = catch_unwind(AssertUnwindSafe(|| module().map_or_else(|rv| rv, export)));
    ran.unwrap_or_else(|_| fail(&"a panic, which is a mistake in this module")).0
}
