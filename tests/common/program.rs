//! The real program as a gateway: started, waited for, read from, stopped.

use std::{
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::Duration,
};

/// After so long a test that waits for an event has failed.
const PATIENCE: Duration = Duration::from_secs(60);
/// What the program prints when it takes requests.
const SERVING: &str = "serving on ";

/// A gateway that runs. It is killed with the value, if it was not stopped.
#[derive(Debug)]
pub struct Gateway {
    child: Child,
    lines: Receiver<String>,
    log: Vec<String>,
    /// Where it takes requests.
    pub url: String,
}

/// The program, with nothing of the test's environment that it would heed.
pub fn sealgate() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sealgate"));
    command.env_remove("SEALGATE_API_KEY").env_remove("SEALGATE_LOG").env_remove("SOFTHSM2_CONF").stdin(Stdio::null());
    command
}

/// Runs the program to its end.
pub fn run<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Output {
    sealgate().args(arguments).output().expect("the program starts")
}

/// The text of standard error.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The text of standard output.
pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

impl Gateway {
    /// `sealgate dev` in `dir`, on any free port.
    pub fn dev(dir: &Path) -> Self {
        Self::start(sealgate().args(["dev", "--listen", "127.0.0.1:0", "--dir"]).arg(dir))
    }

    /// `sealgate serve` with this configuration.
    pub fn serve(config: &Path) -> Self {
        Self::start(sealgate().args(["serve", "--config"]).arg(config))
    }

    /// Starts a command that serves, and waits until it does.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the program starts");
        let stderr = BufReader::new(child.stderr.take().expect("a pipe"));
        let (sender, lines) = mpsc::channel();
        // Ends with the program, for then the pipe is closed.
        thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let mut gateway = Self { child, lines, log: Vec::new(), url: String::new() };
        let line = gateway.wait_for(SERVING);
        gateway.url = line.split(SERVING).nth(1).expect("an address").to_owned();
        gateway
    }

    /// Waits until the log has a line that contains `text`, if it has none yet.
    pub fn wait_until_said(&mut self, text: &str) -> String {
        let said = self.log.iter().find(|line| line.contains(text)).cloned();
        said.unwrap_or_else(|| self.wait_for(text))
    }

    /// Waits for a line of the log that contains `text`.
    pub fn wait_for(&mut self, text: &str) -> String {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => {
                    self.log.push(line.clone());
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(RecvTimeoutError::Timeout) => panic!("the gateway did not say {text:?}; it said:\n{}", self.log.join("\n")),
                Err(RecvTimeoutError::Disconnected) => panic!("the gateway ended before {text:?}; it said:\n{}", self.log.join("\n")),
            }
        }
    }

    /// The first line so far that contains `text`.
    pub fn said(&self, text: &str) -> &str {
        self.log.iter().find(|line| line.contains(text)).unwrap_or_else(|| panic!("it did not say {text:?}:\n{}", self.log.join("\n")))
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The processes that it has started and that live.
    pub fn children(&self) -> Vec<u32> {
        let pid = self.pid();
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the gateway's threads");
        let children = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("children")).ok());
        children.flat_map(|pids| pids.split_whitespace().map(|pid| pid.parse().expect("a pid")).collect::<Vec<u32>>()).collect()
    }

    /// Sends a signal, by its name.
    pub fn signal(&self, signal: &str) {
        let status = Command::new("kill").args(["-s", signal, &self.pid().to_string()]).status().expect("kill");
        assert!(status.success());
    }

    /// Stops it with SIGTERM and gives back how it ended and all that it said.
    pub fn stop(mut self) -> (ExitStatus, String) {
        self.signal("TERM");
        self.wait()
    }

    /// Waits for its end, and for that of the processes it has started.
    pub fn wait(&mut self) -> (ExitStatus, String) {
        // The pipe is closed when the last of them has ended.
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => self.log.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    let processes = Command::new("ps").args(["-eo", "pid,ppid,stat,wchan:24,args"]).output().expect("ps");
                    panic!("the gateway does not end; it said:\n{}\nprocesses:\n{}", self.log.join("\n"), stdout(&processes));
                }
            }
        }
        let status = self.child.wait().expect("the gateway's end");
        (status, self.log.join("\n"))
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // Fails where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What `dev.json` in `dir` says.
pub fn dev_json(dir: &Path) -> serde_json::Value {
    let text = fs::read(dir.join("dev.json")).expect("dev.json of a gateway that serves");
    serde_json::from_slice(&text).expect("JSON")
}

/// A path in `dev.json`.
pub fn path_in(value: &serde_json::Value) -> PathBuf {
    PathBuf::from(value.as_str().expect("a path"))
}
