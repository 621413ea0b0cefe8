//! Sessions: making and deleting them, their metadata and their options.

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    State,
    error::{ApiError, BodyError, Operation},
    options::{self, OptionChanges},
    reply::Reply,
    request::{Asking, Body, TicketPath},
};

pub(super) async fn create(state: State, asking: Asking) -> Result<Reply, ApiError> {
    let ticket = state.services.tickets.create(&asking.caller).await.map_err(|error| Operation::CreateTicket.error(error))?;
    Ok(Reply::ok("session-created").with("ticketUuid", ticket))
}

pub(super) async fn remove(state: State, asking: Asking, ticket: TicketPath) -> Result<Reply, ApiError> {
    state.services.tickets.delete(&asking.caller, ticket.0).await.map_err(|error| Operation::DeleteTicket.error(error))?;
    Ok(Reply::ok("session-deleted").with("ticketUuid", ticket.0))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MetadataDto {
    meta_data: Option<Value>,
}

pub(super) async fn set_metadata(state: State, asking: Asking, ticket: TicketPath, body: Body) -> Result<Reply, ApiError> {
    const OPERATION: Operation = Operation::SetMetadata;
    state.services.tickets.check(&asking.caller, ticket.0).await.map_err(|error| OPERATION.error(error))?;
    let dto: MetadataDto = body.object().map_err(|error| OPERATION.error(error))?;
    let Some(Value::String(metadata)) = dto.meta_data else { return Err(OPERATION.error(BodyError::MissingMember("metaData"))) };
    state.services.tickets.set_metadata(&asking.caller, ticket.0, metadata).await.map_err(|error| OPERATION.error(error))?;
    Ok(Reply::ok("metadata-uploaded"))
}

pub(super) async fn set_options(state: State, asking: Asking, ticket: TicketPath, body: Body) -> Result<Reply, ApiError> {
    const OPERATION: Operation = Operation::SetOptions;
    state.services.tickets.check(&asking.caller, ticket.0).await.map_err(|error| OPERATION.error(error))?;
    let object: Map<String, Value> = body.object().map_err(|error| OPERATION.error(error))?;
    let changes = OptionChanges::parse(&object).map_err(|error| OPERATION.error(error))?;
    let set = state.services.tickets.set_options(&asking.caller, ticket.0, |options| changes.apply(options));
    let in_force = set.await.map_err(|error| OPERATION.error(error))?;
    Ok(Reply::ok("options-set").with("settedOptions", options::to_wire(&in_force)))
}
