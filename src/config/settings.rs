//! `[ticket_api]`, `[permit]`, `[http]`, `[metrics]`, `[console]`, `[log]` and `[audit]`: numbers and their bounds, choices, addresses.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use ipnet::IpNet;

use super::{
    Listener, Names,
    mistakes::{Mistakes, Place},
    raw::{Item, RawAudit, RawConsole, RawHttp, RawLimits, RawLog, RawMetrics, RawPermit, RawTicketApi},
};
use crate::domain::ids::KeyName;

/// The language of messages where the client asks for none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// Ukrainian.
    Ukrainian,
    /// Russian.
    Russian,
    /// English.
    English,
}

const LANGUAGES: &[(&str, Language)] = &[("uk", Language::Ukrainian), ("ru", Language::Russian), ("en", Language::English)];

/// Bounds and defaults of the ticket API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TicketApiSettings {
    /// The language of messages.
    pub language: Language,
    /// A ticket that nobody used for so long is removed.
    pub idle: Duration,
    /// The most tickets that one caller may have.
    pub tickets_per_caller: usize,
    /// The longest upload, in bytes.
    pub upload_max_bytes: u64,
    /// Uploads longer than this, in bytes, are kept in a private file and not in memory.
    pub spool_threshold_bytes: u64,
    /// The longest that a GET of a result waits for its job.
    pub blocking_get: Duration,
    /// A job that was not signed for so long expires.
    pub job_deadline: Duration,
    /// Work for a token that was plugged out is accepted for so long.
    pub absent_grace: Duration,
    /// The result of a job to which no ticket refers any more is forgotten so long after its end.
    pub results_kept: Duration,
}

/// The operators' console.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConsoleSettings {
    /// It is served.
    pub enabled: bool,
    /// It is served over plain HTTP to other machines, too.
    pub insecure_http: bool,
    /// How long a session may be idle.
    pub idle_max: Duration,
    /// How long a session lasts in any case.
    pub session_max: Duration,
}

/// Bounds of permits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PermitSettings {
    /// How long a permit is good for.
    pub lifetime: Duration,
    /// The most signatures that one permit may be asked for.
    pub uses_max: u32,
    /// How long operators may take to decide.
    pub decision_time: Duration,
    /// The most requests of one caller that wait for operators.
    pub waiting_per_caller: usize,
    /// The most permits of one caller that can still be used.
    pub live_per_caller: usize,
}

/// The HTTP server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpSettings {
    /// Worker threads; `None` for one per core.
    pub workers: Option<usize>,
    /// Values of `Host` that are served beside loopback names and the listeners' own addresses.
    pub allowed_hosts: Vec<String>,
    /// Reverse proxies whose word about where requests come from is taken.
    pub trusted_proxies: Vec<IpNet>,
}

/// What one caller, or one address, may ask of the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitSettings {
    /// Requests a second of one caller, and at once; 0 a second for no limit.
    pub caller: (u32, u32),
    /// The same of one address.
    pub address: (u32, u32),
    /// Programs on this machine are limited, too.
    pub this_machine: bool,
    /// The most requests of one caller that wait for something.
    pub held_open_per_caller: usize,
    /// The longest that a request body may take that is not an upload.
    pub body: Duration,
    /// The longest that an upload may take.
    pub upload: Duration,
}

/// The audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditSettings {
    /// The key that signs checkpoints; `None` for a log without checkpoints.
    pub checkpoint_key: Option<KeyName>,
    /// How often there is a checkpoint, if there is something new.
    pub checkpoint_interval: Duration,
}

/// Where the numbers for Prometheus are shown, and to whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricsSettings {
    /// The address that they are served on, and nothing else; `None` for where callers come in.
    pub listen: Option<SocketAddr>,
    /// The networks that may see them, beside this machine.
    pub allow: Vec<IpNet>,
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

const LOG_FORMATS: &[(&str, LogFormat)] = &[("text", LogFormat::Text), ("json", LogFormat::Json)];

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;

pub(super) fn ticket_api(raw: Option<Item<RawTicketApi>>, mistakes: &mut Mistakes) -> TicketApiSettings {
    let (at, raw) = split(raw);
    let language = mistakes.choose(&at, "language", raw.language.as_deref().unwrap_or("uk"), LANGUAGES);
    let idle = mistakes.bounded(&at, "idle_minutes", raw.idle_minutes, 60, (1, 7 * 24 * 60));
    let tickets_per_caller = mistakes.bounded(&at, "tickets_per_caller", raw.tickets_per_caller, 10_000, (1, 1_000_000));
    let upload_max_bytes = mistakes.bounded(&at, "upload_max_bytes", raw.upload_max_bytes, 100 * MIB, (KIB, 4 * GIB));
    let spool_threshold_bytes = mistakes.bounded(&at, "spool_threshold_bytes", raw.spool_threshold_bytes, MIB, (0, 64 * MIB));
    let blocking_get = mistakes.bounded(&at, "blocking_get_seconds", raw.blocking_get_seconds, 55, (1, 600));
    let job_deadline = mistakes.bounded(&at, "job_deadline_seconds", raw.job_deadline_seconds, 300, (1, 24 * 3600));
    let absent_grace = mistakes.bounded(&at, "absent_grace_seconds", raw.absent_grace_seconds, 60, (0, 24 * 3600));
    let results_kept = mistakes.bounded(&at, "result_minutes", raw.result_minutes, 60, (1, 365 * 24 * 60));
    TicketApiSettings {
        language: language.unwrap_or(Language::Ukrainian),
        idle: Duration::from_secs(idle * 60),
        tickets_per_caller: usize::try_from(tickets_per_caller).unwrap_or(usize::MAX),
        upload_max_bytes,
        spool_threshold_bytes,
        blocking_get: Duration::from_secs(blocking_get),
        job_deadline: Duration::from_secs(job_deadline),
        absent_grace: Duration::from_secs(absent_grace),
        results_kept: Duration::from_secs(results_kept * 60),
    }
}

pub(super) fn permit(raw: Option<Item<RawPermit>>, mistakes: &mut Mistakes) -> PermitSettings {
    let (at, raw) = split(raw);
    let minutes = mistakes.bounded(&at, "minutes", raw.minutes, 15, (1, 24 * 60));
    let uses_max = mistakes.bounded(&at, "uses_max", raw.uses_max, 1000, (1, 1_000_000));
    let decision = mistakes.bounded(&at, "decision_seconds", raw.decision_seconds, 120, (1, 24 * 3600));
    let waiting = mistakes.bounded(&at, "waiting_per_caller", raw.waiting_per_caller, 50, (1, 10_000));
    let live = mistakes.bounded(&at, "live_per_caller", raw.live_per_caller, 1_000, (1, 1_000_000));
    PermitSettings {
        lifetime: Duration::from_secs(minutes * 60),
        uses_max: u32::try_from(uses_max).unwrap_or(u32::MAX),
        decision_time: Duration::from_secs(decision),
        waiting_per_caller: usize::try_from(waiting).unwrap_or(usize::MAX),
        live_per_caller: usize::try_from(live).unwrap_or(usize::MAX),
    }
}

pub(super) fn http(raw: Option<Item<RawHttp>>, mistakes: &mut Mistakes) -> HttpSettings {
    let (at, raw) = split(raw);
    let workers = raw.workers.map(|workers| mistakes.bounded(&at, "workers", Some(workers), workers, (1, 256)));
    for host in &raw.allowed_hosts {
        if host.is_empty() || host.chars().any(|c| !c.is_ascii_graphic() || c.is_ascii_uppercase() || matches!(c, '/' | '@' | '*')) {
            mistakes.note(
                &at,
                "allowed_hosts",
                "write host names in lower case as they stand in the `Host` header, say \"sign.example.org\"",
            );
        }
    }
    let workers = workers.and_then(|workers| usize::try_from(workers).ok());
    let trusted_proxies = networks(&at, "trusted_proxies", &raw.trusted_proxies, mistakes);
    if trusted_proxies.iter().any(|network| network.prefix_len() == 0) {
        let what = "everybody could forge the address that requests come from; name the addresses of your proxies";
        mistakes.note(&at, "trusted_proxies", what);
    }
    HttpSettings { workers, allowed_hosts: raw.allowed_hosts, trusted_proxies }
}

pub(super) fn limits(raw: Option<Item<RawLimits>>, mistakes: &mut Mistakes) -> LimitSettings {
    let (at, raw) = split(raw);
    let mut number = |field: &str, value, default, bounds| {
        let number = mistakes.bounded(&at, field, value, default, bounds);
        u32::try_from(number).unwrap_or(u32::MAX)
    };
    // About a third of what two cores serve.
    let caller = (
        number("caller_per_second", raw.caller_per_second, 5_000, (0, 1_000_000)),
        number("caller_burst", raw.caller_burst, 10_000, (1, 1_000_000)),
    );
    let address = (
        number("address_per_second", raw.address_per_second, 5_000, (0, 1_000_000)),
        number("address_burst", raw.address_burst, 10_000, (1, 1_000_000)),
    );
    let held_open = number("held_open_per_caller", raw.held_open_per_caller, 1024, (1, 1_000_000));
    let body = number("body_seconds", raw.body_seconds, 60, (1, 3600));
    let upload = number("upload_seconds", raw.upload_seconds, 3600, (1, 7 * 24 * 3600));
    LimitSettings {
        caller,
        address,
        this_machine: raw.this_machine,
        held_open_per_caller: usize::try_from(held_open).unwrap_or(usize::MAX),
        body: Duration::from_secs(body.into()),
        upload: Duration::from_secs(upload.into()),
    }
}

pub(super) fn audit(raw: Option<Item<RawAudit>>, names: &Names, mistakes: &mut Mistakes) -> AuditSettings {
    let (at, raw) = split(raw);
    let checkpoint_key = raw.checkpoint_key.and_then(|name| match name.parse::<KeyName>() {
        Ok(key) if names.has_key(&name) => Some(key),
        _ => {
            mistakes.note(&at, "checkpoint_key", "no [[key]] of this file has this name; name one of them");
            None
        }
    });
    let interval = mistakes.bounded(&at, "checkpoint_interval_seconds", raw.checkpoint_interval_seconds, 300, (10, 7 * 24 * 3600));
    AuditSettings { checkpoint_key, checkpoint_interval: Duration::from_secs(interval) }
}

pub(super) fn metrics(raw: Option<Item<RawMetrics>>, listeners: &[Listener], mistakes: &mut Mistakes) -> MetricsSettings {
    let (at, raw) = split(raw);
    let allow = networks(&at, "allow", &raw.allow, mistakes);
    let listen = raw.listen.as_deref().map(str::parse::<SocketAddr>);
    if matches!(listen, Some(Err(_))) {
        mistakes.note(&at, "listen", "write an IP address and a port, say \"192.0.2.1:9464\"");
    }
    let listen = listen.and_then(Result::ok);
    if listen.is_some_and(|address| address.port() != 0 && listeners.iter().any(|listener| listener.address == address)) {
        mistakes.note(&at, "listen", "callers come in at this address; choose another port, or leave `listen` out");
    }
    if listen.is_some_and(|address| !address.ip().is_loopback()) && raw.allow.is_empty() {
        mistakes.note(&at, "allow", "nobody but this machine may see the metrics; name the address of the machine that scrapes them");
    }
    MetricsSettings { listen, allow }
}

pub(super) fn console(raw: Option<Item<RawConsole>>, mistakes: &mut Mistakes) -> ConsoleSettings {
    let (at, raw) = split(raw);
    let idle = mistakes.bounded(&at, "idle_minutes", raw.idle_minutes, 30, (1, 24 * 60));
    let hours = mistakes.bounded(&at, "session_hours", raw.session_hours, 12, (1, 7 * 24));
    ConsoleSettings {
        enabled: raw.enabled.unwrap_or(true),
        insecure_http: raw.insecure_http,
        idle_max: Duration::from_secs(idle * 60),
        session_max: Duration::from_secs(hours * 3600),
    }
}

pub(super) fn log_format(raw: Option<Item<RawLog>>, mistakes: &mut Mistakes) -> LogFormat {
    let (at, raw) = split(raw);
    mistakes.choose(&at, "format", raw.format.as_deref().unwrap_or("text"), LOG_FORMATS).unwrap_or(LogFormat::Text)
}

pub(super) fn networks(at: &Place, field: &str, texts: &[String], mistakes: &mut Mistakes) -> Vec<IpNet> {
    let network = |text: &String| text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    let networks: Vec<IpNet> = texts.iter().filter_map(network).collect();
    if networks.len() < texts.len() {
        mistakes.note(at, field, "write addresses and networks, say \"192.0.2.7\" or \"192.0.2.0/24\"");
    }
    networks
}

pub(super) fn split<T: Default>(raw: Option<Item<T>>) -> (Place, T) {
    raw.map_or_else(Default::default, |item| (item.at, item.raw))
}
