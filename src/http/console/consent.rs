//! The inbox: what is asked of the operator, in full, and their decision.
//!
//! Invariants: what a caller says of its request is shown in a frame that can do nothing, and is called unverified; a document is shown as what
//! it is, in a frame of its own; nothing is decided but by a form of this session.

use std::time::SystemTime;

use actix_web::{
    HttpResponse,
    http::header::{self, HeaderValue},
    web::{Bytes, Path, Query},
};
use askama::Template;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::{
    State,
    error::ConsoleError,
    form::Form,
    frame::{self, Done, Frame, Place},
    visit::Visit,
    words::{self, WORDS_POLICY},
};
use crate::{
    domain::{
        consent::{ConsentAsk, DecisionRefusal, ShownDocument},
        ids::PermitId,
        permit::{Permit, PermitState},
        timestamp::Timestamp,
    },
    http::app::AppState,
    permit::DecisionError,
    ticket::{SignatureDocument, TicketError},
};

/// The most requests on one page; what ends first comes first.
const SHOWN_MAX: usize = 50;
/// The size of the frame for a caller's words, where it wishes none.
const VIEW_HEIGHT: u16 = 240;
const VIEW_WIDTH: u16 = 720;
/// The most bytes of a text that is shown.
const TEXT_MAX: u64 = 2 << 20;

#[derive(Template)]
#[template(path = "consent.html")]
struct ConsentPage {
    frame: Frame,
    asks: Vec<AskCard>,
    more: usize,
}

#[derive(Template)]
#[template(path = "consent_one.html")]
struct OnePage {
    frame: Frame,
    card: AskCard,
    kind: Kind,
}

/// A request as it is shown.
struct AskCard {
    permit: Permit,
    ask: ConsentAsk,
    /// Seconds until it counts as refused, and how many there were in all.
    left: u64,
    time: u64,
    has_words: bool,
    width: u16,
    height: u16,
    document: Option<ShownDocument>,
    has_own_word: bool,
}

/// How a document can be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Pdf,
    Other,
}

pub(super) async fn list(state: State, visit: Visit, done: Query<Done>) -> Result<HttpResponse, ConsoleError> {
    let waiting = state.services.permits.waiting(visit.operator()).await?;
    let (count, more) = (waiting.len(), waiting.len().saturating_sub(SHOWN_MAX));
    let mut asks = Vec::new();
    for permit in waiting.into_iter().take(SHOWN_MAX) {
        // One that was decided meanwhile is not shown.
        asks.extend(card(&state, &visit, permit).await?);
    }
    let frame = Frame::new(&visit, Place::Consent, "Consent").waiting(count).noting(done.done.as_deref());
    frame::page(&ConsentPage { frame, asks, more })
}

async fn card(state: &AppState, visit: &Visit, permit: Permit) -> Result<Option<AskCard>, ConsoleError> {
    let Some(ask) = permit.ask.as_deref().cloned().filter(|_| permit.state == PermitState::Asked) else { return Ok(None) };
    let words = state.services.permits.words(visit.operator(), permit.id).await?;
    let now = Timestamp::from(SystemTime::now());
    Ok(Some(AskCard {
        left: ask.decide_by.since(now).as_secs(),
        time: ask.decide_by.since(ask.asked).as_secs().max(1),
        has_words: words.is_some_and(|words| !words.trim().is_empty()),
        width: ask.view.width.unwrap_or(VIEW_WIDTH),
        height: ask.view.height.unwrap_or(VIEW_HEIGHT),
        document: ask.waiting.as_ref().and_then(|waiting| waiting.document.clone()),
        has_own_word: permit.approvals.iter().any(|approval| approval.by == *visit.name()),
        permit,
        ask,
    }))
}

pub(super) async fn show(state: State, visit: Visit, id: Path<String>) -> Result<HttpResponse, ConsoleError> {
    let permit = state.services.permits.look(visit.operator(), id_of(&id)?).await?;
    let card = card(&state, &visit, permit).await?.ok_or(ConsoleError::NotFound)?;
    let kind = if card.document.is_some() { Looked::at(&state, &visit, card.permit.id).await?.kind } else { Kind::Other };
    let frame = super::overview::framed(&state, &visit, Place::Consent, "Request").await;
    frame::page(&OnePage { frame, card, kind })
}

/// What the caller says, made harmless, as a page of its own for a frame that can do nothing.
pub(super) async fn words(state: State, visit: Visit, id: Path<String>) -> Result<HttpResponse, ConsoleError> {
    let words = state.services.permits.words(visit.operator(), id_of(&id)?).await?.ok_or(ConsoleError::NotFound)?;
    // Parsing takes time with the length of what a stranger wrote.
    let page = actix_web::web::block(move || words::harmless_page(&words)).await.map_err(|_| ConsoleError::Broken)?;
    let policy = HeaderValue::from_str(&WORDS_POLICY).map_err(|_| ConsoleError::Broken)?;
    Ok(HttpResponse::Ok().content_type("text/html; charset=utf-8").insert_header((header::CONTENT_SECURITY_POLICY, policy)).body(page))
}

/// The document as a file.
pub(super) async fn document(state: State, visit: Visit, id: Path<String>) -> Result<HttpResponse, ConsoleError> {
    let looked = Looked::at(&state, &visit, id_of(&id)?).await?;
    let ending = match looked.kind {
        Kind::Text => "txt",
        Kind::Pdf => "pdf",
        Kind::Other => "bin",
    };
    let name = format!("attachment; filename=\"document.{ending}\"");
    let disposition = HeaderValue::from_str(&name).map_err(|_| ConsoleError::Broken)?;
    Ok(looked.send("application/octet-stream", disposition, "sandbox; default-src 'none'"))
}

/// The document to look at: text in a frame that can do nothing, PDF in the browser's own viewer.
pub(super) async fn view(state: State, visit: Visit, id: Path<String>) -> Result<HttpResponse, ConsoleError> {
    let looked = Looked::at(&state, &visit, id_of(&id)?).await?;
    let inline = HeaderValue::from_static("inline");
    match looked.kind {
        Kind::Text => Ok(looked.send("text/plain; charset=utf-8", inline, "sandbox; default-src 'none'; frame-ancestors 'self'")),
        // A viewer in a sandbox does not start. It has one of its own, and the document is no page of this origin.
        Kind::Pdf => Ok(looked.send("application/pdf", inline, "default-src 'none'; object-src 'self'; frame-ancestors 'self'")),
        Kind::Other => Err(ConsoleError::NotFound),
    }
}

/// A document whose beginning was looked at.
struct Looked {
    kind: Kind,
    len: u64,
    first: Option<Bytes>,
    rest: stream::BoxStream<'static, std::io::Result<Bytes>>,
}

impl Looked {
    async fn at(state: &AppState, visit: &Visit, permit: PermitId) -> Result<Self, ConsoleError> {
        let asked = state.services.tickets.document_asked_about(visit.operator(), permit).await;
        let content: SignatureDocument = asked.map_err(|error| match error {
            TicketError::StoreUnavailable | TicketError::SpoolUnavailable => ConsoleError::Store,
            _ => ConsoleError::NotFound,
        })?;
        let len = content.len();
        let mut rest = content.into_pieces();
        let first = rest.try_next().await.map_err(|_| ConsoleError::Store)?;
        let kind = first.as_deref().map_or(Kind::Other, |beginning| kind_of(beginning, len));
        Ok(Self { kind, len, first, rest })
    }

    fn send(self, kind: &'static str, disposition: HeaderValue, policy: &'static str) -> HttpResponse {
        let pieces = stream::iter(self.first.map(Ok)).chain(self.rest);
        HttpResponse::Ok()
            .content_type(kind)
            .insert_header((header::CONTENT_DISPOSITION, disposition))
            .insert_header((header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy)))
            .no_chunking(self.len)
            .streaming(pieces)
    }
}

/// What a document is, by its beginning alone: what the caller calls it does not count.
fn kind_of(beginning: &[u8], len: u64) -> Kind {
    if beginning.starts_with(b"%PDF-") {
        return Kind::Pdf;
    }
    // The last character of the beginning may be cut.
    let is_text = match std::str::from_utf8(beginning) {
        Ok(_) => true,
        Err(error) => error.error_len().is_none() && (beginning.len() as u64) < len,
    };
    let is_plain = beginning.iter().all(|byte| *byte >= 0x20 || matches!(byte, b'\t' | b'\n' | b'\r' | 0x0c));
    if is_text && is_plain && len <= TEXT_MAX { Kind::Text } else { Kind::Other }
}

pub(super) async fn allow(state: State, visit: Visit, id: Path<String>, form: Form) -> Result<HttpResponse, ConsoleError> {
    let uses = form.text("uses").map(str::parse).transpose().map_err(|_| ConsoleError::Form("write a number of signatures".to_owned()))?;
    let permit = state.services.permits.grant(visit.operator(), id_of(&id)?, uses).await?;
    Ok(frame::done("consent", if permit.state == PermitState::Granted { "allowed" } else { "seconded" }))
}

pub(super) async fn refuse(state: State, visit: Visit, id: Path<String>, _form: Form) -> Result<HttpResponse, ConsoleError> {
    state.services.permits.refuse(visit.operator(), id_of(&id)?).await?;
    Ok(frame::done("consent", "refused"))
}

/// What is no id is no request.
pub(super) fn id_of(text: &str) -> Result<PermitId, ConsoleError> {
    text.parse().map_err(|_| DecisionError::Refused(DecisionRefusal::NotFound).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_shown_as_what_it_is_and_never_as_a_page() {
        assert_eq!(kind_of(b"%PDF-1.7\n\x00\xff", 9_000_000), Kind::Pdf);
        assert_eq!(kind_of(b"<html><script>alert(1)</script>", 31), Kind::Text);
        assert_eq!(kind_of("договір".as_bytes(), 14), Kind::Text);
        assert_eq!(kind_of(&"договір".as_bytes()[..13], 5_000), Kind::Text);
        assert_eq!(kind_of(&"договір".as_bytes()[..13], 13), Kind::Other);
        assert_eq!(kind_of(b"PK\x03\x04", 4), Kind::Other);
        assert_eq!(kind_of(b"text", TEXT_MAX + 1), Kind::Other);
    }
}
