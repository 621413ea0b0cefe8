//! The one thread that writes: takes what waits, makes it one transaction, and answers when that is on disk.

use std::{
    sync::{Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use rusqlite::Connection;
use tokio::sync::oneshot;
use tracing::{error, warn};

use super::{
    SqliteSettings,
    queries::unavailable,
    schema::BUSY_MAX,
    tables::{Memory, Tables},
};
use crate::store::{StoreError, meter::CommitMeter};

/// The most changes that wait. A change that finds no room is refused, and its client asked to come again.
const QUEUE_MAX: usize = 4096;

/// After so long without a change, the log of what was deleted is emptied.
const PURGE_AFTER: Duration = Duration::from_secs(1);
/// And after so long in any case.
const PURGE_AT_LEAST: Duration = Duration::from_secs(20);
/// How long emptying the log may wait for a connection that reads; changes wait meanwhile.
const PURGE_WAIT_MAX: Duration = Duration::from_millis(50);

/// One change, to be made within a transaction; what comes back answers whoever waits, once the fate of the transaction is known.
type Work = Box<dyn FnOnce(&mut Tables<'_>) -> Answer + Send>;
type Answer = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// The way to the writing thread.
pub(super) struct Writer {
    queue: Mutex<Option<Sender<Work>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Writer {
    pub(super) fn start(connection: Connection, settings: SqliteSettings) -> Result<Self, StoreError> {
        let (sender, receiver) = bounded(QUEUE_MAX);
        let memory = Memory::load(&connection, settings.gateway)?;
        let desk = Desk::new(connection, memory, settings);
        let thread = thread::Builder::new().name("store".to_owned()).spawn(move || desk.work(&receiver));
        let thread = thread.map_err(|error| StoreError::Unavailable(error.to_string()))?;
        Ok(Self { queue: Mutex::new(Some(sender)), thread: Mutex::new(Some(thread)) })
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
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let queued = queue.ok_or_else(closed)?.try_send(work);
        queued.map_err(|_| StoreError::Unavailable("too many changes wait for the database".to_owned()))?;
        answer.await.map_err(|_| closed())?
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

fn closed() -> StoreError {
    StoreError::Unavailable("the database is closed".to_owned())
}

/// What the thread works with.
struct Desk {
    connection: Connection,
    memory: Memory,
    settings: SqliteSettings,
    purged: Instant,
    meter: CommitMeter,
}

impl Desk {
    fn new(connection: Connection, memory: Memory, settings: SqliteSettings) -> Self {
        Self { connection, memory, settings, purged: Instant::now(), meter: CommitMeter::of("sqlite") }
    }

    fn work(mut self, queue: &Receiver<Work>) {
        let mut batch = Vec::with_capacity(self.settings.batch_max);
        loop {
            match queue.recv_timeout(PURGE_AFTER) {
                Ok(work) => {
                    batch.push(work);
                    batch.extend(queue.try_iter().take(self.settings.batch_max - 1));
                    self.commit(&mut batch);
                    if self.purged.elapsed() > PURGE_AT_LEAST {
                        self.purge();
                    }
                }
                Err(RecvTimeoutError::Timeout) => self.purge(),
                Err(RecvTimeoutError::Disconnected) => {
                    self.purge();
                    return;
                }
            }
        }
    }

    /// Makes one transaction of all of `batch`.
    fn commit(&mut self, batch: &mut Vec<Work>) {
        let (started, size) = (Instant::now(), batch.len());
        let mut answers = Vec::with_capacity(size);
        let committed = self.transact(batch, &mut answers).map_err(|error| {
            error!(error = %error, "nothing was committed: {error}");
            // What was noted of the transaction is not so: read it again.
            self.memory.forget();
            if !self.connection.is_autocommit()
                && let Err(error) = self.connection.execute_batch("ROLLBACK")
            {
                warn!(error = %error, "a transaction could not be rolled back");
            }
            unavailable(error)
        });
        if committed.is_ok() {
            self.meter.committed(size, started.elapsed());
        }
        answers.into_iter().for_each(|answer: Answer| answer(committed.clone()));
        // What the transaction never came to is refused as well.
        batch.clear();
    }

    fn transact(&mut self, batch: &mut Vec<Work>, answers: &mut Vec<Answer>) -> rusqlite::Result<()> {
        self.memory.refresh(&self.connection)?;
        self.connection.execute_batch("BEGIN IMMEDIATE")?;
        let before = self.connection.total_changes();
        let mut tables = Tables::new(&self.connection, &mut self.memory);
        for work in batch.drain(..) {
            answers.push(work(&mut tables));
            tables.check()?;
        }
        if self.connection.total_changes() > before {
            thread::sleep(self.settings.commit_delay);
        }
        self.connection.execute_batch("COMMIT")
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
            Err(error) => warn!(error = %error, "the write-ahead log could not be emptied"),
        }
        if let Err(error) = self.connection.busy_timeout(BUSY_MAX) {
            warn!(error = %error, "the database's waiting time could not be set");
        }
    }
}
