//! Notices calls into a module that do not return.
//!
//! PKCS#11 has no way to interrupt a call, so being noticed is all that happens here: in a process of its own the module is then killed by the
//! gateway, in a thread the slot is marked as wedged. A person at a PIN pad or a touch button is no hang and has a limit of its own.
//! Invariant: one call is reported overdue at most once; what is watched costs two short uncontended locks a call.

use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crossbeam_channel::{Sender, bounded};
use serde::{Deserialize, Serialize};

use crate::domain::{
    algorithm::{KeyKind, SignatureAlgorithm},
    digest::ToSign,
    pin::Pin,
    signature::SignatureValue,
    token::{KeyDescription, KeyPairSpec, KeySelector, TokenFlags, TokenOffer},
};

use super::driver::{CachedKey, DeviceError, SlotId, TokenDriver, TokenModule, TokenSighting};

/// After how long a call is taken for one that never returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallLimits {
    /// One signature.
    pub sign: Duration,
    /// Making a key pair: minutes on a slow card.
    pub key_generation: Duration,
    /// A person at a PIN pad or a touch button.
    pub person: Duration,
    /// Everything else.
    pub other: Duration,
}

impl Default for CallLimits {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { sign: seconds(30), key_generation: seconds(300), person: seconds(300), other: seconds(30) }
    }
}

/// What is told of a call that does not return: its name and its limit.
pub(super) type OnOverdue = Box<dyn Fn(String) + Send>;

/// The thread that looks at the clock for all calls into one module.
pub(super) struct Watchdog {
    watches: Arc<Mutex<Vec<Weak<Watch>>>>,
    stop: Sender<()>,
    thread: Option<JoinHandle<()>>,
}

/// One thread's calls.
pub(super) struct Watch {
    running: Mutex<Option<Running>>,
    was_overdue: AtomicBool,
    on_overdue: Mutex<OnOverdue>,
}

struct Running {
    call: &'static str,
    since: Instant,
    limit: Duration,
    reported: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watchdog {
    /// Starts the thread, which looks ten times within the shortest limit.
    pub(super) fn start(limits: CallLimits) -> io::Result<Self> {
        let shortest = limits.sign.min(limits.key_generation).min(limits.person).min(limits.other);
        let pace = (shortest / 10).clamp(Duration::from_millis(5), Duration::from_secs(1));
        let watches = Arc::new(Mutex::new(Vec::<Weak<Watch>>::new()));
        let (stop, stopped) = bounded::<()>(0);
        let watched = Arc::clone(&watches);
        let thread = thread::Builder::new().name("watchdog".to_owned()).spawn(move || {
            while stopped.recv_timeout(pace).is_err_and(|error| error.is_timeout()) {
                lock(&watched).retain(|watch| watch.upgrade().map(|watch| watch.look()).is_some());
            }
        })?;
        Ok(Self { watches, stop, thread: Some(thread) })
    }

    pub(super) fn watch(&self, on_overdue: OnOverdue) -> Arc<Watch> {
        let watch = Arc::new(Watch { running: Mutex::new(None), was_overdue: AtomicBool::new(false), on_overdue: Mutex::new(on_overdue) });
        lock(&self.watches).push(Arc::downgrade(&watch));
        watch
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        // A thread that has ended by itself needs no telling.
        let _ = self.stop.send(());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Watch {
    /// Makes a call while the watchdog looks at the clock.
    pub(super) fn call<T>(&self, call: &'static str, limit: Duration, make: impl FnOnce() -> T) -> T {
        *lock(&self.running) = Some(Running { call, since: Instant::now(), limit, reported: false });
        let result = make();
        lock(&self.running).take();
        result
    }

    /// Whether a call was reported overdue since this was asked last; it has returned after all.
    pub(super) fn take_overdue(&self) -> bool {
        self.was_overdue.swap(false, Ordering::AcqRel)
    }

    fn look(&self) {
        let mut running = lock(&self.running);
        let Some(call) = running.as_mut().filter(|call| !call.reported && call.since.elapsed() > call.limit) else { return };
        call.reported = true;
        self.was_overdue.store(true, Ordering::Release);
        let text = format!("{} has not returned for {} ms", call.call, call.limit.as_millis());
        drop(running);
        lock(&self.on_overdue)(text);
    }
}

/// A module whose calls are watched. Its `tokens` are asked by the scanning thread, its drivers belong to the slot threads.
pub(super) struct WatchedModule {
    pub(super) module: Arc<dyn TokenModule>,
    pub(super) watch: Arc<Watch>,
    pub(super) limits: CallLimits,
}

impl WatchedModule {
    pub(super) fn tokens(&self) -> Result<Vec<TokenSighting>, DeviceError> {
        self.watch.call("the search for tokens", self.limits.other, || self.module.tokens())
    }

    pub(super) fn open(&self, slot: SlotId) -> Result<Box<dyn TokenDriver>, DeviceError> {
        let driver = self.watch.call("C_OpenSession", self.limits.other, || self.module.open(slot))?;
        Ok(Box::new(WatchedDriver { driver: Some(driver), watch: Arc::clone(&self.watch), limits: self.limits }))
    }
}

struct WatchedDriver {
    /// `None` only while it is dropped.
    driver: Option<Box<dyn TokenDriver>>,
    watch: Arc<Watch>,
    limits: CallLimits,
}

impl WatchedDriver {
    fn call<T>(
        &mut self,
        call: &'static str,
        limit: Duration,
        make: impl FnOnce(&mut dyn TokenDriver) -> Result<T, DeviceError>,
    ) -> Result<T, DeviceError> {
        let driver = self.driver.as_mut().ok_or_else(|| DeviceError::SessionLost("the session is closed".to_owned()))?;
        self.watch.call(call, limit, || make(driver.as_mut()))
    }
}

impl Drop for WatchedDriver {
    fn drop(&mut self) {
        let driver = self.driver.take();
        self.watch.call("C_CloseSession", self.limits.other, || drop(driver));
    }
}

impl TokenDriver for WatchedDriver {
    fn check_presence(&mut self) -> Result<(), DeviceError> {
        self.call("C_GetSlotInfo", self.limits.other, |driver| driver.check_presence())
    }

    fn check_session(&mut self, logged_in: bool) -> Result<(), DeviceError> {
        self.call("C_GetSessionInfo", self.limits.other, |driver| driver.check_session(logged_in))
    }

    fn flags(&mut self) -> Result<TokenFlags, DeviceError> {
        self.call("C_GetTokenInfo", self.limits.other, |driver| driver.flags())
    }

    fn login(&mut self, pin: Option<&Pin>) -> Result<(), DeviceError> {
        let limit = if pin.is_none() { self.limits.person } else { self.limits.other };
        self.call("C_Login", limit, |driver| driver.login(pin))
    }

    fn logout(&mut self) -> Result<(), DeviceError> {
        self.call("C_Logout", self.limits.other, |driver| driver.logout())
    }

    fn list_keys(&mut self) -> Result<Vec<KeyDescription>, DeviceError> {
        self.call("C_FindObjects", self.limits.other, |driver| driver.list_keys())
    }

    fn find_key(&mut self, selector: &KeySelector) -> Result<CachedKey, DeviceError> {
        self.call("C_FindObjects", self.limits.other, |driver| driver.find_key(selector))
    }

    fn sign(
        &mut self,
        key: &CachedKey,
        to_sign: &ToSign,
        pin: Option<&Pin>,
        entering: &mut dyn FnMut(),
    ) -> Result<SignatureValue, DeviceError> {
        self.call("C_Sign", self.limits.sign, |driver| driver.sign(key, to_sign, pin, entering))
    }

    fn generate_key_pair(&mut self, spec: &KeyPairSpec) -> Result<KeyDescription, DeviceError> {
        self.call("C_GenerateKeyPair", self.limits.key_generation, |driver| driver.generate_key_pair(spec))
    }

    fn write_certificate(&mut self, id: &[u8], label: &str, certificate: &[u8]) -> Result<(), DeviceError> {
        self.call("C_CreateObject", self.limits.other, |driver| driver.write_certificate(id, label, certificate))
    }

    fn certificates(&mut self, id: &[u8]) -> Result<Vec<Vec<u8>>, DeviceError> {
        self.call("C_FindObjects", self.limits.other, |driver| driver.certificates(id))
    }

    fn remove_certificate(&mut self, id: &[u8], certificate: &[u8]) -> Result<(), DeviceError> {
        self.call("C_DestroyObject", self.limits.other, |driver| driver.remove_certificate(id, certificate))
    }

    fn destroy_key_pair(&mut self, id: &[u8]) -> Result<(), DeviceError> {
        self.call("C_DestroyObject", self.limits.other, |driver| driver.destroy_key_pair(id))
    }

    fn algorithms(&mut self, key: &KeyKind) -> Result<Vec<SignatureAlgorithm>, DeviceError> {
        self.call("C_GetMechanismList", self.limits.other, |driver| driver.algorithms(key))
    }

    fn offer(&mut self) -> Result<TokenOffer, DeviceError> {
        self.call("C_GetMechanismList", self.limits.other, |driver| driver.offer())
    }
}
