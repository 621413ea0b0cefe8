//! Back-off: whoever fails again and again waits longer and longer before the next try.
//!
//! A try is counted when it begins, so that many at once are not cheaper than one after the other. Invariants: the memory has a bound, whoever
//! tries; nothing here waits or reads a clock.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// The most keys that are remembered; the one that has tried least recently makes room for the next.
const KEYS_MAX: usize = 4_096;
/// After so long without a try everything is forgiven.
const FORGIVEN_AFTER: Duration = Duration::from_secs(3_600);

/// How patient a back-off is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Tries that may fail before there is any pause.
    pub free: u32,
    /// The longest pause. The first is one second, and each is twice as long as the one before.
    pub pause_max: Duration,
}

/// Remembers who failed how often.
#[derive(Debug)]
pub struct BackOff<K> {
    patience: Patience,
    tries: Mutex<HashMap<K, Tries>>,
}

#[derive(Debug, Clone, Copy)]
struct Tries {
    failed: u32,
    last: Instant,
    next: Instant,
}

impl<K: Hash + Eq + Clone> BackOff<K> {
    /// Nobody has failed yet.
    #[must_use]
    pub fn new(patience: Patience) -> Self {
        Self { patience, tries: Mutex::default() }
    }

    /// How long `key` has to wait before it may try; zero if it may now.
    #[must_use]
    pub fn pause(&self, key: &K, now: Instant) -> Duration {
        self.lock().get(key).map_or(Duration::ZERO, |tries| tries.next.saturating_duration_since(now))
    }

    /// Begins a try of `key`; it counts as failed unless [`succeeded`](Self::succeeded) or [`took_back`](Self::took_back) follows.
    ///
    /// # Errors
    /// How long it has to wait.
    pub fn begin(&self, key: &K, now: Instant) -> Result<(), Duration> {
        let mut known = self.lock();
        let failed = match known.get(key) {
            Some(tries) if tries.next > now => return Err(tries.next - now),
            Some(tries) if now.saturating_duration_since(tries.last) < FORGIVEN_AFTER => tries.failed,
            _ => 0,
        };
        let failed = failed.saturating_add(1);
        if known.len() >= KEYS_MAX && !known.contains_key(key) {
            let oldest = known.iter().min_by_key(|(_, tries)| tries.last).map(|(key, _)| key.clone());
            oldest.and_then(|oldest| known.remove(&oldest));
        }
        known.insert(key.clone(), Tries { failed, last: now, next: now + self.pause_after(failed) });
        Ok(())
    }

    /// The try was good: everything before it is forgiven.
    pub fn succeeded(&self, key: &K) {
        self.lock().remove(key);
    }

    /// The try was none after all.
    pub fn took_back(&self, key: &K) {
        let mut known = self.lock();
        if let Some(tries) = known.get_mut(key) {
            tries.failed = tries.failed.saturating_sub(1);
            tries.next = tries.last;
        }
    }

    fn pause_after(&self, failed: u32) -> Duration {
        let Some(doublings) = failed.checked_sub(self.patience.free.max(1)) else { return Duration::ZERO };
        let pause = Duration::from_secs(1).saturating_mul(1 << doublings.min(20));
        pause.min(self.patience.pause_max)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, Tries>> {
        self.tries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn back_off() -> (BackOff<u32>, Instant) {
        (BackOff::new(Patience { free: 3, pause_max: Duration::from_secs(10) }), Instant::now())
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_a_success_forgives() {
        let (back_off, mut now) = back_off();
        assert_eq!([back_off.begin(&1, now), back_off.begin(&1, now), back_off.begin(&1, now)], [Ok(()); 3]);
        for pause in [1, 2, 4, 8, 10, 10].map(Duration::from_secs) {
            assert_eq!((back_off.begin(&1, now), back_off.pause(&1, now)), (Err(pause), pause));
            assert_eq!(back_off.begin(&2, now), Ok(()));
            back_off.succeeded(&2);
            now += pause;
            assert_eq!(back_off.begin(&1, now), Ok(()));
        }
        back_off.succeeded(&1);
        assert_eq!([back_off.begin(&1, now), back_off.begin(&1, now)], [Ok(()); 2]);
    }

    #[test]
    fn a_try_that_was_none_costs_nothing_and_an_hour_heals() {
        let (back_off, now) = back_off();
        for _ in 0..20 {
            assert_eq!(back_off.begin(&1, now), Ok(()));
            back_off.took_back(&1);
        }
        (0..3).for_each(|_| back_off.begin(&1, now).unwrap());
        let later = now + FORGIVEN_AFTER;
        assert_eq!([back_off.begin(&1, later), back_off.begin(&1, later), back_off.begin(&1, later)], [Ok(()); 3]);
        assert!(back_off.begin(&1, later).is_err());
    }

    #[test]
    fn the_memory_has_a_bound() {
        let (back_off, now) = back_off();
        for key in 0..10_000 {
            back_off.begin(&key, now + Duration::from_millis(u64::from(key))).unwrap();
        }
        assert_eq!(back_off.lock().len(), KEYS_MAX);
        assert!(back_off.lock().contains_key(&9_999) && !back_off.lock().contains_key(&0));
    }
}
