//! Callers: the programs and pages that may ask for signatures. For administrators.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

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
    auth::{CallerError, ListedCaller},
    domain::{
        caller::ConsentPolicy,
        ids::{CallerId, KeyName},
        stored_caller::{CallerState, NewCaller},
        timestamp::Timestamp,
    },
};

/// The longest life of an API key that can be chosen here, in days.
const DAYS_MAX: u64 = 3_650;
/// The longest time that an old key may stay good beside a new one, in hours.
const GRACE_HOURS_MAX: u64 = 90 * 24;

#[derive(Template)]
#[template(path = "callers.html")]
struct CallersPage {
    frame: Frame,
    callers: Vec<Row>,
    keys: KeyBoxes,
}

#[derive(Template)]
#[template(path = "caller.html")]
struct CallerPage {
    frame: Frame,
    row: Row,
}

struct Row {
    listed: ListedCaller,
    state: &'static str,
    tone: &'static str,
    known_by: String,
    good_keys: usize,
    ends: Option<Timestamp>,
}

pub(super) async fn list(state: State, visit: Visit, done: Query<Done>) -> Result<HttpResponse, ConsoleError> {
    visit.administrator()?;
    frame::page(&CallersPage {
        frame: framed(&state, &visit, Place::Callers, "Callers").await.noting(done.done.as_deref()),
        callers: state.services.callers.list().await?.into_iter().map(row).collect(),
        keys: KeyBoxes::unticked(&state),
    })
}

pub(super) async fn show(state: State, visit: Visit, name: Path<String>, done: Query<Done>) -> Result<HttpResponse, ConsoleError> {
    visit.administrator()?;
    let listed = state.services.callers.find(&id_of(&name)?).await?;
    let frame = framed(&state, &visit, Place::Callers, listed.caller.id.as_str()).await.noting(done.done.as_deref());
    frame::page(&CallerPage { frame, row: row(listed) })
}

fn row(listed: ListedCaller) -> Row {
    let now = Timestamp::from(SystemTime::now());
    let caller = &listed.caller;
    let (state, tone) = match caller.state(now) {
        _ if listed.problem.is_some() => ("not known", "bad"),
        CallerState::Active => ("active", "good"),
        CallerState::Expired => ("expired", "warn"),
        CallerState::Revoked => ("revoked", "calm"),
    };
    let good: Vec<_> = caller.api_keys.iter().filter(|key| key.is_good(now)).collect();
    let ways =
        [(!good.is_empty(), "API key"), (caller.client_certificate.is_some(), "certificate"), (!caller.origins.is_empty(), "origin")];
    let known_by = ways.into_iter().filter(|(is, _)| *is).map(|(_, way)| way).collect::<Vec<_>>().join(" and ");
    // The key that ends last says until when it can come in.
    let ends = good.iter().map(|key| key.expires).max_by_key(|ends| ends.map_or(u64::MAX, Timestamp::as_millis)).flatten();
    Row { state, tone, known_by, good_keys: good.len(), ends, listed }
}

pub(super) async fn add(state: State, visit: Visit, form: Form) -> Result<HttpResponse, ConsoleError> {
    visit.administrator()?;
    let id: CallerId = form.parse("name")?;
    let consent = policy(form.text("consent").unwrap_or_default())?;
    let default_key =
        form.text("default_key").map(str::parse).transpose().map_err(|_| ConsoleError::Form("this is no key's name".to_owned()))?;
    let with_api_key = form.is_ticked("with_api_key");
    let new = NewCaller {
        id: id.clone(),
        keys: KeyBoxes::chosen(&form)?,
        default_key,
        consent,
        consent_for: consent_for(&form)?,
        scopes: Default::default(),
        account: None,
        rate: None,
        with_api_key,
        expires: if with_api_key { expiry(&form)? } else { None },
        client_certificate: None,
        origins: form.text("origins").unwrap_or_default().split_whitespace().map(str::to_owned).collect(),
    };
    match state.services.callers.add(new, &visit.by()).await? {
        Some(key) => once(&visit, id.as_str(), key.reveal()),
        None => Ok(frame::done("callers", "caller-added")),
    }
}

pub(super) async fn change(state: State, visit: Visit, path: Path<(String, String)>, form: Form) -> Result<HttpResponse, ConsoleError> {
    visit.administrator()?;
    let (book, by, (name, change)) = (&state.services.callers, visit.by(), path.into_inner());
    let (id, back) = (id_of(&name)?, format!("callers/{name}"));
    match change.as_str() {
        "rotate" => {
            let hours = number(&form, "grace", GRACE_HOURS_MAX)?.unwrap_or(0);
            let key = book.rotate(&id, Duration::from_secs(hours * 3_600), expiry(&form)?, &by).await?;
            once(&visit, id.as_str(), key.reveal())
        }
        "revoke" => book.revoke(&id, &by).await.map(|()| frame::done(&back, "caller-revoked")).map_err(Into::into),
        "remove" => book.remove(&id, &by).await.map(|()| frame::done("callers", "caller-removed")).map_err(Into::into),
        _ => Err(ConsoleError::NotFound),
    }
}

fn once(visit: &Visit, whose: &str, secret: &str) -> Result<HttpResponse, ConsoleError> {
    choice::once(visit, Place::Callers, Secret { what: "API key", whose, secret })
}

/// Who decides, in words.
const fn decider(policy: &ConsentPolicy) -> &'static str {
    match policy {
        ConsentPolicy::Auto => "nobody: it is trusted",
        ConsentPolicy::Operator => "an operator",
        ConsentPolicy::TwoOperators => "two operators",
        ConsentPolicy::Deny => "never signs",
    }
}

fn policy(name: &str) -> Result<ConsentPolicy, ConsoleError> {
    let known = ConsentPolicy::ALL.into_iter().find(|policy| policy.as_str() == name);
    known.ok_or_else(|| ConsoleError::Form("choose who decides about its signatures".to_owned()))
}

/// Who decides about signatures with single keys: fields of the form `KEY=POLICY`, and empty ones.
fn consent_for(form: &Form) -> Result<BTreeMap<KeyName, ConsentPolicy>, ConsoleError> {
    let chosen = form.all("consent_for").filter(|chosen| !chosen.is_empty());
    let of_key = |chosen: &str| {
        let (key, name) = chosen.split_once('=').unwrap_or_default();
        Ok((key.parse().map_err(|_| ConsoleError::Form("this is no key's name".to_owned()))?, policy(name)?))
    };
    chosen.map(of_key).collect()
}

/// When a key ends; `None` for never.
fn expiry(form: &Form) -> Result<Option<Timestamp>, ConsoleError> {
    let days = number(form, "days", DAYS_MAX)?;
    Ok(days.map(|days| Timestamp::from(SystemTime::now()).after(Duration::from_secs(days * 86_400))))
}

fn number(form: &Form, field: &str, max: u64) -> Result<Option<u64>, ConsoleError> {
    let read = form.text(field).map(str::parse).transpose().ok().map(|number| number.filter(|number| *number > 0));
    match read {
        Some(number) if number.is_none_or(|number: u64| number <= max) => Ok(number),
        _ => Err(ConsoleError::Form(format!("write a number up to {max}"))),
    }
}

/// What is no name is no caller.
fn id_of(text: &str) -> Result<CallerId, ConsoleError> {
    text.parse().map_err(|_| ConsoleError::NotFound)
}

impl From<CallerError> for ConsoleError {
    fn from(error: CallerError) -> Self {
        match error {
            CallerError::Missing(_) => Self::NotFound,
            CallerError::StoreUnavailable => Self::Store,
            other => Self::Caller(other),
        }
    }
}
