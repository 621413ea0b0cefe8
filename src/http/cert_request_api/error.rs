//! The one table from what went wrong to what this API answers: a `Notice`.
//!
//! Invariants: status codes stand here only; a notice has a fresh id, and the log line that tells more has the same; no text shows a token, a
//! path of ours, or a document.

use std::{fmt, time::Duration};

use actix_web::{
    HttpResponse, ResponseError,
    http::{StatusCode, header},
};
use serde_json::{Value, json};
use tracing::{error, info};
use uuid::Uuid;

use crate::{
    enrolment::{EnrolmentError, Fault, RequestFault},
    http::extract::BodyReadError,
};

/// Exactly this: clients compare it.
pub(super) const JSON: &str = "application/json;charset=UTF-8";
/// When a client whose token or CA is away may try again.
const RETRY_AFTER_OUTAGE: Duration = Duration::from_secs(5);
/// What is said of an id that is none.
const BAD_EXTERNAL_ID: &str =
    "Параметр \"externalId\" не соответствует регулярному выражению: [0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}";

/// What is wrong with one member of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Check {
    pub(super) field: &'static str,
    pub(super) message: String,
}

/// An answer that is not a good one.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Notice {
    kind: Kind,
    message: String,
    checks: Vec<Check>,
    /// For the log only.
    detail: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Deserialization,
    Workflow,
    Validation,
    Unauthorized,
    Forbidden,
    NotFound,
    TooMany(Duration),
    TooLong,
    TooSlow,
    Unknown,
    Unavailable,
}

impl Kind {
    /// Status and cause.
    const fn row(self) -> (StatusCode, &'static str) {
        match self {
            Self::Deserialization => (StatusCode::BAD_REQUEST, "DESERIALIZATION_FAULT"),
            Self::Workflow => (StatusCode::BAD_REQUEST, "WORKFLOW_FAULT"),
            Self::Validation => (StatusCode::BAD_REQUEST, "VALIDATION_FAULT"),
            Self::Unauthorized => (StatusCode::UNAUTHORIZED, "UNAUTHORIZED"),
            Self::Forbidden => (StatusCode::FORBIDDEN, "ACTION_ACCESS_EXCEPTION"),
            Self::NotFound => (StatusCode::NOT_FOUND, "DATA_NOT_FOUND"),
            Self::TooMany(_) => (StatusCode::TOO_MANY_REQUESTS, "TOO_MANY_REQUESTS"),
            Self::TooLong => (StatusCode::PAYLOAD_TOO_LARGE, "DESERIALIZATION_FAULT"),
            Self::TooSlow => (StatusCode::REQUEST_TIMEOUT, "DESERIALIZATION_FAULT"),
            Self::Unknown => (StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN_EXCEPTION"),
            Self::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE_RESOURCE_EXCEPTION"),
        }
    }

    const fn retry_after(self) -> Option<Duration> {
        match self {
            Self::TooMany(after) => Some(after),
            Self::Unavailable => Some(RETRY_AFTER_OUTAGE),
            _ => None,
        }
    }
}

impl Notice {
    fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), checks: Vec::new(), detail: String::new() }
    }

    /// A body that is not what the model says.
    pub(super) fn malformed(checks: Vec<Check>) -> Self {
        Self { checks, ..Self::new(Kind::Deserialization, "Неверный формат запроса") }
    }

    /// A body whose members are well-formed and break a rule.
    pub(super) fn invalid(checks: Vec<Check>) -> Self {
        Self { checks, ..Self::new(Kind::Validation, "Ошибка валидации") }
    }

    pub(super) fn bad_external_id() -> Self {
        Self::new(Kind::Workflow, BAD_EXTERNAL_ID)
    }

    pub(super) fn unauthorized(shown: &str) -> Self {
        Self::new(Kind::Unauthorized, format!("accessToken not found by value = {shown}…"))
    }

    pub(super) fn forbidden() -> Self {
        Self::new(Kind::Forbidden, "Операция не может быть выполнена: доступ к ресурсу запрещен")
    }

    pub(super) fn not_found() -> Self {
        Self::new(Kind::NotFound, "Данные не найдены")
    }

    pub(super) fn too_many(retry_after: Duration) -> Self {
        Self::new(Kind::TooMany(retry_after), "Превышен лимит запросов. Повторите операцию позже.")
    }

    pub(super) fn unknown(detail: impl fmt::Display) -> Self {
        Self { detail: detail.to_string(), ..Self::new(Kind::Unknown, "Внутренняя ошибка сервера") }
    }

    fn workflow(message: impl Into<String>, detail: impl fmt::Display) -> Self {
        Self { detail: detail.to_string(), ..Self::new(Kind::Workflow, message) }
    }

    /// The message, and what is wrong with which member.
    pub(super) fn in_words(&self) -> String {
        self.checks.iter().fold(self.message.clone(), |text, check| format!("{text}; {}: {}", check.field, check.message))
    }

    fn body(&self, reference: Uuid) -> Value {
        let (status, cause) = self.kind.row();
        let mut body = json!({ "cause": cause, "referenceId": reference.to_string(), "message": self.message });
        if status == StatusCode::BAD_REQUEST {
            let check = |check: &Check| json!({ "level": "ERROR", "message": check.message, "fields": [check.field] });
            body["checks"] = self.checks.iter().map(check).collect();
            body["fieldNames"] =
                if self.checks.is_empty() { Value::Null } else { self.checks.iter().map(|check| Value::from(check.field)).collect() };
        }
        body
    }

    fn log(&self, reference: Uuid) {
        let (status, cause) = self.kind.row();
        let (detail, message) = (&self.detail, &self.message);
        if status.is_server_error() {
            error!(reference.id = %reference, notice.cause = cause, detail, "{cause}: {message}");
        } else {
            info!(reference.id = %reference, notice.cause = cause, detail, "{cause}: {message}");
        }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.row().1, self.message)
    }
}

impl ResponseError for Notice {
    fn status_code(&self) -> StatusCode {
        self.kind.row().0
    }

    fn error_response(&self) -> HttpResponse {
        let reference = Uuid::new_v4();
        self.log(reference);
        let mut response = HttpResponse::build(self.status_code());
        if let Some(after) = self.kind.retry_after() {
            response.insert_header((header::RETRY_AFTER, after.as_secs().max(1)));
        }
        if self.kind == Kind::Unauthorized {
            response.insert_header((header::WWW_AUTHENTICATE, "Bearer"));
        }
        response.insert_header((header::CONTENT_TYPE, JSON)).body(self.body(reference).to_string())
    }
}

impl From<BodyReadError> for Notice {
    fn from(error: BodyReadError) -> Self {
        let kind = match error {
            BodyReadError::TooLong { .. } => Kind::TooLong,
            BodyReadError::TooSlow => Kind::TooSlow,
            BodyReadError::Broken => Kind::Deserialization,
        };
        Self { detail: error.to_string(), ..Self::new(kind, "Неверный формат запроса") }
    }
}

impl From<EnrolmentError> for Notice {
    fn from(error: EnrolmentError) -> Self {
        let detail = error.to_string();
        match error {
            EnrolmentError::NotFound => Self::not_found(),
            EnrolmentError::Fault(Fault::Request(fault)) => Self::of_request(&fault, detail),
            EnrolmentError::Fault(fault) => Self::workflow(of_fault(&fault), detail),
            EnrolmentError::Unavailable(_) => Self {
                detail,
                ..Self::new(Kind::Unavailable, "Ресурс недоступен. Повторите операцию позже.")
            },
            EnrolmentError::Overtaken => Self::unknown(detail),
        }
    }
}

impl Notice {
    /// What is wrong with a certificate request that the client sent.
    pub(super) fn of_request(fault: &RequestFault, detail: String) -> Self {
        let (field, message) = match fault {
            RequestFault::KeyType(_) => ("pkcs10.keyType", format!("Тип ключа не поддерживается: {fault}")),
            _ => ("pkcs10.cms", format!("Запрос на сертификат не может быть принят: {fault}")),
        };
        Self { detail, ..Self::invalid(vec![Check { field, message }]) }
    }
}

impl From<RequestFault> for Notice {
    fn from(fault: RequestFault) -> Self {
        let detail = fault.to_string();
        Self::of_request(&fault, detail)
    }
}

/// What a broken rule is called.
fn of_fault(fault: &Fault) -> String {
    match fault {
        Fault::OtherRequest => "Запрос с таким externalId уже существует и отличается от переданного".to_owned(),
        Fault::OtherName => "Значение ФИО в запросе не совпадает со значением ФИО учетной записи".to_owned(),
        Fault::NoProfile => "Выпуск сертификатов не настроен".to_owned(),
        Fault::TooMany(most) => format!("Слишком много незавершенных запросов организации: не более {most}"),
        Fault::NameTaken(name) => format!("Имя ключа {name} уже занято"),
        Fault::Request(fault) => format!("Запрос на сертификат не может быть принят: {fault}"),
        Fault::Key(_) => "Ключ не может быть использован".to_owned(),
        Fault::State(state) => format!("Операция невозможна в текущем статусе запроса: {}", super::dto::status_of(*state)),
        Fault::Replaced => "Сертификат заменен новым".to_owned(),
        Fault::NoKey => "На токене нет закрытого ключа сертификата".to_owned(),
        Fault::SeveralKeys(count) => format!("На токене несколько закрытых ключей сертификата: {count}"),
        Fault::OtherKey => "Открытые ключи сертификата, запроса и токена не совпадают".to_owned(),
        Fault::Path(_) => "Цепочка сертификата не приводит к доверенному удостоверяющему центру".to_owned(),
        Fault::NotYetValid => "Срок действия сертификата еще не начался".to_owned(),
        Fault::Expired => "Срок действия сертификата истек".to_owned(),
        Fault::KeyUsage => "Сертификат не предназначен для электронной подписи (digitalSignature)".to_owned(),
        Fault::Proof => "Подпись закрытым ключом не подтверждена ключом сертификата".to_owned(),
        Fault::Confirmation(_) => "Подпись под заявлением не подтверждена действующим сертификатом".to_owned(),
        Fault::Certificate(_) => "Сертификат не соответствует запросу".to_owned(),
    }
}
