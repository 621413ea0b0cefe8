//! `pcscd` with a virtual reader, and OpenSC's module over it. For tests that run apart ([`own_process::run_apart`](super::own_process)): its
//! socket has a fixed place, and its reader listens on every interface there is.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::{daemon::Daemon, softhsm::installed};

const OPENSC_PATHS: [&str; 4] = [
    "/usr/lib/x86_64-linux-gnu/opensc-pkcs11.so",
    "/usr/lib/aarch64-linux-gnu/opensc-pkcs11.so",
    "/usr/lib64/opensc-pkcs11.so",
    "/usr/lib/opensc-pkcs11.so",
];
const READER: &str = r#"FRIENDLYNAME "Virtual PCD"
DEVICENAME   /dev/null:0x8C7B
LIBPATH      /usr/lib/pcsc/drivers/serial/libifdvpcd.so
CHANNELID    0x8C7B
"#;

/// A running `pcscd`. Dropping it kills it, as a crash would.
#[derive(Debug)]
pub struct Pcscd(Daemon);

impl Pcscd {
    /// Starts it with a reader configuration in `directory`, and waits until it is ready.
    pub fn start(directory: &Path) -> Self {
        let readers = directory.join("readers");
        fs::create_dir_all(&readers).expect("a directory for the reader's configuration");
        fs::write(readers.join("vpcd"), READER).expect("the reader's configuration");
        Self(Daemon::start(Command::new("pcscd").args(["--foreground", "--info", "--config"]).arg(&readers), "daemon ready"))
    }

    /// Waits until it has noticed that the card was pulled, which takes it up to 0.4 s.
    pub fn wait_for_removal(&self) {
        self.0.wait_for("Card Removed From");
    }
}

/// OpenSC's PKCS#11 module, which must be installed.
pub fn opensc_module() -> PathBuf {
    installed(&OPENSC_PATHS, "OpenSC's module", super::daemon::REMEDY)
}
