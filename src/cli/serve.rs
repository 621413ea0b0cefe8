//! `sealgate serve`: the gateway.

use std::path::PathBuf;

use super::{gateway::Gateway, output, server_runtime};
use crate::{config::Config, shutdown::StopSignals};

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
