//! What operators and clients may know of tokens and do to them, without knowing PKCS#11.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use tokio::sync::watch;
use tracing::warn;

use crate::{
    domain::{
        algorithm::SignatureAlgorithm,
        audit::{AuditEvent, PinIncident},
        caller::KeyAccess,
        ids::{KeyName, ModuleName},
        key_uri::Pkcs11Uri,
        pin::{Pin, PinOrigin},
        token::{KeyDescription, LoginMode, SlotReport, SlotState, TokenIdentity, TokenOffer},
    },
    store::Change,
    telemetry::metrics::{CERTIFICATE_END, QUEUE_DEPTH, QUEUE_OLDEST_AGE, STORE_REACHABLE},
    token::{
        command::{Command, Reply},
        driver::DeviceError,
        slot::{SlotError, SlotHandle},
        supervisor::FindError,
    },
};

use super::{
    activity::StepReport,
    dispatcher::Workshop,
    jobs::JobDesk,
    keyring::Target,
    leases::Remote,
    pin_watch,
    service::{Denied, algorithm_for},
};

/// The most keys whose certificates' ends are measured.
const SHOWN_MAX: usize = 1_000;

/// A key on a token that is plugged in.
#[derive(Debug, Clone)]
pub struct KeyReport {
    /// Its configured name, if it has one.
    pub name: Option<KeyName>,
    /// Its URI.
    pub uri: Pkcs11Uri,
    /// The token it is on.
    pub token: TokenIdentity,
    /// The key.
    pub key: KeyDescription,
    /// The certificate that goes with it, in DER: the configured one, or the one on the token.
    pub certificate: Option<Vec<u8>>,
    /// What the token can sign with it.
    pub algorithms: Vec<SignatureAlgorithm>,
}

/// Why an operator's command was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenCommandError {
    /// No token matches the URI.
    #[error("no token that is plugged in matches this URI")]
    NotFound,
    /// More than one does.
    #[error("{0} tokens match this URI; add the serial number")]
    Ambiguous(usize),
    /// The token, or the rules around its PIN, said no.
    #[error("{0}")]
    Refused(String),
}

/// The tokens of a gateway. Cheap to clone.
#[derive(Clone)]
pub struct TokenDesk(Arc<Workshop>);

impl TokenDesk {
    pub(super) fn new(workshop: Arc<Workshop>) -> Self {
        Self(workshop)
    }

    /// The jobs of the same gateway.
    #[must_use]
    pub fn jobs(&self) -> JobDesk {
        JobDesk::new(Arc::clone(&self.0))
    }

    /// Every token that has been seen, with its state now.
    #[must_use]
    pub fn slots(&self) -> Vec<SlotReport> {
        self.0.keyring.tokens().slots().iter().map(|slot| self.report(slot)).collect()
    }

    /// A token that another gateway has is not signed with here, whatever its state.
    fn report(&self, slot: &SlotHandle) -> SlotReport {
        let mut report = slot.report();
        let elsewhere = self.0.keyring.leases.elsewhere(slot.token()).filter(Remote::lives);
        if let Some(remote) = elsewhere.filter(|_| report.status.state != SlotState::Absent) {
            report.status.reason = format!("gateway {} has this token; this one waits", remote.token.name);
        }
        report
    }

    /// The tokens that other gateways on the same store have: the gateway's name, and what it says.
    #[must_use]
    pub fn remote_slots(&self) -> Vec<(String, SlotReport)> {
        let report = |remote: Remote| {
            let slot = SlotReport { status: remote.status(), ..remote.token.announced.slot.clone() };
            (remote.token.name.clone(), slot)
        };
        self.0.keyring.leases.remote().into_iter().map(report).collect()
    }

    /// Counts changes of what [`slots`](Self::slots) shows, but for work that comes and goes.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.keyring.tokens().changes()
    }

    /// Modules that do not run now, and why.
    #[must_use]
    pub fn module_problems(&self) -> BTreeMap<ModuleName, String> {
        self.0.keyring.tokens().problems()
    }

    /// Every key that can be seen now. Asks each token; one that does not answer shows none, nor does one that waits for a person.
    pub async fn keys(&self) -> Vec<KeyReport> {
        let slots = self.0.keyring.tokens().slots();
        let present = slots.into_iter().filter(|slot| !matches!(slot.status().state, SlotState::Absent | SlotState::WaitingAtReader));
        join_all(present.map(|slot| self.keys_on(slot))).await.into_iter().flatten().collect()
    }

    async fn keys_on(&self, slot: SlotHandle) -> Vec<KeyReport> {
        let Ok(Reply::Keys(keys)) = slot.call(Command::ListKeys).await else { return Vec::new() };
        let token = slot.token();
        let report = |key: KeyDescription| KeyReport {
            name: self.0.keyring.name_of(token, &key),
            uri: token.uri().with_key(&key),
            token: token.clone(),
            algorithms: SignatureAlgorithm::ALL.into_iter().filter(|algorithm| algorithm.fits(&key.kind)).collect(),
            certificate: self.0.keyring.configured_certificate(token, &key).or_else(|| key.certificate.clone()),
            key,
        };
        keys.into_iter().map(report).collect()
    }

    /// What each token that is here can do. Asks each; one that does not answer is left out, as is one that waits for a person.
    pub async fn offers(&self) -> Vec<(TokenIdentity, TokenOffer)> {
        let slots = self.0.keyring.tokens().slots();
        let present = slots.into_iter().filter(|slot| !matches!(slot.status().state, SlotState::Absent | SlotState::WaitingAtReader));
        let ask = async |slot: SlotHandle| match slot.call(Command::Offer).await {
            Ok(Reply::Offer(offer)) => Some((slot.token().clone(), offer)),
            _ => None,
        };
        join_all(present.map(ask)).await.into_iter().flatten().collect()
    }

    /// Whether at least one token can sign now.
    #[must_use]
    pub fn any_can_sign(&self) -> bool {
        self.0.keyring.tokens().slots().iter().any(|slot| slot.status().state.takes_work())
            || self.0.keyring.leases.remote().iter().any(|remote| remote.status().state.takes_work())
    }

    /// Whether the configured key of this name can sign now, as far as is known without signing; `None` if there is no such key.
    ///
    /// # Errors
    /// Why it cannot.
    pub async fn key_readiness(&self, name: &KeyName) -> Option<Result<(), Denied>> {
        let target = match self.0.keyring.target_of(name)? {
            Ok(target) => target,
            Err(denied) => return Some(Err(denied)),
        };
        Some(self.readiness(name, &target).await)
    }

    async fn readiness(&self, name: &KeyName, target: &Target) -> Result<(), Denied> {
        let status = target.site.status();
        if !status.state.takes_work() {
            return Err(Denied::SlotUnavailable(status));
        }
        // A per-request slot shows its keys only with a PIN, which nobody brings here.
        if target.site.login_mode() == LoginMode::PerRequest && self.0.keyring.cached(target).is_none() {
            return Ok(());
        }
        algorithm_for(&*self.0.keyring.known(target, None).await?, None)?;
        match self.0.canaries.last_of(name).and_then(|last| last.failure) {
            Some(failure) => Err(Denied::Device(failure)),
            None => Ok(()),
        }
    }

    /// Whether the store that holds tickets, permits and jobs takes changes.
    pub async fn is_store_ready(&self) -> bool {
        self.0.store.check_ready().await.is_ok()
    }

    /// Sets the metrics that are not set when something happens: when certificates end, and what stands in the store: how many jobs wait for each token, how long the oldest of them has waited, and whether the
    /// store answers at all. Where it does not, the others keep what they had.
    pub async fn collect_metrics(&self) {
        for (name, end) in self.0.keyring.certificate_ends().into_iter().take(SHOWN_MAX) {
            CERTIFICATE_END.gauge(&[name.as_str()]).set(Duration::from_millis(end.as_millis()).as_secs_f64());
        }
        let queues = self.0.store.queues().await;
        STORE_REACHABLE.gauge(&[]).set(f64::from(u8::from(queues.is_ok())));
        let Ok(queues) = queues else { return };
        let now = self.0.store.now();
        for slot in self.0.keyring.tokens().slots() {
            let token = slot.token().to_string();
            let queue = queues.iter().find(|queue| queue.token == *slot.token());
            let depth = queue.map_or(0, |queue| u32::try_from(queue.queued).unwrap_or(u32::MAX));
            QUEUE_DEPTH.gauge(&[&token]).set(f64::from(depth));
            QUEUE_OLDEST_AGE.gauge(&[&token]).set(queue.map_or(0.0, |queue| now.since(queue.oldest).as_secs_f64()));
        }
    }

    /// Logs in with an operator's PIN (`None`: at the reader). `insist`: although the token warns of its last try. `forget_rejection`: first
    /// forget which PINs the token has rejected. `by`: who acts, for the audit log.
    ///
    /// # Errors
    /// [`TokenCommandError`].
    pub async fn unlock(
        &self,
        uri: &Pkcs11Uri,
        pin: Option<Pin>,
        insist: bool,
        forget_rejection: bool,
        by: &str,
    ) -> Result<TokenIdentity, TokenCommandError> {
        let slot = self.find(uri)?;
        if forget_rejection {
            self.0.keyring.tokens().forget_rejections(slot.token());
            self.record(&slot, PinIncident::RejectionForgotten, by).await;
        }
        slot.hold(false);
        if pin.is_none() && slot.login_mode() != LoginMode::Protected {
            return Err(TokenCommandError::Refused("this token needs a PIN".to_owned()));
        }
        let login = Command::Login { pin, origin: PinOrigin::Operator { insist } };
        let done = self.command(&slot, login).await;
        match &done {
            Ok(_) => self.record(&slot, PinIncident::Unlocked, by).await,
            Err(SlotError::Device(DeviceError::PinRejected)) => self.record(&slot, PinIncident::Rejected, by).await,
            Err(_) => {}
        }
        said(done)
    }

    /// Logs out, so that nothing is signed before the next unlock; a configured PIN is not used meanwhile.
    ///
    /// # Errors
    /// [`TokenCommandError`].
    pub async fn lock(&self, uri: &Pkcs11Uri, by: &str) -> Result<TokenIdentity, TokenCommandError> {
        let slot = self.find(uri)?;
        slot.hold(true);
        let done = self.command(&slot, Command::Logout).await;
        if done.is_ok() {
            self.record(&slot, PinIncident::Locked, by).await;
        }
        said(done)
    }

    /// Starts the module of a token again, with all of its tokens. What it is signing is finished first; if that takes too long, it is in doubt.
    ///
    /// # Errors
    /// [`TokenCommandError`]; a module that lives in the gateway's own process and hangs cannot be started again.
    pub async fn restart(&self, uri: &Pkcs11Uri, by: &str) -> Result<TokenIdentity, TokenCommandError> {
        let slot = self.find(uri)?;
        if !self.0.keyring.tokens().restart(&slot.token().module, &format!("{by} has restarted it")) {
            return Err(TokenCommandError::Refused("the module is being started again already".to_owned()));
        }
        let event = AuditEvent::ModuleRestarted { module: slot.token().module.clone(), by: by.to_owned() };
        if let Err(error) = self.0.store.commit(vec![Change::Audit(event)]).await {
            warn!(error = %error, "the restart of a module is not in the audit log");
        }
        Ok(slot.token().clone())
    }

    /// The certificates of the keys that have names, in DER. A token that takes no work now is not asked for what is not known yet.
    pub async fn certificates(&self) -> Vec<(KeyName, Vec<u8>)> {
        let targets = self.0.keyring.configured_targets().into_iter().filter(|(_, target)| target.site.status().state.takes_work());
        let certificate = async |(name, target): (KeyName, Target)| {
            let known = self.0.keyring.known(&target, None).await.ok()?;
            known.key.certificate.clone().map(|certificate| (name, certificate))
        };
        join_all(targets.map(certificate)).await.into_iter().flatten().collect()
    }

    /// The keys that have names, those with a certificate that was requested here among them.
    #[must_use]
    pub fn key_names(&self) -> Vec<KeyName> {
        self.0.keyring.key_names()
    }

    /// Whether a token holds, or should hold, a key that is among `keys`.
    #[must_use]
    pub fn has_key_of(&self, token: &TokenIdentity, keys: &KeyAccess) -> bool {
        match keys {
            KeyAccess::All => true,
            KeyAccess::Only(names) => names.iter().any(|name| self.0.keyring.is_on(name, token)),
        }
    }

    /// The one token that a URI names.
    ///
    /// # Errors
    /// [`TokenCommandError::NotFound`], [`TokenCommandError::Ambiguous`].
    pub fn token_of(&self, uri: &Pkcs11Uri) -> Result<TokenIdentity, TokenCommandError> {
        self.find(uri).map(|slot| slot.token().clone())
    }

    /// What this gateway has signed in the last hour, in steps of [`STEP`](super::activity::STEP), the oldest first.
    #[must_use]
    pub fn activity(&self) -> Vec<StepReport> {
        self.0.ended.activity.report(Instant::now())
    }

    async fn command(&self, slot: &SlotHandle, command: Command) -> Result<TokenIdentity, SlotError> {
        let answer = slot.call(command).await;
        self.0.keyring.forget(slot.token());
        answer.map(|_| slot.token().clone())
    }

    async fn record(&self, slot: &SlotHandle, what: PinIncident, by: &str) {
        pin_watch::record(&self.0, slot, what, Some(by)).await;
    }

    fn find(&self, uri: &Pkcs11Uri) -> Result<SlotHandle, TokenCommandError> {
        self.0.keyring.tokens().find(uri).map_err(|error| match error {
            FindError::None => TokenCommandError::NotFound,
            FindError::Ambiguous(count) => TokenCommandError::Ambiguous(count),
        })
    }
}

fn said(done: Result<TokenIdentity, SlotError>) -> Result<TokenIdentity, TokenCommandError> {
    done.map_err(|error| TokenCommandError::Refused(error.to_string()))
}
