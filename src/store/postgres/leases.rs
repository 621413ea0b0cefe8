//! Leases of tokens and what gateways announce, by the database's clock.
//!
//! Invariant: nobody's lease is taken, and nobody's job is called an orphan, before this gateway has seen a healthy database for as long as a
//! lease lasts: whoever lives has had the time to renew by then, also after an outage of the database.

use std::time::Duration;

use tokio::{sync::Mutex, time::Instant};
use uuid::Uuid;

use super::{
    row,
    session::{Fault, Session, Step},
    settings::PostgresSettings,
};
use crate::{
    domain::{
        lease::{HEARTBEAT, LEASE, Leases, RemoteToken, TokenAnnouncement},
        timestamp::Timestamp,
        token::TokenIdentity,
    },
    store::{
        StoreError,
        columns::{count, timestamp, token_of, token_text, unreadable},
    },
};

/// How long a token whose gateway has gone silent is still shown as that gateway's.
const REMEMBERED_MILLIS: u64 = 600_000;

/// A heartbeat that comes later than this after the one before has missed too much to know that the database was there all the time.
const SILENCE_MAX: Duration = Duration::from_secs(LEASE.as_secs() / 2);

macro_rules! now {
    () => {
        "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
    };
}

const TAKE: &str = concat!(
    "INSERT INTO token_leases AS l (token, gateway, until) SELECT t, $2, ",
    now!(),
    " + $3 FROM unnest($1::text[]) AS t ORDER BY t ON CONFLICT (token) DO UPDATE SET gateway = excluded.gateway, until = excluded.until \
     WHERE l.gateway = excluded.gateway OR ($4 AND l.until < ",
    now!(),
    ") RETURNING token"
);
const GIVE_UP: &str = "DELETE FROM token_leases WHERE gateway = $2 AND token <> ALL($1::text[])";
const ANNOUNCE: &str = "INSERT INTO announcements AS a (gateway, token, body) SELECT $1, * FROM unnest($2::text[], $3::text[]) \
    ON CONFLICT (gateway, token) DO UPDATE SET body = excluded.body WHERE a.body <> excluded.body";
const WITHDRAW: &str = "DELETE FROM announcements WHERE gateway = $1 AND token <> ALL($2::text[])";
const REMOTE: &str = concat!(
    "SELECT l.gateway, g.name, l.until, a.body FROM token_leases l JOIN announcements a ON a.gateway = l.gateway AND a.token = l.token \
     JOIN gateways g ON g.id = l.gateway WHERE l.gateway <> $1 AND l.until > ",
    now!(),
    " - $2 ORDER BY l.token"
);
/// Jobs whose gateway has lost the token while it may have been signing.
pub(super) const ORPHANS: &str = concat!(
    "SELECT j.id FROM jobs j WHERE j.state = 'signing' AND j.owner <> $1 AND NOT EXISTS \
     (SELECT 1 FROM token_leases l WHERE l.token = j.token AND l.gateway = j.owner AND l.until > ",
    now!(),
    ")"
);

/// The connection that heartbeats go through, and since when they do without a gap.
#[derive(Default)]
pub(super) struct Heart {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    session: Option<Session>,
    /// When the unbroken series of heartbeats began, and the last of it.
    beats: Option<(Instant, Instant)>,
}

impl Heart {
    /// Announces, renews and takes, gives up, and reads what others have, in one transaction.
    pub(super) async fn beat(
        &self,
        settings: &PostgresSettings,
        tokens: &[TokenAnnouncement],
        wanted: &[TokenIdentity],
    ) -> Result<Leases, StoreError> {
        let mut state = self.state.lock().await;
        let beaten = state.beat(settings, tokens, wanted).await;
        if beaten.is_err() {
            // It may stand within a transaction.
            *state = State::default();
        }
        beaten
    }

    /// Whether leases that were not renewed are free.
    pub(super) async fn may_take(&self) -> bool {
        self.state.lock().await.may_take()
    }
}

impl State {
    fn may_take(&self) -> bool {
        self.beats.is_some_and(|(first, last)| last - first >= LEASE && last.elapsed() < SILENCE_MAX)
    }

    async fn beat(
        &mut self,
        settings: &PostgresSettings,
        tokens: &[TokenAnnouncement],
        wanted: &[TokenIdentity],
    ) -> Result<Leases, StoreError> {
        if self.beats.is_some_and(|(_, last)| last.elapsed() >= SILENCE_MAX) {
            self.beats = None;
        }
        let gateway = settings.gateway.as_uuid();
        let wanted = wanted.iter().map(token_text).collect::<Result<Vec<_>, _>>()?;
        let names = tokens.iter().map(|token| token_text(&token.slot.token)).collect::<Result<Vec<_>, _>>()?;
        let bodies = tokens.iter().map(body).collect::<Result<Vec<_>, _>>()?;
        let lease = i64::try_from(LEASE.as_millis()).unwrap_or(i64::MAX);
        let steps = vec![
            Step::new("BEGIN", Vec::new()),
            Step::new(ANNOUNCE, vec![Box::new(gateway), Box::new(names.clone()), Box::new(bodies)]),
            Step::new(WITHDRAW, vec![Box::new(gateway), Box::new(names)]),
            Step::new(TAKE, vec![Box::new(wanted.clone()), Box::new(gateway), Box::new(lease), Box::new(self.may_take())]),
            Step::new(GIVE_UP, vec![Box::new(wanted), Box::new(gateway)]),
            Step::new(REMOTE, vec![Box::new(gateway), Box::new(count(REMEMBERED_MILLIS))]),
            Step::new("COMMIT", Vec::new()),
        ];
        let answers = match self.session.as_ref().filter(|session| !session.is_closed()) {
            Some(session) => session.pipeline(steps).await?,
            None => {
                let session = Session::open(settings, "heartbeat").await?;
                self.session.insert(session).pipeline(steps).await?
            }
        };
        let now = Instant::now();
        self.beats = Some((self.beats.map_or(now, |(first, _)| first), now));
        let [_, _, _, taken, _, remote, _] = answers.as_slice() else {
            return Err(Fault::Refused("the heartbeat was not answered as it was asked".to_owned()).into());
        };
        let held = taken.rows.iter().map(|row| token_of(row::column(row, 0)?)).collect::<Result<_, _>>()?;
        // What a newer version announces in another form is left to gateways of that version.
        let remote = remote.rows.iter().filter_map(|row| remote_token(row).ok()).collect();
        Ok(Leases { held, remote })
    }
}

fn body(token: &TokenAnnouncement) -> Result<String, StoreError> {
    serde_json::to_string(token).map_err(|error| StoreError::Unavailable(format!("a token cannot be announced: {error}")))
}

fn remote_token(row: &tokio_postgres::Row) -> Result<RemoteToken, StoreError> {
    let until: Timestamp = timestamp(row::column(row, 2)?);
    let announced = serde_json::from_str(row::column(row, 3)?).map_err(|error| unreadable("an announcement", error))?;
    Ok(RemoteToken { gateway: row::column::<Uuid>(row, 0)?.into(), name: row::column(row, 1)?, until, announced })
}

/// The longest sensible pause between heartbeats leaves several within one lease.
const _: () = assert!(HEARTBEAT.as_secs() * 4 <= LEASE.as_secs());
