//! Rows that were written or read lately, in memory: what a signature needs is asked for a dozen times within a moment.
//!
//! Only the writing thread puts rows here, and only once they are on disk, so what stands here is what stands there; what does not is read
//! from the database. Bounded by number, the oldest leave first. Metadata, which is a document and may be long, is not kept: nor is its ticket.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{
    domain::{
        ids::{JobId, PermitId, TicketId},
        permit::Permit,
        ticket::Ticket,
    },
    store::rows::JobRow,
};

/// The most rows of each kind.
const ROWS_MAX: usize = 2_048;

/// What a transaction has read and changed; `None` for what is not there.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) tickets: HashMap<TicketId, Option<Ticket>>,
    pub(super) permits: HashMap<PermitId, Option<Permit>>,
    pub(super) jobs: HashMap<JobId, Option<JobRow>>,
}

/// The rows.
#[derive(Default)]
pub(super) struct Recent(Mutex<Shelves>);

#[derive(Default)]
struct Shelves {
    tickets: Shelf<TicketId, Ticket>,
    permits: Shelf<PermitId, Permit>,
    jobs: Shelf<JobId, JobRow>,
}

impl Recent {
    pub(super) fn ticket(&self, id: TicketId) -> Option<Ticket> {
        self.lock().tickets.rows.get(&id).cloned()
    }

    pub(super) fn permit(&self, id: PermitId) -> Option<Permit> {
        self.lock().permits.rows.get(&id).cloned()
    }

    pub(super) fn job(&self, id: JobId) -> Option<JobRow> {
        self.lock().jobs.rows.get(&id).cloned()
    }

    /// Takes over what a transaction has seen that is on disk now.
    pub(super) fn keep(&self, seen: Seen) {
        let mut shelves = self.lock();
        for (id, ticket) in seen.tickets {
            shelves.tickets.put(id, ticket.filter(|ticket| ticket.metadata.is_none()));
        }
        seen.permits.into_iter().for_each(|(id, permit)| shelves.permits.put(id, permit));
        seen.jobs.into_iter().for_each(|(id, job)| shelves.jobs.put(id, job));
    }

    fn lock(&self) -> MutexGuard<'_, Shelves> {
        // Nothing panics under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Shelf<K, V> {
    rows: HashMap<K, V>,
    /// The order in which they came; those that have gone since may stand here still.
    order: VecDeque<K>,
}

impl<K, V> Default for Shelf<K, V> {
    fn default() -> Self {
        Self { rows: HashMap::new(), order: VecDeque::new() }
    }
}

impl<K: Hash + Eq + Copy, V> Shelf<K, V> {
    fn put(&mut self, key: K, row: Option<V>) {
        let Some(row) = row else {
            self.rows.remove(&key);
            return;
        };
        if self.rows.insert(key, row).is_some() {
            return;
        }
        self.order.push_back(key);
        if self.order.len() > ROWS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.rows.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_rows_leave_first_and_those_that_have_gone_are_not_found() {
        let mut shelf = Shelf::default();
        (0..2 * ROWS_MAX).for_each(|n| shelf.put(n, Some(n)));
        assert_eq!((shelf.rows.len(), shelf.order.len()), (ROWS_MAX, ROWS_MAX));
        assert_eq!((shelf.rows.get(&(ROWS_MAX - 1)), shelf.rows.get(&ROWS_MAX)), (None, Some(&ROWS_MAX)));
        shelf.put(ROWS_MAX, Some(7));
        assert_eq!(shelf.rows.get(&ROWS_MAX), Some(&7));
        shelf.put(ROWS_MAX, None);
        assert_eq!(shelf.rows.get(&ROWS_MAX), None);
        (0..2 * ROWS_MAX).for_each(|n| shelf.put(n, None));
        assert!(shelf.rows.is_empty() && shelf.order.len() == ROWS_MAX);
    }
}
