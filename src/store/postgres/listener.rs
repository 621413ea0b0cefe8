//! One connection that hears what other gateways did, keeps the clock, and looks for itself once a second in case something was not heard.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tracing::{debug, warn};
use uuid::Uuid;

use super::{
    Shared,
    news::{self, CHANNEL, News},
    row,
    session::{Fault, Session},
};
use crate::store::{
    StoreError,
    columns::{token_of, token_text},
    rows::Moved,
};

/// How often it looks for itself.
const POLL_EVERY: Duration = Duration::from_secs(1);

/// The pause before the database is tried again; it doubles up to the second one.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

const CLOCK: &str = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint";
/// A job that was forgotten has ended, too.
const ENDED: &str = "SELECT id FROM unnest($1::uuid[]) AS id WHERE NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.id = id.id AND ended IS NULL)";
const WORK: &str = "SELECT token FROM unnest($1::text[]) AS t(token) \
    WHERE EXISTS (SELECT 1 FROM jobs WHERE jobs.token = t.token AND state = 'queued')";
/// A permit that was forgotten is decided, too.
const DECIDED: &str =
    "SELECT id FROM unnest($1::uuid[]) AS id WHERE NOT EXISTS (SELECT 1 FROM permits WHERE permits.id = id.id AND state = 'asked')";

/// Listens for as long as the store is there.
pub(super) async fn listen(shared: Arc<Shared>) {
    let mut pause = PAUSE.0;
    loop {
        match heard_until_lost(&shared, &mut pause).await {
            Ok(never) => match never {},
            Err(error) => debug!(error = %error, "the listening connection is lost"),
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}

enum Never {}

async fn heard_until_lost(shared: &Shared, pause: &mut Duration) -> Result<Never, StoreError> {
    let (session, mut notifications) = Session::open_listening(&shared.settings, "listener").await?;
    session.batch(&format!("LISTEN {CHANNEL}")).await?;
    read_clock(shared, &session).await?;
    *pause = PAUSE.0;
    // Whatever was told before is not told again.
    shared.waiters.permits_changed();
    shared.waiters.wake(&[Moved::Callers]);
    let mut ticks = interval(POLL_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            payload = notifications.recv() => {
                let payload = payload.ok_or_else(|| Fault::Away("the connection broke".to_owned()))?;
                spread(shared, &payload);
            }
            _ = ticks.tick() => {
                read_clock(shared, &session).await?;
                look(shared, &session).await?;
            }
        }
    }
}

fn spread(shared: &Shared, payload: &str) {
    let mut moved = Vec::new();
    for news in news::heard(payload) {
        match news {
            News::Ended(job) => moved.push(Moved::Ended(job)),
            News::Permit(permit) => moved.push(Moved::Permit(permit)),
            News::Callers => moved.push(Moved::Callers),
            News::Work(mark) => {
                let meant = |token: &_| news::token_mark(token) == mark;
                moved.extend(shared.waiters.work_waited_for().into_iter().filter(meant).map(Moved::Queued));
            }
        }
    }
    shared.waiters.wake(&moved);
}

/// Looks whether anything that is waited for has happened.
async fn look(shared: &Shared, session: &Session) -> Result<(), StoreError> {
    let mut moved = Vec::new();
    let jobs: Vec<Uuid> = shared.waiters.ends_waited_for().iter().map(|job| job.as_uuid()).collect();
    if !jobs.is_empty() {
        for row in session.query(ENDED, &[&jobs]).await? {
            moved.push(Moved::Ended(row::column::<Uuid>(&row, 0)?.into()));
        }
    }
    let permits: Vec<Uuid> = shared.waiters.decisions_waited_for().iter().map(|permit| permit.as_uuid()).collect();
    if !permits.is_empty() {
        for row in session.query(DECIDED, &[&permits]).await? {
            moved.push(Moved::Permit(row::column::<Uuid>(&row, 0)?.into()));
        }
    }
    let tokens = shared.waiters.work_waited_for().iter().map(token_text).collect::<Result<Vec<_>, _>>()?;
    if !tokens.is_empty() {
        for row in session.query(WORK, &[&tokens]).await? {
            moved.push(Moved::Queued(token_of(row::column(&row, 0)?)?));
        }
    }
    shared.waiters.wake(&moved);
    Ok(())
}

async fn read_clock(shared: &Shared, session: &Session) -> Result<(), StoreError> {
    let asked = Instant::now();
    let rows = session.query(CLOCK, &[]).await?;
    let Some(row) = rows.first() else { return Err(Fault::Refused("the clock did not answer".to_owned()).into()) };
    let millis: i64 = row::column(row, 0)?;
    let way = asked.elapsed();
    if shared.clock.set(millis, asked + way / 2) {
        warn!("the database's clock has jumped by more than a minute; times follow it");
    }
    Ok(())
}
