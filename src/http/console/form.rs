//! Forms as browsers send them (`application/x-www-form-urlencoded`).
//!
//! Invariants: a form that does not carry the token of its session is never read by a handler; what it holds is wiped when it is dropped, for
//! there may be a PIN or a password in it.

use std::{pin::Pin, time::Duration};

use actix_web::{FromRequest, HttpMessage, HttpRequest, dev, http::header, web};
use zeroize::Zeroizing;

use super::{
    cookies::Cookie,
    error::ConsoleError,
    guard::is_login,
    visit::{Arrival, Visit},
};
use crate::http::extract::{Pace, header_text, host, read_whole};

/// The most bytes of a form.
const FORM_MAX: usize = 64 * 1024;
/// The most fields.
const FIELDS_MAX: usize = 512;
/// How long a form may take to come.
const FORM_TIME_MAX: Duration = Duration::from_secs(20);
const FORM_TYPE: &str = "application/x-www-form-urlencoded";
/// The field with the session's token.
const TOKEN_FIELD: &str = "token";

/// A form of a page that was shown to this session.
pub(super) struct Form(Vec<(Zeroizing<String>, Zeroizing<String>)>);

impl Form {
    /// What a field holds, without blanks around it; `None` if it is missing or empty.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.exact(name).map(str::trim).filter(|text| !text.is_empty())
    }

    /// What a field holds, as it was typed; `None` if it is missing.
    pub(super) fn exact(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key.as_str() == name).map(|(_, value)| value.as_str())
    }

    /// What all fields of one name hold.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(key, _)| key.as_str() == name).map(|(_, value)| value.as_str())
    }

    /// A field that must be there, in the form that it has elsewhere.
    pub(super) fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(&self, name: &str) -> Result<T, ConsoleError> {
        let text = self.text(name).ok_or_else(|| ConsoleError::Form(format!("the field `{name}` is empty")))?;
        text.parse().map_err(|error: T::Err| ConsoleError::Form(error.to_string()))
    }

    /// Whether a box is ticked.
    pub(super) fn is_ticked(&self, name: &str) -> bool {
        self.exact(name).is_some()
    }

    fn read(body: &str) -> Result<Self, ConsoleError> {
        let unreadable = || ConsoleError::Form("the form cannot be read".to_owned());
        let mut fields = Vec::new();
        for pair in body.split('&').filter(|pair| !pair.is_empty()) {
            if fields.len() == FIELDS_MAX {
                return Err(unreadable());
            }
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            fields.push((decode(key).ok_or_else(unreadable)?, decode(value).ok_or_else(unreadable)?));
        }
        Ok(Self(fields))
    }
}

impl FromRequest for Form {
    type Error = ConsoleError;
    type Future = Pin<Box<dyn Future<Output = Result<Self, ConsoleError>>>>;

    fn from_request(request: &HttpRequest, payload: &mut dev::Payload) -> Self::Future {
        let (request, mut payload) = (request.clone(), payload.take());
        Box::pin(async move {
            if !is_of_our_pages(&request) {
                return Err(ConsoleError::ForeignForm);
            }
            let mut payload = web::Payload::from_request(&request, &mut payload).await.map_err(|_| ConsoleError::Broken)?;
            let body = read_whole(&mut payload, FORM_MAX, Pace::start(FORM_TIME_MAX, FORM_TIME_MAX)).await?;
            let text = std::str::from_utf8(&body).map_err(|_| ConsoleError::Form("the form is not text".to_owned()))?;
            let form = Self::read(text)?;
            let sent = form.exact(TOKEN_FIELD).unwrap_or_default();
            if wanted_token(&request).is_some_and(|token| token.matches(sent)) { Ok(form) } else { Err(ConsoleError::ForeignForm) }
        })
    }
}

/// The token that the form must carry: of the session, or, on the login page, of that page: a session may have begun meanwhile in another tab.
fn wanted_token(request: &HttpRequest) -> Option<crate::auth::FormToken> {
    let extensions = request.extensions();
    if is_login(request.path()) {
        let arrival = extensions.get::<Arrival>()?;
        return Cookie::Login.token(request, arrival.secure).map(|token| token.form_token());
    }
    extensions.get::<Visit>().map(|visit| visit.form_token.clone())
}

/// Whether the browser says that the form comes from a page of this very host, and it is a form.
fn is_of_our_pages(request: &HttpRequest) -> bool {
    let origin = request.headers().get(header::ORIGIN).map(|origin| origin.to_str().unwrap_or_default());
    let own = |origin: &str| origin.split_once("://").is_some_and(|(_, authority)| host(request) == Some(authority));
    let site = header_text(request, header::HeaderName::from_static("sec-fetch-site"));
    let form =
        header_text(request, header::CONTENT_TYPE).is_some_and(|kind| kind.split(';').next().is_some_and(|kind| kind.trim() == FORM_TYPE));
    form && origin.is_none_or(own) && site.is_none_or(|site| matches!(site, "same-origin" | "none"))
}

/// Decodes `+` and `%HH`; `None` if that is no UTF-8.
fn decode(text: &str) -> Option<Zeroizing<String>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => digit(rest.next()?)? * 16 + digit(rest.next()?)?,
            plain => plain,
        });
    }
    std::str::from_utf8(&bytes).ok().map(|text| Zeroizing::new(text.to_owned()))
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn a_form_is_read_as_browsers_write_it() {
        let form = Form::read("a=1&b=two+words&key=x&key=y&empty=&%D1%97=%26%3D&pin=+12%2B+").unwrap();
        assert_eq!((form.text("a"), form.text("b"), form.text("empty"), form.text("none")), (Some("1"), Some("two words"), None, None));
        assert_eq!(form.all("key").collect::<Vec<_>>(), ["x", "y"]);
        assert_eq!((form.text("ї"), form.exact("pin"), form.text("pin")), (Some("&="), Some(" 12+ "), Some("12+")));
        assert!(form.is_ticked("empty") && !form.is_ticked("none"));
        for bad in ["a=%", "a=%4", "a=%zz", "a=%ff"] {
            assert!(Form::read(bad).is_err(), "{bad}");
        }
        assert!(Form::read(&"a=1&".repeat(FIELDS_MAX)).is_ok() && Form::read(&"a=1&".repeat(FIELDS_MAX + 1)).is_err());
    }

    #[test]
    fn a_form_of_another_site_or_kind_is_foreign() {
        let base = || TestRequest::default().insert_header((header::HOST, "localhost:1")).insert_header((header::CONTENT_TYPE, FORM_TYPE));
        assert!(is_of_our_pages(&base().to_http_request()));
        assert!(is_of_our_pages(&base().insert_header((header::ORIGIN, "http://localhost:1")).to_http_request()));
        for origin in ["http://localhost:2", "https://evil.example", "null", ""] {
            assert!(!is_of_our_pages(&base().insert_header((header::ORIGIN, origin)).to_http_request()), "{origin}");
        }
        assert!(!is_of_our_pages(&base().insert_header(("sec-fetch-site", "same-site")).to_http_request()));
        assert!(!is_of_our_pages(&base().insert_header((header::CONTENT_TYPE, "text/plain")).to_http_request()));
    }
}
