//! A PKCS#11 module that stands before any other and injects faults, and the bench from which tests drive it.
//!
//! ```text
//!  program ── C_* ──► libpkcs11_faults.so ──► the real module
//!                        │        │
//!       "C_Sign begins"  │        └──► token-side log: what was asked, what was really signed
//!                        ▼
//!  test ── Control ──► Bench: armed faults, tokens in or out, PIN tries
//! ```
//!
//! The library half is for tests: [`Bench`](bench::Bench) runs in the test, [`Control`](control::Control) arms [`Fault`](fault::Fault)s and waits for
//! [`Event`](event::Event)s, [`Log`](log::Log) reads what the token did, [`module_path()`] finds the module. The README has every fault with an example.
#![warn(clippy::undocumented_unsafe_blocks)]

pub mod attempt;
pub mod bench;
pub mod control;
pub mod event;
pub mod fault;
pub mod function;
mod hotline;
pub mod log;
mod module;
pub mod protocol;
pub mod rv;
pub mod script;
pub mod token;
pub mod variables;

use std::path::PathBuf;

#[cfg(not(all(unix, target_pointer_width = "64")))]
compile_error!("pkcs11-faults needs a Unix with 64 bits: it marks dead object handles in their upper bits");

/// File name of the module, without what the system puts around it.
const MODULE_FILE: &str = env!("CARGO_CRATE_NAME");

/// Finds the module beside the running program: in its directory (where `cargo test` builds it for a package that depends on this one) or in
/// the one above (`cargo build`).
///
/// # Errors
/// It is in neither; the text says how to build it.
pub fn module_path() -> Result<PathBuf, String> {
    let file = format!("{}{MODULE_FILE}{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    let program = std::env::current_exe().map_err(|error| format!("where is the running program? {error}"))?;
    let places = program.ancestors().skip(1).take(2);
    let found = places.map(|directory| directory.join(&file)).find(|path| path.is_file());
    found.ok_or_else(|| format!("there is no {file} beside {}; build it with `cargo build -p pkcs11-faults`", program.display()))
}
