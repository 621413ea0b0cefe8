//! Changes of uploaded signatures: asking for one, asking how it stands, fetching what came of it.

use actix_web::{Either, HttpRequest, Responder, web::Bytes};

use super::{
    State,
    error::{ApiError, Operation},
    reply::Reply,
    request::{Asking, TicketPath},
    signature::{in_base64, in_bytes, too_many_waiting},
};
use crate::ticket::SignatureDocument;

pub(super) async fn start(state: State, asking: Asking, ticket: TicketPath, _body: Bytes) -> Result<Reply, ApiError> {
    let started = state.services.tickets.start_modification(&asking.caller, ticket.0).await;
    started.map_err(|error| Operation::StartModification.error(error))?;
    Ok(Reply::ok("modification-started"))
}

pub(super) async fn state(state: State, asking: Asking, ticket: TicketPath) -> Result<Reply, ApiError> {
    let made = state.services.tickets.modification_is_made(&asking.caller, ticket.0).await;
    let made = made.map_err(|error| Operation::FetchModification.error(error))?;
    Ok(if made { Reply::ok("signature-modified") } else { pending() })
}

pub(super) async fn data(state: State, asking: Asking, ticket: TicketPath) -> Result<impl Responder, ApiError> {
    let Some(document) = wait_for(&state, &asking, ticket).await? else { return Ok(Either::Right(pending())) };
    Ok(Either::Left(in_bytes(document)))
}

pub(super) async fn base64_data(
    state: State,
    asking: Asking,
    ticket: TicketPath,
    request: HttpRequest,
) -> Result<impl Responder, ApiError> {
    let Some(document) = wait_for(&state, &asking, ticket).await? else { return Ok(Either::Right(pending())) };
    Ok(Either::Left(in_base64(&request, "signature-modified", document)))
}

fn pending() -> Reply {
    Reply::in_progress("modification-pending")
}

async fn wait_for(state: &State, asking: &Asking, ticket: TicketPath) -> Result<Option<SignatureDocument>, ApiError> {
    const OPERATION: Operation = Operation::FetchModification;
    let _held = state.limits.hold_open(&asking.caller.id).map_err(|error| OPERATION.error(too_many_waiting(error)))?;
    let modified = state.unless_closing(state.services.tickets.modified(&asking.caller, ticket.0)).await;
    modified.transpose().map(Option::flatten).map_err(|error| OPERATION.error(error))
}
