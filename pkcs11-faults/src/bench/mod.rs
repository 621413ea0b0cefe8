//! The bench: where faults are armed and tokens are pulled. Module processes ask it what is to happen to their calls.
//!
//! It lives outside of the processes that load the module (in a test, or in `pkcs11-faults-ctl serve`), so that what it knows outlives their
//! crashes, and short-lived programs like `pkcs11-tool` all meet the same bench.

mod arsenal;
pub(crate) mod core;
pub(crate) mod pins;
mod server;

pub(crate) use self::server::{ENDED, generation_file};
pub use self::{
    core::EVENTS_MAX,
    server::{Bench, CONNECTIONS_MAX},
};
