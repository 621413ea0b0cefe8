//! The certificate-request API, wire for wire: `docs/certificate-requests.md` describes it for its users.
//!
//! The table of routes. Handlers translate: they read what clients send into domain types, call one service, and answer in this API's form.
//! Invariants: every route is behind [`access::access`], which asks for token, scope and rate in that order, before anything of the request is
//! looked at; every error is a `Notice` with an id that stands in the log, too; the bank's words stand in this folder only.

mod access;
mod dto;
mod error;
mod info;
mod request;
mod requests;

use std::sync::Arc;

use actix_web::{
    HttpResponse, Resource,
    middleware::from_fn,
    web::{self, ServiceConfig, get, post},
};
use serde_json::Value;

use self::error::Notice;
use super::app::AppState;
use crate::{
    domain::{
        caller::{Account, Caller, ConsentPolicy, KeyAccess, Provenance, Scopes},
        enrolment::Enrolment,
        ids::CallerId,
    },
    enrolment::{EnrolmentService, Requester},
};

/// Where the API is mounted, by version.
const BASES: [(&str, Version); 2] = [("/fintech/api/v1/crypto", Version::V1), ("/fintech/api/v2/crypto", Version::V2)];

type State = web::Data<AppState>;

/// A version of the API: they differ in how a created request is answered and in what is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

/// Mounts the API.
pub(super) fn configure(config: &mut ServiceConfig) {
    for (base, version) in BASES {
        let scope = web::scope(base).app_data(web::Data::new(version)).wrap(from_fn(access::access));
        config.service(scope.configure(routes).default_service(web::to(unknown)));
    }
}

fn routes(config: &mut ServiceConfig) {
    config.service(resource("").route(get().to(info::own))).service(resource("/eio").route(get().to(info::of_all)));
    for form in ["/cert-requests/eio", "/cert-requests"] {
        let of_one = |call: &str| resource(&format!("{form}/{{externalId}}/{call}"));
        config
            .service(resource(form).route(post().to(requests::create)))
            .service(of_one("state").route(get().to(requests::state)))
            .service(of_one("print").route(get().to(requests::print)))
            .service(of_one("confirm").route(post().to(requests::confirm)))
            // The documents moved from GET to POST; clients of both are about.
            .service(of_one("activate").route(get().to(requests::activate)).route(post().to(requests::activate)));
    }
}

/// A path, with or without a slash behind it.
fn resource(path: &str) -> Resource {
    web::resource([path.to_owned(), format!("{path}/")]).default_service(web::to(unknown))
}

async fn unknown() -> Result<HttpResponse, Notice> {
    Err(Notice::not_found())
}

/// Asks for a certificate in the way of this API, for an operator at the control socket; an error is what a caller would have been told.
pub(super) async fn create_for_operator(
    service: &EnrolmentService,
    operator: CallerId,
    account: Account,
    body: &Value,
) -> Result<Enrolment, String> {
    let new = dto::new_request(body.to_string().as_bytes(), false).map_err(|notice| notice.in_words())?;
    let account = Arc::new(account);
    let caller = Caller {
        id: operator,
        keys: KeyAccess::All,
        default_key: None,
        consent: ConsentPolicy::Auto.into(),
        permit_uses_max: 0,
        rate: None,
        scopes: Scopes::default(),
        account: Some(Arc::clone(&account)),
        from: Provenance::default(),
    };
    let who = Requester { caller: Arc::new(caller), account, for_all: false };
    service.create(&who, new).await.map_err(|error| error.to_string())
}
