//! What only a store that gateways share must do, and what it does when its database goes away.
//!
//! What every store must do stands in store_contract.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "common/postgres.rs"]
#[allow(dead_code)]
mod postgres_server;

use std::{
    path::Path,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use futures_util::{future::join_all, poll};
use sealgate::{
    domain::{
        algorithm::{HashAlgorithm, KeyKind, SignatureAlgorithm},
        audit::{AuditEvent, Consent, Sha256},
        caller::Provenance,
        digest::{Digest, SigningInput, ToSign},
        idempotency::{IdempotentRequest, RequestDone},
        ids::{CallerId, GatewayId, JobId, PermitId, TicketId},
        job::{FailureCause, JobOutcome, JobState, KeyAddress, SigningJob},
        key::KeyChoice,
        permit::Permit,
        pin::{LedgerInstance, LedgerKey, LedgerRefusal, LoginAttempt, LoginVerdict, Pin, PinLedger as _, PinOrigin},
        signature::SignatureValue,
        ticket::{SignatureOptions, Ticket},
        timestamp::Timestamp,
        token::{KeySelector, TokenIdentity},
    },
    store::{
        Change, Conflict, Store, StoreError,
        pin_ledger::StoredPinLedger,
        postgres::{PostgresError, PostgresSettings, PostgresStore, SharedPinLedger},
    },
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
    time::{Instant, timeout},
};

use self::postgres_server::Postgres;

/// After so long a test that waits for an event has failed.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a store of these tests waits for its database.
const WAIT: Duration = Duration::from_secs(1);

fn caller(name: &str) -> CallerId {
    name.parse().unwrap()
}

fn token() -> TokenIdentity {
    let [manufacturer, model, serial, label] = ["m", "o", "s", "l"].map(str::to_owned);
    TokenIdentity { module: "softhsm".parse().unwrap(), manufacturer, model, serial, label }
}

fn job(store: &PostgresStore) -> SigningJob {
    let digest = Digest::new(HashAlgorithm::Sha256, vec![7; 32]).unwrap();
    SigningJob {
        id: JobId::random(),
        caller: caller("a"),
        from: Provenance::default(),
        key: KeyAddress { token: token(), selector: KeySelector { id: Some(vec![1]), label: None }, name: None },
        to_sign: ToSign::new(SignatureAlgorithm::RsaPkcs1(HashAlgorithm::Sha256), SigningInput::Digest(digest)).unwrap(),
        certificate_serial: None,
        consent: Consent::Policy,
        permit: None,
        with_pin: false,
        accepted: store.now(),
        deadline: store.now().after(Duration::from_secs(600)),
        state: JobState::Queued,
        claim: None,
        outcome: None,
    }
}

fn accept(job: &SigningJob) -> Change {
    Change::AcceptJob { job: job.clone(), queue_bound: 10_000 }
}

fn signed(job: &SigningJob) -> Change {
    let outcome = JobOutcome::Signed(SignatureValue::from_token(&KeyKind::Rsa { modulus_bits: 2048 }, vec![1; 256]).unwrap());
    Change::EndJob { job: job.id, claim: job.claim, outcome }
}

fn ticket() -> Ticket {
    Ticket {
        id: TicketId::random(),
        caller: caller("a"),
        touched: Timestamp::from_millis(1),
        options: SignatureOptions::default(),
        content: None,
        signature: None,
        metadata: None,
        key: KeyChoice::Default,
        signing: None,
        verifying: None,
        modifying: None,
        time_stamp: None,
        version: 0,
    }
}

fn insert(ticket: &Ticket) -> Change {
    Change::InsertTicket { ticket: ticket.clone(), limit: 10_000 }
}

fn permit(uses: u32) -> Permit {
    let expires = Timestamp::from_millis(u64::from(u32::MAX) * 1_000);
    Permit::by_policy(PermitId::random(), caller("a"), uses, expires)
}

fn settings(url: &str) -> PostgresSettings {
    PostgresSettings::new(url, GatewayId::random()).unwrap().with_wait(WAIT)
}

async fn open(url: &str) -> Arc<PostgresStore> {
    Arc::new(PostgresStore::open(settings(url)).await.unwrap())
}

/// A new database on the server that the tests share.
async fn database() -> String {
    tokio::task::spawn_blocking(|| Postgres::shared().new_database()).await.unwrap()
}

async fn sql(url: &str, sql: &'static str) -> String {
    let url = url.to_owned();
    tokio::task::spawn_blocking(move || Postgres::shared().sql(&url, sql)).await.unwrap()
}

/// Does something to a server that only the test has.
async fn act(mut server: Postgres, act: fn(&mut Postgres)) -> Postgres {
    tokio::task::spawn_blocking(move || {
        act(&mut server);
        server
    })
    .await
    .unwrap()
}

async fn own_server() -> (Postgres, String) {
    tokio::task::spawn_blocking(|| {
        let server = Postgres::start_new();
        let url = server.new_database();
        (server, url)
    })
    .await
    .unwrap()
}

fn is_unavailable<T>(result: &Result<T, StoreError>) -> bool {
    matches!(result, Err(StoreError::Unavailable(_)))
}

/// Commits as a client does that obeys Retry-After.
async fn commit_in_the_end(store: &PostgresStore, changes: Vec<Change>) -> Result<(), StoreError> {
    let start = Instant::now();
    loop {
        match store.commit(changes.clone()).await {
            Err(StoreError::Unavailable(_)) if start.elapsed() < PATIENCE => {}
            result => return result,
        }
    }
}

// Several gateways.

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_job_accepted_by_one_gateway_is_signed_by_another_and_its_waiter_woken() {
    let url = database().await;
    let (here, there) = (open(&url).await, open(&url).await);
    let wanted = job(&here);
    let owner = tokio::spawn({
        let there = Arc::clone(&there);
        async move {
            there.wait_for_work(&token()).await;
            let claimed = there.claim_jobs(&token(), 9, there.now()).await.unwrap();
            there.commit(claimed.iter().map(signed).collect()).await.unwrap();
        }
    });
    here.commit(vec![accept(&wanted)]).await.unwrap();
    let ended = timeout(PATIENCE, here.wait_for_end(wanted.id)).await.unwrap().unwrap();
    assert_eq!(ended.state, JobState::Signed);
    owner.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_nobody_told_is_found_by_looking() {
    let url = database().await;
    let store = open(&url).await;
    let wanted = job(&store);
    store.commit(vec![accept(&wanted)]).await.unwrap();
    let mut waiting = pin!(store.wait_for_end(wanted.id));
    assert!(poll!(waiting.as_mut()).is_pending());
    sql(&url, "UPDATE jobs SET state = 'cancelled', ended = 1").await;
    assert_eq!(timeout(PATIENCE, waiting).await.unwrap().unwrap().state, JobState::Cancelled);
    store.wait_for_work(&token()).now_or_never_is_none().await;
    sql(&url, "UPDATE jobs SET state = 'queued', ended = NULL").await;
    timeout(PATIENCE, store.wait_for_work(&token())).await.unwrap();
}

/// Waits that must not be over yet.
trait NotYet: Future {
    async fn now_or_never_is_none(self);
}

impl<F: Future> NotYet for F {
    async fn now_or_never_is_none(self) {
        assert!(poll!(pin!(self)).is_pending());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_gateway_lists_only_its_own_claims_and_each_job_is_claimed_once() {
    let url = database().await;
    let (here, there) = (open(&url).await, open(&url).await);
    let jobs: Vec<_> = (0..40).map(|_| job(&here)).collect();
    here.commit(jobs.iter().map(accept).collect()).await.unwrap();
    let claims = join_all((0..8).map(|n| {
        let store = if n % 2 == 0 { Arc::clone(&here) } else { Arc::clone(&there) };
        async move { store.claim_jobs(&token(), 5, store.now()).await.unwrap().len() }
    }))
    .await;
    // A claim skips what another one holds at that moment, so it may get less than there is.
    let mut claimed: usize = claims.iter().sum();
    while claimed < 40 {
        claimed += here.claim_jobs(&token(), 5, here.now()).await.unwrap().len();
    }
    let (own, other) = (here.claimed_jobs().await.unwrap(), there.claimed_jobs().await.unwrap());
    assert_eq!((claimed, own.len() + other.len()), (40, 40));
    assert!(own.iter().all(|job| other.iter().all(|theirs| theirs.id != job.id)));
    // A result that comes from a gateway whose claim is over is not recorded.
    let lost = own[0].clone();
    here.commit(vec![Change::RequeueJob { job: lost.id, claim: lost.claim }]).await.unwrap();
    assert_eq!(there.claim_jobs(&token(), 1, there.now()).await.unwrap().len(), 1);
    assert_eq!(here.commit(vec![signed(&lost)]).await, Err(Conflict::JobMoved.into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_same_request_sent_to_two_gateways_makes_one_job() {
    let url = database().await;
    let stores = [open(&url).await, open(&url).await];
    for round in 0..10 {
        let request = |store: &PostgresStore| {
            let done = RequestDone { fingerprint: Sha256::of(b"x"), signings: Vec::new() };
            let key = format!("round {round}").parse().unwrap();
            let keep = IdempotentRequest { caller: caller("a"), key, done, expires: store.now().after(PATIENCE) };
            vec![accept(&job(store)), Change::KeepRequest(keep)]
        };
        let results = join_all(stores.iter().map(|store| store.commit(request(store)))).await;
        let refused: Vec<_> = results.into_iter().filter_map(Result::err).collect();
        assert_eq!(refused, [StoreError::Conflict(Conflict::RequestKnown)]);
    }
    assert_eq!(stores[0].count_queued(&token()).await, Ok(10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn gateways_that_use_the_same_permits_in_any_order_neither_block_nor_overspend() {
    const JOBS: u32 = 60;
    let url = database().await;
    let stores = [open(&url).await, open(&url).await];
    let permits: Vec<_> = (0..4).map(|_| permit(JOBS)).collect();
    stores[0].commit(permits.iter().cloned().map(Change::InsertPermit).collect()).await.unwrap();
    let tasks = (0..JOBS as usize * 2).map(|n| {
        let store = Arc::clone(&stores[n % 2]);
        // Each commit takes all permits, every other one in the opposite order.
        let mut order = permits.clone();
        if n % 4 < 2 {
            order.reverse();
        }
        tokio::spawn(async move {
            let paid = |permit: &Permit| accept(&SigningJob { permit: Some(permit.id), ..job(&store) });
            store.commit(order.iter().map(paid).collect()).await.is_ok()
        })
    });
    let accepted = timeout(PATIENCE, join_all(tasks)).await.unwrap().into_iter().filter(|done| *done.as_ref().unwrap()).count();
    assert_eq!(accepted, JOBS as usize);
    for permit in &permits {
        assert_eq!(stores[1].find_permit(permit.id).await.unwrap().unwrap().reserved, JOBS);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_gateway_has_an_audit_log_of_its_own() {
    let url = database().await;
    let stores = [open(&url).await, open(&url).await];
    for (store, records) in stores.iter().zip([2, 3]) {
        for _ in 0..records {
            store.commit(vec![Change::Audit(AuditEvent::GatewayStopped)]).await.unwrap();
        }
        let head = store.audit_head().await.unwrap();
        assert_eq!((head.seq, stores[0].audit_records(head.gateway, 1, 9).await.unwrap().len()), (records, records as usize));
    }
    assert_eq!(stores[0].audit_logs().await.unwrap().len(), 2);
}

// Bugs.

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_bug_that_panics_in_the_writer_refuses_what_was_written_and_stops_nobody_else() {
    let url = database().await;
    let store = open(&url).await;
    for _ in 0..3 {
        let (before, after) = (job(&store), job(&store));
        store.commit(vec![accept(&before)]).await.unwrap();
        assert!(is_unavailable(&store.meet_a_bug().await));
        store.commit(vec![accept(&after)]).await.unwrap();
        assert_eq!(store.claim_jobs(&token(), 9, store.now()).await.unwrap().len(), 2);
    }
    assert_eq!(sql(&url, "SELECT count(*)::text FROM jobs WHERE state = 'signing'").await, "6");
}

// PINs.

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_card_that_rejected_a_pin_at_one_gateway_is_tried_at_another_one_by_an_operator_only() {
    let url = database().await;
    drop(open(&url).await);
    tokio::task::spawn_blocking(move || {
        let ledger = || SharedPinLedger::start(Arc::new(StoredPinLedger::in_memory().unwrap()), settings(&url)).unwrap();
        let (here, there) = (ledger(), ledger());
        let pin = |text: &str| Pin::new(text.to_owned()).unwrap();
        let attempt =
            |pin, origin| LoginAttempt { token: LedgerKey::of(&token()), pin, origin, known_good: false, instance: LedgerInstance(1) };
        let (wrong, right) = (pin("1111"), pin("2222"));

        let first = attempt(&wrong, PinOrigin::Configured);
        here.begin(&first).unwrap();
        here.end(&first, LoginVerdict::Rejected);
        for origin in [PinOrigin::Configured, PinOrigin::Request] {
            // What was told is written before the next question is answered, but not by whom.
            let start = std::time::Instant::now();
            let refused = loop {
                match there.begin(&attempt(&right, origin)) {
                    Ok(()) if start.elapsed() < PATIENCE => there.end(&attempt(&right, origin), LoginVerdict::NotTried),
                    other => break other,
                }
            };
            assert_eq!(refused, Err(LedgerRefusal::RejectedElsewhere));
        }
        // Here the gateway's own record decides: another value may be tried.
        here.begin(&attempt(&right, PinOrigin::Configured)).unwrap();
        here.end(&attempt(&right, PinOrigin::Configured), LoginVerdict::NotTried);
        // An operator logs it in there, and all is well everywhere.
        let typed = attempt(&right, PinOrigin::Operator { insist: false });
        there.begin(&typed).unwrap();
        there.end(&typed, LoginVerdict::Accepted);
        there.begin(&attempt(&right, PinOrigin::Configured)).unwrap();
        assert_eq!(here.begin(&first), Err(LedgerRefusal::RejectedBefore));
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_pin_rejected_while_the_database_is_away_is_told_before_the_gateway_has_stopped() {
    let (mut server, url) = own_server().await;
    drop(open(&url).await);
    tokio::task::spawn_blocking(move || {
        let ledger = || SharedPinLedger::start(Arc::new(StoredPinLedger::in_memory().unwrap()), settings(&url)).unwrap();
        let (here, there) = (ledger(), ledger());
        let wrong = Pin::new("1111".to_owned()).unwrap();
        let attempt =
            |origin| LoginAttempt { token: LedgerKey::of(&token()), pin: &wrong, origin, known_good: false, instance: LedgerInstance(1) };
        assert!(here.finish(PATIENCE), "nothing is to be told");
        server.stop();
        let typed = attempt(PinOrigin::Operator { insist: false });
        here.begin(&typed).unwrap();
        here.end(&typed, LoginVerdict::Rejected);
        assert!(!here.finish(Duration::ZERO), "it cannot be told, and says so");
        server.start();
        assert!(here.finish(PATIENCE));
        drop(here);
        assert_eq!(there.begin(&attempt(PinOrigin::Configured)), Err(LedgerRefusal::RejectedElsewhere));
    })
    .await
    .unwrap();
}

// The database's format.

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_database_of_a_newer_version_is_refused_and_left_alone() {
    let url = database().await;
    drop(open(&url).await);
    let complete = "SELECT count(*) = max(version) AND bool_and(applied <= now() AND sealgate <> '') FROM sealgate_schema";
    assert_eq!(sql(&url, complete).await, "t");
    drop(open(&url).await);
    sql(&url, "INSERT INTO sealgate_schema (version, sealgate) VALUES (999, 'later')").await;
    let refused = PostgresStore::open(settings(&url)).await.err().unwrap();
    assert!(matches!(refused, PostgresError::NewerSchema { found: 999, .. }), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn gateways_that_start_together_make_the_tables_once() {
    let url = database().await;
    let stores = join_all((0..6).map(|_| open(&url))).await;
    assert_eq!(stores.len(), 6);
    assert_eq!(sql(&url, "SELECT count(*) FROM gateways").await, "6");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_user_of_the_database_that_may_make_no_tables_uses_those_that_are_there() {
    let url = database().await;
    drop(open(&url).await);
    sql(&url, "DROP ROLE IF EXISTS clerk").await;
    sql(&url, "CREATE ROLE clerk LOGIN; GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO clerk").await;
    let store = open(&url.replace("sealgate@", "clerk@")).await;
    store.commit(vec![accept(&job(&store))]).await.unwrap();
}

// TLS.

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sslmode_means_what_it_means_to_psql() {
    let made = tokio::task::spawn_blocking(|| {
        let made = Postgres::with_tls("localhost");
        let other = Postgres::with_tls("localhost");
        (made, std::fs::read(&other.2).unwrap())
    });
    let ((server, port, ca), other_ca) = made.await.unwrap();
    let other = server.directory().join("other.pem");
    std::fs::write(&other, other_ca).unwrap();
    let opened = |host: &str, options: &str| {
        let settings = settings(&format!("postgres://sealgate@{host}:{port}/postgres?{options}"));
        async move { PostgresStore::open(settings).await }
    };
    let (ca, other) = (ca.display(), other.display());
    for (host, options) in [
        ("localhost", "sslmode=disable".to_owned()),
        ("localhost", "sslmode=require".to_owned()),
        ("127.0.0.1", "sslmode=require".to_owned()),
        ("127.0.0.1", format!("sslmode=verify-ca&sslrootcert={ca}")),
        ("localhost", format!("sslmode=verify-full&sslrootcert={ca}")),
    ] {
        let store = opened(host, &options).await.unwrap_or_else(|error| panic!("{options}: {error}"));
        store.commit(vec![Change::Audit(AuditEvent::GatewayStopped)]).await.unwrap();
    }
    for (host, options) in [
        ("127.0.0.1", format!("sslmode=verify-full&sslrootcert={ca}")),
        ("localhost", format!("sslmode=verify-full&sslrootcert={other}")),
        ("localhost", format!("sslmode=verify-ca&sslrootcert={other}")),
        ("localhost", format!("sslmode=require&sslrootcert={other}")),
        ("localhost", "sslmode=verify-full".to_owned()),
        ("localhost", "sslmode=verify-full&sslrootcert=/nowhere.pem".to_owned()),
    ] {
        assert!(opened(host, &options).await.is_err(), "{host} {options}");
    }
    drop(server);
}

// The database away.

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn while_the_database_is_away_work_is_refused_in_time_and_goes_on_when_it_is_back() {
    let (server, url) = own_server().await;
    let store = open(&url).await;
    let (before, after) = (job(&store), job(&store));
    store.commit(vec![accept(&before)]).await.unwrap();
    let waiter = tokio::spawn({
        let (store, id) = (Arc::clone(&store), before.id);
        async move { store.wait_for_end(id).await }
    });

    let server = act(server, Postgres::stop).await;
    let token_away = token();
    let (committed, found, claimed) = timeout(PATIENCE, async {
        tokio::join!(store.commit(vec![accept(&after)]), store.find_job(before.id), store.claim_jobs(&token_away, 1, store.now()))
    })
    .await
    .unwrap();
    assert!(is_unavailable(&committed) && is_unavailable(&found) && is_unavailable(&claimed), "{committed:?} {found:?} {claimed:?}");

    let server = act(server, Postgres::start).await;
    commit_in_the_end(&store, vec![accept(&after)]).await.unwrap();
    let claimed = store.claim_jobs(&token(), 9, store.now()).await.unwrap();
    assert_eq!(claimed.iter().map(|job| job.id).collect::<Vec<_>>(), [before.id, after.id]);
    store.commit(claimed.iter().map(signed).collect()).await.unwrap();
    assert_eq!(timeout(PATIENCE, waiter).await.unwrap().unwrap().unwrap().state, JobState::Signed);
    drop(server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_that_crashes_under_load_loses_and_repeats_nothing() {
    const JOBS: usize = 120;
    let (mut server, url) = own_server().await;
    let stores = [open(&url).await, open(&url).await];
    let clients: Vec<_> = (0..JOBS)
        .map(|n| {
            let store = Arc::clone(&stores[n % 2]);
            tokio::spawn(async move {
                let wanted = job(&store);
                commit_in_the_end(&store, vec![accept(&wanted)]).await.unwrap();
                wanted.id
            })
        })
        .collect();
    for _ in 0..3 {
        server = act(server, Postgres::kill).await;
        server = act(server, Postgres::start).await;
    }
    let mut accepted = Vec::new();
    for client in clients {
        // No client sees anything else than "later" and "done"; a job that was accepted is there once, or its id would have been refused.
        accepted.push(timeout(PATIENCE, client).await.unwrap().unwrap());
    }
    let mut done = Vec::new();
    while done.len() < JOBS {
        for claimed in stores[1].claim_jobs(&token(), 16, stores[1].now()).await.unwrap() {
            commit_in_the_end(&stores[1], vec![signed(&claimed)]).await.unwrap();
            done.push(claimed.id);
        }
    }
    accepted.sort_unstable();
    done.sort_unstable();
    assert_eq!(accepted, done);
    drop(server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_that_hangs_is_given_up_in_time_and_taken_up_again() {
    let (server, url) = own_server().await;
    let store = open(&url).await;
    let first = job(&store);
    store.commit(vec![accept(&first)]).await.unwrap();
    let server = act(server, |server| server.freeze(true)).await;
    assert!(is_unavailable(&timeout(PATIENCE, store.find_job(first.id)).await.unwrap()));
    assert!(is_unavailable(&timeout(PATIENCE, store.commit(vec![accept(&job(&store))])).await.unwrap()));
    let server = act(server, |server| server.freeze(false)).await;
    commit_in_the_end(&store, vec![accept(&job(&store))]).await.unwrap();
    drop(server);
}

// A commit whose answer is lost.

const PASS: u8 = 0;
const CUT_BEFORE_COMMIT: u8 = 1;
const CUT_AFTER_COMMIT: u8 = 2;

/// Stands between a store and its database and cuts the line at the next COMMIT, once, when it is told to.
struct Line {
    directory: TempDir,
    cut: Arc<AtomicU8>,
}

impl Line {
    fn to(server: &Postgres) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = |directory: &Path| directory.join(".s.PGSQL.5432");
        let listener = UnixListener::bind(socket(directory.path())).unwrap();
        let (cut, behind) = (Arc::new(AtomicU8::new(PASS)), socket(server.directory()));
        tokio::spawn({
            let cut = Arc::clone(&cut);
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    if let Ok(server) = UnixStream::connect(&behind).await {
                        tokio::spawn(carry(client, server, Arc::clone(&cut)));
                    }
                }
            }
        });
        Self { directory, cut }
    }

    fn url(&self, database: &str) -> String {
        let name = database.split("@/").nth(1).unwrap().split('?').next().unwrap();
        format!("postgres://sealgate@/{name}?host={}", self.directory.path().display())
    }
}

async fn carry(client: UnixStream, server: UnixStream, cut: Arc<AtomicU8>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let (mut request, mut answer) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        tokio::select! {
            Ok(len) = from_client.read(&mut request) => {
                let is_commit = request[..len].windows(7).any(|bytes| bytes == b"COMMIT\0");
                let how = if is_commit { cut.swap(PASS, Ordering::AcqRel) } else { PASS };
                if len == 0 || how == CUT_BEFORE_COMMIT || to_server.write_all(&request[..len]).await.is_err() {
                    return;
                }
                if how == CUT_AFTER_COMMIT {
                    // The server has answered; nobody hears it.
                    let _ = from_server.read(&mut answer).await;
                    return;
                }
            }
            Ok(len) = from_server.read(&mut answer) => {
                if len == 0 || to_client.write_all(&answer[..len]).await.is_err() {
                    return;
                }
            }
            else => return,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_commit_whose_answer_is_lost_is_reported_as_what_it_was_and_made_once() {
    let url = database().await;
    for cut in [CUT_AFTER_COMMIT, CUT_BEFORE_COMMIT] {
        let line = Line::to(Postgres::shared());
        let store = open(&line.url(&url)).await;
        let opened = |ticket: &Ticket| AuditEvent::TicketOpened { ticket: ticket.id, caller: caller("a"), from: Provenance::default() };
        let (quiet, lost) = (ticket(), ticket());
        store.commit(vec![insert(&quiet), Change::Audit(opened(&quiet))]).await.unwrap();
        line.cut.store(cut, Ordering::Release);
        // Were it repeated, the second time would be a conflict, or a second record.
        store.commit(vec![insert(&lost), Change::Audit(opened(&lost))]).await.unwrap();
        assert_eq!(line.cut.load(Ordering::Acquire), PASS, "the line was not cut");
        assert!(store.find_ticket(lost.id).await.unwrap().is_some());
        assert_eq!(store.audit_head().await.unwrap().seq, 2);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_claim_whose_commit_was_lost_gives_the_jobs_that_are_claimed() {
    let url = database().await;
    for cut in [CUT_AFTER_COMMIT, CUT_BEFORE_COMMIT] {
        let line = Line::to(Postgres::shared());
        let store = open(&line.url(&url)).await;
        let wanted = job(&store);
        store.commit(vec![accept(&wanted)]).await.unwrap();
        line.cut.store(cut, Ordering::Release);
        let claimed = store.claim_jobs(&token(), 9, store.now()).await.unwrap();
        assert_eq!(line.cut.load(Ordering::Acquire), PASS, "the line was not cut");
        assert_eq!(claimed, store.claimed_jobs().await.unwrap());
        assert_eq!(claimed[0].id, wanted.id);
        let failed = JobOutcome::not_signed(FailureCause::Device, "");
        store.commit(vec![Change::EndJob { job: wanted.id, claim: claimed[0].claim, outcome: failed }]).await.unwrap();
    }
}
