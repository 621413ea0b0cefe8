//! What is read, on any connection: the queries of this store, and the columns they bring.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension as _, Row, params};
use uuid::Uuid;

use super::accounts;
use crate::{
    domain::{
        audit::{AuditHead, SealedRecord, Sha256},
        idempotency::IdempotentRequest,
        ids::{CallerId, GatewayId, IdempotencyKey, JobId, PermitId, TicketId},
        job::{QueueLength, SigningJob},
        permit::Permit,
        ticket::{ContentPart, Ticket},
        timestamp::Timestamp,
        token::TokenIdentity,
    },
    store::{
        ContentUsage, JobFilter, StoreError,
        columns::{
            JobRead, PermitColumns, TicketColumns, count, millis, request_of, state_text, timestamp, token_of, token_text, unreadable,
        },
        rows::JobRow,
    },
};

pub(super) const TICKET: &str =
    "SELECT id, caller, touched, version, body, (SELECT text FROM metadata WHERE metadata.ticket = tickets.id) FROM tickets";
const PERMIT: &str = "SELECT id, caller, uses, reserved, committed, expires, state, body FROM permits";
pub(super) const JOB: &str = "SELECT id, caller, permit, accepted, deadline, state, claim, ended, body, outcome FROM jobs";

/// An error of the database, as services see it.
pub(super) fn unavailable(error: rusqlite::Error) -> StoreError {
    StoreError::Unavailable(error.to_string())
}

pub(super) fn ticket(connection: &Connection, id: TicketId) -> Result<Option<Ticket>, StoreError> {
    one(connection, &format!("{TICKET} WHERE id = ?1"), params![id.as_uuid().as_bytes()], ticket_columns)?.map(read_ticket).transpose()
}

pub(super) fn count_tickets(connection: &Connection, caller: &CallerId) -> Result<usize, StoreError> {
    number(connection, "SELECT tickets FROM ticket_counts WHERE caller = ?1", params![caller.as_str()])
}

/// The table that a part of a ticket stands in.
pub(super) const fn table_of(part: ContentPart) -> &'static str {
    match part {
        ContentPart::Document => "contents",
        ContentPart::Signature => "signatures",
    }
}

pub(super) fn content(connection: &Connection, ticket: TicketId, part: ContentPart) -> Result<Option<Arc<[u8]>>, StoreError> {
    let bytes: Option<Vec<u8>> =
        one(connection, &format!("SELECT bytes FROM {} WHERE ticket = ?1", table_of(part)), params![ticket.as_uuid().as_bytes()], |row| {
            row.get(0)
        })?;
    Ok(bytes.map(Into::into))
}

pub(super) fn content_usage(connection: &Connection) -> Result<ContentUsage, StoreError> {
    let sum = |of: &str, condition: &str| {
        let sql = format!("SELECT coalesce(sum({of}), 0) FROM tickets WHERE {condition}");
        connection.query_row(&sql, (), |row| row.get::<_, i64>(0)).map(|sum| u64::try_from(sum).unwrap_or(0)).map_err(unavailable)
    };
    let stored = sum("content_len", "spooled IS NULL")? + sum("signature_len", "signature_spooled IS NULL")?;
    let spooled = sum("content_len", "spooled IS NOT NULL")? + sum("signature_len", "signature_spooled IS NOT NULL")?;
    Ok(ContentUsage { stored, spooled })
}

pub(super) fn spooled_files(connection: &Connection) -> Result<Vec<String>, StoreError> {
    let sql = "SELECT spooled FROM tickets WHERE spooled IS NOT NULL
         UNION ALL SELECT signature_spooled FROM tickets WHERE signature_spooled IS NOT NULL";
    all(connection, sql, (), |row| row.get(0))
}

pub(super) fn permit(connection: &Connection, id: PermitId) -> Result<Option<Permit>, StoreError> {
    let sql = format!("{PERMIT} WHERE id = ?1");
    one(connection, &sql, params![id.as_uuid().as_bytes()], permit_columns)?.map(PermitColumns::read).transpose()
}

pub(super) fn live_permits(connection: &Connection, now: Timestamp, limit: usize) -> Result<Vec<Permit>, StoreError> {
    let sql = format!("{PERMIT} WHERE expires > ?1 AND state = 'granted' AND reserved + committed < uses ORDER BY expires LIMIT ?2");
    let found = all(connection, &sql, params![millis(now), count(limit as u64)], permit_columns)?;
    found.into_iter().map(PermitColumns::read).collect()
}

pub(super) fn waiting_permits(connection: &Connection, limit: usize) -> Result<Vec<Permit>, StoreError> {
    let sql = format!("{PERMIT} INDEXED BY permits_waiting WHERE state = 'asked' ORDER BY expires, id LIMIT ?1");
    let found = all(connection, &sql, params![count(limit as u64)], permit_columns)?;
    found.into_iter().map(PermitColumns::read).collect()
}

pub(super) fn count_waiting_permits(connection: &Connection) -> Result<usize, StoreError> {
    number(connection, "SELECT count(*) FROM permits WHERE state = 'asked'", ())
}

pub(super) fn count_waiting(connection: &Connection, caller: &CallerId) -> Result<usize, StoreError> {
    number(connection, "SELECT count(*) FROM permits WHERE caller = ?1 AND state = 'asked'", params![caller.as_str()])
}

pub(super) fn count_live(connection: &Connection, caller: &CallerId, now: Timestamp) -> Result<usize, StoreError> {
    let sql = "SELECT count(*) FROM permits WHERE caller = ?1 AND state = 'granted' AND reserved + committed < uses AND expires > ?2";
    number(connection, sql, params![caller.as_str(), millis(now)])
}

pub(super) fn words(connection: &Connection, permit: PermitId) -> Result<Option<String>, StoreError> {
    one(connection, "SELECT text FROM words WHERE permit = ?1", params![permit.as_uuid().as_bytes()], |row| row.get(0))
}

pub(super) fn job(connection: &Connection, id: JobId) -> Result<Option<JobRow>, StoreError> {
    let row = one(connection, &format!("{JOB} WHERE id = ?1"), params![id.as_uuid().as_bytes()], job_read)?;
    row.map(JobRead::into_row).transpose()
}

pub(super) fn list_jobs(connection: &Connection, filter: &JobFilter, limit: usize) -> Result<Vec<SigningJob>, StoreError> {
    // The state stands in the text, so that its partial index is used.
    let state = filter.state.map_or_else(String::new, |state| format!("AND state = '{}'", state_text(state)));
    let caller = filter.caller.as_ref().map(CallerId::as_str);
    let before = filter.before.map(|job| *job.as_uuid().as_bytes());
    let until = if before.is_some() { "AND seq < (SELECT seq FROM jobs WHERE id = ?3)" } else { "AND ?3 IS NULL" };
    let sql = format!("{JOB} WHERE (?1 IS NULL OR caller = ?1) {state} {until} ORDER BY seq DESC LIMIT ?2");
    let rows = all(connection, &sql, params![caller, count(limit as u64), before], job_read)?;
    rows.into_iter().map(|row| Ok(row.into_row()?.job)).collect()
}

pub(super) fn request(connection: &Connection, caller: &CallerId, key: &IdempotencyKey) -> Result<Option<IdempotentRequest>, StoreError> {
    let sql = "SELECT done, expires FROM requests WHERE caller = ?1 AND key = ?2";
    let row = one(connection, sql, params![caller.as_str(), key.as_str()], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?)))?;
    row.map(|(done, expires)| request_of(caller, key, &done, expires)).transpose()
}

pub(super) fn any_late(connection: &Connection, now: Timestamp) -> Result<bool, StoreError> {
    let sql = "SELECT 1 FROM jobs WHERE state = 'queued' AND deadline <= ?1 LIMIT 1";
    Ok(one(connection, sql, params![millis(now)], |_| Ok(()))?.is_some())
}

/// What may be forgotten.
#[derive(Default)]
pub(super) struct Forgettable {
    pub(super) jobs: Vec<Uuid>,
    pub(super) permits: Vec<Uuid>,
    pub(super) requests: Vec<(String, String)>,
    pub(super) sessions: Vec<[u8; 32]>,
}

impl Forgettable {
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn len(&self) -> usize {
        self.jobs.len() + self.permits.len() + self.requests.len() + self.sessions.len()
    }
}

pub(super) fn forgettable(connection: &Connection, before: Timestamp, limit: usize) -> Result<Forgettable, StoreError> {
    let mut old = Forgettable::default();
    let jobs = "SELECT id FROM jobs WHERE ended IS NOT NULL AND ended < ?1 AND NOT EXISTS (SELECT 1 FROM tickets WHERE tickets.job = jobs.id) \
                ORDER BY ended LIMIT ?2";
    old.jobs = all(connection, jobs, params![millis(before), count(limit as u64)], |row| uuid(row, 0))?;
    let permits = "SELECT id FROM permits WHERE expires < ?1 AND reserved = 0 AND state <> 'asked' ORDER BY expires LIMIT ?2";
    old.permits = all(connection, permits, params![millis(before), count((limit - old.len()) as u64)], |row| uuid(row, 0))?;
    let requests = "SELECT caller, key FROM requests WHERE expires < ?1 ORDER BY expires LIMIT ?2";
    let left = count((limit - old.len()) as u64);
    old.requests = all(connection, requests, params![millis(before), left], |row| Ok((row.get(0)?, row.get(1)?)))?;
    old.sessions = accounts::expired(connection, before, limit - old.len())?;
    Ok(old)
}

pub(super) fn count_queued(connection: &Connection, token: &TokenIdentity) -> Result<usize, StoreError> {
    number(connection, "SELECT queued FROM queue_lengths WHERE token = ?1", params![token_text(token)?])
}

pub(super) fn queues(connection: &Connection) -> Result<Vec<QueueLength>, StoreError> {
    let sql = "SELECT token, count(*), min(accepted) FROM jobs WHERE state = 'queued' GROUP BY token";
    let rows = all(connection, sql, (), |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?)))?;
    let length = |(token, queued, oldest): (String, i64, i64)| {
        let queued = usize::try_from(queued).unwrap_or(0);
        Ok(QueueLength { token: token_of(&token)?, queued, oldest: timestamp(oldest) })
    };
    rows.into_iter().map(length).collect()
}

pub(super) fn audit_head(connection: &Connection, gateway: GatewayId) -> Result<AuditHead, StoreError> {
    let sql = "SELECT seq, text, hash FROM audit WHERE gateway = ?1 ORDER BY seq DESC LIMIT 1";
    let last = one(connection, sql, params![gateway.as_uuid().as_bytes()], sealed)?;
    Ok(last.map_or_else(|| AuditHead::empty(gateway), |record| AuditHead { gateway, seq: record.seq, hash: record.hash }))
}

pub(super) fn audit_logs(connection: &Connection) -> Result<Vec<GatewayId>, StoreError> {
    let ids = all(connection, "SELECT DISTINCT gateway FROM audit ORDER BY gateway", (), |row| uuid(row, 0))?;
    Ok(ids.into_iter().map(Into::into).collect())
}

pub(super) fn audit_records(connection: &Connection, gateway: GatewayId, from: u64, limit: usize) -> Result<Vec<SealedRecord>, StoreError> {
    let sql = "SELECT seq, text, hash FROM audit WHERE gateway = ?1 AND seq >= ?2 ORDER BY seq LIMIT ?3";
    all(connection, sql, params![gateway.as_uuid().as_bytes(), count(from), count(limit as u64)], sealed_or_spoilt)
}

/// A record as it stands, be it what it may: whoever verifies the log sees that its hash is wrong and says which one it is.
fn sealed_or_spoilt(row: &Row<'_>) -> rusqlite::Result<SealedRecord> {
    let seq = u64::try_from(row.get::<_, i64>(0)?).unwrap_or(0);
    let text = row.get_ref(1)?.as_bytes().map(String::from_utf8_lossy).unwrap_or_default().into_owned();
    let hash = row.get_ref(2)?.as_blob().ok().and_then(|hash| <[u8; 32]>::try_from(hash).ok());
    Ok(SealedRecord { seq, text, hash: hash.map_or(Sha256::ZERO, Sha256::from) })
}

pub(super) fn uuid(row: &Row<'_>, index: usize) -> rusqlite::Result<Uuid> {
    row.get::<_, [u8; 16]>(index).map(Uuid::from_bytes)
}

fn optional_uuid(row: &Row<'_>, index: usize) -> rusqlite::Result<Option<Uuid>> {
    Ok(row.get::<_, Option<[u8; 16]>>(index)?.map(Uuid::from_bytes))
}

type TicketRead = (Uuid, String, i64, i64, String, Option<String>);

pub(super) fn ticket_columns(row: &Row<'_>) -> rusqlite::Result<TicketRead> {
    Ok((uuid(row, 0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?))
}

pub(super) fn read_ticket((id, caller, touched, version, body, metadata): TicketRead) -> Result<Ticket, StoreError> {
    Ok(Ticket { metadata, ..TicketColumns::read(id, caller, touched, version, &body)? })
}

fn permit_columns(row: &Row<'_>) -> rusqlite::Result<PermitColumns> {
    Ok(PermitColumns {
        id: uuid(row, 0)?,
        caller: row.get(1)?,
        uses: row.get(2)?,
        reserved: row.get(3)?,
        committed: row.get(4)?,
        expires: row.get(5)?,
        state: row.get(6)?,
        body: row.get(7)?,
    })
}

pub(super) fn job_read(row: &Row<'_>) -> rusqlite::Result<JobRead> {
    Ok(JobRead {
        id: uuid(row, 0)?,
        caller: row.get(1)?,
        permit: optional_uuid(row, 2)?,
        accepted: row.get(3)?,
        deadline: row.get(4)?,
        state: row.get(5)?,
        claim: optional_uuid(row, 6)?,
        ended: row.get(7)?,
        body: row.get(8)?,
        outcome: row.get(9)?,
    })
}

fn sealed(row: &Row<'_>) -> rusqlite::Result<SealedRecord> {
    let seq = u64::try_from(row.get::<_, i64>(0)?).unwrap_or(0);
    Ok(SealedRecord { seq, text: row.get(1)?, hash: Sha256::from(row.get::<_, [u8; 32]>(2)?) })
}

pub(super) fn one<T>(
    connection: &Connection,
    sql: &str,
    params: impl rusqlite::Params,
    read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Option<T>, StoreError> {
    #[cfg(test)]
    super::plans::note(connection, sql);
    let found = connection.prepare_cached(sql).and_then(|mut statement| statement.query_row(params, read).optional());
    found.map_err(unavailable)
}

pub(super) fn all<T>(
    connection: &Connection,
    sql: &str,
    params: impl rusqlite::Params,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Vec<T>, StoreError> {
    #[cfg(test)]
    super::plans::note(connection, sql);
    let found = connection.prepare_cached(sql).and_then(|mut statement| statement.query_map(params, read)?.collect());
    found.map_err(unavailable)
}

fn number(connection: &Connection, sql: &str, params: impl rusqlite::Params) -> Result<usize, StoreError> {
    let found: Option<i64> = one(connection, sql, params, |row| row.get(0))?;
    usize::try_from(found.unwrap_or(0)).map_err(|_| unreadable("a count", "it is negative"))
}
