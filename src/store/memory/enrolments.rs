//! Certificate requests in memory, with their indexes.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap},
};

use crate::{
    domain::{
        enrolment::Enrolment,
        ids::{EnrolmentId, KeyName},
        timestamp::Timestamp,
    },
    store::EnrolmentFilter,
};

#[derive(Default)]
pub(super) struct Enrolments {
    all: HashMap<EnrolmentId, Enrolment>,
    by_creation: BTreeSet<(Reverse<Timestamp>, EnrolmentId)>,
    by_due: BTreeSet<(Timestamp, EnrolmentId)>,
    active: HashMap<KeyName, EnrolmentId>,
}

impl Enrolments {
    pub(super) fn find(&self, id: EnrolmentId) -> Option<&Enrolment> {
        self.all.get(&id)
    }

    pub(super) fn active(&self, key: &KeyName) -> Option<EnrolmentId> {
        self.active.get(key).copied()
    }

    pub(super) fn list(&self, filter: &EnrolmentFilter, limit: usize) -> Vec<Enrolment> {
        let newest_first = self.by_creation.iter().filter_map(|(_, id)| self.all.get(id));
        newest_first.filter(|enrolment| filter.fits(enrolment)).take(limit).cloned().collect()
    }

    pub(super) fn due(&self, now: Timestamp, limit: usize) -> Vec<Enrolment> {
        let due = self.by_due.iter().take_while(|(due, _)| *due <= now).filter_map(|(_, id)| self.all.get(id));
        due.take(limit).cloned().collect()
    }

    pub(super) fn replace(&mut self, id: EnrolmentId, row: Option<Enrolment>) {
        if let Some(old) = self.all.remove(&id) {
            self.by_creation.remove(&(Reverse(old.created), id));
            if let Some(due) = old.due {
                self.by_due.remove(&(due, id));
            }
            if self.active(&old.key_name) == Some(id) {
                self.active.remove(&old.key_name);
            }
        }
        if let Some(row) = row {
            self.by_creation.insert((Reverse(row.created), id));
            if let Some(due) = row.due {
                self.by_due.insert((due, id));
            }
            if row.active {
                self.active.insert(row.key_name.clone(), id);
            }
            self.all.insert(id, row);
        }
    }
}
