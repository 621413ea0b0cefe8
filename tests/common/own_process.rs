//! A test in a process of its own: the test binary is started again, for that one test and with another environment.
//!
//! ```ignore
//! #[test]
//! fn a_module_is_loaded() {
//!     own_process::run(
//!         test_name!(),
//!         |directory| SoftHsm::in_directory(directory).init_token("t").environment(),
//!         || { /* in here SOFTHSM2_CONF is set */ },
//!     );
//! }
//! ```

use std::{
    env,
    ffi::OsString,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Set inside: a file that the test makes when it is done.
const DONE_FILE: &str = "SEALGATE_TEST_DONE_FILE";
/// Set inside: the test's own directory.
const DIRECTORY: &str = "SEALGATE_TEST_DIRECTORY";

/// The name of the test function it stands in, as the test binary's `--exact` wants it.
#[macro_export]
macro_rules! test_name {
    () => {{
        fn here() {}
        let path = std::any::type_name_of_val(&here);
        let path = path.strip_suffix("::here").expect("the name of a function in a function");
        path.split_once("::").expect("a path that starts with the crate").1
    }};
}

/// Variables to be set for a test.
pub type Environment = Vec<(&'static str, OsString)>;

/// What [`run_apart`] does before the test starts: a network with nothing but itself, and an empty /run.
const SETTLE_IN: &str = r#"ip link set lo up; mount -t tmpfs -o mode=755 tmpfs /run; "$@""#;

/// Runs `body` in a process of its own, with what `environment` makes set. A failure in there fails the test out here.
///
/// `environment` is called outside only. It gets a directory that lives until the inner test is over.
pub fn run(test: &str, environment: impl FnOnce(&Path) -> Environment, body: impl FnOnce()) {
    run_by(Command::new(this_binary()), test, environment, body);
}

/// Like [`run`], and also apart from the machine: with a network, a `/run` and process numbers of its own.
///
/// Daemons with fixed ports and sockets (`pcscd`, `swtpm`) so run once for each test, reach nothing outside and are reached by nothing, and
/// end with the test. It needs Linux namespaces: root, or a kernel that gives them to users.
pub fn run_apart(test: &str, environment: impl FnOnce(&Path) -> Environment, body: impl FnOnce()) {
    let mut unshare = Command::new("unshare");
    let is_root = fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    if !is_root {
        unshare.args(["--user", "--map-root-user"]);
    }
    unshare.args(["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--", "sh", "-euc", SETTLE_IN, "sh"]);
    unshare.arg(this_binary());
    run_by(unshare, test, environment, body);
}

fn this_binary() -> PathBuf {
    env::current_exe().expect("the test binary")
}

fn run_by(mut command: Command, test: &str, environment: impl FnOnce(&Path) -> Environment, body: impl FnOnce()) {
    if let Some(done) = env::var_os(DONE_FILE) {
        body();
        fs::write(done, "").expect("a file that says that the test ran");
        return;
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let done = directory.path().join("test-is-done");
    let output = command
        .args([test, "--exact", "--nocapture", "--include-ignored", "--test-threads=1"])
        .env(DONE_FILE, &done)
        .env(DIRECTORY, directory.path())
        .envs(environment(directory.path()))
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{command:?} does not start ({error}); run scripts/real-modules.sh"));
    let texts = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(output.status.success(), "{test}, in its own process: {}\n{}\n{}", output.status, texts[0], texts[1]);
    // Without this a wrong test name would run no test at all and look like success.
    assert!(done.exists(), "{test} did not run in its own process:\n{}\n{}", texts[0], texts[1]);
}

/// Inside: the directory that `environment` was given.
pub fn directory() -> PathBuf {
    env::var_os(DIRECTORY).expect("a test in a process of its own").into()
}
