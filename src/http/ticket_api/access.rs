//! Who may come in, and how every answer goes out: host, origin and caller are checked before any handler runs, errors get their words, and
//! browsers get the CORS headers they ask for.

use std::sync::Arc;

use actix_web::{
    Error, HttpMessage, HttpRequest, HttpResponse,
    body::{BoxBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    http::{
        Method,
        header::{self, HeaderMap, HeaderName, HeaderValue},
    },
    middleware::Next,
    web,
};

use super::{
    error::{AccessError, ApiError, Operation, RouteError},
    messages::Language,
    request::Asking,
};
use crate::{
    auth::{AuthError, Credentials},
    domain::{
        caller::{Caller, Provenance, Scope},
        certificate::ClientCertificate,
    },
    http::{
        app::AppState,
        extract::header_text,
        limits::TooMany,
        peer::{Peer, is_called_by_its_name},
        tracking::request_id,
    },
};

const ALLOW_METHODS: HeaderValue = HeaderValue::from_static("GET, POST, PUT, DELETE, OPTIONS");
/// The last one is no request header, but a client sends it.
const ALLOW_HEADERS: HeaderValue =
    HeaderValue::from_static("Content-Type, Accept, Authorization, Idempotency-Key, X-Request-Id, Access-Control-Allow-Origin");
const EXPOSE_HEADERS: HeaderValue = HeaderValue::from_static("Retry-After, X-Request-Id");
const VARY: HeaderValue = HeaderValue::from_static("Origin, Accept-Language");
const PREFLIGHT_VARY: HeaderValue = HeaderValue::from_static(
    "Origin, Access-Control-Request-Method, Access-Control-Request-Headers, Access-Control-Request-Private-Network",
);
/// How long a browser may remember a preflight, in seconds.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");
const TRUE: HeaderValue = HeaderValue::from_static("true");
/// Chromium before version 142 asks for this before a page may call a loopback address.
const REQUEST_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-request-private-network");
const ALLOW_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-allow-private-network");

/// Lets a request in, or does not, and sees its answer out.
pub(super) async fn access(request: ServiceRequest, next: Next<impl MessageBody + 'static>) -> Result<ServiceResponse<BoxBody>, Error> {
    let Some(state) = request.app_data::<web::Data<AppState>>().cloned() else {
        return Ok(request.error_response(Operation::Other.error(RouteError::Unknown)));
    };
    let origin = request.headers().get(header::ORIGIN).filter(|origin| origin.to_str().is_ok_and(|origin| allows(&state, origin))).cloned();
    let (language, mut response) = match admit(&state, request.request()) {
        Ok(None) => (state.settings.language, preflight(request)),
        Ok(Some(asking)) => {
            let language = asking.language;
            request.extensions_mut().insert(asking);
            (language, next.call(request).await?.map_into_boxed_body())
        }
        Err(error) => (wanted_language(request.request()).unwrap_or(state.settings.language), request.error_response(error)),
    };
    if let Some(error) = response.response().error() {
        // What is none of ours comes from a path that cannot be decoded.
        let unknown = Operation::Other.error(RouteError::Unknown);
        let error = error.as_error::<ApiError>().unwrap_or(&unknown);
        error.log();
        let rendered = error.render(&state.messages, language);
        response = response.into_response(rendered);
    }
    if let Some(origin) = origin {
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSE_HEADERS);
    }
    if !response.headers().contains_key(header::VARY) {
        response.headers_mut().insert(header::VARY, VARY);
    }
    Ok(response)
}

fn allows(state: &AppState, origin: &str) -> bool {
    state.services.callers.allow_origin(origin)
}

/// Who asks; `None` for `OPTIONS`, which nobody signs: a browser asks whether a page may ask.
fn admit(state: &AppState, request: &HttpRequest) -> Result<Option<Asking>, ApiError> {
    let refuse = |error| Operation::Other.error(error);
    let settings = &state.settings;
    let peer = Peer::of(request, &settings.trusted_proxies);
    state.limits.take_address(peer).map_err(too_many)?;
    if !is_called_by_its_name(request, &settings.hosts, &settings.trusted_proxies) {
        return Err(refuse(AccessError::ForeignHost));
    }
    // A header that is no text is a wrong one, not a missing one.
    let given = |name: HeaderName| request.headers().get(name).map(|value| value.to_str().unwrap_or_default());
    let (authorization, origin) = (given(header::AUTHORIZATION), given(header::ORIGIN));
    if request.method() == Method::OPTIONS {
        let welcome = origin.is_none_or(|origin| allows(state, origin));
        return if welcome { Ok(None) } else { Err(refuse(AccessError::ForeignOrigin)) };
    }
    // Such a listener stands for whoever is on this machine, and not for those for whom a proxy on it speaks.
    let here = peer.is_some_and(|peer| peer.address.is_loopback());
    let listener = state.listener_caller(request.app_config().local_addr()).filter(|_| here);
    let certificate = request.conn_data::<ClientCertificate>();
    let caller =
        state.services.callers.identify(Credentials { authorization, origin, certificate, listener }).map_err(|error| match error {
            AuthError::UnknownCaller => refuse(AccessError::UnknownCaller),
            AuthError::ForeignOrigin => refuse(AccessError::ForeignOrigin),
        })?;
    state.limits.take_caller(&caller, peer).map_err(too_many)?;
    if !caller.scopes.allow(Scope::TicketApi) {
        return Err(refuse(AccessError::MissingScope));
    }
    let language = language(state, request, &caller, origin.is_some());
    let address = peer.map(|peer| peer.address);
    let from = Provenance { origin: origin.map(str::to_owned), address, request: request_id(request) };
    Ok(Some(Asking { caller: Arc::new(Caller { from, ..Caller::clone(&caller) }), language }))
}

fn too_many(TooMany { retry_after }: TooMany) -> ApiError {
    Operation::Other.error(AccessError::TooManyRequests { retry_after })
}

fn wanted_language(request: &HttpRequest) -> Option<Language> {
    header_text(request, header::ACCEPT_LANGUAGE).and_then(Language::of_accept_language)
}

/// The language of the answer. A program that sends `Accept-Language` means it; a browser sends it by itself, so for a page the language that
/// it chose goes first.
fn language(state: &AppState, request: &HttpRequest, caller: &Caller, is_page: bool) -> Language {
    let (wanted, chosen) = (wanted_language(request), state.languages.chosen_by(&caller.id));
    let language = if is_page { chosen.or(wanted) } else { wanted.or(chosen) };
    language.unwrap_or(state.settings.language)
}

fn preflight(request: ServiceRequest) -> ServiceResponse<BoxBody> {
    let mut response = HttpResponse::NoContent().finish();
    let asks = |name: HeaderName| request.headers().contains_key(name);
    let (private_network, asked) = (asks(REQUEST_PRIVATE_NETWORK), asks(header::ORIGIN));
    let headers = response.headers_mut();
    headers.insert(header::ALLOW, ALLOW_METHODS);
    headers.insert(header::VARY, PREFLIGHT_VARY);
    if asked {
        grant(headers, private_network);
    }
    request.into_response(response)
}

fn grant(headers: &mut HeaderMap, private_network: bool) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, ALLOW_METHODS);
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, ALLOW_HEADERS);
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    if private_network {
        headers.insert(ALLOW_PRIVATE_NETWORK, TRUE);
    }
}
