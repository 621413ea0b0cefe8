//! `sealgate config check`: whether a gateway can be started on a configuration, without starting one.

use std::{fmt::Display, process::ExitCode};

use serde::Serialize;

use super::{FAILED, callers, notices, output, place::GatewayArgs, tls};
use crate::config::{Config, ConfigError};

/// Arguments of `config`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// List every mistake of a configuration, and start nothing. Exit code 1 if there is one.
    Check(CheckArgs),
}

#[derive(Debug, clap::Args)]
struct CheckArgs {
    #[command(flatten)]
    gateway: GatewayArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What was found.
#[derive(Serialize)]
struct Report {
    config: String,
    mistakes: Vec<String>,
}

/// Checks.
pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let What::Check(args) = &args.what;
    let file = args.gateway.config_file()?;
    let mistakes = match Config::load(&file) {
        Ok(config) => beyond_the_file(&config),
        Err(ConfigError::Mistakes(errors)) => errors.mistakes().iter().map(ToString::to_string).collect(),
        Err(error) => return Err(error.into()),
    };
    let shown = file.display();
    if args.json {
        output::json(&Report { config: shown.to_string(), mistakes: mistakes.clone() })?;
    } else if mistakes.is_empty() {
        output::line(format_args!("{shown} is sound; `sealgate doctor` looks at the machine and the tokens, too"))?;
    } else {
        mistakes.iter().try_for_each(output::line)?;
    }
    Ok(if mistakes.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

/// What else would stop the start: what is in the files that the configuration names, and what its parts say of each other.
fn beyond_the_file(config: &Config) -> Vec<String> {
    let said = |error: anyhow::Error| format!("{error:#}");
    let listeners = config.listeners.iter().filter_map(|listener| listener.tls.as_ref());
    let tls = listeners.filter_map(|settings| tls::load(settings).err().map(|error| in_words(&error)));
    let callers = callers::check(config).err().map(said);
    let webhooks = config.webhooks.iter().filter_map(|webhook| notices::webhook(webhook).err().map(said));
    tls.chain(callers).chain(webhooks).collect()
}

fn in_words(error: &impl Display) -> String {
    format!("`listener`: {error}")
}
