//! What operators may see and do, on the control socket alone: whoever can open it is one. Errors are an [`ErrorDto`](dto::ErrorDto): what
//! went wrong, and what to do. [`jobs`], [`permits`], [`callers`], [`operators`] and certificate requests ([`enrol`]) have calls of their own.
//!
//! | call, with the JSON it takes | does | answers |
//! |---|---|---|
//! | `GET /health` | | [`HealthDto`] |
//! | `GET /slots` | every token that was seen, here and by other gateways on the same store, with its state now | [`SlotsDto`] |
//! | `GET /slots/changes?since=N` | the same when something has changed since change N (at once without it), after 25 s in any case | [`SlotChangesDto`] |
//! | `GET /keys`, `/offers` | every key that can be seen now, what tokens can do; asks each token | [`KeysDto`], [`OffersDto`] |
//! | `GET /keys/{name}` | whether a configured key can sign, as far as is known without signing | [`KeyReadinessDto`] |
//! | `POST /unlock`, [`UnlockDto`] | logs in | [`TokenDto`] |
//! | `POST /lock`, [`LockDto`] | logs out; nothing signs before the next unlock | [`TokenDto`] |

pub mod callers;
pub mod dto;
pub mod enrol;
mod error;
pub mod jobs;
mod local_user;
pub mod operators;
pub mod permits;

use std::time::Duration;

use actix_web::{
    HttpResponse,
    web::{self, Data, Path, Payload, Query, ServiceConfig, get, post},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{sync::watch, time::timeout};

pub(super) use self::local_user::LocalUser;
pub(crate) use self::local_user::{BEFORE_SUDO, before_sudo, who_runs_this};
use self::{
    dto::{
        HealthDto, KeyDto, KeyReadinessDto, KeysDto, LockDto, OfferDto, OffersDto, SlotChangesDto, SlotDto, SlotsDto, TokenDto, UnlockDto,
    },
    error::ControlError,
};
use super::extract::{Pace, read_whole};
use crate::{
    auth::{CallerBook, Operators},
    domain::{ids::KeyName, key_uri::Pkcs11Uri, pin::Pin},
    enrolment::EnrolmentService,
    permit::PermitService,
    signing::tokens::TokenDesk,
};

/// The most bytes of a request body.
const BODY_MAX: usize = 64 * 1024;
/// How long a request body may make no progress.
const BODY_IDLE_MAX: Duration = Duration::from_secs(10);
/// How long a change is waited for before the answer is that there was none.
const CHANGE_WAIT_MAX: Duration = Duration::from_secs(25);

/// Turns true when the server closes, so that nobody goes on waiting for a change.
pub(super) type Closing = watch::Receiver<bool>;

/// The routes that operators are served.
pub(super) fn configure(
    desk: Data<TokenDesk>,
    callers: Data<CallerBook>,
    accounts: Data<Operators>,
    permits: Data<PermitService>,
    enrolment: Data<EnrolmentService>,
    closing: Data<Closing>,
) -> impl FnOnce(&mut ServiceConfig) {
    move |config| {
        config
            .app_data(desk)
            .app_data(callers)
            .app_data(accounts)
            .app_data(permits)
            .app_data(enrolment)
            .app_data(closing)
            .route("/health", get().to(health))
            .route("/slots", get().to(slots))
            .route("/slots/changes", get().to(slot_changes))
            .route("/keys", get().to(keys))
            .route("/keys/{name}", get().to(key_readiness))
            .route("/offers", get().to(offers))
            .route("/unlock", post().to(unlock))
            .route("/lock", post().to(lock))
            .route("/jobs", get().to(jobs::list))
            .route("/jobs/{id}", get().to(jobs::show))
            .route("/jobs/{id}/resolve", post().to(jobs::resolve))
            .route("/permits", get().to(permits::list))
            .route("/permits/changes", get().to(permits::changes))
            .route("/permits/{id}", get().to(permits::show))
            .route("/permits/{id}/grant", post().to(permits::grant))
            .route("/permits/{id}/refuse", post().to(permits::refuse))
            .route("/permits/{id}/revoke", post().to(permits::revoke))
            .route("/enrolments", get().to(enrol::list))
            .route("/enrolments", post().to(enrol::create))
            .route("/enrolments/{id}", get().to(enrol::show))
            .route("/enrolments/{id}/approve", post().to(enrol::approve))
            .route("/enrolments/{id}/refuse", post().to(enrol::refuse))
            .route("/enrolments/{id}/delete-key", post().to(enrol::delete_key))
            .route("/enrolments/{id}/certificate", post().to(enrol::upload))
            .route("/enrolments/{id}/activate", post().to(enrol::activate))
            .route("/callers", get().to(callers::list))
            .route("/callers", post().to(callers::add))
            .route("/callers/{name}", get().to(callers::show))
            .route("/callers/{name}/rotate", post().to(callers::rotate))
            .route("/callers/{name}/revoke", post().to(callers::revoke))
            .route("/callers/{name}/remove", post().to(callers::remove))
            .route("/operators", get().to(operators::list))
            .route("/operators", post().to(operators::add))
            .route("/operators/{name}/password", post().to(operators::set_password))
            .route("/operators/{name}/{change}", post().to(operators::change))
            .default_service(web::to(unknown_route));
    }
}

async fn health(desk: Data<TokenDesk>) -> HttpResponse {
    json(&HealthDto { can_sign: desk.any_can_sign(), module_problems: desk.module_problems() })
}

async fn slots(desk: Data<TokenDesk>) -> HttpResponse {
    json(&slots_now(&desk))
}

fn slots_now(desk: &TokenDesk) -> SlotsDto {
    let (own, elsewhere) = (desk.slots().into_iter().map(SlotDto::from), desk.remote_slots().into_iter().map(SlotDto::elsewhere));
    SlotsDto { slots: own.chain(elsewhere).collect(), module_problems: desk.module_problems() }
}

/// What is asked for at `/slots/changes` and `/permits/changes`.
#[derive(Deserialize)]
struct SinceDto {
    since: Option<u64>,
}

/// Waits until there is another change than the client knows, but no longer than it may wait; gives back the number of the last one, which was
/// read before whatever it stands for: a change between the two is told again rather than not at all.
async fn wait_for_change(
    mut changes: watch::Receiver<u64>,
    closing: &Closing,
    query: Result<Query<SinceDto>, actix_web::Error>,
) -> Result<u64, ControlError> {
    let SinceDto { since } = query.map_err(|error| ControlError::Query(error.to_string()))?.into_inner();
    let mut closing = watch::Receiver::clone(closing);
    let another = async {
        // Another, not a later one: a gateway that was started again counts from the beginning. Errors mean that the gateway goes.
        tokio::select! {
            _ = changes.wait_for(|change| since != Some(*change)) => {}
            _ = closing.wait_for(|closing| *closing) => {}
        }
    };
    // Past the bound the answer is that nothing has changed.
    let _ = timeout(CHANGE_WAIT_MAX, another).await;
    Ok(*changes.borrow())
}

async fn slot_changes(
    desk: Data<TokenDesk>,
    closing: Data<Closing>,
    query: Result<Query<SinceDto>, actix_web::Error>,
) -> Result<HttpResponse, ControlError> {
    let change = wait_for_change(desk.changes(), &closing, query).await?;
    Ok(json(&SlotChangesDto { change, now: slots_now(&desk) }))
}

async fn key_readiness(desk: Data<TokenDesk>, name: Path<String>) -> Result<HttpResponse, ControlError> {
    let name = name.parse::<KeyName>().map_err(|_| ControlError::UnknownKey)?;
    let readiness = desk.key_readiness(&name).await.ok_or(ControlError::UnknownKey)?;
    let reason = readiness.err().map(|denied| denied.to_string());
    Ok(json(&KeyReadinessDto { ready: reason.is_none(), reason: reason.unwrap_or_default() }))
}

async fn keys(desk: Data<TokenDesk>) -> HttpResponse {
    json(&KeysDto { keys: desk.keys().await.into_iter().map(KeyDto::from).collect() })
}

async fn offers(desk: Data<TokenDesk>) -> HttpResponse {
    let offers = desk.offers().await.into_iter().map(|(token, offer)| OfferDto { token: token.uri(), offer });
    json(&OffersDto { offers: offers.collect() })
}

async fn unlock(desk: Data<TokenDesk>, user: LocalUser, body: Payload) -> Result<HttpResponse, ControlError> {
    let UnlockDto { uri, pin, insist, forget_rejection } = read(body).await?;
    let pin = pin.map(|pin| Pin::new(pin.reveal())).transpose().map_err(ControlError::Pin)?;
    let token = desk.unlock(&any_or(uri), pin, insist, forget_rejection, &user.who()).await?;
    Ok(json(&TokenDto { uri: token.uri() }))
}

async fn lock(desk: Data<TokenDesk>, user: LocalUser, body: Payload) -> Result<HttpResponse, ControlError> {
    let LockDto { uri } = read(body).await?;
    let token = desk.lock(&any_or(uri), &user.who()).await?;
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
    let body = read_whole(&mut body, BODY_MAX, Pace::start(BODY_IDLE_MAX, BODY_IDLE_MAX))
        .await
        .map_err(|error| ControlError::Body(error.to_string()))?;
    // Only the place: serde's own message repeats a wrong value, which may be a PIN that was sent as a number.
    serde_json::from_slice(&body)
        .map_err(|error| ControlError::Body(format!("not the JSON that is wanted, at line {}, column {}", error.line(), error.column())))
}

fn json(answer: &impl Serialize) -> HttpResponse {
    HttpResponse::Ok().json(answer)
}
