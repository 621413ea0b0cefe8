//! What module processes and the bench say to each other, at the control socket.
//!
//! A module process opens a connection for each call that the bench is interested in: `enter`, then what the call goes through, then
//! `leave`. A connection that ends without `leave` is a process that died in the call. Questions outside a call have a connection each.

use serde::{Deserialize, Serialize};

use crate::{
    fault::Effect,
    function::Function,
    protocol::PersonAct,
    rv::Rv,
    token::{State, TokenId},
};

/// What a module process says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "call", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Question {
    /// What is the state?
    State {},
    /// A call begins. From here on the connection belongs to it.
    Enter(Caller),
    /// The call hangs, until it is released or for ever.
    Hold { for_ever: bool },
    /// The call waits for the person at the PIN pad.
    AskPerson {},
    /// The call's fault pulls its token.
    Pull {},
    /// The call returns.
    Leave { rv: Rv },
    /// How many PIN tries are left, or are they spent, or given back?
    Pin { serial: String, tries: u64, action: PinAction },
}

/// Who calls what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Caller {
    pub(crate) pid: u32,
    pub(crate) function: Function,
    pub(crate) token: Option<TokenId>,
    pub(crate) length_query: bool,
}

/// What becomes of a token's PIN tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PinAction {
    /// Nothing: a question.
    Ask,
    /// A PIN is about to be tried. As in a real token the try is spent first, so that pulling the plug gains nothing.
    Spend,
    /// It was right, or a new one was set: all tries are back.
    Refill,
    /// It was not tried after all.
    GiveBack,
}

/// What the bench answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    /// The state.
    State(State),
    /// What is to happen to the call.
    Plan(Plan),
    /// It is done, or the call goes on.
    Done {},
    /// What the person did.
    Person(PersonAct),
    /// PIN tries, as they were before the action.
    PinTries { left: u64 },
    /// The question makes no sense here.
    Error { message: String },
}

/// What armed faults do to one call.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// The call's number in events; 0 for a call that the bench does not follow.
    pub(crate) call: u64,
    /// Before the real module is called.
    pub(crate) before: Vec<Effect>,
    /// After it has answered.
    pub(crate) after: Vec<Effect>,
}
