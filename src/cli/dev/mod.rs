//! `sealgate dev`: a token, keys, certificates, a configuration and a gateway that serves them, in one go.
//!
//! Everything stands in one folder, locked against a second process; a second start uses it again. It is an ordinary gateway on an ordinary
//! configuration: what works here works with `sealgate serve`.

pub(in crate::cli) mod layout;
mod provision;
mod record;
mod settings;
mod softhsm;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{bail, ensure};

use self::{
    layout::{Layout, remove_if_there},
    record::{DevJson, DevKey, TokenRecord},
};

pub(in crate::cli) use self::settings::DEFAULT_KEY;

/// The folder of development mode where none is named.
pub(in crate::cli) const DEFAULT_DIR: &str = "./.sealgate-dev";
