//! The queue of one token: oldest first for each caller, one caller after the other.

use std::{
    collections::BTreeMap,
    ops::Bound::{Excluded, Unbounded},
};

use crate::domain::ids::{CallerId, JobId};

/// Queued jobs of one token. A job's place is the order in which it was accepted, so that one that is put back stands where it stood.
#[derive(Default)]
pub(super) struct TokenQueue {
    /// Only callers that have something queued.
    lines: BTreeMap<CallerId, BTreeMap<u64, JobId>>,
    /// The caller that was served last.
    served: Option<CallerId>,
}

impl TokenQueue {
    pub(super) fn insert(&mut self, caller: &CallerId, order: u64, job: JobId) {
        self.lines.entry(caller.clone()).or_default().insert(order, job);
    }

    pub(super) fn remove(&mut self, caller: &CallerId, order: u64) {
        if let Some(line) = self.lines.get_mut(caller) {
            line.remove(&order);
            if line.is_empty() {
                self.lines.remove(caller);
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.lines.values().map(BTreeMap::len).sum()
    }

    /// Every job in it, in no order.
    pub(super) fn jobs(&self) -> impl Iterator<Item = JobId> {
        self.lines.values().flat_map(BTreeMap::values).copied()
    }

    /// The job whose turn it is among those that are `ready`; its caller goes to the end of the round.
    pub(super) fn next(&mut self, ready: impl Fn(JobId) -> bool) -> Option<JobId> {
        let after = self.served.as_ref().map_or(Unbounded, Excluded);
        let round = self.lines.range::<CallerId, _>((after, Unbounded)).chain(&self.lines);
        let oldest_ready = |line: &BTreeMap<u64, JobId>| line.values().copied().find(|job| ready(*job));
        let (caller, job) = round.into_iter().find_map(|(caller, line)| Some((caller.clone(), oldest_ready(line)?)))?;
        self.served = Some(caller);
        Some(job)
    }
}
