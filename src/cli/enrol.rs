//! `sealgate enrol`: certificate requests, as an operator sees and moves them. Through the gateway that runs.

use std::{fs, path::PathBuf};

use anyhow::Context as _;
use serde::Serialize;
use serde_json::json;

use super::{control_client::ControlClient, output, place::GatewayArgs, runtime};
use crate::{
    domain::{
        caller::{Account, AccountText},
        enrolment::Refusal,
        ids::EnrolmentId,
    },
    http::control::enrol::{EnrolmentDto, EnrolmentsDto, EnrolmentsQueryDto, NewEnrolmentDto, OrderDto},
};

/// Arguments of `enrol`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// List certificate requests, newest first.
    List(ListArgs),
    /// Show one request and what happened to it.
    Show(OneArgs),
    /// Print the CA's request (PKCS#10) in PEM.
    Csr(OneArgs),
    /// Bring the certificate that the CA has issued, and its chain, in one PEM file.
    Upload(UploadArgs),
    /// Let a request go to its CA.
    Approve(OneArgs),
    /// Refuse a request.
    Refuse(RefuseArgs),
    /// Remove the key that was made for a request which has been refused.
    DeleteKey(OneArgs),
    /// Make an issued certificate the one that its key signs with.
    Activate(OneArgs),
    /// Ask for a certificate; the key is made on the profile's token.
    New(NewArgs),
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    #[command(flatten)]
    gateway: GatewayArgs,
    /// In this state only: accepted, awaiting-issue, awaiting-confirmation, issued, activated or refused.
    #[arg(long)]
    state: Option<String>,
    /// Of this organisation only.
    #[arg(long)]
    organisation: Option<String>,
    /// At most so many.
    #[arg(long)]
    limit: Option<usize>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct OneArgs {
    #[command(flatten)]
    gateway: GatewayArgs,
    /// The request, by the id that `list` shows first.
    request: EnrolmentId,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct UploadArgs {
    #[command(flatten)]
    one: OneArgs,
    /// The certificate, and those of its CAs, in PEM.
    file: PathBuf,
}

#[derive(Debug, clap::Args)]
struct RefuseArgs {
    #[command(flatten)]
    one: OneArgs,
    /// Why, for the client.
    #[arg(long)]
    comment: String,
    /// On what ground.
    #[arg(long, default_value = "by-operator", value_parser = ground)]
    ground: Refusal,
    /// Remove the key that was made for it from its token, too.
    #[arg(long)]
    delete_key: bool,
}

#[derive(Debug, clap::Args)]
struct NewArgs {
    #[command(flatten)]
    gateway: GatewayArgs,
    /// The account that the certificate is for; its key signs under this name unless the profile says otherwise.
    #[arg(long)]
    login: AccountText,
    /// Surname, name and patronymic.
    #[arg(long)]
    full_name: AccountText,
    /// The organisation.
    #[arg(long)]
    organisation: AccountText,
    /// The position.
    #[arg(long)]
    position: AccountText,
    /// The e-mail address.
    #[arg(long)]
    email: String,
    /// The profile; the first one if nothing is said.
    #[arg(long)]
    profile: Option<String>,
    /// A key that is there already, as `sealgate keys` shows it.
    #[arg(long, conflicts_with = "key_type")]
    key: Option<String>,
    /// The kind of key that is made, say EC:P-256, RSA:3072 or Ed25519.
    #[arg(long)]
    key_type: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

fn ground(text: &str) -> Result<Refusal, String> {
    let known = Refusal::ALL.into_iter().find(|ground| ground.as_str() == text);
    known.ok_or_else(|| format!("use {}", Refusal::ALL.map(Refusal::as_str).join(", ")))
}

/// Carries out what was asked for.
pub(super) fn run(args: Args) -> anyhow::Result<()> {
    match args.what {
        What::List(args) => list(args),
        What::Show(args) => {
            let found = get(&args)?;
            if args.json { output::json(&found) } else { print(&found) }
        }
        What::Csr(args) => {
            let request = get(&args)?.request.context("the request's key is not made yet; send the request again, or look at its token")?;
            output::line(request.trim_end())
        }
        What::Upload(args) => {
            let certificates = fs::read_to_string(&args.file).with_context(|| {
                format!("{} cannot be read as PEM; convert it with: openssl x509 -inform der -in FILE", args.file.display())
            })?;
            order(&args.one, "certificate", &OrderDto { certificates, ..OrderDto::default() })
        }
        What::Approve(args) => order(&args, "approve", &()),
        What::Refuse(args) => {
            let refusal = OrderDto { ground: Some(args.ground), comment: args.comment, ..OrderDto::default() };
            let refused = moved(&args.one, "refuse", &refusal)?;
            if args.delete_key { order(&args.one, "delete-key", &()) } else { told(&refused, args.one.json) }
        }
        What::DeleteKey(args) => order(&args, "delete-key", &()),
        What::Activate(args) => order(&args, "activate", &()),
        What::New(args) => new(args),
    }
}

fn list(args: ListArgs) -> anyhow::Result<()> {
    let gateway = ControlClient::expect(&args.gateway.place()?.control)?;
    let query = EnrolmentsQueryDto { state: args.state, organisation: args.organisation, limit: args.limit };
    let found: EnrolmentsDto = runtime()?.block_on(gateway.get_with("/enrolments", &query))?;
    if args.json {
        return output::json(&found);
    }
    if found.enrolments.is_empty() {
        output::note("sealgate: no such certificate requests");
    }
    let head = ["REQUEST", "STATE", "CREATED", "ORGANISATION", "HOLDER", "KEY", "VALID UNTIL"].map(str::to_owned).to_vec();
    let rows: Vec<_> = std::iter::once(head).chain(found.enrolments.iter().map(row)).collect();
    output::table(&rows)
}

fn row(found: &EnrolmentDto) -> Vec<String> {
    let state = if found.active { "active".to_owned() } else { found.state.clone() };
    let until = found.not_after.map(|end| end.to_rfc3339()).unwrap_or_default();
    vec![
        found.id.to_string(),
        state,
        found.created.to_rfc3339(),
        found.organisation.clone(),
        found.full_name.clone(),
        found.key_name.to_string(),
        until,
    ]
}

fn get(args: &OneArgs) -> anyhow::Result<EnrolmentDto> {
    let gateway = ControlClient::expect(&args.gateway.place()?.control)?;
    runtime()?.block_on(gateway.get(&format!("/enrolments/{}", args.request)))
}

fn order(args: &OneArgs, what: &str, order: &impl Serialize) -> anyhow::Result<()> {
    told(&moved(args, what, order)?, args.json)
}

fn moved(args: &OneArgs, what: &str, order: &impl Serialize) -> anyhow::Result<EnrolmentDto> {
    let gateway = ControlClient::expect(&args.gateway.place()?.control)?;
    runtime()?.block_on(gateway.post(&format!("/enrolments/{}/{what}", args.request), order))
}

fn new(args: NewArgs) -> anyhow::Result<()> {
    let gateway = ControlClient::expect(&args.gateway.place()?.control)?;
    let mut pkcs10 = serde_json::Map::new();
    for (name, value) in [("profile", args.profile), ("key", args.key), ("keyType", args.key_type)] {
        if let Some(value) = value {
            pkcs10.insert(name.to_owned(), value.into());
        }
    }
    let body = json!({
        "externalId": uuid::Uuid::new_v4().to_string(),
        "email": args.email,
        "number": "1",
        "orgName": args.organisation,
        "userName": args.full_name,
        "userPosition": args.position,
        "pkcs10": pkcs10,
    });
    let account = Account { login: args.login, full_name: args.full_name, organisation: args.organisation, eio: false };
    let made: EnrolmentDto = runtime()?.block_on(gateway.post("/enrolments", &NewEnrolmentDto { account, body }))?;
    told(&made, args.json)
}

fn told(moved: &EnrolmentDto, as_json: bool) -> anyhow::Result<()> {
    if as_json {
        return output::json(moved);
    }
    let active = if moved.active { ", and its certificate is active" } else { "" };
    output::line(format_args!("certificate request {} of {} is {} now{active}", moved.id, moved.full_name, moved.state))
}

fn print(found: &EnrolmentDto) -> anyhow::Result<()> {
    let rows = [
        ("request", found.id.to_string()),
        ("client's id", found.external_id.clone()),
        ("state", found.state.clone()),
        ("active", if found.active { "yes" } else { "no" }.to_owned()),
        ("comment", found.comment.clone()),
        ("organisation", found.organisation.clone()),
        ("login", found.login.clone()),
        ("holder", found.full_name.clone()),
        ("profile", found.profile.to_string()),
        ("key", found.key_name.to_string()),
        ("key URI", found.key.clone().unwrap_or_else(|| "-".to_owned())),
        ("valid until", found.not_after.map_or_else(|| "-".to_owned(), |end| end.to_rfc3339())),
    ];
    output::table(&rows.map(|(name, value)| vec![name.to_owned(), value]))?;
    let line = |entry: &crate::domain::enrolment::HistoryEntry| {
        vec![entry.at.to_rfc3339(), entry.what.as_str().to_owned(), entry.by.clone(), entry.detail.clone()]
    };
    let head = ["AT", "STEP", "BY", "DETAIL"].map(str::to_owned).to_vec();
    let history: Vec<_> = std::iter::once(head).chain(found.history.iter().map(line)).collect();
    output::table(&history)
}
