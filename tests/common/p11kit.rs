//! p11-kit's remoting: a module in another process, reached through `p11-kit-client.so`.

use std::{
    ffi::OsString,
    fs,
    io::{BufRead, BufReader},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use super::softhsm::{SoftHsm, TOKEN_LABEL, installed};

const CLIENT_PATHS: [&str; 4] = [
    "/usr/lib/x86_64-linux-gnu/pkcs11/p11-kit-client.so",
    "/usr/lib/aarch64-linux-gnu/pkcs11/p11-kit-client.so",
    "/usr/lib64/pkcs11/p11-kit-client.so",
    "/usr/lib/pkcs11/p11-kit-client.so",
];
const SOCKET: &str = "p11-kit.sock";

/// A server for a SoftHSM's token. It ends with the value.
#[derive(Debug)]
pub struct P11Kit(Child);

impl P11Kit {
    /// The module that speaks to the server.
    pub fn client_module() -> PathBuf {
        installed(&CLIENT_PATHS, "p11-kit-client", "apt-get install p11-kit p11-kit-modules")
    }

    /// What the client's process needs in its environment, for a server in `directory`.
    pub fn address_in(directory: &Path) -> (&'static str, OsString) {
        ("P11_KIT_SERVER_ADDRESS", format!("unix:path={}", directory.join(SOCKET).display()).into())
    }

    /// Starts a server for the SoftHSM's token, and waits until it listens.
    pub fn serve(hsm: &SoftHsm) -> Self {
        let socket = hsm.configuration().with_file_name(SOCKET);
        // What a server that was killed has left behind.
        let _ = fs::remove_file(&socket);
        let mut child = Command::new("p11-kit")
            .args(["server", "--foreground", "--provider"])
            .arg(SoftHsm::module())
            .arg("--name")
            .arg(socket)
            .arg(format!("pkcs11:token={TOKEN_LABEL}"))
            .envs(hsm.environment())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .expect("p11-kit; apt-get install p11-kit");
        let mut first_line = String::new();
        // It prints its address when it listens.
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut first_line).expect("a line from p11-kit");
        assert!(first_line.contains("P11_KIT_SERVER_ADDRESS"), "p11-kit says {first_line:?}");
        Self(child)
    }

    /// Kills the server and the processes that serve its connections, as the crash of a remote machine would.
    pub fn kill_with_its_connections(self) {
        let group = format!("-{}", self.0.id());
        assert!(Command::new("kill").args(["-KILL", "--", &group]).status().expect("kill").success());
    }
}

impl Drop for P11Kit {
    fn drop(&mut self) {
        // Connections are served by children of its own, which end when their client does.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
