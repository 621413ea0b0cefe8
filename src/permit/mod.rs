//! Consent: who may have how many signatures made, for how long, and who says so.
//!
//! Used by `signing` (a single-use permit in the same step as the job it pays for) and by the APIs (a permit for N signatures). Who decides is
//! the caller's policy for the key: its configuration, or operators, whose side of it stands in `operators`. Invariants: a permit is good for
//! nothing before it was granted; what it pays for is counted by the store, by the rules of `domain::permit`; whoever waits for a decision
//! does not wait beyond its time, and a request that nobody waits for is withdrawn.

mod operators;
mod waiting;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tracing::error;

pub use self::operators::DecisionError;
use self::waiting::WithdrawOnDrop;
use crate::{
    audit::refusals::RefusalLog,
    domain::{
        audit::AuditEvent,
        caller::{Caller, ConsentPolicy},
        consent::{ConsentAsk, KeyScope, PermitScope, ShownDocument, ViewSize, WaitingSignature},
        digest::ToSign,
        ids::{JobId, PermitId},
        job::KeyAddress,
        permit::{Permit, PermitRefusal, PermitState},
    },
    store::{Change, Conflict, PermitLimits, Store, StoreError},
    telemetry::metrics::{CONSENT_DECISIONS, CONSENT_SECONDS},
};

/// What a deployment says about permits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PermitSettings {
    /// How long a permit lasts once it is granted, spent or not; 15 minutes by default.
    pub lifetime: Duration,
    /// How long operators may take to decide; 2 minutes by default.
    pub decision_time: Duration,
    /// How many requests of one caller may wait for operators; 50 by default.
    pub waiting_per_caller: usize,
    /// How many permits that can still be used one caller may have; 1,000 by default.
    pub live_per_caller: usize,
}

impl Default for PermitSettings {
    fn default() -> Self {
        Self {
            lifetime: Duration::from_secs(15 * 60),
            decision_time: Duration::from_secs(120),
            waiting_per_caller: 50,
            live_per_caller: 1_000,
        }
    }
}

/// What a caller asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PermitAsk {
    /// For how many signatures.
    pub uses: u32,
    /// With which key, and for what exactly; `None` for any key that the caller may use, and whatever it asks later.
    pub exactly: Option<Exactly>,
    /// The caller's own words for the operator; text or HTML, not trusted.
    pub words: Option<String>,
    /// The size in which they would like to be shown.
    pub view: ViewSize,
}

/// One key, and the digests that it signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exactly {
    /// The key.
    pub key: KeyAddress,
    /// The digests, each as [`ToSign::fingerprint`] has it.
    pub digests: Vec<String>,
}

impl From<u32> for PermitAsk {
    fn from(uses: u32) -> Self {
        Self { uses, exactly: None, words: None, view: ViewSize::default() }
    }
}

/// Why there is no permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PermitError {
    /// More uses than the caller may ask for, or none.
    #[error("a permission is for 1 to {max} signatures")]
    Uses {
        /// The most that this caller may ask for.
        max: u32,
    },
    /// The permit cannot be used, is not this caller's, or its policy allows none.
    #[error("{0}")]
    Refused(#[from] PermitRefusal),
    /// An operator refused, nobody decided in time, or the request was withdrawn.
    #[error("the permission was not granted: {}", .0.as_str())]
    NotGranted(PermitState),
    /// As many requests of this caller wait for operators as may.
    #[error("{limit} requests of this caller wait for operators already")]
    TooManyWaiting {
        /// The most that may.
        limit: usize,
    },
    /// This caller has as many permits as it may.
    #[error("this caller has {limit} permissions that can still be used")]
    TooManyPermits {
        /// The most it may have.
        limit: usize,
    },
    /// The store was not reached; nothing was changed.
    #[error("the store is not available")]
    StoreUnavailable,
}

/// A job that brings no permit of its own.
#[derive(Debug)]
pub struct UnpaidJob<'a> {
    /// The job.
    pub job: JobId,
    /// The key it signs with.
    pub key: &'a KeyAddress,
    /// What it signs.
    pub to_sign: &'a ToSign,
    /// What an operator can be shown of it.
    pub document: Option<ShownDocument>,
}

/// How a request for consent can end, in the words of the metric.
const DECISIONS: [&str; 5] = ["granted", "refused", "timed-out", "withdrawn", "restarted"];

/// Asks for permits, gives them and takes them back.
pub struct PermitService {
    store: Arc<dyn Store>,
    settings: PermitSettings,
    refusals: RefusalLog,
    /// Waiting jobs that a decision of this gateway ended and that have not been told of. As many as waited, and emptied every second.
    ended: Mutex<Vec<JobId>>,
}

impl PermitService {
    /// Makes the service.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, settings: PermitSettings) -> Self {
        let refusals = RefusalLog::new(Arc::clone(&store));
        // A series that is there from the start shows its first event as an increase.
        DECISIONS.iter().for_each(|result| CONSENT_DECISIONS.counter(&[result]).increment(0));
        let _ = CONSENT_SECONDS.histogram(&[]);
        Self { store, settings, refusals, ended: Mutex::default() }
    }

    /// Where what callers were refused is recorded.
    #[must_use]
    pub fn refusals(&self) -> &RefusalLog {
        &self.refusals
    }

    /// Asks for a permit, and returns when it is granted: at once where the configuration says so, or when operators have decided.
    ///
    /// Dropping the future withdraws the request.
    ///
    /// # Errors
    /// [`PermitError`].
    pub async fn request(&self, caller: &Caller, ask: impl Into<PermitAsk>) -> Result<Permit, PermitError> {
        let ask = ask.into();
        let what = format!("a permit for {} signatures", ask.uses);
        let checked = self.check(caller, &ask);
        let asked = match checked {
            Ok((policy, scope)) => self.ask(caller, ask, policy, scope).await,
            Err(error) => Err(error),
        };
        if let Err(
            PermitError::Uses { .. } | PermitError::Refused(_) | PermitError::TooManyWaiting { .. } | PermitError::TooManyPermits { .. },
        ) = &asked
        {
            let reason = asked.as_ref().map_or_else(ToString::to_string, |_| String::new());
            self.refusals.record(caller, &what, &reason).await;
        }
        asked
    }

    /// Who decides, and what for.
    fn check(&self, caller: &Caller, ask: &PermitAsk) -> Result<(ConsentPolicy, PermitScope), PermitError> {
        if ask.uses == 0 || ask.uses > caller.permit_uses_max {
            return Err(PermitError::Uses { max: caller.permit_uses_max });
        }
        let (policy, scope) = match &ask.exactly {
            Some(Exactly { key, digests }) => {
                (caller.consent.with_key(key.name.as_ref()), PermitScope { keys: KeyScope::of(key), digests: digests.clone() })
            }
            None => {
                let (policy, keys) = caller.consent.with_any_of(&caller.keys).ok_or(PermitRefusal::ByPolicy)?;
                (policy, PermitScope { keys, digests: Vec::new() })
            }
        };
        if policy == ConsentPolicy::Deny { Err(PermitRefusal::ByPolicy.into()) } else { Ok((policy, scope)) }
    }

    async fn ask(&self, caller: &Caller, ask: PermitAsk, policy: ConsentPolicy, scope: PermitScope) -> Result<Permit, PermitError> {
        let limits = PermitLimits { waiting: self.settings.waiting_per_caller, live: self.settings.live_per_caller };
        if policy == ConsentPolicy::Auto {
            let permit = Permit { scope, ..self.by_policy(caller, ask.uses) };
            let given = Change::Audit(given_by_policy(caller, &permit));
            self.store.commit(vec![Change::AskPermit { permit: permit.clone(), words: None, limits }, given]).await?;
            return Ok(permit);
        }
        let permit = self.asked(caller, ask.uses, policy, scope, ask.view, None);
        let withdraw = WithdrawOnDrop::new(&self.store, permit.id);
        let asked = Change::Audit(asked_for(&permit));
        self.store.commit(vec![Change::AskPermit { permit: permit.clone(), words: ask.words, limits }, asked]).await.inspect_err(
            |error| {
                // What was refused is not there; what nobody knows of may be.
                if matches!(error, StoreError::Conflict(_)) {
                    withdraw.disarm();
                }
            },
        )?;
        let decided = self.wait_for_decision(permit.id).await;
        withdraw.disarm();
        let decided = decided?;
        if decided.state == PermitState::Granted { Ok(decided) } else { Err(PermitError::NotGranted(decided.state)) }
    }

    /// Adds the changes that give a permit to a job which brings none, or ask operators for it; says which permit, and whether the job waits.
    ///
    /// # Errors
    /// [`PermitRefusal::ByPolicy`].
    pub fn pay_for(&self, caller: &Caller, unpaid: UnpaidJob<'_>, with: &mut Vec<Change>) -> Result<Permit, PermitRefusal> {
        let UnpaidJob { job, key, to_sign, document } = unpaid;
        match caller.consent.with_key(key.name.as_ref()) {
            ConsentPolicy::Deny => Err(PermitRefusal::ByPolicy),
            ConsentPolicy::Auto => {
                let permit = self.by_policy(caller, 1);
                with.push(Change::InsertPermit(permit.clone()));
                with.push(Change::Audit(given_by_policy(caller, &permit)));
                Ok(permit)
            }
            policy @ (ConsentPolicy::Operator | ConsentPolicy::TwoOperators) => {
                let scope = PermitScope { keys: KeyScope::of(key), digests: vec![to_sign.fingerprint()] };
                let permit = self.asked(caller, 1, policy, scope, ViewSize::default(), Some(WaitingSignature { job, document }));
                let limits = PermitLimits { waiting: self.settings.waiting_per_caller, live: usize::MAX };
                with.push(Change::AskPermit { permit: permit.clone(), words: None, limits });
                with.push(Change::Audit(asked_for(&permit)));
                Ok(permit)
            }
        }
    }

    /// Finds a permit of this caller; another's looks like none, and so does one that was not granted.
    ///
    /// # Errors
    /// [`PermitError::Refused`] with [`PermitRefusal::Unknown`]; [`PermitError::StoreUnavailable`].
    pub async fn find(&self, caller: &Caller, id: PermitId) -> Result<Permit, PermitError> {
        let permit = self.store.find_permit(id).await?;
        let granted = |permit: &Permit| matches!(permit.state, PermitState::Granted | PermitState::Revoked);
        match permit.filter(|permit| permit.caller == caller.id && granted(permit)) {
            Some(permit) => Ok(permit),
            None => {
                self.refusals.record(caller, &format!("permit {id}"), &PermitRefusal::Unknown.to_string()).await;
                Err(PermitRefusal::Unknown.into())
            }
        }
    }

    /// Takes a permit of this caller back. Jobs that it pays for already go on.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    pub async fn revoke(&self, caller: &Caller, id: PermitId) -> Result<(), PermitError> {
        self.find(caller, id).await?;
        let revoked = AuditEvent::PermitRevoked { permit: id, by: caller.id.to_string() };
        Ok(self.store.commit(vec![Change::RevokePermit(id), Change::Audit(revoked)]).await?)
    }

    /// The waiting jobs that decisions of this gateway have ended since this was asked last.
    #[must_use]
    pub fn take_ended(&self) -> Vec<JobId> {
        std::mem::take(&mut *self.ended.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn by_policy(&self, caller: &Caller, uses: u32) -> Permit {
        Permit::by_policy(PermitId::random(), caller.id.clone(), uses, self.store.now().after(self.settings.lifetime))
    }

    fn asked(
        &self,
        caller: &Caller,
        uses: u32,
        policy: ConsentPolicy,
        scope: PermitScope,
        view: ViewSize,
        waiting: Option<WaitingSignature>,
    ) -> Permit {
        let asked = self.store.now();
        let decide_by = asked.after(self.settings.decision_time);
        let (from, gateway, operators) = (caller.from.clone(), self.store.gateway(), policy.operators());
        let ask = ConsentAsk { from, gateway, uses, operators, asked, decide_by, view, waiting };
        let none = Permit::by_policy(PermitId::random(), caller.id.clone(), 0, decide_by);
        Permit { state: PermitState::Asked, scope, ask: Some(Box::new(ask)), ..none }
    }

    /// Counts a request that was withdrawn with the job that waited for it.
    ///
    /// # Errors
    /// The store was not reached, and nothing was counted.
    pub async fn note_cancelled(&self, permit: PermitId) -> Result<(), StoreError> {
        match self.store.find_permit(permit).await? {
            Some(permit) if permit.state == PermitState::Withdrawn => self.note_decision(&permit, false),
            _ => {}
        }
        Ok(())
    }

    /// Counts a decision, and notes the job that it ended.
    fn note_decision(&self, permit: &Permit, restarted: bool) {
        let result = match permit.state {
            // Another operator must agree.
            PermitState::Asked => return,
            PermitState::Refused if restarted => "restarted",
            state => state.as_str(),
        };
        CONSENT_DECISIONS.counter(&[result]).increment(1);
        if let Some(ask) = permit.ask.as_ref().filter(|_| matches!(result, "granted" | "refused")) {
            CONSENT_SECONDS.histogram(&[]).record(self.store.now().since(ask.asked).as_secs_f64());
        }
        if permit.job_ends_for().is_some() {
            self.ended.lock().unwrap_or_else(PoisonError::into_inner).extend(permit.waiting_job());
        }
    }
}

fn given_by_policy(caller: &Caller, permit: &Permit) -> AuditEvent {
    AuditEvent::ConsentGiven {
        permit: permit.id,
        caller: caller.id.clone(),
        from: caller.from.clone(),
        uses: permit.uses,
        expires: permit.expires,
        keys: (permit.scope != PermitScope::ANY).then(|| permit.scope.keys.to_string()),
        by: permit.consent(),
    }
}

fn asked_for(permit: &Permit) -> AuditEvent {
    let ask = permit.ask.as_deref();
    let waiting = ask.and_then(|ask| ask.waiting.as_ref());
    AuditEvent::ConsentAsked {
        permit: permit.id,
        caller: permit.caller.clone(),
        from: ask.map(|ask| ask.from.clone()).unwrap_or_default(),
        uses: ask.map_or(0, |ask| ask.uses),
        operators: ask.map_or(0, |ask| ask.operators),
        keys: permit.scope.keys.to_string(),
        digests: permit.scope.digests.clone(),
        decide_by: permit.expires,
        job: permit.waiting_job(),
        ticket: waiting.and_then(|waiting| waiting.document.as_ref()).map(|document| document.ticket),
    }
}

impl From<StoreError> for PermitError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict(Conflict::Permit(refusal)) => Self::Refused(refusal),
            StoreError::Conflict(Conflict::TooManyWaiting { limit }) => Self::TooManyWaiting { limit },
            StoreError::Conflict(Conflict::TooManyPermits { limit }) => Self::TooManyPermits { limit },
            StoreError::Conflict(_) => Self::StoreUnavailable,
            StoreError::Unavailable(reason) => {
                error!(error = %reason, "the store is not available");
                Self::StoreUnavailable
            }
        }
    }
}

#[cfg(test)]
mod tests;
