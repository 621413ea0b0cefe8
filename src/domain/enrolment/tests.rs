//! What the states of a certificate request keep to.

use std::fmt::Write as _;

use super::*;

/// The page with the picture of the states.
const PAGE: &str = include_str!("../../../docs/certificate-requests.md");

/// A request as it is when it is made.
pub(crate) fn any_enrolment() -> Enrolment {
    let draft = Draft {
        organisation: "Romashka".to_owned(),
        external_id: "0b2c6d6e-0000-4a31-8c3e-5d1f0a2b3c4d".parse().unwrap(),
        caller: "bank".parse().unwrap(),
        login: "ivanov".to_owned(),
        profile: "bank".parse().unwrap(),
        key_name: "ivanov".parse().unwrap(),
        application: Application {
            number: "1".to_owned(),
            email: "a@b.example".to_owned(),
            organisation: None,
            full_name: "Иванов Иван".to_owned(),
            position: "Директор".to_owned(),
            key_identifier: None,
        },
        body: "{}".to_owned(),
        fingerprint: Sha256::ZERO,
        key_made_here: true,
        renews: None,
    };
    draft.accepted(Timestamp::from_millis(1_000), "bank")
}

fn prepared(confirm: bool) -> Step {
    Step::Prepared { request: vec![1], key: None, confirm, approved: !confirm }
}

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

#[test]
fn a_request_goes_from_its_form_to_an_active_certificate() {
    let mut request = any_enrolment();
    request.step(prepared(false), at(1), "bank").unwrap();
    assert_eq!((request.state, request.due), (EnrolmentState::AwaitingIssue, Some(at(1))));
    request.step(Step::Submitted { reference: Some("42".to_owned()), due: Some(at(9)) }, at(2), "ca").unwrap();
    assert_eq!((request.ca_reference.as_deref(), request.due), (Some("42"), Some(at(9))));
    request.step(Step::Issued(IssuedCertificate::new(vec![2], vec![])), at(3), "ca").unwrap();
    assert_eq!((request.state, request.active, request.due), (EnrolmentState::Issued, false, None));
    request.step(Step::Activated, at(4), "bank").unwrap();
    assert!(request.active);
    request.step(Step::Superseded, at(5), "bank").unwrap();
    assert_eq!((request.state, request.active), (EnrolmentState::Activated, false));
    assert_eq!(
        request.step(Step::Superseded, at(6), "bank"),
        Err(WrongStep { state: EnrolmentState::Activated, step: StepKind::Superseded })
    );
    assert_eq!(request.history.len(), 6);
}

#[test]
fn the_end_of_a_certificate_is_told_once_at_each_mark_and_at_the_end_itself() {
    let mut request = any_enrolment();
    assert!(!request.note_expiry(Duration::ZERO), "it is not active");
    request.active = true;
    let hours = |hours: u64| Duration::from_secs(hours * 3_600);
    let told: Vec<_> = [31 * 24, 30 * 24, 29 * 24, 7 * 24, 6 * 24, 24, 23, 1, 0, 0].map(|left| request.note_expiry(hours(left))).to_vec();
    assert_eq!(told, [false, true, false, true, false, true, false, false, true, false]);
    // One that is looked at late is told of once, not for each mark that has passed.
    let mut late = Enrolment { active: true, ..any_enrolment() };
    assert!(late.note_expiry(hours(48)) && !late.note_expiry(hours(47)));
    assert_eq!(late.told, Some(7));
}

#[test]
fn nothing_goes_to_the_ca_before_somebody_let_it() {
    let mut request = any_enrolment();
    request.step(prepared(true), at(1), "bank").unwrap();
    assert_eq!((request.state, request.due), (EnrolmentState::AwaitingConfirmation, None));
    request.step(Step::Confirmed, at(2), "bank").unwrap();
    assert_eq!((request.state, request.due), (EnrolmentState::AwaitingIssue, Some(at(2))));
}

#[test]
fn what_has_ended_or_is_issued_is_not_refused() {
    for state in EnrolmentState::ALL {
        let refused = Step::Refused { ground: Refusal::ByCa, comment: String::new() };
        assert_eq!(state.after(&refused).is_some(), state.is_open(), "{state}");
    }
}

#[test]
fn a_wrong_step_changes_nothing() {
    let mut request = any_enrolment();
    assert!(request.step(Step::Activated, at(1), "bank").is_err());
    assert_eq!(request, any_enrolment());
}

#[test]
fn a_history_is_bounded_and_keeps_its_ends() {
    let mut request = any_enrolment();
    for millis in 0..1_000 {
        request.note(at(millis), StepKind::Submitted, "ca", String::new());
    }
    assert_eq!(request.history.len(), HISTORY_MAX);
    assert_eq!((request.history[0].what, request.history.last().unwrap().at), (StepKind::Created, at(999)));
}

#[test]
fn an_external_id_is_a_uuid_in_lower_case_whatever_its_version() {
    for good in ["00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"] {
        assert_eq!(good.parse::<ExternalId>().unwrap().as_str(), good);
    }
    for bad in [
        "",
        "0b2c6d6e-0000-4a31-8c3e-5d1f0a2b3c4D",
        "0b2c6d6e00004a318c3e5d1f0a2b3c4d",
        "0b2c6d6e-0000-4a31-8c3e-5d1f0a2b3c4d-",
        "g0000000-0000-0000-0000-000000000000",
    ] {
        assert_eq!(bad.parse::<ExternalId>(), Err(ExternalIdError), "{bad}");
    }
}

#[test]
fn two_organisations_may_choose_the_same_id() {
    let id: ExternalId = "0b2c6d6e-0000-4a31-8c3e-5d1f0a2b3c4d".parse().unwrap();
    assert_eq!(EnrolmentId::of("a", &id), EnrolmentId::of("a", &id));
    assert_ne!(EnrolmentId::of("a", &id), EnrolmentId::of("b", &id));
}

/// The states as a Mermaid diagram.
fn picture() -> String {
    let name = |state: EnrolmentState| state.to_string().split(' ').map(capitalised).collect::<String>();
    let mut lines = String::from("stateDiagram-v2\n    [*] --> Accepted: created\n");
    let mut drawn = std::collections::BTreeSet::new();
    for (from, step, to) in EnrolmentState::ways() {
        let line = format!("    {} --> {}: {}\n", name(from), name(to), step.as_str());
        if drawn.insert(line.clone()) {
            lines.push_str(&line);
        }
    }
    for state in EnrolmentState::ALL.into_iter().filter(|state| matches!(state, EnrolmentState::Refused(_))) {
        let _ = writeln!(lines, "    {} --> [*]", name(state));
    }
    lines
}

fn capitalised(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

#[test]
fn the_picture_of_the_states_is_drawn_from_the_code() {
    let drawn = format!("```mermaid\n{}```", picture());
    assert!(PAGE.contains(&drawn), "put this into docs/certificate-requests.md:\n{drawn}");
}
