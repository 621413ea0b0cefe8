//! Time stamps over a ticket's content: asking for one, fetching it, bringing one along, checking it.

use actix_web::{
    Either, HttpRequest, HttpResponse, Responder,
    web::{Bytes, Payload},
};
use base64::{Engine, engine::general_purpose::STANDARD};

use super::{
    State,
    error::{ApiError, Operation},
    messages::Text,
    reply::Reply,
    request::{Asking, TicketPath},
    upload::{TIME_STAMP, receive},
};
use crate::ticket::{TimeStampReport, TokenUpload};

pub(super) async fn start(state: State, asking: Asking, ticket: TicketPath, _body: Bytes) -> Result<Reply, ApiError> {
    let started = state.services.tickets.start_time_stamp(&asking.caller, ticket.0).await;
    started.map_err(|error| Operation::StartTimeStamp.error(error))?;
    Ok(Reply::ok("time-stamp-started"))
}

pub(super) async fn state(state: State, asking: Asking, ticket: TicketPath) -> Result<Reply, ApiError> {
    let made = state.services.tickets.time_stamp_is_made(&asking.caller, ticket.0).await;
    let made = made.map_err(|error| Operation::FetchTimeStamp.error(error))?;
    Ok(if made { Reply::ok("time-stamp-created") } else { Reply::in_progress("time-stamp-pending") })
}

pub(super) async fn data(state: State, asking: Asking, ticket: TicketPath) -> Result<impl Responder, ApiError> {
    Ok(match wait_for(&state, &asking, ticket).await? {
        Some(token) => Either::Left(HttpResponse::Ok().content_type("application/octet-stream").body(token)),
        None => Either::Right(Reply::in_progress("time-stamp-pending")),
    })
}

pub(super) async fn base64_data(state: State, asking: Asking, ticket: TicketPath) -> Result<Reply, ApiError> {
    Ok(match wait_for(&state, &asking, ticket).await? {
        Some(token) => Reply::ok("time-stamp-created").with("base64Data", STANDARD.encode(token)),
        None => Reply::in_progress("time-stamp-pending"),
    })
}

async fn wait_for(state: &State, asking: &Asking, ticket: TicketPath) -> Result<Option<Vec<u8>>, ApiError> {
    let _held = state
        .limits
        .hold_open(&asking.caller.id)
        .map_err(|error| Operation::FetchTimeStamp.error(super::signature::too_many_waiting(error)))?;
    let token = state.unless_closing(state.services.tickets.time_stamp(&asking.caller, ticket.0)).await;
    token.transpose().map(Option::flatten).map_err(|error| Operation::FetchTimeStamp.error(error))
}

pub(super) async fn upload(
    state: State,
    asking: Asking,
    ticket: TicketPath,
    request: HttpRequest,
    body: Payload,
) -> Result<Reply, ApiError> {
    const OPERATION: Operation = Operation::UploadTimeStamp;
    let tickets = &state.services.tickets;
    tickets.check(&asking.caller, ticket.0).await.map_err(|error| OPERATION.error(error))?;
    let mut token = TokenUpload::default();
    receive(&state, &request, body, TIME_STAMP, &mut token).await?;
    tickets.put_time_stamp(&asking.caller, ticket.0, token).await.map_err(|error| OPERATION.error(error))?;
    Ok(Reply::ok("time-stamp-uploaded"))
}

pub(super) async fn start_check(state: State, asking: Asking, ticket: TicketPath, _body: Bytes) -> Result<Reply, ApiError> {
    let report = state.services.tickets.check_time_stamp(&asking.caller, ticket.0).await;
    report.map_err(|error| Operation::CheckTimeStamp.error(error))?;
    Ok(Reply::ok("time-stamp-check-started"))
}

pub(super) async fn check(state: State, asking: Asking, ticket: TicketPath) -> Result<Reply, ApiError> {
    let report = state.services.tickets.check_time_stamp(&asking.caller, ticket.0).await;
    let TimeStampReport { fault, time, authority } = report.map_err(|error| Operation::CheckTimeStamp.error(error))?;
    let reply = match fault {
        None => Reply::ok("time-stamp-valid"),
        Some(fault) => Reply::not_valid(Text::new("time-stamp-not-valid").with("detail", fault)),
    };
    Ok(reply
        .with("dateTime", time.map(|time| time.to_rfc3339()))
        .with("tsaCertificateSerialNumber", authority.as_ref().map(|authority| authority.serial()))
        .with("tsaCertificateIssuerX500Name", authority.as_ref().map(|authority| authority.issuer())))
}
