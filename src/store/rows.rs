//! How changes are applied to rows, whatever keeps the rows: the one place where the rules of `domain` meet what is stored.
//!
//! A store gives [`Rows`] within a transaction of its own and calls [`commit`]. Invariant: a commit that fails has changed no row; audit records
//! and contents are written only once everything else fits.

use std::sync::Arc;

use super::{Change, Conflict, PermitLimits, StoreError};
use crate::domain::{
    audit::{AuditEvent, Consent},
    consent::{Decision, DecisionRefusal},
    enrolment::Enrolment,
    idempotency::IdempotentRequest,
    ids::{CallerId, ClaimId, EnrolmentId, IdempotencyKey, JobId, KeyName, OperatorName, PermitId, TicketId},
    job::{FailureCause, JobOutcome, JobState, SigningJob},
    operator::{OperatorAccount, OperatorSession, SessionId},
    permit::{Permit, PermitRefusal, PermitState},
    stored_caller::StoredCaller,
    ticket::{ContentPart, ContentPlace, Ticket},
    timestamp::Timestamp,
    token::TokenIdentity,
};

/// A job as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct JobRow {
    pub(super) job: SigningJob,
    /// When it came into a final state.
    pub(super) ended: Option<Timestamp>,
}

impl JobRow {
    /// Whether it differs from what it was in nothing but its state, claim and end: nearly every change of a job is of that kind.
    pub(super) fn only_moved(&self, before: &Self) -> bool {
        let (new, old) = (&self.job, &before.job);
        (new.accepted, new.deadline, new.with_pin) == (old.accepted, old.deadline, old.with_pin)
            && (&new.from, &new.key, &new.to_sign) == (&old.from, &old.key, &old.to_sign)
            && (&new.certificate_serial, &new.consent) == (&old.certificate_serial, &old.consent)
    }
}

/// Rows that can be read and written one by one, within one transaction. `put_*` with `None` removes a row.
///
/// The first `put_job` of a job gives it its place in the queue, which it keeps.
pub(super) trait Rows {
    fn ticket(&mut self, id: TicketId) -> Result<Option<Ticket>, StoreError>;
    fn put_ticket(&mut self, id: TicketId, row: Option<Ticket>) -> Result<(), StoreError>;
    fn permit(&mut self, id: PermitId) -> Result<Option<Permit>, StoreError>;
    fn put_permit(&mut self, id: PermitId, row: Option<Permit>) -> Result<(), StoreError>;
    fn job(&mut self, id: JobId) -> Result<Option<JobRow>, StoreError>;
    fn put_job(&mut self, id: JobId, row: Option<JobRow>) -> Result<(), StoreError>;
    fn idempotent(&mut self, caller: &CallerId, key: &IdempotencyKey) -> Result<Option<IdempotentRequest>, StoreError>;
    fn put_idempotent(&mut self, caller: &CallerId, key: &IdempotencyKey, row: Option<IdempotentRequest>) -> Result<(), StoreError>;
    fn enrolment(&mut self, id: EnrolmentId) -> Result<Option<Enrolment>, StoreError>;
    fn put_enrolment(&mut self, id: EnrolmentId, row: Option<Enrolment>) -> Result<(), StoreError>;
    /// The request whose certificate is active under the name of a key.
    fn active_enrolment(&mut self, key: &KeyName) -> Result<Option<EnrolmentId>, StoreError>;
    fn caller(&mut self, id: &CallerId) -> Result<Option<StoredCaller>, StoreError>;
    fn put_caller(&mut self, id: &CallerId, row: Option<StoredCaller>) -> Result<(), StoreError>;
    fn operator(&mut self, name: &OperatorName) -> Result<Option<OperatorAccount>, StoreError>;
    fn put_operator(&mut self, name: &OperatorName, row: Option<OperatorAccount>) -> Result<(), StoreError>;
    fn session(&mut self, id: SessionId) -> Result<Option<OperatorSession>, StoreError>;
    fn put_session(&mut self, id: SessionId, row: Option<OperatorSession>) -> Result<(), StoreError>;
    /// How many tickets the caller has.
    fn count_tickets(&mut self, caller: &CallerId) -> Result<usize, StoreError>;
    /// How many jobs are queued for the token.
    fn count_queued(&mut self, token: &TokenIdentity) -> Result<usize, StoreError>;
    /// How many permits of the caller wait for a decision.
    fn count_waiting(&mut self, caller: &CallerId) -> Result<usize, StoreError>;
    /// How many permits of the caller could still be used at `now`.
    fn count_live(&mut self, caller: &CallerId, now: Timestamp) -> Result<usize, StoreError>;
    /// Writes or removes what the caller says of a permit that it asks for.
    fn put_words(&mut self, permit: PermitId, words: Option<String>) -> Result<(), StoreError>;
    /// Writes or removes content of a ticket.
    fn put_content(&mut self, ticket: TicketId, part: ContentPart, bytes: Option<Arc<[u8]>>) -> Result<(), StoreError>;
    /// Adds records to the audit log, in this order.
    fn append_audit(&mut self, now: Timestamp, events: Vec<AuditEvent>) -> Result<(), StoreError>;
}

/// What a commit did that somebody may wait for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Moved {
    /// A job came into a final state.
    Ended(JobId),
    /// A job was queued for this token.
    Queued(TokenIdentity),
    /// A permit was asked for, decided, brought nearer to a decision, or revoked.
    Permit(PermitId),
    /// A stored caller is another now.
    Callers,
}

/// Makes all of `changes`, in order, or none; returns what moved.
pub(super) fn commit(rows: &mut impl Rows, changes: Vec<Change>, now: Timestamp) -> Result<Vec<Moved>, StoreError> {
    let mut step = Step { rows, now, undo: Vec::new(), contents: Vec::new(), words: Vec::new(), events: Vec::new(), moved: Vec::new() };
    for change in changes {
        if let Err(error) = step.apply(change) {
            step.take_back()?;
            return Err(error);
        }
    }
    step.finish()
}

/// A row as it was before a change.
enum Undo {
    Ticket(TicketId, Option<Ticket>),
    Permit(PermitId, Option<Permit>),
    Job(JobId, Option<JobRow>),
    Idempotent(CallerId, IdempotencyKey),
    Enrolment(EnrolmentId, Option<Box<Enrolment>>),
    Caller(CallerId, Option<StoredCaller>),
    Operator(OperatorName, Option<OperatorAccount>),
    Session(SessionId, Option<OperatorSession>),
}

/// A part of a ticket to write, or to remove.
type PutContent = (TicketId, ContentPart, Option<Arc<[u8]>>);

pub(super) struct Step<'a, R> {
    pub(super) rows: &'a mut R,
    pub(super) now: Timestamp,
    undo: Vec<Undo>,
    contents: Vec<PutContent>,
    words: Vec<(PermitId, Option<String>)>,
    pub(super) events: Vec<AuditEvent>,
    moved: Vec<Moved>,
}

impl<R: Rows> Step<'_, R> {
    fn apply(&mut self, change: Change) -> Result<(), StoreError> {
        match change {
            Change::InsertTicket { ticket, limit } => self.insert_ticket(ticket, limit),
            Change::UpdateTicket(ticket) => self.update_ticket(ticket),
            Change::DeleteTicket(id) => self.delete_ticket(id, None),
            Change::CloseTicket { ticket, version } => self.delete_ticket(ticket, Some(version)),
            Change::PutContent { ticket, part, bytes } => {
                self.contents.push((ticket, part, Some(bytes)));
                Ok(())
            }
            Change::InsertPermit(permit) => self.insert_permit(permit),
            Change::AskPermit { permit, words, limits } => self.ask_permit(permit, words, limits),
            Change::DecidePermit { permit, job, decision } => self.decide_permit(permit, job, &decision),
            Change::RevokePermit(id) => self.change_permit(id, Permit::revoke).map(drop),
            Change::AcceptJob { job, queue_bound } => self.accept_job(job, queue_bound),
            Change::EndJob { job, claim, outcome } => self.end_job(job, claim, outcome),
            Change::RequeueJob { job, claim } => self.requeue_job(job, claim),
            Change::CancelJob(id) => self.cancel_job(id),
            Change::ResolveDoubt { job, signed } => self.resolve_doubt(job, signed),
            Change::KeepRequest(request) => self.keep_request(request),
            Change::InsertEnrolment(enrolment) => self.insert_enrolment(*enrolment),
            Change::UpdateEnrolment(enrolment) => self.update_enrolment(*enrolment),
            Change::ActivateEnrolment(enrolment) => self.activate_enrolment(*enrolment),
            Change::InsertCaller(caller) => self.insert_caller(caller),
            Change::UpdateCaller(caller) => self.update_caller(caller),
            Change::RemoveCaller(id) => self.remove_caller(id),
            Change::InsertOperator(account) => self.insert_operator(account),
            Change::UpdateOperator(account) => self.update_operator(account),
            Change::DeleteOperator(name) => {
                let stored = self.rows.operator(&name)?.ok_or(Conflict::OperatorGone)?;
                self.put_operator(name, Some(stored), None)
            }
            Change::InsertSession(session) => self.put_session(session.id, None, Some(session)),
            Change::TouchSession { id, seen } => match self.rows.session(id)? {
                Some(stored) if stored.seen < seen => {
                    let touched = OperatorSession { seen, ..stored.clone() };
                    self.put_session(id, Some(stored), Some(touched))
                }
                _ => Ok(()),
            },
            Change::EndSession(id) => match self.rows.session(id)? {
                Some(stored) => self.put_session(id, Some(stored), None),
                None => Ok(()),
            },
            Change::Audit(event) => {
                self.events.push(event);
                Ok(())
            }
        }
    }

    fn finish(self) -> Result<Vec<Moved>, StoreError> {
        for (ticket, part, bytes) in self.contents {
            self.rows.put_content(ticket, part, bytes)?;
        }
        for (permit, words) in self.words {
            self.rows.put_words(permit, words)?;
        }
        if !self.events.is_empty() {
            self.rows.append_audit(self.now, self.events)?;
        }
        Ok(self.moved)
    }

    fn take_back(self) -> Result<(), StoreError> {
        self.undo.into_iter().rev().try_for_each(|step| match step {
            Undo::Ticket(id, row) => self.rows.put_ticket(id, row),
            Undo::Permit(id, row) => self.rows.put_permit(id, row),
            Undo::Job(id, row) => self.rows.put_job(id, row),
            Undo::Idempotent(caller, key) => self.rows.put_idempotent(&caller, &key, None),
            Undo::Enrolment(id, row) => self.rows.put_enrolment(id, row.map(|row| *row)),
            Undo::Caller(id, row) => self.rows.put_caller(&id, row),
            Undo::Operator(name, row) => self.rows.put_operator(&name, row),
            Undo::Session(id, row) => self.rows.put_session(id, row),
        })
    }

    pub(super) fn put_enrolment(&mut self, old: Option<Enrolment>, new: Enrolment) -> Result<(), StoreError> {
        let id = new.id;
        self.rows.put_enrolment(id, Some(new))?;
        self.undo.push(Undo::Enrolment(id, old.map(Box::new)));
        Ok(())
    }

    fn put_ticket(&mut self, id: TicketId, old: Option<Ticket>, new: Option<Ticket>) -> Result<(), StoreError> {
        for part in ContentPart::ALL {
            let stored = |ticket: &Option<Ticket>| ticket.as_ref().is_some_and(|ticket| ticket.has_stored(part));
            if stored(&old) && !stored(&new) {
                self.contents.push((id, part, None));
            }
        }
        self.rows.put_ticket(id, new)?;
        self.undo.push(Undo::Ticket(id, old));
        Ok(())
    }

    fn put_permit(&mut self, id: PermitId, old: Option<Permit>, new: Permit) -> Result<(), StoreError> {
        let was_asked = old.as_ref().is_some_and(|old| old.state == PermitState::Asked);
        if was_asked && new.state != PermitState::Asked {
            self.words.push((id, None));
        }
        let is_news = match &old {
            None => new.state == PermitState::Asked,
            Some(old) => old.state != new.state || old.approvals.len() != new.approvals.len(),
        };
        if is_news {
            self.moved.push(Moved::Permit(id));
        }
        self.rows.put_permit(id, Some(new))?;
        self.undo.push(Undo::Permit(id, old));
        Ok(())
    }

    fn put_job(&mut self, id: JobId, old: Option<JobRow>, new: JobRow) -> Result<(), StoreError> {
        match new.job.state {
            state if state.is_final() => self.moved.push(Moved::Ended(id)),
            JobState::Queued => self.moved.push(Moved::Queued(new.job.key.token.clone())),
            _ => {}
        }
        self.rows.put_job(id, Some(new))?;
        self.undo.push(Undo::Job(id, old));
        Ok(())
    }

    fn insert_ticket(&mut self, ticket: Ticket, limit: usize) -> Result<(), StoreError> {
        let id = ticket.id;
        if self.rows.ticket(id)?.is_some() {
            return Err(Conflict::TicketChanged.into());
        }
        if self.rows.count_tickets(&ticket.caller)? >= limit {
            return Err(Conflict::TooManyTickets { limit }.into());
        }
        self.put_ticket(id, None, Some(ticket))
    }

    fn update_ticket(&mut self, mut ticket: Ticket) -> Result<(), StoreError> {
        let stored = self.rows.ticket(ticket.id)?.ok_or(Conflict::TicketGone)?;
        if stored.version != ticket.version {
            return Err(Conflict::TicketChanged.into());
        }
        ticket.version += 1;
        // A touch is no change, so the ticket that comes back may have been used since it was read.
        ticket.touched = ticket.touched.max(stored.touched);
        self.put_ticket(ticket.id, Some(stored), Some(ticket))
    }

    fn delete_ticket(&mut self, id: TicketId, version: Option<u64>) -> Result<(), StoreError> {
        let stored = self.rows.ticket(id)?.ok_or(Conflict::TicketGone)?;
        if version.is_some_and(|version| version != stored.version) {
            return Err(Conflict::TicketChanged.into());
        }
        self.put_ticket(id, Some(stored), None)
    }

    fn insert_permit(&mut self, permit: Permit) -> Result<(), StoreError> {
        if self.rows.permit(permit.id)?.is_some() {
            return Err(Conflict::Permit(PermitRefusal::Unknown).into());
        }
        self.put_permit(permit.id, None, permit)
    }

    fn ask_permit(&mut self, permit: Permit, words: Option<String>, limits: PermitLimits) -> Result<(), StoreError> {
        if permit.state == PermitState::Asked && self.rows.count_waiting(&permit.caller)? >= limits.waiting {
            return Err(Conflict::TooManyWaiting { limit: limits.waiting }.into());
        }
        if self.rows.count_live(&permit.caller, self.now)? >= limits.live {
            return Err(Conflict::TooManyPermits { limit: limits.live }.into());
        }
        if words.is_some() {
            self.words.push((permit.id, words));
        }
        self.insert_permit(permit)
    }

    /// Decides a permit, and with it the job that waits for it.
    fn decide_permit(&mut self, id: PermitId, job: Option<JobId>, decision: &Decision) -> Result<(), StoreError> {
        let stored = self.rows.permit(id)?.filter(|permit| permit.waiting_job() == job).ok_or(DecisionRefusal::NotFound);
        let stored = stored.map_err(Conflict::Decision)?;
        let mut permit = stored.clone();
        self.events.push(permit.decide(decision, self.now).map_err(Conflict::Decision)?);
        if let Some(job) = job {
            match permit.job_ends_for() {
                Some(cause) => self.end_waiting_job(job, cause)?,
                None if permit.state == PermitState::Granted => self.queue_waiting_job(job, &mut permit)?,
                None => {}
            }
        }
        self.put_permit(id, Some(stored), permit)
    }

    fn end_waiting_job(&mut self, id: JobId, cause: FailureCause) -> Result<(), StoreError> {
        let outcome = JobOutcome::not_signed(cause, "");
        let (old, mut row) = self.moved(id, None, outcome.final_state())?;
        row.ended = Some(self.now);
        self.events.push(AuditEvent::of_end(&row.job, &outcome));
        row.job.outcome = Some(outcome);
        self.put_job(id, Some(old), row)
    }

    /// Its time begins now. The bound of the queue does not count: whoever has waited for consent is not turned away after it was given, and how
    /// many wait for consent has a bound of its own.
    fn queue_waiting_job(&mut self, id: JobId, permit: &mut Permit) -> Result<(), StoreError> {
        let (old, mut row) = self.moved(id, None, JobState::Queued)?;
        let decide_by = permit.ask.as_ref().map_or(self.now, |ask| ask.decide_by);
        row.job.deadline = self.now.after(row.job.deadline.since(decide_by));
        row.job.accepted = self.now;
        row.job.consent = permit.consent();
        permit.reserve(&row.job).map_err(Conflict::Permit)?;
        self.put_job(id, Some(old), row)
    }

    fn change_permit(
        &mut self,
        id: PermitId,
        change: impl FnOnce(&mut Permit) -> Result<(), PermitRefusal>,
    ) -> Result<Consent, StoreError> {
        let stored = self.rows.permit(id)?.ok_or(Conflict::Permit(PermitRefusal::Unknown))?;
        let mut permit = stored.clone();
        change(&mut permit).map_err(Conflict::Permit)?;
        let consent = permit.consent();
        self.put_permit(id, Some(stored), permit)?;
        Ok(consent)
    }

    fn accept_job(&mut self, mut job: SigningJob, bound: usize) -> Result<(), StoreError> {
        let waits = job.state == JobState::AwaitingConsent;
        if !(waits || job.state == JobState::Queued) || self.rows.job(job.id)?.is_some() {
            return Err(Conflict::JobMoved.into());
        }
        if self.rows.count_queued(&job.key.token)? >= bound {
            return Err(Conflict::QueueFull { bound }.into());
        }
        match job.permit {
            Some(permit) if waits => {
                let asked = self.rows.permit(permit)?.filter(|permit| permit.waiting_job() == Some(job.id));
                asked.ok_or(Conflict::Permit(PermitRefusal::Unknown))?;
            }
            Some(permit) => job.consent = self.change_permit(permit, |permit| permit.reserve(&job))?,
            None => {}
        }
        self.put_job(job.id, None, JobRow { job, ended: None })
    }

    fn cancel_job(&mut self, id: JobId) -> Result<(), StoreError> {
        let Some(JobRow { job, .. }) = self.rows.job(id)? else { return Ok(()) };
        match (job.state, job.permit) {
            (JobState::Queued, _) => self.end_job(id, None, JobOutcome::not_signed(FailureCause::Cancelled, "")),
            (JobState::AwaitingConsent, Some(permit)) => self.decide_permit(permit, Some(id), &Decision::Withdraw),
            _ => Ok(()),
        }
    }

    fn end_job(&mut self, id: JobId, claim: Option<ClaimId>, outcome: JobOutcome) -> Result<(), StoreError> {
        let (old, mut row) = self.moved(id, claim, outcome.final_state())?;
        if old.job.state == JobState::AwaitingConsent {
            // It ends with the decision about its permit.
            return Err(Conflict::JobMoved.into());
        }
        row.ended = Some(self.now);
        let (permit, spent) = (row.job.permit, outcome.spends_the_use());
        self.events.push(AuditEvent::of_end(&row.job, &outcome));
        row.job.outcome = Some(outcome);
        self.put_job(id, Some(old), row)?;
        self.settle_use(permit, spent)
    }

    fn settle_use(&mut self, permit: Option<PermitId>, spent: bool) -> Result<(), StoreError> {
        let Some(permit) = permit else { return Ok(()) };
        self.change_permit(permit, |permit| {
            if spent {
                permit.commit();
            } else {
                permit.release();
            }
            Ok(())
        })
        .map(drop)
    }

    fn requeue_job(&mut self, id: JobId, claim: Option<ClaimId>) -> Result<(), StoreError> {
        let (old, row) = self.moved(id, claim, JobState::Queued)?;
        if old.job.state != JobState::Signing {
            return Err(Conflict::JobMoved.into());
        }
        self.put_job(id, Some(old), row)
    }

    /// The job's row as it was, and with its state moved on to `next` if that is lawful and nobody has claimed it since.
    fn moved(&mut self, id: JobId, claim: Option<ClaimId>, next: JobState) -> Result<(JobRow, JobRow), StoreError> {
        let old = self.rows.job(id)?.ok_or(Conflict::JobGone)?;
        // An operator's resolution of a doubt is not the end of a job, but a change to one that has ended.
        let lawful = !old.job.state.is_final() && old.job.state.may_become(next);
        let claimed_by_another = old.job.state == JobState::Signing && old.job.claim != claim;
        if !lawful || claimed_by_another {
            return Err(Conflict::JobMoved.into());
        }
        let mut row = old.clone();
        row.job.state = next;
        Ok((old, row))
    }

    fn resolve_doubt(&mut self, id: JobId, signed: bool) -> Result<(), StoreError> {
        let old = self.rows.job(id)?.ok_or(Conflict::JobGone)?;
        if old.job.state != JobState::InDoubt {
            return Err(Conflict::JobMoved.into());
        }
        let (cause, permit) = (FailureCause::resolved(signed), old.job.permit);
        let mut row = old.clone();
        row.job.state = cause.final_state();
        row.job.outcome = Some(JobOutcome::not_signed(cause, ""));
        self.put_job(id, Some(old), row)?;
        // The use was spent when the doubt arose; a permit that has been forgotten since has nothing to give back.
        match permit {
            Some(permit) if !signed && self.rows.permit(permit)?.is_some() => {
                let give_back = |permit: &mut Permit| {
                    permit.give_back();
                    Ok(())
                };
                self.change_permit(permit, give_back).map(drop)
            }
            _ => Ok(()),
        }
    }

    fn put_caller(&mut self, id: CallerId, old: Option<StoredCaller>, new: Option<StoredCaller>) -> Result<(), StoreError> {
        self.rows.put_caller(&id, new)?;
        self.moved.push(Moved::Callers);
        self.undo.push(Undo::Caller(id, old));
        Ok(())
    }

    fn insert_caller(&mut self, caller: StoredCaller) -> Result<(), StoreError> {
        let id = caller.id.clone();
        if self.rows.caller(&id)?.is_some() {
            return Err(Conflict::CallerKnown.into());
        }
        self.put_caller(id, None, Some(caller))
    }

    fn update_caller(&mut self, mut caller: StoredCaller) -> Result<(), StoreError> {
        let id = caller.id.clone();
        let stored = self.rows.caller(&id)?.ok_or(Conflict::CallerGone)?;
        if stored.version != caller.version {
            return Err(Conflict::CallerChanged.into());
        }
        caller.version += 1;
        self.put_caller(id, Some(stored), Some(caller))
    }

    fn remove_caller(&mut self, id: CallerId) -> Result<(), StoreError> {
        let stored = self.rows.caller(&id)?.ok_or(Conflict::CallerGone)?;
        self.put_caller(id, Some(stored), None)
    }

    fn insert_operator(&mut self, account: OperatorAccount) -> Result<(), StoreError> {
        let name = account.operator.name.clone();
        if self.rows.operator(&name)?.is_some() {
            return Err(Conflict::OperatorKnown.into());
        }
        self.put_operator(name, None, Some(account))
    }

    fn update_operator(&mut self, mut account: OperatorAccount) -> Result<(), StoreError> {
        let name = account.operator.name.clone();
        let stored = self.rows.operator(&name)?.ok_or(Conflict::OperatorGone)?;
        if stored.version != account.version {
            return Err(Conflict::OperatorChanged.into());
        }
        account.version += 1;
        self.put_operator(name, Some(stored), Some(account))
    }

    fn put_operator(&mut self, name: OperatorName, old: Option<OperatorAccount>, new: Option<OperatorAccount>) -> Result<(), StoreError> {
        self.rows.put_operator(&name, new)?;
        self.undo.push(Undo::Operator(name, old));
        Ok(())
    }

    fn put_session(&mut self, id: SessionId, old: Option<OperatorSession>, new: Option<OperatorSession>) -> Result<(), StoreError> {
        self.rows.put_session(id, new)?;
        self.undo.push(Undo::Session(id, old));
        Ok(())
    }

    fn keep_request(&mut self, request: IdempotentRequest) -> Result<(), StoreError> {
        let (caller, key) = (request.caller.clone(), request.key.clone());
        if self.rows.idempotent(&caller, &key)?.is_some() {
            return Err(Conflict::RequestKnown.into());
        }
        self.rows.put_idempotent(&caller, &key, Some(request))?;
        self.undo.push(Undo::Idempotent(caller, key));
        Ok(())
    }
}

impl Ticket {
    /// Whether the store holds this part of it.
    fn has_stored(&self, part: ContentPart) -> bool {
        self.part(part).is_some_and(|content| content.place == ContentPlace::Stored)
    }
}
