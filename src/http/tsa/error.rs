//! The one table from what is wrong with a request to this API's status codes. What is wrong inside a request that is one is said in its answer,
//! with 200 (RFC 3161 section 3.4).

use std::time::Duration;

use actix_web::http::StatusCode;

use crate::http::extract::BodyReadError;

/// Why there is no `TimeStampResp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TsaProblem {
    /// The gateway is no time-stamping authority.
    NoAuthority,
    /// Whoever asks may not.
    Refused,
    /// The body is said to be something else.
    ContentType,
    /// The body could not be read.
    Body(BodyReadError),
    /// Too many requests come from there.
    TooMany(Duration),
}

impl TsaProblem {
    pub(super) const fn status_code(self) -> StatusCode {
        match self {
            Self::NoAuthority => StatusCode::NOT_FOUND,
            Self::Refused => StatusCode::FORBIDDEN,
            Self::ContentType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Body(BodyReadError::TooLong { .. }) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Body(BodyReadError::TooSlow) => StatusCode::REQUEST_TIMEOUT,
            Self::Body(BodyReadError::Broken) => StatusCode::BAD_REQUEST,
            Self::TooMany(_) => StatusCode::TOO_MANY_REQUESTS,
        }
    }

    pub(super) fn text(self) -> String {
        match self {
            Self::NoAuthority => "this gateway is no time-stamping authority; [tsa.serve] in its configuration makes it one".to_owned(),
            Self::Refused => "only this machine and the networks of `[tsa.serve] allow` may ask for time stamps".to_owned(),
            Self::ContentType => "send a TimeStampReq as application/timestamp-query".to_owned(),
            Self::Body(error) => error.to_string(),
            Self::TooMany(after) => format!("too many requests; try again in {} s", after.as_secs()),
        }
    }
}
