//! The one thread that writes: takes what waits, makes it one transaction, and answers when that is on disk.
//!
//! Invariant: a change that panics costs the transaction that it is in, which is rolled back and refused; the thread goes on.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use rusqlite::Connection;
use tokio::sync::oneshot;
use tracing::{error, warn};

use super::{
    Sharing, SqliteSettings,
    claims::{Claim, Claims, Made},
    queries::unavailable,
    recent::Recent,
    schema::BUSY_MAX,
    tables::{Memory, Tables},
};
use crate::store::{StoreError, meter::CommitMeter};

/// The most changes that wait. A change that finds no room is refused, and its client asked to come again.
const QUEUE_MAX: usize = 4096;

/// The most changes that share a transaction.
const BATCH_MAX: usize = 256;

/// After so long without a change, the log of what was deleted is emptied.
const PURGE_AFTER: Duration = Duration::from_secs(1);
/// And after so long in any case.
const PURGE_AT_LEAST: Duration = Duration::from_secs(20);
/// How long emptying the log may wait for a connection that reads; changes wait meanwhile.
const PURGE_WAIT_MAX: Duration = Duration::from_millis(50);

/// One change, to be made within a transaction; what comes back answers whoever waits, once the fate of the transaction is known.
type Work = Box<dyn FnOnce(&mut Tables<'_>) -> Answer + Send>;
type Answer = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// What the thread is asked for.
enum Order {
    Change(Work),
    Claim(Claim),
    /// A claim may not be wanted any more.
    LookAtClaims,
}

/// The way to the writing thread.
pub(super) struct Writer {
    queue: Mutex<Option<Sender<Order>>>,
    failed: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Writer {
    pub(super) fn start(connection: Connection, recent: Arc<Recent>, settings: SqliteSettings) -> Result<Self, StoreError> {
        let (sender, receiver) = bounded(QUEUE_MAX);
        let memory = Memory::load(&connection, settings.gateway)?;
        let desk = Desk::new(connection, memory, recent, settings);
        let failed = Arc::clone(&desk.failed);
        let thread = thread::Builder::new().name("store".to_owned()).spawn(move || desk.work(&receiver));
        let thread = thread.map_err(|error| StoreError::Unavailable(error.to_string()))?;
        Ok(Self { queue: Mutex::new(Some(sender)), failed, thread: Mutex::new(Some(thread)) })
    }

    /// Has `change` made in the next transaction; returns when that is on disk.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Tables<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let work: Work = Box::new(move |tables| {
            let made = change(tables);
            Box::new(move |committed: Result<(), StoreError>| {
                // Whoever has gone needs no answer.
                let _ = reply.send(made.and_then(|value| committed.map(|()| value)));
            })
        });
        self.order(Order::Change(work))?;
        answer.await.map_err(|_| not_made())?
    }

    /// Whether the last transaction was not committed.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Has a claim made as soon as there is something to claim.
    pub(super) fn claim(&self, claim: Claim) -> Result<(), StoreError> {
        self.order(Order::Claim(claim))
    }

    /// Has claims ended that are not wanted any more.
    pub(super) fn look_at_claims(&self) {
        // A thread that has too much to do looks at them with each transaction anyway.
        let _ = self.order(Order::LookAtClaims);
    }

    fn order(&self, order: Order) -> Result<(), StoreError> {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let queued = queue.ok_or_else(|| StoreError::Unavailable("the database is closed".to_owned()))?.try_send(order);
        queued.map_err(|_| StoreError::Unavailable("too many changes wait for the database".to_owned()))
    }

    /// Makes what has been taken, and ends the thread.
    pub(super) fn stop(&self) {
        drop(self.queue.lock().unwrap_or_else(PoisonError::into_inner).take());
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take()
            && thread.join().is_err()
        {
            error!("the store's thread failed");
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What is told to whoever was not answered: the transaction never came to the change, or the thread has ended.
pub(super) fn not_made() -> StoreError {
    StoreError::Unavailable("the change was not made".to_owned())
}

/// What the thread works with.
struct Desk {
    connection: Connection,
    memory: Memory,
    claims: Claims,
    recent: Arc<Recent>,
    settings: SqliteSettings,
    purged: Instant,
    /// The log of what was deleted could not be emptied, which was told.
    purge_failed: bool,
    /// The last transaction was not committed.
    failed: Arc<AtomicBool>,
    meter: CommitMeter,
}

impl Desk {
    fn new(connection: Connection, memory: Memory, recent: Arc<Recent>, settings: SqliteSettings) -> Self {
        let meter = CommitMeter::of("sqlite");
        Self {
            connection,
            memory,
            claims: Claims::default(),
            recent,
            settings,
            purged: Instant::now(),
            purge_failed: false,
            failed: Arc::default(),
            meter,
        }
    }

    fn work(mut self, queue: &Receiver<Order>) {
        loop {
            let first = queue.recv_timeout(PURGE_AFTER);
            let ends = matches!(first, Err(RecvTimeoutError::Disconnected));
            // A panic is a bug in one change or in this thread, and is not to stop every gateway that meets it: who waited is refused.
            if catch_unwind(AssertUnwindSafe(|| self.round(first.ok(), queue))).is_err() {
                error!("the store's thread failed while it wrote; what it was writing is refused. Report this as a bug");
                self.roll_back();
            }
            if ends {
                return;
            }
        }
    }

    /// Makes what waits, or, if nothing does, what there is time for now.
    fn round(&mut self, first: Option<Order>, queue: &Receiver<Order>) {
        if first.is_none() {
            return self.purge();
        }
        let shared = self.settings.sharing == Sharing::Waiting;
        let more = if shared { BATCH_MAX - 1 } else { 0 };
        let mut batch = Vec::new();
        for order in first.into_iter().chain(queue.try_iter().take(more)) {
            match order {
                Order::Change(work) => batch.push(work),
                Order::Claim(mut claim) => {
                    if self.settings.sharing == Sharing::NotEvenClaims {
                        claim.limit = 1;
                    }
                    self.claims.stand(claim);
                }
                Order::LookAtClaims => {}
            }
        }
        self.claims.let_go();
        if !batch.is_empty() {
            self.commit(batch, shared);
        }
        // Those that were made with the changes find nothing more.
        if self.claims.may_find(&self.memory.stirred) {
            self.commit(Vec::new(), true);
        }
        if self.purged.elapsed() > PURGE_AT_LEAST {
            self.purge();
        }
    }

    /// Makes one transaction of all of `batch`, and of what may be claimed then.
    fn commit(&mut self, batch: Vec<Work>, with_claims: bool) {
        let (started, size) = (Instant::now(), batch.len());
        let (mut answers, mut made) = (Vec::with_capacity(size), Vec::new());
        let committed = self.transact(batch, with_claims, &mut answers, &mut made).map_err(|error| {
            error!(error = %error, "nothing was committed: {error}");
            self.roll_back();
            unavailable(error)
        });
        self.failed.store(committed.is_err(), Ordering::Relaxed);
        let size = size + made.len();
        answers.into_iter().for_each(|answer: Answer| answer(committed.clone()));
        made.into_iter().for_each(|made: Made| made.answer(committed.clone()));
        if committed.is_ok() && size > 0 {
            self.meter.committed(size, started.elapsed());
        }
    }

    /// What the transaction never comes to is not answered.
    fn transact(&mut self, batch: Vec<Work>, with_claims: bool, answers: &mut Vec<Answer>, made: &mut Vec<Made>) -> rusqlite::Result<()> {
        self.memory.refresh(&self.connection)?;
        self.connection.execute_batch("BEGIN IMMEDIATE")?;
        let before = self.connection.total_changes();
        let mut tables = Tables::new(&self.connection, &mut self.memory, &self.recent);
        for work in batch {
            answers.push(work(&mut tables));
            tables.check()?;
        }
        if with_claims {
            self.claims.make(&mut tables, made);
            tables.check()?;
        }
        let seen = tables.into_seen();
        if self.connection.total_changes() > before {
            thread::sleep(self.settings.commit_delay);
        }
        self.connection.execute_batch("COMMIT")?;
        self.recent.keep(seen);
        Ok(())
    }

    fn roll_back(&mut self) {
        // What was noted of the transaction is not so: read it again.
        self.memory.forget();
        if !self.connection.is_autocommit()
            && let Err(error) = self.connection.execute_batch("ROLLBACK")
        {
            warn!(error = %error, "a transaction could not be rolled back");
        }
    }

    /// Moves everything from the write-ahead log into the database and empties it, so that what was deleted is nowhere any more.
    fn purge(&mut self) {
        self.purged = Instant::now();
        if !self.memory.deleted {
            return;
        }
        // The first value is 1 if a reader was in the way: the next round does it then.
        let emptied = self
            .connection
            .busy_timeout(PURGE_WAIT_MAX)
            .and_then(|()| self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |row| row.get::<_, i64>(0)));
        match emptied {
            Ok(0) => self.memory.deleted = false,
            Ok(_) => {}
            // Once: this is tried every second.
            Err(ref error) if !self.purge_failed => warn!(error = %error, "the write-ahead log could not be emptied; it is tried again"),
            Err(_) => {}
        }
        self.purge_failed = emptied.is_err();
        if let Err(error) = self.connection.busy_timeout(BUSY_MAX) {
            warn!(error = %error, "the database's waiting time could not be set");
        }
    }
}

#[cfg(test)]
mod tests {
    use tempfile::tempdir;

    use crate::{
        domain::{
            audit::AuditEvent,
            ids::{CallerId, GatewayId, TicketId},
        },
        store::{
            Change, Store as _, StoreError, rows,
            sqlite::{SqliteSettings, SqliteStore},
        },
    };

    #[tokio::test]
    async fn a_change_that_panics_is_refused_undone_and_stops_nobody_else() {
        let dir = tempdir().unwrap();
        let store = SqliteStore::open(SqliteSettings::new(dir.path().join("db"), GatewayId::random())).unwrap();
        let now = store.now();
        let stopped = || vec![Change::Audit(AuditEvent::GatewayStopped)];
        for round in 0..3 {
            let broken = store.writer.write::<()>(move |tables| {
                rows::commit(tables, stopped(), now)?;
                panic!("injected");
            });
            let refused = broken.await.unwrap_err();
            assert!(matches!(refused, StoreError::Unavailable(_)), "{refused}");
            assert_eq!(store.audit_head().await.unwrap().seq, round, "what it had changed is undone");
            store.commit(stopped()).await.unwrap();
            assert_eq!(store.audit_head().await.unwrap().seq, round + 1);
        }
        let caller: CallerId = "somebody".parse().unwrap();
        assert_eq!((store.find_ticket(TicketId::random()).await, store.count_tickets(&caller).await), (Ok(None), Ok(0)));
        store.close();
    }
}
