//! The one table from what went wrong to the console's status codes, and what an operator is told.

use std::time::Duration;

use actix_web::{HttpResponse, ResponseError, http::StatusCode};

use crate::{
    auth::{CallerError, HashError, LoginError, OperatorError},
    domain::{consent::DecisionRefusal, pin::PinFormatError},
    enrolment::{EnrolmentError, Fault},
    http::extract::BodyReadError,
    permit::DecisionError,
    signing::{jobs::JobCommandError, tokens::TokenCommandError},
};

/// Why there is no page.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ConsoleError {
    #[error("there is no such page")]
    NotFound,
    #[error("this page does not work that way")]
    Method,
    #[error("you are not logged in")]
    NotLoggedIn,
    #[error("this is for administrators")]
    AdministratorsOnly,
    #[error("this form does not come from a page of your session")]
    ForeignForm,
    #[error("the gateway is not called by this name")]
    ForeignHost,
    #[error("the console is not shown to other machines over plain HTTP")]
    PlainHttp,
    #[error("the form cannot be read: {0}")]
    Body(#[from] BodyReadError),
    #[error("{0}")]
    Form(String),
    #[error("too many requests come from there")]
    TooMany(Duration),
    #[error("too many pages of the console are open")]
    TooManyStreams,
    #[error("{0}")]
    Login(#[from] LoginError),
    #[error("{0}")]
    Pin(#[from] PinFormatError),
    #[error("{0}")]
    Token(#[from] TokenCommandError),
    #[error("{0}")]
    Job(#[from] JobCommandError),
    #[error("{0}")]
    Operator(#[from] OperatorError),
    #[error("{0}")]
    Caller(CallerError),
    #[error("{0}")]
    Decision(#[from] DecisionError),
    #[error("{0}")]
    Certificate(#[from] EnrolmentError),
    #[error("the store is not available")]
    Store,
    #[error("the page could not be made")]
    Broken,
}

impl ConsoleError {
    /// What the operator can do about it.
    pub(super) const fn hint(&self) -> &'static str {
        match self {
            Self::NotFound => "What was here may have ended, or been decided. Use the menu.",
            Self::Method => "Use the links and buttons of the pages.",
            Self::NotLoggedIn => "Log in, and try again.",
            Self::AdministratorsOnly => "Ask an administrator, or log in as one.",
            Self::ForeignForm => "Your session may have ended and begun again meanwhile. Load the page anew and send the form from there.",
            Self::ForeignHost => "Use a name in allowed_hosts of the configuration, or the gateway's address.",
            Self::PlainHttp => {
                "Give the listener TLS, or open the console on the gateway's own machine. Only `insecure_http = true` in [console] shows it here."
            }
            Self::Body(_) | Self::Form(_) => "Go back, correct it, and send it again.",
            Self::TooMany(_) => "Wait a moment.",
            Self::TooManyStreams => "Close some of the console's tabs.",
            Self::Login(LoginError::Wait(_)) => "Wait, then try again. An administrator can set a new password, which ends the wait.",
            Self::Login(_) => "Try again.",
            Self::Pin(_) => "Type the PIN again.",
            Self::Token(TokenCommandError::Refused(_)) => "The tokens' page shows the state of the token and what it waits for.",
            Self::Token(_) => "Plug the token in, and load the tokens' page anew.",
            Self::Job(JobCommandError::NotFound) => "What ended long ago stands in the audit log only.",
            Self::Job(JobCommandError::NotInDoubt(_)) => "Somebody else may have settled it. Nothing is left to be done.",
            Self::Operator(OperatorError::LastAdministrator) => "Add another administrator first.",
            Self::Operator(OperatorError::Known) => "Choose another name.",
            Self::Operator(OperatorError::Password(_)) => "Choose another password, or let the gateway make one.",
            Self::Operator(OperatorError::TooMany) => "Remove those who have left.",
            Self::Caller(CallerError::Known(_)) => "Choose another name.",
            Self::Caller(CallerError::Configured(_) | CallerError::Twice(_)) => "Change the configuration, and start the gateway again.",
            Self::Caller(_) => "Go back, correct it, and send it again.",
            Self::Operator(_) => "Load the page anew and try again.",
            Self::Decision(DecisionError::Refused(DecisionRefusal::Uses { .. })) => "Go back and choose another number.",
            Self::Decision(_) => "The consent page shows what still waits.",
            Self::Certificate(EnrolmentError::NotFound | EnrolmentError::Overtaken) => {
                "The certificates' page shows how the requests stand."
            }
            Self::Certificate(EnrolmentError::Fault(Fault::Certificate(_))) => {
                "Bring what the CA has issued for this very request, in PEM. A file in DER is converted with: openssl x509 -inform der -in FILE"
            }
            Self::Certificate(EnrolmentError::Fault(Fault::State(_))) => "Somebody else may have moved it. Load its page anew.",
            Self::Certificate(EnrolmentError::Fault(Fault::Path(_))) => {
                "Bring the certificates of its CAs with it, or add their root to the profile's anchors in the configuration."
            }
            Self::Certificate(EnrolmentError::Fault(_)) => "Nothing that signs has changed. The request's page shows where it stands.",
            Self::Certificate(EnrolmentError::Unavailable(_)) => "Nothing was changed. Look at the tokens' page, and try again.",
            Self::Job(_) | Self::Store => "The gateway's log says what its database lacks. Nothing was changed; try again.",
            Self::Broken => "Try again; if it stays, report it with the request's id from the gateway's log.",
        }
    }

    /// When to try again.
    pub(super) const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::TooMany(wait) | Self::Login(LoginError::Wait(wait)) => Some(*wait),
            Self::TooManyStreams => Some(Duration::from_secs(10)),
            _ => None,
        }
    }
}

impl ResponseError for ConsoleError {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::NotLoggedIn | Self::Login(LoginError::Wrong) => StatusCode::UNAUTHORIZED,
            Self::AdministratorsOnly | Self::ForeignForm | Self::PlainHttp => StatusCode::FORBIDDEN,
            Self::ForeignHost => StatusCode::MISDIRECTED_REQUEST,
            Self::NotFound
            | Self::Token(TokenCommandError::NotFound)
            | Self::Job(JobCommandError::NotFound)
            | Self::Operator(OperatorError::Gone)
            | Self::Decision(DecisionError::Refused(DecisionRefusal::NotFound)) => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Body(BodyReadError::TooLong { .. }) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Body(BodyReadError::TooSlow) => StatusCode::REQUEST_TIMEOUT,
            Self::Body(BodyReadError::Broken) | Self::Form(_) | Self::Pin(_) | Self::Operator(OperatorError::Password(_)) => {
                StatusCode::BAD_REQUEST
            }
            Self::TooMany(_) | Self::Login(LoginError::Wait(_)) => StatusCode::TOO_MANY_REQUESTS,
            Self::Token(_)
            | Self::Job(JobCommandError::NotInDoubt(_))
            | Self::Operator(OperatorError::Known | OperatorError::Changed | OperatorError::TooMany | OperatorError::LastAdministrator) => {
                StatusCode::CONFLICT
            }
            Self::Certificate(EnrolmentError::NotFound) => StatusCode::NOT_FOUND,
            Self::Certificate(EnrolmentError::Fault(Fault::Certificate(_))) => StatusCode::BAD_REQUEST,
            Self::Certificate(EnrolmentError::Fault(_) | EnrolmentError::Overtaken) => StatusCode::CONFLICT,
            Self::Certificate(EnrolmentError::Unavailable(_)) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Decision(DecisionError::Refused(DecisionRefusal::Uses { .. })) => StatusCode::BAD_REQUEST,
            Self::Decision(DecisionError::Refused(_) | DecisionError::NotGranted(_)) => StatusCode::CONFLICT,
            Self::Decision(DecisionError::StoreUnavailable)
            | Self::TooManyStreams
            | Self::Login(LoginError::Hash(HashError::Busy | HashError::Unavailable) | LoginError::Unavailable)
            | Self::Job(JobCommandError::StoreUnavailable)
            | Self::Operator(OperatorError::Hash(_) | OperatorError::Random(_) | OperatorError::StoreUnavailable)
            | Self::Store => StatusCode::SERVICE_UNAVAILABLE,
            Self::Caller(
                CallerError::Known(_) | CallerError::Configured(_) | CallerError::Twice(_) | CallerError::Overtaken | CallerError::Same(_),
            ) => StatusCode::CONFLICT,
            Self::Caller(CallerError::Random(_) | CallerError::StoreUnavailable) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Caller(_) => StatusCode::BAD_REQUEST,
            Self::Broken => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The guard puts a page in its place.
    fn error_response(&self) -> HttpResponse {
        HttpResponse::build(self.status_code()).finish()
    }
}
