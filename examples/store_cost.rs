//! What one job costs the default store, with ten stored jobs and with a million.
//!
//! ```sh
//! cargo run --locked --example store_cost -- [DIR]
//! ```
//!
//! Databases of all sizes are made first and then measured in turns, so that a busy machine slows each. Figures are per job, with one client and
//! with many at a time; and for a claim of 16 from a queue of some length.

#![allow(clippy::print_stdout)]

use std::{
    env,
    error::Error,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use rusqlite::{Connection, params};
use sealgate::{
    domain::{
        algorithm::{HashAlgorithm, SignatureAlgorithm},
        audit::{AuditEvent, Consent},
        caller::Provenance,
        digest::{SigningInput, ToSign},
        hash::digest,
        ids::{CallerId, GatewayId, JobId, PermitId, TicketId},
        job::{FailureCause, JobOutcome, JobState, KeyAddress, SigningJob},
        key::KeyChoice,
        permit::Permit,
        ticket::{Content, ContentPart, ContentPlace, SignatureOptions, Ticket},
        token::{KeySelector, TokenIdentity},
    },
    store::{
        Change, Store,
        sqlite::{SqliteSettings, SqliteStore},
    },
};
use tokio::task::JoinSet;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Stored jobs.
const SIZES: [usize; 4] = [10, 1_000, 100_000, 1_000_000];
/// Queued jobs.
const QUEUES: [usize; 3] = [16, 128, 1_024];
const ROUNDS: usize = 3;
/// Jobs in one turn, and how many at a time.
const TURNS: [(usize, usize); 2] = [(50, 1), (640, 64)];
/// Claims in one turn.
const CLAIMS: usize = 20;

#[tokio::main]
async fn main() -> Result<()> {
    let dir = tempfile::tempdir_in(env::args().nth(1).map_or_else(env::temp_dir, PathBuf::from))?;
    let mut stores = Vec::new();
    for jobs in SIZES {
        let path = dir.path().join(format!("{jobs}.db"));
        let settings = SqliteSettings::new(path.clone(), GatewayId::random());
        let store = Arc::new(SqliteStore::open(settings.clone())?);
        one_job(&store).await?;
        store.close();
        let before = Instant::now();
        multiply(&path, jobs)?;
        println!("{jobs} jobs: {} MiB, made in {:.0} s", std::fs::metadata(&path)?.len() >> 20, before.elapsed().as_secs_f64());
        stores.push((jobs, Arc::new(SqliteStore::open(settings)?), [Duration::ZERO; TURNS.len()]));
    }
    for round in 0..=ROUNDS {
        for (_, store, took) in &mut stores {
            for ((jobs, at_a_time), took) in TURNS.iter().zip(took) {
                let turn = many_jobs(store, *jobs, *at_a_time).await?;
                // The first round fills caches.
                *took += if round == 0 { Duration::ZERO } else { turn };
            }
        }
    }
    println!("\n| stored jobs | µs a job, 1 at a time | ratio | µs a job, 64 at a time | ratio |\n|---|---|---|---|---|");
    let per_job = |took: &[Duration; 2]| [0, 1].map(|n| took[n].as_secs_f64() * 1e6 / (TURNS[n].0 * ROUNDS) as f64);
    let first = stores.first().map(|(_, _, took)| per_job(took)).ok_or("no sizes")?;
    for (jobs, _, took) in &stores {
        let [one, many] = per_job(took);
        println!("| {jobs} | {one:.0} | {:.2} | {many:.0} | {:.2} |", one / first[0], many / first[1]);
    }
    println!("\n| queued jobs | µs a claim of 16 |\n|---|---|");
    let (_, store, _) = stores.first().ok_or("no sizes")?;
    for queued in QUEUES {
        println!("| {queued} | {:.0} |", claims(store, queued).await?.as_secs_f64() * 1e6 / CLAIMS as f64);
    }
    Ok(())
}

/// Copies the only job, ticket, permit and the audit records until there are so many jobs.
fn multiply(path: &Path, jobs: usize) -> Result<()> {
    let database = Connection::open(path)?;
    database.execute_batch("PRAGMA synchronous = OFF; BEGIN")?;
    let numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)";
    let copies = [
        "INSERT INTO jobs (id, caller, token, permit, accepted, deadline, state, claim, ended, body, outcome)
         SELECT randomblob(16), caller, token, permit, accepted, deadline, state, claim, ended + i, body, outcome FROM n, (SELECT * FROM jobs LIMIT 1)",
        "INSERT INTO permits SELECT randomblob(16), caller, uses, reserved, committed, expires + i, state, body FROM n, (SELECT * FROM permits LIMIT 1)",
        "INSERT INTO audit SELECT randomblob(16), i, text, hash FROM n, (SELECT * FROM audit LIMIT 1)",
    ];
    for copy in copies {
        database.execute(&format!("{numbers} {copy}"), params![jobs as i64])?;
    }
    Ok(database.execute_batch("COMMIT; PRAGMA wal_checkpoint(TRUNCATE)")?)
}

async fn many_jobs(store: &Arc<SqliteStore>, jobs: usize, at_a_time: usize) -> Result<Duration> {
    let began = Instant::now();
    let mut clients = JoinSet::new();
    for _ in 0..at_a_time {
        let store = Arc::clone(store);
        clients.spawn(async move {
            for _ in 0..jobs / at_a_time {
                one_job(&store).await?;
            }
            Result::Ok(())
        });
    }
    while let Some(done) = clients.join_next().await {
        done??;
    }
    Ok(began.elapsed())
}

/// Everything that the store does for one job of the ticket API: session, document, job, claim, end, look-ups, deletion.
async fn one_job(store: &SqliteStore) -> Result<()> {
    let (ticket, job) = (ticket(store), job(store)?);
    let opened = AuditEvent::TicketOpened { ticket: ticket.id, caller: ticket.caller.clone(), from: Provenance::default() };
    store.commit(vec![Change::InsertTicket { ticket: ticket.clone(), limit: 10_000 }, Change::Audit(opened)]).await?;
    let bytes = vec![7; 1024];
    let content = Content { place: ContentPlace::Stored, len: 1024, sha256: digest(HashAlgorithm::Sha256, &bytes), objects: Vec::new() };
    let uploaded = Ticket { content: Some(content), ..ticket.clone() };
    store
        .commit(vec![
            Change::UpdateTicket(uploaded),
            Change::PutContent { ticket: ticket.id, part: ContentPart::Document, bytes: bytes.into() },
        ])
        .await?;
    let (id, permit) = (job.id, permit_for(store, &job));
    store.commit(vec![Change::InsertPermit(permit), Change::AcceptJob { job: job.clone(), queue_bound: 2_000 }]).await?;
    // With many clients another one's may be claimed: then that one ends here.
    for claimed in store.claim_jobs(&job.key.token, 16, store.now()).await? {
        let outcome = JobOutcome::not_signed(FailureCause::WrongSignature, "");
        store.commit(vec![Change::EndJob { job: claimed.id, claim: claimed.claim, outcome }]).await?;
    }
    store.wait_for_end(id).await?;
    store.find_ticket(ticket.id).await?;
    store.commit(vec![Change::DeleteTicket(ticket.id)]).await?;
    store.forget_ended(sealgate::domain::timestamp::Timestamp::from_millis(0), 1_000).await?;
    Ok(())
}

/// How long claims of 16 take from a queue of this length, which is filled up in between.
async fn claims(store: &SqliteStore, queued: usize) -> Result<Duration> {
    let (mut took, token) = (Duration::ZERO, job(store)?.key.token);
    for _ in 0..CLAIMS {
        let missing = queued - store.count_queued(&token).await?;
        let mut changes = Vec::new();
        for _ in 0..missing {
            let job = job(store)?;
            changes.push(Change::InsertPermit(permit_for(store, &job)));
            changes.push(Change::AcceptJob { job, queue_bound: 2_000 });
        }
        store.commit(changes).await?;
        let began = Instant::now();
        let claimed = store.claim_jobs(&token, 16, store.now()).await?;
        took += began.elapsed();
        let end =
            |job: SigningJob| Change::EndJob { job: job.id, claim: job.claim, outcome: JobOutcome::not_signed(FailureCause::Device, "") };
        store.commit(claimed.into_iter().map(end).collect()).await?;
    }
    let rest = store.claim_jobs(&token, queued, store.now()).await?;
    let end = |job: SigningJob| Change::EndJob { job: job.id, claim: job.claim, outcome: JobOutcome::not_signed(FailureCause::Device, "") };
    store.commit(rest.into_iter().map(end).collect()).await?;
    Ok(took)
}

fn ticket(store: &SqliteStore) -> Ticket {
    Ticket {
        id: TicketId::random(),
        caller: caller(),
        touched: store.now(),
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

fn job(store: &SqliteStore) -> Result<SigningJob> {
    let (id, accepted) = (JobId::random(), store.now());
    let text = |text: &str| text.to_owned();
    let token = TokenIdentity {
        module: "m".parse()?,
        manufacturer: text("maker"),
        model: text("model"),
        serial: text("0123456789abcdef"),
        label: text("token"),
    };
    let input = SigningInput::Digest(digest(HashAlgorithm::Sha256, id.as_uuid().as_bytes()));
    Ok(SigningJob {
        id,
        caller: caller(),
        from: Provenance::default(),
        key: KeyAddress { token, selector: KeySelector { id: Some(vec![1]), label: None }, name: None },
        to_sign: ToSign::new(SignatureAlgorithm::Ecdsa(HashAlgorithm::Sha256), input)?,
        certificate_serial: None,
        permit: Some(PermitId::random()),
        consent: Consent::Policy,
        with_pin: false,
        accepted,
        deadline: accepted.after(Duration::from_secs(300)),
        state: JobState::Queued,
        claim: None,
        outcome: None,
    })
}

fn permit_for(store: &SqliteStore, job: &SigningJob) -> Permit {
    let id = job.permit.unwrap_or_else(PermitId::random);
    Permit::by_policy(id, job.caller.clone(), 1, store.now().after(Duration::from_secs(900)))
}

fn caller() -> CallerId {
    // INVARIANT: a word of letters is a caller's name.
    #[allow(clippy::expect_used)]
    "ci".parse().expect("a name")
}
