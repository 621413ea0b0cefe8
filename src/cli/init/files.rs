//! The files that `init` makes, and that go again if it fails.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::Context as _;

use super::answers::Answers;
use crate::{
    domain::timestamp::Timestamp,
    pki::{DevCa, Validity},
};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// How long the CA is good.
const CA_DAYS: u32 = 3650;
/// How long the gateway's certificate is good: what clients take at most.
const CERTIFICATE_DAYS: u32 = 397;

/// What was made, in order.
#[derive(Default)]
pub(super) struct Made {
    paths: Vec<PathBuf>,
    data_folder: Option<PathBuf>,
}

impl Made {
    /// Makes a folder if it is missing.
    pub(super) fn folder(&mut self, dir: &Path, mode: u32) -> anyhow::Result<()> {
        if !dir.exists() {
            let made = DirBuilder::new().recursive(true).mode(mode).create(dir);
            made.with_context(|| {
                format!("{} cannot be made; run this as a user who may, or name another folder with --dir", dir.display())
            })?;
            self.paths.push(dir.to_owned());
        }
        Ok(())
    }

    /// Makes a file that must be new.
    pub(super) fn file(&mut self, path: &Path, content: &[u8], mode: u32) -> anyhow::Result<()> {
        let failed = || format!("{} cannot be made; is there one already?", path.display());
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path).with_context(failed)?;
        self.paths.push(path.to_owned());
        file.write_all(content).and_then(|()| file.sync_all()).with_context(failed)
    }

    /// Notes that the data folder is new, if it is.
    pub(super) fn data_folder(&mut self, dir: &Path) {
        self.data_folder = (!dir.exists()).then(|| dir.to_owned());
    }

    /// Everything has been made.
    pub(super) fn keep(mut self) {
        self.paths.clear();
        self.data_folder = None;
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        if let Some(dir) = &self.data_folder {
            let _ = fs::remove_dir_all(dir);
        }
        // What cannot be removed is named by the next try. A folder goes only if nothing else is in it.
        for path in self.paths.iter().rev() {
            let _ = if path.is_dir() { fs::remove_dir(path) } else { fs::remove_file(path) };
        }
    }
}

/// What the gateway speaks TLS with.
pub(super) struct Tls {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
    /// The CA that was made for it.
    pub(super) ca: Option<PathBuf>,
}

/// The files for TLS: those that were given, or new ones; `None` for plain HTTP on a loopback address.
pub(super) fn tls(answers: &Answers, dir: &Path, made: &mut Made) -> anyhow::Result<Option<Tls>> {
    if let Some((certificate, key)) = answers.tls.clone() {
        return Ok(Some(Tls { certificate, key, ca: None }));
    }
    if !answers.wants_tls() {
        return Ok(None);
    }
    let mut names = answers.hosts.clone();
    if !answers.listen.ip().is_unspecified() {
        names.push(answers.listen.ip().to_string());
    }
    names.extend(["localhost", "127.0.0.1"].map(str::to_owned));
    let now = Timestamp::from(SystemTime::now());
    let valid = |days: u32| Validity::new(now, now.after(DAY * days)).context("the clock of this machine is wrong; set it");
    let ca = DevCa::create("Sealgate CA", valid(CA_DAYS)?).context("no CA was made")?;
    let identity = ca.issue_server(&names, valid(CERTIFICATE_DAYS)?).context("no certificate was made; correct --host")?;
    let tls = dir.join("tls");
    made.folder(&tls, 0o750)?;
    let path = |name: &str| tls.join(name);
    made.file(&path("ca.pem"), ca.certificate().to_pem().as_bytes(), 0o644)?;
    made.file(&path("ca.key"), ca.key_pem()?.as_bytes(), 0o600)?;
    made.file(&path("gateway.pem"), identity.certificate.to_pem().as_bytes(), 0o644)?;
    made.file(&path("gateway.key"), identity.key_pem.as_bytes(), 0o600)?;
    Ok(Some(Tls { certificate: path("gateway.pem"), key: path("gateway.key"), ca: Some(path("ca.pem")) }))
}
