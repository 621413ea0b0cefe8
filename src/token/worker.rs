//! One thread per token slot.
//!
//! The thread owns the PKCS#11 session and the login; nothing else in the process touches that token. Invariants: (1) one operation at a
//! time, in the order of the queue; (2) `entering` is said before `C_Sign`; (3) key handles belong to one session and die with it; (4) a
//! rejected PIN stops the slot until an operator acts, so the token's retry counter is never spent twice. The thread ends when the token
//! is gone or the runner closes the queue; what is still queued then is answered.

mod login;
mod session;
mod signing;
mod state;

use std::{
    collections::HashSet,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use tracing::{info, warn};

use crate::domain::{
    pin::{LedgerInstance, LedgerKey, PinLedger},
    token::{KeySelector, LoginMode, SlotState, TokenFlags, TokenIdentity},
};

use self::{session::Session, signing::note};
use super::{
    command::{Command, Reply},
    driver::{DeviceError, TokenSighting},
    link::{Envelope, ModuleEvents, SlotRef},
    login::LoginDesk,
    marks::Marks,
    quirks::Quirks,
    watchdog::WatchedModule,
    writing,
};

/// How long an idle thread waits before it looks whether its token is still there.
const PRESENCE_CHECK: Duration = Duration::from_secs(1);

/// How long a thread without a session waits before it tries to open one again, whatever is queued: a queue of commands that each tried
/// would make a row of failures of one moment's trouble, and have the module replaced for it.
const REOPEN_PAUSE: Duration = Duration::from_millis(100);

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
            Command::Offer => self.with_session(|session| session.driver.offer()).map(Reply::Offer),
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
}

/// The name of a slot's thread: at most 15 bytes are shown by the kernel, so the serial's end comes first.
pub(super) fn thread_name(token: &TokenIdentity) -> String {
    let tail = |text: &str, keep: usize| text.chars().skip(text.chars().count().saturating_sub(keep)).collect::<String>();
    format!("slot-{}", if token.serial.is_empty() { tail(&token.label, 10) } else { tail(&token.serial, 10) })
}
