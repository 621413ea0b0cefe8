//! The bench behind its control socket: a thread for each connection, and a file that tells module processes when to look again.
//!
//! Invariants: the generation in the file is written before the reply to the request that raised it, so that a call that begins after a
//! reply meets what the reply promised; no thread waits for a client while it holds the lock, but to hand a line to the kernel.

use std::{
    collections::HashMap,
    ffi::OsString,
    fs::{self, File, Permissions},
    io::{self, BufReader},
    net::Shutdown,
    os::unix::{
        ffi::OsStringExt,
        fs::{FileExt, PermissionsExt},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{core::Core, pins::PinTries};
use crate::{
    control::Control,
    event::Awaited,
    hotline::{Answer, Question},
    log::{Log, LogError},
    protocol::{Reply, Request, read_line, write_line},
    variables,
};

/// Connections at one time; each call that the bench follows has one. More are closed at once.
pub const CONNECTIONS_MAX: usize = 1024;

/// In the generation file of a bench that has ended: nothing is to be asked any more.
pub(crate) const ENDED: u64 = 0;

const SOCKET: &str = "control.sock";
const LOG: &str = "token.log";

/// A running bench. It ends with the value; see [`end`](Self::end).
#[derive(Debug)]
pub struct Bench {
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    desk: Mutex<Desk>,
    happened: Condvar,
    socket: PathBuf,
    generation: File,
}

/// What is under the lock.
#[derive(Debug)]
struct Desk {
    core: Core,
    written_generation: u64,
    /// All connections, so that they can be ended.
    connections: HashMap<u64, UnixStream>,
    last_connection: u64,
    /// Which of them a followed call has.
    calls: HashMap<u64, u64>,
    ending: bool,
    asked_to_stop: bool,
}

impl Bench {
    /// Starts a bench with its socket and the token-side log in `directory`.
    ///
    /// # Errors
    /// The socket cannot be made; its path may be too long (108 bytes), or another bench listens there.
    pub fn start(directory: &Path) -> io::Result<Self> {
        Self::listen(&directory.join(SOCKET), None)
    }

    /// Starts a bench at this socket. `pin_file` keeps the PIN tries beyond the bench's own life.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn listen(socket: &Path, pin_file: Option<&Path>) -> io::Result<Self> {
        let socket = std::path::absolute(socket)?;
        let listener = bind(&socket)?;
        let generation = File::create(generation_file(&socket))?;
        let desk = Desk {
            core: Core::new(PinTries::kept(pin_file)),
            written_generation: ENDED,
            connections: HashMap::new(),
            last_connection: 0,
            calls: HashMap::new(),
            ending: false,
            asked_to_stop: false,
        };
        let shared = Arc::new(Shared { desk: Mutex::new(desk), happened: Condvar::new(), socket, generation });
        shared.settle(&mut shared.lock())?;
        let accepting = Arc::clone(&shared);
        let accepting = thread::Builder::new().name("fault-bench".to_owned()).spawn(move || accepting.accept(&listener))?;
        Ok(Self { shared, accepting: Some(accepting) })
    }

    /// A controller of this bench.
    #[must_use]
    pub fn control(&self) -> Control {
        Control::new(&self.shared.socket)
    }

    /// What a process needs in its environment so that the module in it wraps `real_module`, listens to this bench, and writes its log.
    #[must_use]
    pub fn environment(&self, real_module: &Path) -> Vec<(&'static str, OsString)> {
        vec![
            (variables::MODULE, real_module.into()),
            (variables::CONTROL, self.shared.socket.clone().into()),
            (variables::LOG, self.log_path().into()),
        ]
    }

    /// Where processes with [`environment`](Self::environment) write the token-side log.
    #[must_use]
    pub fn log_path(&self) -> PathBuf {
        self.shared.socket.with_file_name(LOG)
    }

    /// Waits until a controller asks the bench to stop. It stops when the value is dropped.
    pub fn wait_until_stopped(&self) {
        let waiting = self.shared.happened.wait_while(self.shared.lock(), |desk| !desk.asked_to_stop);
        drop(waiting);
    }

    /// Ends the bench, as dropping it does: calls that it holds go on with `CKR_GENERAL_ERROR`, others pass as if it had never been.
    pub fn end(&self) {
        self.shared.end();
    }

    /// Reads the token-side log.
    ///
    /// # Errors
    /// There is none yet, or it is not one.
    pub fn log(&self) -> Result<Log, LogError> {
        Log::read(&self.log_path())
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.end();
        if let Some(accepting) = self.accepting.take() {
            // The thread catches nothing and holds nothing that a panic in it could break for others.
            let _ = accepting.join();
        }
    }
}

/// The file beside the socket that holds the bench's generation, 8 bytes, little-endian.
pub(crate) fn generation_file(socket: &Path) -> PathBuf {
    let mut path = socket.as_os_str().to_owned().into_vec();
    path.extend(b".generation");
    OsString::from_vec(path).into()
}

fn bind(socket: &Path) -> io::Result<UnixListener> {
    if UnixStream::connect(socket).is_ok() {
        let message = format!("a bench listens at {} already", socket.display());
        return Err(io::Error::new(io::ErrorKind::AddrInUse, message));
    }
    match fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => (),
    }
    let listener = UnixListener::bind(socket)?;
    // PINs of the person at the PIN pad come this way.
    fs::set_permissions(socket, Permissions::from_mode(0o600))?;
    Ok(listener)
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Accepts connections until the bench ends, and returns when all of them have ended.
    fn accept(&self, listener: &UnixListener) {
        thread::scope(|scope| {
            for connection in listener.incoming() {
                if self.lock().ending {
                    return;
                }
                let Ok(stream) = connection else { continue };
                let Some(id) = self.lock().register(&stream) else { continue };
                scope.spawn(move || {
                    // An error ends this connection only; what it leaves behind is cleared up below.
                    let call = self.serve(id, stream).unwrap_or_else(|call| call);
                    self.close(id, call);
                });
            }
        });
    }

    fn close(&self, connection: u64, call: Option<u64>) {
        let mut desk = self.lock();
        if let Some(call) = call {
            desk.calls.remove(&call);
            desk.core.died(call);
        }
        desk.connections.remove(&connection);
        self.happened.notify_all();
    }

    /// Serves one connection until it ends. Both results are the call that it has not left: of an ended one, and of one with an error.
    fn serve(&self, id: u64, stream: UnixStream) -> Result<Option<u64>, Option<u64>> {
        let mut call = None;
        let mut lines = BufReader::new(stream);
        loop {
            let line = match read_line::<Value>(&mut lines) {
                Ok(Some(line)) => line,
                Ok(None) => return Ok(call),
                Err(error) => {
                    // Whoever sent it may be gone.
                    let _ = write_line(lines.get_ref(), &Reply::Error { message: format!("not a line of JSON: {error}") });
                    return Err(call);
                }
            };
            let stops = line.get("do").is_some_and(|verb| verb == "stop");
            let written = if line.get("call").is_some() {
                self.answer(id, &mut call, line).map_or(Ok(()), |answer| write_line(lines.get_ref(), &answer))
            } else {
                write_line(lines.get_ref(), &self.reply(line))
            };
            if stops {
                // After the reply, which would be lost with the process.
                self.lock().asked_to_stop = true;
                self.happened.notify_all();
            }
            written.map_err(|_| call)?;
        }
    }

    fn reply(&self, line: Value) -> Reply {
        let refused = |message: String| Reply::Error { message };
        match serde_json::from_value(line) {
            Err(error) => refused(format!("not a request: {error}")),
            Ok(Request::WaitFor { event, after, timeout_ms }) => self.wait_for(event, after, Duration::from_millis(timeout_ms)),
            Ok(Request::Stop {}) => Reply::Done {},
            Ok(request) => {
                let mut desk = self.lock();
                let reply = desk.core.handle(request).unwrap_or_else(|error| refused(error.to_string()));
                self.settle(&mut desk).map_or_else(|error| refused(format!("the generation cannot be written: {error}")), |()| reply)
            }
        }
    }

    /// The answer to a module process, or `None` if it comes when somebody else does something.
    fn answer(&self, connection: u64, call: &mut Option<u64>, line: Value) -> Option<Answer> {
        let refused = |message: String| Some(Answer::Error { message });
        let question: Question = match serde_json::from_value(line) {
            Ok(question) => question,
            Err(error) => return refused(format!("not a question: {error}")),
        };
        let mut desk = self.lock();
        let left = *call;
        let answer = desk.core.ask(call, question).unwrap_or_else(|error| refused(error.to_string()));
        match (left, *call) {
            (None, Some(entered)) => drop(desk.calls.insert(entered, connection)),
            (Some(left), None) => drop(desk.calls.remove(&left)),
            _ => (),
        }
        match self.settle(&mut desk) {
            Ok(()) => answer,
            Err(error) => refused(error.to_string()),
        }
    }

    fn wait_for(&self, awaited: Awaited, after: u64, patience: Duration) -> Reply {
        let deadline = Instant::now() + patience;
        let mut desk = self.lock();
        loop {
            if let Some(event) = desk.core.find_event(awaited, after) {
                return Reply::Event(event.clone());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || desk.ending {
                return Reply::TimedOut {};
            }
            desk = self.happened.wait_timeout(desk, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// After any change: tells waiting controllers, waiting calls, and processes that must look again.
    fn settle(&self, desk: &mut Desk) -> io::Result<()> {
        for (call, answer) in desk.core.take_wakes() {
            if let Some(stream) = desk.calls.get(&call).and_then(|connection| desk.connections.get(connection)) {
                // A process that died while it waited is noticed by its connection's thread.
                let _ = write_line(stream, &answer);
            }
        }
        self.happened.notify_all();
        let generation = desk.core.state().generation;
        if generation != desk.written_generation {
            self.generation.write_all_at(&generation.to_le_bytes(), 0)?;
            desk.written_generation = generation;
        }
        Ok(())
    }

    fn end(&self) {
        let mut desk = self.lock();
        if std::mem::replace(&mut desk.ending, true) {
            // The files may be another bench's by now.
            return;
        }
        // Processes that have the file open pass their calls from now on; the files go so that no new process finds a bench.
        let _ = self.generation.write_all_at(&ENDED.to_le_bytes(), 0);
        let _ = fs::remove_file(generation_file(&self.socket));
        self.happened.notify_all();
        for stream in desk.connections.values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        drop(desk);
        // Wakes the accepting thread.
        let _ = UnixStream::connect(&self.socket);
        let _ = fs::remove_file(&self.socket);
    }
}

impl Desk {
    fn register(&mut self, stream: &UnixStream) -> Option<u64> {
        if self.ending || self.connections.len() >= CONNECTIONS_MAX {
            return None;
        }
        self.last_connection += 1;
        self.connections.insert(self.last_connection, stream.try_clone().ok()?);
        Some(self.last_connection)
    }
}
