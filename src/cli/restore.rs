//! `sealgate restore`: puts a backup in place, and makes it safe to go on with. A database of several gateways is put back with its own tools;
//! `--database` makes it safe.
//!
//! What was signed and spent after the backup is not in it. So every permission that could still be used is revoked, every job that had not ended
//! is in doubt, and the audit log begins anew, beside the one that ends with the backup. What tokens have rejected as PINs is never forgotten
//! by it: the gateway's own record stays if it has one.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail};

use super::{
    backup::{PIN_FILES, SPOOL, copy_folder, copy_if_there},
    data_folder::{DataFolder, GATEWAY_ID, database},
    output,
    place::GatewayArgs,
    runtime,
    store::open_postgres,
};
use crate::{
    config::{PostgresSettings, StoreSettings},
    domain::ids::GatewayId,
    signing::recovery::{Restored, settle_restored},
    store::{
        Store as _,
        sqlite::{SqliteSettings, SqliteStore, open_to_read},
    },
};

/// Arguments of `restore`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    gateway: GatewayArgs,
    /// The folder that `sealgate backup` made.
    #[arg(value_name = "FOLDER", required_unless_present = "database")]
    from: Option<PathBuf>,
    /// Replace the state that the gateway has.
    #[arg(long, conflicts_with = "database")]
    replace: bool,
    /// Make the PostgreSQL database safe that was put back with its own tools. To be run at each of its gateways, before any is started.
    #[arg(long, conflicts_with = "from")]
    database: bool,
}

/// How long closing the database may take.
const CLOSE_MAX: Duration = Duration::from_secs(10);

/// Puts the backup in place, or makes the database safe.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let config = args.gateway.place()?.config;
    match (&args.from, &config.store) {
        (Some(from), _) => restore_folder(from, args.replace, &config.data_dir),
        (None, StoreSettings::Postgres(settings)) => settle_database(settings, &config.data_dir),
        (None, StoreSettings::Sqlite) => {
            bail!(
                "this gateway's state is in {}; name the folder that `sealgate backup` made, without --database",
                config.data_dir.display()
            )
        }
    }
}

fn restore_folder(from: &Path, replace: bool, dir: &Path) -> anyhow::Result<()> {
    if !database(from).is_file() {
        bail!("{} is no backup: it has no database; name a folder that `sealgate backup` made", from.display());
    }
    let folder = DataFolder::claim(dir)?;
    if folder.database().exists() && !replace {
        bail!("{} has a state already; --replace puts the backup in its place", dir.display());
    }
    // Beside the old one, so that a restore that breaks off leaves that as it is.
    let unfinished = dir.join("restoring.db");
    remove_database(&unfinished)?;
    copy_if_there(&database(from), &unfinished)?;
    let (gateway, restored) = settle(&unfinished, &backed_up(from)?)?;
    copy_folder(&from.join(SPOOL), &folder.spool())?;
    if !PIN_FILES.iter().any(|name| dir.join(name).exists()) {
        for name in PIN_FILES {
            copy_if_there(&from.join(name), &dir.join(name))?;
        }
    }
    // Marks are about jobs of the state that is replaced.
    remove(fs::remove_dir_all(folder.marks()), &folder.marks())?;
    folder.renew_gateway_id(gateway)?;
    remove_database(&folder.database())?;
    fs::rename(&unfinished, folder.database()).with_context(|| format!("{} cannot be renamed", unfinished.display()))?;
    report(format_args!("restored from {}", from.display()), restored)
}

/// What was signed and spent since the backup is not in the database, and each gateway's audit log in it ends with the backup: this gateway's
/// begins anew. The first that does this settles permits and jobs for all.
fn settle_database(settings: &PostgresSettings, dir: &Path) -> anyhow::Result<()> {
    let folder = DataFolder::claim(dir)?;
    let (before, gateway) = (folder.gateway_id()?, GatewayId::random());
    let restored = runtime()?.block_on(async {
        let store = open_postgres(settings, before).await?;
        let now = store.now();
        if let Some(running) = store.announce(&[], &[]).await?.remote.into_iter().find(|token| token.until > now) {
            bail!("gateway {} runs on this database, or did a moment ago; stop every gateway first", running.name);
        }
        let head = store.audit_head().await?;
        store.close(CLOSE_MAX).await;
        let store = open_postgres(settings, gateway).await?;
        let restored = settle_restored(&store, head).await;
        store.close(CLOSE_MAX).await;
        restored.context("the database cannot be settled; what was done is done, and the rest is when you call this again")
    })?;
    remove(fs::remove_dir_all(folder.marks()), &folder.marks())?;
    folder.renew_gateway_id(gateway)?;
    report(
        format_args!("the database is settled, and this gateway begins a new audit log in it; do the same at the other gateways"),
        restored,
    )
}

fn report(what: std::fmt::Arguments<'_>, restored: Restored) -> anyhow::Result<()> {
    output::line(format_args!(
        "{what}; {} permissions were revoked and {} jobs are in doubt (see `sealgate jobs list --state in-doubt`)",
        restored.permits_revoked, restored.jobs_in_doubt
    ))
}

/// Whose backup it is.
fn backed_up(from: &Path) -> anyhow::Result<GatewayId> {
    let path = from.join(GATEWAY_ID);
    let text = fs::read_to_string(&path).with_context(|| format!("{} cannot be read; a backup has it", path.display()))?;
    text.trim().parse().with_context(|| format!("{} holds no gateway's id", path.display()))
}

/// Makes the state safe, as that of a new gateway.
fn settle(path: &Path, old: &GatewayId) -> anyhow::Result<(GatewayId, Restored)> {
    let gateway = GatewayId::random();
    let store = SqliteStore::open(SqliteSettings::new(path.to_owned(), gateway))?;
    let restored: anyhow::Result<Restored> = runtime()?.block_on(async {
        let last = open_to_read(path)?.head(*old)?;
        Ok(settle_restored(&store, last).await?)
    });
    // Closed, it is one file again.
    store.close();
    Ok((gateway, restored.context("the state of the backup cannot be settled")?))
}

fn remove_database(path: &Path) -> anyhow::Result<()> {
    for suffix in ["", "-wal", "-shm"] {
        let path = PathBuf::from(format!("{}{suffix}", path.display()));
        remove(fs::remove_file(&path), &path)?;
    }
    Ok(())
}

fn remove(result: io::Result<()>, path: &Path) -> anyhow::Result<()> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("{} cannot be removed", path.display()))
        }
        _ => Ok(()),
    }
}
