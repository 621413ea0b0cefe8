//! What a module's own process may be denied, beyond what every such process gives up.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A fence around a module's process. It is raised before the module is loaded; one that cannot be raised keeps the module from running.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    /// No sockets but those of this machine (`AF_UNIX`, for `pcscd`) and of its kernel (`AF_NETLINK`, for `udev`).
    pub no_network: bool,
    /// Only these files.
    pub files: Option<FileFence>,
    /// No system calls that drivers of tokens do not need: no programs, no mounts, no looking into other processes.
    pub restrict_system_calls: bool,
}

/// The files that are left to a module, beside its libraries and what the system's own libraries read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileFence {
    /// Files, and folders with all that is in them, that may be read.
    pub readable: Vec<PathBuf>,
    /// The same that may also be written; devices among them.
    pub writable: Vec<PathBuf>,
}

impl Fence {
    /// Whether it denies nothing.
    #[must_use]
    pub fn is_open(&self) -> bool {
        *self == Self::default()
    }
}
