//! Gateways that `bench` starts beside the one that is measured, to show what durability costs: the same token, keys and callers, another store.
//!
//! Each is a child of this program with a folder of its own beside the development gateway's: on the same disk, with a copy of the token, so
//! that no two processes log in to one. Parent and child talk in lines of JSON; the child ends when its input does. Invariant: the folder goes
//! with the trial.

use std::{
    fs,
    io::{self, BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, ensure};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use toml::{Table, Value};

use crate::{
    cli::{gateway::Gateway, host_program, output, server_runtime, store::StoreTrial, ticket_client::TicketClient},
    config::Config,
    shutdown::StopSignals,
};

/// The hidden verb that runs one.
pub(in crate::cli) const VERB: &str = "bench-gateway";

/// What the child is told.
#[derive(Serialize, Deserialize)]
struct Order {
    config: PathBuf,
    store: StoreTrial,
}

/// What the child answers.
#[derive(Serialize, Deserialize)]
struct Serving {
    url: String,
}

/// A gateway that runs for a measurement.
pub(super) struct Trial {
    pub(super) client: TicketClient,
    child: Child,
    _folder: TempDir,
}

impl Trial {
    /// Starts a gateway like the one of the development folder `dir`, which serves on this configuration.
    pub(super) fn start(dir: &Path, config: &Path, softhsm2_conf: &Path, api_key: SecretString, store: StoreTrial) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("bench-").tempdir_in(dir).context("no folder for a second gateway could be made")?;
        let config = copy_gateway(folder.path(), config, softhsm2_conf).context("the development gateway could not be copied")?;
        let mut child = Command::new(host_program()?)
            .arg(VERB)
            .env("SEALGATE_LOG", "error")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("this program could not be started a second time")?;
        let order = serde_json::to_string(&Order { config, store })?;
        let trial = || -> anyhow::Result<TicketClient> {
            // The pipe stays open: its end is the child's.
            let stdin = child.stdin.as_mut().context("the child has no input")?;
            writeln!(stdin, "{order}")?;
            let mut line = String::new();
            BufReader::new(child.stdout.take().context("the child has no output")?).read_line(&mut line)?;
            ensure!(!line.is_empty(), "the second gateway ended; see its message above");
            let serving: Serving = serde_json::from_str(&line)?;
            TicketClient::new(&serving.url, Some(api_key))
        };
        let client = trial();
        // From here on the child ends with the value, even if it never served.
        match client {
            Ok(client) => Ok(Self { client, child, _folder: folder }),
            Err(error) => {
                end(&mut child);
                Err(error)
            }
        }
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Lets the child stop in order: its module's process must be gone before its folder goes.
fn end(child: &mut Child) {
    drop(child.stdin.take());
    // It may have ended by itself; either way nothing of it stays.
    let _ = child.wait();
}

/// Writes what a second gateway needs into `folder`, and gives back its configuration.
fn copy_gateway(folder: &Path, config: &Path, softhsm2_conf: &Path) -> anyhow::Result<PathBuf> {
    let conf: String = fs::read_to_string(softhsm2_conf)?;
    let (key, tokens) = conf
        .lines()
        .find_map(|line| line.split_once('=').filter(|(key, _)| key.trim() == "directories.tokendir"))
        .context("no token folder")?;
    let own_tokens = folder.join("tokens");
    copy_folder(Path::new(tokens.trim()), &own_tokens)?;
    let own_conf = folder.join("softhsm2.conf");
    fs::write(&own_conf, conf.replace(&format!("{key}={tokens}"), &format!("{key}= {}", own_tokens.display())))?;
    let mut table: Table = fs::read_to_string(config)?.parse()?;
    let text = |path: &Path| Value::from(path.display().to_string());
    table.insert("data_dir".to_owned(), text(&folder.join("data")));
    table.insert("listener".to_owned(), Value::Array(vec![Table::from_iter([("address".to_owned(), Value::from("127.0.0.1:0"))]).into()]));
    let module = table.get_mut("module").and_then(|modules| modules.get_mut(0)).and_then(Value::as_table_mut).context("no module")?;
    module.insert("env".to_owned(), Table::from_iter([("SOFTHSM2_CONF".to_owned(), text(&own_conf))]).into());
    let own_config = folder.join("gateway.toml");
    fs::write(&own_config, table.to_string())?;
    Ok(own_config)
}

fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let (entry, target) = entry.map(|entry| (entry.path(), to.join(entry.file_name())))?;
        if entry.is_dir() {
            copy_folder(&entry, &target)?;
        } else {
            fs::copy(&entry, &target)?;
        }
    }
    Ok(())
}

/// The child: serves as it is told until its input ends.
pub(in crate::cli) fn run() -> anyhow::Result<()> {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    let order: Order = serde_json::from_str(&line).context("this verb is for `sealgate bench`, which tells it what to do")?;
    let runtime = server_runtime()?;
    let served = runtime.block_on(async {
        let signals = StopSignals::install()?;
        let gateway = Gateway::start_on(&Config::load(&order.config)?, Some(order.store)).await?;
        let address = gateway.addresses().first().context("the gateway has no address; report this as a bug")?;
        output::json(&Serving { url: format!("http://{address}") })?;
        // Reads until the other end is closed.
        tokio::task::spawn_blocking(|| io::copy(&mut io::stdin().lock(), &mut io::sink())).await??;
        gateway.stop(signals).await;
        Ok(())
    });
    runtime.shutdown_background();
    served
}
