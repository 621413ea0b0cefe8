//! The key of a session: choosing it by URI or name, checking it, reading its certificate.

use actix_web::{HttpMessage, HttpRequest, HttpResponse, web::Path};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    State,
    certificate_info::{KeyType, describe},
    error::{ApiError, BodyError, Operation},
    info::{base64_answer, info_answer},
    messages::Text,
    reply::{Reply, say},
    request::{Asking, Body, GivenPin, TicketPath},
};
use crate::ticket::{Certificate, KeyReport};

pub(super) async fn choose(state: State, asking: Asking, ticket: TicketPath, request: HttpRequest, body: Body) -> Result<Reply, ApiError> {
    const OPERATION: Operation = Operation::ChooseKey;
    let tickets = &state.services.tickets;
    tickets.check(&asking.caller, ticket.0).await.map_err(|error| OPERATION.error(error))?;
    let key = key_path(request.content_type(), &body).map_err(|error| OPERATION.error(error))?;
    let key = key.parse().map_err(|error| OPERATION.error(BodyError::KeyUri(error)))?;
    tickets.choose_key(&asking.caller, ticket.0, key).await.map_err(|error| OPERATION.error(error))?;
    Ok(Reply::ok("key-chosen"))
}

/// The URI or the configured name of a key in the body; anything else that may be sent here is a key container in one form or another.
fn key_path(content_type: &str, body: &Body) -> Result<String, BodyError> {
    let binary = ["application/octet-stream", "multipart/form-data"].iter().any(|kind| kind.eq_ignore_ascii_case(content_type));
    match body.object::<Map<String, Value>>() {
        _ if binary => Err(BodyError::KeyContainer),
        Err(error) => Err(error),
        Ok(object) => match object.get("keyStorePath") {
            Some(Value::String(path)) => Ok(path.clone()),
            None if object.contains_key("base64Data") => Err(BodyError::KeyContainer),
            _ => Err(BodyError::MissingMember("keyStorePath")),
        },
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PinDto {
    key_store_password: GivenPin,
}

pub(super) async fn check(state: State, asking: Asking, ticket: TicketPath, request: HttpRequest, body: Body) -> Result<Reply, ApiError> {
    let KeyReport { certificate, time_stamps_alone } = report(&state, &asking, &ticket, &body, Operation::CheckKey).await?;
    let mut signature = json!({ "canBeUsed": certificate.is_some() && !time_stamps_alone });
    let said = match &certificate {
        None => "key-without-certificate",
        Some(_) if time_stamps_alone => "key-for-time-stamps",
        Some(_) => "key-usable",
    };
    signature["message"] = say(&request, &Text::new(said)).into();
    if let Some(certificate) = &certificate {
        signature["certificateInfo"] = describe(&request, certificate).into();
    }
    let key_agreement = json!({ "canBeUsed": false, "message": say(&request, &Text::new("key-agreement-none")) });
    Ok(Reply::ok("key-checked").with("signature", signature).with("keyAgreement", key_agreement))
}

#[derive(Deserialize)]
pub(super) struct CertificatePath {
    #[serde(rename = "keyType")]
    key_type: String,
}

pub(super) async fn certificate_info(
    state: State,
    asking: Asking,
    ticket: TicketPath,
    path: Path<CertificatePath>,
    request: HttpRequest,
    body: Body,
) -> Result<HttpResponse, ApiError> {
    let certificate = certificate_of_type(&state, &asking, &ticket, &path, &body).await?;
    Ok(info_answer(&request, certificate.as_ref()))
}

pub(super) async fn certificate_base64(
    state: State,
    asking: Asking,
    ticket: TicketPath,
    path: Path<CertificatePath>,
    request: HttpRequest,
    body: Body,
) -> Result<HttpResponse, ApiError> {
    let certificate = certificate_of_type(&state, &asking, &ticket, &path, &body).await?;
    Ok(base64_answer(&request, certificate.as_ref()))
}

async fn certificate_of_type(
    state: &State,
    asking: &Asking,
    ticket: &TicketPath,
    path: &CertificatePath,
    body: &Body,
) -> Result<Option<Certificate>, ApiError> {
    const OPERATION: Operation = Operation::ReadCertificate;
    state.services.tickets.check(&asking.caller, ticket.0).await.map_err(|error| OPERATION.error(error))?;
    match KeyType::parse(&path.key_type)? {
        KeyType::KeyAgreement => Ok(None),
        KeyType::Signature => Ok(report(state, asking, ticket, body, OPERATION).await?.certificate),
    }
}

async fn report(state: &State, asking: &Asking, ticket: &TicketPath, body: &Body, operation: Operation) -> Result<KeyReport, ApiError> {
    let tickets = &state.services.tickets;
    tickets.check(&asking.caller, ticket.0).await.map_err(|error| operation.error(error))?;
    let dto: PinDto = body.object_or_nothing().map_err(|error| operation.error(error))?;
    let pin = dto.key_store_password.into_pin().map_err(|error| operation.error(error))?;
    tickets.key_report(&asking.caller, ticket.0, pin.as_ref()).await.map_err(|error| operation.error(error))
}
