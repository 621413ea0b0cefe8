//! The one table from what went wrong to what this API answers.
//!
//! An [`ApiError`] is what was asked for and what went wrong. [`ApiError::wire`] is the table; [`access`](super::access) renders its row in the
//! language of whoever asks. Invariants: status codes stand here only; `failureCause` goes with 500 and with nothing else; no text shows
//! what is inside.

use std::{fmt, time::Duration};

use actix_web::{
    HttpResponse, ResponseError,
    http::{StatusCode, header},
};
use serde_json::json;
use tracing::error;

use super::{
    messages::{Language, Messages, Text},
    options::WireEnum,
    reply::JSON,
};
use crate::{
    domain::{ids::IDEMPOTENCY_KEY_MAX, job::FailureCause, key_uri::UriError, permit::PermitRefusal, pin::PIN_MAX, ticket::AsicForm},
    http::extract::BodyReadError,
    permit::PermitError,
    signing::service::{CertificateFault, Denied, SubmitError},
    ticket::{BulkError, ExistingError, ModifyError, SIGNERS_MAX, TicketError, UnsupportedOption},
};

/// When a client whose token or whose storage is away may try again.
const RETRY_AFTER_OUTAGE: Duration = Duration::from_secs(5);

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    CreateTicket,
    DeleteTicket,
    UploadData,
    UploadSignature,
    StartVerification,
    FetchVerification,
    FetchSignedData,
    StartModification,
    FetchModification,
    SetMetadata,
    SetOptions,
    AskPermission,
    ReadPermission,
    StartSignature,
    FetchSignature,
    StartTimeStamp,
    FetchTimeStamp,
    UploadTimeStamp,
    CheckTimeStamp,
    ChooseKey,
    CheckKey,
    ReadCertificate,
    Other,
}

impl Operation {
    /// Makes an error of this operation.
    pub(super) fn error(self, problem: impl Into<Problem>) -> ApiError {
        ApiError { operation: self, problem: problem.into() }
    }

    /// What is said when it did not work out.
    const fn failed(self) -> &'static str {
        match self {
            Self::CreateTicket => "session-not-created",
            Self::DeleteTicket => "session-not-deleted",
            Self::UploadData => "data-not-uploaded",
            Self::UploadSignature => "signature-not-uploaded",
            Self::StartVerification => "verification-not-started",
            Self::FetchVerification => "signature-not-verified",
            Self::FetchSignedData => "signed-data-not-found",
            Self::StartModification => "modification-not-started",
            Self::FetchModification => "signature-not-modified",
            Self::SetMetadata => "metadata-not-uploaded",
            Self::SetOptions => "options-not-set",
            Self::AskPermission => "permission-not-granted",
            Self::ReadPermission => "permission-not-found",
            Self::StartSignature => "signature-not-started",
            Self::FetchSignature => "signature-not-created",
            Self::StartTimeStamp => "time-stamp-not-started",
            Self::FetchTimeStamp => "time-stamp-not-created",
            Self::UploadTimeStamp => "time-stamp-not-uploaded",
            Self::CheckTimeStamp => "time-stamp-not-checked",
            Self::ChooseKey => "key-not-chosen",
            Self::CheckKey => "key-not-checked",
            Self::ReadCertificate => "certificate-not-found",
            Self::Other => "operation-failed",
        }
    }
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Problem {
    Access(AccessError),
    Route(RouteError),
    Body(BodyError),
    Option(OptionError),
    Permit(PermitError),
    Ticket(TicketError),
}

/// Why somebody is not answered at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AccessError {
    UnknownCaller,
    ForeignOrigin,
    ForeignHost,
    /// The caller may not use this API.
    MissingScope,
    TooManyRequests {
        retry_after: Duration,
    },
    /// Requests of this caller that wait for something.
    TooManyWaiting {
        retry_after: Duration,
    },
}

/// What is wrong with a path or its method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RouteError {
    Unknown,
    Method {
        allow: &'static str,
    },
    KeyType,
    Language,
    /// No key can sign.
    NoKeyReady,
}

/// What is wrong with a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum BodyError {
    Read(BodyReadError),
    NotJson,
    MissingMember(&'static str),
    ContentType,
    Form,
    MissingElement(&'static str),
    Base64(&'static str),
    PermissionUses,
    PermissionId,
    PinMissing,
    BadPin,
    PinAndPermission,
    IdempotencyKey,
    KeyUri(UriError),
    KeyContainer,
}

/// What is wrong with an option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum OptionError {
    BadValue { option: &'static str, allowed: String },
    BadText { option: &'static str, max: usize },
}

/// An answer that is not a good one.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ApiError {
    operation: Operation,
    problem: Problem,
}

/// A row of the table.
#[derive(Debug, PartialEq)]
struct Wire {
    status: StatusCode,
    message: Text,
    cause: Option<Text>,
    retry_after: Option<Duration>,
}

impl ApiError {
    /// Logs what is wrong inside and is told to nobody outside.
    pub(super) fn log(&self) {
        if let Problem::Ticket(TicketError::Cms(error)) = &self.problem {
            error!(error = %error, "a signature could not be prepared or put together");
        }
    }

    /// The answer, in this language.
    pub(super) fn render(&self, messages: &Messages, language: Language) -> HttpResponse {
        let wire = self.wire();
        let mut body = json!({ "message": messages.text(language, &wire.message) });
        if let Some(cause) = &wire.cause {
            body["failureCause"] = messages.text(language, cause).into();
        }
        let mut response = HttpResponse::build(wire.status);
        if let Some(after) = wire.retry_after {
            response.insert_header((header::RETRY_AFTER, after.as_secs()));
        }
        match self.problem {
            Problem::Access(AccessError::UnknownCaller) => drop(response.insert_header((header::WWW_AUTHENTICATE, "Bearer"))),
            Problem::Route(RouteError::Method { allow }) => drop(response.insert_header((header::ALLOW, allow))),
            _ => {}
        }
        response.content_type(JSON).body(body.to_string())
    }

    fn wire(&self) -> Wire {
        match &self.problem {
            Problem::Access(error) => access(*error),
            Problem::Route(error) => self.route(*error),
            Problem::Body(error) => self.body(error),
            Problem::Option(error) => answer(StatusCode::BAD_REQUEST, option(error)),
            Problem::Permit(error) => self.permit(error),
            Problem::Ticket(error) => self.ticket(error),
        }
    }

    /// 500: what was asked for did not work out, for this cause.
    fn failed(&self, cause: Text) -> Wire {
        Wire { cause: Some(cause), ..answer(StatusCode::INTERNAL_SERVER_ERROR, Text::new(self.operation.failed())) }
    }

    fn failed_because(&self, cause: &'static str) -> Wire {
        self.failed(Text::new(cause))
    }

    fn route(&self, error: RouteError) -> Wire {
        match error {
            RouteError::Unknown => answer(StatusCode::NOT_FOUND, Text::new("route-unknown")),
            RouteError::Method { allow } => answer(StatusCode::METHOD_NOT_ALLOWED, Text::new("method-not-allowed").with("allow", allow)),
            RouteError::KeyType => answer(StatusCode::BAD_REQUEST, Text::new("key-type-unknown")),
            RouteError::Language => answer(StatusCode::BAD_REQUEST, Text::new("language-unknown")),
            RouteError::NoKeyReady => outage("crypto-unavailable"),
        }
    }

    /// Bodies that a job or an upload is started with fail like the job or the upload; others are bad requests.
    fn body(&self, error: &BodyError) -> Wire {
        let as_cause = matches!(
            self.operation,
            Operation::UploadData
                | Operation::UploadSignature
                | Operation::UploadTimeStamp
                | Operation::StartSignature
                | Operation::ChooseKey
                | Operation::CheckKey
        );
        match error {
            BodyError::Read(error) => body_read(*error),
            BodyError::NotJson if as_cause => self.failed_because("cause-not-json"),
            BodyError::NotJson => answer(StatusCode::BAD_REQUEST, Text::new("body-not-json")),
            BodyError::MissingMember(name) if as_cause => self.failed(Text::new("cause-missing-member").with("name", name)),
            BodyError::MissingMember(name) => answer(StatusCode::BAD_REQUEST, Text::new("body-missing-member").with("name", name)),
            BodyError::PermissionUses => answer(StatusCode::BAD_REQUEST, Text::new("permission-bad-uses")),
            BodyError::ContentType => self.failed_because("cause-body-type"),
            BodyError::Form => self.failed_because("cause-bad-form"),
            BodyError::MissingElement(name) => self.failed(Text::new("cause-missing-element").with("name", name)),
            BodyError::Base64(name) => self.failed(Text::new("cause-bad-base64").with("name", name)),
            BodyError::PermissionId => self.failed_because("cause-bad-permission"),
            BodyError::PinMissing => self.failed_because("cause-pin-missing"),
            BodyError::BadPin => self.failed(Text::new("cause-bad-pin").with("max", PIN_MAX)),
            BodyError::PinAndPermission => self.failed_because("cause-pin-and-permission"),
            BodyError::IdempotencyKey => answer(StatusCode::BAD_REQUEST, Text::new("idempotency-key-bad").with("max", IDEMPOTENCY_KEY_MAX)),
            BodyError::KeyUri(error) => self.failed(Text::new("cause-bad-uri").with("detail", error)),
            BodyError::KeyContainer => self.failed_because("cause-key-container"),
        }
    }

    fn permit(&self, error: &PermitError) -> Wire {
        match error {
            PermitError::Uses { .. } => answer(StatusCode::BAD_REQUEST, Text::new("permission-bad-uses")),
            PermitError::Refused(refusal) => refused(*refusal),
            PermitError::NotGranted(_) => not_granted(),
            PermitError::TooManyWaiting { limit } => too_many_permits("permission-too-many-waiting", *limit),
            PermitError::TooManyPermits { limit } => too_many_permits("permission-too-many", *limit),
            PermitError::StoreUnavailable => outage("storage-unavailable"),
        }
    }

    fn ticket(&self, error: &TicketError) -> Wire {
        match error {
            TicketError::Missing => answer(StatusCode::BAD_REQUEST, Text::new("session-missing")),
            TicketError::TooMany { limit } => {
                let many = answer(StatusCode::TOO_MANY_REQUESTS, Text::new("too-many-sessions").with("limit", limit));
                Wire { retry_after: Some(RETRY_AFTER_OUTAGE), ..many }
            }
            TicketError::TooLarge { limit } => body_read(BodyReadError::TooLong { limit: *limit }),
            TicketError::SpoolFull | TicketError::SpoolUnavailable | TicketError::StoreUnavailable => outage("storage-unavailable"),
            TicketError::NoContent if self.operation == Operation::SetMetadata => {
                answer(StatusCode::BAD_REQUEST, Text::new("metadata-before-data"))
            }
            TicketError::Unsupported(error) if self.operation == Operation::SetOptions => {
                answer(StatusCode::BAD_REQUEST, unsupported(error))
            }
            TicketError::Unsupported(_) => self.failed_because("cause-no-chain"),
            TicketError::Denied(error) => self.denied(error),
            TicketError::Submit(error) => self.submit(error),
            TicketError::NotSigned { cause: FailureCause::ConsentRefused | FailureCause::ConsentTimedOut, .. } => not_granted(),
            TicketError::NotSigned { cause, detail } => self.failed(not_signed(*cause, detail)),
            TicketError::ContentTimeStamp(error) if self.operation != Operation::StartSignature => {
                self.failed(Text::new("cause-time-stamp-not-had").with("detail", error))
            }
            TicketError::ContentTimeStamp(error) => self.failed(Text::new("cause-no-content-time-stamp").with("detail", error)),
            TicketError::Level(error) if matches!(self.operation, Operation::StartModification | Operation::FetchModification) => {
                self.failed(Text::new("cause-modify-not-had").with("detail", error))
            }
            TicketError::Level(error) => self.failed(Text::new("cause-not-completed").with("detail", error)),
            TicketError::Bulk(error) => self.failed(bulk(*error)),
            TicketError::KeyReused => answer(StatusCode::BAD_REQUEST, Text::new("idempotency-key-reused")),
            TicketError::SeveralObjects => self.failed_because("cause-several-objects"),
            TicketError::SameName(name) => self.failed(Text::new("cause-same-name").with("name", name)),
            TicketError::TooManyObjects { max } => self.failed(Text::new("cause-too-many-objects").with("max", max)),
            TicketError::Frozen => self.failed_because("cause-frozen"),
            TicketError::NoContent => self.failed_because("cause-no-content"),
            TicketError::NotRequested if matches!(self.operation, Operation::FetchTimeStamp | Operation::CheckTimeStamp) => {
                self.failed_because("cause-no-time-stamp")
            }
            TicketError::NotRequested if self.operation == Operation::FetchModification => self.failed_because("cause-no-modification"),
            TicketError::NotRequested => self.failed_because("cause-not-requested"),
            TicketError::Existing(error) => self.failed(existing(error)),
            TicketError::Modify(error) => self.failed(modify(error)),
            TicketError::NoSignature => self.failed_because("cause-no-signature"),
            TicketError::NotVerified => self.failed_because("cause-not-verified"),
            TicketError::Detached => self.failed_because("cause-detached"),
            TicketError::NoSuchSignature(detail) => self.failed(Text::new("cause-not-a-signature").with("detail", detail)),
            TicketError::Armor => self.failed_because("cause-armor"),
            TicketError::VerifierBusy => outage("crypto-unavailable"),
            TicketError::UnknownToken => self.failed_because("cause-unknown-token"),
            TicketError::TimeStampsAlone => self.failed_because("cause-time-stamps-alone"),
            TicketError::NoCertificate => self.failed_because("cause-no-certificate"),
            TicketError::Overtaken => self.failed_because("cause-overtaken"),
            TicketError::Cms(_) => self.failed_because("cause-internal"),
        }
    }

    fn denied(&self, error: &Denied) -> Wire {
        match error {
            Denied::SlotUnavailable(_) | Denied::TokenAbsent => outage("crypto-unavailable"),
            Denied::NoKey => self.failed_because("cause-no-key"),
            Denied::UnknownKey(_) => self.failed_because("cause-unknown-key"),
            Denied::ForeignKey => self.failed_because("cause-foreign-key"),
            Denied::TokenAmbiguous(count) => self.failed(Text::new("cause-token-ambiguous").with("count", count)),
            Denied::KeyNotFound => self.failed_because("cause-key-not-found"),
            Denied::KeyAmbiguous(count) => self.failed(Text::new("cause-key-ambiguous").with("count", count)),
            Denied::NotSupported(detail) => self.failed(Text::new("cause-not-supported").with("detail", detail)),
            Denied::NoPublicKey => self.failed_because("cause-no-public-key"),
            Denied::PinRefused(detail) => self.failed(Text::new("cause-pin-refused").with("detail", detail)),
            Denied::CertificateNotInForce(CertificateFault::NotYetValid(from)) => {
                self.failed(Text::new("cause-certificate-not-yet-valid").with("time", from.to_rfc3339()))
            }
            Denied::CertificateNotInForce(CertificateFault::Expired(at)) => {
                self.failed(Text::new("cause-certificate-expired").with("time", at.to_rfc3339()))
            }
            Denied::CertificateNotInForce(CertificateFault::Replaced) => self.failed_because("cause-certificate-replaced"),
            Denied::Quarantined => self.failed_because("cause-quarantined"),
            Denied::Device(detail) => self.failed(Text::new("cause-device").with("detail", detail)),
        }
    }

    fn submit(&self, error: &SubmitError) -> Wire {
        match error {
            SubmitError::Permit(refusal) => refused(*refusal),
            SubmitError::TooManyWaiting { limit } => too_many_permits("permission-too-many-waiting", *limit),
            SubmitError::QueueFull { retry_after, .. } => {
                let full = Text::new("queue-full").with("seconds", retry_after.as_secs());
                Wire { retry_after: Some(*retry_after), ..answer(StatusCode::SERVICE_UNAVAILABLE, full) }
            }
            SubmitError::Denied(error) => self.denied(error),
            SubmitError::Overtaken | SubmitError::RequestKnown => self.failed_because("cause-overtaken"),
            SubmitError::StoreUnavailable => outage("storage-unavailable"),
        }
    }
}

const fn answer(status: StatusCode, message: Text) -> Wire {
    Wire { status, message, cause: None, retry_after: None }
}

/// 503: something that is needed is away, and may come back.
fn outage(message: &'static str) -> Wire {
    Wire { retry_after: Some(RETRY_AFTER_OUTAGE), ..answer(StatusCode::SERVICE_UNAVAILABLE, Text::new(message)) }
}

/// 429: the same request may be sent again, later.
fn too_many(message: &'static str, after: Duration) -> Wire {
    let text = Text::new(message).with("seconds", after.as_secs());
    Wire { retry_after: Some(after), ..answer(StatusCode::TOO_MANY_REQUESTS, text) }
}

fn access(error: AccessError) -> Wire {
    match error {
        AccessError::UnknownCaller => answer(StatusCode::UNAUTHORIZED, Text::new("caller-unknown")),
        AccessError::ForeignOrigin => answer(StatusCode::FORBIDDEN, Text::new("origin-foreign")),
        AccessError::ForeignHost => answer(StatusCode::FORBIDDEN, Text::new("host-foreign")),
        AccessError::MissingScope => answer(StatusCode::FORBIDDEN, Text::new("scope-missing")),
        AccessError::TooManyRequests { retry_after } => too_many("too-many-requests", retry_after),
        AccessError::TooManyWaiting { retry_after } => too_many("too-many-waiting", retry_after),
    }
}

fn body_read(error: BodyReadError) -> Wire {
    match error {
        BodyReadError::TooLong { limit } => answer(StatusCode::PAYLOAD_TOO_LARGE, Text::new("body-too-long").with("limit", limit)),
        BodyReadError::TooSlow => answer(StatusCode::REQUEST_TIMEOUT, Text::new("body-too-slow")),
        BodyReadError::Broken => answer(StatusCode::BAD_REQUEST, Text::new("body-broken")),
    }
}

/// An operator refused, or nobody decided in time: this API knows one answer to both.
const fn not_granted() -> Wire {
    answer(StatusCode::FORBIDDEN, Text::new("permission-refused"))
}

fn too_many_permits(message: &'static str, limit: usize) -> Wire {
    let many = answer(StatusCode::TOO_MANY_REQUESTS, Text::new(message).with("limit", limit));
    Wire { retry_after: Some(RETRY_AFTER_OUTAGE), ..many }
}

const fn refused(refusal: PermitRefusal) -> Wire {
    let message = match refusal {
        PermitRefusal::Unknown => "permission-unknown",
        PermitRefusal::UsedUp => "permission-used-up",
        PermitRefusal::Expired => "permission-expired",
        PermitRefusal::Revoked => "permission-was-revoked",
        PermitRefusal::OtherKey => "permission-other-key",
        PermitRefusal::OtherContent => "permission-other-content",
        PermitRefusal::ByPolicy => "permission-by-policy",
    };
    answer(StatusCode::FORBIDDEN, Text::new(message))
}

fn option(error: &OptionError) -> Text {
    match error {
        OptionError::BadValue { option, allowed } => Text::new("option-bad-value").with("option", option).with("allowed", allowed),
        OptionError::BadText { option, max } => Text::new("option-bad-text").with("option", option).with("max", max),
    }
}

fn unsupported(error: &UnsupportedOption) -> Text {
    let (option, value) = match *error {
        UnsupportedOption::UnknownAuthority { ref known } => {
            return Text::new("option-bad-value").with("option", "caId").with("allowed", known.join(", "));
        }
        UnsupportedOption::ForeignAuthority => return Text::new("option-foreign-ca"),
        UnsupportedOption::CadesWithoutCertificate => return Text::new("option-needs-certificate"),
        UnsupportedOption::CadesType(form) => ("cadesType", form.wire_name()),
        UnsupportedOption::SignatureTs => ("embedSignatureTs", true.wire_name()),
        UnsupportedOption::DataTs => ("embedDataTs", true.wire_name()),
        UnsupportedOption::EmbedCertificate(choice) => ("embedCertificateType", choice.wire_name()),
        UnsupportedOption::AsicForm(form) => ("asicForm", AsicForm::wire_name(form)),
    };
    Text::new("option-unsupported").with("option", option).with("value", value)
}

fn not_signed(cause: FailureCause, detail: &str) -> Text {
    match cause {
        FailureCause::PinRefused => Text::new("cause-pin-refused").with("detail", detail),
        FailureCause::PinForgotten => Text::new("cause-pin-forgotten"),
        FailureCause::KeyNotUsable => Text::new("cause-key-not-usable"),
        FailureCause::NotSupported => Text::new("cause-not-supported").with("detail", detail),
        FailureCause::Device => Text::new("cause-device").with("detail", detail),
        FailureCause::WrongSignature => Text::new("cause-wrong-signature"),
        FailureCause::OutcomeUnknown => Text::new("cause-outcome-unknown"),
        FailureCause::DeadlinePassed => Text::new("cause-deadline-passed"),
        FailureCause::Cancelled => Text::new("cause-cancelled"),
        FailureCause::ConsentRefused | FailureCause::ConsentTimedOut => Text::new("permission-refused"),
        FailureCause::ResolvedSigned => Text::new("cause-resolved-signed"),
        FailureCause::ResolvedNotSigned => Text::new("cause-resolved-not-signed"),
    }
}

fn existing(error: &ExistingError) -> Text {
    match error {
        ExistingError::NotASignature(detail) => Text::new("cause-not-a-signature").with("detail", detail),
        ExistingError::Broken { number, why } => Text::new("cause-existing-broken").with("number", number).with("detail", why),
        ExistingError::NoDocument => Text::new("cause-existing-no-document"),
        ExistingError::TooManySigners => Text::new("cause-too-many-signers").with("max", SIGNERS_MAX),
        ExistingError::SameSigner => Text::new("cause-same-signer"),
    }
}

fn modify(error: &ModifyError) -> Text {
    match error {
        ModifyError::Container => Text::new("cause-modify-container"),
        ModifyError::ContentTimeStamp => Text::new("cause-modify-content-ts"),
        ModifyError::NotCades { number } => Text::new("cause-modify-not-cades").with("number", number),
        ModifyError::Sealed { number } => Text::new("cause-modify-sealed").with("number", number),
        ModifyError::Path { number, why } => Text::new("cause-modify-path").with("number", number).with("detail", why),
        ModifyError::TooLong => Text::new("cause-modify-too-long"),
    }
}

fn bulk(error: BulkError) -> Text {
    match error {
        BulkError::Count { max } => Text::new("cause-bulk-count").with("max", max),
        BulkError::AlreadySigned => Text::new("cause-bulk-already-signed"),
        BulkError::Attached => Text::new("cause-bulk-attached"),
        BulkError::HashLength { len } => Text::new("cause-bulk-hash").with("len", len),
        BulkError::TimedOut => Text::new("cause-bulk-timeout"),
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {:?}", self.operation, self.problem)
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        self.wire().status
    }

    /// Only the status: the access layer, which knows the language, renders the rest.
    fn error_response(&self) -> HttpResponse {
        HttpResponse::new(self.status_code())
    }
}

macro_rules! problem {
    ($($variant:ident($error:ty)),+ $(,)?) => {
        $(impl From<$error> for Problem {
            fn from(error: $error) -> Self {
                Self::$variant(error)
            }
        })+
    };
}

problem!(Access(AccessError), Route(RouteError), Body(BodyError), Option(OptionError), Permit(PermitError), Ticket(TicketError),);

impl From<BodyReadError> for BodyError {
    fn from(error: BodyReadError) -> Self {
        Self::Read(error)
    }
}

#[cfg(test)]
mod tests;
