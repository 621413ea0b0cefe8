//! Server-sent events: what has changed, so that pages load themselves anew. They say what kind of thing it was, and how much waits; never more.
//!
//! Invariants: there is a bound on streams, in all and for each operator; a stream ends with its session, and when the server closes; an operator
//! is told of what is theirs only.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use actix_web::{
    HttpResponse,
    http::header::{self, HeaderValue},
    web::Bytes,
};
use futures_util::stream;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{State, error::ConsoleError, visit::Visit};
use crate::domain::ids::OperatorName;

/// The most streams at a time.
const STREAMS_MAX: usize = 256;
/// The most of one operator.
const STREAMS_OF_ONE_MAX: usize = 16;
/// How often a stream shows that it lives and looks whether its session does. Proxies cut what is silent for a minute.
const BEAT: Duration = Duration::from_secs(15);
/// How long changes are gathered before they are told: a busy gateway changes all the time.
const GATHER: Duration = Duration::from_millis(100);

/// The streams that are open.
pub(super) struct Streams {
    open: Mutex<HashMap<OperatorName, usize>>,
    /// Counts proofs of the audit log that have ended.
    audit: watch::Sender<u64>,
}

impl Default for Streams {
    fn default() -> Self {
        Self { open: Mutex::default(), audit: watch::Sender::new(0) }
    }
}

impl Streams {
    /// A proof of the audit log has ended.
    pub(super) fn tell_of_audit(&self) {
        self.audit.send_modify(|count| *count += 1);
    }

    fn open(self: &Arc<Self>, of: &OperatorName) -> Result<OpenStream, ConsoleError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.values().sum::<usize>() >= STREAMS_MAX || open.get(of).is_some_and(|count| *count >= STREAMS_OF_ONE_MAX) {
            return Err(ConsoleError::TooManyStreams);
        }
        *open.entry(of.clone()).or_default() += 1;
        Ok(OpenStream { streams: Arc::clone(self), of: of.clone() })
    }
}

/// A place among the streams.
struct OpenStream {
    streams: Arc<Streams>,
    of: OperatorName,
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        let mut open = self.streams.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.of) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.of);
            }
        }
    }
}

/// What a stream looks at.
struct Watched {
    state: State,
    visit: Visit,
    tokens: watch::Receiver<u64>,
    consent: watch::Receiver<u64>,
    audit: watch::Receiver<u64>,
    closing: watch::Receiver<bool>,
    beat: Instant,
    began: bool,
    _place: OpenStream,
}

pub(super) async fn events(state: State, visit: Visit) -> Result<HttpResponse, ConsoleError> {
    let place = state.console.streams.open(visit.name())?;
    let watched = Watched {
        tokens: state.services.desk.changes(),
        consent: state.services.permits.watch(),
        audit: state.console.streams.audit.subscribe(),
        closing: state.closing(),
        beat: Instant::now() + BEAT,
        began: false,
        state,
        visit,
        _place: place,
    };
    let told = stream::unfold(watched, |mut watched| async move {
        let told = watched.next().await?;
        Some((Ok::<_, ConsoleError>(Bytes::from(told)), watched))
    });
    Ok(HttpResponse::Ok()
        .content_type("text/event-stream")
        // Proxies that gather answers would keep it to themselves.
        .insert_header((header::HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")))
        .streaming(told))
}

impl Watched {
    /// What to tell next; `None` when it is over.
    async fn next(&mut self) -> Option<String> {
        if !self.began {
            self.began = true;
            return Some(format!("retry: 3000\n{}", self.consent().await?));
        }
        let event = tokio::select! {
            biased;
            // An error means that nobody is left who could close: the server is gone.
            _ = self.closing.wait_for(|closing| *closing) => return None,
            changed = self.tokens.changed() => changed.ok().map(|()| "tokens")?,
            changed = self.consent.changed() => changed.ok().map(|()| "consent")?,
            changed = self.audit.changed() => changed.ok().map(|()| "audit")?,
            () = sleep_until(self.beat) => "stats",
        };
        if event == "stats" {
            self.beat = Instant::now() + BEAT;
            self.still_open().await?;
        } else {
            tokio::time::sleep(GATHER).await;
            if event == "consent" {
                self.consent.borrow_and_update();
                return self.consent().await;
            }
            self.tokens.borrow_and_update();
        }
        Some(format!("event: {event}\ndata: {{}}\n\n"))
    }

    /// Ends the stream with its session; what its operator may see may have changed meanwhile.
    async fn still_open(&mut self) -> Option<()> {
        // A store that is away for a moment ends it too; the browser comes back.
        self.visit.open = self.state.services.operators.is_still_open(self.visit.open.session.id).await.ok()??;
        Some(())
    }

    async fn consent(&mut self) -> Option<String> {
        self.still_open().await?;
        let waiting = self.state.services.permits.waiting(self.visit.operator()).await.ok()?.len();
        Some(format!("event: consent\ndata: {{\"waiting\":{waiting}}}\n\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_bounded_in_all_and_for_each_operator() {
        let streams = Arc::new(Streams::default());
        let names: Vec<OperatorName> = (0..20).map(|n| format!("operator-{n}").parse().unwrap()).collect();
        let mut held: Vec<_> = (0..STREAMS_OF_ONE_MAX).map(|_| streams.open(&names[0]).unwrap()).collect();
        assert_eq!(streams.open(&names[0]).err(), Some(ConsoleError::TooManyStreams));
        for name in &names[1..] {
            held.extend((0..STREAMS_OF_ONE_MAX).map_while(|_| streams.open(name).ok()));
        }
        assert_eq!(held.len(), STREAMS_MAX);
        held.clear();
        assert!(streams.open(&names[0]).is_ok() && streams.open.lock().unwrap().is_empty());
    }
}
