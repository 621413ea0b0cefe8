//! What the promises are checked with.

pub use std::{future::Future, pin::pin, sync::Arc, time::Duration};

pub use futures_util::poll;
pub use sealgate::{
    domain::{
        algorithm::{HashAlgorithm, KeyKind, SignatureAlgorithm},
        audit::{AuditEvent, AuditHead, AuditRecord, Consent, Sha256},
        caller::{KeyAccess, Provenance},
        consent::{ConsentAsk, Decision, DecisionRefusal, ViewSize, WaitingSignature},
        digest::{Digest, SigningInput, ToSign},
        idempotency::{IdempotentRequest, RequestDone},
        ids::{CallerId, ClaimId, GatewayId, JobId, PermitId, TicketId},
        job::{FailureCause, JobOutcome, JobState, KeyAddress, QueueLength, SigningJob},
        key::KeyChoice,
        permit::{Permit, PermitRefusal, PermitState},
        signature::SignatureValue,
        ticket::{
            Augmentation, Beside, CadesType, Content, ContentPart, ContentPlace, DataObject, SignatureOptions, SignatureType, Ticket,
            TicketModification, TicketSigning,
        },
        timestamp::Timestamp,
        token::{KeySelector, TokenIdentity},
    },
    store::{Change, Conflict, ContentUsage, JobFilter, PermitLimits, Store, StoreError},
};

pub type AnyStore = Arc<dyn Store>;

pub const NOW: Timestamp = Timestamp::from_millis(1_000_000);
pub const LATER: Timestamp = Timestamp::from_millis(2_000_000);
pub const BOUND: usize = 1_000;
/// After the end of every job that a test makes, whatever clock the store reads.
pub const END_OF_TIME: Timestamp = Timestamp::from_millis(u64::MAX);

pub fn caller(name: &str) -> CallerId {
    name.parse().unwrap()
}

pub fn token(label: &str) -> TokenIdentity {
    TokenIdentity {
        module: "softhsm".parse().unwrap(),
        manufacturer: "SoftHSM project".to_owned(),
        model: "SoftHSM v2".to_owned(),
        serial: format!("serial of {label}"),
        label: label.to_owned(),
    }
}

pub fn ticket(owner: &str) -> Ticket {
    Ticket {
        id: TicketId::random(),
        caller: caller(owner),
        touched: NOW,
        options: SignatureOptions::default(),
        content: None,
        signature: None,
        metadata: None,
        key: KeyChoice::Default,
        signing: None,
        verifying: None,
        modifying: None,
        time_stamp: None,
        version: 0,
    }
}

pub fn permit(owner: &str, uses: u32) -> Permit {
    Permit::by_policy(PermitId::random(), caller(owner), uses, LATER)
}

pub fn job(owner: &str, label: &str) -> SigningJob {
    let digest = Digest::new(HashAlgorithm::Sha256, vec![7; 32]).unwrap();
    SigningJob {
        id: JobId::random(),
        caller: caller(owner),
        from: Provenance::default(),
        key: KeyAddress { token: token(label), selector: KeySelector { id: Some(vec![1]), label: None }, name: None },
        to_sign: ToSign::new(SignatureAlgorithm::RsaPkcs1(HashAlgorithm::Sha256), SigningInput::Digest(digest)).unwrap(),
        certificate_serial: None,
        consent: Consent::Policy,
        permit: None,
        with_pin: false,
        accepted: NOW,
        deadline: LATER,
        state: JobState::Queued,
        claim: None,
        outcome: None,
    }
}

pub fn paid_by(permit: &Permit, mut job: SigningJob) -> SigningJob {
    job.permit = Some(permit.id);
    job
}

pub fn accept(job: &SigningJob) -> Change {
    Change::AcceptJob { job: job.clone(), queue_bound: BOUND }
}

pub fn insert(ticket: &Ticket) -> Change {
    Change::InsertTicket { ticket: ticket.clone(), limit: BOUND }
}

pub fn signed() -> JobOutcome {
    JobOutcome::Signed(SignatureValue::from_token(&KeyKind::Rsa { modulus_bits: 2048 }, vec![1; 256]).unwrap())
}

pub fn failed(cause: FailureCause) -> JobOutcome {
    JobOutcome::NotSigned { cause, detail: "because".to_owned() }
}

pub async fn claim_of(store: &AnyStore, job: JobId) -> Option<ClaimId> {
    store.find_job(job).await.unwrap().and_then(|job| job.claim)
}

pub async fn end(store: &AnyStore, job: &SigningJob, outcome: JobOutcome) -> Change {
    Change::EndJob { job: job.id, claim: claim_of(store, job.id).await, outcome }
}

pub async fn requeue(store: &AnyStore, job: JobId) -> Change {
    Change::RequeueJob { job, claim: claim_of(store, job).await }
}

pub fn refers_to(mut ticket: Ticket, job: &SigningJob) -> Ticket {
    ticket.time_stamp = Some(vec![0x30, 0]);
    ticket.signing = Some(TicketSigning {
        augmentation: None,
        job: job.id,
        algorithm: job.to_sign.algorithm(),
        signed_attrs: vec![0x31, 0],
        certificate: vec![0x30, 0],
        chain: Vec::new(),
        beside: Some(Box::new(Beside { part: ContentPart::Signature, attached: true, sha256: Sha256::of(b"document"), len: 8 })),
    });
    ticket
}

pub async fn commit(store: &AnyStore, changes: Vec<Change>) {
    store.commit(changes).await.unwrap();
}

pub async fn conflict(store: &AnyStore, changes: Vec<Change>) -> Conflict {
    match store.commit(changes).await {
        Err(StoreError::Conflict(conflict)) => conflict,
        other => panic!("no conflict: {other:?}"),
    }
}

pub async fn claim_ids(store: &AnyStore, label: &str, limit: usize) -> Vec<JobId> {
    store.claim_jobs(&token(label), limit, NOW).await.unwrap().into_iter().map(|job| job.id).collect()
}

pub async fn state_of(store: &AnyStore, job: &SigningJob) -> JobState {
    store.find_job(job.id).await.unwrap().unwrap().state
}

pub async fn uses_of(store: &AnyStore, permit: &Permit) -> (u32, u32) {
    let permit = store.find_permit(permit.id).await.unwrap().unwrap();
    (permit.reserved, permit.committed)
}

/// Runs `n` tasks that start as nearly at once as can be had, and gives back what they returned.
pub async fn race<T: Send + 'static, F: Future<Output = T> + Send + 'static>(n: usize, task: impl Fn(usize) -> F) -> Vec<T> {
    let barrier = Arc::new(tokio::sync::Barrier::new(n));
    let tasks: Vec<_> = (0..n)
        .map(|i| {
            let (barrier, task) = (Arc::clone(&barrier), task(i));
            tokio::spawn(async move {
                barrier.wait().await;
                task.await
            })
        })
        .collect();
    let mut results = Vec::new();
    for task in tasks {
        results.push(task.await.unwrap());
    }
    results
}
