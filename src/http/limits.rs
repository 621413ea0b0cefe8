//! How much one caller, or one address, may ask of the gateway: requests in a second, and requests that are held open.
//!
//! Used by the APIs, each of which answers in its own form. Invariants: nothing here waits; memory is bounded by the rate limiters and by the
//! number of callers that there can be.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;

use super::peer::Peer;
use crate::{
    auth::{Rate, RateLimiter, address_key},
    domain::{caller::Caller, ids::CallerId},
};

/// Requests a second, and at once, that are taken from one caller or one address: about a third of what two cores serve.
const RATE: Rate = Rate { per_second: 5_000, burst: 10_000 };

/// What may be asked of the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitSettings {
    /// Of one caller.
    pub per_caller: Rate,
    /// Of one address, whoever it says it is. Of IPv6 a /64 network counts as one.
    pub per_address: Rate,
    /// Whether programs on this machine itself are limited, too. Default: no; they share it with the gateway anyway.
    pub this_machine: bool,
    /// The most requests of one caller that wait for something. Default: as many as jobs may wait for one token.
    pub held_open_per_caller: usize,
}

impl Default for LimitSettings {
    fn default() -> Self {
        Self { per_caller: RATE, per_address: RATE, this_machine: false, held_open_per_caller: 1024 }
    }
}

/// Why a request is not taken now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooMany {
    /// When it may be sent again.
    pub(super) retry_after: Duration,
}

/// The most callers that are remembered: more than there can be.
const CALLERS_MAX: usize = 20_000;

/// When one who has too many requests waiting may try again.
const RETRY_HELD: Duration = Duration::from_secs(1);

/// What is counted for a gateway.
pub(super) struct Limits {
    settings: LimitSettings,
    addresses: RateLimiter<IpAddr>,
    callers: Mutex<HashMap<CallerId, Arc<OfCaller>>>,
}

/// What is counted for a caller.
struct OfCaller {
    /// By what is counted apart: an API's method, or nothing.
    requests: ArcSwap<RateLimiter<&'static str>>,
    held: Mutex<usize>,
}

impl OfCaller {
    /// The count of its requests at this rate, begun anew where it had another one.
    fn requests(&self, rate: Rate) -> Arc<RateLimiter<&'static str>> {
        let known = self.requests.load_full();
        if known.rate() == rate {
            return known;
        }
        let new = Arc::new(RateLimiter::new(rate));
        self.requests.store(Arc::clone(&new));
        new
    }
}

impl Limits {
    pub(super) fn new(settings: LimitSettings) -> Self {
        Self { settings, addresses: RateLimiter::new(settings.per_address), callers: Mutex::default() }
    }

    /// Takes a request from `peer`, before anything is known of who it is.
    pub(super) fn take_address(&self, peer: Option<Peer>) -> Result<(), TooMany> {
        let Some(peer) = peer.filter(|peer| self.applies_to(*peer)) else { return Ok(()) };
        self.addresses.take(address_key(peer.address), Instant::now()).map_err(TooMany::of)
    }

    /// Takes a request of `caller`, before anything is done for it.
    pub(super) fn take_caller(&self, caller: &Caller, peer: Option<Peer>) -> Result<(), TooMany> {
        self.take_method(caller, "", peer)
    }

    /// As [`take_caller`](Self::take_caller), of an API whose methods are counted each by itself.
    pub(super) fn take_method(&self, caller: &Caller, method: &'static str, peer: Option<Peer>) -> Result<(), TooMany> {
        if peer.is_some_and(|peer| !self.applies_to(peer)) {
            return Ok(());
        }
        let rate = caller.rate.unwrap_or(self.settings.per_caller);
        self.of(&caller.id).requests(rate).take(method, Instant::now()).map_err(TooMany::of)
    }

    /// Lets a request of `caller` wait, for as long as the value lives.
    pub(super) fn hold_open(&self, caller: &CallerId) -> Result<HeldOpen, TooMany> {
        let of_caller = self.of(caller);
        {
            let mut held = of_caller.held.lock().unwrap_or_else(PoisonError::into_inner);
            if *held >= self.settings.held_open_per_caller {
                return Err(TooMany { retry_after: RETRY_HELD });
            }
            *held += 1;
        }
        Ok(HeldOpen(of_caller))
    }

    /// How many requests of `caller` wait now.
    pub(super) fn held_open(&self, caller: &CallerId) -> usize {
        *self.of(caller).held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn applies_to(&self, peer: Peer) -> bool {
        self.settings.this_machine || !peer.is_this_machine()
    }

    fn of(&self, caller: &CallerId) -> Arc<OfCaller> {
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = callers.get(caller) {
            return Arc::clone(known);
        }
        if callers.len() >= CALLERS_MAX {
            // Of callers that were removed since; whoever is still there begins with a whole burst.
            callers.retain(|_, known| Arc::strong_count(known) > 1);
        }
        let new =
            Arc::new(OfCaller { requests: ArcSwap::from_pointee(RateLimiter::new(self.settings.per_caller)), held: Mutex::default() });
        callers.insert(caller.clone(), Arc::clone(&new));
        new
    }
}

impl TooMany {
    /// Clients are told whole seconds, and zero would be no pause at all.
    fn of(wait: Duration) -> Self {
        Self { retry_after: Duration::from_secs(wait.as_secs() + u64::from(wait.subsec_nanos() > 0)) }
    }
}

/// A request that may wait.
pub(super) struct HeldOpen(Arc<OfCaller>);

impl Drop for HeldOpen {
    fn drop(&mut self) {
        *self.0.held.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
    }
}
