//! Operators' accounts. For administrators.

use actix_web::{
    HttpResponse,
    web::{Path, Query},
};
use askama::Template;

use super::{
    State,
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
        ids::{KeyName, OperatorName},
        operator::{Operator, OperatorAccount, OperatorSession, Role},
    },
};

#[derive(Template)]
#[template(path = "operators.html")]
struct OperatorsPage {
    frame: Frame,
    accounts: Vec<OperatorAccount>,
    is_administrator: bool,
    has_all: bool,
    boxes: Vec<(KeyName, bool)>,
}

#[derive(Template)]
#[template(path = "operator.html")]
struct OperatorPage {
    frame: Frame,
    account: OperatorAccount,
    sessions: Vec<OperatorSession>,
    is_administrator: bool,
    has_all: bool,
    /// Each key, and whether it is theirs by name.
    boxes: Vec<(KeyName, bool)>,
    is_self: bool,
}

#[derive(Template)]
#[template(path = "once.html")]
struct OncePage<'a> {
    frame: Frame,
    what: &'a str,
    whose: &'a str,
    secret: &'a str,
    back: &'a str,
}

pub(super) async fn list(state: State, visit: Visit, done: Query<Done>) -> Result<HttpResponse, ConsoleError> {
    visit.administrator()?;
    frame::page(&OperatorsPage {
        frame: framed(&state, &visit, Place::Operators, "Operators").await.noting(done.done.as_deref()),
        accounts: state.services.operators.list().await?,
        is_administrator: false,
        has_all: true,
        boxes: state.services.desk.key_names().into_iter().map(|key| (key, false)).collect(),
    })
}

pub(super) async fn show(state: State, visit: Visit, name: Path<String>, done: Query<Done>) -> Result<HttpResponse, ConsoleError> {
    visit.administrator()?;
    let name = name_of(&name)?;
    let account = state.services.operators.list().await?.into_iter().find(|account| account.operator.name == name);
    let account = account.ok_or(OperatorError::Gone)?;
    let own = |key: &KeyName| matches!(&account.operator.keys, KeyAccess::Only(keys) if keys.contains(key));
    let mut boxes: Vec<_> = state.services.desk.key_names().into_iter().map(|key| (key.clone(), own(&key))).collect();
    if let KeyAccess::Only(named) = &account.operator.keys {
        // Keys that the configuration has no more are still theirs, should they come back.
        let gone = named.iter().filter(|key| !boxes.iter().any(|(known, _)| known == *key)).cloned().collect::<Vec<_>>();
        boxes.extend(gone.into_iter().map(|key| (key, true)));
    }
    frame::page(&OperatorPage {
        frame: framed(&state, &visit, Place::Operators, name.as_str()).await.noting(done.done.as_deref()),
        sessions: state.services.operators.sessions(&name).await?,
        is_self: name == *visit.name(),
        is_administrator: account.operator.is_administrator(),
        has_all: account.operator.keys == KeyAccess::All,
        boxes,
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

/// The page with a secret that is shown once.
fn once(visit: &Visit, whose: &str, made: &Password) -> Result<HttpResponse, ConsoleError> {
    let frame = Frame::new(visit, Place::Operators, "Password");
    frame::page(&OncePage { frame, what: "password", whose, secret: made.reveal(), back: "operators" })
}

fn rights(form: &Form) -> Result<(Role, KeyAccess), ConsoleError> {
    let role = match form.text("role") {
        Some("administrator") => Role::Administrator,
        Some("approver") => Role::Approver,
        _ => return Err(ConsoleError::Form("choose a role".to_owned())),
    };
    Ok((role, keys_chosen(form)?))
}

/// The keys that a form chooses: all, or some by name.
pub(super) fn keys_chosen(form: &Form) -> Result<KeyAccess, ConsoleError> {
    if form.text("keys") == Some("all") {
        return Ok(KeyAccess::All);
    }
    let keys = form.all("key").map(str::parse).collect::<Result<Vec<KeyName>, _>>();
    let keys = keys.map_err(|error| ConsoleError::Form(error.to_string()))?;
    if keys.is_empty() { Err(ConsoleError::Form("choose at least one key, or all".to_owned())) } else { Ok(KeyAccess::Only(keys)) }
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
