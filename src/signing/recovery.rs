//! What a start does with jobs that an earlier run had claimed and not settled.
//!
//! A job that was begun may have been signed, and nobody knows: it is in doubt, and an operator resolves it. One that certainly was not goes
//! back to the queue. Certainty comes from the marks that the slots write before `C_Sign`, and only if they are all there: the machine has not
//! been down since, for what was not synced may be lost then, and whoever writes marks has ended.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
};

use tracing::info;
use uuid::Uuid;

use super::ended::{EndedJobs, JobTimes};
use crate::{
    domain::{
        audit::{AuditEvent, AuditHead},
        consent::Decision,
        job::{FailureCause, JobOutcome, JobState, SigningJob},
        key::ConfiguredKey,
        permit::Permit,
        timestamp::Timestamp,
        token::TokenIdentity,
    },
    store::{Change, JobFilter, Store, StoreError},
    token::marks,
};

/// What is known of the run before this one.
#[derive(Debug, Clone, Copy)]
pub struct LastRun<'a> {
    /// Where the slots wrote their marks.
    pub marks: &'a Path,
    /// Every mark that was ever written stands there, and no more will come: the machine has been up ever since, and the modules' processes
    /// have ended.
    pub marks_are_whole: bool,
}

impl LastRun<'_> {
    /// The signatures that were begun last on `token`; `None` if nothing certain is known.
    fn begun(&self, token: &TokenIdentity) -> Option<HashSet<Uuid>> {
        if self.marks_are_whole { marks::begun(self.marks, token) } else { None }
    }
}

/// Settles what the run before this one had claimed. To be called before any job is claimed. `keys` are the configured ones: what is in doubt
/// is counted by them.
///
/// # Errors
/// The store was not reached; nothing was settled then.
pub async fn settle_claims(store: &dyn Store, last_run: LastRun<'_>, keys: &[ConfiguredKey]) -> Result<(), StoreError> {
    let claimed = store.claimed_jobs().await?;
    if claimed.is_empty() {
        return Ok(());
    }
    // Each token's marks are read once, whatever it had claimed.
    let mut marks = HashMap::new();
    let (begun, waiting): (Vec<_>, Vec<_>) = claimed.into_iter().partition(|job| {
        let marks = marks.entry(job.key.token.clone()).or_insert_with_key(|token| last_run.begun(token));
        marks.as_ref().is_none_or(|begun| begun.contains(&job.id.as_uuid()))
    });
    info!("{} jobs that the last run had claimed wait again, {} are in doubt", waiting.len(), begun.len());
    let outcome = JobOutcome::not_signed(FailureCause::OutcomeUnknown, IN_DOUBT);
    let in_doubt = begun.iter().map(|job| Change::EndJob { job: job.id, claim: job.claim, outcome: outcome.clone() });
    let requeued = waiting.into_iter().map(|job| Change::RequeueJob { job: job.id, claim: job.claim });
    store.commit(in_doubt.chain(requeued).collect()).await?;
    let ended = EndedJobs::of(keys);
    // Nobody saw how long they took.
    begun.iter().for_each(|job| ended.note(job, &outcome, JobTimes::default()));
    Ok(())
}

/// What was done with the state of a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restored {
    /// Permits that could still be used, and were revoked.
    pub permits_revoked: usize,
    /// Jobs that had not ended, and are in doubt.
    pub jobs_in_doubt: usize,
}

/// Makes a restored state safe to go on with: what has been signed and spent since the backup is not in it, so every permit that could still be
/// used is revoked, every request for one is refused, and every job that had not ended is in doubt. `head` is the end of the audit log that came with the backup.
///
/// # Errors
/// The store was not reached; what was done then is done, and the rest can be done by calling again.
pub async fn settle_restored(store: &dyn Store, head: AuditHead) -> Result<Restored, StoreError> {
    let mut permits_revoked = 0;
    loop {
        let live = store.live_permits(Timestamp::from_millis(0), RESTORE_BATCH).await?;
        if live.is_empty() {
            break;
        }
        permits_revoked += live.len();
        store.commit(live.into_iter().map(|permit| Change::RevokePermit(permit.id)).collect()).await?;
    }
    let refuse = |permit: Permit| Change::DecidePermit { permit: permit.id, job: permit.waiting_job(), decision: Decision::Restart };
    store.commit(store.waiting_permits(usize::MAX).await?.into_iter().map(refuse).collect()).await?;
    // Whoever had claimed them: on a shared store, every gateway's claims are settled.
    let mut jobs_in_doubt = 0;
    loop {
        let claimed = store.list_jobs(&JobFilter { state: Some(JobState::Signing), ..JobFilter::default() }, RESTORE_BATCH).await?;
        if claimed.is_empty() {
            break;
        }
        jobs_in_doubt += doubt(store, claimed).await?;
    }
    for queue in store.queues().await? {
        loop {
            // Their deadlines do not count: they may have been signed in time.
            let claimed = store.claim_jobs(&queue.token, RESTORE_BATCH, Timestamp::from_millis(0)).await?;
            if claimed.is_empty() {
                break;
            }
            jobs_in_doubt += doubt(store, claimed).await?;
        }
    }
    // Whoever has logged out since the backup stays logged out.
    for mut account in store.list_operators().await? {
        account.log_out_everywhere(store.now());
        store.commit(vec![Change::UpdateOperator(account)]).await?;
    }
    let event = AuditEvent::Restored { head, permits_revoked: permits_revoked as u64, jobs_in_doubt: jobs_in_doubt as u64 };
    store.commit(vec![Change::Audit(event)]).await?;
    Ok(Restored { permits_revoked, jobs_in_doubt })
}

async fn doubt(store: &dyn Store, jobs: Vec<SigningJob>) -> Result<usize, StoreError> {
    let count = jobs.len();
    let outcome = JobOutcome::not_signed(FailureCause::OutcomeUnknown, RESTORED);
    let end = |job: SigningJob| Change::EndJob { job: job.id, claim: job.claim, outcome: outcome.clone() };
    store.commit(jobs.into_iter().map(end).collect()).await?;
    Ok(count)
}

/// How many permits or jobs are settled in one step.
const RESTORE_BATCH: usize = 500;

const RESTORED: &str = "the state was restored from a backup, and nobody knows what became of this job after it; it is not repeated. An operator \
                        can look and settle it with `sealgate jobs resolve`";

/// What the client and the operator are told.
const IN_DOUBT: &str = "the gateway ended while the token may have been signing; nobody knows whether it did, and the job is not repeated. An \
                        operator can look and settle it with `sealgate jobs resolve`";
