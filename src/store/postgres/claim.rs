//! Statements for work that the database itself finds: claims, what is late, idle or old.
//!
//! Claims and deletions skip what somebody else has locked, so they wait for nobody.

use std::collections::HashMap;

use tokio_postgres::Row;
use uuid::Uuid;

use super::{
    row::{self, job_columns},
    session::Step,
};
use crate::{
    domain::{
        ids::{CallerId, ClaimId, GatewayId},
        job::SigningJob,
        timestamp::Timestamp,
        token::TokenIdentity,
    },
    store::{
        StoreError,
        columns::{count, millis, token_text},
    },
};

/// Callers take turns, beginning after the one that was served last ($6), and each caller's jobs go oldest first. The callers are found by
/// hopping over the index, so a long queue of one caller costs no more than a short one. While another gateway has the token, there is nothing.
const CLAIM: &str = concat!(
    "WITH RECURSIVE callers(caller) AS (
        (SELECT caller FROM jobs WHERE token = $1 AND state = 'queued' ORDER BY caller LIMIT 1)
        UNION ALL
        SELECT (SELECT j.caller FROM jobs j WHERE j.token = $1 AND j.state = 'queued' AND j.caller > c.caller ORDER BY j.caller LIMIT 1)
        FROM callers c WHERE c.caller IS NOT NULL),
    ready AS (
        SELECT j.id, j.caller, row_number() OVER (PARTITION BY j.caller ORDER BY j.place) AS turn
        FROM callers c CROSS JOIN LATERAL (
            SELECT id, caller, place FROM jobs WHERE token = $1 AND state = 'queued' AND caller = c.caller AND deadline > $2
            ORDER BY place LIMIT $3) j
        WHERE c.caller IS NOT NULL),
    picked AS (
        SELECT j.id, r.turn FROM ready r JOIN jobs j ON j.id = r.id WHERE j.state = 'queued'
            AND NOT EXISTS (SELECT 1 FROM token_leases l WHERE l.token = $1 AND l.gateway <> $5
                AND l.until > (extract(epoch FROM clock_timestamp()) * 1000)::bigint)
        ORDER BY r.turn, r.caller <= $6, r.caller LIMIT $3 FOR UPDATE OF j SKIP LOCKED)
    UPDATE jobs SET state = 'signing', claim = $4, owner = $5 FROM picked WHERE jobs.id = picked.id
    RETURNING ",
    job_columns!(),
    ", picked.turn"
);

pub(super) const LATE: &str = "SELECT id FROM jobs WHERE state = 'queued' AND deadline <= $1 ORDER BY deadline LIMIT $2";

pub(super) const IDLE: &str = "SELECT id, job FROM tickets WHERE touched < $1 \
    AND NOT EXISTS (SELECT 1 FROM jobs WHERE jobs.id = tickets.job AND jobs.ended IS NULL) ORDER BY touched LIMIT $2";

pub(super) const FORGET: &str = "WITH
    j AS (DELETE FROM jobs WHERE id IN (
        SELECT id FROM jobs o WHERE ended < $1 AND NOT EXISTS (SELECT 1 FROM tickets WHERE tickets.job = o.id)
        ORDER BY ended LIMIT $2 FOR UPDATE OF o SKIP LOCKED) RETURNING 1),
    p AS (DELETE FROM permits WHERE id IN (
        SELECT id FROM permits WHERE expires < $1 AND reserved = 0 AND state <> 'asked'
        ORDER BY expires LIMIT $2 - (SELECT count(*) FROM j) FOR UPDATE SKIP LOCKED) RETURNING 1),
    r AS (DELETE FROM requests WHERE (caller, key) IN (
        SELECT caller, key FROM requests WHERE expires < $1
        ORDER BY expires LIMIT $2 - (SELECT count(*) FROM j) - (SELECT count(*) FROM p) FOR UPDATE SKIP LOCKED) RETURNING 1),
    s AS (DELETE FROM operator_sessions WHERE id IN (
        SELECT id FROM operator_sessions WHERE expires < $1 ORDER BY expires
        LIMIT $2 - (SELECT count(*) FROM j) - (SELECT count(*) FROM p) - (SELECT count(*) FROM r) FOR UPDATE SKIP LOCKED) RETURNING 1)
    SELECT (SELECT count(*) FROM j) + (SELECT count(*) FROM p) + (SELECT count(*) FROM r) + (SELECT count(*) FROM s)";

/// The callers that were served last, for each token: where the next round begins.
pub(super) type Served = HashMap<TokenIdentity, CallerId>;

/// Claims `limit` jobs of `token`.
pub(super) fn claim(token: &TokenIdentity, limit: usize, now: Timestamp, owner: GatewayId, served: &Served) -> Result<Step, StoreError> {
    let last = served.get(token).map_or("", CallerId::as_str).to_owned();
    let (claim, owner): (Uuid, Uuid) = (ClaimId::random().as_uuid(), owner.as_uuid());
    let values: Vec<super::session::Value> = vec![
        Box::new(token_text(token)?),
        Box::new(millis(now)),
        Box::new(count(limit as u64)),
        Box::new(claim),
        Box::new(owner),
        Box::new(last),
    ];
    Ok(Step::new(CLAIM, values))
}

/// The jobs that a claim got, in the order in which they are to start.
pub(super) fn claimed(rows: &[Row], token: &TokenIdentity, served: &mut Served) -> Result<Vec<SigningJob>, StoreError> {
    let last = served.get(token).cloned();
    let mut jobs = Vec::with_capacity(rows.len());
    for row in rows {
        let turn: i64 = row::column(row, 10)?;
        jobs.push((turn, row::job(row)?.job));
    }
    jobs.sort_by_key(|(turn, job)| (*turn, last.as_ref().is_some_and(|last| job.caller <= *last), job.caller.clone()));
    let jobs: Vec<_> = jobs.into_iter().map(|(_, job)| job).collect();
    if let Some(job) = jobs.last() {
        served.insert(token.clone(), job.caller.clone());
    }
    Ok(jobs)
}
