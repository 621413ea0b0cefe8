//! What a SoftHSM module reads: its configuration file and its token folder. SoftHSM itself says little when one is missing.

use std::{
    env, fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::{
    finding::{Findings, Fix},
    shell::word,
    site::{Site, variable},
};
use crate::config::ModuleSettings;

const CHECK: &str = "softhsm";
const VARIABLE: &str = "SOFTHSM2_CONF";
const WHY: &str = "the module cannot start, or shows no tokens";

/// Looks at every SoftHSM module.
pub(super) fn examine(site: &Site, findings: &mut Findings) {
    for module in site.config.modules.iter().filter(|module| is_softhsm(module)) {
        let Some(conf) = conf_of(module) else { continue };
        one(&conf, findings);
    }
}

/// Whether it is SoftHSM, or a spy before it.
fn is_softhsm(module: &ModuleSettings) -> bool {
    let named = |path: &Path| path.to_string_lossy().contains("softhsm");
    named(&module.path) || variable(module, VARIABLE).is_some()
}

fn conf_of(module: &ModuleSettings) -> Option<PathBuf> {
    let own = env::var_os("HOME").map(|home| Path::new(&home).join(".config/softhsm2/softhsm2.conf"));
    let usual = own.into_iter().chain(["/etc/softhsm/softhsm2.conf", "/etc/softhsm2.conf"].map(PathBuf::from));
    variable(module, VARIABLE).map(PathBuf::from).or_else(|| usual.into_iter().find(|place| place.is_file()))
}

fn one(conf: &Path, findings: &mut Findings) {
    let shown = conf.display();
    let text = match fs::read_to_string(conf) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return findings.fault(CHECK, format!("there is no {shown}"), WHY, write_conf(conf));
        }
        Err(error) => {
            let fix = Fix::command(format!("chmod u+r {}", word(conf)));
            return findings.fault(CHECK, format!("{shown} cannot be read: {error}"), WHY, fix);
        }
    };
    match token_folder(&text) {
        Some(folder) => examine_folder(&folder, conf, findings),
        None => findings.fault(CHECK, format!("{shown} names no `directories.tokendir`"), WHY, write_conf(conf)),
    }
}

fn token_folder(text: &str) -> Option<PathBuf> {
    let value =
        |line: &str| line.trim().strip_prefix("directories.tokendir")?.trim_start().strip_prefix('=').map(|value| value.trim().to_owned());
    text.lines().find_map(value).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// Names the folder beside the configuration, where tokens usually are.
fn write_conf(conf: &Path) -> Fix {
    let tokens = conf.parent().unwrap_or(Path::new(".")).join("tokens");
    if !tokens.is_dir() {
        return Fix::by_hand(format!("write {} with a line `directories.tokendir = FOLDER`", conf.display()));
    }
    Fix::command(format!(r"printf 'directories.tokendir = %s\nobjectstore.backend = file\n' {} >>{}", word(tokens), word(conf)))
}

fn examine_folder(folder: &Path, conf: &Path, findings: &mut Findings) {
    let shown = folder.display();
    let Ok(metadata) = fs::metadata(folder) else {
        let beside = conf.parent().unwrap_or(Path::new(".")).join("tokens");
        let fix = if beside.is_dir() {
            // The folder was moved as a whole, and the configuration with it.
            Fix::command(format!(
                "sed -i {} {}",
                word(format!("s|^directories.tokendir.*|directories.tokendir = {}|", beside.display())),
                word(conf)
            ))
        } else {
            Fix::by_hand(format!("put the token folder back to {shown}, or correct {}", conf.display()))
        };
        return findings.fault(CHECK, format!("there is no token folder {shown}"), WHY, fix);
    };
    let tokens = fs::read_dir(folder).map_or(0, |entries| entries.flatten().filter(|entry| entry.path().is_dir()).count());
    if metadata.mode() & 0o700 != 0o700 || metadata.mode() & 0o077 != 0 {
        let why = "the tokens stand there: others must not reach them, the gateway must";
        let fix = Fix::command(format!("chmod 700 {}", word(folder)));
        findings.fault(CHECK, format!("the token folder {shown} has the mode {:o}", metadata.mode() & 0o7777), why, fix);
    } else if tokens == 0 {
        let fix = Fix::by_hand(format!("put the tokens back into {shown}, or make one: softhsm2-util --init-token --free --label NAME"));
        findings.fault(CHECK, format!("the token folder {shown} is empty"), WHY, fix);
    } else {
        findings.ok(CHECK, format!("{}, tokens: {tokens}", conf.display()));
    }
}
