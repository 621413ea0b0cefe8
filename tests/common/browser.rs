//! Scripts of `tests/browser` in headless Chromium, driven by Node.js.

use std::{
    path::Path,
    process::{Command, Output, Stdio},
};

/// Runs a script of `tests/browser` to its end, at most five minutes, and returns what it printed.
///
/// `scripts/setup.sh --tests` installs what it needs; a test whose tool is missing fails and says so.
pub fn run(script: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new("timeout");
    output(command.args(["--kill-after=10", "300"]), script, arguments)
}

/// The same, where the script must end well; returns its standard output.
pub fn run_ok(script: &str, arguments: &[&str]) -> String {
    ended_well(script, &run(script, arguments))
}

/// The same in a Chromium that an administrator has given these policies, as Debian's reads them: from files below `/etc/chromium`.
///
/// Only this script sees them: it has that folder for itself, in a mount namespace of its own.
pub fn run_ok_with_policies(policies: &serde_json::Value, script: &str, arguments: &[&str]) -> String {
    let prepare = r#"mount -t tmpfs policies /etc/chromium && mkdir -p /etc/chromium/policies/managed
        printf %s "$1" >/etc/chromium/policies/managed/test.json && shift && exec "$@""#;
    let mut command = Command::new("timeout");
    command.args(["--kill-after=10", "300", "unshare", "--mount"]);
    // Whoever is not root becomes it in a namespace of users.
    if !rustix::process::getuid().is_root() {
        command.arg("--map-root-user");
    }
    command.args(["bash", "-euc", prepare, "bash", &policies.to_string()]);
    ended_well(script, &output(&mut command, script, arguments))
}

fn output(command: &mut Command, script: &str, arguments: &[&str]) -> Output {
    let home = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser");
    assert!(home.join("node_modules/playwright-core").is_dir(), "playwright-core is not installed; run: scripts/browser-env.sh");
    command.arg("node").arg(home.join(script)).args(arguments).stdin(Stdio::null());
    command.output().expect("timeout, unshare and node; run: scripts/setup.sh --tests")
}

fn ended_well(script: &str, output: &Output) -> String {
    let told = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{script} failed:\n{}{}", told(&output.stdout), told(&output.stderr));
    told(&output.stdout)
}
