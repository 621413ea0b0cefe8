//! What a start does with jobs that an earlier run had claimed and not settled.
//!
//! A job that was begun may have been signed, and nobody knows: it is in doubt, and an operator resolves it. One that certainly was not goes
//! back to the queue. Certainty comes from the marks that the slots write before `C_Sign`, and only if they are all there: the machine has not
//! been down since, for what was not synced may be lost then, and whoever writes marks has ended.

use std::path::Path;

use tracing::{info, warn};

use crate::{
    domain::job::{FailureCause, JobOutcome, SigningJob},
    store::{Change, Store, StoreError},
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

/// Settles what the run before this one had claimed. To be called before any job is claimed.
///
/// # Errors
/// The store was not reached; nothing was settled then.
pub async fn settle_claims(store: &dyn Store, last_run: LastRun<'_>) -> Result<(), StoreError> {
    let claimed = store.claimed_jobs().await?;
    if claimed.is_empty() {
        return Ok(());
    }
    let (begun, waiting): (Vec<_>, Vec<_>) = claimed.into_iter().partition(|job| may_have_begun(job, last_run));
    for job in &begun {
        warn!(job.id = %job.id, job.caller = %job.caller, slot.token = %job.key.token, "job {} is in doubt: {IN_DOUBT}", job.id);
    }
    info!("{} jobs that the last run had claimed wait again, {} are in doubt", waiting.len(), begun.len());
    let in_doubt = begun.into_iter().map(|job| Change::EndJob {
        job: job.id,
        claim: job.claim,
        outcome: JobOutcome::not_signed(FailureCause::OutcomeUnknown, IN_DOUBT),
    });
    let requeued = waiting.into_iter().map(|job| Change::RequeueJob { job: job.id, claim: job.claim });
    store.commit(in_doubt.chain(requeued).collect()).await
}

/// What the client and the operator are told.
const IN_DOUBT: &str = "the gateway ended while the token may have been signing; nobody knows whether it did, and the job is not repeated. An \
                        operator can look and settle it with `sealgate jobs resolve`";

fn may_have_begun(job: &SigningJob, last_run: LastRun<'_>) -> bool {
    let begun = marks::begun(last_run.marks, &job.key.token).filter(|_| last_run.marks_are_whole);
    begun.is_none_or(|begun| begun.contains(&job.id.as_uuid()))
}
