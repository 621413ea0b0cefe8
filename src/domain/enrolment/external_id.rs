//! The id that a client chooses for its certificate request.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Groups of lower-case hex digits, as a UUID has them; whatever version the digits say.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ExternalId(String);

/// The lengths of the groups.
const GROUPS: [usize; 5] = [8, 4, 4, 4, 12];

/// A text that is no such id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an id is a UUID in lower-case hex digits")]
pub struct ExternalIdError;

impl ExternalId {
    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ExternalId {
    type Err = ExternalIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_hex = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        let lengths = text.split('-').map(|part| if is_hex(part) { part.len() } else { 0 });
        if lengths.eq(GROUPS) { Ok(Self(text.to_owned())) } else { Err(ExternalIdError) }
    }
}

impl TryFrom<String> for ExternalId {
    type Error = ExternalIdError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ExternalId> for String {
    fn from(id: ExternalId) -> Self {
        id.0
    }
}

impl fmt::Display for ExternalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
