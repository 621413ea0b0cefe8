//! The parent's side: starts a module's process, passes commands and answers, and notices its end.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    os::{
        fd::OwnedFd,
        unix::{net::UnixStream, process::CommandExt as _},
    },
    path::PathBuf,
    process::{Child, Command as Program, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded, select};
use tracing::{error, info, warn};
use zeroize::Zeroizing;

use crate::domain::{
    ids::ModuleName,
    pin::{LedgerRefusal, LoginAttempt, PinLedger},
};

use super::{
    super::{
        driver::DeviceError,
        link::{CreateToken, Envelope, ModuleEvents, ModuleLink, NotTaken, Responder, SlotRef},
    },
    frame::{self, FrameError, LedgerAttempt, LedgerQuestion, StartModule, ToChild, ToParent},
};

/// How long a child may take to finish the call that runs when it is told to stop.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// How long a child may take to load its module: `C_Initialize` with slow card readers has been seen to take 19 s.
const START_LIMIT: Duration = Duration::from_secs(90);

/// How often a child that says nothing is asked for a sign of life, and how long it may take to give one.
const PING: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(10));

/// The most frames that wait to be written to a child that does not read.
const FRAMES_MAX: usize = 4096;

/// Variables of the gateway's own environment that a module's process inherits; everything else it gets from its configuration.
const INHERITED: [&str; 13] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "LANG",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "XDG_RUNTIME_DIR",
    "LD_LIBRARY_PATH",
    "SEALGATE_LOG",
    "SEALGATE_LOG_FORMAT",
    "RUST_BACKTRACE",
];

/// What a module's process is started from.
pub struct ChildSettings {
    /// The program: `sealgate` itself.
    pub program: PathBuf,
    /// Variables set for this module.
    pub environment: BTreeMap<String, String>,
    /// What it is to load.
    pub start: StartModule,
}

/// What may be asked of a module's process while it runs, by whoever hears its events.
#[derive(Debug)]
pub enum Nudge {
    /// A call does not return: end it at once.
    Kill(String),
    /// It must be started again: let what runs finish first.
    Replace(String),
}

/// How a module's process ended.
#[derive(Debug, PartialEq, Eq)]
pub enum ChildEnd {
    /// As it was told.
    Stopped,
    /// By itself, for this reason.
    Died(String),
}

/// Runs a module's process until it ends or `stop` says so. Blocks. `bind` is given the way to the module's slots before any event comes.
///
/// # Errors
/// The process could not be started.
pub fn run(
    settings: ChildSettings,
    events: Arc<dyn ModuleEvents>,
    ledger: Arc<dyn PinLedger>,
    bind: impl FnOnce(Arc<dyn ModuleLink>),
    stop: &Receiver<()>,
    nudges: &Receiver<Nudge>,
) -> io::Result<ChildEnd> {
    let name = settings.start.options.name.clone();
    let (ours, theirs) = UnixStream::pair()?;
    let mut child = spawn(&settings, theirs)?;
    info!(module = %name, pid = child.id(), "module {name} has process {}", child.id());
    let (frames, to_write) = bounded(FRAMES_MAX);
    let connection = Arc::new(Connection { calls: Mutex::default(), next: AtomicU64::new(0), frames });
    bind(Arc::clone(&connection) as Arc<dyn ModuleLink>);
    connection.push(&ToChild::Start(Box::new(settings.start)));
    let writer = spawn_writer(&name, ours.try_clone()?, to_write)?;
    let (ended, end) = bounded(1);
    let life = Arc::new(Life::default());
    let reader = Reader { connection: Arc::clone(&connection), events, ledger, name: name.clone(), life: Arc::clone(&life) };
    let reader = thread::Builder::new().name(format!("from-{name}")).spawn(move || {
        let reason = reader.run(ours);
        let _ = ended.send(reason);
    })?;
    let outcome = watch_over(&connection, &life, &end, stop, nudges);
    if let ChildEnd::Died(reason) = &outcome {
        kill(&mut child);
        warn!(module = %name, "the process of module {name} ends: {reason}");
    } else {
        wait_or_kill(&mut child);
    }
    let status = child.wait()?;
    let outcome = match outcome {
        ChildEnd::Died(reason) if reason.is_empty() => ChildEnd::Died(status.to_string()),
        other => other,
    };
    connection.fail_all();
    for thread in [writer, reader] {
        if thread.join().is_err() {
            error!(module = %name, "a thread of module {name} had panicked");
        }
    }
    Ok(outcome)
}

/// Waits until the child has ended or must end.
fn watch_over(connection: &Connection, life: &Life, end: &Receiver<String>, stop: &Receiver<()>, nudges: &Receiver<Nudge>) -> ChildEnd {
    let ask_to_stop = || {
        connection.push(&ToChild::Stop);
        // A child that does not stop in time is killed.
        let _ = end.recv_timeout(STOP_GRACE);
    };
    loop {
        select! {
            recv(end) -> reason => return ChildEnd::Died(reason.unwrap_or_default()),
            recv(stop) -> _ => {
                ask_to_stop();
                return ChildEnd::Stopped;
            }
            recv(nudges) -> nudge => match nudge {
                Ok(Nudge::Kill(reason)) => return ChildEnd::Died(reason),
                Ok(Nudge::Replace(reason)) => {
                    ask_to_stop();
                    return ChildEnd::Died(reason);
                }
                Err(_) => return ChildEnd::Stopped,
            },
            default(PING.0) => match life.silence() {
                Silence::Starting(so_far) if so_far > START_LIMIT => return ChildEnd::Died("the module does not finish loading".to_owned()),
                Silence::Running(so_far) if so_far > PING.1 => return ChildEnd::Died("the module's process does not answer".to_owned()),
                Silence::Starting(_) => {}
                Silence::Running(_) => connection.push(&ToChild::Ping),
            },
        }
    }
}

/// When the child was heard last.
struct Life {
    began: Instant,
    /// Milliseconds after `began`; zero until the module is loaded.
    heard: AtomicU64,
}

/// How long nothing was heard.
enum Silence {
    /// Since it was started; it is still loading its module.
    Starting(Duration),
    /// Since its last frame.
    Running(Duration),
}

impl Default for Life {
    fn default() -> Self {
        Self { began: Instant::now(), heard: AtomicU64::new(0) }
    }
}

impl Life {
    fn note(&self) {
        let so_far = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.heard.store(so_far.max(1), Ordering::Relaxed);
    }

    fn silence(&self) -> Silence {
        match self.heard.load(Ordering::Relaxed) {
            0 => Silence::Starting(self.began.elapsed()),
            heard => Silence::Running(self.began.elapsed().saturating_sub(Duration::from_millis(heard))),
        }
    }
}

fn spawn(settings: &ChildSettings, socket: UnixStream) -> io::Result<Child> {
    let inherited = INHERITED.iter().filter_map(|name| std::env::var_os(name).map(|value| (name, value)));
    Program::new(&settings.program)
        .arg("module-host")
        // Read by nobody but people who look at the list of processes.
        .arg(settings.start.options.name.as_str())
        .env_clear()
        .envs(inherited)
        .envs(&settings.environment)
        .stdin(Stdio::from(OwnedFd::from(socket)))
        .stdout(Stdio::null())
        // Ctrl-C at a terminal is for the gateway, which stops its modules in order; a child that dies of it takes its signature along.
        .process_group(0)
        .spawn()
}

/// A child that was told to stop has closed the socket last of all; it is gone in a moment.
fn wait_or_kill(child: &mut Child) {
    for _ in 0..100 {
        if matches!(child.try_wait(), Ok(Some(_))) {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    kill(child);
}

fn kill(child: &mut Child) {
    // It may have ended by itself, which is as good.
    let _ = child.kill();
}

fn spawn_writer(name: &ModuleName, mut socket: UnixStream, frames: Receiver<Zeroizing<Vec<u8>>>) -> io::Result<thread::JoinHandle<()>> {
    thread::Builder::new().name(format!("to-{name}")).spawn(move || {
        use std::io::Write;
        for frame in frames {
            // An empty frame ends the writing; a failed write means that the reader is about to notice the child's end.
            if frame.is_empty() || socket.write_all(&frame).is_err() {
                break;
            }
        }
    })
}

/// One child's commands and answers.
struct Connection {
    calls: Mutex<Calls>,
    next: AtomicU64,
    frames: Sender<Zeroizing<Vec<u8>>>,
}

#[derive(Default)]
struct Calls {
    closed: bool,
    pending: HashMap<u64, PendingCall>,
}

struct PendingCall {
    responder: Box<dyn Responder>,
    entered: bool,
}

impl Connection {
    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a frame that is not a call; a queue that is full belongs to a child that is about to be killed.
    fn push(&self, frame: &ToChild) {
        match frame::encode(frame) {
            Ok(frame) => drop(self.frames.try_send(frame)),
            Err(error) => error!(error = %error, "a frame could not be made"),
        }
    }

    fn call(&self, responder: Box<dyn Responder>, frame: impl FnOnce(u64) -> ToChild) -> Result<(), NotTaken> {
        let call = self.next.fetch_add(1, Ordering::Relaxed);
        let frame = match frame::encode(&frame(call)) {
            Ok(frame) => frame,
            Err(error) => {
                responder.answer(Err(DeviceError::Refused(error.to_string())));
                return Ok(());
            }
        };
        let mut calls = self.calls();
        if calls.closed {
            return Err(NotTaken::Gone);
        }
        // Under the lock, so that frames are written in the order in which calls were made.
        match self.frames.try_send(frame) {
            Ok(()) => {
                calls.pending.insert(call, PendingCall { responder, entered: false });
                Ok(())
            }
            Err(TrySendError::Full(_)) => Err(NotTaken::Busy),
            Err(TrySendError::Disconnected(_)) => Err(NotTaken::Gone),
        }
    }

    /// The child is gone: every call that is outstanding ends, and no other is taken.
    fn fail_all(&self) {
        let pending = {
            let mut calls = self.calls();
            calls.closed = true;
            std::mem::take(&mut calls.pending)
        };
        for PendingCall { responder, entered } in pending.into_values() {
            responder.answer(Err(DeviceError::ProcessEnded { entered }));
        }
        let _ = self.frames.try_send(Zeroizing::default());
    }
}

impl ModuleLink for Connection {
    fn send(&self, slot: SlotRef, envelope: Envelope) -> Result<(), NotTaken> {
        let Envelope { command, responder } = envelope;
        self.call(responder, |call| ToChild::Call { call, slot, command })
    }

    fn create_token(&self, order: CreateToken, responder: Box<dyn Responder>) -> Result<(), NotTaken> {
        self.call(responder, |call| ToChild::CreateToken { call, order })
    }
}

/// The thread that hears the child.
struct Reader {
    connection: Arc<Connection>,
    events: Arc<dyn ModuleEvents>,
    ledger: Arc<dyn PinLedger>,
    name: ModuleName,
    life: Arc<Life>,
}

impl Reader {
    /// Reads until the child's end; returns its reason, empty if there is none but the end itself.
    fn run(self, socket: UnixStream) -> String {
        let mut socket = io::BufReader::with_capacity(64 * 1024, socket);
        let mut up = Vec::new();
        let mut reason = String::new();
        loop {
            match frame::read(&mut socket) {
                Ok(Some(ToParent::Started(Err(problem)))) => reason = problem,
                Ok(Some(frame)) => {
                    self.life.note();
                    self.hear(frame, &mut up);
                }
                Ok(None) => break,
                Err(FrameError::Io(error)) if error.kind() == io::ErrorKind::ConnectionReset => break,
                Err(error) => {
                    reason = error.to_string();
                    break;
                }
            }
        }
        self.connection.fail_all();
        for slot in up {
            self.events.slot_down(slot, format!("the process of module {} ended", self.name));
        }
        reason
    }

    fn hear(&self, frame: ToParent, up: &mut Vec<SlotRef>) {
        match frame {
            ToParent::Started(_) | ToParent::Pong => {}
            ToParent::SlotUp { slot, token, login } => {
                up.push(slot);
                self.events.slot_up(slot, token, login);
            }
            ToParent::Status { slot, status, flags } => self.events.status(slot, status, flags),
            ToParent::Flags { slot, flags } => self.events.flags(slot, flags),
            ToParent::SlotDown { slot, reason } => {
                up.retain(|is_up| *is_up != slot);
                self.events.slot_down(slot, reason);
            }
            ToParent::Scanned => self.events.scanned(),
            ToParent::Overdue { slot, call } => self.events.overdue(slot, call),
            ToParent::Replace { reason } => self.events.replace(reason),
            ToParent::Entering { call } => {
                if let Some(pending) = self.connection.calls().pending.get_mut(&call) {
                    pending.entered = true;
                    pending.responder.entering();
                }
            }
            ToParent::Answer { call, answer } => {
                let pending = self.connection.calls().pending.remove(&call);
                if let Some(pending) = pending {
                    pending.responder.answer(answer);
                }
            }
            ToParent::Ledger { ask, question } => {
                let answer = self.ask_ledger(question);
                self.connection.push(&ToChild::LedgerAnswer { ask, answer });
            }
        }
    }

    fn ask_ledger(&self, question: LedgerQuestion) -> Result<(), LedgerRefusal> {
        match question {
            LedgerQuestion::Begin(attempt) => self.ledger.begin(&attempt.borrowed()),
            LedgerQuestion::End(attempt, verdict) => {
                self.ledger.end(&attempt.borrowed(), verdict);
                Ok(())
            }
            LedgerQuestion::Forget(token) => {
                self.ledger.forget(&token);
                Ok(())
            }
        }
    }
}

impl LedgerAttempt {
    fn borrowed(&self) -> LoginAttempt<'_> {
        LoginAttempt {
            token: self.token.clone(),
            pin: &self.pin,
            origin: self.origin,
            known_good: self.known_good,
            instance: self.instance,
        }
    }
}
