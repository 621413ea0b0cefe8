//! The one table from what is found to this API's status codes.

use actix_web::http::StatusCode;

/// What a question about health finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Health {
    /// The answer is yes.
    Yes(&'static str),
    /// The answer is no, for this reason.
    No(String),
    /// The question is about nothing that there is.
    Unknown,
}

impl Health {
    pub(super) const fn status_code(&self) -> StatusCode {
        match self {
            Self::Yes(_) => StatusCode::OK,
            Self::No(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unknown => StatusCode::NOT_FOUND,
        }
    }
}
