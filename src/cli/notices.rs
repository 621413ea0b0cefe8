//! What webhooks are told, as it happens: tokens that need a PIN or are gone, operators who are asked, certificates that come to their end. And the browser that is opened for them.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use secrecy::ExposeSecret as _;
use tokio::{sync::mpsc, task::AbortHandle, time::sleep};
use zeroize::Zeroizing;

use super::{browser::Browser, secret};
use crate::{
    config::{Config, WebhookSettings},
    domain::{
        caller::KeyAccess,
        ids::{GatewayId, PermitId},
        operator::{Operator, Role},
        token::{SlotState, TokenIdentity},
    },
    enrolment::ExpiryWarning,
    notify::{Notice, Notifier, Webhook, WebhookSecret, What},
    permit::PermitService,
    store::Store,
    token::supervisor::Tokens,
};

/// The pause before a store that is away is asked again.
const PAUSE: Duration = Duration::from_secs(1);

/// What is watched.
pub(super) struct Watched {
    pub(super) tokens: Tokens,
    pub(super) permits: Arc<PermitService>,
    pub(super) store: Arc<dyn Store>,
    pub(super) gateway: GatewayId,
    pub(super) certificates: mpsc::Receiver<ExpiryWarning>,
}

/// What is asked again and again.
struct Sources {
    tokens: Tokens,
    permits: Arc<PermitService>,
    store: Arc<dyn Store>,
    gateway: GatewayId,
}

/// Starts to tell the webhooks of this configuration, and to open a browser if it says so; `urls` is where the gateway is reached.
pub(super) fn watch(config: &Config, watched: Watched, urls: &[String]) -> anyhow::Result<Vec<AbortHandle>> {
    let webhooks = config.webhooks.iter().map(webhook).collect::<anyhow::Result<_>>()?;
    let notifier = Notifier::start(webhooks).context("webhooks cannot be told anything")?;
    let page = urls.first().map(|url| format!("{}/console/consent", url.trim_end_matches('/')));
    let browser = page.filter(|_| config.open_browser).map(Browser::new);
    if notifier.is_empty() && browser.is_none() {
        return Ok(Vec::new());
    }
    let Watched { tokens, permits, store, gateway, certificates } = watched;
    let (watched, notifier) = (Arc::new(Sources { tokens, permits, store, gateway }), Arc::new(notifier));
    let certificates = tokio::spawn(watch_certificates(Arc::clone(&watched), Arc::clone(&notifier), certificates));
    let tokens = tokio::spawn(watch_tokens(Arc::clone(&watched), Arc::clone(&notifier)));
    let consent = tokio::spawn(watch_consent(watched, notifier, browser));
    Ok(vec![tokens.abort_handle(), consent.abort_handle(), certificates.abort_handle()])
}

/// Makes a webhook, with its secret.
pub(super) fn webhook(settings: &WebhookSettings) -> anyhow::Result<Webhook> {
    let file = &settings.secret_file;
    let text = Zeroizing::new(secret::line_of_private_file(file)?.expose_secret().to_owned());
    let secret = WebhookSecret::new(text).with_context(|| format!("{} holds no good secret", file.display()))?;
    Webhook::new(&settings.url, secret, settings.events.clone()).context("correct `url` of a [[webhook]]")
}

/// Tells of tokens for as long as it is polled.
async fn watch_tokens(watched: Arc<Sources>, notifier: Arc<Notifier>) {
    let Sources { tokens, store, gateway, .. } = &*watched;
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
                notifier.tell(Notice::new(*gateway, store.now(), what));
            }
        }
        // An error means that the tokens are gone, and the gateway with them.
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// Tells of requests that wait for operators, and opens a browser for them, for as long as it is polled.
async fn watch_consent(watched: Arc<Sources>, notifier: Arc<Notifier>, mut browser: Option<Browser>) {
    let Sources { permits, store, gateway, .. } = &*watched;
    // Whoever is told sees nothing of what is asked but that it is.
    let Ok(name) = "webhook".parse() else { return };
    let everybody = Operator { name, role: Role::Approver, keys: KeyAccess::All };
    let mut changes = permits.watch();
    let mut told: HashSet<PermitId> = HashSet::new();
    loop {
        changes.mark_unchanged();
        let Ok(waiting) = permits.waiting(&everybody).await else {
            sleep(PAUSE).await;
            continue;
        };
        for permit in waiting.iter().filter(|permit| !told.contains(&permit.id)) {
            let Some(ask) = &permit.ask else { continue };
            let (permit, caller, uses, decide_by) = (permit.id, permit.caller.clone(), ask.uses, ask.decide_by);
            notifier.tell(Notice::new(*gateway, store.now(), What::ConsentWaiting { permit, caller, uses, decide_by }));
        }
        // What waits no more is forgotten, so that this does not grow.
        told = waiting.iter().map(|permit| permit.id).collect();
        if let Some(browser) = &mut browser {
            browser.note(waiting.len(), Instant::now());
        }
        // An error means that the store is gone, and the gateway with it.
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// Tells of certificates that come to their end, for as long as it is polled.
async fn watch_certificates(watched: Arc<Sources>, notifier: Arc<Notifier>, mut warnings: mpsc::Receiver<ExpiryWarning>) {
    while let Some(ExpiryWarning { key, not_after, days_left }) = warnings.recv().await {
        notifier.tell(Notice::new(watched.gateway, watched.store.now(), What::CertificateExpiring { key, not_after, days_left }));
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
