//! The default store: one SQLite database in the gateway's own folder.
//!
//! One thread writes, and all changes that wait for it share one transaction (group commit), so that being durable costs one sync per batch and
//! not per job. Reads have connections of their own, which never wait for the writer (WAL). Invariants: nothing is answered before it is on
//! disk (`synchronous=FULL`); a change that fails leaves the others of its batch alone; what is deleted is overwritten (`secure_delete`), and
//! the write-ahead log is emptied soon afterwards.

mod accounts;
mod callers;
mod claims;
mod enrolments;
#[cfg(test)]
mod plans;
mod queries;
mod readers;
mod recent;
mod schema;
mod tables;
mod writer;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use tokio::sync::{oneshot, watch};

use self::{
    claims::Claim,
    readers::Readers,
    recent::Recent,
    writer::{Writer, not_made},
};
use super::{
    Change, ContentUsage, EnrolmentFilter, JobFilter, Store, StoreError, rows,
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

/// How an SQLite store is opened.
#[derive(Debug, Clone)]
pub struct SqliteSettings {
    /// The database file; made if it is missing, mode 0600.
    pub path: PathBuf,
    /// Whose audit log is written.
    pub gateway: GatewayId,
    /// What shares a commit. Default: whatever waits.
    pub sharing: Sharing,
    /// A pause in each commit, as a slow disk makes it: for measuring only. Default: none.
    pub commit_delay: Duration,
}

/// What shares a commit. All but the first are for measuring only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sharing {
    /// All changes that wait.
    Waiting,
    /// Nothing: each set of changes has a commit of its own. Jobs are claimed several at a time all the same.
    Nothing,
    /// Nothing, and jobs are claimed one by one: each step of each job has a commit of its own.
    NotEvenClaims,
}

impl SqliteSettings {
    /// The defaults, with this file.
    #[must_use]
    pub const fn new(path: PathBuf, gateway: GatewayId) -> Self {
        Self { path, gateway, sharing: Sharing::Waiting, commit_delay: Duration::ZERO }
    }
}

/// Why a database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file cannot be opened, or is no database.
    #[error("the database {path} cannot be used: {problem}")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why.
        problem: String,
    },
    /// It was written by a newer version of this program.
    #[error(
        "the database {path} has format {found}, and this program knows {known} at most; use the version that wrote it, or a newer one"
    )]
    TooNew {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest format that is known.
        known: u32,
    },
}

impl OpenError {
    fn unusable(path: &Path, problem: &dyn std::fmt::Display) -> Self {
        Self::Unusable { path: path.to_owned(), problem: problem.to_string() }
    }
}

/// Tickets, permits, jobs and the audit log in an SQLite database.
pub struct SqliteStore {
    writer: Writer,
    readers: Readers,
    recent: Arc<Recent>,
    waiters: Arc<Waiters>,
    gateway: GatewayId,
}

impl SqliteStore {
    /// Opens the database, makes it if it is missing, and brings its format up to date. Blocks.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(settings: SqliteSettings) -> Result<Self, OpenError> {
        let path = settings.path.clone();
        let unusable = |error: &dyn std::fmt::Display| OpenError::unusable(&path, error);
        schema::make_private(&path).map_err(|error| unusable(&error))?;
        let mut connection = Connection::open(&path).map_err(|error| unusable(&error))?;
        schema::set_up(&connection).map_err(|error| unusable(&error))?;
        schema::migrate(&mut connection).map_err(|error| match error {
            schema::MigrationError::TooNew { found, known } => OpenError::TooNew { path: path.clone(), found, known },
            schema::MigrationError::Database(error) => unusable(&error),
        })?;
        let gateway = settings.gateway;
        let readers = Readers::new(path.clone());
        let recent = Arc::<Recent>::default();
        let writer = Writer::start(connection, Arc::clone(&recent), settings).map_err(|error| unusable(&error))?;
        Ok(Self { writer, readers, recent, waiters: Arc::default(), gateway })
    }

    /// Writes what has been accepted and closes the database. Blocks; later changes are refused.
    pub fn close(&self) {
        // The last connection that is closed takes the write-ahead log away, and a reader cannot.
        self.readers.close();
        self.writer.stop();
    }
}

/// Opens a database to look at it only: a running gateway is not disturbed. Blocks.
///
/// # Errors
/// [`OpenError::Unusable`].
pub fn open_to_read(path: &Path) -> Result<AuditReader, OpenError> {
    schema::open_read_only(path).map(AuditReader).map_err(|error| OpenError::unusable(path, &error))
}

/// Copies a database, as it is at one moment, into a new file; a running gateway is not disturbed. Blocks.
///
/// # Errors
/// [`OpenError::Unusable`], also if the new file is there already.
pub fn copy(from: &Path, to: &Path) -> Result<(), OpenError> {
    let unusable = |error: &dyn std::fmt::Display| OpenError::unusable(from, error);
    let connection = schema::open_read_only(from).map_err(|error| unusable(&error))?;
    // An empty file may be copied into; made by us it is private.
    schema::make_private(to).map_err(|error| unusable(&error))?;
    connection.execute("VACUUM INTO ?1", [to.to_string_lossy()]).map_err(|error| unusable(&error))?;
    Ok(())
}

/// The audit logs of a database that is only looked at.
pub struct AuditReader(Connection);

impl AuditReader {
    /// The gateways that have one. Blocks.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn logs(&self) -> Result<Vec<GatewayId>, StoreError> {
        queries::audit_logs(&self.0)
    }

    /// The end of a gateway's log. Blocks.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn head(&self, gateway: GatewayId) -> Result<AuditHead, StoreError> {
        queries::audit_head(&self.0, gateway)
    }

    /// At most `limit` records of a gateway's log from number `from` on, in order. Blocks.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn records(&self, gateway: GatewayId, from: u64, limit: usize) -> Result<Vec<SealedRecord>, StoreError> {
        queries::audit_records(&self.0, gateway, from, limit)
    }
}

#[async_trait]
impl Store for SqliteStore {
    fn now(&self) -> Timestamp {
        SystemTime::now().into()
    }

    fn gateway(&self) -> GatewayId {
        self.gateway
    }

    async fn commit(&self, changes: Vec<Change>) -> Result<(), StoreError> {
        let now = self.now();
        let moved = self.writer.write(move |tables| rows::commit(tables, changes, now)).await?;
        self.waiters.wake(&moved);
        Ok(())
    }

    async fn find_ticket(&self, id: TicketId) -> Result<Option<Ticket>, StoreError> {
        self.recent.ticket(id).map_or_else(|| self.readers.read_row(|connection| queries::ticket(connection, id)), |row| Ok(Some(row)))
    }

    async fn touch_ticket(&self, id: TicketId, now: Timestamp) -> Result<(), StoreError> {
        self.writer.write(move |tables| tables.touch_ticket(id, now)).await
    }

    async fn count_tickets(&self, caller: &CallerId) -> Result<usize, StoreError> {
        self.readers.read_row(|connection| queries::count_tickets(connection, caller))
    }

    async fn remove_idle_tickets(&self, idle_since: Timestamp, limit: usize) -> Result<Vec<Ticket>, StoreError> {
        self.writer.write(move |tables| tables.remove_idle_tickets(idle_since, limit)).await
    }

    async fn read_content(&self, ticket: TicketId, part: ContentPart) -> Result<Option<Arc<[u8]>>, StoreError> {
        self.readers.read(move |connection| queries::content(connection, ticket, part)).await
    }

    async fn content_usage(&self) -> Result<ContentUsage, StoreError> {
        self.readers.read(queries::content_usage).await
    }

    async fn spooled_files(&self) -> Result<Vec<String>, StoreError> {
        self.readers.read(queries::spooled_files).await
    }

    async fn find_permit(&self, id: PermitId) -> Result<Option<Permit>, StoreError> {
        self.recent.permit(id).map_or_else(|| self.readers.read_row(|connection| queries::permit(connection, id)), |row| Ok(Some(row)))
    }

    async fn live_permits(&self, now: Timestamp, limit: usize) -> Result<Vec<Permit>, StoreError> {
        self.readers.read(move |connection| queries::live_permits(connection, now, limit)).await
    }

    async fn waiting_permits(&self, limit: usize) -> Result<Vec<Permit>, StoreError> {
        self.readers.read(move |connection| queries::waiting_permits(connection, limit)).await
    }

    async fn count_waiting_permits(&self) -> Result<usize, StoreError> {
        self.readers.read_row(queries::count_waiting_permits)
    }

    async fn find_words(&self, permit: PermitId) -> Result<Option<String>, StoreError> {
        self.readers.read(move |connection| queries::words(connection, permit)).await
    }

    async fn wait_for_decision(&self, id: PermitId) -> Result<Permit, StoreError> {
        self.waiters.wait_for_decision(self, id).await
    }

    fn permit_changes(&self) -> watch::Receiver<u64> {
        self.waiters.permit_changes()
    }

    async fn check_ready(&self) -> Result<(), StoreError> {
        if self.writer.has_failed() {
            return self.writer.write(|tables| tables.prove_writable()).await;
        }
        self.readers.read(queries::queues).await.map(drop)
    }

    async fn find_job(&self, id: JobId) -> Result<Option<SigningJob>, StoreError> {
        let row = self.recent.job(id);
        let row = row.map_or_else(|| self.readers.read_row(|connection| queries::job(connection, id)), |row| Ok(Some(row)))?;
        Ok(row.map(|row| row.job))
    }

    async fn list_jobs(&self, filter: &JobFilter, limit: usize) -> Result<Vec<SigningJob>, StoreError> {
        let filter = filter.clone();
        self.readers.read(move |connection| queries::list_jobs(connection, &filter, limit)).await
    }

    async fn claimed_jobs(&self) -> Result<Vec<SigningJob>, StoreError> {
        // One gateway has this database, so every claim is its own.
        self.list_jobs(&JobFilter { state: Some(JobState::Signing), ..JobFilter::default() }, usize::MAX).await
    }

    async fn find_operator(&self, name: &OperatorName) -> Result<Option<OperatorAccount>, StoreError> {
        self.readers.read_row(|connection| accounts::operator(connection, name))
    }

    async fn list_operators(&self) -> Result<Vec<OperatorAccount>, StoreError> {
        self.readers.read(accounts::operators).await
    }

    async fn find_session(&self, id: SessionId) -> Result<Option<OperatorSession>, StoreError> {
        self.readers.read_row(|connection| accounts::session(connection, id))
    }

    async fn list_sessions(&self, operator: &OperatorName, now: Timestamp) -> Result<Vec<OperatorSession>, StoreError> {
        let operator = operator.clone();
        self.readers.read(move |connection| accounts::sessions_of(connection, &operator, now)).await
    }

    async fn find_caller(&self, id: &CallerId) -> Result<Option<StoredCaller>, StoreError> {
        self.readers.read_row(|connection| callers::caller(connection, id))
    }

    async fn list_callers(&self) -> Result<Vec<StoredCaller>, StoreError> {
        self.readers.read(callers::callers).await
    }

    fn caller_changes(&self) -> watch::Receiver<u64> {
        self.waiters.caller_changes()
    }

    async fn find_request(&self, caller: &CallerId, key: &IdempotencyKey) -> Result<Option<IdempotentRequest>, StoreError> {
        self.readers.read_row(|connection| queries::request(connection, caller, key))
    }

    async fn claim_jobs(&self, token: &TokenIdentity, limit: usize, now: Timestamp) -> Result<Vec<SigningJob>, StoreError> {
        let token = token.clone();
        self.writer.write(move |tables| tables.claim_jobs(&token, limit, now)).await
    }

    async fn claim_next(
        &self,
        token: &TokenIdentity,
        limit: usize,
        mut wanted: watch::Receiver<bool>,
    ) -> Result<Vec<SigningJob>, StoreError> {
        let (reply, mut answer) = oneshot::channel();
        self.writer.claim(Claim { token: token.clone(), limit, wanted: wanted.clone(), reply })?;
        tokio::select! {
            answer = &mut answer => return answer.map_err(|_| not_made())?,
            _ = wanted.wait_for(|wanted| !wanted) => self.writer.look_at_claims(),
        }
        // It may have been made already: only the writer knows.
        answer.await.map_err(|_| not_made())?
    }

    async fn expire_jobs(&self, now: Timestamp) -> Result<Vec<JobId>, StoreError> {
        // Most of the time there is nothing to write.
        if !self.readers.read_row(|connection| queries::any_late(connection, now))? {
            return Ok(Vec::new());
        }
        let moved = self.writer.write(move |tables| tables.expire_jobs(now)).await?;
        self.waiters.wake(&moved);
        Ok(ended(&moved))
    }

    async fn forget_ended(&self, before: Timestamp, limit: usize) -> Result<usize, StoreError> {
        let old = self.readers.read(move |connection| queries::forgettable(connection, before, limit)).await?;
        if old.is_empty() { Ok(0) } else { self.writer.write(move |tables| tables.forget(&old, before)).await }
    }

    async fn count_queued(&self, token: &TokenIdentity) -> Result<usize, StoreError> {
        self.readers.read_row(|connection| queries::count_queued(connection, token))
    }

    async fn queues(&self) -> Result<Vec<QueueLength>, StoreError> {
        self.readers.read(queries::queues).await
    }

    async fn find_enrolment(&self, id: EnrolmentId) -> Result<Option<Enrolment>, StoreError> {
        self.readers.read_row(|connection| enrolments::enrolment(connection, id))
    }

    async fn list_enrolments(&self, filter: &EnrolmentFilter, limit: usize) -> Result<Vec<Enrolment>, StoreError> {
        let filter = filter.clone();
        self.readers.read(move |connection| enrolments::list(connection, &filter, limit)).await
    }

    async fn due_enrolments(&self, now: Timestamp, limit: usize) -> Result<Vec<Enrolment>, StoreError> {
        self.readers.read(move |connection| enrolments::due(connection, now, limit)).await
    }

    async fn audit_head(&self) -> Result<AuditHead, StoreError> {
        let gateway = self.gateway;
        self.readers.read(move |connection| queries::audit_head(connection, gateway)).await
    }

    async fn audit_logs(&self) -> Result<Vec<GatewayId>, StoreError> {
        self.readers.read(queries::audit_logs).await
    }

    async fn audit_records(&self, gateway: GatewayId, from: u64, limit: usize) -> Result<Vec<SealedRecord>, StoreError> {
        self.readers.read(move |connection| queries::audit_records(connection, gateway, from, limit)).await
    }

    async fn wait_for_end(&self, id: JobId) -> Result<SigningJob, StoreError> {
        self.waiters.wait_for_end(self, id).await
    }

    async fn wait_for_work(&self, token: &TokenIdentity) {
        self.waiters.wait_for_work(self, token).await;
    }
}
