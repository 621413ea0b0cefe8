//! How many signatures a second each candidate library verifies, on one thread.
//!
//! Keys and signatures are made by OpenSSL at the start. Before anything is timed, every library must accept every
//! signature and refuse every altered one. Libraries take turns in short slices, round after round, so that noise
//! hits all alike, and a slice is counted in CPU time of the thread, so that a busy machine costs no library its turn.
//! Ratios within one run are the result; the absolute figures belong to the machine.

use std::time::Duration;

use anyhow::Result;
use clap::Parser;

mod library;
mod measure;
mod report;
mod sample;

/// Measures signature verification with ring, aws-lc-rs, OpenSSL and RustCrypto.
#[derive(Parser)]
struct Cli {
    /// Times that every library gets its turn.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// CPU time of one turn, in milliseconds.
    #[arg(long, default_value_t = 40)]
    slice_ms: u64,
    /// Print JSON instead of tables.
    #[arg(long)]
    json: bool,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    let keys = sample::make_keys()?;
    let rows = measure::rows(&keys, cli.rounds, Duration::from_millis(cli.slice_ms))?;
    let report = report::Report::new(cli.rounds, cli.slice_ms, rows);
    if cli.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{report}");
    }
    Ok(())
}
