//! What a module's process gives up before it loads foreign code: core dumps, being read by other processes of the same user, and swapping
//! of the memory that holds a PIN.

#![allow(unsafe_code)] // mlock

use std::ffi::c_void;

use rustix::{
    io,
    mm::mlock,
    process::{Resource, Rlimit, setrlimit},
};
use tracing::warn;

use crate::domain::pin::Pin;

/// Fences this process in. What the system does not grant is logged: a gateway in a tight container must still sign.
pub(super) fn raise() {
    let no_core = Rlimit { current: Some(0), maximum: Some(0) };
    granted("without core dumps", setrlimit(Resource::Core, no_core));
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{DumpableBehavior, Signal, set_dumpable_behavior, set_parent_process_death_signal};
        // The end of the socket ends the process too, but not one that is stopped, or whose module holds all of it up. What the kernel
        // watches is the thread that started this process: the module's keeper, which stays for as long.
        granted("ended with its gateway", set_parent_process_death_signal(Some(Signal::KILL)));
        granted("unreadable for other processes", set_dumpable_behavior(DumpableBehavior::NotDumpable));
    }
}

/// Keeps the pages that hold `pin` out of the swap. They stay locked until the process ends: pages are shared, and PINs are few.
pub(in crate::token) fn lock_in_memory(pin: &Pin) {
    let text = pin.reveal();
    // SAFETY: mlock reads nothing and writes nothing; the range is that of a live string, which the kernel widens to whole pages.
    let locked = unsafe { mlock(text.as_ptr().cast_mut().cast::<c_void>(), text.len()) };
    granted("with the PIN's memory locked", locked);
}

fn granted(what: &str, result: io::Result<()>) {
    if let Err(error) = result {
        warn!(error = %error, "the module's process runs, but not {what}: {error}");
    }
}
