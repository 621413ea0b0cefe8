//! The way from a module process to whoever decides what happens to its calls: a bench, a script, or nobody.
//!
//! A call that nobody is interested in costs one `pread` of 8 bytes with a bench, and nothing without. There is no thread, and no connection
//! outside of a followed call, so that a process can be killed, forked or unloaded at any moment.

use std::{
    fs::File,
    io::{self, BufReader},
    os::unix::{fs::FileExt, net::UnixStream},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, RwLock},
    thread,
};

use super::setup::Source;
use crate::{
    bench::{ENDED, core::Core, generation_file, pins::PinTries},
    hotline::{Answer, Caller, PinAction, Plan, Question},
    protocol::{PersonAct, read_line, write_line},
    rv::Rv,
    script::{self, ScriptError},
    token::State,
};

/// Who decides.
#[derive(Debug)]
pub(super) enum Link {
    Nobody(Arc<State>),
    Script(Mutex<Core>),
    Bench(BenchLink),
}

/// A bench in another process, or in another thread of this one.
#[derive(Debug)]
pub(super) struct BenchLink {
    socket: PathBuf,
    generation: File,
    last: RwLock<Arc<State>>,
}

/// Why nobody can be asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error("the bench at {} cannot be reached: {source}; start it first with `pkcs11-faults-ctl serve`", socket.display())]
    NoBench { socket: PathBuf, source: io::Error },
    #[error("the bench went away, or says something strange: {0}")]
    Talk(#[from] io::Error),
    #[error(transparent)]
    Script(#[from] ScriptError),
}

impl Link {
    pub(super) fn to(source: &Source) -> Result<Self, LinkError> {
        match source {
            Source::Nowhere => Ok(Self::Nobody(Arc::default())),
            Source::Script { script, state } => {
                let mut core = Core::new(PinTries::kept(state.as_deref()));
                script::play(script, &mut core)?;
                Ok(Self::Script(Mutex::new(core)))
            }
            Source::Bench(socket) => {
                let unreachable = |source| LinkError::NoBench { socket: socket.clone(), source };
                let generation = File::open(generation_file(socket)).map_err(unreachable)?;
                let bench = BenchLink { socket: socket.clone(), generation, last: RwLock::default() };
                let state = bench.fetch().map_err(unreachable)?;
                bench.remember(state);
                Ok(Self::Bench(bench))
            }
        }
    }

    /// Whether anything can ever go wrong here.
    pub(super) const fn is_to_nobody(&self) -> bool {
        matches!(self, Self::Nobody(_))
    }

    /// The state as it is now.
    pub(super) fn state(&self) -> Result<Arc<State>, LinkError> {
        match self {
            Self::Nobody(state) => Ok(Arc::clone(state)),
            Self::Script(core) => Ok(core.lock().unwrap_or_else(PoisonError::into_inner).state()),
            Self::Bench(bench) => bench.state().map_err(LinkError::Talk),
        }
    }

    /// Tells of a call, if anybody is interested in it.
    pub(super) fn enter(&self, state: &State, caller: Caller) -> Result<Followed<'_>, LinkError> {
        let nothing = || Followed { line: Line::None, plan: Plan::default() };
        if !state.interest.contains(caller.function) {
            return Ok(nothing());
        }
        let entered = match self {
            Self::Nobody(_) => return Ok(nothing()),
            Self::Script(core) => Followed::enter(Line::Script { core, call: None }, caller),
            Self::Bench(bench) => bench.line().and_then(|line| Followed::enter(line, caller)),
        };
        match (entered, self) {
            (Err(_), Self::Bench(bench)) if bench.has_ended() => Ok(nothing()),
            (entered, _) => entered,
        }
    }

    /// Asks for PIN tries, or changes them; the answer is how many there were before.
    pub(super) fn pin_tries(&self, serial: &str, tries: u64, action: PinAction) -> Result<u64, LinkError> {
        let line = match self {
            Self::Nobody(_) => return Ok(tries),
            Self::Script(core) => Line::Script { core, call: None },
            Self::Bench(bench) => bench.line()?,
        };
        match (Followed { line, plan: Plan::default() }).ask(Question::Pin { serial: serial.to_owned(), tries, action })? {
            Answer::PinTries { left } => Ok(left),
            other => Err(strange(&other).into()),
        }
    }
}

impl BenchLink {
    fn state(&self) -> io::Result<Arc<State>> {
        let last = Arc::clone(&self.last.read().unwrap_or_else(PoisonError::into_inner));
        match self.generation()? {
            ENDED if last.interest == Default::default() => Ok(last),
            // Nobody is there to be asked any more. What was true of tokens stays true.
            ENDED => Ok(self.remember(State { interest: Default::default(), ..State::clone(&last) })),
            now if now == last.generation => Ok(last),
            _ => Ok(self.remember(self.fetch()?)),
        }
    }

    fn remember(&self, state: State) -> Arc<State> {
        let state = Arc::new(state);
        *self.last.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&state);
        state
    }

    fn fetch(&self) -> io::Result<State> {
        match ask(&mut BufReader::new(self.connect()?), &Question::State {})? {
            Answer::State(state) => Ok(state),
            other => Err(strange(&other)),
        }
    }

    fn generation(&self) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.generation.read_exact_at(&mut bytes, 0)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn has_ended(&self) -> bool {
        self.generation().is_ok_and(|generation| generation == ENDED)
    }

    fn connect(&self) -> io::Result<UnixStream> {
        UnixStream::connect(&self.socket)
    }

    fn line(&self) -> Result<Line<'_>, LinkError> {
        Ok(Line::Bench(BufReader::new(self.connect()?)))
    }
}

/// A call that somebody may be interested in.
#[derive(Debug)]
pub(super) struct Followed<'a> {
    line: Line<'a>,
    pub(super) plan: Plan,
}

#[derive(Debug)]
enum Line<'a> {
    None,
    Script { core: &'a Mutex<Core>, call: Option<u64> },
    Bench(BufReader<UnixStream>),
}

impl<'a> Followed<'a> {
    fn enter(line: Line<'a>, caller: Caller) -> Result<Self, LinkError> {
        let mut followed = Self { line, plan: Plan::default() };
        match followed.ask(Question::Enter(caller))? {
            Answer::Plan(plan) => Ok(Self { plan, ..followed }),
            other => Err(strange(&other).into()),
        }
    }

    /// Hangs until the call is released.
    pub(super) fn hold(&mut self) -> Result<(), LinkError> {
        self.ask(Question::Hold { for_ever: false }).map(drop)
    }

    /// Hangs until the process ends, whatever becomes of the bench.
    pub(super) fn hold_for_ever(&mut self) -> ! {
        let _ = self.ask(Question::Hold { for_ever: true });
        for_ever()
    }

    /// Waits for the person at the PIN pad.
    pub(super) fn ask_person(&mut self) -> Result<PersonAct, LinkError> {
        match self.ask(Question::AskPerson {})? {
            Answer::Person(act) => Ok(act),
            other => Err(strange(&other).into()),
        }
    }

    /// Pulls the call's token.
    pub(super) fn pull(&mut self) -> Result<(), LinkError> {
        self.ask(Question::Pull {}).map(drop)
    }

    /// Tells that the call returns. That nobody hears it is no reason to answer the caller anything else.
    pub(super) fn leave(mut self, rv: Rv) {
        let _ = self.ask(Question::Leave { rv });
    }

    fn ask(&mut self, question: Question) -> Result<Answer, LinkError> {
        match &mut self.line {
            Line::None => Ok(Answer::Done {}),
            Line::Bench(stream) => Ok(ask(stream, &question)?),
            Line::Script { core, call } => {
                let answer = core.lock().unwrap_or_else(PoisonError::into_inner).ask(call, question);
                match answer.map_err(|error| io::Error::other(error.to_string()))? {
                    Some(answer) => Ok(answer),
                    // It would come from a controller, and a script has none.
                    None => for_ever(),
                }
            }
        }
    }
}

/// Never returns.
fn for_ever() -> ! {
    loop {
        thread::park();
    }
}

fn ask(stream: &mut BufReader<UnixStream>, question: &Question) -> io::Result<Answer> {
    write_line(stream.get_ref(), question)?;
    match read_line(stream)?.ok_or(io::ErrorKind::UnexpectedEof)? {
        Answer::Error { message } => Err(io::Error::other(message)),
        answer => Ok(answer),
    }
}

fn strange(answer: &Answer) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("unexpected {answer:?}"))
}
