//! Health for supervisors and load balancers: no credentials, no secrets, nothing that costs a signature.
//!
//! `GET /healthz`: the process lives. `GET /readyz`: it can take requests (its store is reachable), whatever its tokens do.
//! `GET /readyz/key/{name}`: that key can sign now. Invariant: an answer is 200 exactly if the question's answer is yes.

mod error;

use actix_web::{
    HttpResponse,
    web::{self, Data, Path, ServiceConfig},
};
use serde::Serialize;

use self::error::Health;
use super::app::AppState;
use crate::domain::ids::KeyName;

/// The body of every answer.
#[derive(Serialize)]
struct HealthDto<'a> {
    status: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// The routes of this API.
pub fn configure(config: &mut ServiceConfig) {
    config
        .route("/healthz", web::get().to(healthz))
        .route("/readyz", web::get().to(readyz))
        .route("/readyz/key/{name}", web::get().to(key_readyz));
}

async fn healthz() -> HttpResponse {
    answer(Health::Yes("alive"))
}

async fn readyz(state: Data<AppState>) -> HttpResponse {
    let reachable = state.services.desk.is_store_reachable().await;
    answer(if reachable { Health::Yes("ready") } else { Health::No("the store is not available".to_owned()) })
}

async fn key_readyz(state: Data<AppState>, name: Path<String>) -> HttpResponse {
    let Ok(name) = name.parse::<KeyName>() else { return answer(Health::Unknown) };
    answer(match state.services.desk.key_readiness(&name).await {
        None => Health::Unknown,
        Some(Ok(())) => Health::Yes("ready"),
        Some(Err(denied)) => Health::No(denied.to_string()),
    })
}

fn answer(health: Health) -> HttpResponse {
    let mut response = HttpResponse::build(health.status_code());
    match health {
        Health::Yes(status) => response.json(HealthDto { status, reason: None }),
        Health::No(reason) => response.json(HealthDto { status: "not ready", reason: Some(reason) }),
        Health::Unknown => response.json(HealthDto { status: "unknown", reason: Some("no configured key has this name".to_owned()) }),
    }
}
