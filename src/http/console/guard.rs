//! Who may come in to the console, and how every answer of it goes out: host, transport and session are checked before any handler runs,
//! errors become pages, and browsers are told what these pages may not do.

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
use tracing::warn;

use super::{
    BASE,
    cookies::Cookie,
    error::ConsoleError,
    frame,
    visit::{Arrival, Visit},
};
use crate::http::{
    app::AppState,
    extract::header_text,
    peer::{Peer, is_called_by_its_name, is_forwarded_by_tls},
};

/// What a page of the console may load and do: its own style sheet, script, pictures and events, and nothing from elsewhere; nobody frames it.
const PAGE_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; frame-src 'self'; form-action 'self'; \
     frame-ancestors 'none'; base-uri 'none'",
);
const HEADERS: [(HeaderName, HeaderValue); 6] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    // Not `no-referrer`: browsers would send `Origin: null` with our own forms.
    (header::REFERRER_POLICY, HeaderValue::from_static("same-origin")),
    (header::CROSS_ORIGIN_OPENER_POLICY, HeaderValue::from_static("same-origin")),
    (header::CROSS_ORIGIN_RESOURCE_POLICY, HeaderValue::from_static("same-origin")),
    (
        header::PERMISSIONS_POLICY,
        HeaderValue::from_static("camera=(), microphone=(), geolocation=(), payment=(), usb=(), serial=(), hid=()"),
    ),
    (HeaderName::from_static("x-robots-tag"), HeaderValue::from_static("noindex")),
];
/// A request that a page's script sends by itself: it does not count as a use of the session.
const BY_ITSELF: HeaderName = HeaderName::from_static("x-sealgate-live");

/// Lets a request in, or does not, and sees its answer out.
pub(super) async fn guard(request: ServiceRequest, next: Next<impl MessageBody + 'static>) -> Result<ServiceResponse<BoxBody>, Error> {
    let Some(state) = request.app_data::<web::Data<AppState>>().cloned() else {
        return Ok(request.error_response(ConsoleError::Broken));
    };
    let (visit, mut response) = match admit(&state, request.request()).await {
        Ok(visit) => {
            visit.iter().for_each(|visit| drop(request.extensions_mut().insert(visit.clone())));
            (visit, next.call(request).await?.map_into_boxed_body())
        }
        Err(error) => (None, request.error_response(error)),
    };
    if let Some(error) = response.response().error() {
        // What is none of ours comes from a path that cannot be decoded.
        let error = error.as_error::<ConsoleError>().cloned().unwrap_or(ConsoleError::NotFound);
        let rendered = answer_error(response.request(), visit.as_ref(), &error);
        response = response.into_response(rendered);
    }
    finish(response.headers_mut());
    Ok(response)
}

/// Whose request it is; `None` where nobody needs to be logged in.
async fn admit(state: &AppState, request: &HttpRequest) -> Result<Option<Visit>, ConsoleError> {
    let settings = &state.settings;
    let peer = Peer::of(request, &settings.trusted_proxies);
    state.limits.take_address(peer).map_err(|too_many| ConsoleError::TooMany(too_many.retry_after))?;
    if !is_called_by_its_name(request, &settings.hosts, &settings.trusted_proxies) {
        return Err(ConsoleError::ForeignHost);
    }
    let tls = request.app_config().secure();
    if !tls && !request.app_config().local_addr().ip().is_loopback() && !settings.console.insecure_http {
        return Err(ConsoleError::PlainHttp);
    }
    let secure = tls || is_forwarded_by_tls(request, &settings.trusted_proxies);
    request.extensions_mut().insert(Arrival { secure, address: peer.map(|peer| peer.address) });
    if let Some(token) = Cookie::Session.token(request, secure) {
        let used = !request.headers().contains_key(BY_ITSELF) && !request.path().ends_with("/events");
        if let Some(open) = state.services.operators.session(&token, used).await? {
            return Ok(Some(Visit { open, form_token: token.form_token() }));
        }
    }
    if is_open_to_all(request.path()) { Ok(None) } else { Err(ConsoleError::NotLoggedIn) }
}

fn is_open_to_all(path: &str) -> bool {
    is_login(path) || below(path).starts_with("/assets/")
}

/// Whether a path is that of the login page.
pub(super) fn is_login(path: &str) -> bool {
    below(path) == "/login"
}

fn below(path: &str) -> &str {
    path.strip_prefix(BASE).unwrap_or(path).trim_end_matches('/')
}

/// A page that says what went wrong; whoever wants a page and is not logged in is sent to where they can.
fn answer_error(request: &HttpRequest, visit: Option<&Visit>, error: &ConsoleError) -> HttpResponse {
    if matches!(error, ConsoleError::Store | ConsoleError::Broken) {
        warn!(error = %error, "a page of the console could not be made");
    }
    let wants_page =
        request.method() == Method::GET && header_text(request, header::ACCEPT).is_some_and(|accept| accept.contains("text/html"));
    if *error == ConsoleError::NotLoggedIn && wants_page && !request.headers().contains_key(BY_ITSELF) {
        return frame::redirect(&format!("{BASE}/login"));
    }
    frame::error_page(visit, error)
}

/// What every answer says; what a handler has said itself stays.
fn finish(headers: &mut HeaderMap) {
    for (name, value) in HEADERS {
        headers.insert(name, value);
    }
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    if !headers.contains_key(header::CONTENT_SECURITY_POLICY) {
        headers.insert(header::CONTENT_SECURITY_POLICY, PAGE_POLICY);
        headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    }
}
