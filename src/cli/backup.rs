//! `sealgate backup`: a copy of a gateway's state, made while it runs or not.
//!
//! The copy holds the database as it was at one moment, the content of long documents, and what tokens have rejected as PINs. It holds no PIN and
//! no key; it does hold documents, so its folder is private.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};

use super::{
    data_folder::{GATEWAY_ID, database},
    output,
    place::GatewayArgs,
};
use crate::{
    config::StoreSettings,
    store::{
        pin_ledger::{LEDGER_FILE, SECRET_FILE},
        sqlite,
    },
};

/// The folder of long documents, in a gateway's folder and in a backup.
pub(super) const SPOOL: &str = "spool";
/// The files that a backup holds beside the database, where the gateway has them.
pub(super) const PIN_FILES: [&str; 2] = [LEDGER_FILE, SECRET_FILE];

/// Arguments of `backup`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    gateway: GatewayArgs,
    /// The folder to make.
    #[arg(value_name = "FOLDER")]
    to: PathBuf,
}

/// Makes the copy.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let config = args.gateway.place()?.config;
    if config.store != StoreSettings::Sqlite {
        // There may be an older database in the folder, which is not the gateway's state.
        bail!(
            "the state of this gateway is in PostgreSQL: back that database up with its own tools, and {} with it",
            config.data_dir.display()
        );
    }
    let from = config.data_dir;
    if !database(&from).is_file() {
        bail!("{} holds no database; has this gateway ever run?", from.display());
    }
    let to = &args.to;
    let made = DirBuilder::new().mode(0o700).create(to);
    made.with_context(|| format!("{} cannot be made; name a folder that is not there yet", to.display()))?;
    // Long documents first: what the database refers to is there then, unless its ticket ended in between.
    copy_folder(&from.join(SPOOL), &to.join(SPOOL))?;
    sqlite::copy(&database(&from), &database(to))?;
    for name in [GATEWAY_ID].iter().chain(&PIN_FILES) {
        copy_if_there(&from.join(name), &to.join(name))?;
    }
    output::line(format_args!("backed up to {}; `sealgate restore` puts it in place", to.display()))
}

/// Copies the files of a folder; those that go away meanwhile are left out. A folder that is not there is an empty one.
pub(super) fn copy_folder(from: &Path, to: &Path) -> anyhow::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(to).with_context(|| format!("{} cannot be made", to.display()))?;
    let entries = match fs::read_dir(from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.with_context(|| format!("{} cannot be read", from.display()))?,
    };
    for entry in entries {
        let entry = entry.with_context(|| format!("{} cannot be read", from.display()))?;
        copy_if_there(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}

/// Copies a file with its mode; whether it was there.
pub(super) fn copy_if_there(from: &Path, to: &Path) -> anyhow::Result<bool> {
    match fs::copy(from, to) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("{} cannot be copied to {}", from.display(), to.display())),
    }
}
