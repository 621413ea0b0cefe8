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
    path::Path,
    process::{Command, Stdio},
};

/// Set inside: a file that the test makes when it is done.
const DONE_FILE: &str = "SEALGATE_TEST_DONE_FILE";

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

/// Runs `body` in a process of its own, with what `environment` makes set. A failure in there fails the test out here.
///
/// `environment` is called outside only. It gets a directory that lives until the inner test is over.
pub fn run(test: &str, environment: impl FnOnce(&Path) -> Environment, body: impl FnOnce()) {
    if let Some(done) = env::var_os(DONE_FILE) {
        body();
        std::fs::write(done, "").expect("a file that says that the test ran");
        return;
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let done = directory.path().join("test-is-done");
    let output = Command::new(env::current_exe().expect("the test binary"))
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(DONE_FILE, &done)
        .envs(environment(directory.path()))
        .stdin(Stdio::null())
        .output()
        .expect("the test binary starts again");
    let texts = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(output.status.success(), "{test}, in its own process: {}\n{}\n{}", output.status, texts[0], texts[1]);
    // Without this a wrong test name would run no test at all and look like success.
    assert!(done.exists(), "{test} did not run in its own process:\n{}\n{}", texts[0], texts[1]);
}
