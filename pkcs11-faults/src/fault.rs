//! Faults: which calls they meet, and what they do to them.
//!
//! A [`Fault`] is armed at the bench. It counts the calls that it could meet from then on, lets `skip` of them through, and meets the next
//! `times`. In JSON it is `{"on":["C_Sign"],"do":[{"return":"CKR_DEVICE_ERROR"}]}`; all other fields have defaults.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    attempt::Attempt,
    function::{Function, FunctionSet},
    rv::Rv,
};

/// Faults that can be armed at one time.
pub const FAULTS_MAX: usize = 1024;

/// Functions whose output is a signature, so that a bit of it can be flipped.
const SIGNING: [Function; 3] = [Function::C_Sign, Function::C_SignFinal, Function::C_SignRecover];

/// What goes wrong, where and how often.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// The functions it can meet.
    pub on: FunctionSet,
    /// Only calls on this token (serial number or label); calls that concern no token (`C_GetSlotList`) are not met then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// So many calls go through first: 2 makes it meet the third.
    #[serde(default)]
    pub skip: u64,
    /// So many calls are met; then it is spent.
    #[serde(default)]
    pub times: Times,
    /// Before the real module is called, or after it has done its work.
    #[serde(default)]
    pub moment: Moment,
    /// What happens, in this order.
    #[serde(rename = "do")]
    pub effects: Vec<Effect>,
    /// It ends when this function has succeeded in any process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Function>,
    /// It also counts and meets calls that only ask for the length of the output (`C_Sign` with a null `pSignature`).
    #[serde(default)]
    pub length_queries: bool,
}

/// How many calls a fault meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Times {
    /// Every one. In JSON: `"every"`.
    Every,
    /// So many. In JSON: the number.
    #[serde(untagged)]
    Count(u64),
}

impl Default for Times {
    fn default() -> Self {
        Self::Count(1)
    }
}

/// When a fault acts in a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Moment {
    /// Before the real module is called. A `return` then means that it is not called.
    #[default]
    Before,
    /// After the real module has answered: it may have signed, whatever the caller is told.
    After,
}

/// One thing that a fault does to a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// The call hangs, or is slow.
    Wait(Wait),
    /// The caller is answered with this value.
    Return(Rv),
    /// The process ends.
    Crash(Crash),
    /// One bit of the signature is wrong.
    FlipBit,
    /// The call's token is pulled out at this moment, as by [`Control::remove`](crate::control::Control::remove).
    Remove,
    /// The module's process tries something that has nothing to do with its token; how it went is in the log.
    Attempt(Attempt),
}

/// How long a call hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wait {
    /// Milliseconds.
    Ms(u64),
    /// Until it is released through the control socket. From a script, where nobody can release it: for ever.
    Release,
    /// Until the process ends; nothing releases it.
    ForEver,
}

/// How a process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Crash {
    /// `abort()`: SIGABRT.
    Abort,
    /// SIGSEGV.
    Segfault,
    /// SIGKILL, which no handler sees.
    Kill,
    /// `exit()` with this status, exit handlers included.
    Exit(i32),
}

/// Why a fault makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FaultError {
    /// `on` is empty.
    #[error("the fault meets no function; \"on\" needs the name of one, or \"any\"")]
    NoFunction,
    /// `do` is empty.
    #[error("the fault does nothing; \"do\" needs an effect, {{\"return\":\"CKR_DEVICE_ERROR\"}} for example")]
    NoEffect,
    /// `times` is zero.
    #[error("the fault is spent before it begins; \"times\" must be at least 1, or \"every\"")]
    NoTimes,
    /// More than [`FAULTS_MAX`].
    #[error("{FAULTS_MAX} faults are armed already")]
    TooMany,
    /// `flip_bit` where there is no signature to flip a bit of.
    #[error("flip_bit needs \"moment\":\"after\" and only C_Sign, C_SignFinal or C_SignRecover in \"on\"")]
    NoSignature,
}

impl Fault {
    /// A fault on the next call of one of the functions, which does nothing yet.
    #[must_use]
    pub fn on(functions: impl Into<FunctionSet>) -> Self {
        Self {
            on: functions.into(),
            token: None,
            skip: 0,
            times: Times::default(),
            moment: Moment::Before,
            effects: Vec::new(),
            until: None,
            length_queries: false,
        }
    }

    /// Only calls on the token with this serial number or label.
    #[must_use]
    pub fn token(mut self, serial_or_label: &str) -> Self {
        self.token = Some(serial_or_label.to_owned());
        self
    }

    /// Lets so many calls through first.
    #[must_use]
    pub const fn skip(mut self, calls: u64) -> Self {
        self.skip = calls;
        self
    }

    /// Meets so many calls instead of one.
    #[must_use]
    pub const fn times(mut self, calls: u64) -> Self {
        self.times = Times::Count(calls);
        self
    }

    /// Meets every call until it is disarmed.
    #[must_use]
    pub const fn every_time(mut self) -> Self {
        self.times = Times::Every;
        self
    }

    /// Ends when the function has succeeded.
    #[must_use]
    pub const fn until(mut self, function: Function) -> Self {
        self.until = Some(function);
        self
    }

    /// Acts after the real module has done its work.
    #[must_use]
    pub const fn after(mut self) -> Self {
        self.moment = Moment::After;
        self
    }

    /// Answers with `rv`.
    #[must_use]
    pub fn returns(self, rv: Rv) -> Self {
        self.does(Effect::Return(rv))
    }

    /// Hangs until it is released.
    #[must_use]
    pub fn hangs(self) -> Self {
        self.does(Effect::Wait(Wait::Release))
    }

    /// Hangs until the process ends.
    #[must_use]
    pub fn hangs_for_ever(self) -> Self {
        self.does(Effect::Wait(Wait::ForEver))
    }

    /// Takes longer by `time` (whole milliseconds).
    #[must_use]
    pub fn waits(self, time: Duration) -> Self {
        self.does(Effect::Wait(Wait::Ms(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))))
    }

    /// Ends the process.
    #[must_use]
    pub fn crashes(self, how: Crash) -> Self {
        self.does(Effect::Crash(how))
    }

    /// Flips a bit of the signature.
    #[must_use]
    pub fn flips_a_bit(self) -> Self {
        self.after().does(Effect::FlipBit)
    }

    /// Pulls the token.
    #[must_use]
    pub fn removes_the_token(self) -> Self {
        self.does(Effect::Remove)
    }

    /// Tries something.
    #[must_use]
    pub fn attempts(self, attempt: Attempt) -> Self {
        self.does(Effect::Attempt(attempt))
    }

    fn does(mut self, effect: Effect) -> Self {
        self.effects.push(effect);
        self
    }

    /// Checks that the fault can ever do something.
    ///
    /// # Errors
    /// See [`FaultError`].
    pub fn check(&self) -> Result<(), FaultError> {
        if self.on == FunctionSet::default() {
            return Err(FaultError::NoFunction);
        }
        if self.effects.is_empty() {
            return Err(FaultError::NoEffect);
        }
        if self.times == Times::Count(0) {
            return Err(FaultError::NoTimes);
        }
        let signing_only = self.on.iter().all(|function| SIGNING.contains(&function));
        if self.effects.contains(&Effect::FlipBit) && (self.moment == Moment::Before || !signing_only) {
            return Err(FaultError::NoSignature);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_fault_meets_the_next_call_once() {
        let fault: Fault = serde_json::from_str(r#"{"on":"C_Sign","do":[{"return":"CKR_DEVICE_ERROR"}]}"#).unwrap();
        assert_eq!(fault, Fault::on(Function::C_Sign).returns(Rv::DEVICE_ERROR));
    }

    #[test]
    fn every_part_of_a_fault_survives_json() {
        let fault = Fault::on([Function::C_Sign, Function::C_SignFinal])
            .token("1234")
            .skip(2)
            .every_time()
            .until(Function::C_Login)
            .hangs()
            .waits(Duration::from_millis(20))
            .hangs_for_ever()
            .crashes(Crash::Exit(3))
            .crashes(Crash::Segfault)
            .removes_the_token()
            .attempts(Attempt::Read("/etc/passwd".into()))
            .flips_a_bit();
        let text = serde_json::to_string(&fault).unwrap();
        assert!(text.contains(r#""do":[{"wait":"release"},{"wait":{"ms":20}},{"wait":"for_ever"},{"crash":{"exit":3}}"#), "{text}");
        assert!(text.contains(r#""times":"every""#) && text.ends_with("}"), "{text}");
        assert_eq!(serde_json::from_str::<Fault>(&text).unwrap(), fault);
    }

    #[test]
    fn a_fault_that_can_do_nothing_is_refused() {
        assert_eq!(Fault::on(Function::C_Sign).check(), Err(FaultError::NoEffect));
        assert_eq!(Fault::on([]).returns(Rv::OK).check(), Err(FaultError::NoFunction));
        assert_eq!(Fault::on(Function::C_Sign).returns(Rv::OK).times(0).check(), Err(FaultError::NoTimes));
        assert_eq!(Fault::on(Function::C_Login).flips_a_bit().check(), Err(FaultError::NoSignature));
    }

    #[test]
    fn a_misspelt_field_is_refused() {
        assert!(serde_json::from_str::<Fault>(r#"{"on":"C_Sign","do":[],"tims":3}"#).unwrap_err().to_string().contains("tims"));
    }
}
