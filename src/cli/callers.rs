//! `sealgate callers`: who may sign. Through the gateway that runs; on its data folder, or its database, when none runs.

mod arguments;

use std::{sync::Arc, time::SystemTime};

use anyhow::Context as _;

use self::arguments::{AddArgs, Lasting, RotateArgs, until};
use super::{
    control_client::ControlClient,
    data_folder::DataFolder,
    output,
    place::{GatewayArgs, Place},
    server_runtime,
    store::{CLOSE_MAX, OpenStore},
};
use crate::{
    auth::{ApiKeyHash, BookSettings, CallerBook, CallerEntry, Callers},
    config::{CallerSettings, Config},
    domain::{
        caller::KeyAccess,
        certificate::ClientCertificateId,
        ids::CallerId,
        stored_caller::{CallerState, NewCaller},
        timestamp::Timestamp,
    },
    http::control::{
        callers::{AddCallerDto, ApiKeyText, CallerDto, CallersDto, DoneDto, IssuedDto, RotateDto},
        who_runs_this,
    },
    store::Store,
};

/// Arguments of `callers`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Add a caller, and print its API key: once, for it is kept nowhere.
    Add(Box<AddArgs>),
    /// List all callers.
    List(ListArgs),
    /// Show one caller.
    Show(ShowArgs),
    /// Give a caller a new API key and print it; the old one stays good for a while.
    Rotate(RotateArgs),
    /// End a caller at once and for good. What it has made stays.
    Revoke(NameArgs),
    /// Remove a caller. Whoever gets its name later owns what it has made.
    Remove(NameArgs),
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    #[command(flatten)]
    gateway: GatewayArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct ShowArgs {
    #[command(flatten)]
    gateway: GatewayArgs,
    /// The caller.
    name: CallerId,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct NameArgs {
    #[command(flatten)]
    gateway: GatewayArgs,
    /// The caller.
    name: CallerId,
}

/// Does what is asked.
pub(super) fn run(args: Args) -> anyhow::Result<()> {
    // A database is spoken to by tasks of its own.
    let runtime = server_runtime()?;
    runtime.block_on(async {
        match args.what {
            What::Add(args) => add(*args).await,
            What::List(args) => list(&args).await,
            What::Show(args) => show(&args).await,
            What::Rotate(args) => rotate(&args).await,
            What::Revoke(args) => {
                let desk = Desk::open(args.gateway.place()?).await?;
                desk.order(&args.name, Order::Revoke).await?;
                output::line(format_args!("revoked {}; it is unknown from now on", args.name))
            }
            What::Remove(args) => {
                let desk = Desk::open(args.gateway.place()?).await?;
                desk.order(&args.name, Order::Remove).await?;
                output::line(format_args!("removed {}", args.name))
            }
        }
    })
}

async fn add(args: AddArgs) -> anyhow::Result<()> {
    let place = args.gateway.place()?;
    let (new, json) = (args.caller(SystemTime::now().into())?, args.json);
    let name = new.id.clone();
    let desk = Desk::open(place).await?;
    let issued = desk.add(new).await?;
    if json {
        return output::json(&issued);
    }
    match issued.api_key {
        Some(key) => show_key(&name, &key),
        None => output::line(format_args!("added {name}")),
    }
}

async fn rotate(args: &RotateArgs) -> anyhow::Result<()> {
    let place = args.gateway.place()?;
    let expires = args.expires.map(|expires| until(expires, SystemTime::now().into())).transpose()?;
    let desk = Desk::open(place).await?;
    let issued = desk.rotate(&args.name, args.grace, expires).await?;
    if args.json {
        return output::json(&issued);
    }
    let key = issued.api_key.context("the gateway made no API key; use the command line of the gateway's own version")?;
    output::note(format_args!("sealgate: the old API key of {} is good for {} more", args.name, args.grace));
    show_key(&args.name, &key)
}

/// The key alone on standard output, so that a script can take it.
fn show_key(name: &CallerId, key: &ApiKeyText) -> anyhow::Result<()> {
    output::note(format_args!("sealgate: the API key of {name}, shown once and kept nowhere (send it as `Authorization: Bearer KEY`):"));
    output::line(key.reveal())
}

async fn list(args: &ListArgs) -> anyhow::Result<()> {
    let desk = Desk::open(args.gateway.place()?).await?;
    let callers = desk.list().await?;
    if args.json {
        return output::json(&CallersDto { callers });
    }
    let head = ["CALLER", "STATE", "KNOWN BY", "KEYS", "CONSENT", "SCOPES", "FROM"].map(str::to_owned).to_vec();
    let row = |caller: &CallerDto| {
        let from = if caller.configured { "configuration" } else { "callers add" };
        vec![caller.name.to_string(), state(caller), known_by(caller), keys(&caller.keys), consent(caller), scopes(caller), from.to_owned()]
    };
    let rows: Vec<_> = std::iter::once(head).chain(callers.iter().map(row)).collect();
    output::table(&rows)
}

async fn show(args: &ShowArgs) -> anyhow::Result<()> {
    let desk = Desk::open(args.gateway.place()?).await?;
    let caller = desk.find(&args.name).await?;
    if args.json {
        return output::json(&caller);
    }
    let time = |time: Option<Timestamp>| time.map_or_else(|| "-".to_owned(), Timestamp::to_rfc3339);
    let mut rows = vec![
        ("caller", caller.name.to_string()),
        ("state", state(&caller)),
        ("from", if caller.configured { "configuration" } else { "callers add" }.to_owned()),
        ("added", time(caller.added)),
        ("revoked", time(caller.revoked)),
        ("known by", known_by(&caller)),
        ("keys", keys(&caller.keys)),
        ("default key", caller.default_key.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string)),
        ("consent", consent(&caller)),
        ("scopes", scopes(&caller)),
        ("rate", caller.rate.map_or_else(|| "-".to_owned(), |rate| format!("{}/s, {} at once", rate.per_second, rate.burst))),
    ];
    if let Some(account) = &caller.account {
        let eio = if account.eio { ", EIO" } else { "" };
        rows.push(("account", format!("{} ({}, {}{eio})", account.login, account.full_name, account.organisation)));
    }
    for key in &caller.api_keys {
        let ends = key.expires.map_or_else(|| "has no end".to_owned(), |end| format!("ends {}", end.to_rfc3339()));
        rows.push(("API key", key.made.map_or_else(|| ends.clone(), |made| format!("made {}, {ends}", made.to_rfc3339()))));
    }
    output::table(&rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect::<Vec<_>>())
}

fn state(caller: &CallerDto) -> String {
    match (&caller.problem, caller.state) {
        (Some(problem), _) => format!("not known: {problem}"),
        (None, CallerState::Active) => "active".to_owned(),
        (None, CallerState::Expired) => "expired".to_owned(),
        (None, CallerState::Revoked) => "revoked".to_owned(),
    }
}

fn known_by(caller: &CallerDto) -> String {
    let mut by = Vec::new();
    if !caller.api_keys.is_empty() {
        by.push("API key".to_owned());
    }
    match &caller.client_certificate {
        Some(ClientCertificateId::Subject(subject)) => by.push(format!("certificate {subject}")),
        Some(ClientCertificateId::Sha256(hash)) => by.push(format!("certificate {hash}")),
        None => {}
    }
    by.extend(caller.origins.iter().cloned());
    if by.is_empty() { "-".to_owned() } else { by.join(", ") }
}

fn keys(keys: &KeyAccess) -> String {
    match keys {
        KeyAccess::All => "all".to_owned(),
        KeyAccess::Only(keys) if keys.is_empty() => "-".to_owned(),
        KeyAccess::Only(keys) => keys.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    }
}

fn scopes(caller: &CallerDto) -> String {
    caller.scopes.iter().map(|scope| scope.to_string()).collect::<Vec<_>>().join(", ")
}

fn consent(caller: &CallerDto) -> String {
    let rules = caller.consent_for.iter().map(|(key, policy)| format!("{key}: {}", policy.as_str()));
    std::iter::once(caller.consent.as_str().to_owned()).chain(rules).collect::<Vec<_>>().join(", ")
}

enum Order {
    Revoke,
    Remove,
}

/// Where callers are looked after: a gateway that runs, or its store while none does.
enum Desk {
    Gateway(ControlClient),
    Store { book: CallerBook, store: OpenStore, _folder: DataFolder },
}

impl Desk {
    async fn open(place: Place) -> anyhow::Result<Self> {
        if let Some(gateway) = ControlClient::connect(&place.control)? {
            return Ok(Self::Gateway(gateway));
        }
        let folder = DataFolder::claim(&place.config.data_dir)?;
        let store = OpenStore::open(&place.config, &folder, None).await?;
        let (configured, settings) = parts(&place.config)?;
        let book = CallerBook::open_to_change(configured, settings, store.store()).await?;
        Ok(Self::Store { book, store, _folder: folder })
    }

    async fn add(self, caller: NewCaller) -> anyhow::Result<IssuedDto> {
        match self {
            Self::Gateway(gateway) => gateway.post("/callers", &AddCallerDto { caller }).await,
            Self::Store { book, store, .. } => {
                let added = book.add(caller, &who_runs_this()).await;
                store.close(CLOSE_MAX).await;
                Ok(IssuedDto { api_key: added?.map(Into::into) })
            }
        }
    }

    async fn rotate(self, name: &CallerId, grace: Lasting, expires: Option<Timestamp>) -> anyhow::Result<IssuedDto> {
        match self {
            Self::Gateway(gateway) => {
                let order = RotateDto { grace: grace.as_millis(), expires };
                gateway.post(&format!("/callers/{name}/rotate"), &order).await
            }
            Self::Store { book, store, .. } => {
                let rotated = book.rotate(name, grace.0, expires, &who_runs_this()).await;
                store.close(CLOSE_MAX).await;
                Ok(IssuedDto { api_key: Some(rotated?.into()) })
            }
        }
    }

    async fn order(self, name: &CallerId, order: Order) -> anyhow::Result<()> {
        match self {
            Self::Gateway(gateway) => {
                let verb = match order {
                    Order::Revoke => "revoke",
                    Order::Remove => "remove",
                };
                gateway.post::<DoneDto>(&format!("/callers/{name}/{verb}"), &()).await.map(drop)
            }
            Self::Store { book, store, .. } => {
                let done = match order {
                    Order::Revoke => book.revoke(name, &who_runs_this()).await,
                    Order::Remove => book.remove(name, &who_runs_this()).await,
                };
                store.close(CLOSE_MAX).await;
                Ok(done?)
            }
        }
    }

    async fn list(self) -> anyhow::Result<Vec<CallerDto>> {
        match self {
            Self::Gateway(gateway) => Ok(gateway.get::<CallersDto>("/callers").await?.callers),
            Self::Store { book, store, .. } => {
                let listed = book.list().await;
                store.close(CLOSE_MAX).await;
                let now = Timestamp::from(SystemTime::now());
                Ok(listed?.into_iter().map(|caller| CallerDto::of(caller, now)).collect())
            }
        }
    }

    async fn find(self, name: &CallerId) -> anyhow::Result<CallerDto> {
        let found = self.list().await?.into_iter().rfind(|caller| caller.name == *name);
        found.with_context(|| format!("there is no caller {name}; see `sealgate callers list`"))
    }
}

/// Whether the callers of this configuration could be told apart.
pub(super) fn check(config: &Config) -> anyhow::Result<()> {
    Callers::new(parts(config)?.0).context("correct the [[caller]]s of the configuration").map(drop)
}

/// The callers of a gateway on this configuration and store.
pub(super) async fn open(config: &Config, store: &Arc<dyn Store>) -> anyhow::Result<CallerBook> {
    let (configured, settings) = parts(config)?;
    Ok(CallerBook::open(configured, settings, Arc::clone(store)).await?)
}

fn parts(config: &Config) -> anyhow::Result<(Vec<CallerEntry>, BookSettings)> {
    let entries = config.callers.iter().map(entry).collect::<anyhow::Result<_>>()?;
    let settings = BookSettings {
        keys: config.keys.iter().map(|key| key.name.clone()).collect(),
        takes_certificates: config.listeners.iter().any(|listener| listener.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some())),
        permit_uses_max: config.permit.uses_max,
    };
    Ok((entries, settings))
}

fn entry(settings: &CallerSettings) -> anyhow::Result<CallerEntry> {
    let origin = |text: &String| text.parse().with_context(|| format!("caller {}: `{text}` is not an origin", settings.caller.id));
    let api_key = settings.api_key_sha256.map(|hash| hex::encode(hash).parse::<ApiKeyHash>()).transpose()?;
    Ok(CallerEntry {
        caller: settings.caller.clone(),
        api_keys: api_key.map(|hash| vec![hash.into()]),
        certificate: settings.client_certificate.clone(),
        origins: settings.origins.iter().map(origin).collect::<Result<_, _>>()?,
    })
}
