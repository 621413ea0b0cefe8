//! `sealgate verify`: verifies a signature with what is on this machine.

use std::{
    fs::File,
    io::{BufReader, Cursor, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    process::ExitCode,
    time::SystemTime,
};

use anyhow::Context as _;
use serde::Serialize;
use tokio::sync::Semaphore;

use super::{FAILED, Usage, gateway::trust_places, output, runtime, time_stamps::evidence};
use crate::{
    cms::{
        armor::Armor,
        verify::{FRAME_MAX, ReadError, SignedMessage},
    },
    config::Config,
    domain::{revocation::RevocationCheck, ticket::TimeStampCheck, timestamp::Timestamp},
    pki::{
        Certificate,
        revocation::Inquiry,
        trust::{TrustStore, read_certificates},
    },
    verification::{Examined, GoodTimeStamp, Judgement, SignerVerdict, Verdict, VerificationError, examine},
};

/// The longest signature in PEM or Base64 that is read, in bytes; in DER there is no limit.
const TEXT_MAX: u64 = 2 * FRAME_MAX as u64;
/// The first byte of every signature in DER.
const SEQUENCE: u8 = 0x30;

/// Arguments of `verify`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The document, if it is not in the signature.
    #[arg(long, value_name = "FILE")]
    content: Option<PathBuf>,
    /// A file or folder with the CAs to trust, in PEM or DER. May be given more than once.
    #[arg(long, value_name = "FILE-OR-FOLDER")]
    trust: Vec<PathBuf>,
    /// Trust what this gateway's configuration trusts, too.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Certificates of signers or CAs that are not in the signature, in PEM or DER.
    #[arg(long, value_name = "FILE")]
    certificate: Vec<PathBuf>,
    /// Judge as of this time, in UTC, instead of now: 2031-05-17T12:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = time)]
    at: Option<Timestamp>,
    /// What is demanded of evidence that the certificates were not revoked: off, if-known, where-named or required. Without it, what
    /// the configuration says, or where-named.
    #[arg(long, value_name = "DEMAND")]
    revocation: Option<RevocationCheck>,
    /// Fetch CRLs and OCSP answers that are not in the signature, from where the certificates or the configuration say.
    #[arg(long)]
    online: bool,
    /// Refuse a signature without a time stamp. One that is there must be good in any case.
    #[arg(long)]
    require_time_stamp: bool,
    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
    /// The signature: DER, PEM or Base64.
    signature: PathBuf,
}

#[derive(Serialize)]
struct Report {
    valid: bool,
    attached: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    signers: Vec<SignerReport>,
}

#[derive(Serialize)]
struct SignerReport {
    valid: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    issuer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    serial: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    algorithm: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signing_time: Option<String>,
    /// When the certificate must have been good.
    judged_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    time_stamp: Option<StampReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_time_stamp: Option<StampReport>,
}

#[derive(Serialize)]
struct StampReport {
    time: String,
    authority: String,
}

trait Source: Read + Seek {}
impl<T: Read + Seek> Source for T {}

/// Verifies; the exit code says whether the signature holds.
pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let config = args.config.as_deref().map(Config::load).transpose()?;
    let trust = trust(args, config.as_ref())?;
    let given = given(&args.certificate)?;
    let mut content = args.content.as_deref().map(open).transpose()?.map(BufReader::new);
    let document = content.as_mut().map(|content| content as &mut dyn Read);
    let source = source(&args.signature)?;
    let examined =
        SignedMessage::read(source).map_err(VerificationError::from).and_then(|mut message| examine(&mut message, document, &given));
    let report = match examined {
        Ok(examined) => Report::of(&judge(args, config, trust, given, examined)?),
        Err(VerificationError::Read(ReadError::NoContent)) => {
            return Err(Usage("the document is not in the signature; name it with --content".to_owned()).into());
        }
        Err(VerificationError::Read(ReadError::Io(error))) => return Err(error).context("the signature or its content cannot be read"),
        Err(error) => Report { valid: false, attached: false, reason: Some(error.to_string()), signers: Vec::new() },
    };
    if args.json {
        output::json(&report)?
    } else {
        report.print()?
    }
    Ok(if report.valid { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

/// Judges what was read, and fetches evidence for it where that is asked for.
fn judge(args: &Args, config: Option<Config>, trust: TrustStore, given: Vec<Certificate>, examined: Examined) -> anyhow::Result<Verdict> {
    let now = args.at.unwrap_or_else(|| SystemTime::now().into());
    let settings = config.map(|config| config.revocation).unwrap_or_default();
    let revocation = args.revocation.unwrap_or(settings.check);
    let time_stamp = if args.require_time_stamp { TimeStampCheck::VerifyOrFailIfNotPresent } else { TimeStampCheck::VerifyIfPresent };
    let client = if args.online { Some(evidence(&settings)?) } else { None };
    let judge = move |inquiry: &Inquiry| {
        examined.judge(&Judgement {
            certificates: &given,
            revocation,
            revocation_of_time_stamps: revocation,
            inquiry: Some(inquiry),
            signature_time_stamp: time_stamp,
            content_time_stamp: TimeStampCheck::VerifyIfPresent,
            ..Judgement::of_documents(&trust, now)
        })
    };
    // One signature, so there is nobody to take turns with.
    let judged = runtime()?.block_on(async { Inquiry::settle(client.as_deref(), &Semaphore::new(1), now, judge).await });
    judged.context("the signature was not judged; this is a fault of sealgate's")
}

fn time(text: &str) -> Result<Timestamp, &'static str> {
    Timestamp::from_rfc3339(text).ok_or("write it in UTC, to the second: 2031-05-17T12:00:00Z")
}

impl StampReport {
    fn of(stamp: &GoodTimeStamp) -> Self {
        Self { time: stamp.time.to_rfc3339(), authority: stamp.authority.subject() }
    }
}

impl SignerReport {
    fn of(signer: &SignerVerdict) -> Self {
        let of_certificate = |say: fn(&Certificate) -> String| signer.certificate.as_ref().map(say);
        Self {
            valid: signer.outcome.is_ok(),
            reason: signer.outcome.as_ref().err().map(ToString::to_string),
            subject: of_certificate(Certificate::subject),
            issuer: of_certificate(Certificate::issuer),
            serial: of_certificate(Certificate::serial),
            algorithm: signer.algorithm.map(|algorithm| algorithm.to_string()),
            signing_time: signer.signing_time.map(|time| time.to_rfc3339()),
            judged_at: signer.best_time.to_rfc3339(),
            time_stamp: signer.signature_time_stamp.as_ref().map(StampReport::of),
            content_time_stamp: signer.content_time_stamp.as_ref().map(StampReport::of),
        }
    }
}

impl Report {
    fn of(verdict: &Verdict) -> Self {
        let signers = verdict.signers.iter().map(SignerReport::of).collect();
        Self { valid: verdict.is_good(), attached: verdict.attached, reason: None, signers }
    }

    fn print(&self) -> anyhow::Result<()> {
        output::line(if self.valid { "valid" } else { "NOT valid" })?;
        if let Some(reason) = &self.reason {
            output::line(format_args!("  {reason}"))?;
        }
        for signer in &self.signers {
            let who = signer.subject.as_deref().unwrap_or("an unknown signer");
            let when = signer.signing_time.as_ref().map(|time| format!(", who says it was at {time}")).unwrap_or_default();
            let how = signer.algorithm.as_ref().map(|algorithm| format!(" with {algorithm}")).unwrap_or_default();
            output::line(format_args!("  {}: signed by {who}{how}{when}", if signer.valid { "good" } else { "BAD" }))?;
            for (what, stamp) in [("the signature", &signer.time_stamp), ("the content", &signer.content_time_stamp)] {
                if let Some(StampReport { time, authority }) = stamp {
                    output::line(format_args!("    {what} was there at {time}, says {authority}"))?;
                }
            }
            if let Some(reason) = &signer.reason {
                output::line(format_args!("    {reason}"))?;
            }
        }
        Ok(())
    }
}

/// Whom to trust: what is named, and what the configuration names.
fn trust(args: &Args, config: Option<&Config>) -> anyhow::Result<TrustStore> {
    let mut places = config.map(trust_places).unwrap_or_default();
    places.anchors.extend(args.trust.iter().cloned());
    if places.anchors.is_empty() {
        return Err(
            Usage("nobody is trusted; name a file or folder of CAs with --trust, or a configuration with --config".to_owned()).into()
        );
    }
    Ok(TrustStore::load(&places)?)
}

fn given(files: &[PathBuf]) -> anyhow::Result<Vec<Certificate>> {
    let mut all = Vec::new();
    for file in files {
        let mut bytes = Vec::new();
        open(file)?.take(TEXT_MAX).read_to_end(&mut bytes).with_context(|| format!("{} cannot be read", file.display()))?;
        all.extend(read_certificates(&bytes).with_context(|| format!("{} holds no certificates in PEM or DER", file.display()))?);
    }
    Ok(all)
}

/// The signature in DER: the file itself, or what stands in it as text.
fn source(path: &Path) -> anyhow::Result<Box<dyn Source>> {
    let mut file = open(path)?;
    let unreadable = || format!("{} cannot be read", path.display());
    let mut first = [0];
    let len = file.read(&mut first).with_context(unreadable)?;
    file.seek(SeekFrom::Start(0)).with_context(unreadable)?;
    if len == 1 && first[0] == SEQUENCE {
        return Ok(Box::new(file));
    }
    let (mut text, mut bare) = (Vec::new(), Vec::new());
    file.take(TEXT_MAX).read_to_end(&mut text).with_context(unreadable)?;
    let mut armor = Armor::default();
    // What is neither is shown to the reader, whose words are better.
    if armor.push(&text, &mut bare).and_then(|()| armor.finish(&mut bare)).is_err() {
        bare = text;
    }
    Ok(Box::new(Cursor::new(bare)))
}

fn open(path: &Path) -> anyhow::Result<File> {
    File::open(path).with_context(|| format!("{} cannot be opened; check its name", path.display()))
}
