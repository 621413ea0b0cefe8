//! What is said at the control socket: one request a line, one reply a line, both JSON.
//!
//! This is the side of the controllers: [`Control`](crate::control::Control), `pkcs11-faults-ctl`, a test in any language. They send requests
//! with a `do`, as many on one connection as they like. What module processes say at the same socket is in `hotline`, and has a `call` instead.

use std::{
    io::{self, BufRead, Write},
    time::Duration,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    event::{Awaited, Event},
    fault::Fault,
    function::{Function, FunctionSet},
    rv::Rv,
    token::{PinPolicy, Reader},
};

/// The longest line that either side accepts, in bytes.
pub const LINE_MAX: u64 = 1 << 20;

/// What a controller asks the bench for. `token` is a serial number or a label; without it, all tokens are meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
#[allow(missing_docs)] // The fields are described at the methods of `Control`, and in the README.
pub enum Request {
    /// Arms a fault.
    Arm { fault: Fault },
    /// Disarms it.
    Disarm { id: u64 },
    /// Pulls a token.
    Remove {
        #[serde(default)]
        token: Option<String>,
        #[serde(default = "device_removed")]
        answer: Rv,
        #[serde(default)]
        reader: Reader,
    },
    /// Puts it in again.
    Insert {
        #[serde(default)]
        token: Option<String>,
        #[serde(default)]
        slot: Option<u64>,
    },
    /// Gives its slot another number.
    Renumber {
        #[serde(default)]
        token: Option<String>,
        slot: u64,
    },
    /// Ends all sessions, with the token in place.
    ExpireSessions {
        #[serde(default)]
        token: Option<String>,
        #[serde(default = "session_handle_invalid")]
        answer: Rv,
    },
    /// Logs the user out, with the sessions living on.
    Logout {
        #[serde(default)]
        token: Option<String>,
    },
    /// Makes functions fail in all processes until they initialise the module again.
    Poison {
        #[serde(default = "general_error")]
        answer: Rv,
        #[serde(default = "FunctionSet::any")]
        on: FunctionSet,
    },
    /// Counts PIN tries as `policy` has it; without one, as the real module does.
    Pin {
        #[serde(default)]
        token: Option<String>,
        #[serde(default)]
        policy: Option<PinPolicy>,
    },
    /// Says how many tries are left.
    PinLeft { token: String, left: u64 },
    /// Gives the token a PIN pad, or takes it away.
    PinPad {
        #[serde(default)]
        token: Option<String>,
        present: bool,
    },
    /// Acts as the person at the PIN pad.
    Person {
        #[serde(default)]
        token: Option<String>,
        act: PersonAct,
    },
    /// Makes these keys (`CKA_ID` in hex) want a login for each signature.
    AlwaysAuthenticate {
        #[serde(default)]
        token: Option<String>,
        keys: Vec<String>,
    },
    /// Limits the sessions that one process may have open; without `max`, as the real module does.
    SessionLimit {
        #[serde(default)]
        token: Option<String>,
        #[serde(default)]
        max: Option<u64>,
    },
    /// Reports events of these functions, too.
    Watch { on: FunctionSet },
    /// Lets calls go on that hang.
    Release {
        #[serde(default)]
        on: Option<Function>,
    },
    /// Waits for an event later than `after`.
    WaitFor {
        event: Awaited,
        #[serde(default)]
        after: u64,
        timeout_ms: u64,
    },
    /// Lists the events later than `after`.
    Events {
        #[serde(default)]
        after: u64,
    },
    /// Tells what is armed and what is going on.
    Status {},
    /// Takes all faults away and forgets all events; tokens are in, sessions that died stay dead.
    Reset {},
    /// Ends the bench, if it waits to be ended (`pkcs11-faults-ctl serve` does).
    Stop {},
}

/// What the person at the PIN pad does.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PersonAct {
    /// Types this PIN.
    Enters(String),
    /// Lets the call end with this answer: `CKR_FUNCTION_CANCELED` for the cancel key, `CKR_PIN_INCORRECT` for a typed wrong PIN that
    /// the token does not count, and so on.
    Answers(Rv),
}

impl std::fmt::Debug for PersonAct {
    /// Shows no PIN.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Enters(_) => formatter.write_str("Enters(a PIN)"),
            Self::Answers(rv) => write!(formatter, "Answers({rv})"),
        }
    }
}

/// What the bench answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// It is done.
    Done {},
    /// It was refused, or not understood.
    Error {
        /// Why, and what would help.
        message: String,
    },
    /// The fault is armed.
    Armed {
        /// Its number, for `disarm`.
        id: u64,
    },
    /// So many calls go on.
    Released {
        /// How many.
        calls: u64,
    },
    /// The awaited event.
    Event(Event),
    /// It has not come in time.
    TimedOut {},
    /// Events, oldest first.
    Events {
        /// At most the last [`EVENTS_MAX`](crate::bench::EVENTS_MAX) are kept.
        events: Vec<Event>,
    },
    /// What is going on.
    Status(Status),
}

/// What is going on at the bench.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Armed faults that are not spent.
    pub faults: Vec<ArmedFault>,
    /// Calls that are in the module now, of those that the bench was asked about.
    pub calls: u64,
    /// Of these, the ones that hang until they are released.
    pub held: u64,
    /// Calls that the bench was ever asked about.
    pub calls_ever: u64,
}

/// A fault that waits for its call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArmedFault {
    /// Its number.
    pub id: u64,
    /// Calls that it could have met.
    pub seen: u64,
    /// Calls that it has met.
    pub met: u64,
    /// The fault.
    pub fault: Fault,
}

const fn device_removed() -> Rv {
    Rv::DEVICE_REMOVED
}

const fn session_handle_invalid() -> Rv {
    Rv::SESSION_HANDLE_INVALID
}

const fn general_error() -> Rv {
    Rv::GENERAL_ERROR
}

/// Writes one line.
pub(crate) fn write_line<T: Serialize>(mut stream: impl Write, message: &T) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    stream.write_all(&line)
}

/// Reads one line; `None` at the end of the stream.
pub(crate) fn read_line<T: DeserializeOwned>(stream: impl BufRead) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    if stream.take(LINE_MAX).read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    if line.last() != Some(&b'\n') {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a line without an end, or a longer one than is allowed"));
    }
    Ok(Some(serde_json::from_slice(&line)?))
}

/// Whole milliseconds, as the protocol counts time.
pub(crate) fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Request {
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    #[test]
    fn requests_of_a_person_need_no_more_than_they_say() {
        assert_eq!(parsed(r#"{"do":"remove"}"#), Request::Remove { token: None, answer: Rv::DEVICE_REMOVED, reader: Reader::Stays });
        assert_eq!(parsed(r#"{"do":"insert","slot":7}"#), Request::Insert { token: None, slot: Some(7) });
        assert_eq!(parsed(r#"{"do":"reset"}"#), Request::Reset {});
        assert_eq!(parsed(r#"{"do":"pin","policy":{"tries":3}}"#), Request::Pin { token: None, policy: Some(PinPolicy::tries(3)) });
        assert_eq!(
            parsed(r#"{"do":"person","act":{"enters":"1234"}}"#),
            Request::Person { token: None, act: PersonAct::Enters("1234".to_owned()) }
        );
        assert_eq!(parsed(r#"{"do":"poison"}"#), Request::Poison { answer: Rv::GENERAL_ERROR, on: FunctionSet::any() });
    }

    #[test]
    fn an_unknown_request_or_field_is_refused() {
        assert!(serde_json::from_str::<Request>(r#"{"do":"explode"}"#).is_err());
        assert!(serde_json::from_str::<Request>(r#"{"do":"remove","tokn":"A"}"#).is_err());
    }

    #[test]
    fn no_pin_is_shown_in_debug_output() {
        assert!(!format!("{:?}", PersonAct::Enters("7531".to_owned())).contains("7531"));
    }

    #[test]
    fn a_line_that_never_ends_is_refused() {
        let endless = io::BufReader::new(io::repeat(b'x'));
        assert_eq!(read_line::<Request>(endless).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
