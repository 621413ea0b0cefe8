//! An operator's own account: password and sessions.

use actix_web::{HttpResponse, web::Query};
use askama::Template;

use super::{
    State,
    error::ConsoleError,
    form::Form,
    frame::{self, Done, Frame, Place},
    visit::{Arrival, Visit},
};
use crate::{
    auth::{LoginError, OperatorError, PASSWORD_MIN, Password},
    domain::operator::OperatorSession,
};

#[derive(Template)]
#[template(path = "account.html")]
struct AccountPage {
    frame: Frame,
    keys: String,
    sessions: Vec<SessionRow>,
}

struct SessionRow {
    session: OperatorSession,
    is_this: bool,
}

pub(super) async fn show(state: State, visit: Visit, done: Query<Done>) -> Result<HttpResponse, ConsoleError> {
    let sessions = state.services.operators.sessions(visit.name()).await?;
    let row = |session: OperatorSession| SessionRow { is_this: session.id == visit.open.session.id, session };
    frame::page(&AccountPage {
        frame: super::overview::framed(&state, &visit, Place::Account, "Your account").await.noting(done.done.as_deref()),
        keys: frame::keys_of(&visit.operator().keys),
        sessions: sessions.into_iter().map(row).collect(),
    })
}

pub(super) async fn set_password(state: State, visit: Visit, arrival: Arrival, form: Form) -> Result<HttpResponse, ConsoleError> {
    let operators = &state.services.operators;
    let (old, new, again) = (form.exact("old").unwrap_or_default(), form.exact("new").unwrap_or_default(), form.exact("again"));
    if again != Some(new) {
        return Err(ConsoleError::Form("the two new passwords are not the same".to_owned()));
    }
    let new = Password::chosen(new).map_err(OperatorError::from)?;
    operators.confirm(visit.name(), old, arrival.address).await.map_err(|error| match error {
        // A 401 would mean that the session is over.
        LoginError::Wrong => ConsoleError::Form("your present password is another one".to_owned()),
        other => other.into(),
    })?;
    operators.set_password(visit.name(), new, &visit.by()).await?;
    Ok(frame::done("login", "own-password"))
}

pub(super) async fn log_out_everywhere(state: State, visit: Visit, _form: Form) -> Result<HttpResponse, ConsoleError> {
    state.services.operators.log_out_everywhere(visit.name(), &visit.by()).await?;
    Ok(frame::done("login", "bye"))
}
