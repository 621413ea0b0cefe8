//! `sealgate lock`: logs a token out, through the gateway that runs.

use super::{control_client::ControlClient, output, place::GatewayArgs, runtime};
use crate::{
    domain::key_uri::Pkcs11Uri,
    http::control::dto::{LockDto, TokenDto},
};

/// Arguments of `lock`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    gateway: GatewayArgs,
    /// The token, as `sealgate slots` prints it. Without it the only one there is.
    uri: Option<Pkcs11Uri>,
}

/// Has the gateway log the token out.
pub(super) fn run(args: Args) -> anyhow::Result<()> {
    let place = args.gateway.place()?;
    let gateway = ControlClient::expect(&place.control)?;
    let locked: TokenDto = runtime()?.block_on(gateway.post("/lock", &LockDto { uri: args.uri }))?;
    output::line(format_args!("locked {}; nothing is signed with it before the next unlock", locked.uri))
}
