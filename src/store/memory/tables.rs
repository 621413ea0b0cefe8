//! The tables of the store in memory, with their indexes.
//!
//! Invariant: rows change only through the three `put_*` functions, which keep every index true; so undoing a change is putting the old row
//! back, and nothing else has to know what an index is for.

use std::collections::{BTreeSet, HashMap};

use super::queue::TokenQueue;
use crate::{
    domain::{
        ids::{CallerId, JobId, PermitId, TicketId},
        job::{FailureCause, JobOutcome, JobState, SigningJob},
        permit::{Permit, PermitRefusal},
        ticket::Ticket,
        timestamp::Timestamp,
        token::TokenIdentity,
    },
    store::{Change, Conflict},
};

#[derive(Default)]
pub(super) struct Tables {
    tickets: HashMap<TicketId, Ticket>,
    tickets_by_use: BTreeSet<(Timestamp, TicketId)>,
    tickets_of: HashMap<CallerId, usize>,
    /// How many tickets refer to a job.
    referred: HashMap<JobId, usize>,
    permits: HashMap<PermitId, Permit>,
    permits_by_end: BTreeSet<(Timestamp, PermitId)>,
    jobs: HashMap<JobId, JobRow>,
    jobs_by_end: BTreeSet<(Timestamp, JobId)>,
    queues: HashMap<TokenIdentity, TokenQueue>,
    queued_by_deadline: BTreeSet<(Timestamp, JobId)>,
    accepted_count: u64,
}

#[derive(Clone)]
pub(super) struct JobRow {
    job: SigningJob,
    order: u64,
    ended: Option<Timestamp>,
}

/// A row as it was before a change.
pub(super) enum Undo {
    Ticket(TicketId, Option<Ticket>),
    Permit(PermitId, Option<Permit>),
    Job(JobId, Option<JobRow>),
}

impl Tables {
    pub(super) fn ticket(&self, id: TicketId) -> Option<&Ticket> {
        self.tickets.get(&id)
    }

    pub(super) fn permit(&self, id: PermitId) -> Option<&Permit> {
        self.permits.get(&id)
    }

    pub(super) fn job(&self, id: JobId) -> Option<&SigningJob> {
        self.jobs.get(&id).map(|row| &row.job)
    }

    pub(super) fn count_tickets(&self, caller: &CallerId) -> usize {
        self.tickets_of.get(caller).copied().unwrap_or(0)
    }

    pub(super) fn count_queued(&self, token: &TokenIdentity) -> usize {
        self.queues.get(token).map_or(0, TokenQueue::len)
    }

    /// Makes one change and notes in `undo` how to take it back.
    pub(super) fn apply(&mut self, change: Change, now: Timestamp, undo: &mut Vec<Undo>) -> Result<(), Conflict> {
        match change {
            Change::InsertTicket { ticket, limit } => self.insert_ticket(ticket, limit, undo),
            Change::UpdateTicket(ticket) => self.update_ticket(ticket, undo),
            Change::DeleteTicket(id) => match self.put_ticket(id, None) {
                None => Err(Conflict::TicketGone),
                gone => {
                    undo.push(Undo::Ticket(id, gone));
                    Ok(())
                }
            },
            Change::InsertPermit(permit) => self.insert_permit(permit, undo),
            Change::RevokePermit(id) => self.change_permit(id, undo, |permit| {
                permit.revoked = true;
                Ok(())
            }),
            Change::AcceptJob { job, queue_bound } => self.accept_job(job, queue_bound, undo),
            Change::EndJob { job, outcome } => self.end_job(job, outcome, now, undo),
            Change::RequeueJob(id) => self.requeue_job(id, undo),
            Change::CancelJob(id) => match self.job(id).map(|job| job.state) {
                Some(JobState::Queued) => self.end_job(id, not_signed(FailureCause::Cancelled), now, undo),
                _ => Ok(()),
            },
        }
    }

    pub(super) fn revert(&mut self, step: Undo) {
        match step {
            Undo::Ticket(id, row) => drop(self.put_ticket(id, row)),
            Undo::Permit(id, row) => drop(self.put_permit(id, row)),
            Undo::Job(id, row) => drop(self.put_job(id, row)),
        }
    }

    fn insert_ticket(&mut self, ticket: Ticket, limit: usize, undo: &mut Vec<Undo>) -> Result<(), Conflict> {
        if self.tickets.contains_key(&ticket.id) {
            return Err(Conflict::TicketChanged);
        }
        if self.count_tickets(&ticket.caller) >= limit {
            return Err(Conflict::TooManyTickets { limit });
        }
        let id = ticket.id;
        undo.push(Undo::Ticket(id, self.put_ticket(id, Some(ticket))));
        Ok(())
    }

    fn update_ticket(&mut self, mut ticket: Ticket, undo: &mut Vec<Undo>) -> Result<(), Conflict> {
        let stored = self.tickets.get(&ticket.id).ok_or(Conflict::TicketGone)?;
        if stored.version != ticket.version {
            return Err(Conflict::TicketChanged);
        }
        ticket.version += 1;
        // A touch is no change, so the ticket that comes back may have been used since it was read.
        ticket.touched = ticket.touched.max(stored.touched);
        let id = ticket.id;
        undo.push(Undo::Ticket(id, self.put_ticket(id, Some(ticket))));
        Ok(())
    }

    fn insert_permit(&mut self, permit: Permit, undo: &mut Vec<Undo>) -> Result<(), Conflict> {
        let id = permit.id;
        if self.permits.contains_key(&id) {
            return Err(PermitRefusal::Unknown.into());
        }
        undo.push(Undo::Permit(id, self.put_permit(id, Some(permit))));
        Ok(())
    }

    fn change_permit(
        &mut self,
        id: PermitId,
        undo: &mut Vec<Undo>,
        change: impl FnOnce(&mut Permit) -> Result<(), PermitRefusal>,
    ) -> Result<(), Conflict> {
        let mut permit = self.permits.get(&id).cloned().ok_or(PermitRefusal::Unknown)?;
        change(&mut permit)?;
        undo.push(Undo::Permit(id, self.put_permit(id, Some(permit))));
        Ok(())
    }

    fn accept_job(&mut self, job: SigningJob, bound: usize, undo: &mut Vec<Undo>) -> Result<(), Conflict> {
        if job.state != JobState::Queued || self.jobs.contains_key(&job.id) {
            return Err(Conflict::JobMoved);
        }
        if self.count_queued(&job.key.token) >= bound {
            return Err(Conflict::QueueFull { bound });
        }
        if let Some(permit) = job.permit {
            self.change_permit(permit, undo, |permit| permit.reserve(&job.caller, job.accepted))?;
        }
        self.accepted_count += 1;
        let id = job.id;
        let row = JobRow { job, order: self.accepted_count, ended: None };
        undo.push(Undo::Job(id, self.put_job(id, Some(row))));
        Ok(())
    }

    fn end_job(&mut self, id: JobId, outcome: JobOutcome, now: Timestamp, undo: &mut Vec<Undo>) -> Result<(), Conflict> {
        let mut row = self.moved(id, outcome.final_state())?;
        row.ended = Some(now);
        let (permit, spent) = (row.job.permit, outcome.spends_the_use());
        row.job.outcome = Some(outcome);
        undo.push(Undo::Job(id, self.put_job(id, Some(row))));
        match permit {
            Some(permit) => self.change_permit(permit, undo, |permit| {
                if spent {
                    permit.commit()
                } else {
                    permit.release()
                }
                Ok(())
            }),
            None => Ok(()),
        }
    }

    fn requeue_job(&mut self, id: JobId, undo: &mut Vec<Undo>) -> Result<(), Conflict> {
        let row = self.moved(id, JobState::Queued)?;
        undo.push(Undo::Job(id, self.put_job(id, Some(row))));
        Ok(())
    }

    /// The job's row with its state moved on to `next`, if that is lawful.
    fn moved(&self, id: JobId, next: JobState) -> Result<JobRow, Conflict> {
        let mut row = self.jobs.get(&id).cloned().ok_or(Conflict::JobGone)?;
        // An operator's resolution of a doubt is not the end of a job, but a change to one that has ended.
        if row.job.state.is_final() || !row.job.state.may_become(next) {
            return Err(Conflict::JobMoved);
        }
        row.job.state = next;
        Ok(row)
    }

    pub(super) fn touch_ticket(&mut self, id: TicketId, now: Timestamp) {
        if let Some(ticket) = self.tickets.get_mut(&id)
            && ticket.touched < now
        {
            self.tickets_by_use.remove(&(ticket.touched, id));
            ticket.touched = now;
            self.tickets_by_use.insert((now, id));
        }
    }

    pub(super) fn remove_idle_tickets(&mut self, idle_since: Timestamp, limit: usize) -> Vec<Ticket> {
        let idle = self.tickets_by_use.iter().take_while(|(used, _)| *used < idle_since).map(|(_, id)| *id);
        let done = |id: &TicketId| {
            let job = self.tickets.get(id).and_then(|ticket| ticket.signing.as_ref()).and_then(|signing| self.job(signing.job));
            job.is_none_or(|job| job.state.is_final())
        };
        let removed: Vec<_> = idle.filter(done).take(limit).collect();
        removed.into_iter().filter_map(|id| self.put_ticket(id, None)).collect()
    }

    pub(super) fn claim_jobs(&mut self, token: &TokenIdentity, limit: usize, now: Timestamp) -> Vec<SigningJob> {
        let mut claimed = Vec::new();
        while claimed.len() < limit {
            let (jobs, queue) = (&self.jobs, self.queues.get_mut(token));
            let in_time = |id| jobs.get(&id).is_some_and(|row| row.job.deadline > now);
            let Some(mut row) = queue.and_then(|queue| queue.next(in_time)).and_then(|id| jobs.get(&id).cloned()) else { break };
            row.job.state = JobState::Signing;
            claimed.push(row.job.clone());
            self.put_job(row.job.id, Some(row));
        }
        claimed
    }

    pub(super) fn expire_jobs(&mut self, now: Timestamp) -> Vec<JobId> {
        let late: Vec<_> = self.queued_by_deadline.iter().take_while(|(deadline, _)| *deadline <= now).map(|(_, id)| *id).collect();
        late.into_iter().filter(|id| self.end_job(*id, not_signed(FailureCause::DeadlinePassed), now, &mut Vec::new()).is_ok()).collect()
    }

    pub(super) fn forget_ended(&mut self, before: Timestamp, limit: usize) -> usize {
        let ended = self.jobs_by_end.iter().take_while(|(ended, _)| *ended < before).map(|(_, id)| *id);
        let jobs: Vec<_> = ended.filter(|id| !self.referred.contains_key(id)).take(limit).collect();
        let expired = self.permits_by_end.iter().take_while(|(end, _)| *end < before).map(|(_, id)| *id);
        let unused = |id: &PermitId| self.permits.get(id).is_none_or(|permit| permit.reserved == 0);
        let permits: Vec<_> = expired.filter(unused).take(limit - jobs.len()).collect();
        let forgotten = jobs.len() + permits.len();
        jobs.into_iter().for_each(|id| drop(self.put_job(id, None)));
        permits.into_iter().for_each(|id| drop(self.put_permit(id, None)));
        forgotten
    }

    fn put_ticket(&mut self, id: TicketId, row: Option<Ticket>) -> Option<Ticket> {
        let old = self.tickets.remove(&id);
        if let Some(old) = &old {
            self.tickets_by_use.remove(&(old.touched, id));
            decrease(&mut self.tickets_of, &old.caller);
            old.signing.iter().for_each(|signing| decrease(&mut self.referred, &signing.job));
        }
        if let Some(row) = row {
            self.tickets_by_use.insert((row.touched, id));
            *self.tickets_of.entry(row.caller.clone()).or_default() += 1;
            row.signing.iter().for_each(|signing| *self.referred.entry(signing.job).or_default() += 1);
            self.tickets.insert(id, row);
        }
        old
    }

    fn put_permit(&mut self, id: PermitId, row: Option<Permit>) -> Option<Permit> {
        let old = self.permits.remove(&id);
        if let Some(old) = &old {
            self.permits_by_end.remove(&(old.expires, id));
        }
        if let Some(row) = row {
            self.permits_by_end.insert((row.expires, id));
            self.permits.insert(id, row);
        }
        old
    }

    fn put_job(&mut self, id: JobId, row: Option<JobRow>) -> Option<JobRow> {
        let old = self.jobs.remove(&id);
        if let Some(old) = &old {
            self.unindex_job(old);
        }
        if let Some(row) = row {
            self.index_job(&row);
            self.jobs.insert(id, row);
        }
        old
    }

    fn index_job(&mut self, JobRow { job, order, ended }: &JobRow) {
        if let Some(ended) = ended {
            self.jobs_by_end.insert((*ended, job.id));
        }
        if job.state == JobState::Queued {
            self.queues.entry(job.key.token.clone()).or_default().insert(&job.caller, *order, job.id);
            self.queued_by_deadline.insert((job.deadline, job.id));
        }
    }

    fn unindex_job(&mut self, JobRow { job, order, ended }: &JobRow) {
        if let Some(ended) = ended {
            self.jobs_by_end.remove(&(*ended, job.id));
        }
        if job.state == JobState::Queued {
            self.queued_by_deadline.remove(&(job.deadline, job.id));
            if let Some(queue) = self.queues.get_mut(&job.key.token) {
                queue.remove(&job.caller, *order);
            }
        }
    }
}

fn not_signed(cause: FailureCause) -> JobOutcome {
    JobOutcome::NotSigned { cause, detail: String::new() }
}

/// Takes one off a count, and the entry away with the last one.
fn decrease<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}
