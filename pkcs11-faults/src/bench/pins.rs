//! PIN tries, counted as a token counts them: across processes, and across their deaths.
//!
//! With a file, each change is one line appended with one `write()`, under a lock, so that several processes can share it and a killed one
//! loses nothing. The last line of a serial number counts. The file is not synced: it survives processes, not the machine.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::hotline::PinAction;

/// The tries of all tokens.
#[derive(Debug)]
pub(crate) enum PinTries {
    /// For as long as this process lives.
    InMemory(BTreeMap<String, u64>),
    /// In this file.
    InFile(PathBuf),
}

#[derive(Serialize, Deserialize)]
struct Line {
    serial: String,
    left: u64,
}

impl PinTries {
    /// Keeps them in the file, or in memory.
    pub(crate) fn kept(file: Option<&Path>) -> Self {
        file.map_or_else(|| Self::InMemory(BTreeMap::new()), |path| Self::InFile(path.to_owned()))
    }

    /// Takes the action for a token that has `tries` after a good login, and tells how many were left before it.
    pub(crate) fn act(&mut self, serial: &str, tries: u64, action: PinAction) -> io::Result<u64> {
        self.update(serial, tries, |left| match action {
            PinAction::Ask => left,
            PinAction::Spend => left.saturating_sub(1),
            PinAction::Refill => tries,
            PinAction::GiveBack => tries.min(left + 1),
        })
    }

    /// Sets how many are left.
    pub(crate) fn set(&mut self, serial: &str, left: u64) -> io::Result<()> {
        self.update(serial, left, |_| left).map(drop)
    }

    fn update(&mut self, serial: &str, at_first: u64, change: impl Fn(u64) -> u64) -> io::Result<u64> {
        match self {
            Self::InMemory(tries) => {
                let left = tries.get(serial).copied();
                tries.insert(serial.to_owned(), change(left.unwrap_or(at_first)));
                Ok(left.unwrap_or(at_first))
            }
            Self::InFile(path) => update_file(path, serial, at_first, change),
        }
    }

    /// All tokens have all their tries again.
    pub(crate) fn forget(&mut self) -> io::Result<()> {
        match self {
            Self::InMemory(tries) => {
                tries.clear();
                Ok(())
            }
            Self::InFile(path) => locked(path)?.set_len(0),
        }
    }
}

fn locked(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().create(true).read(true).append(true).open(path)?;
    file.lock()?;
    Ok(file)
}

fn update_file(path: &Path, serial: &str, at_first: u64, change: impl Fn(u64) -> u64) -> io::Result<u64> {
    let mut file = locked(path)?;
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    let mut latest_first = text.lines().rev().filter_map(|line| serde_json::from_str::<Line>(line).ok());
    let recorded = latest_first.find(|line| line.serial == serial).map(|line| line.left);
    let left = recorded.unwrap_or(at_first);
    let changed = change(left);
    if recorded != Some(changed) {
        // After half a line of a killed process, too, this one begins a line.
        let mut line = vec![b'\n'];
        serde_json::to_writer(&mut line, &Line { serial: serial.to_owned(), left: changed })?;
        file.write_all(&line)?;
    }
    Ok(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spends_refills_and_gives_back(mut tries: PinTries) {
        assert_eq!(tries.act("A", 3, PinAction::Ask).unwrap(), 3);
        for left in [3, 2, 1, 0, 0] {
            assert_eq!(tries.act("A", 3, PinAction::Spend).unwrap(), left);
        }
        assert_eq!(tries.act("B", 3, PinAction::Ask).unwrap(), 3);
        tries.act("A", 3, PinAction::Refill).unwrap();
        tries.act("A", 3, PinAction::GiveBack).unwrap();
        assert_eq!(tries.act("A", 3, PinAction::Ask).unwrap(), 3);
        tries.set("A", 1).unwrap();
        assert_eq!(tries.act("A", 3, PinAction::Ask).unwrap(), 1);
        tries.forget().unwrap();
        assert_eq!(tries.act("A", 3, PinAction::Ask).unwrap(), 3);
    }

    #[test]
    fn tries_in_memory_are_spent_refilled_and_given_back() {
        spends_refills_and_gives_back(PinTries::kept(None));
    }

    #[test]
    fn tries_in_a_file_are_spent_refilled_and_given_back() {
        let directory = tempfile::tempdir().unwrap();
        spends_refills_and_gives_back(PinTries::kept(Some(&directory.path().join("tries"))));
    }

    #[test]
    fn half_a_line_of_a_killed_process_spoils_neither_the_lines_before_nor_after() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tries");
        let mut tries = PinTries::kept(Some(&path));
        tries.act("A", 3, PinAction::Spend).unwrap();
        locked(&path).unwrap().write_all(b"\n{\"serial\":\"A\",").unwrap();
        assert_eq!(tries.act("A", 3, PinAction::Spend).unwrap(), 2);
        assert_eq!(tries.act("A", 3, PinAction::Ask).unwrap(), 1);
    }

    #[test]
    fn a_spent_try_is_seen_by_whoever_opens_the_file_next() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tries");
        PinTries::kept(Some(&path)).act("A", 3, PinAction::Spend).unwrap();
        assert_eq!(PinTries::kept(Some(&path)).act("A", 3, PinAction::Ask).unwrap(), 2);
    }
}
