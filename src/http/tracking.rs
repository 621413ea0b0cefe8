//! What is done around every request, whatever its API: it gets an id, its log lines say so, and its answer is counted.
//!
//! A client may give the id in `X-Request-Id` if it is a short plain token; any other is replaced by one of our own. The answer carries it back.
//! Invariant: nothing of a request becomes a label: paths are counted by API, methods by a list of the usual ones.

use std::{cell::RefCell, collections::HashMap, time::Instant};

use actix_web::{
    Error, HttpMessage, HttpRequest,
    body::BoxBody,
    dev::{ServiceRequest, ServiceResponse},
    error::InternalError,
    http::{
        Method, StatusCode,
        header::{HeaderName, HeaderValue},
    },
    middleware::Next,
};
use metrics::{Counter, Histogram};
use tracing::{Instrument, Level, debug, enabled, error_span};
use uuid::Uuid;

use super::extract::header_text;
use crate::{
    domain::request_id::RequestId,
    telemetry::metrics::{HTTP_REQUEST_SECONDS, HTTP_REQUESTS, OTHER},
};

/// The header with a request's id, in requests and answers.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The APIs by where they are mounted; the first prefix that fits counts.
const APIS: [(&str, &str); 6] = [
    ("/fintech/", "cert-requests"),
    ("/api/v1/", "ticket"),
    ("/ccs/api/v1/", "ticket"),
    ("/healthz", "ops"),
    ("/readyz", "ops"),
    ("/metrics", "ops"),
];

/// A client may invent methods; these have labels of their own.
const METHODS: [Method; 6] = [Method::GET, Method::POST, Method::PUT, Method::DELETE, Method::HEAD, Method::OPTIONS];

/// What the routes of a server are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Surface {
    /// Callers.
    Callers,
    /// Operators, on the control socket.
    Operators,
    /// Prometheus, on a listener of its own.
    Scrapers,
}

impl Surface {
    fn api_of(self, path: &str) -> &'static str {
        match self {
            Self::Operators => "control",
            Self::Scrapers => "ops",
            Self::Callers => APIS.iter().find(|(prefix, _)| path.starts_with(prefix)).map_or(OTHER, |(_, api)| api),
        }
    }
}

/// The handles of one event loop, each taken when it is needed first.
pub(super) struct Tracker {
    surface: Surface,
    answers: RefCell<HashMap<(&'static str, usize, StatusCode), Counter>>,
    seconds: RefCell<HashMap<&'static str, Histogram>>,
}

impl Tracker {
    pub(super) fn new(surface: Surface) -> Self {
        Self { surface, answers: RefCell::default(), seconds: RefCell::default() }
    }

    /// Gives the request its id, has it served, and counts its answer.
    pub(super) async fn track(&self, request: ServiceRequest, next: Next<BoxBody>) -> Result<ServiceResponse<BoxBody>, Error> {
        let began = Instant::now();
        let id = id_of(request.request());
        let (api, method) = (self.surface.api_of(request.path()), request.method().clone());
        request.extensions_mut().insert(id.clone());
        let span = error_span!("request", request.id = %id);
        let served = async {
            let served = next.call(request).await;
            let status = served.as_ref().map_or_else(|error| error.as_response_error().status_code(), ServiceResponse::status);
            let duration = began.elapsed();
            if enabled!(Level::DEBUG) {
                // The pattern and not the path, whose ids open doors.
                let pattern = served.as_ref().ok().and_then(|response| response.request().match_pattern());
                let (pattern, status) = (pattern.as_deref().unwrap_or(OTHER), status.as_u16());
                debug!(http.status = status, duration_ms = duration.as_millis(), "{method} {pattern}: {status}");
            }
            self.count(api, &method, status);
            self.seconds.borrow_mut().entry(api).or_insert_with(|| HTTP_REQUEST_SECONDS.histogram(&[api])).record(duration.as_secs_f64());
            served
        };
        with_id(served.instrument(span).await, &id)
    }

    fn count(&self, api: &'static str, method: &Method, status: StatusCode) {
        let method = METHODS.iter().position(|known| known == method);
        let label = method.map_or(OTHER, |at| METHODS[at].as_str());
        let mut answers = self.answers.borrow_mut();
        let key = (api, method.unwrap_or(METHODS.len()), status);
        answers.entry(key).or_insert_with(|| HTTP_REQUESTS.counter(&[api, label, status.as_str()])).increment(1);
    }
}

/// The id of the request that is being served.
pub(super) fn request_id(request: &HttpRequest) -> Option<RequestId> {
    request.extensions().get::<RequestId>().cloned()
}

fn id_of(request: &HttpRequest) -> RequestId {
    let given = header_text(request, REQUEST_ID).and_then(|text| text.parse().ok());
    given.unwrap_or_else(|| RequestId::from(Uuid::now_v7()))
}

/// The answer with the request's id in its head; of one that is an error, too.
fn with_id(served: Result<ServiceResponse<BoxBody>, Error>, id: &RequestId) -> Result<ServiceResponse<BoxBody>, Error> {
    // An id has only characters that a header may have.
    let Ok(value) = HeaderValue::from_str(id.as_str()) else { return served };
    match served {
        Ok(mut response) => {
            response.headers_mut().insert(REQUEST_ID, value);
            Ok(response)
        }
        Err(error) => {
            let mut response = error.error_response();
            response.headers_mut().insert(REQUEST_ID, value);
            Err(InternalError::from_response(error, response).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn a_path_is_counted_by_its_api() {
        let ticket = "/api/v1/ticket/0190163d-8694-739b-aea5-966c26f8ad91";
        assert_eq!(Surface::Callers.api_of(ticket), "ticket");
        assert_eq!(Surface::Callers.api_of("/readyz/key/seal"), "ops");
        assert_eq!(Surface::Callers.api_of("/wp-login.php"), OTHER);
        assert_eq!(Surface::Operators.api_of("/slots"), "control");
    }

    #[test]
    fn an_id_that_is_no_plain_token_is_replaced() {
        let id = |given: &str| id_of(&TestRequest::default().insert_header((REQUEST_ID, given)).to_http_request());
        assert_eq!(id("build-7").as_str(), "build-7");
        for bad in ["a b", "{\"x\":1}", &"x".repeat(65)] {
            assert!(Uuid::parse_str(id(bad).as_str()).is_ok_and(|uuid| uuid.get_version_num() == 7), "{bad}");
        }
    }
}
