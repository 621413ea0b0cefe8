//! The rules of certificate requests, as [`rows`](super::rows) applies them, and how a request is written in SQL.

use uuid::Uuid;

use super::{
    Conflict, EnrolmentFilter, StoreError,
    columns::{count, millis, unreadable},
    rows::{Rows, Step},
};
use crate::domain::{
    audit::AuditEvent,
    enrolment::{Enrolment, Step as EnrolmentStep},
};

impl<R: Rows> Step<'_, R> {
    pub(super) fn insert_enrolment(&mut self, enrolment: Enrolment) -> Result<(), StoreError> {
        if self.rows.enrolment(enrolment.id)?.is_some() {
            return Err(Conflict::EnrolmentChanged.into());
        }
        self.put_enrolment(None, enrolment)
    }

    pub(super) fn update_enrolment(&mut self, mut enrolment: Enrolment) -> Result<(), StoreError> {
        let stored = self.rows.enrolment(enrolment.id)?.ok_or(Conflict::EnrolmentGone)?;
        if stored.version != enrolment.version {
            return Err(Conflict::EnrolmentChanged.into());
        }
        enrolment.version += 1;
        self.put_enrolment(Some(stored), enrolment)
    }

    pub(super) fn activate_enrolment(&mut self, enrolment: Enrolment) -> Result<(), StoreError> {
        let former = self.rows.active_enrolment(&enrolment.key_name)?.filter(|former| *former != enrolment.id);
        if let Some(stored) = former.map(|former| self.rows.enrolment(former)).transpose()?.flatten() {
            let mut former = stored.clone();
            let by = format!("request {}", enrolment.id);
            former.step(EnrolmentStep::Superseded, self.now, &by).map_err(|_| Conflict::EnrolmentChanged)?;
            former.version += 1;
            self.events.push(AuditEvent::of_step(&former));
            self.put_enrolment(Some(stored), former)?;
        }
        self.update_enrolment(enrolment)
    }
}

/// A row of `enrolments`: what is asked for has a column of its own, the whole stands in `body`.
pub(super) struct EnrolmentColumns {
    pub(super) id: Uuid,
    pub(super) organisation: String,
    pub(super) login: String,
    pub(super) key_name: String,
    pub(super) state: &'static str,
    pub(super) active: bool,
    pub(super) due: Option<i64>,
    pub(super) created: i64,
    pub(super) version: i64,
    pub(super) body: String,
}

impl EnrolmentColumns {
    pub(super) fn of(enrolment: &Enrolment) -> Result<Self, StoreError> {
        Ok(Self {
            id: enrolment.id.as_uuid(),
            organisation: enrolment.organisation.clone(),
            login: enrolment.login.clone(),
            key_name: enrolment.key_name.as_str().to_owned(),
            state: enrolment.state.as_str(),
            active: enrolment.active,
            due: enrolment.due.map(millis),
            created: millis(enrolment.created),
            version: count(enrolment.version),
            body: serde_json::to_string(enrolment).map_err(|error| unreadable("a certificate request", error))?,
        })
    }
}

/// Reads the column `body`.
pub(super) fn enrolment_of(body: &str) -> Result<Enrolment, StoreError> {
    serde_json::from_str(body).map_err(|error| unreadable("a certificate request", error))
}

/// What a filter asks of a row, as conditions that begin with ` AND`, and the values that they name from the second parameter on. `mark`
/// stands before a parameter's number; `active` is the condition on that column. The state stands in the text so that a partial index is used:
/// it is one of ours and no text from outside.
pub(super) fn conditions<'f>(filter: &'f EnrolmentFilter, mark: char, active: &str) -> (String, Vec<&'f String>) {
    let mut conditions = filter.state.map_or_else(String::new, |state| format!(" AND state = '{}'", state.as_str()));
    let mut values = Vec::new();
    for (column, wanted) in [("organisation", &filter.organisation), ("login", &filter.login)] {
        if let Some(wanted) = wanted {
            values.push(wanted);
            conditions.push_str(&format!(" AND {column} = {mark}{}", values.len() + 1));
        }
    }
    if filter.active {
        conditions.push_str(&format!(" AND {active}"));
    }
    (conditions, values)
}
