//! What every store measures of its commits.

use std::time::Duration;

use metrics::{Counter, Histogram};

use crate::telemetry::metrics::{COMMIT_BATCH_SIZE, COMMIT_SECONDS, COMMITS};

/// The handles of a store. Take them once, when the store is opened.
pub(super) struct CommitMeter {
    commits: Counter,
    batch_size: Histogram,
    seconds: Histogram,
}

impl CommitMeter {
    /// For a store of this kind.
    pub(super) fn of(store: &'static str) -> Self {
        Self {
            commits: COMMITS.counter(&[store]),
            batch_size: COMMIT_BATCH_SIZE.histogram(&[store]),
            seconds: COMMIT_SECONDS.histogram(&[store]),
        }
    }

    /// Notes one commit that held `batch` sets of changes and took `took`.
    pub(super) fn committed(&self, batch: usize, took: Duration) {
        self.commits.increment(1);
        self.batch_size.record(f64::from(u32::try_from(batch).unwrap_or(u32::MAX)));
        self.seconds.record(took.as_secs_f64());
    }
}
