//! Operators' calls about jobs.
//!
//! | call, with the JSON it takes | does | answers |
//! |---|---|---|
//! | `GET /jobs?state=…&caller=…&limit=…` | lists the newest jobs | [`JobsDto`] |
//! | `GET /jobs/{id}` | shows a job | [`JobDto`] |
//! | `POST /jobs/{id}/resolve`, [`ResolveDto`] | settles a job in doubt | [`JobDto`] |

use actix_web::{
    HttpResponse,
    web::{Data, Path, Payload, Query},
};
use serde::{Deserialize, Serialize};

use super::{error::ControlError, json, local_user::LocalUser, read};
use crate::{
    domain::{
        ids::{CallerId, JobId, KeyName, PermitId},
        job::{FailureCause, JobOutcome, JobState, SigningJob},
        timestamp::Timestamp,
    },
    signing::{jobs::JobCommandError, service::JobFilter, tokens::TokenDesk},
};

/// The most jobs that are listed at a time, and how many are if nothing is said.
const LIST_MAX: usize = 1_000;
const LIST_DEFAULT: usize = 50;

/// A job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobDto {
    /// Its id.
    pub id: JobId,
    /// Where it stands.
    pub state: JobState,
    /// Why it ended without a signature.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cause: Option<FailureCause>,
    /// The same in words; may be empty.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub detail: String,
    /// Who asked.
    pub caller: CallerId,
    /// The web page that asked.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub origin: Option<String>,
    /// The address that asked.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub address: Option<std::net::IpAddr>,
    /// The configured name of the key.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub key_name: Option<KeyName>,
    /// The key's URI.
    pub key: String,
    /// The signature algorithm.
    pub algorithm: String,
    /// What the token was given, as the audit log has it.
    pub digest: String,
    /// The permit that pays.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub permit: Option<PermitId>,
    /// When it was accepted, in milliseconds since the Unix epoch.
    pub accepted: Timestamp,
    /// When it expires if it waits until then.
    pub deadline: Timestamp,
}

/// Jobs, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobsDto {
    /// The jobs.
    pub jobs: Vec<JobDto>,
}

/// Which jobs to list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobsQueryDto {
    /// In this state only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<JobState>,
    /// Of this caller only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caller: Option<CallerId>,
    /// At most so many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// What an operator found about a job in doubt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolveDto {
    /// The token had signed.
    pub signed: bool,
}

impl From<SigningJob> for JobDto {
    fn from(job: SigningJob) -> Self {
        let (cause, detail) = match job.outcome {
            Some(JobOutcome::NotSigned { cause, detail }) => (Some(cause), detail),
            Some(JobOutcome::Signed(_)) | None => (None, String::new()),
        };
        Self {
            id: job.id,
            state: job.state,
            cause,
            detail,
            caller: job.caller,
            origin: job.from.origin,
            address: job.from.address,
            key: job.key.uri(),
            key_name: job.key.name,
            algorithm: job.to_sign.algorithm().to_string(),
            digest: job.to_sign.fingerprint(),
            permit: job.permit,
            accepted: job.accepted,
            deadline: job.deadline,
        }
    }
}

pub(super) async fn list(
    desk: Data<TokenDesk>,
    query: Result<Query<JobsQueryDto>, actix_web::Error>,
) -> Result<HttpResponse, ControlError> {
    let JobsQueryDto { state, caller, limit } = query.map_err(|error| ControlError::JobsQuery(error.to_string()))?.into_inner();
    let found = desk.jobs().list(&JobFilter { state, caller, before: None }, limit.unwrap_or(LIST_DEFAULT).min(LIST_MAX)).await?;
    Ok(json(&JobsDto { jobs: found.into_iter().map(JobDto::from).collect() }))
}

pub(super) async fn show(desk: Data<TokenDesk>, id: Path<String>) -> Result<HttpResponse, ControlError> {
    Ok(json(&JobDto::from(desk.jobs().find(id_of(&id)?).await?)))
}

pub(super) async fn resolve(desk: Data<TokenDesk>, user: LocalUser, id: Path<String>, body: Payload) -> Result<HttpResponse, ControlError> {
    let ResolveDto { signed } = read(body).await?;
    Ok(json(&JobDto::from(desk.jobs().resolve(id_of(&id)?, signed, user.who()).await?)))
}

fn id_of(text: &str) -> Result<JobId, ControlError> {
    text.parse().map_err(|_| ControlError::Job(JobCommandError::NotFound))
}
