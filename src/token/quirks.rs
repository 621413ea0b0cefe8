//! What modules do differently from what the standard lets one hope for: the table, and what the configuration may say otherwise.
//!
//! Each row names where the behaviour was seen. A module that is not in the table has no quirks until the configuration gives it some.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How a loaded module describes itself (`C_GetInfo`).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LibraryInfo {
    /// `CK_INFO.manufacturerID`, without padding.
    pub manufacturer: String,
    /// `CK_INFO.libraryDescription`, without padding.
    pub description: String,
}

/// How a module is to be treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quirks {
    /// It lists tokens that come after `C_Initialize`. One that does not is started again while a token is missed.
    pub sees_new_tokens: bool,
    /// Its sessions end when they are idle for longer than this; they are used a little before that.
    pub idle_limit: Option<Duration>,
    /// It wants this pause between opening a session and the first login.
    pub settle: Duration,
    /// A signature waits for a person (a touch button), so the watchdog gives it a person's time.
    pub waits_for_touch: bool,
    /// It cannot take calls from several threads: all its slots share one.
    pub one_thread: bool,
}

impl Quirks {
    /// A module without quirks.
    pub const NONE: Self =
        Self { sees_new_tokens: true, idle_limit: None, settle: Duration::ZERO, waits_for_touch: false, one_thread: false };
}

/// What the configuration says of a module; what it does not say is taken from the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct QuirkSettings {
    /// See [`Quirks::sees_new_tokens`].
    pub sees_new_tokens: Option<bool>,
    /// See [`Quirks::idle_limit`].
    pub idle_limit: Option<Duration>,
    /// See [`Quirks::settle`].
    pub settle: Option<Duration>,
    /// See [`Quirks::waits_for_touch`].
    pub waits_for_touch: Option<bool>,
    /// See [`Quirks::one_thread`].
    pub one_thread: Option<bool>,
}

/// A word of the library's description or manufacturer, and the quirks that go with it.
const TABLE: [(&str, Quirks); 3] = [
    // SoftHSM 2.6.1: its list of tokens is that of C_Initialize; a token directory that was moved away and back stays lost.
    ("SoftHSM", Quirks { sees_new_tokens: false, ..Quirks::NONE }),
    // p11-kit 0.24.1, p11-kit-client.so: without its server at C_Initialize it has no slots, for ever. It calls itself so only then.
    ("p11-kit", Quirks { sees_new_tokens: false, ..Quirks::NONE }),
    ("PKCS#11 Kit", Quirks { sees_new_tokens: false, ..Quirks::NONE }),
];

/// The quirks of a module: those of the table, overruled by the configuration.
#[must_use]
pub fn quirks_of(library: &LibraryInfo, settings: &QuirkSettings) -> Quirks {
    let named = |(word, _): &&(&str, Quirks)| library.manufacturer.contains(word) || library.description.contains(word);
    let known = TABLE.iter().find(named).map_or(Quirks::NONE, |(_, quirks)| *quirks);
    Quirks {
        sees_new_tokens: settings.sees_new_tokens.unwrap_or(known.sees_new_tokens),
        idle_limit: settings.idle_limit.or(known.idle_limit),
        settle: settings.settle.unwrap_or(known.settle),
        waits_for_touch: settings.waits_for_touch.unwrap_or(known.waits_for_touch),
        one_thread: settings.one_thread.unwrap_or(known.one_thread),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_overrules_the_table() {
        let softhsm = LibraryInfo { manufacturer: "SoftHSM".to_owned(), description: "Implementation of PKCS11".to_owned() };
        assert!(!quirks_of(&softhsm, &QuirkSettings::default()).sees_new_tokens);
        let settings = QuirkSettings { sees_new_tokens: Some(true), ..QuirkSettings::default() };
        assert!(quirks_of(&softhsm, &settings).sees_new_tokens);
        assert_eq!(quirks_of(&LibraryInfo::default(), &QuirkSettings::default()), Quirks::NONE);
    }
}
