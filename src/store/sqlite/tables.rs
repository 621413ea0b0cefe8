//! The rows of the writer's transaction: what it changes, and what the writer knows without asking.

use std::{collections::HashMap, sync::Arc};

use rusqlite::{Connection, ToSql, named_params, params};
use uuid::Uuid;

use super::{
    accounts, enrolments,
    queries::{self, Forgettable, JOB, TICKET, all, job_read, read_ticket, ticket_columns, uuid},
    recent::{Recent, Seen},
};
use crate::{
    domain::{
        audit::{AuditEvent, AuditHead},
        enrolment::Enrolment,
        idempotency::IdempotentRequest,
        ids::{CallerId, ClaimId, EnrolmentId, GatewayId, IdempotencyKey, JobId, KeyName, OperatorName, PermitId, TicketId},
        job::{FailureCause, JobOutcome, JobState, SigningJob},
        operator::{OperatorAccount, OperatorSession, SessionId},
        permit::Permit,
        stored_caller::StoredCaller,
        ticket::{ContentPart, Ticket},
        timestamp::Timestamp,
        token::TokenIdentity,
    },
    store::{
        Change, StoreError,
        columns::{JobColumns, JobRead, PermitColumns, TicketColumns, count, millis, outcome_text, request_text, state_text, token_text},
        rows::{JobRow, Moved, Rows, commit},
    },
};

/// The most jobs that expire in one transaction.
const EXPIRE_MAX: usize = 1_000;

/// What stands before a document in its row: see the migration. No page holds more of a row.
const PAD_LEN: u32 = 1024;

/// What the writer knows without asking.
pub(super) struct Memory {
    gateway: GatewayId,
    /// The end of the audit log; `None` when it has to be read again.
    head: Option<AuditHead>,
    /// For each token, the caller that was served last.
    served: HashMap<TokenIdentity, CallerId>,
    /// Tokens that a job was queued for since somebody looked.
    pub(super) stirred: Vec<TokenIdentity>,
    /// Something was deleted whose bytes may still stand in the write-ahead log.
    pub(super) deleted: bool,
}

impl Memory {
    pub(super) fn load(connection: &Connection, gateway: GatewayId) -> Result<Self, StoreError> {
        let head = Some(queries::audit_head(connection, gateway)?);
        // What an earlier run deleted may be there still.
        Ok(Self { gateway, head, served: HashMap::new(), stirred: Vec::new(), deleted: true })
    }

    /// Forgets what a transaction that was not committed has told.
    pub(super) fn forget(&mut self) {
        self.head = None;
    }

    pub(super) fn refresh(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        if self.head.is_none() {
            self.head = Some(queries::audit_head(connection, self.gateway).map_err(|_| rusqlite::Error::InvalidQuery)?);
        }
        Ok(())
    }
}

/// The rows of the writer's transaction.
pub(super) struct Tables<'a> {
    pub(super) connection: &'a Connection,
    memory: &'a mut Memory,
    recent: &'a Recent,
    seen: Seen,
    /// The database failed: the transaction must not be committed.
    failure: Option<rusqlite::Error>,
}

impl<'a> Tables<'a> {
    pub(super) fn new(connection: &'a Connection, memory: &'a mut Memory, recent: &'a Recent) -> Self {
        Self { connection, memory, recent, seen: Seen::default(), failure: None }
    }

    /// The rows as the transaction leaves them.
    pub(super) fn into_seen(self) -> Seen {
        self.seen
    }

    /// Whether the transaction may be committed.
    pub(super) fn check(&mut self) -> rusqlite::Result<()> {
        self.failure.take().map_or(Ok(()), Err)
    }

    /// The tokens that a job was queued for since this was asked last.
    pub(super) fn take_stirred(&mut self) -> Vec<TokenIdentity> {
        std::mem::take(&mut self.memory.stirred)
    }

    /// Writes something, and changes nothing.
    pub(super) fn prove_writable(&mut self) -> Result<(), StoreError> {
        let version = self.connection.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0));
        let written = version.and_then(|version| self.connection.pragma_update(None, "user_version", version));
        written.map_err(|error| self.fail(error))
    }

    /// Notes that the database failed.
    fn fail(&mut self, error: rusqlite::Error) -> StoreError {
        let told = StoreError::Unavailable(error.to_string());
        self.failure.get_or_insert(error);
        told
    }

    pub(super) fn run(&mut self, sql: &str, params: &[(&str, &dyn ToSql)]) -> Result<usize, StoreError> {
        #[cfg(test)]
        super::plans::note(self.connection, sql);
        let done = self.connection.prepare_cached(sql).and_then(|mut statement| statement.execute(params));
        done.map_err(|error| self.fail(error))
    }

    /// Changes a job of which nothing changes but what becomes of it.
    fn move_job(&mut self, row: JobRow) -> Result<(), StoreError> {
        let sql = "UPDATE jobs SET state = :state, claim = :claim, ended = :ended, outcome = :outcome WHERE id = :id";
        let (id, claim) = (row.job.id.as_uuid(), row.job.claim.map(|claim| claim.as_uuid()));
        let params = named_params! {
            ":id": id.as_bytes(), ":state": state_text(row.job.state), ":claim": claim.as_ref().map(Uuid::as_bytes),
            ":ended": row.ended.map(millis), ":outcome": outcome_text(row.job.outcome.as_ref())?,
        };
        self.run(sql, params)?;
        self.seen.jobs.insert(row.job.id, Some(row));
        Ok(())
    }

    /// Keeps a ticket's metadata, which is a document too, apart from its row.
    fn put_metadata(&mut self, ticket: TicketId, text: Option<String>) -> Result<(), StoreError> {
        let ticket = *ticket.as_uuid().as_bytes();
        let changed = match text {
            Some(text) => {
                let sql = "INSERT INTO metadata (ticket, pad, text) VALUES (:ticket, zeroblob(:pad), :text)
                     ON CONFLICT (ticket) DO UPDATE SET text = :text WHERE text <> :text";
                self.run(sql, named_params! { ":ticket": ticket, ":pad": PAD_LEN, ":text": text })?
            }
            None => self.run("DELETE FROM metadata WHERE ticket = :ticket", named_params! { ":ticket": ticket })?,
        };
        self.memory.deleted |= changed > 0;
        Ok(())
    }

    pub(super) fn touch_ticket(&mut self, id: TicketId, now: Timestamp) -> Result<(), StoreError> {
        if let Some(ticket) = self.ticket(id)?
            && ticket.touched < now
        {
            let sql = "UPDATE tickets SET touched = :now WHERE id = :id";
            self.run(sql, named_params! { ":id": id.as_uuid().as_bytes(), ":now": millis(now) })?;
            self.seen.tickets.insert(id, Some(Ticket { touched: now, ..ticket }));
        }
        Ok(())
    }

    pub(super) fn remove_idle_tickets(&mut self, idle_since: Timestamp, limit: usize) -> Result<Vec<Ticket>, StoreError> {
        let sql = format!(
            "{TICKET} WHERE touched < ?1 AND NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.id = tickets.job AND jobs.ended IS NULL) \
             ORDER BY touched LIMIT ?2"
        );
        let idle = all(self.connection, &sql, params![millis(idle_since), count(limit as u64)], ticket_columns)?;
        let idle = idle.into_iter().map(read_ticket).collect::<Result<Vec<_>, _>>()?;
        for ticket in &idle {
            self.seen.tickets.insert(ticket.id, Some(ticket.clone()));
            self.put_ticket(ticket.id, None)?;
            ContentPart::ALL.into_iter().try_for_each(|part| self.put_content(ticket.id, part, None))?;
        }
        Ok(idle)
    }

    pub(super) fn claim_jobs(&mut self, token: &TokenIdentity, limit: usize, now: Timestamp) -> Result<Vec<SigningJob>, StoreError> {
        // Callers take turns, beginning after the one that was served last.
        let sql = format!(
            "WITH next AS (
                SELECT id AS next_id, caller AS next_caller, row_number() OVER (PARTITION BY caller ORDER BY seq) AS turn
                FROM jobs WHERE token = ?1 AND state = 'queued' AND deadline > ?2
                ORDER BY turn, next_caller <= ?3, next_caller LIMIT ?4)
             {JOB} JOIN next ON jobs.id = next_id ORDER BY turn, next_caller <= ?3, next_caller"
        );
        let served = self.memory.served.get(token).map_or("", CallerId::as_str);
        let rows = all(self.connection, &sql, params![token_text(token)?, millis(now), served, count(limit as u64)], job_read)?;
        // All are read before any is changed: one that cannot be read leaves the others where they are.
        let rows = rows.into_iter().map(JobRead::into_row).collect::<Result<Vec<_>, _>>()?;
        let claim = ClaimId::random();
        let mut claimed = Vec::with_capacity(rows.len());
        for mut row in rows {
            self.seen.jobs.insert(row.job.id, Some(row.clone()));
            row.job.state = JobState::Signing;
            row.job.claim = Some(claim);
            claimed.push(row.job.clone());
            self.put_job(row.job.id, Some(row))?;
        }
        if let Some(last) = claimed.last() {
            self.memory.served.insert(token.clone(), last.caller.clone());
        }
        Ok(claimed)
    }

    pub(super) fn expire_jobs(&mut self, now: Timestamp) -> Result<Vec<Moved>, StoreError> {
        let sql = "SELECT id FROM jobs WHERE state = 'queued' AND deadline <= ?1 ORDER BY deadline LIMIT ?2";
        let late = all(self.connection, sql, params![millis(now), count(EXPIRE_MAX as u64)], |row| uuid(row, 0))?;
        let outcome = JobOutcome::not_signed(FailureCause::DeadlinePassed, "");
        let end = |job: Uuid| Change::EndJob { job: job.into(), claim: None, outcome: outcome.clone() };
        commit(self, late.into_iter().map(end).collect(), now)
    }

    /// Forgets what was found to be old, unless it was needed since.
    pub(super) fn forget(&mut self, old: &Forgettable, before: Timestamp) -> Result<usize, StoreError> {
        let (mut forgotten, before) = (0, millis(before));
        let job = "DELETE FROM jobs WHERE id = :id AND ended < :before AND NOT EXISTS (SELECT 1 FROM tickets WHERE tickets.job = :id)";
        let permit = "DELETE FROM permits WHERE id = :id AND expires < :before AND reserved = 0 AND state <> 'asked'";
        for id in &old.jobs {
            let gone = self.run(job, named_params! { ":id": id.as_bytes(), ":before": before })?;
            if gone > 0 {
                self.seen.jobs.insert((*id).into(), None);
            }
            forgotten += gone;
        }
        for id in &old.permits {
            let gone = self.run(permit, named_params! { ":id": id.as_bytes(), ":before": before })?;
            if gone > 0 {
                self.seen.permits.insert((*id).into(), None);
            }
            forgotten += gone;
        }
        let request = "DELETE FROM requests WHERE caller = :caller AND key = :key AND expires < :before";
        for (caller, key) in &old.requests {
            forgotten += self.run(request, named_params! { ":caller": caller, ":key": key, ":before": before })?;
        }
        let session = "DELETE FROM operator_sessions WHERE id = :id AND expires < :before";
        for id in &old.sessions {
            forgotten += self.run(session, named_params! { ":id": id, ":before": before })?;
        }
        Ok(forgotten)
    }
}

impl Rows for Tables<'_> {
    fn ticket(&mut self, id: TicketId) -> Result<Option<Ticket>, StoreError> {
        if let Some(row) = self.seen.tickets.get(&id) {
            return Ok(row.clone());
        }
        let row = self.recent.ticket(id).map_or_else(|| queries::ticket(self.connection, id), |row| Ok(Some(row)))?;
        self.seen.tickets.insert(id, row.clone());
        Ok(row)
    }

    fn put_ticket(&mut self, id: TicketId, mut row: Option<Ticket>) -> Result<(), StoreError> {
        let after = row.clone();
        let metadata = row.as_mut().and_then(|ticket| ticket.metadata.take());
        let columns = row.map(TicketColumns::of).transpose()?;
        let before = self.seen.tickets.insert(id, after);
        let had_none = before.is_some_and(|before| before.is_none_or(|before| before.metadata.is_none()));
        if metadata.is_some() || !had_none {
            self.put_metadata(id, metadata)?;
        }
        let Some(row) = columns else {
            self.memory.deleted = true;
            return self.run("DELETE FROM tickets WHERE id = :id", named_params! { ":id": id.as_uuid().as_bytes() }).map(drop);
        };
        let sql = "INSERT INTO tickets (id, caller, touched, version, job, spooled, content_len, signature_spooled, signature_len, body)
             VALUES (:id, :caller, :touched, :version, :job, :spooled, :content_len, :signature_spooled, :signature_len, :body)
             ON CONFLICT (id) DO UPDATE SET touched = :touched, version = :version, job = :job, spooled = :spooled,
             content_len = :content_len, signature_spooled = :signature_spooled, signature_len = :signature_len, body = :body";
        let params = named_params! {
            ":id": row.id.as_bytes(), ":caller": row.caller, ":touched": row.touched, ":version": row.version,
            ":job": row.job.as_ref().map(Uuid::as_bytes), ":spooled": row.spooled, ":content_len": row.content_len,
            ":signature_spooled": row.signature_spooled, ":signature_len": row.signature_len, ":body": row.body,
        };
        self.run(sql, params).map(drop)
    }

    fn permit(&mut self, id: PermitId) -> Result<Option<Permit>, StoreError> {
        if let Some(row) = self.seen.permits.get(&id) {
            return Ok(row.clone());
        }
        let row = self.recent.permit(id).map_or_else(|| queries::permit(self.connection, id), |row| Ok(Some(row)))?;
        self.seen.permits.insert(id, row.clone());
        Ok(row)
    }

    fn put_permit(&mut self, id: PermitId, row: Option<Permit>) -> Result<(), StoreError> {
        let after = row.clone();
        let columns = row.map(PermitColumns::of).transpose()?;
        self.seen.permits.insert(id, after);
        let Some(row) = columns else {
            return self.run("DELETE FROM permits WHERE id = :id", named_params! { ":id": id.as_uuid().as_bytes() }).map(drop);
        };
        // What the configuration gave does not change but in these: an index would be written for the others.
        let change = if row.body.is_some() { "uses = :uses, expires = :expires, body = :body," } else { "" };
        let sql = format!(
            "INSERT INTO permits (id, caller, uses, reserved, committed, expires, state, body)
             VALUES (:id, :caller, :uses, :reserved, :committed, :expires, :state, :body)
             ON CONFLICT (id) DO UPDATE SET {change} reserved = :reserved, committed = :committed, state = :state"
        );
        let params = named_params! {
            ":id": row.id.as_bytes(), ":caller": row.caller, ":uses": row.uses, ":reserved": row.reserved,
            ":committed": row.committed, ":expires": row.expires, ":state": row.state, ":body": row.body,
        };
        self.run(&sql, params).map(drop)
    }

    fn job(&mut self, id: JobId) -> Result<Option<JobRow>, StoreError> {
        if let Some(row) = self.seen.jobs.get(&id) {
            return Ok(row.clone());
        }
        let row = self.recent.job(id).map_or_else(|| queries::job(self.connection, id), |row| Ok(Some(row)))?;
        self.seen.jobs.insert(id, row.clone());
        Ok(row)
    }

    fn put_job(&mut self, id: JobId, row: Option<JobRow>) -> Result<(), StoreError> {
        let Some(row) = row else {
            self.seen.jobs.insert(id, None);
            return self.run("DELETE FROM jobs WHERE id = :id", named_params! { ":id": id.as_uuid().as_bytes() }).map(drop);
        };
        if row.job.state == JobState::Queued && !self.memory.stirred.contains(&row.job.key.token) {
            self.memory.stirred.push(row.job.key.token.clone());
        }
        if let Some(Some(before)) = self.seen.jobs.get(&id)
            && row.only_moved(before)
        {
            return self.move_job(row);
        }
        let after = row.clone();
        let row = JobColumns::of(row)?;
        self.seen.jobs.insert(id, Some(after));
        let sql = "INSERT INTO jobs (id, caller, token, permit, accepted, deadline, state, claim, ended, body, outcome)
             VALUES (:id, :caller, :token, :permit, :accepted, :deadline, :state, :claim, :ended, :body, :outcome)
             ON CONFLICT (id) DO UPDATE SET accepted = :accepted, deadline = :deadline, state = :state, claim = :claim, ended = :ended, body = :body,
             outcome = :outcome";
        let params = named_params! {
            ":id": row.id.as_bytes(), ":caller": row.caller, ":token": row.token, ":permit": row.permit.as_ref().map(Uuid::as_bytes),
            ":accepted": row.accepted, ":deadline": row.deadline, ":state": row.state, ":claim": row.claim.as_ref().map(Uuid::as_bytes),
            ":ended": row.ended, ":body": row.body, ":outcome": row.outcome,
        };
        self.run(sql, params).map(drop)
    }

    fn idempotent(&mut self, caller: &CallerId, key: &IdempotencyKey) -> Result<Option<IdempotentRequest>, StoreError> {
        queries::request(self.connection, caller, key)
    }

    fn put_idempotent(&mut self, caller: &CallerId, key: &IdempotencyKey, row: Option<IdempotentRequest>) -> Result<(), StoreError> {
        let (caller, key) = (caller.as_str(), key.as_str());
        let Some(row) = row else {
            let sql = "DELETE FROM requests WHERE caller = :caller AND key = :key";
            return self.run(sql, named_params! { ":caller": caller, ":key": key }).map(drop);
        };
        let sql = "INSERT INTO requests (caller, key, done, expires) VALUES (:caller, :key, :done, :expires)";
        let params = named_params! { ":caller": caller, ":key": key, ":done": request_text(&row.done)?, ":expires": millis(row.expires) };
        self.run(sql, params).map(drop)
    }

    fn enrolment(&mut self, id: EnrolmentId) -> Result<Option<Enrolment>, StoreError> {
        enrolments::enrolment(self.connection, id)
    }

    fn put_enrolment(&mut self, id: EnrolmentId, row: Option<Enrolment>) -> Result<(), StoreError> {
        self.write_enrolment(id, row.as_ref())
    }

    fn active_enrolment(&mut self, key: &KeyName) -> Result<Option<EnrolmentId>, StoreError> {
        enrolments::active(self.connection, key)
    }

    fn caller(&mut self, id: &CallerId) -> Result<Option<StoredCaller>, StoreError> {
        super::callers::caller(self.connection, id)
    }

    fn put_caller(&mut self, id: &CallerId, row: Option<StoredCaller>) -> Result<(), StoreError> {
        self.write_caller(id, row)
    }

    fn operator(&mut self, name: &OperatorName) -> Result<Option<OperatorAccount>, StoreError> {
        accounts::operator(self.connection, name)
    }

    fn put_operator(&mut self, name: &OperatorName, row: Option<OperatorAccount>) -> Result<(), StoreError> {
        self.write_operator(name, row)
    }

    fn session(&mut self, id: SessionId) -> Result<Option<OperatorSession>, StoreError> {
        accounts::session(self.connection, id)
    }

    fn put_session(&mut self, id: SessionId, row: Option<OperatorSession>) -> Result<(), StoreError> {
        self.write_session(id, row)
    }

    fn count_tickets(&mut self, caller: &CallerId) -> Result<usize, StoreError> {
        queries::count_tickets(self.connection, caller)
    }

    fn count_queued(&mut self, token: &TokenIdentity) -> Result<usize, StoreError> {
        queries::count_queued(self.connection, token)
    }

    fn count_waiting(&mut self, caller: &CallerId) -> Result<usize, StoreError> {
        queries::count_waiting(self.connection, caller)
    }

    fn count_live(&mut self, caller: &CallerId, now: Timestamp) -> Result<usize, StoreError> {
        queries::count_live(self.connection, caller, now)
    }

    fn put_words(&mut self, permit: PermitId, words: Option<String>) -> Result<(), StoreError> {
        let permit = *permit.as_uuid().as_bytes();
        let changed = match words {
            Some(words) => {
                let sql = "INSERT INTO words (permit, pad, text) VALUES (:permit, zeroblob(:pad), :text)";
                self.run(sql, named_params! { ":permit": permit, ":pad": PAD_LEN, ":text": words })?;
                0
            }
            None => self.run("DELETE FROM words WHERE permit = :permit", named_params! { ":permit": permit })?,
        };
        self.memory.deleted |= changed > 0;
        Ok(())
    }

    fn put_content(&mut self, ticket: TicketId, part: ContentPart, bytes: Option<Arc<[u8]>>) -> Result<(), StoreError> {
        // What it replaces is deleted too.
        self.memory.deleted = true;
        let (ticket, table) = (*ticket.as_uuid().as_bytes(), queries::table_of(part));
        match bytes {
            Some(bytes) => {
                let sql = format!(
                    "INSERT INTO {table} (ticket, pad, bytes) VALUES (:ticket, zeroblob(:pad), :bytes)
                     ON CONFLICT (ticket) DO UPDATE SET bytes = :bytes"
                );
                self.run(&sql, named_params! { ":ticket": ticket, ":pad": PAD_LEN, ":bytes": &*bytes }).map(drop)
            }
            None => self.run(&format!("DELETE FROM {table} WHERE ticket = :ticket"), named_params! { ":ticket": ticket }).map(drop),
        }
    }

    fn append_audit(&mut self, now: Timestamp, events: Vec<AuditEvent>) -> Result<(), StoreError> {
        let mut head = self.memory.head.ok_or_else(|| StoreError::Unavailable("the audit log's end is not known".to_owned()))?;
        let gateway = *head.gateway.as_uuid().as_bytes();
        for event in events {
            let record = head.append(now, event);
            let sql = "INSERT INTO audit (gateway, seq, text, hash) VALUES (:gateway, :seq, :text, :hash)";
            let params = named_params! {
                ":gateway": gateway, ":seq": count(record.seq), ":text": record.text, ":hash": record.hash.as_bytes(),
            };
            self.run(sql, params)?;
        }
        self.memory.head = Some(head);
        Ok(())
    }
}
