//! The ticket API, wire for wire: `docs/ticket-api.md` describes it for its users.
//!
//! The table of routes. Handlers translate: they read what clients send into domain types, call one service, and answer in this API's form.
//! Invariants: every route is behind [`access::access`]; every answer has a `message`, but for the few that the API defines without.

mod access;
mod base64_json;
mod certificate_info;
mod error;
mod info;
mod key_store;
mod messages;
mod modifier;
mod options;
mod permission;
mod reply;
mod request;
mod session;
mod signature;
mod time_stamp;
mod upload;
mod verifier;

use actix_web::{
    HttpRequest, HttpResponse, Resource,
    middleware::from_fn,
    web::{self, ServiceConfig, delete, get, post, put},
};

pub use self::messages::Language;
pub(super) use self::messages::{Languages, Messages};

use self::{
    error::{ApiError, Operation, RouteError},
    reply::Reply,
};
use super::app::AppState;

/// Where the API is mounted. Old clients know it behind another host name, which had the second one.
const BASES: [&str; 2] = ["/api/v1", "/ccs/api/v1"];

type State = web::Data<AppState>;

/// Mounts the API, and answers in its form on every path that nobody else has.
pub(super) fn configure(config: &mut ServiceConfig) {
    for base in BASES {
        let scope = web::scope(base).wrap(from_fn(access::access));
        config.service(scope.configure(routes).default_service(web::to(unknown_route)));
    }
    config.default_service(web::to(unknown_route_outside));
}

fn routes(config: &mut ServiceConfig) {
    session_routes(config);
    signature_routes(config);
    time_stamp_routes(config);
    config
        .service(resource("/accessToken", "POST").route(post().to(permission::request)))
        .service(resource("/accessToken/{uuid}", "GET, DELETE").route(get().to(permission::read)).route(delete().to(permission::revoke)))
        .service(resource("/status", "GET").route(get().to(info::status)))
        .service(resource("/features", "GET").route(get().to(info::features)))
        .service(resource("/certificateAuthority/supported", "GET").route(get().to(info::authorities)))
        .service(resource("/certificateInfo/{keyType}", "GET").route(get().to(info::certificate_info)))
        .service(resource("/certificate/base64/{keyType}", "GET").route(get().to(info::certificate_base64)))
        .service(resource("/token/connected", "GET").route(get().to(info::tokens)))
        .service(resource("/language/{code}", "POST").route(post().to(info::choose_language)));
}

fn session_routes(config: &mut ServiceConfig) {
    config
        .service(resource("/ticket", "POST").route(post().to(session::create)))
        .service(resource("/ticket/{uuid}", "DELETE").route(delete().to(session::remove)))
        .service(resource("/ticket/{uuid}/data", "POST").route(post().to(upload::data)))
        .service(resource("/ticket/{uuid}/metadata", "PUT").route(put().to(session::set_metadata)))
        .service(resource("/ticket/{uuid}/option", "PUT").route(put().to(session::set_options)))
        .service(resource("/ticket/{uuid}/keyStore", "PUT").route(put().to(key_store::choose)))
        .service(resource("/ticket/{uuid}/keyStore/verifier", "PUT").route(put().to(key_store::check)))
        .service(resource("/ticket/{uuid}/keyStore/certificate/info/{keyType}", "PUT").route(put().to(key_store::certificate_info)))
        .service(resource("/ticket/{uuid}/keyStore/certificate/base64/{keyType}", "PUT").route(put().to(key_store::certificate_base64)));
}

fn signature_routes(config: &mut ServiceConfig) {
    config
        .service(resource("/ticket/{uuid}/ds/creator", "GET, POST").route(get().to(signature::state)).route(post().to(signature::start)))
        .service(resource("/ticket/{uuid}/ds/creator/data.bulk", "POST").route(post().to(signature::bulk)))
        .service(resource("/ticket/{uuid}/ds/data", "GET, POST").route(get().to(signature::data)).route(post().to(upload::signature)))
        .service(resource("/ticket/{uuid}/ds/base64Data", "GET").route(get().to(signature::base64_data)))
        .service(resource("/ticket/{uuid}/ds/verifier", "GET, POST").route(get().to(verifier::result)).route(post().to(verifier::start)))
        .service(resource("/ticket/{uuid}/ds/modifier", "GET, POST").route(get().to(modifier::state)).route(post().to(modifier::start)))
        .service(resource("/ticket/{uuid}/ds/modifiedData", "GET").route(get().to(modifier::data)))
        .service(resource("/ticket/{uuid}/ds/base64ModifiedData", "GET").route(get().to(modifier::base64_data)))
        .service(resource("/ticket/{uuid}/ds/signedData", "GET").route(get().to(verifier::signed_data)))
        .service(resource("/ticket/{uuid}/ds/base64SignedData", "GET").route(get().to(verifier::base64_signed_data)));
}

fn time_stamp_routes(config: &mut ServiceConfig) {
    config
        .service(resource("/ticket/{uuid}/ts/creator", "GET, POST").route(get().to(time_stamp::state)).route(post().to(time_stamp::start)))
        .service(resource("/ticket/{uuid}/ts/data", "GET, POST").route(get().to(time_stamp::data)).route(post().to(time_stamp::upload)))
        .service(resource("/ticket/{uuid}/ts/base64Data", "GET").route(get().to(time_stamp::base64_data)))
        .service(
            resource("/ticket/{uuid}/ts/verifier", "GET, POST")
                .route(get().to(time_stamp::check))
                .route(post().to(time_stamp::start_check)),
        );
}

/// A path, with or without a slash behind it, that takes the methods which are added to it; `allow` lists them.
fn resource(path: &str, allow: &'static str) -> Resource {
    let wrong_method = move || async move { Err::<HttpResponse, ApiError>(Operation::Other.error(RouteError::Method { allow })) };
    web::resource([path.to_owned(), format!("{path}/")]).default_service(web::to(wrong_method))
}

async fn unknown_route() -> Result<Reply, ApiError> {
    Err(Operation::Other.error(RouteError::Unknown))
}

/// Outside of the API nobody is asked who they are; there is nothing to see.
async fn unknown_route_outside(state: State, request: HttpRequest) -> HttpResponse {
    let language = super::extract::header_text(&request, actix_web::http::header::ACCEPT_LANGUAGE).and_then(Language::of_accept_language);
    Operation::Other.error(RouteError::Unknown).render(&state.messages, language.unwrap_or(state.settings.language))
}
