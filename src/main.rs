//! The `sealgate` program: arguments in, exit code out.

use std::process::ExitCode;

fn main() -> ExitCode {
    sealgate::cli::main()
}
