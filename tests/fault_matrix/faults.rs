//! The faults and the moments of the matrix.

use std::time::Duration;

use pkcs11_faults::{
    fault::{Crash, Fault},
    function::Function,
    rv::Rv,
};

/// When a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Nothing is to be signed.
    Idle,
    /// Jobs wait behind one that is being signed.
    Queued,
    /// In `C_Sign`.
    InSign,
    /// At the login after a lost session.
    AtLogin,
    /// When the module is asked for its tokens.
    AtDiscovery,
}

impl Moment {
    /// The call that is struck.
    pub fn function(self) -> Function {
        match self {
            Self::Idle => Function::C_GetSlotInfo,
            Self::Queued => Function::C_SignInit,
            Self::InSign => Function::C_Sign,
            Self::AtLogin => Function::C_Login,
            Self::AtDiscovery => Function::C_GetSlotList,
        }
    }
}

/// Where a fault can be cured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cure {
    /// In both isolations.
    Anywhere,
    /// Only where the module has a process that can be killed.
    ProcessOnly,
}

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// The call answers this, once; the real module is not called.
    Answer(Rv),
    /// The call answers this although the real module has done its work.
    AnswerAfter(Rv),
    /// Every call of these kinds answers this until the module is initialised again.
    Poison(Rv),
    /// The token is pulled in the call and put back.
    Remove,
    /// All sessions are gone.
    ExpireSessions,
    /// The token is in another slot.
    Renumber,
    /// Nobody is logged in any more.
    Logout,
    /// The call takes longer.
    Slow(Duration),
    /// The call never returns.
    Hang,
    /// The process dies in the call.
    Crash(Crash),
}

/// One row of the matrix.
#[derive(Debug, Clone, Copy)]
pub struct FaultRow {
    pub name: &'static str,
    pub what: What,
    pub cure: Cure,
}

const fn row(name: &'static str, what: What) -> FaultRow {
    FaultRow { name, what, cure: Cure::Anywhere }
}

const fn in_a_process(name: &'static str, what: What) -> FaultRow {
    FaultRow { name, what, cure: Cure::ProcessOnly }
}

/// Every fault.
pub const FAULTS: &[FaultRow] = &[
    row("DEVICE_REMOVED", What::Answer(Rv::DEVICE_REMOVED)),
    row("TOKEN_NOT_PRESENT", What::Answer(Rv::TOKEN_NOT_PRESENT)),
    row("SESSION_HANDLE_INVALID", What::Answer(Rv::SESSION_HANDLE_INVALID)),
    row("SESSION_CLOSED", What::Answer(Rv::SESSION_CLOSED)),
    row("USER_NOT_LOGGED_IN", What::Answer(Rv::USER_NOT_LOGGED_IN)),
    row("KEY_HANDLE_INVALID", What::Answer(Rv::KEY_HANDLE_INVALID)),
    row("OBJECT_HANDLE_INVALID", What::Answer(Rv::OBJECT_HANDLE_INVALID)),
    row("DEVICE_ERROR", What::Answer(Rv::DEVICE_ERROR)),
    row("FUNCTION_FAILED", What::Answer(Rv::FUNCTION_FAILED)),
    row("GENERAL_ERROR", What::Answer(Rv::GENERAL_ERROR)),
    row("HOST_MEMORY", What::Answer(Rv::HOST_MEMORY)),
    row("CRYPTOKI_NOT_INITIALIZED", What::Answer(Rv::CRYPTOKI_NOT_INITIALIZED)),
    row("a vendor's code", What::Answer(Rv(0x8000_0042))),
    row("DEVICE_ERROR although done", What::AnswerAfter(Rv::DEVICE_ERROR)),
    row("poisoned until initialised again", What::Poison(Rv::GENERAL_ERROR)),
    row("token pulled and put back", What::Remove),
    row("sessions expired", What::ExpireSessions),
    row("token in another slot", What::Renumber),
    row("logged out by somebody", What::Logout),
    row("slow", What::Slow(Duration::from_millis(150))),
    in_a_process("hangs for ever", What::Hang),
    in_a_process("abort", What::Crash(Crash::Abort)),
    in_a_process("segmentation fault", What::Crash(Crash::Segfault)),
    in_a_process("killed", What::Crash(Crash::Kill)),
];

impl FaultRow {
    /// The fault for the bench, where it is one that strikes a call.
    pub fn armed_on(&self, function: Function) -> Option<Fault> {
        let fault = Fault::on(function);
        Some(match self.what {
            What::Answer(rv) => fault.returns(rv),
            What::AnswerAfter(rv) => fault.after().returns(rv),
            // A call that concerns no token takes none along: it is pulled while the call is held.
            What::Remove if function == Function::C_GetSlotList => return None,
            What::Remove => fault.removes_the_token(),
            What::Slow(time) => fault.waits(time),
            What::Hang => fault.hangs_for_ever(),
            What::Crash(how) => fault.crashes(how),
            What::Poison(_) | What::ExpireSessions | What::Renumber | What::Logout => return None,
        })
    }
}
