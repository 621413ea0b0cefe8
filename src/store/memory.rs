//! A store in memory, for one gateway whose tickets, permits and jobs need not outlive it.
//!
//! Everything stands under one mutex that is held for table look-ups only, never across an await or any IO. A commit applies its changes in
//! order and takes back what it did when one of them does not fit. Waiting is by notification; nothing polls.

mod queue;
mod tables;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Instant, SystemTime},
};

use async_trait::async_trait;
use tokio::sync::{Notify, watch};

use self::tables::{Tables, Undo};
use super::{Change, Conflict, Store, StoreError, meter::CommitMeter};
use crate::domain::{
    ids::{CallerId, JobId, PermitId, TicketId},
    job::SigningJob,
    permit::Permit,
    ticket::Ticket,
    timestamp::Timestamp,
    token::TokenIdentity,
};

/// Tickets, permits and jobs in memory.
#[derive(Default)]
pub struct MemoryStore {
    state: Mutex<State>,
    meter: CommitMeter,
}

#[derive(Default)]
struct State {
    tables: Tables,
    /// Dropping a job's sender wakes everybody who waits for its end.
    end_waiters: HashMap<JobId, watch::Sender<()>>,
    work_waiters: HashMap<TokenIdentity, Arc<Notify>>,
}

impl MemoryStore {
    /// Makes an empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under the lock is a bug that has been reported; going on is better than failing every later request.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn commit(&mut self, changes: Vec<Change>) -> Result<(), Conflict> {
        let now = Timestamp::from(SystemTime::now());
        let touched: Vec<JobId> = changes.iter().filter_map(job_of).collect();
        let mut undo = Vec::with_capacity(changes.len());
        for change in changes {
            if let Err(conflict) = self.tables.apply(change, now, &mut undo) {
                undo.into_iter().rev().for_each(|step: Undo| self.tables.revert(step));
                return Err(conflict);
            }
        }
        touched.into_iter().for_each(|job| self.wake(job));
        Ok(())
    }

    /// Wakes whoever waits for what has just happened to the job.
    fn wake(&mut self, id: JobId) {
        let Some(job) = self.tables.job(id) else { return };
        if job.state.is_final() {
            self.end_waiters.remove(&id);
        } else if let Some(work) = self.work_waiters.get(&job.key.token) {
            work.notify_waiters();
        }
    }
}

/// The job that a change may have queued or ended.
fn job_of(change: &Change) -> Option<JobId> {
    match change {
        Change::AcceptJob { job, .. } => Some(job.id),
        Change::EndJob { job, .. } | Change::RequeueJob(job) | Change::CancelJob(job) => Some(*job),
        Change::InsertTicket { .. }
        | Change::UpdateTicket(_)
        | Change::DeleteTicket(_)
        | Change::InsertPermit(_)
        | Change::RevokePermit(_) => None,
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn commit(&self, changes: Vec<Change>) -> Result<(), StoreError> {
        let began = Instant::now();
        self.lock().commit(changes)?;
        self.meter.committed(1, began.elapsed());
        Ok(())
    }

    async fn find_ticket(&self, id: TicketId) -> Result<Option<Ticket>, StoreError> {
        Ok(self.lock().tables.ticket(id).cloned())
    }

    async fn touch_ticket(&self, id: TicketId, now: Timestamp) -> Result<(), StoreError> {
        self.lock().tables.touch_ticket(id, now);
        Ok(())
    }

    async fn count_tickets(&self, caller: &CallerId) -> Result<usize, StoreError> {
        Ok(self.lock().tables.count_tickets(caller))
    }

    async fn remove_idle_tickets(&self, idle_since: Timestamp, limit: usize) -> Result<Vec<Ticket>, StoreError> {
        Ok(self.lock().tables.remove_idle_tickets(idle_since, limit))
    }

    async fn find_permit(&self, id: PermitId) -> Result<Option<Permit>, StoreError> {
        Ok(self.lock().tables.permit(id).cloned())
    }

    async fn find_job(&self, id: JobId) -> Result<Option<SigningJob>, StoreError> {
        Ok(self.lock().tables.job(id).cloned())
    }

    async fn claim_jobs(&self, token: &TokenIdentity, limit: usize, now: Timestamp) -> Result<Vec<SigningJob>, StoreError> {
        Ok(self.lock().tables.claim_jobs(token, limit, now))
    }

    async fn expire_jobs(&self, now: Timestamp) -> Result<Vec<JobId>, StoreError> {
        let mut state = self.lock();
        let expired = state.tables.expire_jobs(now);
        expired.iter().for_each(|job| state.wake(*job));
        Ok(expired)
    }

    async fn forget_ended(&self, before: Timestamp, limit: usize) -> Result<usize, StoreError> {
        Ok(self.lock().tables.forget_ended(before, limit))
    }

    async fn count_queued(&self, token: &TokenIdentity) -> Result<usize, StoreError> {
        Ok(self.lock().tables.count_queued(token))
    }

    async fn wait_for_end(&self, id: JobId) -> Result<SigningJob, StoreError> {
        loop {
            let mut ended = {
                let mut state = self.lock();
                let job = state.tables.job(id).ok_or(Conflict::JobGone)?;
                if job.state.is_final() {
                    return Ok(job.clone());
                }
                state.end_waiters.entry(id).or_insert_with(|| watch::Sender::new(())).subscribe()
            };
            // The error is the news: the sender is dropped when the job ends.
            let _ = ended.changed().await;
        }
    }

    async fn wait_for_work(&self, token: &TokenIdentity) {
        let work = Arc::clone(self.lock().work_waiters.entry(token.clone()).or_default());
        let mut woken = std::pin::pin!(work.notified());
        // Listening begins before the look, so that work which comes in between is not missed.
        woken.as_mut().enable();
        if self.lock().tables.count_queued(token) == 0 {
            woken.await;
        }
    }
}
