//! What webhooks are told, as it happens: tokens that need a PIN or are gone.

use std::{collections::HashMap, sync::Arc};

use anyhow::Context as _;
use secrecy::ExposeSecret as _;
use zeroize::Zeroizing;

use super::secret;
use crate::{
    config::{Config, WebhookSettings},
    domain::{
        ids::GatewayId,
        token::{SlotState, TokenIdentity},
    },
    notify::{Notice, Notifier, Webhook, WebhookSecret, What},
    store::Store,
    token::supervisor::Tokens,
};

/// Starts what tells the webhooks of this configuration.
pub(super) fn start(config: &Config) -> anyhow::Result<Notifier> {
    let webhooks = config.webhooks.iter().map(webhook).collect::<anyhow::Result<_>>()?;
    Notifier::start(webhooks).context("webhooks cannot be told anything")
}

/// Makes a webhook, with its secret.
pub(super) fn webhook(settings: &WebhookSettings) -> anyhow::Result<Webhook> {
    let file = &settings.secret_file;
    let text = Zeroizing::new(secret::line_of_private_file(file)?.expose_secret().to_owned());
    let secret = WebhookSecret::new(text).with_context(|| format!("{} holds no good secret", file.display()))?;
    let kinds = settings.events.iter().map(|event| event.parse()).collect::<Result<_, _>>()?;
    Webhook::new(&settings.url, secret, kinds).context("correct `url` of a [[webhook]]")
}

/// Tells of tokens for as long as it is polled.
pub(super) async fn watch_tokens(tokens: Tokens, notifier: Arc<Notifier>, gateway: GatewayId, store: Arc<dyn Store>) {
    let mut changes = tokens.changes();
    let mut seen: HashMap<TokenIdentity, SlotState> = HashMap::new();
    loop {
        changes.mark_unchanged();
        for slot in tokens.slots() {
            let state = slot.status().state;
            let before = seen.insert(slot.token().clone(), state);
            if before != Some(state)
                && let Some(what) = told(state, before, slot.token())
            {
                notifier.tell(Notice::new(gateway, store.now(), what));
            }
        }
        // An error means that the tokens are gone, and the gateway with them.
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// What a token's coming into this state is told as.
fn told(state: SlotState, before: Option<SlotState>, token: &TokenIdentity) -> Option<What> {
    let token = token.uri().to_string();
    match state {
        SlotState::NeedsPin | SlotState::PinRejected | SlotState::PinLocked => Some(What::PinNeeded { token, state: state.to_string() }),
        // One that was never there is not gone.
        SlotState::Absent if before.is_some() => Some(What::TokenGone { token }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_told_of_when_a_person_is_needed_and_when_it_goes() {
        let token = TokenIdentity {
            module: "softhsm".parse().unwrap(),
            manufacturer: String::new(),
            model: String::new(),
            serial: "1".to_owned(),
            label: "one".to_owned(),
        };
        let what = |state, before| told(state, before, &token);
        assert!(matches!(what(SlotState::NeedsPin, None), Some(What::PinNeeded { .. })));
        assert!(matches!(what(SlotState::PinRejected, Some(SlotState::Recovering)), Some(What::PinNeeded { .. })));
        assert!(matches!(what(SlotState::Absent, Some(SlotState::Ready)), Some(What::TokenGone { .. })));
        assert_eq!((what(SlotState::Absent, None), what(SlotState::Ready, Some(SlotState::NeedsPin))), (None, None));
    }
}
