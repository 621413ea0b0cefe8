//! What stands where in the folder of development mode, and how files are written there.
//!
//! Invariant: what holds a secret has mode 0600 from its first byte on, and every file appears whole or not at all.

use std::{
    fs::{self, DirBuilder, File, Permissions, TryLockError},
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};

use crate::cli::Usage;

/// The folder of development mode.
#[derive(Debug, Clone)]
pub(in crate::cli) struct Layout {
    dir: PathBuf,
}

/// Keeps other processes away from a folder while it lives.
#[derive(Debug)]
pub(super) struct FolderLock {
    _file: File,
}

impl Layout {
    /// The folder `dir`, which need not exist.
    pub(in crate::cli) fn new(dir: &Path) -> anyhow::Result<Self> {
        let dir = std::path::absolute(dir).context("the current folder cannot be found; change to one that exists")?;
        // The path goes into softhsm2.conf, which has lines and no quotes.
        match dir.to_str() {
            Some(text) if !text.contains(char::is_control) => Ok(Self { dir }),
            _ => Err(Usage("--dir has characters that SoftHSM's configuration cannot hold; choose another folder".to_owned()).into()),
        }
    }

    /// The folder itself.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The configuration of the gateway.
    pub(in crate::cli) fn config(&self) -> PathBuf {
        self.dir.join("sealgate.toml")
    }

    /// What tests and scripts read; there while the gateway serves.
    pub(in crate::cli) fn dev_json(&self) -> PathBuf {
        self.dir.join("dev.json")
    }

    /// SoftHSM's configuration.
    pub(super) fn softhsm2_conf(&self) -> PathBuf {
        self.dir.join("softhsm2.conf")
    }

    /// The folder with SoftHSM's tokens.
    pub(super) fn tokens(&self) -> PathBuf {
        self.dir.join("tokens")
    }

    /// The token's user PIN.
    pub(super) fn pin(&self) -> PathBuf {
        self.dir.join("pin")
    }

    /// What the token is; written last, so it stands for a token that was made whole.
    pub(super) fn token_json(&self) -> PathBuf {
        self.dir.join("token.json")
    }

    /// The development CA's private key.
    pub(super) fn ca_key(&self) -> PathBuf {
        self.dir.join("ca-key.pem")
    }

    /// The CRL of the development CA, made anew at each start.
    pub(super) fn crl(&self) -> PathBuf {
        self.dir.join("ca.crl")
    }

    /// The certificate of `name`, a key or `ca`.
    pub(super) fn certificate(&self, name: &str) -> PathBuf {
        self.certificates().join(format!("{name}.pem"))
    }

    fn certificates(&self) -> PathBuf {
        self.dir.join("certificates")
    }

    fn lock_file(&self) -> PathBuf {
        self.dir.join("dev.lock")
    }

    /// Makes the folder if it is not there, and locks it against a second process.
    pub(super) fn claim(&self) -> anyhow::Result<FolderLock> {
        let dir = self.dir.display();
        self.refuse_a_strangers_folder()?;
        make_private_dir(&self.dir)?;
        let file = File::create(self.lock_file()).with_context(|| format!("{dir} cannot be written; choose another --dir"))?;
        match file.try_lock() {
            Ok(()) => Ok(FolderLock { _file: file }),
            Err(TryLockError::WouldBlock) => bail!("another `sealgate dev` uses {dir}; stop it, or choose another --dir"),
            Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("{dir} cannot be locked; choose another --dir")),
        }
    }

    /// What is removed when a first start is done over must be ours.
    fn refuse_a_strangers_folder(&self) -> anyhow::Result<()> {
        let theirs = [self.tokens(), self.certificates()].into_iter().find(|folder| folder.exists() && !self.lock_file().exists());
        match theirs {
            Some(folder) => bail!("`sealgate dev` did not make {}; choose another --dir", folder.display()),
            None => Ok(()),
        }
    }

    /// Removes what an interrupted first start has left.
    pub(super) fn clear_unfinished(&self) -> anyhow::Result<()> {
        for dir in [self.tokens(), self.certificates()] {
            if dir.exists() {
                fs::remove_dir_all(&dir).with_context(|| format!("{} cannot be removed; remove it by hand", dir.display()))?;
            }
        }
        Ok(())
    }

    /// Makes the folders that a new token needs.
    pub(super) fn make_folders(&self) -> anyhow::Result<()> {
        make_private_dir(&self.tokens())?;
        make_private_dir(&self.certificates())
    }
}

fn make_private_dir(dir: &Path) -> anyhow::Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.with_context(|| format!("{} cannot be made; choose another --dir", dir.display()))
}

/// Writes a file that only its owner can read.
pub(super) fn write_private(file: &Path, content: &[u8]) -> anyhow::Result<()> {
    write(file, content, 0o600)
}

/// Writes a file that everybody who gets into the folder can read.
pub(super) fn write_public(file: &Path, content: &[u8]) -> anyhow::Result<()> {
    write(file, content, 0o644)
}

fn write(file: &Path, content: &[u8], mode: u32) -> anyhow::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    let write = || -> std::io::Result<()> {
        let mut new = tempfile::Builder::new().prefix(".new-").permissions(Permissions::from_mode(mode)).tempfile_in(folder)?;
        new.write_all(content)?;
        new.as_file().sync_all()?;
        new.persist(file)?;
        Ok(())
    };
    write().with_context(|| format!("{} cannot be written; is there room on the disk?", file.display()))
}

/// Removes a file if it is there.
pub(super) fn remove_if_there(file: &Path) -> anyhow::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("{} cannot be removed; remove it by hand", file.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_serves_one_process_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(&dir.path().join("dev")).unwrap();
        let first = layout.claim().unwrap();
        let error = layout.claim().unwrap_err().to_string();
        assert!(error.contains("another `sealgate dev`"), "{error}");
        drop(first);
        assert!(layout.claim().is_ok());
    }

    #[test]
    fn a_token_folder_of_somebody_else_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("tokens")).unwrap();
        assert!(Layout::new(dir.path()).unwrap().claim().is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn secrets_are_private_from_the_start_and_when_they_are_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pin");
        fs::write(&file, "old, and readable by all").unwrap();
        write_private(&file, b"1234\n").unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read(&file).unwrap(), b"1234\n");
        remove_if_there(&file).unwrap();
        remove_if_there(&file).unwrap();
    }
}
