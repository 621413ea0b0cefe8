//! Permits that are asked for: decisions, who waits for them, and the jobs that do.

use super::{parts::*, records::all_records};

const LIMITS: PermitLimits = PermitLimits { waiting: 3, live: 3 };
const MINUTE: Duration = Duration::from_secs(60);

fn asked(store: &AnyStore, owner: &str, uses: u32) -> Permit {
    let (asked, decide_by) = (store.now(), store.now().after(MINUTE));
    let (from, view) = (Provenance::default(), ViewSize { width: Some(600), height: None });
    let ask = ConsentAsk { from, gateway: store.gateway(), uses, operators: 1, asked, decide_by, view, waiting: None };
    Permit { state: PermitState::Asked, ask: Some(Box::new(ask)), ..Permit::by_policy(PermitId::random(), caller(owner), 0, decide_by) }
}

/// A job that waits for the permit beside it.
fn waiting(store: &AnyStore, owner: &str) -> (Permit, SigningJob) {
    let mut permit = asked(store, owner, 1);
    let job = SigningJob { state: JobState::AwaitingConsent, ..paid_by(&permit, job(owner, "one")) };
    let job = SigningJob { deadline: permit.expires.after(MINUTE), ..job };
    permit.ask.as_mut().unwrap().waiting = Some(WaitingSignature { job: job.id, document: None });
    (permit, job)
}

fn ask(permit: &Permit) -> Change {
    Change::AskPermit { permit: permit.clone(), words: Some(format!("<p>{}</p>", permit.id)), limits: LIMITS }
}

fn decide(permit: &Permit, decision: Decision) -> Change {
    Change::DecidePermit { permit: permit.id, job: permit.waiting_job(), decision }
}

fn allow(uses: Option<u32>) -> Decision {
    Decision::Allow { by: "anna".parse().unwrap(), keys: KeyAccess::All, uses, lifetime: MINUTE }
}

fn refuse() -> Decision {
    Decision::Refuse { by: "anna".parse().unwrap(), keys: KeyAccess::All }
}

async fn found(store: &AnyStore, permit: &Permit) -> Permit {
    store.find_permit(permit.id).await.unwrap().unwrap()
}

pub async fn a_permit_that_is_asked_for_pays_for_nothing_before_it_is_granted(store: AnyStore) {
    let permit = asked(&store, "a", 3);
    commit(&store, vec![ask(&permit)]).await;
    assert_eq!(found(&store, &permit).await, permit);
    assert_eq!(store.waiting_permits(9).await.unwrap(), std::slice::from_ref(&permit));
    assert_eq!(store.count_waiting_permits().await, Ok(1));
    assert_eq!(store.find_words(permit.id).await.unwrap(), Some(format!("<p>{}</p>", permit.id)));
    let pay = || paid_by(&permit, job("a", "one"));
    assert_eq!(conflict(&store, vec![accept(&pay())]).await, Conflict::Permit(PermitRefusal::Unknown));
    assert_eq!(conflict(&store, vec![Change::RevokePermit(permit.id)]).await, Conflict::Permit(PermitRefusal::Unknown));
    let too_many = conflict(&store, vec![decide(&permit, allow(Some(4)))]).await;
    assert_eq!(too_many, Conflict::Decision(DecisionRefusal::Uses { max: 3 }));

    commit(&store, vec![decide(&permit, allow(Some(2)))]).await;
    let granted = found(&store, &permit).await;
    assert_eq!((granted.state, granted.uses, granted.approvals.len()), (PermitState::Granted, 2, 1));
    assert!(granted.expires > store.now() && granted.ask == permit.ask);
    assert_eq!((store.waiting_permits(9).await, store.count_waiting_permits().await), (Ok(Vec::new()), Ok(0)));
    assert_eq!(store.find_words(permit.id).await, Ok(None));
    assert_eq!(store.live_permits(store.now(), 9).await.unwrap(), [granted]);
    let (first, second) = (pay(), pay());
    commit(&store, vec![accept(&first), accept(&second)]).await;
    assert_eq!(conflict(&store, vec![accept(&pay())]).await, Conflict::Permit(PermitRefusal::UsedUp));
    let accepted = store.find_job(first.id).await.unwrap().unwrap();
    assert_eq!(accepted.consent, Consent::Operator("anna".parse().unwrap()));
    claim_ids(&store, "one", 9).await;
    commit(&store, vec![end(&store, &first, signed()).await, end(&store, &second, failed(FailureCause::Device)).await]).await;
    assert_eq!(uses_of(&store, &permit).await, (0, 1));
    commit(&store, vec![Change::RevokePermit(permit.id)]).await;
    assert_eq!(found(&store, &permit).await.state, PermitState::Revoked);
    assert_eq!(store.forget_ended(END_OF_TIME, 9).await, Ok(3));
}

pub async fn a_permit_is_decided_once_by_a_race(store: AnyStore) {
    let permit = asked(&store, "a", 1);
    commit(&store, vec![ask(&permit)]).await;
    let results = race(9, |n| {
        let decision = [allow(None), refuse(), Decision::Withdraw][n % 3].clone();
        let (store, change) = (Arc::clone(&store), decide(&permit, decision));
        async move { store.commit(vec![change]).await }
    })
    .await;
    let state = found(&store, &permit).await.state;
    assert_ne!(state, PermitState::Asked);
    let (decided, refused): (Vec<_>, Vec<_>) = results.into_iter().partition(Result::is_ok);
    let too_late = Err(StoreError::Conflict(Conflict::Decision(DecisionRefusal::Decided(state))));
    assert_eq!((decided.len(), refused), (1, vec![too_late; 8]));
    assert_eq!(all_records(&store).await.len(), 1);
}

pub async fn a_job_that_waits_for_consent_is_queued_when_it_is_given(store: AnyStore) {
    let (permit, job) = waiting(&store, "a");
    let unasked = waiting(&store, "a").1;
    assert_eq!(conflict(&store, vec![accept(&unasked)]).await, Conflict::Permit(PermitRefusal::Unknown));
    commit(&store, vec![ask(&permit), accept(&job)]).await;
    assert_eq!(store.count_queued(&token("one")).await, Ok(0));
    assert_eq!(store.expire_jobs(END_OF_TIME).await, Ok(Vec::new()));
    assert_eq!(claim_ids(&store, "one", 9).await, []);
    let ended = Change::EndJob { job: job.id, claim: None, outcome: failed(FailureCause::Device) };
    assert_eq!(conflict(&store, vec![ended]).await, Conflict::JobMoved);
    assert_eq!(conflict(&store, vec![Change::RequeueJob { job: job.id, claim: None }]).await, Conflict::JobMoved);
    let without_its_job = Change::DecidePermit { permit: permit.id, job: None, decision: allow(None) };
    assert_eq!(conflict(&store, vec![without_its_job]).await, Conflict::Decision(DecisionRefusal::NotFound));

    let queued = token("one");
    let mut work = pin!(store.wait_for_work(&queued));
    assert!(poll!(work.as_mut()).is_pending());
    commit(&store, vec![decide(&permit, allow(None))]).await;
    work.await;
    assert_eq!(store.count_queued(&queued).await, Ok(1));
    let let_in = store.find_job(job.id).await.unwrap().unwrap();
    assert_eq!((let_in.state, &let_in.consent), (JobState::Queued, &Consent::Operator("anna".parse().unwrap())));
    // Its own time begins now.
    assert_eq!(let_in.deadline.since(let_in.accepted), MINUTE);
    assert!(let_in.accepted > job.accepted);
    assert_eq!(uses_of(&store, &permit).await, (1, 0));
    assert_eq!(claim_ids(&store, "one", 9).await, [job.id]);
    commit(&store, vec![end(&store, &job, signed()).await]).await;
    assert_eq!(uses_of(&store, &permit).await, (0, 1));
    let records = all_records(&store).await;
    assert!(matches!(&records.last().unwrap().event, AuditEvent::Signed { consent: Consent::Operator(by), .. } if by.as_str() == "anna"));
}

pub async fn a_job_that_waits_for_consent_ends_when_it_is_not_given(store: AnyStore) {
    let ends = [
        (refuse(), FailureCause::ConsentRefused, PermitState::Refused),
        (Decision::TimeOut, FailureCause::ConsentTimedOut, PermitState::TimedOut),
        (Decision::Restart, FailureCause::ConsentRefused, PermitState::Refused),
    ];
    for (decision, cause, state) in ends {
        let (permit, job) = waiting(&store, "a");
        commit(&store, vec![ask(&permit), accept(&job)]).await;
        let mut end = pin!(store.wait_for_end(job.id));
        assert!(poll!(end.as_mut()).is_pending());
        commit(&store, vec![decide(&permit, decision)]).await;
        let ended = end.await.unwrap();
        assert_eq!((ended.state, ended.outcome), (cause.final_state(), Some(JobOutcome::not_signed(cause, ""))));
        let permit = found(&store, &permit).await;
        assert_eq!((permit.state, permit.reserved, permit.committed), (state, 0, 0));
    }
    assert_eq!(store.forget_ended(END_OF_TIME, 99).await, Ok(6));
}

pub async fn cancelling_a_job_that_waits_for_consent_withdraws_what_was_asked(store: AnyStore) {
    let (permit, job) = waiting(&store, "a");
    let idle = refers_to(ticket("a"), &job);
    commit(&store, vec![ask(&permit), accept(&job), insert(&idle)]).await;
    assert_eq!(store.remove_idle_tickets(END_OF_TIME, 9).await, Ok(Vec::new()));
    commit(&store, vec![Change::CancelJob(job.id), Change::DeleteTicket(idle.id)]).await;
    assert_eq!(state_of(&store, &job).await, JobState::Cancelled);
    assert_eq!(found(&store, &permit).await.state, PermitState::Withdrawn);
    assert_eq!(store.find_words(permit.id).await, Ok(None));
    let gone = conflict(&store, vec![decide(&permit, allow(None))]).await;
    assert_eq!(gone, Conflict::Decision(DecisionRefusal::Decided(PermitState::Withdrawn)));
}

pub async fn waiting_for_a_decision_ends_with_it(store: AnyStore) {
    let permit = asked(&store, "a", 1);
    let unknown = StoreError::Conflict(Conflict::Permit(PermitRefusal::Unknown));
    assert_eq!(store.wait_for_decision(permit.id).await, Err(unknown));
    let mut changes = store.permit_changes();
    changes.mark_unchanged();
    commit(&store, vec![ask(&permit)]).await;
    changes.changed().await.unwrap();
    let waiters: Vec<_> = (0..3)
        .map(|_| {
            let (store, id) = (Arc::clone(&store), permit.id);
            tokio::spawn(async move { store.wait_for_decision(id).await.unwrap().state })
        })
        .collect();
    commit(&store, vec![decide(&permit, refuse())]).await;
    changes.changed().await.unwrap();
    for waiter in waiters {
        assert_eq!(waiter.await.unwrap(), PermitState::Refused);
    }
    assert_eq!(store.wait_for_decision(permit.id).await.unwrap().state, PermitState::Refused);
}

pub async fn a_caller_asks_for_no_more_permits_than_it_may_have(store: AnyStore) {
    let results = race(6, |_| {
        let (store, change) = (Arc::clone(&store), ask(&asked(&store, "a", 1)));
        async move { store.commit(vec![change]).await }
    })
    .await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 3);
    assert!(results.iter().filter_map(|result| result.as_ref().err()).all(|error| *error == Conflict::TooManyWaiting { limit: 3 }.into()));
    commit(&store, vec![ask(&asked(&store, "b", 1))]).await;
    // What is granted makes room among those that wait, and takes it among those that can be used.
    for permit in store.waiting_permits(9).await.unwrap().iter().filter(|permit| permit.caller == caller("a")) {
        commit(&store, vec![decide(permit, allow(None))]).await;
    }
    let more = asked(&store, "a", 1);
    assert_eq!(conflict(&store, vec![ask(&more)]).await, Conflict::TooManyPermits { limit: 3 });
    let used = store.live_permits(store.now(), 9).await.unwrap().remove(0);
    commit(&store, vec![accept(&paid_by(&used, job("a", "one"))), ask(&more)]).await;
    // A time that has come is no decision: what waits is kept until there is one.
    assert_eq!(store.forget_ended(END_OF_TIME, 99).await, Ok(2));
    assert_eq!(store.count_waiting_permits().await, Ok(2));
}

pub async fn what_was_decided_is_undone_when_the_rest_of_the_commit_does_not_fit(store: AnyStore) {
    let (permit, job) = waiting(&store, "a");
    commit(&store, vec![ask(&permit), accept(&job)]).await;
    let gone = Change::DeleteTicket(TicketId::random());
    assert_eq!(conflict(&store, vec![decide(&permit, allow(None)), gone]).await, Conflict::TicketGone);
    assert_eq!((found(&store, &permit).await, state_of(&store, &job).await), (permit.clone(), JobState::AwaitingConsent));
    assert!(store.find_words(permit.id).await.unwrap().is_some());
    assert_eq!((store.count_queued(&token("one")).await, all_records(&store).await.len()), (Ok(0), 0));
}
