use std::pin::pin;

use futures_util::poll;

use super::*;
use crate::{
    domain::{
        audit::{AuditRecord, Consent},
        caller::{ConsentRules, KeyAccess, Provenance, Scopes},
        consent::DecisionRefusal,
        operator::{Operator, Role},
    },
    store::memory::MemoryStore,
};

fn caller_with(id: &str, consent: impl Into<ConsentRules>) -> Caller {
    Caller {
        id: id.parse().unwrap(),
        keys: KeyAccess::All,
        default_key: None,
        consent: consent.into(),
        permit_uses_max: 3,
        scopes: Scopes::default(),
        account: None,
        rate: None,
        from: Provenance::default(),
    }
}

fn caller(id: &str) -> Caller {
    caller_with(id, ConsentPolicy::Auto)
}

fn operator(name: &str, keys: KeyAccess) -> Operator {
    Operator { name: name.parse().unwrap(), role: Role::Approver, keys }
}

fn only(key: &str) -> KeyAccess {
    KeyAccess::Only(vec![key.parse().unwrap()])
}

fn service() -> PermitService {
    PermitService::new(Arc::new(MemoryStore::new()), PermitSettings::default())
}

async fn events(service: &PermitService) -> Vec<AuditEvent> {
    let records = service.store.audit_records(service.store.gateway(), 1, 100).await.unwrap();
    records.iter().map(|record| serde_json::from_str::<AuditRecord>(&record.text).unwrap().event).collect()
}

/// Polls a request until it waits for an operator.
macro_rules! asked {
    ($service:expr, $request:expr) => {{
        assert!(poll!($request.as_mut()).is_pending());
        $service.store.waiting_permits(9).await.unwrap().pop().unwrap()
    }};
}

#[tokio::test]
async fn a_caller_with_policy_auto_is_granted_what_it_may_ask_for() {
    let (service, caller) = (service(), caller("a"));
    let permit = service.request(&caller, 3).await.unwrap();
    assert_eq!(service.find(&caller, permit.id).await, Ok(permit.clone()));
    assert_eq!((permit.uses, permit.uses_left()), (3, 3));
    for uses in [0, 4] {
        assert_eq!(service.request(&caller, uses).await, Err(PermitError::Uses { max: 3 }));
    }
}

#[tokio::test]
async fn a_permit_exists_for_its_caller_only() {
    let (service, owner, other) = (service(), caller("a"), caller("b"));
    let permit = service.request(&owner, 1).await.unwrap();
    let unknown = Err(PermitError::Refused(PermitRefusal::Unknown));
    assert_eq!(service.find(&other, permit.id).await, unknown);
    assert_eq!(service.revoke(&other, permit.id).await, Err(PermitRefusal::Unknown.into()));
    assert_eq!(service.find(&owner, PermitId::random()).await, unknown);
    service.revoke(&owner, permit.id).await.unwrap();
    assert!(service.find(&owner, permit.id).await.unwrap().is_revoked());
}

#[tokio::test]
async fn whoever_asks_is_answered_when_an_operator_allows_fewer() {
    let (service, caller, anna) = (service(), caller_with("a", ConsentPolicy::Operator), operator("anna", KeyAccess::All));
    let mut changes = service.watch();
    changes.mark_unchanged();
    let ask = PermitAsk { words: Some("<b>two files</b>".to_owned()), ..3.into() };
    let mut request = pin!(service.request(&caller, ask));
    let waiting = asked!(service, request);
    assert!(changes.has_changed().unwrap());
    assert_eq!(service.waiting(&anna).await.unwrap(), std::slice::from_ref(&waiting));
    assert_eq!(service.words(&anna, waiting.id).await.unwrap().as_deref(), Some("<b>two files</b>"));
    assert_eq!(service.find(&caller, waiting.id).await, Err(PermitRefusal::Unknown.into()));
    let granted = service.grant(&anna, waiting.id, Some(2)).await.unwrap();
    assert_eq!(request.await, Ok(granted.clone()));
    assert_eq!((granted.uses, granted.consent()), (2, Consent::Operator("anna".parse().unwrap())));
    assert_eq!(service.waiting(&anna).await.unwrap(), []);
    assert_eq!(service.live(&anna).await.unwrap(), std::slice::from_ref(&granted));
    assert_eq!(service.words(&anna, granted.id).await, Ok(None));
    assert_eq!(service.store.find_words(granted.id).await, Ok(None));
    assert!(service.take_back(&anna, granted.id).await.unwrap().is_revoked());
    let told: Vec<_> = events(&service).await.into_iter().filter(|event| !matches!(event, AuditEvent::Refused { .. })).collect();
    assert!(matches!(
        told.as_slice(),
        [AuditEvent::ConsentAsked { uses: 3, .. }, AuditEvent::ConsentGiven { uses: 2, .. }, AuditEvent::PermitRevoked { .. }]
    ));
}

#[tokio::test]
async fn a_refusal_the_end_of_the_time_and_a_restart_are_all_refusals() {
    let settings = PermitSettings { decision_time: Duration::ZERO, ..PermitSettings::default() };
    let service = PermitService::new(Arc::new(MemoryStore::new()), settings);
    let (caller, anna) = (caller_with("a", ConsentPolicy::Operator), operator("anna", KeyAccess::All));
    let ends = [PermitState::Refused, PermitState::TimedOut, PermitState::Refused];
    for (round, state) in ends.into_iter().enumerate() {
        let mut request = pin!(service.request(&caller, 1));
        let waiting = asked!(service, request);
        match round {
            0 => drop(service.refuse(&anna, waiting.id).await.unwrap()),
            1 => {
                assert_eq!(service.grant(&anna, waiting.id, None).await, Err(DecisionRefusal::TooLate.into()));
                service.time_out().await;
            }
            _ => service.settle_restart().await.unwrap(),
        }
        assert_eq!(request.await, Err(PermitError::NotGranted(state)));
        assert_eq!(service.grant(&anna, waiting.id, None).await, Err(DecisionRefusal::Decided(state).into()));
        assert_eq!(service.take_back(&anna, waiting.id).await, Err(DecisionError::NotGranted(state)));
    }
    let refused = events(&service).await.into_iter().filter_map(|event| match event {
        AuditEvent::ConsentRefused { reason, by, .. } => Some(serde_json::json!([reason, by])),
        _ => None,
    });
    assert_eq!(serde_json::Value::from_iter(refused), serde_json::json!([["operator", "anna"], ["timed-out", null], ["restarted", null]]));
}

#[tokio::test]
async fn a_request_that_nobody_waits_for_any_more_is_withdrawn() {
    let (service, caller) = (service(), caller_with("a", ConsentPolicy::Operator));
    let waiting = {
        let mut request = pin!(service.request(&caller, 1));
        asked!(service, request)
    };
    let ended = service.store.wait_for_decision(waiting.id).await.unwrap();
    assert_eq!(ended.state, PermitState::Withdrawn);
}

#[tokio::test]
async fn the_policy_and_the_limits_of_a_caller_count() {
    let settings = PermitSettings { waiting_per_caller: 1, live_per_caller: 1, ..PermitSettings::default() };
    let service = PermitService::new(Arc::new(MemoryStore::new()), settings);
    let denied = service.request(&caller_with("d", ConsentPolicy::Deny), 1).await;
    assert_eq!(denied, Err(PermitRefusal::ByPolicy.into()));
    let asker = caller_with("a", ConsentPolicy::Operator);
    let mut first = pin!(service.request(&asker, 1));
    asked!(service, first);
    assert_eq!(service.request(&asker, 1).await, Err(PermitError::TooManyWaiting { limit: 1 }));
    let auto = caller("b");
    let permit = service.request(&auto, 1).await.unwrap();
    assert_eq!(service.request(&auto, 1).await, Err(PermitError::TooManyPermits { limit: 1 }));
    service.revoke(&auto, permit.id).await.unwrap();
    service.request(&auto, 1).await.unwrap();
}

#[tokio::test]
async fn an_operator_sees_and_decides_only_what_is_about_their_keys() {
    let service = service();
    let (seals, stamps) = (operator("anna", only("seal")), operator("boris", only("stamp")));
    let caller = Caller { keys: only("seal"), ..caller_with("a", ConsentPolicy::Operator) };
    let mut request = pin!(service.request(&caller, 1));
    let waiting = asked!(service, request);
    let not_found: Result<Permit, _> = Err(DecisionRefusal::NotFound.into());
    assert_eq!(service.waiting(&stamps).await, Ok(Vec::new()));
    assert_eq!(service.look(&stamps, waiting.id).await, not_found);
    assert_eq!(service.words(&stamps, waiting.id).await, Err(DecisionRefusal::NotFound.into()));
    assert_eq!(service.grant(&stamps, waiting.id, None).await, not_found);
    assert_eq!(service.refuse(&stamps, waiting.id).await, not_found);
    service.grant(&seals, waiting.id, None).await.unwrap();
    let granted = request.await.unwrap();
    assert_eq!(service.live(&stamps).await, Ok(Vec::new()));
    assert_eq!(service.take_back(&stamps, granted.id).await, not_found);
}

#[tokio::test]
async fn two_operators_must_agree_where_the_policy_says_so() {
    let service = service();
    let (anna, boris) = (operator("anna", KeyAccess::All), operator("boris", KeyAccess::All));
    let caller = caller_with("a", ConsentPolicy::TwoOperators);
    let mut request = pin!(service.request(&caller, 2));
    let waiting = asked!(service, request);
    assert_eq!(service.grant(&anna, waiting.id, None).await.unwrap().state, PermitState::Asked);
    assert!(poll!(request.as_mut()).is_pending());
    assert_eq!(service.grant(&anna, waiting.id, None).await, Err(DecisionRefusal::SameOperator.into()));
    service.grant(&boris, waiting.id, Some(1)).await.unwrap();
    assert_eq!(request.await.unwrap().uses, 1);
}
