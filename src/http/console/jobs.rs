//! Jobs: running and past ones, why one failed, and an operator's word about those in doubt.

use actix_web::{
    HttpResponse,
    web::{Path, Query},
};
use askama::Template;
use serde::Deserialize;

use super::{
    State,
    error::ConsoleError,
    form::Form,
    frame::{self, Done, Frame, Place},
    overview::framed,
    visit::Visit,
};
use crate::{
    domain::{
        caller::KeyAccess,
        ids::{CallerId, JobId, KeyName},
        job::{JobOutcome, JobState, SigningJob},
    },
    http::app::AppState,
    signing::{
        jobs::{Found, JobCommandError},
        service::JobFilter,
    },
};

/// What can be chosen to be listed, and what it is called.
const STATES: [(&str, &str, Option<JobState>); 7] = [
    ("", "All", None),
    ("queued", "Queued", Some(JobState::Queued)),
    ("signing", "Signing", Some(JobState::Signing)),
    ("signed", "Signed", Some(JobState::Signed)),
    ("failed", "Failed", Some(JobState::Failed)),
    ("in-doubt", "In doubt", Some(JobState::InDoubt)),
    ("expired", "Expired", Some(JobState::Expired)),
];

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Search {
    state: String,
    caller: String,
    key: String,
    id: String,
    before: String,
}

#[derive(Template)]
#[template(path = "jobs.html")]
struct JobsPage {
    frame: Frame,
    tabs: Vec<Tab>,
    search: Search,
    keys: Vec<KeyName>,
    jobs: Vec<JobRow>,
    /// Where the next page begins.
    next: Option<String>,
}

struct Tab {
    name: &'static str,
    query: String,
    is_here: bool,
}

struct JobRow {
    job: SigningJob,
    tone: &'static str,
    why: String,
    /// The beginning of its id.
    short_id: String,
}

#[derive(Template)]
#[template(path = "job.html")]
struct JobPage {
    frame: Frame,
    row: JobRow,
}

pub(super) async fn list(state: State, visit: Visit, search: Query<Search>) -> Result<HttpResponse, ConsoleError> {
    let search = search.into_inner();
    if let Ok(id) = search.id.trim().parse::<JobId>() {
        return Ok(frame::redirect(&format!("{}/jobs/{id}", super::BASE)));
    }
    let (filter, key) = filter_of(&search)?;
    let found = state.services.desk.jobs().search(&filter, &visit.operator().keys, key.as_ref()).await?;
    let next = found.next.map(|before| query(&search, &search.state, Some(before)));
    let tab =
        |(code, name, _): (&'static str, &'static str, _)| Tab { name, query: query(&search, code, None), is_here: search.state == code };
    frame::page(&JobsPage {
        tabs: STATES.map(tab).into(),
        frame: framed(&state, &visit, Place::Jobs, "Jobs").await,
        keys: own_keys(&state, &visit),
        jobs: rows(found),
        next,
        search,
    })
}

/// The keys that an operator can choose from.
pub(super) fn own_keys(state: &AppState, visit: &Visit) -> Vec<KeyName> {
    match &visit.operator().keys {
        KeyAccess::All => state.services.desk.key_names(),
        KeyAccess::Only(keys) => keys.clone(),
    }
}

fn filter_of(search: &Search) -> Result<(JobFilter, Option<KeyName>), ConsoleError> {
    let given = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
    let wrong = |what: &str| ConsoleError::Form(format!("this is no {what}"));
    let state = STATES.iter().find(|(code, _, _)| *code == search.state).ok_or_else(|| wrong("state of a job"))?.2;
    let caller = given(&search.caller).map(|text| text.parse::<CallerId>()).transpose().map_err(|_| wrong("caller's name"))?;
    let before = given(&search.before).map(|text| text.parse::<JobId>()).transpose().map_err(|_| wrong("job"))?;
    let key = given(&search.key).map(|text| text.parse::<KeyName>()).transpose().map_err(|_| wrong("key's name"))?;
    if given(&search.id).is_some() {
        return Err(wrong("job's id"));
    }
    Ok((JobFilter { state, caller, before }, key))
}

/// The address of a list; its parts were read as names, so they need no escaping.
fn query(search: &Search, state: &str, before: Option<JobId>) -> String {
    let mut query = format!("?state={state}&caller={}&key={}", search.caller.trim(), search.key.trim());
    if let Some(before) = before {
        query.push_str(&format!("&before={before}"));
    }
    query
}

fn rows(found: Found) -> Vec<JobRow> {
    found.jobs.into_iter().map(row).collect()
}

fn row(job: SigningJob) -> JobRow {
    let why = match &job.outcome {
        Some(JobOutcome::NotSigned { cause, detail }) if detail.is_empty() => cause.in_words().to_owned(),
        Some(JobOutcome::NotSigned { cause, detail }) => format!("{}: {detail}", cause.in_words()),
        Some(JobOutcome::Signed(_)) | None => String::new(),
    };
    let tone = match job.state {
        JobState::Signed => "good",
        JobState::AwaitingConsent | JobState::Queued | JobState::Signing => "warn",
        JobState::Failed | JobState::InDoubt => "bad",
        JobState::Cancelled | JobState::Expired => "calm",
    };
    JobRow { tone, why, short_id: job.id.to_string().chars().take(8).collect(), job }
}

pub(super) async fn show(state: State, visit: Visit, id: Path<String>, done: Query<Done>) -> Result<HttpResponse, ConsoleError> {
    let job = own_job(&state, &visit, &id).await?;
    frame::page(&JobPage { frame: framed(&state, &visit, Place::Jobs, "Job").await.noting(done.done.as_deref()), row: row(job) })
}

pub(super) async fn resolve(state: State, visit: Visit, id: Path<String>, form: Form) -> Result<HttpResponse, ConsoleError> {
    visit.administrator()?;
    let job = own_job(&state, &visit, &id).await?;
    let signed = match form.text("outcome") {
        Some("signed") => true,
        Some("not-signed") => false,
        _ => return Err(ConsoleError::Form("choose what became of the job".to_owned())),
    };
    state.services.desk.jobs().resolve(job.id, signed, visit.by()).await?;
    Ok(frame::done(&format!("jobs/{}", job.id), "resolved"))
}

/// A job with a key of this operator's; any other looks as if it were not there.
async fn own_job(state: &AppState, visit: &Visit, id: &str) -> Result<SigningJob, ConsoleError> {
    let id = id.parse().map_err(|_| JobCommandError::NotFound)?;
    let job = state.services.desk.jobs().find(id).await?;
    if visit.has_key(job.key.name.as_ref()) { Ok(job) } else { Err(JobCommandError::NotFound.into()) }
}
