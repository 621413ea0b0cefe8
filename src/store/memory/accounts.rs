//! Operators' accounts and sessions in memory. They are few, so what is not looked up by name or id is gone through.

use std::{cmp::Reverse, collections::BTreeMap};

use crate::domain::{
    ids::OperatorName,
    operator::{OperatorAccount, OperatorSession, SessionId},
    timestamp::Timestamp,
};

#[derive(Default)]
pub(super) struct Accounts {
    operators: BTreeMap<OperatorName, OperatorAccount>,
    sessions: BTreeMap<SessionId, OperatorSession>,
}

impl Accounts {
    pub(super) fn operator(&self, name: &OperatorName) -> Option<OperatorAccount> {
        self.operators.get(name).cloned()
    }

    pub(super) fn operators(&self) -> Vec<OperatorAccount> {
        self.operators.values().cloned().collect()
    }

    pub(super) fn session(&self, id: SessionId) -> Option<OperatorSession> {
        self.sessions.get(&id).cloned()
    }

    pub(super) fn sessions_of(&self, operator: &OperatorName, now: Timestamp) -> Vec<OperatorSession> {
        let of = self.sessions.values().filter(|session| session.operator == *operator && session.expires > now);
        let mut found: Vec<_> = of.cloned().collect();
        found.sort_by_key(|session| Reverse((session.began, session.id)));
        found
    }

    pub(super) fn put_operator(&mut self, name: &OperatorName, row: Option<OperatorAccount>) {
        match row {
            Some(row) => drop(self.operators.insert(name.clone(), row)),
            None => drop(self.operators.remove(name)),
        }
    }

    pub(super) fn put_session(&mut self, id: SessionId, row: Option<OperatorSession>) {
        match row {
            Some(row) => drop(self.sessions.insert(id, row)),
            None => drop(self.sessions.remove(&id)),
        }
    }

    /// Forgets at most `limit` sessions that expired before `before`; returns how many.
    pub(super) fn forget(&mut self, before: Timestamp, limit: usize) -> usize {
        let expired = self.sessions.values().filter(|session| session.expires < before).map(|session| session.id);
        let expired: Vec<_> = expired.take(limit).collect();
        expired.iter().for_each(|id| drop(self.sessions.remove(id)));
        expired.len()
    }
}
