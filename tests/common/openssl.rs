//! The `openssl` program, for tests that want somebody else's opinion. A missing program fails the test.

use std::{
    ffi::OsStr,
    process::{Command, Output},
};

/// Runs `openssl` with these arguments and gives back how it ended.
pub(crate) fn openssl<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Output {
    Command::new("openssl")
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("`openssl` does not start ({error}); install it: apt-get install openssl"))
}

/// Runs `openssl`, which must succeed, and gives back what it printed.
pub(crate) fn openssl_ok<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Vec<u8> {
    let arguments = arguments.into_iter().map(|argument| argument.as_ref().to_owned()).collect::<Vec<_>>();
    let output = openssl(&arguments);
    assert!(output.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}
