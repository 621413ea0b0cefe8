//! PINs of jobs that are queued: in memory only, wiped when the job has ended.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::domain::{ids::JobId, pin::Pin};

/// The PINs that came with jobs which have not ended.
#[derive(Default)]
pub(super) struct JobPins(Mutex<HashMap<JobId, Pin>>);

impl JobPins {
    pub(super) fn keep(&self, job: JobId, pin: Pin) {
        self.pins().insert(job, pin);
    }

    /// A copy for one command to the token.
    pub(super) fn duplicate(&self, job: JobId) -> Option<Pin> {
        self.pins().get(&job).map(Pin::duplicate)
    }

    pub(super) fn forget(&self, job: JobId) {
        self.pins().remove(&job);
    }

    /// The jobs whose PINs are kept.
    pub(super) fn jobs(&self) -> Vec<JobId> {
        self.pins().keys().copied().collect()
    }

    fn pins(&self) -> MutexGuard<'_, HashMap<JobId, Pin>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
