//! The child's side: one module, its slot threads, and a socket on standard input.

use std::{
    collections::HashMap,
    fs::OpenOptions,
    io,
    mem::ManuallyDrop,
    net::Shutdown,
    os::{fd::AsFd, unix::net::UnixStream},
    process::ExitCode,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use crossbeam_channel::{Sender, bounded};
use tracing::{error, info};

use crate::domain::{
    pin::{LedgerKey, LedgerRefusal, LoginAttempt, LoginVerdict, PinLedger},
    token::{LoginMode, SlotStatus, TokenFlags, TokenIdentity},
};

use super::{
    super::{
        command::Reply,
        driver::DeviceError,
        link::{Envelope, ModuleEvents, ModuleLink, NotTaken, Responder, SlotRef},
        marks::{self, Writing},
        pkcs11::Pkcs11Module,
        runner::{ModuleRunner, RunnerParts},
    },
    fence,
    frame::{self, FrameError, LedgerAttempt, LedgerQuestion, StartModule, ToChild, ToParent},
};

/// Runs a module's process: what `sealgate module-host` does. Standard input is the socket to the gateway.
#[must_use]
pub fn child_main() -> ExitCode {
    fence::raise();
    match take_socket().map_err(FrameError::from).and_then(serve) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!(error = %error, "this command is for the gateway itself, which starts it with a socket on standard input");
            ExitCode::FAILURE
        }
    }
}

/// Takes the socket from standard input and puts /dev/null there, so that no module reads our frames as if somebody typed them.
fn take_socket() -> io::Result<UnixStream> {
    let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    socket.peer_addr()?;
    let null = OpenOptions::new().read(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    Ok(socket)
}

fn serve(mut socket: UnixStream) -> Result<(), FrameError> {
    let wire = Arc::new(Wire { socket: Mutex::new(socket.try_clone()?), asks: Mutex::default(), next_ask: AtomicU64::new(0) });
    let Some(ToChild::Start(start)) = frame::read(&mut socket)? else { return Err(FrameError::Malformed) };
    let runner = match load(*start, &wire) {
        Ok(runner) => {
            wire.say(&ToParent::Started(Ok(())));
            Arc::new(runner)
        }
        Err(problem) => {
            wire.say(&ToParent::Started(Err(problem)));
            return Ok(());
        }
    };
    while let Some(order) = frame::read(&mut socket)? {
        match order {
            ToChild::Call { call, slot, command } => {
                let responder = Box::new(FrameAnswer::new(call, &wire));
                let taken = runner.send(slot, Envelope { command, responder });
                if taken == Err(NotTaken::Busy) {
                    info!("a slot's queue is full");
                }
            }
            ToChild::CreateToken { call, order } => {
                let _ = runner.create_token(order, Box::new(FrameAnswer::new(call, &wire)));
            }
            ToChild::LedgerAnswer { ask, answer } => wire.answered(ask, answer),
            ToChild::Ping => wire.say(&ToParent::Pong),
            ToChild::Stop => stop_beside(&runner, &socket)?,
            ToChild::Start(_) => return Err(FrameError::Malformed),
        }
    }
    // The gateway is gone, or everything is stopped. Whatever a module is doing now, nobody will hear of it; waiting for it could take for ever.
    Ok(())
}

/// Ends the slot threads while this thread goes on reading, for they may wait for an answer of the ledger; then ends the reading.
fn stop_beside(runner: &Arc<ModuleRunner>, socket: &UnixStream) -> io::Result<()> {
    let (runner, socket) = (Arc::clone(runner), socket.try_clone()?);
    let stop = move || {
        runner.shutdown();
        // A socket that cannot be shut has no other end any more, which ends the reading as well.
        let _ = socket.shutdown(Shutdown::Read);
    };
    thread::Builder::new().name("stop".to_owned()).spawn(stop).map(drop)
}

fn load(mut start: StartModule, wire: &Arc<Wire>) -> Result<ModuleRunner, String> {
    if let (Some(files), Some(marks)) = (&mut start.fence.files, &start.marks) {
        // The slots' own threads note there what they begin.
        marks::make_folder(marks).map_err(|error| format!("{}: {error}", marks.display()))?;
        files.writable.push(marks.clone());
    }
    fence::raise_configured(&start.fence, &start.path)?;
    let (name, quirks) = (start.options.name.clone(), start.options.quirks);
    // Held until this process ends, whatever becomes of the gateway.
    let writing = start.marks.as_deref().map(Writing::join).transpose();
    let writing = writing.map_err(|error| format!("the folder for marks of signatures cannot be used: {error}"))?;
    let _until_the_end = ManuallyDrop::new(writing);
    let module = Pkcs11Module::load(&start.path, start.options).map_err(|error| error.to_string())?;
    let parts = RunnerParts {
        name,
        module: Arc::new(module),
        modes: start.modes,
        ledger: Arc::new(ParentLedger(Arc::clone(wire))),
        instance: start.instance,
        events: Arc::clone(wire) as Arc<dyn ModuleEvents>,
        limits: start.limits,
        quirks,
        expected: start.expected,
        marks: start.marks,
    };
    ModuleRunner::start(parts).map_err(|error| format!("no thread for the module: {error}"))
}

/// The way to the parent. Several threads write; one reads.
struct Wire {
    socket: Mutex<UnixStream>,
    asks: Mutex<HashMap<u64, Sender<Result<(), LedgerRefusal>>>>,
    next_ask: AtomicU64,
}

impl Wire {
    /// Writes a frame. If that fails the parent is gone, and so is this process's reason to be.
    fn say(&self, frame: &ToParent) {
        let mut socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        match frame::write(&mut *socket, frame) {
            Ok(()) => {}
            Err(FrameError::TooLong(length)) => drop_oversized(&mut socket, frame, length),
            Err(_) => std::process::exit(0),
        }
    }

    /// Asks the parent's PIN ledger and waits for the answer.
    fn ask(&self, question: LedgerQuestion) -> Result<(), LedgerRefusal> {
        let (sender, answer) = bounded(1);
        let ask = self.next_ask.fetch_add(1, Ordering::Relaxed);
        self.asks.lock().unwrap_or_else(PoisonError::into_inner).insert(ask, sender);
        self.say(&ToParent::Ledger { ask, question });
        answer.recv().unwrap_or_else(|_| Err(LedgerRefusal::Unavailable("the gateway did not answer".to_owned())))
    }

    fn answered(&self, ask: u64, answer: Result<(), LedgerRefusal>) {
        if let Some(asker) = self.asks.lock().unwrap_or_else(PoisonError::into_inner).remove(&ask) {
            // The asker's buffer has room for its one answer.
            let _ = asker.try_send(answer);
        }
    }
}

/// An answer too long for a frame becomes an error that says so; the asker must hear something.
fn drop_oversized(socket: &mut UnixStream, frame: &ToParent, length: usize) {
    error!(length, "an answer is too long to be passed on");
    if let ToParent::Answer { call, .. } = frame {
        let answer = Err(DeviceError::Refused("the token's answer is too long".to_owned()));
        if frame::write(socket, &ToParent::Answer { call: *call, answer }).is_err() {
            std::process::exit(0);
        }
    }
}

impl ModuleEvents for Wire {
    fn slot_up(&self, slot: SlotRef, token: TokenIdentity, login: LoginMode) {
        self.say(&ToParent::SlotUp { slot, token, login });
    }

    fn status(&self, slot: SlotRef, status: SlotStatus, flags: TokenFlags) {
        self.say(&ToParent::Status { slot, status, flags });
    }

    fn flags(&self, slot: SlotRef, flags: TokenFlags) {
        self.say(&ToParent::Flags { slot, flags });
    }

    fn slot_down(&self, slot: SlotRef, reason: String) {
        self.say(&ToParent::SlotDown { slot, reason });
    }

    fn scanned(&self) {
        self.say(&ToParent::Scanned);
    }

    fn overdue(&self, slot: Option<SlotRef>, call: String) {
        self.say(&ToParent::Overdue { slot, call });
    }

    fn replace(&self, reason: String) {
        self.say(&ToParent::Replace { reason });
    }
}

/// The PIN ledger lives in the parent, which outlives crashes of the module.
struct ParentLedger(Arc<Wire>);

impl PinLedger for ParentLedger {
    fn begin(&self, attempt: &LoginAttempt<'_>) -> Result<(), LedgerRefusal> {
        self.0.ask(LedgerQuestion::Begin(LedgerAttempt::from(attempt)))
    }

    fn end(&self, attempt: &LoginAttempt<'_>, verdict: LoginVerdict) {
        if let Err(refusal) = self.0.ask(LedgerQuestion::End(LedgerAttempt::from(attempt), verdict)) {
            error!(error = %refusal, "the end of a login could not be noted");
        }
    }

    fn forget(&self, token: &LedgerKey) {
        if let Err(refusal) = self.0.ask(LedgerQuestion::Forget(token.clone())) {
            error!(error = %refusal, "rejected PINs could not be forgotten");
        }
    }
}

impl From<&LoginAttempt<'_>> for LedgerAttempt {
    fn from(attempt: &LoginAttempt<'_>) -> Self {
        Self {
            token: attempt.token.clone(),
            pin: attempt.pin.duplicate(),
            origin: attempt.origin,
            known_good: attempt.known_good,
            instance: attempt.instance,
        }
    }
}

/// Answers a call of the parent's; a call that is dropped unanswered is answered as not performed, or unknown if it had entered.
struct FrameAnswer {
    call: u64,
    wire: Arc<Wire>,
    entered: OnceLock<()>,
    answered: bool,
}

impl FrameAnswer {
    fn new(call: u64, wire: &Arc<Wire>) -> Self {
        Self { call, wire: Arc::clone(wire), entered: OnceLock::new(), answered: false }
    }
}

impl Responder for FrameAnswer {
    fn entering(&self) {
        // Said once per call: a second try after a reopened session was not preceded by an entered one.
        if self.entered.set(()).is_ok() {
            self.wire.say(&ToParent::Entering { call: self.call });
        }
    }

    fn answer(mut self: Box<Self>, answer: Result<Reply, DeviceError>) {
        self.answered = true;
        self.wire.say(&ToParent::Answer { call: self.call, answer });
    }
}

impl Drop for FrameAnswer {
    fn drop(&mut self) {
        if !self.answered {
            let answer = Err(DeviceError::ProcessEnded { entered: self.entered.get().is_some() });
            self.wire.say(&ToParent::Answer { call: self.call, answer });
        }
    }
}
