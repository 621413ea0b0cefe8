//! How rows are written in SQL: what is asked for or changes often has a column of its own, the rest is JSON.
//!
//! Shared by both SQL stores, so that a row means the same in each. Invariant: what is read back is what was written; a row that cannot be read
//! is an error that names it, never a guess.

use std::fmt::Display;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{StoreError, rows::JobRow};
use crate::domain::{
    audit::Consent,
    caller::{KeyAccess, Provenance},
    consent::{Approval, ConsentAsk, PermitScope},
    digest::ToSign,
    idempotency::{IdempotentRequest, RequestDone},
    ids::{CallerId, IdempotencyKey, OperatorName},
    job::{JobOutcome, JobState, KeyAddress, SigningJob},
    key::KeyChoice,
    operator::{Operator, OperatorAccount, OperatorSession, PasswordHash, Role},
    permit::{Permit, PermitState},
    stored_caller::StoredCaller,
    ticket::{Content, ContentPlace, SignatureOptions, Ticket, TicketModification, TicketSigning},
    timestamp::Timestamp,
    token::TokenIdentity,
};

/// A row of `tickets`.
pub(super) struct TicketColumns {
    pub(super) id: Uuid,
    pub(super) caller: String,
    pub(super) touched: i64,
    pub(super) version: i64,
    /// The job that it refers to.
    pub(super) job: Option<Uuid>,
    /// The name of its file in the spool directory.
    pub(super) spooled: Option<String>,
    /// The length of its content in bytes; 0 without one.
    pub(super) content_len: i64,
    /// The name of the file of its signature.
    pub(super) signature_spooled: Option<String>,
    /// The length of its signature in bytes; 0 without one.
    pub(super) signature_len: i64,
    /// [`TicketBody`] as JSON.
    pub(super) body: String,
}

#[derive(Serialize, Deserialize)]
struct TicketBody {
    options: SignatureOptions,
    content: Option<Content>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    signature: Option<Content>,
    metadata: Option<String>,
    key: KeyChoice,
    signing: Option<TicketSigning>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    verifying: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    modifying: Option<Box<TicketModification>>,
    /// The token, if there is one.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "crate::domain::bytes::list")]
    time_stamp: Vec<Vec<u8>>,
}

/// A row of `permits`.
pub(super) struct PermitColumns {
    pub(super) id: Uuid,
    pub(super) caller: String,
    pub(super) uses: i64,
    pub(super) reserved: i64,
    pub(super) committed: i64,
    pub(super) expires: i64,
    pub(super) state: String,
    /// [`PermitBody`] as JSON; `None` of a plain one that the configuration gave.
    pub(super) body: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct PermitBody {
    scope: PermitScope,
    ask: Option<Box<ConsentAsk>>,
    approvals: Vec<Approval>,
}

const PERMIT_STATES: [PermitState; 6] =
    [PermitState::Asked, PermitState::Granted, PermitState::Refused, PermitState::TimedOut, PermitState::Withdrawn, PermitState::Revoked];

/// A row of `jobs`. Its place in the queue is the database's.
pub(super) struct JobColumns {
    pub(super) id: Uuid,
    pub(super) caller: String,
    /// As [`token_text`] has it.
    pub(super) token: String,
    pub(super) permit: Option<Uuid>,
    pub(super) accepted: i64,
    pub(super) deadline: i64,
    pub(super) state: &'static str,
    pub(super) claim: Option<Uuid>,
    pub(super) ended: Option<i64>,
    /// [`JobBody`] as JSON; never changes.
    pub(super) body: String,
    /// [`JobOutcome`] as JSON.
    pub(super) outcome: Option<String>,
}

/// What is read of a row of `jobs`.
pub(super) struct JobRead {
    pub(super) id: Uuid,
    pub(super) caller: String,
    pub(super) permit: Option<Uuid>,
    pub(super) accepted: i64,
    pub(super) deadline: i64,
    pub(super) state: String,
    pub(super) claim: Option<Uuid>,
    pub(super) ended: Option<i64>,
    pub(super) body: String,
    pub(super) outcome: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct JobBody {
    from: Provenance,
    key: KeyAddress,
    to_sign: ToSign,
    certificate_serial: Option<String>,
    consent: Consent,
    with_pin: bool,
}

/// A row of `callers`.
pub(super) struct CallerColumns {
    pub(super) name: String,
    pub(super) version: i64,
    /// The whole caller as JSON.
    pub(super) body: String,
}

/// A row of `operators`.
pub(super) struct OperatorColumns {
    pub(super) name: String,
    /// The PHC string.
    pub(super) password: String,
    pub(super) disabled: bool,
    pub(super) added: i64,
    pub(super) epoch: i64,
    pub(super) version: i64,
    /// [`OperatorBody`] as JSON.
    pub(super) body: String,
}

#[derive(Serialize, Deserialize)]
struct OperatorBody {
    role: Role,
    keys: KeyAccess,
}

/// A row of `operator_sessions`.
pub(super) struct SessionColumns {
    pub(super) id: [u8; 32],
    pub(super) operator: String,
    pub(super) epoch: i64,
    pub(super) began: i64,
    pub(super) seen: i64,
    pub(super) expires: i64,
    pub(super) address: Option<String>,
}

const STATES: [(JobState, &str); 8] = [
    (JobState::AwaitingConsent, "awaiting-consent"),
    (JobState::Queued, "queued"),
    (JobState::Signing, "signing"),
    (JobState::Signed, "signed"),
    (JobState::Failed, "failed"),
    (JobState::InDoubt, "in-doubt"),
    (JobState::Cancelled, "cancelled"),
    (JobState::Expired, "expired"),
];

/// A state as it stands in the database.
pub(super) fn state_text(state: JobState) -> &'static str {
    STATES.iter().find(|(known, _)| *known == state).map_or("", |(_, text)| text)
}

/// A time as it stands in the database; what is beyond its end of time is at it.
pub(super) fn millis(time: Timestamp) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// A time from the database.
pub(super) fn timestamp(millis: i64) -> Timestamp {
    Timestamp::from_millis(u64::try_from(millis).unwrap_or(0))
}

/// A count as it stands in the database.
pub(super) fn count(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A token as it stands in the database: one text for one token.
pub(super) fn token_text(token: &TokenIdentity) -> Result<String, StoreError> {
    json(token)
}

/// A token from the database.
pub(super) fn token_of(text: &str) -> Result<TokenIdentity, StoreError> {
    parsed("a token", text)
}

impl TicketColumns {
    pub(super) fn of(ticket: Ticket) -> Result<Self, StoreError> {
        let Ticket { id, caller, touched, options, content, signature, metadata, key, signing, verifying, modifying, time_stamp, version } =
            ticket;
        let file = |content: &Option<Content>| match &content.as_ref()?.place {
            ContentPlace::Spooled(name) => Some(name.clone()),
            ContentPlace::Stored => None,
        };
        let len = |content: &Option<Content>| content.as_ref().map_or(0, |content| count(content.len));
        Ok(Self {
            id: id.as_uuid(),
            caller: caller.into(),
            touched: millis(touched),
            version: count(version),
            job: signing.as_ref().map(|signing| signing.job.as_uuid()),
            spooled: file(&content),
            content_len: len(&content),
            signature_spooled: file(&signature),
            signature_len: len(&signature),
            body: json(&TicketBody {
                options,
                content,
                signature,
                metadata,
                key,
                signing,
                verifying,
                modifying,
                time_stamp: time_stamp.into_iter().collect(),
            })?,
        })
    }

    pub(super) fn read(id: Uuid, caller: String, touched: i64, version: i64, body: &str) -> Result<Ticket, StoreError> {
        let TicketBody { options, content, signature, metadata, key, signing, verifying, modifying, time_stamp } =
            parsed("a ticket", body)?;
        Ok(Ticket {
            id: id.into(),
            caller: caller_of(caller)?,
            touched: timestamp(touched),
            options,
            content,
            signature,
            metadata,
            key,
            signing,
            verifying,
            modifying,
            time_stamp: time_stamp.into_iter().next(),
            version: u64::try_from(version).unwrap_or(0),
        })
    }
}

impl PermitColumns {
    pub(super) fn of(permit: Permit) -> Result<Self, StoreError> {
        let plain = permit.ask.is_none() && permit.approvals.is_empty() && permit.scope == PermitScope::ANY;
        let body = PermitBody { scope: permit.scope, ask: permit.ask, approvals: permit.approvals };
        Ok(Self {
            id: permit.id.as_uuid(),
            caller: permit.caller.into(),
            uses: permit.uses.into(),
            reserved: permit.reserved.into(),
            committed: permit.committed.into(),
            expires: millis(permit.expires),
            state: permit.state.as_str().to_owned(),
            body: if plain { None } else { Some(json(&body)?) },
        })
    }

    pub(super) fn read(self) -> Result<Permit, StoreError> {
        let number = |number| u32::try_from(number).map_err(|_| unreadable("a permit", "a count that is out of range"));
        let state = PERMIT_STATES.into_iter().find(|state| state.as_str() == self.state);
        let body = self.body.as_deref().map(|text| parsed::<PermitBody>("a permit", text)).transpose()?;
        let PermitBody { scope, ask, approvals } = body.unwrap_or(PermitBody { scope: PermitScope::ANY, ask: None, approvals: Vec::new() });
        Ok(Permit {
            id: self.id.into(),
            caller: caller_of(self.caller)?,
            uses: number(self.uses)?,
            reserved: number(self.reserved)?,
            committed: number(self.committed)?,
            expires: timestamp(self.expires),
            state: state.ok_or_else(|| unreadable("a permit", format!("the state {}", self.state)))?,
            scope,
            ask,
            approvals,
        })
    }
}

impl JobColumns {
    pub(super) fn of(row: JobRow) -> Result<Self, StoreError> {
        let JobRow { job, ended } = row;
        let token = token_text(&job.key.token)?;
        let SigningJob { from, key, to_sign, certificate_serial, consent, with_pin, .. } = job;
        Ok(Self {
            id: job.id.as_uuid(),
            caller: job.caller.into(),
            token,
            permit: job.permit.map(|permit| permit.as_uuid()),
            accepted: millis(job.accepted),
            deadline: millis(job.deadline),
            state: state_text(job.state),
            claim: job.claim.map(|claim| claim.as_uuid()),
            ended: ended.map(millis),
            body: json(&JobBody { from, key, to_sign, certificate_serial, consent, with_pin })?,
            outcome: outcome_text(job.outcome.as_ref())?,
        })
    }
}

impl JobRead {
    pub(super) fn into_row(self) -> Result<JobRow, StoreError> {
        let JobBody { from, key, to_sign, certificate_serial, consent, with_pin } = parsed("a job", &self.body)?;
        let state = STATES.iter().find(|(_, text)| *text == self.state).map(|(state, _)| *state);
        let job = SigningJob {
            id: self.id.into(),
            caller: caller_of(self.caller)?,
            from,
            key,
            to_sign,
            certificate_serial,
            permit: self.permit.map(Into::into),
            consent,
            with_pin,
            accepted: timestamp(self.accepted),
            deadline: timestamp(self.deadline),
            state: state.ok_or_else(|| unreadable("a job", format!("the state {}", self.state)))?,
            claim: self.claim.map(Into::into),
            outcome: self.outcome.map(|text| parsed::<JobOutcome>("a job's outcome", &text)).transpose()?,
        };
        Ok(JobRow { job, ended: self.ended.map(timestamp) })
    }
}

/// How a job ended, if it has, as it is stored.
pub(super) fn outcome_text(outcome: Option<&JobOutcome>) -> Result<Option<String>, StoreError> {
    outcome.map(json).transpose()
}

impl CallerColumns {
    pub(super) fn of(caller: &StoredCaller) -> Result<Self, StoreError> {
        Ok(Self { name: caller.id.as_str().to_owned(), version: count(caller.version), body: json(caller)? })
    }

    pub(super) fn read(self) -> Result<StoredCaller, StoreError> {
        let mut body: Map<String, Value> = parsed("a caller", &self.body)?;
        // The columns count; bodies that were written first have neither.
        body.insert("id".to_owned(), self.name.into());
        body.insert("version".to_owned(), self.version.into());
        serde_json::from_value(body.into()).map_err(|error| unreadable("a caller", error))
    }
}

impl OperatorColumns {
    pub(super) fn of(account: OperatorAccount) -> Result<Self, StoreError> {
        let OperatorAccount { operator: Operator { name, role, keys }, password, disabled, added, epoch, version } = account;
        Ok(Self {
            name: name.into(),
            password: password.as_str().to_owned(),
            disabled,
            added: millis(added),
            epoch: millis(epoch),
            version: count(version),
            body: json(&OperatorBody { role, keys })?,
        })
    }

    pub(super) fn read(self) -> Result<OperatorAccount, StoreError> {
        let OperatorBody { role, keys } = parsed("an operator", &self.body)?;
        Ok(OperatorAccount {
            operator: Operator { name: operator_of(self.name)?, role, keys },
            password: PasswordHash::new(self.password),
            disabled: self.disabled,
            added: timestamp(self.added),
            epoch: timestamp(self.epoch),
            version: u64::try_from(self.version).unwrap_or(0),
        })
    }
}

impl SessionColumns {
    pub(super) fn of(session: OperatorSession) -> Self {
        Self {
            id: *session.id.as_bytes(),
            operator: session.operator.into(),
            epoch: millis(session.epoch),
            began: millis(session.began),
            seen: millis(session.seen),
            expires: millis(session.expires),
            address: session.address.map(|address| address.to_string()),
        }
    }

    pub(super) fn read(self) -> Result<OperatorSession, StoreError> {
        let address = self.address.map(|text| text.parse().map_err(|error| unreadable("a session", error))).transpose()?;
        Ok(OperatorSession {
            id: self.id.into(),
            operator: operator_of(self.operator)?,
            epoch: timestamp(self.epoch),
            began: timestamp(self.began),
            seen: timestamp(self.seen),
            expires: timestamp(self.expires),
            address,
        })
    }
}

fn operator_of(text: String) -> Result<OperatorName, StoreError> {
    OperatorName::try_from(text).map_err(|error| unreadable("an operator", error))
}

/// What was done for a request, as JSON.
pub(super) fn request_text(done: &RequestDone) -> Result<String, StoreError> {
    json(done)
}

/// What was done for a request, from the database.
pub(super) fn request_of(caller: &CallerId, key: &IdempotencyKey, done: &str, expires: i64) -> Result<IdempotentRequest, StoreError> {
    let done = parsed("an idempotent request", done)?;
    Ok(IdempotentRequest { caller: caller.clone(), key: key.clone(), done, expires: timestamp(expires) })
}

fn caller_of(text: String) -> Result<CallerId, StoreError> {
    CallerId::try_from(text).map_err(|error| unreadable("a caller", error))
}

fn json(value: &impl Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Unavailable(format!("a row cannot be written: {error}")))
}

fn parsed<T: DeserializeOwned>(what: &str, text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|error| unreadable(what, error))
}

/// The database holds something that this program did not write.
pub(super) fn unreadable(what: &str, problem: impl Display) -> StoreError {
    StoreError::Unavailable(format!("{what} in the database cannot be read: {problem}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_that_was_written_before_it_had_policies_for_keys_is_read() {
        let body = r#"{"keys":"all","default_key":null,"consent":"operator","scopes":["ticket-api"],"account":null,"rate":null,"api_keys":[],
            "needs_key":false,"client_certificate":null,"origins":["https://page.example"],"added":5,"revoked":null}"#;
        let read = CallerColumns { name: "erp".to_owned(), version: 7, body: body.to_owned() }.read().unwrap();
        assert_eq!((read.id.as_str(), read.version, read.consent_for.len(), read.added.as_millis()), ("erp", 7, 0, 5));
        assert_eq!(CallerColumns::of(&read).unwrap().read().unwrap(), read);
    }
}
