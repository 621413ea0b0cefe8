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
};
use crate::{
    domain::{ids::PermitId, permit::PermitRefusal},
    permit::PermitError,
};

pub(super) async fn request(state: State, asking: Asking, body: Body) -> Result<Reply, ApiError> {
    const OPERATION: Operation = Operation::AskPermission;
    // The other members are about the operator's dialog, which a caller whose consent is given by configuration does not meet.
    let uses = body.object::<Map<String, Value>>().ok().and_then(|object| object.get("accessTimesNumber")?.as_u64());
    let uses = uses.and_then(|uses| u32::try_from(uses).ok()).ok_or_else(|| OPERATION.error(BodyError::PermissionUses))?;
    let permit = state.services.permits.request(&asking.caller, uses).await.map_err(|error| OPERATION.error(error))?;
    Ok(Reply::of(Text::new("permission-granted").with("uses", permit.uses)).with("accessTokenUuid", permit.id))
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
        .with("revoked", permit.revoked))
}

pub(super) async fn revoke(state: State, asking: Asking, path: Path<PermissionPath>) -> Result<Reply, ApiError> {
    let id = path.id()?;
    state.services.permits.revoke(&asking.caller, id).await.map_err(|error| Operation::ReadPermission.error(error))?;
    Ok(Reply::ok("permission-revoked").with("accessTokenUuid", id))
}
