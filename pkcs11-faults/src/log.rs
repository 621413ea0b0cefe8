//! The token-side log: what the module was asked to log in and to sign, and what the real module did. Tests take it as the truth.
//!
//! One JSON object a line, appended with one `write()` each, before the call goes on. A `…_begin` line says that the real module is about to
//! be called, the line without `_begin` what came of it; so a process that dies at any moment leaves behind what its token did, or that
//! nobody can know. SIGKILL may cut a `write()` short where the line crosses a page (seen on ext4 under load), so each line brings the newline
//! *before* it, and half a line is left out: what it would have told has not happened yet, or is unknown. Nothing is synced: the log survives
//! processes, not the machine.

use std::{collections::BTreeMap, fs, io, path::Path};

use serde::{Deserialize, Serialize};

use crate::{attempt::Attempt, function::Function, rv::Rv};

/// Version of the format.
pub const VERSION: u32 = 1;
/// Data given to `C_Sign` is written out in hex up to this many bytes; a digest, a DigestInfo and small messages are shorter.
pub const DATA_MAX: usize = 128;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The process that wrote it.
    pub pid: u32,
    /// Its place among the lines of that process, from 1; the first line of a file has 0.
    pub seq: u64,
    /// Nanoseconds of the system's monotonic clock, the same for all processes of a machine.
    pub at_ns: u64,
    /// What it tells.
    #[serde(flatten)]
    pub entry: Entry,
}

/// What a line tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Entry {
    /// The first line of a file.
    Log {
        /// [`VERSION`].
        version: u32,
        /// What PINs were salted with, in hex.
        salt: String,
    },
    /// A module was initialised, or not.
    Initialize {
        /// What `C_Initialize` answered.
        rv: Rv,
    },
    /// A module was finalised, or not.
    Finalize {
        /// What `C_Finalize` answered.
        rv: Rv,
    },
    /// The real module's `C_Login` is about to be called.
    LoginBegin {
        /// The call.
        #[serde(flatten)]
        login: Login,
    },
    /// What became of a `C_Login`.
    Login {
        /// The call.
        #[serde(flatten)]
        login: Login,
        /// What became of it.
        #[serde(flatten)]
        result: CallResult,
    },
    /// The real module's signing function is about to be called.
    SignBegin {
        /// The call.
        #[serde(flatten)]
        signing: Signing,
    },
    /// What became of a signing call.
    Sign {
        /// The call.
        #[serde(flatten)]
        signing: Signing,
        /// What became of it.
        #[serde(flatten)]
        result: CallResult,
        /// The real module made a signature.
        signed: bool,
        /// A bit of it was flipped.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        corrupted: bool,
    },
    /// A call whose line had no `rv` yet, because a fault held it after the real module had answered, has been answered after all.
    Answer {
        /// `seq` of that line, of the same process.
        of: u64,
        /// The answer.
        rv: Rv,
    },
    /// The module's process tried something that has nothing to do with its token.
    Attempt {
        /// What.
        attempt: Attempt,
        /// Why it failed; `None` if it worked.
        error: Option<String>,
    },
}

/// A `C_Login`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Login {
    /// The session, as the caller knows it.
    pub session: u64,
    /// Serial number of its token.
    pub token: Option<String>,
    /// Who logs in.
    pub user: User,
    /// SHA-256 of salt and PIN, in hex, so that the same PIN is seen to be the same; `None` for the null PIN of a PIN pad.
    pub pin: Option<String>,
}

/// Who logs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum User {
    /// `CKU_SO`.
    So,
    /// `CKU_USER`.
    User,
    /// `CKU_CONTEXT_SPECIFIC`.
    ContextSpecific,
    /// Another number.
    #[serde(untagged)]
    Other(u64),
}

/// A call that signs: `C_Sign`, `C_SignFinal` or `C_SignRecover`, but not one that only asks for a length.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signing {
    /// Which of them.
    pub function: Function,
    /// The session, as the caller knows it.
    pub session: u64,
    /// Serial number of its token.
    pub token: Option<String>,
    /// The key's `CKA_ID` in hex, if the token told it.
    pub key_id: Option<String>,
    /// The mechanism of `C_SignInit`, `CKM_…`, as a number; `None` if there was no (successful) `C_SignInit`.
    pub mechanism: Option<u64>,
    /// What was to be signed, in hex, if it is one piece of at most [`DATA_MAX`] bytes. For mechanisms that do not hash it is the digest.
    pub data: Option<String>,
    /// SHA-256 of what was to be signed, in hex.
    pub data_sha256: String,
}

/// What became of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallResult {
    /// `seq` of the call's `…_begin` line; `None` if the real module was not called.
    pub begin: Option<u64>,
    /// What the real module answered.
    pub real_rv: Option<Rv>,
    /// What the caller is answered; `None` if a fault holds or kills the call after the real module's answer.
    pub rv: Option<Rv>,
}

/// Whether a signature was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// The real module made one, whatever the caller was told.
    Signed,
    /// It made none.
    NotSigned,
    /// The process died in the real module.
    Unknown,
}

/// One signing call, of all its lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningCall {
    /// The process.
    pub pid: u32,
    /// When its last line was written, in nanoseconds of the monotonic clock.
    pub at_ns: u64,
    /// The call.
    pub signing: Signing,
    /// Whether it made a signature.
    pub outcome: Outcome,
    /// What the real module answered.
    pub real_rv: Option<Rv>,
    /// What the caller was answered; `None` if it never was.
    pub rv: Option<Rv>,
    /// A bit of the signature was flipped.
    pub corrupted: bool,
}

/// One `C_Login`, of all its lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginCall {
    /// The process.
    pub pid: u32,
    /// When its last line was written, in nanoseconds of the monotonic clock.
    pub at_ns: u64,
    /// The call.
    pub login: Login,
    /// The PIN was given to the real module, or was about to be. A locked PIN, an injected error or a dead session spares it that.
    pub reached_token: bool,
    /// What the real module answered; `None` too if the process died in it.
    pub real_rv: Option<Rv>,
    /// What the caller was answered; `None` if it never was.
    pub rv: Option<Rv>,
}

/// A log that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    records: Vec<Record>,
}

/// Why a log cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The file cannot be read; there is none before the first `C_Initialize`.
    #[error("the token-side log cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    /// A line is whole, and not one of ours.
    #[error("line {number} of the token-side log is none: {reason}")]
    Line {
        /// From 1.
        number: usize,
        /// What is wrong with it.
        reason: String,
    },
}

impl Log {
    /// Reads a log. Lines that are still being written, or whose process died writing them, are left out.
    ///
    /// # Errors
    /// See [`LogError`].
    pub fn read(path: &Path) -> Result<Self, LogError> {
        Self::parse(&String::from_utf8_lossy(&fs::read(path)?))
    }

    fn parse(text: &str) -> Result<Self, LogError> {
        let parse = |(at, line)| match serde_json::from_str(line) {
            Ok(record) => Some(Ok(record)),
            Err(error) if error.is_eof() => None,
            Err(error) => Some(Err(LogError::Line { number: at + 1, reason: error.to_string() })),
        };
        Ok(Self { records: text.lines().enumerate().filter_map(parse).collect::<Result<_, _>>()? })
    }

    /// All lines, in the order in which they were written.
    #[must_use]
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// How the last attempt of this kind went: `Ok`, or why it failed; `None` if there was none.
    #[must_use]
    pub fn attempted(&self, wanted: &Attempt) -> Option<Result<(), String>> {
        let result = |record: &Record| match &record.entry {
            Entry::Attempt { attempt, error } if attempt == wanted => Some(error.clone().map_or(Ok(()), Err)),
            _ => None,
        };
        self.records.iter().rev().find_map(result)
    }

    /// All signing calls, in the order in which they were begun or refused.
    #[must_use]
    pub fn signings(&self) -> Vec<SigningCall> {
        let answers = self.answers();
        let ended = self.ended();
        let call = |record: &Record| match &record.entry {
            Entry::Sign { signing, result, signed, corrupted } => Some(SigningCall {
                pid: record.pid,
                at_ns: record.at_ns,
                signing: signing.clone(),
                outcome: if *signed { Outcome::Signed } else { Outcome::NotSigned },
                real_rv: result.real_rv,
                rv: result.rv.or_else(|| answers.get(&(record.pid, record.seq)).copied()),
                corrupted: *corrupted,
            }),
            Entry::SignBegin { signing } if !ended.contains_key(&(record.pid, record.seq)) => Some(SigningCall {
                pid: record.pid,
                at_ns: record.at_ns,
                signing: signing.clone(),
                outcome: Outcome::Unknown,
                real_rv: None,
                rv: None,
                corrupted: false,
            }),
            _ => None,
        };
        self.records.iter().filter_map(call).collect()
    }

    /// All logins, in the order in which they were begun or refused.
    #[must_use]
    pub fn logins(&self) -> Vec<LoginCall> {
        let answers = self.answers();
        let ended = self.ended();
        let call = |record: &Record| match &record.entry {
            Entry::Login { login, result } => Some(LoginCall {
                pid: record.pid,
                at_ns: record.at_ns,
                login: login.clone(),
                reached_token: result.begin.is_some(),
                real_rv: result.real_rv,
                rv: result.rv.or_else(|| answers.get(&(record.pid, record.seq)).copied()),
            }),
            Entry::LoginBegin { login } if !ended.contains_key(&(record.pid, record.seq)) => {
                Some(LoginCall { pid: record.pid, at_ns: record.at_ns, login: login.clone(), reached_token: true, real_rv: None, rv: None })
            }
            _ => None,
        };
        self.records.iter().filter_map(call).collect()
    }

    /// How many signatures were made on exactly this data.
    #[must_use]
    pub fn signatures_on(&self, data: &[u8]) -> usize {
        let wanted = sha256(data);
        self.signings().iter().filter(|call| call.outcome == Outcome::Signed && call.signing.data_sha256 == wanted).count()
    }

    /// How many tries a token's PIN has lost: wrong ones that the real module was given.
    #[must_use]
    pub fn wrong_pins(&self) -> usize {
        self.logins().iter().filter(|call| matches!(call.real_rv, Some(Rv::PIN_INCORRECT | Rv::PIN_LOCKED))).count()
    }

    fn answers(&self) -> BTreeMap<(u32, u64), Rv> {
        let answer = |record: &Record| match record.entry {
            Entry::Answer { of, rv } => Some(((record.pid, of), rv)),
            _ => None,
        };
        self.records.iter().filter_map(answer).collect()
    }

    /// The `…_begin` lines whose calls have another line, and the place of that line.
    fn ended(&self) -> BTreeMap<(u32, u64), u64> {
        let end = |record: &Record| match record.entry {
            Entry::Sign { result, .. } | Entry::Login { result, .. } => result.begin.map(|begin| ((record.pid, begin), record.seq)),
            _ => None,
        };
        self.records.iter().filter_map(end).collect()
    }
}

/// SHA-256 in hex, as the log has it.
#[must_use]
pub fn sha256(data: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    hex::encode(Sha256::digest(data))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signing(data: &[u8]) -> Signing {
        Signing {
            function: Function::C_Sign,
            session: 1,
            token: Some("S1".to_owned()),
            key_id: Some("01".to_owned()),
            mechanism: Some(0x1041),
            data: Some(hex::encode(data)),
            data_sha256: sha256(data),
        }
    }

    fn record(pid: u32, seq: u64, entry: Entry) -> Record {
        Record { pid, seq, at_ns: 1, entry }
    }

    fn signed(begin: u64, data: &[u8], rv: Option<Rv>) -> Entry {
        let result = CallResult { begin: Some(begin), real_rv: Some(Rv::OK), rv };
        Entry::Sign { signing: signing(data), result, signed: true, corrupted: false }
    }

    fn read_back(records: &[Record]) -> Log {
        let text: String = records.iter().map(|record| serde_json::to_string(record).unwrap() + "\n").collect();
        let log = Log::parse(&text).unwrap();
        assert_eq!(log.records(), records);
        log
    }

    #[test]
    fn a_call_that_was_begun_and_never_ended_is_unknown() {
        let log = read_back(&[record(7, 1, Entry::SignBegin { signing: signing(b"a") }), record(8, 1, signed(1, b"b", Some(Rv::OK)))]);
        let outcomes: Vec<Outcome> = log.signings().iter().map(|call| call.outcome).collect();
        assert_eq!(outcomes, [Outcome::Unknown, Outcome::Signed], "process 8 ended a call of its own, not that of process 7");
    }

    #[test]
    fn a_begun_and_ended_call_is_one_call_and_its_late_answer_belongs_to_it() {
        let log = read_back(&[
            record(7, 1, Entry::SignBegin { signing: signing(b"a") }),
            record(7, 2, signed(1, b"a", None)),
            record(7, 3, Entry::Answer { of: 2, rv: Rv::DEVICE_ERROR }),
        ]);
        let calls = log.signings();
        assert_eq!(calls.len(), 1);
        assert_eq!((calls[0].outcome, calls[0].rv), (Outcome::Signed, Some(Rv::DEVICE_ERROR)));
        assert_eq!((log.signatures_on(b"a"), log.signatures_on(b"b")), (1, 0));
    }

    #[test]
    fn wrong_pins_are_those_that_the_real_module_was_given() {
        let login = Login { session: 1, token: None, user: User::User, pin: Some("aa".to_owned()) };
        let refused = CallResult { begin: None, real_rv: None, rv: Some(Rv::PIN_LOCKED) };
        let wrong = CallResult { begin: Some(2), real_rv: Some(Rv::PIN_INCORRECT), rv: Some(Rv::PIN_INCORRECT) };
        let log = read_back(&[
            record(7, 1, Entry::Login { login: login.clone(), result: refused }),
            record(7, 2, Entry::LoginBegin { login: login.clone() }),
            record(7, 3, Entry::Login { login, result: wrong }),
        ]);
        assert_eq!(log.logins().iter().map(|call| call.reached_token).collect::<Vec<_>>(), [false, true]);
        assert_eq!(log.wrong_pins(), 1);
    }

    #[test]
    fn half_a_line_is_left_out_wherever_it_ends_and_a_wrong_one_is_an_error() {
        let whole = serde_json::to_string(&record(1, 1, signed(1, b"a", Some(Rv::OK)))).unwrap();
        for end in 0..whole.len() {
            let log = Log::parse(&format!("{whole}\n{}\n{whole}", &whole[..end])).unwrap();
            assert_eq!(log.records().len(), 2, "{}", &whole[..end]);
        }
        assert!(matches!(Log::parse("{\"pid\":1}\n"), Err(LogError::Line { number: 1, .. })));
        assert!(matches!(Log::parse(&format!("{whole}\nprecious\n")), Err(LogError::Line { number: 2, .. })));
    }
}
