//! A software TPM, and tpm2-pkcs11 over it: straight, or through a resource manager as the kernel has it for a real TPM (`/dev/tpmrm0`).
//!
//! For tests that run apart ([`own_process::run_apart`](super::own_process)): its ports are fixed.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::{
    daemon::{Daemon, REMEDY},
    softhsm::installed,
};

const MODULE_PATHS: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/pkcs11/libtpm2_pkcs11.so",
    "/usr/lib/aarch64-linux-gnu/pkcs11/libtpm2_pkcs11.so",
    "/usr/lib64/pkcs11/libtpm2_pkcs11.so",
];
/// The port of commands; the next one is for control.
const PORT: u16 = 2321;

/// A running TPM. Dropping it kills it; its keys stay in its directory.
#[derive(Debug)]
pub struct SwTpm {
    pid: String,
}

impl SwTpm {
    /// Starts it with its state in `directory`, and waits until it listens.
    pub fn start(directory: &Path) -> Self {
        let (state, pid) = (directory.join("tpm"), directory.join("tpm.pid"));
        fs::create_dir_all(&state).expect("a directory for the TPM");
        fs::create_dir_all(directory.join(STORE)).expect("a directory for the module");
        let mut command = Command::new("swtpm");
        // As a daemon it returns when it listens.
        command.args(["socket", "--tpm2", "--daemon", "--flags", "not-need-init,startup-clear"]);
        command.arg("--tpmstate").arg(format!("dir={}", state.display()));
        command.arg("--pid").arg(format!("file={}", pid.display()));
        command.arg("--server").arg(format!("type=tcp,port={PORT}"));
        command.arg("--ctrl").arg(format!("type=tcp,port={}", PORT + 1));
        let output = command.output().unwrap_or_else(|error| panic!("{command:?} does not start ({error}); {REMEDY}"));
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        Self { pid: fs::read_to_string(pid).expect("the TPM's process").trim().to_owned() }
    }

    /// tpm2-pkcs11, which must be installed.
    pub fn module() -> PathBuf {
        installed(&MODULE_PATHS, "tpm2-pkcs11", REMEDY)
    }

    /// What the module's process needs in its environment, for a TPM in `directory` without a resource manager.
    pub fn environment(directory: &Path) -> Vec<(&'static str, OsString)> {
        vec![("TPM2_PKCS11_TCTI", tcti().into()), ("TPM2_PKCS11_STORE", directory.join(STORE).into_os_string())]
    }
}

fn tcti() -> String {
    format!("swtpm:host=127.0.0.1,port={PORT}")
}

/// A resource manager for the TPM: without one, a TPM has room for two keys at a time. D-Bus starts it when it is asked for.
#[derive(Debug)]
pub struct ResourceManager {
    _bus: Daemon,
}

impl ResourceManager {
    /// Makes a bus in `directory` that has it.
    pub fn start(directory: &Path) -> Self {
        let configuration = directory.join("bus.conf");
        let service = format!("[D-BUS Service]\nName={MANAGER}\nExec=/usr/sbin/tpm2-abrmd --allow-root --session --tcti={}\n", tcti());
        fs::write(directory.join(MANAGER).with_added_extension("service"), service).expect("a service file");
        fs::write(&configuration, bus_configuration(directory)).expect("the bus's configuration");
        let mut command = Command::new("dbus-daemon");
        command.args(["--nofork", "--print-address", "--config-file"]).arg(&configuration);
        let manager = Self { _bus: Daemon::start(&mut command, "unix:path=") };
        // It has its name on the bus before it can be asked for anything.
        while !answers(directory) {}
        manager
    }

    /// What the module's process needs in its environment, for a TPM and its manager in `directory`.
    pub fn environment(directory: &Path) -> Vec<(&'static str, OsString)> {
        vec![
            ("TPM2_PKCS11_TCTI", "tabrmd:bus_type=session".into()),
            ("TPM2_PKCS11_STORE", directory.join(STORE).into_os_string()),
            ("DBUS_SESSION_BUS_ADDRESS", bus_address(directory).into()),
        ]
    }
}

fn answers(directory: &Path) -> bool {
    let mut command = Command::new("dbus-send");
    command.args(["--session", "--print-reply", &format!("--dest={MANAGER}"), "/com/intel/tss2/Tabrmd/Tcti"]);
    command.arg("org.freedesktop.DBus.Introspectable.Introspect").env("DBUS_SESSION_BUS_ADDRESS", bus_address(directory));
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} does not start ({error}); {REMEDY}"));
    String::from_utf8_lossy(&output.stdout).contains("CreateConnection")
}

/// The resource manager's name on the bus.
const MANAGER: &str = "com.intel.tss2.Tabrmd";

fn bus_address(directory: &Path) -> String {
    format!("unix:path={}", directory.join("bus").display())
}

fn bus_configuration(directory: &Path) -> String {
    format!(
        r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>{}</listen>
  <servicedir>{}</servicedir>
  <policy context="default"><allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/></policy>
</busconfig>
"#,
        bus_address(directory),
        directory.display()
    )
}

/// Where the module keeps what belongs to keys in the TPM.
const STORE: &str = "tpm-store";

impl Drop for SwTpm {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-KILL", &self.pid]).status();
    }
}
