//! The async face of one token slot, the same whether the thread behind it runs here or in another process.
//!
//! A handle stands for the *token*: it stays when the token is pulled and reaches it again when it is back, in whatever slot. Invariant: at
//! most [`OUTSTANDING_MAX`] commands are outstanding; every one that was taken is answered, at the latest when the thread or process behind it ends.

use std::{
    fmt,
    sync::{
        Arc, Mutex, OnceLock, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Instant, SystemTime},
};

use tokio::sync::{oneshot, watch};

use crate::domain::token::{LoginMode, SlotReport, SlotState, SlotStatus, TokenFlags, TokenIdentity, TokenPolicy};

use super::{
    command::{Command, Reply},
    driver::DeviceError,
    link::{Envelope, ModuleLink, NotTaken, Responder, SlotRef},
    meter::TokenMeter,
};

/// The most commands to one token that were taken and are not answered. Jobs wait in the store; what is here has been handed to the token.
pub const OUTSTANDING_MAX: usize = 1024;

/// A cheap, cloneable handle to one token and the thread that owns it.
#[derive(Clone)]
pub struct SlotHandle(Arc<Shared>);

struct Shared {
    token: TokenIdentity,
    policy: TokenPolicy,
    live: RwLock<Option<Live>>,
    status: watch::Sender<SlotStatus>,
    flags: Mutex<TokenFlags>,
    outstanding: AtomicUsize,
    logging_in: AtomicBool,
    held: AtomicBool,
    /// Why a key of the token is used no more.
    quarantine: OnceLock<String>,
    epoch: AtomicU64,
    meter: TokenMeter,
}

struct Live {
    link: Arc<dyn ModuleLink>,
    slot: SlotRef,
}

/// Why a command brought no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SlotError {
    /// The token is not there; the status says why.
    #[error("the token cannot be used now: {0}")]
    Away(SlotStatus),
    /// Too many commands are outstanding.
    #[error("the token has too much to do")]
    Busy,
    /// The token, or the rules around it, said no.
    #[error("{0}")]
    Device(#[from] DeviceError),
}

/// A command that was taken and is not answered yet. Dropping it does not take it back.
#[derive(Debug)]
pub struct PendingReply {
    answer: oneshot::Receiver<Answered>,
    entered: Arc<OnceLock<Instant>>,
}

#[derive(Debug)]
struct Answered {
    answer: Result<Reply, DeviceError>,
    at: Instant,
}

/// When the token was at a signature.
#[derive(Debug, Clone, Copy)]
pub struct TokenTime {
    /// It entered the call that signs.
    pub entered: Instant,
    /// It answered, or ended.
    pub left: Instant,
}

impl PendingReply {
    /// Waits for the answer. Unbounded: whoever waits sets the bound.
    ///
    /// # Errors
    /// What the slot's thread answered, or [`DeviceError::ProcessEnded`] if it ended first.
    pub async fn wait(self) -> Result<Reply, DeviceError> {
        self.wait_timed().await.0
    }

    /// Waits as [`wait`](Self::wait) does; also says when the token was at it, `None` if it did not enter the call that signs.
    pub async fn wait_timed(self) -> (Result<Reply, DeviceError>, Option<TokenTime>) {
        let answered = self.answer.await;
        let entered = self.entered.get().copied();
        let Answered { answer, at } = answered
            .unwrap_or_else(|_| Answered { answer: Err(DeviceError::ProcessEnded { entered: entered.is_some() }), at: Instant::now() });
        (answer, entered.map(|entered| TokenTime { entered, left: at }))
    }
}

impl SlotHandle {
    pub(super) fn new(token: TokenIdentity, policy: TokenPolicy) -> Self {
        let status = watch::Sender::new(status_now(SlotState::Absent, "not seen yet"));
        let meter = TokenMeter::of(&token);
        meter.show(SlotState::Absent);
        Self(Arc::new(Shared {
            token,
            policy,
            live: RwLock::new(None),
            status,
            flags: Mutex::default(),
            outstanding: AtomicUsize::new(0),
            logging_in: AtomicBool::new(false),
            held: AtomicBool::new(false),
            quarantine: OnceLock::new(),
            epoch: AtomicU64::new(0),
            meter,
        }))
    }

    /// The token.
    #[must_use]
    pub fn token(&self) -> &TokenIdentity {
        &self.0.token
    }

    /// How the configuration wants the token treated.
    #[must_use]
    pub fn policy(&self) -> &TokenPolicy {
        &self.0.policy
    }

    /// The state now.
    #[must_use]
    pub fn status(&self) -> SlotStatus {
        let mut status = self.0.status.borrow().clone();
        if status.state == SlotState::Ready && self.outstanding() > 0 {
            status.state = SlotState::Busy;
        }
        status
    }

    /// Follows the state. [`SlotState::Busy`] is not among what is seen here: it changes with every signature.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<SlotStatus> {
        self.0.status.subscribe()
    }

    /// Commands that were taken and are not answered.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.0.outstanding.load(Ordering::Acquire)
    }

    /// Counts how often the token was taken up: what was read from it in an earlier epoch may not hold any more.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.0.epoch.load(Ordering::Acquire)
    }

    /// Whether an operator has locked the token and no configured PIN may open it.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.0.held.load(Ordering::Acquire)
    }

    /// Locks the token against logins from configuration, or lifts that.
    pub fn hold(&self, held: bool) {
        self.0.held.store(held, Ordering::Release);
    }

    /// From now on, whenever the token could sign, its state is [`SlotState::Quarantined`] for this reason: a key of it is used no more.
    pub fn quarantine(&self, reason: &str) {
        // Of several keys the first one is told of.
        if self.0.quarantine.set(reason.to_owned()).is_ok() {
            self.change_status(|_| ());
        }
    }

    /// Everything an operator is shown of the slot.
    #[must_use]
    pub fn report(&self) -> SlotReport {
        SlotReport {
            token: self.0.token.clone(),
            login: self.0.policy.login,
            status: self.status(),
            flags: *self.0.flags.lock().unwrap_or_else(PoisonError::into_inner),
            outstanding: self.outstanding(),
        }
    }

    /// How the slot is logged in.
    #[must_use]
    pub fn login_mode(&self) -> LoginMode {
        self.0.policy.login
    }

    /// Hands a command over; commands start in the order in which this is called. Does not block.
    ///
    /// # Errors
    /// [`SlotError::Away`] or [`SlotError::Busy`]: the command was not taken.
    pub fn start(&self, command: Command) -> Result<PendingReply, SlotError> {
        let place = Place::take(&self.0).ok_or(SlotError::Busy)?;
        let (sender, answer) = oneshot::channel();
        let entered = Arc::new(OnceLock::new());
        let responder = Box::new(OneAnswer { sender, entered: Arc::clone(&entered), place });
        let live = self.0.live.read().unwrap_or_else(PoisonError::into_inner);
        let Some(live) = live.as_ref() else { return Err(SlotError::Away(self.status())) };
        match live.link.send(live.slot, Envelope { command, responder }) {
            Ok(()) => Ok(PendingReply { answer, entered }),
            Err(NotTaken::Busy) => Err(SlotError::Busy),
            Err(NotTaken::Gone) => Err(SlotError::Away(status_now(SlotState::Recovering, "the token's thread has just ended"))),
        }
    }

    /// Hands a command over and waits for the answer.
    ///
    /// # Errors
    /// [`SlotError`].
    pub async fn call(&self, command: Command) -> Result<Reply, SlotError> {
        Ok(self.start(command)?.wait().await?)
    }

    pub(super) fn came_up(&self, link: Arc<dyn ModuleLink>, slot: SlotRef) {
        *self.0.live.write().unwrap_or_else(PoisonError::into_inner) = Some(Live { link, slot });
        self.0.epoch.fetch_add(1, Ordering::AcqRel);
        self.set_status(status_now(SlotState::Recovering, "opening a session"));
    }

    pub(super) fn went_down(&self, slot: SlotRef, reason: &str) {
        let mut live = self.0.live.write().unwrap_or_else(PoisonError::into_inner);
        // A later worker may have taken the token up already.
        if live.as_ref().is_some_and(|live| live.slot == slot) {
            *live = None;
            self.set_status(status_now(SlotState::Absent, reason));
        }
    }

    pub(super) fn set_flags(&self, flags: TokenFlags) {
        *self.0.flags.lock().unwrap_or_else(PoisonError::into_inner) = flags;
    }

    pub(super) fn set_status(&self, status: SlotStatus) {
        self.change_status(|now| *now = status);
    }

    fn change_status(&self, change: impl FnOnce(&mut SlotStatus)) {
        self.0.status.send_modify(|now| {
            change(now);
            if let (SlotState::Ready | SlotState::Present, Some(reason)) = (now.state, self.0.quarantine.get()) {
                *now = status_now(SlotState::Quarantined, reason);
            }
            // In here, so that the gauges come to rest where the status does.
            self.0.meter.show(now.state);
        });
    }

    pub(super) fn pin_rejected(&self) {
        self.0.meter.pin_rejected();
    }

    /// Whether the configuration has a PIN for it, and no operator has locked it.
    pub(super) fn logs_in_by_itself(&self) -> bool {
        self.login_mode() == LoginMode::Configured && self.0.policy.pin.is_some() && !self.is_held()
    }

    /// Claims the right to log in from configuration, so that it happens once at a time.
    pub(super) fn begin_configured_login(&self) -> bool {
        !self.0.logging_in.swap(true, Ordering::AcqRel)
    }

    pub(super) fn end_configured_login(&self) {
        self.0.logging_in.store(false, Ordering::Release);
    }
}

impl fmt::Debug for SlotHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SlotHandle").field(&self.0.token).finish()
    }
}

/// A status that begins now.
pub(crate) fn status_now(state: SlotState, reason: &str) -> SlotStatus {
    SlotStatus { state, reason: reason.to_owned(), since: SystemTime::now().into() }
}

/// One of the places among the outstanding commands.
struct Place(Arc<Shared>);

impl Place {
    fn take(shared: &Arc<Shared>) -> Option<Self> {
        let place = Self(Arc::clone(shared));
        // Counted before it is compared: of two that race for the last place at most one gets it.
        (shared.outstanding.fetch_add(1, Ordering::AcqRel) < OUTSTANDING_MAX).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.outstanding.fetch_sub(1, Ordering::AcqRel);
    }
}

struct OneAnswer {
    sender: oneshot::Sender<Answered>,
    entered: Arc<OnceLock<Instant>>,
    place: Place,
}

impl Responder for OneAnswer {
    fn entering(&self) {
        // A second try after a reopened session is the same signature.
        let _ = self.entered.set(Instant::now());
    }

    fn answer(self: Box<Self>, answer: Result<Reply, DeviceError>) {
        let Self { sender, place, .. } = *self;
        // First the place: whoever has the answer must not find the slot still busy with it.
        drop(place);
        // Nobody waits any more if the asker was dropped; the token's state is the same either way.
        let _ = sender.send(Answered { answer, at: Instant::now() });
    }
}
