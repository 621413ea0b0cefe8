//! The command line: one file per verb. This is where the parts of the gateway are put together.
//!
//! Called by `main` only. Each verb has its arguments and a `run`; results go to standard output, everything else to standard error.
//! Invariants: exit codes are 0 (done), 1 (failed) and 2 (usage); every error says what to do next.

mod audit;
mod backup;
mod bench;
mod browser;
mod callers;
mod checkpoints;
mod config_file;
mod control_client;
mod data_folder;
mod dev;
mod doctor;
mod enrol;
mod enrolment;
mod gateway;
mod init;
mod jobs;
mod keys;
mod lock;
mod module_host;
mod modules;
mod notices;
mod operators;
mod output;
mod permits;
mod place;
mod restore;
mod secret;
mod serve;
mod sign;
mod slots;
mod store;
mod ticket_client;
mod time_stamps;
mod tls;
mod unlock;
mod verify;

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::{Parser, Subcommand, error::ErrorKind};

use crate::telemetry::{self, LogFormat};

/// Puts signing keys that live in USB tokens, smart cards, HSMs or SoftHSM behind HTTP.
#[derive(Debug, Parser)]
#[command(name = "sealgate", version, propagate_version = true, max_term_width = 100, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

const AFTER_HELP: &str = "Try it: `sealgate dev` makes a token, keys and certificates in ./.sealgate-dev and serves them.\n\n\
    Environment: SEALGATE_LOG is the log filter (`info`, `sealgate=debug`), SEALGATE_LOG_FORMAT `text` or `json`, SEALGATE_API_KEY the API key of commands that use a gateway.\n\
    Exit codes: 0 done, 1 failed, 2 wrong usage.";

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a token, keys and certificates for development, and serve them.
    Dev(dev::Args),
    /// Make a gateway on a token that is plugged in: configuration, TLS, first operator.
    Init(Box<init::Args>),
    /// Check a configuration.
    Config(config_file::Args),
    /// Run the gateway.
    Serve(serve::Args),
    /// Show the tokens that are plugged in and what state they are in.
    Slots(slots::Args),
    /// Show the keys on them and what they can do.
    Keys(keys::Args),
    /// Log a token in with its PIN, so that it signs.
    Unlock(unlock::Args),
    /// Log a token out, so that nothing is signed before the next unlock.
    Lock(lock::Args),
    /// Look at everything that a gateway needs, and print what is wrong and the command that mends it.
    Doctor(doctor::Args),
    /// Copy a gateway's state into a folder, while it runs or not.
    Backup(backup::Args),
    /// Put the state of a backup in place.
    Restore(restore::Args),
    /// Decide about signatures that callers ask for.
    Permits(permits::Args),
    /// List jobs, and settle those in doubt.
    Jobs(jobs::Args),
    /// Ask for certificates, and see and move certificate requests.
    Enrol(enrol::Args),
    /// Look after callers: who may sign, with which keys.
    Callers(callers::Args),
    /// Look after the people who log in to the console.
    Operators(operators::Args),
    /// Sign a file through a gateway.
    Sign(sign::Args),
    /// Verify a signature, without a gateway and without the network.
    Verify(verify::Args),
    /// Prove, export and pin the audit log.
    Audit(audit::Args),
    /// Measure signatures per second, straight on the token and through a gateway.
    Bench(bench::Args),
    /// Hold one PKCS#11 module for a gateway.
    #[command(hide = true)]
    ModuleHost(module_host::Args),
    /// Sign on the token alone for `bench`.
    #[command(name = bench::bare::VERB, hide = true)]
    BenchToken,
    /// Serve for `bench`, on another store.
    #[command(name = bench::trial::VERB, hide = true)]
    BenchGateway,
}

/// A mistake in how the program was called: it ends with exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Usage(String);

const FAILED: u8 = 1;
const USAGE: u8 = 2;

/// Runs the program with the arguments of the process.
#[must_use]
pub fn main() -> ExitCode {
    run(std::env::args_os())
}

fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => return clap_said(&error),
    };
    let done = run_verb(cli.verb);
    match done {
        Ok(code) => code,
        Err(error) => {
            output::note(format_args!("sealgate: {error:#}"));
            ExitCode::from(if error.is::<Usage>() { USAGE } else { FAILED })
        }
    }
}

fn run_verb(verb: Verb) -> anyhow::Result<ExitCode> {
    // The configuration of `serve` has a say in the log, which it starts itself.
    if !matches!(verb, Verb::Serve(_)) {
        start_log(verb.log_level(), LogFormat::Text)?;
    }
    verb.run()
}

/// Prints what clap has to say: help and version are results, everything else is wrong usage.
fn clap_said(error: &clap::Error) -> ExitCode {
    // Nothing can be done about a closed terminal.
    let _ = error.print();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
        _ => ExitCode::from(USAGE),
    }
}

impl Verb {
    fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Dev(args) => dev::run(&args)?,
            Self::Serve(args) => serve::run(&args)?,
            Self::Slots(args) => slots::run(&args)?,
            Self::Keys(args) => keys::run(&args)?,
            Self::Unlock(args) => unlock::run(args)?,
            Self::Lock(args) => lock::run(args)?,
            Self::Backup(args) => backup::run(&args)?,
            Self::Restore(args) => restore::run(&args)?,
            Self::Permits(args) => permits::run(args)?,
            Self::Jobs(args) => jobs::run(args)?,
            Self::Enrol(args) => enrol::run(args)?,
            Self::Callers(args) => callers::run(args)?,
            Self::Init(args) => init::run(&args)?,
            Self::Operators(args) => operators::run(args)?,
            Self::Sign(args) => sign::run(args)?,
            Self::Bench(args) => bench::run(&args)?,
            Self::BenchToken => bench::bare::run()?,
            Self::BenchGateway => bench::trial::run()?,
            Self::Config(args) => return config_file::run(&args),
            Self::Doctor(args) => return doctor::run(&args),
            Self::Audit(args) => return audit::run(&args),
            Self::Verify(args) => return verify::run(&args),
            Self::ModuleHost(args) => return Ok(module_host::run(&args)),
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Servers tell what they do; commands that answer and end speak up only when something is wrong. What doctor finds is in its report.
    const fn log_level(&self) -> &'static str {
        match self {
            Self::Dev(_) | Self::Serve(_) | Self::ModuleHost(_) => SERVER_LOG_LEVEL,
            Self::Slots(_)
            | Self::Keys(_)
            | Self::Unlock(_)
            | Self::Lock(_)
            | Self::Permits(_)
            | Self::Jobs(_)
            | Self::Enrol(_)
            | Self::Callers(_)
            | Self::Init(_)
            | Self::Config(_)
            | Self::Operators(_)
            | Self::Backup(_)
            | Self::Restore(_)
            | Self::Sign(_)
            | Self::Verify(_)
            | Self::Bench(_)
            | Self::BenchToken
            | Self::BenchGateway
            | Self::Audit(_) => "warn",
            Self::Doctor(_) => "off",
        }
    }
}

/// The level from which on servers are heard.
const SERVER_LOG_LEVEL: &str = "info";

fn start_log(level: &str, format: LogFormat) -> anyhow::Result<()> {
    telemetry::start(level, format).map_err(|error| Usage(error.to_string()).into())
}

/// The program that hosts modules in processes of their own: this one.
fn host_program() -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("the path of this program cannot be found; start it by its full path")
}

/// The runtime of commands that ask a gateway and end.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("the asynchronous runtime did not start")
}

/// The runtime of a gateway.
fn server_runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("the asynchronous runtime did not start")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_of_the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
