//! The configuration as meant: validated, in the types of the domain, with every default filled in.
//!
//! [`Config::load`] reads a TOML file and either gives a [`Config`] that can be run or a report of all its mistakes at once. Secrets are not
//! kept here: a PIN is a place to read it from, an API key is its SHA-256. Callers: `cli` only, which hands the parts to those they are for.
//! Invariant: what a `Config` names (a module, a key, a caller) exists in it.

mod callers;
mod enrolment;
mod keys;
mod listeners;
mod mistakes;
mod modules;
mod raw;
mod revocation;
mod settings;
mod store;
#[cfg(test)]
mod tests;
mod tokens;
mod trust;
mod tsa;
mod webhooks;

use std::{
    collections::HashSet,
    fs,
    hash::Hash,
    path::{Path, PathBuf},
};

pub use self::{
    callers::CallerSettings,
    enrolment::{EnrolmentSettings, EstCredentials, EstSettings},
    listeners::{DEFAULT_PORT, Listener, TlsSettings},
    mistakes::{ConfigErrors, FileFault, Mistake},
    modules::{CallLimits, EnvValue, Isolation, ModuleSettings},
    revocation::{RevocationSettings, RevocationSourceSettings},
    settings::{
        AuditSettings, ConsoleSettings, HttpSettings, Language, LimitSettings, LogFormat, MetricsSettings, PermitSettings,
        TicketApiSettings,
    },
    store::{DatabaseUrl, PostgresSettings, StoreSettings},
    trust::TrustSettings,
    tsa::{TsaServeSettings, TsaSettings},
    webhooks::WebhookSettings,
};
use self::{
    mistakes::{Mistakes, Place},
    raw::RawConfig,
};
use crate::domain::{audit::Sha256, key::ConfiguredKey, token::TokenPolicy};

/// A configuration that can be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where the gateway keeps its own files: control socket, spooled uploads.
    pub data_dir: PathBuf,
    /// Where it listens.
    pub listeners: Vec<Listener>,
    /// The PKCS#11 modules it loads.
    pub modules: Vec<ModuleSettings>,
    /// How tokens are treated; the first that matches a token counts.
    pub token_policies: Vec<TokenPolicy>,
    /// How tokens are treated that none of them matches; `None` leaves them alone.
    pub unlisted: Option<TokenPolicy>,
    /// The keys that have names.
    pub keys: Vec<ConfiguredKey>,
    /// Who may ask for signatures.
    pub callers: Vec<CallerSettings>,
    /// The ticket API.
    pub ticket_api: TicketApiSettings,
    /// Permits.
    pub permit: PermitSettings,
    /// The HTTP server.
    pub http: HttpSettings,
    /// What one caller, or one address, may ask of the gateway.
    pub limits: LimitSettings,
    /// The numbers for Prometheus.
    pub metrics: MetricsSettings,
    /// The operators' console.
    pub console: ConsoleSettings,
    /// The form of log lines, where the environment says nothing.
    pub log_format: LogFormat,
    /// The audit log.
    pub audit: AuditSettings,
    /// Where tickets, permits and jobs are kept.
    pub store: StoreSettings,
    /// Whether the page on which operators decide is opened in a browser here when somebody asks.
    pub open_browser: bool,
    /// Who is told when a person is needed.
    pub webhooks: Vec<WebhookSettings>,
    /// Certificate requests.
    pub enrolment: EnrolmentSettings,
    /// Time stamps.
    pub tsa: TsaSettings,
    /// Whose certificates are trusted.
    pub trust: TrustSettings,
    /// Evidence that certificates are not revoked.
    pub revocation: RevocationSettings,
    /// SHA-256 of the file.
    pub sha256: Sha256,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file was not read.
    #[error("the configuration {} cannot be read ({source}); name an existing file with --config", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It has mistakes.
    #[error(transparent)]
    Mistakes(#[from] ConfigErrors),
}

impl Config {
    /// Reads and checks a configuration file. Relative paths in it start from the folder it is in.
    ///
    /// # Errors
    /// [`ConfigError`]; a report of mistakes has all of them.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(file).map_err(|source| ConfigError::Unreadable { file: file.to_owned(), source })?;
        let base = file.parent().unwrap_or(Path::new(""));
        let base = std::path::absolute(base).unwrap_or_else(|_| base.to_owned());
        Self::parse(&text, file, &base).map_err(ConfigError::Mistakes)
    }

    /// Checks the text of a configuration file; `file` is what the report calls it, relative paths start from `base`.
    ///
    /// # Errors
    /// All mistakes at once.
    pub fn parse(text: &str, file: &Path, base: &Path) -> Result<Self, ConfigErrors> {
        let mut mistakes = Mistakes::default();
        let raw = RawConfig::read(text, &mut mistakes);
        if let Some(config) = check(raw, Sha256::of(text.as_bytes()), base, &mut mistakes)
            && mistakes.is_empty()
        {
            return Ok(config);
        }
        Err(mistakes.into_errors(file.to_owned()))
    }
}

/// Turns what is written into what is meant; `None` only together with a mistake.
fn check(raw: RawConfig, sha256: Sha256, base: &Path, mistakes: &mut Mistakes) -> Option<Config> {
    let names = Names::of(&raw);
    if names.certain {
        note_missing_sections(&raw, mistakes);
    }
    let modules = modules::check(raw.modules, base, mistakes);
    let token_policies = tokens::check(raw.token_lists, &names, base, mistakes);
    let unlisted = tokens::unlisted(raw.tokens, mistakes);
    let keys = keys::check(raw.keys, &names, base, mistakes);
    let permit = settings::permit(raw.permit, mistakes);
    let listeners = listeners::check(raw.listeners, &names, base, mistakes);
    let callers = callers::check(raw.callers, &names, &permit, &listeners, mistakes);
    let http = settings::http(raw.http, mistakes);
    let limits = settings::limits(raw.limits, mistakes);
    let metrics = settings::metrics(raw.metrics, &listeners, mistakes);
    let console = settings::console(raw.console, mistakes);
    let log_format = settings::log_format(raw.log, mistakes);
    let ticket_api = settings::ticket_api(raw.ticket_api, mistakes);
    let audit = settings::audit(raw.audit, &names, mistakes);
    let store = store::check(raw.store, base, mistakes);
    let open_browser = raw.consent.is_some_and(|consent| consent.raw.open_browser);
    let webhooks = webhooks::check(raw.webhooks, base, mistakes);
    let development = raw.development.is_some_and(|development| development.raw);
    let enrolment = enrolment::check(raw.enrolment, development, &names, base, mistakes);
    let tsa = tsa::check(raw.tsa, &names, mistakes);
    let trust = trust::check(raw.trust, base, mistakes);
    let revocation = revocation::check(raw.revocation, base, mistakes);
    let data_dir = base.join(raw.data_dir?.raw);
    Some(Config {
        data_dir,
        store,
        open_browser,
        webhooks,
        tsa,
        trust,
        revocation,
        listeners,
        modules,
        token_policies,
        unlisted,
        keys,
        callers,
        ticket_api,
        permit,
        http,
        limits,
        metrics,
        console,
        log_format,
        audit,
        enrolment,
        sha256,
    })
}

fn note_missing_sections(raw: &RawConfig, mistakes: &mut Mistakes) {
    let whole_file = Place::default();
    if raw.data_dir.is_none() {
        let what = "missing; name a folder that only the gateway's user can write, say \"/var/lib/sealgate\"";
        mistakes.note(&whole_file, "data_dir", what);
    }
    if raw.modules.is_empty() {
        mistakes.note(&whole_file, "module", "missing; add a [[module]] with `name` and the `path` of a PKCS#11 library");
    }
}

/// The names that the file declares, whatever else is wrong with their pieces, so that one mistake does not look like several.
struct Names {
    modules: HashSet<String>,
    keys: HashSet<String>,
    callers: HashSet<String>,
    /// Every piece of the file was read; otherwise a name that is not here may be in the part that was not.
    certain: bool,
}

impl Names {
    fn of(raw: &RawConfig) -> Self {
        Self {
            modules: raw.modules.iter().map(|module| module.raw.name.clone()).collect(),
            keys: raw.keys.iter().map(|key| key.raw.name.clone()).collect(),
            callers: raw.callers.iter().map(|caller| caller.raw.name.clone()).collect(),
            certain: !raw.incomplete,
        }
    }

    fn has_module(&self, name: &str) -> bool {
        !self.certain || self.modules.contains(name)
    }

    fn has_key(&self, name: &str) -> bool {
        !self.certain || self.keys.contains(name)
    }

    fn has_caller(&self, name: &str) -> bool {
        !self.certain || self.callers.contains(name)
    }
}

/// Notes a second use of what must be used once.
struct Unique<T>(HashSet<T>);

impl<T: Hash + Eq> Unique<T> {
    fn new() -> Self {
        Self(HashSet::new())
    }

    fn check(&mut self, value: T, at: &Place, field: &str, mistakes: &mut Mistakes) {
        if !self.0.insert(value) {
            mistakes.note(at, field, "stands twice in this file; each needs its own");
        }
    }
}
