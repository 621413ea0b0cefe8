//! Idempotent requests, the audit log, and conflicts.

use super::{
    parts::*,
    tickets::{content_of, put},
};

// Requests that may be sent again.

pub async fn a_request_is_kept_once_for_each_caller_and_forgotten_when_it_expires(store: AnyStore) {
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

pub fn opened(ticket: &Ticket) -> Change {
    Change::Audit(AuditEvent::TicketOpened { ticket: ticket.id, caller: ticket.caller.clone(), from: Provenance::default() })
}

pub async fn all_records(store: &AnyStore) -> Vec<AuditRecord> {
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

pub async fn audit_records_are_chained_and_read_in_pages(store: AnyStore) {
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

pub async fn the_end_of_a_job_is_recorded_with_it(store: AnyStore) {
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

pub async fn a_claim_that_is_stale_settles_nothing(store: AnyStore) {
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

pub async fn a_conflict_leaves_neither_audit_record_nor_content(store: AnyStore) {
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

pub async fn a_store_that_takes_changes_is_ready_whatever_it_refused(store: AnyStore) {
    store.check_ready().await.unwrap();
    conflict(&store, vec![Change::DeleteTicket(TicketId::random())]).await;
    store.check_ready().await.unwrap();
}

pub async fn a_conflict_concerns_only_its_own_commit(store: AnyStore) {
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
        assert_eq!(store.read_content(id, ContentPart::Document).await.unwrap().is_some(), n % 3 != 0);
    }
    assert_eq!(store.count_tickets(&caller("a")).await, Ok(40));
    assert_eq!(store.count_queued(&token("one")).await, Ok(40));
    assert_eq!(all_records(&store).await.len(), 40);
}
