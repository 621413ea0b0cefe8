//! Marks: which signatures a slot has begun, kept where a crash of this process does not reach.
//!
//! Before `C_Sign` the slot's thread writes the command's mark into a small file, a ring of the last ones. It is not synced: what a killed
//! process has written is in the system's page cache, and after a power loss nobody believes it. Invariants: a mark stands in the file before
//! its `C_Sign` is entered; a slot that cannot write its marks removes the file, and nothing is concluded from a file that is not there; while
//! a module's process lives, which may yet write marks although its gateway has gone, it holds a lock that [`Settled::wait`] waits for.

use std::{
    collections::HashSet,
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use tracing::error;
use uuid::Uuid;

use crate::domain::{algorithm::HashAlgorithm, hash::digest, token::TokenIdentity};

/// Marks in the ring: more than a slot has claimed at any time.
const RING: u64 = 128;
/// A mark: its number (big endian, from 1; 0 for none), and its 16 bytes.
const ENTRY: usize = 24;
/// What every process that may write marks has locked.
const LOCK: &str = ".lock";
/// How often it is looked whether the last of them has gone.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Held by a process that may write marks: until it ends, nobody takes what stands in the files for all there is.
#[derive(Debug)]
pub(super) struct Writing(#[allow(dead_code, reason = "held for its lock")] File);

impl Writing {
    /// Joins those that may write marks in `dir`.
    pub(super) fn join(dir: &Path) -> io::Result<Self> {
        let file = lock_file(dir)?;
        file.try_lock_shared().map_err(io::Error::from)?;
        Ok(Self(file))
    }
}

/// Nobody writes marks: the processes that did have ended. Nobody can begin to while this is held.
#[derive(Debug)]
pub struct Settled(#[allow(dead_code, reason = "held for its lock")] File);

impl Settled {
    /// Waits until nobody may write marks in `dir` any more, at most `bound`; `None` if somebody still may. Blocks.
    ///
    /// # Errors
    /// The folder cannot be made or locked.
    pub fn wait(dir: &Path, bound: Duration) -> io::Result<Option<Self>> {
        let (file, until) = (lock_file(dir)?, Instant::now() + bound);
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Some(Self(file))),
                Err(TryLockError::WouldBlock) if Instant::now() < until => thread::sleep(LOOK_EVERY),
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
    }

    /// Removes all marks of `dir`: after a power loss they are whatever the disk has kept of them.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub fn clear(&self, dir: &Path) -> io::Result<()> {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_name() != LOCK {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

fn lock_file(dir: &Path) -> io::Result<File> {
    make_folder(dir)?;
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(dir.join(LOCK))
}

/// The marks of one slot's thread.
pub struct Marks {
    path: PathBuf,
    file: File,
    last: u64,
}

impl Marks {
    /// Opens the marks of `token` in `dir` and goes on after the last one. Blocks.
    ///
    /// # Errors
    /// The file cannot be made, read or written.
    pub fn open(dir: &Path, token: &TokenIdentity) -> io::Result<Self> {
        make_folder(dir)?;
        let path = path_of(dir, token);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path)?;
        // Written through once, so that no later write can find the disk full.
        let mut ring = vec![0; ENTRY * RING as usize];
        let len = file.read_at(&mut ring, 0)?;
        file.write_all_at(&ring[len..], len as u64)?;
        let last = entries(&ring).map(|(number, _)| number).max().unwrap_or(0);
        Ok(Self { path, file, last })
    }

    /// Notes that the signature with this mark is begun. Blocks for a write into the page cache: a microsecond.
    ///
    /// # Errors
    /// It could not be written: whoever holds the marks gives them up then.
    pub fn note(&mut self, mark: Uuid) -> io::Result<()> {
        self.last += 1;
        let mut entry = [0; ENTRY];
        entry[..8].copy_from_slice(&self.last.to_be_bytes());
        entry[8..].copy_from_slice(mark.as_bytes());
        let place = (self.last % RING) * ENTRY as u64;
        self.file.write_all_at(&entry, place)
    }

    /// Gives up: without the file nobody concludes anything from it.
    pub(super) fn give_up(self, problem: &io::Error) {
        error!(error = %problem, "the beginning of a signature could not be noted in {}", self.path.display());
        if let Err(error) = fs::remove_file(&self.path) {
            error!(error = %error, "{} holds old marks and could not be removed", self.path.display());
        }
    }
}

/// Makes the folder of marks.
pub(super) fn make_folder(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// The marks of the last signatures that were begun on `token`; `None` if nothing is known of them.
#[must_use]
pub fn begun(dir: &Path, token: &TokenIdentity) -> Option<HashSet<Uuid>> {
    let ring = fs::read(path_of(dir, token)).ok()?;
    (ring.len() == ENTRY * RING as usize).then(|| entries(&ring).map(|(_, mark)| mark).collect())
}

fn entries(ring: &[u8]) -> impl Iterator<Item = (u64, Uuid)> + '_ {
    ring.chunks_exact(ENTRY).filter_map(|entry| {
        let number = u64::from_be_bytes(entry[..8].try_into().ok()?);
        (number > 0).then_some((number, Uuid::from_slice(&entry[8..]).ok()?))
    })
}

/// One file for one token, whatever is in its label.
fn path_of(dir: &Path, token: &TokenIdentity) -> PathBuf {
    let TokenIdentity { module, manufacturer, model, serial, label } = token;
    let name = [module.as_str(), manufacturer, model, serial, label].map(|part| format!("{}:{part}", part.len())).concat();
    dir.join(hex::encode(&digest(HashAlgorithm::Sha256, name.as_bytes()).as_bytes()[..16]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(serial: &str) -> TokenIdentity {
        let text = String::new;
        TokenIdentity { module: "m".parse().unwrap(), manufacturer: text(), model: text(), serial: serial.to_owned(), label: text() }
    }

    #[test]
    fn the_last_marks_are_found_by_whoever_comes_after() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (token("1"), token("2"));
        assert_eq!(begun(dir.path(), &one), None);
        let marks: Vec<_> = (0..300).map(|_| Uuid::new_v4()).collect();
        for part in marks.chunks(70) {
            let mut slot = Marks::open(dir.path(), &one).unwrap();
            part.iter().for_each(|mark| slot.note(*mark).unwrap());
        }
        let found = begun(dir.path(), &one).unwrap();
        assert_eq!(found, marks[300 - RING as usize..].iter().copied().collect());
        assert_eq!(begun(dir.path(), &other), None);
    }

    #[test]
    fn marks_are_settled_when_everybody_who_may_write_them_has_gone() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (Writing::join(dir.path()).unwrap(), Writing::join(dir.path()).unwrap());
        drop(one);
        assert!(Settled::wait(dir.path(), Duration::ZERO).unwrap().is_none());
        let waiting = thread::spawn({
            let dir = dir.path().to_owned();
            move || Settled::wait(&dir, Duration::from_secs(60)).unwrap()
        });
        drop(other);
        let settled = waiting.join().unwrap().expect("everybody has gone");
        assert!(Writing::join(dir.path()).is_err(), "nobody begins while they are judged");
        Marks::open(dir.path(), &token("1")).unwrap().note(Uuid::new_v4()).unwrap();
        settled.clear(dir.path()).unwrap();
        assert_eq!(begun(dir.path(), &token("1")), None);
        drop(settled);
        Writing::join(dir.path()).unwrap();
    }

    #[test]
    fn nothing_is_concluded_from_marks_that_could_not_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let mut marks = Marks::open(dir.path(), &token("1")).unwrap();
        marks.note(Uuid::new_v4()).unwrap();
        marks.give_up(&io::Error::other("disk gone"));
        assert_eq!(begun(dir.path(), &token("1")), None);
    }
}
