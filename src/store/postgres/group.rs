//! One group of changes within its transaction: what it needs is read, the rules are applied, what changed is written. The writer commits.

use std::collections::HashMap;

use uuid::Uuid;

use super::{
    Shared,
    claim::{self, FORGET, IDLE, LATE, Served},
    flush::{self, Writes},
    leases::ORPHANS,
    news, row,
    session::{Answer, Fault, Session, Step, Value},
    working_set::{Wanted, WorkingSet},
};
use crate::{
    domain::{
        audit::AuditHead,
        ids::{GatewayId, JobId, TicketId},
        job::{FailureCause, JobOutcome, JobState, SigningJob},
        ticket::Ticket,
        timestamp::Timestamp,
        token::TokenIdentity,
    },
    store::{
        Change, StoreError,
        columns::{count, millis},
        rows::{self, Moved, Rows as _},
    },
};

/// The most jobs that expire in one transaction; there is a next one.
const EXPIRE_MAX: i64 = 1_000;

/// What the client and the operator are told of a job whose gateway has gone.
const ORPHANED: &str = "the gateway that was signing is gone; nobody knows whether the token signed, and the job is not repeated. An operator can \
                        look and settle it with `sealgate jobs resolve`";

/// Locked first, so that nobody but us, not even an older connection of ours, is in a transaction of this gateway's.
const OWN_ROW: &str = "SELECT 1 FROM gateways WHERE id = $1 FOR UPDATE";
const HEAD: &str = "SELECT seq, hash FROM audit WHERE gateway = $1 ORDER BY seq DESC LIMIT 1";
const NOTE_BATCH: &str = "UPDATE gateways SET batch = $2 WHERE id = $1";

/// What can be asked of the writer.
#[derive(Debug, Clone)]
pub(super) enum Work {
    Commit(Vec<Change>),
    Claim {
        token: TokenIdentity,
        limit: usize,
        now: Timestamp,
    },
    Expire {
        now: Timestamp,
    },
    RemoveIdle {
        idle_since: Timestamp,
        limit: usize,
    },
    Forget {
        before: Timestamp,
        limit: usize,
    },
    SettleOrphans,
    /// Fails as a bug does.
    #[cfg(any(test, feature = "fake-token"))]
    Panic,
}

impl Work {
    /// How much content it brings.
    pub(super) fn content_bytes(&self) -> usize {
        let Self::Commit(changes) = self else { return 0 };
        let bytes = |change: &Change| if let Change::PutContent { bytes, .. } = change { bytes.len() } else { 0 };
        changes.iter().map(bytes).sum()
    }
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Made {
    Nothing,
    Jobs(Vec<SigningJob>),
    Tickets(Vec<Ticket>),
    Ended(Vec<JobId>),
    Count(usize),
}

/// A group whose changes are written and not yet committed.
pub(super) struct Group {
    /// By which the database knows whether it was committed.
    pub(super) id: Uuid,
    pub(super) changes_anything: bool,
    /// One for each piece of work, in order.
    pub(super) made: Vec<Result<Made, StoreError>>,
    pub(super) moved: Vec<Moved>,
    pub(super) head: AuditHead,
    pub(super) served: Served,
}

/// What the database found for a piece of work before the transaction began; looked at again under lock.
#[derive(Default, Clone)]
struct Found {
    jobs: Vec<JobId>,
    tickets: Vec<TicketId>,
}

impl Group {
    /// Carries out `works` in a transaction that it begins.
    pub(super) async fn write(
        shared: &Shared,
        session: &Session,
        works: &[&Work],
        touched: &HashMap<TicketId, Timestamp>,
        head: Option<AuditHead>,
        served: &Served,
    ) -> Result<Self, Fault> {
        let gateway = shared.settings.gateway;
        let found = find(session, gateway, works).await?;
        let mut set = read(session, gateway, &wanted(works, &found, touched), head).await?;
        for (ticket, at) in touched {
            set.touch(*ticket, *at);
        }
        let mut group = Self {
            id: Uuid::new_v4(),
            changes_anything: false,
            made: Vec::new(),
            moved: Vec::new(),
            head: set.head,
            served: served.clone(),
        };
        for (work, found) in works.iter().zip(&found) {
            let made = group.apply(&mut set, work, found, shared.now());
            group.made.push(made);
        }
        group.flush(session, gateway, works, &set).await?;
        Ok(group)
    }

    /// Applies what the rules apply to; claims and forgetting are the database's own.
    fn apply(&mut self, set: &mut WorkingSet, work: &Work, found: &Found, now: Timestamp) -> Result<Made, StoreError> {
        match work {
            Work::Commit(changes) => {
                self.moved.extend(rows::commit(set, changes.clone(), now)?);
                Ok(Made::Nothing)
            }
            Work::Expire { now: late_at } => {
                let late =
                    |id: &&JobId| set.wanted_job(**id).is_some_and(|row| row.job.state == JobState::Queued && row.job.deadline <= *late_at);
                let late: Vec<_> = found.jobs.iter().filter(late).copied().collect();
                let outcome = JobOutcome::not_signed(FailureCause::DeadlinePassed, "");
                let end = |job: &JobId| Change::EndJob { job: *job, claim: None, outcome: outcome.clone() };
                self.moved.extend(rows::commit(set, late.iter().map(end).collect(), *late_at)?);
                Ok(Made::Ended(late))
            }
            Work::RemoveIdle { idle_since, .. } => {
                let mut removed = Vec::new();
                for id in &found.tickets {
                    let Some(ticket) = set.wanted_ticket(*id).cloned() else { continue };
                    let job = ticket.signing.as_ref().and_then(|signing| set.wanted_job(signing.job));
                    if ticket.touched < *idle_since && job.is_none_or(|row| row.job.state.is_final()) {
                        set.put_ticket(*id, None)?;
                        set.put_content(*id, None)?;
                        removed.push(ticket);
                    }
                }
                Ok(Made::Tickets(removed))
            }
            Work::SettleOrphans => {
                let signing = |id: &JobId| set.wanted_job(*id).filter(|row| row.job.state == JobState::Signing).map(|row| row.job.claim);
                let orphans: Vec<_> = found.jobs.iter().filter_map(|id| Some((*id, signing(id)?))).collect();
                let outcome = JobOutcome::not_signed(FailureCause::OutcomeUnknown, ORPHANED);
                let end = |(job, claim): &(JobId, _)| Change::EndJob { job: *job, claim: *claim, outcome: outcome.clone() };
                self.moved.extend(rows::commit(set, orphans.iter().map(end).collect(), now)?);
                Ok(Made::Ended(orphans.into_iter().map(|(job, _)| job).collect()))
            }
            Work::Claim { .. } | Work::Forget { .. } => Ok(Made::Nothing),
            #[cfg(any(test, feature = "fake-token"))]
            Work::Panic => std::panic::panic_any("injected"),
        }
    }

    /// Writes everything, then claims and forgets, then tells the other gateways.
    async fn flush(&mut self, session: &Session, gateway: GatewayId, works: &[&Work], set: &WorkingSet) -> Result<(), Fault> {
        let Writes { mut steps, must_fit } = flush::writes(set).map_err(refused)?;
        self.head = set.head;
        self.changes_anything = !steps.is_empty();
        let claims = claims(works);
        let first_claim = steps.len();
        for claim in &claims {
            steps.push(claim::claim(claim.token, claim.limit, claim.now, gateway, &self.served).map_err(refused)?);
        }
        let first_forget = steps.len();
        for work in works {
            if let Work::Forget { before, limit } = work {
                steps.push(Step::new(FORGET, vec![Box::new(millis(*before)), Box::new(count(*limit as u64))]));
            }
        }
        let end_of_work = steps.len();
        if steps.is_empty() {
            return Ok(());
        }
        let note: Vec<Value> = vec![Box::new(gateway.as_uuid()), Box::new(self.id)];
        steps.push(Step::new(NOTE_BATCH, note));
        steps.extend(news::tell(&self.moved));
        let answers = session.pipeline(steps).await?;
        if must_fit.iter().any(|(at, rows)| answers[*at].count != *rows) {
            return Err(Fault::Busy("another gateway wrote the same row".to_owned()));
        }
        if answers.get(end_of_work).is_none_or(|answer| answer.count != 1) {
            return Err(Fault::Refused("the row of this gateway is missing from the table gateways".to_owned()));
        }
        self.share_claims(works, &claims, &answers[first_claim..first_forget])?;
        self.count_forgotten(works, &answers[first_forget..end_of_work])
    }

    /// Gives each claim its part of what was claimed for its token.
    fn share_claims(&mut self, works: &[&Work], claims: &[JointClaim<'_>], answers: &[Answer]) -> Result<(), Fault> {
        for (claim, answer) in claims.iter().zip(answers) {
            let mut jobs = claim::claimed(&answer.rows, claim.token, &mut self.served).map_err(refused)?;
            self.changes_anything |= !jobs.is_empty();
            for (work, made) in works.iter().zip(&mut self.made) {
                if let Work::Claim { token, limit, now } = work
                    && token == claim.token
                    && *now == claim.now
                {
                    let rest = jobs.split_off((*limit).min(jobs.len()));
                    *made = Ok(Made::Jobs(std::mem::replace(&mut jobs, rest)));
                }
            }
        }
        Ok(())
    }

    fn count_forgotten(&mut self, works: &[&Work], answers: &[Answer]) -> Result<(), Fault> {
        let mut answers = answers.iter();
        for (work, made) in works.iter().zip(&mut self.made) {
            if let Work::Forget { .. } = work
                && let Some(row) = answers.next().and_then(|answer| answer.rows.first())
            {
                let forgotten = row::number(row, 0).map_err(refused)?;
                self.changes_anything |= forgotten > 0;
                *made = Ok(Made::Count(forgotten));
            }
        }
        Ok(())
    }
}

/// All claims of one token in the group: the database is asked once, and callers take turns across them.
struct JointClaim<'a> {
    token: &'a TokenIdentity,
    limit: usize,
    now: Timestamp,
}

fn claims<'a>(works: &[&'a Work]) -> Vec<JointClaim<'a>> {
    let mut joint: Vec<JointClaim<'_>> = Vec::new();
    for work in works {
        let Work::Claim { token, limit, now } = work else { continue };
        match joint.iter_mut().find(|claim| claim.token == token && claim.now == *now) {
            Some(claim) => claim.limit += limit,
            None => joint.push(JointClaim { token, limit: *limit, now: *now }),
        }
    }
    joint
}

/// Looks for late jobs and idle tickets, without locks.
async fn find(session: &Session, gateway: GatewayId, works: &[&Work]) -> Result<Vec<Found>, Fault> {
    let mut found = vec![Found::default(); works.len()];
    for (work, found) in works.iter().zip(&mut found) {
        match work {
            Work::Expire { now } => {
                let rows = session.query(LATE, &[&millis(*now), &EXPIRE_MAX]).await?;
                found.jobs = rows.iter().map(|row| row.get::<_, Uuid>(0).into()).collect();
            }
            Work::RemoveIdle { idle_since, limit } => {
                let rows = session.query(IDLE, &[&millis(*idle_since), &count(*limit as u64)]).await?;
                found.tickets = rows.iter().map(|row| row.get::<_, Uuid>(0).into()).collect();
                found.jobs = rows.iter().filter_map(|row| Some(row.get::<_, Option<Uuid>>(1)?.into())).collect();
            }
            Work::SettleOrphans => {
                let rows = session.query(ORPHANS, &[&gateway.as_uuid()]).await?;
                found.jobs = rows.iter().map(|row| row.get::<_, Uuid>(0).into()).collect();
            }
            _ => {}
        }
    }
    Ok(found)
}

fn wanted(works: &[&Work], found: &[Found], touched: &HashMap<TicketId, Timestamp>) -> Wanted {
    let mut wanted = Wanted::default();
    for work in works {
        if let Work::Commit(changes) = work {
            changes.iter().for_each(|change| wanted.add(change));
        }
    }
    for found in found {
        wanted.jobs.extend(&found.jobs);
        wanted.tickets.extend(&found.tickets);
    }
    wanted.tickets.extend(touched.keys());
    wanted
}

/// Begins the transaction and reads, with locks, what is wanted.
async fn read(session: &Session, gateway: GatewayId, wanted: &Wanted, head: Option<AuditHead>) -> Result<WorkingSet, Fault> {
    let mut steps = vec![Step::new("BEGIN", Vec::new()), Step::new(OWN_ROW, vec![Box::new(gateway.as_uuid())])];
    let before = steps.len();
    steps.extend(wanted.reads().map_err(refused)?);
    let reads = before..steps.len();
    if head.is_none() {
        steps.push(Step::new(HEAD, vec![Box::new(gateway.as_uuid())]));
    }
    let answers = session.pipeline(steps).await?;
    let head = match head {
        Some(head) => head,
        None => row::head(gateway, answers.last().and_then(|answer| answer.rows.first())).map_err(refused)?,
    };
    let mut set = WorkingSet::new(head);
    set.fill(wanted, &answers[reads]).map_err(refused)?;
    Ok(set)
}

/// What cannot be read or written will not be the next time either.
fn refused(error: StoreError) -> Fault {
    Fault::Refused(error.to_string())
}
