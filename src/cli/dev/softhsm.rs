//! Finding SoftHSM and giving it a configuration of our own.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::bail;

use super::layout::{Layout, write_public};

/// The environment variable that says where SoftHSM's module is.
pub(super) const SOFTHSM_VARIABLE: &str = "SEALGATE_SOFTHSM";

const TEMPLATE: &str = include_str!("../../../softhsm-config/softhsm2.conf.template");

/// Where distributions put the module.
const USUAL_PLACES: &[&str] = &[
    // Debian and Ubuntu
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    // Fedora and its kin
    "/usr/lib64/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    // Arch
    "/usr/lib/pkcs11/libsofthsm2.so",
    // Homebrew, and what was built from source
    "/opt/homebrew/lib/softhsm/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
];

/// Finds SoftHSM's PKCS#11 module.
pub(super) fn find() -> anyhow::Result<PathBuf> {
    choose(env::var_os(SOFTHSM_VARIABLE).map(PathBuf::from), USUAL_PLACES.iter().map(Path::new))
}

fn choose<'a>(named: Option<PathBuf>, mut usual: impl Iterator<Item = &'a Path>) -> anyhow::Result<PathBuf> {
    if let Some(named) = named {
        if !named.is_file() {
            bail!("{SOFTHSM_VARIABLE} names {}, which is not a file; correct or unset it", named.display());
        }
        return Ok(named);
    }
    match usual.find(|place| place.is_file()) {
        Some(place) => Ok(place.to_owned()),
        None => bail!(
            "SoftHSM is not installed. Install it with: sudo apt-get install softhsm2 (Debian, Ubuntu), sudo dnf install softhsm (Fedora), \
             sudo pacman -S softhsm (Arch), brew install softhsm (macOS); or set {SOFTHSM_VARIABLE} to the path of libsofthsm2.so"
        ),
    }
}

/// Writes SoftHSM's configuration for the token folder of `layout`.
pub(super) fn write_conf(layout: &Layout) -> anyhow::Result<()> {
    let conf = TEMPLATE.replace("@TOKENS@", &layout.tokens().display().to_string());
    write_public(&layout.softhsm2_conf(), conf.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_goes_before_the_usual_places_and_must_name_a_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let usual = [Path::new("/no/such/module.so"), file.path()];
        assert_eq!(choose(None, usual.into_iter()).unwrap(), file.path());
        assert_eq!(choose(Some(file.path().to_owned()), usual[..1].iter().copied()).unwrap(), file.path());
        let error = choose(Some(PathBuf::from("/no/such/module.so")), usual.into_iter()).unwrap_err().to_string();
        assert!(error.contains(SOFTHSM_VARIABLE), "{error}");
    }

    #[test]
    fn without_softhsm_the_error_says_how_to_install_it() {
        let error = choose(None, std::iter::empty()).unwrap_err().to_string();
        assert!(error.contains("apt-get install softhsm2"), "{error}");
    }

    #[test]
    fn the_configuration_names_the_token_folder() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path()).unwrap();
        write_conf(&layout).unwrap();
        let conf = std::fs::read_to_string(layout.softhsm2_conf()).unwrap();
        assert!(conf.contains(&format!("directories.tokendir = {}\n", layout.tokens().display())), "{conf}");
        assert!(!conf.contains('@'), "{conf}");
    }
}
