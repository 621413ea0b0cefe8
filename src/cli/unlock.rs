//! `sealgate unlock`: logs a token in with its PIN, through the gateway that runs. Without one it can only forget rejected PINs.

use std::path::PathBuf;

use anyhow::Context as _;
use zeroize::Zeroizing;

use super::{
    control_client::ControlClient,
    data_folder::DataFolder,
    modules::{self, Logins},
    output,
    place::{GatewayArgs, Place},
    runtime, secret, server_runtime,
};
use crate::{
    domain::{
        key_uri::Pkcs11Uri,
        pin::{LedgerKey, Pin, PinLedger as _},
        token::{LoginMode, TokenIdentity},
    },
    http::control::dto::{SecretText, SlotDto, SlotsDto, TokenDto, UnlockDto},
    store::pin_ledger::StoredPinLedger,
};

/// Arguments of `unlock`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    gateway: GatewayArgs,
    /// Forget first which PINs the token has rejected: for a card that was unblocked, or whose PIN was changed.
    #[arg(long)]
    forget_rejection: bool,
    /// Try although the token warns that one more wrong PIN locks it.
    #[arg(long)]
    insist: bool,
    /// Read the PIN from the first line of a file that nobody else can read, instead of asking for it.
    #[arg(long, value_name = "FILE")]
    pin_file: Option<PathBuf>,
    /// The token, as `sealgate slots` prints it. Without it the only one there is.
    uri: Option<Pkcs11Uri>,
}

/// Asks for the PIN and passes it to the gateway.
pub(super) fn run(args: Args) -> anyhow::Result<()> {
    let place = args.gateway.place()?;
    if args.forget_rejection && ControlClient::connect(&place.control)?.is_none() {
        return forget_while_no_gateway_runs(&place, args.uri.unwrap_or_default());
    }
    let gateway = ControlClient::expect(&place.control)?;
    let runtime = runtime()?;
    let slots: SlotsDto = runtime.block_on(gateway.get("/slots"))?;
    let pin = if at_the_reader(&slots, args.uri.as_ref()) { None } else { Some(pin(&args)?) };
    let order = UnlockDto {
        uri: args.uri,
        pin: pin.map(|pin| SecretText::new(Zeroizing::new(pin.reveal().to_owned()))),
        insist: args.insist,
        forget_rejection: args.forget_rejection,
    };
    if order.pin.is_none() {
        output::note("sealgate: type the PIN at the reader");
    }
    let unlocked: TokenDto = runtime.block_on(gateway.post("/unlock", &order))?;
    output::line(format_args!("unlocked {}", unlocked.uri))
}

/// Forgets what the token has rejected, in the record that the next start of the gateway reads.
fn forget_while_no_gateway_runs(place: &Place, uri: Pkcs11Uri) -> anyhow::Result<()> {
    let token = server_runtime()?.block_on(async {
        let opened = modules::open(&place.config, Logins::None).await?;
        let found = opened.tokens.find(&uri).map(|slot| slot.token().clone());
        opened.tokens.stop().await;
        found.context("name one token that is plugged in by its URI, as `sealgate slots` prints it")
    })?;
    let data = DataFolder::claim(&place.config.data_dir)?;
    StoredPinLedger::open(data.dir())?.forget(&LedgerKey::of(&token));
    output::line(format_args!("forgot which PINs {} has rejected; no gateway runs, so it was not unlocked", token.uri()))
}

fn pin(args: &Args) -> anyhow::Result<Pin> {
    match &args.pin_file {
        Some(file) => secret::pin_from_file(file),
        None => secret::pin_from_terminal("PIN: "),
    }
}

/// Whether the PIN is typed at the reader's own PIN pad, so that we must not ask for it.
fn at_the_reader(slots: &SlotsDto, uri: Option<&Pkcs11Uri>) -> bool {
    let mut named = slots.slots.iter().filter(|slot| uri.is_none_or(|uri| uri.matches_token(&identity(slot)))).peekable();
    named.peek().is_some() && named.all(|slot| slot.login == LoginMode::Protected)
}

fn identity(slot: &SlotDto) -> TokenIdentity {
    TokenIdentity {
        module: slot.module.clone(),
        manufacturer: slot.manufacturer.clone(),
        model: slot.model.clone(),
        serial: slot.serial.clone(),
        label: slot.label.clone(),
    }
}
