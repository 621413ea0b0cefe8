//! `sealgate slots`: which tokens are plugged in, and what state they are in.

mod watch;

use std::collections::BTreeMap;

use super::{
    control_client::ControlClient,
    modules::{self, Logins},
    output,
    place::{GatewayArgs, Place},
    server_runtime,
};
use crate::{
    config::Config,
    domain::{ids::ModuleName, token::SlotState},
    http::control::dto::{SlotDto, SlotsDto},
    token::{slot::SlotHandle, supervisor::Tokens},
};

/// Arguments of `slots`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    gateway: GatewayArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Print a line for each token, and one for each change of a token's state, until interrupted.
    #[arg(long)]
    watch: bool,
}

/// Shows the tokens: as the gateway sees them if one runs, else as they are.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let place = args.gateway.place()?;
    if args.watch {
        return watch::run(&place, args.json);
    }
    let slots = server_runtime()?.block_on(find(&place))?;
    if args.json {
        return output::json(&slots);
    }
    print(&slots)
}

async fn find(place: &Place) -> anyhow::Result<SlotsDto> {
    if let Some(gateway) = ControlClient::connect(&place.control)? {
        return gateway.get("/slots").await;
    }
    output::note("sealgate: no gateway runs; these are the tokens that are plugged in");
    let opened = modules::open(&place.config, Logins::None).await?;
    let found = seen_by(&opened.tokens, &place.config);
    opened.tokens.stop().await;
    Ok(found)
}

/// What is seen while no gateway runs.
fn seen_by(tokens: &Tokens, config: &Config) -> SlotsDto {
    SlotsDto { slots: tokens.slots().iter().map(|slot| without_gateway(slot, config)).collect(), module_problems: tokens.problems() }
}

/// A token as it is while nobody has logged in: that it would need a PIN is no news.
fn without_gateway(slot: &SlotHandle, config: &Config) -> SlotDto {
    let login = config.token_policies.iter().find(|policy| policy.uri.matches_token(slot.token())).or(config.unlisted.as_ref());
    let mut shown = SlotDto::from(slot.report());
    shown.login = login.map_or(shown.login, |policy| policy.login);
    if shown.state == SlotState::NeedsPin {
        shown.state = SlotState::Present;
        shown.reason = "no gateway runs".to_owned();
    }
    shown
}

fn print(found: &SlotsDto) -> anyhow::Result<()> {
    if found.slots.is_empty() {
        output::note("sealgate: no token is plugged in");
    }
    let mut rows = vec![["STATE", "LOGIN", "MODULE", "TOKEN"].map(str::to_owned).to_vec()];
    rows.extend(found.slots.iter().map(row));
    if rows.len() > 1 {
        output::table(&rows)?;
    }
    found.slots.iter().filter_map(advice).for_each(output::note);
    note_problems(&found.module_problems);
    Ok(())
}

fn row(slot: &SlotDto) -> Vec<String> {
    let mut state = slot.status().to_string();
    if let Some(gateway) = &slot.gateway {
        state = format!("{state} at gateway {gateway}");
    }
    vec![state, slot.login.to_string(), slot.module.to_string(), slot.uri.to_string()]
}

/// What a person should do about a slot that does not sign; `None` if nothing.
fn advice(slot: &SlotDto) -> Option<String> {
    if slot.gateway.is_some() {
        // Operators of that gateway act there.
        return None;
    }
    let uri = &slot.uri;
    Some(match slot.state {
        SlotState::NeedsPin => format!("sealgate: to unlock it: sealgate unlock '{uri}'"),
        SlotState::PinRejected => format!("sealgate: correct the configured PIN, or unlock it with the right one: sealgate unlock '{uri}'"),
        SlotState::PinLocked => {
            format!("sealgate: unblock the PIN of {uri} with the vendor's tool, then: sealgate unlock --forget-rejection '{uri}'")
        }
        SlotState::WaitingAtReader => format!("sealgate: act at the reader of {uri}"),
        SlotState::Wedged => format!("sealgate: the module of {uri} does not return; restart the gateway"),
        SlotState::Quarantined => format!(
            "sealgate: a key of {uri} is used no more: replace the token, or correct the certificate of the key; then restart the gateway"
        ),
        SlotState::Absent | SlotState::Present | SlotState::Ready | SlotState::Busy | SlotState::Recovering => return None,
    })
}

/// Says which modules do not run.
pub(super) fn note_problems(problems: &BTreeMap<ModuleName, String>) {
    for (module, problem) in problems {
        output::note(format_args!("sealgate: module {module} does not run: {problem}"));
    }
}
