//! Stored callers: how they are read, and how a group of changes locks and writes them.
//!
//! Most groups have nothing to do with them and send none of these statements. Invariant: they are locked after all other rows, in the order
//! of their names.

use std::collections::{BTreeSet, HashMap};

use tokio_postgres::Row;

use super::{
    readers::Readers,
    row::column,
    session::{Answer, Step},
    working_set::Pair,
};
use crate::{
    domain::{ids::CallerId, stored_caller::StoredCaller},
    store::{StoreError, columns::CallerColumns},
};

const FIND: &str = "SELECT name, version, body FROM callers WHERE name = $1";
const LIST: &str = "SELECT name, version, body FROM callers ORDER BY name";
const LOCK: &str = "SELECT name, version, body FROM callers WHERE name = ANY($1) ORDER BY name FOR UPDATE";
/// Two gateways may add the same name: whoever is second violates the primary key and starts over, with the first one's row before its eyes.
const INSERT: &str = "INSERT INTO callers (name, version, body) VALUES ($1, $2, $3)";
const UPDATE: &str = "UPDATE callers SET version = $2, body = $3 WHERE name = $1";
const DELETE: &str = "DELETE FROM callers WHERE name = $1";

/// Stored callers within one transaction.
pub(super) type Rows = HashMap<CallerId, Pair<StoredCaller>>;

pub(super) async fn find(readers: &Readers, id: &CallerId) -> Result<Option<StoredCaller>, StoreError> {
    readers.query(FIND, &[&id.as_str()]).await?.first().map(read).transpose()
}

pub(super) async fn list(readers: &Readers) -> Result<Vec<StoredCaller>, StoreError> {
    readers.query(LIST, &[]).await?.iter().map(read).collect()
}

/// The statement that reads and locks these, if there are any.
pub(super) fn lock(names: &BTreeSet<CallerId>) -> Option<Step> {
    let names: Vec<_> = names.iter().map(|name| name.as_str().to_owned()).collect();
    (!names.is_empty()).then(|| Step::new(LOCK, vec![Box::new(names)]))
}

/// What it has read.
pub(super) fn locked(answer: &Answer) -> Result<Rows, StoreError> {
    answer.rows.iter().map(|row| read(row).map(|caller| (caller.id.clone(), Pair::of(caller)))).collect()
}

/// The statements that write what changed.
pub(super) fn writes(rows: &Rows, steps: &mut Vec<Step>) -> Result<(), StoreError> {
    for (id, Pair { stored, wanted }) in rows {
        let Some(wanted) = wanted else {
            if stored.is_some() {
                steps.push(Step::new(DELETE, vec![Box::new(id.as_str().to_owned())]));
            }
            continue;
        };
        let sql = match stored {
            None => INSERT,
            Some(stored) if stored != wanted => UPDATE,
            Some(_) => continue,
        };
        let row = CallerColumns::of(wanted)?;
        steps.push(Step::new(sql, vec![Box::new(row.name), Box::new(row.version), Box::new(row.body)]));
    }
    Ok(())
}

fn read(row: &Row) -> Result<StoredCaller, StoreError> {
    CallerColumns { name: column(row, 0)?, version: column(row, 1)?, body: column(row, 2)? }.read()
}
