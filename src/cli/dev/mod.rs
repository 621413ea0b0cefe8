//! `sealgate dev`: a token, keys, certificates, a configuration and a gateway that serves them, in one go.
//!
//! Everything stands in one folder, locked against a second process; a second start uses it again. It is an ordinary gateway on an ordinary
//! configuration: what works here works with `sealgate serve`. Invariant: `dev.json` stands in the folder only while requests are served.

pub(in crate::cli) mod layout;
mod provision;
mod record;
mod settings;
mod softhsm;

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, ensure};

pub(in crate::cli) use self::settings::DEFAULT_KEY;
use self::{
    layout::{Layout, remove_if_there},
    record::{DevJson, DevKey, TokenRecord},
    settings::{DevSettings, TSA_KEY},
};
use super::{gateway::Gateway, output, secret, server_runtime};
use crate::{
    auth::{ApiKey, Operators, Password, generate_api_key},
    config::{Config, DEFAULT_PORT},
    domain::{
        caller::KeyAccess,
        ids::OperatorName,
        operator::{Operator, Role},
    },
    shutdown::StopSignals,
};

/// The folder of development mode where none is named.
pub(in crate::cli) const DEFAULT_DIR: &str = "./.sealgate-dev";
/// How long the token may take until it can sign.
const READY_MAX: Duration = Duration::from_secs(30);
/// The operator of development mode.
const OPERATOR: &str = "dev";
/// Who gives them their password, in the audit log.
const BY_DEV: &str = "development mode";

/// Arguments of `dev`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The folder for everything that is made; a second start uses it again.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_DIR)]
    dir: PathBuf,
    /// The address to listen on; port 0 is any free one.
    #[arg(long, value_name = "ADDR", default_value_t = SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT)))]
    listen: SocketAddr,
}

/// Makes what is missing and serves until a signal.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    ensure!(args.listen.ip().is_loopback(), "development mode is for this machine only; use --listen 127.0.0.1:PORT");
    let layout = Layout::new(&args.dir)?;
    let _lock = layout.claim()?;
    remove_if_there(&layout.dev_json())?;
    let module = softhsm::find()?;
    let runtime = server_runtime()?;
    let served = runtime.block_on(serve(&layout, &module, args.listen));
    // A call into a module that never returns must not keep the process.
    runtime.shutdown_background();
    served
}

async fn serve(layout: &Layout, module: &Path, listen: SocketAddr) -> anyhow::Result<()> {
    let signals = StopSignals::install().context("signals cannot be waited for")?;
    let token = token(layout, module).await?;
    provision::write_crl(layout)?;
    let api_key = generate_api_key().context("no API key was made; try again later")?;
    let bank_token = generate_api_key().context("no API key was made; try again later")?;
    let consent_api_key = generate_api_key().context("no API key was made; try again later")?;
    DevSettings { layout, listen, module, token: &token, api_key: &api_key, bank_token: &bank_token, consent_api_key: &consent_api_key }
        .write()?;
    let gateway = Gateway::start(&Config::load(&layout.config())?).await?;
    let shown = match gateway.ready(&token.uri, READY_MAX).await {
        Ok(()) => match operator(gateway.operators()).await {
            Ok(operator) => show(layout, module, &token, ([&api_key, &bank_token, &consent_api_key], &operator), &gateway),
            Err(error) => Err(error),
        },
        Err(error) => Err(error.context(format!("the development token in {} cannot sign", layout.tokens().display()))),
    };
    if let Err(error) = shown {
        gateway.stop(signals).await;
        return Err(error);
    }
    gateway.run(signals, || remove_if_there(&layout.dev_json())).await;
    Ok(())
}

/// The operator of development mode, with a new password: like the API key, it is on disk only while it serves.
async fn operator(operators: &Operators) -> anyhow::Result<(OperatorName, Password)> {
    let name: OperatorName = OPERATOR.parse()?;
    let password = Password::generate().context("no password was made; try again later")?;
    let copy = Password::typed(password.reveal())?;
    let known = operators.list().await?.iter().any(|account| account.operator.name == name);
    if known {
        operators.set_password(&name, copy, BY_DEV).await?;
    } else {
        operators.add(Operator { name: name.clone(), role: Role::Administrator, keys: KeyAccess::All }, copy, BY_DEV).await?;
    }
    Ok((name, password))
}

/// The token of the folder, made now if there is none.
async fn token(layout: &Layout, module: &Path) -> anyhow::Result<TokenRecord> {
    let Some(token) = TokenRecord::read(layout)? else {
        output::note(format_args!("sealgate: making a token, keys and certificates in {}", layout.dir().display()));
        return provision::make_token(layout, module).await;
    };
    ensure_whole(layout, &token)?;
    // The folder may have been moved since the last start.
    softhsm::write_conf(layout)?;
    Ok(token)
}

/// A token whose folder was moved away cannot be made again: its keys are gone with it, and whoever moved it may want it back.
fn ensure_whole(layout: &Layout, token: &TokenRecord) -> anyhow::Result<()> {
    let tokens = layout.tokens();
    let has_tokens = fs::read_dir(&tokens).is_ok_and(|mut entries| entries.next().is_some());
    ensure!(
        has_tokens,
        "the token folder {} is not there or empty: put it back, or remove {} to make a new token",
        tokens.display(),
        layout.dir().display()
    );
    let certificates = token.keys.iter().map(|key| layout.certificate(key.name.as_str()));
    let missing = certificates.chain([layout.certificate("ca"), layout.pin()]).find(|file| !file.is_file());
    match missing {
        None => Ok(()),
        Some(file) => anyhow::bail!("{} is not there: put it back, or remove {} to start afresh", file.display(), layout.dir().display()),
    }
}

/// Says where everything is: in `dev.json` for programs, at the terminal for people.
fn show(
    layout: &Layout,
    module: &Path,
    token: &TokenRecord,
    ([api_key, bank_token, consent_api_key], (operator_user, operator_password)): ([&ApiKey; 3], &(OperatorName, Password)),
    gateway: &Gateway,
) -> anyhow::Result<()> {
    let address = gateway.addresses().first().context("the gateway has no address; report this as a bug")?;
    let url = format!("http://{address}");
    let key = |key: &'_ record::KeyRecord| (key.name.clone(), key.uri.clone(), layout.certificate(key.name.as_str()));
    let keys: Vec<_> = token.keys.iter().filter(|key| key.name.as_str() != TSA_KEY).map(key).collect();
    let json = DevJson {
        url: &url,
        api_key,
        consent_api_key,
        bank_token,
        operator_user,
        operator_password,
        ca_certificate: layout.certificate("ca"),
        module,
        softhsm2_conf: layout.softhsm2_conf(),
        token_uri: &token.uri,
        user_pin: &secret::pin_from_file(&layout.pin())?,
        keys: keys.iter().map(|(name, uri, certificate)| DevKey { name, uri, certificate }).collect(),
        config: layout.config(),
    };
    json.write(layout)?;
    let dir = layout.dir().display();
    output::note(format_args!(
        "sealgate: serving on {url}\n\
         sealgate: everything a program needs stands in {dir}/dev.json while this runs; the API key, for example: jq -r .api_key {dir}/dev.json\n\
         sealgate: try: SEALGATE_API_KEY=$(jq -r .api_key {dir}/dev.json) sealgate sign --url {url} --key {DEFAULT_KEY} FILE"
    ));
    Ok(())
}
