//! What a gateway has signed in the last hour, in a small ring in memory: for the operator's plots, beside what Prometheus collects.
//!
//! Invariants: the memory is fixed; recording takes a mutex for some additions and waits for nothing else.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How long one place of the ring is.
pub const STEP: Duration = Duration::from_secs(15);
/// Places of the ring: an hour.
pub const STEPS: usize = 240;

/// Upper bounds of the spread of times: each half as long again as the one before, from 0.1 ms to beyond five minutes.
const BOUNDS: usize = 40;
const FIRST_BOUND: f64 = 0.000_1;
const GROWTH: f64 = 1.5;

/// How a job ended, as far as a plot tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Signed,
    Failed,
    /// Nobody wanted it any more.
    Withdrawn,
}

/// The last hour of a gateway.
pub(super) struct Activity {
    began: Instant,
    ring: Mutex<Vec<Place>>,
}

#[derive(Clone, Copy)]
struct Place {
    /// Which step since the beginning it is about.
    step: u64,
    signed: u32,
    failed: u32,
    queue: Spread,
    token: Spread,
}

#[derive(Clone, Copy)]
struct Spread([u32; BOUNDS]);

/// What happened in one step.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct StepReport {
    /// Signatures that were made.
    pub signed: u32,
    /// Jobs that ended without one, but for those that were cancelled.
    pub failed: u32,
    /// How long jobs waited for the token, in seconds.
    pub queue: Option<Times>,
    /// How long the token took, in seconds.
    pub token: Option<Times>,
}

/// Times of several jobs, in seconds, to about a fifth of their value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Times {
    /// Half of them took no longer.
    pub median: f64,
    /// One in twenty took longer.
    pub p95: f64,
}

impl Activity {
    pub(super) fn new(began: Instant) -> Self {
        Self { began, ring: Mutex::new(vec![Place::of(0); STEPS]) }
    }

    /// Counts a job that ended at `now`.
    pub(super) fn record(&self, now: Instant, end: End, queue: Option<Duration>, token: Option<Duration>) {
        let step = self.step(now);
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let place = &mut ring[index(step)];
        if place.step != step {
            *place = Place::of(step);
        }
        match end {
            End::Signed => place.signed = place.signed.saturating_add(1),
            End::Failed => place.failed = place.failed.saturating_add(1),
            End::Withdrawn => return,
        }
        queue.iter().for_each(|time| place.queue.add(*time));
        token.iter().for_each(|time| place.token.add(*time));
    }

    /// The steps of the last hour, the oldest first; the last one is not over yet.
    pub(super) fn report(&self, now: Instant) -> Vec<StepReport> {
        let last = self.step(now);
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let first = (last + 1).saturating_sub(STEPS as u64);
        let told = (first..=last)
            .map(|step| Some(&ring[index(step)]).filter(|place| place.step == step).map_or_else(StepReport::default, Place::report));
        let missing = STEPS - usize::try_from(last + 1 - first).unwrap_or(STEPS);
        std::iter::repeat_n(StepReport::default(), missing).chain(told).collect()
    }

    fn step(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.began).as_secs() / STEP.as_secs()
    }
}

fn index(step: u64) -> usize {
    usize::try_from(step % STEPS as u64).unwrap_or(0)
}

impl Place {
    const fn of(step: u64) -> Self {
        Self { step, signed: 0, failed: 0, queue: Spread([0; BOUNDS]), token: Spread([0; BOUNDS]) }
    }

    fn report(&self) -> StepReport {
        StepReport { signed: self.signed, failed: self.failed, queue: self.queue.times(), token: self.token.times() }
    }
}

impl Spread {
    fn add(&mut self, time: Duration) {
        let above = (time.as_secs_f64() / FIRST_BOUND).max(1.0).log(GROWTH).ceil();
        // From a float that is at least 0; what is beyond the last bound counts there.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let place = (above as usize).min(BOUNDS - 1);
        self.0[place] = self.0[place].saturating_add(1);
    }

    fn times(&self) -> Option<Times> {
        Some(Times { median: self.quantile(1, 2)?, p95: self.quantile(19, 20)? })
    }

    /// The time that `of` out of `all` did not exceed: the middle of the bounds that it lies between.
    fn quantile(&self, of: u64, all: u64) -> Option<f64> {
        let count: u64 = self.0.iter().map(|count| u64::from(*count)).sum();
        let wanted = (count * of).div_ceil(all).max(1);
        let mut seen = 0;
        let place = self.0.iter().position(|count| {
            seen += u64::from(*count);
            seen >= wanted
        })?;
        let exponent = i32::try_from(place).unwrap_or(i32::MAX);
        Some(FIRST_BOUND * GROWTH.powi(exponent) / GROWTH.sqrt())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(millis: u64) -> Option<Duration> {
        Some(Duration::from_millis(millis))
    }

    #[test]
    fn an_hour_is_kept_and_what_is_older_is_gone() {
        let began = Instant::now();
        let activity = Activity::new(began);
        activity.record(began, End::Signed, millis(10), millis(2));
        activity.record(began + STEP * 3, End::Failed, None, None);
        activity.record(began + STEP * 3, End::Withdrawn, None, None);
        let report = activity.report(began + STEP * 3);
        assert_eq!(report.len(), STEPS);
        assert_eq!((report[STEPS - 4].signed, report[STEPS - 1].failed, report[STEPS - 1].queue), (1, 1, None));
        let hour = u32::try_from(STEPS).unwrap();
        let later = activity.report(began + STEP * hour);
        assert_eq!(later.iter().map(|step| (step.signed, step.failed)).fold((0, 0), |sum, of| (sum.0 + of.0, sum.1 + of.1)), (0, 1));
        // A place that comes round again begins from nothing.
        activity.record(began + STEP * hour, End::Signed, None, None);
        assert_eq!(activity.report(began + STEP * hour).last().unwrap(), &StepReport { signed: 1, ..StepReport::default() });
        assert!(activity.report(began + STEP * hour * 5).iter().all(|step| *step == StepReport::default()));
    }

    #[test]
    fn quantiles_are_told_to_about_a_fifth() {
        let began = Instant::now();
        let activity = Activity::new(began);
        for n in 1..=100 {
            activity.record(began, End::Signed, millis(n), Some(Duration::from_secs(10_000)));
        }
        let step = activity.report(began)[STEPS - 1];
        let Times { median, p95 } = step.queue.unwrap();
        assert!((0.04..0.0625).contains(&median) && (0.075..0.12).contains(&p95), "{median} {p95}");
        assert!(step.token.unwrap().median > 300.0);
    }
}
