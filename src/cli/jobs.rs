//! `sealgate jobs`: what became of signatures, and an operator's word about those in doubt. Through the gateway that runs.

use super::{control_client::ControlClient, output, place::GatewayArgs, runtime};
use crate::{
    domain::{
        ids::{CallerId, JobId},
        job::JobState,
    },
    http::control::jobs::{JobDto, JobsDto, JobsQueryDto, ResolveDto},
};

/// Arguments of `jobs`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// List jobs, newest first.
    List(ListArgs),
    /// Show one job.
    Show(ShowArgs),
    /// Say what became of a job in doubt: look at the token's own log, or at whoever was to get the signature, first.
    Resolve(ResolveArgs),
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    #[command(flatten)]
    gateway: GatewayArgs,
    /// In this state only, say `in-doubt`.
    #[arg(long, value_parser = state)]
    state: Option<JobState>,
    /// Of this caller only.
    #[arg(long)]
    caller: Option<CallerId>,
    /// At most so many.
    #[arg(long)]
    limit: Option<usize>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct ShowArgs {
    #[command(flatten)]
    gateway: GatewayArgs,
    /// The job.
    job: JobId,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct ResolveArgs {
    #[command(flatten)]
    gateway: GatewayArgs,
    /// The job.
    job: JobId,
    /// The token had signed: the permission's use stays spent.
    #[arg(long, required_unless_present = "not_signed", conflicts_with = "not_signed")]
    signed: bool,
    /// The token had not signed: the use is given back.
    #[arg(long)]
    not_signed: bool,
}

fn state(text: &str) -> Result<JobState, String> {
    let quoted = serde_json::Value::from(text);
    serde_json::from_value(quoted).map_err(|_| "use queued, signing, signed, failed, in-doubt, cancelled or expired".to_owned())
}

/// Carries out what was asked for.
pub(super) fn run(args: Args) -> anyhow::Result<()> {
    match args.what {
        What::List(args) => list(args),
        What::Show(args) => show(&args),
        What::Resolve(args) => resolve(&args),
    }
}

fn list(args: ListArgs) -> anyhow::Result<()> {
    let gateway = ControlClient::expect(&args.gateway.place()?.control)?;
    let query = JobsQueryDto { state: args.state, caller: args.caller, limit: args.limit };
    let found: JobsDto = runtime()?.block_on(gateway.get_with("/jobs", &query))?;
    if args.json {
        return output::json(&found);
    }
    if found.jobs.is_empty() {
        output::note("sealgate: no such jobs");
    }
    let head = ["JOB", "STATE", "ACCEPTED", "CALLER", "KEY", "DETAIL"].map(str::to_owned).to_vec();
    let rows: Vec<_> = std::iter::once(head).chain(found.jobs.iter().map(row)).collect();
    output::table(&rows)
}

fn row(job: &JobDto) -> Vec<String> {
    let key = job.key_name.as_ref().map_or_else(|| job.key.clone(), ToString::to_string);
    vec![job.id.to_string(), job.state.to_string(), job.accepted.to_rfc3339(), job.caller.to_string(), key, job.detail.clone()]
}

fn show(args: &ShowArgs) -> anyhow::Result<()> {
    let gateway = ControlClient::expect(&args.gateway.place()?.control)?;
    let job: JobDto = runtime()?.block_on(gateway.get(&format!("/jobs/{}", args.job)))?;
    if args.json { output::json(&job) } else { print(&job) }
}

fn resolve(args: &ResolveArgs) -> anyhow::Result<()> {
    let gateway = ControlClient::expect(&args.gateway.place()?.control)?;
    let order = ResolveDto { signed: args.signed };
    let job: JobDto = runtime()?.block_on(gateway.post(&format!("/jobs/{}/resolve", args.job), &order))?;
    let fate = if args.signed { "its permission's use stays spent" } else { "its permission's use was given back" };
    output::line(format_args!("job {} is {} now; {fate}", job.id, job.state))
}

fn print(job: &JobDto) -> anyhow::Result<()> {
    let optional = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    let rows = [
        ("job", job.id.to_string()),
        ("state", job.state.to_string()),
        ("detail", job.detail.clone()),
        ("caller", job.caller.to_string()),
        ("origin", optional(job.origin.clone())),
        ("address", optional(job.address.map(|address| address.to_string()))),
        ("key", optional(job.key_name.as_ref().map(ToString::to_string))),
        ("key URI", job.key.clone()),
        ("algorithm", job.algorithm.clone()),
        ("digest", job.digest.clone()),
        ("permission", optional(job.permit.map(|permit| permit.to_string()))),
        ("accepted", job.accepted.to_rfc3339()),
        ("deadline", job.deadline.to_rfc3339()),
    ];
    output::table(&rows.map(|(name, value)| vec![name.to_owned(), value]))
}
