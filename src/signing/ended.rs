//! What is said and counted of a job when it ends: one line, one count, and its times.
//!
//! Times are measured where they pass: in the queue until the token enters the signature, on the token until it answers. Invariant: every job
//! of this gateway that ends is counted once; the series are those of the configured keys, taken at the start.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use metrics::{Counter, Histogram};
use tracing::{info, warn};

use super::activity::{Activity, End};
use crate::{
    domain::{
        ids::KeyName,
        job::{FailureCause, JobOutcome, SigningJob},
        key::ConfiguredKey,
        request_id::RequestId,
        timestamp::Timestamp,
        token::TokenIdentity,
    },
    telemetry::metrics::{JOB_QUEUE_SECONDS, JOB_TOKEN_SECONDS, OTHER, SIGNATURES},
    token::slot::TokenTime,
};

/// Every way in which a job ends, and how it is labelled.
const RESULTS: [(Option<FailureCause>, &str); 12] = [
    (None, "signed"),
    (Some(FailureCause::PinRefused), "pin-refused"),
    (Some(FailureCause::PinForgotten), "pin-forgotten"),
    (Some(FailureCause::KeyNotUsable), "key-not-usable"),
    (Some(FailureCause::NotSupported), "not-supported"),
    (Some(FailureCause::Device), "device"),
    (Some(FailureCause::WrongSignature), "wrong-signature"),
    (Some(FailureCause::OutcomeUnknown), "in-doubt"),
    (Some(FailureCause::DeadlinePassed), "expired"),
    (Some(FailureCause::Cancelled), "cancelled"),
    (Some(FailureCause::ConsentRefused), "consent-refused"),
    (Some(FailureCause::ConsentTimedOut), "consent-timed-out"),
];

type ByResult = [Counter; RESULTS.len()];

/// The counters of ended jobs, by key and result.
pub(super) struct EndedJobs {
    by_key: HashMap<KeyName, ByResult>,
    /// Keys that clients chose by URI.
    others: ByResult,
    /// The last hour.
    pub(super) activity: Activity,
}

impl EndedJobs {
    pub(super) fn of(keys: &[ConfiguredKey]) -> Self {
        let counters = |key: &str| RESULTS.map(|(_, result)| SIGNATURES.counter(&[key, result]));
        let by_key = keys.iter().map(|key| (key.name.clone(), counters(key.name.as_str())));
        Self { by_key: by_key.collect(), others: counters(OTHER), activity: Activity::new(Instant::now()) }
    }

    /// Counts a job that has ended with `outcome`, and says so.
    pub(super) fn note(&self, job: &SigningJob, outcome: &JobOutcome, times: JobTimes) {
        let (cause, detail) = match outcome {
            JobOutcome::Signed(_) => (None, ""),
            JobOutcome::NotSigned { cause, detail } => (Some(*cause), detail.as_str()),
        };
        let counters = job.key.name.as_ref().and_then(|name| self.by_key.get(name)).unwrap_or(&self.others);
        let result = RESULTS.iter().zip(counters).find(|((known, _), _)| *known == cause);
        // What is not in the list is no end: an operator has resolved a doubt.
        let Some(((_, label), counter)) = result else { return };
        counter.increment(1);
        let end = match cause {
            None => End::Signed,
            Some(FailureCause::Cancelled) => End::Withdrawn,
            Some(_) => End::Failed,
        };
        self.activity.record(Instant::now(), end, times.queue, times.token);
        let (state, name) = (outcome.final_state(), job.key.name.as_ref().map_or(OTHER, KeyName::as_str));
        let millis = |time: Option<Duration>| time.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        macro_rules! say {
            ($level:ident) => {
                $level!(
                    job.id = %job.id,
                    job.caller = %job.caller,
                    key.name = name,
                    slot.token = %job.key.token,
                    job.state = %state,
                    job.cause = cause.map(|_| label),
                    queue_ms = millis(times.queue),
                    token_ms = millis(times.token),
                    request.id = job.from.request.as_ref().map(RequestId::as_str),
                    "job {} is {state} {detail}",
                    job.id
                )
            };
        }
        // These two want a person.
        match cause {
            Some(FailureCause::OutcomeUnknown | FailureCause::WrongSignature) => say!(warn),
            _ => say!(info),
        }
    }
}

/// How long a job was where; `None` where it was not, or nobody saw it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct JobTimes {
    /// Accepted and not at the token yet.
    pub(super) queue: Option<Duration>,
    /// Being signed by the token.
    pub(super) token: Option<Duration>,
}

impl JobTimes {
    /// Of a job that ended at `now` without having come to the token.
    pub(super) fn only_queued(job: &SigningJob, now: Timestamp) -> Self {
        Self { queue: Some(now.since(job.accepted)), token: None }
    }
}

/// The histograms of one token.
pub(super) struct TokenTimes {
    queue: Histogram,
    token: Histogram,
}

/// One moment by both clocks: the one that jobs are stamped with, and the one that spans are measured with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub(super) stamp: Timestamp,
    pub(super) instant: Instant,
}

impl TokenTimes {
    pub(super) fn of(token: &TokenIdentity) -> Self {
        let token = token.to_string();
        Self { queue: JOB_QUEUE_SECONDS.histogram(&[&token]), token: JOB_TOKEN_SECONDS.histogram(&[&token]) }
    }

    /// Records the times of a job that was `handed_over` to the token's slot and came back.
    pub(super) fn record(&self, job: &SigningJob, handed_over: Moment, at_token: Option<TokenTime>) -> JobTimes {
        let before = handed_over.stamp.since(job.accepted);
        let Some(TokenTime { entered, left }) = at_token else {
            return JobTimes { queue: Some(before + handed_over.instant.elapsed()), token: None };
        };
        let (queue, token) = (before + entered.duration_since(handed_over.instant), left.duration_since(entered));
        self.queue.record(queue.as_secs_f64());
        self.token.record(token.as_secs_f64());
        JobTimes { queue: Some(queue), token: Some(token) }
    }
}
