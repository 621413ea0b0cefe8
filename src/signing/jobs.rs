//! What operators may know of jobs and do to them.

use std::sync::Arc;

use crate::{
    domain::{
        audit::AuditEvent,
        ids::JobId,
        job::{JobState, SigningJob},
    },
    store::{Change, Conflict, JobFilter, StoreError},
};

use super::dispatcher::Workshop;

/// Why an operator's word about a job was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JobCommandError {
    /// There is no such job.
    #[error("there is no such job, or it has been forgotten")]
    NotFound,
    /// Only a job in doubt can be resolved.
    #[error("the job is {0}, not in doubt")]
    NotInDoubt(JobState),
    /// The store was not reached; nothing was changed.
    #[error("the store is not available")]
    StoreUnavailable,
}

/// The jobs of a gateway. Cheap to clone.
#[derive(Clone)]
pub struct JobDesk(Arc<Workshop>);

impl JobDesk {
    pub(super) const fn new(workshop: Arc<Workshop>) -> Self {
        Self(workshop)
    }

    /// The newest jobs that fit, newest first.
    ///
    /// # Errors
    /// [`JobCommandError::StoreUnavailable`].
    pub async fn list(&self, filter: &JobFilter, limit: usize) -> Result<Vec<SigningJob>, JobCommandError> {
        Ok(self.0.store.list_jobs(filter, limit).await?)
    }

    /// Finds a job.
    ///
    /// # Errors
    /// [`JobCommandError::NotFound`], [`JobCommandError::StoreUnavailable`].
    pub async fn find(&self, id: JobId) -> Result<SigningJob, JobCommandError> {
        self.0.store.find_job(id).await?.ok_or(JobCommandError::NotFound)
    }

    /// Settles a job in doubt as `by` found it: it ends as failed, and its permit's use stays spent if the token had signed, or is given back.
    ///
    /// # Errors
    /// [`JobCommandError`].
    pub async fn resolve(&self, id: JobId, signed: bool, by: String) -> Result<SigningJob, JobCommandError> {
        let event = AuditEvent::DoubtResolved { job: id, signed, by };
        match self.0.store.commit(vec![Change::ResolveDoubt { job: id, signed }, Change::Audit(event)]).await {
            Err(StoreError::Conflict(Conflict::JobMoved)) => Err(JobCommandError::NotInDoubt(self.find(id).await?.state)),
            committed => {
                committed?;
                self.find(id).await
            }
        }
    }
}

impl From<StoreError> for JobCommandError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict(_) => Self::NotFound,
            StoreError::Unavailable(_) => Self::StoreUnavailable,
        }
    }
}
