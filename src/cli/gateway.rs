//! The gateway: every part put together, started in order and stopped in order.
//!
//! `serve` and `dev` run it. Invariant: when [`Gateway::start`] returns, requests are taken; when [`Gateway::run`] returns, no child process,
//! no control socket and no spooled upload of this gateway is left.

use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::task::AbortHandle;
use tracing::{info, warn};

use super::{
    callers,
    checkpoints::ConfiguredSigner,
    data_folder::DataFolder,
    enrolment,
    modules::{Logins, token_settings},
    notices::{self, Watched},
    store::{OpenStore, StoreTrial},
    time_stamps::{TimeStampParts, evidence},
    tls,
};
use crate::{
    audit::{checkpoint::Checkpointer, desk::AuditDesk},
    auth::{AllowedHosts, AllowedPeers, CallerBook, Operators, Rate, SessionSettings, TrustedProxies},
    config::{self, Config, PostgresSettings, StoreSettings},
    domain::{audit::AuditEvent, key::ConfiguredKey, key_uri::Pkcs11Uri, pin::PinLedger, token::SlotState},
    http::{
        app::{ConsoleSettings, HttpSettings, LimitSettings, MetricsSettings, Services},
        server::{Listener, Server},
        tls::Tls,
    },
    permit::{PermitService, PermitSettings},
    pki::trust::{Trust, TrustPlaces},
    shutdown::{OrderedStop, StopSignals, Stopped},
    signing::{
        recovery::{LastRun, settle_claims},
        service::{SigningService, SigningSettings},
    },
    store::{Change, Store},
    telemetry::metrics::Exporter,
    ticket::{TicketService, TicketSettings},
    token::{marks::Settled, supervisor::Tokens},
};

/// The most files that a gateway opens: each request that is held open has one. Not more, for a module may look at each that it could have.
const FILES_OPEN_MAX: u64 = 65_536;
/// How long requests that are being served may take when the gateway stops.
const REQUESTS_MAX: Duration = Duration::from_secs(10);
/// What the server itself needs beside that.
const SLACK: Duration = Duration::from_secs(2);
/// How long signatures that are being made may take when the gateway stops.
const SIGNATURES_MAX: Duration = Duration::from_secs(30);
/// How long the last record and its checkpoint may take.
const AUDIT_MAX: Duration = Duration::from_secs(10);
/// How long modules may take to close their sessions; a child that takes longer is killed.
const MODULES_MAX: Duration = Duration::from_secs(10);
/// How long writing the last changes may take.
const STORE_MAX: Duration = Duration::from_secs(10);
/// How long a killed gateway's modules may take to end.
const LAST_RUN_MAX: Duration = Duration::from_secs(10);
/// How long telling other gateways of rejected PINs may take.
const PINS_MAX: Duration = Duration::from_secs(3);
/// How long removing our own files may take.
const FILES_MAX: Duration = Duration::from_secs(5);

/// A gateway that runs.
pub(super) struct Gateway {
    data: DataFolder,
    store: OpenStore,
    tokens: Tokens,
    pins: Arc<dyn PinLedger>,
    signing: Arc<SigningService>,
    operators: Arc<Operators>,
    checkpoints: Option<Checkpointer>,
    server: Server,
    tls: Vec<Arc<Tls>>,
    trust: Trust,
    housekeeping: Vec<AbortHandle>,
    /// What tells webhooks, and opens the browser.
    watching: Vec<AbortHandle>,
}

impl Gateway {
    /// Starts everything, from the bottom up. Must be called within a Tokio runtime of several threads.
    pub(super) async fn start(config: &Config) -> anyhow::Result<Self> {
        Self::start_on(config, None).await
    }

    /// Starts everything, on the configuration's store or another one.
    pub(super) async fn start_on(config: &Config, trial: Option<StoreTrial>) -> anyhow::Result<Self> {
        raise_file_limit();
        let mut data = DataFolder::claim(&config.data_dir)?;
        let listeners = bind(config)?;
        let tls = listeners.iter().filter_map(|listener| listener.tls.clone()).collect();
        let trust = Trust::load(trust_places(config))?;
        let metrics_listener = config.metrics.listen.map(bind_one).transpose()?;
        // First of all: what is measured from here on takes its handles when it starts.
        let exporter = Exporter::install()?;
        let durable = OpenStore::open(config, &data, trial).await?;
        let store = durable.store();
        let callers = Arc::new(callers::open(config, &store).await?);
        let ledger = OpenStore::pin_ledger(config, &data)?;
        let loaded = AuditEvent::ConfigurationLoaded { version: env!("CARGO_PKG_VERSION").to_owned(), sha256: config.sha256 };
        store.commit(vec![Change::Audit(loaded)]).await.context("the start could not be recorded in the audit log")?;
        settle(&data, &*store, &config.keys).await.context("what the last run left could not be settled")?;
        let settings = token_settings(config, Logins::AsConfigured, Some(data.marks()))?;
        let tokens = Tokens::start(settings, Arc::clone(&ledger)).context("a module's thread did not start")?;
        let permits = Arc::new(PermitService::new(Arc::clone(&store), permit_settings(config)));
        permits.settle_restart().await.context("what the last run was asked could not be refused")?;
        let keys = config.keys.clone();
        let signing = SigningService::start(tokens.clone(), keys, Arc::clone(&store), Arc::clone(&permits), signing_settings(config))
            .context("the signing service did not start")?;
        let checkpoints = checkpoints(config, &store, &signing);
        let tickets = TicketService::new(
            Arc::clone(&store),
            Arc::clone(&signing),
            Arc::clone(&permits),
            trust.clone(),
            ticket_settings(config, &data),
        )
        .await
        .with_context(|| format!("the spool folder {} cannot be used; give it to the gateway's user", data.spool().display()))?;
        let time_stamps = TimeStampParts::new(&config.tsa, &signing, &store, &trust)?;
        let tickets = Arc::new(tickets.with_time_stamps(time_stamps.client).with_evidence(evidence(&config.revocation)?));
        let enrolment = enrolment::start(config, Arc::clone(&store), Arc::clone(&signing), tokens.clone()).await?;
        let housekeeping = vec![remove_idle_tickets(&tickets), keep_up(&exporter), follow(&callers), enrolment.clerk];
        let operators = Arc::new(Operators::new(Arc::clone(&store), session_settings(config)));
        let services = Services {
            callers,
            tickets,
            permits: Arc::clone(&permits),
            desk: signing.desk(),
            operators: Arc::clone(&operators),
            enrolment: enrolment.service,
            audit: AuditDesk::new(Arc::clone(&store)),
        };
        let control = data.bind_control()?;
        let http = HttpSettings { tsa: time_stamps.door, ..http_settings(config, exporter)? };
        let mut server = Server::start(listeners, Some(control), http, services).context("the HTTP server did not start")?;
        if let Some(socket) = metrics_listener {
            let address = socket.local_addr()?;
            server.serve_metrics(socket).context("the HTTP server did not start")?;
            info!("metrics are at http://{address}/metrics");
        }
        let gateway = data.gateway_id()?;
        let watched = Watched { tokens: tokens.clone(), permits, store, gateway, certificates: enrolment.warnings };
        let watching = notices::watch(config, watched, server.urls())?;
        Ok(Self { data, store: durable, tokens, pins: ledger, signing, operators, checkpoints, server, tls, trust, housekeeping, watching })
    }

    /// The addresses that are listened on, with their real ports.
    pub(super) fn addresses(&self) -> &[SocketAddr] {
        self.server.addresses()
    }

    /// The same as URLs.
    pub(super) fn urls(&self) -> &[String] {
        self.server.urls()
    }

    /// Operators' accounts.
    pub(super) fn operators(&self) -> &Operators {
        &self.operators
    }

    /// From now on SIGHUP reads the files for TLS and the trusted certificates again, instead of ending the process.
    pub(super) fn reload_on_hangup(&mut self) -> anyhow::Result<()> {
        self.housekeeping.push(tls::reload_on_hangup(self.tls.clone(), self.trust.clone())?);
        Ok(())
    }

    /// Waits until the token that `uri` names can sign, at most `bound`.
    pub(super) async fn ready(&self, uri: &Pkcs11Uri, bound: Duration) -> anyhow::Result<()> {
        let mut changes = self.tokens.changes();
        let ready = async {
            loop {
                changes.borrow_and_update();
                // Busy is ready too: the answer to the login itself may still be on its way.
                if self.tokens.find(uri).is_ok_and(|slot| matches!(slot.status().state, SlotState::Ready | SlotState::Busy)) {
                    return;
                }
                // The sender lives as long as `self.tokens`.
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        if tokio::time::timeout(bound, ready).await.is_ok() {
            return Ok(());
        }
        let state = match self.tokens.find(uri) {
            Ok(slot) => format!("the token: {}", slot.status()),
            Err(error) => format!("the token did not show up: {error}"),
        };
        let problems = self.tokens.problems().into_iter().map(|(module, problem)| format!("; module {module} does not run: {problem}"));
        bail!("{state}{}", problems.collect::<String>())
    }

    /// Serves until a signal, then does `first` and stops in order.
    pub(super) async fn run(self, mut signals: StopSignals, first: impl FnOnce() -> anyhow::Result<()>) -> Stopped {
        let signal = signals.next().await;
        if let Err(error) = first() {
            warn!(error = %error, "stopping: {error:#}");
        }
        info!("stopping on {signal}; a second one stops at once");
        self.stop(signals).await
    }

    /// Stops in order; a signal meanwhile stops at once.
    pub(super) async fn stop(self, mut signals: StopSignals) -> Stopped {
        let Self { data, store, tokens, pins, signing, operators: _, checkpoints, server, tls: _, trust: _, housekeeping, watching } = self;
        let (finishing, log) = (Arc::clone(&signing), store.store());
        OrderedStop::new()
            // Requests that only wait are answered at once; jobs go on while the others are served.
            .then("requests are finished", REQUESTS_MAX + SLACK, async move { server.stop().await })
            .then("signatures are finished", SIGNATURES_MAX, async move { finishing.finish().await })
            .then("the audit log is ended", AUDIT_MAX, async move { end_audit_log(&*log, checkpoints).await })
            .then("modules are closed", MODULES_MAX, async move {
                // A token that is closed here is not gone.
                watching.iter().for_each(AbortHandle::abort);
                signing.stop().await;
                tokens.stop().await;
            })
            // Other gateways may get one of these cards next.
            .always("rejected PINs are told", PINS_MAX + SLACK, async move {
                drop(tokio::task::spawn_blocking(move || pins.finish(PINS_MAX)).await);
            })
            .always("the store is closed", STORE_MAX, async move {
                store.close(STORE_MAX).await;
            })
            .always("files are removed", FILES_MAX, async move {
                housekeeping.iter().for_each(AbortHandle::abort);
                drop(data);
            })
            .run(async move {
                signals.next().await;
            })
            .await
    }
}

/// Systems start programs with a limit that is less than one caller may hold open. Where it cannot be raised, the gateway does with it.
fn raise_file_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.map_or(FILES_OPEN_MAX, |hard| hard.min(FILES_OPEN_MAX));
    if current.is_some_and(|current| current < wanted)
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum })
    {
        warn!(error = %error, "the limit of open files stays at {current:?}");
    }
}

fn remove_idle_tickets(tickets: &Arc<TicketService>) -> AbortHandle {
    let tickets = Arc::clone(tickets);
    tokio::spawn(async move { tickets.remove_idle_forever().await }).abort_handle()
}

/// Settles what the last run had claimed, when the last of its modules' processes has ended.
async fn settle(data: &DataFolder, store: &dyn Store, keys: &[ConfiguredKey]) -> anyhow::Result<()> {
    let (marks, stayed_up) = (data.marks(), data.machine_stayed_up());
    let dir = marks.clone();
    let settled = tokio::task::spawn_blocking(move || Settled::wait(&dir, LAST_RUN_MAX)).await??;
    if settled.is_none() {
        warn!("a module's process of the last run still lives; what it may have signed is in doubt");
    }
    let last_run = LastRun { marks: &marks, marks_are_whole: stayed_up && settled.is_some() };
    settle_claims(store, last_run, keys).await?;
    // From here on nothing is judged by the marks from before; what comes now is.
    if let Some(settled) = settled.filter(|_| !stayed_up) {
        settled.clear(&marks)?;
    }
    data.note_boot()
}

/// Starts the checkpoints, if the configuration names a key for them.
fn checkpoints(config: &Config, store: &Arc<dyn Store>, signing: &Arc<SigningService>) -> Option<Checkpointer> {
    let key = config.audit.checkpoint_key.clone()?;
    let signer = Arc::new(ConfiguredSigner { key, signing: Arc::clone(signing) });
    Some(Checkpointer::start(Arc::clone(store), signer, config.audit.checkpoint_interval))
}

/// The last record of a run, and the checkpoint that signs it.
async fn end_audit_log(store: &dyn Store, checkpoints: Option<Checkpointer>) {
    if let Err(error) = store.commit(vec![Change::Audit(AuditEvent::GatewayStopped)]).await {
        warn!(error = %error, "the stop is not in the audit log");
    }
    if let Some(checkpoints) = checkpoints {
        checkpoints.stop().await;
    }
}

/// Where the certificates are that signatures are judged by.
pub(super) fn trust_places(config: &Config) -> TrustPlaces {
    TrustPlaces { anchors: config.trust.anchors.clone(), intermediates: config.trust.intermediates.clone() }
}

fn bind(config: &Config) -> anyhow::Result<Vec<Listener>> {
    // A mistake in any file is found before any address is taken.
    let tls = tls::load_all(config)?;
    let bind = |(listener, tls): (&config::Listener, Option<Arc<Tls>>)| {
        Ok(Listener { socket: bind_one(listener.address)?, caller: listener.caller.clone(), tls })
    };
    config.listeners.iter().zip(tls).map(bind).collect()
}

fn bind_one(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).with_context(|| format!("{address} cannot be listened on; is another program using it? Choose another port"))
}

fn follow(callers: &Arc<CallerBook>) -> AbortHandle {
    let callers = Arc::clone(callers);
    tokio::spawn(async move { callers.follow().await }).abort_handle()
}

fn keep_up(exporter: &Exporter) -> AbortHandle {
    let exporter = exporter.clone();
    tokio::spawn(async move { exporter.keep_up_forever().await }).abort_handle()
}

fn http_settings(config: &Config, exporter: Exporter) -> anyhow::Result<HttpSettings> {
    let defaults = HttpSettings::default();
    Ok(HttpSettings {
        hosts: AllowedHosts::new(config.http.allowed_hosts.clone()).context("correct `allowed_hosts` in the configuration")?,
        metrics: MetricsSettings {
            exporter: Some(exporter),
            allow: AllowedPeers::new(config.metrics.allow.clone()),
            elsewhere: config.metrics.listen.is_some(),
        },
        console: ConsoleSettings { enabled: config.console.enabled, insecure_http: config.console.insecure_http },
        trusted_proxies: TrustedProxies::new(config.http.trusted_proxies.clone()),
        limits: limit_settings(&config.limits),
        body_total_max: config.limits.body,
        upload_total_max: config.limits.upload,
        workers: config.http.workers.unwrap_or(defaults.workers),
        shutdown_grace: REQUESTS_MAX,
        ..defaults
    })
}

fn session_settings(config: &Config) -> SessionSettings {
    SessionSettings { idle_max: config.console.idle_max, lifetime: config.console.session_max }
}

fn limit_settings(settings: &config::LimitSettings) -> LimitSettings {
    let rate = |(per_second, burst)| Rate { per_second, burst };
    LimitSettings {
        per_caller: rate(settings.caller),
        per_address: rate(settings.address),
        this_machine: settings.this_machine,
        held_open_per_caller: settings.held_open_per_caller,
    }
}

fn permit_settings(config: &Config) -> PermitSettings {
    let config::PermitSettings { lifetime, decision_time, waiting_per_caller, live_per_caller, uses_max: _ } = config.permit;
    PermitSettings { lifetime, decision_time, waiting_per_caller, live_per_caller }
}

fn signing_settings(config: &Config) -> SigningSettings {
    SigningSettings {
        job_deadline: config.ticket_api.job_deadline,
        absent_grace: config.ticket_api.absent_grace,
        retention: config.ticket_api.results_kept,
        ..SigningSettings::default()
    }
}

fn ticket_settings(config: &Config, data: &DataFolder) -> TicketSettings {
    let settings = &config.ticket_api;
    let own = TicketSettings {
        idle_lifetime: settings.idle,
        tickets_per_caller: settings.tickets_per_caller,
        upload_bytes_max: settings.upload_max_bytes,
        spool_threshold: settings.spool_threshold_bytes,
        blocking_get_bound: settings.blocking_get,
        revocation: config.revocation.check,
        fetch_evidence: config.revocation.fetch,
        ..TicketSettings::new(data.spool())
    };
    match &config.store {
        StoreSettings::Sqlite => own,
        StoreSettings::Postgres(PostgresSettings { spool_dir: Some(shared), .. }) => {
            TicketSettings { spool_dir: shared.clone(), spool_shared: true, ..own }
        }
        // What is in a file here could be read by no other gateway: content that the store does not take is refused.
        StoreSettings::Postgres(PostgresSettings { spool_dir: None, .. }) => {
            TicketSettings { upload_bytes_max: own.upload_bytes_max.min(own.spool_threshold.max(1)), content_disk_max: 0, ..own }
        }
    }
}
