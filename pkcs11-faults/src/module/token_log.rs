//! Writing the token-side log. The format and what it promises are in [`crate::log`].
//!
//! Invariant: each line is one `write()` to a file that is open for appending, under a lock that is never held across a call into the real
//! module; so lines of several threads and processes never mix, and `seq` grows in the order of the file.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, Read, Write},
    path::Path,
    process,
    sync::{Mutex, PoisonError},
};

use rustix::time::{ClockId, clock_gettime};
use sha2::{Digest, Sha256};

use crate::log::{CallResult, Entry, Record, VERSION};

/// Random bytes before a PIN when it is hashed.
const SALT_LENGTH: usize = 16;

/// The log that this process writes.
#[derive(Debug)]
pub(super) struct TokenLog {
    end: Mutex<End>,
}

#[derive(Debug)]
struct End {
    file: File,
    seq: u64,
    /// The next line is the first of the file.
    is_first: bool,
}

/// What PINs are hashed with, so that equal ones can be told and no PIN be read.
#[derive(Debug, Clone)]
pub(super) struct Salt(Vec<u8>);

impl Salt {
    /// A new one.
    pub(super) fn random() -> io::Result<Self> {
        let mut salt = vec![0; SALT_LENGTH];
        File::open("/dev/urandom")?.read_exact(&mut salt)?;
        Ok(Self(salt))
    }

    /// The hash of a PIN, in hex.
    pub(super) fn hash(&self, pin: &[u8]) -> String {
        hex::encode(Sha256::new().chain_update(&self.0).chain_update(pin).finalize())
    }
}

impl TokenLog {
    /// Opens a log for appending, or begins it.
    pub(super) fn open(path: &Path) -> io::Result<(Self, Salt)> {
        let file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        file.lock()?;
        let mut first = String::new();
        BufReader::new(&file).read_line(&mut first)?;
        let log = Self { end: Mutex::new(End { file, seq: 0, is_first: first.is_empty() }) };
        let salt = if first.is_empty() { log.begin()? } else { salt_of(&first)? };
        log.lock().file.unlock()?;
        Ok((log, salt))
    }

    /// Appends a line, and tells its place.
    pub(super) fn write(&self, entry: Entry) -> io::Result<u64> {
        let mut end = self.lock();
        end.seq += 1;
        end.append(entry)
    }

    fn begin(&self) -> io::Result<Salt> {
        let salt = Salt::random()?;
        self.lock().append(Entry::Log { version: VERSION, salt: hex::encode(&salt.0) })?;
        Ok(salt)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, End> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl End {
    fn append(&mut self, entry: Entry) -> io::Result<u64> {
        let record = Record { pid: process::id(), seq: self.seq, at_ns: monotonic_ns(), entry };
        // After half a line of a killed process, too, this one begins a line.
        let mut line = if self.is_first { Vec::new() } else { vec![b'\n'] };
        self.is_first = false;
        serde_json::to_writer(&mut line, &record)?;
        if self.file.write(&line)? == line.len() { Ok(self.seq) } else { Err(io::ErrorKind::WriteZero.into()) }
    }
}

fn salt_of(first_line: &str) -> io::Result<Salt> {
    let salt = match serde_json::from_str(first_line) {
        Ok(Record { entry: Entry::Log { version: VERSION, salt }, .. }) => hex::decode(salt).ok(),
        _ => None,
    };
    salt.map(Salt).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it is no token-side log of this version"))
}

fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec)).unwrap_or_default()
}

/// What the log tells of one call; filled in as the call goes on.
#[derive(Debug)]
pub(super) enum Subject {
    Login(crate::log::Login),
    Signing(crate::log::Signing),
}

/// One call's lines.
#[derive(Debug)]
pub(super) struct Account<'a> {
    log: &'a TokenLog,
    subject: Subject,
    begin: Option<u64>,
    real_rv: Option<crate::rv::Rv>,
}

impl<'a> Account<'a> {
    pub(super) const fn new(log: &'a TokenLog, subject: Subject) -> Self {
        Self { log, subject, begin: None, real_rv: None }
    }

    /// Another PIN than the caller's is used.
    pub(super) fn set_pin(&mut self, hash: String) {
        if let Subject::Login(login) = &mut self.subject {
            login.pin = Some(hash);
        }
    }

    /// The real module is about to be called.
    pub(super) fn begin(&mut self) -> io::Result<()> {
        let entry = match &self.subject {
            Subject::Login(login) => Entry::LoginBegin { login: login.clone() },
            Subject::Signing(signing) => Entry::SignBegin { signing: signing.clone() },
        };
        self.begin = Some(self.log.write(entry)?);
        Ok(())
    }

    /// It has answered.
    pub(super) const fn reached(&mut self, rv: crate::rv::Rv) {
        self.real_rv = Some(rv);
    }

    /// What came of it. `rv` is `None` if the caller is not answered yet.
    pub(super) fn end(&self, rv: Option<crate::rv::Rv>, corrupted: bool) -> io::Result<u64> {
        let result = CallResult { begin: self.begin, real_rv: self.real_rv, rv };
        let signed = self.real_rv.is_some_and(crate::rv::Rv::is_ok);
        self.log.write(match &self.subject {
            Subject::Login(login) => Entry::Login { login: login.clone(), result },
            Subject::Signing(signing) => Entry::Sign { signing: signing.clone(), result, signed, corrupted: corrupted && signed },
        })
    }

    /// The caller is answered after all.
    pub(super) fn answer(&self, of: u64, rv: crate::rv::Rv) -> io::Result<()> {
        self.log.write(Entry::Answer { of, rv }).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{log::Log, rv::Rv};

    #[test]
    fn a_second_writer_goes_on_with_the_first_ones_salt() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let (first, salt) = TokenLog::open(&path).unwrap();
        let (second, same_salt) = TokenLog::open(&path).unwrap();
        assert_eq!(salt.hash(b"1234"), same_salt.hash(b"1234"));
        assert_ne!(salt.hash(b"1234"), salt.hash(b"1235"));
        first.write(Entry::Initialize { rv: Rv::OK }).unwrap();
        second.write(Entry::Finalize { rv: Rv::OK }).unwrap();
        let records = Log::read(&path).unwrap().records().iter().map(|record| record.seq).collect::<Vec<_>>();
        assert_eq!(records, [0, 1, 1]);
    }

    #[test]
    fn a_file_that_is_no_log_is_not_appended_to() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        std::fs::write(&path, "precious\n").unwrap();
        assert!(TokenLog::open(&path).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious\n");
    }
}
