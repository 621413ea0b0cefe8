//! What operators may see and do, served on the control socket and nowhere else: whoever can open the socket is an operator.
//!
//! | call, with the JSON it takes | does | answers |
//! |---|---|---|
//! | `GET /health` | | [`HealthDto`] |
//! | `GET /slots` | every token that was seen, with its state now | [`SlotsDto`] |
//! | `GET /keys` | every key that can be seen now; asks each token | [`KeysDto`] |
//! | `POST /unlock`, [`UnlockDto`] | logs in | [`TokenDto`] |
//! | `POST /lock`, [`LockDto`] | logs out; nothing signs before the next unlock | [`TokenDto`] |
//!
//! Errors are an [`ErrorDto`](dto::ErrorDto): what went wrong, and what to do about it.

pub mod dto;
mod error;

use std::time::Duration;

use actix_web::{
    HttpResponse,
    web::{self, Data, Payload, ServiceConfig, get, post},
};
use serde::{Serialize, de::DeserializeOwned};

use self::{
    dto::{HealthDto, KeyDto, KeysDto, LockDto, SlotDto, SlotsDto, TokenDto, UnlockDto},
    error::ControlError,
};
use super::extract::read_whole;
use crate::{
    domain::{key_uri::Pkcs11Uri, pin::Pin},
    signing::tokens::TokenDesk,
};

/// The most bytes of a request body.
const BODY_MAX: usize = 64 * 1024;
/// How long a request body may make no progress.
const BODY_IDLE_MAX: Duration = Duration::from_secs(10);

/// The routes that operators are served.
pub(super) fn configure(desk: Data<TokenDesk>) -> impl FnOnce(&mut ServiceConfig) {
    move |config| {
        config
            .app_data(desk)
            .route("/health", get().to(health))
            .route("/slots", get().to(slots))
            .route("/keys", get().to(keys))
            .route("/unlock", post().to(unlock))
            .route("/lock", post().to(lock))
            .default_service(web::to(unknown_route));
    }
}

async fn health(desk: Data<TokenDesk>) -> HttpResponse {
    json(&HealthDto { can_sign: desk.any_can_sign(), module_problems: desk.module_problems() })
}

async fn slots(desk: Data<TokenDesk>) -> HttpResponse {
    json(&SlotsDto { slots: desk.slots().into_iter().map(SlotDto::from).collect(), module_problems: desk.module_problems() })
}

async fn keys(desk: Data<TokenDesk>) -> HttpResponse {
    json(&KeysDto { keys: desk.keys().await.into_iter().map(KeyDto::from).collect() })
}

async fn unlock(desk: Data<TokenDesk>, body: Payload) -> Result<HttpResponse, ControlError> {
    let UnlockDto { uri, pin, insist, forget_rejection } = read(body).await?;
    let pin = pin.map(|pin| Pin::new(pin.reveal())).transpose().map_err(ControlError::Pin)?;
    let token = desk.unlock(&any_or(uri), pin, insist, forget_rejection).await?;
    Ok(json(&TokenDto { uri: token.uri() }))
}

async fn lock(desk: Data<TokenDesk>, body: Payload) -> Result<HttpResponse, ControlError> {
    let LockDto { uri } = read(body).await?;
    let token = desk.lock(&any_or(uri)).await?;
    Ok(json(&TokenDto { uri: token.uri() }))
}

async fn unknown_route() -> Result<HttpResponse, ControlError> {
    Err(ControlError::UnknownRoute)
}

/// A URI without attributes matches every token; if there is just one, that is the one.
fn any_or(uri: Option<Pkcs11Uri>) -> Pkcs11Uri {
    uri.unwrap_or_default()
}

async fn read<T: DeserializeOwned>(mut body: Payload) -> Result<T, ControlError> {
    let body = read_whole(&mut body, BODY_MAX, BODY_IDLE_MAX).await.map_err(|error| ControlError::Body(error.to_string()))?;
    // Only the place: serde's own message repeats a wrong value, which may be a PIN that was sent as a number.
    serde_json::from_slice(&body)
        .map_err(|error| ControlError::Body(format!("not the JSON that is wanted, at line {}, column {}", error.line(), error.column())))
}

fn json(answer: &impl Serialize) -> HttpResponse {
    HttpResponse::Ok().json(answer)
}
