//! Canaries: a signature of our own per key at an interval, so that a key that cannot sign is found before a client needs it.
//!
//! Only keys whose slot is logged in by configuration get one: never one that would need an operator, a PIN per signature or a PIN pad.
//! Canaries take no permit and are no jobs. In the audit log stand their number, once a day and at the end, and each change for the worse or
//! the better at once. Invariant: a canary that does not verify quarantines its key like any other wrong signature.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval_at},
};
use tracing::{debug, error, warn};

use crate::{
    domain::{audit::AuditEvent, ids::KeyName, timestamp::Timestamp, token::LoginMode},
    store::Change,
    telemetry::metrics::CANARIES,
};

use super::{dispatcher::Workshop, keyring::Site, own};

/// What every canary signs, followed by the time: nobody takes it for a document.
const CANARY_TEXT: &str = "Sealgate canary signature, not a document: ";

/// What the audit log calls these signatures.
const PURPOSE: &str = "canary";

/// How often the number of canaries is put into the audit log, if nothing else is to be told of the key.
const TELL_EVERY: Duration = Duration::from_secs(24 * 60 * 60);

/// How a canary goes, as it is labelled.
const OK: &str = "ok";
const FAILED: &str = "failed";

/// How a key's last canary went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CanaryResult {
    /// When it was made.
    pub at: Timestamp,
    /// Why it failed; `None` if it did not.
    pub failure: Option<String>,
}

/// The last canary of each key.
#[derive(Default)]
pub(super) struct Canaries(Mutex<HashMap<KeyName, CanaryResult>>);

impl Canaries {
    pub(super) fn last_of(&self, key: &KeyName) -> Option<CanaryResult> {
        self.results().get(key).cloned()
    }

    fn results(&self) -> MutexGuard<'_, HashMap<KeyName, CanaryResult>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the audit log has not been told of a key's canaries.
struct Untold {
    count: u64,
    since: Timestamp,
    failing: bool,
}

impl Untold {
    const fn new(now: Timestamp) -> Self {
        Self { count: 0, since: now, failing: false }
    }

    /// Counts a canary, and says what is to be told now.
    fn count(&mut self, key: &KeyName, result: &CanaryResult) -> Option<AuditEvent> {
        self.count += u64::from(result.failure.is_none());
        let changed = self.failing != result.failure.is_some();
        self.failing = result.failure.is_some();
        if !changed && result.at.since(self.since) < TELL_EVERY {
            return None;
        }
        self.tell(key, result.at, result.failure.clone())
    }

    /// Tells what there is, if there is something.
    fn tell(&mut self, key: &KeyName, now: Timestamp, failure: Option<String>) -> Option<AuditEvent> {
        let (count, key_name) = (std::mem::take(&mut self.count), key.clone());
        self.since = now;
        let something = count > 0 || failure.is_some();
        something.then(|| AuditEvent::OwnSignature { purpose: PURPOSE.to_owned(), key_name, count, failure })
    }
}

/// Makes a canary of every key that may have one, every so often, until `stop` is set.
pub(super) async fn keep_singing(workshop: Arc<Workshop>, every: Duration, mut stop: watch::Receiver<bool>) {
    let mut ticks = interval_at(Instant::now() + every, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut untold: HashMap<KeyName, Untold> = HashMap::new();
    // At zero from the beginning, so that the first failure is an increase.
    for name in workshop.keyring.key_names() {
        [OK, FAILED].iter().for_each(|result| CANARIES.counter(&[name.as_str(), result]).increment(0));
    }
    while !*stop.borrow_and_update() {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = stop.changed() => continue,
        }
        for (name, target) in workshop.keyring.configured_targets() {
            // Whoever has a token makes its canaries.
            let Site::Here(slot) = &target.site else { continue };
            let ours = workshop.keyring.leases.holds(slot.token());
            if ours && slot.login_mode() == LoginMode::Configured && slot.status().state.takes_work() {
                let now = Timestamp::from(SystemTime::now());
                let text = format!("{CANARY_TEXT}{}", now.as_millis());
                let failure = own::sign(&workshop, &target, text.as_bytes()).await.err().map(|denied| denied.to_string());
                CANARIES.counter(&[name.as_str(), if failure.is_none() { OK } else { FAILED }]).increment(1);
                match &failure {
                    Some(failure) => warn!(key.name = %name, error = %failure, "the canary of key {name} failed: {failure}"),
                    None => debug!(key.name = %name, "the canary of key {name} is well"),
                }
                let result = CanaryResult { at: now, failure };
                let event = untold.entry(name.clone()).or_insert_with(|| Untold::new(now)).count(&name, &result);
                workshop.canaries.results().insert(name, result);
                tell(&workshop, event.into_iter().collect()).await;
            }
        }
    }
    let now = SystemTime::now().into();
    let rest = untold.iter_mut().filter_map(|(key, untold)| untold.tell(key, now, None)).collect();
    tell(&workshop, rest).await;
}

async fn tell(workshop: &Workshop, events: Vec<AuditEvent>) {
    if events.is_empty() {
        return;
    }
    if let Err(error) = workshop.store.commit(events.into_iter().map(Change::Audit).collect()).await {
        error!(error = %error, "canaries are not in the audit log");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canaries_are_told_once_a_day_and_when_one_goes_wrong_or_right_again() {
        let key: KeyName = "seal".parse().unwrap();
        let start = Timestamp::from_millis(1_000_000);
        let mut untold = Untold::new(start);
        let mut sing = |minutes: u64, failure: Option<&str>| {
            let result = CanaryResult { at: start.after(Duration::from_secs(minutes * 60)), failure: failure.map(str::to_owned) };
            untold.count(&key, &result).map(|event| match event {
                AuditEvent::OwnSignature { count, failure, .. } => (count, failure),
                other => panic!("{other:?}"),
            })
        };
        let broken = || Some("it is broken".to_owned());
        assert_eq!(sing(5, None), None);
        assert_eq!(sing(10, None), None);
        assert_eq!(sing(15, Some("it is broken")), Some((2, broken())));
        assert_eq!(sing(20, Some("it is broken")), None, "a failure is told once");
        assert_eq!(sing(25, None), Some((1, None)), "and its end");
        assert_eq!(sing(30, None), None);
        assert_eq!(sing(25 + 24 * 60, None), Some((2, None)));
        assert_eq!(untold.tell(&key, start, None), None);
    }
}
