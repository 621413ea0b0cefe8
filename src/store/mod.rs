//! State that outlives a request: tickets, permits, jobs, the audit log.
//!
//! [`Store`] says what services need, in domain terms; how it is kept is the business of the implementations below. There is one way to
//! write, [`Store::commit`]: a set of changes that happen together or not at all, each a compare-and-set on what it found.
//! Invariant: the rules of permits and jobs are the pure functions of `domain`; the store applies them and has none of its own.

mod columns;
mod enrolment;
pub mod memory;
mod meter;
pub mod pin_ledger;
pub mod postgres;
mod rows;
pub mod sqlite;
mod waiters;

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::domain::{
    audit::{AuditEvent, AuditHead, SealedRecord},
    consent::{Decision, DecisionRefusal},
    enrolment::{Enrolment, EnrolmentState},
    idempotency::IdempotentRequest,
    ids::{CallerId, ClaimId, EnrolmentId, GatewayId, IdempotencyKey, JobId, OperatorName, PermitId, TicketId},
    job::{JobOutcome, JobState, QueueLength, SigningJob},
    lease::{Leases, TokenAnnouncement},
    operator::{OperatorAccount, OperatorSession, SessionId},
    permit::{Permit, PermitRefusal},
    stored_caller::StoredCaller,
    ticket::{ContentPart, Ticket},
    timestamp::Timestamp,
    token::TokenIdentity,
};

/// Where tickets, permits and jobs are kept. Shared by all services of a gateway.
#[async_trait]
pub trait Store: Send + Sync {
    /// The time by the store's clock, which is the same for every gateway that shares it. Does not wait.
    fn now(&self) -> Timestamp;

    /// Whose audit log is written, and who claims.
    fn gateway(&self) -> GatewayId;

    /// Makes all of `changes`, in order, or none of them; on return they are as durable as this store is.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if a change does not fit what is stored; [`StoreError::Unavailable`]. Nothing was changed then.
    async fn commit(&self, changes: Vec<Change>) -> Result<(), StoreError>;

    /// Finds a ticket.
    async fn find_ticket(&self, id: TicketId) -> Result<Option<Ticket>, StoreError>;

    /// Notes that a ticket was used at `now`, so that it does not end as idle. Does not count as a change of the ticket.
    async fn touch_ticket(&self, id: TicketId, now: Timestamp) -> Result<(), StoreError>;

    /// Counts the tickets of a caller.
    async fn count_tickets(&self, caller: &CallerId) -> Result<usize, StoreError>;

    /// Removes at most `limit` tickets that nobody has used since `idle_since`, and returns them. A ticket whose job has not ended stays.
    async fn remove_idle_tickets(&self, idle_since: Timestamp, limit: usize) -> Result<Vec<Ticket>, StoreError>;

    /// Reads a part of a ticket whose [`ContentPlace`](crate::domain::ticket::ContentPlace) is `Stored`.
    async fn read_content(&self, ticket: TicketId, part: ContentPart) -> Result<Option<Arc<[u8]>>, StoreError>;

    /// How much content all tickets together have.
    async fn content_usage(&self) -> Result<ContentUsage, StoreError>;

    /// The names of the spooled files that tickets refer to.
    async fn spooled_files(&self) -> Result<Vec<String>, StoreError>;

    /// Finds a permit.
    async fn find_permit(&self, id: PermitId) -> Result<Option<Permit>, StoreError>;

    /// At most `limit` permits that could still be used at `now`, the one that ends first coming first.
    async fn live_permits(&self, now: Timestamp, limit: usize) -> Result<Vec<Permit>, StoreError>;

    /// At most `limit` permits that wait for a decision, the one whose time is over first coming first.
    async fn waiting_permits(&self, limit: usize) -> Result<Vec<Permit>, StoreError>;

    /// Counts the permits that wait for a decision.
    async fn count_waiting_permits(&self) -> Result<usize, StoreError>;

    /// What the caller says of a permit that it asks for; gone once that is decided.
    async fn find_words(&self, permit: PermitId) -> Result<Option<String>, StoreError>;

    /// Waits until a permit that was asked for is decided, and returns it. Dropping the future stops the waiting; whoever waits sets the bound.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] with [`PermitRefusal::Unknown`] if there is no such permit (any more).
    async fn wait_for_decision(&self, id: PermitId) -> Result<Permit, StoreError>;

    /// Tells that some permit was asked for, decided or revoked, here or at another gateway on the same store: the number is another one then.
    fn permit_changes(&self) -> watch::Receiver<u64>;

    /// Finds a job.
    async fn find_job(&self, id: JobId) -> Result<Option<SigningJob>, StoreError>;

    /// The newest jobs that fit `filter`, newest first.
    async fn list_jobs(&self, filter: &JobFilter, limit: usize) -> Result<Vec<SigningJob>, StoreError>;

    /// The jobs that this gateway has claimed and not settled.
    async fn claimed_jobs(&self) -> Result<Vec<SigningJob>, StoreError>;

    /// Finds a caller that was added by an operator.
    async fn find_caller(&self, id: &CallerId) -> Result<Option<StoredCaller>, StoreError>;

    /// All callers that were added by operators, in the order of their names.
    async fn list_callers(&self) -> Result<Vec<StoredCaller>, StoreError>;

    /// Counts the times at which stored callers may have changed, here or by another gateway on the same store; may count too often. What
    /// happened while the store was away counts when it is back.
    fn caller_changes(&self) -> watch::Receiver<u64>;

    /// Finds what was done for a request with this idempotency key.
    async fn find_request(&self, caller: &CallerId, key: &IdempotencyKey) -> Result<Option<IdempotentRequest>, StoreError>;

    /// Claims up to `limit` queued jobs of `token` in one step, fairly between callers and oldest first for each; they are `Signing` on return.
    ///
    /// Jobs whose deadline is not after `now` are not claimed: see [`Store::expire_jobs`].
    async fn claim_jobs(&self, token: &TokenIdentity, limit: usize, now: Timestamp) -> Result<Vec<SigningJob>, StoreError>;

    /// Claims for a dispatcher, as [`claim_jobs`](Self::claim_jobs) does. Where nothing is queued a store may keep the claim until something is,
    /// and make it in the commit that accepts a job; it ends with nothing soon after `wanted` is false. To be awaited to its end: what is
    /// claimed belongs to whoever asked.
    ///
    /// # Errors
    /// As with [`claim_jobs`](Self::claim_jobs).
    async fn claim_next(&self, token: &TokenIdentity, limit: usize, wanted: watch::Receiver<bool>) -> Result<Vec<SigningJob>, StoreError> {
        let _ = wanted;
        self.claim_jobs(token, limit, self.now()).await
    }

    /// Ends every job that is still queued and whose deadline is not after `now`, giving its use back; returns them.
    async fn expire_jobs(&self, now: Timestamp) -> Result<Vec<JobId>, StoreError>;

    /// Finds an operator's account.
    async fn find_operator(&self, name: &OperatorName) -> Result<Option<OperatorAccount>, StoreError>;

    /// Every operator's account, by name. There are few.
    async fn list_operators(&self) -> Result<Vec<OperatorAccount>, StoreError>;

    /// Finds a session, whether it is still open or not.
    async fn find_session(&self, id: SessionId) -> Result<Option<OperatorSession>, StoreError>;

    /// The sessions of an operator that have not ended by time at `now`, the newest first.
    async fn list_sessions(&self, operator: &OperatorName, now: Timestamp) -> Result<Vec<OperatorSession>, StoreError>;

    /// Forgets at most `limit` jobs that ended before `before` and that no ticket refers to, and permits, sessions and idempotency keys that
    /// expired before it.
    async fn forget_ended(&self, before: Timestamp, limit: usize) -> Result<usize, StoreError>;

    /// Counts the queued jobs of `token`.
    async fn count_queued(&self, token: &TokenIdentity) -> Result<usize, StoreError>;

    /// Every token for which jobs are queued.
    async fn queues(&self) -> Result<Vec<QueueLength>, StoreError>;

    /// Finds a certificate request.
    async fn find_enrolment(&self, id: EnrolmentId) -> Result<Option<Enrolment>, StoreError>;

    /// The newest certificate requests that fit `filter`, newest first.
    async fn list_enrolments(&self, filter: &EnrolmentFilter, limit: usize) -> Result<Vec<Enrolment>, StoreError>;

    /// At most `limit` certificate requests whose CA is to be asked at `now`, the one that has waited longest coming first.
    async fn due_enrolments(&self, now: Timestamp, limit: usize) -> Result<Vec<Enrolment>, StoreError>;

    /// The end of this gateway's audit log.
    async fn audit_head(&self) -> Result<AuditHead, StoreError>;

    /// The gateways whose audit logs are kept here.
    async fn audit_logs(&self) -> Result<Vec<GatewayId>, StoreError>;

    /// At most `limit` records of a gateway's audit log from number `from` on, in order.
    async fn audit_records(&self, gateway: GatewayId, from: u64, limit: usize) -> Result<Vec<SealedRecord>, StoreError>;

    /// Waits until a job has ended and returns it. Dropping the future stops the waiting; whoever waits sets the bound.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] with [`Conflict::JobGone`] if there is no such job (any more).
    async fn wait_for_end(&self, id: JobId) -> Result<SigningJob, StoreError>;

    /// Waits until there may be queued jobs for `token`; may return early, never late.
    async fn wait_for_work(&self, token: &TokenIdentity);

    /// Whether changes can be made: the store answers, and where its last commit failed, one is tried now.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] with the reason.
    async fn check_ready(&self) -> Result<(), StoreError>;

    /// Whether several gateways may share this store, so that a token needs a lease before its jobs are claimed.
    fn is_shared(&self) -> bool {
        false
    }

    /// Announces all tokens of this gateway, renews and takes the leases of `wanted` that are free, and gives up all others that it has.
    ///
    /// A lease whose gateway did not renew it is free once this gateway has seen, for as long as a lease lasts, a store that could be renewed in:
    /// an outage of the store itself costs nobody a token.
    ///
    /// # Errors
    /// The store was not reached; every lease lasts until its time is over.
    async fn announce(&self, tokens: &[TokenAnnouncement], wanted: &[TokenIdentity]) -> Result<Leases, StoreError> {
        let _ = tokens;
        Ok(Leases { held: wanted.to_vec(), remote: Vec::new() })
    }

    /// Ends the jobs that were being signed by a gateway that has lost its lease of their token: nobody knows whether they were signed. Returns
    /// them. They are in doubt.
    ///
    /// # Errors
    /// The store was not reached.
    async fn settle_orphans(&self) -> Result<Vec<JobId>, StoreError> {
        Ok(Vec::new())
    }
}

/// One change. Several in one [`Store::commit`] happen together.
#[derive(Debug, Clone)]
pub enum Change {
    /// Store a new ticket, unless its caller has `limit` tickets already.
    InsertTicket {
        /// The ticket.
        ticket: Ticket,
        /// The most tickets its caller may have, this one included.
        limit: usize,
    },
    /// Replace a ticket whose version is still that of `ticket`; the stored version is one higher.
    UpdateTicket(Ticket),
    /// Remove a ticket, with its content.
    DeleteTicket(TicketId),
    /// The same, unless the ticket has been changed since it had this version.
    CloseTicket {
        /// The ticket.
        ticket: TicketId,
        /// As it was read.
        version: u64,
    },
    /// Store content of a ticket, in place of what it had; the ticket is updated in the same commit to say that it is there.
    PutContent {
        /// The ticket.
        ticket: TicketId,
        /// Which of its contents.
        part: ContentPart,
        /// The content.
        bytes: Arc<[u8]>,
    },
    /// Store a new permit.
    InsertPermit(Permit),
    /// Store a permit that a caller asked for, granted or not decided yet, unless it has as many as it may.
    AskPermit {
        /// The permit.
        permit: Permit,
        /// What the caller says of it, kept until it is decided.
        words: Option<String>,
        /// How many it may have.
        limits: PermitLimits,
    },
    /// Decide a permit that was asked for, and with it the job that waits for it, which is queued or ended; what happened is recorded. One that is
    /// decided already, or may not be decided so, is a conflict.
    DecidePermit {
        /// The permit.
        permit: PermitId,
        /// The job that waits for it.
        job: Option<JobId>,
        /// What becomes of it.
        decision: Decision,
    },
    /// Take a permit back that was granted.
    RevokePermit(PermitId),
    /// Accept a job: reserve a use of its permit, if it has one, and queue it; or, in state `AwaitingConsent`, keep it until its permit is decided.
    /// [`SigningJob::accepted`] is the time that counts, and the permit says who consented.
    AcceptJob {
        /// The job, in state `Queued` or `AwaitingConsent`.
        job: SigningJob,
        /// The most queued jobs that its token may have.
        queue_bound: usize,
    },
    /// End a job that is `Queued` or `Signing`, and commit or release its permit's use as the outcome says. A job that has ended, or that is
    /// `Signing` under another claim, is a conflict.
    EndJob {
        /// The job.
        job: JobId,
        /// The claim under which it was `Signing`; `None` for a queued one.
        claim: Option<ClaimId>,
        /// How it ended.
        outcome: JobOutcome,
    },
    /// Put a job that certainly did not enter `C_Sign` back from `Signing` to the head of the queue.
    RequeueJob {
        /// The job.
        job: JobId,
        /// The claim under which it was `Signing`.
        claim: Option<ClaimId>,
    },
    /// End a job as cancelled if it is still queued, or waits for consent, which is withdrawn then; a job that is further on is left as it is (no conflict).
    CancelJob(JobId),
    /// Settle a job in doubt as an operator found it: its use stays spent if the token had signed, and is given back otherwise.
    ResolveDoubt {
        /// The job.
        job: JobId,
        /// Whether the token had signed.
        signed: bool,
    },
    /// Store a new caller whose name none has.
    InsertCaller(StoredCaller),
    /// Replace a caller whose version is still that of this one; the stored version is one higher.
    UpdateCaller(StoredCaller),
    /// Remove a caller.
    RemoveCaller(CallerId),
    /// Remember what is done for a request with an idempotency key.
    KeepRequest(IdempotentRequest),
    /// Store a new certificate request.
    InsertEnrolment(Box<Enrolment>),
    /// Replace a certificate request whose version is still that of this one; the stored version is one higher.
    UpdateEnrolment(Box<Enrolment>),
    /// As `UpdateEnrolment`, for a request whose certificate has become active: the one that was active under its key's name is not any more.
    ActivateEnrolment(Box<Enrolment>),
    /// Store a new operator's account.
    InsertOperator(OperatorAccount),
    /// Replace an operator's account whose version is still that of the new one; the stored version is one higher.
    UpdateOperator(OperatorAccount),
    /// Remove an operator's account; sessions of it let nobody in.
    DeleteOperator(OperatorName),
    /// Store a new session.
    InsertSession(OperatorSession),
    /// Note that a session was used; nothing if it is gone.
    TouchSession {
        /// The session.
        id: SessionId,
        /// When.
        seen: Timestamp,
    },
    /// End a session; nothing if it is gone.
    EndSession(SessionId),
    /// Add a record to the audit log. Records of one commit follow each other.
    Audit(AuditEvent),
}

/// How many permits a caller may have at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PermitLimits {
    /// That wait for a decision.
    pub waiting: usize,
    /// That can still be used.
    pub live: usize,
}

/// Which jobs to list; what is `None` does not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobFilter {
    /// The state.
    pub state: Option<JobState>,
    /// The caller.
    pub caller: Option<CallerId>,
    /// Accepted before this one; nothing fits if it is forgotten.
    pub before: Option<JobId>,
}

/// Which certificate requests to list; what is `None` does not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EnrolmentFilter {
    /// The organisation.
    pub organisation: Option<String>,
    /// The account that the certificate is for.
    pub login: Option<String>,
    /// The state, whatever the ground of a refusal.
    pub state: Option<EnrolmentState>,
    /// Only those whose certificate is active.
    pub active: bool,
}

impl EnrolmentFilter {
    fn fits(&self, enrolment: &Enrolment) -> bool {
        let is = |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|wanted| wanted == found);
        is(&self.organisation, &enrolment.organisation)
            && is(&self.login, &enrolment.login)
            && self.state.is_none_or(|state| state.as_str() == enrolment.state.as_str())
            && (!self.active || enrolment.active)
    }
}

/// How many bytes of content are kept, by place.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ContentUsage {
    /// In the store.
    pub stored: u64,
    /// In the spool directory.
    pub spooled: u64,
}

/// Why a store could not do as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// A change does not fit what is stored.
    #[error("{0}")]
    Conflict(#[from] Conflict),
    /// The store was not reached.
    #[error("the store is not available: {0}")]
    Unavailable(String),
}

/// What a change met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// The ticket was changed meanwhile.
    #[error("the ticket was changed meanwhile")]
    TicketChanged,
    /// There is no such ticket.
    #[error("there is no such ticket")]
    TicketGone,
    /// The caller has as many tickets as it may.
    #[error("the caller has {limit} tickets, the most it may have")]
    TooManyTickets {
        /// The most it may have.
        limit: usize,
    },
    /// The permit cannot be used.
    #[error("{0}")]
    Permit(#[from] PermitRefusal),
    /// The decision about a permit does not count.
    #[error("{0}")]
    Decision(#[from] DecisionRefusal),
    /// As many permits of the caller wait for a decision as may.
    #[error("{limit} requests of the caller wait for a decision, the most that may")]
    TooManyWaiting {
        /// The most there may be.
        limit: usize,
    },
    /// The caller has as many permits as it may.
    #[error("the caller has {limit} permissions, the most it may have")]
    TooManyPermits {
        /// The most there may be.
        limit: usize,
    },
    /// The token's queue is full.
    #[error("{bound} jobs are queued for the token, the most there may be")]
    QueueFull {
        /// The most there may be.
        bound: usize,
    },
    /// There is no such job.
    #[error("there is no such job")]
    JobGone,
    /// The job is not in the state the change needs.
    #[error("the job has moved on")]
    JobMoved,
    /// The certificate request was changed meanwhile, or one with its id is known already.
    #[error("the certificate request was changed meanwhile")]
    EnrolmentChanged,
    /// There is no such certificate request.
    #[error("there is no such certificate request")]
    EnrolmentGone,
    /// A caller of this name is stored already.
    #[error("there is a caller of this name already")]
    CallerKnown,
    /// The caller was changed meanwhile.
    #[error("the caller was changed meanwhile")]
    CallerChanged,
    /// There is no such caller.
    #[error("there is no such caller")]
    CallerGone,
    /// There is an operator of this name already.
    #[error("there is an operator of this name already")]
    OperatorKnown,
    /// There is no such operator.
    #[error("there is no such operator")]
    OperatorGone,
    /// The operator's account was changed meanwhile.
    #[error("the operator's account was changed meanwhile")]
    OperatorChanged,
    /// A request with this idempotency key is known already.
    #[error("a request with this idempotency key was made before")]
    RequestKnown,
}
