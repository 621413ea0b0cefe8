//! Operators' accounts. For administrators.

use actix_web::{
    HttpResponse,
    web::{Path, Query},
};
use askama::Template;

use super::{
    State,
    choice::{self, KeyBoxes, Secret},
    error::ConsoleError,
    form::Form,
    frame::{self, Done, Frame, Place},
    overview::framed,
    visit::Visit,
};
use crate::{
    auth::{OperatorError, PASSWORD_MIN, Password},
    domain::{
        caller::KeyAccess,
        ids::OperatorName,
        operator::{Operator, OperatorAccount, OperatorSession, Role},
    },
};

#[derive(Template)]
#[template(path = "operators.html")]
struct OperatorsPage {
    frame: Frame,
    accounts: Vec<OperatorAccount>,
    is_administrator: bool,
    keys: KeyBoxes,
}

#[derive(Template)]
#[template(path = "operator.html")]
struct OperatorPage {
    frame: Frame,
    account: OperatorAccount,
    sessions: Vec<OperatorSession>,
    is_administrator: bool,
    keys: KeyBoxes,
    is_self: bool,
}

pub(super) async fn list(state: State, visit: Visit, done: Query<Done>) -> Result<HttpResponse, ConsoleError> {
    visit.administrator()?;
    frame::page(&OperatorsPage {
        frame: framed(&state, &visit, Place::Operators, "Operators").await.noting(done.done.as_deref()),
        accounts: state.services.operators.list().await?,
        is_administrator: false,
        keys: KeyBoxes::unticked(&state),
    })
}

pub(super) async fn show(state: State, visit: Visit, name: Path<String>, done: Query<Done>) -> Result<HttpResponse, ConsoleError> {
    visit.administrator()?;
    let name = name_of(&name)?;
    let account = state.services.operators.list().await?.into_iter().find(|account| account.operator.name == name);
    let account = account.ok_or(OperatorError::Gone)?;
    frame::page(&OperatorPage {
        frame: framed(&state, &visit, Place::Operators, name.as_str()).await.noting(done.done.as_deref()),
        sessions: state.services.operators.sessions(&name).await?,
        is_self: name == *visit.name(),
        is_administrator: account.operator.is_administrator(),
        keys: KeyBoxes::of(&state, &account.operator.keys),
        account,
    })
}

pub(super) async fn add(state: State, visit: Visit, form: Form) -> Result<HttpResponse, ConsoleError> {
    visit.administrator()?;
    let (role, keys) = rights(&form)?;
    let operator = Operator { name: form.parse("name")?, role, keys };
    let (whose, (password, made)) = (operator.name.to_string(), password(&form)?);
    state.services.operators.add(operator, password, &visit.by()).await?;
    match made {
        Some(made) => once(&visit, &whose, &made),
        None => Ok(frame::done("operators", "added")),
    }
}

pub(super) async fn change(state: State, visit: Visit, path: Path<(String, String)>, form: Form) -> Result<HttpResponse, ConsoleError> {
    visit.administrator()?;
    let (operators, by, (name, change)) = (&state.services.operators, visit.by(), path.into_inner());
    let name = name_of(&name)?;
    let back = format!("operators/{name}");
    match change.as_str() {
        "rights" => {
            let (role, keys) = rights(&form)?;
            operators.set_rights(&name, role, keys, &by).await?;
            Ok(frame::done(&back, "rights"))
        }
        "password" => {
            let (password, made) = password(&form)?;
            operators.set_password(&name, password, &by).await?;
            made.map_or_else(|| Ok(frame::done(&back, "password")), |made| once(&visit, name.as_str(), &made))
        }
        "disable" => operators.set_disabled(&name, true, &by).await.map(|()| frame::done(&back, "disabled")).map_err(Into::into),
        "enable" => operators.set_disabled(&name, false, &by).await.map(|()| frame::done(&back, "enabled")).map_err(Into::into),
        "logout" => operators.log_out_everywhere(&name, &by).await.map(|()| frame::done(&back, "logged-out")).map_err(Into::into),
        "remove" => operators.remove(&name, &by).await.map(|()| frame::done("operators", "removed")).map_err(Into::into),
        _ => Err(ConsoleError::NotFound),
    }
}

fn once(visit: &Visit, whose: &str, made: &Password) -> Result<HttpResponse, ConsoleError> {
    choice::once(visit, Place::Operators, Secret { what: "password", whose, secret: made.reveal() })
}

fn rights(form: &Form) -> Result<(Role, KeyAccess), ConsoleError> {
    let role = match form.text("role") {
        Some("administrator") => Role::Administrator,
        Some("approver") => Role::Approver,
        _ => return Err(ConsoleError::Form("choose a role".to_owned())),
    };
    Ok((role, KeyBoxes::chosen(form)?))
}

/// The password that was typed; or one that is made, and its copy to be shown.
fn password(form: &Form) -> Result<(Password, Option<Password>), ConsoleError> {
    match form.exact("password").filter(|typed| !typed.is_empty()) {
        Some(typed) => Ok((Password::chosen(typed).map_err(OperatorError::from)?, None)),
        None => {
            let made = Password::generate().map_err(OperatorError::from)?;
            let copy = Password::typed(made.reveal()).map_err(OperatorError::from)?;
            Ok((copy, Some(made)))
        }
    }
}

fn name_of(text: &str) -> Result<OperatorName, ConsoleError> {
    text.parse().map_err(|_| OperatorError::Gone.into())
}
