//! Operators' calls about permits. The audit log names the user of this machine who made them.
//!
//! | call, with the JSON it takes | does | answers |
//! |---|---|---|
//! | `GET /permits` | what waits for a decision, the most urgent first, and what can still be used | [`PermitsDto`] |
//! | `GET /permits/changes?since=N` | the same when something has changed since change N (at once without it), after 25 s in any case | [`PermitChangesDto`] |
//! | `GET /permits/{id}` | shows one, with what its caller says of it | [`PermitDto`] |
//! | `POST /permits/{id}/grant`, [`GrantDto`] | allows it | [`PermitDto`] |
//! | `POST /permits/{id}/refuse` | refuses it | [`PermitDto`] |
//! | `POST /permits/{id}/revoke` | takes it back | [`PermitDto`] |

use actix_web::{
    HttpResponse,
    web::{Data, Path, Payload, Query},
};
use serde::{Deserialize, Serialize};

use super::{Closing, SinceDto, error::ControlError, json, local_user::LocalUser, read, wait_for_change};
use crate::{
    domain::{
        audit::Sha256,
        consent::DecisionRefusal,
        ids::{CallerId, JobId, OperatorName, PermitId, TicketId},
        operator::Operator,
        permit::{Permit, PermitState},
        timestamp::Timestamp,
    },
    permit::{DecisionError, PermitService},
};

/// A permit, asked for or given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PermitDto {
    /// Its id.
    pub id: PermitId,
    /// Where it stands.
    pub state: PermitState,
    /// Whose it is.
    pub caller: CallerId,
    /// The web page that asked.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub origin: Option<String>,
    /// The address that asked.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub address: Option<std::net::IpAddr>,
    /// For how many signatures it was asked; absent where the configuration gave it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub asked_uses: Option<u32>,
    /// How many signatures it allows; none before it is granted.
    pub uses: u32,
    /// How many of them are left.
    pub uses_left: u32,
    /// With which keys, in words.
    pub keys: String,
    /// For these only, each as the audit log has it; empty for whatever the caller asks later.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub digests: Vec<String>,
    /// How many operators must agree, where operators were asked.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub operators: Option<u8>,
    /// Those who have.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub allowed_by: Vec<OperatorName>,
    /// When it ends, in milliseconds since the Unix epoch; while it is asked for, until when that must be decided.
    pub expires: Timestamp,
    /// The job that waits for it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub job: Option<JobId>,
    /// The document that this job signs.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub document: Option<DocumentDto>,
    /// What the caller says of it while it waits, in its own words: text or HTML that nobody has checked. Of one that is shown by itself only.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub words: Option<String>,
}

/// A document that would be signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentDto {
    /// The ticket whose content it is.
    pub ticket: TicketId,
    /// Its SHA-256.
    pub sha256: Sha256,
    /// Its length in bytes.
    pub len: u64,
}

/// Permits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PermitsDto {
    /// What waits for a decision, the most urgent first.
    pub waiting: Vec<PermitDto>,
    /// What can still be used, the one that ends first coming first.
    pub live: Vec<PermitDto>,
}

/// Permits, after a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PermitChangesDto {
    /// The number of the last change; what to ask for the next one with.
    pub change: u64,
    /// The permits as they are since.
    #[serde(flatten)]
    pub now: PermitsDto,
}

/// What is allowed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GrantDto {
    /// For so many signatures; absent for as many as were asked for.
    pub uses: Option<u32>,
}

impl From<Permit> for PermitDto {
    fn from(permit: Permit) -> Self {
        let uses_left = permit.uses_left();
        let ask = permit.ask.map(|ask| *ask);
        let waiting = ask.as_ref().and_then(|ask| ask.waiting.clone());
        let from = ask.as_ref().map(|ask| ask.from.clone()).unwrap_or_default();
        let document = waiting.as_ref().and_then(|waiting| waiting.document.clone());
        Self {
            id: permit.id,
            state: permit.state,
            caller: permit.caller,
            origin: from.origin,
            address: from.address,
            asked_uses: ask.as_ref().map(|ask| ask.uses),
            uses: permit.uses,
            uses_left,
            keys: permit.scope.keys.to_string(),
            digests: permit.scope.digests,
            operators: ask.map(|ask| ask.operators),
            allowed_by: permit.approvals.into_iter().map(|approval| approval.by).collect(),
            expires: permit.expires,
            job: waiting.map(|waiting| waiting.job),
            document: document.map(|document| DocumentDto { ticket: document.ticket, sha256: document.sha256, len: document.len }),
            words: None,
        }
    }
}

pub(super) async fn list(permits: Data<PermitService>, user: LocalUser) -> Result<HttpResponse, ControlError> {
    Ok(json(&permits_now(&permits, &user.operator()).await?))
}

async fn permits_now(permits: &PermitService, operator: &Operator) -> Result<PermitsDto, ControlError> {
    let dtos = |permits: Vec<Permit>| permits.into_iter().map(PermitDto::from).collect();
    Ok(PermitsDto { waiting: dtos(permits.waiting(operator).await?), live: dtos(permits.live(operator).await?) })
}

pub(super) async fn changes(
    permits: Data<PermitService>,
    user: LocalUser,
    closing: Data<Closing>,
    query: Result<Query<SinceDto>, actix_web::Error>,
) -> Result<HttpResponse, ControlError> {
    let change = wait_for_change(permits.watch(), &closing, query).await?;
    Ok(json(&PermitChangesDto { change, now: permits_now(&permits, &user.operator()).await? }))
}

pub(super) async fn show(permits: Data<PermitService>, user: LocalUser, id: Path<String>) -> Result<HttpResponse, ControlError> {
    let (operator, id) = (user.operator(), id_of(&id)?);
    let permit = permits.look(&operator, id).await?;
    let words = permits.words(&operator, id).await?;
    Ok(json(&PermitDto { words, ..permit.into() }))
}

pub(super) async fn grant(
    permits: Data<PermitService>,
    user: LocalUser,
    id: Path<String>,
    body: Payload,
) -> Result<HttpResponse, ControlError> {
    let GrantDto { uses } = read(body).await?;
    Ok(json(&PermitDto::from(permits.grant(&user.operator(), id_of(&id)?, uses).await?)))
}

pub(super) async fn refuse(permits: Data<PermitService>, user: LocalUser, id: Path<String>) -> Result<HttpResponse, ControlError> {
    Ok(json(&PermitDto::from(permits.refuse(&user.operator(), id_of(&id)?).await?)))
}

pub(super) async fn revoke(permits: Data<PermitService>, user: LocalUser, id: Path<String>) -> Result<HttpResponse, ControlError> {
    Ok(json(&PermitDto::from(permits.take_back(&user.operator(), id_of(&id)?).await?)))
}

fn id_of(text: &str) -> Result<PermitId, ControlError> {
    text.parse().map_err(|_| DecisionError::Refused(DecisionRefusal::NotFound).into())
}
