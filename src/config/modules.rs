//! `[[module]]`: the PKCS#11 modules that the gateway loads.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use super::{
    Unique,
    mistakes::Mistakes,
    raw::{Item, RawModule},
};
use crate::domain::ids::ModuleName;

/// Where the code of a module runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// In a child process of its own.
    Process,
    /// In the gateway's process.
    Thread,
}

/// The value of an environment variable. It may be a secret (some modules take their PIN so), so `Debug` shows nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct EnvValue(pub String);

impl fmt::Debug for EnvValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EnvValue(…)")
    }
}

/// A PKCS#11 module to load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleSettings {
    /// Its name in URIs and logs.
    pub name: ModuleName,
    /// The shared library.
    pub path: PathBuf,
    /// Environment variables of its process, beside the gateway's own.
    pub env: BTreeMap<String, EnvValue>,
    /// Where it runs.
    pub isolation: Isolation,
    /// `CK_C_INITIALIZE_ARGS.pReserved`: what modules such as NSS want to be told.
    pub init_args: Option<String>,
    /// It may use the operating system's locks (`CKF_OS_LOCKING_OK`).
    pub os_locking: bool,
}

const ISOLATIONS: &[(&str, Isolation)] = &[("process", Isolation::Process), ("thread", Isolation::Thread)];

pub(super) fn check(raw: Vec<Item<RawModule>>, base: &Path, mistakes: &mut Mistakes) -> Vec<ModuleSettings> {
    let mut names = Unique::new();
    let mut in_process = Unique::new();
    let checked = raw.into_iter().filter_map(|item| one(item, base, &mut names, &mut in_process, mistakes));
    checked.collect()
}

fn one(
    item: Item<RawModule>,
    base: &Path,
    names: &mut Unique<String>,
    in_process: &mut Unique<PathBuf>,
    mistakes: &mut Mistakes,
) -> Option<ModuleSettings> {
    let Item { at, raw } = item;
    names.check(raw.name.clone(), &at, "name", mistakes);
    let name = mistakes.parse::<ModuleName>(&at, "name", &raw.name);
    let path = base.join(&raw.path);
    if !path.is_file() {
        mistakes.note(&at, "path", format!("there is no file {}; install the module or correct the path", path.display()));
    }
    let isolation = mistakes.choose(&at, "isolation", raw.isolation.as_deref().unwrap_or("process"), ISOLATIONS);
    if isolation == Some(Isolation::Thread) {
        if !raw.env.is_empty() {
            mistakes.note(&at, "env", "a module in the gateway's own process shares its environment; use `isolation = \"process\"`");
        }
        // Two names may be one file: the library would be initialised once for both.
        let file = path.canonicalize().unwrap_or_else(|_| path.clone());
        if !in_process.0.insert(file) {
            let what = "another module with `isolation = \"thread\"` is this same library, which one process can hold only once; use \
                        `isolation = \"process\"`";
            mistakes.note(&at, "path", what);
        }
    }
    for variable in raw.env.keys().filter(|variable| variable.is_empty() || variable.contains(['=', '\0'])) {
        mistakes.note(&at, "env", format!("`{}` is not the name of a variable", variable.escape_debug()));
    }
    for (variable, _) in raw.env.iter().filter(|(_, value)| value.contains('\0')) {
        mistakes.note(&at, "env", format!("the value of `{}` has a zero byte", variable.escape_debug()));
    }
    let env = raw.env.into_iter().map(|(variable, value)| (variable, EnvValue(value))).collect();
    Some(ModuleSettings { name: name?, path, env, isolation: isolation?, init_args: raw.init_args, os_locking: raw.os_locking })
}
