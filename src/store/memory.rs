//! A store in memory, for one gateway whose tickets, permits and jobs need not outlive it.
//!
//! Everything stands under one mutex that is held for table look-ups only, never across an await or any IO. Waiting is by notification;
//! nothing polls. For tests, and to measure what durability costs.

mod queue;
mod tables;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Instant, SystemTime},
};

use async_trait::async_trait;
use tokio::sync::{Notify, watch};

use self::tables::Tables;
use super::{Change, Conflict, ContentUsage, JobFilter, Store, StoreError, meter::CommitMeter, rows};
use crate::domain::{
    audit::{AuditHead, SealedRecord},
    idempotency::IdempotentRequest,
    ids::{CallerId, GatewayId, IdempotencyKey, JobId, PermitId, TicketId},
    job::{JobState, QueueLength, SigningJob},
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

    /// How many wait for the end of a job now.
    #[must_use]
    pub fn waiters(&self) -> usize {
        self.lock().end_waiters.values().map(watch::Sender::receiver_count).sum()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under the lock is a bug that has been reported; going on is better than failing every later request.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn commit(&mut self, changes: Vec<Change>) -> Result<(), StoreError> {
        let moved = rows::commit(&mut self.tables, changes, SystemTime::now().into())?;
        moved.into_iter().for_each(|job| self.wake(job));
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

#[async_trait]
impl Store for MemoryStore {
    fn now(&self) -> Timestamp {
        SystemTime::now().into()
    }

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
        Ok(self.lock().tables.tickets_of(caller))
    }

    async fn remove_idle_tickets(&self, idle_since: Timestamp, limit: usize) -> Result<Vec<Ticket>, StoreError> {
        Ok(self.lock().tables.remove_idle_tickets(idle_since, limit))
    }

    async fn read_content(&self, ticket: TicketId) -> Result<Option<Arc<[u8]>>, StoreError> {
        Ok(self.lock().tables.content(ticket))
    }

    async fn content_usage(&self) -> Result<ContentUsage, StoreError> {
        Ok(self.lock().tables.content_usage())
    }

    async fn spooled_files(&self) -> Result<Vec<String>, StoreError> {
        Ok(self.lock().tables.spooled_files())
    }

    async fn find_permit(&self, id: PermitId) -> Result<Option<Permit>, StoreError> {
        Ok(self.lock().tables.permit(id).cloned())
    }

    async fn find_job(&self, id: JobId) -> Result<Option<SigningJob>, StoreError> {
        Ok(self.lock().tables.job(id).cloned())
    }

    async fn list_jobs(&self, filter: &JobFilter, limit: usize) -> Result<Vec<SigningJob>, StoreError> {
        Ok(self.lock().tables.list_jobs(filter, limit))
    }

    async fn claimed_jobs(&self) -> Result<Vec<SigningJob>, StoreError> {
        let signing = JobFilter { state: Some(JobState::Signing), ..JobFilter::default() };
        Ok(self.lock().tables.list_jobs(&signing, usize::MAX))
    }

    async fn find_request(&self, caller: &CallerId, key: &IdempotencyKey) -> Result<Option<IdempotentRequest>, StoreError> {
        Ok(self.lock().tables.request(caller, key))
    }

    async fn claim_jobs(&self, token: &TokenIdentity, limit: usize, now: Timestamp) -> Result<Vec<SigningJob>, StoreError> {
        Ok(self.lock().tables.claim_jobs(token, limit, now))
    }

    async fn expire_jobs(&self, now: Timestamp) -> Result<Vec<JobId>, StoreError> {
        let mut state = self.lock();
        let expired = state.tables.expire_jobs(now)?;
        expired.iter().for_each(|job| state.wake(*job));
        Ok(expired)
    }

    async fn forget_ended(&self, before: Timestamp, limit: usize) -> Result<usize, StoreError> {
        Ok(self.lock().tables.forget_ended(before, limit))
    }

    async fn count_queued(&self, token: &TokenIdentity) -> Result<usize, StoreError> {
        Ok(self.lock().tables.queued_for(token))
    }

    async fn queues(&self) -> Result<Vec<QueueLength>, StoreError> {
        Ok(self.lock().tables.queues())
    }

    async fn audit_head(&self) -> Result<AuditHead, StoreError> {
        Ok(self.lock().tables.audit_head())
    }

    async fn audit_logs(&self) -> Result<Vec<GatewayId>, StoreError> {
        Ok(vec![self.lock().tables.audit_head().gateway])
    }

    async fn audit_records(&self, gateway: GatewayId, from: u64, limit: usize) -> Result<Vec<SealedRecord>, StoreError> {
        Ok(self.lock().tables.audit_records(gateway, from, limit))
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
        if self.lock().tables.queued_for(token) == 0 {
            woken.await;
        }
    }
}
