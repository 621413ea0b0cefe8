//! Tokens: what is plugged in, in what state, with which keys; unlocking, locking, starting again.

use std::time::Duration;

use actix_web::{HttpResponse, web::Query};
use askama::Template;
use tokio::time::timeout;

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
        certificate::CertificateSummary,
        key_uri::Pkcs11Uri,
        pin::Pin,
        timestamp::Timestamp,
        token::{LoginMode, SlotReport, SlotState},
    },
    http::app::AppState,
    signing::tokens::KeyReport,
};

/// How long the tokens may take to list their keys for a page.
const KEYS_MAX: Duration = Duration::from_secs(3);
/// A certificate that ends sooner is pointed out.
const ENDS_SOON: Duration = Duration::from_secs(30 * 86_400);

#[derive(Template)]
#[template(path = "tokens.html")]
struct TokensPage {
    frame: Frame,
    tokens: Vec<TokenCard>,
    remote: Vec<(String, SlotReport)>,
    problems: Vec<(String, String)>,
    keys_are_known: bool,
}

struct TokenCard {
    slot: SlotReport,
    uri: String,
    name: String,
    tone: &'static str,
    tries: &'static str,
    final_try: bool,
    can_unlock: bool,
    at_reader: bool,
    can_lock: bool,
    keys: Vec<KeyRow>,
}

struct KeyRow {
    name: String,
    is_named: bool,
    kind: String,
    certificate: Option<CertificateSummary>,
    /// What is to be said of its end.
    ends: &'static str,
}

pub(super) async fn show(state: State, visit: Visit, done: Query<Done>) -> Result<HttpResponse, ConsoleError> {
    let desk = &state.services.desk;
    let known = timeout(KEYS_MAX, desk.keys()).await;
    let keys_are_known = known.is_ok();
    let keys = known.unwrap_or_default();
    let access = &visit.operator().keys;
    let now = Timestamp::from(std::time::SystemTime::now());
    let slots = desk.slots().into_iter().filter(|slot| desk.has_key_of(&slot.token, access));
    let tokens = slots.map(|slot| card(slot, &keys, &visit, now)).collect();
    let remote = desk.remote_slots().into_iter().filter(|(_, slot)| desk.has_key_of(&slot.token, access)).collect();
    let problems = if visit.operator().is_administrator() { desk.module_problems() } else { Default::default() };
    frame::page(&TokensPage {
        frame: framed(&state, &visit, Place::Tokens, "Tokens").await.noting(done.done.as_deref()),
        tokens,
        remote,
        problems: problems.into_iter().map(|(module, problem)| (module.to_string(), problem)).collect(),
        keys_are_known,
    })
}

fn card(slot: SlotReport, keys: &[KeyReport], visit: &Visit, now: Timestamp) -> TokenCard {
    let state = slot.status.state;
    let of_this = keys.iter().filter(|key| key.token == slot.token && visit.has_key(key.name.as_ref()));
    let mut rows: Vec<_> = of_this.map(|key| key_row(key, now)).collect();
    // Those that sign for callers come first.
    rows.sort_by(|a, b| b.is_named.cmp(&a.is_named).then_with(|| a.name.cmp(&b.name)));
    let label = if slot.token.label.is_empty() { &slot.token.model } else { &slot.token.label };
    TokenCard {
        uri: slot.token.uri().to_string(),
        name: label.clone(),
        tone: tone(state),
        tries: tries(&slot),
        final_try: slot.flags.user_pin_final_try,
        can_unlock: matches!(state, SlotState::NeedsPin | SlotState::PinRejected) && slot.login != LoginMode::PerRequest,
        at_reader: slot.login == LoginMode::Protected,
        can_lock: state.takes_work() && slot.login != LoginMode::PerRequest,
        keys: rows,
        slot,
    }
}

/// How a state is coloured.
pub(super) const fn tone(state: SlotState) -> &'static str {
    match state {
        SlotState::Ready | SlotState::Busy | SlotState::Present => "good",
        SlotState::NeedsPin | SlotState::WaitingAtReader | SlotState::Recovering => "warn",
        SlotState::Absent => "calm",
        SlotState::PinRejected | SlotState::PinLocked | SlotState::Wedged | SlotState::Quarantined => "bad",
    }
}

/// What the token tells of its PIN's tries; PKCS#11 has no number.
const fn tries(slot: &SlotReport) -> &'static str {
    let flags = &slot.flags;
    if flags.user_pin_locked {
        "locked: the token takes no PIN any more"
    } else if flags.user_pin_final_try {
        "one try left, then the token locks itself"
    } else if flags.user_pin_count_low {
        "at least one wrong PIN since the last good one"
    } else {
        "all"
    }
}

fn key_row(key: &KeyReport, now: Timestamp) -> KeyRow {
    let certificate = key.certificate.as_deref().and_then(CertificateSummary::of);
    let ends = certificate.as_ref().map_or("", |summary| ending(summary, now));
    let label = if key.key.label.is_empty() { hex::encode(&key.key.id) } else { key.key.label.clone() };
    KeyRow {
        is_named: key.name.is_some(),
        name: key.name.as_ref().map_or(label, ToString::to_string),
        kind: key.key.kind.to_string(),
        certificate,
        ends,
    }
}

/// What is to be said of a certificate's validity; nothing if all is well.
pub(super) fn ending(certificate: &CertificateSummary, now: Timestamp) -> &'static str {
    if certificate.not_after <= now {
        "expired"
    } else if certificate.not_after <= now.after(ENDS_SOON) {
        "ends soon"
    } else if certificate.not_before > now {
        "not valid yet"
    } else {
        ""
    }
}

pub(super) async fn unlock(state: State, visit: Visit, form: Form) -> Result<HttpResponse, ConsoleError> {
    let uri = own_token(&state, &visit, &form)?;
    let pin = form.exact("pin").filter(|pin| !pin.is_empty()).map(Pin::new).transpose()?;
    let (insist, forget) = (form.is_ticked("insist"), form.is_ticked("forget"));
    state.services.desk.unlock(&uri, pin, insist, forget, &visit.by()).await?;
    Ok(frame::done("tokens", "unlocked"))
}

pub(super) async fn lock(state: State, visit: Visit, form: Form) -> Result<HttpResponse, ConsoleError> {
    let uri = own_token(&state, &visit, &form)?;
    state.services.desk.lock(&uri, &visit.by()).await?;
    Ok(frame::done("tokens", "locked"))
}

pub(super) async fn restart(state: State, visit: Visit, form: Form) -> Result<HttpResponse, ConsoleError> {
    // Its other tokens may hold somebody else's keys.
    visit.administrator()?;
    let uri = own_token(&state, &visit, &form)?;
    state.services.desk.restart(&uri, &visit.by()).await?;
    Ok(frame::done("tokens", "restarted"))
}

/// The token that a form is about, if it holds a key of this operator's; any other looks as if it were not there.
fn own_token(state: &AppState, visit: &Visit, form: &Form) -> Result<Pkcs11Uri, ConsoleError> {
    let uri: Pkcs11Uri = form.parse("uri")?;
    let token = state.services.desk.token_of(&uri)?;
    let is_own = state.services.desk.has_key_of(&token, &visit.operator().keys);
    if is_own { Ok(uri) } else { Err(crate::signing::tokens::TokenCommandError::NotFound.into()) }
}
