//! The tables of the store in memory, with their indexes.
//!
//! Invariant: rows change only through the `put_*` functions, which keep every index true; so nothing else has to know what an index is for.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use super::{accounts::Accounts, enrolments::Enrolments, queue::TokenQueue};
use crate::{
    domain::{
        audit::{AuditEvent, AuditHead, SealedRecord},
        enrolment::Enrolment,
        idempotency::IdempotentRequest,
        ids::{CallerId, ClaimId, EnrolmentId, GatewayId, IdempotencyKey, JobId, KeyName, OperatorName, PermitId, TicketId},
        job::{FailureCause, JobOutcome, JobState, QueueLength, SigningJob},
        operator::{OperatorAccount, OperatorSession, SessionId},
        permit::{Permit, PermitState},
        stored_caller::StoredCaller,
        ticket::{Content, ContentPart, ContentPlace, Ticket},
        timestamp::Timestamp,
        token::TokenIdentity,
    },
    store::{
        Change, ContentUsage, JobFilter, StoreError,
        rows::{JobRow, Moved, Rows, commit},
    },
};

type RequestName = (CallerId, IdempotencyKey);

pub(super) struct Tables {
    tickets: HashMap<TicketId, Ticket>,
    tickets_by_use: BTreeSet<(Timestamp, TicketId)>,
    tickets_of: HashMap<CallerId, usize>,
    contents: HashMap<(TicketId, ContentPart), Arc<[u8]>>,
    /// How many tickets refer to a job.
    referred: HashMap<JobId, usize>,
    permits: HashMap<PermitId, Permit>,
    permits_by_end: BTreeSet<(Timestamp, PermitId)>,
    words: HashMap<PermitId, String>,
    jobs: HashMap<JobId, Placed>,
    jobs_by_end: BTreeSet<(Timestamp, JobId)>,
    queues: HashMap<TokenIdentity, TokenQueue>,
    queued_by_deadline: BTreeSet<(Timestamp, JobId)>,
    accepted_count: u64,
    requests: HashMap<RequestName, IdempotentRequest>,
    requests_by_end: BTreeSet<(Timestamp, RequestName)>,
    pub(super) enrolments: Enrolments,
    callers: BTreeMap<CallerId, StoredCaller>,
    pub(super) accounts: Accounts,
    audit: Vec<SealedRecord>,
    audit_head: AuditHead,
}

/// A job and its place in the order in which jobs were accepted.
struct Placed {
    row: JobRow,
    order: u64,
}

impl Default for Tables {
    fn default() -> Self {
        Self {
            tickets: HashMap::default(),
            tickets_by_use: BTreeSet::default(),
            tickets_of: HashMap::default(),
            contents: HashMap::default(),
            referred: HashMap::default(),
            permits: HashMap::default(),
            permits_by_end: BTreeSet::default(),
            words: HashMap::default(),
            jobs: HashMap::default(),
            jobs_by_end: BTreeSet::default(),
            queues: HashMap::default(),
            queued_by_deadline: BTreeSet::default(),
            accepted_count: 0,
            requests: HashMap::default(),
            requests_by_end: BTreeSet::default(),
            enrolments: Enrolments::default(),
            callers: BTreeMap::default(),
            accounts: Accounts::default(),
            audit: Vec::new(),
            audit_head: AuditHead::empty(GatewayId::random()),
        }
    }
}

impl Tables {
    pub(super) fn ticket(&self, id: TicketId) -> Option<&Ticket> {
        self.tickets.get(&id)
    }

    pub(super) fn permit(&self, id: PermitId) -> Option<&Permit> {
        self.permits.get(&id)
    }

    pub(super) fn live_permits(&self, now: Timestamp, limit: usize) -> Vec<Permit> {
        let by_end = self.permits_by_end.iter().filter_map(|(_, id)| self.permits.get(id));
        by_end.filter(|permit| permit.is_live(now)).take(limit).cloned().collect()
    }

    pub(super) fn waiting_permits(&self, limit: usize) -> Vec<Permit> {
        // What waits has its time to be decided as its end.
        let by_end = self.permits_by_end.iter().filter_map(|(_, id)| self.permits.get(id));
        by_end.filter(|permit| permit.state == PermitState::Asked).take(limit).cloned().collect()
    }

    pub(super) fn words(&self, permit: PermitId) -> Option<String> {
        self.words.get(&permit).cloned()
    }

    pub(super) fn job(&self, id: JobId) -> Option<&SigningJob> {
        self.jobs.get(&id).map(|placed| &placed.row.job)
    }

    pub(super) fn tickets_of(&self, caller: &CallerId) -> usize {
        self.tickets_of.get(caller).copied().unwrap_or(0)
    }

    pub(super) fn queued_for(&self, token: &TokenIdentity) -> usize {
        self.queues.get(token).map_or(0, TokenQueue::len)
    }

    pub(super) fn content(&self, ticket: TicketId, part: ContentPart) -> Option<Arc<[u8]>> {
        self.contents.get(&(ticket, part)).cloned()
    }

    pub(super) fn content_usage(&self) -> ContentUsage {
        let mut usage = ContentUsage::default();
        for content in self.tickets.values().flat_map(Ticket::contents) {
            match content.place {
                ContentPlace::Stored => usage.stored += content.len,
                ContentPlace::Spooled(_) => usage.spooled += content.len,
            }
        }
        usage
    }

    pub(super) fn spooled_files(&self) -> Vec<String> {
        let name = |content: &Content| if let ContentPlace::Spooled(name) = &content.place { Some(name.clone()) } else { None };
        self.tickets.values().flat_map(Ticket::contents).filter_map(name).collect()
    }

    pub(super) fn list_jobs(&self, filter: &JobFilter, limit: usize) -> Vec<SigningJob> {
        let end = filter.before.map_or(u64::MAX, |before| self.jobs.get(&before).map_or(0, |placed| placed.order));
        let fits = |job: &SigningJob| {
            filter.state.is_none_or(|state| job.state == state) && filter.caller.as_ref().is_none_or(|caller| job.caller == *caller)
        };
        let mut found: Vec<_> = self.jobs.values().filter(|placed| placed.order < end && fits(&placed.row.job)).collect();
        found.sort_unstable_by_key(|placed| std::cmp::Reverse(placed.order));
        found.into_iter().take(limit).map(|placed| placed.row.job.clone()).collect()
    }

    pub(super) fn request(&self, caller: &CallerId, key: &IdempotencyKey) -> Option<IdempotentRequest> {
        self.requests.get(&(caller.clone(), key.clone())).cloned()
    }

    pub(super) fn caller(&self, id: &CallerId) -> Option<StoredCaller> {
        self.callers.get(id).cloned()
    }

    pub(super) fn callers(&self) -> Vec<StoredCaller> {
        self.callers.values().cloned().collect()
    }

    pub(super) fn queues(&self) -> Vec<QueueLength> {
        let length = |(token, queue): (&TokenIdentity, &TokenQueue)| {
            let oldest = queue.jobs().filter_map(|job| self.job(job)).map(|job| job.accepted).min()?;
            Some(QueueLength { token: token.clone(), queued: queue.len(), oldest })
        };
        self.queues.iter().filter_map(length).collect()
    }

    pub(super) const fn audit_head(&self) -> AuditHead {
        self.audit_head
    }

    pub(super) fn audit_records(&self, gateway: GatewayId, from: u64, limit: usize) -> Vec<SealedRecord> {
        let own = gateway == self.audit_head.gateway;
        let skipped = usize::try_from(from.saturating_sub(1)).unwrap_or(usize::MAX);
        self.audit.iter().filter(|_| own).skip(skipped).take(limit).cloned().collect()
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
            let job = self.tickets.get(id).and_then(|ticket| ticket.signing.as_ref()).and_then(|signing| Self::job(self, signing.job));
            job.is_none_or(|job| job.state.is_final())
        };
        let removed: Vec<_> = idle.filter(done).take(limit).collect();
        for id in &removed {
            for part in ContentPart::ALL {
                self.contents.remove(&(*id, part));
            }
        }
        removed.into_iter().filter_map(|id| self.replace_ticket(id, None)).collect()
    }

    pub(super) fn claim_jobs(&mut self, token: &TokenIdentity, limit: usize, now: Timestamp) -> Vec<SigningJob> {
        let claim = ClaimId::random();
        let mut claimed = Vec::new();
        while claimed.len() < limit {
            let (jobs, queue) = (&self.jobs, self.queues.get_mut(token));
            let in_time = |id| jobs.get(&id).is_some_and(|placed| placed.row.job.deadline > now);
            let Some(mut row) = queue.and_then(|queue| queue.next(in_time)).and_then(|id| jobs.get(&id)).map(|placed| placed.row.clone())
            else {
                break;
            };
            row.job.state = JobState::Signing;
            row.job.claim = Some(claim);
            claimed.push(row.job.clone());
            self.replace_job(row.job.id, Some(row));
        }
        claimed
    }

    pub(super) fn expire_jobs(&mut self, now: Timestamp) -> Result<Vec<Moved>, StoreError> {
        let late: Vec<_> = self.queued_by_deadline.iter().take_while(|(deadline, _)| *deadline <= now).map(|(_, id)| *id).collect();
        let end = |job| Change::EndJob { job, claim: None, outcome: JobOutcome::not_signed(FailureCause::DeadlinePassed, "") };
        commit(self, late.into_iter().map(end).collect(), now)
    }

    pub(super) fn forget_ended(&mut self, before: Timestamp, limit: usize) -> usize {
        let ended = self.jobs_by_end.iter().take_while(|(ended, _)| *ended < before).map(|(_, id)| *id);
        let jobs: Vec<_> = ended.filter(|id| !self.referred.contains_key(id)).take(limit).collect();
        let expired = self.permits_by_end.iter().take_while(|(end, _)| *end < before).map(|(_, id)| *id);
        let unused = |id: &PermitId| self.permits.get(id).is_none_or(|permit| permit.reserved == 0 && permit.state != PermitState::Asked);
        let permits: Vec<_> = expired.filter(unused).take(limit - jobs.len()).collect();
        let over = self.requests_by_end.iter().take_while(|(end, _)| *end < before).map(|(_, name)| name.clone());
        let requests: Vec<_> = over.take(limit - jobs.len() - permits.len()).collect();
        let forgotten = jobs.len() + permits.len() + requests.len();
        jobs.into_iter().for_each(|id| self.replace_job(id, None));
        permits.into_iter().for_each(|id| self.replace_permit(id, None));
        requests.into_iter().for_each(|name| self.replace_request(name, None));
        forgotten + self.accounts.forget(before, limit - forgotten)
    }

    fn replace_ticket(&mut self, id: TicketId, row: Option<Ticket>) -> Option<Ticket> {
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

    fn replace_permit(&mut self, id: PermitId, row: Option<Permit>) {
        if let Some(old) = self.permits.remove(&id) {
            self.permits_by_end.remove(&(old.expires, id));
        }
        if let Some(row) = row {
            self.permits_by_end.insert((row.expires, id));
            self.permits.insert(id, row);
        }
    }

    fn replace_job(&mut self, id: JobId, row: Option<JobRow>) {
        let old = self.jobs.remove(&id);
        if let Some(old) = &old {
            self.unindex_job(old);
        }
        if let Some(row) = row {
            let order = old.map_or_else(|| self.next_place(), |old| old.order);
            let placed = Placed { row, order };
            self.index_job(&placed);
            self.jobs.insert(id, placed);
        }
    }

    fn replace_request(&mut self, name: RequestName, row: Option<IdempotentRequest>) {
        if let Some(old) = self.requests.remove(&name) {
            self.requests_by_end.remove(&(old.expires, name.clone()));
        }
        if let Some(row) = row {
            self.requests_by_end.insert((row.expires, name.clone()));
            self.requests.insert(name, row);
        }
    }

    fn next_place(&mut self) -> u64 {
        self.accepted_count += 1;
        self.accepted_count
    }

    fn index_job(&mut self, Placed { row: JobRow { job, ended }, order }: &Placed) {
        if let Some(ended) = ended {
            self.jobs_by_end.insert((*ended, job.id));
        }
        if job.state == JobState::Queued {
            self.queues.entry(job.key.token.clone()).or_default().insert(&job.caller, *order, job.id);
            self.queued_by_deadline.insert((job.deadline, job.id));
        }
    }

    fn unindex_job(&mut self, Placed { row: JobRow { job, ended }, order }: &Placed) {
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

impl Rows for Tables {
    fn ticket(&mut self, id: TicketId) -> Result<Option<Ticket>, StoreError> {
        Ok(self.tickets.get(&id).cloned())
    }

    fn put_ticket(&mut self, id: TicketId, row: Option<Ticket>) -> Result<(), StoreError> {
        self.replace_ticket(id, row);
        Ok(())
    }

    fn permit(&mut self, id: PermitId) -> Result<Option<Permit>, StoreError> {
        Ok(self.permits.get(&id).cloned())
    }

    fn put_permit(&mut self, id: PermitId, row: Option<Permit>) -> Result<(), StoreError> {
        self.replace_permit(id, row);
        Ok(())
    }

    fn job(&mut self, id: JobId) -> Result<Option<JobRow>, StoreError> {
        Ok(self.jobs.get(&id).map(|placed| placed.row.clone()))
    }

    fn put_job(&mut self, id: JobId, row: Option<JobRow>) -> Result<(), StoreError> {
        self.replace_job(id, row);
        Ok(())
    }

    fn idempotent(&mut self, caller: &CallerId, key: &IdempotencyKey) -> Result<Option<IdempotentRequest>, StoreError> {
        Ok(self.request(caller, key))
    }

    fn put_idempotent(&mut self, caller: &CallerId, key: &IdempotencyKey, row: Option<IdempotentRequest>) -> Result<(), StoreError> {
        self.replace_request((caller.clone(), key.clone()), row);
        Ok(())
    }

    fn enrolment(&mut self, id: EnrolmentId) -> Result<Option<Enrolment>, StoreError> {
        Ok(self.enrolments.find(id).cloned())
    }

    fn put_enrolment(&mut self, id: EnrolmentId, row: Option<Enrolment>) -> Result<(), StoreError> {
        self.enrolments.replace(id, row);
        Ok(())
    }

    fn active_enrolment(&mut self, key: &KeyName) -> Result<Option<EnrolmentId>, StoreError> {
        Ok(self.enrolments.active(key))
    }

    fn caller(&mut self, id: &CallerId) -> Result<Option<StoredCaller>, StoreError> {
        Ok(Self::caller(self, id))
    }

    fn put_caller(&mut self, id: &CallerId, row: Option<StoredCaller>) -> Result<(), StoreError> {
        match row {
            Some(row) => drop(self.callers.insert(id.clone(), row)),
            None => drop(self.callers.remove(id)),
        }
        Ok(())
    }

    fn operator(&mut self, name: &OperatorName) -> Result<Option<OperatorAccount>, StoreError> {
        Ok(self.accounts.operator(name))
    }

    fn put_operator(&mut self, name: &OperatorName, row: Option<OperatorAccount>) -> Result<(), StoreError> {
        self.accounts.put_operator(name, row);
        Ok(())
    }

    fn session(&mut self, id: SessionId) -> Result<Option<OperatorSession>, StoreError> {
        Ok(self.accounts.session(id))
    }

    fn put_session(&mut self, id: SessionId, row: Option<OperatorSession>) -> Result<(), StoreError> {
        self.accounts.put_session(id, row);
        Ok(())
    }

    fn count_tickets(&mut self, caller: &CallerId) -> Result<usize, StoreError> {
        Ok(self.tickets_of(caller))
    }

    fn count_queued(&mut self, token: &TokenIdentity) -> Result<usize, StoreError> {
        Ok(self.queued_for(token))
    }

    fn count_waiting(&mut self, caller: &CallerId) -> Result<usize, StoreError> {
        Ok(self.permits.values().filter(|permit| permit.state == PermitState::Asked && permit.caller == *caller).count())
    }

    fn count_live(&mut self, caller: &CallerId, now: Timestamp) -> Result<usize, StoreError> {
        Ok(self.permits.values().filter(|permit| permit.is_live(now) && permit.caller == *caller).count())
    }

    fn put_words(&mut self, permit: PermitId, words: Option<String>) -> Result<(), StoreError> {
        match words {
            Some(words) => drop(self.words.insert(permit, words)),
            None => drop(self.words.remove(&permit)),
        }
        Ok(())
    }

    fn put_content(&mut self, ticket: TicketId, part: ContentPart, bytes: Option<Arc<[u8]>>) -> Result<(), StoreError> {
        match bytes {
            Some(bytes) => drop(self.contents.insert((ticket, part), bytes)),
            None => drop(self.contents.remove(&(ticket, part))),
        }
        Ok(())
    }

    fn append_audit(&mut self, now: Timestamp, events: Vec<AuditEvent>) -> Result<(), StoreError> {
        let head = &mut self.audit_head;
        self.audit.extend(events.into_iter().map(|event| head.append(now, event)));
        Ok(())
    }
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
