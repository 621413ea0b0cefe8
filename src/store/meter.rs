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
    pub(super) fn new() -> Self {
        Self { commits: COMMITS.counter(&[]), batch_size: COMMIT_BATCH_SIZE.histogram(&[]), seconds: COMMIT_SECONDS.histogram(&[]) }
    }

    /// Notes one commit that held `batch` sets of changes and took `took`.
    pub(super) fn committed(&self, batch: u32, took: Duration) {
        self.commits.increment(1);
        self.batch_size.record(f64::from(batch));
        self.seconds.record(took.as_secs_f64());
    }
}

impl Default for CommitMeter {
    fn default() -> Self {
        Self::new()
    }
}
