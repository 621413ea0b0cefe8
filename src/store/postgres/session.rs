//! One connection to the database, with its prepared statements, and several statements in one round trip.
//!
//! Invariants: steps of a pipeline are carried out in their order; no wait for an answer is longer than [`ANSWER_MAX`], after which the
//! connection is given up.

use std::{
    collections::HashMap,
    future::poll_fn,
    pin::pin,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures_util::{TryStreamExt as _, poll};
use tokio::{sync::mpsc, task::AbortHandle, time::timeout};
use tokio_postgres::{AsyncMessage, Client, Row, RowStream, Statement, error::SqlState, types::ToSql};

use super::settings::PostgresSettings;
use crate::store::StoreError;

/// The longest wait for an answer. Longer than what the server itself allows a statement and a lock.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(8);

/// Notifications that have not been looked at yet; whoever does not keep up looks at everything instead.
const NOTIFICATIONS: usize = 1_024;

/// What each connection asks of the server: bounded waits; plans by index, whatever the statistics of a young database say; commits that
/// are on disk when they are answered, unless the operator wants still more.
const MANNERS: &str = "SET statement_timeout = '6s'; SET lock_timeout = '3s'; SET idle_in_transaction_session_timeout = '30s'; \
    SET enable_seqscan = off; SET jit = off; SET client_min_messages = warning; \
    SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') IN ('off', 'local')";

/// A value that can be sent.
pub(super) type Value = Box<dyn ToSql + Sync + Send>;

/// One statement of a pipeline and its values.
pub(super) struct Step {
    sql: &'static str,
    values: Vec<Value>,
}

impl Step {
    pub(super) fn new(sql: &'static str, values: Vec<Value>) -> Self {
        Self { sql, values }
    }
}

/// What a statement gave.
pub(super) struct Answer {
    pub(super) rows: Vec<Row>,
    /// How many rows it changed, or returned.
    pub(super) count: u64,
}

/// Why a statement was not answered.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// There is no connection, or it broke, or the server is on its way down.
    #[error("the database cannot be reached: {0}")]
    Away(String),
    /// The database was reached, and others were in the way.
    #[error("the database could not do it now: {0}")]
    Busy(String),
    /// The database refused it.
    #[error("the database refused: {0}")]
    Refused(String),
}

impl Fault {
    pub(super) fn of(error: &tokio_postgres::Error) -> Self {
        let text = said(error);
        let Some(code) = error.code() else { return Self::Away(text) };
        match code.code().get(..2) {
            Some("08" | "57") if *code != SqlState::QUERY_CANCELED => Self::Away(text),
            // Serialization failures and deadlocks, exhausted resources, locks, cancelled statements.
            Some("40" | "53" | "55" | "57") => Self::Busy(text),
            // Another gateway inserted the same key meanwhile.
            Some("23") => Self::Busy(text),
            _ => Self::Refused(text),
        }
    }
}

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> Self {
        Self::Unavailable(fault.to_string())
    }
}

/// The driver's own words stop at "db error"; the cause says what it was.
pub(super) fn said(error: &tokio_postgres::Error) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

/// A connection. It is closed with the value.
pub(super) struct Session {
    client: Client,
    statements: Mutex<HashMap<String, Statement>>,
    driver: AbortHandle,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Session {
    /// Connects as `role`, which operators see in `pg_stat_activity`.
    pub(super) async fn open(settings: &PostgresSettings, role: &str) -> Result<Self, Fault> {
        Ok(Self::open_listening(settings, role).await?.0)
    }

    /// As [`open`](Self::open), with the payloads of the notifications that the connection will be sent.
    pub(super) async fn open_listening(settings: &PostgresSettings, role: &str) -> Result<(Self, mpsc::Receiver<String>), Fault> {
        let mut config = settings.config.clone();
        config.application_name(application_name(settings, role));
        let connector = settings.trust.connector().map_err(|error| Fault::Refused(error.to_string()))?;
        let connecting = timeout(ANSWER_MAX, config.connect(connector));
        let (client, mut connection) = connecting.await.map_err(|_| slow())?.map_err(|error| Fault::of(&error))?;
        let (sender, notifications) = mpsc::channel(NOTIFICATIONS);
        let driver = tokio::spawn(async move {
            while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
                if let AsyncMessage::Notification(notification) = message {
                    // Full: the poll finds what is lost here.
                    let _ = sender.try_send(notification.payload().to_owned());
                }
            }
        });
        let session = Self { client, statements: Mutex::default(), driver: driver.abort_handle() };
        session.batch(MANNERS).await?;
        Ok((session, notifications))
    }

    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Runs statements without values, separated by semicolons.
    pub(super) async fn batch(&self, sql: &str) -> Result<(), Fault> {
        self.bounded(self.client.batch_execute(sql)).await
    }

    /// Runs a script that may take as long as it takes.
    pub(super) async fn script(&self, sql: &str) -> Result<(), Fault> {
        self.client.batch_execute(sql).await.map_err(|error| Fault::of(&error))
    }

    pub(super) async fn query(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Fault> {
        let statement = self.prepared(sql).await?;
        self.bounded(self.client.query(&statement, values)).await
    }

    /// Sends all of `steps` at once and gives their answers, in order; the first that failed, if one did.
    pub(super) async fn pipeline(&self, steps: Vec<Step>) -> Result<Vec<Answer>, Fault> {
        // Preparing is a round trip of its own, and only the first time.
        let mut prepared = Vec::with_capacity(steps.len());
        for step in steps {
            prepared.push((self.prepared(step.sql).await?, step.values));
        }
        let answers = async {
            let mut running: Vec<_> = prepared.into_iter().map(|(statement, values)| Box::pin(self.step(statement, values))).collect();
            // A statement is sent when its future is polled for the first time, so this fixes their order.
            let mut done = Vec::with_capacity(running.len());
            for step in &mut running {
                done.push(poll!(step.as_mut()));
            }
            let mut answers = Vec::with_capacity(running.len());
            for (step, early) in running.into_iter().zip(done) {
                answers.push(match early {
                    std::task::Poll::Ready(answer) => answer?,
                    std::task::Poll::Pending => step.await?,
                });
            }
            Ok(answers)
        };
        self.bounded(answers).await
    }

    async fn step(&self, statement: Statement, values: Vec<Value>) -> Result<Answer, tokio_postgres::Error> {
        let stream: RowStream = self.client.query_raw(&statement, values).await?;
        let mut stream = pin!(stream);
        let mut rows = Vec::new();
        while let Some(row) = stream.try_next().await? {
            rows.push(row);
        }
        Ok(Answer { rows, count: stream.rows_affected().unwrap_or(0) })
    }

    /// Not under the lock: whoever asks may stop being polled at any time. Preparing twice does no harm.
    async fn prepared(&self, sql: &str) -> Result<Statement, Fault> {
        let known = self.statements.lock().unwrap_or_else(PoisonError::into_inner).get(sql).cloned();
        if let Some(statement) = known {
            return Ok(statement);
        }
        let statement = self.bounded(self.client.prepare(sql)).await?;
        self.statements.lock().unwrap_or_else(PoisonError::into_inner).insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }

    async fn bounded<T>(&self, work: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T, Fault> {
        match timeout(ANSWER_MAX, work).await {
            Ok(result) => result.map_err(|error| Fault::of(&error)),
            Err(_) => {
                // Whoever comes next finds it closed.
                self.driver.abort();
                Err(slow())
            }
        }
    }
}

/// What a connection of this gateway is called in `pg_stat_activity`.
pub(super) fn application_name(settings: &PostgresSettings, role: &str) -> String {
    format!("sealgate {role} {}", settings.gateway)
}

fn slow() -> Fault {
    Fault::Away(format!("it did not answer within {} s", ANSWER_MAX.as_secs()))
}
