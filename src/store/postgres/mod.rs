//! The store that several gateways share: a PostgreSQL database, which is the queue and the clock as well.
//!
//! One task writes, and all changes that wait for it share one transaction (group commit). Reads have two connections of their own; a third one
//! listens for what other gateways did. Whoever waits holds no connection. Invariants: nothing is answered before the database has it for
//! good; while the database is away, work waits a few seconds and is then refused, and nothing that was accepted is forgotten; when it is
//! back, everything goes on by itself.

mod accounts;
mod audit;
mod callers;
mod claim;
mod clock;
mod enrolments;
mod flush;
mod group;
mod leases;
mod listener;
mod migrate;
mod news;
mod pin_board;
mod readers;
mod row;
mod session;
mod settings;
mod tls;
mod working_set;
mod writer;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tokio::{
    sync::watch,
    task::{AbortHandle, JoinHandle},
    time::{Instant, sleep, timeout},
};

pub use self::audit::PostgresAuditReader;
use self::{
    clock::Clock,
    group::{Made, Work},
    leases::{Heart, ORPHANS},
    readers::Readers,
    row::{job_columns, permit_columns, ticket_columns},
    session::{Fault, Session},
    writer::Writer,
};
pub use self::{
    pin_board::SharedPinLedger,
    settings::{PostgresSettings, UrlError},
    tls::TlsError,
};
use super::{
    Change, ContentUsage, EnrolmentFilter, JobFilter, Store, StoreError,
    columns::{count, millis, request_of, state_text, timestamp, token_of, token_text},
    waiters::Waiters,
};
use crate::domain::{
    audit::{AuditHead, SealedRecord},
    enrolment::Enrolment,
    idempotency::IdempotentRequest,
    ids::{CallerId, EnrolmentId, GatewayId, IdempotencyKey, JobId, OperatorName, PermitId, TicketId},
    job::{QueueLength, SigningJob},
    lease::{Leases, TokenAnnouncement},
    operator::{OperatorAccount, OperatorSession, SessionId},
    permit::Permit,
    stored_caller::StoredCaller,
    ticket::{ContentPart, Ticket},
    timestamp::Timestamp,
    token::TokenIdentity,
};

/// The most tickets whose use is noted in memory only.
const TOUCHED_MAX: usize = 16_384;

/// The pause between two tries to reach the database.
const PAUSE: Duration = Duration::from_millis(200);

const OWN_GATEWAY: &str = "INSERT INTO gateways (id, name) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET name = excluded.name";
const NOW: &str = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint";

/// Why a database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// It was not reached, or refused what every gateway needs.
    #[error("the database cannot be used: {0}")]
    Unusable(String),
    /// TLS is not possible.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The server is too old.
    #[error("the database server is PostgreSQL {found}; Sealgate needs {wanted} or newer")]
    OldServer {
        /// Its major version.
        found: i32,
        /// The oldest that is good enough.
        wanted: i32,
    },
    /// A newer version of this program has changed the tables.
    #[error("the database has format {found}, and this program knows {known} at most; use the version that wrote it, or a newer one")]
    NewerSchema {
        /// Their format.
        found: i32,
        /// The newest format that is known.
        known: i32,
    },
}

impl From<Fault> for PostgresError {
    fn from(fault: Fault) -> Self {
        Self::Unusable(fault.to_string())
    }
}

/// What all parts of the store have in common.
struct Shared {
    settings: PostgresSettings,
    clock: Clock,
    waiters: Waiters,
    /// When tickets were used, as far as it is not written yet. Losing a second of it in a crash only ends a ticket a second earlier.
    touched: Mutex<HashMap<TicketId, Timestamp>>,
}

impl Shared {
    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn touched(&self) -> MutexGuard<'_, HashMap<TicketId, Timestamp>> {
        self.touched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_touched(&self) -> HashMap<TicketId, Timestamp> {
        std::mem::take(&mut *self.touched())
    }

    fn put_touched_back(&self, touched: HashMap<TicketId, Timestamp>) {
        let mut noted = self.touched();
        for (ticket, at) in touched {
            let known = noted.entry(ticket).or_insert(at);
            *known = at.max(*known);
        }
    }
}

/// Tickets, permits, jobs and the audit log in a PostgreSQL database.
pub struct PostgresStore {
    shared: Arc<Shared>,
    /// `None` once the store is closed.
    writer: Mutex<Option<(Writer, JoinHandle<()>)>>,
    readers: Readers,
    heart: Heart,
    listener: AbortHandle,
}

impl Drop for PostgresStore {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

impl PostgresStore {
    /// Connects, checks the server, brings the tables up to date. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// [`PostgresError`]; a database that is away is waited for, some seconds.
    pub async fn open(settings: PostgresSettings) -> Result<Self, PostgresError> {
        settings.trust.connector()?;
        let deadline = Instant::now() + settings.wait;
        let session = loop {
            match Session::open(&settings, "start").await {
                Ok(session) => break session,
                Err(Fault::Away(_)) if Instant::now() < deadline => sleep(PAUSE).await,
                Err(fault) => return Err(fault.into()),
            }
        };
        migrate::migrate(&session).await?;
        session.query(OWN_GATEWAY, &[&settings.gateway.as_uuid(), &settings.name]).await?;
        let asked = Instant::now();
        let rows = session.query(NOW, &[]).await?;
        let millis = rows.first().map_or(0, |row| row.get::<_, i64>(0));
        let clock = Clock::read(millis, asked + asked.elapsed() / 2);
        let readers = Readers::new(settings.clone());
        let shared = Arc::new(Shared { settings, clock, waiters: Waiters::default(), touched: Mutex::default() });
        let writer = Writer::start(Arc::clone(&shared));
        let listener = tokio::spawn(listener::listen(Arc::clone(&shared))).abort_handle();
        Ok(Self { shared, writer: Mutex::new(Some(writer)), readers, heart: Heart::default(), listener })
    }

    /// Writes what has been accepted and closes the connections; later changes are refused. Waits at most `bound`.
    pub async fn close(&self, bound: Duration) {
        self.listener.abort();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((writer, task)) = writer {
            drop(writer);
            // Past the bound the database is away, and nothing more can be done.
            let _ = timeout(bound, task).await;
        }
    }

    /// Has the writer meet a bug: for tests.
    ///
    /// # Errors
    /// Always: what the writer was writing is refused.
    #[cfg(any(test, feature = "fake-token"))]
    pub async fn meet_a_bug(&self) -> Result<(), StoreError> {
        self.write(Work::Panic).await.map(drop)
    }

    async fn write(&self, work: Work) -> Result<Made, StoreError> {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|(writer, _)| writer.clone());
        writer.ok_or_else(|| StoreError::Unavailable("the store is closed".to_owned()))?.write(work).await
    }

    async fn count(&self, sql: &str, of: String) -> Result<usize, StoreError> {
        let rows = self.readers.query(sql, &[&of]).await?;
        rows.first().map_or(Ok(0), |row| row::number(row, 0))
    }
}

/// The writer answers each kind of work with its own kind of answer.
fn other_answer() -> StoreError {
    StoreError::Unavailable("the writer answered something else than it was asked".to_owned())
}

#[async_trait]
impl Store for PostgresStore {
    fn now(&self) -> Timestamp {
        self.shared.now()
    }

    fn gateway(&self) -> GatewayId {
        self.shared.settings.gateway
    }

    async fn commit(&self, changes: Vec<Change>) -> Result<(), StoreError> {
        self.write(Work::Commit(changes)).await.map(drop)
    }

    async fn find_ticket(&self, id: TicketId) -> Result<Option<Ticket>, StoreError> {
        let rows = self.readers.query(concat!(ticket_columns!(), "WHERE id = $1"), &[&id.as_uuid()]).await?;
        let Some(mut ticket) = rows.first().map(row::ticket).transpose()? else { return Ok(None) };
        if let Some(touched) = self.shared.touched().get(&id) {
            ticket.touched = ticket.touched.max(*touched);
        }
        Ok(Some(ticket))
    }

    async fn touch_ticket(&self, id: TicketId, now: Timestamp) -> Result<(), StoreError> {
        let full = {
            let mut touched = self.shared.touched();
            let known = touched.entry(id).or_insert(now);
            *known = now.max(*known);
            touched.len() > TOUCHED_MAX
        };
        // Any group takes them along.
        if full { self.write(Work::Commit(Vec::new())).await.map(drop) } else { Ok(()) }
    }

    async fn count_tickets(&self, caller: &CallerId) -> Result<usize, StoreError> {
        self.count("SELECT count(*) FROM tickets WHERE caller = $1", caller.as_str().to_owned()).await
    }

    async fn remove_idle_tickets(&self, idle_since: Timestamp, limit: usize) -> Result<Vec<Ticket>, StoreError> {
        match self.write(Work::RemoveIdle { idle_since, limit }).await? {
            Made::Tickets(tickets) => Ok(tickets),
            _ => Err(other_answer()),
        }
    }

    async fn read_content(&self, ticket: TicketId, part: ContentPart) -> Result<Option<Arc<[u8]>>, StoreError> {
        let sql = match part {
            ContentPart::Document => "SELECT bytes FROM contents WHERE ticket = $1",
            ContentPart::Signature => "SELECT bytes FROM signatures WHERE ticket = $1",
        };
        let rows = self.readers.query(sql, &[&ticket.as_uuid()]).await?;
        rows.first().map(|row| row::column::<&[u8]>(row, 0).map(Into::into)).transpose()
    }

    async fn content_usage(&self) -> Result<ContentUsage, StoreError> {
        let sql = "SELECT COALESCE(sum(len) FILTER (WHERE spooled IS NULL), 0)::bigint, \
                   COALESCE(sum(len) FILTER (WHERE spooled IS NOT NULL), 0)::bigint FROM \
                   (SELECT content_len AS len, spooled FROM tickets UNION ALL SELECT signature_len, signature_spooled FROM tickets) AS parts";
        let rows = self.readers.query(sql, &[]).await?;
        let Some(row) = rows.first() else { return Ok(ContentUsage::default()) };
        Ok(ContentUsage { stored: row::number(row, 0)? as u64, spooled: row::number(row, 1)? as u64 })
    }

    async fn spooled_files(&self) -> Result<Vec<String>, StoreError> {
        let rows = self
            .readers
            .query(
                "SELECT spooled FROM tickets WHERE spooled IS NOT NULL \
            UNION ALL SELECT signature_spooled FROM tickets WHERE signature_spooled IS NOT NULL",
                &[],
            )
            .await?;
        rows.iter().map(|row| row::column(row, 0)).collect()
    }

    async fn find_permit(&self, id: PermitId) -> Result<Option<Permit>, StoreError> {
        let rows = self.readers.query(concat!(permit_columns!(), "WHERE id = $1"), &[&id.as_uuid()]).await?;
        rows.first().map(row::permit).transpose()
    }

    async fn live_permits(&self, now: Timestamp, limit: usize) -> Result<Vec<Permit>, StoreError> {
        let sql = concat!(
            permit_columns!(),
            "WHERE expires > $1 AND state = 'granted' AND reserved + committed < uses ORDER BY expires LIMIT $2"
        );
        let rows = self.readers.query(sql, &[&millis(now), &count(limit as u64)]).await?;
        rows.iter().map(row::permit).collect()
    }

    async fn waiting_permits(&self, limit: usize) -> Result<Vec<Permit>, StoreError> {
        let sql = concat!(permit_columns!(), "WHERE state = 'asked' ORDER BY expires, id LIMIT $1");
        let rows = self.readers.query(sql, &[&count(limit as u64)]).await?;
        rows.iter().map(row::permit).collect()
    }

    async fn count_waiting_permits(&self) -> Result<usize, StoreError> {
        let rows = self.readers.query("SELECT count(*) FROM permits WHERE state = 'asked'", &[]).await?;
        rows.first().map_or(Ok(0), |row| row::number(row, 0))
    }

    async fn find_words(&self, permit: PermitId) -> Result<Option<String>, StoreError> {
        let rows = self.readers.query("SELECT text FROM words WHERE permit = $1", &[&permit.as_uuid()]).await?;
        rows.first().map(|row| row::column(row, 0)).transpose()
    }

    async fn wait_for_decision(&self, id: PermitId) -> Result<Permit, StoreError> {
        loop {
            match self.shared.waiters.wait_for_decision(self, id).await {
                Err(StoreError::Unavailable(_)) => sleep(PAUSE).await,
                decided => return decided,
            }
        }
    }

    fn permit_changes(&self) -> watch::Receiver<u64> {
        self.shared.waiters.permit_changes()
    }

    async fn check_ready(&self) -> Result<(), StoreError> {
        let rows = self.readers.query("SELECT current_setting('transaction_read_only')", &[]).await?;
        let read_only = rows.first().map(|row| row::column::<String>(row, 0)).transpose()?;
        match read_only.as_deref() {
            Some("off") => Ok(()),
            _ => Err(StoreError::Unavailable("the database can only be read".to_owned())),
        }
    }

    async fn find_job(&self, id: JobId) -> Result<Option<SigningJob>, StoreError> {
        let rows = self.readers.query(concat!("SELECT ", job_columns!(), " FROM jobs WHERE id = $1"), &[&id.as_uuid()]).await?;
        Ok(rows.first().map(row::job).transpose()?.map(|row| row.job))
    }

    async fn list_jobs(&self, filter: &JobFilter, limit: usize) -> Result<Vec<SigningJob>, StoreError> {
        // The state stands in the statement, for partial indexes are used only then; it is one of ours and no text from outside.
        let state = filter.state.map_or_else(|| "true".to_owned(), |state| format!("state = '{}'", state_text(state)));
        let caller = filter.caller.as_ref().map_or("$2 = ''", |_| "caller = $2");
        let columns = job_columns!();
        let until = filter.before.map_or("$3::uuid IS NULL", |_| "place < (SELECT place FROM jobs WHERE id = $3)");
        let sql = format!("SELECT {columns} FROM jobs WHERE {state} AND {caller} AND {until} ORDER BY place DESC LIMIT $1");
        let named = filter.caller.as_ref().map_or("", |caller| caller.as_str());
        let before = filter.before.map(|job| job.as_uuid());
        let rows = self.readers.query(&sql, &[&count(limit as u64), &named, &before]).await?;
        rows.iter().map(|row| row::job(row).map(|row| row.job)).collect()
    }

    async fn claimed_jobs(&self) -> Result<Vec<SigningJob>, StoreError> {
        let sql = concat!("SELECT ", job_columns!(), " FROM jobs WHERE owner = $1 AND state = 'signing' ORDER BY place");
        let rows = self.readers.query(sql, &[&self.shared.settings.gateway.as_uuid()]).await?;
        rows.iter().map(|row| row::job(row).map(|row| row.job)).collect()
    }

    async fn find_caller(&self, id: &CallerId) -> Result<Option<StoredCaller>, StoreError> {
        callers::find(&self.readers, id).await
    }

    async fn list_callers(&self) -> Result<Vec<StoredCaller>, StoreError> {
        callers::list(&self.readers).await
    }

    fn caller_changes(&self) -> watch::Receiver<u64> {
        self.shared.waiters.caller_changes()
    }

    async fn find_operator(&self, name: &OperatorName) -> Result<Option<OperatorAccount>, StoreError> {
        accounts::find_operator(&self.readers, name).await
    }

    async fn list_operators(&self) -> Result<Vec<OperatorAccount>, StoreError> {
        accounts::list_operators(&self.readers).await
    }

    async fn find_session(&self, id: SessionId) -> Result<Option<OperatorSession>, StoreError> {
        accounts::find_session(&self.readers, id).await
    }

    async fn list_sessions(&self, operator: &OperatorName, now: Timestamp) -> Result<Vec<OperatorSession>, StoreError> {
        accounts::list_sessions(&self.readers, operator, now).await
    }

    async fn find_request(&self, caller: &CallerId, key: &IdempotencyKey) -> Result<Option<IdempotentRequest>, StoreError> {
        let sql = "SELECT done, expires FROM requests WHERE caller = $1 AND key = $2";
        let rows = self.readers.query(sql, &[&caller.as_str(), &key.as_str()]).await?;
        rows.first().map(|row| request_of(caller, key, row::column(row, 0)?, row::column(row, 1)?)).transpose()
    }

    async fn claim_jobs(&self, token: &TokenIdentity, limit: usize, now: Timestamp) -> Result<Vec<SigningJob>, StoreError> {
        match self.write(Work::Claim { token: token.clone(), limit, now }).await? {
            Made::Jobs(jobs) => Ok(jobs),
            _ => Err(other_answer()),
        }
    }

    async fn expire_jobs(&self, now: Timestamp) -> Result<Vec<JobId>, StoreError> {
        match self.write(Work::Expire { now }).await? {
            Made::Ended(expired) => Ok(expired),
            _ => Err(other_answer()),
        }
    }

    async fn forget_ended(&self, before: Timestamp, limit: usize) -> Result<usize, StoreError> {
        match self.write(Work::Forget { before, limit }).await? {
            Made::Count(forgotten) => Ok(forgotten),
            _ => Err(other_answer()),
        }
    }

    async fn count_queued(&self, token: &TokenIdentity) -> Result<usize, StoreError> {
        self.count("SELECT count(*) FROM jobs WHERE token = $1 AND state = 'queued'", token_text(token)?).await
    }

    async fn queues(&self) -> Result<Vec<QueueLength>, StoreError> {
        let sql = "SELECT token, count(*), min(accepted) FROM jobs WHERE state = 'queued' GROUP BY token";
        let rows = self.readers.query(sql, &[]).await?;
        let length = |row| {
            let token = token_of(row::column(row, 0)?)?;
            Ok(QueueLength { token, queued: row::number(row, 1)?, oldest: timestamp(row::column(row, 2)?) })
        };
        rows.iter().map(length).collect()
    }

    async fn find_enrolment(&self, id: EnrolmentId) -> Result<Option<Enrolment>, StoreError> {
        self.enrolment(id).await
    }

    async fn list_enrolments(&self, filter: &EnrolmentFilter, limit: usize) -> Result<Vec<Enrolment>, StoreError> {
        self.enrolments_that_fit(filter, limit).await
    }

    async fn due_enrolments(&self, now: Timestamp, limit: usize) -> Result<Vec<Enrolment>, StoreError> {
        self.enrolments_due(now, limit).await
    }

    async fn audit_head(&self) -> Result<AuditHead, StoreError> {
        let gateway = self.shared.settings.gateway;
        let sql = "SELECT seq, hash FROM audit WHERE gateway = $1 ORDER BY seq DESC LIMIT 1";
        let rows = self.readers.query(sql, &[&gateway.as_uuid()]).await?;
        row::head(gateway, rows.first())
    }

    async fn audit_logs(&self) -> Result<Vec<GatewayId>, StoreError> {
        audit::logs(&self.readers).await
    }

    async fn audit_records(&self, gateway: GatewayId, from: u64, limit: usize) -> Result<Vec<SealedRecord>, StoreError> {
        audit::records(&self.readers, gateway, from, limit).await
    }

    async fn wait_for_end(&self, id: JobId) -> Result<SigningJob, StoreError> {
        loop {
            match self.shared.waiters.wait_for_end(self, id).await {
                // The job goes on without us, and so does the waiting; whoever waits sets the bound.
                Err(StoreError::Unavailable(_)) => sleep(PAUSE).await,
                ended => return ended,
            }
        }
    }

    async fn wait_for_work(&self, token: &TokenIdentity) {
        self.shared.waiters.wait_for_work(self, token).await;
    }

    fn is_shared(&self) -> bool {
        true
    }

    async fn announce(&self, tokens: &[TokenAnnouncement], wanted: &[TokenIdentity]) -> Result<Leases, StoreError> {
        self.heart.beat(&self.shared.settings, tokens, wanted).await
    }

    async fn settle_orphans(&self) -> Result<Vec<JobId>, StoreError> {
        if !self.heart.may_take().await {
            return Ok(Vec::new());
        }
        let found = self.readers.query(ORPHANS, &[&self.shared.settings.gateway.as_uuid()]).await?;
        if found.is_empty() {
            return Ok(Vec::new());
        }
        match self.write(Work::SettleOrphans).await? {
            Made::Ended(orphans) => Ok(orphans),
            _ => Err(other_answer()),
        }
    }
}
