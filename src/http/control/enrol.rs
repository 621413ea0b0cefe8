//! Operators' calls about certificate requests.
//!
//! | call, with the JSON it takes | does | answers |
//! |---|---|---|
//! | `GET /enrolments?state=…&organisation=…&limit=…` | lists the newest requests | [`EnrolmentsDto`] |
//! | `GET /enrolments/{id}` | shows a request, with its history | [`EnrolmentDto`] |
//! | `POST /enrolments`, [`NewEnrolmentDto`] | asks for a certificate, as a caller would | [`EnrolmentDto`] |
//! | `POST /enrolments/{id}/approve`, `/delete-key`, `/activate` | what they say | [`EnrolmentDto`] |
//! | `POST /enrolments/{id}/refuse`, `/certificate`, [`OrderDto`] | what they say | [`EnrolmentDto`] |

use actix_web::{
    HttpResponse,
    web::{Data, Path, Payload, Query},
};
use serde::{Deserialize, Serialize};

use super::{error::ControlError, json, local_user::LocalUser, read};
use crate::{
    domain::{
        caller::Account,
        certificate::validity,
        enrolment::{Enrolment, EnrolmentState, HistoryEntry, Refusal},
        ids::{EnrolmentId, KeyName, ProfileName},
        timestamp::Timestamp,
    },
    enrolment::{EnrolmentError, EnrolmentFilter, EnrolmentService, UploadedCertificate, request_in_pem},
    http::cert_request_api::create_for_operator,
};

/// The caller that an operator at the control socket is to the service.
const OPERATOR: &str = "operator";
/// The most requests that are listed at a time, and how many are if nothing is said.
const LIST_MAX: usize = 1_000;
const LIST_DEFAULT: usize = 50;

/// A certificate request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolmentDto {
    /// Its id.
    pub id: EnrolmentId,
    /// The id that its client chose.
    pub external_id: String,
    /// Where it stands.
    pub state: String,
    /// Its certificate is the one that the key signs with.
    pub active: bool,
    /// Why it was refused; may be empty.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub comment: String,
    /// Whose it is.
    pub organisation: String,
    /// For whom the certificate is.
    pub login: String,
    /// The holder's name.
    pub full_name: String,
    /// The profile.
    pub profile: ProfileName,
    /// The name that the key signs under.
    pub key_name: KeyName,
    /// The key's URI, if it is known where it is.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub key: Option<String>,
    /// The request of the CA in PEM.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub request: Option<String>,
    /// The end of the certificate's validity.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub not_after: Option<Timestamp>,
    /// When the request was made, in milliseconds since the Unix epoch.
    pub created: Timestamp,
    /// What happened to it.
    pub history: Vec<HistoryEntry>,
}

/// Certificate requests, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolmentsDto {
    /// The requests.
    pub enrolments: Vec<EnrolmentDto>,
}

/// Which requests to list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolmentsQueryDto {
    /// In this state only: `accepted`, `awaiting-issue` …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Of this organisation only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub organisation: Option<String>,
    /// At most so many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// An operator's order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderDto {
    /// Of a refusal: the ground.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ground: Option<Refusal>,
    /// Of a refusal: why, for the client.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub comment: String,
    /// Of an upload: certificates in PEM.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub certificates: String,
}

/// A certificate that an operator asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewEnrolmentDto {
    /// For whom.
    pub account: Account,
    /// The body of a request of the certificate-request API.
    pub body: serde_json::Value,
}

impl From<Enrolment> for EnrolmentDto {
    fn from(enrolment: Enrolment) -> Self {
        let not_after = enrolment.issued.as_ref().and_then(|issued| validity(&issued.certificate)).map(|validity| validity.not_after);
        Self {
            id: enrolment.id,
            external_id: enrolment.external_id.to_string(),
            state: enrolment.state.to_string(),
            active: enrolment.active,
            comment: enrolment.comment,
            organisation: enrolment.organisation,
            login: enrolment.login,
            full_name: enrolment.application.full_name,
            profile: enrolment.profile,
            key_name: enrolment.key_name,
            key: enrolment.key.map(|key| key.uri()),
            request: enrolment.request.map(|request| request_in_pem(&request.0)),
            not_after,
            created: enrolment.created,
            history: enrolment.history,
        }
    }
}

type Service = Data<EnrolmentService>;

pub(super) async fn list(
    service: Service,
    query: Result<Query<EnrolmentsQueryDto>, actix_web::Error>,
) -> Result<HttpResponse, ControlError> {
    let EnrolmentsQueryDto { state, organisation, limit } =
        query.map_err(|error| ControlError::EnrolmentsQuery(error.to_string()))?.into_inner();
    let known = |text: String| EnrolmentState::ALL.into_iter().find(|state| state.as_str() == text);
    let state = state.map(|text| known(text).ok_or_else(|| ControlError::EnrolmentsQuery("no such state".to_owned()))).transpose()?;
    let filter = EnrolmentFilter { state, organisation, ..EnrolmentFilter::default() };
    let found = service.list(&filter, limit.unwrap_or(LIST_DEFAULT).min(LIST_MAX)).await?;
    Ok(json(&EnrolmentsDto { enrolments: found.into_iter().map(EnrolmentDto::from).collect() }))
}

pub(super) async fn show(service: Service, id: Path<String>) -> Result<HttpResponse, ControlError> {
    Ok(json(&EnrolmentDto::from(service.show(id_of(&id)?).await?)))
}

pub(super) async fn create(service: Service, body: Payload) -> Result<HttpResponse, ControlError> {
    let NewEnrolmentDto { account, body } = read(body).await?;
    let operator = OPERATOR.parse().map_err(|_| ControlError::EnrolmentBody("no such caller".to_owned()))?;
    let created = create_for_operator(&service, operator, account, &body).await.map_err(ControlError::EnrolmentBody)?;
    Ok(json(&EnrolmentDto::from(created)))
}

pub(super) async fn approve(service: Service, user: LocalUser, id: Path<String>) -> Result<HttpResponse, ControlError> {
    Ok(json(&EnrolmentDto::from(service.approve(id_of(&id)?, &user.who()).await?)))
}

pub(super) async fn refuse(service: Service, user: LocalUser, id: Path<String>, body: Payload) -> Result<HttpResponse, ControlError> {
    let OrderDto { ground, comment, .. } = read(body).await?;
    let refused = service.refuse(id_of(&id)?, ground.unwrap_or(Refusal::ByOperator), &comment, &user.who()).await?;
    Ok(json(&EnrolmentDto::from(refused)))
}

pub(super) async fn delete_key(service: Service, user: LocalUser, id: Path<String>) -> Result<HttpResponse, ControlError> {
    Ok(json(&EnrolmentDto::from(service.delete_key(id_of(&id)?, &user.who()).await?)))
}

pub(super) async fn upload(service: Service, user: LocalUser, id: Path<String>, body: Payload) -> Result<HttpResponse, ControlError> {
    let OrderDto { certificates, .. } = read(body).await?;
    let uploaded = UploadedCertificate::from_pem(&certificates)?;
    Ok(json(&EnrolmentDto::from(service.upload(id_of(&id)?, uploaded, &user.who()).await?)))
}

pub(super) async fn activate(service: Service, user: LocalUser, id: Path<String>) -> Result<HttpResponse, ControlError> {
    Ok(json(&EnrolmentDto::from(service.activate_by_operator(id_of(&id)?, &user.who()).await?)))
}

fn id_of(text: &str) -> Result<EnrolmentId, ControlError> {
    text.parse().map_err(|_| ControlError::Enrolment(EnrolmentError::NotFound))
}
