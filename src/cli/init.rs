//! `sealgate init`: the beginning of a gateway on a token that is plugged in: configuration, data folder, TLS, first operator.
//!
//! Asks at the terminal for what the arguments do not say, or, with `--yes`, for nothing. Invariants: nothing that exists is overwritten; if it
//! fails, what it has made is gone again; the configuration is written last, so that one that is there is whole.

mod answers;
mod files;
mod render;
mod token;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, bail};

use self::{answers::Answers, files::Made, token::Found};
use super::{
    data_folder::{DataFolder, control_socket, database},
    output, secret, server_runtime,
    store::{CLOSE_MAX, OpenStore},
};
use crate::{
    auth::{Operators, Password, SessionSettings},
    config::Config,
    domain::{
        caller::KeyAccess,
        ids::OperatorName,
        key_uri::Pkcs11Uri,
        operator::{Operator, Role},
    },
    http::control::who_runs_this,
};

/// Where a gateway's configuration and its state stand where nothing is said.
const CONFIG_DIR: &str = "/etc/sealgate";
const DATA_DIR: &str = "/var/lib/sealgate";

/// Arguments of `init`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The folder for the configuration and the files for TLS.
    #[arg(long, value_name = "DIR", default_value = CONFIG_DIR)]
    dir: PathBuf,
    /// The folder for the gateway's own files.
    #[arg(long, value_name = "DIR", default_value = DATA_DIR)]
    data_dir: PathBuf,
    /// The PKCS#11 library of the token.
    #[arg(long, value_name = "FILE", env = "SEALGATE_MODULE")]
    module: Option<PathBuf>,
    /// A variable for the library's process, say SOFTHSM2_CONF=/etc/softhsm2.conf; may be given several times.
    #[arg(long = "module-env", value_name = "NAME=VALUE", value_parser = variable)]
    module_env: Vec<(String, String)>,
    /// The token; needed where several are plugged in.
    #[arg(long, value_name = "URI")]
    token: Option<Pkcs11Uri>,
    /// Log the token in by itself, with the PIN in the first line of this file (mode 0600). Without it an operator unlocks it.
    #[arg(long, value_name = "FILE")]
    pin_file: Option<PathBuf>,
    /// The address to listen on. Other machines reach it with TLS only.
    #[arg(long, value_name = "ADDR", env = "SEALGATE_LISTEN")]
    listen: Option<SocketAddr>,
    /// A name under which the gateway is reached; may be given several times.
    #[arg(long = "host", value_name = "NAME")]
    hosts: Vec<String>,
    /// The certificate of the gateway and of its CAs, in PEM. Without it a CA and a certificate are made, unless the address is a loopback one.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_certificate: Option<PathBuf>,
    /// Its private key, in PEM.
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    tls_key: Option<PathBuf>,
    /// The name of the first operator, an administrator.
    #[arg(long, value_name = "NAME", env = "SEALGATE_OPERATOR")]
    operator: Option<OperatorName>,
    /// Their password, in the first line of a file that nobody else can read. Without it one is made and printed, once.
    #[arg(long, value_name = "FILE")]
    operator_password_file: Option<PathBuf>,
    /// Ask nothing: take the arguments, and the defaults for what they do not say.
    #[arg(long)]
    yes: bool,
}

fn variable(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Makes the gateway.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let config_file = args.dir.join("sealgate.toml");
    ensure_new(&config_file, &args.data_dir)?;
    let answers = Answers::of(args)?;
    let runtime = server_runtime()?;
    let found = runtime.block_on(token::look(&answers));
    let found = found?;
    let mut made = Made::default();
    made.folder(&args.dir, 0o755)?;
    let tls = files::tls(&answers, &args.dir, &mut made)?;
    // Checked as a file of its own first: the one that counts is there only when all else is.
    let text = render::configuration(&answers, &found, tls.as_ref(), &args.data_dir);
    let draft = args.dir.join(".sealgate.toml.new");
    made.file(&draft, text.as_bytes(), 0o640)?;
    let config = Config::load(&draft).context("what was asked for makes no sound configuration; correct the arguments")?;
    made.data_folder(&args.data_dir);
    let password = runtime.block_on(first_operator(&config, &answers))?;
    std::fs::rename(&draft, &config_file).with_context(|| format!("{} cannot be written", config_file.display()))?;
    made.keep();
    tell(&config_file, &answers, &found, tls.as_ref(), password.as_ref())
}

fn ensure_new(config: &Path, data_dir: &Path) -> anyhow::Result<()> {
    if config.exists() {
        bail!("{} is there already, and is not overwritten; change it, or name another folder with --dir", config.display());
    }
    if database(data_dir).exists() || control_socket(data_dir).exists() {
        bail!("{} is a gateway's data folder already; name another one with --data-dir", data_dir.display());
    }
    Ok(())
}

/// Adds the operator to the new store; gives back the password if it was made here.
async fn first_operator(config: &Config, answers: &Answers) -> anyhow::Result<Option<Password>> {
    let data = DataFolder::claim(&config.data_dir)?;
    let store = OpenStore::open(config, &data, None).await?;
    let operators = Operators::new(Arc::clone(&store.store()), SessionSettings::default());
    let operator = Operator { name: answers.operator.clone(), role: Role::Administrator, keys: KeyAccess::All };
    let added = async {
        match &answers.password_file {
            Some(file) => {
                operators.add(operator, secret::password_from_file(file)?, &who_runs_this()).await?;
                anyhow::Ok(None)
            }
            None => {
                let made = Password::generate().context("no password was made; try again later")?;
                operators.add(operator, Password::typed(made.reveal())?, &who_runs_this()).await?;
                Ok(Some(made))
            }
        }
    };
    let added = added.await;
    drop(operators);
    store.close(CLOSE_MAX).await;
    added
}

/// Says what was made and what comes next.
fn tell(config: &Path, answers: &Answers, found: &Found, tls: Option<&files::Tls>, password: Option<&Password>) -> anyhow::Result<()> {
    let shown = config.display();
    output::line(format_args!("made {shown}, for the token {}", found.token))?;
    match tls {
        Some(files::Tls { ca: Some(ca), certificate, .. }) => {
            output::line(format_args!("made {} and the CA {}; clients trust the latter", certificate.display(), ca.display()))?;
        }
        Some(files::Tls { certificate, .. }) => output::line(format_args!("TLS with {}", certificate.display()))?,
        None => output::line("plain HTTP, for this machine alone")?,
    }
    match password {
        Some(password) => {
            output::line(format_args!("made the operator {}, password (shown once): {}", answers.operator, password.reveal()))?
        }
        None => output::line(format_args!("made the operator {}", answers.operator))?,
    }
    if found.keys.is_empty() {
        let seen = if answers.pin_file.is_some() { "the token has no key" } else { "no key can be seen before the token is logged in" };
        output::line(format_args!(
            "{seen}: once it has one, add a [[key]] to {shown} with the URI that `sealgate keys --config {shown}` prints.\n\
             A token makes a key with: pkcs11-tool --module {} --login --keypairgen --key-type EC:prime256v1 --id 01 --label seal",
            answers.module.display()
        ))?;
    }
    let caller = found.keys.first().map_or_else(|| "--all-keys".to_owned(), |key| format!("--key {}", key.name));
    output::line("next:")?;
    output::line(format_args!("  sealgate doctor --config {shown}"))?;
    output::line(format_args!("  sealgate callers add back-office --config {shown} {caller}"))?;
    output::line(format_args!("  sealgate serve --config {shown}"))?;
    if answers.pin_file.is_none() {
        output::line(format_args!("  sealgate unlock --config {shown} '{}'", found.token))?;
    }
    Ok(())
}
