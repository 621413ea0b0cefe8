//! What every store must do, whatever it keeps its state in.
//!
//! Each function is one promise of [`Store`], checked against an empty store. [`contract!`] runs them all on one implementation.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "common/postgres.rs"]
#[allow(dead_code)]
mod postgres_server;

use std::{future::Future, pin::pin, sync::Arc, time::Duration};

use futures_util::poll;
use sealgate::{
    domain::{
        algorithm::{HashAlgorithm, KeyKind, SignatureAlgorithm},
        audit::{AuditEvent, AuditHead, AuditRecord, Consent, Sha256},
        caller::Provenance,
        digest::{Digest, SigningInput, ToSign},
        idempotency::{IdempotentRequest, RequestDone},
        ids::{CallerId, ClaimId, GatewayId, JobId, PermitId, TicketId},
        job::{FailureCause, JobOutcome, JobState, KeyAddress, QueueLength, SigningJob},
        key::KeyChoice,
        permit::{Permit, PermitRefusal},
        signature::SignatureValue,
        ticket::{Content, ContentPlace, SignatureOptions, Ticket, TicketSigning},
        timestamp::Timestamp,
        token::{KeySelector, TokenIdentity},
    },
    store::{
        Change, Conflict, ContentUsage, JobFilter, Store, StoreError,
        memory::MemoryStore,
        postgres::{PostgresSettings, PostgresStore},
        sqlite::{SqliteSettings, SqliteStore},
    },
};
use tempfile::TempDir;

use self::postgres_server::Postgres;

type AnyStore = Arc<dyn Store>;

const NOW: Timestamp = Timestamp::from_millis(1_000_000);
const LATER: Timestamp = Timestamp::from_millis(2_000_000);
const BOUND: usize = 1_000;
/// After the end of every job that a test makes, whatever clock the store reads.
const END_OF_TIME: Timestamp = Timestamp::from_millis(u64::MAX);

/// Every promise, checked on the stores that `$new` makes; what else it returns is kept until the test has ended.
macro_rules! contract {
    ($store:ident, $new:expr) => {
        contract!(
            $store,
            $new,
            [
                a_ticket_is_found_as_it_was_stored_and_gone_when_it_is_deleted,
                a_caller_has_at_most_as_many_tickets_as_it_may,
                of_two_writers_of_a_ticket_the_second_is_refused,
                a_touch_is_no_change_and_is_not_undone_by_one,
                idle_tickets_are_removed_but_not_while_their_job_is_open,
                a_commit_that_fails_at_its_last_change_changed_nothing,
                a_commit_sees_its_own_earlier_changes,
                a_permit_is_spent_by_a_signature_and_given_back_by_a_failure,
                each_refusal_of_a_permit_is_reported,
                a_permit_that_is_revoked_pays_for_nothing_more,
                a_permit_is_not_overspent_by_a_race,
                permits_that_can_still_be_used_are_listed_the_first_to_end_first,
                the_queue_of_a_token_has_a_bound,
                jobs_are_claimed_oldest_first_and_once,
                callers_take_turns,
                a_race_of_claims_gives_each_job_to_one,
                a_job_that_is_put_back_comes_before_all_others_of_its_caller,
                a_job_past_its_deadline_is_not_claimed_and_expires,
                only_lawful_moves_of_a_job_are_made,
                cancelling_ends_only_what_is_still_queued,
                waiting_for_an_end_ends_with_the_job,
                everybody_who_waits_for_an_end_is_woken,
                waiting_for_work_ends_when_a_job_is_queued_for_that_token,
                ended_jobs_and_expired_permits_are_forgotten_once_nobody_needs_them,
                content_is_stored_replaced_and_gone_with_its_ticket,
                content_that_is_moved_to_the_spool_directory_is_gone_from_the_store,
                spooled_files_are_listed_and_counted,
                jobs_are_listed_newest_first_by_state_and_caller,
                what_is_claimed_and_not_settled_is_listed,
                a_request_is_kept_once_for_each_caller_and_forgotten_when_it_expires,
                a_doubt_is_resolved_once_and_its_use_kept_or_given_back,
                queues_tell_how_many_wait_and_since_when,
                audit_records_are_chained_and_read_in_pages,
                the_end_of_a_job_is_recorded_with_it,
                a_claim_that_is_stale_settles_nothing,
                a_conflict_leaves_neither_audit_record_nor_content,
                a_conflict_concerns_only_its_own_commit,
                many_jobs_at_once_all_end_once,
            ]
        );
    };
    ($store:ident, $new:expr, [$($promise:ident),+ $(,)?]) => {
        mod $store {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
                async fn $promise() {
                    let (store, _kept) = $new.await;
                    super::$promise(store).await;
                }
            )+
        }
    };
}

contract!(memory, async { (Arc::new(MemoryStore::new()) as AnyStore, ()) });
contract!(sqlite, sqlite_store());
contract!(postgres, postgres_store());

async fn sqlite_store() -> (AnyStore, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let settings = SqliteSettings::new(directory.path().join("sealgate.db"), GatewayId::random());
    (Arc::new(SqliteStore::open(settings).unwrap()), directory)
}

async fn postgres_store() -> (AnyStore, ()) {
    let url = tokio::task::spawn_blocking(|| Postgres::shared().new_database()).await.unwrap();
    let settings = PostgresSettings::new(&url, GatewayId::random()).unwrap();
    (Arc::new(PostgresStore::open(settings).await.unwrap()), ())
}

// What the tests are made of.

fn caller(name: &str) -> CallerId {
    name.parse().unwrap()
}

fn token(label: &str) -> TokenIdentity {
    TokenIdentity {
        module: "softhsm".parse().unwrap(),
        manufacturer: "SoftHSM project".to_owned(),
        model: "SoftHSM v2".to_owned(),
        serial: format!("serial of {label}"),
        label: label.to_owned(),
    }
}

fn ticket(owner: &str) -> Ticket {
    Ticket {
        id: TicketId::random(),
        caller: caller(owner),
        touched: NOW,
        options: SignatureOptions::default(),
        content: None,
        metadata: None,
        key: KeyChoice::Default,
        signing: None,
        version: 0,
    }
}

fn permit(owner: &str, uses: u32) -> Permit {
    Permit { id: PermitId::random(), caller: caller(owner), uses, reserved: 0, committed: 0, expires: LATER, revoked: false }
}

fn job(owner: &str, label: &str) -> SigningJob {
    let digest = Digest::new(HashAlgorithm::Sha256, vec![7; 32]).unwrap();
    SigningJob {
        id: JobId::random(),
        caller: caller(owner),
        from: Provenance::default(),
        key: KeyAddress { token: token(label), selector: KeySelector { id: Some(vec![1]), label: None }, name: None },
        to_sign: ToSign::new(SignatureAlgorithm::RsaPkcs1(HashAlgorithm::Sha256), SigningInput::Digest(digest)).unwrap(),
        certificate_serial: None,
        consent: Consent::Policy,
        permit: None,
        with_pin: false,
        accepted: NOW,
        deadline: LATER,
        state: JobState::Queued,
        claim: None,
        outcome: None,
    }
}

fn paid_by(permit: &Permit, mut job: SigningJob) -> SigningJob {
    job.permit = Some(permit.id);
    job
}

fn accept(job: &SigningJob) -> Change {
    Change::AcceptJob { job: job.clone(), queue_bound: BOUND }
}

fn insert(ticket: &Ticket) -> Change {
    Change::InsertTicket { ticket: ticket.clone(), limit: BOUND }
}

fn signed() -> JobOutcome {
    JobOutcome::Signed(SignatureValue::from_token(&KeyKind::Rsa { modulus_bits: 2048 }, vec![1; 256]).unwrap())
}

fn failed(cause: FailureCause) -> JobOutcome {
    JobOutcome::NotSigned { cause, detail: "because".to_owned() }
}

async fn claim_of(store: &AnyStore, job: JobId) -> Option<ClaimId> {
    store.find_job(job).await.unwrap().and_then(|job| job.claim)
}

async fn end(store: &AnyStore, job: &SigningJob, outcome: JobOutcome) -> Change {
    Change::EndJob { job: job.id, claim: claim_of(store, job.id).await, outcome }
}

async fn requeue(store: &AnyStore, job: JobId) -> Change {
    Change::RequeueJob { job, claim: claim_of(store, job).await }
}

fn refers_to(mut ticket: Ticket, job: &SigningJob) -> Ticket {
    ticket.signing = Some(TicketSigning {
        job: job.id,
        algorithm: job.to_sign.algorithm(),
        signed_attrs: vec![0x31, 0],
        certificate: vec![0x30, 0],
        chain: Vec::new(),
    });
    ticket
}

async fn commit(store: &AnyStore, changes: Vec<Change>) {
    store.commit(changes).await.unwrap();
}

async fn conflict(store: &AnyStore, changes: Vec<Change>) -> Conflict {
    match store.commit(changes).await {
        Err(StoreError::Conflict(conflict)) => conflict,
        other => panic!("no conflict: {other:?}"),
    }
}

async fn claim_ids(store: &AnyStore, label: &str, limit: usize) -> Vec<JobId> {
    store.claim_jobs(&token(label), limit, NOW).await.unwrap().into_iter().map(|job| job.id).collect()
}

async fn state_of(store: &AnyStore, job: &SigningJob) -> JobState {
    store.find_job(job.id).await.unwrap().unwrap().state
}

async fn uses_of(store: &AnyStore, permit: &Permit) -> (u32, u32) {
    let permit = store.find_permit(permit.id).await.unwrap().unwrap();
    (permit.reserved, permit.committed)
}

/// Runs `n` tasks that start as nearly at once as can be had, and gives back what they returned.
async fn race<T: Send + 'static, F: Future<Output = T> + Send + 'static>(n: usize, task: impl Fn(usize) -> F) -> Vec<T> {
    let barrier = Arc::new(tokio::sync::Barrier::new(n));
    let tasks: Vec<_> = (0..n)
        .map(|i| {
            let (barrier, task) = (Arc::clone(&barrier), task(i));
            tokio::spawn(async move {
                barrier.wait().await;
                task.await
            })
        })
        .collect();
    let mut results = Vec::new();
    for task in tasks {
        results.push(task.await.unwrap());
    }
    results
}

// Tickets.

async fn a_ticket_is_found_as_it_was_stored_and_gone_when_it_is_deleted(store: AnyStore) {
    let ticket = ticket("a");
    commit(&store, vec![insert(&ticket)]).await;
    assert_eq!(store.find_ticket(ticket.id).await.unwrap().as_ref(), Some(&ticket));
    assert_eq!(store.count_tickets(&caller("a")).await, Ok(1));
    commit(&store, vec![Change::DeleteTicket(ticket.id)]).await;
    assert_eq!(store.find_ticket(ticket.id).await, Ok(None));
    assert_eq!(store.count_tickets(&caller("a")).await, Ok(0));
    assert_eq!(conflict(&store, vec![Change::DeleteTicket(ticket.id)]).await, Conflict::TicketGone);
    assert_eq!(conflict(&store, vec![Change::UpdateTicket(ticket)]).await, Conflict::TicketGone);
}

async fn a_caller_has_at_most_as_many_tickets_as_it_may(store: AnyStore) {
    let limited = |owner| Change::InsertTicket { ticket: ticket(owner), limit: 2 };
    let refusals = {
        let store = &store;
        race(8, |_| {
            let store = Arc::clone(store);
            async move { store.commit(vec![limited("a")]).await.err() }
        })
        .await
    };
    let refused: Vec<_> = refusals.into_iter().flatten().collect();
    assert_eq!(refused, vec![StoreError::Conflict(Conflict::TooManyTickets { limit: 2 }); 6]);
    commit(&store, vec![limited("b")]).await;
    assert_eq!(store.count_tickets(&caller("a")).await, Ok(2));
}

async fn of_two_writers_of_a_ticket_the_second_is_refused(store: AnyStore) {
    let ticket = ticket("a");
    commit(&store, vec![insert(&ticket)]).await;
    let read = store.find_ticket(ticket.id).await.unwrap().unwrap();
    let written = |text: &str| Change::UpdateTicket(Ticket { metadata: Some(text.to_owned()), ..read.clone() });
    commit(&store, vec![written("first")]).await;
    assert_eq!(conflict(&store, vec![written("second")]).await, Conflict::TicketChanged);
    let now = store.find_ticket(ticket.id).await.unwrap().unwrap();
    assert_eq!((now.metadata.as_deref(), now.version), (Some("first"), read.version + 1));
    assert_eq!(conflict(&store, vec![insert(&ticket)]).await, Conflict::TicketChanged);
}

async fn a_touch_is_no_change_and_is_not_undone_by_one(store: AnyStore) {
    let ticket = ticket("a");
    commit(&store, vec![insert(&ticket)]).await;
    store.touch_ticket(ticket.id, LATER).await.unwrap();
    commit(&store, vec![Change::UpdateTicket(Ticket { metadata: Some("new".to_owned()), ..ticket.clone() })]).await;
    let now = store.find_ticket(ticket.id).await.unwrap().unwrap();
    assert_eq!((now.touched, now.metadata.as_deref()), (LATER, Some("new")));
    store.touch_ticket(ticket.id, NOW).await.unwrap();
    assert_eq!(store.find_ticket(ticket.id).await.unwrap().unwrap().touched, LATER);
    store.touch_ticket(TicketId::random(), NOW).await.unwrap();
}

async fn idle_tickets_are_removed_but_not_while_their_job_is_open(store: AnyStore) {
    let job = job("a", "one");
    let (idle, open, used) = (ticket("a"), refers_to(ticket("a"), &job), Ticket { touched: LATER, ..ticket("a") });
    commit(&store, vec![insert(&idle), insert(&used), accept(&job), insert(&open)]).await;
    let removed = |limit| {
        let store = Arc::clone(&store);
        async move { store.remove_idle_tickets(LATER, limit).await.unwrap().into_iter().map(|ticket| ticket.id).collect::<Vec<_>>() }
    };
    assert_eq!(removed(0).await, []);
    assert_eq!(removed(9).await, [idle.id]);
    commit(&store, vec![end(&store, &job, failed(FailureCause::Device)).await]).await;
    assert_eq!(removed(9).await, [open.id]);
    assert_eq!(removed(9).await, []);
    assert_eq!(store.count_tickets(&caller("a")).await, Ok(1));
}

// Commits.

async fn a_commit_that_fails_at_its_last_change_changed_nothing(store: AnyStore) {
    let (kept, paying) = (ticket("a"), permit("a", 1));
    let (first, second, third) = (job("a", "one"), job("a", "one"), job("a", "one"));
    commit(&store, vec![insert(&kept), Change::InsertPermit(paying.clone()), accept(&first), accept(&second)]).await;
    assert_eq!(claim_ids(&store, "one", 1).await, [first.id]);

    let (new, new_permit) = (ticket("a"), permit("a", 1));
    let changes = vec![
        insert(&new),
        Change::InsertPermit(new_permit.clone()),
        Change::UpdateTicket(Ticket { metadata: Some("x".to_owned()), ..kept.clone() }),
        Change::RevokePermit(paying.id),
        accept(&paid_by(&new_permit, third.clone())),
        end(&store, &first, signed()).await,
        Change::CancelJob(second.id),
        Change::DeleteTicket(kept.id),
        Change::DeleteTicket(TicketId::random()),
    ];
    assert_eq!(conflict(&store, changes).await, Conflict::TicketGone);

    assert_eq!(store.find_ticket(new.id).await, Ok(None));
    assert_eq!(store.find_ticket(kept.id).await.unwrap().as_ref(), Some(&kept));
    assert_eq!(store.count_tickets(&caller("a")).await, Ok(1));
    assert_eq!(store.find_permit(new_permit.id).await, Ok(None));
    assert_eq!(store.find_permit(paying.id).await.unwrap(), Some(paying));
    assert_eq!(store.find_job(third.id).await, Ok(None));
    assert_eq!((state_of(&store, &first).await, state_of(&store, &second).await), (JobState::Signing, JobState::Queued));
    assert_eq!(store.count_queued(&token("one")).await, Ok(1));
    assert_eq!(claim_ids(&store, "one", 9).await, [second.id]);
}

async fn a_commit_sees_its_own_earlier_changes(store: AnyStore) {
    let (new, paying) = (ticket("a"), permit("a", 1));
    let job = paid_by(&paying, job("a", "one"));
    commit(
        &store,
        vec![insert(&new), Change::InsertPermit(paying.clone()), accept(&job), end(&store, &job, failed(FailureCause::Cancelled)).await],
    )
    .await;
    assert_eq!(uses_of(&store, &paying).await, (0, 0));
    let changed = refers_to(new.clone(), &job);
    commit(&store, vec![Change::UpdateTicket(changed), Change::DeleteTicket(new.id)]).await;
    assert_eq!(store.find_ticket(new.id).await, Ok(None));
}

// Permits.

async fn a_permit_is_spent_by_a_signature_and_given_back_by_a_failure(store: AnyStore) {
    let paying = permit("a", 4);
    commit(&store, vec![Change::InsertPermit(paying.clone())]).await;
    let outcomes = [
        (signed(), JobState::Signed, (0, 1)),
        (failed(FailureCause::PinRefused), JobState::Failed, (0, 1)),
        (failed(FailureCause::OutcomeUnknown), JobState::InDoubt, (0, 2)),
        (failed(FailureCause::WrongSignature), JobState::Failed, (0, 3)),
    ];
    for (outcome, state, uses) in outcomes {
        let (_, spent) = uses_of(&store, &paying).await;
        let job = paid_by(&paying, job("a", "one"));
        commit(&store, vec![accept(&job)]).await;
        assert_eq!(uses_of(&store, &paying).await, (1, spent));
        assert_eq!(claim_ids(&store, "one", 1).await, [job.id]);
        commit(&store, vec![end(&store, &job, outcome.clone()).await]).await;
        let ended = store.find_job(job.id).await.unwrap().unwrap();
        assert_eq!((ended.state, ended.outcome), (state, Some(outcome)));
        assert_eq!(uses_of(&store, &paying).await, uses);
    }
}

async fn each_refusal_of_a_permit_is_reported(store: AnyStore) {
    let paying = permit("a", 1);
    commit(&store, vec![Change::InsertPermit(paying.clone())]).await;
    let stranger = paid_by(&paying, job("b", "one"));
    let late = SigningJob { accepted: LATER, ..paid_by(&paying, job("a", "one")) };
    let unknown = paid_by(&permit("a", 1), job("a", "one"));
    assert_eq!(conflict(&store, vec![accept(&stranger)]).await, Conflict::Permit(PermitRefusal::Unknown));
    assert_eq!(conflict(&store, vec![accept(&late)]).await, Conflict::Permit(PermitRefusal::Expired));
    assert_eq!(conflict(&store, vec![accept(&unknown)]).await, Conflict::Permit(PermitRefusal::Unknown));
    commit(&store, vec![accept(&paid_by(&paying, job("a", "one")))]).await;
    assert_eq!(conflict(&store, vec![accept(&paid_by(&paying, job("a", "one")))]).await, Conflict::Permit(PermitRefusal::UsedUp));
    assert_eq!(store.count_queued(&token("one")).await, Ok(1));
}

async fn a_permit_that_is_revoked_pays_for_nothing_more(store: AnyStore) {
    let paying = permit("a", 2);
    let job_before = paid_by(&paying, job("a", "one"));
    commit(&store, vec![Change::InsertPermit(paying.clone()), accept(&job_before), Change::RevokePermit(paying.id)]).await;
    let refused = conflict(&store, vec![accept(&paid_by(&paying, job("a", "one")))]).await;
    assert_eq!(refused, Conflict::Permit(PermitRefusal::Revoked));
    assert_eq!(claim_ids(&store, "one", 9).await, [job_before.id]);
    commit(&store, vec![end(&store, &job_before, signed()).await, Change::RevokePermit(paying.id)]).await;
    assert_eq!(uses_of(&store, &paying).await, (0, 1));
    assert_eq!(conflict(&store, vec![Change::RevokePermit(PermitId::random())]).await, Conflict::Permit(PermitRefusal::Unknown));
}

async fn a_permit_is_not_overspent_by_a_race(store: AnyStore) {
    let paying = permit("a", 5);
    commit(&store, vec![Change::InsertPermit(paying.clone())]).await;
    let results = race(32, |_| {
        let (store, job) = (Arc::clone(&store), paid_by(&paying, job("a", "one")));
        async move { store.commit(vec![accept(&job)]).await }
    })
    .await;
    let (accepted, refused): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert_eq!(accepted.len(), 5);
    assert!(refused.iter().all(|result| *result == Err(StoreError::Conflict(Conflict::Permit(PermitRefusal::UsedUp)))));
    assert_eq!(uses_of(&store, &paying).await, (5, 0));
    assert_eq!(store.count_queued(&token("one")).await, Ok(5));
}

async fn permits_that_can_still_be_used_are_listed_the_first_to_end_first(store: AnyStore) {
    let ending = |at| Permit { expires: Timestamp::from_millis(at), ..permit("a", 1) };
    let (late, early, over, spent, revoked) =
        (ending(3_000_000), ending(2_000_000), ending(1_000_000), ending(2_500_000), ending(2_600_000));
    commit(&store, [&late, &early, &over, &spent, &revoked].map(|permit| Change::InsertPermit(permit.clone())).to_vec()).await;
    commit(&store, vec![accept(&paid_by(&spent, job("a", "one"))), Change::RevokePermit(revoked.id)]).await;
    assert_eq!(store.live_permits(NOW, 9).await.unwrap(), [early.clone(), late]);
    assert_eq!(store.live_permits(NOW, 1).await.unwrap(), [early]);
}

// The queue.

async fn the_queue_of_a_token_has_a_bound(store: AnyStore) {
    let bounded = |label| Change::AcceptJob { job: job("a", label), queue_bound: 2 };
    commit(&store, vec![bounded("one"), bounded("one")]).await;
    assert_eq!(conflict(&store, vec![bounded("one")]).await, Conflict::QueueFull { bound: 2 });
    commit(&store, vec![bounded("two")]).await;
    claim_ids(&store, "one", 1).await;
    commit(&store, vec![bounded("one")]).await;
    assert_eq!(store.count_queued(&token("one")).await, Ok(2));
    let not_queued = SigningJob { state: JobState::Signing, ..job("a", "one") };
    assert_eq!(conflict(&store, vec![accept(&not_queued)]).await, Conflict::JobMoved);
}

async fn jobs_are_claimed_oldest_first_and_once(store: AnyStore) {
    let jobs: Vec<_> = (0..4).map(|_| job("a", "one")).collect();
    for job in &jobs {
        commit(&store, vec![accept(job)]).await;
    }
    commit(&store, vec![accept(&job("a", "two"))]).await;
    let claimed = store.claim_jobs(&token("one"), 3, NOW).await.unwrap();
    assert!(claimed.iter().all(|job| job.state == JobState::Signing));
    assert_eq!(claimed.iter().map(|job| job.id).collect::<Vec<_>>(), jobs[..3].iter().map(|job| job.id).collect::<Vec<_>>());
    assert_eq!(state_of(&store, &jobs[0]).await, JobState::Signing);
    assert_eq!(claim_ids(&store, "one", 9).await, [jobs[3].id]);
    assert_eq!(claim_ids(&store, "one", 9).await, []);
}

async fn callers_take_turns(store: AnyStore) {
    let owners = ["a", "a", "a", "a", "b", "c", "c"];
    for owner in owners {
        commit(&store, vec![accept(&job(owner, "one"))]).await;
    }
    let mut order = String::new();
    for limit in [2, 1, 4] {
        for job in store.claim_jobs(&token("one"), limit, NOW).await.unwrap() {
            order.push_str(job.caller.as_str());
        }
    }
    assert_eq!(order.len(), owners.len());
    let mut first_round: Vec<_> = order[..3].chars().collect();
    first_round.sort_unstable();
    assert_eq!(first_round, ['a', 'b', 'c'], "{order}");
    let mut second_round: Vec<_> = order[3..5].chars().collect();
    second_round.sort_unstable();
    assert_eq!(second_round, ['a', 'c'], "{order}");
}

async fn a_race_of_claims_gives_each_job_to_one(store: AnyStore) {
    for _ in 0..40 {
        commit(&store, vec![accept(&job("a", "one"))]).await;
    }
    let claims = race(8, |_| {
        let store = Arc::clone(&store);
        async move { claim_ids(&store, "one", 7).await }
    })
    .await;
    let mut claimed: Vec<_> = claims.into_iter().flatten().collect();
    assert_eq!(claimed.len(), 40);
    claimed.sort_unstable();
    claimed.dedup();
    assert_eq!(claimed.len(), 40);
}

async fn a_job_that_is_put_back_comes_before_all_others_of_its_caller(store: AnyStore) {
    let jobs: Vec<_> = (0..3).map(|_| job("a", "one")).collect();
    commit(&store, jobs.iter().map(accept).collect()).await;
    claim_ids(&store, "one", 2).await;
    commit(&store, vec![requeue(&store, jobs[1].id).await, requeue(&store, jobs[0].id).await]).await;
    assert_eq!(store.count_queued(&token("one")).await, Ok(3));
    assert_eq!(claim_ids(&store, "one", 9).await, [jobs[0].id, jobs[1].id, jobs[2].id]);
    commit(&store, vec![end(&store, &jobs[0], signed()).await]).await;
    assert_eq!(conflict(&store, vec![requeue(&store, jobs[0].id).await]).await, Conflict::JobMoved);
    assert_eq!(conflict(&store, vec![requeue(&store, JobId::random()).await]).await, Conflict::JobGone);
}

async fn a_job_past_its_deadline_is_not_claimed_and_expires(store: AnyStore) {
    let paying = permit("a", 1);
    let late = SigningJob { deadline: NOW, ..paid_by(&paying, job("a", "one")) };
    let in_time = job("a", "one");
    commit(&store, vec![Change::InsertPermit(paying.clone()), accept(&late), accept(&in_time)]).await;
    assert_eq!(claim_ids(&store, "one", 1).await, [in_time.id]);
    assert_eq!(store.expire_jobs(NOW).await, Ok(vec![late.id]));
    let expired = store.find_job(late.id).await.unwrap().unwrap();
    assert_eq!(expired.state, JobState::Expired);
    assert!(matches!(expired.outcome, Some(JobOutcome::NotSigned { cause: FailureCause::DeadlinePassed, .. })));
    assert_eq!(uses_of(&store, &paying).await, (0, 0));
    assert_eq!(store.count_queued(&token("one")).await, Ok(0));
    // What is being signed does not expire: nobody knows yet how it ends.
    assert_eq!(store.expire_jobs(END_OF_TIME).await, Ok(Vec::new()));
}

async fn only_lawful_moves_of_a_job_are_made(store: AnyStore) {
    let job = job("a", "one");
    commit(&store, vec![accept(&job)]).await;
    assert_eq!(conflict(&store, vec![accept(&job)]).await, Conflict::JobMoved);
    assert_eq!(conflict(&store, vec![requeue(&store, job.id).await]).await, Conflict::JobMoved);
    assert_eq!(conflict(&store, vec![end(&store, &job, signed()).await]).await, Conflict::JobMoved);
    commit(&store, vec![end(&store, &job, failed(FailureCause::PinForgotten)).await]).await;
    assert_eq!(store.count_queued(&token("one")).await, Ok(0));
    assert_eq!(conflict(&store, vec![end(&store, &job, failed(FailureCause::Device)).await]).await, Conflict::JobMoved);
    assert_eq!(conflict(&store, vec![Change::EndJob { job: JobId::random(), claim: None, outcome: signed() }]).await, Conflict::JobGone);
}

async fn cancelling_ends_only_what_is_still_queued(store: AnyStore) {
    let paying = permit("a", 2);
    let (claimed, queued) = (paid_by(&paying, job("a", "one")), paid_by(&paying, job("a", "one")));
    commit(&store, vec![Change::InsertPermit(paying.clone()), accept(&claimed), accept(&queued)]).await;
    assert_eq!(claim_ids(&store, "one", 1).await, [claimed.id]);
    commit(&store, vec![Change::CancelJob(claimed.id), Change::CancelJob(queued.id), Change::CancelJob(JobId::random())]).await;
    assert_eq!(state_of(&store, &claimed).await, JobState::Signing);
    assert_eq!(state_of(&store, &queued).await, JobState::Cancelled);
    assert_eq!(uses_of(&store, &paying).await, (1, 0));
    assert_eq!(claim_ids(&store, "one", 9).await, []);
}

// Waiting.

async fn waiting_for_an_end_ends_with_the_job(store: AnyStore) {
    let job = job("a", "one");
    assert_eq!(store.wait_for_end(job.id).await, Err(StoreError::Conflict(Conflict::JobGone)));
    commit(&store, vec![accept(&job)]).await;
    let mut waiting = pin!(store.wait_for_end(job.id));
    assert!(poll!(waiting.as_mut()).is_pending());
    claim_ids(&store, "one", 1).await;
    commit(&store, vec![requeue(&store, job.id).await]).await;
    assert!(poll!(waiting.as_mut()).is_pending());
    claim_ids(&store, "one", 1).await;
    commit(&store, vec![end(&store, &job, signed()).await]).await;
    assert_eq!(waiting.await.unwrap().state, JobState::Signed);
    assert_eq!(store.wait_for_end(job.id).await.unwrap().outcome, Some(signed()));
}

async fn everybody_who_waits_for_an_end_is_woken(store: AnyStore) {
    let (cancelled, expired) = (job("a", "one"), SigningJob { deadline: NOW, ..job("a", "one") });
    commit(&store, vec![accept(&cancelled), accept(&expired)]).await;
    let (first, second, third) = (store.wait_for_end(cancelled.id), store.wait_for_end(cancelled.id), store.wait_for_end(expired.id));
    let (mut first, mut second, mut third) = (pin!(first), pin!(second), pin!(third));
    assert!(poll!(first.as_mut()).is_pending() && poll!(second.as_mut()).is_pending() && poll!(third.as_mut()).is_pending());
    commit(&store, vec![Change::CancelJob(cancelled.id)]).await;
    store.expire_jobs(NOW).await.unwrap();
    let states = [first.await.unwrap().state, second.await.unwrap().state, third.await.unwrap().state];
    assert_eq!(states, [JobState::Cancelled, JobState::Cancelled, JobState::Expired]);
}

async fn waiting_for_work_ends_when_a_job_is_queued_for_that_token(store: AnyStore) {
    let one = token("one");
    let mut waiting = pin!(store.wait_for_work(&one));
    assert!(poll!(waiting.as_mut()).is_pending());
    let job = job("a", "one");
    commit(&store, vec![accept(&job)]).await;
    waiting.await;
    store.wait_for_work(&one).await;
    claim_ids(&store, "one", 1).await;
    let mut waiting = pin!(store.wait_for_work(&one));
    assert!(poll!(waiting.as_mut()).is_pending());
    commit(&store, vec![requeue(&store, job.id).await]).await;
    waiting.await;
}

// Forgetting.

async fn ended_jobs_and_expired_permits_are_forgotten_once_nobody_needs_them(store: AnyStore) {
    let (paying, spent) = (permit("a", 1), permit("a", 1));
    let (ended, referred, open) = (job("a", "one"), job("a", "one"), paid_by(&paying, job("a", "one")));
    let owner = refers_to(ticket("a"), &referred);
    commit(&store, vec![Change::InsertPermit(paying.clone()), Change::InsertPermit(spent.clone())]).await;
    commit(&store, vec![accept(&ended), accept(&referred), accept(&open), insert(&owner)]).await;
    commit(&store, vec![Change::CancelJob(ended.id), Change::CancelJob(referred.id)]).await;

    assert_eq!(store.forget_ended(NOW, 9).await, Ok(0));
    assert_eq!(store.forget_ended(END_OF_TIME, 0).await, Ok(0));
    assert_eq!(store.forget_ended(END_OF_TIME, 9).await, Ok(2));
    assert_eq!((store.find_job(ended.id).await, store.find_permit(spent.id).await), (Ok(None), Ok(None)));
    assert!(store.find_job(referred.id).await.unwrap().is_some());
    assert!(store.find_permit(paying.id).await.unwrap().is_some());

    commit(&store, vec![Change::DeleteTicket(owner.id), Change::CancelJob(open.id)]).await;
    assert_eq!(store.forget_ended(END_OF_TIME, 1).await, Ok(1));
    assert_eq!(store.forget_ended(END_OF_TIME, 9).await, Ok(2));
    assert_eq!(store.find_permit(paying.id).await, Ok(None));
}

// Contents.

fn content(place: ContentPlace, bytes: &[u8]) -> Content {
    let sha256 = Digest::new(HashAlgorithm::Sha256, Sha256::of(bytes).as_bytes().to_vec()).unwrap();
    Content { place, len: bytes.len() as u64, sha256 }
}

fn holding(ticket: &Ticket, place: ContentPlace, bytes: &[u8]) -> Ticket {
    Ticket { content: Some(content(place, bytes)), ..ticket.clone() }
}

fn put(ticket: &Ticket, bytes: &[u8]) -> Change {
    Change::PutContent { ticket: ticket.id, bytes: bytes.into() }
}

async fn content_of(store: &AnyStore, ticket: &Ticket) -> Option<Vec<u8>> {
    store.read_content(ticket.id).await.unwrap().map(|bytes| bytes.to_vec())
}

async fn stored(store: &AnyStore, ticket: &Ticket) -> Ticket {
    store.find_ticket(ticket.id).await.unwrap().unwrap()
}

async fn content_is_stored_replaced_and_gone_with_its_ticket(store: AnyStore) {
    let (first, idle) = (ticket("a"), ticket("a"));
    commit(&store, vec![insert(&first), insert(&idle)]).await;
    assert_eq!(content_of(&store, &first).await, None);
    let big = vec![0xA5; 300_000];
    commit(&store, vec![put(&first, &big), Change::UpdateTicket(holding(&first, ContentPlace::Stored, &big))]).await;
    commit(&store, vec![put(&idle, b"idle"), Change::UpdateTicket(holding(&idle, ContentPlace::Stored, b"idle"))]).await;
    assert_eq!(content_of(&store, &first).await, Some(big));
    assert_eq!(store.content_usage().await, Ok(ContentUsage { stored: 300_004, spooled: 0 }));

    let now = stored(&store, &first).await;
    commit(&store, vec![put(&first, b"new"), Change::UpdateTicket(holding(&now, ContentPlace::Stored, b"new"))]).await;
    assert_eq!(content_of(&store, &first).await.as_deref(), Some(&b"new"[..]));
    assert_eq!(store.content_usage().await, Ok(ContentUsage { stored: 7, spooled: 0 }));

    store.touch_ticket(first.id, LATER).await.unwrap();
    assert_eq!(store.remove_idle_tickets(LATER, 9).await.unwrap().len(), 1);
    assert_eq!(content_of(&store, &idle).await, None);
    commit(&store, vec![Change::DeleteTicket(first.id)]).await;
    assert_eq!(content_of(&store, &first).await, None);
    assert_eq!(store.content_usage().await, Ok(ContentUsage::default()));
}

async fn content_that_is_moved_to_the_spool_directory_is_gone_from_the_store(store: AnyStore) {
    let owner = ticket("a");
    commit(&store, vec![insert(&owner), put(&owner, b"small")]).await;
    commit(&store, vec![Change::UpdateTicket(holding(&owner, ContentPlace::Stored, b"small"))]).await;
    let now = stored(&store, &owner).await;
    commit(&store, vec![Change::UpdateTicket(holding(&now, ContentPlace::Spooled("file".to_owned()), b"larger"))]).await;
    assert_eq!(content_of(&store, &owner).await, None);
    assert_eq!(store.content_usage().await, Ok(ContentUsage { stored: 0, spooled: 6 }));
}

async fn spooled_files_are_listed_and_counted(store: AnyStore) {
    let spooled = |name: &str| holding(&ticket("a"), ContentPlace::Spooled(name.to_owned()), name.as_bytes());
    let (one, two) = (spooled("one"), spooled("three"));
    commit(&store, vec![insert(&one), insert(&two), insert(&ticket("a"))]).await;
    let mut names = store.spooled_files().await.unwrap();
    names.sort_unstable();
    assert_eq!(names, ["one", "three"]);
    assert_eq!(store.content_usage().await, Ok(ContentUsage { stored: 0, spooled: 8 }));
    assert_eq!(stored(&store, &one).await, one);
    commit(&store, vec![Change::DeleteTicket(one.id)]).await;
    assert_eq!(store.spooled_files().await.unwrap(), ["three"]);
}

// What operators look at.

async fn jobs_are_listed_newest_first_by_state_and_caller(store: AnyStore) {
    let (first, second, third) = (job("a", "one"), job("b", "one"), job("a", "two"));
    for job in [&first, &second, &third] {
        commit(&store, vec![accept(job)]).await;
    }
    commit(&store, vec![Change::CancelJob(first.id)]).await;
    let listed = |state, owner: Option<&str>, limit| {
        let (store, filter) = (Arc::clone(&store), JobFilter { state, caller: owner.map(caller) });
        async move { store.list_jobs(&filter, limit).await.unwrap().into_iter().map(|job| job.id).collect::<Vec<_>>() }
    };
    assert_eq!(listed(None, None, 9).await, [third.id, second.id, first.id]);
    assert_eq!(listed(None, None, 2).await, [third.id, second.id]);
    assert_eq!(listed(None, Some("a"), 9).await, [third.id, first.id]);
    assert_eq!(listed(Some(JobState::Queued), None, 9).await, [third.id, second.id]);
    assert_eq!(listed(Some(JobState::Cancelled), Some("a"), 9).await, [first.id]);
    assert_eq!(listed(Some(JobState::InDoubt), None, 9).await, []);
    assert_eq!(store.list_jobs(&JobFilter::default(), usize::MAX).await.unwrap().len(), 3);
}

async fn what_is_claimed_and_not_settled_is_listed(store: AnyStore) {
    let jobs: Vec<_> = (0..3).map(|_| job("a", "one")).collect();
    commit(&store, jobs.iter().map(accept).collect()).await;
    assert_eq!(store.claimed_jobs().await.unwrap(), []);
    let claimed = store.claim_jobs(&token("one"), 2, NOW).await.unwrap();
    let mut listed = store.claimed_jobs().await.unwrap();
    listed.sort_by_key(|job| jobs.iter().position(|other| other.id == job.id));
    assert_eq!(listed, claimed);
    assert!(listed.iter().all(|job| job.claim.is_some() && job.claim == listed[0].claim));
    commit(&store, vec![end(&store, &jobs[0], signed()).await, requeue(&store, jobs[1].id).await]).await;
    assert_eq!(store.claimed_jobs().await.unwrap(), []);
}

async fn queues_tell_how_many_wait_and_since_when(store: AnyStore) {
    assert_eq!(store.queues().await.unwrap(), []);
    let younger = SigningJob { accepted: Timestamp::from_millis(1_500), ..job("a", "one") };
    let older = SigningJob { accepted: Timestamp::from_millis(500), ..job("b", "one") };
    let claimed = SigningJob { accepted: Timestamp::from_millis(100), ..job("a", "two") };
    commit(&store, [&younger, &older, &claimed].map(accept).to_vec()).await;
    claim_ids(&store, "two", 9).await;
    let waiting = QueueLength { token: token("one"), queued: 2, oldest: older.accepted };
    assert_eq!(store.queues().await.unwrap(), [waiting]);
}

async fn a_doubt_is_resolved_once_and_its_use_kept_or_given_back(store: AnyStore) {
    for (was_signed, uses) in [(true, (0, 1)), (false, (0, 0))] {
        let paying = permit("a", 1);
        let job = paid_by(&paying, job("a", "one"));
        commit(&store, vec![Change::InsertPermit(paying.clone()), accept(&job)]).await;
        let resolve = || vec![Change::ResolveDoubt { job: job.id, signed: was_signed }];
        assert_eq!(conflict(&store, resolve()).await, Conflict::JobMoved);
        claim_ids(&store, "one", 1).await;
        commit(&store, vec![end(&store, &job, failed(FailureCause::OutcomeUnknown)).await]).await;
        assert_eq!(store.wait_for_end(job.id).await.unwrap().state, JobState::InDoubt);
        assert_eq!(uses_of(&store, &paying).await, (0, 1));
        commit(&store, resolve()).await;
        let settled = store.find_job(job.id).await.unwrap().unwrap();
        assert_eq!(settled.state, JobState::Failed);
        assert_eq!(settled.outcome, Some(JobOutcome::not_signed(FailureCause::resolved(was_signed), "")));
        assert_eq!(uses_of(&store, &paying).await, uses);
        assert_eq!(conflict(&store, resolve()).await, Conflict::JobMoved);
    }
    assert_eq!(conflict(&store, vec![Change::ResolveDoubt { job: JobId::random(), signed: true }]).await, Conflict::JobGone);
}

// Requests that may be sent again.

async fn a_request_is_kept_once_for_each_caller_and_forgotten_when_it_expires(store: AnyStore) {
    let request = |owner: &str, signings: Vec<TicketSigning>| IdempotentRequest {
        caller: caller(owner),
        key: "the same".parse().unwrap(),
        done: RequestDone { fingerprint: Sha256::of(b"what was asked"), signings },
        expires: LATER,
    };
    let results = race(8, |_| {
        let (store, job) = (Arc::clone(&store), job("a", "one"));
        let signing = refers_to(ticket("a"), &job).signing.unwrap();
        let changes = vec![accept(&job), Change::KeepRequest(request("a", vec![signing.clone()]))];
        async move { store.commit(changes).await.map(|()| signing) }
    })
    .await;
    let (kept, refused): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    assert_eq!(refused, vec![Err(StoreError::Conflict(Conflict::RequestKnown)); 7]);
    let kept = kept[0].clone().unwrap();
    assert_eq!(store.count_queued(&token("one")).await, Ok(1));
    assert_eq!(store.find_request(&caller("a"), &"the same".parse().unwrap()).await.unwrap(), Some(request("a", vec![kept])));
    assert_eq!(store.find_request(&caller("a"), &"another".parse().unwrap()).await, Ok(None));
    assert_eq!(store.find_request(&caller("b"), &"the same".parse().unwrap()).await, Ok(None));
    commit(&store, vec![Change::KeepRequest(request("b", Vec::new()))]).await;

    assert_eq!(store.forget_ended(NOW, 9).await, Ok(0));
    assert_eq!(store.forget_ended(END_OF_TIME, 9).await, Ok(2));
    assert_eq!(store.find_request(&caller("a"), &"the same".parse().unwrap()).await, Ok(None));
}

// The audit log.

fn opened(ticket: &Ticket) -> Change {
    Change::Audit(AuditEvent::TicketOpened { ticket: ticket.id, caller: ticket.caller.clone(), from: Provenance::default() })
}

async fn all_records(store: &AnyStore) -> Vec<AuditRecord> {
    let gateway = store.audit_head().await.unwrap().gateway;
    let sealed = store.audit_records(gateway, 1, usize::MAX).await.unwrap();
    let mut head = AuditHead::empty(gateway);
    let mut records = Vec::new();
    for record in sealed {
        let read: AuditRecord = serde_json::from_str(&record.text).unwrap();
        assert_eq!((read.gateway, read.seq, read.previous), (gateway, head.seq + 1, head.hash));
        assert_eq!((record.seq, record.hash), (read.seq, Sha256::of(record.text.as_bytes())));
        head = AuditHead { gateway, seq: record.seq, hash: record.hash };
        records.push(read);
    }
    assert_eq!(store.audit_head().await.unwrap(), head);
    records
}

async fn audit_records_are_chained_and_read_in_pages(store: AnyStore) {
    let head = store.audit_head().await.unwrap();
    assert_eq!((head.seq, head.hash), (0, Sha256::ZERO));
    let tickets: Vec<_> = (0..7).map(|_| ticket("a")).collect();
    commit(&store, tickets[..3].iter().map(opened).collect()).await;
    race(4, |n| {
        let (store, event) = (Arc::clone(&store), opened(&tickets[3 + n]));
        async move { store.commit(vec![event]).await.unwrap() }
    })
    .await;
    let records = all_records(&store).await;
    let named = |ticket: &Ticket| {
        records.iter().filter(|record| matches!(&record.event, AuditEvent::TicketOpened { ticket: id, .. } if *id == ticket.id)).count()
    };
    assert!(records.len() == 7 && tickets.iter().all(|ticket| named(ticket) == 1));
    let page = |from, limit| {
        let store = Arc::clone(&store);
        async move { store.audit_records(head.gateway, from, limit).await.unwrap().into_iter().map(|record| record.seq).collect::<Vec<_>>() }
    };
    assert_eq!(page(1, 3).await, [1, 2, 3]);
    assert_eq!(page(6, 3).await, [6, 7]);
    assert_eq!(page(8, 3).await, [0; 0]);
    assert_eq!(store.audit_logs().await.unwrap(), [head.gateway]);
    assert_eq!(store.audit_records(GatewayId::random(), 1, 9).await.unwrap(), []);
}

async fn the_end_of_a_job_is_recorded_with_it(store: AnyStore) {
    let (first, second) = (job("a", "one"), SigningJob { deadline: NOW, ..job("b", "two") });
    commit(&store, vec![accept(&first), accept(&second)]).await;
    assert_eq!(all_records(&store).await.len(), 0);
    claim_ids(&store, "one", 1).await;
    commit(&store, vec![end(&store, &first, signed()).await]).await;
    store.expire_jobs(NOW).await.unwrap();
    let events: Vec<_> = all_records(&store).await.into_iter().map(|record| record.event).collect();
    assert!(matches!(&events[0], AuditEvent::Signed { facts, .. } if facts.job == first.id));
    assert!(matches!(&events[1], AuditEvent::NotSigned { facts, state: JobState::Expired, .. } if facts.job == second.id));
    assert_eq!(events.len(), 2);
}

// Conflicts.

async fn a_claim_that_is_stale_settles_nothing(store: AnyStore) {
    let paying = permit("a", 1);
    let job = paid_by(&paying, job("a", "one"));
    commit(&store, vec![Change::InsertPermit(paying.clone()), accept(&job)]).await;
    let first = store.claim_jobs(&token("one"), 1, NOW).await.unwrap()[0].claim;
    commit(&store, vec![Change::RequeueJob { job: job.id, claim: first }]).await;
    let second = store.claim_jobs(&token("one"), 1, NOW).await.unwrap()[0].claim;
    assert!(first.is_some() && second.is_some() && first != second);
    for claim in [first, None, Some(ClaimId::random())] {
        assert_eq!(conflict(&store, vec![Change::EndJob { job: job.id, claim, outcome: signed() }]).await, Conflict::JobMoved);
        assert_eq!(conflict(&store, vec![Change::RequeueJob { job: job.id, claim }]).await, Conflict::JobMoved);
    }
    assert_eq!((state_of(&store, &job).await, uses_of(&store, &paying).await), (JobState::Signing, (1, 0)));
    assert_eq!(all_records(&store).await.len(), 0);
    commit(&store, vec![Change::EndJob { job: job.id, claim: second, outcome: signed() }]).await;
    assert_eq!(uses_of(&store, &paying).await, (0, 1));
}

async fn a_conflict_leaves_neither_audit_record_nor_content(store: AnyStore) {
    let owner = ticket("a");
    commit(&store, vec![insert(&owner), put(&owner, b"old"), opened(&owner)]).await;
    let before = store.audit_head().await.unwrap();
    let changes = vec![put(&owner, b"new"), put(&ticket("a"), b"other"), opened(&owner), Change::DeleteTicket(TicketId::random())];
    assert_eq!(conflict(&store, changes).await, Conflict::TicketGone);
    let changes = vec![Change::DeleteTicket(owner.id), opened(&owner), Change::RevokePermit(PermitId::random())];
    assert_eq!(conflict(&store, changes).await, Conflict::Permit(PermitRefusal::Unknown));
    assert_eq!(content_of(&store, &owner).await.as_deref(), Some(&b"old"[..]));
    assert_eq!(store.audit_head().await.unwrap(), before);
    assert_eq!(all_records(&store).await.len(), 1);
}

async fn a_conflict_concerns_only_its_own_commit(store: AnyStore) {
    let results = race(60, |n| {
        let (store, new, job) = (Arc::clone(&store), ticket("a"), job("a", "one"));
        let mut changes = vec![insert(&new), opened(&new), accept(&job), put(&new, b"x")];
        if n % 3 == 0 {
            changes.push(Change::DeleteTicket(TicketId::random()));
        }
        async move { (n, new.id, store.commit(changes).await) }
    })
    .await;
    for (n, id, result) in results {
        assert_eq!(result.is_ok(), n % 3 != 0, "{n}: {result:?}");
        assert_eq!(store.find_ticket(id).await.unwrap().is_some(), n % 3 != 0);
        assert_eq!(store.read_content(id).await.unwrap().is_some(), n % 3 != 0);
    }
    assert_eq!(store.count_tickets(&caller("a")).await, Ok(40));
    assert_eq!(store.count_queued(&token("one")).await, Ok(40));
    assert_eq!(all_records(&store).await.len(), 40);
}

// Everything at once.

async fn many_jobs_at_once_all_end_once(store: AnyStore) {
    const JOBS: usize = 200;
    let paying = permit("a", JOBS as u32);
    commit(&store, vec![Change::InsertPermit(paying.clone())]).await;
    let signer = tokio::spawn({
        let store = Arc::clone(&store);
        async move {
            let mut done = 0;
            while done < JOBS {
                store.wait_for_work(&token("one")).await;
                for job in store.claim_jobs(&token("one"), 16, NOW).await.unwrap() {
                    commit(&store, vec![end(&store, &job, signed()).await]).await;
                    done += 1;
                }
            }
        }
    });
    let clients = race(JOBS, |_| {
        let (store, job) = (Arc::clone(&store), paid_by(&paying, job("a", "one")));
        async move {
            commit(&store, vec![accept(&job)]).await;
            store.wait_for_end(job.id).await.unwrap().state
        }
    });
    let states = tokio::time::timeout(Duration::from_secs(60), clients).await.expect("every waiter is woken");
    signer.await.unwrap();
    assert_eq!(states, vec![JobState::Signed; JOBS]);
    assert_eq!(uses_of(&store, &paying).await, (0, JOBS as u32));
}
