//! The PKCS#11 side: modules, slots, the thread that owns each token, and the processes that modules live in.
//!
//! Other modules see [`supervisor::Tokens`] and [`slot::SlotHandle`] only; whether a token's thread runs in this process or in a child they
//! cannot tell. Nothing here knows jobs, callers or HTTP. Invariants: one thread per token slot owns session, login and key handles; a
//! rejected PIN is never tried again; a command that was taken is answered, once.

pub mod command;
pub mod driver;
#[cfg(any(test, feature = "fake-token"))]
pub mod fake;
pub mod host;
mod link;
mod login;
pub mod marks;
mod meter;
pub mod pin_source;
pub mod pkcs11;
pub mod quirks;
mod runner;
pub mod slot;
pub mod supervisor;
pub mod watchdog;
mod worker;
mod writing;
