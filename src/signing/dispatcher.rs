//! One task per token: claims jobs in batches, feeds them to the slot in order, and settles what comes back.
//!
//! Invariants: a job is durable as `Signing` before its command is sent; it is put back only if `C_Sign` was certainly not entered; every
//! claimed job is settled before the task ends. Batches keep the number of durable claims below the number of signatures.

use std::{pin::pin, sync::Arc, time::Duration};

use futures_util::{
    FutureExt, StreamExt,
    future::{Fuse, FusedFuture},
    stream::FuturesUnordered,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};
use tracing::{error, warn};

use crate::{
    domain::{
        audit::{AuditEvent, Sha256},
        job::{FailureCause, JobOutcome, SigningJob},
        signature::SignatureValue,
        verify::VerifyError,
    },
    store::{Change, Conflict, Store, StoreError},
    token::{
        command::{Command, Reply},
        driver::{DeviceError, Outcome, Retry},
        slot::{PendingReply, SlotError, SlotHandle},
    },
};

use super::{
    canary::Canaries,
    ended::{EndedJobs, JobTimes, Moment, TokenTimes},
    keyring::{Keyring, concerns_pin},
    pins::JobPins,
    verify::{PoolError, VerifyPool},
};

/// The most jobs of one token that are claimed at a time: to begin with, and for a token that is quicker than the store's commits. What is
/// claimed is in doubt after a power loss and cannot be cancelled, so it is no more than keeps the token busy.
const CLAIM_MAX: (usize, usize) = (16, 64);

/// The pause before a token that keeps failing is given its jobs again; it doubles up to the second one.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// What all dispatchers share.
pub(super) struct Workshop {
    pub(super) store: Arc<dyn Store>,
    pub(super) keyring: Keyring,
    pub(super) verifiers: VerifyPool,
    pub(super) pins: JobPins,
    pub(super) canaries: Canaries,
    pub(super) ended: EndedJobs,
}

impl Workshop {
    /// Counts a job that has ended without having come to the token, and says so.
    pub(super) fn note_queued_end(&self, job: &SigningJob) {
        if let Some(outcome) = &job.outcome {
            self.ended.note(job, outcome, JobTimes::only_queued(job, self.store.now()));
        }
    }
}

/// What became of a job that was claimed.
#[derive(Debug, PartialEq, Eq)]
enum Settled {
    /// It has ended.
    Ended,
    /// It waits again: the token must come back first.
    PutBack,
}

/// Works through the queue of one token until `stop` is set; then finishes what is claimed.
pub(super) async fn run(workshop: Arc<Workshop>, slot: SlotHandle, mut stop: watch::Receiver<bool>) {
    let mut running = FuturesUnordered::new();
    // Both go on while others are looked after: signatures are settled during a claim, and one wait for work outlives many of them.
    let mut claiming = pin!(Fuse::terminated());
    let mut waiting = pin!(Fuse::terminated());
    let (mut may_be_work, mut claim_max) = (true, CLAIM_MAX.0);
    let wanted = watch::Sender::new(false);
    let times = Arc::new(TokenTimes::of(slot.token()));
    let mut status = slot.watch();
    let mut lease = workshop.keyring.leases.watch();
    let mut pause = PAUSE.0;
    let mut rest_until = Instant::now();
    while !*stop.borrow_and_update() {
        let rests = Instant::now() < rest_until;
        let leases = &workshop.keyring.leases;
        // Another gateway may have the same token, or have taken it over.
        let takes_work = status.borrow_and_update().state.takes_work() && !rests && leases.holds(slot.token());
        // Refilled when half empty: claims stay batches, and the slot never runs dry.
        let wants_work = takes_work && running.len() <= claim_max / 2 && claiming.is_terminated();
        // A claim that the store has kept ends when the token can do no more work.
        wanted.send_if_modified(|wanted| std::mem::replace(wanted, takes_work) != takes_work);
        if wants_work && may_be_work {
            claiming.set(claim(&workshop, &slot, claim_max - running.len(), wanted.subscribe()).fuse());
        } else if wants_work && waiting.is_terminated() {
            waiting.set(workshop.store.wait_for_work(slot.token()).fuse());
        }
        leases.set_busy(slot.token(), !running.is_empty() || !claiming.is_terminated());
        tokio::select! {
            claimed = &mut claiming, if !claiming.is_terminated() => match claimed {
                Ok((jobs, all)) => {
                    // Where some were, more come: asking at once costs an empty transaction, and being woken would cost one commit's time.
                    may_be_work = !jobs.is_empty();
                    claim_max = next_claim_max(claim_max, slot.outstanding(), !all);
                    jobs.into_iter().for_each(|job| running.push(begin(&workshop, &slot, &times, job)));
                }
                Err(error) => {
                    error!(error = %error, "jobs could not be claimed");
                    rest_until = Instant::now() + PAUSE.1;
                }
            },
            () = &mut waiting, if !waiting.is_terminated() => may_be_work = true,
            Some(settled) = running.next(), if !running.is_empty() => match settled {
                Settled::Ended => pause = PAUSE.0,
                // What was claimed together comes back together, and rests once.
                Settled::PutBack if rests => {}
                Settled::PutBack => {
                    rest_until = Instant::now() + pause;
                    pause = (pause * 2).min(PAUSE.1);
                }
            },
            () = sleep_until(rest_until), if rests => {}
            _ = status.changed() => {}
            () = workshop.keyring.leases.changed(&mut lease) => {}
            _ = stop.changed() => {}
        }
    }
    // What a claim under way brings is claimed, and so it is signed.
    wanted.send_replace(false);
    if !claiming.is_terminated()
        && let Ok((jobs, _)) = claiming.await
    {
        jobs.into_iter().for_each(|job| running.push(begin(&workshop, &slot, &times, job)));
    }
    while running.next().await.is_some() {}
    workshop.keyring.leases.set_busy(slot.token(), false);
}

/// How many jobs may be claimed from now on: more if the token had nothing left to do while others waited, fewer if it has much before it.
fn next_claim_max(now: usize, outstanding: usize, others_wait: bool) -> usize {
    match outstanding {
        0 if others_wait => (now * 2).min(CLAIM_MAX.1),
        outstanding if outstanding > now / 4 => (now / 2).max(CLAIM_MAX.0),
        _ => now,
    }
}

/// Claims jobs, and tells whether those are all that were queued.
async fn claim(
    workshop: &Workshop,
    slot: &SlotHandle,
    limit: usize,
    wanted: watch::Receiver<bool>,
) -> Result<(Vec<SigningJob>, bool), StoreError> {
    let jobs = workshop.store.claim_next(slot.token(), limit, wanted).await?;
    let all = jobs.len() < limit;
    Ok((jobs, all))
}

/// Sends the job to its slot now, so that jobs start in the order of the queue, and returns what waits for it and settles it.
fn begin(workshop: &Arc<Workshop>, slot: &SlotHandle, times: &Arc<TokenTimes>, job: SigningJob) -> impl Future<Output = Settled> + use<> {
    let pin = workshop.pins.duplicate(job.id);
    let started = if job.with_pin && pin.is_none() {
        Err(SlotError::Device(DeviceError::PinNotTried("the PIN of this signature was forgotten when the gateway restarted".to_owned())))
    } else {
        slot.start(Command::Sign { key: job.key.selector.clone(), to_sign: job.to_sign.clone(), pin, mark: Some(job.id.as_uuid()) })
    };
    let handed_over = Moment { stamp: workshop.store.now(), instant: std::time::Instant::now() };
    settle(Arc::clone(workshop), slot.clone(), Arc::clone(times), handed_over, job, started)
}

async fn settle(
    workshop: Arc<Workshop>,
    slot: SlotHandle,
    times: Arc<TokenTimes>,
    handed_over: Moment,
    job: SigningJob,
    started: Result<PendingReply, SlotError>,
) -> Settled {
    let (answer, at_token) = match started {
        Ok(pending) => {
            let (answer, at_token) = pending.wait_timed().await;
            (answer.map_err(SlotError::Device), at_token)
        }
        Err(error) => (Err(error), None),
    };
    let times = times.record(&job, handed_over, at_token);
    match answer {
        Ok(Reply::Signature(signature)) => {
            let outcome = verified(&workshop, &slot, &job, signature).await;
            end(&workshop, &job, outcome, times).await
        }
        Ok(_) => {
            let outcome = JobOutcome::not_signed(FailureCause::OutcomeUnknown, "the token answered something else than it was asked");
            end(&workshop, &job, outcome, times).await
        }
        Err(error) => match verdict(&job, &slot, &error) {
            Some((cause, detail)) => end(&workshop, &job, JobOutcome::not_signed(cause, &detail), times).await,
            None => put_back(&workshop, &job, &error).await,
        },
    }
}

/// Checks a signature in software before anybody sees it.
async fn verified(workshop: &Workshop, slot: &SlotHandle, job: &SigningJob, signature: SignatureValue) -> JobOutcome {
    let known = match workshop.keyring.verifier_for(slot, &job.key).await {
        Ok(known) => known,
        Err(denied) => {
            return JobOutcome::not_signed(FailureCause::OutcomeUnknown, &format!("the signature could not be verified: {denied}"));
        }
    };
    let Some(verifier) = known.verifier.as_ref() else { return JobOutcome::Signed(signature) };
    match workshop.verifiers.verify(Arc::clone(verifier), job.to_sign.clone(), signature).await {
        Ok(signature) => JobOutcome::Signed(signature),
        Err(PoolError::Verify(VerifyError::Wrong)) => {
            error!(job.id = %job.id, slot.token = %job.key.token, key.id = %job.key.selector, "the token made a signature that does not verify; the key is quarantined");
            workshop.keyring.quarantine(slot, &job.key);
            JobOutcome::not_signed(FailureCause::WrongSignature, "the token made a signature that does not verify; the key is quarantined")
        }
        Err(error) => JobOutcome::not_signed(FailureCause::OutcomeUnknown, &format!("the signature could not be verified: {error}")),
    }
}

/// Whether the job ends with this error, and why; `None` if it waits for the token instead.
fn verdict(job: &SigningJob, slot: &SlotHandle, error: &SlotError) -> Option<(FailureCause, String)> {
    let SlotError::Device(error) = error else { return None };
    let cause = match error {
        error if error.outcome() == Outcome::Unknown => FailureCause::OutcomeUnknown,
        DeviceError::PinNotTried(_) if job.with_pin => FailureCause::PinRefused,
        error if concerns_pin(error) => FailureCause::PinRefused,
        DeviceError::LoginRequired(_) if job.with_pin || !slot.status().state.may_log_in() => FailureCause::PinRefused,
        DeviceError::KeyNotFound(_) | DeviceError::KeyAmbiguous { .. } => FailureCause::KeyNotUsable,
        DeviceError::Unsupported(_) => FailureCause::NotSupported,
        error if error.retry() == Retry::Never => FailureCause::Device,
        _ => return None,
    };
    Some((cause, error.to_string()))
}

async fn end(workshop: &Workshop, job: &SigningJob, outcome: JobOutcome, times: JobTimes) -> Settled {
    let recorded = commit_surely(workshop, job, Change::EndJob { job: job.id, claim: job.claim, outcome: outcome.clone() }).await;
    workshop.pins.forget(job.id);
    if recorded {
        workshop.ended.note(job, &outcome, times);
    } else if let JobOutcome::Signed(value) = &outcome {
        // The job was settled without this signature, which nobody gets; but the token made it.
        let late = AuditEvent::LateResult { job: job.id, signature_sha256: Sha256::of(value.as_raw_bytes()) };
        commit_surely(workshop, job, Change::Audit(late)).await;
    }
    Settled::Ended
}

async fn put_back(workshop: &Workshop, job: &SigningJob, error: &SlotError) -> Settled {
    warn!(job.id = %job.id, error = %error, "job {} waits for its token again: {error}", job.id);
    commit_surely(workshop, job, Change::RequeueJob { job: job.id, claim: job.claim }).await;
    Settled::PutBack
}

/// Commits what happened; `false` if the job has been settled by others meanwhile. A store that is away is asked again until it answers: what a
/// token did cannot be undone, only recorded.
async fn commit_surely(workshop: &Workshop, job: &SigningJob, change: Change) -> bool {
    loop {
        match workshop.store.commit(vec![change.clone()]).await {
            Ok(()) => return true,
            Err(StoreError::Conflict(conflict @ (Conflict::JobGone | Conflict::JobMoved))) => {
                warn!(job.id = %job.id, error = %conflict, "the result of job {} is not recorded: {conflict}", job.id);
                return false;
            }
            Err(error) => {
                error!(job.id = %job.id, error = %error, "the result of job {} waits for the store", job.id);
                sleep(PAUSE.1).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_runs_dry_is_given_more_at_a_time_and_a_slow_one_less() {
        let (least, most) = CLAIM_MAX;
        assert_eq!(next_claim_max(least, 0, true), 2 * least);
        assert_eq!(next_claim_max(most, 0, true), most);
        assert_eq!(next_claim_max(least, 0, false), least, "nothing waits");
        assert_eq!(next_claim_max(most, most / 2, true), most / 2);
        assert_eq!(next_claim_max(least, least, true), least);
    }
}
