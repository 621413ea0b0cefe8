//! The rows that one group of changes is about: read with a few statements, changed in memory by the rules, written with a few statements.
//!
//! Invariants: what a rule asks for was read before, under a lock, or is not there; rows are locked tickets first, then jobs, then permits,
//! each in the order of their ids, so that gateways never wait for each other in a circle; only what changed is written.

use std::{
    collections::{BTreeSet, HashMap},
    hash::Hash,
    sync::Arc,
};

use uuid::Uuid;

use super::{
    accounts::{Accounts, WantedAccounts},
    callers, enrolments,
    row::{self, job_columns, permit_columns, ticket_columns},
    session::{Answer, Step},
};
use crate::{
    domain::{
        audit::{AuditEvent, AuditHead, SealedRecord},
        enrolment::Enrolment,
        idempotency::IdempotentRequest,
        ids::{CallerId, EnrolmentId, IdempotencyKey, JobId, KeyName, OperatorName, PermitId, TicketId},
        job::JobState,
        operator::{OperatorAccount, OperatorSession, SessionId},
        permit::{Permit, PermitState},
        stored_caller::StoredCaller,
        ticket::{ContentPart, Ticket},
        timestamp::Timestamp,
        token::TokenIdentity,
    },
    store::{
        Change, StoreError,
        columns::{request_of, token_of, token_text},
        enrolment::enrolment_of,
        rows::{JobRow, Rows},
    },
};

type RequestName = (CallerId, IdempotencyKey);

const TICKETS: &str = concat!(ticket_columns!(), "WHERE id = ANY($1) ORDER BY id FOR UPDATE");
const JOBS: &str = concat!("SELECT ", job_columns!(), " FROM jobs WHERE id = ANY($1) ORDER BY id FOR UPDATE");
/// A job's permit never changes, so it may be looked up without a lock.
const PERMITS: &str = concat!(
    permit_columns!(),
    "WHERE id = ANY(array_cat($1::uuid[], ARRAY(SELECT permit FROM jobs WHERE id = ANY($2) AND permit IS NOT NULL))) ORDER BY id FOR UPDATE"
);
const REQUESTS: &str = "SELECT r.caller, r.key, r.done, r.expires FROM unnest($1::text[], $2::text[]) AS wanted(caller, key) \
    JOIN requests r ON r.caller = wanted.caller AND r.key = wanted.key";
const TICKET_COUNTS: &str = "SELECT caller, count(*) FROM tickets WHERE caller = ANY($1) GROUP BY caller";
const WAITING_COUNTS: &str = "SELECT caller, count(*) FROM permits WHERE caller = ANY($1) AND state = 'asked' GROUP BY caller";
const LIVE_COUNTS: &str = "SELECT caller, count(*) FROM permits WHERE caller = ANY($1) AND state = 'granted' AND reserved + committed < uses \
    AND expires > (extract(epoch FROM clock_timestamp()) * 1000)::bigint GROUP BY caller";
const QUEUE_COUNTS: &str = "SELECT token, count(*) FROM jobs WHERE token = ANY($1) AND state = 'queued' GROUP BY token";

/// What a group of changes needs to see.
#[derive(Default)]
pub(super) struct Wanted {
    pub(super) tickets: BTreeSet<TicketId>,
    pub(super) jobs: BTreeSet<JobId>,
    permits: BTreeSet<PermitId>,
    requests: BTreeSet<RequestName>,
    /// Whose tickets are counted.
    counted: BTreeSet<CallerId>,
    callers: BTreeSet<CallerId>,
    queues: BTreeSet<TokenIdentity>,
    enrolments: BTreeSet<EnrolmentId>,
    /// Names of keys whose active request is wanted.
    active: BTreeSet<KeyName>,
    /// Whose permits are counted.
    askers: BTreeSet<CallerId>,
    accounts: WantedAccounts,
}

impl Wanted {
    pub(super) fn add(&mut self, change: &Change) {
        match change {
            Change::InsertTicket { ticket, .. } => {
                self.tickets.insert(ticket.id);
                self.counted.insert(ticket.caller.clone());
            }
            Change::UpdateTicket(ticket) => drop(self.tickets.insert(ticket.id)),
            Change::DeleteTicket(id) | Change::CloseTicket { ticket: id, .. } => drop(self.tickets.insert(*id)),
            Change::InsertPermit(permit) => drop(self.permits.insert(permit.id)),
            Change::AskPermit { permit, .. } => {
                self.permits.insert(permit.id);
                self.askers.insert(permit.caller.clone());
            }
            Change::DecidePermit { permit, job, .. } => {
                self.permits.insert(*permit);
                self.jobs.extend(job);
            }
            Change::RevokePermit(id) => drop(self.permits.insert(*id)),
            Change::AcceptJob { job, .. } => {
                self.jobs.insert(job.id);
                self.permits.extend(job.permit);
                self.queues.insert(job.key.token.clone());
            }
            Change::EndJob { job, .. } | Change::RequeueJob { job, .. } | Change::CancelJob(job) | Change::ResolveDoubt { job, .. } => {
                self.jobs.insert(*job);
            }
            Change::KeepRequest(request) => drop(self.requests.insert((request.caller.clone(), request.key.clone()))),
            Change::InsertEnrolment(enrolment) | Change::UpdateEnrolment(enrolment) => drop(self.enrolments.insert(enrolment.id)),
            Change::ActivateEnrolment(enrolment) => {
                self.enrolments.insert(enrolment.id);
                self.active.insert(enrolment.key_name.clone());
            }
            Change::InsertCaller(caller) | Change::UpdateCaller(caller) => drop(self.callers.insert(caller.id.clone())),
            Change::RemoveCaller(id) => drop(self.callers.insert(id.clone())),
            Change::InsertOperator(_)
            | Change::UpdateOperator(_)
            | Change::DeleteOperator(_)
            | Change::InsertSession(_)
            | Change::TouchSession { .. }
            | Change::EndSession(_) => self.accounts.add(change),
            Change::PutContent { .. } | Change::Audit(_) => {}
        }
    }

    /// The statements that read it. [`WorkingSet::fill`] takes their answers.
    pub(super) fn reads(&self) -> Result<Vec<Step>, StoreError> {
        let tickets = ids(&self.tickets, TicketId::as_uuid);
        let jobs = ids(&self.jobs, JobId::as_uuid);
        let permits = ids(&self.permits, PermitId::as_uuid);
        let (callers, keys): (Vec<_>, Vec<_>) =
            self.requests.iter().map(|(caller, key)| (caller.as_str().to_owned(), key.as_str().to_owned())).unzip();
        let counted: Vec<_> = self.counted.iter().map(|caller| caller.as_str().to_owned()).collect();
        let queues = self.queues.iter().map(token_text).collect::<Result<Vec<_>, _>>()?;
        let askers: Vec<_> = self.askers.iter().map(|caller| caller.as_str().to_owned()).collect();
        let mut steps = vec![
            Step::new(TICKETS, vec![Box::new(tickets)]),
            Step::new(JOBS, vec![Box::new(jobs.clone())]),
            Step::new(PERMITS, vec![Box::new(permits), Box::new(jobs)]),
            Step::new(REQUESTS, vec![Box::new(callers), Box::new(keys)]),
            Step::new(TICKET_COUNTS, vec![Box::new(counted)]),
            Step::new(QUEUE_COUNTS, vec![Box::new(queues)]),
        ];
        if !self.enrolments.is_empty() {
            steps.push(enrolments::read(&self.enrolments, &self.active));
        }
        // Most groups ask for nothing.
        if !askers.is_empty() {
            steps.push(Step::new(WAITING_COUNTS, vec![Box::new(askers.clone())]));
            steps.push(Step::new(LIVE_COUNTS, vec![Box::new(askers)]));
        }
        steps.extend(self.accounts.reads());
        steps.extend(callers::lock(&self.callers));
        Ok(steps)
    }
}

fn ids<T>(of: &BTreeSet<T>, uuid: impl Fn(&T) -> Uuid) -> Vec<Uuid> {
    of.iter().map(uuid).collect()
}

/// A row as it is stored and as it shall be.
pub(super) struct Pair<T> {
    pub(super) stored: Option<T>,
    pub(super) wanted: Option<T>,
}

impl<T> Default for Pair<T> {
    fn default() -> Self {
        Self { stored: None, wanted: None }
    }
}

impl<T: Clone> Pair<T> {
    pub(super) fn of(stored: T) -> Self {
        Self { wanted: Some(stored.clone()), stored: Some(stored) }
    }
}

/// Rows in memory, within one transaction.
pub(super) struct WorkingSet {
    pub(super) tickets: HashMap<TicketId, Pair<Ticket>>,
    pub(super) permits: HashMap<PermitId, Pair<Permit>>,
    pub(super) jobs: HashMap<JobId, Pair<JobRow>>,
    pub(super) requests: HashMap<RequestName, Pair<IdempotentRequest>>,
    pub(super) enrolments: HashMap<EnrolmentId, Pair<Enrolment>>,
    pub(super) callers: callers::Rows,
    pub(super) contents: HashMap<(TicketId, ContentPart), Option<Arc<[u8]>>>,
    pub(super) words: HashMap<PermitId, Option<String>>,
    pub(super) accounts: Accounts,
    /// New jobs in the order in which they were accepted.
    pub(super) accepted: Vec<JobId>,
    pub(super) head: AuditHead,
    pub(super) records: Vec<SealedRecord>,
    tickets_of: HashMap<CallerId, usize>,
    queued_for: HashMap<TokenIdentity, usize>,
    waiting_of: HashMap<CallerId, usize>,
    live_of: HashMap<CallerId, usize>,
}

impl WorkingSet {
    pub(super) fn new(head: AuditHead) -> Self {
        Self {
            tickets: HashMap::new(),
            permits: HashMap::new(),
            jobs: HashMap::new(),
            requests: HashMap::new(),
            enrolments: HashMap::new(),
            callers: HashMap::new(),
            contents: HashMap::new(),
            words: HashMap::new(),
            accounts: Accounts::default(),
            accepted: Vec::new(),
            head,
            records: Vec::new(),
            tickets_of: HashMap::new(),
            queued_for: HashMap::new(),
            waiting_of: HashMap::new(),
            live_of: HashMap::new(),
        }
    }

    /// Takes the answers to [`Wanted::reads`].
    pub(super) fn fill(&mut self, wanted: &Wanted, answers: &[Answer]) -> Result<(), StoreError> {
        let [tickets, jobs, permits, requests, ticket_counts, queue_counts, rest @ ..] = answers else {
            return Err(StoreError::Unavailable("the database did not answer as it was asked".to_owned()));
        };
        for row in &tickets.rows {
            let ticket = row::ticket(row)?;
            self.tickets.insert(ticket.id, Pair::of(ticket));
        }
        for row in &jobs.rows {
            let job = row::job(row)?;
            self.jobs.insert(job.job.id, Pair::of(job));
        }
        for row in &permits.rows {
            let permit = row::permit(row)?;
            self.permits.insert(permit.id, Pair::of(permit));
        }
        for row in &requests.rows {
            let name = (name(row::column(row, 0)?)?, name(row::column(row, 1)?)?);
            let request = request_of(&name.0, &name.1, row::column(row, 2)?, row::column(row, 3)?)?;
            self.requests.insert(name, Pair::of(request));
        }
        let (enrolments, rest) = rest.split_at(if wanted.enrolments.is_empty() { 0 } else { rest.len().min(1) });
        for row in enrolments.iter().flat_map(|answer| &answer.rows) {
            let enrolment = enrolment_of(row::column(row, 0)?)?;
            self.enrolments.insert(enrolment.id, Pair::of(enrolment));
        }
        // What permits there are was asked with two statements or none, accounts likewise, callers with one or none.
        let (permit_counts, rest) = rest.split_at(if wanted.askers.is_empty() { 0 } else { rest.len().min(2) });
        let (accounts, callers) = rest.split_at(rest.len() - rest.len() % 2);
        if let Some(callers) = callers.first() {
            self.callers = callers::locked(callers)?;
        }
        for row in &ticket_counts.rows {
            self.tickets_of.insert(name(row::column(row, 0)?)?, row::number(row, 1)?);
        }
        for row in &queue_counts.rows {
            self.queued_for.insert(token_of(row::column(row, 0)?)?, row::number(row, 1)?);
        }
        for (answer, counts) in permit_counts.iter().zip([&mut self.waiting_of, &mut self.live_of]) {
            for row in &answer.rows {
                counts.insert(name(row::column(row, 0)?)?, row::number(row, 1)?);
            }
        }
        self.accounts.fill(accounts)
    }

    /// Notes that a ticket was used, if it is there.
    pub(super) fn touch(&mut self, id: TicketId, now: Timestamp) {
        if let Some(ticket) = self.tickets.get_mut(&id).and_then(|pair| pair.wanted.as_mut()) {
            ticket.touched = ticket.touched.max(now);
        }
    }

    /// A ticket as it shall be.
    pub(super) fn wanted_ticket(&self, id: TicketId) -> Option<&Ticket> {
        self.tickets.get(&id)?.wanted.as_ref()
    }

    /// A job as it shall be.
    pub(super) fn wanted_job(&self, id: JobId) -> Option<&JobRow> {
        self.jobs.get(&id)?.wanted.as_ref()
    }
}

fn name<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, StoreError> {
    text.parse().map_err(|error| crate::store::columns::unreadable("a name", error))
}

/// Counts one down and another one up, where they differ.
fn recount<K: Eq + Hash>(counts: &mut HashMap<K, usize>, old: Option<K>, new: Option<K>) {
    if old == new {
        return;
    }
    if let Some(count) = old.and_then(|old| counts.get_mut(&old)) {
        *count = count.saturating_sub(1);
    }
    if let Some(new) = new {
        *counts.entry(new).or_default() += 1;
    }
}

fn queue_of(row: Option<&JobRow>) -> Option<TokenIdentity> {
    row.filter(|row| row.job.state == JobState::Queued).map(|row| row.job.key.token.clone())
}

fn is_waiting(permit: &Permit) -> bool {
    permit.state == PermitState::Asked
}

/// What ends within this transaction counts as live.
fn is_live(permit: &Permit) -> bool {
    permit.is_live(Timestamp::from_millis(0))
}

impl Rows for WorkingSet {
    fn ticket(&mut self, id: TicketId) -> Result<Option<Ticket>, StoreError> {
        Ok(self.wanted_ticket(id).cloned())
    }

    fn put_ticket(&mut self, id: TicketId, row: Option<Ticket>) -> Result<(), StoreError> {
        let pair = self.tickets.entry(id).or_default();
        let new = row.as_ref().map(|ticket| ticket.caller.clone());
        let old = std::mem::replace(&mut pair.wanted, row).map(|ticket| ticket.caller);
        recount(&mut self.tickets_of, old, new);
        Ok(())
    }

    fn permit(&mut self, id: PermitId) -> Result<Option<Permit>, StoreError> {
        Ok(self.permits.get(&id).and_then(|pair| pair.wanted.clone()))
    }

    fn put_permit(&mut self, id: PermitId, row: Option<Permit>) -> Result<(), StoreError> {
        let of = |row: &Option<Permit>, fits: fn(&Permit) -> bool| {
            row.as_ref().filter(|permit| fits(permit)).map(|permit| permit.caller.clone())
        };
        let (waiting, live) = (of(&row, is_waiting), of(&row, is_live));
        let old = std::mem::replace(&mut self.permits.entry(id).or_default().wanted, row);
        recount(&mut self.waiting_of, of(&old, is_waiting), waiting);
        recount(&mut self.live_of, of(&old, is_live), live);
        Ok(())
    }

    fn job(&mut self, id: JobId) -> Result<Option<JobRow>, StoreError> {
        Ok(self.wanted_job(id).cloned())
    }

    fn put_job(&mut self, id: JobId, row: Option<JobRow>) -> Result<(), StoreError> {
        let pair = self.jobs.entry(id).or_default();
        if pair.stored.is_none() && pair.wanted.is_none() {
            self.accepted.push(id);
        }
        let new = queue_of(row.as_ref());
        let old = std::mem::replace(&mut pair.wanted, row);
        if pair.wanted.is_none() {
            self.accepted.retain(|accepted| *accepted != id);
        }
        recount(&mut self.queued_for, queue_of(old.as_ref()), new);
        Ok(())
    }

    fn idempotent(&mut self, caller: &CallerId, key: &IdempotencyKey) -> Result<Option<IdempotentRequest>, StoreError> {
        Ok(self.requests.get(&(caller.clone(), key.clone())).and_then(|pair| pair.wanted.clone()))
    }

    fn put_idempotent(&mut self, caller: &CallerId, key: &IdempotencyKey, row: Option<IdempotentRequest>) -> Result<(), StoreError> {
        self.requests.entry((caller.clone(), key.clone())).or_default().wanted = row;
        Ok(())
    }

    fn enrolment(&mut self, id: EnrolmentId) -> Result<Option<Enrolment>, StoreError> {
        Ok(self.enrolments.get(&id).and_then(|pair| pair.wanted.clone()))
    }

    fn put_enrolment(&mut self, id: EnrolmentId, row: Option<Enrolment>) -> Result<(), StoreError> {
        self.enrolments.entry(id).or_default().wanted = row;
        Ok(())
    }

    fn active_enrolment(&mut self, key: &KeyName) -> Result<Option<EnrolmentId>, StoreError> {
        let mut wanted = self.enrolments.values().filter_map(|pair| pair.wanted.as_ref());
        Ok(wanted.find(|enrolment| enrolment.active && enrolment.key_name == *key).map(|enrolment| enrolment.id))
    }

    fn caller(&mut self, id: &CallerId) -> Result<Option<StoredCaller>, StoreError> {
        Ok(self.callers.get(id).and_then(|pair| pair.wanted.clone()))
    }

    fn put_caller(&mut self, id: &CallerId, row: Option<StoredCaller>) -> Result<(), StoreError> {
        self.callers.entry(id.clone()).or_default().wanted = row;
        Ok(())
    }

    fn operator(&mut self, name: &OperatorName) -> Result<Option<OperatorAccount>, StoreError> {
        Ok(self.accounts.operators.get(name).and_then(|pair| pair.wanted.clone()))
    }

    fn put_operator(&mut self, name: &OperatorName, row: Option<OperatorAccount>) -> Result<(), StoreError> {
        self.accounts.operators.entry(name.clone()).or_default().wanted = row;
        Ok(())
    }

    fn session(&mut self, id: SessionId) -> Result<Option<OperatorSession>, StoreError> {
        Ok(self.accounts.sessions.get(&id).and_then(|pair| pair.wanted.clone()))
    }

    fn put_session(&mut self, id: SessionId, row: Option<OperatorSession>) -> Result<(), StoreError> {
        self.accounts.sessions.entry(id).or_default().wanted = row;
        Ok(())
    }

    fn count_tickets(&mut self, caller: &CallerId) -> Result<usize, StoreError> {
        Ok(self.tickets_of.get(caller).copied().unwrap_or(0))
    }

    fn count_queued(&mut self, token: &TokenIdentity) -> Result<usize, StoreError> {
        Ok(self.queued_for.get(token).copied().unwrap_or(0))
    }

    fn count_waiting(&mut self, caller: &CallerId) -> Result<usize, StoreError> {
        Ok(self.waiting_of.get(caller).copied().unwrap_or(0))
    }

    fn count_live(&mut self, caller: &CallerId, _now: Timestamp) -> Result<usize, StoreError> {
        Ok(self.live_of.get(caller).copied().unwrap_or(0))
    }

    fn put_words(&mut self, permit: PermitId, words: Option<String>) -> Result<(), StoreError> {
        self.words.insert(permit, words);
        Ok(())
    }

    fn put_content(&mut self, ticket: TicketId, part: ContentPart, bytes: Option<Arc<[u8]>>) -> Result<(), StoreError> {
        self.contents.insert((ticket, part), bytes);
        Ok(())
    }

    fn append_audit(&mut self, now: Timestamp, events: Vec<AuditEvent>) -> Result<(), StoreError> {
        let head = &mut self.head;
        self.records.extend(events.into_iter().map(|event| head.append(now, event)));
        Ok(())
    }
}
