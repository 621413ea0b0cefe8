//! What a module's process gives up before it loads foreign code: core dumps, being read by other processes of the same user, and swapping
//! of the memory that holds a PIN; and, where the configuration wants it, the network, files and system calls.
//!
//! Invariant: what the configuration asks for holds for every thread of the module, or the module is not loaded.

#![allow(unsafe_code)] // mlock

#[cfg(target_os = "linux")]
mod calls;
#[cfg(target_os = "linux")]
mod files;

use std::{ffi::c_void, path::Path};

use rustix::{
    io,
    mm::mlock,
    process::{Resource, Rlimit, setrlimit},
};
use tracing::warn;

use crate::domain::{fence::Fence, pin::Pin};

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

/// Raises the fence that the configuration wants around `module`, the library that is about to be loaded.
///
/// # Errors
/// Why it cannot be raised, and what to do. Parts of it may stand then: the process is good for nothing but to end.
pub(super) fn raise_configured(fence: &Fence, module: &Path) -> Result<(), String> {
    if fence.is_open() {
        return Ok(());
    }
    build(fence, module).map_err(|why| format!("its fence cannot be raised, so it is not loaded: {why}"))
}

#[cfg(target_os = "linux")]
fn build(fence: &Fence, module: &Path) -> Result<(), String> {
    // Landlock holds for the calling thread and those that it starts.
    let threads = std::fs::read_dir("/proc/self/task").map_err(|error| format!("/proc/self/task: {error}"))?.count();
    if threads != 1 {
        return Err(format!("the process has {threads} threads already"));
    }
    if let Some(files) = &fence.files {
        files::confine(files, module)?;
    }
    if fence.no_network {
        calls::deny_network()?;
    }
    if fence.restrict_system_calls {
        calls::restrict()?;
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn build(_: &Fence, _: &Path) -> Result<(), String> {
    Err("fences need Linux; take `fence` out of the module's section".to_owned())
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
