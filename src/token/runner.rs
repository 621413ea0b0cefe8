//! Watches the slots of one loaded module and keeps one worker thread per token.
//!
//! Runs where the module is loaded: in the gateway or in the module's own process. Invariants: a token has at most one worker; a worker's
//! [`SlotRef`] is never used again; `shutdown` returns after every worker has answered its queue, closed its session and ended.

use std::{
    collections::{HashMap, HashSet},
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Select, Sender, TrySendError, bounded};
use serde::{Deserialize, Serialize};
use tracing::{error, warn};

use crate::domain::{
    ids::ModuleName,
    key_uri::Pkcs11Uri,
    pin::{LedgerInstance, PinLedger},
    token::{LoginMode, TokenIdentity},
};

use super::{
    driver::{DeviceError, TokenModule, TokenSighting},
    link::{CreateToken, Envelope, ModuleEvents, ModuleLink, NotTaken, Responder, SlotRef},
    quirks::{QuirkSettings, Quirks, quirks_of},
    slot::OUTSTANDING_MAX,
    watchdog::{CallLimits, Watchdog, WatchedModule},
    worker::{self, Worker, WorkerParts},
};

/// How often the module is asked which tokens are there.
const SCAN_EVERY: Duration = Duration::from_millis(500);

/// Why a module that sees no new tokens is started again.
pub(super) const TOKEN_MISSED: &str = "a token is missed, and this module sees new ones only when it is started";

/// How the tokens of a module are logged in: the first URI that matches counts.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct LoginModes {
    /// URI and mode, in the configuration's order.
    pub listed: Vec<(Pkcs11Uri, LoginMode)>,
    /// For tokens that none of them names; `None` leaves such tokens alone.
    pub unlisted: Option<LoginMode>,
}

impl LoginModes {
    fn of(&self, token: &TokenIdentity) -> Option<LoginMode> {
        self.listed.iter().find(|(uri, _)| uri.matches_token(token)).map(|(_, mode)| *mode).or(self.unlisted)
    }
}

/// What a runner needs.
pub struct RunnerParts {
    /// The module's name.
    pub name: ModuleName,
    /// The loaded module.
    pub module: Arc<dyn TokenModule>,
    /// How its tokens are logged in.
    pub modes: LoginModes,
    /// Where PIN tries are remembered.
    pub ledger: Arc<dyn PinLedger>,
    /// Names this run for the ledger.
    pub instance: LedgerInstance,
    /// Who is told what happens.
    pub events: Arc<dyn ModuleEvents>,
    /// After how long a call is taken for one that never returns.
    pub limits: CallLimits,
    /// What the configuration says of the module's ways.
    pub quirks: QuirkSettings,
    /// Tokens that should be there.
    pub expected: Expected,
    /// Where slots keep their marks; `None` for nowhere.
    pub marks: Option<PathBuf>,
}

/// Tokens that a module should have, for modules that see new ones only when they are started again.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Expected {
    /// What names them.
    pub tokens: Vec<Pkcs11Uri>,
    /// How long one may be missed before the module is started again.
    pub patience: Duration,
}

/// A module whose slots are being looked after. Dropping it without [`ModuleRunner::shutdown`] leaves its threads running.
pub struct ModuleRunner {
    shared: Arc<Shared>,
    module: Arc<dyn TokenModule>,
    watcher: Mutex<Option<JoinHandle<()>>>,
    stop: Sender<()>,
}

struct Shared {
    slots: Mutex<HashMap<SlotRef, Sender<Envelope>>>,
    stopping: Arc<AtomicBool>,
}

impl Shared {
    fn slots(&self) -> MutexGuard<'_, HashMap<SlotRef, Sender<Envelope>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ModuleRunner {
    /// Starts watching; tokens that are there are taken up at once.
    ///
    /// # Errors
    /// The system gave no thread.
    pub fn start(parts: RunnerParts) -> std::io::Result<Self> {
        let shared = Arc::new(Shared { slots: Mutex::default(), stopping: Arc::default() });
        let module = Arc::clone(&parts.module);
        let (stop, stopped) = bounded(0);
        let watchdog = Watchdog::start(parts.limits)?;
        let events = Arc::clone(&parts.events);
        let watch = watchdog.watch(Box::new(move |call| events.overdue(None, call)));
        let library = watch.call("C_GetInfo", parts.limits.other, || parts.module.library()).unwrap_or_default();
        let quirks = quirks_of(&library, &parts.quirks);
        let limits = CallLimits { sign: if quirks.waits_for_touch { parts.limits.person } else { parts.limits.sign }, ..parts.limits };
        let parts = RunnerParts { limits, ..parts };
        let watcher = Watcher {
            shared: Arc::clone(&shared),
            workers: HashMap::new(),
            twins: HashSet::new(),
            next: 0,
            watchdog,
            scanned: WatchedModule { module: Arc::clone(&parts.module), watch, limits },
            quirks,
            missed_since: None,
            parts,
        };
        let watcher = thread::Builder::new().name("slot-watch".to_owned()).spawn(move || watcher.run(&stopped))?;
        Ok(Self { shared, module, watcher: Mutex::new(Some(watcher)), stop })
    }

    /// Stops: every worker finishes the call that runs, answers what is queued, closes its session and ends. Blocks until then.
    pub fn shutdown(&self) {
        self.shared.stopping.store(true, Ordering::Release);
        let watcher = self.watcher.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(watcher) = watcher {
            // The watcher may have ended by itself; then there is nobody to tell.
            let _ = self.stop.send(());
            if watcher.join().is_err() {
                error!("the thread that watched the slots had panicked");
            }
        }
    }
}

impl ModuleLink for ModuleRunner {
    fn send(&self, slot: SlotRef, envelope: Envelope) -> Result<(), NotTaken> {
        match self.shared.slots().get(&slot) {
            Some(queue) => queue.try_send(envelope).map_err(|refused| match refused {
                TrySendError::Full(_) => NotTaken::Busy,
                TrySendError::Disconnected(_) => NotTaken::Gone,
            }),
            None => Err(NotTaken::Gone),
        }
    }

    fn create_token(&self, order: CreateToken, responder: Box<dyn Responder>) -> Result<(), NotTaken> {
        let module = Arc::clone(&self.module);
        let making = move || {
            let made = module.create_token(&order.label, &order.so_pin, &order.user_pin);
            responder.answer(made.map(|()| super::command::Reply::Done));
        };
        thread::Builder::new().name("create-token".to_owned()).spawn(making).map(|_| ()).map_err(|_| NotTaken::Busy)
    }
}

/// Who does a slot's work.
enum Hands {
    /// A thread of its own.
    Thread(JoinHandle<()>),
    /// The watcher's own thread, for a module that cannot take several.
    Here(Box<Worker>),
}

impl Hands {
    fn queue(&self) -> Option<&Receiver<Envelope>> {
        match self {
            Self::Thread(_) => None,
            Self::Here(worker) => Some(worker.queue()),
        }
    }
}

/// The thread behind a [`ModuleRunner`].
struct Watcher {
    parts: RunnerParts,
    shared: Arc<Shared>,
    workers: HashMap<TokenIdentity, (SlotRef, Hands)>,
    twins: HashSet<TokenIdentity>,
    next: u32,
    watchdog: Watchdog,
    scanned: WatchedModule,
    quirks: Quirks,
    missed_since: Option<Instant>,
}

impl Watcher {
    fn run(mut self, stopped: &Receiver<()>) {
        let mut complaint = None;
        self.scan(&mut complaint);
        self.parts.events.scanned();
        while self.pass_the_time(stopped) {
            self.look_after_tokens_here();
            self.scan(&mut complaint);
        }
        self.shared.slots().clear();
        for (token, (slot, hands)) in std::mem::take(&mut self.workers) {
            self.let_go(&token, slot, hands, None);
        }
    }

    /// Waits until it is time to scan again, doing the work of the slots that have no thread of their own; `false` when told to stop.
    fn pass_the_time(&mut self, stopped: &Receiver<()>) -> bool {
        let until = Instant::now() + SCAN_EVERY;
        loop {
            let here = self.tokens_here();
            let mut select = Select::new();
            select.recv(stopped);
            for queue in here.iter().filter_map(|token| self.workers.get(token)?.1.queue()) {
                select.recv(queue);
            }
            let Ok(ready) = select.ready_deadline(until) else { return true };
            let Some(token) = ready.checked_sub(1).map(|nth| here[nth].clone()) else { return false };
            self.turn_here(&token, |worker| worker.queue().try_recv().ok().and_then(|envelope| worker.serve(envelope)));
        }
    }

    /// The tokens whose slots have no thread of their own.
    fn tokens_here(&self) -> Vec<TokenIdentity> {
        self.workers.iter().filter(|(_, (_, hands))| hands.queue().is_some()).map(|(token, _)| token.clone()).collect()
    }

    fn look_after_tokens_here(&mut self) {
        for token in self.tokens_here() {
            self.turn_here(&token, Worker::look_after_token);
        }
    }

    /// Lets a worker without a thread do something, and lets it go if that ended it. A panic ends the worker, never the module.
    fn turn_here(&mut self, token: &TokenIdentity, turn: impl FnOnce(&mut Worker) -> Option<DeviceError>) {
        let Some((_, Hands::Here(worker))) = self.workers.get_mut(token) else { return };
        let panicked = || Some(DeviceError::Failed("the slot's work panicked".to_owned()));
        if let Some(end) = catch_unwind(AssertUnwindSafe(|| turn(worker))).unwrap_or_else(|_| panicked())
            && let Some((slot, hands)) = self.workers.remove(token)
        {
            self.let_go(token, slot, hands, Some(end));
        }
    }

    fn let_go(&self, token: &TokenIdentity, slot: SlotRef, hands: Hands, end: Option<DeviceError>) {
        self.shared.slots().remove(&slot);
        match hands {
            Hands::Thread(thread) => {
                if thread.join().is_err() {
                    error!(slot.token = %token, "the slot's thread had panicked");
                }
            }
            Hands::Here(worker) => self.parts.events.slot_down(slot, worker.close(end)),
        }
    }

    fn scan(&mut self, complaint: &mut Option<String>) {
        self.reap();
        match self.scanned.tokens() {
            Ok(seen) => {
                *complaint = None;
                self.take_up(seen);
                self.miss_tokens();
            }
            Err(error) => {
                let text = error.to_string();
                if complaint.as_ref() != Some(&text) {
                    warn!(module = %self.parts.name, error = %text, "module {} does not list its tokens", self.parts.name);
                    *complaint = Some(text);
                }
            }
        }
    }

    /// Joins the workers that ended, so that their tokens can be taken up again.
    fn reap(&mut self) {
        let has_ended = |hands: &Hands| matches!(hands, Hands::Thread(thread) if thread.is_finished());
        let ended: Vec<TokenIdentity> =
            self.workers.iter().filter(|(_, (_, hands))| has_ended(hands)).map(|(token, _)| token.clone()).collect();
        for token in ended {
            if let Some((slot, hands)) = self.workers.remove(&token) {
                self.let_go(&token, slot, hands, None);
            }
        }
    }

    fn take_up(&mut self, mut seen: Vec<TokenSighting>) {
        seen.sort_by_key(|sighting| sighting.slot);
        let mut met = HashSet::new();
        for sighting in seen {
            let Some(login) = self.parts.modes.of(&sighting.token) else { continue };
            if !met.insert(sighting.token.clone()) {
                if self.twins.insert(sighting.token.clone()) {
                    warn!(slot.token = %sighting.token, "two tokens cannot be told apart; only the one in the lower slot is used");
                }
                continue;
            }
            if !self.workers.contains_key(&sighting.token) {
                self.spawn(sighting, login);
            }
        }
    }

    /// Has the module started again if it sees new tokens by nothing else and one has been missed for long enough.
    ///
    /// Not while another of its tokens was unlocked by a person: that would have to be done again.
    fn miss_tokens(&mut self) {
        let missed = |uri: &Pkcs11Uri| !self.workers.keys().any(|token| uri.matches_token(token));
        let by_a_person = |token: &TokenIdentity| matches!(self.parts.modes.of(token), Some(LoginMode::Operator | LoginMode::Protected));
        let waits = !self.quirks.sees_new_tokens && self.parts.expected.tokens.iter().any(missed) && !self.workers.keys().any(by_a_person);
        if !waits {
            self.missed_since = None;
            return;
        }
        let since = *self.missed_since.get_or_insert_with(Instant::now);
        if since.elapsed() > self.parts.expected.patience {
            self.missed_since = None;
            self.parts.events.replace(TOKEN_MISSED.to_owned());
        }
    }

    fn watched_for(&self, slot: SlotRef) -> WatchedModule {
        let events = Arc::clone(&self.parts.events);
        let watch = self.watchdog.watch(Box::new(move |call| events.overdue(Some(slot), call)));
        WatchedModule { module: Arc::clone(&self.parts.module), watch, limits: self.parts.limits }
    }

    fn spawn(&mut self, sighting: TokenSighting, login: LoginMode) {
        let slot = SlotRef(self.next);
        self.next += 1;
        let (sender, queue) = bounded(OUTSTANDING_MAX);
        let token = sighting.token.clone();
        let events = Arc::clone(&self.parts.events);
        let parts = WorkerParts {
            slot,
            sighting,
            login,
            module: self.watched_for(slot),
            ledger: Arc::clone(&self.parts.ledger),
            instance: self.parts.instance,
            events: Arc::clone(&events),
            quirks: self.quirks,
            queue,
            stopping: Arc::clone(&self.shared.stopping),
            marks: self.parts.marks.clone(),
        };
        self.shared.slots().insert(slot, sender);
        events.slot_up(slot, token.clone(), login);
        if self.quirks.one_thread {
            return self.work_here(token, slot, parts);
        }
        let body = move || {
            // A panic ends this slot's thread, never the module's: the watcher starts another.
            let reason = catch_unwind(AssertUnwindSafe(|| worker::run(parts)));
            events.slot_down(slot, reason.unwrap_or_else(|_| "the slot's thread panicked".to_owned()));
        };
        match thread::Builder::new().name(worker::thread_name(&token)).spawn(body) {
            Ok(worker) => {
                self.workers.insert(token, (slot, Hands::Thread(worker)));
            }
            Err(error) => {
                self.shared.slots().remove(&slot);
                error!(error = %error, "no thread for a slot");
                self.parts.events.slot_down(slot, "the system gave no thread".to_owned());
            }
        }
    }

    /// Takes a slot up without a thread of its own.
    fn work_here(&mut self, token: TokenIdentity, slot: SlotRef, parts: WorkerParts) {
        match Worker::take_up(parts) {
            Ok((worker, None)) => {
                self.workers.insert(token, (slot, Hands::Here(Box::new(worker))));
            }
            Ok((worker, end)) => self.let_go(&token, slot, Hands::Here(Box::new(worker)), end),
            Err(error) => {
                self.shared.slots().remove(&slot);
                self.parts.events.slot_down(slot, error.to_string());
            }
        }
    }
}
