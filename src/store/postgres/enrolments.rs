//! Certificate requests in PostgreSQL.

use std::{collections::BTreeSet, iter};

use tokio_postgres::types::ToSql;

use super::{
    PostgresStore, row,
    session::{Step, Value},
    working_set::WorkingSet,
};
use crate::{
    domain::{
        enrolment::Enrolment,
        ids::{EnrolmentId, KeyName},
        timestamp::Timestamp,
    },
    store::{
        EnrolmentFilter, StoreError,
        columns::{count, millis},
        enrolment::{EnrolmentColumns, conditions, enrolment_of},
    },
};

const READ: &str = "SELECT body FROM enrolments WHERE id = ANY($1) OR (active AND key_name = ANY($2)) ORDER BY id FOR UPDATE";
/// One that another gateway inserted meanwhile, or made active under the same name, is a fault after which the group looks again.
const INSERT: &str = "INSERT INTO enrolments (id, organisation, login, key_name, state, active, due, created, version, body) \
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bool[], $7::bigint[], $8::bigint[], $9::bigint[], \
    $10::text[])";
const UPDATE: &str = "UPDATE enrolments SET state = u.state, active = u.active, due = u.due, version = u.version, body = u.body \
    FROM unnest($1::uuid[], $2::text[], $3::bool[], $4::bigint[], $5::bigint[], $6::text[]) AS u(id, state, active, due, version, body) \
    WHERE enrolments.id = u.id";

/// The statement that reads, under lock, the requests with these ids and those that are active under these names.
pub(super) fn read(ids: &BTreeSet<EnrolmentId>, active: &BTreeSet<KeyName>) -> Step {
    let ids: Vec<_> = ids.iter().map(EnrolmentId::as_uuid).collect();
    let names: Vec<_> = active.iter().map(|name| name.as_str().to_owned()).collect();
    Step::new(READ, vec![Box::new(ids), Box::new(names)])
}

/// The statements that write what changed. Those that stop being active go first: a name has one that is.
pub(super) fn writes(set: &WorkingSet, steps: &mut Vec<Step>) -> Result<(), StoreError> {
    let (mut new, mut passive, mut active) = (Vec::new(), Vec::new(), Vec::new());
    for pair in set.enrolments.values() {
        match (&pair.stored, &pair.wanted) {
            (None, Some(wanted)) => new.push(EnrolmentColumns::of(wanted)?),
            (Some(stored), Some(wanted)) if stored != wanted => {
                let rows = if wanted.active { &mut active } else { &mut passive };
                rows.push(EnrolmentColumns::of(wanted)?);
            }
            _ => {}
        }
    }
    insert(steps, &new);
    update(steps, &passive);
    update(steps, &active);
    Ok(())
}

/// The values of one column.
fn column<T>(rows: &[EnrolmentColumns], value: impl Fn(&EnrolmentColumns) -> T) -> Value
where
    Vec<T>: ToSql + Send + Sync + 'static,
{
    Box::new(rows.iter().map(value).collect::<Vec<T>>())
}

fn insert(steps: &mut Vec<Step>, rows: &[EnrolmentColumns]) {
    if rows.is_empty() {
        return;
    }
    steps.push(Step::new(
        INSERT,
        vec![
            column(rows, |row| row.id),
            column(rows, |row| row.organisation.clone()),
            column(rows, |row| row.login.clone()),
            column(rows, |row| row.key_name.clone()),
            column(rows, |row| row.state),
            column(rows, |row| row.active),
            column(rows, |row| row.due),
            column(rows, |row| row.created),
            column(rows, |row| row.version),
            column(rows, |row| row.body.clone()),
        ],
    ));
}

fn update(steps: &mut Vec<Step>, rows: &[EnrolmentColumns]) {
    if rows.is_empty() {
        return;
    }
    steps.push(Step::new(
        UPDATE,
        vec![
            column(rows, |row| row.id),
            column(rows, |row| row.state),
            column(rows, |row| row.active),
            column(rows, |row| row.due),
            column(rows, |row| row.version),
            column(rows, |row| row.body.clone()),
        ],
    ));
}

impl PostgresStore {
    pub(super) async fn enrolment(&self, id: EnrolmentId) -> Result<Option<Enrolment>, StoreError> {
        let found = self.enrolments("SELECT body FROM enrolments WHERE id = $1", &[&id.as_uuid()]).await?;
        Ok(found.into_iter().next())
    }

    pub(super) async fn enrolments_that_fit(&self, filter: &EnrolmentFilter, limit: usize) -> Result<Vec<Enrolment>, StoreError> {
        let limit = count(limit as u64);
        let (conditions, wanted) = conditions(filter, '$', "active");
        let values: Vec<&(dyn ToSql + Sync)> = iter::once(&limit as _).chain(wanted.into_iter().map(|text| text as _)).collect();
        let sql = format!("SELECT body FROM enrolments WHERE true{conditions} ORDER BY created DESC, id LIMIT $1");
        self.enrolments(&sql, &values).await
    }

    pub(super) async fn enrolments_due(&self, now: Timestamp, limit: usize) -> Result<Vec<Enrolment>, StoreError> {
        let sql = "SELECT body FROM enrolments WHERE due IS NOT NULL AND due <= $1 ORDER BY due LIMIT $2";
        self.enrolments(sql, &[&millis(now), &count(limit as u64)]).await
    }

    async fn enrolments(&self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<Vec<Enrolment>, StoreError> {
        let rows = self.readers.query(sql, values).await?;
        rows.iter().map(|row| enrolment_of(row::column(row, 0)?)).collect()
    }
}
