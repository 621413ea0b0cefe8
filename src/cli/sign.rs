//! `sealgate sign`: signs a file through a gateway.

use std::{
    ffi::OsString,
    io::Write as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use futures_util::TryStreamExt as _;
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::Body;
use serde::Serialize;
use tokio_util::io::ReaderStream;

use super::{
    Usage, output, runtime, secret,
    ticket_client::{Options, TicketClient},
};
use crate::domain::pin::Pin;

/// Files longer than this, in bytes, get a progress bar on a terminal.
const PROGRESS_FROM: u64 = 8 * 1024 * 1024;
/// How long a signature is waited for; the gateway ends its jobs earlier.
const SIGNATURE_MAX: Duration = Duration::from_secs(30 * 60);
/// How much of the file is read at once, in bytes.
const CHUNK: usize = 256 * 1024;
/// What `-o -` stands for.
const STANDARD_OUTPUT: &str = "-";

/// Arguments of `sign`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The gateway's address, for example http://127.0.0.1:9091, or one that begins with https.
    #[arg(long, value_name = "URL")]
    url: String,
    /// The CA of the gateway's own certificate, in PEM. [default: those that this machine trusts]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The key: a name from the gateway's configuration, or a `pkcs11:` URI. Without it the gateway's default key for you.
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Put the content into the signature.
    #[arg(long)]
    attached: bool,
    /// Make a CAdES-BES signature instead of plain CMS.
    #[arg(long)]
    cades: bool,
    /// Where the signature goes, `-` for standard output. [default: FILE.p7s]
    #[arg(short, long, value_name = "OUT")]
    output: Option<PathBuf>,
    /// Print what was done as JSON.
    #[arg(long)]
    json: bool,
    /// A file, readable by you alone, with the token's PIN: for tokens that want the PIN of each request.
    #[arg(long, value_name = "FILE")]
    pin_file: Option<PathBuf>,
    /// The file to sign.
    file: PathBuf,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    file: PathBuf,
    file_bytes: u64,
    signature: PathBuf,
    signature_bytes: usize,
    key: Option<String>,
    attached: bool,
    cades: bool,
    milliseconds: u128,
}

/// Signs the file.
pub(super) fn run(args: Args) -> anyhow::Result<()> {
    let target = args.output.clone().unwrap_or_else(|| beside(&args.file));
    let to_standard_output = target.as_os_str() == STANDARD_OUTPUT;
    if args.json && to_standard_output {
        return Err(Usage("both the signature and the JSON would go to standard output; name a file with -o".to_owned()).into());
    }
    let pin = args.pin_file.as_deref().map(secret::pin_from_file).transpose()?;
    let began = Instant::now();
    let len = file_len(&args.file)?;
    let signature = runtime()?.block_on(signature_of(&args, len, pin.as_ref()))?;
    if to_standard_output {
        return output::bytes(&signature);
    }
    write_whole(&target, &signature)?;
    report(args, target, len, signature.len(), began.elapsed())
}

fn report(args: Args, target: PathBuf, len: u64, signature_bytes: usize, took: Duration) -> anyhow::Result<()> {
    if !args.json {
        return output::line(format_args!("{} ({signature_bytes} bytes)", target.display()));
    }
    output::json(&Report {
        file: args.file,
        file_bytes: len,
        signature: target,
        signature_bytes,
        key: args.key,
        attached: args.attached,
        cades: args.cades,
        milliseconds: took.as_millis(),
    })
}

async fn signature_of(args: &Args, len: u64, pin: Option<&Pin>) -> anyhow::Result<Vec<u8>> {
    let client = TicketClient::new(&args.url, secret::api_key(), args.ca.as_deref())?;
    let ticket = client.create().await?;
    let signature: anyhow::Result<Vec<u8>> = async {
        if let Some(key) = &args.key {
            ticket.choose_key(key).await?;
        }
        let bar = progress(len);
        ticket.upload(len, || body(&args.file, &bar)).await?;
        bar.finish_and_clear();
        ticket.set(&options(args)).await?;
        ticket.start(pin).await?;
        ticket.signature(SIGNATURE_MAX).await
    }
    .await;
    // The ticket goes in either case; if that fails too, the gateway removes it when it has been idle.
    let deleted = ticket.delete().await;
    let signature = signature?;
    if let Err(error) = deleted {
        output::note(format_args!("sealgate: the signature is made, but its ticket is still there: {error:#}"));
    }
    Ok(signature)
}

fn options(args: &Args) -> Options {
    Options {
        signature_type: if args.attached { "attached" } else { "detached" },
        cades_type: if args.cades { "CAdESBES" } else { "undefined" },
    }
}

fn file_len(file: &Path) -> anyhow::Result<u64> {
    let metadata = std::fs::metadata(file).with_context(|| format!("{} cannot be read; check the name", file.display()))?;
    anyhow::ensure!(metadata.is_file(), "{} is not a file; name one to sign", file.display());
    Ok(metadata.len())
}

/// The content of the file as a request body that moves `bar` while it is sent.
fn body(file: &Path, bar: &ProgressBar) -> anyhow::Result<Body> {
    let opened = std::fs::File::open(file).with_context(|| format!("{} cannot be read", file.display()))?;
    bar.reset();
    let bar = bar.clone();
    let chunks = ReaderStream::with_capacity(tokio::fs::File::from_std(opened), CHUNK);
    Ok(Body::wrap_stream(chunks.inspect_ok(move |chunk| bar.inc(u64::try_from(chunk.len()).unwrap_or(u64::MAX)))))
}

/// A bar on standard error; it hides itself where that is no terminal.
fn progress(len: u64) -> ProgressBar {
    if len < PROGRESS_FROM {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(len);
    match ProgressStyle::with_template("{wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}") {
        Ok(style) => bar.with_style(style),
        // The plain bar does as well.
        Err(_) => bar,
    }
}

/// `FILE.p7s` beside the file.
fn beside(file: &Path) -> PathBuf {
    let mut name = OsString::from(file);
    name.push(".p7s");
    PathBuf::from(name)
}

/// Writes a file so that it is there whole or not at all.
fn write_whole(target: &Path, content: &[u8]) -> anyhow::Result<()> {
    let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let write = || -> std::io::Result<()> {
        // A signature is no secret: it gets the mode of any new file, within the umask.
        let ordinary = std::os::unix::fs::PermissionsExt::from_mode(0o666);
        let mut file = tempfile::Builder::new().prefix(".sealgate-").permissions(ordinary).tempfile_in(parent)?;
        file.write_all(content)?;
        file.persist(target)?;
        Ok(())
    };
    write().with_context(|| format!("the signature cannot be written to {}; name another place with -o", target.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_stands_beside_the_file() {
        assert_eq!(beside(Path::new("a/report.pdf")), Path::new("a/report.pdf.p7s"));
    }

    #[test]
    fn a_signature_replaces_an_older_one_whole() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("x.p7s");
        write_whole(&target, b"first, and longer").unwrap();
        write_whole(&target, b"second").unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"second");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing temporary is left behind");
        let error = write_whole(&dir.path().join("no/such/x.p7s"), b"").unwrap_err();
        assert!(format!("{error:#}").contains("-o"), "{error:#}");
    }
}
