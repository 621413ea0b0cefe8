//! What the service does beside signing: jobs and requests that waited too long expire, and what ended long ago is forgotten. Bounded in every round.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};
use tracing::warn;

use crate::{
    domain::{ids::JobId, timestamp::Timestamp},
    permit::PermitService,
};

use super::dispatcher::Workshop;

/// How often queued jobs whose deadline has passed are looked for, and old jobs forgotten.
const HOUSEKEEPING_EVERY: Duration = Duration::from_secs(1);

/// The most jobs and permits forgotten in one transaction.
const FORGET_MAX: usize = 1_000;

/// Expires jobs that waited too long, and forgets jobs that ended long ago.
pub(super) async fn keep_house(workshop: Arc<Workshop>, permits: Arc<PermitService>, retention: Duration, mut stop: watch::Receiver<bool>) {
    let mut ticks = interval(HOUSEKEEPING_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !*stop.borrow_and_update() {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = stop.changed() => continue,
        }
        let now = workshop.store.now();
        match workshop.store.expire_jobs(now).await {
            Ok(expired) => note_ended(&workshop, expired).await,
            Err(error) => warn!(error = %error, "jobs could not be expired"),
        }
        permits.time_out().await;
        note_ended(&workshop, permits.take_ended()).await;
        let long_ago = Timestamp::from_millis(now.as_millis().saturating_sub(u64::try_from(retention.as_millis()).unwrap_or(u64::MAX)));
        forget_ended(&workshop, long_ago).await;
        forget_pins(&workshop).await;
        permits.refusals().tell_omitted(false).await;
    }
}

/// Jobs that ended without coming to a token are told of one by one, like every end.
async fn note_ended(workshop: &Workshop, ended: Vec<JobId>) {
    for job in ended {
        match workshop.store.find_job(job).await {
            Ok(Some(job)) => workshop.note_queued_end(&job),
            Ok(None) => {}
            Err(error) => warn!(job.id = %job, error = %error, "job {job} ended; more cannot be said of it"),
        }
    }
}

/// Forgets all that ended before `long_ago`, in bites: a fixed number a round would fall behind a busy gateway, and memory would grow.
async fn forget_ended(workshop: &Workshop, long_ago: Timestamp) {
    loop {
        match workshop.store.forget_ended(long_ago, FORGET_MAX).await {
            Ok(FORGET_MAX..) => tokio::task::yield_now().await,
            Ok(_) => return,
            Err(error) => return warn!(error = %error, "old jobs could not be forgotten"),
        }
    }
}

/// PINs of jobs that ended without passing a dispatcher: expired or cancelled ones.
async fn forget_pins(workshop: &Workshop) {
    for job in workshop.pins.jobs() {
        let Ok(found) = workshop.store.find_job(job).await else { continue };
        if found.is_none_or(|job| job.state.is_final()) {
            workshop.pins.forget(job);
        }
    }
}
