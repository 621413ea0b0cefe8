//! The SQL of operators' accounts and sessions.

use rusqlite::{Connection, Row, named_params, params};

use super::{
    queries::{all, one},
    tables::Tables,
};
use crate::{
    domain::{
        ids::OperatorName,
        operator::{OperatorAccount, OperatorSession, SessionId},
        timestamp::Timestamp,
    },
    store::{
        StoreError,
        columns::{OperatorColumns, SessionColumns, count, millis},
    },
};

const OPERATOR: &str = "SELECT name, password, disabled, added, epoch, version, body FROM operators";
const SESSION: &str = "SELECT id, operator, epoch, began, seen, expires, address FROM operator_sessions";

pub(super) fn operator(connection: &Connection, name: &OperatorName) -> Result<Option<OperatorAccount>, StoreError> {
    let sql = format!("{OPERATOR} WHERE name = ?1");
    one(connection, &sql, params![name.as_str()], operator_columns)?.map(OperatorColumns::read).transpose()
}

pub(super) fn operators(connection: &Connection) -> Result<Vec<OperatorAccount>, StoreError> {
    let found = all(connection, &format!("{OPERATOR} ORDER BY name"), (), operator_columns)?;
    found.into_iter().map(OperatorColumns::read).collect()
}

pub(super) fn session(connection: &Connection, id: SessionId) -> Result<Option<OperatorSession>, StoreError> {
    let sql = format!("{SESSION} WHERE id = ?1");
    one(connection, &sql, params![id.as_bytes()], session_columns)?.map(SessionColumns::read).transpose()
}

pub(super) fn sessions_of(connection: &Connection, operator: &OperatorName, now: Timestamp) -> Result<Vec<OperatorSession>, StoreError> {
    let sql = format!("{SESSION} WHERE operator = ?1 AND expires > ?2 ORDER BY began DESC, id DESC");
    let found = all(connection, &sql, params![operator.as_str(), millis(now)], session_columns)?;
    found.into_iter().map(SessionColumns::read).collect()
}

/// At most `limit` sessions that expired before `before`.
pub(super) fn expired(connection: &Connection, before: Timestamp, limit: usize) -> Result<Vec<[u8; 32]>, StoreError> {
    let sql = "SELECT id FROM operator_sessions WHERE expires < ?1 ORDER BY expires LIMIT ?2";
    all(connection, sql, params![millis(before), count(limit as u64)], |row| row.get(0))
}

impl Tables<'_> {
    pub(super) fn write_operator(&mut self, name: &OperatorName, row: Option<OperatorAccount>) -> Result<(), StoreError> {
        let Some(row) = row else {
            return self.run("DELETE FROM operators WHERE name = :name", named_params! { ":name": name.as_str() }).map(drop);
        };
        let row = OperatorColumns::of(row)?;
        let sql = "INSERT INTO operators (name, password, disabled, added, epoch, version, body)
             VALUES (:name, :password, :disabled, :added, :epoch, :version, :body)
             ON CONFLICT (name) DO UPDATE SET password = :password, disabled = :disabled, added = :added, epoch = :epoch,
             version = :version, body = :body";
        let params = named_params! {
            ":name": row.name, ":password": row.password, ":disabled": row.disabled, ":added": row.added, ":epoch": row.epoch,
            ":version": row.version, ":body": row.body,
        };
        self.run(sql, params).map(drop)
    }

    pub(super) fn write_session(&mut self, id: SessionId, row: Option<OperatorSession>) -> Result<(), StoreError> {
        let Some(row) = row else {
            return self.run("DELETE FROM operator_sessions WHERE id = :id", named_params! { ":id": id.as_bytes() }).map(drop);
        };
        let row = SessionColumns::of(row);
        let sql = "INSERT INTO operator_sessions (id, operator, epoch, began, seen, expires, address)
             VALUES (:id, :operator, :epoch, :began, :seen, :expires, :address) ON CONFLICT (id) DO UPDATE SET seen = :seen";
        let params = named_params! {
            ":id": row.id, ":operator": row.operator, ":epoch": row.epoch, ":began": row.began, ":seen": row.seen,
            ":expires": row.expires, ":address": row.address,
        };
        self.run(sql, params).map(drop)
    }
}

fn operator_columns(row: &Row<'_>) -> rusqlite::Result<OperatorColumns> {
    Ok(OperatorColumns {
        name: row.get(0)?,
        password: row.get(1)?,
        disabled: row.get(2)?,
        added: row.get(3)?,
        epoch: row.get(4)?,
        version: row.get(5)?,
        body: row.get(6)?,
    })
}

fn session_columns(row: &Row<'_>) -> rusqlite::Result<SessionColumns> {
    Ok(SessionColumns {
        id: row.get(0)?,
        operator: row.get(1)?,
        epoch: row.get(2)?,
        began: row.get(3)?,
        seen: row.get(4)?,
        expires: row.get(5)?,
        address: row.get(6)?,
    })
}
