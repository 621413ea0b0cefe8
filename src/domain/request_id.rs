//! The name of one HTTP request, in its answer, its log lines and the line of the job that came of it.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The longest id that is taken from a client, in bytes.
pub const REQUEST_ID_MAX: usize = 64;

/// A short token that finds a request in the log: what the client sent, or a UUID of our own.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RequestId(Arc<str>);

/// A text that is no request id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a request id has 1 to {REQUEST_ID_MAX} letters, digits, `.`, `_` or `-`")]
pub struct RequestIdError;

impl RequestId {
    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<Uuid> for RequestId {
    fn from(uuid: Uuid) -> Self {
        Self(uuid.hyphenated().to_string().into())
    }
}

impl FromStr for RequestId {
    type Err = RequestIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let lawful = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        let good = (1..=REQUEST_ID_MAX).contains(&text.len()) && text.bytes().all(lawful);
        if good { Ok(Self(text.into())) } else { Err(RequestIdError) }
    }
}

impl TryFrom<String> for RequestId {
    type Error = RequestIdError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<RequestId> for String {
    fn from(id: RequestId) -> Self {
        id.0.as_ref().to_owned()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_id_is_short_and_plain() {
        for good in ["a", "build-42.7_x", &"x".repeat(REQUEST_ID_MAX), RequestId::from(Uuid::nil()).as_str()] {
            assert_eq!(good.parse::<RequestId>().map(String::from), Ok(good.to_owned()));
        }
        for bad in ["", "a b", "a\nb", "\u{1b}[31m", "ідентифікатор", "a/b", "{}", &"x".repeat(REQUEST_ID_MAX + 1)] {
            assert_eq!(bad.parse::<RequestId>(), Err(RequestIdError), "{bad}");
        }
    }
}
