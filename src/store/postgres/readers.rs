//! Connections that only read: many questions share one, and none waits for the writer.

use std::{
    sync::{
        Arc, Mutex as StdMutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::Mutex,
    time::{Instant, sleep, timeout_at},
};
use tokio_postgres::{Row, types::ToSql};

use super::{
    session::{Fault, Session},
    settings::PostgresSettings,
};
use crate::store::StoreError;

/// A connection answers questions in the order in which they come; a second one keeps a long answer from holding the others up.
const READERS: usize = 2;

/// The pause before the database is tried again.
const PAUSE: Duration = Duration::from_millis(100);

pub(super) struct Readers {
    settings: PostgresSettings,
    lines: [Arc<Line>; READERS],
    next: AtomicUsize,
}

/// One connection, or the want of one.
#[derive(Default)]
struct Line {
    session: StdMutex<Option<Arc<Session>>>,
    /// Held by the task that connects.
    connecting: Mutex<()>,
}

impl Readers {
    pub(super) fn new(settings: PostgresSettings) -> Self {
        Self { settings, lines: Default::default(), next: AtomicUsize::new(0) }
    }

    /// Asks; while the database is away, again and again within the bound.
    pub(super) async fn query(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, StoreError> {
        let deadline = Instant::now() + self.settings.wait;
        loop {
            let asked = timeout_at(deadline, async { self.session().await?.query(sql, values).await });
            let fault = match asked.await {
                Ok(Ok(rows)) => return Ok(rows),
                Ok(Err(fault @ Fault::Refused(_))) => return Err(fault.into()),
                Ok(Err(fault)) => fault,
                Err(_) => Fault::Away(format!("it did not answer within {} s", self.settings.wait.as_secs())),
            };
            if Instant::now() + PAUSE >= deadline {
                return Err(fault.into());
            }
            sleep(PAUSE).await;
        }
    }

    async fn session(&self) -> Result<Arc<Session>, Fault> {
        let line = &self.lines[self.next.fetch_add(1, Ordering::Relaxed) % READERS];
        if let Some(session) = line.open() {
            return Ok(session);
        }
        // In a task: whoever asks may stop being polled at any time, and must not keep the others waiting then.
        let (line, settings) = (Arc::clone(line), self.settings.clone());
        let connecting = tokio::spawn(async move { line.connect(&settings).await });
        connecting.await.unwrap_or_else(|error| Err(Fault::Away(error.to_string())))
    }
}

impl Line {
    fn open(&self) -> Option<Arc<Session>> {
        let session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        session.as_ref().filter(|session| !session.is_closed()).cloned()
    }

    async fn connect(&self, settings: &PostgresSettings) -> Result<Arc<Session>, Fault> {
        let _turn = self.connecting.lock().await;
        if let Some(session) = self.open() {
            return Ok(session);
        }
        let session = Arc::new(Session::open(settings, "reader").await?);
        *self.session.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&session));
        Ok(session)
    }
}
