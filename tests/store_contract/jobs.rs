//! Permits, the queue, waiting, and what operators look at.

use tokio::sync::watch;

use super::parts::*;

// Permits.

pub async fn a_permit_is_spent_by_a_signature_and_given_back_by_a_failure(store: AnyStore) {
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

pub async fn each_refusal_of_a_permit_is_reported(store: AnyStore) {
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

pub async fn a_permit_that_is_revoked_pays_for_nothing_more(store: AnyStore) {
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

pub async fn a_permit_is_not_overspent_by_a_race(store: AnyStore) {
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

pub async fn permits_that_can_still_be_used_are_listed_the_first_to_end_first(store: AnyStore) {
    let ending = |at| Permit { expires: Timestamp::from_millis(at), ..permit("a", 1) };
    let (late, early, over, spent, revoked) =
        (ending(3_000_000), ending(2_000_000), ending(1_000_000), ending(2_500_000), ending(2_600_000));
    commit(&store, [&late, &early, &over, &spent, &revoked].map(|permit| Change::InsertPermit(permit.clone())).to_vec()).await;
    commit(&store, vec![accept(&paid_by(&spent, job("a", "one"))), Change::RevokePermit(revoked.id)]).await;
    assert_eq!(store.live_permits(NOW, 9).await.unwrap(), [early.clone(), late]);
    assert_eq!(store.live_permits(NOW, 1).await.unwrap(), [early]);
}

// The queue.

pub async fn the_queue_of_a_token_has_a_bound(store: AnyStore) {
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

pub async fn jobs_are_claimed_oldest_first_and_once(store: AnyStore) {
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

pub async fn callers_take_turns(store: AnyStore) {
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

pub async fn a_race_of_claims_gives_each_job_to_one(store: AnyStore) {
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

pub async fn a_job_that_is_put_back_comes_before_all_others_of_its_caller(store: AnyStore) {
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

pub async fn a_job_past_its_deadline_is_not_claimed_and_expires(store: AnyStore) {
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

pub async fn only_lawful_moves_of_a_job_are_made(store: AnyStore) {
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

pub async fn cancelling_ends_only_what_is_still_queued(store: AnyStore) {
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

pub async fn waiting_for_an_end_ends_with_the_job(store: AnyStore) {
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

pub async fn everybody_who_waits_for_an_end_is_woken(store: AnyStore) {
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

pub async fn waiting_for_work_ends_when_a_job_is_queued_for_that_token(store: AnyStore) {
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

/// As a dispatcher does it: a store may keep a claim that finds nothing, or answer it.
async fn next_jobs(store: &AnyStore, limit: usize, wanted: &watch::Sender<bool>) -> Vec<JobId> {
    loop {
        let claimed = store.claim_next(&token("one"), limit, wanted.subscribe()).await.unwrap();
        if !claimed.is_empty() {
            assert!(claimed.iter().all(|job| job.state == JobState::Signing && job.claim == claimed[0].claim && job.claim.is_some()));
            return claimed.into_iter().map(|job| job.id).collect();
        }
        store.wait_for_work(&token("one")).await;
    }
}

/// A job whose deadline is after today: the store looks at its own clock.
fn lasting(owner: &str, label: &str) -> SigningJob {
    SigningJob { deadline: END_OF_TIME, ..job(owner, label) }
}

pub async fn a_claim_that_waits_gets_what_is_queued_and_nothing_once_it_is_not_wanted(store: AnyStore) {
    let wanted = watch::Sender::new(true);
    let jobs: Vec<_> = (0..4).map(|_| lasting("a", "one")).collect();
    commit(&store, vec![accept(&jobs[0])]).await;
    assert_eq!(next_jobs(&store, 16, &wanted).await, [jobs[0].id]);
    {
        let mut waiting = pin!(next_jobs(&store, 1, &wanted));
        assert!(poll!(waiting.as_mut()).is_pending());
        commit(&store, vec![accept(&lasting("a", "two"))]).await;
        commit(&store, vec![accept(&jobs[1]), accept(&jobs[2])]).await;
        assert_eq!(waiting.await, [jobs[1].id]);
    }
    assert_eq!(next_jobs(&store, 16, &wanted).await, [jobs[2].id]);
    commit(&store, vec![requeue(&store, jobs[1].id).await]).await;
    assert_eq!(next_jobs(&store, 16, &wanted).await, [jobs[1].id]);

    let one = token("one");
    let mut unwanted = pin!(store.claim_next(&one, 16, wanted.subscribe()));
    let found = poll!(unwanted.as_mut());
    wanted.send_replace(false);
    let found = if let std::task::Poll::Ready(found) = found { found } else { unwanted.await };
    assert_eq!(found.unwrap(), []);
    commit(&store, vec![accept(&jobs[3])]).await;
    assert_eq!(state_of(&store, &jobs[3]).await, JobState::Queued);
}

/// For stores that keep claims.
pub async fn a_job_that_a_claim_waits_for_is_claimed_in_the_commit_that_accepts_it(store: AnyStore) {
    let (wanted, one) = (watch::Sender::new(true), token("one"));
    let mut waiting = pin!(store.claim_next(&one, 16, wanted.subscribe()));
    assert!(poll!(waiting.as_mut()).is_pending());
    let (first, second) = (lasting("a", "one"), lasting("b", "one"));
    commit(&store, vec![accept(&first), accept(&second)]).await;
    assert_eq!((state_of(&store, &first).await, state_of(&store, &second).await), (JobState::Signing, JobState::Signing));
    assert_eq!(waiting.await.unwrap().len(), 2);
}

// What operators look at.

pub async fn jobs_are_listed_newest_first_by_state_and_caller(store: AnyStore) {
    let (first, second, third) = (job("a", "one"), job("b", "one"), job("a", "two"));
    for job in [&first, &second, &third] {
        commit(&store, vec![accept(job)]).await;
    }
    commit(&store, vec![Change::CancelJob(first.id)]).await;
    let listed = |state, owner: Option<&str>, limit| {
        let (store, filter) = (Arc::clone(&store), JobFilter { state, caller: owner.map(caller), before: None });
        async move { store.list_jobs(&filter, limit).await.unwrap().into_iter().map(|job| job.id).collect::<Vec<_>>() }
    };
    assert_eq!(listed(None, None, 9).await, [third.id, second.id, first.id]);
    assert_eq!(listed(None, None, 2).await, [third.id, second.id]);
    assert_eq!(listed(None, Some("a"), 9).await, [third.id, first.id]);
    assert_eq!(listed(Some(JobState::Queued), None, 9).await, [third.id, second.id]);
    assert_eq!(listed(Some(JobState::Cancelled), Some("a"), 9).await, [first.id]);
    assert_eq!(listed(Some(JobState::InDoubt), None, 9).await, []);
    assert_eq!(store.list_jobs(&JobFilter::default(), usize::MAX).await.unwrap().len(), 3);
    let before = async |id, state| {
        let filter = JobFilter { before: Some(id), state, ..JobFilter::default() };
        store.list_jobs(&filter, 9).await.unwrap().into_iter().map(|job| job.id).collect::<Vec<_>>()
    };
    assert_eq!(before(third.id, None).await, [second.id, first.id]);
    assert_eq!(before(third.id, Some(JobState::Queued)).await, [second.id]);
    assert_eq!(before(first.id, None).await, []);
    assert_eq!(before(JobId::random(), None).await, []);
}

pub async fn what_is_claimed_and_not_settled_is_listed(store: AnyStore) {
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

pub async fn queues_tell_how_many_wait_and_since_when(store: AnyStore) {
    assert_eq!(store.queues().await.unwrap(), []);
    let younger = SigningJob { accepted: Timestamp::from_millis(1_500), ..job("a", "one") };
    let older = SigningJob { accepted: Timestamp::from_millis(500), ..job("b", "one") };
    let claimed = SigningJob { accepted: Timestamp::from_millis(100), ..job("a", "two") };
    commit(&store, [&younger, &older, &claimed].map(accept).to_vec()).await;
    claim_ids(&store, "two", 9).await;
    let waiting = QueueLength { token: token("one"), queued: 2, oldest: older.accepted };
    assert_eq!(store.queues().await.unwrap(), [waiting]);
}

pub async fn a_doubt_is_resolved_once_and_its_use_kept_or_given_back(store: AnyStore) {
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

// Everything at once.

pub async fn many_jobs_at_once_all_end_once(store: AnyStore) {
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
