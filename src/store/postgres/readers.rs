//! Connections that only read: many questions share one, and none waits for the writer.

use std::{
    sync::{
        Arc,
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
    sessions: [Mutex<Option<Arc<Session>>>; READERS],
    next: AtomicUsize,
}

impl Readers {
    pub(super) fn new(settings: PostgresSettings) -> Self {
        Self { settings, sessions: Default::default(), next: AtomicUsize::new(0) }
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
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % READERS;
        let mut slot = self.sessions[turn].lock().await;
        if let Some(session) = slot.as_ref().filter(|session| !session.is_closed()) {
            return Ok(Arc::clone(session));
        }
        let session = Arc::new(Session::open(&self.settings, "reader").await?);
        *slot = Some(Arc::clone(&session));
        Ok(session)
    }
}
