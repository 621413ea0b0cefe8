//! The fence around files: Landlock, so that a module sees its libraries, what the system's own libraries read, and what it was given.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, BitFlags, CompatLevel, Compatible as _, PathBeneath, PathFd, Ruleset, RulesetAttr as _, RulesetCreated,
    RulesetCreatedAttr as _, RulesetStatus,
};

use crate::domain::fence::FileFence;

/// The least that the kernel must know. Before the third version a file that may not be written could still be emptied (`truncate`).
const NEEDED: ABI = ABI::V3;

/// What later kernels know beside it, and this fence uses if they do: orders to devices (`ioctl`).
const WANTED: ABI = ABI::V5;

/// What every program may read: libraries, and what the C library, OpenSSL and name look-ups read. Those that a machine lacks are left out.
const READABLE: &[&str] = &[
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/usr/local/lib64",
    "/etc/ld.so.cache",
    "/etc/ld.so.preload",
    "/etc/localtime",
    "/usr/share/zoneinfo",
    "/etc/nsswitch.conf",
    "/etc/passwd",
    "/etc/group",
    "/etc/hosts",
    "/etc/host.conf",
    "/etc/resolv.conf",
    "/etc/services",
    "/etc/ssl/openssl.cnf",
    "/etc/pki/tls/openssl.cnf",
    "/etc/crypto-policies",
    "/proc/self",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/sys/devices/system/cpu",
    "/dev/zero",
    "/dev/random",
    "/dev/urandom",
];

/// What every program may also write.
const WRITABLE: &[&str] = &["/dev/null"];

/// Confines the calling thread, and all that it will start, to the files that the fence leaves and those that loading `module` needs.
pub(super) fn confine(fence: &FileFence, module: &Path) -> Result<(), String> {
    let mut rules = begin()?;
    let search_path = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    // An empty entry is the current folder, which nobody means.
    let searched = std::env::split_paths(&search_path).filter(|path| !path.as_os_str().is_empty());
    for path in READABLE.iter().map(PathBuf::from).chain(searched).filter(|path| path.exists()) {
        rules = allow(rules, &path, reading())?;
    }
    for path in WRITABLE.iter().map(Path::new).filter(|path| path.exists()) {
        rules = allow(rules, path, reading() | writing())?;
    }
    // A library that is not there is told of by the loader.
    if module.exists() {
        rules = allow(rules, module, reading())?;
    }
    for path in &fence.readable {
        rules = allow(rules, path, reading())?;
    }
    for path in &fence.writable {
        rules = allow(rules, path, reading() | writing())?;
    }
    match rules.restrict_self() {
        Ok(status) if status.no_new_privs && status.ruleset != RulesetStatus::NotEnforced => Ok(()),
        Ok(_) => Err(NO_LANDLOCK.to_owned()),
        Err(error) => Err(format!("{NO_LANDLOCK} ({error})")),
    }
}

const NO_LANDLOCK: &str = "`readable` and `writable` need Landlock as of Linux 6.2, with `landlock` in /sys/kernel/security/lsm, which this \
                           system does not grant; take them out of the module's `fence`, or run it on a system that does";

fn begin() -> Result<RulesetCreated, String> {
    let handled = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(NEEDED))
        .map(|rules| rules.set_compatibility(CompatLevel::BestEffort))
        .and_then(|rules| rules.handle_access(AccessFs::from_all(WANTED)))
        .and_then(Ruleset::create);
    handled.map_err(|error| format!("{NO_LANDLOCK} ({error})"))
}

/// Never running: a module that wants to start programs does not fit into this fence.
fn reading() -> BitFlags<AccessFs> {
    AccessFs::ReadFile | AccessFs::ReadDir
}

fn writing() -> BitFlags<AccessFs> {
    AccessFs::from_write(WANTED) & !(AccessFs::MakeChar | AccessFs::MakeBlock)
}

fn allow(rules: RulesetCreated, path: &Path, access: BitFlags<AccessFs>) -> Result<RulesetCreated, String> {
    let refused = |why: String| format!("{}: {why}; correct `readable` and `writable` of its `fence`", path.display());
    let opened = PathFd::new(path).map_err(|error| refused(error.to_string()))?;
    // What only folders can be asked for must not be granted on a file.
    let access = if path.is_dir() { access } else { access & AccessFs::from_file(WANTED) };
    rules.add_rule(PathBeneath::new(opened, access)).map_err(|error| refused(error.to_string()))
}
