//! The controller's side: what tests do to tokens and calls, and the events that they wait for.

use std::{
    io::{self, BufReader},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use crate::{
    event::{Awaited, Event},
    fault::Fault,
    function::{Function, FunctionSet},
    protocol::{PersonAct, Reply, Request, Status, milliseconds, read_line, write_line},
    rv::Rv,
    token::{PinPolicy, Reader},
};

/// How long [`Control::wait_for`] waits.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A controller of a bench. Each request has a connection of its own, so it can be used from several threads, and outlives a restarted bench.
///
/// `token` is a serial number or a label everywhere; `None` means all tokens. Call a token by one name throughout.
#[derive(Debug)]
pub struct Control {
    socket: PathBuf,
    /// The last event that was waited for.
    seen: AtomicU64,
}

/// Why a request came to nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// Nobody listens at the socket, or the bench went away.
    #[error("the bench at {} does not answer ({source}); start one with `pkcs11-faults-ctl serve`", socket.display())]
    NoBench {
        /// The socket.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The bench refused it.
    #[error("{0}")]
    Refused(String),
    /// The event did not come.
    #[error("no event {awaited:?} within {} s", patience.as_secs())]
    TimedOut {
        /// What was waited for.
        awaited: Awaited,
        /// How long.
        patience: Duration,
    },
    /// The bench answered something else than was asked for.
    #[error("the bench answered {0:?}; it may be of another version")]
    Strange(Box<Reply>),
}

/// The result of a request.
pub type Result<T> = std::result::Result<T, ControlError>;

impl Control {
    /// A controller of the bench at `socket`, which need not run yet.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned(), seen: AtomicU64::new(0) }
    }

    /// A controller of the bench at `socket`, which runs.
    ///
    /// # Errors
    /// [`ControlError::NoBench`].
    pub fn connect(socket: &Path) -> Result<Self> {
        let control = Self::new(socket);
        control.status().map(|_| control)
    }

    /// Arms a fault; calls that begin after this meet it. Returns its number.
    ///
    /// # Errors
    /// [`ControlError::Refused`] if it could do nothing.
    pub fn arm(&self, fault: Fault) -> Result<u64> {
        match self.send(&Request::Arm { fault })? {
            Reply::Armed { id } => Ok(id),
            other => Err(ControlError::Strange(other.into())),
        }
    }

    /// Disarms a fault.
    ///
    /// # Errors
    /// [`ControlError::Refused`] if it is not armed (any more).
    pub fn disarm(&self, id: u64) -> Result<()> {
        self.done(&Request::Disarm { id })
    }

    /// Pulls a token out of its reader. Calls on its sessions get `CKR_DEVICE_REMOVED`, and `CKR_SESSION_HANDLE_INVALID` once the module has
    /// looked at its slots.
    ///
    /// # Errors
    /// See [`ControlError`]; so for all that follow.
    pub fn remove(&self, token: Option<&str>) -> Result<()> {
        self.remove_as(token, Rv::DEVICE_REMOVED, Reader::Stays)
    }

    /// Pulls a token that answers `answer` until its removal is noticed, and whose reader may go with it.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn remove_as(&self, token: Option<&str>, answer: Rv, reader: Reader) -> Result<()> {
        self.done(&Request::Remove { token: owned(token), answer, reader })
    }

    /// Puts a token back. Sessions and handles of before stay dead, and nobody is logged in.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn insert(&self, token: Option<&str>) -> Result<()> {
        self.done(&Request::Insert { token: owned(token), slot: None })
    }

    /// Puts a token back into another slot.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn insert_into(&self, token: Option<&str>, slot: u64) -> Result<()> {
        self.done(&Request::Insert { token: owned(token), slot: Some(slot) })
    }

    /// Gives a token's slot another number. Sessions live on; the old number is `CKR_SLOT_ID_INVALID`.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn renumber(&self, token: Option<&str>, slot: u64) -> Result<()> {
        self.done(&Request::Renumber { token: owned(token), slot })
    }

    /// Ends all sessions of a token, and its login; calls on them get `answer`.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn expire_sessions(&self, token: Option<&str>, answer: Rv) -> Result<()> {
        self.done(&Request::ExpireSessions { token: owned(token), answer })
    }

    /// Logs the user out; sessions live on, and private keys answer `CKR_USER_NOT_LOGGED_IN`.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn logout(&self, token: Option<&str>) -> Result<()> {
        self.done(&Request::Logout { token: owned(token) })
    }

    /// Makes `functions` fail with `answer` in every process until it has called `C_Finalize` and `C_Initialize`, or is another process.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn poison(&self, functions: impl Into<FunctionSet>, answer: Rv) -> Result<()> {
        self.done(&Request::Poison { answer, on: functions.into() })
    }

    /// Counts a token's PIN tries by this policy, or (`None`) as the real module does.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn pin_policy(&self, token: Option<&str>, policy: Option<PinPolicy>) -> Result<()> {
        self.done(&Request::Pin { token: owned(token), policy })
    }

    /// Sets how many PIN tries a token has left, by its serial number.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn pin_tries_left(&self, serial: &str, left: u64) -> Result<()> {
        self.done(&Request::PinLeft { token: serial.to_owned(), left })
    }

    /// Gives a token a PIN pad: `CKF_PROTECTED_AUTHENTICATION_PATH`, and a login with a null PIN waits for [`person`](Self::person).
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn pin_pad(&self, token: Option<&str>, present: bool) -> Result<()> {
        self.done(&Request::PinPad { token: owned(token), present })
    }

    /// Acts at the PIN pad, for the login that waits there or for the next one.
    ///
    /// # Errors
    /// [`ControlError::Refused`] if too many acts wait already.
    pub fn person(&self, token: Option<&str>, act: PersonAct) -> Result<()> {
        self.done(&Request::Person { token: owned(token), act })
    }

    /// Makes the keys with these `CKA_ID`s want a login (`CKU_CONTEXT_SPECIFIC`) for each signature; replaces the list of before.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn always_authenticate(&self, token: Option<&str>, keys: &[&[u8]]) -> Result<()> {
        self.done(&Request::AlwaysAuthenticate { token: owned(token), keys: keys.iter().map(hex::encode).collect() })
    }

    /// Limits the sessions that a process may have on a token; one more gets `CKR_SESSION_COUNT`. `None` takes the limit away.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn session_limit(&self, token: Option<&str>, max: Option<u64>) -> Result<()> {
        self.done(&Request::SessionLimit { token: owned(token), max })
    }

    /// Reports events of these functions, whether or not a fault is armed on them.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn watch(&self, functions: impl Into<FunctionSet>) -> Result<()> {
        self.done(&Request::Watch { on: functions.into() })
    }

    /// Lets all calls go on that hang, and tells how many there were. A call that hangs later is not meant.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn release(&self) -> Result<u64> {
        self.release_in(None)
    }

    /// Lets calls of one function go on.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn release_in(&self, function: impl Into<Option<Function>>) -> Result<u64> {
        match self.send(&Request::Release { on: function.into() })? {
            Reply::Released { calls } => Ok(calls),
            other => Err(ControlError::Strange(other.into())),
        }
    }

    /// Takes all faults away, releases all calls, puts all tokens in, forgets all events; sessions that died stay dead.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn reset(&self) -> Result<()> {
        self.done(&Request::Reset {})
    }

    /// What is armed and what is going on.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn status(&self) -> Result<Status> {
        match self.send(&Request::Status {})? {
            Reply::Status(status) => Ok(status),
            other => Err(ControlError::Strange(other.into())),
        }
    }

    /// All events that the bench remembers.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn events(&self) -> Result<Vec<Event>> {
        match self.send(&Request::Events { after: 0 })? {
            Reply::Events { events } => Ok(events),
            other => Err(ControlError::Strange(other.into())),
        }
    }

    /// Waits for the first such event after the last one that this controller waited for, at most [`PATIENCE`].
    ///
    /// # Errors
    /// [`ControlError::TimedOut`].
    pub fn wait_for(&self, awaited: Awaited) -> Result<Event> {
        self.wait_for_at_most(awaited, PATIENCE)
    }

    /// Waits with another patience.
    ///
    /// # Errors
    /// [`ControlError::TimedOut`].
    pub fn wait_for_at_most(&self, awaited: Awaited, patience: Duration) -> Result<Event> {
        let after = self.seen.load(Ordering::SeqCst);
        match self.send(&Request::WaitFor { event: awaited, after, timeout_ms: milliseconds(patience) })? {
            Reply::Event(event) => {
                self.seen.fetch_max(event.seq, Ordering::SeqCst);
                Ok(event)
            }
            Reply::TimedOut {} => Err(ControlError::TimedOut { awaited, patience }),
            other => Err(ControlError::Strange(other.into())),
        }
    }

    /// Sends any request.
    ///
    /// # Errors
    /// [`ControlError::Refused`] if the bench refuses it.
    pub fn send(&self, request: &Request) -> Result<Reply> {
        let reply = self.exchange(request).map_err(|source| ControlError::NoBench { socket: self.socket.clone(), source })?;
        match reply {
            Reply::Error { message } => Err(ControlError::Refused(message)),
            reply => Ok(reply),
        }
    }

    fn exchange(&self, request: &Request) -> io::Result<Reply> {
        let stream = UnixStream::connect(&self.socket)?;
        write_line(&stream, request)?;
        read_line(BufReader::new(stream))?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    fn done(&self, request: &Request) -> Result<()> {
        match self.send(request)? {
            Reply::Done {} => Ok(()),
            other => Err(ControlError::Strange(other.into())),
        }
    }
}

fn owned(token: Option<&str>) -> Option<String> {
    token.map(ToOwned::to_owned)
}
