//! Points in time as the store and the wire carry them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// A point in time, in milliseconds since the Unix epoch (UTC).
///
/// The domain never reads a clock; whoever acts passes the time in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(u64);

impl Timestamp {
    /// Makes a time from milliseconds since the Unix epoch.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// The same time as the standard library has it.
    #[must_use]
    pub fn to_system_time(self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.0)
    }

    /// The time as RFC 3339 writes it, in UTC, to the second.
    #[must_use]
    pub fn to_rfc3339(self) -> String {
        let seconds = UNIX_EPOCH + Duration::from_secs(self.0 / 1000);
        der::DateTime::from_system_time(seconds).map_or_else(|_| String::new(), |time| time.to_string())
    }

    /// Reads a time in UTC, to the second, as [`to_rfc3339`](Self::to_rfc3339) writes it; `None` for any other text.
    #[must_use]
    pub fn from_rfc3339(text: &str) -> Option<Self> {
        let time: der::DateTime = text.parse().ok()?;
        Some(time.to_system_time().into())
    }

    /// This time and `span` later; saturates at the end of time.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
    }

    /// How long after `earlier` this is; zero if it is not.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let since_epoch = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_as_rfc_3339_says() {
        assert_eq!(Timestamp::from_millis(1_700_000_000_999).to_rfc3339(), "2023-11-14T22:13:20Z");
        assert_eq!(Timestamp::from_rfc3339("2023-11-14T22:13:20Z"), Some(Timestamp::from_millis(1_700_000_000_000)));
        for wrong in ["", "2023-11-14", "2023-11-14T22:13:20+02:00", "2023-13-14T22:13:20Z"] {
            assert_eq!(Timestamp::from_rfc3339(wrong), None, "{wrong}");
        }
    }
}
