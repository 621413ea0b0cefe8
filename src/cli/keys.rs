//! `sealgate keys`: the keys on the tokens that are plugged in, and what they can do.

use std::sync::Arc;

use super::{
    control_client::ControlClient,
    modules::{self, Logins},
    output,
    place::{GatewayArgs, Place},
    server_runtime,
    slots::note_problems,
};
use crate::{
    domain::token::KeyProtection,
    http::control::dto::{KeyDto, KeysDto},
    permit::{PermitService, PermitSettings},
    signing::service::{SigningService, SigningSettings},
    store::{Store, memory::MemoryStore},
    token::supervisor::Tokens,
};

/// Arguments of `keys`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    gateway: GatewayArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Shows the keys: as the gateway sees them if one runs, else as the tokens show them after the configured login.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let place = args.gateway.place()?;
    let mut keys = server_runtime()?.block_on(find(&place))?;
    // Tokens list their keys in any order.
    keys.keys.sort_by_cached_key(|key| (key.uri.serial.clone(), key.id.clone()));
    if args.json {
        return output::json(&keys);
    }
    if keys.keys.is_empty() {
        output::note("sealgate: no key can be seen; most tokens show theirs only after a login, see `sealgate slots`");
        return Ok(());
    }
    let mut rows = vec![["NAME", "KIND", "KEPT", "CERTIFICATE", "URI"].map(str::to_owned).to_vec()];
    rows.extend(keys.keys.iter().map(row));
    output::table(&rows)
}

async fn find(place: &Place) -> anyhow::Result<KeysDto> {
    if let Some(gateway) = ControlClient::connect(&place.control)? {
        return gateway.get("/keys").await;
    }
    let opened = modules::open(&place.config, Logins::AsConfigured).await?;
    let keys = of(&opened.tokens, place).await;
    note_problems(&opened.tokens.problems());
    opened.tokens.stop().await;
    keys
}

/// Asks the tokens as a gateway would.
async fn of(tokens: &Tokens, place: &Place) -> anyhow::Result<KeysDto> {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let permits = Arc::new(PermitService::new(Arc::clone(&store), PermitSettings::default()));
    let signing = SigningService::start(tokens.clone(), place.config.keys.clone(), store, permits, SigningSettings::default())?;
    let keys = signing.desk().keys().await.into_iter().map(KeyDto::from).collect();
    signing.stop().await;
    Ok(KeysDto { keys })
}

fn row(key: &KeyDto) -> Vec<String> {
    let name = key.name.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
    let certificate = if key.has_certificate { "yes" } else { "no" };
    vec![name, key.kind.clone(), kept(key.protection).to_owned(), certificate.to_owned(), key.uri.to_string()]
}

/// How well a key is kept, in a word or two.
const fn kept(protection: KeyProtection) -> &'static str {
    match protection {
        KeyProtection { extractable: true, .. } => "EXTRACTABLE",
        KeyProtection { sensitive: false, .. } => "NOT SENSITIVE",
        KeyProtection { local: true, .. } => "made on the token",
        KeyProtection { local: false, .. } => "imported",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_key_goes_before_what_is_right() {
        let well = KeyProtection { sensitive: true, extractable: false, local: true };
        assert_eq!(kept(well), "made on the token");
        assert_eq!(kept(KeyProtection { local: false, ..well }), "imported");
        assert_eq!(kept(KeyProtection { sensitive: false, ..well }), "NOT SENSITIVE");
        assert_eq!(kept(KeyProtection { extractable: true, ..well }), "EXTRACTABLE");
    }
}
