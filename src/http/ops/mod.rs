//! Health for supervisors and load balancers, numbers for Prometheus: no credentials, no secrets, nothing that costs a signature.
//!
//! `GET /healthz`: the process lives. `GET /readyz`: it can take requests (its store takes changes), whatever its tokens do.
//! `GET /readyz/key/{name}`: that key can sign now. `GET /metrics`: see `metrics.rs`.
//! Invariant: an answer is 200 exactly if the question's answer is yes.

mod error;
mod metrics;

use actix_web::{
    Error, HttpResponse, Resource,
    body::MessageBody,
    dev::{ServiceFactory, ServiceRequest, ServiceResponse},
    http::header,
    middleware::{Next, from_fn},
    web::{self, Data, Path, ServiceConfig},
};
use serde::Serialize;

pub use self::metrics::MetricsSettings;

use self::error::Health;
use super::{app::AppState, peer::Peer};
use crate::domain::ids::KeyName;

const UNKNOWN_KEY: Health = Health::Unknown("no configured key has this name");
const REFUSED: &str =
    "only this machine, directly and by a name or address that the gateway answers to, and the networks of `[metrics] allow`, may ask";

/// The body of every answer but the numbers.
#[derive(Serialize)]
struct HealthDto<'a> {
    status: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// The routes of this API where callers come in.
pub(super) fn configure(config: &mut ServiceConfig, with_metrics: bool) {
    if with_metrics {
        configure_metrics(config);
    }
    config
        .service(limited("/healthz").route(web::get().to(healthz)))
        .service(limited("/readyz").route(web::get().to(readyz)))
        .service(limited("/readyz/key/{name}").route(web::get().to(key_readyz)));
}

/// A path that no address may ask for too often.
fn limited(
    path: &str,
) -> Resource<impl ServiceFactory<ServiceRequest, Config = (), Response = ServiceResponse<impl MessageBody>, Error = Error, InitError = ()>>
{
    web::resource(path).wrap(from_fn(limit))
}

async fn limit(request: ServiceRequest, next: Next<impl MessageBody + 'static>) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let refused = request.app_data::<Data<AppState>>().and_then(|state| {
        let peer = Peer::of(request.request(), &state.settings.trusted_proxies);
        state.limits.take_address(peer).err()
    });
    match refused {
        Some(too_many) => Ok(request.into_response(answer(Health::TooMany(too_many.retry_after))).map_into_right_body()),
        None => Ok(next.call(request).await?.map_into_left_body()),
    }
}

/// The route of the numbers.
pub(super) fn configure_metrics(config: &mut ServiceConfig) {
    config.service(limited("/metrics").route(web::get().to(metrics::metrics)));
}

async fn healthz() -> HttpResponse {
    answer(Health::Yes("alive"))
}

async fn readyz(state: Data<AppState>) -> HttpResponse {
    let ready = state.services.desk.is_store_ready().await;
    answer(if ready { Health::Yes("ready") } else { Health::No("the store is not available".to_owned()) })
}

async fn key_readyz(state: Data<AppState>, name: Path<String>) -> HttpResponse {
    let Ok(name) = name.parse::<KeyName>() else { return answer(UNKNOWN_KEY) };
    answer(match state.services.desk.key_readiness(&name).await {
        None => UNKNOWN_KEY,
        Some(Ok(())) => Health::Yes("ready"),
        Some(Err(denied)) => Health::No(denied.to_string()),
    })
}

fn answer(health: Health) -> HttpResponse {
    let mut response = HttpResponse::build(health.status_code());
    match health {
        Health::Yes(status) => response.json(HealthDto { status, reason: None }),
        Health::No(reason) => response.json(HealthDto { status: "not ready", reason: Some(reason) }),
        Health::Unknown(what) => response.json(HealthDto { status: "unknown", reason: Some(what.to_owned()) }),
        Health::TooMany(after) => {
            response.insert_header((header::RETRY_AFTER, after.as_secs()));
            response.json(HealthDto { status: "too many requests", reason: None })
        }
        Health::Refused => response.json(HealthDto { status: "refused", reason: Some(REFUSED.to_owned()) }),
    }
}
