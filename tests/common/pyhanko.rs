//! pyHanko as a judge of CMS signatures: a second opinion beside OpenSSL's. A missing installation fails the test.

use std::{
    env,
    ffi::OsStr,
    path::Path,
    process::{Command, Output},
};

/// Runs `tests/pyhanko/verify_cms.py` on a manifest; it says there what stands in one.
pub fn verify(manifest: &Path) -> Output {
    run("verify_cms.py", [manifest.as_os_str()])
}

/// Runs a script of `tests/pyhanko`.
pub fn run<'a>(script: &str, arguments: impl IntoIterator<Item = &'a OsStr>) -> Output {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    let python = root.join(target).join("pyhanko-venv/bin/python");
    assert!(python.exists(), "pyHanko is not installed; run scripts/python-env.sh");
    Command::new(python).arg(root.join("tests/pyhanko").join(script)).args(arguments).output().unwrap()
}
