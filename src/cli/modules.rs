//! The token side as the configuration wants it, with a gateway around it or without one.

use std::{collections::BTreeMap, env, sync::Arc, time::Duration};

use anyhow::Context as _;

use super::{data_folder::DataFolder, host_program};
use crate::{
    config::{self, Config, LogFormat},
    domain::token::{LoginMode, SlotState, TokenPolicy},
    store::pin_ledger::StoredPinLedger,
    telemetry,
    token::{
        pkcs11::ModuleOptions,
        quirks::QuirkSettings,
        slot::SlotHandle,
        supervisor::{Isolation, ModuleSettings, ModuleSource, TokenSettings, Tokens},
        watchdog::CallLimits,
    },
};

/// How long modules may take to show their tokens; slow readers need some seconds.
const SETTLE_MAX: Duration = Duration::from_secs(20);

/// How long opening sessions and logging in may take beyond that.
const LOGIN_MAX: Duration = Duration::from_secs(5);

/// Whether tokens are logged in when they are opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Logins {
    /// As the configuration says.
    AsConfigured,
    /// Not at all: to look at a token costs no PIN try.
    None,
}

/// What the token side is started from.
pub(super) fn token_settings(config: &Config, logins: Logins, marks: Option<std::path::PathBuf>) -> anyhow::Result<TokenSettings> {
    let policy = |policy: &TokenPolicy| match logins {
        Logins::AsConfigured => policy.clone(),
        Logins::None => TokenPolicy { login: LoginMode::Operator, pin: None, ..policy.clone() },
    };
    Ok(TokenSettings {
        modules: config.modules.iter().map(|module| module_settings(module, config.log_format)).collect(),
        policies: config.token_policies.iter().map(policy).collect(),
        unlisted: config.unlisted.as_ref().map(policy),
        host_program: host_program()?,
        marks,
    })
}

fn module_settings(module: &config::ModuleSettings, log_format: LogFormat) -> ModuleSettings {
    let environment = || {
        let mut environment: BTreeMap<_, _> = module.env.iter().map(|(variable, value)| (variable.clone(), value.0.clone())).collect();
        // The module's process reads no configuration; a variable of ours it inherits.
        if log_format == LogFormat::Json && env::var_os(telemetry::LOG_FORMAT_VARIABLE).is_none() {
            environment.entry(telemetry::LOG_FORMAT_VARIABLE.to_owned()).or_insert_with(|| "json".to_owned());
        }
        environment
    };
    ModuleSettings {
        options: ModuleOptions {
            name: module.name.clone(),
            os_locking: module.os_locking,
            init_args: module.init_args.clone(),
            quirks: QuirkSettings {
                sees_new_tokens: module.sees_new_tokens,
                idle_limit: module.idle_limit,
                settle: module.settle,
                waits_for_touch: module.waits_for_touch,
                one_thread: module.one_thread,
            },
        },
        source: ModuleSource::Library(module.path.clone()),
        isolation: match module.isolation {
            config::Isolation::Process if module.fence.is_open() => Isolation::Process(environment()),
            config::Isolation::Process => Isolation::Fenced { environment: environment(), fence: module.fence.clone() },
            config::Isolation::Thread => Isolation::Thread,
        },
        limits: CallLimits {
            sign: module.limits.sign,
            key_generation: module.limits.key_generation,
            person: module.limits.person,
            other: module.limits.other,
        },
    }
}

/// Opens the modules for a command that runs while no gateway does. The caller stops them.
pub(super) async fn open(config: &Config, logins: Logins) -> anyhow::Result<Opened> {
    // Even one login of ours counts: it goes through the gateway's own record of PIN tries, which one process at a time may use.
    let (data, ledger) = match logins {
        Logins::AsConfigured => {
            let data = DataFolder::claim(&config.data_dir)?;
            let ledger = StoredPinLedger::open(data.dir())?;
            (Some(data), ledger)
        }
        Logins::None => (None, StoredPinLedger::in_memory()?),
    };
    let mut settings = token_settings(config, logins, None)?;
    settings.modules.iter_mut().for_each(quieten);
    let tokens = Tokens::start(settings, Arc::new(ledger)).context("a module's thread did not start")?;
    tokens.settled(SETTLE_MAX).await;
    // A token that takes longer is shown as it is by then.
    let _ = tokio::time::timeout(LOGIN_MAX, sessions_open(&tokens)).await;
    Ok(Opened { tokens, _data: data })
}

/// Has a module's process say as little as a command that answers and ends, unless somebody wants to hear more.
fn quieten(module: &mut ModuleSettings) {
    if let Some(environment) = module.isolation.environment_mut()
        && env::var_os(telemetry::LOG_VARIABLE).is_none()
    {
        environment.entry(telemetry::LOG_VARIABLE.to_owned()).or_insert_with(|| "error".to_owned());
    }
}

/// Waits until no session is being opened and no configured login is under way.
async fn sessions_open(tokens: &Tokens) {
    let mut changes = tokens.changes();
    let under_way = |slot: &SlotHandle| slot.status().state == SlotState::Recovering;
    loop {
        changes.borrow_and_update();
        if !tokens.slots().iter().any(under_way) || changes.changed().await.is_err() {
            return;
        }
    }
}

/// Modules that were opened without a gateway.
pub(super) struct Opened {
    /// Their tokens.
    pub(super) tokens: Tokens,
    _data: Option<DataFolder>,
}
