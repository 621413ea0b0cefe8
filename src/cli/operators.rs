//! `sealgate operators`: the people who log in to the console. Through the gateway that runs, or in its store while none does.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use zeroize::Zeroizing;

use super::{
    control_client::ControlClient,
    data_folder::DataFolder,
    output,
    place::{GatewayArgs, Place},
    secret, server_runtime,
    store::OpenStore,
};
use crate::{
    auth::{Operators, Password, SessionSettings},
    domain::{
        caller::KeyAccess,
        ids::{KeyName, OperatorName},
        operator::{Operator, Role},
    },
    http::control::{
        dto::SecretText,
        operators::{AddOperatorDto, DoneDto, OperatorDto, OperatorsDto, PasswordDto, SetPasswordDto},
        who_runs_this,
    },
};

/// How long the store may take to write the last change.
const CLOSE_MAX: Duration = Duration::from_secs(10);

/// Arguments of `operators`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Add an operator.
    Add(AddArgs),
    /// List operators.
    List(ListArgs),
    /// Give an operator another password, and end all their sessions.
    Password(PasswordArgs),
    /// Let an operator log in no more, and end all their sessions.
    Disable(NameArgs),
    /// Let an operator log in again.
    Enable(NameArgs),
    /// Remove an operator.
    Remove(NameArgs),
    /// End all sessions of an operator.
    LogOut(NameArgs),
}

#[derive(Debug, clap::Args)]
struct AddArgs {
    #[command(flatten)]
    gateway: GatewayArgs,
    /// The operator's name, which stands in the audit log beside each decision.
    name: OperatorName,
    /// `approver` decides about signatures and unlocks tokens; `administrator` looks after the gateway, too.
    #[arg(long, value_parser = role, default_value = "approver")]
    role: Role,
    /// A key that is theirs; give it once for each. Without it, all keys are.
    #[arg(long = "key", value_name = "NAME")]
    keys: Vec<KeyName>,
    #[command(flatten)]
    password: NewPassword,
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
struct PasswordArgs {
    #[command(flatten)]
    gateway: GatewayArgs,
    /// The operator.
    name: OperatorName,
    #[command(flatten)]
    password: NewPassword,
}

#[derive(Debug, clap::Args)]
struct NameArgs {
    #[command(flatten)]
    gateway: GatewayArgs,
    /// The operator.
    name: OperatorName,
}

/// Where a new password comes from; typed at the terminal if nothing is said.
#[derive(Debug, clap::Args)]
struct NewPassword {
    /// Make a password and print it, once.
    #[arg(long, conflicts_with = "password_file")]
    generate: bool,
    /// Read the password from the first line of a file that nobody else can read.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

fn role(text: &str) -> Result<Role, String> {
    serde_json::from_value(text.into()).map_err(|_| "use approver or administrator".to_owned())
}

impl NewPassword {
    /// `None`: the gateway makes one.
    fn read(&self) -> anyhow::Result<Option<Password>> {
        match (&self.password_file, self.generate) {
            (Some(file), _) => secret::password_from_file(file).map(Some),
            (None, true) => Ok(None),
            (None, false) => secret::password_from_terminal().map(Some),
        }
    }
}

/// Carries out what was asked for.
pub(super) fn run(args: Args) -> anyhow::Result<()> {
    let place = args.what.gateway().place()?;
    server_runtime()?.block_on(async {
        match ControlClient::connect(&place.control)? {
            Some(gateway) => through(&gateway, args.what).await,
            None => beside(&place, args.what).await,
        }
    })
}

impl What {
    const fn gateway(&self) -> &GatewayArgs {
        match self {
            Self::Add(args) => &args.gateway,
            Self::List(args) => &args.gateway,
            Self::Password(args) => &args.gateway,
            Self::Disable(args) | Self::Enable(args) | Self::Remove(args) | Self::LogOut(args) => &args.gateway,
        }
    }
}

/// By the gateway that runs.
async fn through(gateway: &ControlClient, what: What) -> anyhow::Result<()> {
    let wire = |password: Password| SecretText::new(Zeroizing::new(password.reveal().to_owned()));
    let change = async |args: &NameArgs, change: &str, done: &str| {
        gateway.post::<DoneDto>(&format!("/operators/{}/{change}", args.name), &()).await?;
        output::line(format_args!("{} {done}", args.name))
    };
    match what {
        What::List(args) => list(gateway.get::<OperatorsDto>("/operators").await?, args.json),
        What::Add(args) => {
            let keys = (!args.keys.is_empty()).then_some(args.keys);
            let password = args.password.read()?.map(wire);
            let order = AddOperatorDto { name: args.name.clone(), role: args.role, keys, password };
            let made: PasswordDto = gateway.post("/operators", &order).await?;
            show(&args.name, "was added", made.password.as_ref().map(SecretText::reveal))
        }
        What::Password(args) => {
            let order = SetPasswordDto { password: args.password.read()?.map(wire) };
            let made: PasswordDto = gateway.post(&format!("/operators/{}/password", args.name), &order).await?;
            show(&args.name, "has a new password", made.password.as_ref().map(SecretText::reveal))
        }
        What::Disable(args) => change(&args, "disable", DISABLED).await,
        What::Enable(args) => change(&args, "enable", ENABLED).await,
        What::Remove(args) => change(&args, "remove", REMOVED).await,
        What::LogOut(args) => change(&args, "log-out", LOGGED_OUT).await,
    }
}

const DISABLED: &str = "cannot log in any more";
const ENABLED: &str = "can log in";
const REMOVED: &str = "was removed";
const LOGGED_OUT: &str = "is logged in nowhere";

/// In the store of a gateway that does not run.
async fn beside(place: &Place, what: What) -> anyhow::Result<()> {
    let data = DataFolder::claim(&place.config.data_dir)?;
    let store = OpenStore::open(&place.config, &data, None).await?;
    let operators = Operators::new(Arc::clone(&store.store()), SessionSettings::default());
    let done = change(&operators, what).await;
    drop(operators);
    store.close(CLOSE_MAX).await;
    done
}

async fn change(operators: &Operators, what: What) -> anyhow::Result<()> {
    let by = who_runs_this();
    match what {
        What::List(args) => {
            let accounts = operators.list().await?;
            list(OperatorsDto { operators: accounts.into_iter().map(OperatorDto::from).collect() }, args.json)
        }
        What::Add(args) => {
            let (password, made) = given_or_made(args.password.read()?)?;
            let keys = if args.keys.is_empty() { KeyAccess::All } else { KeyAccess::Only(args.keys) };
            operators.add(Operator { name: args.name.clone(), role: args.role, keys }, password, &by).await?;
            show(&args.name, "was added", made.as_ref().map(|made| made.as_str()))
        }
        What::Password(args) => {
            let (password, made) = given_or_made(args.password.read()?)?;
            operators.set_password(&args.name, password, &by).await?;
            show(&args.name, "has a new password", made.as_ref().map(|made| made.as_str()))
        }
        What::Disable(args) => {
            operators.set_disabled(&args.name, true, &by).await?;
            show(&args.name, DISABLED, None)
        }
        What::Enable(args) => {
            operators.set_disabled(&args.name, false, &by).await?;
            show(&args.name, ENABLED, None)
        }
        What::Remove(args) => {
            operators.remove(&args.name, &by).await?;
            show(&args.name, REMOVED, None)
        }
        What::LogOut(args) => {
            operators.log_out_everywhere(&args.name, &by).await?;
            show(&args.name, LOGGED_OUT, None)
        }
    }
}

/// The password, and its text where it was made here.
fn given_or_made(given: Option<Password>) -> anyhow::Result<(Password, Option<Zeroizing<String>>)> {
    match given {
        Some(given) => Ok((given, None)),
        None => {
            let made = Password::generate().context("no password was made; try again later")?;
            let told = Zeroizing::new(made.reveal().to_owned());
            Ok((made, Some(told)))
        }
    }
}

/// Says what was done; a password that was made is the result, for whoever reads standard output.
fn show(name: &OperatorName, done: &str, made: Option<&str>) -> anyhow::Result<()> {
    match made {
        Some(password) => {
            output::note(format_args!("sealgate: {name} {done}; this is the only time that the password is shown"));
            output::line(password)
        }
        None => output::line(format_args!("{name} {done}")),
    }
}

fn list(found: OperatorsDto, json: bool) -> anyhow::Result<()> {
    if json {
        return output::json(&found);
    }
    if found.operators.is_empty() {
        output::note(
            "sealgate: nobody can log in to the console yet; add the first one with `sealgate operators add NAME --role administrator`",
        );
        return Ok(());
    }
    let head = ["NAME", "ROLE", "KEYS", "STATE", "ADDED"].map(str::to_owned).to_vec();
    let rows: Vec<_> = std::iter::once(head).chain(found.operators.iter().map(row)).collect();
    output::table(&rows)
}

fn row(operator: &OperatorDto) -> Vec<String> {
    let keys = match &operator.keys {
        None => "all".to_owned(),
        Some(keys) => keys.iter().map(KeyName::as_str).collect::<Vec<_>>().join(","),
    };
    let state = if operator.disabled { "disabled" } else { "active" };
    vec![operator.name.to_string(), operator.role.to_string(), keys, state.to_owned(), operator.added.to_rfc3339()]
}
