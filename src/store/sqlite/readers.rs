//! Connections that only read. They see what is committed and wait for nobody.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use rusqlite::Connection;
use tokio::{sync::Semaphore, task::spawn_blocking};

use super::{queries::unavailable, schema};
use crate::store::StoreError;

/// The most reads at a time. A read takes some microseconds: more would only wait for the processor.
const READERS_MAX: usize = 4;
const STATEMENTS_MAX: usize = 32;

/// A small pool of connections.
pub(super) struct Readers {
    pool: Arc<Pool>,
    turns: Semaphore,
}

struct Pool {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
}

impl Readers {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { pool: Arc::new(Pool { path, idle: Mutex::default() }), turns: Semaphore::new(READERS_MAX) }
    }

    /// Closes the connections that nobody uses now.
    pub(super) fn close(&self) {
        self.pool.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Reads on a blocking thread.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let _turn = self.turns.acquire().await.map_err(|error| StoreError::Unavailable(error.to_string()))?;
        let pool = Arc::clone(&self.pool);
        let done = spawn_blocking(move || pool.read(read));
        done.await.unwrap_or_else(|error| Err(StoreError::Unavailable(error.to_string())))
    }

    /// Reads one row by its key, here and now: that takes some ten microseconds, and handing it to another thread and back takes longer.
    pub(super) fn read_row<T>(&self, read: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.pool.read(read)
    }
}

impl Pool {
    fn read<T>(&self, read: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let connection = self.take()?;
        let value = read(&connection)?;
        // A connection whose statement failed is not put back.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        Ok(value)
    }

    fn take(&self) -> Result<Connection, StoreError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        idle.map_or_else(|| self.open().map_err(unavailable), Ok)
    }

    fn open(&self) -> rusqlite::Result<Connection> {
        let connection = schema::open_read_only(&self.path)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        Ok(connection)
    }
}
