//! The console's cookies: one with the session's token, and one that ties a login form to the browser it was shown in.
//!
//! Invariant: no script can read them, no other site's request carries them, and over TLS none is ever sent in clear.

use actix_web::{HttpRequest, http::header};

use super::BASE;
use crate::auth::SessionToken;

/// The session's cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cookie {
    /// Of a session.
    Session,
    /// Of a login form.
    Login,
}

impl Cookie {
    /// Over TLS the prefix keeps sites in clear from setting it (RFC 6265bis section 4.1.3.1).
    const fn name(self, secure: bool) -> &'static str {
        match (self, secure) {
            (Self::Session, true) => "__Secure-sealgate-session",
            (Self::Session, false) => "sealgate-session",
            (Self::Login, true) => "__Secure-sealgate-login",
            (Self::Login, false) => "sealgate-login",
        }
    }

    /// The token that a request carries in it.
    pub(super) fn token(self, request: &HttpRequest, secure: bool) -> Option<SessionToken> {
        let name = self.name(secure);
        let lines = request.headers().get_all(header::COOKIE).filter_map(|line| line.to_str().ok());
        let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
        pairs.find(|(key, _)| *key == name).and_then(|(_, value)| SessionToken::of_cookie(value))
    }

    /// The header that sets it.
    pub(super) fn set(self, token: &SessionToken, secure: bool) -> String {
        format!("{}={}; {}", self.name(secure), token.reveal(), attributes(secure))
    }

    /// The header that takes it away.
    pub(super) fn clear(self, secure: bool) -> String {
        format!("{}=; Max-Age=0; {}", self.name(secure), attributes(secure))
    }
}

fn attributes(secure: bool) -> String {
    let secure = if secure { "; Secure" } else { "" };
    format!("Path={BASE}; HttpOnly; SameSite=Strict{secure}")
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn a_cookie_is_found_among_others_and_by_its_own_name_only() {
        let token = SessionToken::generate().unwrap();
        let found = |line: String, secure| {
            let request = TestRequest::default().insert_header((header::COOKIE, line)).to_http_request();
            Cookie::Session.token(&request, secure).map(|token| token.reveal().to_owned())
        };
        let text = token.reveal();
        assert_eq!(found(format!("a=b; sealgate-session={text}; c=d"), false).as_deref(), Some(text));
        assert_eq!(found(format!("__Secure-sealgate-session={text}"), true).as_deref(), Some(text));
        assert_eq!(found(format!("sealgate-session={text}"), true), None);
        assert_eq!(found(format!("xsealgate-session={text}"), false), None);
        assert_eq!(found("sealgate-session=short".to_owned(), false), None);
        assert_eq!(Cookie::Session.clear(true), "__Secure-sealgate-session=; Max-Age=0; Path=/console; HttpOnly; SameSite=Strict; Secure");
    }
}
