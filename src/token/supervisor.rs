//! Starts every configured module, keeps it running, and knows every token that was seen.
//!
//! [`Tokens`] is what the rest of the gateway holds. A module whose process ends, or that cannot be loaded, is started again with growing
//! pauses; its tokens keep their handles. Invariants: one handle per token identity, for ever; a configured PIN is read and sent only when a
//! slot says that it needs one, once at a time.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, Weak,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime},
};

use crossbeam_channel::{Receiver, Sender, bounded, select};
use tokio::{
    runtime::Handle,
    sync::{oneshot, watch},
};
use tracing::{debug, error, info, warn};

use crate::domain::{
    fence::Fence,
    ids::ModuleName,
    key_uri::Pkcs11Uri,
    pin::{LedgerInstance, LedgerKey, Pin, PinLedger, PinOrigin},
    token::{LoginMode, PinSource, SlotState, SlotStatus, TokenFlags, TokenIdentity, TokenPolicy},
};

use super::{
    command::{Command, Reply},
    driver::{DeviceError, TokenModule},
    host::{
        frame::StartModule,
        parent::{self, ChildEnd, ChildSettings, Nudge},
    },
    link::{CreateToken, ModuleEvents, ModuleLink, Responder, SlotRef},
    meter::{MeteredLedger, ModuleMeter},
    pin_source,
    pkcs11::{ModuleOptions, Pkcs11Module},
    runner::{Expected, LoginModes, ModuleRunner, RunnerParts, TOKEN_MISSED},
    slot::{SlotHandle, status_now},
    watchdog::CallLimits,
};

/// Why a slot does not sign while its configured login is under way.
const LOGGING_IN: &str = "logging in";
/// The first pause before a module that ended is started again; it doubles each time.
const RESTART_FIRST: Duration = Duration::from_millis(100);
/// The longest such pause.
const RESTART_MAX: Duration = Duration::from_secs(10);
/// How long a token is missed at first before a module that sees no new tokens is started again; it doubles each time in vain.
const PATIENCE_FIRST: Duration = Duration::from_secs(1);
/// The longest such time: how long an operator waits at most after plugging a token in.
const PATIENCE_MAX: Duration = Duration::from_secs(30);
/// The most nudges that wait for a module's thread; one is enough to end it.
const NUDGES_MAX: usize = 4;
/// A module that ran for so long starts again after the first pause.
const RAN_WELL: Duration = Duration::from_secs(3);

/// What the gateway is told of its modules and tokens.
pub struct TokenSettings {
    /// The modules.
    pub modules: Vec<ModuleSettings>,
    /// How tokens are treated; the first whose URI matches counts.
    pub policies: Vec<TokenPolicy>,
    /// How tokens are treated that no policy names; `None` leaves them alone.
    pub unlisted: Option<TokenPolicy>,
    /// The program that hosts modules: `sealgate` itself.
    pub host_program: PathBuf,
    /// Where slots keep their marks; `None` for nowhere, where no job outlives the gateway.
    pub marks: Option<PathBuf>,
}

/// One module.
pub struct ModuleSettings {
    /// Its name, and how it is initialised.
    pub options: ModuleOptions,
    /// Where it is.
    pub source: ModuleSource,
    /// Where its slot threads run.
    pub isolation: Isolation,
    /// After how long a call into it is taken for one that never returns.
    pub limits: CallLimits,
}

/// Where a module comes from.
pub enum ModuleSource {
    /// A library file.
    Library(PathBuf),
    /// An object of this process; for drivers that are no libraries. Runs in thread isolation only.
    Loaded(Arc<dyn TokenModule>),
}

/// Where a module's slot threads run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Isolation {
    /// In a process of its own, with these variables in its environment.
    Process(BTreeMap<String, String>),
    /// The same, inside a fence.
    Fenced {
        /// The variables.
        environment: BTreeMap<String, String>,
        /// What the process is denied.
        fence: Fence,
    },
    /// In the gateway's process.
    Thread,
}

impl Isolation {
    /// The environment of the module's process, if it has one of its own.
    pub fn environment_mut(&mut self) -> Option<&mut BTreeMap<String, String>> {
        match self {
            Self::Process(environment) | Self::Fenced { environment, .. } => Some(environment),
            Self::Thread => None,
        }
    }
}

/// Every token that was seen since the start, and the modules that drive them. Cheap to clone.
#[derive(Clone)]
pub struct Tokens(Arc<Inner>);

/// Why no token was found for a URI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FindError {
    /// None matches.
    #[error("no token matches")]
    None,
    /// More than one matches.
    #[error("{0} tokens match")]
    Ambiguous(usize),
}

struct Inner {
    policies: Vec<TokenPolicy>,
    unlisted: Option<TokenPolicy>,
    host_program: PathBuf,
    marks: Option<PathBuf>,
    ledger: Arc<dyn PinLedger>,
    runtime: Handle,
    slots: Arc<RwLock<Vec<SlotHandle>>>,
    links: Mutex<HashMap<ModuleName, Arc<dyn ModuleLink>>>,
    /// How the present run of each module is told to end.
    nudges: Mutex<HashMap<ModuleName, Sender<Nudge>>>,
    heard_of: watch::Sender<HashSet<ModuleName>>,
    problems: Mutex<BTreeMap<ModuleName, String>>,
    changes: watch::Sender<u64>,
    instances: AtomicU64,
    running: Mutex<Vec<RunningModule>>,
}

struct RunningModule {
    name: ModuleName,
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl Tokens {
    /// Starts every module, each on a thread of its own, and returns at once. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// The system gave no thread.
    pub fn start(settings: TokenSettings, ledger: Arc<dyn PinLedger>) -> std::io::Result<Self> {
        let first_instance = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_micros();
        let slots = Arc::<RwLock<Vec<SlotHandle>>>::default();
        let ledger = Arc::new(MeteredLedger { ledger, rejected: count_rejection(Arc::clone(&slots)) });
        let inner = Arc::new(Inner {
            policies: settings.policies,
            unlisted: settings.unlisted,
            host_program: settings.host_program,
            marks: settings.marks,
            ledger,
            runtime: Handle::current(),
            slots,
            links: Mutex::default(),
            nudges: Mutex::default(),
            heard_of: watch::Sender::default(),
            problems: Mutex::default(),
            changes: watch::Sender::default(),
            instances: AtomicU64::new(u64::try_from(first_instance).unwrap_or_default()),
            running: Mutex::default(),
        });
        let mut running = Vec::new();
        for module in settings.modules {
            let name = module.options.name.clone();
            let (stop, stopped) = bounded(1);
            let keeper = Keeper { inner: Arc::clone(&inner), module };
            let thread = thread::Builder::new().name(format!("module-{name}")).spawn(move || keeper.run(&stopped))?;
            running.push(RunningModule { name, stop, thread });
        }
        *lock(&inner.running) = running;
        Ok(Self(inner))
    }

    /// Every token that was seen, present or not.
    #[must_use]
    pub fn slots(&self) -> Vec<SlotHandle> {
        self.0.slots.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The one token that `uri` names. Tokens that are absent count only if no present one matches.
    ///
    /// # Errors
    /// [`FindError`].
    pub fn find(&self, uri: &Pkcs11Uri) -> Result<SlotHandle, FindError> {
        let matching: Vec<SlotHandle> = self.slots().into_iter().filter(|slot| uri.matches_token(slot.token())).collect();
        let (absent, present): (Vec<_>, Vec<_>) = matching.into_iter().partition(|slot| slot.status().state == SlotState::Absent);
        let candidates = if present.is_empty() { absent } else { present };
        match candidates.as_slice() {
            [] => Err(FindError::None),
            [slot] => Ok(slot.clone()),
            several => Err(FindError::Ambiguous(several.len())),
        }
    }

    /// Counts changes: a token that was never seen before, or another state of one that was.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// Modules that do not run now, and why.
    #[must_use]
    pub fn problems(&self) -> BTreeMap<ModuleName, String> {
        lock(&self.0.problems).clone()
    }

    /// Waits until every module has listed its tokens once or failed to start, at most `bound`.
    pub async fn settled(&self, bound: Duration) {
        let expected = lock(&self.0.running).len();
        let mut heard_of = self.0.heard_of.subscribe();
        // Past the bound the slow module's tokens come when they come.
        let _ = tokio::time::timeout(bound, heard_of.wait_for(|heard_of| heard_of.len() >= expected)).await;
    }

    /// Makes a token in a free slot of `module`. Restart the gateway's modules to see it under its final slot number.
    ///
    /// # Errors
    /// What the module said; [`DeviceError::TokenGone`] if it does not run.
    pub async fn create_token(&self, module: &ModuleName, label: &str, so_pin: Pin, user_pin: Pin) -> Result<(), DeviceError> {
        let link = lock(&self.0.links).get(module).cloned();
        let link = link.ok_or_else(|| DeviceError::TokenGone(format!("module {module} does not run")))?;
        let (sender, answer) = oneshot::channel();
        let order = CreateToken { label: label.to_owned(), so_pin, user_pin };
        link.create_token(order, Box::new(PlainAnswer(sender)))
            .map_err(|_| DeviceError::TokenGone(format!("module {module} has just ended")))?;
        answer.await.unwrap_or(Err(DeviceError::ProcessEnded { entered: false })).map(|_| ())
    }

    /// Has a module started again, for this reason; `false` if it has not heard of the last order yet, or does not run.
    ///
    /// What it is signing ends as for any other end of a module. One in thread isolation that has a wedged slot cannot be started again.
    #[must_use]
    pub fn restart(&self, module: &ModuleName, reason: &str) -> bool {
        let nudge = lock(&self.0.nudges).get(module).cloned();
        nudge.is_some_and(|nudge| nudge.try_send(Nudge::Replace(reason.to_owned())).is_ok())
    }

    /// Forgets which PINs the token has rejected.
    pub fn forget_rejections(&self, token: &TokenIdentity) {
        self.0.ledger.forget(&LedgerKey::of(token));
    }

    /// Stops every module: the call that runs is finished, what is queued is answered, sessions are closed, children end.
    ///
    /// Bounded by the time a child is given; a module in thread isolation that never returns is left behind.
    pub async fn stop(&self) {
        let running = std::mem::take(&mut *lock(&self.0.running));
        for module in &running {
            // A keeper that has ended needs no telling.
            let _ = module.stop.try_send(());
        }
        let joined = tokio::task::spawn_blocking(move || {
            for RunningModule { name, thread, .. } in running {
                if thread.join().is_err() {
                    error!(module = %name, "the thread of module {name} had panicked");
                }
            }
        });
        if tokio::time::timeout(STOP_BOUND, joined).await.is_err() {
            warn!("a module does not return; it is left behind");
        }
    }
}

/// How long [`Tokens::stop`] waits for a module in thread isolation (a child is killed before that).
const STOP_BOUND: Duration = Duration::from_secs(8);

/// Finds the token that has rejected a PIN and counts that.
fn count_rejection(slots: Arc<RwLock<Vec<SlotHandle>>>) -> impl Fn(&LedgerKey) {
    move |token| {
        let slots = slots.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.iter().find(|slot| LedgerKey::of(slot.token()) == *token) {
            slot.pin_rejected();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct PlainAnswer(oneshot::Sender<Result<Reply, DeviceError>>);

impl Responder for PlainAnswer {
    fn entering(&self) {}

    fn answer(self: Box<Self>, answer: Result<Reply, DeviceError>) {
        // Nobody waits any more if the asker was dropped.
        let _ = self.0.send(answer);
    }
}

/// Keeps one module running: the body of its thread.
struct Keeper {
    inner: Arc<Inner>,
    module: ModuleSettings,
}

impl Keeper {
    fn run(self, stop: &Receiver<()>) {
        let name = &self.module.options.name;
        let mut pause = RESTART_FIRST;
        let mut patience = PATIENCE_FIRST;
        let meter = ModuleMeter::of(name);
        loop {
            let began = Instant::now();
            let expected = Expected { tokens: self.inner.expected_of(name), patience };
            let ended = match &self.module.isolation {
                Isolation::Process(environment) => self.run_child(environment, &Fence::default(), expected, stop),
                Isolation::Fenced { environment, fence } => self.run_child(environment, fence, expected, stop),
                Isolation::Thread => self.run_here(expected, stop),
            };
            lock(&self.inner.links).remove(name);
            let problem = match ended {
                Ok(ChildEnd::Stopped) => break,
                Ok(ChildEnd::Died(reason)) => reason,
                Err(error) => error.to_string(),
            };
            let only_to_look = problem == TOKEN_MISSED;
            if only_to_look {
                patience = (patience * 2).min(PATIENCE_MAX);
                pause = RESTART_FIRST;
                debug!(module = %name, "module {name} is started again: {problem}");
            } else {
                patience = PATIENCE_FIRST;
                self.inner.note_problem(name, problem);
            }
            if began.elapsed() > RAN_WELL {
                pause = RESTART_FIRST;
            }
            if stop.recv_timeout(pause).is_ok() {
                break;
            }
            pause = (pause * 2).min(RESTART_MAX);
            meter.restarts(only_to_look);
        }
        info!(module = %name, "module {name} stopped");
    }

    fn run_child(
        &self,
        environment: &BTreeMap<String, String>,
        fence: &Fence,
        expected: Expected,
        stop: &Receiver<()>,
    ) -> std::io::Result<ChildEnd> {
        let ModuleSource::Library(path) = &self.module.source else { return self.run_here(expected, stop) };
        let start = StartModule {
            path: path.clone(),
            fence: fence.clone(),
            options: self.module.options.clone(),
            modes: self.inner.login_modes(),
            instance: self.inner.next_instance(),
            limits: self.module.limits,
            expected,
            marks: self.inner.marks.clone(),
        };
        let settings = ChildSettings { program: self.inner.host_program.clone(), environment: environment.clone(), start };
        let (hub, nudges) = self.hub();
        let bind = |link: Arc<dyn ModuleLink>| hub.bind(link);
        parent::run(settings, Arc::clone(&hub) as Arc<dyn ModuleEvents>, Arc::clone(&self.inner.ledger), bind, stop, &nudges)
    }

    fn run_here(&self, expected: Expected, stop: &Receiver<()>) -> std::io::Result<ChildEnd> {
        let module: Arc<dyn TokenModule> = match &self.module.source {
            ModuleSource::Loaded(module) => Arc::clone(module),
            ModuleSource::Library(path) => match Pkcs11Module::load(path, self.module.options.clone()) {
                Ok(module) => Arc::new(module),
                Err(error) => return Ok(ChildEnd::Died(error.to_string())),
            },
        };
        let (hub, nudges) = self.hub();
        let runner = Arc::new(ModuleRunner::start(RunnerParts {
            name: self.module.options.name.clone(),
            module,
            modes: self.inner.login_modes(),
            ledger: Arc::clone(&self.inner.ledger),
            instance: self.inner.next_instance(),
            events: Arc::clone(&hub) as Arc<dyn ModuleEvents>,
            limits: self.module.limits,
            quirks: self.module.options.quirks,
            expected,
            marks: self.inner.marks.clone(),
        })?);
        hub.bind(Arc::clone(&runner) as Arc<dyn ModuleLink>);
        let ended = loop {
            select! {
                // Both an order to stop and the gateway's own end mean the same.
                recv(stop) -> _ => break ChildEnd::Stopped,
                recv(nudges) -> nudge => match nudge {
                    Ok(Nudge::Replace(reason)) if !hub.any_wedged() => break ChildEnd::Died(reason),
                    // A thread cannot be killed; the slot is marked as wedged and the other modules go on.
                    Ok(_) => {}
                    Err(_) => break ChildEnd::Stopped,
                },
            }
        };
        runner.shutdown();
        Ok(ended)
    }

    fn hub(&self) -> (Arc<EventHub>, Receiver<Nudge>) {
        let (nudge, nudges) = bounded(NUDGES_MAX);
        lock(&self.inner.nudges).insert(self.module.options.name.clone(), nudge.clone());
        let hub = EventHub {
            inner: Arc::clone(&self.inner),
            module: self.module.options.name.clone(),
            link: OnceLock::new(),
            slots: Mutex::default(),
            nudge,
        };
        (Arc::new(hub), nudges)
    }
}

impl Inner {
    fn next_instance(&self) -> LedgerInstance {
        LedgerInstance(self.instances.fetch_add(1, Ordering::Relaxed))
    }

    fn login_modes(&self) -> LoginModes {
        LoginModes {
            listed: self.policies.iter().map(|policy| (policy.uri.clone(), policy.login)).collect(),
            unlisted: self.unlisted.as_ref().map(|policy| policy.login),
        }
    }

    /// The configured tokens that no other module has: this one may.
    fn expected_of(&self, module: &ModuleName) -> Vec<Pkcs11Uri> {
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        let elsewhere = |uri: &Pkcs11Uri| {
            slots.iter().any(|slot| slot.token().module != *module && uri.matches_token(slot.token()))
                || uri.module_name.as_deref().is_some_and(|name| name != module.as_str())
        };
        let names_something = |uri: &&Pkcs11Uri| **uri != Pkcs11Uri::default();
        self.policies.iter().map(|policy| &policy.uri).filter(names_something).filter(|uri| !elsewhere(uri)).cloned().collect()
    }

    fn note_problem(&self, module: &ModuleName, problem: String) {
        warn!(module = %module, error = %problem, "module {module} does not run and is started again: {problem}");
        lock(&self.problems).insert(module.clone(), problem);
        self.heard(module);
    }

    fn heard(&self, module: &ModuleName) {
        self.heard_of.send_if_modified(|heard_of| heard_of.insert(module.clone()));
    }

    fn changed(&self) {
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// The handle of a token, made when it is seen for the first time; `None` if the configuration leaves it alone.
    fn handle_of(&self, token: &TokenIdentity) -> Option<SlotHandle> {
        let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = slots.iter().find(|slot| slot.token() == token) {
            return Some(known.clone());
        }
        let policy = self.policies.iter().find(|policy| policy.uri.matches_token(token)).or(self.unlisted.as_ref())?;
        let handle = SlotHandle::new(token.clone(), policy.clone());
        slots.push(handle.clone());
        Some(handle)
    }

    /// Has a slot that says that it needs a PIN logged in with the configured one.
    fn log_in(self: &Arc<Self>, slot: SlotHandle) {
        let Some(source) = slot.policy().pin.clone() else { return };
        if !slot.begin_configured_login() {
            return;
        }
        let inner = Arc::clone(self);
        self.runtime.spawn(async move {
            loop {
                let epoch = slot.epoch();
                let outcome = configured_login(&slot, source.clone()).await;
                slot.end_configured_login();
                let Err(problem) = outcome else { return };
                error!(slot.token = %slot.token(), error = %problem, "the configured login failed: {problem}");
                if !is_logging_in(&slot) {
                    return;
                }
                // The token was taken up anew meanwhile, and its own login found this one under way.
                if slot.epoch() != epoch && slot.begin_configured_login() {
                    continue;
                }
                slot.set_status(status_now(SlotState::NeedsPin, &problem));
                return inner.changed();
            }
        });
    }
}

/// Reads the configured PIN and logs in with it.
///
/// # Errors
/// Why that did not work, in words.
async fn configured_login(slot: &SlotHandle, source: PinSource) -> Result<(), String> {
    let pin = tokio::task::spawn_blocking(move || pin_source::read(&source)).await.map_err(|error| error.to_string())?;
    let pin = pin.map_err(|error| error.to_string())?;
    let login = Command::Login { pin: Some(pin), origin: PinOrigin::Configured };
    slot.call(login).await.map(drop).map_err(|error| error.to_string())
}

/// Whether the last that was said of a slot is that its configured login is under way.
fn is_logging_in(slot: &SlotHandle) -> bool {
    let status = slot.status();
    status.state == SlotState::Recovering && status.reason == LOGGING_IN
}

/// Hears one run of one module and passes on what matters to the handles.
struct EventHub {
    inner: Arc<Inner>,
    module: ModuleName,
    link: OnceLock<Weak<dyn ModuleLink>>,
    slots: Mutex<HashMap<SlotRef, SlotHandle>>,
    nudge: Sender<Nudge>,
}

impl EventHub {
    fn bind(&self, link: Arc<dyn ModuleLink>) {
        lock(&self.inner.links).insert(self.module.clone(), Arc::clone(&link));
        // Set once: a hub belongs to one run.
        let _ = self.link.set(Arc::downgrade(&link));
    }

    fn slot(&self, slot: SlotRef) -> Option<SlotHandle> {
        lock(&self.slots).get(&slot).cloned()
    }

    fn any_wedged(&self) -> bool {
        lock(&self.slots).values().any(|slot| slot.status().state == SlotState::Wedged)
    }
}

impl ModuleEvents for EventHub {
    fn slot_up(&self, slot: SlotRef, token: TokenIdentity, _login: LoginMode) {
        // The first event may come before the run is bound.
        let Some(link) = self.link.wait().upgrade() else { return };
        let Some(handle) = self.inner.handle_of(&token) else { return };
        lock(&self.slots).insert(slot, handle.clone());
        handle.came_up(link, slot);
        self.inner.changed();
    }

    fn status(&self, slot: SlotRef, status: SlotStatus, flags: TokenFlags) {
        let Some(handle) = self.slot(slot) else { return };
        info!(slot.token = %handle.token(), slot.state = %status.state, "token {}: {status}", handle.token().label);
        // Nobody is needed before the configured PIN was tried.
        let logs_in = status.state == SlotState::NeedsPin && handle.logs_in_by_itself();
        handle.set_flags(flags);
        handle.set_status(if logs_in { status_now(SlotState::Recovering, LOGGING_IN) } else { status });
        self.inner.changed();
        if logs_in {
            self.inner.log_in(handle);
        }
    }

    fn flags(&self, slot: SlotRef, flags: TokenFlags) {
        let Some(handle) = self.slot(slot) else { return };
        handle.set_flags(flags);
        self.inner.changed();
    }

    fn slot_down(&self, slot: SlotRef, reason: String) {
        let Some(handle) = lock(&self.slots).remove(&slot) else { return };
        handle.went_down(slot, &reason);
        self.inner.changed();
    }

    fn scanned(&self) {
        lock(&self.inner.problems).remove(&self.module);
        self.inner.heard(&self.module);
    }

    fn overdue(&self, slot: Option<SlotRef>, call: String) {
        error!(module = %self.module, "module {}: {call}", self.module);
        if let Some(handle) = slot.and_then(|slot| self.slot(slot)) {
            handle.set_status(status_now(SlotState::Wedged, &call));
            self.inner.changed();
        }
        // A queue that is full holds an earlier nudge, which does the same.
        let _ = self.nudge.try_send(Nudge::Kill(call));
    }

    fn replace(&self, reason: String) {
        let _ = self.nudge.try_send(Nudge::Replace(reason));
    }
}
