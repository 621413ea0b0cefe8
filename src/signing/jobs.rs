//! What operators may know of jobs and do to them.

use std::sync::Arc;

use crate::{
    domain::{
        audit::AuditEvent,
        caller::KeyAccess,
        ids::{JobId, KeyName},
        job::{JobState, SigningJob},
    },
    store::{Change, Conflict, JobFilter, StoreError},
};

use super::dispatcher::Workshop;

/// The most jobs on one page of a search.
pub const PAGE_LEN: usize = 50;
/// The most jobs that are looked through for one page.
const LOOKED_AT_MAX: usize = 5_000;
/// How many of them are read at a time.
const READ_AT_ONCE: usize = 500;

/// A page of jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The jobs, newest first.
    pub jobs: Vec<SigningJob>,
    /// Where the search goes on: among the jobs before this one. `None` if all were looked at.
    pub next: Option<JobId>,
}

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

    /// The newest jobs that fit and whose key is among `keys` (and is `key`, if that is given), a page of them.
    ///
    /// Looks through a bounded number of jobs, so a page may be short, or empty, although there are more.
    ///
    /// # Errors
    /// [`JobCommandError::StoreUnavailable`].
    pub async fn search(&self, filter: &JobFilter, keys: &KeyAccess, key: Option<&KeyName>) -> Result<Found, JobCommandError> {
        let fits = |job: &SigningJob| {
            let name = job.key.name.as_ref();
            name.map_or(*keys == KeyAccess::All, |name| keys.allows(name)) && (key.is_none() || key == name)
        };
        let everything_fits = *keys == KeyAccess::All && key.is_none();
        let at_once = if everything_fits { PAGE_LEN + 1 } else { READ_AT_ONCE };
        let (mut jobs, mut looked_at, mut filter) = (Vec::new(), 0, filter.clone());
        loop {
            let read = self.0.store.list_jobs(&filter, at_once).await?;
            let (is_all, last) = (read.len() < at_once, read.last().map(|job| job.id));
            looked_at += read.len();
            for job in read {
                if fits(&job) {
                    jobs.push(job);
                }
                if jobs.len() > PAGE_LEN {
                    jobs.truncate(PAGE_LEN);
                    return Ok(Found { next: jobs.last().map(|job| job.id), jobs });
                }
            }
            if is_all {
                return Ok(Found { jobs, next: None });
            }
            if looked_at >= LOOKED_AT_MAX {
                return Ok(Found { jobs, next: last });
            }
            filter.before = last;
        }
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
