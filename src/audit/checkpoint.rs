//! Checkpoints: the log, signed with a key on a token from time to time, so that not even who can write the store can rewrite it unseen.
//!
//! A [`Checkpointer`] asks a [`CheckpointSigner`], which `cli` wires to the signing service. It does not hold the chain still: the signature is
//! over the head as it was when signing began, and the record says which that was. Invariant: there is a new checkpoint only if there is
//! something new to sign; a failure is recorded when it begins or changes, not at every try.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::{
    sync::{Mutex, watch},
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval_at},
};
use tracing::{debug, error, info, warn};

use super::chain::LAG_MAX;
use crate::{
    domain::{
        algorithm::SignatureAlgorithm,
        audit::{AuditEvent, AuditHead, Checkpoint},
        ids::KeyName,
    },
    store::{Change, Store, StoreError},
};

/// What the audit log calls these signatures.
pub const PURPOSE: &str = "checkpoint";

/// How often a signature is made again because the chain ran away from it meanwhile.
const TRIES: usize = 3;

/// Signs checkpoints.
#[async_trait]
pub trait CheckpointSigner: Send + Sync {
    /// The configured name of the key.
    fn key_name(&self) -> &KeyName;

    /// Signs a statement and checks the signature.
    ///
    /// # Errors
    /// Why there is no signature, in words for the log.
    async fn sign(&self, statement: &[u8]) -> Result<SignedStatement, String>;
}

/// A statement's signature and all that verifies it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedStatement {
    /// How it was signed.
    pub algorithm: SignatureAlgorithm,
    /// `SubjectPublicKeyInfo` in DER.
    pub public_key: Vec<u8>,
    /// The signature as X.509 carries it.
    pub signature: Vec<u8>,
}

/// What became of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Made {
    /// The log is signed up to this record.
    UpTo(u64),
    /// There was nothing new.
    NothingNew,
    /// There is none.
    Failed(String),
}

/// Makes checkpoints at an interval, and a last one at the end.
pub struct Checkpointer {
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    task: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    store: Arc<dyn Store>,
    signer: Arc<dyn CheckpointSigner>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The last record that was signed.
    signed: u64,
    /// Why the last checkpoint was not made.
    failure: Option<String>,
}

impl Checkpointer {
    /// Begins to make a checkpoint every so often. Must be called within a Tokio runtime.
    #[must_use]
    pub fn start(store: Arc<dyn Store>, signer: Arc<dyn CheckpointSigner>, every: Duration) -> Self {
        let shared = Arc::new(Shared { store, signer, state: Mutex::default() });
        let stop = watch::Sender::new(false);
        let task = tokio::spawn(make_at_intervals(Arc::clone(&shared), every, stop.subscribe()));
        Self { shared, stop, task: Mutex::new(Some(task)) }
    }

    /// Makes a checkpoint now, if there is something new.
    pub async fn make(&self) -> Made {
        self.shared.make().await
    }

    /// Ends the intervals and makes the last checkpoint. A second call only makes another checkpoint.
    pub async fn stop(&self) -> Made {
        self.stop.send_replace(true);
        if let Some(task) = self.task.lock().await.take()
            && let Err(error) = task.await
        {
            error!(error = %error, "the task that makes checkpoints failed");
        }
        self.make().await
    }
}

async fn make_at_intervals(shared: Arc<Shared>, every: Duration, mut stop: watch::Receiver<bool>) {
    let mut ticks = interval_at(Instant::now() + every, every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !*stop.borrow_and_update() {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = stop.changed() => continue,
        }
        shared.make().await;
    }
}

impl Shared {
    /// One at a time: a second caller finds nothing new.
    async fn make(&self) -> Made {
        let mut state = self.state.lock().await;
        match self.sign_head(state.signed).await {
            Ok(None) => Made::NothingNew,
            Ok(Some(signed)) => {
                state.signed = signed;
                if state.failure.take().is_some() {
                    info!(key.name = %self.signer.key_name(), "checkpoints of the audit log are signed again");
                }
                debug!("the audit log is signed up to record {signed}");
                Made::UpTo(signed)
            }
            Err(failure) => {
                if state.failure.as_ref() != Some(&failure) {
                    warn!(key.name = %self.signer.key_name(), error = %failure, "no checkpoint of the audit log was made: {failure}");
                    self.record_failure(&failure).await;
                    state.failure = Some(failure.clone());
                }
                Made::Failed(failure)
            }
        }
    }

    async fn sign_head(&self, signed: u64) -> Result<Option<u64>, String> {
        let mut head = self.head().await?;
        // The only record after one that was signed is its checkpoint.
        if head.seq == 0 || head.seq <= signed.saturating_add(u64::from(signed > 0)) {
            return Ok(None);
        }
        for _ in 0..TRIES {
            let made = self.signer.sign(head.statement().as_bytes()).await?;
            let now = self.head().await?;
            // Far below what a verifier looks back, for others go on writing while this is committed.
            if now.seq - head.seq < LAG_MAX as u64 / 2 {
                let checkpoint = self.checkpoint(head, made);
                self.store.commit(vec![Change::Audit(AuditEvent::Checkpoint(checkpoint))]).await.map_err(words)?;
                return Ok(Some(head.seq));
            }
            head = now;
        }
        Err("the log grew faster than its head could be signed".to_owned())
    }

    fn checkpoint(&self, head: AuditHead, made: SignedStatement) -> Checkpoint {
        Checkpoint {
            signed_seq: head.seq,
            signed_hash: head.hash,
            key_name: self.signer.key_name().clone(),
            algorithm: made.algorithm,
            public_key: made.public_key,
            signature: made.signature,
        }
    }

    async fn head(&self) -> Result<AuditHead, String> {
        self.store.audit_head().await.map_err(words)
    }

    async fn record_failure(&self, failure: &str) {
        let event = AuditEvent::OwnSignature {
            purpose: PURPOSE.to_owned(),
            key_name: self.signer.key_name().clone(),
            count: 0,
            failure: Some(failure.to_owned()),
        };
        if let Err(error) = self.store.commit(vec![Change::Audit(event)]).await {
            error!(error = %error, "the failure of a checkpoint is not in the audit log");
        }
    }
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn words(error: StoreError) -> String {
    error.to_string()
}
