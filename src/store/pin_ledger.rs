//! The record of PIN tries: what each token has rejected, and whether an attempt is under way.
//!
//! Rejected values are kept as HMAC-SHA-256 under a random secret in a file of its own, so the record says nothing about a PIN to anybody who
//! has not both. Invariants: looking and opening an attempt are one step under one mutex, so two slots of one card never try at once (nor two
//! tokens that may be one card for all that their serial numbers tell); with a directory, an attempt is on disk (synced) before its token is
//! touched, so neither crash nor restart forgets a rejection.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use aws_lc_rs::{hmac, rand};
use tracing::error;
use zeroize::Zeroizing;

use crate::domain::pin::{LedgerEntry, LedgerKey, LedgerRefusal, LoginAttempt, LoginVerdict, Pin, PinLedger, PinTag};

/// The record's file in its directory.
pub const LEDGER_FILE: &str = "pin-tries.json";
/// The file of the secret that the record's hashes are made with.
pub const SECRET_FILE: &str = "pin-tries.key";

const SECRET_LEN: usize = 32;

type Entries = BTreeMap<LedgerKey, LedgerEntry>;

/// A ledger in memory, or in a directory of the gateway's.
pub struct StoredPinLedger {
    secret: hmac::Key,
    state: Mutex<State>,
}

struct State {
    entries: Entries,
    /// What stands in the file; attempts that count against no limit are not worth a write.
    saved: Entries,
    directory: Option<PathBuf>,
}

/// Why the record of PIN tries cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// A file cannot be read or written.
    #[error("cannot use {path}: {cause}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// A file is not what was written.
    #[error("{0} is damaged; restore it, or remove it together with its neighbour if every rejected PIN may be tried once more")]
    Damaged(PathBuf),
    /// The system has no random numbers.
    #[error("the system has no random numbers")]
    NoRandomness,
}

/// How many PINs each token has rejected, as the record in `directory` has it; for looking only. Blocks on the file system.
///
/// # Errors
/// [`LedgerError::Io`], [`LedgerError::Damaged`].
pub fn rejections(directory: &Path) -> Result<BTreeMap<LedgerKey, usize>, LedgerError> {
    let entries = read_entries(&directory.join(LEDGER_FILE))?;
    Ok(entries.into_iter().map(|(token, entry)| (token, entry.rejected_count())).collect())
}

impl StoredPinLedger {
    /// Makes an empty ledger that forgets everything when the process ends.
    ///
    /// # Errors
    /// [`LedgerError::NoRandomness`].
    pub fn in_memory() -> Result<Self, LedgerError> {
        let state = State { entries: Entries::new(), saved: Entries::new(), directory: None };
        Ok(Self { secret: key_of(&*new_secret()?), state: Mutex::new(state) })
    }

    /// Opens the ledger in `directory`, or makes it. Blocks on the file system.
    ///
    /// # Errors
    /// [`LedgerError`]: without its record the gateway must not try PINs.
    pub fn open(directory: &Path) -> Result<Self, LedgerError> {
        let saved = read_entries(&directory.join(LEDGER_FILE))?;
        let secret = open_secret(&directory.join(SECRET_FILE), saved.is_empty())?;
        let state = State { entries: saved.clone(), saved, directory: Some(directory.to_owned()) };
        Ok(Self { secret: key_of(&*secret), state: Mutex::new(state) })
    }

    fn tag(&self, token: &LedgerKey, pin: &Pin) -> PinTag {
        let mut context = hmac::Context::with_key(&self.secret);
        // The token is part of it: equal PINs of two tokens must not look equal. Its length ends it.
        context.update(&(token.as_str().len() as u64).to_be_bytes());
        context.update(token.as_str().as_bytes());
        context.update(pin.reveal().as_bytes());
        let mut tag = [0; 32];
        tag.copy_from_slice(context.sign().as_ref());
        PinTag(tag)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PinLedger for StoredPinLedger {
    fn begin(&self, attempt: &LoginAttempt<'_>) -> Result<(), LedgerRefusal> {
        let tag = self.tag(&attempt.token, attempt.pin);
        let mut state = self.state();
        for (kin, entry) in state.kin_of(&attempt.token) {
            entry.allows_kin(&self.tag(kin, attempt.pin), attempt.origin, attempt.known_good, attempt.instance)?;
        }
        let before = state.entries.get(&attempt.token).cloned();
        let entry = state.entries.entry(attempt.token.clone()).or_default();
        if attempt.known_good {
            return entry.begin_known_good(&tag, attempt.instance);
        }
        let allowed = entry.begin(&tag, attempt.origin, attempt.instance);
        if let Err(cause) = state.save() {
            error!(error = %cause, "the record of PIN tries cannot be written, so no PIN is tried");
            state.put(&attempt.token, before);
            return Err(LedgerRefusal::Unavailable(cause.to_string()));
        }
        allowed
    }

    fn end(&self, attempt: &LoginAttempt<'_>, verdict: LoginVerdict) {
        let tag = self.tag(&attempt.token, attempt.pin);
        let mut state = self.state();
        state.entries.entry(attempt.token.clone()).or_default().end(&tag, verdict);
        // If this fails the attempt stays open on disk, which is the safe side: after a restart it counts as cut off.
        if let Err(cause) = state.save() {
            error!(error = %cause, "the end of a login could not be recorded");
        }
    }

    fn forget(&self, token: &LedgerKey) {
        let mut state = self.state();
        let kin: Vec<LedgerKey> = state.kin_of(token).map(|(kin, _)| kin.clone()).collect();
        kin.iter().chain([token]).for_each(|token| state.put(token, None));
        if let Err(cause) = state.save() {
            error!(error = %cause, "what a token had rejected could not be forgotten for good");
        }
    }
}

impl State {
    /// What is known of tokens that may be this one under another name.
    fn kin_of(&self, token: &LedgerKey) -> impl Iterator<Item = (&LedgerKey, &LedgerEntry)> {
        self.entries.iter().filter(|(other, _)| token.may_share_a_counter_with(other))
    }

    fn put(&mut self, token: &LedgerKey, entry: Option<LedgerEntry>) {
        match entry {
            Some(entry) => drop(self.entries.insert(token.clone(), entry)),
            None => drop(self.entries.remove(token)),
        }
    }

    /// Brings the file up to date: whole, synced, in one rename.
    fn save(&mut self) -> Result<(), LedgerError> {
        let Some(directory) = self.directory.as_ref().filter(|_| self.entries != self.saved) else { return Ok(()) };
        let path = directory.join(LEDGER_FILE);
        let at = |cause| LedgerError::Io { path: path.clone(), cause };
        let text = serde_json::to_vec(&self.entries).map_err(|error| at(error.into()))?;
        write_whole(directory, &path, &text).map_err(at)?;
        self.saved.clone_from(&self.entries);
        Ok(())
    }
}

fn key_of(secret: &[u8]) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, secret)
}

fn new_secret() -> Result<Zeroizing<[u8; SECRET_LEN]>, LedgerError> {
    let mut secret = Zeroizing::new([0; SECRET_LEN]);
    rand::fill(&mut *secret).map_err(|_| LedgerError::NoRandomness)?;
    Ok(secret)
}

/// Reads the secret; makes one only if there is nothing yet that was hashed with another.
fn open_secret(path: &Path, may_make: bool) -> Result<Zeroizing<[u8; SECRET_LEN]>, LedgerError> {
    if let Some(text) = read(path)? {
        let mut secret = Zeroizing::new([0; SECRET_LEN]);
        hex::decode_to_slice(text.trim_ascii_end(), &mut *secret).map_err(|_| LedgerError::Damaged(path.to_owned()))?;
        return Ok(secret);
    }
    if !may_make {
        return Err(LedgerError::Damaged(path.to_owned()));
    }
    let secret = new_secret()?;
    let directory = path.parent().unwrap_or(Path::new("."));
    let text = Zeroizing::new(hex::encode(*secret) + "\n");
    write_whole(directory, path, text.as_bytes()).map_err(|cause| LedgerError::Io { path: path.to_owned(), cause })?;
    Ok(secret)
}

fn read_entries(path: &Path) -> Result<Entries, LedgerError> {
    match read(path)? {
        Some(text) => serde_json::from_slice(&text).map_err(|_| LedgerError::Damaged(path.to_owned())),
        None => Ok(Entries::new()),
    }
}

fn read(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, LedgerError> {
    match fs::read(path) {
        Ok(text) => Ok(Some(Zeroizing::new(text))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(LedgerError::Io { path: path.to_owned(), cause }),
    }
}

fn write_whole(directory: &Path, path: &Path, text: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{
        pin::{LedgerInstance, PinOrigin},
        token::TokenIdentity,
    };

    fn token(serial: &str) -> LedgerKey {
        let text = |text: &str| text.to_owned();
        LedgerKey::of(&TokenIdentity {
            module: "softhsm".parse().unwrap(),
            manufacturer: text("SoftHSM project"),
            model: text("SoftHSM v2"),
            serial: text(serial),
            label: text("one"),
        })
    }

    fn attempt<'a>(pin: &'a Pin, serial: &str, origin: PinOrigin) -> LoginAttempt<'a> {
        LoginAttempt { token: token(serial), pin, origin, known_good: false, instance: LedgerInstance(1) }
    }

    fn pin(text: &str) -> Pin {
        Pin::new(text.to_owned()).unwrap()
    }

    #[test]
    fn a_rejected_pin_is_refused_for_its_token_only_until_an_operator_clears_it() {
        let ledger = StoredPinLedger::in_memory().unwrap();
        let wrong = pin("0000");
        ledger.begin(&attempt(&wrong, "a", PinOrigin::Configured)).unwrap();
        ledger.end(&attempt(&wrong, "a", PinOrigin::Configured), LoginVerdict::Rejected);
        assert_eq!(ledger.begin(&attempt(&wrong, "a", PinOrigin::Configured)), Err(LedgerRefusal::RejectedBefore));
        assert_eq!(ledger.begin(&attempt(&wrong, "b", PinOrigin::Configured)), Ok(()));
        ledger.forget(&token("a"));
        assert_eq!(ledger.begin(&attempt(&wrong, "a", PinOrigin::Configured)), Ok(()));
    }

    #[test]
    fn of_many_threads_that_try_at_once_one_may() {
        let ledger = StoredPinLedger::in_memory().unwrap();
        let (barrier, ledger) = (&std::sync::Barrier::new(8), &ledger);
        let allowed = std::thread::scope(|scope| {
            let tries: Vec<_> = (0..8)
                .map(|n| {
                    scope.spawn(move || {
                        let pin = pin(&format!("{n:04}"));
                        barrier.wait();
                        ledger.begin(&attempt(&pin, "a", PinOrigin::Operator { insist: false })).is_ok()
                    })
                })
                .collect();
            tries.into_iter().map(|tried| tried.join().unwrap()).filter(|allowed| *allowed).count()
        });
        assert_eq!(allowed, 1);
    }

    #[test]
    fn the_same_pin_looks_different_on_two_tokens_and_in_two_runs() {
        let (one, other) = (StoredPinLedger::in_memory().unwrap(), StoredPinLedger::in_memory().unwrap());
        let pin = pin("1234");
        assert_eq!(one.tag(&token("a"), &pin), one.tag(&token("a"), &pin));
        assert_ne!(one.tag(&token("a"), &pin), one.tag(&token("b"), &pin));
        assert_ne!(one.tag(&token("a"), &pin), other.tag(&token("a"), &pin));
    }

    #[test]
    fn a_card_with_a_blank_serial_and_two_slots_spends_one_try_on_a_wrong_pin() {
        let ledger = StoredPinLedger::in_memory().unwrap();
        let slot = |label: &str| {
            let text = |text: &str| text.to_owned();
            let (manufacturer, model) = (text("OpenPGP project"), text("PKCS#15 emulated"));
            let module = "opensc".parse().unwrap();
            LedgerKey::of(&TokenIdentity { module, manufacturer, model, serial: "0".repeat(12), label: text(label) })
        };
        let (wrong, other) = (pin("0000"), pin("1111"));
        let attempt = |label, pin, origin| LoginAttempt { token: slot(label), ..attempt(pin, "", origin) };
        ledger.begin(&attempt("User PIN", &wrong, PinOrigin::Request)).unwrap();
        assert_eq!(ledger.begin(&attempt("User PIN (sig)", &other, PinOrigin::Request)), Err(LedgerRefusal::UnderWay));
        ledger.end(&attempt("User PIN", &wrong, PinOrigin::Request), LoginVerdict::Rejected);
        assert_eq!(ledger.begin(&attempt("User PIN (sig)", &wrong, PinOrigin::Configured)), Err(LedgerRefusal::RejectedBefore));
        assert_eq!(ledger.begin(&attempt("User PIN (sig)", &other, PinOrigin::Request)), Err(LedgerRefusal::TrySpent));
        // Another token that only looks like it goes on with the PIN that logged it in.
        let good = LoginAttempt { known_good: true, ..attempt("another card", &wrong, PinOrigin::Request) };
        assert_eq!(ledger.begin(&good), Ok(()));
        ledger.end(&good, LoginVerdict::Accepted);
        assert_eq!(
            ledger.begin(&attempt("User PIN", &other, PinOrigin::Request)),
            Err(LedgerRefusal::TrySpent),
            "its login gives nothing back"
        );
        ledger.forget(&slot("User PIN (sig)"));
        assert_eq!(ledger.begin(&attempt("User PIN", &wrong, PinOrigin::Configured)), Ok(()));
    }

    fn rejected(ledger: &StoredPinLedger, wrong: &Pin) {
        ledger.begin(&attempt(wrong, "a", PinOrigin::Configured)).unwrap();
        ledger.end(&attempt(wrong, "a", PinOrigin::Configured), LoginVerdict::Rejected);
    }

    #[test]
    fn a_rejection_is_remembered_after_a_restart_and_the_pin_stands_nowhere() {
        let directory = tempfile::tempdir().unwrap();
        let wrong = pin("73155");
        rejected(&StoredPinLedger::open(directory.path()).unwrap(), &wrong);
        let again = StoredPinLedger::open(directory.path()).unwrap();
        assert_eq!(rejections(directory.path()).unwrap(), BTreeMap::from([(token("a"), 1)]));
        assert_eq!(again.begin(&attempt(&wrong, "a", PinOrigin::Configured)), Err(LedgerRefusal::RejectedBefore));
        for file in [LEDGER_FILE, SECRET_FILE] {
            let path = directory.path().join(file);
            assert!(!fs::read_to_string(&path).unwrap().contains("73155"));
            assert_eq!(std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions()) & 0o777, 0o600);
        }
    }

    #[test]
    fn an_attempt_is_on_disk_before_it_is_allowed() {
        let directory = tempfile::tempdir().unwrap();
        let ledger = StoredPinLedger::open(directory.path()).unwrap();
        ledger.begin(&attempt(&pin("1"), "a", PinOrigin::Request)).unwrap();
        // A crash now: the next run finds the attempt and takes a request's try as spent.
        let next = StoredPinLedger::open(directory.path()).unwrap();
        let other = pin("2");
        let later = LoginAttempt { instance: LedgerInstance(2), ..attempt(&other, "a", PinOrigin::Request) };
        assert_eq!(next.begin(&later), Err(LedgerRefusal::TrySpent));
    }

    #[test]
    fn without_a_place_to_write_no_pin_is_tried() {
        let directory = tempfile::tempdir().unwrap();
        let ledger = StoredPinLedger::open(directory.path()).unwrap();
        directory.close().unwrap();
        let refusal = ledger.begin(&attempt(&pin("1"), "a", PinOrigin::Configured)).unwrap_err();
        assert!(matches!(refusal, LedgerRefusal::Unavailable(_)), "{refusal}");
    }

    #[test]
    fn a_damaged_record_or_a_lost_secret_is_an_error_and_not_a_fresh_start() {
        let directory = tempfile::tempdir().unwrap();
        rejected(&StoredPinLedger::open(directory.path()).unwrap(), &pin("1"));
        fs::remove_file(directory.path().join(SECRET_FILE)).unwrap();
        assert!(matches!(StoredPinLedger::open(directory.path()), Err(LedgerError::Damaged(_))));
        fs::write(directory.path().join(LEDGER_FILE), "{").unwrap();
        assert!(matches!(StoredPinLedger::open(directory.path()), Err(LedgerError::Damaged(_))));
    }
}
