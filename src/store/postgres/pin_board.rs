//! The record of PIN tries where a card may move from one gateway to another.
//!
//! Each gateway keeps what its tokens rejected in its own record, under its own secret; the database only knows *that* a card has rejected a
//! PIN at a gateway. While it says so of another gateway, no configured or requested PIN is tried here: an operator decides. A good login, or
//! an operator's word, clears it. Invariant: a rejection is in the database, or waits in memory to be written and keeps being tried; where the
//! database cannot be asked, no PIN is tried by itself on a card that has not been logged in here since the gateway started.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::runtime;
use tracing::{error, warn};

use super::{
    session::{Fault, Session},
    settings::PostgresSettings,
};
use crate::domain::pin::{LedgerKey, LedgerRefusal, LoginAttempt, LoginVerdict, PinLedger, PinOrigin};

/// How long the answer to a question is waited for; a slot's thread waits meanwhile.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// How often what could not be written is tried again.
const AGAIN: Duration = Duration::from_secs(2);
/// The same while the gateway stops.
const LAST_TRIES: Duration = Duration::from_millis(200);

const REJECTED_ELSEWHERE: &str = "SELECT EXISTS (SELECT 1 FROM pin_rejections WHERE card = $1 AND gateway <> $2)";
const NOTE: &str = "INSERT INTO pin_rejections (card, gateway, at) VALUES ($1, $2, (extract(epoch FROM clock_timestamp()) * 1000)::bigint) \
    ON CONFLICT (card, gateway) DO UPDATE SET at = excluded.at";
const CLEAR: &str = "DELETE FROM pin_rejections WHERE card = $1";

/// A gateway's own record of PIN tries, and what others have told through the database.
pub struct SharedPinLedger {
    own: Arc<dyn PinLedger>,
    board: Sender<Order>,
    /// Cards that have been logged in since the gateway started: a database that is away keeps nobody from logging them in again.
    logged_in: Mutex<BTreeSet<LedgerKey>>,
}

enum Order {
    Ask(LedgerKey, SyncSender<Result<bool, String>>),
    Tell(LedgerKey, News),
    /// Answered with how many cards the database has not been told of, after another try.
    Finish(SyncSender<usize>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum News {
    Rejected,
    Cleared,
}

impl SharedPinLedger {
    /// Starts the thread that talks to the database; it ends with the value.
    ///
    /// # Errors
    /// The system gave no thread.
    pub fn start(own: Arc<dyn PinLedger>, settings: PostgresSettings) -> std::io::Result<Self> {
        let (board, orders) = channel();
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let mut clerk = Clerk { settings, session: None, untold: BTreeMap::new() };
        // Record and slots are of threads that block, and the database's driver is not: this thread stands between.
        thread::Builder::new().name("pin-board".to_owned()).spawn(move || clerk.work(&runtime, &orders))?;
        Ok(Self { own, board, logged_in: Mutex::default() })
    }

    fn tell(&self, card: &LedgerKey, news: News) {
        if self.board.send(Order::Tell(card.clone(), news)).is_err() {
            error!("other gateways are not told of PIN tries: the thread that does it has ended");
        }
    }

    fn logged_in(&self) -> MutexGuard<'_, BTreeSet<LedgerKey>> {
        self.logged_in.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rejected_elsewhere(&self, card: &LedgerKey) -> Result<bool, String> {
        let (reply, answer) = sync_channel(1);
        let gone = |_| "its thread has ended".to_owned();
        self.board.send(Order::Ask(card.clone(), reply)).map_err(|_| gone(()))?;
        answer.recv_timeout(ANSWER_MAX).map_err(|_| "the database did not answer in time".to_owned())?
    }
}

impl PinLedger for SharedPinLedger {
    fn begin(&self, attempt: &LoginAttempt<'_>) -> Result<(), LedgerRefusal> {
        // What logged in before in this run is right, and an operator knows better than a record.
        let asks = !attempt.known_good && !matches!(attempt.origin, PinOrigin::Operator { .. });
        if asks {
            match self.rejected_elsewhere(&attempt.token) {
                Ok(false) => {}
                Ok(true) => return Err(LedgerRefusal::RejectedElsewhere),
                Err(_) if self.logged_in().contains(&attempt.token) => {}
                Err(error) => return Err(LedgerRefusal::Unavailable(error)),
            }
        }
        self.own.begin(attempt)
    }

    fn end(&self, attempt: &LoginAttempt<'_>, verdict: LoginVerdict) {
        match verdict {
            LoginVerdict::Accepted => drop(self.logged_in().insert(attempt.token.clone())),
            LoginVerdict::Rejected => drop(self.logged_in().remove(&attempt.token)),
            LoginVerdict::NotTried => {}
        }
        match verdict {
            LoginVerdict::Rejected => self.tell(&attempt.token, News::Rejected),
            // A known good PIN proves nothing that was not known, and comes often.
            LoginVerdict::Accepted if !attempt.known_good => self.tell(&attempt.token, News::Cleared),
            LoginVerdict::Accepted | LoginVerdict::NotTried => {}
        }
        self.own.end(attempt, verdict);
    }

    fn forget(&self, token: &LedgerKey) {
        self.tell(token, News::Cleared);
        self.own.forget(token);
    }

    fn finish(&self, bound: Duration) -> bool {
        let until = Instant::now() + bound;
        loop {
            let (reply, answer) = sync_channel(1);
            let asked = self.board.send(Order::Finish(reply)).is_ok();
            let untold = answer.recv_timeout(until.saturating_duration_since(Instant::now()));
            if untold == Ok(0) {
                return self.own.finish(until.saturating_duration_since(Instant::now()));
            }
            if !asked || untold.is_err() || Instant::now() + LAST_TRIES > until {
                error!("the database was not told of every PIN that a token has rejected here: other gateways may try a PIN on it");
                return false;
            }
            thread::sleep(LAST_TRIES);
        }
    }
}

struct Clerk {
    settings: PostgresSettings,
    session: Option<Session>,
    /// What the database does not know yet; the last word on a card counts.
    untold: BTreeMap<LedgerKey, News>,
}

impl Clerk {
    fn work(&mut self, runtime: &runtime::Runtime, orders: &Receiver<Order>) {
        loop {
            let mut finishing = None;
            let order =
                if self.untold.is_empty() { orders.recv().map_err(|_| RecvTimeoutError::Disconnected) } else { orders.recv_timeout(AGAIN) };
            match order {
                Ok(Order::Tell(card, news)) => {
                    self.untold.insert(card, news);
                }
                Ok(Order::Ask(card, reply)) => {
                    let answer = runtime.block_on(self.ask(&card)).map_err(|fault| fault.to_string());
                    // Whoever asked may have waited for too long.
                    let _ = reply.send(answer);
                }
                Ok(Order::Finish(reply)) => finishing = Some(reply),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if let Err(fault) = runtime.block_on(self.tell_all()) {
                warn!(error = %fault, "other gateways are not told of PIN tries yet");
            }
            if let Some(reply) = finishing {
                let _ = reply.send(self.untold.len());
            }
        }
    }

    async fn session(&mut self) -> Result<&Session, Fault> {
        let open = self.session.take().filter(|session| !session.is_closed());
        let session = match open {
            Some(session) => session,
            None => Session::open(&self.settings, "pins").await?,
        };
        Ok(self.session.insert(session))
    }

    async fn ask(&mut self, card: &LedgerKey) -> Result<bool, Fault> {
        let gateway = self.settings.gateway.as_uuid();
        let rows = self.session().await?.query(REJECTED_ELSEWHERE, &[&name(card), &gateway]).await?;
        Ok(rows.first().is_some_and(|row| row.get(0)))
    }

    async fn tell_all(&mut self) -> Result<(), Fault> {
        let gateway = self.settings.gateway.as_uuid();
        while let Some((card, news)) = self.untold.first_key_value().map(|(card, news)| (card.clone(), *news)) {
            let session = self.session().await?;
            match news {
                News::Rejected => session.query(NOTE, &[&name(&card), &gateway]).await?,
                News::Cleared => session.query(CLEAR, &[&name(&card)]).await?,
            };
            self.untold.remove(&card);
        }
        Ok(())
    }
}

/// A text of the database holds no NUL, and a token may say anything.
fn name(card: &LedgerKey) -> String {
    card.as_str().replace('\0', "\u{fffd}")
}
