//! Refusals in the audit log, within bounds.
//!
//! Only callers that are known get here: whoever is not is turned away before anything is written. Each has an allowance of records, so that
//! a caller that is refused again and again (a loop, a stolen key) cannot fill the disk; what is beyond is counted, and told by the next
//! record. Invariant: memory is bounded by the number of configured callers, text by [`TEXT_MAX`].

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tracing::error;

use crate::{
    domain::{
        audit::AuditEvent,
        caller::{Caller, Provenance},
        ids::CallerId,
        timestamp::Timestamp,
    },
    store::{Change, Store},
};

/// How many refusals of one caller are recorded at once.
pub const BURST: u32 = 30;
/// How often one more may be recorded after that.
pub const ONE_MORE_EVERY: Duration = Duration::from_secs(10);
/// The most characters of what was asked for, and of the reason, each.
pub const TEXT_MAX: usize = 300;

/// Records what callers were refused.
pub struct RefusalLog {
    store: Arc<dyn Store>,
    callers: Mutex<HashMap<CallerId, Allowance>>,
}

/// What one caller may still have recorded.
struct Allowance {
    left: u32,
    /// When `left` last grew.
    since: Timestamp,
    /// The last refusal that was not recorded, and how many there were before it.
    omitted: Option<(Refusal, u64)>,
}

#[derive(Clone)]
struct Refusal {
    from: Provenance,
    what: String,
    reason: String,
}

impl RefusalLog {
    /// Makes a log of refusals.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, callers: Mutex::default() }
    }

    /// Records that `caller` asked for `what` and was refused, or counts it.
    pub async fn record(&self, caller: &Caller, what: &str, reason: &str) {
        let refusal = Refusal { from: caller.from.clone(), what: cut(what), reason: cut(reason) };
        let now = self.store.now();
        let event = self.callers().entry(caller.id.clone()).or_insert_with(|| Allowance::full(now)).take(&caller.id, refusal, now);
        self.write(event.into_iter().collect()).await;
    }

    /// Records what was only counted, of callers that have an allowance again; of all of them at the `end`.
    pub async fn tell_omitted(&self, end: bool) {
        let now = self.store.now();
        let events = self.callers().iter_mut().filter_map(|(caller, allowance)| allowance.tell(caller, now, end)).collect();
        self.write(events).await;
    }

    async fn write(&self, events: Vec<AuditEvent>) {
        if events.is_empty() {
            return;
        }
        // The refusal stands whether it is recorded or not.
        if let Err(error) = self.store.commit(events.into_iter().map(Change::Audit).collect()).await {
            error!(error = %error, "a refusal is not in the audit log");
        }
    }

    fn callers(&self) -> MutexGuard<'_, HashMap<CallerId, Allowance>> {
        self.callers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Allowance {
    const fn full(now: Timestamp) -> Self {
        Self { left: BURST, since: now, omitted: None }
    }

    fn take(&mut self, caller: &CallerId, refusal: Refusal, now: Timestamp) -> Option<AuditEvent> {
        self.grow(now);
        let before = self.omitted.take().map_or(0, |(_, before)| before + 1);
        if self.left == 0 {
            self.omitted = Some((refusal, before));
            return None;
        }
        self.left -= 1;
        Some(event(caller, refusal, before))
    }

    fn tell(&mut self, caller: &CallerId, now: Timestamp, end: bool) -> Option<AuditEvent> {
        self.grow(now);
        if self.left == 0 && !end {
            return None;
        }
        let (refusal, before) = self.omitted.take()?;
        self.left = self.left.saturating_sub(1);
        Some(event(caller, refusal, before))
    }

    fn grow(&mut self, now: Timestamp) {
        let more = now.since(self.since).as_millis() / ONE_MORE_EVERY.as_millis();
        let more = u32::try_from(more).unwrap_or(u32::MAX);
        if more > 0 {
            self.left = self.left.saturating_add(more).min(BURST);
            self.since = now;
        }
    }
}

fn event(caller: &CallerId, refusal: Refusal, omitted: u64) -> AuditEvent {
    AuditEvent::Refused { caller: caller.clone(), from: refusal.from, what: refusal.what, reason: refusal.reason, omitted }
}

fn cut(text: &str) -> String {
    text.chars().take(TEXT_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(what: &str) -> Refusal {
        Refusal { from: Provenance::default(), what: what.to_owned(), reason: "no".to_owned() }
    }

    fn omitted(event: Option<AuditEvent>) -> Option<(String, u64)> {
        match event {
            Some(AuditEvent::Refused { what, omitted, .. }) => Some((what, omitted)),
            None => None,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_caller_that_is_refused_in_a_loop_is_counted_and_told_of_later() {
        let caller: CallerId = "loop".parse().unwrap();
        let start = Timestamp::from_millis(1_000_000);
        let mut allowance = Allowance::full(start);
        for n in 0..BURST {
            assert_eq!(omitted(allowance.take(&caller, refusal("early"), start)), Some(("early".to_owned(), 0)), "{n}");
        }
        for _ in 0..1_000 {
            assert_eq!(omitted(allowance.take(&caller, refusal("beyond"), start)), None);
        }
        assert_eq!(omitted(allowance.tell(&caller, start, false)), None);
        let later = start.after(ONE_MORE_EVERY);
        assert_eq!(omitted(allowance.tell(&caller, later, false)), Some(("beyond".to_owned(), 999)));
        assert_eq!(omitted(allowance.tell(&caller, later, false)), None, "it is told once");
        assert_eq!(omitted(allowance.take(&caller, refusal("x"), later)), None);
        assert_eq!(omitted(allowance.take(&caller, refusal("y"), later)), None);
        assert_eq!(omitted(allowance.take(&caller, refusal("z"), later.after(ONE_MORE_EVERY))), Some(("z".to_owned(), 2)));
        assert_eq!(omitted(allowance.take(&caller, refusal("end"), later.after(ONE_MORE_EVERY))), None);
        assert_eq!(omitted(allowance.tell(&caller, later, true)), Some(("end".to_owned(), 0)));
    }
}
