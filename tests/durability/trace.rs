//! System calls of a program, as `strace` saw them.

use std::{
    collections::HashMap,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The calls that put bytes somewhere, and those that have them put on disk.
const CALLS: &str = "trace=write,writev,pwrite64,pwritev,sendto,sendmsg,fsync,fdatasync";

/// One call that succeeded.
#[derive(Debug)]
pub struct Call {
    pub name: String,
    /// What it was called with: the descriptor with its path first, all bytes in hex (`\x61`).
    pub arguments: String,
    /// The line in which it began, and that in which it had returned.
    pub began: usize,
    pub returned: usize,
}

impl Call {
    /// Whether the descriptor's path (or kind of socket) contains `text`.
    pub fn is_to(&self, text: &str) -> bool {
        self.target().contains(text) || self.target().contains(&escaped(text.as_bytes()))
    }

    /// Whether the descriptor's path ends with `text`.
    pub fn is_to_end(&self, text: &str) -> bool {
        self.target().ends_with(text) || self.target().ends_with(&escaped(text.as_bytes()))
    }

    /// Whether these bytes are among those written.
    pub fn carries(&self, bytes: &[u8]) -> bool {
        self.arguments.contains(&escaped(bytes))
    }

    /// What stands behind the descriptor's number.
    fn target(&self) -> &str {
        let target = self.arguments.split_once('<').map_or("", |(_, rest)| rest);
        // The arrow between the two ends of a connection is no end.
        let end = target.match_indices('>').find(|(at, _)| !target[..*at].ends_with('-')).map_or(0, |(at, _)| at);
        &target[..end]
    }

    pub fn is_sync(&self) -> bool {
        matches!(self.name.as_str(), "fsync" | "fdatasync")
    }
}

/// As strace prints bytes in hex; it depends on its version whether paths are printed so as well.
fn escaped(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect()
}

/// A trace in the making.
pub struct Strace {
    output: PathBuf,
}

impl Strace {
    pub fn to(folder: &Path) -> Self {
        Self { output: folder.join("strace.log") }
    }

    /// The command that runs `program` under it.
    pub fn around(&self, program: &Command) -> Command {
        // Every thread and child, descriptors with paths, whole buffers in hex.
        let mut command = Command::new("strace");
        let options: [OsString; 9] = ["-f", "-q", "-yy", "-xx", "-s", "65536", "-e", CALLS, "-o"].map(OsString::from);
        command.args(options).arg(&self.output).arg(program.get_program()).args(program.get_args());
        for (name, value) in program.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command
    }

    /// The calls that have returned, in the order in which they began.
    pub fn read(&self) -> Vec<Call> {
        let text = fs::read_to_string(&self.output).expect("strace wrote nothing; install it with scripts/setup.sh --tests");
        let mut unfinished: HashMap<&str, (String, usize)> = HashMap::new();
        let mut calls = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let Some((pid, call)) = line.split_once(char::is_whitespace) else { continue };
            let call = call.trim_start();
            if let Some(begun) = call.strip_suffix(" <unfinished ...>") {
                unfinished.insert(pid, (begun.to_owned(), at));
            } else if call.starts_with("<... ") {
                let Some((begun, began)) = unfinished.remove(pid) else { continue };
                let rest = call.split_once(" resumed>").map_or("", |(_, rest)| rest);
                calls.extend(parsed(&format!("{begun}{rest}"), began, at));
            } else {
                calls.extend(parsed(call, at, at));
            }
        }
        calls.sort_by_key(|call| call.began);
        calls
    }
}

fn parsed(text: &str, began: usize, returned: usize) -> Option<Call> {
    let (name, rest) = text.split_once('(')?;
    let (arguments, result) = rest
        .rsplit_once(") = ")
        .or_else(|| rest.rsplit_once(')').map(|(arguments, rest)| (arguments, rest.trim_start_matches([' ', '=']))))?;
    let succeeded = !result.trim_start().starts_with('-');
    succeeded.then(|| Call { name: name.to_owned(), arguments: arguments.to_owned(), began, returned })
}
