//! Where a certificate request stands, and where it may go from there.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Step, StepKind};

/// Where a certificate request stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EnrolmentState {
    /// It is stored; its key may still have to be made.
    Accepted,
    /// It waits for an operator, or for the CA.
    AwaitingIssue,
    /// It waits for the holder's confirmation.
    AwaitingConfirmation,
    /// The certificate is there and not active.
    Issued,
    /// The certificate was activated.
    Activated,
    /// The CA, or an operator, said no.
    Refused(Refusal),
}

/// On what ground a request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    /// The operator's decision.
    ByOperator,
    /// The CA's decision.
    ByCa,
    /// What the form says is not right.
    Particulars,
    /// A signature on it is not right.
    Signature,
}

impl Refusal {
    /// Every ground.
    pub const ALL: [Self; 4] = [Self::ByOperator, Self::ByCa, Self::Particulars, Self::Signature];

    /// Its name in commands and in the store.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ByOperator => "by-operator",
            Self::ByCa => "by-ca",
            Self::Particulars => "particulars",
            Self::Signature => "signature",
        }
    }
}

impl EnrolmentState {
    /// Every state.
    pub const ALL: [Self; 9] = [
        Self::Accepted,
        Self::AwaitingIssue,
        Self::AwaitingConfirmation,
        Self::Issued,
        Self::Activated,
        Self::Refused(Refusal::ByOperator),
        Self::Refused(Refusal::ByCa),
        Self::Refused(Refusal::Particulars),
        Self::Refused(Refusal::Signature),
    ];

    /// The state after `step`; `None` if a request in this state does not take it.
    #[must_use]
    pub const fn after(self, step: &Step) -> Option<Self> {
        match (self, step) {
            (Self::Accepted, Step::Prepared { confirm: true, .. }) => Some(Self::AwaitingConfirmation),
            (Self::Accepted, Step::Prepared { confirm: false, .. })
            | (Self::AwaitingConfirmation, Step::Confirmed)
            | (Self::AwaitingConfirmation | Self::AwaitingIssue, Step::Approved)
            | (Self::AwaitingIssue, Step::Submitted { .. } | Step::Postponed { .. }) => Some(Self::AwaitingIssue),
            (Self::AwaitingIssue, Step::Issued(_)) => Some(Self::Issued),
            (Self::Issued, Step::Activated) | (Self::Activated, Step::Superseded) => Some(Self::Activated),
            (Self::Accepted | Self::AwaitingIssue | Self::AwaitingConfirmation, Step::Refused { ground, .. }) => {
                Some(Self::Refused(*ground))
            }
            (Self::Refused(ground), Step::KeyDeleted) => Some(Self::Refused(ground)),
            _ => None,
        }
    }

    /// The name of the state alone, without the ground of a refusal.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::AwaitingIssue => "awaiting-issue",
            Self::AwaitingConfirmation => "awaiting-confirmation",
            Self::Issued => "issued",
            Self::Activated => "activated",
            Self::Refused(_) => "refused",
        }
    }

    /// Whether a certificate may still come.
    #[must_use]
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Accepted | Self::AwaitingIssue | Self::AwaitingConfirmation)
    }

    /// Every way from one state to another, in the order of [`ALL`](Self::ALL): what the picture in `docs/certificate-requests.md` is drawn from.
    #[must_use]
    pub fn ways() -> Vec<(Self, StepKind, Self)> {
        let steps = Self::ALL.into_iter().flat_map(|from| Step::one_of_each().into_iter().map(move |step| (from, step)));
        steps.filter_map(|(from, step)| Some((from, step.kind(), from.after(&step)?))).collect()
    }
}

impl Step {
    /// One step of each kind that matters to the states.
    fn one_of_each() -> Vec<Self> {
        let prepared = |confirm| Self::Prepared { request: Vec::new(), key: None, confirm, approved: false };
        let mut steps = vec![
            prepared(false),
            prepared(true),
            Self::Confirmed,
            Self::Approved,
            Self::Submitted { reference: None, due: None },
            Self::Postponed { due: crate::domain::timestamp::Timestamp::from_millis(0), reason: String::new() },
            Self::Issued(super::IssuedCertificate::new(Vec::new(), Vec::new())),
            Self::Activated,
            Self::Superseded,
            Self::KeyDeleted,
        ];
        steps.extend(Refusal::ALL.map(|ground| Self::Refused { ground, comment: String::new() }));
        steps
    }
}

impl fmt::Display for EnrolmentState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Accepted => "accepted",
            Self::AwaitingIssue => "awaiting issue",
            Self::AwaitingConfirmation => "awaiting confirmation",
            Self::Issued => "issued",
            Self::Activated => "activated",
            Self::Refused(Refusal::ByOperator) => "refused by an operator",
            Self::Refused(Refusal::ByCa) => "refused by the CA",
            Self::Refused(Refusal::Particulars) => "refused for what it says",
            Self::Refused(Refusal::Signature) => "refused for a signature",
        })
    }
}
