//! `sealgate audit`: proves an audit log offline, carries it out, and prints its head to be kept elsewhere.
//!
//! All of it only reads. A gateway that runs is not disturbed: its database is read beside it.

mod anchors;
mod report;

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read as _, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{Args as ClapArgs, Subcommand};

use self::anchors::AnchorArgs;
use super::{
    FAILED,
    data_folder::database,
    output,
    place::GatewayArgs,
    runtime,
    store::{audit_logs, audit_logs_of},
};
use crate::audit::{
    chain::{Anchors, SoundChain},
    export::{self, ExportError, LogSource},
    verify::{VerifyError, verify_export, verify_store},
};

/// How a database file begins.
const SQLITE_MAGIC: &[u8] = b"SQLite format 3\0";

/// Arguments of `audit`.
#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Prove a log: order, gaps, edits, checkpoints. Prints the first broken record; exit code 1 if there is one.
    Verify(VerifyArgs),
    /// Write a log as JSON lines, byte for byte as it was hashed.
    Export(ExportArgs),
    /// Prove a log and print its head, to be kept where whoever can write the database cannot.
    Head(HeadArgs),
}

#[derive(Debug, ClapArgs)]
struct VerifyArgs {
    /// A gateway's data folder or a copy of it, its database, an export, or `-` for an export on standard input.
    #[arg(value_name = "DIR-or-EXPORT")]
    log: PathBuf,
    #[command(flatten)]
    anchors: AnchorArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, ClapArgs)]
struct ExportArgs {
    #[command(flatten)]
    gateway: GatewayArgs,
    /// Write to this file; without it to standard output.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Begin with this record.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    from: u64,
}

#[derive(Debug, ClapArgs)]
struct HeadArgs {
    #[command(flatten)]
    gateway: GatewayArgs,
    #[command(flatten)]
    anchors: AnchorArgs,
}

/// Does as asked.
pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    match &args.verb {
        Verb::Verify(args) => verify(args),
        Verb::Export(args) => export(args).map(|()| ExitCode::SUCCESS),
        Verb::Head(args) => head(args),
    }
}

fn verify(args: &VerifyArgs) -> anyhow::Result<ExitCode> {
    let anchors = args.anchors.load()?;
    match proved(&args.log, &anchors) {
        Ok(chains) => {
            report::sound(&chains, &anchors, args.json)?;
            Ok(ExitCode::SUCCESS)
        }
        Err(Problem::Broken(broken)) => {
            report::broken(&broken, args.json)?;
            Ok(ExitCode::from(FAILED))
        }
        Err(Problem::Other(error)) => Err(error),
    }
}

fn head(args: &HeadArgs) -> anyhow::Result<ExitCode> {
    let anchors = args.anchors.load()?;
    let source = audit_logs(&args.gateway.place()?.config)?;
    match runtime()?.block_on(verify_store(source.as_ref(), &anchors)).map_err(Problem::from) {
        Ok(chains) => {
            chains.iter().try_for_each(|chain| output::json(&chain.head))?;
            Ok(ExitCode::SUCCESS)
        }
        Err(Problem::Broken(broken)) => {
            output::note(format_args!("sealgate: {}; a broken log has no head to be kept", report::words(&broken)));
            Ok(ExitCode::from(FAILED))
        }
        Err(Problem::Other(error)) => Err(error),
    }
}

fn export(args: &ExportArgs) -> anyhow::Result<()> {
    let source = audit_logs(&args.gateway.place()?.config)?;
    let source = source.as_ref();
    match &args.output {
        None => match runtime()?.block_on(export::export(source, args.from, output::stream())) {
            // Whoever read it has seen enough.
            Err(ExportError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            done => done.map(drop).context("the log was not exported"),
        },
        Some(file) => {
            let count = export_to_file(source, args.from, file)
                .with_context(|| format!("{} was not written; is there room on the disk, and may you write there?", file.display()))?;
            output::note(format_args!("sealgate: {count} records are in {}", file.display()));
            Ok(())
        }
    }
}

/// The file appears whole or not at all.
fn export_to_file(source: &dyn LogSource, from: u64, file: &Path) -> anyhow::Result<u64> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut new = tempfile::NamedTempFile::new_in(folder)?;
    let mut buffer = io::BufWriter::new(new.as_file_mut());
    let count = runtime()?.block_on(export::export(source, from, &mut buffer))?;
    buffer.flush()?;
    drop(buffer);
    new.as_file().sync_all()?;
    new.persist(file)?;
    Ok(count)
}

/// Why there is no proof.
enum Problem {
    Broken(Box<crate::audit::chain::Broken>),
    Other(anyhow::Error),
}

impl From<anyhow::Error> for Problem {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

impl From<VerifyError> for Problem {
    fn from(error: VerifyError) -> Self {
        match error {
            VerifyError::Broken(broken) => Self::Broken(broken),
            other => Self::Other(other.into()),
        }
    }
}

fn proved(log: &Path, anchors: &Anchors) -> Result<Vec<SoundChain>, Problem> {
    if log == Path::new("-") {
        return Ok(verify_export(io::stdin().lock(), anchors)?);
    }
    let file = if log.is_dir() { database(log) } else { log.to_owned() };
    let opened = File::open(&file).with_context(|| match log.is_dir() {
        true => format!("there is no audit log in {}: name a gateway's data folder, or an export", log.display()),
        false => format!("{} cannot be read; name a gateway's data folder, or an export", file.display()),
    })?;
    let mut reader = BufReader::new(opened);
    if !begins_as_database(&mut reader)? {
        return Ok(verify_export(reader, anchors)?);
    }
    let source = audit_logs_of(&file)?;
    Ok(runtime()?.block_on(verify_store(source.as_ref(), anchors))?)
}

fn begins_as_database(reader: &mut BufReader<File>) -> anyhow::Result<bool> {
    let beginning = reader.fill_buf().context("the log cannot be read")?;
    Ok(beginning.bytes().take(SQLITE_MAGIC.len()).filter_map(Result::ok).eq(SQLITE_MAGIC.iter().copied()))
}
