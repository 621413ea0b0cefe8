//! Promises about certificate requests.

use sealgate::{
    domain::enrolment::{Application, Draft, Enrolment, EnrolmentState, ExternalId, IssuedCertificate, Step, StepKind},
    store::EnrolmentFilter,
};

use super::parts::*;

fn enrolment(organisation: &str, number: u32, key_name: &str) -> Enrolment {
    let external_id: ExternalId = format!("0b2c6d6e-0000-4a31-8c3e-{number:012x}").parse().unwrap();
    let created = NOW.after(Duration::from_millis(number.into()));
    let draft = Draft {
        organisation: organisation.to_owned(),
        external_id,
        caller: caller("bank"),
        login: "ivanov".to_owned(),
        profile: "bank".parse().unwrap(),
        key_name: key_name.parse().unwrap(),
        application: Application {
            number: number.to_string(),
            email: "a@b.example".to_owned(),
            organisation: Some("Ромашка".to_owned()),
            full_name: "Иванов Иван".to_owned(),
            position: "Директор".to_owned(),
            key_identifier: None,
        },
        body: "{}".to_owned(),
        fingerprint: Sha256::of(b"body"),
        key_made_here: true,
        renews: None,
    };
    draft.accepted(created, "bank")
}

fn insert(enrolment: &Enrolment) -> Change {
    Change::InsertEnrolment(Box::new(enrolment.clone()))
}

async fn stored(store: &AnyStore, enrolment: &Enrolment) -> Enrolment {
    store.find_enrolment(enrolment.id).await.unwrap().unwrap()
}

/// Takes steps, one commit each.
async fn go(store: &AnyStore, enrolment: &Enrolment, steps: Vec<Step>) -> Enrolment {
    for step in steps {
        let mut next = stored(store, enrolment).await;
        let activates = matches!(step, Step::Activated);
        next.step(step, LATER, "test").unwrap();
        let next = Box::new(next);
        commit(store, vec![if activates { Change::ActivateEnrolment(next) } else { Change::UpdateEnrolment(next) }]).await;
    }
    stored(store, enrolment).await
}

fn to_issued() -> Vec<Step> {
    vec![
        Step::Prepared { request: vec![1, 2], key: None, confirm: false, approved: true },
        Step::Issued(IssuedCertificate::new(vec![3, 4], vec![vec![5]])),
    ]
}

pub async fn a_certificate_request_is_found_as_it_was_stored_and_changed_once_a_version(store: AnyStore) {
    let mut request = enrolment("Romashka", 1, "ivanov");
    assert_eq!(store.find_enrolment(request.id).await.unwrap(), None);
    commit(&store, vec![insert(&request)]).await;
    assert_eq!(stored(&store, &request).await, request);
    assert_eq!(conflict(&store, vec![insert(&request)]).await, Conflict::EnrolmentChanged);
    request.step(to_issued().remove(0), LATER, "test").unwrap();
    let update = || Change::UpdateEnrolment(Box::new(request.clone()));
    commit(&store, vec![update()]).await;
    assert_eq!(conflict(&store, vec![update()]).await, Conflict::EnrolmentChanged);
    request.version += 1;
    assert_eq!(stored(&store, &request).await, request);
    let unknown = Box::new(enrolment("Romashka", 2, "ivanov"));
    assert_eq!(conflict(&store, vec![Change::UpdateEnrolment(unknown)]).await, Conflict::EnrolmentGone);
}

pub async fn certificate_requests_are_listed_newest_first_as_the_filter_says(store: AnyStore) {
    for number in 1..=3 {
        commit(&store, vec![insert(&enrolment("Romashka", number, "ivanov")), insert(&enrolment("Vasilek", number, "petrov"))]).await;
    }
    go(&store, &enrolment("Romashka", 2, "ivanov"), [to_issued(), vec![Step::Activated]].concat()).await;
    let numbers = async |filter: EnrolmentFilter, limit| {
        let found = store.list_enrolments(&filter, limit).await.unwrap();
        found.into_iter().map(|request| request.application.number).collect::<Vec<_>>()
    };
    let of = |organisation: &str| EnrolmentFilter { organisation: Some(organisation.to_owned()), ..EnrolmentFilter::default() };
    assert_eq!(numbers(of("Romashka"), 10).await, ["3", "2", "1"]);
    assert_eq!(numbers(of("Romashka"), 2).await, ["3", "2"]);
    assert_eq!(numbers(EnrolmentFilter::default(), 10).await.len(), 6);
    assert_eq!(numbers(EnrolmentFilter { login: Some("nobody".to_owned()), ..of("Romashka") }, 10).await, [""; 0]);
    assert_eq!(numbers(EnrolmentFilter { active: true, ..EnrolmentFilter::default() }, 10).await, ["2"]);
    assert_eq!(numbers(EnrolmentFilter { state: Some(EnrolmentState::Accepted), ..of("Romashka") }, 10).await, ["3", "1"]);
}

pub async fn certificate_requests_are_due_in_the_order_of_their_time(store: AnyStore) {
    let requests: Vec<_> = (1..=3).map(|number| enrolment("Romashka", number, "ivanov")).collect();
    for (request, due) in requests.iter().zip([Some(500), None, Some(100)]) {
        let request = Enrolment { due: due.map(Timestamp::from_millis), ..request.clone() };
        commit(&store, vec![insert(&request)]).await;
    }
    let due = async |at| {
        let found = store.due_enrolments(Timestamp::from_millis(at), 10).await.unwrap();
        found.into_iter().map(|request| request.application.number).collect::<Vec<_>>()
    };
    assert_eq!(due(99).await, [""; 0]);
    assert_eq!(due(100).await, ["3"]);
    assert_eq!(due(500).await, ["3", "1"]);
}

pub async fn a_certificate_that_becomes_active_takes_the_place_of_the_former_one(store: AnyStore) {
    let (first, second, other) = (enrolment("R", 1, "ivanov"), enrolment("R", 2, "ivanov"), enrolment("R", 3, "petrov"));
    commit(&store, [&first, &second, &other].map(insert).to_vec()).await;
    let all = [to_issued(), vec![Step::Activated]].concat();
    for request in [&first, &other, &second] {
        assert!(go(&store, request, all.clone()).await.active);
    }
    let former = stored(&store, &first).await;
    assert_eq!((former.active, former.state), (false, EnrolmentState::Activated));
    assert_eq!(former.history.last().unwrap().what, StepKind::Superseded);
    assert!(stored(&store, &second).await.active && stored(&store, &other).await.active);
    let records = store.audit_records(store.audit_head().await.unwrap().gateway, 1, 100).await.unwrap();
    assert!(records.iter().any(|record| record.text.contains("superseded")));
}

pub async fn of_many_that_become_active_at_once_one_is(store: AnyStore) {
    let requests: Vec<_> = (1..=8).map(|number| enrolment("R", number, "ivanov")).collect();
    for request in &requests {
        commit(&store, vec![insert(request)]).await;
        go(&store, request, to_issued()).await;
    }
    let outcomes = race(requests.len(), |i| {
        let (store, request) = (Arc::clone(&store), requests[i].clone());
        async move {
            let mut next = stored(&store, &request).await;
            next.step(Step::Activated, LATER, "test").unwrap();
            store.commit(vec![Change::ActivateEnrolment(Box::new(next))]).await
        }
    });
    assert!(outcomes.await.iter().all(Result::is_ok));
    let active = EnrolmentFilter { active: true, ..EnrolmentFilter::default() };
    assert_eq!(store.list_enrolments(&active, 10).await.unwrap().len(), 1);
}

pub async fn a_certificate_request_is_as_before_when_its_commit_fails(store: AnyStore) {
    let (first, second) = (enrolment("R", 1, "ivanov"), enrolment("R", 2, "ivanov"));
    commit(&store, vec![insert(&first), insert(&second)]).await;
    go(&store, &first, [to_issued(), vec![Step::Activated]].concat()).await;
    let mut next = go(&store, &second, to_issued()).await;
    next.step(Step::Activated, LATER, "test").unwrap();
    let gone = Box::new(enrolment("R", 9, "ivanov"));
    let changes = vec![Change::ActivateEnrolment(Box::new(next)), Change::UpdateEnrolment(gone)];
    assert_eq!(conflict(&store, changes).await, Conflict::EnrolmentGone);
    assert!(stored(&store, &first).await.active);
    assert!(!stored(&store, &second).await.active);
}
