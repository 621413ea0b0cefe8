//! Permissions (access tokens): asking for one, reading it, revoking it.

use actix_web::web::Path;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    State,
    error::{ApiError, BodyError, Operation},
    messages::Text,
    reply::Reply,
    request::{Asking, Body},
    signature::too_many_waiting,
};
use crate::{
    domain::{consent::ViewSize, ids::PermitId, permit::PermitRefusal},
    permit::{PermitAsk, PermitError},
};

pub(super) async fn request(state: State, asking: Asking, body: Body) -> Result<Reply, ApiError> {
    const OPERATION: Operation = Operation::AskPermission;
    let ask = asked(&body).ok_or_else(|| OPERATION.error(BodyError::PermissionUses))?;
    let _held = state.limits.hold_open(&asking.caller.id).map_err(|error| OPERATION.error(too_many_waiting(error)))?;
    // A request that is given up, by its client or by a server that closes, is withdrawn.
    let decided = state.unless_closing(state.services.permits.request(&asking.caller, ask)).await;
    let permit = decided.unwrap_or(Err(PermitError::StoreUnavailable)).map_err(|error| OPERATION.error(error))?;
    Ok(Reply::of(Text::new("permission-granted").with("uses", permit.uses)).with("accessTokenUuid", permit.id))
}

/// Only the number of signatures is required; what is said of the operator's dialog and cannot be understood is as if it were not there.
fn asked(body: &Body) -> Option<PermitAsk> {
    let object: Map<String, Value> = body.object().ok()?;
    let uses = u32::try_from(object.get("accessTimesNumber")?.as_u64()?).ok()?;
    let number = |name| object.get(name).and_then(Value::as_u64);
    let words = object.get("metaData").and_then(Value::as_str).filter(|words| !words.is_empty()).map(str::to_owned);
    Some(PermitAsk { uses, exactly: None, words, view: ViewSize::wished(number("prefViewWidth"), number("prefViewHeight")) })
}

#[derive(Deserialize)]
pub(super) struct PermissionPath {
    uuid: String,
}

impl PermissionPath {
    fn id(&self) -> Result<PermitId, ApiError> {
        self.uuid.parse().map_err(|_| Operation::ReadPermission.error(PermitError::Refused(PermitRefusal::Unknown)))
    }
}

pub(super) async fn read(state: State, asking: Asking, path: Path<PermissionPath>) -> Result<Reply, ApiError> {
    let found = state.services.permits.find(&asking.caller, path.id()?).await;
    let permit = found.map_err(|error| Operation::ReadPermission.error(error))?;
    Ok(Reply::ok("permission-found")
        .with("accessTokenUuid", permit.id)
        .with("usesLeft", permit.uses_left())
        .with("expires", permit.expires.to_rfc3339())
        .with("revoked", permit.is_revoked()))
}

pub(super) async fn revoke(state: State, asking: Asking, path: Path<PermissionPath>) -> Result<Reply, ApiError> {
    let id = path.id()?;
    state.services.permits.revoke(&asking.caller, id).await.map_err(|error| Operation::ReadPermission.error(error))?;
    Ok(Reply::ok("permission-revoked").with("accessTokenUuid", id))
}
