//! A scripted token for tests: one slot, software keys on P-256, and failures at the calls that the test names.
//!
//! [`Script`] is the test's hand on the token: what it is, what goes wrong, what was called. [`FakeModule`] is what the code under test is
//! given. The fake behaves like a card with three PIN tries that can be pulled; the driver contract suite holds it and real tokens to the
//! same rules. Built for tests only: a release build refuses the feature.

mod driver;

use std::{
    collections::BTreeSet,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use p256::{ecdsa::SigningKey, pkcs8::EncodePublicKey};

pub use self::driver::FakeModule;
use super::driver::{DeviceError, KeyHandle, SlotId};
use crate::domain::{
    algorithm::{Curve, KeyKind},
    pin::Pin,
    token::{KeyDescription, KeyProtection, TokenFlags, TokenIdentity},
};

#[cfg(all(feature = "fake-token", not(debug_assertions)))]
compile_error!("the feature `fake-token` is for tests; a release build must not have it");

/// The one slot of the fake module.
pub const FAKE_SLOT: SlotId = SlotId(7);
/// The PIN of a new fake token.
pub const FAKE_PIN: &str = "123456";
/// Wrong PINs that lock a fake token.
pub const FAKE_TRIES: u32 = 3;
/// After so long a test that waits at a [`Gate`] is taken to have failed.
const GATE_PATIENCE: Duration = Duration::from_secs(60);

/// A call that reached the fake, named after what the real driver would call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    /// [`TokenModule::tokens`](super::driver::TokenModule::tokens).
    Tokens,
    /// [`TokenModule::open`](super::driver::TokenModule::open).
    Open,
    /// [`TokenModule::create_token`](super::driver::TokenModule::create_token).
    CreateToken,
    /// [`TokenDriver::check_presence`](super::driver::TokenDriver::check_presence).
    CheckPresence,
    /// [`TokenDriver::flags`](super::driver::TokenDriver::flags).
    Flags,
    /// [`TokenDriver::login`](super::driver::TokenDriver::login).
    Login,
    /// [`TokenDriver::logout`](super::driver::TokenDriver::logout).
    Logout,
    /// [`TokenDriver::list_keys`](super::driver::TokenDriver::list_keys).
    ListKeys,
    /// [`TokenDriver::find_key`](super::driver::TokenDriver::find_key).
    FindKey,
    /// The part of [`TokenDriver::sign`](super::driver::TokenDriver::sign) before `entering`.
    SignInit,
    /// The login within [`TokenDriver::sign`](super::driver::TokenDriver::sign) that a key wants for each signature.
    ContextLogin,
    /// The part of [`TokenDriver::sign`](super::driver::TokenDriver::sign) after `entering`.
    Sign,
    /// [`TokenDriver::generate_key_pair`](super::driver::TokenDriver::generate_key_pair).
    GenerateKeyPair,
    /// [`TokenDriver::write_certificate`](super::driver::TokenDriver::write_certificate).
    WriteCertificate,
    /// [`TokenDriver::certificates`](super::driver::TokenDriver::certificates).
    Certificates,
    /// [`TokenDriver::remove_certificate`](super::driver::TokenDriver::remove_certificate).
    RemoveCertificate,
    /// [`TokenDriver::destroy_key_pair`](super::driver::TokenDriver::destroy_key_pair).
    DestroyKeyPair,
    /// [`TokenDriver::algorithms`](super::driver::TokenDriver::algorithms).
    Algorithms,
    /// A session was closed.
    Close,
}

/// A place where a call waits until the test lets it go on.
#[derive(Debug, Clone, Default)]
pub struct Gate(Arc<(Mutex<GateState>, Condvar)>);

#[derive(Debug, Default)]
struct GateState {
    entered: bool,
    open: bool,
}

impl Gate {
    /// Waits until the call is at the gate.
    ///
    /// # Panics
    /// If no call comes within a minute: the test has failed.
    pub fn wait_entered(&self) {
        let (state, changed) = &*self.0;
        let (state, _) =
            changed.wait_timeout_while(locked(state), GATE_PATIENCE, |state| !state.entered).unwrap_or_else(PoisonError::into_inner);
        assert!(state.entered, "the call that was to hang was never made");
    }

    /// Lets the call go on, now or when it comes.
    pub fn release(&self) {
        let (state, changed) = &*self.0;
        locked(state).open = true;
        changed.notify_all();
    }

    fn pass(&self) {
        let (state, changed) = &*self.0;
        let mut state = locked(state);
        state.entered = true;
        changed.notify_all();
        drop(changed.wait_while(state, |state| !state.open).unwrap_or_else(PoisonError::into_inner));
    }
}

/// The test's hand on a fake token. Clones are hands on the same token.
#[derive(Debug, Clone)]
pub struct Script(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    identity: TokenIdentity,
    flags: TokenFlags,
    removable: bool,
    present: bool,
    pin: String,
    tries_left: u32,
    logged_in: bool,
    keys: Vec<FakeKey>,
    /// Changes when the token is pulled: sessions of another epoch are lost.
    epoch: u64,
    /// Changes when key handles become invalid: at a logout, and when the token is pulled.
    handle_epoch: u64,
    sessions: BTreeSet<u64>,
    calls: Vec<Call>,
    plans: Vec<Plan>,
    /// The next signature is one over another digest.
    next_is_wrong: bool,
    /// Certificates, each with its `CKA_ID`.
    certificates: Vec<(Vec<u8>, Vec<u8>)>,
    /// New keys can be taken out of the token.
    keys_are_extractable: bool,
}

#[derive(Debug)]
struct FakeKey {
    signing_key: SigningKey,
    description: KeyDescription,
}

#[derive(Debug)]
struct Plan {
    call: Call,
    calls_left: usize,
    event: Event,
}

#[derive(Debug)]
enum Event {
    Fail(DeviceError),
    Hang(Gate),
}

impl Script {
    /// A removable token with this label, with [`FAKE_PIN`] and no keys.
    #[must_use]
    pub fn new(label: &str) -> Self {
        let script = Self::uninitialised();
        script.state().initialise(label, FAKE_PIN);
        script
    }

    /// A slot with a token that [`TokenModule::create_token`](super::driver::TokenModule::create_token) can make something of.
    ///
    /// # Panics
    /// Never: the module's name is a good one.
    #[must_use]
    pub fn uninitialised() -> Self {
        // INVARIANT: `fake` is a lawful module name.
        #[allow(clippy::expect_used)]
        let module = "fake".parse().expect("a lawful name");
        let identity = TokenIdentity {
            module,
            manufacturer: "Sealgate".to_owned(),
            model: "Fake".to_owned(),
            serial: "F0001".to_owned(),
            label: String::new(),
        };
        Self(Arc::new(Mutex::new(State {
            identity,
            flags: TokenFlags::default(),
            removable: true,
            present: true,
            pin: String::new(),
            tries_left: FAKE_TRIES,
            logged_in: false,
            keys: Vec::new(),
            epoch: 1,
            handle_epoch: 1,
            sessions: BTreeSet::new(),
            calls: Vec::new(),
            plans: Vec::new(),
            next_is_wrong: false,
            certificates: Vec::new(),
            keys_are_extractable: false,
        })))
    }

    /// The module for the code under test.
    #[must_use]
    pub fn module(&self) -> FakeModule {
        FakeModule::new(self.clone())
    }

    /// Puts a P-256 key on the token.
    pub fn add_key(&self, id: &[u8], label: &str) -> KeyDescription {
        self.state().add_key(id, label)
    }

    /// Puts a P-256 key on the token that wants the PIN for each signature.
    pub fn add_always_authenticate_key(&self, id: &[u8], label: &str) {
        let mut state = self.state();
        state.add_key(id, label);
        if let Some(key) = state.keys.last_mut() {
            key.description.always_authenticate = true;
        }
    }

    /// Changes the token's label, serial number and so on.
    pub fn change_identity(&self, change: impl FnOnce(&mut TokenIdentity)) {
        change(&mut self.state().identity);
    }

    /// Changes the token's flags.
    pub fn change_flags(&self, change: impl FnOnce(&mut TokenFlags)) {
        change(&mut self.state().flags);
    }

    /// Gives the token another PIN, as another program would: who is logged in stays so.
    pub fn change_pin(&self, pin: &str) {
        pin.clone_into(&mut self.state().pin);
    }

    /// Sets how many wrong PINs the token takes before it locks.
    pub fn set_tries_left(&self, tries: u32) {
        let mut state = self.state();
        state.tries_left = tries;
        state.update_pin_flags();
    }

    /// Says whether the token's slot can be emptied.
    pub fn set_removable(&self, removable: bool) {
        self.state().removable = removable;
    }

    /// Pulls the token out: sessions, login and handles are gone.
    pub fn pull(&self) {
        let mut state = self.state();
        state.present = false;
        state.logged_in = false;
        state.epoch += 1;
        state.handle_epoch += 1;
        state.sessions.clear();
    }

    /// Puts the token back.
    pub fn put_back(&self) {
        self.state().present = true;
    }

    /// Makes the `nth` such call from now on fail; 1 is the next one.
    pub fn fail(&self, call: Call, nth: usize, error: DeviceError) {
        self.state().plans.push(Plan { call, calls_left: nth, event: Event::Fail(error) });
    }

    /// Makes the `nth` such call from now on wait at the returned gate, and then go on as if nothing had been.
    pub fn hang(&self, call: Call, nth: usize) -> Gate {
        let gate = Gate::default();
        self.state().plans.push(Plan { call, calls_left: nth, event: Event::Hang(gate.clone()) });
        gate
    }

    /// Makes the next signature a wrong one: it does not verify.
    pub fn sign_wrongly(&self) {
        self.state().next_is_wrong = true;
    }

    /// Makes the token give out the keys that it makes from now on, whatever it is asked for.
    pub fn make_extractable_keys(&self) {
        self.state().keys_are_extractable = true;
    }

    /// Takes a key off the token, as another program would.
    pub fn remove_key(&self, id: &[u8]) {
        let mut state = self.state();
        state.keys.retain(|key| key.description.id != id);
        state.handle_epoch += 1;
    }

    /// How many keys and certificates are on the token.
    #[must_use]
    pub fn count_objects(&self) -> (usize, usize) {
        let state = self.state();
        (state.keys.len(), state.certificates.len())
    }

    /// Everything that was called, in order.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.state().calls.clone()
    }

    /// How often this was called.
    #[must_use]
    pub fn count(&self, call: Call) -> usize {
        self.state().calls.iter().filter(|made| **made == call).count()
    }

    /// Whether a user is logged in.
    #[must_use]
    pub fn is_logged_in(&self) -> bool {
        self.state().logged_in
    }

    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.0)
    }

    /// Notes a call and does what the test planned for it, without holding the lock while it hangs.
    fn arrive(&self, call: Call) -> Result<(), DeviceError> {
        let due = self.state().note(call);
        for event in due {
            match event {
                Event::Fail(error) => return Err(error),
                Event::Hang(gate) => gate.pass(),
            }
        }
        Ok(())
    }
}

impl State {
    fn note(&mut self, call: Call) -> Vec<Event> {
        self.calls.push(call);
        for plan in self.plans.iter_mut().filter(|plan| plan.call == call) {
            plan.calls_left = plan.calls_left.saturating_sub(1);
        }
        let (due, waiting) = std::mem::take(&mut self.plans).into_iter().partition(|plan| plan.call == call && plan.calls_left == 0);
        self.plans = waiting;
        due.into_iter().map(|plan: Plan| plan.event).collect()
    }

    fn initialise(&mut self, label: &str, pin: &str) {
        label.clone_into(&mut self.identity.label);
        pin.clone_into(&mut self.pin);
        self.flags = TokenFlags { initialized: true, login_required: true, user_pin_initialized: true, ..TokenFlags::default() };
    }

    fn check_present(&self) -> Result<(), DeviceError> {
        if self.present { Ok(()) } else { Err(DeviceError::TokenGone("it was pulled".to_owned())) }
    }

    fn check_login(&self) -> Result<(), DeviceError> {
        if self.logged_in { Ok(()) } else { Err(DeviceError::SessionLost("nobody is logged in".to_owned())) }
    }

    fn check_pin_is_at_hand(&self, pin: Option<&Pin>) -> Result<(), DeviceError> {
        if pin.is_some() || self.flags.protected_authentication_path {
            return Ok(());
        }
        Err(DeviceError::LoginRequired("the fake has no PIN pad".to_owned()))
    }

    /// Judges a PIN, at the price of a try if it is wrong. At the fake's PIN pad the right one is typed.
    fn try_pin(&mut self, pin: Option<&Pin>) -> Result<(), DeviceError> {
        self.check_pin_is_at_hand(pin)?;
        if self.tries_left == 0 {
            return Err(DeviceError::PinLocked);
        }
        let right = pin.is_none_or(|pin| pin.reveal() == self.pin);
        self.tries_left = if right { FAKE_TRIES } else { self.tries_left - 1 };
        self.update_pin_flags();
        if right { Ok(()) } else { Err(DeviceError::PinRejected) }
    }

    const fn update_pin_flags(&mut self) {
        self.flags.user_pin_count_low = self.tries_left < FAKE_TRIES;
        self.flags.user_pin_final_try = self.tries_left == 1;
        self.flags.user_pin_locked = self.tries_left == 0;
    }

    fn add_key(&mut self, id: &[u8], label: &str) -> KeyDescription {
        // Any number will do that no other key has: small ones in each byte, others in the last four.
        let number = u32::try_from(self.keys.len() + 1).unwrap_or(u32::MAX);
        let mut scalar = [u8::try_from(number).unwrap_or(1); 32];
        if number > u32::from(u8::MAX - 1) {
            scalar = [1; 32];
            scalar[28..].copy_from_slice(&number.to_be_bytes());
        }
        // INVARIANT: a number whose first byte is below 0xff, and which is not zero, is below the order of P-256; its public key has a DER form.
        #[allow(clippy::expect_used)]
        let (signing_key, public_key) = {
            let signing_key = SigningKey::from_slice(&scalar).expect("a scalar in range");
            let public_key = signing_key.verifying_key().to_public_key_der().expect("a DER form").into_vec();
            (signing_key, public_key)
        };
        let description = KeyDescription {
            id: id.to_vec(),
            label: label.to_owned(),
            kind: KeyKind::Ec(Curve::P256),
            public_key: Some(public_key),
            certificate: None,
            always_authenticate: false,
            protection: KeyProtection { sensitive: true, extractable: self.keys_are_extractable, local: true },
        };
        self.keys.push(FakeKey { signing_key, description: description.clone() });
        description
    }

    /// The certificate that each key shows is the one of those beside it that was written last.
    fn show_certificates(&mut self) {
        for key in &mut self.keys {
            let beside = self.certificates.iter().filter(|(id, _)| *id == key.description.id);
            key.description.certificate = beside.map(|(_, der)| der.clone()).next_back();
        }
    }

    fn handle(&self, index: usize) -> KeyHandle {
        KeyHandle((self.handle_epoch << 16) + index as u64)
    }

    fn key(&self, handle: KeyHandle) -> Result<&FakeKey, DeviceError> {
        let found = (0..self.keys.len()).find(|index| self.handle(*index) == handle);
        found.and_then(|index| self.keys.get(index)).ok_or_else(|| DeviceError::SessionLost("the key handle is not valid".to_owned()))
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::token::driver::{TokenDriver, TokenModule};

    fn open(script: &Script) -> Box<dyn TokenDriver> {
        script.module().open(FAKE_SLOT).unwrap()
    }

    #[test]
    fn a_planned_failure_comes_at_the_call_it_was_planned_for_and_once() {
        let script = Script::new("t");
        let mut driver = open(&script);
        script.fail(Call::Flags, 2, DeviceError::Failed("planned".to_owned()));
        let results: Vec<bool> = (0..3).map(|_| driver.flags().is_ok()).collect();
        assert_eq!(results, [true, false, true]);
        assert_eq!(script.count(Call::Flags), 3);
    }

    #[test]
    fn a_hanging_call_waits_for_the_test_and_goes_on() {
        let script = Script::new("t");
        let gate = script.hang(Call::Login, 1);
        let mut driver = open(&script);
        let thread = thread::spawn(move || {
            let done = driver.login(Some(&Pin::new(FAKE_PIN.to_owned()).unwrap()));
            (done, driver)
        });
        gate.wait_entered();
        assert!(!script.is_logged_in());
        gate.release();
        assert_eq!(thread.join().unwrap().0, Ok(()));
    }

    #[test]
    fn a_pulled_token_loses_sessions_and_login() {
        let script = Script::new("t");
        let mut driver = open(&script);
        driver.login(Some(&Pin::new(FAKE_PIN.to_owned()).unwrap())).unwrap();
        script.pull();
        assert!(matches!(driver.check_presence(), Err(DeviceError::TokenGone(_))));
        assert_eq!(script.module().tokens(), Ok(Vec::new()));
        script.put_back();
        assert!(matches!(driver.list_keys(), Err(DeviceError::SessionLost(_))));
        assert_eq!(open(&script).list_keys(), Ok(Vec::new()));
    }

    #[test]
    fn three_wrong_pins_lock_the_token_and_its_flags_warn_before() {
        let script = Script::new("t");
        let mut driver = open(&script);
        let wrong = Pin::new("000000".to_owned()).unwrap();
        assert_eq!(driver.login(Some(&wrong)), Err(DeviceError::PinRejected));
        assert_eq!(driver.login(Some(&wrong)), Err(DeviceError::PinRejected));
        assert!(driver.flags().unwrap().user_pin_final_try);
        assert_eq!(driver.login(Some(&wrong)), Err(DeviceError::PinRejected));
        assert!(driver.flags().unwrap().user_pin_locked);
        assert_eq!(driver.login(Some(&Pin::new(FAKE_PIN.to_owned()).unwrap())), Err(DeviceError::PinLocked));
    }
}
