//! Scripts: requests in a file, one JSON line each. Empty lines and lines that begin with `#` are left out.

use std::{fs, path::Path};

use crate::{
    bench::core::Core,
    protocol::{Reply, Request},
};

/// Why a script cannot be played.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScriptError {
    /// The file cannot be read.
    #[error("the script {path} cannot be read: {reason}")]
    Unreadable {
        /// The file.
        path: String,
        /// What the system said.
        reason: String,
    },
    /// A line is no request, or was refused.
    #[error("line {number} of the script: {reason}")]
    Line {
        /// From 1.
        number: usize,
        /// Why.
        reason: String,
    },
}

/// Reads a script and does nothing with it yet; each request comes with the number of its line.
///
/// # Errors
/// See [`ScriptError`].
pub fn read(path: &Path) -> Result<Vec<(usize, Request)>, ScriptError> {
    let unreadable = |error: std::io::Error| ScriptError::Unreadable { path: path.display().to_string(), reason: error.to_string() };
    let text = fs::read_to_string(path).map_err(unreadable)?;
    let meant = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.trim_start().starts_with('#'));
    meant
        .map(|(at, line)| match serde_json::from_str(line) {
            Ok(request) => Ok((at + 1, request)),
            Err(error) => Err(ScriptError::Line { number: at + 1, reason: error.to_string() }),
        })
        .collect()
}

/// Plays a script on a core of this process's own.
pub(crate) fn play(path: &Path, core: &mut Core) -> Result<(), ScriptError> {
    for (number, request) in read(path)? {
        match core.handle(request) {
            Ok(Reply::Error { message }) => return Err(ScriptError::Line { number, reason: message }),
            Ok(_) => (),
            Err(error) => return Err(ScriptError::Line { number, reason: error.to_string() }),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::pins::PinTries;

    fn played(text: &str) -> Result<Core, ScriptError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("script");
        fs::write(&path, text).unwrap();
        let mut core = Core::new(PinTries::kept(None));
        play(&path, &mut core).map(|()| core)
    }

    #[test]
    fn a_script_arms_faults_and_leaves_comments_out() {
        let core =
            played("# first\n\n{\"do\":\"arm\",\"fault\":{\"on\":\"C_Sign\",\"do\":[{\"wait\":\"release\"}]}}\n{\"do\":\"remove\"}\n")
                .unwrap();
        assert!(core.state().interest.contains(crate::function::Function::C_Sign));
    }

    #[test]
    fn a_wrong_line_is_named_by_its_number() {
        for (text, wrong) in [("# one\n{\"do\":\"fly\"}\n", 2), ("{\"do\":\"arm\",\"fault\":{\"on\":\"C_Sign\",\"do\":[]}}\n", 1)] {
            assert!(matches!(played(text).unwrap_err(), ScriptError::Line { number, .. } if number == wrong), "{text}");
        }
    }
}
