//! The database's clock, told without asking it.

use std::sync::atomic::{AtomicI64, Ordering};

use tokio::time::Instant;

use crate::{domain::timestamp::Timestamp, store::columns::timestamp};

/// A change of more than this is not the drift of a clock.
const JUMP_MILLIS: i64 = 60_000;

/// The database's time as of its last reading, carried on by our own clock that nobody sets.
pub(super) struct Clock {
    start: Instant,
    /// Its time in milliseconds at `start`.
    at_start: AtomicI64,
}

impl Clock {
    /// A clock that was read once.
    pub(super) fn read(millis: i64, at: Instant) -> Self {
        Self { start: at, at_start: AtomicI64::new(millis) }
    }

    /// Notes that it was `millis` at `at`; returns whether that is a jump.
    pub(super) fn set(&self, millis: i64, at: Instant) -> bool {
        let since = millis_of(at.saturating_duration_since(self.start));
        let old = self.at_start.swap(millis.saturating_sub(since), Ordering::Relaxed);
        (old - (millis - since)).abs() > JUMP_MILLIS
    }

    pub(super) fn now(&self) -> Timestamp {
        timestamp(self.at_start.load(Ordering::Relaxed) + millis_of(self.start.elapsed()))
    }
}

fn millis_of(span: std::time::Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}
