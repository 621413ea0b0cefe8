//! The token that is plugged in, as `init` finds it. A login is made only where a PIN file was given, and only once.

use std::collections::BTreeSet;

use anyhow::{Context as _, bail};

use super::{answers::Answers, render};
use crate::{
    cli::{
        modules::{self, Logins},
        secret,
    },
    config::Config,
    domain::{ids::KeyName, key_uri::Pkcs11Uri, pin::PinOrigin, token::KeyDescription},
    token::{
        command::{Command, Reply},
        slot::SlotHandle,
        supervisor::Tokens,
    },
};

/// What was found.
pub(super) struct Found {
    pub(super) token: Pkcs11Uri,
    pub(super) keys: Vec<FoundKey>,
}

/// A key, with the name that it gets.
pub(super) struct FoundKey {
    pub(super) name: KeyName,
    pub(super) uri: Pkcs11Uri,
}

/// Looks at the module's tokens.
pub(super) async fn look(answers: &Answers) -> anyhow::Result<Found> {
    // A configuration of the module alone, in a folder that goes again.
    let folder = tempfile::tempdir().context("no temporary folder was made")?;
    let file = folder.path().join("look.toml");
    std::fs::write(&file, render::look(answers, folder.path())).context("a temporary file cannot be written")?;
    let config = Config::load(&file)?;
    let opened = modules::open(&config, Logins::None).await?;
    let found = among(&opened.tokens, answers).await;
    opened.tokens.stop().await;
    found
}

async fn among(tokens: &Tokens, answers: &Answers) -> anyhow::Result<Found> {
    if let Some((module, problem)) = tokens.problems().into_iter().next() {
        bail!("the module {module} ({}) does not run: {problem}", answers.module.display());
    }
    let wanted = answers.token.clone().unwrap_or_default();
    let slots: Vec<_> = tokens.slots().into_iter().filter(|slot| wanted.matches_token(slot.token())).collect();
    let slot = match &slots[..] {
        [only] => only,
        [] => bail!(
            "no such token is plugged in; plug it in, and see what the library shows: pkcs11-tool --module {} -L",
            answers.module.display()
        ),
        several => {
            let uris: Vec<_> = several.iter().map(|slot| format!("\n  --token '{}'", slot.token().uri())).collect();
            bail!("several tokens are plugged in; name one:{}", uris.concat());
        }
    };
    let token = slot.token().uri();
    let keys = match &answers.pin_file {
        None => Vec::new(),
        Some(file) => keys(slot, secret::pin_from_file(file)?).await?,
    };
    Ok(Found { keys: named(&token, &keys), token })
}

/// The private keys that the token shows once it is logged in.
async fn keys(slot: &SlotHandle, pin: crate::domain::pin::Pin) -> anyhow::Result<Vec<KeyDescription>> {
    let login = Command::Login { pin: Some(pin), origin: PinOrigin::Operator { insist: false } };
    slot.call(login).await.context("the token did not take the PIN of --pin-file; it was tried once")?;
    let listed = slot.call(Command::ListKeys).await.context("the token does not list its keys")?;
    let Reply::Keys(keys) = listed else { bail!("the token listed no keys; report this as a bug") };
    Ok(keys)
}

/// Each key by its label, as far as that is a name, or by its id.
fn named(token: &Pkcs11Uri, keys: &[KeyDescription]) -> Vec<FoundKey> {
    let mut taken = BTreeSet::new();
    let name = |key: &KeyDescription| -> Option<KeyName> {
        let plain: String = key.label.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' }).collect();
        let by_label = plain.parse().ok().filter(|_| plain.contains(|c: char| c.is_ascii_alphanumeric()));
        by_label.or_else(|| format!("key-{}", hex::encode(&key.id)).parse().ok())
    };
    let mut found = Vec::new();
    for key in keys {
        if let Some(name) = name(key)
            && taken.insert(name.clone())
        {
            found.push(FoundKey { name, uri: token.with_key(key) });
        }
    }
    found
}
