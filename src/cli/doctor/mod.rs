//! `sealgate doctor`: looks at everything that a gateway needs, and says what is wrong and which command mends it.
//!
//! While a gateway runs it is asked through its control socket: there is no second login from outside. Without one the modules are opened
//! here, as the configuration says, and each key is proved by signing. Invariants: PINs are tried within the rules only, through the same
//! record as the gateway's; a printed command can be run as it stands; nothing is changed but by the person who runs it.

mod configuration;
mod files;
mod finding;
mod keys;
mod listeners;
mod machine;
mod shell;
mod site;
mod softhsm;
mod tls;
mod tokens;

use std::{path::Path, process::ExitCode};

use self::{
    finding::{Findings, Fix, Severity},
    site::Site,
    tokens::Seen,
};
use super::{
    FAILED,
    control_client::ControlClient,
    data_folder::control_socket,
    modules::{self, Logins, Opened},
    place::GatewayArgs,
    server_runtime,
};
use crate::{
    domain::token::SlotState,
    http::control::dto::{OffersDto, SlotDto, SlotsDto},
};

/// Arguments of `doctor`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    gateway: GatewayArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Examines the gateway and prints what was found; the exit code is 1 if there is a fault.
pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let file = std::path::absolute(args.gateway.config_file()?)?;
    let mut findings = Findings::default();
    let runtime = server_runtime()?;
    let examined = runtime.block_on(examine(&file, &mut findings));
    // A call into a module that never returns must not keep the process.
    runtime.shutdown_background();
    examined?;
    if args.json {
        findings.print_json()?
    } else {
        findings.print()?
    }
    Ok(if findings.count(Severity::Fault) == 0 { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

async fn examine(file: &Path, findings: &mut Findings) -> anyhow::Result<()> {
    let Some(site) = configuration::examine(file, findings) else { return Ok(()) };
    files::examine(&site, findings);
    softhsm::examine(&site, findings);
    tls::examine(&site, findings);
    match ControlClient::connect(&control_socket(&site.config.data_dir)) {
        Ok(Some(gateway)) => ask_gateway(&site, &gateway, findings).await,
        Ok(None) => {
            findings.ok("gateway", "none runs; the tokens are looked at directly");
            listeners::examine(&site, findings);
            look_for_ourselves(&site, findings).await
        }
        Err(error) => {
            let owner = files::other_owner(&site.config.data_dir);
            let fix = owner.map_or_else(
                || Fix::by_hand("run doctor as the user that runs the gateway"),
                |owner| Fix::command(shell::as_user(owner, &site.sealgate("doctor"))),
            );
            findings.fault("gateway", format!("{error:#}"), "neither the gateway nor its tokens can be examined", fix);
            Ok(())
        }
    }
}

async fn ask_gateway(site: &Site, gateway: &ControlClient, findings: &mut Findings) -> anyhow::Result<()> {
    findings.ok("gateway", "one runs and is asked; it has the addresses and the tokens");
    let slots: SlotsDto = gateway.get("/slots").await?;
    machine::examine(site, present(&slots), findings);
    tokens::examine(site, Seen::ByGateway, &slots, findings);
    let told: OffersDto = gateway.get("/offers").await?;
    told.offers.iter().for_each(|told| tokens::offer(&told.token, &told.offer, findings));
    keys::ask(site, gateway, findings).await
}

async fn look_for_ourselves(site: &Site, findings: &mut Findings) -> anyhow::Result<()> {
    let (opened, seen) = open(site, findings).await?;
    let slots = SlotsDto {
        slots: opened.tokens.slots().iter().map(|slot| SlotDto::from(slot.report())).collect(),
        module_problems: opened.tokens.problems(),
    };
    machine::examine(site, present(&slots), findings);
    tokens::examine(site, seen, &slots, findings);
    tokens::offers(&opened.tokens, findings).await;
    keys::examine(site, seen, &opened.tokens, findings).await;
    opened.tokens.stop().await;
    Ok(())
}

/// Opens the modules; with the configured logins only where these would be recorded as the gateway's own are.
async fn open(site: &Site, findings: &mut Findings) -> anyhow::Result<(Opened, Seen)> {
    let data_is_ours = files::other_owner(&site.config.data_dir).is_none();
    let record_is_sound = !findings.has_fault("data-folder") && !findings.has_fault("pin-record");
    if data_is_ours && record_is_sound {
        match modules::open(&site.config, Logins::AsConfigured).await {
            Ok(opened) => return Ok((opened, Seen::LoggedIn)),
            Err(error) => {
                let fix = Fix::by_hand("wait until the other command has ended, then run doctor again");
                findings.fault("gateway", format!("{error:#}"), "no PIN is tried that cannot be recorded", fix);
            }
        }
    }
    Ok((modules::open(&site.config, Logins::None).await?, Seen::LookedAt))
}

fn present(slots: &SlotsDto) -> usize {
    slots.slots.iter().filter(|slot| slot.state != SlotState::Absent).count()
}
