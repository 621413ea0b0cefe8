//! The SQL of stored callers.

use rusqlite::{Connection, Row, named_params, params};

use super::{
    queries::{all, one},
    tables::Tables,
};
use crate::{
    domain::{ids::CallerId, stored_caller::StoredCaller},
    store::{StoreError, columns::CallerColumns},
};

const CALLER: &str = "SELECT name, version, body FROM callers";

pub(super) fn caller(connection: &Connection, id: &CallerId) -> Result<Option<StoredCaller>, StoreError> {
    one(connection, &format!("{CALLER} WHERE name = ?1"), params![id.as_str()], columns)?.map(CallerColumns::read).transpose()
}

pub(super) fn callers(connection: &Connection) -> Result<Vec<StoredCaller>, StoreError> {
    all(connection, &format!("{CALLER} ORDER BY name"), (), columns)?.into_iter().map(CallerColumns::read).collect()
}

impl Tables<'_> {
    pub(super) fn write_caller(&mut self, id: &CallerId, row: Option<StoredCaller>) -> Result<(), StoreError> {
        let Some(row) = row else {
            return self.run("DELETE FROM callers WHERE name = :name", named_params! { ":name": id.as_str() }).map(drop);
        };
        let row = CallerColumns::of(&row)?;
        let sql = "INSERT INTO callers (name, version, body) VALUES (:name, :version, :body)
             ON CONFLICT (name) DO UPDATE SET version = :version, body = :body";
        self.run(sql, named_params! { ":name": row.name, ":version": row.version, ":body": row.body }).map(drop)
    }
}

fn columns(row: &Row<'_>) -> rusqlite::Result<CallerColumns> {
    Ok(CallerColumns { name: row.get(0)?, version: row.get(1)?, body: row.get(2)? })
}
