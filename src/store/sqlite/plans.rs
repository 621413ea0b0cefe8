//! How SQLite goes about each statement, in tests: what is asked for each job must not be looked for row by row.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use rusqlite::Connection;

/// Every statement that has been run, with its plan.
static PLANS: Mutex<BTreeMap<String, Vec<String>>> = Mutex::new(BTreeMap::new());

/// Notes the plan of a statement.
pub(super) fn note(connection: &Connection, sql: &str) {
    let mut plans = PLANS.lock().unwrap_or_else(PoisonError::into_inner);
    if !plans.contains_key(sql) {
        let steps = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).and_then(|mut explained| {
            let parameters = vec![rusqlite::types::Null; explained.parameter_count()];
            explained.query_map(rusqlite::params_from_iter(parameters), |row| row.get(3))?.collect()
        });
        plans.insert(sql.to_owned(), steps.unwrap_or_else(|error| vec![format!("SCAN: {error}")]));
    }
}

/// The steps of plans that go through a whole table, with their statements.
fn scans() -> Vec<(String, String)> {
    let plans = PLANS.lock().unwrap_or_else(PoisonError::into_inner);
    let all = plans.iter().flat_map(|(sql, steps)| steps.iter().map(move |step| (sql.clone(), step.clone())));
    all.filter(|(_, step)| step.starts_with("SCAN") && !is_bounded(step)).collect()
}

/// Whether what is gone through is no longer than a queue: what was chosen for a claim, or an index of queued or claimed jobs, or of permits that wait,
/// only.
fn is_bounded(step: &str) -> bool {
    ["SCAN next", "SCAN (subquery-"].iter().any(|chosen| step.starts_with(chosen))
        || ["INDEX jobs_queued", "INDEX jobs_signing", "INDEX permits_waiting"].iter().any(|index| step.contains(index))
}

mod tests {
    use std::time::Duration;

    use crate::{
        domain::{
            algorithm::{HashAlgorithm, SignatureAlgorithm},
            audit::{AuditEvent, Consent},
            caller::Provenance,
            consent::{ConsentAsk, Decision, ViewSize},
            digest::{SigningInput, ToSign},
            hash::digest,
            idempotency::{IdempotentRequest, RequestDone},
            ids::{GatewayId, JobId, PermitId, TicketId},
            job::{FailureCause, JobOutcome, JobState, KeyAddress, SigningJob},
            key::KeyChoice,
            operator::SessionId,
            permit::{Permit, PermitState},
            ticket::{Content, ContentPart, ContentPlace, SignatureOptions, Ticket},
            token::{KeySelector, TokenIdentity},
        },
        store::{
            Change, PermitLimits, Store as _,
            sqlite::{SqliteSettings, SqliteStore},
        },
    };

    #[tokio::test]
    async fn nothing_that_is_done_for_each_job_goes_through_a_table() {
        let dir = tempfile::tempdir().unwrap();
        let settings = SqliteSettings::new(dir.path().join("db"), GatewayId::random());
        let store = SqliteStore::open(settings.clone()).unwrap();
        let (now, later) = (store.now(), store.now().after(Duration::from_secs(60)));
        let caller = "ci".parse().unwrap();
        let mut ticket = Ticket {
            id: TicketId::random(),
            caller,
            touched: now,
            options: SignatureOptions::default(),
            content: None,
            signature: None,
            metadata: Some("text".to_owned()),
            key: KeyChoice::Default,
            signing: None,
            verifying: None,
            modifying: None,
            time_stamp: None,
            version: 0,
        };
        let caller = ticket.caller.clone();
        store
            .commit(vec![Change::InsertTicket { ticket: ticket.clone(), limit: 5 }, Change::Audit(AuditEvent::GatewayStopped)])
            .await
            .unwrap();
        ticket.content =
            Some(Content { place: ContentPlace::Stored, len: 3, sha256: digest(HashAlgorithm::Sha256, b"abc"), objects: Vec::new() });
        let put = Change::PutContent { ticket: ticket.id, part: ContentPart::Document, bytes: b"abc".to_vec().into() };
        store.commit(vec![Change::UpdateTicket(ticket.clone()), put]).await.unwrap();
        let text = String::new;
        let token = TokenIdentity { module: "m".parse().unwrap(), manufacturer: text(), model: text(), serial: text(), label: text() };
        let permit = Permit::by_policy(PermitId::random(), caller.clone(), 9, later);
        let input = SigningInput::Digest(digest(HashAlgorithm::Sha256, b"abc"));
        let job = SigningJob {
            id: JobId::random(),
            caller: caller.clone(),
            from: Provenance::default(),
            key: KeyAddress { token: token.clone(), selector: KeySelector { id: Some(vec![1]), label: None }, name: None },
            to_sign: ToSign::new(SignatureAlgorithm::Ecdsa(HashAlgorithm::Sha256), input).unwrap(),
            certificate_serial: None,
            permit: Some(permit.id),
            consent: Consent::Policy,
            with_pin: false,
            accepted: now,
            deadline: later,
            state: JobState::Queued,
            claim: None,
            outcome: None,
        };
        let late = SigningJob { id: JobId::random(), deadline: now, ..job.clone() };
        let request = IdempotentRequest {
            caller: caller.clone(),
            key: "key".parse().unwrap(),
            done: RequestDone { fingerprint: [0; 32].into(), signings: Vec::new() },
            expires: later,
        };
        let accept = |job: &SigningJob| Change::AcceptJob { job: job.clone(), queue_bound: 5 };
        store.commit(vec![Change::InsertPermit(permit.clone()), accept(&job), accept(&late), Change::KeepRequest(request)]).await.unwrap();
        store.expire_jobs(now).await.unwrap();
        for _ in 0..2 {
            let claimed = store.claim_jobs(&token, 16, now).await.unwrap().remove(0);
            store.commit(vec![Change::RequeueJob { job: claimed.id, claim: claimed.claim }]).await.unwrap();
        }
        let claimed = store.claim_jobs(&token, 16, now).await.unwrap().remove(0);
        let outcome = JobOutcome::not_signed(FailureCause::OutcomeUnknown, "");
        store.commit(vec![Change::EndJob { job: claimed.id, claim: claimed.claim, outcome }]).await.unwrap();
        store.commit(vec![Change::ResolveDoubt { job: job.id, signed: false }, Change::RevokePermit(permit.id)]).await.unwrap();
        // One that has only been opened reads everything from the database.
        store.close();
        let store = SqliteStore::open(settings).unwrap();
        store.wait_for_end(job.id).await.unwrap();
        store.find_permit(permit.id).await.unwrap().unwrap();
        let (from, gateway) = (Provenance::default(), store.gateway);
        let ask =
            ConsentAsk { from, gateway, uses: 1, operators: 1, asked: now, decide_by: later, view: ViewSize::default(), waiting: None };
        let asked = Permit::by_policy(PermitId::random(), caller.clone(), 0, later);
        let asked = Permit { state: PermitState::Asked, ask: Some(Box::new(ask)), ..asked };
        let words = Some("text".to_owned());
        let ask = Change::AskPermit { permit: asked.clone(), words, limits: PermitLimits { waiting: 9, live: 9 } };
        store.commit(vec![ask]).await.unwrap();
        assert_eq!(store.waiting_permits(9).await.unwrap().len(), store.count_waiting_permits().await.unwrap());
        store.find_words(asked.id).await.unwrap().unwrap();
        store.commit(vec![Change::DecidePermit { permit: asked.id, job: None, decision: Decision::Withdraw }]).await.unwrap();
        store.wait_for_decision(asked.id).await.unwrap();
        store.find_request(&caller, &"key".parse().unwrap()).await.unwrap().unwrap();
        store.find_ticket(ticket.id).await.unwrap().unwrap();
        store.read_content(ticket.id, ContentPart::Document).await.unwrap().unwrap();
        store.touch_ticket(ticket.id, later).await.unwrap();
        store.count_tickets(&caller).await.unwrap();
        store.count_queued(&token).await.unwrap();
        store.queues().await.unwrap();
        store.claimed_jobs().await.unwrap();
        store.audit_head().await.unwrap();
        store.audit_records(store.gateway, 1, 10).await.unwrap();
        store.commit(vec![Change::DeleteTicket(ticket.id)]).await.unwrap();
        store.remove_idle_tickets(later, 10).await.unwrap();
        let operator = "ann".parse().unwrap();
        store.find_operator(&operator).await.unwrap();
        store.find_session(SessionId::of(b"token")).await.unwrap();
        store.list_sessions(&operator, now).await.unwrap();
        store.forget_ended(later.after(Duration::from_secs(60)), 10).await.unwrap();
        assert!(super::PLANS.lock().unwrap().len() > 25, "the statements were not seen");
        assert_eq!(super::scans(), []);
    }
}
