//! Kryoptic: a second software token, which locks its PIN as hardware does. Built by `scripts/real-modules.sh`, for no package has it.

use std::{ffi::OsString, fs, path::Path, path::PathBuf};

use super::daemon::built;

/// Its version, here and in the script.
const BUILT: &str = "kryoptic-1.5.4/libkryoptic_pkcs11.so";

/// The module.
pub fn module() -> PathBuf {
    built(BUILT)
}

/// Makes a configuration with one free slot in `directory`; returns what the module's process needs in its environment.
pub fn environment(directory: &Path) -> Vec<(&'static str, OsString)> {
    let (configuration, tokens) = (directory.join("kryoptic.conf"), directory.join("kryoptic.sql"));
    let slot = format!("[[slots]]\nslot = 42\ndbtype = \"sqlite\"\ndbargs = \"{}\"\n", tokens.display());
    fs::write(&configuration, slot).expect("a configuration for Kryoptic");
    vec![("KRYOPTIC_CONF", configuration.into_os_string())]
}
