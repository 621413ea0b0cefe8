//! A store in memory, for one gateway whose tickets, permits and jobs need not outlive it.
//!
//! Everything stands under one mutex that is held for table look-ups only, never across an await or any IO. Waiting is by notification;
//! nothing polls. For tests, and to measure what durability costs.

mod accounts;
mod enrolments;
mod queue;
mod tables;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Instant, SystemTime},
};

use async_trait::async_trait;
use tokio::sync::watch;

use self::tables::Tables;
use super::{
    Change, ContentUsage, EnrolmentFilter, JobFilter, Store, StoreError,
    meter::CommitMeter,
    rows,
    waiters::{Waiters, ended},
};
use crate::domain::{
    audit::{AuditHead, SealedRecord},
    enrolment::Enrolment,
    idempotency::IdempotentRequest,
    ids::{CallerId, EnrolmentId, GatewayId, IdempotencyKey, JobId, OperatorName, PermitId, TicketId},
    job::{JobState, QueueLength, SigningJob},
    operator::{OperatorAccount, OperatorSession, SessionId},
    permit::Permit,
    stored_caller::StoredCaller,
    ticket::{ContentPart, Ticket},
    timestamp::Timestamp,
    token::TokenIdentity,
};

/// Tickets, permits and jobs in memory.
pub struct MemoryStore {
    tables: Mutex<Tables>,
    waiters: Waiters,
    meter: CommitMeter,
}

impl MemoryStore {
    /// Makes an empty store.
    #[must_use]
    pub fn new() -> Self {
        Self { tables: Mutex::default(), waiters: Waiters::default(), meter: CommitMeter::of("memory") }
    }

    /// How many wait for the end of a job now.
    #[must_use]
    pub fn waiters(&self) -> usize {
        self.waiters.count()
    }

    fn lock(&self) -> MutexGuard<'_, Tables> {
        // A panic under the lock is a bug that has been reported; going on is better than failing every later request.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn now(&self) -> Timestamp {
        SystemTime::now().into()
    }

    fn gateway(&self) -> GatewayId {
        self.lock().audit_head().gateway
    }

    async fn commit(&self, changes: Vec<Change>) -> Result<(), StoreError> {
        let began = Instant::now();
        let moved = rows::commit(&mut *self.lock(), changes, self.now())?;
        self.meter.committed(1, began.elapsed());
        self.waiters.wake(&moved);
        Ok(())
    }

    async fn find_ticket(&self, id: TicketId) -> Result<Option<Ticket>, StoreError> {
        Ok(self.lock().ticket(id).cloned())
    }

    async fn touch_ticket(&self, id: TicketId, now: Timestamp) -> Result<(), StoreError> {
        self.lock().touch_ticket(id, now);
        Ok(())
    }

    async fn count_tickets(&self, caller: &CallerId) -> Result<usize, StoreError> {
        Ok(self.lock().tickets_of(caller))
    }

    async fn remove_idle_tickets(&self, idle_since: Timestamp, limit: usize) -> Result<Vec<Ticket>, StoreError> {
        Ok(self.lock().remove_idle_tickets(idle_since, limit))
    }

    async fn read_content(&self, ticket: TicketId, part: ContentPart) -> Result<Option<Arc<[u8]>>, StoreError> {
        Ok(self.lock().content(ticket, part))
    }

    async fn content_usage(&self) -> Result<ContentUsage, StoreError> {
        Ok(self.lock().content_usage())
    }

    async fn spooled_files(&self) -> Result<Vec<String>, StoreError> {
        Ok(self.lock().spooled_files())
    }

    async fn find_permit(&self, id: PermitId) -> Result<Option<Permit>, StoreError> {
        Ok(self.lock().permit(id).cloned())
    }

    async fn live_permits(&self, now: Timestamp, limit: usize) -> Result<Vec<Permit>, StoreError> {
        Ok(self.lock().live_permits(now, limit))
    }

    async fn waiting_permits(&self, limit: usize) -> Result<Vec<Permit>, StoreError> {
        Ok(self.lock().waiting_permits(limit))
    }

    async fn count_waiting_permits(&self) -> Result<usize, StoreError> {
        Ok(self.lock().waiting_permits(usize::MAX).len())
    }

    async fn find_words(&self, permit: PermitId) -> Result<Option<String>, StoreError> {
        Ok(self.lock().words(permit))
    }

    async fn wait_for_decision(&self, id: PermitId) -> Result<Permit, StoreError> {
        self.waiters.wait_for_decision(self, id).await
    }

    fn permit_changes(&self) -> watch::Receiver<u64> {
        self.waiters.permit_changes()
    }

    async fn check_ready(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn find_job(&self, id: JobId) -> Result<Option<SigningJob>, StoreError> {
        Ok(self.lock().job(id).cloned())
    }

    async fn list_jobs(&self, filter: &JobFilter, limit: usize) -> Result<Vec<SigningJob>, StoreError> {
        Ok(self.lock().list_jobs(filter, limit))
    }

    async fn claimed_jobs(&self) -> Result<Vec<SigningJob>, StoreError> {
        let signing = JobFilter { state: Some(JobState::Signing), ..JobFilter::default() };
        Ok(self.lock().list_jobs(&signing, usize::MAX))
    }

    async fn find_caller(&self, id: &CallerId) -> Result<Option<StoredCaller>, StoreError> {
        Ok(self.lock().caller(id))
    }

    async fn list_callers(&self) -> Result<Vec<StoredCaller>, StoreError> {
        Ok(self.lock().callers())
    }

    fn caller_changes(&self) -> watch::Receiver<u64> {
        self.waiters.caller_changes()
    }

    async fn find_operator(&self, name: &OperatorName) -> Result<Option<OperatorAccount>, StoreError> {
        Ok(self.lock().accounts.operator(name))
    }

    async fn list_operators(&self) -> Result<Vec<OperatorAccount>, StoreError> {
        Ok(self.lock().accounts.operators())
    }

    async fn find_session(&self, id: SessionId) -> Result<Option<OperatorSession>, StoreError> {
        Ok(self.lock().accounts.session(id))
    }

    async fn list_sessions(&self, operator: &OperatorName, now: Timestamp) -> Result<Vec<OperatorSession>, StoreError> {
        Ok(self.lock().accounts.sessions_of(operator, now))
    }

    async fn find_request(&self, caller: &CallerId, key: &IdempotencyKey) -> Result<Option<IdempotentRequest>, StoreError> {
        Ok(self.lock().request(caller, key))
    }

    async fn claim_jobs(&self, token: &TokenIdentity, limit: usize, now: Timestamp) -> Result<Vec<SigningJob>, StoreError> {
        Ok(self.lock().claim_jobs(token, limit, now))
    }

    async fn expire_jobs(&self, now: Timestamp) -> Result<Vec<JobId>, StoreError> {
        let expired = self.lock().expire_jobs(now)?;
        self.waiters.wake(&expired);
        Ok(ended(&expired))
    }

    async fn forget_ended(&self, before: Timestamp, limit: usize) -> Result<usize, StoreError> {
        Ok(self.lock().forget_ended(before, limit))
    }

    async fn count_queued(&self, token: &TokenIdentity) -> Result<usize, StoreError> {
        Ok(self.lock().queued_for(token))
    }

    async fn queues(&self) -> Result<Vec<QueueLength>, StoreError> {
        Ok(self.lock().queues())
    }

    async fn find_enrolment(&self, id: EnrolmentId) -> Result<Option<Enrolment>, StoreError> {
        Ok(self.lock().enrolments.find(id).cloned())
    }

    async fn list_enrolments(&self, filter: &EnrolmentFilter, limit: usize) -> Result<Vec<Enrolment>, StoreError> {
        Ok(self.lock().enrolments.list(filter, limit))
    }

    async fn due_enrolments(&self, now: Timestamp, limit: usize) -> Result<Vec<Enrolment>, StoreError> {
        Ok(self.lock().enrolments.due(now, limit))
    }

    async fn audit_head(&self) -> Result<AuditHead, StoreError> {
        Ok(self.lock().audit_head())
    }

    async fn audit_logs(&self) -> Result<Vec<GatewayId>, StoreError> {
        Ok(vec![self.lock().audit_head().gateway])
    }

    async fn audit_records(&self, gateway: GatewayId, from: u64, limit: usize) -> Result<Vec<SealedRecord>, StoreError> {
        Ok(self.lock().audit_records(gateway, from, limit))
    }

    async fn wait_for_end(&self, id: JobId) -> Result<SigningJob, StoreError> {
        self.waiters.wait_for_end(self, id).await
    }

    async fn wait_for_work(&self, token: &TokenIdentity) {
        self.waiters.wait_for_work(self, token).await;
    }
}
