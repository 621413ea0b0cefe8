//! What the bench has seen of the calls that it was asked about. Calls that only ask for a length make no events, unless a fault meets them.

use serde::{Deserialize, Serialize};

use crate::{function::Function, rv::Rv};

/// One step of one call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Position among all events of the bench, from 1.
    pub seq: u64,
    /// The call; all events of one call have the same number.
    pub call: u64,
    /// The process that called.
    pub pid: u32,
    /// What it called.
    pub function: Function,
    /// Serial number of the token that the call concerns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// The step.
    #[serde(flatten)]
    pub step: Step,
}

/// A step in the life of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum Step {
    /// The caller has called.
    Entered,
    /// The call hangs, until it is released or for ever.
    Held,
    /// The call waits for a person at the PIN pad.
    Person,
    /// The call has returned to its caller.
    Left {
        /// With this answer.
        rv: Rv,
    },
    /// The process ended, or was killed, in the call.
    Died,
}

/// The name of a [`Step`], to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // As in `Step`.
pub enum StepName {
    Entered,
    Held,
    Person,
    Left,
    Died,
}

impl Step {
    /// The step's name.
    #[must_use]
    pub const fn name(self) -> StepName {
        match self {
            Self::Entered => StepName::Entered,
            Self::Held => StepName::Held,
            Self::Person => StepName::Person,
            Self::Left { .. } => StepName::Left,
            Self::Died => StepName::Died,
        }
    }
}

/// Which event to wait for: a step, of one function or of any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Awaited {
    /// The step.
    pub step: StepName,
    /// Of this function; `None` for any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<Function>,
}

impl Awaited {
    /// The call has reached the module.
    #[must_use]
    pub fn entered(function: Function) -> Self {
        Self { step: StepName::Entered, function: Some(function) }
    }

    /// The call hangs.
    #[must_use]
    pub fn held(function: Function) -> Self {
        Self { step: StepName::Held, function: Some(function) }
    }

    /// The call waits at the PIN pad.
    #[must_use]
    pub fn person() -> Self {
        Self { step: StepName::Person, function: None }
    }

    /// The call has returned.
    #[must_use]
    pub fn left(function: Function) -> Self {
        Self { step: StepName::Left, function: Some(function) }
    }

    /// The process died in the call.
    #[must_use]
    pub fn died(function: Function) -> Self {
        Self { step: StepName::Died, function: Some(function) }
    }

    /// Whether the event is the one.
    #[must_use]
    pub fn matches(self, event: &Event) -> bool {
        self.step == event.step.name() && self.function.is_none_or(|function| function == event.function)
    }
}
