//! Who waits for the end of a job, for work, or for a decision; woken by what a commit moved.
//!
//! Invariant: whoever waits subscribes before looking at the store, so nothing that happens in between is missed.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{Notify, watch};

use super::{Conflict, Store, StoreError, rows::Moved};
use crate::domain::{
    ids::{JobId, PermitId},
    job::SigningJob,
    permit::{Permit, PermitRefusal, PermitState},
    token::TokenIdentity,
};

/// The jobs among what moved that have ended.
pub(super) fn ended(moved: &[Moved]) -> Vec<JobId> {
    let ended = |moved: &Moved| if let Moved::Ended(job) = moved { Some(*job) } else { None };
    moved.iter().filter_map(ended).collect()
}

/// Everybody who waits in one store.
#[derive(Default)]
pub(super) struct Waiters {
    /// Dropping a job's sender wakes everybody who waits for its end.
    ends: Mutex<HashMap<JobId, watch::Sender<()>>>,
    work: Mutex<HashMap<TokenIdentity, Arc<Notify>>>,
    /// Dropping a permit's sender wakes everybody who waits for its decision.
    decisions: Mutex<HashMap<PermitId, watch::Sender<()>>>,
    permit_changes: watch::Sender<u64>,
    /// How often stored callers may have changed.
    callers: watch::Sender<u64>,
}

impl Waiters {
    /// Wakes whoever waits for what has just happened.
    pub(super) fn wake(&self, moved: &[Moved]) {
        for moved in moved {
            match moved {
                Moved::Ended(job) => drop(lock(&self.ends).remove(job)),
                Moved::Queued(token) => {
                    if let Some(work) = lock(&self.work).get(token) {
                        work.notify_waiters();
                    }
                }
                Moved::Permit(permit) => {
                    drop(lock(&self.decisions).remove(permit));
                    self.permits_changed();
                }
                Moved::Callers => self.callers.send_modify(|changes| *changes += 1),
            }
        }
    }

    /// Tells that permits may have changed.
    pub(super) fn permits_changed(&self) {
        self.permit_changes.send_modify(|change| *change += 1);
    }

    /// Where that is told.
    pub(super) fn permit_changes(&self) -> watch::Receiver<u64> {
        self.permit_changes.subscribe()
    }

    /// The permits whose decision somebody waits for; entries that nobody waits for any more go.
    pub(super) fn decisions_waited_for(&self) -> Vec<PermitId> {
        let mut decisions = lock(&self.decisions);
        decisions.retain(|_, waiting| waiting.receiver_count() > 0);
        decisions.keys().copied().collect()
    }

    /// The jobs whose end somebody waits for; entries that nobody waits for any more go.
    pub(super) fn ends_waited_for(&self) -> Vec<JobId> {
        let mut ends = lock(&self.ends);
        ends.retain(|_, waiting| waiting.receiver_count() > 0);
        ends.keys().copied().collect()
    }

    /// The tokens for which somebody has waited for work.
    pub(super) fn work_waited_for(&self) -> Vec<TokenIdentity> {
        lock(&self.work).keys().cloned().collect()
    }

    /// Counts the changes of stored callers.
    pub(super) fn caller_changes(&self) -> watch::Receiver<u64> {
        self.callers.subscribe()
    }

    /// How many wait for the end of a job now.
    pub(super) fn count(&self) -> usize {
        lock(&self.ends).values().map(watch::Sender::receiver_count).sum()
    }

    /// Waits until the job has ended in `store`, which wakes these waiters.
    pub(super) async fn wait_for_end(&self, store: &impl Store, id: JobId) -> Result<SigningJob, StoreError> {
        loop {
            let mut ended = lock(&self.ends).entry(id).or_insert_with(|| watch::Sender::new(())).subscribe();
            match store.find_job(id).await? {
                Some(job) if job.state.is_final() => {
                    lock(&self.ends).remove(&id);
                    return Ok(job);
                }
                Some(_) => {}
                None => {
                    lock(&self.ends).remove(&id);
                    return Err(Conflict::JobGone.into());
                }
            }
            // The error is the news: the sender is dropped when the job ends.
            let _ = ended.changed().await;
        }
    }

    /// Waits until the permit is decided in `store`, which wakes these waiters.
    pub(super) async fn wait_for_decision(&self, store: &impl Store, id: PermitId) -> Result<Permit, StoreError> {
        loop {
            let mut decided = lock(&self.decisions).entry(id).or_insert_with(|| watch::Sender::new(())).subscribe();
            match store.find_permit(id).await? {
                Some(permit) if permit.state == PermitState::Asked => {}
                Some(permit) => {
                    lock(&self.decisions).remove(&id);
                    return Ok(permit);
                }
                None => {
                    lock(&self.decisions).remove(&id);
                    return Err(Conflict::Permit(PermitRefusal::Unknown).into());
                }
            }
            // The error is the news: the sender is dropped when something happens to the permit.
            let _ = decided.changed().await;
        }
    }

    /// Waits until there may be queued jobs for `token` in `store`, which wakes these waiters.
    pub(super) async fn wait_for_work(&self, store: &impl Store, token: &TokenIdentity) {
        let work = Arc::clone(lock(&self.work).entry(token.clone()).or_default());
        let mut woken = std::pin::pin!(work.notified());
        woken.as_mut().enable();
        // A store that cannot be asked wakes nobody either: whoever waits looks again when it is back.
        if store.count_queued(token).await.is_ok_and(|queued| queued == 0) {
            woken.await;
        }
    }
}

fn lock<K: Eq + Hash, V>(map: &Mutex<HashMap<K, V>>) -> MutexGuard<'_, HashMap<K, V>> {
    // A panic under the lock is a bug that has been reported; going on is better than failing every later request.
    map.lock().unwrap_or_else(PoisonError::into_inner)
}
