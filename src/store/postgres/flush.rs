//! What a working set changed, as a few statements that each write many rows.

use std::collections::HashMap;

use uuid::Uuid;

use super::{
    callers, enrolments,
    session::{Step, Value},
    working_set::{Pair, WorkingSet},
};
use crate::{
    domain::{
        job::JobState,
        permit::Permit,
        ticket::{ContentPart, Ticket},
    },
    store::{
        StoreError,
        columns::{JobColumns, PermitColumns, TicketColumns, count, millis, request_text},
        rows::JobRow,
    },
};

const INSERT_TICKETS: &str = "INSERT INTO tickets (id, caller, touched, version, job, spooled, content_len, \
    signature_spooled, signature_len, body) SELECT * FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::bigint[], $5::uuid[], \
    $6::text[], $7::bigint[], $8::text[], $9::bigint[], $10::text[])";
const UPDATE_TICKETS: &str = "UPDATE tickets SET touched = u.touched, version = u.version, job = u.job, spooled = u.spooled, \
    content_len = u.content_len, signature_spooled = u.signature_spooled, signature_len = u.signature_len, body = u.body FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::bigint[], $5::uuid[], $6::text[], \
    $7::bigint[], $8::text[], $9::bigint[], $10::text[]) AS u(id, caller, touched, version, job, spooled, content_len, signature_spooled, \
    signature_len, body) WHERE tickets.id = u.id";
const TOUCH_TICKETS: &str =
    "UPDATE tickets SET touched = u.touched FROM unnest($1::uuid[], $2::bigint[]) AS u(id, touched) WHERE tickets.id = u.id";
const DELETE_TICKETS: &str = "DELETE FROM tickets WHERE id = ANY($1)";
const PUT_CONTENTS: &str = "INSERT INTO contents (ticket, bytes) SELECT * FROM unnest($1::uuid[], $2::bytea[]) \
    ON CONFLICT (ticket) DO UPDATE SET bytes = excluded.bytes";
const DELETE_CONTENTS: &str = "DELETE FROM contents WHERE ticket = ANY($1)";
const PUT_SIGNATURES: &str = "INSERT INTO signatures (ticket, bytes) SELECT * FROM unnest($1::uuid[], $2::bytea[]) \
    ON CONFLICT (ticket) DO UPDATE SET bytes = excluded.bytes";
const DELETE_SIGNATURES: &str = "DELETE FROM signatures WHERE ticket = ANY($1)";
const INSERT_PERMITS: &str = "INSERT INTO permits (id, caller, uses, reserved, committed, expires, state, body) \
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::text[], $8::text[])";
const SPEND_PERMITS: &str = "UPDATE permits SET reserved = u.reserved, committed = u.committed \
    FROM unnest($1::uuid[], $2::bigint[], $3::bigint[]) AS u(id, reserved, committed) WHERE permits.id = u.id";
const UPDATE_PERMITS: &str = "UPDATE permits SET uses = u.uses, reserved = u.reserved, committed = u.committed, expires = u.expires, \
    state = u.state, body = u.body FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::text[], \
    $8::text[]) AS u(id, caller, uses, reserved, committed, expires, state, body) WHERE permits.id = u.id";
const DELETE_PERMITS: &str = "DELETE FROM permits WHERE id = ANY($1)";
const PUT_WORDS: &str = "INSERT INTO words (permit, text) SELECT * FROM unnest($1::uuid[], $2::text[])";
const DELETE_WORDS: &str = "DELETE FROM words WHERE permit = ANY($1)";
/// The order gives each job its place in the queue.
const INSERT_JOBS: &str = "INSERT INTO jobs (id, caller, token, permit, accepted, deadline, state, claim, ended, body, outcome) \
    SELECT id, caller, token, permit, accepted, deadline, state, claim, ended, body, outcome FROM unnest($1::uuid[], $2::text[], \
    $3::text[], $4::uuid[], $5::bigint[], $6::bigint[], $7::text[], $8::uuid[], $9::bigint[], $10::text[], $11::text[]) WITH ORDINALITY \
    AS u(id, caller, token, permit, accepted, deadline, state, claim, ended, body, outcome, nr) ORDER BY nr";
const UPDATE_JOBS: &str = "UPDATE jobs SET state = u.state, claim = u.claim, ended = u.ended, outcome = u.outcome \
    FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::bigint[], $5::text[]) AS u(id, state, claim, ended, outcome) WHERE jobs.id = u.id";
/// Jobs that waited for consent: their time begins when it is given.
const LET_JOBS_IN: &str = "UPDATE jobs SET accepted = u.accepted, deadline = u.deadline, state = u.state, claim = u.claim, ended = u.ended, \
    body = u.body, outcome = u.outcome FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::text[], $5::uuid[], $6::bigint[], $7::text[], \
    $8::text[]) AS u(id, accepted, deadline, state, claim, ended, body, outcome) WHERE jobs.id = u.id";
/// Two gateways may be sent the same request: whoever is second finds no room and starts over, with the first one's row before its eyes.
/// The order keeps them from waiting for each other in a circle.
const INSERT_REQUESTS: &str = "INSERT INTO requests (caller, key, done, expires) \
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[]) AS u(caller, key, done, expires) ORDER BY u.caller, u.key \
    ON CONFLICT DO NOTHING";
const INSERT_AUDIT: &str = "INSERT INTO audit (gateway, seq, text, hash) SELECT $1, * FROM unnest($2::bigint[], $3::text[], $4::bytea[])";

/// What a working set changed.
pub(super) struct Writes {
    /// The statements, in their order.
    pub(super) steps: Vec<Step>,
    /// Statements, by their place, that must write so many rows: where they write fewer, another gateway was quicker, and the group starts over
    /// with the other one's row before its eyes.
    pub(super) must_fit: Vec<(usize, u64)>,
}

/// Statements that write what changed.
pub(super) fn writes(set: &WorkingSet) -> Result<Writes, StoreError> {
    let (mut steps, mut must_fit) = (Vec::new(), Vec::new());
    tickets(set, &mut steps)?;
    contents(set, &mut steps);
    permits(set, &mut steps)?;
    words(set, &mut steps);
    jobs(set, &mut steps)?;
    enrolments::writes(set, &mut steps)?;
    callers::writes(&set.callers, &mut steps)?;
    let (place, requests) = (steps.len(), requests(set, &mut steps)?);
    if requests > 0 {
        must_fit.push((place, requests));
    }
    for (step, rows) in set.accounts.writes()? {
        must_fit.push((steps.len(), rows));
        steps.push(step);
    }
    audit(set, &mut steps);
    Ok(Writes { steps, must_fit })
}

/// Collects rows column by column and, if there are any, a statement for them.
macro_rules! columns {
    ($steps:expr, $sql:expr, $rows:expr, $row:ident => [$($column:expr),+ $(,)?]) => {{
        let rows = $rows;
        if !rows.is_empty() {
            let values: Vec<Value> = vec![$(Box::new(rows.iter().map(|$row| $column).collect::<Vec<_>>())),+];
            $steps.push(Step::new($sql, values));
        }
    }};
}

/// Rows that are new, that changed, and keys of those that are gone.
struct Sorted<'a, K, T> {
    new: Vec<&'a T>,
    changed: Vec<(&'a T, &'a T)>,
    gone: Vec<&'a K>,
}

fn sorted<K, T: PartialEq>(pairs: &HashMap<K, Pair<T>>) -> Sorted<'_, K, T> {
    let mut sorted = Sorted { new: Vec::new(), changed: Vec::new(), gone: Vec::new() };
    for (key, pair) in pairs {
        match (&pair.stored, &pair.wanted) {
            (None, Some(wanted)) => sorted.new.push(wanted),
            (Some(stored), Some(wanted)) if stored != wanted => sorted.changed.push((stored, wanted)),
            (Some(_), None) => sorted.gone.push(key),
            _ => {}
        }
    }
    sorted
}

fn tickets(set: &WorkingSet, steps: &mut Vec<Step>) -> Result<(), StoreError> {
    let Sorted { new, changed, gone } = sorted(&set.tickets);
    let (touched, changed): (Vec<_>, Vec<_>) = changed.into_iter().partition(|(stored, wanted)| only_touched(stored, wanted));
    let new = new.into_iter().cloned().map(TicketColumns::of).collect::<Result<Vec<_>, _>>()?;
    let changed = changed.into_iter().map(|(_, wanted)| TicketColumns::of(wanted.clone())).collect::<Result<Vec<_>, _>>()?;
    for (sql, rows) in [(INSERT_TICKETS, new), (UPDATE_TICKETS, changed)] {
        columns!(steps, sql, rows, row => [
            row.id, row.caller.clone(), row.touched, row.version, row.job, row.spooled.clone(), row.content_len,
            row.signature_spooled.clone(), row.signature_len, row.body.clone(),
        ]);
    }
    columns!(steps, TOUCH_TICKETS, touched, row => [row.1.id.as_uuid(), millis(row.1.touched)]);
    columns!(steps, DELETE_TICKETS, gone, id => [id.as_uuid()]);
    Ok(())
}

fn only_touched(stored: &Ticket, wanted: &Ticket) -> bool {
    stored.version == wanted.version && stored.touched != wanted.touched
}

fn contents(set: &WorkingSet, steps: &mut Vec<Step>) {
    for part in ContentPart::ALL {
        let (put_sql, delete_sql) = match part {
            ContentPart::Document => (PUT_CONTENTS, DELETE_CONTENTS),
            ContentPart::Signature => (PUT_SIGNATURES, DELETE_SIGNATURES),
        };
        let of_part = || set.contents.iter().filter(|((_, of), _)| *of == part).map(|((ticket, _), bytes)| (ticket, bytes));
        let put: Vec<_> = of_part().filter_map(|(ticket, bytes)| Some((ticket, bytes.as_ref()?))).collect();
        let gone: Vec<_> = of_part().filter(|(_, bytes)| bytes.is_none()).map(|(ticket, _)| ticket).collect();
        columns!(steps, put_sql, put, row => [row.0.as_uuid(), row.1.to_vec()]);
        columns!(steps, delete_sql, gone, id => [id.as_uuid()]);
    }
}

fn permits(set: &WorkingSet, steps: &mut Vec<Step>) -> Result<(), StoreError> {
    let Sorted { new, changed, gone } = sorted(&set.permits);
    let columns_of = |permit: &Permit| PermitColumns::of(permit.clone());
    let (spent, changed): (Vec<_>, Vec<_>) = changed.into_iter().partition(|(stored, wanted)| only_spent(stored, wanted));
    let new = new.into_iter().map(columns_of).collect::<Result<Vec<_>, _>>()?;
    let changed = changed.into_iter().map(|(_, wanted)| columns_of(wanted)).collect::<Result<Vec<_>, _>>()?;
    for (sql, rows) in [(INSERT_PERMITS, new), (UPDATE_PERMITS, changed)] {
        columns!(steps, sql, rows, row => [
            row.id, row.caller.clone(), row.uses, row.reserved, row.committed, row.expires, row.state.clone(), row.body.clone(),
        ]);
    }
    columns!(steps, SPEND_PERMITS, spent, row => [row.1.id.as_uuid(), i64::from(row.1.reserved), i64::from(row.1.committed)]);
    columns!(steps, DELETE_PERMITS, gone, id => [id.as_uuid()]);
    Ok(())
}

/// The rest changes when it is decided, and by a revocation.
fn only_spent(stored: &Permit, wanted: &Permit) -> bool {
    stored.state == wanted.state && stored.approvals.len() == wanted.approvals.len()
}

fn words(set: &WorkingSet, steps: &mut Vec<Step>) {
    let put: Vec<_> = set.words.iter().filter_map(|(permit, words)| Some((permit, words.as_ref()?))).collect();
    let gone: Vec<_> = set.words.iter().filter(|(_, words)| words.is_none()).map(|(permit, _)| permit).collect();
    columns!(steps, PUT_WORDS, put, row => [row.0.as_uuid(), row.1.clone()]);
    columns!(steps, DELETE_WORDS, gone, id => [id.as_uuid()]);
}

fn jobs(set: &WorkingSet, steps: &mut Vec<Step>) -> Result<(), StoreError> {
    // Jobs are never removed by a change; see `forget`.
    let new = set.accepted.iter().filter_map(|id| set.wanted_job(*id));
    let new = new.cloned().map(JobColumns::of).collect::<Result<Vec<_>, _>>()?;
    let changed = sorted(&set.jobs).changed;
    let (let_in, changed): (Vec<_>, Vec<_>) = changed.into_iter().partition(|(stored, wanted)| was_let_in(stored, wanted));
    let columns_of =
        |rows: Vec<(&JobRow, &JobRow)>| rows.into_iter().map(|(_, wanted)| JobColumns::of(wanted.clone())).collect::<Result<Vec<_>, _>>();
    let (let_in, changed) = (columns_of(let_in)?, columns_of(changed)?);
    columns!(steps, INSERT_JOBS, new, row => [
        row.id, row.caller.clone(), row.token.clone(), row.permit, row.accepted, row.deadline, row.state, row.claim, row.ended,
        row.body.clone(), row.outcome.clone(),
    ]);
    columns!(steps, LET_JOBS_IN, let_in, row => [
        row.id, row.accepted, row.deadline, row.state, row.claim, row.ended, row.body.clone(), row.outcome.clone(),
    ]);
    columns!(steps, UPDATE_JOBS, changed, row => [row.id, row.state, row.claim, row.ended, row.outcome.clone()]);
    Ok(())
}

/// Whether it waited for consent, and is queued or further on now.
fn was_let_in(stored: &JobRow, wanted: &JobRow) -> bool {
    stored.job.state == JobState::AwaitingConsent && wanted.job.consent != stored.job.consent
}

fn requests(set: &WorkingSet, steps: &mut Vec<Step>) -> Result<u64, StoreError> {
    let new = sorted(&set.requests).new;
    let mut rows = Vec::with_capacity(new.len());
    for request in new {
        rows.push((request, request_text(&request.done)?));
    }
    let expected = rows.len() as u64;
    columns!(steps, INSERT_REQUESTS, rows, row => [
        row.0.caller.as_str().to_owned(), row.0.key.as_str().to_owned(), row.1.clone(), millis(row.0.expires),
    ]);
    Ok(expected)
}

fn audit(set: &WorkingSet, steps: &mut Vec<Step>) {
    if set.records.is_empty() {
        return;
    }
    let gateway: Uuid = set.head.gateway.as_uuid();
    let seqs: Vec<_> = set.records.iter().map(|record| count(record.seq)).collect();
    let texts: Vec<_> = set.records.iter().map(|record| record.text.clone()).collect();
    let hashes: Vec<_> = set.records.iter().map(|record| record.hash.as_bytes().to_vec()).collect();
    steps.push(Step::new(INSERT_AUDIT, vec![Box::new(gateway), Box::new(seqs), Box::new(texts), Box::new(hashes)]));
}
