use proptest::prelude::*;

use super::*;
use crate::domain::{audit::Consent, ids::PermitId, permit::tests::job};

const fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn asked(uses: u32, operators: u8, keys: KeyScope) -> Permit {
    let ask = ConsentAsk {
        from: Provenance::default(),
        gateway: GatewayId::random(),
        uses,
        operators,
        asked: at(0),
        decide_by: at(100),
        view: ViewSize::default(),
        waiting: None,
    };
    Permit {
        state: PermitState::Asked,
        scope: PermitScope { keys, digests: Vec::new() },
        ask: Some(Box::new(ask)),
        ..Permit::by_policy(PermitId::random(), "ci".parse().unwrap(), 0, at(100))
    }
}

fn names(list: &[&str]) -> Vec<KeyName> {
    list.iter().map(|name| name.parse().unwrap()).collect()
}

fn allow(by: &str, uses: Option<u32>) -> Decision {
    Decision::Allow { by: by.parse().unwrap(), keys: KeyAccess::All, uses, lifetime: Duration::from_millis(1_000) }
}

fn allow_for(by: &str, keys: &[&str]) -> Decision {
    Decision::Allow { by: by.parse().unwrap(), keys: KeyAccess::Only(names(keys)), uses: None, lifetime: Duration::from_secs(1) }
}

const ANY: KeyScope = KeyScope::AnyBut(Vec::new());

#[test]
fn what_was_asked_for_can_be_used_only_once_it_is_granted_and_no_more_often_than_that() {
    let mut permit = asked(3, 1, ANY);
    assert_eq!(permit.reserve(&job("ci", "seal", 1)), Err(PermitRefusal::Unknown));
    assert_eq!(permit.decide(&allow("anna", Some(4)), at(1)), Err(DecisionRefusal::Uses { max: 3 }));
    assert_eq!(permit.decide(&allow("anna", Some(0)), at(1)), Err(DecisionRefusal::Uses { max: 3 }));
    let event = permit.decide(&allow("anna", Some(2)), at(1)).unwrap();
    assert!(matches!(event, AuditEvent::ConsentGiven { uses: 2, by: Consent::Operator(by), .. } if by.as_str() == "anna"));
    assert_eq!((permit.state, permit.uses, permit.expires), (PermitState::Granted, 2, at(1_001)));
    permit.reserve(&job("ci", "seal", 2)).unwrap();
    permit.reserve(&job("ci", "other", 2)).unwrap();
    assert_eq!(permit.reserve(&job("ci", "seal", 2)), Err(PermitRefusal::UsedUp));
}

#[test]
fn a_permit_is_decided_once() {
    let refuse = Decision::Refuse { by: "anna".parse().unwrap(), keys: KeyAccess::All };
    let ends = [
        (refuse, PermitState::Refused, Some(FailureCause::ConsentRefused)),
        (Decision::TimeOut, PermitState::TimedOut, Some(FailureCause::ConsentTimedOut)),
        (Decision::Withdraw, PermitState::Withdrawn, Some(FailureCause::Cancelled)),
        (Decision::Restart, PermitState::Refused, Some(FailureCause::ConsentRefused)),
        (allow("anna", None), PermitState::Granted, None),
    ];
    for (decision, state, cause) in &ends {
        let mut permit = asked(1, 1, ANY);
        permit.decide(decision, at(1)).unwrap();
        assert_eq!((permit.state, permit.job_ends_for()), (*state, *cause));
        for (second, ..) in &ends {
            assert_eq!(permit.decide(second, at(1)), Err(DecisionRefusal::Decided(*state)));
        }
    }
    assert_eq!(asked(1, 1, ANY).decide(&allow("anna", None), at(100)), Err(DecisionRefusal::TooLate));
    let mut by_policy = Permit::by_policy(PermitId::random(), "ci".parse().unwrap(), 1, at(100));
    assert_eq!(by_policy.decide(&Decision::Withdraw, at(1)), Err(DecisionRefusal::NotFound));
}

#[test]
fn two_operators_are_two_people_and_the_lesser_number_counts() {
    let mut permit = asked(5, 2, ANY);
    let event = permit.decide(&allow("anna", Some(4)), at(1)).unwrap();
    assert!(matches!(event, AuditEvent::ConsentSeconded { uses: 4, .. }));
    assert_eq!((permit.state, permit.uses), (PermitState::Asked, 0));
    assert_eq!(permit.decide(&allow("anna", None), at(2)), Err(DecisionRefusal::SameOperator));
    permit.decide(&allow("boris", None), at(3)).unwrap();
    assert_eq!((permit.state, permit.uses, permit.expires), (PermitState::Granted, 4, at(1_003)));
    assert_eq!(permit.consent(), Consent::Operators(vec!["anna".parse().unwrap(), "boris".parse().unwrap()]));
}

#[test]
fn an_operator_decides_for_their_own_keys_only() {
    let mut permit = asked(2, 2, KeyScope::AnyBut(names(&["locked"])));
    assert!(!permit.concerns(&KeyAccess::Only(names(&["locked"]))));
    assert_eq!(permit.decide(&allow_for("olga", &["locked"]), at(1)), Err(DecisionRefusal::NotFound));
    permit.decide(&allow_for("anna", &["a", "b", "locked"]), at(1)).unwrap();
    assert_eq!(permit.scope.keys, KeyScope::Named(names(&["a", "b"])));
    assert_eq!(permit.decide(&allow_for("carl", &["c"]), at(1)), Err(DecisionRefusal::NotFound));
    let refuse = Decision::Refuse { by: "carl".parse().unwrap(), keys: KeyAccess::Only(names(&["c"])) };
    assert_eq!(permit.decide(&refuse, at(1)), Err(DecisionRefusal::NotFound));
    permit.decide(&allow_for("boris", &["b", "c"]), at(1)).unwrap();
    assert_eq!(permit.reserve(&job("ci", "a", 2)), Err(PermitRefusal::OtherKey));
    assert_eq!(permit.reserve(&job("ci", "b", 2)), Ok(()));
    // A key without a name is nobody's in particular.
    let unnamed = job("ci", "", 2).key;
    assert!(unnamed.name.is_none() && KeyScope::of(&unnamed).allows(&unnamed));
    assert_eq!(KeyScope::of(&unnamed).within(&KeyAccess::Only(names(&["a"]))), None);
}

#[test]
fn a_wished_size_is_brought_within_bounds() {
    let size = ViewSize::wished(Some(1), Some(u64::MAX));
    assert_eq!((size.width, size.height), (Some(VIEW_MIN), Some(VIEW_MAX)));
    assert_eq!(ViewSize::wished(None, Some(400)), ViewSize { width: None, height: Some(400) });
}

proptest! {
    #[test]
    fn no_order_of_decisions_and_uses_gets_more_signatures_than_the_least_that_was_allowed(
        asked_for in 1u32..6,
        operators in 1u8..3,
        steps in proptest::collection::vec((0u8..7, 0u32..7), 0..60),
    ) {
        let mut permit = asked(asked_for, operators, ANY);
        let (mut open, mut allowed) = (0u32, Vec::new());
        for (step, uses) in steps {
            match step {
                0 | 1 => {
                    let by = if step == 0 { "anna" } else { "boris" };
                    if permit.decide(&allow(by, Some(uses)), at(1)).is_ok() { allowed.push(uses); }
                }
                2 if uses == 0 => drop(permit.decide(&Decision::Withdraw, at(1))),
                3 => open += u32::from(permit.reserve(&job("ci", "seal", 2)).is_ok()),
                4 if open > 0 => { permit.commit(); open -= 1; }
                5 if open > 0 => { permit.release(); open -= 1; }
                6 if uses == 0 => drop(permit.revoke()),
                _ => {}
            }
            let bound = if allowed.len() < usize::from(operators) { 0 } else { *allowed.iter().min().unwrap() };
            prop_assert!(permit.reserved + permit.committed <= bound);
            prop_assert!(permit.uses <= asked_for);
        }
    }
}
