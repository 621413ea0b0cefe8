//! What a module may try that has nothing to do with its token, so that a fence around its process can be tested: does it hold?

use std::{
    fmt, fs, io,
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::{Command, Stdio},
    str::FromStr,
    time::Duration,
};

use rustix::process::{Pid, test_kill_process};
use serde::{Deserialize, Serialize};

/// How long a connection may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Something that the module's process tries. How it went stands in the token-side log, and makes no difference to the call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Attempt {
    /// Opens a TCP connection.
    Connect(SocketAddr),
    /// Reads a file.
    Read(PathBuf),
    /// Opens a file for writing, and makes it if it is not there. Nothing is written.
    Write(PathBuf),
    /// Runs a program to its end, without arguments.
    Run(PathBuf),
    /// Asks whether it may send a signal to this process (`kill` with signal 0).
    Signal(u32),
}

impl Attempt {
    pub(crate) fn make(&self) -> io::Result<()> {
        match self {
            Self::Connect(address) => TcpStream::connect_timeout(address, PATIENCE).map(drop),
            Self::Read(path) => fs::read(path).map(drop),
            Self::Write(path) => fs::OpenOptions::new().append(true).create(true).open(path).map(drop),
            Self::Run(program) => {
                let quiet = || Stdio::null();
                Command::new(program).stdin(quiet()).stdout(quiet()).stderr(quiet()).status().map(drop)
            }
            Self::Signal(pid) => {
                let pid = i32::try_from(*pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
                Ok(test_kill_process(pid)?)
            }
        }
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(address) => write!(f, "connect:{address}"),
            Self::Read(path) => write!(f, "read:{}", path.display()),
            Self::Write(path) => write!(f, "write:{}", path.display()),
            Self::Run(program) => write!(f, "run:{}", program.display()),
            Self::Signal(pid) => write!(f, "signal:{pid}"),
        }
    }
}

/// An attempt that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("use connect:ADDRESS:PORT, read:FILE, write:FILE, run:PROGRAM or signal:PID")]
pub struct NoAttempt;

impl FromStr for Attempt {
    type Err = NoAttempt;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (what, whom) = text.split_once(':').ok_or(NoAttempt)?;
        Ok(match what {
            "connect" => Self::Connect(whom.parse().map_err(|_| NoAttempt)?),
            "read" => Self::Read(whom.into()),
            "write" => Self::Write(whom.into()),
            "run" => Self::Run(whom.into()),
            "signal" => Self::Signal(whom.parse().map_err(|_| NoAttempt)?),
            _ => return Err(NoAttempt),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_reads_as_it_is_written() {
        for text in ["connect:127.0.0.1:9", "read:/etc/passwd", "write:/tmp/x", "run:/bin/true", "signal:1"] {
            assert_eq!(text.parse::<Attempt>().unwrap().to_string(), text);
        }
        for text in ["", "read", "connect:there", "signal:-1", "eat:/bin/true"] {
            assert_eq!(text.parse::<Attempt>(), Err(NoAttempt));
        }
    }

    #[test]
    fn an_attempt_tells_how_it_went() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        assert!(Attempt::Read(file.clone()).make().is_err());
        assert!(Attempt::Write(file.clone()).make().is_ok());
        assert!(Attempt::Read(file).make().is_ok());
        assert!(Attempt::Run("/bin/false".into()).make().is_ok());
        assert!(Attempt::Run("/no/such/program".into()).make().is_err());
        assert!(Attempt::Signal(std::process::id()).make().is_ok());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(Attempt::Connect(listener.local_addr().unwrap()).make().is_ok());
    }
}
