//! What the handlers share, and the routes that are served to callers.

use std::{collections::HashMap, future::Future, net::SocketAddr, sync::Arc, time::Duration};

use actix_web::web::{self, ServiceConfig};
use tokio::sync::watch;

pub use super::{limits::LimitSettings, ops::MetricsSettings, ticket_api::Language, tsa::TsaDoor};

use super::{
    limits::Limits,
    ticket_api::{self, Languages, Messages},
};
use crate::{
    auth::{AllowedHosts, CallerBook, Operators, TrustedProxies},
    domain::ids::CallerId,
    enrolment::EnrolmentService,
    permit::PermitService,
    signing::tokens::TokenDesk,
    ticket::TicketService,
};

/// The services behind the routes.
#[derive(Clone)]
pub struct Services {
    /// Who may call.
    pub callers: Arc<CallerBook>,
    /// Tickets.
    pub tickets: Arc<TicketService>,
    /// Permits.
    pub permits: Arc<PermitService>,
    /// Tokens.
    pub desk: TokenDesk,
    /// Operators' accounts.
    pub operators: Arc<Operators>,
    /// Certificate requests.
    pub enrolment: Arc<EnrolmentService>,
}

/// What a deployment says about HTTP.
#[derive(Debug, Clone)]
pub struct HttpSettings {
    /// The host names under which the gateway answers, besides addresses and loopback names. Default: none.
    pub hosts: AllowedHosts,
    /// The reverse proxies that are believed about where requests come from. Default: none.
    pub trusted_proxies: TrustedProxies,
    /// What one caller, or one address, may ask of the gateway.
    pub limits: LimitSettings,
    /// The numbers for Prometheus. Default: none.
    pub metrics: MetricsSettings,
    /// The gateway as a time-stamping authority. Default: it is none.
    pub tsa: TsaDoor,
    /// The language of answers where neither request nor caller says otherwise. Default: Ukrainian.
    pub language: Language,
    /// The most bytes of a request body that is not an upload. Default: 1 MiB.
    pub body_bytes_max: usize,
    /// How long a request body may make no progress. Default: 30 s.
    pub body_idle_max: Duration,
    /// How long a request body that is not an upload may take. Default: 60 s.
    pub body_total_max: Duration,
    /// How long an upload may take. Default: 1 h.
    pub upload_total_max: Duration,
    /// Event loops. Default: one per processor.
    pub workers: usize,
    /// How long requests that are being answered are waited for when the server stops. Default: 10 s.
    pub shutdown_grace: Duration,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            hosts: AllowedHosts::default(),
            trusted_proxies: TrustedProxies::default(),
            limits: LimitSettings::default(),
            metrics: MetricsSettings::default(),
            tsa: TsaDoor::default(),
            language: Language::default(),
            body_bytes_max: 1 << 20,
            body_idle_max: Duration::from_secs(30),
            body_total_max: Duration::from_secs(60),
            upload_total_max: Duration::from_secs(3600),
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            shutdown_grace: Duration::from_secs(10),
        }
    }
}

/// What the handlers of all event loops share.
pub struct AppState {
    pub(super) services: Services,
    pub(super) settings: HttpSettings,
    pub(super) messages: Messages,
    pub(super) languages: Languages,
    pub(super) limits: Limits,
    /// The callers to which listeners are bound, by the listener's address.
    listener_callers: HashMap<SocketAddr, CallerId>,
    closing: watch::Receiver<bool>,
}

impl AppState {
    /// Puts the state together. When `closing` turns true, requests that wait for something end their waiting.
    #[must_use]
    pub fn new(
        services: Services,
        settings: HttpSettings,
        listener_callers: HashMap<SocketAddr, CallerId>,
        closing: watch::Receiver<bool>,
    ) -> Self {
        Self {
            services,
            limits: Limits::new(settings.limits),
            settings,
            messages: Messages::embedded(),
            languages: Languages::default(),
            listener_callers,
            closing,
        }
    }

    /// The caller to which the listener at this address is bound.
    pub(super) fn listener_caller(&self, address: SocketAddr) -> Option<&CallerId> {
        self.listener_callers.get(&address)
    }

    /// Waits for `work`, but not beyond the closing of the server: `None` then.
    pub(super) async fn unless_closing<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut closing = self.closing.clone();
        tokio::select! {
            done = work => Some(done),
            // An error means that nobody is left who could close: the server is gone.
            _ = closing.wait_for(|closing| *closing) => None,
        }
    }
}

/// The routes that callers are served.
pub fn configure(state: web::Data<AppState>) -> impl FnOnce(&mut ServiceConfig) {
    move |config| {
        let metrics = &state.settings.metrics;
        let with_metrics = metrics.exporter.is_some() && !metrics.elsewhere;
        config.app_data(state);
        super::ops::configure(config, with_metrics);
        super::cert_request_api::configure(config);
        super::tsa::configure(config);
        ticket_api::configure(config);
    }
}

/// The routes of a listener for Prometheus.
pub(super) fn configure_metrics(state: web::Data<AppState>) -> impl FnOnce(&mut ServiceConfig) {
    move |config| {
        config.app_data(state);
        super::ops::configure_metrics(config);
    }
}
