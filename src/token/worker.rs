//! One thread per token slot.
//!
//! The thread owns the PKCS#11 session and the login; nothing else in the process touches that token. Invariants: (1) one operation at a
//! time, in the order of the queue; (2) `entering` is said before `C_Sign`; (3) key handles belong to one session and die with it; (4) a
//! rejected PIN stops the slot until an operator acts, so the token's retry counter is never spent twice. The thread ends when the token
//! is gone or the runner closes the queue; what is still queued then is answered.

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use tracing::{debug, info, warn};
use uuid::Uuid;

use crate::domain::{
    digest::ToSign,
    pin::{LedgerInstance, LedgerKey, Pin, PinLedger, PinOrigin},
    signature::SignatureValue,
    token::{KeyDescription, KeySelector, LoginMode, SlotState, SlotStatus, TokenFlags, TokenIdentity},
};

use super::{
    command::{Command, Reply},
    driver::{CachedKey, DeviceError, Outcome, Retry, TokenDriver, TokenSighting},
    link::{Envelope, ModuleEvents, SlotRef},
    login::{LoginDesk, permitted_by_flags},
    marks::Marks,
    quirks::Quirks,
    watchdog::WatchedModule,
    writing,
};

/// How long an idle thread waits before it looks whether its token is still there.
const PRESENCE_CHECK: Duration = Duration::from_secs(1);

/// How often an idle thread reads its token's flags: another program's wrong PIN shows nowhere else.
const FLAGS_CHECK: Duration = Duration::from_secs(5);

/// How long a thread without a session waits before it tries to open one again, whatever is queued: a queue of commands that each tried
/// would make a row of failures of one moment's trouble, and have the module replaced for it.
const REOPEN_PAUSE: Duration = Duration::from_millis(100);

/// So many failures in a row, and the module is taken for one that recovers only by being started again. An error that leaves the outcome of
/// a signature open counts twice: at most two jobs end in doubt before the module is replaced.
const FAILURES_MAX: u32 = 4;

/// What a slot thread is made of.
pub(super) struct WorkerParts {
    pub(super) slot: SlotRef,
    pub(super) sighting: TokenSighting,
    pub(super) login: LoginMode,
    pub(super) module: WatchedModule,
    pub(super) ledger: Arc<dyn PinLedger>,
    pub(super) instance: LedgerInstance,
    pub(super) events: Arc<dyn ModuleEvents>,
    pub(super) quirks: Quirks,
    pub(super) queue: Receiver<Envelope>,
    pub(super) stopping: Arc<AtomicBool>,
    /// Where marks are kept; `None` for none.
    pub(super) marks: Option<PathBuf>,
}

/// Runs the thread of one slot until its token is gone or the queue is closed; returns why it ended.
pub(super) fn run(parts: WorkerParts) -> String {
    let (mut worker, mut end) = match Worker::take_up(parts) {
        Ok(worker) => worker,
        Err(error) => return error.to_string(),
    };
    while end.is_none() {
        let pause = if worker.session.is_some() { PRESENCE_CHECK } else { REOPEN_PAUSE };
        end = match worker.parts.queue.recv_timeout(pause) {
            Ok(envelope) => worker.serve(envelope),
            Err(RecvTimeoutError::Timeout) => worker.look_after_token(),
            Err(RecvTimeoutError::Disconnected) => break,
        };
    }
    worker.close(end)
}

/// What a slot's thread does; or, where a module cannot take threads, what the module's one thread does for this slot.
pub(super) struct Worker {
    parts: WorkerParts,
    desk: LoginDesk,
    session: Option<Session>,
    status: Option<(SlotState, String)>,
    /// The flags that the gateway was told last.
    told: Option<TokenFlags>,
    /// Failures of the module in a row; any success ends the row.
    failures: u32,
    /// When no session could be opened, and why, if that was the last that was tried.
    not_opened: Option<(Instant, DeviceError)>,
    /// The command at hand was answered with that, and the module was not asked.
    was_not_asked: bool,
    /// Keys that have signed since the token was taken up.
    seen_keys: HashSet<KeySelector>,
    marks: Option<Marks>,
}

/// One session epoch: handles found in it are worthless in the next.
struct Session {
    driver: Box<dyn TokenDriver>,
    keys: HashMap<KeySelector, CachedKey>,
    flags: TokenFlags,
    flags_read: Instant,
    logged_in: bool,
    used: Instant,
}

impl Worker {
    /// Opens the slot's first session. An error beside the worker means that the token is gone already.
    pub(super) fn take_up(parts: WorkerParts) -> Result<(Self, Option<DeviceError>), DeviceError> {
        let token = &parts.sighting.token;
        info!(slot.token = %token, slot.login = %parts.login, "token {} taken up", token.label);
        let desk = LoginDesk::new(Arc::clone(&parts.ledger), LedgerKey::of(token), parts.instance)?;
        let marks = parts.marks.as_ref().and_then(|dir| {
            let opened = Marks::open(dir, token);
            // A token whose marks cannot be kept signs all the same; after a crash its claimed jobs are all in doubt.
            opened.inspect_err(|error| warn!(error = %error, "the marks of token {} cannot be kept", token.label)).ok()
        });
        let mut worker = Self {
            parts,
            desk,
            session: None,
            status: None,
            told: None,
            failures: 0,
            not_opened: None,
            was_not_asked: false,
            seen_keys: HashSet::new(),
            marks,
        };
        let end = worker.open().err().filter(|error| matches!(error, DeviceError::TokenGone(_)));
        Ok((worker, end))
    }

    /// The slot's commands.
    pub(super) const fn queue(&self) -> &Receiver<Envelope> {
        &self.parts.queue
    }

    /// Answers one command; an error is returned if the worker must end.
    pub(super) fn serve(&mut self, envelope: Envelope) -> Option<DeviceError> {
        let Envelope { command, responder } = envelope;
        if let Some(session) = self.session.as_mut() {
            session.used = Instant::now();
        }
        if self.parts.stopping.load(Ordering::Acquire) {
            responder.answer(Err(DeviceError::Stopping));
            return None;
        }
        let answer = self.perform(command, &mut || responder.entering());
        if !std::mem::take(&mut self.was_not_asked) {
            self.count_failures(answer.as_ref().err());
        }
        self.report_return();
        let gone = answer.as_ref().err().filter(|error| matches!(error, DeviceError::TokenGone(_))).cloned();
        responder.answer(answer);
        gone
    }

    fn perform(&mut self, command: Command, entering: &mut dyn FnMut()) -> Result<Reply, DeviceError> {
        match command {
            Command::Sign { key, to_sign, pin, mark } => {
                self.report_touch();
                let mut marks = self.marks.take();
                let signed = self.sign(&key, &to_sign, pin.as_ref(), &mut || {
                    note(&mut marks, mark);
                    entering();
                });
                self.marks = marks;
                self.report_touched();
                signed.map(Reply::Signature)
            }
            Command::DescribeKey { key, pin } => self.describe_key(&key, pin.as_ref()),
            Command::ListKeys => self.with_session(|session| session.driver.list_keys()).map(Reply::Keys),
            Command::GenerateKeyPair(spec) => self.with_session(|session| {
                let key = writing::generate(session.driver.as_mut(), &spec)?;
                let algorithms = session.driver.algorithms(&key.kind)?;
                Ok(Reply::Key { key, algorithms })
            }),
            Command::DestroyKeyPair { id } => self
                .with_session(|session| {
                    session.keys.clear();
                    session.driver.destroy_key_pair(&id)
                })
                .map(|()| Reply::Done),
            Command::WriteCertificate(order) => {
                self.with_session(|session| writing::have_certificate(session.driver.as_mut(), &order)).map(|()| Reply::Done)
            }
            Command::Login { pin, origin } => self.login(pin, origin).map(|()| Reply::Done),
            Command::CheckPin { pin } => self.check_pin(&pin).map(|()| Reply::Done),
            Command::Logout => self.logout().map(|()| Reply::Done),
        }
    }

    // ---- signing ----

    fn sign(
        &mut self,
        key: &KeySelector,
        to_sign: &ToSign,
        pin: Option<&Pin>,
        entering: &mut dyn FnMut(),
    ) -> Result<SignatureValue, DeviceError> {
        if self.parts.login == LoginMode::PerRequest && self.parts.sighting.flags.login_required {
            let pin = pin.ok_or_else(|| DeviceError::LoginRequired("each signature needs the PIN in its request".to_owned()))?;
            return self.logged_in_for_one(pin, |worker| worker.sign_in_session(key, to_sign, Some(pin), entering));
        }
        if let Some(pin) = pin {
            self.compare(pin)?;
        }
        self.require_login()?;
        let mut entered = false;
        let result = self.sign_in_session(key, to_sign, pin, &mut || {
            entered = true;
            entering();
        });
        match result {
            // Nothing can have been signed, so it is safe to open the session again and ask once more.
            Err(error) if error.retry() == Retry::AfterReopen && error.outcome() == Outcome::NotPerformed && !entered => {
                self.reopen(&error)?;
                self.require_login()?;
                self.sign_in_session(key, to_sign, pin, entering)
            }
            Err(error) if error.retry() == Retry::AfterReopen => {
                self.drop_session(&error);
                Err(error)
            }
            other => other,
        }
    }

    fn sign_in_session(
        &mut self,
        selector: &KeySelector,
        to_sign: &ToSign,
        pin: Option<&Pin>,
        entering: &mut dyn FnMut(),
    ) -> Result<SignatureValue, DeviceError> {
        self.ensure_open()?;
        let removable = self.parts.sighting.removable;
        let Some(session) = self.session.as_mut() else { return Err(no_session()) };
        if removable {
            session.driver.check_presence()?;
        }
        let key = match session.key(selector) {
            // Deleted, or the module lost sight of it (seen: SoftHSM whose directory was moved). A fresh start of the module tells which.
            Err(DeviceError::KeyNotFound(which)) if self.seen_keys.contains(selector) => {
                return Err(DeviceError::ModuleLost(format!("the key {which}, which was there, is not found")));
            }
            found => found?,
        };
        if !key.always_authenticate {
            let signature = session.driver.sign(&key, to_sign, None, entering)?;
            if !self.seen_keys.contains(selector) {
                self.seen_keys.insert(selector.clone());
            }
            return Ok(signature);
        }
        let configured = if pin.is_none() { self.desk.configured_pin() } else { None };
        let pin = pin.or(configured.as_ref());
        let pin = pin.ok_or_else(|| DeviceError::LoginRequired("this key wants its PIN for each signature".to_owned()))?;
        let origin = if configured.is_some() { PinOrigin::Configured } else { PinOrigin::Request };
        let result = self.desk.attempt(session.driver.as_mut(), pin, origin, |driver| driver.sign(&key, to_sign, Some(pin), entering));
        if matches!(result, Err(DeviceError::PinRejected)) {
            // A failed context login logs the whole token out (seen: OpenSC's PIV driver).
            self.drop_session(&DeviceError::PinRejected);
        }
        result
    }

    fn describe_key(&mut self, selector: &KeySelector, pin: Option<&Pin>) -> Result<Reply, DeviceError> {
        match pin {
            Some(pin) if self.parts.login == LoginMode::PerRequest && self.parts.sighting.flags.login_required => {
                self.logged_in_for_one(pin, |worker| worker.describe_in_session(selector))
            }
            Some(pin) => {
                self.compare(pin)?;
                self.describe_in_session(selector)
            }
            None => self.describe_in_session(selector),
        }
    }

    fn describe_in_session(&mut self, selector: &KeySelector) -> Result<Reply, DeviceError> {
        self.with_session(|session| {
            let keys = session.driver.list_keys()?;
            let key = only_match(keys, selector)?;
            let algorithms = session.driver.algorithms(&key.kind)?;
            Ok(Reply::Key { key, algorithms })
        })
    }

    /// Runs `call` on an open session; opens it again and asks once more if it was lost.
    fn with_session<T>(&mut self, call: impl Fn(&mut Session) -> Result<T, DeviceError>) -> Result<T, DeviceError> {
        self.ensure_open()?;
        let result = self.session.as_mut().map_or_else(|| Err(no_session()), &call);
        match result {
            Err(error @ DeviceError::SessionLost(_)) => {
                self.reopen(&error)?;
                self.session.as_mut().map_or_else(|| Err(no_session()), &call)
            }
            other => other,
        }
    }

    // ---- login ----

    fn login(&mut self, pin: Option<Pin>, origin: PinOrigin) -> Result<(), DeviceError> {
        self.ensure_open()?;
        let mode = self.parts.login;
        let Some(session) = self.session.as_mut() else { return Err(no_session()) };
        let result = match (pin, mode) {
            (None, LoginMode::Protected) => {
                self.report(SlotState::WaitingAtReader, "enter the PIN at the reader");
                self.login_at_reader(origin)
            }
            (None, _) => return Err(DeviceError::LoginRequired("a PIN is needed".to_owned())),
            // It was sent when the slot needed one; an operator has been quicker, and a wrong one must not log the right one out.
            (Some(_), _) if session.logged_in && origin == PinOrigin::Configured => Ok(()),
            // On a per-request slot an operator's good PIN lifts the limit on requests' PINs; the slot stays logged out.
            (Some(pin), LoginMode::PerRequest) => {
                self.desk.login(session.driver.as_mut(), &pin, origin).and_then(|()| session.driver.logout())
            }
            (Some(pin), _) if session.logged_in && self.desk.is_known_good(&pin) => Ok(()),
            (Some(pin), _) => self.desk.login_and_keep(session.driver.as_mut(), pin, origin),
        };
        self.after_login(&result, origin);
        result
    }

    fn login_at_reader(&mut self, origin: PinOrigin) -> Result<(), DeviceError> {
        let Some(session) = self.session.as_mut() else { return Err(no_session()) };
        permitted_by_flags(session.driver.flags()?, origin, false)?;
        match session.driver.login(None) {
            Err(DeviceError::AlreadyLoggedIn) => Ok(()),
            other => other,
        }
    }

    fn after_login(&mut self, result: &Result<(), DeviceError>, origin: PinOrigin) {
        self.refresh_flags();
        match result {
            Ok(()) => {
                if let Some(session) = self.session.as_mut() {
                    session.logged_in = self.parts.login != LoginMode::PerRequest;
                    // Private objects show only after a login; what was found before may be incomplete.
                    session.keys.clear();
                }
                self.report_idle();
            }
            Err(DeviceError::PinRejected) if origin != PinOrigin::Request => {
                self.report(SlotState::PinRejected, "the token rejected the PIN; unlock it with the right one");
            }
            Err(DeviceError::PinLocked) => self.report(SlotState::PinLocked, "unblock the PIN with the vendor's tool"),
            Err(error @ (DeviceError::PinNotTried(_) | DeviceError::FinalTry)) if origin == PinOrigin::Configured => {
                self.report(SlotState::PinRejected, &error.to_string());
            }
            Err(error) if error.retry() == Retry::AfterReopen => self.drop_session(error),
            Err(_) => self.report_idle(),
        }
    }

    /// Logs in with a request's PIN, runs `call`, logs out.
    fn logged_in_for_one<T>(&mut self, pin: &Pin, call: impl FnOnce(&mut Self) -> Result<T, DeviceError>) -> Result<T, DeviceError> {
        self.ensure_open()?;
        let Some(session) = self.session.as_mut() else { return Err(no_session()) };
        let login = match self.desk.login(session.driver.as_mut(), pin, PinOrigin::Request) {
            Err(error) if error.retry() == Retry::AfterReopen => {
                self.reopen(&error)?;
                let Some(session) = self.session.as_mut() else { return Err(no_session()) };
                self.desk.login(session.driver.as_mut(), pin, PinOrigin::Request)
            }
            other => other,
        };
        self.after_login(&login, PinOrigin::Request);
        login?;
        let result = call(self);
        let failed = result.as_ref().err().filter(|error| error.retry() == Retry::AfterReopen).cloned();
        let logout = self.session.as_mut().map_or(Ok(()), |session| {
            session.keys.clear();
            session.driver.logout()
        });
        // A session that cannot be logged out is closed, which logs it out.
        if let Some(error) = failed.or(logout.err()) {
            self.drop_session(&error);
        }
        result
    }

    fn check_pin(&mut self, pin: &Pin) -> Result<(), DeviceError> {
        if self.parts.login == LoginMode::PerRequest { self.logged_in_for_one(pin, |_| Ok(())) } else { self.compare(pin) }
    }

    /// Compares a request's PIN with the one that logged in; the token is not asked.
    fn compare(&mut self, pin: &Pin) -> Result<(), DeviceError> {
        self.require_login()?;
        if self.desk.is_known_good(pin) { Ok(()) } else { Err(DeviceError::PinMismatch) }
    }

    fn require_login(&mut self) -> Result<(), DeviceError> {
        self.ensure_open()?;
        match &self.session {
            Some(session) if session.logged_in || !session.flags.login_required => Ok(()),
            _ => {
                let why = self.status.as_ref().map(|(state, reason)| format!("{state} {reason}")).unwrap_or_default();
                Err(DeviceError::LoginRequired(why.trim_end().to_owned()))
            }
        }
    }

    fn logout(&mut self) -> Result<(), DeviceError> {
        self.desk.forget();
        let result = match self.session.as_mut() {
            Some(session) if session.logged_in => session.driver.logout(),
            _ => Ok(()),
        };
        match &result {
            Ok(()) => {
                if let Some(session) = self.session.as_mut() {
                    session.logged_in = false;
                    session.keys.clear();
                }
                self.report(self.state_logged_out(), "locked by an operator");
            }
            // Closing the session logs out as well.
            Err(error) => self.drop_session(error),
        }
        result
    }

    // ---- session ----

    fn ensure_open(&mut self) -> Result<(), DeviceError> {
        if self.session.is_some() {
            return Ok(());
        }
        match &self.not_opened {
            Some((when, why)) if when.elapsed() < REOPEN_PAUSE => {
                self.was_not_asked = true;
                Err(why.clone())
            }
            _ => self.open(),
        }
    }

    fn reopen(&mut self, because: &DeviceError) -> Result<(), DeviceError> {
        self.drop_session(because);
        self.open()
    }

    fn drop_session(&mut self, because: &DeviceError) {
        if self.session.take().is_some() {
            debug!(slot.token = %self.parts.sighting.token, error = %because, "session closed");
            self.report(SlotState::Recovering, &because.to_string());
        }
    }

    /// Opens a session and logs in with the PIN that was kept, if there is one.
    fn open(&mut self) -> Result<(), DeviceError> {
        let opened = self.parts.module.open(self.parts.sighting.slot).and_then(|mut driver| {
            let flags = driver.flags()?;
            let now = Instant::now();
            Ok(Session { driver, keys: HashMap::new(), flags, flags_read: now, logged_in: false, used: now })
        });
        thread::sleep(self.parts.quirks.settle);
        let mut session = match opened {
            Ok(session) => session,
            Err(error) => {
                self.report(SlotState::Recovering, &error.to_string());
                self.not_opened = Some((Instant::now(), error.clone()));
                return Err(error);
            }
        };
        self.not_opened = None;
        self.parts.sighting.flags = session.flags;
        self.tell_flags();
        let again = self.desk.login_again(session.driver.as_mut());
        session.logged_in = matches!(again, Some(Ok(())));
        self.session = Some(session);
        match again {
            Some(again @ Err(_)) => {
                self.after_login(&again, PinOrigin::Configured);
                // The module failed, and nobody has judged the PIN (seen: OpenSC while a card is pulled): this is not a slot that lacks a PIN.
                again.or_else(|error| if error.retry() == Retry::AfterReopen { Err(error) } else { Ok(()) })
            }
            _ => {
                self.report_idle();
                Ok(())
            }
        }
    }

    /// Looks whether the idle slot's token is still there; an error is returned if the worker must end.
    pub(super) fn look_after_token(&mut self) -> Option<DeviceError> {
        let checked = match self.session.as_mut() {
            Some(session) => session.driver.check_presence().and_then(|()| session.keep_alive(self.parts.quirks.idle_limit)),
            None => self.open(),
        };
        if checked.is_ok() && self.session.as_ref().is_some_and(|session| session.flags_read.elapsed() >= FLAGS_CHECK) {
            self.refresh_flags();
        }
        self.count_failures(checked.as_ref().err());
        self.report_return();
        match checked {
            Err(error @ DeviceError::TokenGone(_)) => Some(error),
            Err(error) => {
                self.drop_session(&error);
                None
            }
            Ok(()) => None,
        }
    }

    /// Asks for a new start of the module if it fails in a row: some recover by nothing else (seen: tpm2-pkcs11 after its TPM was restarted,
    /// p11-kit's client after its server was, SoftHSM after its directory was moved).
    fn count_failures(&mut self, error: Option<&DeviceError>) {
        self.failures += match error {
            None => return self.failures = 0,
            Some(DeviceError::ModuleLost(_)) => FAILURES_MAX,
            Some(DeviceError::Unclear(_)) => 2,
            Some(DeviceError::Failed(_) | DeviceError::SessionLost(_)) => 1,
            Some(_) => return,
        };
        if self.failures >= FAILURES_MAX {
            self.failures = 0;
            let reason = error.map(ToString::to_string).unwrap_or_default();
            self.parts.events.replace(reason);
        }
    }

    /// Says that a signature waits for a person's touch, where the token has a button and could sign.
    fn report_touch(&mut self) {
        let per_request = self.parts.login == LoginMode::PerRequest;
        let could_sign = |session: &Session| session.logged_in || per_request || !session.flags.login_required;
        if self.parts.quirks.waits_for_touch && self.session.as_ref().is_some_and(could_sign) {
            self.report(SlotState::WaitingAtReader, "touch the token");
        }
    }

    fn report_touched(&mut self) {
        if matches!(self.status, Some((SlotState::WaitingAtReader, _))) {
            self.report_idle();
        }
    }

    /// A call that was reported as one that does not return has returned: the state is told anew.
    fn report_return(&mut self) {
        if self.parts.module.watch.take_overdue() {
            self.status = None;
            self.report_idle();
        }
    }

    /// Closes the session and answers what is still queued; returns the reason in words.
    pub(super) fn close(mut self, end: Option<DeviceError>) -> String {
        self.session = None;
        let answer = end.clone().unwrap_or(DeviceError::Stopping);
        for envelope in self.parts.queue.try_iter() {
            envelope.responder.answer(Err(answer.clone()));
        }
        let reason = end.map_or_else(|| "stopped".to_owned(), |error| error.to_string());
        let token = &self.parts.sighting.token;
        info!(slot.token = %token, "token {} let go: {reason}", token.label);
        reason
    }

    // ---- state ----

    fn state_logged_out(&self) -> SlotState {
        if self.parts.login == LoginMode::PerRequest { SlotState::Present } else { SlotState::NeedsPin }
    }

    /// Reports the state of a slot that is open and does nothing.
    fn report_idle(&mut self) {
        let Some(session) = &self.session else { return };
        let flags = session.flags;
        if flags.user_pin_locked {
            self.report(SlotState::PinLocked, "unblock the PIN with the vendor's tool");
        } else if session.logged_in || !flags.login_required {
            self.report(SlotState::Ready, "");
        } else if matches!(self.status, Some((SlotState::PinRejected, _))) {
            // Stays until a good login or an operator's log-out.
        } else {
            let hint = match self.parts.login {
                LoginMode::PerRequest | LoginMode::Configured => "",
                LoginMode::Operator => "an operator must unlock it",
                LoginMode::Protected => "an operator must unlock it at the reader",
            };
            self.report(self.state_logged_out(), hint);
        }
    }

    fn refresh_flags(&mut self) {
        if let Some(session) = self.session.as_mut()
            && let Ok(flags) = session.driver.flags()
        {
            session.flags = flags;
            session.flags_read = Instant::now();
            self.parts.sighting.flags = flags;
        }
        self.tell_flags();
    }

    /// Tells the gateway of flags that changed since it was told last; a state that is told brings them along.
    fn tell_flags(&mut self) {
        let flags = self.parts.sighting.flags;
        if self.told.is_some_and(|told| told != flags) {
            self.told = Some(flags);
            self.parts.events.flags(self.parts.slot, flags);
        }
    }

    /// Tells the gateway of a state; says nothing if nothing changed.
    fn report(&mut self, state: SlotState, reason: &str) {
        if self.status.as_ref().is_some_and(|(was, why)| *was == state && why == reason) {
            return;
        }
        if state.needs_a_person() && state != SlotState::NeedsPin {
            warn!(slot.token = %self.parts.sighting.token, slot.state = %state, "{state}: {reason}");
        }
        self.status = Some((state, reason.to_owned()));
        let status = SlotStatus { state, reason: reason.to_owned(), since: SystemTime::now().into() };
        self.told = Some(self.parts.sighting.flags);
        self.parts.events.status(self.parts.slot, status, self.parts.sighting.flags);
    }
}

impl Session {
    /// Uses a session that would end as idle, a little before it does, and checks that the login still holds.
    fn keep_alive(&mut self, idle_limit: Option<Duration>) -> Result<(), DeviceError> {
        if idle_limit.is_none_or(|limit| self.used.elapsed() < limit * 3 / 4) {
            return Ok(());
        }
        self.used = Instant::now();
        self.driver.check_session(self.logged_in)
    }

    fn key(&mut self, selector: &KeySelector) -> Result<CachedKey, DeviceError> {
        if let Some(key) = self.keys.get(selector) {
            return Ok(key.clone());
        }
        let key = self.driver.find_key(selector)?;
        self.keys.insert(selector.clone(), key.clone());
        Ok(key)
    }
}

/// Notes a mark, or makes sure that nobody relies on there being one.
fn note(marks: &mut Option<Marks>, mark: Option<Uuid>) {
    if let (Some(kept), Some(mark)) = (marks.as_mut(), mark)
        && let Err(problem) = kept.note(mark)
        && let Some(kept) = marks.take()
    {
        kept.give_up(&problem);
    }
}

fn no_session() -> DeviceError {
    DeviceError::SessionLost("no session".to_owned())
}

fn only_match(keys: Vec<KeyDescription>, selector: &KeySelector) -> Result<KeyDescription, DeviceError> {
    let fits = |key: &KeyDescription| {
        selector.id.as_ref().is_none_or(|id| *id == key.id) && selector.label.as_ref().is_none_or(|label| *label == key.label)
    };
    let mut matching: Vec<KeyDescription> = keys.into_iter().filter(fits).collect();
    match (matching.pop(), matching.len()) {
        (Some(key), 0) => Ok(key),
        (None, _) => Err(DeviceError::KeyNotFound(selector.to_string())),
        (Some(_), others) => Err(DeviceError::KeyAmbiguous { selector: selector.to_string(), count: others + 1 }),
    }
}

/// The name of a slot's thread: at most 15 bytes are shown by the kernel, so the serial's end comes first.
pub(super) fn thread_name(token: &TokenIdentity) -> String {
    let tail = |text: &str, keep: usize| text.chars().skip(text.chars().count().saturating_sub(keep)).collect::<String>();
    format!("slot-{}", if token.serial.is_empty() { tail(&token.label, 10) } else { tail(&token.serial, 10) })
}
