//! `sealgate module-host`: the process around one PKCS#11 module. The gateway starts it; it is of no use to anybody else.

use std::process::ExitCode;

use crate::token::host;

/// Serves the gateway on standard input until it hangs up.
pub(super) fn run() -> ExitCode {
    host::child_main()
}
