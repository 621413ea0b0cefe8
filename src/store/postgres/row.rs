//! From rows of the database to what they mean. Column lists stand beside the functions that read them.

use tokio_postgres::{Row, types::FromSql};

use super::session::Fault;
use crate::{
    domain::{
        audit::{AuditHead, SealedRecord, Sha256},
        ids::GatewayId,
        permit::Permit,
        ticket::Ticket,
    },
    store::{
        StoreError,
        columns::{JobRead, PermitColumns, TicketColumns, unreadable},
        rows::JobRow,
    },
};

/// What [`ticket`] reads.
macro_rules! ticket_columns {
    () => {
        "SELECT id, caller, touched, version, body FROM tickets "
    };
}

/// What [`permit`] reads.
macro_rules! permit_columns {
    () => {
        "SELECT id, caller, uses, reserved, committed, expires, state, body FROM permits "
    };
}

/// What [`job`] reads, of `jobs` in whatever `SELECT` or `RETURNING` follows.
macro_rules! job_columns {
    () => {
        "jobs.id, jobs.caller, jobs.permit, jobs.accepted, jobs.deadline, jobs.state, jobs.claim, jobs.ended, jobs.body, jobs.outcome"
    };
}

pub(super) use {job_columns, permit_columns, ticket_columns};

/// The value of a column.
pub(super) fn column<'a, T: FromSql<'a>>(row: &'a Row, at: usize) -> Result<T, StoreError> {
    row.try_get(at).map_err(|error| Fault::of(&error).into())
}

/// A count.
pub(super) fn number(row: &Row, at: usize) -> Result<usize, StoreError> {
    Ok(usize::try_from(column::<i64>(row, at)?).unwrap_or(0))
}

pub(super) fn ticket(row: &Row) -> Result<Ticket, StoreError> {
    TicketColumns::read(column(row, 0)?, column(row, 1)?, column(row, 2)?, column(row, 3)?, column(row, 4)?)
}

pub(super) fn permit(row: &Row) -> Result<Permit, StoreError> {
    PermitColumns {
        id: column(row, 0)?,
        caller: column(row, 1)?,
        uses: column(row, 2)?,
        reserved: column(row, 3)?,
        committed: column(row, 4)?,
        expires: column(row, 5)?,
        state: column(row, 6)?,
        body: column(row, 7)?,
    }
    .read()
}

pub(super) fn job(row: &Row) -> Result<JobRow, StoreError> {
    JobRead {
        id: column(row, 0)?,
        caller: column(row, 1)?,
        permit: column(row, 2)?,
        accepted: column(row, 3)?,
        deadline: column(row, 4)?,
        state: column(row, 5)?,
        claim: column(row, 6)?,
        ended: column(row, 7)?,
        body: column(row, 8)?,
        outcome: column(row, 9)?,
    }
    .into_row()
}

/// `seq, text, hash` of an audit log.
pub(super) fn record(row: &Row) -> Result<SealedRecord, StoreError> {
    let seq = u64::try_from(column::<i64>(row, 0)?).map_err(|error| unreadable("an audit record", error))?;
    Ok(SealedRecord { seq, text: column(row, 1)?, hash: hash(row, 2)? })
}

/// The head of a gateway's log, of its last record's `seq, hash`.
pub(super) fn head(gateway: GatewayId, last: Option<&Row>) -> Result<AuditHead, StoreError> {
    let Some(row) = last else { return Ok(AuditHead::empty(gateway)) };
    let seq = u64::try_from(column::<i64>(row, 0)?).map_err(|error| unreadable("an audit record", error))?;
    Ok(AuditHead { gateway, seq, hash: hash(row, 1)? })
}

fn hash(row: &Row, at: usize) -> Result<Sha256, StoreError> {
    let bytes: Vec<u8> = column(row, at)?;
    let value: [u8; 32] = bytes.try_into().map_err(|_| unreadable("an audit record", "a hash of another length"))?;
    Ok(value.into())
}
