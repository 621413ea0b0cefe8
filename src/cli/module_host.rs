//! `sealgate module-host`: the process around one PKCS#11 module. The gateway starts it; it is of no use to anybody else.

use std::process::ExitCode;

use crate::token::host;

/// Arguments of `module-host`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The module's name, for whoever reads the list of processes; the child hears the rest from its gateway.
    #[arg(value_name = "NAME")]
    _name: Option<String>,
}

/// Serves the gateway on standard input until it hangs up.
pub(super) fn run(_: &Args) -> ExitCode {
    host::child_main()
}
