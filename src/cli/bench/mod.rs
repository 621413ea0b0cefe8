//! `sealgate bench`: signatures per second straight on the token, through the gateway, and through gateways like it with other stores, in one
//! run, and their ratio.
//!
//! All are measured in turns that alternate, so that a busy machine slows each. The client shares the machine's cores with the gateway:
//! what it needs is missing from the gateway's figures.

pub(super) mod bare;
mod load;
mod stats;
pub(super) mod trial;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use self::{
    bare::{BareKey, BareLoop},
    stats::{Figures, Turn},
    trial::Trial,
};
use super::{dev, output, secret, store::StoreTrial, ticket_client::TicketClient};
use crate::{domain::key_uri::Pkcs11Uri, store::sqlite::Sharing};

/// What the gateway that is asked about is called.
const GATEWAY: &str = "gateway";
/// In how many turns each measurement is divided.
const ROUNDS: u32 = 3;

/// Arguments of `bench`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Measure this gateway, through HTTP only; its API key is read from the environment.
    #[arg(long, value_name = "URL", conflicts_with = "dir")]
    url: Option<String>,
    /// Measure the gateway that `sealgate dev` runs in this folder, and its token.
    #[arg(long, value_name = "DIR", default_value = dev::DEFAULT_DIR)]
    dir: PathBuf,
    /// The key to sign with. [default: the caller's default key]
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// How long each measurement takes in all.
    #[arg(long, value_name = "SECONDS", default_value_t = 6, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Numbers of clients that sign at the same time.
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "1,16,64", value_parser = clap::value_parser!(u16).range(1..=4096))]
    concurrency: Vec<u16>,
    /// Also measure gateways whose commits take so many milliseconds longer, as on a slow disk: with changes that wait sharing a commit, as they
    /// do, with a commit for each change, and with one for each step of each job.
    #[arg(long, value_name = "MS", conflicts_with = "url", value_parser = clap::value_parser!(u64).range(1..=1000))]
    commit_ms: Option<u64>,
    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
}

/// What `bench` needs of `dev.json`.
#[derive(Deserialize)]
struct DevGateway {
    url: String,
    api_key: SecretText,
    module: PathBuf,
    softhsm2_conf: PathBuf,
    config: PathBuf,
    user_pin: SecretText,
    keys: Vec<DevKey>,
}

#[derive(Deserialize)]
struct DevKey {
    name: String,
    uri: Pkcs11Uri,
}

/// A secret that is read from JSON.
#[derive(Deserialize)]
#[serde(from = "String")]
struct SecretText(SecretString);

impl From<String> for SecretText {
    fn from(text: String) -> Self {
        Self(SecretString::from(text))
    }
}

/// What is measured.
struct Bench {
    gateways: Vec<Measured>,
    /// The key, where it is not the caller's default key.
    key: Option<String>,
    bare: Option<BareLoop>,
    turn: Duration,
    concurrency: Vec<u16>,
}

/// A gateway that is measured.
struct Measured {
    name: String,
    client: TicketClient,
    /// It was started for this.
    _trial: Option<Trial>,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    key: String,
    seconds: u64,
    rounds: u32,
    bare: Option<Figures>,
    gateway: Vec<Line>,
    /// The same through gateways with other stores.
    stores: Vec<StoreLines>,
}

#[derive(Serialize)]
struct StoreLines {
    store: String,
    gateway: Vec<Line>,
}

#[derive(Serialize)]
struct Line {
    concurrency: u16,
    #[serde(flatten)]
    figures: Figures,
    /// Signatures per second, those of the bare loop being 1.
    ratio: Option<f64>,
}

/// Measures.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let mut bench = Bench::prepare(args)?;
    let runtime = tokio::runtime::Runtime::new().context("the asynchronous runtime did not start")?;
    let (bare, turns) = runtime.block_on(bench.measure())?;
    let bare = bare.map(Figures::from);
    let lines = |turns: Vec<Turn>| {
        let line = |(&concurrency, turn)| {
            let figures = Figures::from(turn);
            let ratio = bare.as_ref().map(|bare| figures.per_second / bare.per_second);
            Line { concurrency, figures, ratio }
        };
        args.concurrency.iter().zip(turns).map(line).collect::<Vec<_>>()
    };
    let mut stores =
        bench.gateways.iter().zip(turns).map(|(measured, turns)| StoreLines { store: measured.name.clone(), gateway: lines(turns) });
    // The first is the gateway that is asked about.
    let gateway = stores.next().map(|first| first.gateway).unwrap_or_default();
    let stores: Vec<_> = stores.collect();
    let key = args.key.clone().unwrap_or_else(|| if args.url.is_some() { "default".to_owned() } else { dev::DEFAULT_KEY.to_owned() });
    let report = Report { key, seconds: args.seconds, rounds: ROUNDS, gateway, stores, bare };
    if args.json { output::json(&report) } else { report.print() }
}

impl Bench {
    fn prepare(args: &Args) -> anyhow::Result<Self> {
        let turn = Duration::from_secs(args.seconds) / ROUNDS;
        let concurrency = args.concurrency.clone();
        if let Some(url) = &args.url {
            let client = TicketClient::new(url, secret::api_key(), None)?;
            let gateways = vec![Measured { name: GATEWAY.to_owned(), client, _trial: None }];
            return Ok(Self { gateways, key: args.key.clone(), bare: None, turn, concurrency });
        }
        let running = DevGateway::read(&args.dir)?;
        let name = args.key.as_deref().unwrap_or(dev::DEFAULT_KEY);
        let known = || running.keys.iter().map(|key| key.name.as_str()).collect::<Vec<_>>().join(", ");
        let key =
            running.keys.iter().find(|key| key.name == name).with_context(|| format!("there is no key {name}; use one of {}", known()))?;
        let bare_key = BareKey { module: &running.module, softhsm2_conf: &running.softhsm2_conf, uri: &key.uri, pin: &running.user_pin.0 };
        let bare = Some(BareLoop::start(&bare_key)?);
        let client = TicketClient::new(&running.url, Some(running.api_key.0.clone()), None)?;
        let mut gateways = vec![Measured { name: GATEWAY.to_owned(), client, _trial: None }];
        let mut trials = vec![("not durable".to_owned(), StoreTrial::Memory)];
        if let Some(commit_ms) = args.commit_ms {
            let kinds =
                [(Sharing::Waiting, "shared"), (Sharing::Nothing, "one a change"), (Sharing::NotEvenClaims, "one a step of each job")];
            trials.extend(
                kinds.map(|(sharing, what)| (format!("commits of {commit_ms} ms, {what}"), StoreTrial::Sqlite { commit_ms, sharing })),
            );
        }
        for (name, store) in trials {
            let trial = Trial::start(&args.dir, &running.config, &running.softhsm2_conf, running.api_key.0.clone(), store)?;
            gateways.push(Measured { name, client: trial.client.clone(), _trial: Some(trial) });
        }
        Ok(Self { gateways, key: (name != dev::DEFAULT_KEY).then(|| name.to_owned()), bare, turn, concurrency })
    }

    /// The bare loop's turns, and for each gateway those of each concurrency.
    async fn measure(&mut self) -> anyhow::Result<(Option<Turn>, Vec<Vec<Turn>>)> {
        // The first signature finds the key and opens connections.
        for measured in &self.gateways {
            load::sign_once(&measured.client, self.key.as_deref()).await?;
        }
        let mut bare_turns = self.bare.is_some().then(Turn::default);
        let mut all: Vec<Vec<Turn>> = self.gateways.iter().map(|_| self.concurrency.iter().map(|_| Turn::default()).collect()).collect();
        for _ in 0..ROUNDS {
            if let Some((bare, turns)) = self.bare.as_mut().zip(bare_turns.as_mut()) {
                turns.add(bare.turn(self.turn)?);
            }
            for (measured, of_gateway) in self.gateways.iter().zip(&mut all) {
                for (&concurrency, turns) in self.concurrency.iter().zip(of_gateway) {
                    turns.add(load::turn(&measured.client, self.key.as_deref(), concurrency.into(), self.turn).await?);
                }
            }
        }
        Ok((bare_turns, all))
    }
}

impl DevGateway {
    fn read(dir: &Path) -> anyhow::Result<Self> {
        let file = dev::layout::Layout::new(dir)?.dev_json();
        let json = std::fs::read(&file).with_context(|| {
            format!("{} is not there: start `sealgate dev --dir {}` first, or name a gateway with --url", file.display(), dir.display())
        })?;
        serde_json::from_slice(&json)
            .with_context(|| format!("{} is not from this version of `sealgate dev`; start it again", file.display()))
    }
}

impl Report {
    fn print(&self) -> anyhow::Result<()> {
        let mut rows = vec![["", "signatures/s", "p50 ms", "p99 ms", "ratio"].map(str::to_owned).to_vec()];
        if let Some(bare) = &self.bare {
            rows.push(row("token alone", bare, Some(1.0)));
        }
        let stores = self.stores.iter().map(|lines| (lines.store.as_str(), &lines.gateway));
        for (name, lines) in std::iter::once((GATEWAY, &self.gateway)).chain(stores) {
            for Line { concurrency, figures, ratio } in lines {
                rows.push(row(&format!("{name}, {concurrency} at a time"), figures, *ratio));
            }
        }
        output::line(format_args!(
            "key {}, {} s each in {} rounds; the client shares this machine's cores",
            self.key, self.seconds, self.rounds
        ))?;
        output::table(&rows)
    }
}

fn row(name: &str, figures: &Figures, ratio: Option<f64>) -> Vec<String> {
    vec![
        name.to_owned(),
        format!("{:.1}", figures.per_second),
        format!("{:.2}", figures.p50_ms),
        format!("{:.2}", figures.p99_ms),
        ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}")),
    ]
}
