//! The form of this API's good answers: a JSON object with a `message`, in the language of whoever asks.

use actix_web::{HttpMessage, HttpRequest, HttpResponse, Responder, body::BoxBody, http::StatusCode, web};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{messages::Text, request::Asking};
use crate::http::app::AppState;

/// Exactly this: a client compares it for equality.
pub(super) const JSON: &str = "application/json";

/// A good answer.
pub(super) struct Reply {
    status: StatusCode,
    message: Text,
    members: Map<String, Value>,
}

impl Reply {
    pub(super) fn ok(message: &'static str) -> Self {
        Self::of(Text::new(message))
    }

    pub(super) fn of(message: Text) -> Self {
        Self { status: StatusCode::OK, message, members: Map::new() }
    }

    /// The job that is asked about has not ended.
    pub(super) fn pending() -> Self {
        Self { status: StatusCode::ACCEPTED, ..Self::ok("signature-pending") }
    }

    /// What was asked about is still being done.
    pub(super) fn in_progress(message: &'static str) -> Self {
        Self { status: StatusCode::ACCEPTED, ..Self::ok(message) }
    }

    /// What was checked is not valid.
    pub(super) fn not_valid(message: Text) -> Self {
        Self { status: StatusCode::NOT_ACCEPTABLE, ..Self::of(message) }
    }

    /// Adds a member. One that has no JSON form is left out; there is none such here.
    pub(super) fn with(mut self, name: &str, value: impl Serialize) -> Self {
        if let Ok(value) = serde_json::to_value(value) {
            self.members.insert(name.to_owned(), value);
        }
        self
    }

    pub(super) fn with_all(mut self, members: Map<String, Value>) -> Self {
        self.members.extend(members);
        self
    }
}

impl Responder for Reply {
    type Body = BoxBody;

    fn respond_to(mut self, request: &HttpRequest) -> HttpResponse {
        let message = say(request, &self.message);
        self.members.insert("message".to_owned(), message.into());
        HttpResponse::build(self.status).content_type(JSON).body(Value::Object(self.members).to_string())
    }
}

/// Says a text to whoever sent the request.
pub(super) fn say(request: &HttpRequest, text: &Text) -> String {
    let Some(state) = request.app_data::<web::Data<AppState>>() else { return String::new() };
    let language = request.extensions().get::<Asking>().map_or(state.settings.language, |asking| asking.language);
    state.messages.text(language, text)
}
