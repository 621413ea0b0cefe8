//! What the bench knows and decides, without sockets or threads: the one place where faults, tokens and calls meet.
//!
//! [`server`](super::server) puts it behind the control socket; without one, a module process that was given a script has a core of its own.
//! Invariant: every change that module processes must see raises `state.generation`.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    sync::Arc,
};

use super::{arsenal::Arsenal, pins::PinTries};
use crate::{
    event::{Awaited, Event, Step},
    fault::FaultError,
    function::{Function, FunctionSet},
    hotline::{Answer, Caller, Plan, Question},
    protocol::{PersonAct, Reply, Request, Status},
    rv::Rv,
    token::{Poison, Reader, State, TokenId},
};

/// Events that the bench remembers; older ones are forgotten.
pub const EVENTS_MAX: usize = 65_536;
/// Acts of the person at the PIN pad that may wait for a call to take them.
const ACTS_MAX: usize = 64;
/// Tokens whose serial number and label are remembered together.
const KNOWN_TOKENS_MAX: usize = 256;

/// Why a request was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CoreError {
    #[error(transparent)]
    Fault(#[from] FaultError),
    #[error("no fault {0} is armed; it may have met all its calls")]
    NoSuchFault(u64),
    #[error("{ACTS_MAX} acts wait already for a call that asks for a person")]
    TooManyActs,
    #[error("the PIN tries cannot be kept: {0}")]
    PinTries(#[from] io::Error),
    #[error("only a bench behind a socket can wait or stop")]
    NotHere,
}

/// All that the bench knows.
#[derive(Debug)]
pub(crate) struct Core {
    state: Arc<State>,
    arsenal: Arsenal,
    watched: FunctionSet,
    calls: BTreeMap<u64, Call>,
    last_call: u64,
    events: VecDeque<Event>,
    last_event: u64,
    known: Vec<TokenId>,
    acts: VecDeque<(Option<String>, PersonAct)>,
    pins: PinTries,
    wakes: Vec<(u64, Answer)>,
}

/// A call that is in the module.
#[derive(Debug)]
struct Call {
    caller: Caller,
    waits: Waits,
    /// It makes events: length queries that no fault meets are nobody's business.
    reported: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waits {
    No,
    ForRelease,
    ForPerson,
}

impl Core {
    /// A bench where nothing is wrong.
    pub(crate) fn new(pins: PinTries) -> Self {
        Self {
            // Generation 0 is what processes that have not asked yet have.
            state: Arc::new(State { generation: 1, ..State::default() }),
            arsenal: Arsenal::default(),
            watched: FunctionSet::default(),
            calls: BTreeMap::new(),
            last_call: 0,
            events: VecDeque::new(),
            last_event: 0,
            known: Vec::new(),
            acts: VecDeque::new(),
            pins,
            wakes: Vec::new(),
        }
    }

    /// The state as it is now.
    pub(crate) fn state(&self) -> Arc<State> {
        Arc::clone(&self.state)
    }

    /// Answers that calls have waited for, since the last time.
    pub(super) fn take_wakes(&mut self) -> Vec<(u64, Answer)> {
        std::mem::take(&mut self.wakes)
    }

    /// The first event later than `after` that is awaited.
    pub(super) fn find_event(&self, awaited: Awaited, after: u64) -> Option<&Event> {
        self.events.iter().find(|event| event.seq > after && awaited.matches(event))
    }

    /// Does what a controller asks for. `WaitFor` and `Stop` are the server's.
    pub(crate) fn handle(&mut self, request: Request) -> Result<Reply, CoreError> {
        match request {
            Request::Arm { fault } => {
                let id = self.arsenal.arm(fault)?;
                self.change(|_| ());
                return Ok(Reply::Armed { id });
            }
            Request::Disarm { id } => {
                if !self.arsenal.disarm(id) {
                    return Err(CoreError::NoSuchFault(id));
                }
                self.change(|_| ());
            }
            Request::Watch { on } => {
                self.watched = self.watched.union(on);
                self.change(|_| ());
            }
            Request::Release { on } => return Ok(Reply::Released { calls: self.release(on) }),
            Request::Poison { answer, on } => self.change(|state| state.poison = Poison { count: state.poison.count + 1, on, answer }),
            Request::PinLeft { token, left } => {
                let serial = self.known.iter().find(|known| known.is(&token)).map_or(token, |known| known.serial.clone());
                self.pins.set(&serial, left)?;
            }
            Request::Person { token, act } => self.person(token, act)?,
            Request::Events { after } => {
                return Ok(Reply::Events { events: self.events.iter().filter(|event| event.seq > after).cloned().collect() });
            }
            Request::Status {} => return Ok(Reply::Status(self.status())),
            Request::Reset {} => self.reset()?,
            Request::WaitFor { .. } | Request::Stop {} => return Err(CoreError::NotHere),
            about_tokens => self.change_tokens(about_tokens),
        }
        Ok(Reply::Done {})
    }

    /// Changes the state of tokens.
    fn change_tokens(&mut self, request: Request) {
        match request {
            Request::Remove { token, answer, reader } => self.change_token(token.as_deref(), |state| state.remove(answer, reader)),
            Request::Insert { token, slot } => self.change_token(token.as_deref(), |state| state.insert(slot)),
            Request::Renumber { token, slot } => self.change_token(token.as_deref(), |state| state.slot = Some(slot)),
            Request::ExpireSessions { token, answer } => self.change_token(token.as_deref(), |state| state.expire_sessions(answer)),
            Request::Logout { token } => self.change_token(token.as_deref(), |state| state.logouts += 1),
            Request::Pin { token, policy } => self.change_token(token.as_deref(), |state| state.pin.clone_from(&policy)),
            Request::PinPad { token, present } => self.change_token(token.as_deref(), |state| state.pin_pad = present),
            Request::AlwaysAuthenticate { token, keys } => {
                self.change_token(token.as_deref(), |state| state.always_authenticate.clone_from(&keys));
            }
            Request::SessionLimit { token, max } => self.change_token(token.as_deref(), |state| state.max_sessions = max),
            _ => (), // `handle` has done all others.
        }
    }

    /// Answers a module process; `None` if the answer comes later, through [`take_wakes`](Self::take_wakes). `call` is the call that the
    /// connection belongs to, and is set by `Enter`.
    pub(crate) fn ask(&mut self, call: &mut Option<u64>, question: Question) -> Result<Option<Answer>, CoreError> {
        let answer = match (question, *call) {
            (Question::State {}, _) => Answer::State(State::clone(&self.state)),
            (Question::Pin { serial, tries, action }, _) => Answer::PinTries { left: self.pins.act(&serial, tries, action)? },
            (Question::Enter(caller), None) => {
                let plan = self.enter(caller);
                *call = Some(plan.call);
                Answer::Plan(plan)
            }
            (Question::Hold { for_ever: false }, Some(id)) => {
                self.wait(id, Waits::ForRelease, Step::Held);
                return Ok(None);
            }
            (Question::Hold { for_ever: true }, Some(id)) => {
                self.wait(id, Waits::No, Step::Held);
                Answer::Done {}
            }
            (Question::AskPerson {}, Some(id)) => return Ok(self.ask_person(id).map(Answer::Person)),
            (Question::Pull {}, Some(id)) => {
                self.pull(id);
                Answer::Done {}
            }
            (Question::Leave { rv }, Some(id)) => {
                self.leave(id, rv);
                *call = None;
                Answer::Done {}
            }
            (_, _) => Answer::Error { message: "a call must be entered first, and once".to_owned() },
        };
        Ok(Some(answer))
    }

    /// The process died in this call.
    pub(super) fn died(&mut self, call: u64) {
        if let Some(ended) = self.calls.remove(&call) {
            self.record(call, &ended, Step::Died);
        }
    }

    fn enter(&mut self, caller: Caller) -> Plan {
        self.last_call += 1;
        let call = self.last_call;
        if let Some(token) = caller.token.as_ref().filter(|token| !self.known.contains(token)) {
            self.known.push(token.clone());
            self.known.truncate(KNOWN_TOKENS_MAX);
        }
        let armed = self.arsenal.list().len();
        let (before, after) = self.arsenal.meet(&caller);
        if self.arsenal.list().len() < armed {
            self.change(|_| ());
        }
        let reported = !caller.length_query || !before.is_empty() || !after.is_empty();
        let entered = Call { caller, waits: Waits::No, reported };
        self.record(call, &entered, Step::Entered);
        self.calls.insert(call, entered);
        Plan { call, before, after }
    }

    fn leave(&mut self, call: u64, rv: Rv) {
        let Some(left) = self.calls.remove(&call) else { return };
        if rv.is_ok() && self.arsenal.succeeded(left.caller.function, left.caller.token.as_ref()) {
            self.change(|_| ());
        }
        self.record(call, &left, Step::Left { rv });
    }

    fn wait(&mut self, call: u64, waits: Waits, step: Step) {
        if let Some(mut waiting) = self.calls.remove(&call) {
            waiting.waits = waits;
            self.record(call, &waiting, step);
            self.calls.insert(call, waiting);
        }
    }

    fn release(&mut self, on: Option<Function>) -> u64 {
        let held = self
            .calls
            .iter_mut()
            .filter(|(_, call)| call.waits == Waits::ForRelease && on.is_none_or(|function| function == call.caller.function));
        let released: Vec<u64> = held
            .map(|(id, call)| {
                call.waits = Waits::No;
                *id
            })
            .collect();
        self.wakes.extend(released.iter().map(|id| (*id, Answer::Done {})));
        released.len() as u64
    }

    /// The call's token goes; by the name that it was given here before.
    fn pull(&mut self, call: u64) {
        if let Some(token) = self.calls.get(&call).and_then(|call| call.caller.token.clone()) {
            self.change_token(Some(&token.serial), |state| state.remove(Rv::DEVICE_REMOVED, Reader::Stays));
        }
    }

    /// The person acts for the first call that waits for one, or for the next that will.
    fn person(&mut self, token: Option<String>, act: PersonAct) -> Result<(), CoreError> {
        let waiting = self.calls.iter_mut().find(|(_, call)| call.waits == Waits::ForPerson && is_at(token.as_deref(), &call.caller));
        match waiting {
            Some((id, call)) => {
                call.waits = Waits::No;
                self.wakes.push((*id, Answer::Person(act)));
            }
            None if self.acts.len() == ACTS_MAX => return Err(CoreError::TooManyActs),
            None => self.acts.push_back((token, act)),
        }
        Ok(())
    }

    fn ask_person(&mut self, call: u64) -> Option<PersonAct> {
        self.wait(call, Waits::ForPerson, Step::Person);
        let waiting = self.calls.get_mut(&call)?;
        let at = self.acts.iter().position(|(token, _)| is_at(token.as_deref(), &waiting.caller))?;
        waiting.waits = Waits::No;
        self.acts.remove(at).map(|(_, act)| act)
    }

    fn status(&self) -> Status {
        Status {
            faults: self.arsenal.list().to_vec(),
            calls: self.calls.len() as u64,
            held: self.calls.values().filter(|call| call.waits == Waits::ForRelease).count() as u64,
            calls_ever: self.last_call,
        }
    }

    fn reset(&mut self) -> Result<(), CoreError> {
        self.arsenal.clear();
        self.watched = FunctionSet::default();
        self.acts.clear();
        self.release(None);
        let canceled = self.calls.iter_mut().filter(|(_, call)| call.waits == Waits::ForPerson);
        self.wakes.extend(canceled.map(|(id, call)| {
            call.waits = Waits::No;
            (*id, Answer::Person(PersonAct::Answers(Rv::FUNCTION_CANCELED)))
        }));
        self.pins.forget()?;
        self.change(|state| {
            state.tokens.heal();
            state.poison.on = FunctionSet::default();
        });
        Ok(())
    }

    fn change_token(&mut self, name: Option<&str>, change: impl Fn(&mut crate::token::TokenState)) {
        let known = name.and_then(|name| self.known.iter().find(|known| known.is(name))).cloned();
        self.change(|state| state.tokens.change(name, known.as_ref(), change));
    }

    fn change(&mut self, change: impl FnOnce(&mut State)) {
        let state = Arc::make_mut(&mut self.state);
        change(state);
        state.generation += 1;
        let logins = if state.tokens.any(|token| token.pin_pad) { Function::C_Login.into() } else { FunctionSet::default() };
        state.interest = self.arsenal.interest().union(self.watched).union(logins);
    }

    fn record(&mut self, id: u64, call: &Call, step: Step) {
        if !call.reported {
            return;
        }
        self.last_event += 1;
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
        }
        let Caller { pid, function, ref token, .. } = call.caller;
        let token = token.as_ref().map(|token| token.serial.clone());
        self.events.push_back(Event { seq: self.last_event, call: id, pid, function, token, step });
    }
}

fn is_at(token: Option<&str>, caller: &Caller) -> bool {
    token.is_none_or(|name| caller.token.as_ref().is_some_and(|token| token.is(name)))
}
