//! What all pages have in common: the frame with the menu, times and numbers as they are shown, answers and redirects.

use actix_web::{
    HttpResponse, ResponseError as _,
    http::{
        StatusCode,
        header::{self, ContentType},
    },
};
use askama::Template;

use super::{BASE, error::ConsoleError, visit::Visit};
use crate::domain::{
    caller::KeyAccess,
    ids::KeyName,
    operator::{Operator, Role},
    timestamp::Timestamp,
};

/// Where an operator is in the console.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Overview,
    Consent,
    Tokens,
    Jobs,
    Permits,
    Certificates,
    Audit,
    Callers,
    Operators,
    Account,
    /// None of the menu's.
    Elsewhere,
}

/// One line of the menu.
pub(super) struct Entry {
    pub(super) path: &'static str,
    pub(super) name: &'static str,
    pub(super) is_here: bool,
    /// How many things wait there.
    pub(super) count: usize,
}

/// The menu, in its order; the last ones are for administrators.
const MENU: [(Place, &str, Role); 9] = [
    (Place::Consent, "Consent", Role::Approver),
    (Place::Overview, "Overview", Role::Approver),
    (Place::Tokens, "Tokens", Role::Approver),
    (Place::Jobs, "Jobs", Role::Approver),
    (Place::Permits, "Permits", Role::Approver),
    (Place::Certificates, "Certificates", Role::Administrator),
    (Place::Audit, "Audit log", Role::Administrator),
    (Place::Callers, "Callers", Role::Administrator),
    (Place::Operators, "Operators", Role::Administrator),
];

impl Place {
    /// Its path below the console's.
    pub(super) const fn path(self) -> &'static str {
        match self {
            Self::Overview => "overview",
            Self::Consent => "consent",
            Self::Tokens => "tokens",
            Self::Jobs => "jobs",
            Self::Permits => "permits",
            Self::Certificates => "certificates",
            Self::Audit => "audit",
            Self::Callers => "callers",
            Self::Operators => "operators",
            Self::Account => "account",
            Self::Elsewhere => "",
        }
    }
}

/// What surrounds a page.
pub(super) struct Frame {
    pub(super) place: Place,
    pub(super) title: String,
    pub(super) operator: Operator,
    pub(super) token: String,
    /// What was done just now.
    pub(super) notice: Option<&'static str>,
    /// Requests for consent that wait for this operator.
    pub(super) waiting: usize,
}

impl Frame {
    /// The frame of a page of this operator.
    pub(super) fn new(visit: &Visit, place: Place, title: &str) -> Self {
        Self {
            place,
            title: title.to_owned(),
            operator: visit.operator().clone(),
            token: visit.form_token.as_str().to_owned(),
            notice: None,
            waiting: 0,
        }
    }

    /// With what the address of the page says was done just now.
    pub(super) fn noting(mut self, done: Option<&str>) -> Self {
        self.notice = done.and_then(|done| NOTICES.iter().find(|(code, _)| *code == done)).map(|(_, text)| *text);
        self
    }

    /// With so many requests for consent waiting.
    pub(super) const fn waiting(mut self, waiting: usize) -> Self {
        self.waiting = waiting;
        self
    }

    pub(super) fn menu(&self) -> Vec<Entry> {
        let lawful = MENU.iter().filter(|(_, _, role)| self.operator.role >= *role);
        let entry = |(place, name, _): &(Place, &'static str, Role)| Entry {
            path: place.path(),
            name,
            is_here: *place == self.place,
            count: if *place == Place::Consent { self.waiting } else { 0 },
        };
        lawful.map(entry).collect()
    }

    pub(super) fn is_account(&self) -> bool {
        self.place == Place::Account
    }
}

/// What pages say after something was done; the address has the code, so that nobody can make a page say anything else.
const NOTICES: [(&str, &str); 25] = [
    ("certificate-approved", "Approved. The request goes to its CA."),
    ("certificate-brought", "The certificate was taken. It signs once it is activated."),
    ("certificate-refused", "The request was refused."),
    ("certificate-activated", "The certificate is active; the key signs with it now."),
    ("caller-added", "The caller was added."),
    ("caller-revoked", "The caller cannot come in any more."),
    ("caller-removed", "The caller was removed."),
    ("allowed", "Allowed. Whoever asked has been answered."),
    ("seconded", "Noted. Another operator must allow it, too."),
    ("refused", "Refused. Whoever asked has been answered."),
    ("unlocked", "The token is unlocked."),
    ("locked", "The token is locked; nothing is signed with it before the next unlock."),
    ("restarted", "The module is being started again. Its tokens come back by themselves."),
    ("resolved", "The job is settled."),
    ("revoked", "The permit is revoked."),
    ("verifying", "The audit log is being verified."),
    ("added", "The operator was added."),
    ("rights", "Saved. It counts from their next request on."),
    ("password", "The password was changed, and all sessions of the operator have ended."),
    ("disabled", "The operator cannot log in any more."),
    ("enabled", "The operator can log in again."),
    ("removed", "The operator was removed."),
    ("logged-out", "All sessions of the operator have ended."),
    ("own-password", "Your password was changed. Log in with the new one."),
    ("bye", "You are logged out."),
];

/// A notice outside of a frame.
pub(super) fn notice(done: Option<&str>) -> Option<&'static str> {
    done.and_then(|done| NOTICES.iter().find(|(code, _)| *code == done)).map(|(_, text)| *text)
}

/// What the address of a page says was done.
#[derive(Debug, Default, serde::Deserialize)]
pub(super) struct Done {
    pub(super) done: Option<String>,
}

/// A page.
pub(super) fn page(template: &impl Template) -> Result<HttpResponse, ConsoleError> {
    page_with(StatusCode::OK, template)
}

pub(super) fn page_with(status: StatusCode, template: &impl Template) -> Result<HttpResponse, ConsoleError> {
    let html = template.render().map_err(|_| ConsoleError::Broken)?;
    Ok(HttpResponse::build(status).content_type(ContentType::html()).body(html))
}

/// Sends the browser on, after a form or in place of a page.
pub(super) fn redirect(to: &str) -> HttpResponse {
    HttpResponse::SeeOther().insert_header((header::LOCATION, to)).finish()
}

/// Sends the browser to a page that says what was done.
pub(super) fn done(path: &str, code: &str) -> HttpResponse {
    redirect(&format!("{BASE}/{path}?done={code}"))
}

#[derive(Template)]
#[template(path = "error.html")]
struct ErrorPage<'a> {
    frame: Frame,
    error: &'a ConsoleError,
}

#[derive(Template)]
#[template(path = "error_outside.html")]
struct OutsidePage<'a> {
    error: &'a ConsoleError,
}

/// The page that says what went wrong.
pub(super) fn error_page(visit: Option<&Visit>, error: &ConsoleError) -> HttpResponse {
    let status = error.status_code();
    let frame = visit.map(|visit| Frame::new(visit, Place::Elsewhere, "That did not work"));
    let page = match frame {
        Some(frame) => page_with(status, &ErrorPage { frame, error }),
        None => page_with(status, &OutsidePage { error }),
    };
    let mut response = page.unwrap_or_else(|_| HttpResponse::build(status).finish());
    if let Some(wait) = error.retry_after() {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from(seconds));
    }
    response
}

/// A moment as a page shows it; the script puts it into the reader's own time.
pub(super) fn moment(at: &Timestamp) -> String {
    let text = at.to_rfc3339();
    text.trim_end_matches('Z').replace('T', " ") + " UTC"
}

/// How long something takes, in the unit that suits it.
pub(super) fn span(seconds: f64) -> String {
    match seconds {
        s if s < 0.01 => format!("{:.1} ms", s * 1e3),
        s if s < 1.0 => format!("{:.0} ms", s * 1e3),
        s if s < 10.0 => format!("{s:.1} s"),
        s if s < 120.0 => format!("{s:.0} s"),
        s => format!("{:.0} min", s / 60.0),
    }
}

/// A length of time that is left, in words.
pub(super) fn left(seconds: &u64) -> String {
    match *seconds {
        s if s < 120 => format!("{s} s"),
        s if s < 7_200 => format!("{} min", s / 60),
        s if s < 172_800 => format!("{} h", s / 3_600),
        s => format!("{} days", s / 86_400),
    }
}

/// A number of bytes.
#[allow(clippy::cast_precision_loss, reason = "it is rounded anyway")]
pub(super) fn bytes(len: &u64) -> String {
    match *len {
        len if len < 1_000 => format!("{len} bytes"),
        len if len < 1_000_000 => format!("{:.1} kB", len as f64 / 1e3),
        len => format!("{:.1} MB", len as f64 / 1e6),
    }
}

/// The keys that somebody has, as text.
pub(super) fn keys_of(access: &KeyAccess) -> String {
    match access {
        KeyAccess::All => "all keys".to_owned(),
        KeyAccess::Only(keys) if keys.is_empty() => "no key".to_owned(),
        KeyAccess::Only(keys) => keys.iter().map(KeyName::as_str).collect::<Vec<_>>().join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_lengths_are_shown_in_the_unit_that_suits_them() {
        assert_eq!([0.0012, 0.25, 2.5, 61.0, 600.0].map(span), ["1.2 ms", "250 ms", "2.5 s", "61 s", "10 min"]);
        assert_eq!([5, 300, 7_300, 200_000].map(|s| left(&s)), ["5 s", "5 min", "2 h", "2 days"]);
        assert_eq!([7, 1_500, 2_000_000].map(|len| bytes(&len)), ["7 bytes", "1.5 kB", "2.0 MB"]);
        assert_eq!(moment(&Timestamp::from_millis(1_700_000_000_999)), "2023-11-14 22:13:20 UTC");
    }
}
