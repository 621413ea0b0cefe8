//! Which gateway of this machine a command is about: one that a configuration describes, or that of development mode.

use std::path::{Path, PathBuf};

use clap::Args;

use super::{data_folder::control_socket, dev};
use crate::config::Config;

/// `--config FILE` or `--dir DIR`.
#[derive(Debug, Args)]
pub(super) struct GatewayArgs {
    /// The gateway of this configuration.
    #[arg(long, value_name = "FILE", conflicts_with = "dir")]
    config: Option<PathBuf>,
    /// The gateway that `sealgate dev` runs in this folder.
    #[arg(long, value_name = "DIR", default_value = dev::DEFAULT_DIR)]
    dir: PathBuf,
}

/// A gateway of this machine, running or not.
pub(super) struct Place {
    /// Its configuration.
    pub(super) config: Config,
    /// Its control socket, which is there while it runs.
    pub(super) control: PathBuf,
}

impl GatewayArgs {
    /// The configuration that the arguments point to.
    pub(super) fn config_file(&self) -> anyhow::Result<PathBuf> {
        match &self.config {
            Some(file) => Ok(file.clone()),
            None => dev_config(&self.dir),
        }
    }

    /// Reads the configuration that the arguments point to.
    pub(super) fn place(&self) -> anyhow::Result<Place> {
        let config = Config::load(&self.config_file()?)?;
        let control = control_socket(&config.data_dir);
        Ok(Place { config, control })
    }
}

fn dev_config(dir: &Path) -> anyhow::Result<PathBuf> {
    let file = dev::layout::Layout::new(dir)?.config();
    if !file.is_file() {
        anyhow::bail!(
            "{} is not a folder of development mode; name a configuration with --config FILE, or run `sealgate dev`",
            dir.display()
        );
    }
    Ok(file)
}
