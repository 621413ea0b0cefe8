//! A program that runs beside a test, says when it is ready, and ends with the value.

use std::{
    ffi::OsString,
    io::{self, BufRead as _, BufReader, PipeReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver, Sender},
    thread,
    time::Duration,
};

/// After so long a program that has not said that it is ready never will.
const PATIENCE: Duration = Duration::from_secs(60);

/// What installs and builds what the tests with real modules need.
pub const REMEDY: &str = "run scripts/real-modules.sh";

/// A running program. Dropping it kills it, and waits for its end.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    child: Child,
    lines: Receiver<String>,
}

impl Daemon {
    /// Starts `command`, and waits until it prints a line with `ready` in it. What it prints goes on to the test's own output.
    pub fn start(command: &mut Command, ready: &str) -> Self {
        Self::start_saying(command, ready).0
    }

    /// The same, for those who have to know what that line says.
    pub fn start_saying(command: &mut Command, ready: &str) -> (Self, String) {
        let (output, into) = io::pipe().expect("a pipe");
        command.stdin(Stdio::null()).stdout(into.try_clone().expect("a pipe")).stderr(into);
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?} does not start ({error}); {REMEDY}"));
        // The command holds the pipe's other end, too, and would keep it open.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let name = Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned();
        let (sender, lines) = mpsc::channel();
        let prefix = name.clone();
        thread::spawn(move || pass_on(&prefix, output, &sender));
        let daemon = Self { name, child, lines };
        let line = daemon.wait_for(ready);
        (daemon, line)
    }

    /// Waits for the next line with `text` in it, and returns it; lines that were waited for are not seen again.
    pub fn wait_for(&self, text: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|error| panic!("{} did not say {text:?}: {error}; {REMEDY} if something is missing", self.name));
            if line.contains(text) {
                return line;
            }
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[allow(clippy::print_stdout, reason = "shown where the test fails")]
fn pass_on(name: &str, output: PipeReader, lines: &Sender<String>) {
    for line in BufReader::new(output).lines().map_while(Result::ok) {
        println!("{name}: {line}");
        // Nobody waits any more once the program is being killed.
        let _ = lines.send(line);
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
