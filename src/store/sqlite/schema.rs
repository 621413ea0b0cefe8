//! The database's format: migrations, and the settings that every connection has.

use std::{
    fs::{OpenOptions, Permissions},
    io,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
    time::Duration,
};

use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use tracing::info;

/// Every step from an empty database to the present format, in order. A step that was released is never changed.
const MIGRATIONS: &[&str] = &[
    include_str!("../migrations/sqlite/0001_state.sql"),
    include_str!("../migrations/sqlite/0002_operators.sql"),
    include_str!("../migrations/sqlite/0003_callers.sql"),
    include_str!("../migrations/sqlite/0004_consent.sql"),
    include_str!("../migrations/sqlite/0005_enrolments.sql"),
    include_str!("../migrations/sqlite/0006_signatures.sql"),
];

/// How long a statement waits for another connection's lock: the write-ahead log is emptied while nobody reads.
pub(super) const BUSY_MAX: Duration = Duration::from_secs(5);

/// After so many pages the write-ahead log is moved into the database: 16 MiB. With SQLite's own thousand a busy gateway would do so ten times
/// a second, and sync two files each time.
const LOG_PAGES: u32 = 4_096;

#[derive(Debug)]
pub(super) enum MigrationError {
    TooNew { found: u32, known: u32 },
    Database(rusqlite::Error),
}

impl From<rusqlite::Error> for MigrationError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error)
    }
}

/// Makes the file private before anything is in it; SQLite gives its other files the same mode.
pub(super) fn make_private(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))
}

/// Opens a database to read it only.
pub(super) fn open_read_only(path: &Path) -> rusqlite::Result<Connection> {
    Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)
}

/// The settings of a connection that writes.
pub(super) fn set_up(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_MAX)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "secure_delete", "ON")?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.pragma_update(None, "wal_autocheckpoint", LOG_PAGES)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(())
}

/// Brings the format up to date, one step in one transaction.
pub(super) fn migrate(connection: &mut Connection) -> Result<(), MigrationError> {
    let known = u32::try_from(MIGRATIONS.len()).unwrap_or(u32::MAX);
    let found: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if found > known {
        return Err(MigrationError::TooNew { found, known });
    }
    for (version, step) in (1..=known).zip(MIGRATIONS).skip(found as usize) {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute_batch(step)?;
        transaction.pragma_update(None, "user_version", version)?;
        transaction.commit()?;
        info!("the database has format {version} now");
    }
    Ok(())
}
