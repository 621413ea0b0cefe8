//! Reads a configured PIN where the operator keeps it. It is read anew for every login and never kept here.

use std::{
    env, fs,
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use zeroize::Zeroizing;

use crate::domain::{
    pin::{PIN_MAX, Pin, PinFormatError},
    token::PinSource,
};

/// Why a configured PIN cannot be read. Messages name the place, never the content.
#[derive(Debug, thiserror::Error)]
pub enum PinSourceError {
    /// The file cannot be read.
    #[error("cannot read the PIN file {path}: {cause}")]
    Unreadable {
        /// The file.
        path: String,
        /// Why.
        cause: io::Error,
    },
    /// Others than its owner may read the file.
    #[error("the PIN file {0} can be read by others; run: chmod 600 {0}")]
    Exposed(String),
    /// The environment variable is not set.
    #[error("the environment variable {0} is not set")]
    NotSet(String),
    /// There are no credentials: the gateway was not started by systemd with `LoadCredential=`.
    #[error("there is no credential {0}: start the gateway by systemd with LoadCredential={0}:FILE")]
    NoCredentials(String),
    /// What stands there is no PIN.
    #[error("{0}")]
    Format(#[from] PinFormatError),
}

/// Reads the PIN. Blocks on the file system.
///
/// # Errors
/// [`PinSourceError`].
pub fn read(source: &PinSource) -> Result<Pin, PinSourceError> {
    match source {
        PinSource::File(path) => read_file(path, true),
        PinSource::Environment(name) => {
            let text = env::var(name).map_err(|_| PinSourceError::NotSet(name.clone()))?;
            Ok(Pin::new(text)?)
        }
        PinSource::Credential(name) => {
            let directory = env::var_os("CREDENTIALS_DIRECTORY").ok_or_else(|| PinSourceError::NoCredentials(name.clone()))?;
            // systemd guards the directory itself; the files in it may have wider modes.
            read_file(&Path::new(&directory).join(name), false)
        }
    }
}

fn read_file(path: &Path, guarded: bool) -> Result<Pin, PinSourceError> {
    let shown = || path.display().to_string();
    let unreadable = |cause| PinSourceError::Unreadable { path: shown(), cause };
    let file = fs::File::open(path).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.permissions().mode();
    if guarded && mode & 0o077 != 0 {
        return Err(PinSourceError::Exposed(shown()));
    }
    // Room for the longest PIN and its line end, so that the buffer never grows and leaves a copy behind.
    let mut text = Zeroizing::new(String::with_capacity(PIN_MAX + 2));
    file.take(PIN_MAX as u64 + 2).read_to_string(&mut text).map_err(unreadable)?;
    Ok(Pin::new(text.lines().next().unwrap_or_default())?)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn pin_file(content: &str, mode: u32) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content.as_bytes()).unwrap();
        fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();
        file
    }

    #[test]
    fn the_first_line_of_a_private_file_is_the_pin() {
        let file = pin_file("1234\n# my card\n", 0o600);
        assert_eq!(read(&PinSource::File(file.path().to_owned())).unwrap().reveal(), "1234");
    }

    #[test]
    fn a_file_that_others_can_read_is_refused_with_the_command_that_mends_it() {
        let file = pin_file("1234\n", 0o640);
        let error = read(&PinSource::File(file.path().to_owned())).unwrap_err().to_string();
        assert!(error.contains("chmod 600") && !error.contains("1234"), "{error}");
    }

    #[test]
    fn an_empty_file_holds_no_pin() {
        let file = pin_file("\n", 0o600);
        assert!(matches!(read(&PinSource::File(file.path().to_owned())), Err(PinSourceError::Format(_))));
    }
}
