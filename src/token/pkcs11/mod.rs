//! PKCS#11 modules through `cryptoki`: the only place that knows its types.
//!
//! [`Pkcs11Module`] loads a module and lists tokens; its drivers are sessions on them. The slot's thread uses both through the traits in
//! [`driver`](super::driver). Invariants: a module is initialised once and finalised when its last session is closed; every return value
//! goes through one table (`return_value`); one signature is one `C_SignInit` and one `C_Sign`; `unsafe` stands in `raw` alone.

mod discovery;
mod driver;
mod mechanism;
mod module;
mod objects;
mod public_key;
mod raw;
mod return_value;

pub use module::{LoadError, ModuleOptions, Pkcs11Module};
