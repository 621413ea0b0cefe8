//! The tables, made and brought up to date when a gateway starts.
//!
//! Invariants: migrations go forward only, one after the other, in one transaction that one gateway at a time can hold; a database that a
//! newer Sealgate has changed is not touched.

use super::{
    PostgresError,
    session::{Fault, Session},
};

/// Each migration that this program knows, oldest first. One that was released never changes.
const MIGRATIONS: [(i32, &str); 8] = [
    (1, include_str!("../migrations/postgres/0001_state.sql")),
    (2, include_str!("../migrations/postgres/0002_leases.sql")),
    (3, include_str!("../migrations/postgres/0003_pins.sql")),
    (4, include_str!("../migrations/postgres/0004_operators.sql")),
    (5, include_str!("../migrations/postgres/0005_callers.sql")),
    (6, include_str!("../migrations/postgres/0006_consent.sql")),
    (7, include_str!("../migrations/postgres/0007_enrolments.sql")),
    (8, include_str!("../migrations/postgres/0008_signatures.sql")),
];

/// The newest of them.
pub(super) const NEWEST: i32 = MIGRATIONS[MIGRATIONS.len() - 1].0;

/// The oldest server that is good enough, as `server_version_num` has it.
const SERVER_MIN: i32 = 140_000;

/// Any number that nobody else locks.
const LOCK: &str = "SELECT pg_advisory_xact_lock(7310013900211)";

/// Checks the server and brings its tables up to date.
pub(super) async fn migrate(session: &Session) -> Result<(), PostgresError> {
    let version: i32 = one(session, "SELECT current_setting('server_version_num')::int").await?;
    if version < SERVER_MIN {
        return Err(PostgresError::OldServer { found: version / 10_000, wanted: SERVER_MIN / 10_000 });
    }
    // Looking first spares a user of the database who may not make tables, where an administrator has made them.
    if stored(session).await? == NEWEST {
        return Ok(());
    }
    session.batch("BEGIN").await?;
    let migrated = forward(session).await;
    session.batch(if migrated.is_ok() { "COMMIT" } else { "ROLLBACK" }).await?;
    migrated
}

/// The version of the tables; 0 if there are none.
async fn stored(session: &Session) -> Result<i32, PostgresError> {
    if !one::<bool>(session, "SELECT to_regclass('sealgate_schema') IS NOT NULL").await? {
        return Ok(0);
    }
    let found: i32 = one(session, "SELECT COALESCE(max(version), 0) FROM sealgate_schema").await?;
    if found > NEWEST { Err(PostgresError::NewerSchema { found, known: NEWEST }) } else { Ok(found) }
}

async fn forward(session: &Session) -> Result<(), PostgresError> {
    // Another gateway's migration, and our own, may take longer than a statement of everyday work.
    session.batch("SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0").await?;
    session.script(LOCK).await?;
    session
        .batch(
            "CREATE TABLE IF NOT EXISTS sealgate_schema \
             (version integer PRIMARY KEY, applied timestamptz NOT NULL DEFAULT now(), sealgate text NOT NULL)",
        )
        .await?;
    let from = stored(session).await?;
    for (version, sql) in MIGRATIONS.iter().filter(|(version, _)| *version > from) {
        session.script(sql).await?;
        let note = "INSERT INTO sealgate_schema (version, sealgate) VALUES ($1, $2)";
        session.query(note, &[version, &env!("CARGO_PKG_VERSION")]).await?;
    }
    Ok(())
}

async fn one<T: for<'a> tokio_postgres::types::FromSql<'a>>(session: &Session, sql: &str) -> Result<T, PostgresError> {
    let rows = session.query(sql, &[]).await?;
    let row = rows.first().ok_or_else(|| Fault::Refused("no row came back".to_owned()))?;
    row.try_get(0).map_err(|error| Fault::of(&error).into())
}
