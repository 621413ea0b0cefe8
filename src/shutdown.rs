//! One ordered stop.
//!
//! `cli` names the steps in the order in which they must happen (stop accepting, finish what runs, answer what waits, close tokens, end
//! children, remove files) and [`OrderedStop::run`] takes them one after the other. Each has a time limit, so that a module that never
//! returns cannot hold up the rest, and a second signal skips what is left but for the steps that must always happen.

use std::{future::Future, io, pin::Pin, time::Duration};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

/// SIGTERM and SIGINT, from the time of [`StopSignals::install`] on.
pub struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// Takes over both signals. Must be called in a Tokio runtime, before anything is started that would have to be stopped.
    ///
    /// # Errors
    /// What the operating system said.
    pub fn install() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next signal and returns its name.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// How a stop went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// Every step was finished.
    InOrder,
    /// Steps were cut short: by their time limits, or all that were left by a second signal.
    CutShort,
}

struct Step {
    name: &'static str,
    limit: Duration,
    always: bool,
    work: Pin<Box<dyn Future<Output = ()>>>,
}

/// The steps of a stop, in order.
#[derive(Default)]
pub struct OrderedStop(Vec<Step>);

impl OrderedStop {
    /// A stop without steps.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a step that is given up after `limit`, and skipped when somebody is in a hurry.
    #[must_use]
    pub fn then(mut self, name: &'static str, limit: Duration, work: impl Future<Output = ()> + 'static) -> Self {
        self.0.push(Step { name, limit, always: false, work: Box::pin(work) });
        self
    }

    /// Adds a step that is taken even in a hurry. It must be quick.
    #[must_use]
    pub fn always(mut self, name: &'static str, limit: Duration, work: impl Future<Output = ()> + 'static) -> Self {
        self.0.push(Step { name, limit, always: true, work: Box::pin(work) });
        self
    }

    /// Takes the steps in order. When `hurry` is ready, the running step and those left are dropped, but for those that always happen.
    pub async fn run(self, hurry: impl Future<Output = ()>) -> Stopped {
        tokio::pin!(hurry);
        let mut in_a_hurry = false;
        let mut result = Stopped::InOrder;
        for step in self.0 {
            if in_a_hurry && !step.always {
                continue;
            }
            info!("stopping: {}", step.name);
            let work = tokio::time::timeout(step.limit, step.work);
            let finished = tokio::select! {
                biased;
                done = work => done.is_ok(),
                () = &mut hurry, if !in_a_hurry && !step.always => {
                    in_a_hurry = true;
                    false
                }
            };
            if !finished {
                warn!("stopping: did not finish in time: {}", step.name);
                result = Stopped::CutShort;
            }
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use std::{
        cell::RefCell,
        future::{pending, ready},
        rc::Rc,
    };

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    /// Notes the steps that were finished.
    #[derive(Clone, Default)]
    struct Log(Rc<RefCell<Vec<&'static str>>>);

    impl Log {
        fn note(&self, name: &'static str) -> impl Future<Output = ()> + 'static {
            let log = self.clone();
            async move { log.0.borrow_mut().push(name) }
        }

        fn is(&self, names: &[&str]) -> bool {
            *self.0.borrow() == names
        }
    }

    #[tokio::test]
    async fn steps_are_taken_in_order() {
        let log = Log::default();
        let stop = OrderedStop::new().then("a", LONG, log.note("a")).then("b", LONG, log.note("b")).always("c", LONG, log.note("c"));
        assert_eq!(stop.run(pending()).await, Stopped::InOrder);
        assert!(log.is(&["a", "b", "c"]));
    }

    #[tokio::test]
    async fn a_step_that_hangs_does_not_hold_up_the_next_one() {
        let log = Log::default();
        let stop = OrderedStop::new().then("hangs", Duration::ZERO, pending()).then("b", LONG, log.note("b"));
        assert_eq!(stop.run(pending()).await, Stopped::CutShort);
        assert!(log.is(&["b"]));
    }

    #[tokio::test]
    async fn a_second_signal_skips_to_what_must_always_happen() {
        let log = Log::default();
        let stop = OrderedStop::new().then("hangs", LONG, pending()).then("b", LONG, log.note("b")).always("c", LONG, log.note("c"));
        assert_eq!(stop.run(ready(())).await, Stopped::CutShort);
        assert!(log.is(&["c"]));
    }
}
