//! What is left of documents that were deleted or have expired: nothing, in no file of the gateway.

use std::{
    collections::HashSet,
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use sealgate::{
    domain::{
        caller::Caller,
        ids::{GatewayId, TicketId},
    },
    store::sqlite::{SqliteSettings, SqliteStore},
    ticket::{TicketService, TicketSettings},
};
use tokio::task::JoinSet;

use super::common::gateway::{PATIENCE, Plan};

/// What every document and every text for the operator begins with; its number follows, and a full stop.
const MARK: &[u8] = b"remains-of-";
const IDLE: Duration = Duration::from_secs(3600);
const TICKETS: usize = 300;

/// Numbers that look random and are the same in each run.
fn scattered(n: usize) -> usize {
    (n.wrapping_mul(2_654_435_761) >> 7) % 10_007
}

/// A document of some length, marked at its beginning and its end.
fn marked(number: usize, len: usize) -> Vec<u8> {
    let mark = [MARK, number.to_string().as_bytes(), b"."].concat();
    [&mark[..], &vec![b'x'; len], &mark].concat()
}

/// Numbers of the marks in any file below `dir`.
fn found(dir: &Path, numbers: &mut HashSet<usize>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found(&path, numbers);
            continue;
        }
        // A spooled file may go while we look.
        let bytes = fs::read(&path).unwrap_or_default();
        let marks = bytes.windows(MARK.len()).enumerate().filter(|(_, window)| *window == MARK).map(|(at, _)| &bytes[at + MARK.len()..]);
        // Cut off by the end of a page it still tells of remains.
        numbers.extend(
            marks.map(|rest| rest.iter().take_while(|byte| byte.is_ascii_digit()).fold(0, |n, digit| n * 10 + usize::from(digit - b'0'))),
        );
    }
}

/// Waits until only `live` are left, which are there.
async fn until_only(dir: &Path, live: &HashSet<usize>) {
    let began = Instant::now();
    loop {
        let mut numbers = HashSet::new();
        found(dir, &mut numbers);
        if numbers == *live {
            return;
        }
        let dead: Vec<_> = numbers.difference(live).collect();
        assert!(began.elapsed() < PATIENCE, "of these something is left: {dead:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Makes a ticket with a marked document and, in every second one, marked metadata.
async fn fill(tickets: Arc<TicketService>, caller: Caller, number: usize) -> (usize, TicketId) {
    let id = tickets.create(&caller).await.unwrap();
    // Short ones share pages, longer ones have their own, the longest are spooled.
    let mut upload = tickets.begin_upload(&caller, id).await.unwrap();
    upload.write(&marked(number, scattered(number))).await.unwrap();
    tickets.finish_upload(&caller, id, upload).await.unwrap();
    if number.is_multiple_of(2) {
        let text = String::from_utf8(marked(number, scattered(number + 1) % 3000)).unwrap();
        tickets.set_metadata(&caller, id, text).await.unwrap();
    }
    (number, id)
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_of_documents_that_were_deleted_or_have_expired() {
    let mut plan = Plan::new();
    let settings = SqliteSettings::new(plan.directory.path().join("sealgate.db"), GatewayId::random());
    plan.store = Arc::new(SqliteStore::open(settings).unwrap());
    plan.tickets = TicketSettings { spool_threshold: 8_000, idle_lifetime: IDLE, ..plan.tickets };
    let caller = plan.caller("ci").caller.clone();
    let gateway = plan.start().await;
    let dir = gateway.directory.path();
    let mut live: Vec<(usize, TicketId)> = Vec::new();
    for round in 0..3 {
        let numbers = round * TICKETS + 1..=(round + 1) * TICKETS;
        let made: JoinSet<_> = numbers.map(|number| fill(Arc::clone(&gateway.tickets), caller.clone(), number)).collect();
        live.extend(made.join_all().await);
        let (gone, stays): (Vec<_>, _) = live.into_iter().partition(|(number, _)| scattered(number + round).is_multiple_of(2));
        for (_, id) in gone {
            gateway.tickets.delete(&caller, id).await.unwrap();
        }
        live = stays;
        until_only(dir, &live.iter().map(|(number, _)| *number).collect()).await;
    }
    assert!(live.len() > TICKETS / 4);
    gateway.tickets.remove_idle(gateway.store.now().after(IDLE * 2)).await.unwrap();
    until_only(dir, &HashSet::new()).await;
    gateway.stop().await;
}
