//! Permits that can still be used, and taking them back.

use actix_web::{
    HttpResponse,
    web::{Path, Query},
};
use askama::Template;

use super::{
    State,
    consent::id_of,
    error::ConsoleError,
    form::Form,
    frame::{self, Done, Frame, Place},
    overview::framed,
    visit::Visit,
};
use crate::domain::permit::Permit;

#[derive(Template)]
#[template(path = "permits.html")]
struct PermitsPage {
    frame: Frame,
    permits: Vec<Permit>,
}

pub(super) async fn list(state: State, visit: Visit, done: Query<Done>) -> Result<HttpResponse, ConsoleError> {
    let permits = state.services.permits.live(visit.operator()).await?;
    frame::page(&PermitsPage { frame: framed(&state, &visit, Place::Permits, "Permits").await.noting(done.done.as_deref()), permits })
}

pub(super) async fn revoke(state: State, visit: Visit, id: Path<String>, _form: Form) -> Result<HttpResponse, ConsoleError> {
    state.services.permits.take_back(visit.operator(), id_of(&id)?).await?;
    Ok(frame::done("permits", "revoked"))
}
