//! `POST /tsa`: the gateway as a time-stamping authority (RFC 3161 section 3.4).
//!
//! There are no credentials: RFC 3161 knows none, so peers are let in by their address, by default those on this machine only. Invariant: the
//! content types are exactly those of the RFC, since clients compare them.

mod error;

use std::sync::Arc;

use actix_web::{
    HttpMessage, HttpRequest, HttpResponse,
    http::header,
    web::{self, Data, Payload, ServiceConfig},
};

use self::error::TsaProblem;
use super::{
    app::AppState,
    extract::{Pace, read_whole},
    peer::{Peer, is_called_by_its_name},
};
use crate::{
    auth::AllowedPeers,
    stamping::{Authority, REQUEST_MAX},
};

const QUERY: &str = "application/timestamp-query";
const REPLY: &str = "application/timestamp-reply";

/// The gateway's own authority, and who may ask it.
#[derive(Clone, Default)]
pub struct TsaDoor {
    /// The authority; `None` if the gateway is none.
    pub authority: Option<Arc<Authority>>,
    /// Who may ask, beside this machine.
    pub allow: AllowedPeers,
}

impl std::fmt::Debug for TsaDoor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let key = self.authority.as_ref().map(|authority| authority.key());
        f.debug_struct("TsaDoor").field("key", &key).field("allow", &self.allow).finish()
    }
}

pub(super) fn configure(config: &mut ServiceConfig) {
    config.service(web::resource("/tsa").route(web::post().to(stamp)));
}

async fn stamp(state: Data<AppState>, request: HttpRequest, body: Payload) -> HttpResponse {
    match answer(&state, &request, body).await {
        Ok(reply) => HttpResponse::Ok().content_type(REPLY).body(reply),
        Err(problem) => {
            let mut response = HttpResponse::build(problem.status_code());
            if let TsaProblem::TooMany(after) = problem {
                response.insert_header((header::RETRY_AFTER, after.as_secs()));
            }
            response.content_type("text/plain; charset=utf-8").body(problem.text())
        }
    }
}

async fn answer(state: &AppState, request: &HttpRequest, mut body: Payload) -> Result<Vec<u8>, TsaProblem> {
    let settings = &state.settings;
    let authority = settings.tsa.authority.as_ref().ok_or(TsaProblem::NoAuthority)?;
    let peer = Peer::of(request, &settings.trusted_proxies);
    state.limits.take_address(peer).map_err(|too_many| TsaProblem::TooMany(too_many.retry_after))?;
    let peer = peer.filter(|peer| settings.tsa.allow.allow(peer.address, peer.forwarded)).ok_or(TsaProblem::Refused)?;
    if !is_called_by_its_name(request, &settings.hosts, &settings.trusted_proxies) {
        return Err(TsaProblem::Refused);
    }
    if !request.content_type().eq_ignore_ascii_case(QUERY) {
        return Err(TsaProblem::ContentType);
    }
    let pace = Pace::start(settings.body_idle_max, settings.body_total_max);
    let request = read_whole(&mut body, REQUEST_MAX, pace).await.map_err(TsaProblem::Body)?;
    Ok(authority.answer(&request, Some(peer.address)).await)
}
