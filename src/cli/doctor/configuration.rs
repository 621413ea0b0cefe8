//! The configuration itself: every mistake is a finding, and what is wrong with a file that it names comes with a command.

use std::{fs, path::Path};

use super::{
    finding::{Findings, Fix},
    shell,
    site::{self, Site},
};
use crate::config::{Config, ConfigError, FileFault, Mistake};

const CHECK: &str = "configuration";
const WHY: &str = "the gateway does not start with it";

/// Where distributions put PKCS#11 modules.
const MODULE_FOLDERS: &[&str] = &[
    "/usr/lib/softhsm",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu/pkcs11",
    "/usr/lib/x86_64-linux-gnu/softhsm",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu/pkcs11",
    "/usr/lib/aarch64-linux-gnu/softhsm",
    "/usr/lib64",
    "/usr/lib64/pkcs11",
    "/usr/lib64/softhsm",
    "/usr/lib",
    "/usr/lib/pkcs11",
    "/usr/local/lib",
    "/usr/local/lib/softhsm",
];

/// Reads the configuration; `None` if there is nothing further to examine.
pub(super) fn examine(file: &Path, findings: &mut Findings) -> Option<Site> {
    let text = fs::read_to_string(file).unwrap_or_default();
    match Config::load(file) {
        Ok(config) => {
            let (modules, tokens, keys) = (config.modules.len(), config.token_policies.len(), config.keys.len());
            findings.ok(CHECK, format!("{}: modules: {modules}, tokens: {tokens}, keys: {keys}", file.display()));
            Some(Site { config, file: file.to_owned(), text })
        }
        Err(ConfigError::Unreadable { file, source }) => {
            let fix = Fix::by_hand("name a configuration that this user can read with --config FILE");
            findings.fault(CHECK, format!("{} cannot be read: {source}", file.display()), WHY, fix);
            None
        }
        Err(ConfigError::Mistakes(errors)) => {
            errors.mistakes().iter().for_each(|mistake| note(mistake, file, &text, findings));
            findings.warning(
                CHECK,
                "the rest was not examined",
                "it depends on what the configuration says",
                Fix::by_hand("mend the configuration, then run doctor again"),
            );
            None
        }
    }
}

fn note(mistake: &Mistake, file: &Path, text: &str, findings: &mut Findings) {
    let what = format!("{}: {mistake}", file.display());
    match mistake.file_fault() {
        Some(FileFault::PinExposed(pin)) => {
            let fix = Fix::command(format!("chmod 600 {}", shell::word(pin)));
            findings.fault("pin-file", what, "whoever can read the PIN and reach the token can sign", fix);
        }
        Some(FileFault::PinMissing(pin)) => {
            findings.fault("pin-file", what, WHY, Fix::command(shell::write_pin(pin, None)));
        }
        Some(FileFault::TlsKeyExposed(key)) => {
            let fix = Fix::command(format!("chmod o= {}", shell::word(key)));
            findings.fault("tls", what, "whoever can read the key can pretend to be this gateway", fix);
        }
        Some(FileFault::ModuleMissing(module)) => {
            let fix = found_elsewhere(module, file, text).or_else(|| install(module, false));
            findings.fault("module", what, WHY, fix.unwrap_or_else(|| Fix::by_hand("install the module, or correct `path`")));
        }
        None => findings.fault(CHECK, what, WHY, Fix::by_hand(format!("correct {}", file.display()))),
    }
}

/// Has the configuration name the same library where a distribution has put it.
pub(super) fn found_elsewhere(module: &Path, file: &Path, text: &str) -> Option<Fix> {
    let name = module.file_name()?;
    let mut places = MODULE_FOLDERS.iter().map(|folder| Path::new(folder).join(name));
    let found = places.find(|place| place.is_file() && place != module)?;
    let folder = file.parent().unwrap_or(Path::new(""));
    let relative = module.strip_prefix(folder).ok();
    // As written: whole, or from the configuration's folder.
    let written = [Some(module), relative].into_iter().flatten().map(|path| format!("\"{}\"", path.display()));
    written.into_iter().find_map(|old| site::replace(file, text, &old, &format!("\"{}\"", found.display())))
}

/// Installs the package that a well-known module comes from.
pub(super) fn install(module: &Path, again: bool) -> Option<Fix> {
    let name = module.file_name()?.to_string_lossy();
    let command = if name.contains("softhsm2") {
        shell::install("softhsm2 libsofthsm2", "softhsm", "softhsm", again)
    } else if name.contains("opensc") || name.contains("onepin") {
        shell::install("opensc-pkcs11", "opensc", "opensc", again)
    } else {
        return None;
    };
    Some(Fix::command(command))
}
