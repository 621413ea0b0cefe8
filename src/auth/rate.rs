//! Rate limits: how many requests somebody may send in a second.
//!
//! The generic cell rate algorithm (ITU-T I.371): for each key one instant, at which it will have made up for all that it has sent.
//! Invariants: the memory has a bound, whoever asks; nothing here waits or reads a clock.

use std::{
    collections::HashMap,
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// The most keys that are told apart; those beyond share one allowance.
const KEYS_MAX: usize = 65_536;
/// How often, at most, keys that have made up for what they have sent are looked for, once there are too many.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

pub use crate::domain::caller::Rate;

/// Counts what each key sends.
#[derive(Debug)]
pub struct RateLimiter<K> {
    rate: Rate,
    state: Mutex<State<K>>,
}

#[derive(Debug)]
struct State<K> {
    /// When each key has made up for what it has sent; one that has is as good as one that is not here.
    due: HashMap<K, Option<Instant>>,
    /// The same for all keys that found no place.
    others: Option<Instant>,
    swept: Option<Instant>,
}

impl<K: Hash + Eq + Copy> RateLimiter<K> {
    /// Nobody has sent anything.
    #[must_use]
    pub fn new(rate: Rate) -> Self {
        Self { rate, state: Mutex::new(State { due: HashMap::new(), others: None, swept: None }) }
    }

    /// The rate that is allowed.
    #[must_use]
    pub const fn rate(&self) -> Rate {
        self.rate
    }

    /// Takes one request of `key`.
    ///
    /// # Errors
    /// It is one too many; the next is taken after this time.
    pub fn take(&self, key: K, now: Instant) -> Result<(), Duration> {
        if self.rate.per_second == 0 {
            return Ok(());
        }
        let step = Duration::from_secs(1) / self.rate.per_second;
        let room = step * self.rate.burst.saturating_sub(1);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let due = state.due_of(key, now);
        let made_up = due.map_or(now, |due| due.max(now));
        let wait = made_up.saturating_duration_since(now).saturating_sub(room);
        if !wait.is_zero() {
            return Err(wait);
        }
        *due = Some(made_up + step);
        Ok(())
    }
}

impl<K: Hash + Eq + Copy> State<K> {
    /// The place where the key's instant stands.
    fn due_of(&mut self, key: K, now: Instant) -> &mut Option<Instant> {
        if self.due.len() >= KEYS_MAX && !self.due.contains_key(&key) {
            if self.swept.is_none_or(|swept| now.saturating_duration_since(swept) >= SWEEP_EVERY) {
                self.swept = Some(now);
                self.due.retain(|_, due| due.is_some_and(|due| due > now));
            }
            if self.due.len() >= KEYS_MAX {
                return &mut self.others;
            }
        }
        self.due.entry(key).or_default()
    }
}

/// What counts as one address: an IPv4 address, or the /64 network that an IPv6 host chooses its addresses from.
#[must_use]
pub fn address_key(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { per_second: 10, burst: 3 };

    fn after(start: Instant, millis: u64) -> Instant {
        start + Duration::from_millis(millis)
    }

    #[test]
    fn a_burst_is_taken_and_then_the_rate() {
        let (limiter, start) = (RateLimiter::new(RATE), Instant::now());
        let take = |millis| limiter.take("a", after(start, millis));
        assert_eq!([take(0), take(0), take(0)], [Ok(()); 3]);
        assert_eq!(take(0), Err(Duration::from_millis(100)));
        assert_eq!(take(60), Err(Duration::from_millis(40)));
        assert_eq!([take(100), take(100).map_err(|_| Duration::ZERO)], [Ok(()), Err(Duration::ZERO)]);
        // One who is refused owes nothing for it; after a pause the burst is whole again, and no larger.
        assert_eq!([take(900), take(900), take(900)], [Ok(()); 3]);
        assert!(take(900).is_err());
    }

    #[test]
    fn nobody_pays_for_another_and_no_rate_is_no_limit() {
        let (limiter, now) = (RateLimiter::new(Rate { per_second: 1, burst: 1 }), Instant::now());
        assert!(limiter.take("a", now).is_ok() && limiter.take("a", now).is_err() && limiter.take("b", now).is_ok());
        let unlimited = RateLimiter::new(Rate { per_second: 0, burst: 1 });
        assert!((0..1000).all(|_| unlimited.take("a", now).is_ok()));
    }

    #[test]
    fn the_memory_has_a_bound_and_comes_back() {
        let (limiter, start) = (RateLimiter::new(Rate { per_second: 1, burst: 1 }), Instant::now());
        let len = || limiter.state.lock().unwrap().due.len();
        for key in 0..KEYS_MAX {
            assert!(limiter.take(key, start).is_ok());
        }
        // The next find no place of their own and share one; those who have one keep it.
        assert!(limiter.take(KEYS_MAX, start).is_ok() && limiter.take(KEYS_MAX + 1, start).is_err() && limiter.take(0, start).is_err());
        assert_eq!(len(), KEYS_MAX);
        assert!(limiter.take(KEYS_MAX + 1, after(start, 1000)).is_ok());
        assert_eq!(len(), 1);
    }

    #[test]
    fn a_host_cannot_change_its_address_to_start_anew() {
        let key = |text: &str| address_key(text.parse().unwrap());
        assert_eq!(key("2001:db8:1:2::1"), key("2001:db8:1:2:ffff::2"));
        assert_ne!(key("2001:db8:1:2::1"), key("2001:db8:1:3::1"));
        assert_eq!(key("::ffff:192.0.2.1"), key("192.0.2.1"));
        assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
    }
}
