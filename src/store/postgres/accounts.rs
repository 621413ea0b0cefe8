//! Operators' accounts and sessions: how they are read, and how a group of changes locks and writes them.
//!
//! Most groups have nothing to do with them and send none of these statements. Invariant: they are locked after all other rows, accounts
//! first, each in the order of their keys.

use std::collections::{BTreeSet, HashMap};

use tokio_postgres::Row;

use super::{
    readers::Readers,
    row::column,
    session::{Answer, Step, Value},
    working_set::Pair,
};
use crate::{
    domain::{
        ids::OperatorName,
        operator::{OperatorAccount, OperatorSession, SessionId},
        timestamp::Timestamp,
    },
    store::{
        Change, StoreError,
        columns::{OperatorColumns, SessionColumns, millis, unreadable},
    },
};

macro_rules! operator_columns {
    () => {
        "SELECT name, password, disabled, added, epoch, version, body FROM operators "
    };
}

macro_rules! session_columns {
    () => {
        "SELECT id, operator, epoch, began, seen, expires, address FROM operator_sessions "
    };
}

const LOCK_OPERATORS: &str = concat!(operator_columns!(), "WHERE name = ANY($1) ORDER BY name FOR UPDATE");
const LOCK_SESSIONS: &str = concat!(session_columns!(), "WHERE id = ANY($1) ORDER BY id FOR UPDATE");
const INSERT_OPERATOR: &str = "INSERT INTO operators (name, password, disabled, added, epoch, version, body) \
    VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING";
const UPDATE_OPERATOR: &str =
    "UPDATE operators SET password = $2, disabled = $3, added = $4, epoch = $5, version = $6, body = $7 WHERE name = $1";
const DELETE_OPERATOR: &str = "DELETE FROM operators WHERE name = $1";
const PUT_SESSION: &str = "INSERT INTO operator_sessions (id, operator, epoch, began, seen, expires, address) \
    VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (id) DO UPDATE SET seen = excluded.seen";
const DELETE_SESSION: &str = "DELETE FROM operator_sessions WHERE id = $1";

pub(super) async fn find_operator(readers: &Readers, name: &OperatorName) -> Result<Option<OperatorAccount>, StoreError> {
    let rows = readers.query(concat!(operator_columns!(), "WHERE name = $1"), &[&name.as_str()]).await?;
    rows.first().map(operator).transpose()
}

pub(super) async fn list_operators(readers: &Readers) -> Result<Vec<OperatorAccount>, StoreError> {
    let rows = readers.query(concat!(operator_columns!(), "ORDER BY name"), &[]).await?;
    rows.iter().map(operator).collect()
}

pub(super) async fn find_session(readers: &Readers, id: SessionId) -> Result<Option<OperatorSession>, StoreError> {
    let rows = readers.query(concat!(session_columns!(), "WHERE id = $1"), &[&&id.as_bytes()[..]]).await?;
    rows.first().map(session).transpose()
}

pub(super) async fn list_sessions(readers: &Readers, of: &OperatorName, now: Timestamp) -> Result<Vec<OperatorSession>, StoreError> {
    let sql = concat!(session_columns!(), "WHERE operator = $1 AND expires > $2 ORDER BY began DESC, id DESC");
    let rows = readers.query(sql, &[&of.as_str(), &millis(now)]).await?;
    rows.iter().map(session).collect()
}

/// The accounts and sessions that a group of changes is about.
#[derive(Default)]
pub(super) struct WantedAccounts {
    operators: BTreeSet<OperatorName>,
    sessions: BTreeSet<SessionId>,
}

impl WantedAccounts {
    pub(super) fn add(&mut self, change: &Change) {
        match change {
            Change::InsertOperator(account) | Change::UpdateOperator(account) => drop(self.operators.insert(account.operator.name.clone())),
            Change::DeleteOperator(name) => drop(self.operators.insert(name.clone())),
            Change::InsertSession(session) => drop(self.sessions.insert(session.id)),
            Change::TouchSession { id, .. } | Change::EndSession(id) => drop(self.sessions.insert(*id)),
            _ => {}
        }
    }

    /// The statements that read them; none if there are none. [`Accounts::fill`] takes their answers.
    pub(super) fn reads(&self) -> Vec<Step> {
        if self.operators.is_empty() && self.sessions.is_empty() {
            return Vec::new();
        }
        let names: Vec<_> = self.operators.iter().map(|name| name.as_str().to_owned()).collect();
        let ids: Vec<_> = self.sessions.iter().map(|id| id.as_bytes().to_vec()).collect();
        vec![Step::new(LOCK_OPERATORS, vec![Box::new(names)]), Step::new(LOCK_SESSIONS, vec![Box::new(ids)])]
    }
}

/// Accounts and sessions within one transaction.
#[derive(Default)]
pub(super) struct Accounts {
    pub(super) operators: HashMap<OperatorName, Pair<OperatorAccount>>,
    pub(super) sessions: HashMap<SessionId, Pair<OperatorSession>>,
}

impl Accounts {
    /// Takes the answers to [`WantedAccounts::reads`].
    pub(super) fn fill(&mut self, answers: &[Answer]) -> Result<(), StoreError> {
        let [operators, sessions] = answers else { return Ok(()) };
        for row in &operators.rows {
            let account = operator(row)?;
            self.operators.insert(account.operator.name.clone(), Pair::of(account));
        }
        for row in &sessions.rows {
            let session = session(row)?;
            self.sessions.insert(session.id, Pair::of(session));
        }
        Ok(())
    }

    /// Statements that write what changed, each with how many rows it must write.
    pub(super) fn writes(&self) -> Result<Vec<(Step, u64)>, StoreError> {
        let mut steps = Vec::new();
        for (name, pair) in &self.operators {
            match (&pair.stored, &pair.wanted) {
                (None, Some(new)) => steps.push((Step::new(INSERT_OPERATOR, operator_values(new)?), 1)),
                (Some(stored), Some(new)) if stored != new => steps.push((Step::new(UPDATE_OPERATOR, operator_values(new)?), 1)),
                (Some(_), None) => steps.push((Step::new(DELETE_OPERATOR, vec![Box::new(name.as_str().to_owned())]), 1)),
                _ => {}
            }
        }
        for (id, pair) in &self.sessions {
            match (&pair.stored, &pair.wanted) {
                (stored, Some(wanted)) if stored.as_ref() != Some(wanted) => {
                    steps.push((Step::new(PUT_SESSION, session_values(wanted)), 1))
                }
                (Some(_), None) => steps.push((Step::new(DELETE_SESSION, vec![Box::new(id.as_bytes().to_vec())]), 1)),
                _ => {}
            }
        }
        Ok(steps)
    }
}

fn operator_values(account: &OperatorAccount) -> Result<Vec<Value>, StoreError> {
    let row = OperatorColumns::of(account.clone())?;
    Ok(vec![
        Box::new(row.name),
        Box::new(row.password),
        Box::new(row.disabled),
        Box::new(row.added),
        Box::new(row.epoch),
        Box::new(row.version),
        Box::new(row.body),
    ])
}

fn session_values(session: &OperatorSession) -> Vec<Value> {
    let row = SessionColumns::of(session.clone());
    vec![
        Box::new(row.id.to_vec()),
        Box::new(row.operator),
        Box::new(row.epoch),
        Box::new(row.began),
        Box::new(row.seen),
        Box::new(row.expires),
        Box::new(row.address),
    ]
}

fn operator(row: &Row) -> Result<OperatorAccount, StoreError> {
    OperatorColumns {
        name: column(row, 0)?,
        password: column(row, 1)?,
        disabled: column(row, 2)?,
        added: column(row, 3)?,
        epoch: column(row, 4)?,
        version: column(row, 5)?,
        body: column(row, 6)?,
    }
    .read()
}

fn session(row: &Row) -> Result<OperatorSession, StoreError> {
    let id: Vec<u8> = column(row, 0)?;
    SessionColumns {
        id: id.try_into().map_err(|_| unreadable("a session", "an id of another length"))?,
        operator: column(row, 1)?,
        epoch: column(row, 2)?,
        began: column(row, 3)?,
        seen: column(row, 4)?,
        expires: column(row, 5)?,
        address: column(row, 6)?,
    }
    .read()
}
