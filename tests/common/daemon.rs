//! A program that runs beside a test, says when it is ready, and ends with the value.

use std::{
    ffi::OsString,
    io::{self, BufRead as _, BufReader, PipeReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Sender},
    thread,
    time::Duration,
};

/// After so long a program that has not said that it is ready never will.
const PATIENCE: Duration = Duration::from_secs(60);

/// What installs and builds what the tests with real modules need.
pub const REMEDY: &str = "run scripts/real-modules.sh";

/// A running program. Dropping it kills it, and waits for its end.
#[derive(Debug)]
pub struct Daemon(Child);

impl Daemon {
    /// Starts `command`, and waits until it prints a line with `ready` in it. What it prints goes on to the test's own output.
    pub fn start(command: &mut Command, ready: &'static str) -> Self {
        let (output, into) = io::pipe().expect("a pipe");
        command.stdin(Stdio::null()).stdout(into.try_clone().expect("a pipe")).stderr(into);
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?} does not start ({error}); {REMEDY}"));
        // The command holds the pipe's other end, too, and would keep it open.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let name = command.get_program().to_string_lossy().into_owned();
        let (is_ready, wait) = mpsc::channel();
        thread::spawn(move || pass_on(&name, output, ready, is_ready));
        let daemon = Self(child);
        assert!(wait.recv_timeout(PATIENCE).is_ok(), "{command:?} did not say {ready:?}");
        daemon
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn pass_on(name: &str, output: PipeReader, ready: &str, is_ready: Sender<()>) {
    let mut is_ready = Some(is_ready);
    for line in BufReader::new(output).lines().map_while(Result::ok) {
        println!("{name}: {line}");
        if line.contains(ready)
            && let Some(is_ready) = is_ready.take()
        {
            // Nobody waits any more if the patience was over.
            let _ = is_ready.send(());
        }
    }
}

/// Where `scripts/real-modules.sh` keeps what it has built: outside the tree, for it takes minutes.
pub fn built(name: &str) -> PathBuf {
    let home = || std::env::var_os("HOME").map_or_else(|| PathBuf::from("/root"), PathBuf::from).join(".cache/sealgate").into_os_string();
    let cache: OsString = std::env::var_os("SEALGATE_CACHE").unwrap_or_else(home);
    let path = PathBuf::from(cache).join(name);
    assert!(path.exists(), "{} is needed for this test and is not there: {REMEDY}", path.display());
    path
}
