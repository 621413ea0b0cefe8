//! The store that the configuration asks for, opened and closed.

use std::{env, fs, path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::{
    data_folder::{DataFolder, database},
    secret,
};
use crate::{
    audit::export::LogSource,
    config::{self, Config, StoreSettings},
    domain::{ids::GatewayId, pin::PinLedger, token::PinSource},
    store::{
        Store,
        memory::MemoryStore,
        pin_ledger::StoredPinLedger,
        postgres::{PostgresAuditReader, PostgresSettings, PostgresStore, SharedPinLedger},
        sqlite::{Sharing, SqliteSettings, SqliteStore, open_to_read},
    },
};

/// Another store than the configuration's, to measure what durability costs.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) enum StoreTrial {
    /// Nothing is kept.
    Memory,
    /// The default store, on a disk that takes so much longer for each commit.
    Sqlite {
        /// The time in milliseconds.
        commit_ms: u64,
        /// What shares a commit.
        sharing: Sharing,
    },
}

/// How long a command may take to close what it has opened.
pub(super) const CLOSE_MAX: Duration = Duration::from_secs(10);

/// A store that is open.
pub(super) enum OpenStore {
    Memory(Arc<MemoryStore>),
    Sqlite(Arc<SqliteStore>),
    Postgres(Arc<PostgresStore>),
}

impl OpenStore {
    /// Opens the store of this configuration, or the one to be tried in its place.
    pub(super) async fn open(config: &Config, data: &DataFolder, trial: Option<StoreTrial>) -> anyhow::Result<Self> {
        let mut sqlite = SqliteSettings::new(data.database(), data.gateway_id()?);
        match trial {
            None => {}
            Some(StoreTrial::Memory) => return Ok(Self::Memory(Arc::new(MemoryStore::new()))),
            Some(StoreTrial::Sqlite { commit_ms, sharing }) => {
                sqlite.commit_delay = Duration::from_millis(commit_ms);
                sqlite.sharing = sharing;
            }
        }
        match &config.store {
            StoreSettings::Sqlite => {
                let store = tokio::task::spawn_blocking(move || SqliteStore::open(sqlite)).await??;
                Ok(Self::Sqlite(Arc::new(store)))
            }
            StoreSettings::Postgres(settings) => {
                let store = open_postgres(settings, data.gateway_id()?).await.context("the gateway needs its database to start")?;
                Ok(Self::Postgres(Arc::new(store)))
            }
        }
    }

    /// The record of PIN tries that goes with it: on a shared store, what other gateways tell counts as well.
    pub(super) fn pin_ledger(config: &Config, data: &DataFolder) -> anyhow::Result<Arc<dyn PinLedger>> {
        let own: Arc<dyn PinLedger> = Arc::new(StoredPinLedger::open(data.dir())?);
        match &config.store {
            StoreSettings::Sqlite => Ok(own),
            StoreSettings::Postgres(settings) => Ok(Arc::new(SharedPinLedger::start(own, postgres(settings, data.gateway_id()?)?)?)),
        }
    }

    /// What everybody uses it as.
    pub(super) fn store(&self) -> Arc<dyn Store> {
        match self {
            Self::Memory(store) => Arc::clone(store) as Arc<dyn Store>,
            Self::Sqlite(store) => Arc::clone(store) as Arc<dyn Store>,
            Self::Postgres(store) => Arc::clone(store) as Arc<dyn Store>,
        }
    }

    /// Writes what has been accepted, at most `bound`, and closes it.
    pub(super) async fn close(self, bound: Duration) {
        match self {
            Self::Memory(_) => {}
            // It blocks until the last changes are on disk.
            Self::Sqlite(store) => drop(tokio::task::spawn_blocking(move || store.close()).await),
            Self::Postgres(store) => store.close(bound).await,
        }
    }
}

/// The audit logs in the store of this configuration, to be read beside a gateway that runs or without one.
pub(super) fn audit_logs(config: &Config) -> anyhow::Result<Box<dyn LogSource>> {
    match &config.store {
        StoreSettings::Sqlite => audit_logs_of(&database(&config.data_dir)),
        // Reading needs no identity, and leaves none behind.
        StoreSettings::Postgres(settings) => Ok(Box::new(PostgresAuditReader::new(postgres(settings, GatewayId::random())?))),
    }
}

/// The audit logs in this SQLite database.
pub(super) fn audit_logs_of(database: &Path) -> anyhow::Result<Box<dyn LogSource>> {
    if !database.is_file() {
        bail!("there is no audit log at {}: no gateway has run there yet", database.display());
    }
    Ok(Box::new(open_to_read(database)?))
}

/// Opens the database of this configuration as that gateway.
pub(super) async fn open_postgres(settings: &config::PostgresSettings, gateway: GatewayId) -> anyhow::Result<PostgresStore> {
    Ok(PostgresStore::open(postgres(settings, gateway)?).await?)
}

fn postgres(settings: &config::PostgresSettings, gateway: GatewayId) -> anyhow::Result<PostgresSettings> {
    let opened = PostgresSettings::new(settings.url.as_str(), gateway);
    let mut opened = opened.context("correct [store] in the configuration")?;
    if let Some(name) = settings.name.clone().or_else(machine) {
        opened = opened.with_name(name);
    }
    if let Some(source) = &settings.password {
        opened = opened.with_password(&password(source)?);
    }
    Ok(opened)
}

/// The name of this machine.
fn machine() -> Option<String> {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").or_else(|_| fs::read_to_string("/etc/hostname")).ok()?;
    let name = name.trim();
    (!name.is_empty()).then(|| name.to_owned())
}

pub(super) fn password(source: &PinSource) -> anyhow::Result<SecretString> {
    match source {
        PinSource::Environment(name) => Ok(env::var(name).with_context(|| format!("the variable {name} is not set"))?.into()),
        PinSource::Credential(name) => {
            let directory = env::var_os("CREDENTIALS_DIRECTORY");
            let directory =
                directory.with_context(|| format!("there is no credential {name}: systemd has given none (LoadCredential=)"))?;
            secret::first_line(&Path::new(&directory).join(name))
        }
        PinSource::File(path) => secret::line_of_private_file(path),
    }
}
