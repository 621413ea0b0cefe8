//! The one table from what went wrong to what operators are answered.

use actix_web::{HttpResponse, ResponseError, http::StatusCode};

use super::dto::ErrorDto;
use crate::{
    auth::{CallerError, OperatorError},
    domain::{consent::DecisionRefusal, pin::PinFormatError},
    enrolment::EnrolmentError,
    permit::DecisionError,
    signing::{jobs::JobCommandError, tokens::TokenCommandError},
};

/// Why an operator's command was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::http) enum ControlError {
    #[error("there is no such command")]
    UnknownRoute,
    #[error("the request cannot be read: {0}")]
    Body(String),
    #[error("the request cannot be read: {0}")]
    Query(String),
    #[error("the request cannot be read: {0}")]
    JobsQuery(String),
    #[error("the system does not say who is at the other end of the socket")]
    Stranger,
    #[error("{0}")]
    Decision(#[from] DecisionError),
    #[error("no configured key has this name")]
    UnknownKey,
    #[error("there is no caller of this name")]
    UnknownCaller,
    #[error("{0}")]
    Caller(#[from] CallerError),
    #[error("{0}")]
    Pin(PinFormatError),
    #[error("{0}")]
    Command(#[from] TokenCommandError),
    #[error("{0}")]
    Job(#[from] JobCommandError),
    #[error("{0}")]
    Operator(#[from] OperatorError),
    #[error("the request cannot be read: {0}")]
    EnrolmentsQuery(String),
    #[error("{0}")]
    EnrolmentBody(String),
    #[error("{0}")]
    Enrolment(#[from] EnrolmentError),
}

impl ControlError {
    const fn hint(&self) -> &'static str {
        match self {
            Self::UnknownRoute => "use the command line of the same version as the gateway",
            Self::Query(_) => "ask with `since` and the number of a change, or without it",
            Self::Stranger => "use the control socket of the gateway's own machine",
            Self::Decision(error) => hint_about_decision(error),
            Self::JobsQuery(_) => "ask with `state` (say in-doubt), `caller` and `limit`, or without them",
            Self::Job(JobCommandError::NotFound) => "see `sealgate jobs list`; what ended long ago stands in the audit log only",
            Self::Job(JobCommandError::NotInDoubt(_)) => "nothing is left to be settled; see `sealgate jobs show`",
            Self::EnrolmentsQuery(_) => "ask with `state` (say awaiting-issue), `organisation` and `limit`, or without them",
            Self::EnrolmentBody(_) => "correct what is said and ask again; the profile says which token makes the key",
            Self::Enrolment(EnrolmentError::NotFound) => "see `sealgate enrol list`",
            Self::Enrolment(EnrolmentError::Fault(_)) => "see `sealgate enrol show` for where the request stands",
            Self::Enrolment(EnrolmentError::Unavailable(_)) => "see `sealgate slots`, and try again",
            Self::Enrolment(EnrolmentError::Overtaken) => "see `sealgate enrol show`, and try again",
            Self::UnknownCaller | Self::Caller(CallerError::Missing(_)) => "see `sealgate callers list`",
            Self::Job(JobCommandError::StoreUnavailable)
            | Self::Operator(OperatorError::StoreUnavailable)
            | Self::Caller(CallerError::StoreUnavailable) => "see the gateway's log for what its database lacks, and try again",
            Self::Caller(_) => "nothing was changed; see `sealgate callers --help`",
            Self::Operator(error) => hint_about_operator(error),
            Self::UnknownKey => "see the [[key]]s of the configuration",
            Self::Body(_) => "send JSON as the documentation of the control socket says",
            Self::Pin(_) => "type the PIN again",
            Self::Command(TokenCommandError::NotFound) => "plug the token in, and see `sealgate slots` for what is there",
            Self::Command(TokenCommandError::Ambiguous(_)) => "name the token by its URI as `sealgate slots` shows it",
            Self::Command(TokenCommandError::Refused(_)) => "see `sealgate slots` for the state of the token and what it waits for",
        }
    }
}

/// What to do where a permit was not decided.
const fn hint_about_decision(error: &DecisionError) -> &'static str {
    match error {
        DecisionError::Refused(DecisionRefusal::NotFound) => "see `sealgate permits list`",
        DecisionError::Refused(DecisionRefusal::Uses { .. }) => "name a number within that with --uses",
        DecisionError::Refused(DecisionRefusal::SameOperator) => "have it decided by another person, in the console or as another user",
        DecisionError::Refused(DecisionRefusal::Decided(_) | DecisionRefusal::TooLate) | DecisionError::NotGranted(_) => {
            "see `sealgate permits show` for where it stands"
        }
        DecisionError::StoreUnavailable => "see the gateway's log for what its database lacks, and try again",
    }
}

/// What to do where an account was not changed.
const fn hint_about_operator(error: &OperatorError) -> &'static str {
    match error {
        OperatorError::Known => "choose another name, or give them a new password with `sealgate operators password`",
        OperatorError::Gone => "see `sealgate operators list`",
        OperatorError::LastAdministrator => "add another administrator first",
        OperatorError::TooMany => "remove those who have left",
        OperatorError::Password(_) => "choose another one, or let the gateway make it",
        OperatorError::Changed | OperatorError::Hash(_) | OperatorError::Random(_) | OperatorError::StoreUnavailable => "try again",
    }
}

impl ResponseError for ControlError {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::Enrolment(EnrolmentError::NotFound) => StatusCode::NOT_FOUND,
            Self::Enrolment(EnrolmentError::Fault(_) | EnrolmentError::Overtaken) => StatusCode::CONFLICT,
            Self::Enrolment(EnrolmentError::Unavailable(_)) => StatusCode::SERVICE_UNAVAILABLE,
            Self::EnrolmentsQuery(_) | Self::EnrolmentBody(_) => StatusCode::BAD_REQUEST,
            Self::UnknownCaller | Self::Caller(CallerError::Missing(_)) => StatusCode::NOT_FOUND,
            Self::Caller(CallerError::StoreUnavailable | CallerError::Random(_)) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Caller(CallerError::Configured(_) | CallerError::Known(_) | CallerError::Overtaken | CallerError::Twice(_)) => {
                StatusCode::CONFLICT
            }
            Self::Caller(_) => StatusCode::BAD_REQUEST,
            Self::Decision(DecisionError::Refused(DecisionRefusal::NotFound)) => StatusCode::NOT_FOUND,
            Self::Decision(DecisionError::Refused(DecisionRefusal::Uses { .. })) => StatusCode::BAD_REQUEST,
            Self::Decision(DecisionError::StoreUnavailable) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Decision(_) => StatusCode::CONFLICT,
            Self::Stranger => StatusCode::FORBIDDEN,
            Self::UnknownRoute | Self::UnknownKey | Self::Command(TokenCommandError::NotFound) | Self::Job(JobCommandError::NotFound) => {
                StatusCode::NOT_FOUND
            }
            Self::Job(JobCommandError::NotInDoubt(_)) => StatusCode::CONFLICT,
            Self::Operator(OperatorError::Gone) => StatusCode::NOT_FOUND,
            Self::Operator(OperatorError::Password(_)) => StatusCode::BAD_REQUEST,
            Self::Operator(OperatorError::Known | OperatorError::Changed | OperatorError::TooMany | OperatorError::LastAdministrator) => {
                StatusCode::CONFLICT
            }
            Self::Job(JobCommandError::StoreUnavailable)
            | Self::Operator(OperatorError::Hash(_) | OperatorError::Random(_) | OperatorError::StoreUnavailable) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Body(_) | Self::Query(_) | Self::JobsQuery(_) | Self::Pin(_) => StatusCode::BAD_REQUEST,
            Self::Command(TokenCommandError::Ambiguous(_) | TokenCommandError::Refused(_)) => StatusCode::CONFLICT,
        }
    }

    fn error_response(&self) -> HttpResponse {
        let body = ErrorDto { error: self.to_string(), hint: self.hint().to_owned() };
        HttpResponse::build(self.status_code()).json(body)
    }
}
