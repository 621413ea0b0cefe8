//! Certificate requests: what was asked for, what became of it, and an operator's part in it. For administrators.
//!
//! Every step goes into the request's history and the audit log with the operator's name. The rules are those of [`enrolment`](crate::enrolment).

use std::time::SystemTime;

use actix_web::{
    HttpResponse,
    http::header::{self, HeaderValue},
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
    tokens::ending,
    visit::Visit,
};
use crate::{
    domain::{
        certificate::CertificateSummary,
        enrolment::{Enrolment, EnrolmentState, Refusal},
        ids::EnrolmentId,
        timestamp::Timestamp,
    },
    enrolment::{
        EnrolmentError, EnrolmentFilter, RequestFacts, UploadedCertificate, certificates_in_pem,
        print::{Edition, print as print_pdf},
        request_facts, request_in_pem,
    },
};

/// The most requests on one page, the newest ones.
const SHOWN_MAX: usize = 200;
/// The longest comment of a refusal, in characters.
const COMMENT_MAX: usize = 1_000;

/// What can be chosen to be listed, and what it is called; the states are found by their names.
const STATES: [(&str, &str); 6] = [
    ("", "All"),
    ("awaiting-issue", "Awaiting issue"),
    ("awaiting-confirmation", "Awaiting confirmation"),
    ("issued", "Issued"),
    ("activated", "Activated"),
    ("refused", "Refused"),
];

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Search {
    state: String,
    organisation: String,
}

#[derive(Template)]
#[template(path = "certificates.html")]
struct CertificatesPage {
    frame: Frame,
    search: Search,
    rows: Vec<Row>,
    has_profiles: bool,
}

/// A request as it is listed.
struct Row {
    of: Enrolment,
    state: String,
    tone: &'static str,
    not_after: Option<Timestamp>,
    /// What is to be said of the end of a certificate that signs.
    ends: &'static str,
}

#[derive(Template)]
#[template(path = "certificate.html")]
struct CertificatePage {
    frame: Frame,
    row: Row,
    /// What the CA is asked to certify.
    request: Option<RequestFacts>,
    request_pem: String,
    certificate: Option<CertificateSummary>,
    key_uri: String,
    can_approve: bool,
    can_upload: bool,
    can_refuse: bool,
    can_activate: bool,
}

pub(super) async fn list(state: State, visit: Visit, search: Query<Search>) -> Result<HttpResponse, ConsoleError> {
    visit.administrator()?;
    let search = search.into_inner();
    let organisation = Some(search.organisation.trim().to_owned()).filter(|text| !text.is_empty());
    let filter = EnrolmentFilter { state: state_called(&search.state)?, organisation, ..EnrolmentFilter::default() };
    let found = state.services.enrolment.list(&filter, SHOWN_MAX).await?;
    frame::page(&CertificatesPage {
        frame: framed(&state, &visit, Place::Certificates, "Certificates").await,
        search,
        rows: found.into_iter().map(row).collect(),
        has_profiles: !state.services.enrolment.profiles().is_empty(),
    })
}

/// The state of this name, whatever the ground of a refusal; `None` for all.
fn state_called(name: &str) -> Result<Option<EnrolmentState>, ConsoleError> {
    let known = EnrolmentState::ALL.into_iter().find(|state| state.as_str() == name);
    if known.is_none() && !name.is_empty() { Err(ConsoleError::Form("this is no state of a request".to_owned())) } else { Ok(known) }
}

pub(super) async fn show(state: State, visit: Visit, id: Path<String>, done: Query<Done>) -> Result<HttpResponse, ConsoleError> {
    visit.administrator()?;
    let found = state.services.enrolment.show(id_of(&id)?).await?;
    let frame = framed(&state, &visit, Place::Certificates, &found.application.full_name).await.noting(done.done.as_deref());
    let der = found.request.as_ref().map(|request| request.0.as_slice());
    let (has_request, waits) = (der.is_some(), found.state.is_open());
    frame::page(&CertificatePage {
        frame,
        request: der.and_then(request_facts),
        request_pem: der.map(request_in_pem).unwrap_or_default(),
        certificate: found.issued.as_ref().and_then(|issued| CertificateSummary::of(&issued.certificate)),
        key_uri: found.key.as_ref().map(|key| key.uri()).unwrap_or_default(),
        can_approve: waits && has_request && !found.approved,
        can_upload: found.state == EnrolmentState::AwaitingIssue,
        can_refuse: waits,
        can_activate: found.state == EnrolmentState::Issued,
        row: row(found),
    })
}

fn row(of: Enrolment) -> Row {
    let (state, tone) = match of.state {
        EnrolmentState::Activated if of.active => ("active".to_owned(), "good"),
        EnrolmentState::Activated => ("replaced".to_owned(), "calm"),
        EnrolmentState::AwaitingIssue if !of.approved => ("awaiting approval".to_owned(), "warn"),
        EnrolmentState::Refused(_) => (of.state.to_string(), "bad"),
        waiting => (waiting.to_string(), "warn"),
    };
    let certificate = of.issued.as_ref().and_then(|issued| CertificateSummary::of(&issued.certificate));
    let now = Timestamp::from(SystemTime::now());
    let ends = certificate.as_ref().filter(|_| of.active).map_or("", |summary| ending(summary, now));
    Row { state, tone, ends, not_after: certificate.map(|summary| summary.not_after), of }
}

/// The CA's request as a file.
pub(super) async fn request(state: State, visit: Visit, id: Path<String>) -> Result<HttpResponse, ConsoleError> {
    visit.administrator()?;
    let found = state.services.enrolment.show(id_of(&id)?).await?;
    let pem = found.request.as_ref().map(|request| request_in_pem(&request.0)).ok_or(ConsoleError::NotFound)?;
    file("application/pkcs10", &format!("request-{}.pem", found.id), pem.into_bytes())
}

/// The certificate that was issued, and its chain, as a file.
pub(super) async fn issued(state: State, visit: Visit, id: Path<String>) -> Result<HttpResponse, ConsoleError> {
    visit.administrator()?;
    let found = state.services.enrolment.show(id_of(&id)?).await?;
    let pem = found.issued.as_ref().map(certificates_in_pem).ok_or(ConsoleError::NotFound)?;
    file("application/pem-certificate-chain", &format!("certificate-{}.pem", found.id), pem.into_bytes())
}

/// The application as it is printed, with the request.
pub(super) async fn application(state: State, visit: Visit, id: Path<String>) -> Result<HttpResponse, ConsoleError> {
    visit.administrator()?;
    let found = state.services.enrolment.show(id_of(&id)?).await?;
    let name = format!("application-{}.pdf", found.id);
    let printed = actix_web::web::block(move || print_pdf(&found, Edition::WithRequest)).await.map_err(|_| ConsoleError::Broken)??;
    file("application/pdf", &name, printed)
}

fn file(kind: &'static str, name: &str, content: Vec<u8>) -> Result<HttpResponse, ConsoleError> {
    let disposition = HeaderValue::from_str(&format!("attachment; filename=\"{name}\"")).map_err(|_| ConsoleError::Broken)?;
    Ok(HttpResponse::Ok().content_type(kind).insert_header((header::CONTENT_DISPOSITION, disposition)).body(content))
}

pub(super) async fn approve(state: State, visit: Visit, id: Path<String>, _form: Form) -> Result<HttpResponse, ConsoleError> {
    visit.administrator()?;
    let moved = state.services.enrolment.approve(id_of(&id)?, &visit.by()).await?;
    Ok(moved_on(&moved, "certificate-approved"))
}

pub(super) async fn upload(state: State, visit: Visit, id: Path<String>, form: Form) -> Result<HttpResponse, ConsoleError> {
    visit.administrator()?;
    let uploaded = UploadedCertificate::from_pem(form.text("certificates").unwrap_or_default())?;
    let moved = state.services.enrolment.upload(id_of(&id)?, uploaded, &visit.by()).await?;
    Ok(moved_on(&moved, "certificate-brought"))
}

pub(super) async fn refuse(state: State, visit: Visit, id: Path<String>, form: Form) -> Result<HttpResponse, ConsoleError> {
    visit.administrator()?;
    let ground = Refusal::ALL.into_iter().find(|ground| form.text("ground") == Some(ground.as_str()));
    let ground = ground.ok_or_else(|| ConsoleError::Form("choose a ground".to_owned()))?;
    let comment = form.text("comment").filter(|comment| comment.chars().count() <= COMMENT_MAX);
    let comment = comment.ok_or_else(|| ConsoleError::Form(format!("say why, in up to {COMMENT_MAX} characters")))?;
    let moved = state.services.enrolment.refuse(id_of(&id)?, ground, comment, &visit.by()).await?;
    Ok(moved_on(&moved, "certificate-refused"))
}

pub(super) async fn activate(state: State, visit: Visit, id: Path<String>, _form: Form) -> Result<HttpResponse, ConsoleError> {
    visit.administrator()?;
    let moved = state.services.enrolment.activate_by_operator(id_of(&id)?, &visit.by()).await?;
    Ok(moved_on(&moved, "certificate-activated"))
}

fn moved_on(moved: &Enrolment, code: &str) -> HttpResponse {
    frame::done(&format!("certificates/{}", moved.id), code)
}

/// What is no id is no request.
fn id_of(text: &str) -> Result<EnrolmentId, ConsoleError> {
    text.parse().map_err(|_| EnrolmentError::NotFound.into())
}
