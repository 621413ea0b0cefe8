//! The folder in which a gateway keeps its own files: a lock, its id, the database, the control socket, the record of PIN tries, marks of
//! signatures that were begun, spooled uploads.
//!
//! Invariants: one gateway at a time; nobody but the gateway's user can ever connect to the control socket, not even while it is made.

use std::{
    fs::{self, DirBuilder, File, Permissions, TryLockError},
    io::{self, Write as _},
    os::unix::{
        fs::{DirBuilderExt as _, PermissionsExt as _},
        net::UnixListener,
    },
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use tempfile::NamedTempFile;

use crate::domain::ids::GatewayId;

/// The name of the control socket in the folder.
const CONTROL_SOCKET: &str = "control.sock";
/// Where the control socket is made: shorter than its name, for the length of a socket's path is limited.
const SOCKET_WORKSHOP: &str = ".s";
const SOCKET_UNFINISHED: &str = "c";

/// The control socket of the gateway whose folder is `dir`; it is there while that gateway runs.
pub(super) fn control_socket(dir: &Path) -> PathBuf {
    dir.join(CONTROL_SOCKET)
}

/// The file with the gateway's id.
pub(super) const GATEWAY_ID: &str = "gateway-id";

/// The default store's database in the folder `dir`.
pub(super) fn database(dir: &Path) -> PathBuf {
    dir.join("sealgate.db")
}

/// Writes a small file so that it is there whole after a power loss, or not at all.
fn write_synced(path: &Path, text: &str) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut file = NamedTempFile::new_in(dir)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    File::open(dir)?.sync_all()
}

/// What the system calls this run of the machine.
fn boot_id() -> Option<String> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()
}

/// A folder that this process holds.
#[derive(Debug)]
pub(super) struct DataFolder {
    dir: PathBuf,
    control_is_there: bool,
    _lock: File,
}

impl DataFolder {
    /// Makes the folder if it is missing, and takes it.
    pub(super) fn claim(dir: &Path) -> anyhow::Result<Self> {
        let shown = dir.display();
        let unusable =
            || format!("the data folder {shown} cannot be used; give it to the user that runs the gateway, or change `data_dir`");
        DirBuilder::new().recursive(true).mode(0o700).create(dir).with_context(unusable)?;
        let lock = File::create(dir.join("gateway.lock")).with_context(unusable)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { dir: dir.to_owned(), control_is_there: false, _lock: lock }),
            Err(TryLockError::WouldBlock) => bail!("another gateway uses the data folder {shown}; stop it, or change `data_dir`"),
            Err(TryLockError::Error(error)) => Err(error).with_context(unusable),
        }
    }

    /// The folder itself.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where uploads are spooled.
    pub(super) fn spool(&self) -> PathBuf {
        self.dir.join("spool")
    }

    /// The default store's database.
    pub(super) fn database(&self) -> PathBuf {
        database(&self.dir)
    }

    /// Where slots note which signatures they have begun.
    pub(super) fn marks(&self) -> PathBuf {
        self.dir.join("begun")
    }

    /// Makes the gateway of this folder a new one.
    pub(super) fn renew_gateway_id(&self, id: GatewayId) -> anyhow::Result<()> {
        let path = self.dir.join(GATEWAY_ID);
        write_synced(&path, &format!("{id}\n")).with_context(|| format!("{} cannot be written", path.display()))
    }

    /// Who the gateway of this folder is; chosen when the folder is first used.
    pub(super) fn gateway_id(&self) -> anyhow::Result<GatewayId> {
        let path = self.dir.join(GATEWAY_ID);
        let shown = path.display();
        match fs::read_to_string(&path) {
            Ok(text) => text.trim().parse().with_context(|| format!("{shown} holds no gateway's id; restore it from the backup")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let id = GatewayId::random();
                self.renew_gateway_id(id)?;
                Ok(id)
            }
            Err(error) => Err(error).with_context(|| format!("{shown} cannot be read")),
        }
    }

    /// Whether the machine has been up since [`note_boot`](Self::note_boot) was called last.
    pub(super) fn machine_stayed_up(&self) -> bool {
        // A system that does not tell is one of which nothing is concluded.
        boot_id().is_some_and(|now| fs::read_to_string(self.boot_file()).is_ok_and(|then| then == now))
    }

    /// Notes that the machine is up now. To be called when nothing from before the machine's start needs to be judged any more: a crash in
    /// between must find the old note.
    pub(super) fn note_boot(&self) -> anyhow::Result<()> {
        let (path, Some(now)) = (self.boot_file(), boot_id()) else { return Ok(()) };
        write_synced(&path, &now).with_context(|| format!("{} cannot be written", path.display()))
    }

    fn boot_file(&self) -> PathBuf {
        self.dir.join("boot-id")
    }

    /// Makes the control socket, in place of one that a gateway left behind that was killed. It goes when the folder is given up.
    pub(super) fn bind_control(&mut self) -> anyhow::Result<UnixListener> {
        let path = control_socket(&self.dir);
        let too_long = "a path of more than 100 bytes is too long, choose a shorter folder";
        let listener =
            self.bind_private_socket().with_context(|| format!("the control socket {} cannot be made; {too_long}", path.display()))?;
        self.control_is_there = true;
        Ok(listener)
    }

    /// The socket is made where nobody else can reach it and shown when its mode is right.
    fn bind_private_socket(&self) -> io::Result<UnixListener> {
        let workshop = self.dir.join(SOCKET_WORKSHOP);
        let unfinished = workshop.join(SOCKET_UNFINISHED);
        if workshop.exists() {
            fs::remove_dir_all(&workshop)?;
        }
        DirBuilder::new().mode(0o700).create(&workshop)?;
        let listener = UnixListener::bind(&unfinished)?;
        fs::set_permissions(&unfinished, Permissions::from_mode(0o600))?;
        fs::rename(&unfinished, control_socket(&self.dir))?;
        fs::remove_dir(&workshop)?;
        Ok(listener)
    }
}

impl Drop for DataFolder {
    fn drop(&mut self) {
        if self.control_is_there {
            // What stays is replaced by the next start.
            let _ = fs::remove_file(control_socket(&self.dir));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn one_gateway_at_a_time_uses_a_folder() {
        let dir = tempfile::tempdir().unwrap();
        let first = DataFolder::claim(dir.path()).unwrap();
        assert!(DataFolder::claim(dir.path()).unwrap_err().to_string().contains("another gateway"));
        drop(first);
        DataFolder::claim(dir.path()).unwrap();
    }

    #[test]
    fn a_machine_has_stayed_up_only_if_its_start_was_noted() {
        let dir = tempfile::tempdir().unwrap();
        let folder = DataFolder::claim(dir.path()).unwrap();
        assert!(!folder.machine_stayed_up());
        assert!(!folder.machine_stayed_up(), "asking notes nothing");
        folder.note_boot().unwrap();
        assert!(folder.machine_stayed_up());
        fs::write(dir.path().join("boot-id"), "another\n").unwrap();
        assert!(!folder.machine_stayed_up());
    }

    #[test]
    fn the_control_socket_is_private_and_replaces_one_that_was_left() {
        let dir = tempfile::tempdir().unwrap();
        let mut folder = DataFolder::claim(dir.path()).unwrap();
        drop(folder.bind_control().unwrap());
        let path = control_socket(dir.path());
        assert!(UnixStream::connect(&path).is_err(), "nobody listens at what was left");
        let _listener = folder.bind_control().unwrap();
        assert!(UnixStream::connect(&path).is_ok());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        drop(folder);
        assert!(!path.exists());
    }
}
