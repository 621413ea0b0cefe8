//! Calls about certificate requests.

use actix_web::{HttpResponse, http::header, web::Data};
use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{
    State, Version, dto,
    error::{Check, JSON, Notice},
    request::{Asking, Body, Named},
};
use crate::enrolment::{
    Confirmation,
    print::{Edition, print as print_pdf},
};

pub(super) async fn create(state: State, version: Data<Version>, Asking(who): Asking, Body(body): Body) -> Result<HttpResponse, Notice> {
    let new = dto::new_request(&body, who.for_all)?;
    let created = state.services.enrolment.create(&who, new).await?;
    let mut response = if **version == Version::V1 { HttpResponse::Created() } else { HttpResponse::Ok() };
    Ok(response.insert_header((header::CONTENT_TYPE, JSON)).body(dto::created(&created).to_string()))
}

pub(super) async fn state(state: State, Asking(who): Asking, Named(id): Named) -> Result<HttpResponse, Notice> {
    let enrolment = state.services.enrolment.find(&who, &id).await?;
    Ok(HttpResponse::Ok().insert_header((header::CONTENT_TYPE, JSON)).body(dto::state(&enrolment).to_string()))
}

pub(super) async fn print(state: State, version: Data<Version>, Asking(who): Asking, Named(id): Named) -> Result<HttpResponse, Notice> {
    let enrolment = state.services.enrolment.find(&who, &id).await?;
    let edition = if **version == Version::V1 { Edition::Application } else { Edition::WithRequest };
    let printed = actix_web::web::block(move || print_pdf(&enrolment, edition)).await;
    Ok(HttpResponse::Ok().content_type("application/pdf").body(printed.map_err(Notice::unknown)??))
}

pub(super) async fn confirm(state: State, Asking(who): Asking, Named(id): Named, Body(body): Body) -> Result<HttpResponse, Notice> {
    let mut given = Vec::new();
    for signature in dto::confirmation(&body)? {
        let wrong = |field, message: &str| Notice::invalid(vec![Check { field, message: message.to_owned() }]);
        let not_base64 = || wrong("digestSignatures.base64Encoded", "Значение не является base64");
        let cms = STANDARD.decode(signature.base64.split_ascii_whitespace().collect::<String>()).map_err(|_| not_base64())?;
        let not_uuid = || wrong("digestSignatures.certificateUuid", "Значение не является UUID");
        let certificate = signature.certificate.map(|uuid| uuid.parse()).transpose().map_err(|_| not_uuid())?;
        given.push(Confirmation { cms, certificate });
    }
    let enrolment = state.services.enrolment.confirm(&who, &id, given).await?;
    Ok(HttpResponse::Ok().insert_header((header::CONTENT_TYPE, JSON)).body(dto::state(&enrolment).to_string()))
}

pub(super) async fn activate(state: State, Asking(who): Asking, Named(id): Named) -> Result<HttpResponse, Notice> {
    state.services.enrolment.activate(&who, &id).await?;
    Ok(HttpResponse::Ok().insert_header((header::CONTENT_TYPE, JSON)).finish())
}
