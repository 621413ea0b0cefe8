//! Certificate requests in SQLite.

use std::iter;

use rusqlite::{Connection, ToSql, named_params, params};

use super::{
    queries::{all, one, uuid},
    tables::Tables,
};
use crate::{
    domain::{
        enrolment::Enrolment,
        ids::{EnrolmentId, KeyName},
        timestamp::Timestamp,
    },
    store::{
        EnrolmentFilter, StoreError,
        columns::{count, millis},
        enrolment::{EnrolmentColumns, conditions, enrolment_of},
    },
};

pub(super) fn enrolment(connection: &Connection, id: EnrolmentId) -> Result<Option<Enrolment>, StoreError> {
    let body: Option<String> =
        one(connection, "SELECT body FROM enrolments WHERE id = ?1", params![id.as_uuid().as_bytes()], |row| row.get(0))?;
    body.as_deref().map(enrolment_of).transpose()
}

pub(super) fn active(connection: &Connection, key: &KeyName) -> Result<Option<EnrolmentId>, StoreError> {
    let sql = "SELECT id FROM enrolments WHERE key_name = ?1 AND active = 1";
    Ok(one(connection, sql, params![key.as_str()], |row| uuid(row, 0))?.map(Into::into))
}

pub(super) fn list(connection: &Connection, filter: &EnrolmentFilter, limit: usize) -> Result<Vec<Enrolment>, StoreError> {
    let limit = count(limit as u64);
    let (conditions, wanted) = conditions(filter, '?', "active = 1");
    let values: Vec<&dyn ToSql> = iter::once(&limit as _).chain(wanted.into_iter().map(|text| text as _)).collect();
    let sql = format!("SELECT body FROM enrolments WHERE created IS NOT NULL{conditions} ORDER BY created DESC, id LIMIT ?1");
    let bodies: Vec<String> = all(connection, &sql, &*values, |row| row.get(0))?;
    bodies.iter().map(|body| enrolment_of(body)).collect()
}

pub(super) fn due(connection: &Connection, now: Timestamp, limit: usize) -> Result<Vec<Enrolment>, StoreError> {
    let sql = "SELECT body FROM enrolments WHERE due IS NOT NULL AND due <= ?1 ORDER BY due LIMIT ?2";
    let bodies: Vec<String> = all(connection, sql, params![millis(now), count(limit as u64)], |row| row.get(0))?;
    bodies.iter().map(|body| enrolment_of(body)).collect()
}

impl Tables<'_> {
    pub(super) fn write_enrolment(&mut self, id: EnrolmentId, row: Option<&Enrolment>) -> Result<(), StoreError> {
        let Some(row) = row else {
            return self.run("DELETE FROM enrolments WHERE id = :id", named_params! { ":id": id.as_uuid().as_bytes() }).map(drop);
        };
        let row = EnrolmentColumns::of(row)?;
        let sql = "INSERT INTO enrolments (id, organisation, login, key_name, state, active, due, created, version, body)
             VALUES (:id, :organisation, :login, :key_name, :state, :active, :due, :created, :version, :body)
             ON CONFLICT (id) DO UPDATE SET state = :state, active = :active, due = :due, version = :version, body = :body";
        let params = named_params! {
            ":id": row.id.as_bytes(), ":organisation": row.organisation, ":login": row.login, ":key_name": row.key_name,
            ":state": row.state, ":active": row.active, ":due": row.due, ":created": row.created, ":version": row.version, ":body": row.body,
        };
        self.run(sql, params).map(drop)
    }
}
