//! The `sealgate` program.

fn main() -> std::process::ExitCode {
    sealgate::token::host::child_main()
}
