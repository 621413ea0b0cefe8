//! `sealgate serve`: the gateway.

use std::path::PathBuf;

use super::{SERVER_LOG_LEVEL, gateway::Gateway, output, server_runtime, start_log};
use crate::{
    config::{self, Config},
    shutdown::StopSignals,
    telemetry::LogFormat,
};

/// Arguments of `serve`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The configuration.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// Serves until a signal.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let config = Config::load(&args.config)?;
    start_log(SERVER_LOG_LEVEL, log_format(config.log_format))?;
    let runtime = server_runtime()?;
    let served = runtime.block_on(async {
        let signals = StopSignals::install()?;
        let gateway = Gateway::start(&config).await?;
        for address in gateway.addresses() {
            output::note(format_args!("sealgate: serving on http://{address}"));
        }
        gateway.run(signals, || Ok(())).await;
        Ok(())
    });
    // A call into a module that never returns must not keep the process.
    runtime.shutdown_background();
    served
}

/// The same choice in the words of those who log.
const fn log_format(configured: config::LogFormat) -> LogFormat {
    match configured {
        config::LogFormat::Text => LogFormat::Text,
        config::LogFormat::Json => LogFormat::Json,
    }
}
