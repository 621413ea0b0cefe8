//! `[[module]]`: the PKCS#11 modules that the gateway loads.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    Unique,
    mistakes::{FileFault, Mistakes, Place},
    raw::{Item, RawFence, RawModule},
};
use crate::domain::{
    fence::{Fence, FileFence},
    ids::ModuleName,
};

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
    /// What its process is denied.
    pub fence: Fence,
    /// `CK_C_INITIALIZE_ARGS.pReserved`: what modules such as NSS want to be told.
    pub init_args: Option<String>,
    /// It may use the operating system's locks (`CKF_OS_LOCKING_OK`).
    pub os_locking: bool,
    /// Whether it lists tokens that come after it was started; `None`: as known of this module.
    pub sees_new_tokens: Option<bool>,
    /// After how long an idle session of it ends; `None`: as known.
    pub idle_limit: Option<Duration>,
    /// The pause it wants between opening a session and the login; `None`: as known.
    pub settle: Option<Duration>,
    /// Whether its signatures wait for a person's touch; `None`: as known.
    pub waits_for_touch: Option<bool>,
    /// Whether all its slots share one thread; `None`: as known.
    pub one_thread: Option<bool>,
    /// After how long its calls are taken for ones that never return.
    pub limits: CallLimits,
}

/// After how long a call into a module is taken for one that never returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallLimits {
    /// One signature.
    pub sign: Duration,
    /// Making a key pair.
    pub key_generation: Duration,
    /// A person at a PIN pad or a touch button.
    pub person: Duration,
    /// Everything else.
    pub other: Duration,
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
        let what = format!("there is no file {}; install the module or correct the path", path.display());
        mistakes.note_file(&at, "path", what, FileFault::ModuleMissing(path.clone()));
    }
    let isolation = mistakes.choose(&at, "isolation", raw.isolation.as_deref().unwrap_or("process"), ISOLATIONS);
    if isolation == Some(Isolation::Thread) {
        check_shared_process(&raw, &path, &at, in_process, mistakes);
    }
    let fence = raw.fence.as_ref().map(|raw| fence(raw, isolation, base, &at, mistakes));
    check_env(&raw.env, &at, mistakes);
    let limits = limits(&raw, &at, mistakes);
    let idle_limit = raw.idle_limit_seconds.map(|seconds| mistakes.bounded(&at, "idle_limit_seconds", Some(seconds), 0, (2, 24 * 3600)));
    let settle = raw.settle_millis.map(|millis| mistakes.bounded(&at, "settle_millis", Some(millis), 0, (0, 10_000)));
    let env = raw.env.into_iter().map(|(variable, value)| (variable, EnvValue(value))).collect();
    Some(ModuleSettings {
        name: name?,
        path,
        env,
        isolation: isolation?,
        fence: fence.unwrap_or_default(),
        init_args: raw.init_args,
        os_locking: raw.os_locking,
        sees_new_tokens: raw.sees_new_tokens,
        idle_limit: idle_limit.map(Duration::from_secs),
        settle: settle.map(Duration::from_millis),
        waits_for_touch: raw.waits_for_touch,
        one_thread: raw.one_thread,
        limits,
    })
}

/// A module in the gateway's own process shares its environment, and its memory with itself if it is loaded twice.
fn check_shared_process(raw: &RawModule, path: &Path, at: &Place, in_process: &mut Unique<PathBuf>, mistakes: &mut Mistakes) {
    if !raw.env.is_empty() {
        mistakes.note(at, "env", "a module in the gateway's own process shares its environment; use `isolation = \"process\"`");
    }
    // Two names may be one file: the library would be initialised once for both.
    let file = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    if !in_process.0.insert(file) {
        let what = "another module with `isolation = \"thread\"` is this same library, which one process can hold only once; use \
                    `isolation = \"process\"`";
        mistakes.note(at, "path", what);
    }
}

fn fence(raw: &RawFence, isolation: Option<Isolation>, base: &Path, at: &Place, mistakes: &mut Mistakes) -> Fence {
    let paths = |raw: &Option<Vec<PathBuf>>| raw.iter().flatten().map(|path| base.join(path)).collect();
    let files = (raw.readable.is_some() || raw.writable.is_some())
        .then(|| FileFence { readable: paths(&raw.readable), writable: paths(&raw.writable) });
    let fence = Fence { no_network: raw.no_network, files, restrict_system_calls: raw.restrict_system_calls };
    if isolation == Some(Isolation::Thread) {
        let what = "a fence stands around a process, and this module has none of its own: it would fence in the gateway; use \
                    `isolation = \"process\"`, or take the fence out";
        mistakes.note(at, "fence", what);
    }
    if fence.is_open() {
        let what = "this fence denies nothing; write `no_network = true`, `restrict_system_calls = true`, or the paths that are left to the \
                    module in `readable` and `writable`, or take it out";
        mistakes.note(at, "fence", what);
    }
    if cfg!(not(target_os = "linux")) {
        mistakes.note(at, "fence", "fences need Linux; take it out");
    }
    fence
}

fn check_env(env: &BTreeMap<String, String>, at: &Place, mistakes: &mut Mistakes) {
    for (variable, value) in env {
        if variable.is_empty() || variable.contains(['=', '\0']) {
            mistakes.note(at, "env", format!("`{}` is not the name of a variable", variable.escape_debug()));
        }
        if value.contains('\0') {
            mistakes.note(at, "env", format!("the value of `{}` has a zero byte", variable.escape_debug()));
        }
    }
}

fn limits(raw: &RawModule, at: &Place, mistakes: &mut Mistakes) -> CallLimits {
    let mut limit = |field, raw, default| Duration::from_secs(mistakes.bounded(at, field, raw, default, (1, 3600)));
    CallLimits {
        sign: limit("sign_limit_seconds", raw.sign_limit_seconds, 30),
        key_generation: limit("key_generation_limit_seconds", raw.key_generation_limit_seconds, 300),
        person: limit("person_limit_seconds", raw.person_limit_seconds, 300),
        other: limit("call_limit_seconds", raw.call_limit_seconds, 30),
    }
}
