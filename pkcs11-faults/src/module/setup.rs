//! What the environment says that this module is to be.

use std::{env, ffi::OsString, path::PathBuf};

use crate::variables;

/// The module's configuration.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Setup {
    pub(super) real_module: PathBuf,
    pub(super) faults: Source,
    pub(super) log: Option<PathBuf>,
}

/// Where faults come from.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// From nowhere: the module only passes calls on, and logs.
    Nowhere,
    /// From the bench at this socket.
    Bench(PathBuf),
    /// From a script, with PIN tries kept in `state`.
    Script { script: PathBuf, state: Option<PathBuf> },
}

/// Why there is none. An instrument that is not connected must not look like one, so nothing of this is guessed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SetupError {
    #[error("{} is not set; it must name the PKCS#11 module to wrap", variables::MODULE)]
    NoModule,
    #[error(
        "{} and {} are both set; the bench can play scripts, see `pkcs11-faults-ctl serve --script`",
        variables::CONTROL,
        variables::SCRIPT
    )]
    TwoSources,
    #[error("{} is for {}; a bench keeps PIN tries itself", variables::STATE, variables::SCRIPT)]
    StateWithoutScript,
}

impl Setup {
    pub(super) fn from_environment() -> Result<Self, SetupError> {
        Self::from_variables(|name| env::var_os(name))
    }

    fn from_variables(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, SetupError> {
        let path = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let state = path(variables::STATE);
        let faults = match (path(variables::CONTROL), path(variables::SCRIPT)) {
            (Some(_), Some(_)) => return Err(SetupError::TwoSources),
            (None, Some(script)) => Source::Script { script, state },
            _ if state.is_some() => return Err(SetupError::StateWithoutScript),
            (Some(socket), None) => Source::Bench(socket),
            (None, None) => Source::Nowhere,
        };
        let real_module = path(variables::MODULE).ok_or(SetupError::NoModule)?;
        Ok(Self { real_module, faults, log: path(variables::LOG) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setup(variables: &[(&str, &str)]) -> Result<Setup, SetupError> {
        Setup::from_variables(|name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into()))
    }

    #[test]
    fn only_the_real_module_is_needed() {
        let expected = Setup { real_module: "/m.so".into(), faults: Source::Nowhere, log: None };
        assert_eq!(setup(&[(variables::MODULE, "/m.so"), (variables::LOG, "")]), Ok(expected));
        assert_eq!(setup(&[]), Err(SetupError::NoModule));
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let module = (variables::MODULE, "/m.so");
        let both = [module, (variables::CONTROL, "/s"), (variables::SCRIPT, "/f")];
        assert_eq!(setup(&both), Err(SetupError::TwoSources));
        assert_eq!(setup(&[module, (variables::STATE, "/t")]), Err(SetupError::StateWithoutScript));
        assert_eq!(setup(&[module, (variables::CONTROL, "/s"), (variables::STATE, "/t")]), Err(SetupError::StateWithoutScript));
    }
}
