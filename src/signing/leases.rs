//! Which gateway a token belongs to, where several gateways share a store: what this one holds, and what the others announce.
//!
//! A store of one gateway's own needs nothing of this: every lease is held. Invariants: jobs of a token are claimed only while its lease is held,
//! by a clock that nobody sets, counted from before the store was asked; a token whose jobs are being signed is not given up.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tracing::{info, warn};

use crate::{
    domain::{
        key_uri::Pkcs11Uri,
        lease::{AnnouncedKey, HEARTBEAT, LEASE, Leases, RemoteToken, TokenAnnouncement},
        timestamp::Timestamp,
        token::{KeySelector, LoginMode, SlotState, SlotStatus, TokenIdentity},
    },
    store::StoreError,
    token::{
        command::{Command, Reply},
        slot::SlotHandle,
    },
};

use super::{dispatcher::Workshop, ended::JobTimes};

/// How long reading the keys of a token may take before it is announced without them.
const READ_MAX: Duration = Duration::from_secs(20);

/// After so long the keys of a token are read again: some may have been made.
const READ_AGAIN: Duration = Duration::from_secs(60);

/// How long giving the leases up may take when the gateway stops.
const GIVE_UP_MAX: Duration = Duration::from_secs(3);

/// A token of another gateway, and until when that gateway is taken to live.
#[derive(Debug, Clone)]
pub(super) struct Remote {
    pub(super) token: Arc<RemoteToken>,
    live_until: Instant,
}

impl Remote {
    /// Whether its gateway has been heard of lately.
    pub(super) fn lives(&self) -> bool {
        Instant::now() < self.live_until
    }

    /// For how long its gateway has been silent.
    pub(super) fn silent_for(&self) -> Duration {
        self.live_until.elapsed()
    }

    /// Its state, as far as it is known.
    pub(super) fn status(&self) -> SlotStatus {
        if self.lives() {
            return self.token.announced.slot.status.clone();
        }
        let reason = format!("gateway {} does not answer", self.token.name);
        SlotStatus { state: SlotState::Absent, reason, since: self.token.until }
    }
}

#[derive(Default)]
struct Book {
    /// Until when each lease is held.
    held: HashMap<TokenIdentity, Instant>,
    remote: Vec<Remote>,
    /// Tokens of this gateway that another one has.
    waiting: HashSet<TokenIdentity>,
}

/// Keys as they were read, when the token had this epoch.
struct ReadKeys {
    epoch: u64,
    at: Instant,
    keys: Vec<AnnouncedKey>,
    /// The token's objects were changed since.
    stale: bool,
}

/// Who has which token. Without a shared store, this gateway has all of them.
pub(super) struct LeaseBook {
    shared: bool,
    book: watch::Sender<Book>,
    /// Tokens that have jobs that are claimed and not settled.
    busy: Mutex<HashSet<TokenIdentity>>,
    keys: Mutex<HashMap<TokenIdentity, ReadKeys>>,
    /// Keys have been read that are not announced yet.
    news: Notify,
}

impl LeaseBook {
    pub(super) fn new(shared: bool) -> Self {
        Self { shared, book: watch::Sender::default(), busy: Mutex::default(), keys: Mutex::default(), news: Notify::new() }
    }

    /// Whether this gateway may claim jobs of the token now.
    pub(super) fn holds(&self, token: &TokenIdentity) -> bool {
        !self.shared || self.book.borrow().held.get(token).is_some_and(|until| Instant::now() < *until)
    }

    /// Waits until something may have changed.
    pub(super) async fn changed(&self, seen: &mut Seen) {
        // The sender lives as long as the book.
        let _ = seen.0.changed().await;
    }

    pub(super) fn watch(&self) -> Seen {
        Seen(self.book.subscribe())
    }

    /// Notes whether jobs of the token are claimed and not settled.
    pub(super) fn set_busy(&self, token: &TokenIdentity, busy: bool) {
        if !self.shared {
            return;
        }
        let mut tokens = lock(&self.busy);
        if !busy {
            tokens.remove(token);
        } else if !tokens.contains(token) {
            tokens.insert(token.clone());
        }
    }

    /// The tokens of other gateways.
    pub(super) fn remote(&self) -> Vec<Remote> {
        self.book.borrow().remote.clone()
    }

    /// The gateway that has this token, if another one has.
    pub(super) fn elsewhere(&self, token: &TokenIdentity) -> Option<Remote> {
        self.book.borrow().remote.iter().find(|remote| remote.token.token() == token).cloned()
    }

    /// The tokens of other gateways that `uri` names; those of silent gateways count only if there is no other.
    pub(super) fn find(&self, uri: &Pkcs11Uri) -> Vec<Remote> {
        let matching = self.remote().into_iter().filter(|remote| uri.matches_token(remote.token.token()));
        let (live, silent): (Vec<_>, Vec<_>) = matching.partition(Remote::lives);
        if live.is_empty() { silent } else { live }
    }

    fn note(&self, leases: Leases, asked: Instant, now: Timestamp, own: &[SlotHandle]) {
        let remote: Vec<_> =
            leases.remote.into_iter().map(|token| Remote { live_until: live_until(asked, now, &token), token: Arc::new(token) }).collect();
        let mut waiting = HashSet::new();
        for slot in own.iter().filter(|slot| slot.status().state != SlotState::Absent) {
            let Some(holder) = remote.iter().find(|remote| remote.token.token() == slot.token()) else { continue };
            if !self.book.borrow().waiting.contains(slot.token()) {
                let name = &holder.token.name;
                warn!(slot.token = %slot.token(), gateway.name = %name, "gateway {name} has the token {}; this one waits", slot.token());
            }
            waiting.insert(slot.token().clone());
        }
        let held = leases.held.into_iter().map(|token| (token, asked + LEASE)).collect::<HashMap<_, _>>();
        for token in held.keys().filter(|token| self.book.borrow().waiting.contains(*token)) {
            info!(slot.token = %token, "the token {token} has come to this gateway");
        }
        self.book.send_replace(Book { held, remote, waiting });
    }

    /// The token as this gateway announces it.
    fn announcement(&self, slot: &SlotHandle) -> TokenAnnouncement {
        let keys = lock(&self.keys).get(slot.token()).filter(|read| read.epoch == slot.epoch()).map(|read| read.keys.clone());
        TokenAnnouncement { slot: slot.report(), queue_bound: slot.policy().queue_bound, keys: keys.unwrap_or_default() }
    }

    /// Has the token's keys read and announced again soon, because its objects were changed.
    pub(super) fn token_changed(&self, token: &TokenIdentity) {
        if !self.shared {
            return;
        }
        if let Some(read) = lock(&self.keys).get_mut(token) {
            read.stale = true;
        }
        self.news.notify_one();
    }

    /// Whether the keys should be read (again).
    fn wants_keys(&self, slot: &SlotHandle) -> bool {
        let ready = slot.status().state.takes_work() && slot.login_mode() != LoginMode::PerRequest;
        let again = |read: &ReadKeys| if read.keys.is_empty() { HEARTBEAT } else { READ_AGAIN };
        let known = |read: &&ReadKeys| !read.stale && read.epoch == slot.epoch() && read.at.elapsed() < again(read);
        ready && lock(&self.keys).get(slot.token()).filter(known).is_none()
    }
}

/// What was seen of a [`LeaseBook`].
pub(super) struct Seen(watch::Receiver<Book>);

/// The database's times are of its clock; how long is left is the same by ours.
fn live_until(asked: Instant, now: Timestamp, token: &RemoteToken) -> Instant {
    let ago = now.since(token.until);
    let end = asked + token.until.since(now);
    end.checked_sub(ago).unwrap_or(asked)
}

/// Announces this gateway's tokens, renews and takes leases, and ends what dead gateways have left, until `stop` is set; then gives all up.
pub(super) async fn keep_announcing(workshop: Arc<Workshop>, mut stop: watch::Receiver<bool>) {
    let mut ticks = interval(HEARTBEAT);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut changes = workshop.keyring.tokens().changes();
    let mut reached = true;
    while !*stop.borrow_and_update() {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = changes.changed() => {}
            () = workshop.keyring.leases.news.notified() => {}
            _ = stop.changed() => continue,
        }
        let beaten = beat(&workshop).await;
        match &beaten {
            Ok(()) if !reached => info!("the leases of this gateway's tokens are renewed again"),
            Err(error) if reached => warn!(error = %error, "the leases of this gateway's tokens could not be renewed"),
            _ => {}
        }
        reached = beaten.is_ok();
    }
    let given_up = timeout(GIVE_UP_MAX, workshop.store.announce(&[], &[])).await;
    if !matches!(given_up, Ok(Ok(_))) {
        warn!("the leases could not be given up; they end by themselves");
    }
}

async fn beat(workshop: &Arc<Workshop>) -> Result<(), StoreError> {
    let book = &workshop.keyring.leases;
    let slots = workshop.keyring.tokens().slots();
    for slot in slots.iter().filter(|slot| book.wants_keys(slot)) {
        tokio::spawn(read_keys(Arc::clone(workshop), slot.clone()));
    }
    let busy = lock(&book.busy).clone();
    let present: Vec<_> = slots.iter().filter(|slot| slot.status().state != SlotState::Absent || busy.contains(slot.token())).collect();
    let announcements: Vec<_> = present.iter().map(|slot| book.announcement(slot)).collect();
    let wanted: Vec<_> = present.iter().map(|slot| slot.token().clone()).collect();
    let asked = Instant::now();
    let leases = workshop.store.announce(&announcements, &wanted).await?;
    book.note(leases, asked, workshop.store.now(), &slots);
    for orphan in workshop.store.settle_orphans().await? {
        let Some(job) = workshop.store.find_job(orphan).await? else { continue };
        if let Some(outcome) = &job.outcome {
            // Nobody here saw how long it took.
            workshop.ended.note(&job, outcome, JobTimes::default());
        }
    }
    Ok(())
}

/// Asks a token for its keys and what it can sign with each, so that other gateways need not.
async fn read_keys(workshop: Arc<Workshop>, slot: SlotHandle) {
    let book = &workshop.keyring.leases;
    let epoch = slot.epoch();
    // What is known stays announced while it is read again; noting the time first keeps others from reading, too.
    let before = lock(&book.keys).remove(slot.token()).filter(|read| read.epoch == epoch).map(|read| read.keys).unwrap_or_default();
    lock(&book.keys).insert(slot.token().clone(), ReadKeys { epoch, at: Instant::now(), keys: before, stale: false });
    let Ok(Some(keys)) = timeout(READ_MAX, ask_for_keys(&slot)).await else { return };
    {
        let mut known = lock(&book.keys);
        // What was changed while it was read is read once more.
        let stale = known.get(slot.token()).is_some_and(|read| read.stale);
        known.insert(slot.token().clone(), ReadKeys { epoch, at: Instant::now(), keys, stale });
    }
    book.news.notify_one();
}

async fn ask_for_keys(slot: &SlotHandle) -> Option<Vec<AnnouncedKey>> {
    let Ok(Reply::Keys(found)) = slot.call(Command::ListKeys).await else { return None };
    let mut keys = Vec::with_capacity(found.len());
    for key in found {
        let selector = KeySelector { id: (!key.id.is_empty()).then_some(key.id), label: (!key.label.is_empty()).then_some(key.label) };
        // A key that cannot be told from another one is not announced: nobody could ask for it.
        if let Ok(Reply::Key { key, algorithms }) = slot.call(Command::DescribeKey { key: selector, pin: None }).await {
            keys.push(AnnouncedKey { key, algorithms });
        }
    }
    Some(keys)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
