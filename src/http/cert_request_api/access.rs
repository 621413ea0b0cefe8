//! Who may come in: token, scope, rate, in this order.

use std::{borrow::Cow, sync::Arc};

use actix_web::{
    Error, HttpMessage, HttpRequest,
    body::{BoxBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    http::header,
    middleware::Next,
    web,
};

use super::error::Notice;
use crate::{
    auth::{AuthError, Credentials},
    domain::{
        caller::{Caller, Provenance, Scope},
        certificate::ClientCertificate,
    },
    enrolment::Requester,
    http::{
        app::AppState,
        peer::{Peer, is_called_by_its_name},
        tracking::request_id,
    },
};

/// How long a token is (`^[a-zA-Z0-9]{38}$`).
const TOKEN_LEN: usize = 38;
/// How much of a wrong token is said back.
const TOKEN_SHOWN: usize = 4;

/// Lets a request in, or does not.
pub(super) async fn access(request: ServiceRequest, next: Next<impl MessageBody + 'static>) -> Result<ServiceResponse<BoxBody>, Error> {
    let Some(state) = request.app_data::<web::Data<AppState>>().cloned() else {
        return Ok(request.error_response(Notice::not_found()));
    };
    match admit(&state, request.request()) {
        Ok(requester) => {
            request.extensions_mut().insert(requester);
            Ok(next.call(request).await?.map_into_boxed_body())
        }
        Err(notice) => Ok(request.error_response(notice)),
    }
}

fn admit(state: &AppState, request: &HttpRequest) -> Result<Requester, Notice> {
    let settings = &state.settings;
    let peer = Peer::of(request, &settings.trusted_proxies);
    let given = |name| request.headers().get(name).map(|value| value.to_str().unwrap_or_default());
    let authorization = given(header::AUTHORIZATION).unwrap_or_default();
    let known = token(authorization).and_then(|_| {
        let credentials = Credentials {
            authorization: Some(authorization),
            origin: given(header::ORIGIN),
            certificate: request.conn_data::<ClientCertificate>(),
            listener: None,
        };
        state.services.callers.identify(credentials).map_err(|error| match error {
            AuthError::UnknownCaller => unauthorized(authorization),
            AuthError::ForeignOrigin => Notice::forbidden(),
        })
    });
    // Whoever guesses is counted as well as whoever is known; the one is told so at once, the other after the rest.
    let caller = match known {
        Ok(caller) => caller,
        Err(notice) => {
            state.limits.take_address(peer).map_err(|many| Notice::too_many(many.retry_after))?;
            return Err(notice);
        }
    };
    if !is_called_by_its_name(request, &settings.hosts, &settings.trusted_proxies) {
        return Err(Notice::forbidden());
    }
    let scope = scope_of(request.path());
    let account = caller.account.clone().filter(|_| caller.scopes.allow(scope)).ok_or_else(Notice::forbidden)?;
    let for_all = scope.needs_eio();
    if for_all && !account.eio {
        return Err(Notice::forbidden());
    }
    state.limits.take_address(peer).map_err(|many| Notice::too_many(many.retry_after))?;
    state.limits.take_method(&caller, method_of(request.path()), peer).map_err(|many| Notice::too_many(many.retry_after))?;
    let from = Provenance { origin: None, address: peer.map(|peer| peer.address), request: request_id(request) };
    Ok(Requester { caller: Arc::new(Caller { from, ..Caller::clone(&caller) }), account, for_all })
}

/// What is called, for the count of requests: the two verbs of `activate` are one method, as are the two forms of each.
fn method_of(path: &str) -> &'static str {
    let mut parts = path.split('/').filter(|part| !part.is_empty()).skip(4);
    if parts.next() != Some("cert-requests") {
        return "crypto info";
    }
    match parts.last() {
        Some("state") => "state",
        Some("print") => "print",
        Some("confirm") => "confirm",
        Some("activate") => "activate",
        _ => "create",
    }
}

/// The scope that a path wants.
fn scope_of(path: &str) -> Scope {
    let mut parts = path.split('/').filter(|part| !part.is_empty()).skip(4);
    match (parts.next(), parts.next()) {
        (Some("cert-requests"), Some("eio")) => Scope::CryptoCertRequestEio,
        (Some("cert-requests"), _) => Scope::CertificateRequest,
        (Some("eio"), _) => Scope::GetCryptoInfoEio,
        _ => Scope::GetCryptoInfo,
    }
}

/// The bearer token, if it has the form of one.
fn token(authorization: &str) -> Result<&str, Notice> {
    let token = bearer(authorization);
    let lawful = token.len() == TOKEN_LEN && token.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if lawful { Ok(token) } else { Err(unauthorized(authorization)) }
}

fn bearer(authorization: &str) -> &str {
    let (scheme, token) = authorization.trim().split_once(' ').unwrap_or(("", ""));
    if scheme.eq_ignore_ascii_case("bearer") { token.trim_start() } else { "" }
}

/// The original says the whole token back; its beginning is enough to find it.
fn unauthorized(authorization: &str) -> Notice {
    let shown: Cow<'_, str> = bearer(authorization).chars().filter(char::is_ascii_alphanumeric).take(TOKEN_SHOWN).collect();
    Notice::unauthorized(&shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_is_the_same_in_both_versions_and_forms() {
        for (path, method) in [
            ("/fintech/api/v1/crypto/eio", "crypto info"),
            ("/fintech/api/v2/crypto/cert-requests", "create"),
            ("/fintech/api/v1/crypto/cert-requests/eio/", "create"),
            ("/fintech/api/v1/crypto/cert-requests/eio/x/activate", "activate"),
            ("/fintech/api/v2/crypto/cert-requests/x/activate/", "activate"),
            ("/fintech/api/v1/crypto/cert-requests/x/state", "state"),
        ] {
            assert_eq!(method_of(path), method, "{path}");
        }
    }

    #[test]
    fn each_path_wants_its_scope() {
        for (path, scope) in [
            ("/fintech/api/v1/crypto", Scope::GetCryptoInfo),
            ("/fintech/api/v1/crypto/", Scope::GetCryptoInfo),
            ("/fintech/api/v1/crypto/eio", Scope::GetCryptoInfoEio),
            ("/fintech/api/v2/crypto/cert-requests", Scope::CertificateRequest),
            ("/fintech/api/v2/crypto/cert-requests/eio", Scope::CryptoCertRequestEio),
            ("/fintech/api/v1/crypto/cert-requests/eio/x/activate", Scope::CryptoCertRequestEio),
            ("/fintech/api/v1/crypto/cert-requests/x/activate", Scope::CertificateRequest),
        ] {
            assert_eq!(scope_of(path), scope, "{path}");
        }
    }
}
