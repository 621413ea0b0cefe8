//! Scripts of `tests/browser` in headless Chromium, driven by Node.js.

use std::{
    path::Path,
    process::{Command, Output, Stdio},
};

/// Runs a script of `tests/browser` to its end, at most five minutes, and returns what it printed.
///
/// `scripts/setup.sh --tests` installs what it needs; a test whose tool is missing fails and says so.
pub fn run(script: &str, arguments: &[&str]) -> Output {
    let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser");
    assert!(home.join("node_modules/playwright-core").is_dir(), "playwright-core is not installed; run: scripts/browser-env.sh");
    let mut command = Command::new("timeout");
    command.args(["--kill-after=10", "300", "node"]).arg(home.join(script)).args(arguments).stdin(Stdio::null());
    command.output().expect("timeout and node; run: scripts/setup.sh --tests")
}

/// The same, where the script must end well; returns its standard output.
pub fn run_ok(script: &str, arguments: &[&str]) -> String {
    let output = run(script, arguments);
    let told = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{script} failed:\n{}{}", told(&output.stdout), told(&output.stderr));
    told(&output.stdout)
}
