//! `GET /metrics`: the gateway's numbers for Prometheus, for peers that may see them.
//!
//! There are no credentials: by default only this machine may ask, and only directly. Numbers that stand in the store are read when they are
//! asked for.

use actix_web::{HttpRequest, HttpResponse, web::Data};

use super::{answer, error::Health};
use crate::{
    auth::AllowedPeers,
    http::{
        app::AppState,
        peer::{Peer, is_called_by_its_name},
    },
    telemetry::metrics::{Exporter, PERMITS_WAITING, TICKETS},
};

/// The text format of Prometheus.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Where and to whom the numbers are shown.
#[derive(Debug, Clone, Default)]
pub struct MetricsSettings {
    /// What is shown; `None` for nothing.
    pub exporter: Option<Exporter>,
    /// To whom, beside this machine.
    pub allow: AllowedPeers,
    /// On a listener of their own, and not where callers come in.
    pub elsewhere: bool,
}

pub(super) async fn metrics(state: Data<AppState>, request: HttpRequest) -> HttpResponse {
    let settings = &state.settings.metrics;
    let Some(exporter) = &settings.exporter else { return answer(Health::Unknown("nothing is measured")) };
    let (hosts, proxies) = (&state.settings.hosts, &state.settings.trusted_proxies);
    let welcome = Peer::of(&request, proxies).is_some_and(|peer| settings.allow.allow(peer.address, peer.forwarded));
    if !welcome || !is_called_by_its_name(&request, hosts, proxies) {
        return answer(Health::Refused);
    }
    collect(&state).await;
    HttpResponse::Ok().content_type(TEXT_FORMAT).body(exporter.render())
}

/// Sets what is not set when it happens.
async fn collect(state: &AppState) {
    let services = &state.services;
    services.desk.collect_metrics().await;
    if let Ok(count) = services.permits.count_waiting().await {
        PERMITS_WAITING.gauge(&[]).set(f64::from(u32::try_from(count).unwrap_or(u32::MAX)));
    }
    for caller in services.callers.ids() {
        // A store that is away is told of by a metric of its own.
        if let Ok(count) = services.tickets.count(&caller).await {
            TICKETS.gauge(&[caller.as_str()]).set(f64::from(u32::try_from(count).unwrap_or(u32::MAX)));
        }
    }
}
