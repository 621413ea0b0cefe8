//! Carrying out what faults do to a call.

use std::{process, thread, time::Duration};

use rustix::process::{Signal, getpid, kill_process};

use super::{
    fail,
    link::{Followed, LinkError},
    memory::Output,
    token_log::TokenLog,
};
use crate::{
    attempt::Attempt,
    fault::{Crash, Effect, Wait},
    log::Entry,
    rv::Rv,
};

/// Carries out effects in their order, up to the first that answers the caller; its answer is returned.
pub(super) fn perform(effects: &[Effect], followed: &mut Followed<'_>, output: Option<&Output>, log: Option<&TokenLog>) -> Option<Rv> {
    for effect in effects {
        match effect {
            Effect::Return(rv) => return Some(*rv),
            Effect::Crash(how) => crash(*how),
            Effect::FlipBit => {
                if let Some(output) = output {
                    output.flip_bit();
                }
            }
            Effect::Remove => {
                if let Some(rv) = failed(followed.pull()) {
                    return Some(rv);
                }
            }
            Effect::Wait(Wait::Ms(ms)) => thread::sleep(Duration::from_millis(*ms)),
            Effect::Wait(Wait::ForEver) => followed.hold_for_ever(),
            Effect::Wait(Wait::Release) => {
                if let Some(rv) = failed(followed.hold()) {
                    return Some(rv);
                }
            }
            Effect::Attempt(attempt) => {
                if let Some(rv) = tried(attempt, log) {
                    return Some(rv);
                }
            }
        }
    }
    None
}

/// Makes an attempt and tells the log how it went; an answer only if the log cannot be told.
fn tried(attempt: &Attempt, log: Option<&TokenLog>) -> Option<Rv> {
    let error = attempt.make().err().map(|error| error.to_string());
    log?.write(Entry::Attempt { attempt: attempt.clone(), error }).err().map(|error| fail(&error))
}

fn failed(asked: Result<(), LinkError>) -> Option<Rv> {
    asked.err().map(|error| fail(&error))
}

/// What the effects answer if nothing comes between them and the answer; `None` if something may.
pub(super) fn foretold(effects: &[Effect], real: Rv) -> Option<Rv> {
    let mut answer = real;
    for effect in effects {
        match effect {
            Effect::Return(rv) => return Some(*rv),
            Effect::Remove => answer = Rv::DEVICE_REMOVED,
            Effect::Wait(_) | Effect::Crash(_) => return None,
            Effect::FlipBit | Effect::Attempt(_) => (),
        }
    }
    Some(answer)
}

fn crash(how: Crash) -> ! {
    match how {
        Crash::Abort => process::abort(),
        Crash::Exit(status) => process::exit(status),
        Crash::Segfault => signal(Signal::SEGV),
        Crash::Kill => signal(Signal::KILL),
    }
}

/// Sends this process the signal until it is gone: a handler of SIGSEGV like Rust's own, which looks for stack overflows, lets the first one pass
/// and restores the default.
fn signal(signal: Signal) -> ! {
    loop {
        if kill_process(getpid(), signal).is_err() {
            process::abort();
        }
        thread::yield_now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_foretold_unless_the_call_may_hang_or_die_first() {
        let error = Effect::Return(Rv::DEVICE_ERROR);
        assert_eq!(foretold(&[], Rv::OK), Some(Rv::OK));
        assert_eq!(foretold(&[Effect::FlipBit, error.clone(), Effect::Wait(Wait::Release)], Rv::OK), Some(Rv::DEVICE_ERROR));
        assert_eq!(foretold(&[Effect::Remove], Rv::OK), Some(Rv::DEVICE_REMOVED));
        assert_eq!(foretold(&[Effect::Wait(Wait::Ms(1)), error], Rv::OK), None);
        assert_eq!(foretold(&[Effect::Crash(Crash::Abort)], Rv::OK), None);
    }
}
