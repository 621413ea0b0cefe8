//! Canaries: a signature of our own per key at an interval, so that a key that cannot sign is found before a client needs it.
//!
//! Only keys whose slot is logged in by configuration get one: never one that would need an operator, a PIN per signature or a PIN pad.
//! Canaries take no permit and are no jobs; they are counted apart. Invariant: a canary that does not verify quarantines its key like any
//! other wrong signature.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval_at},
};
use tracing::{debug, error, warn};

use crate::{
    domain::{
        algorithm::SignatureAlgorithm,
        digest::{SigningInput, ToSign},
        hash::digest,
        ids::KeyName,
        timestamp::Timestamp,
        token::LoginMode,
    },
    token::{
        command::{Command, Reply},
        slot::SlotHandle,
    },
};

use super::{
    dispatcher::Workshop,
    keyring::{Site, Target, denied},
    service::{Denied, algorithm_for},
    verify::{PoolError, VerifyError},
};

/// What every canary signs, followed by the time: nobody takes it for a document.
const CANARY_TEXT: &str = "Sealgate canary signature, not a document: ";

/// How a key's last canary went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CanaryResult {
    /// When it was made.
    pub at: Timestamp,
    /// Why it failed; `None` if it did not.
    pub failure: Option<String>,
}

/// The last canary of each key.
#[derive(Default)]
pub(super) struct Canaries(Mutex<HashMap<KeyName, CanaryResult>>);

impl Canaries {
    pub(super) fn last_of(&self, key: &KeyName) -> Option<CanaryResult> {
        self.results().get(key).cloned()
    }

    fn results(&self) -> MutexGuard<'_, HashMap<KeyName, CanaryResult>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes a canary of every key that may have one, every so often, until `stop` is set.
pub(super) async fn keep_singing(workshop: Arc<Workshop>, every: Duration, mut stop: watch::Receiver<bool>) {
    let mut ticks = interval_at(Instant::now() + every, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !*stop.borrow_and_update() {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = stop.changed() => continue,
        }
        for (name, target) in workshop.keyring.configured_targets() {
            // Whoever has a token makes its canaries.
            let Site::Here(slot) = &target.site else { continue };
            let own = workshop.keyring.leases.holds(slot.token());
            if own && slot.login_mode() == LoginMode::Configured && slot.status().state.takes_work() {
                let failure = sing(&workshop, slot, &target).await.err().map(|denied| denied.to_string());
                match &failure {
                    Some(failure) => warn!(key.name = %name, error = %failure, "the canary of key {name} failed: {failure}"),
                    None => debug!(key.name = %name, "the canary of key {name} is well"),
                }
                let result = CanaryResult { at: SystemTime::now().into(), failure };
                workshop.canaries.results().insert(name, result);
            }
        }
    }
}

/// One canary signature, verified.
async fn sing(workshop: &Workshop, slot: &SlotHandle, target: &Target<'_>) -> Result<(), Denied> {
    let known = workshop.keyring.known(target, None).await?;
    let algorithm = algorithm_for(&known, None)?;
    let to_sign = canary(algorithm)?;
    let command = Command::Sign { key: known.key.address.selector.clone(), to_sign: to_sign.clone(), pin: None, mark: None };
    let signature = match slot.call(command).await {
        Ok(Reply::Signature(signature)) => signature,
        Ok(_) => return Err(Denied::Device("the token answered something else than it was asked".to_owned())),
        Err(error) => return Err(denied(slot, error)),
    };
    let Some(verifier) = known.verifier.as_ref() else { return Ok(()) };
    match workshop.verifiers.verify(Arc::clone(verifier), to_sign, signature).await {
        Ok(_) => Ok(()),
        Err(PoolError::Verify(VerifyError::Wrong)) => {
            error!(key.id = %known.key.address.selector, "a canary signature does not verify; the key is quarantined");
            workshop.keyring.quarantine(&known.key.address);
            Err(Denied::Quarantined)
        }
        Err(error) => Err(Denied::Device(format!("the canary could not be verified: {error}"))),
    }
}

fn canary(algorithm: SignatureAlgorithm) -> Result<ToSign, Denied> {
    let text = format!("{CANARY_TEXT}{}", Timestamp::from(SystemTime::now()).as_millis());
    let input = match algorithm.hash() {
        None => SigningInput::Message(text.into_bytes()),
        Some(hash) => SigningInput::Digest(digest(hash, text.as_bytes())),
    };
    ToSign::new(algorithm, input).map_err(|error| Denied::NotSupported(error.to_string()))
}
