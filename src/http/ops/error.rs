//! The one table from what is found to this API's status codes.

use actix_web::http::StatusCode;

/// What a question about health finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Health {
    /// The answer is yes.
    Yes(&'static str),
    /// The answer is no, for this reason.
    No(String),
    /// The question is about nothing that there is; this says what.
    Unknown(&'static str),
    /// Whoever asks may not see the answer.
    Refused,
}

impl Health {
    pub(super) const fn status_code(&self) -> StatusCode {
        match self {
            Self::Yes(_) => StatusCode::OK,
            Self::No(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unknown(_) => StatusCode::NOT_FOUND,
            Self::Refused => StatusCode::FORBIDDEN,
        }
    }
}
