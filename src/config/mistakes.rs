//! All the mistakes of a configuration file in one report.
//!
//! Each says where it stands (line, and path with entries counted from 1), what is wrong, and what to do. Sections note their mistakes here
//! and go on. Invariant: the report shows names and paths of the file, never the value of a PIN, an API key or a variable.

use std::{fmt, ops::Range, path::PathBuf, str::FromStr};

/// Where a piece of the file stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    line: usize,
    path: String,
}

impl Place {
    /// The place of the piece named `path` that begins at byte `start` of `text`.
    pub(super) fn new(text: &str, path: String, start: usize) -> Self {
        let line = text.bytes().take(start).filter(|&byte| byte == b'\n').count() + 1;
        Self { line, path }
    }

    /// The line on which `span` begins.
    pub(super) fn line_of(text: &str, span: Option<Range<usize>>) -> Self {
        Self::new(text, String::new(), span.map_or(0, |span| span.start))
    }
}

/// One mistake: its text says where it stands, what is wrong, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mistake {
    at: Place,
    what: String,
    file_fault: Option<FileFault>,
}

/// What is wrong with a file that the configuration names, where a command can mend it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum FileFault {
    /// Others than its owner can read this PIN file.
    PinExposed(PathBuf),
    /// There is no such PIN file.
    PinMissing(PathBuf),
    /// Anybody can read this private key of a listener.
    TlsKeyExposed(PathBuf),
    /// There is no such module.
    ModuleMissing(PathBuf),
}

impl Mistake {
    /// What is wrong with a file, if that is the mistake.
    #[must_use]
    pub const fn file_fault(&self) -> Option<&FileFault> {
        self.file_fault.as_ref()
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.at.line, self.at.path.as_str()) {
            (0, "") => f.write_str(&self.what),
            (0, path) => write!(f, "`{path}`: {}", self.what),
            (line, "") => write!(f, "line {line}: {}", self.what),
            (line, path) => write!(f, "line {line}, `{path}`: {}", self.what),
        }
    }
}

/// The mistakes found so far.
#[derive(Debug, Default)]
pub(super) struct Mistakes(Vec<Mistake>);

impl Mistakes {
    /// Notes a mistake in `field` (empty: the whole piece) of the piece at `at`.
    pub(super) fn note(&mut self, at: &Place, field: &str, what: impl Into<String>) {
        self.push(at, field, what.into(), None);
    }

    /// Notes that `field` names a file with which something is wrong.
    pub(super) fn note_file(&mut self, at: &Place, field: &str, what: impl Into<String>, fault: FileFault) {
        self.push(at, field, what.into(), Some(fault));
    }

    fn push(&mut self, at: &Place, field: &str, what: String, file_fault: Option<FileFault>) {
        let dot = if at.path.is_empty() || field.is_empty() { "" } else { "." };
        let path = format!("{}{dot}{field}", at.path);
        self.0.push(Mistake { at: Place { line: at.line, path }, what, file_fault });
    }

    /// Parses a field, or notes what its parser says and `hint`.
    pub(super) fn parse<T>(&mut self, at: &Place, field: &str, text: &str) -> Option<T>
    where
        T: FromStr,
        T::Err: fmt::Display,
    {
        text.parse().map_err(|error: T::Err| self.note(at, field, error.to_string())).ok()
    }

    /// Finds the choice named `text`, or notes what the choices are.
    pub(super) fn choose<T: Copy>(&mut self, at: &Place, field: &str, text: &str, choices: &[(&str, T)]) -> Option<T> {
        let chosen = choices.iter().find(|(name, _)| *name == text).map(|(_, choice)| *choice);
        if chosen.is_none() {
            let names: Vec<String> = choices.iter().map(|(name, _)| format!("`{name}`")).collect();
            self.note(at, field, format!("use one of {}", names.join(", ")));
        }
        chosen
    }

    /// Takes a number within bounds, or the default where none is written.
    pub(super) fn bounded(&mut self, at: &Place, field: &str, value: Option<u64>, default: u64, bounds: (u64, u64)) -> u64 {
        let (least, most) = bounds;
        let value = value.unwrap_or(default);
        if !(least..=most).contains(&value) {
            self.note(at, field, format!("use a number from {least} to {most}"));
        }
        value
    }

    /// Whether nothing was found.
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The report of what was found in `file`.
    pub(super) fn into_errors(mut self, file: PathBuf) -> ConfigErrors {
        self.0.sort();
        ConfigErrors { file, mistakes: self.0 }
    }
}

/// Every mistake of a configuration file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors {
    file: PathBuf,
    mistakes: Vec<Mistake>,
}

impl ConfigErrors {
    /// The mistakes, in the order of the file.
    #[must_use]
    pub fn mistakes(&self) -> &[Mistake] {
        &self.mistakes
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.mistakes.len();
        let noun = if count == 1 { "mistake" } else { "mistakes" };
        write!(f, "{} has {count} {noun}; nothing was started:", self.file.display())?;
        self.mistakes.iter().try_for_each(|mistake| write!(f, "\n  {mistake}"))
    }
}
