//! What a browser holds of a session: a random token in a cookie, and the token of its forms that is derived from it.
//!
//! Invariants: a token is in clear in the browser only; what is kept is its hash. A form's token says nothing about the session's.

use std::fmt;

use secrecy::{ExposeSecret as _, SecretString};
use subtle::ConstantTimeEq as _;

use super::api_key::{RandomUnavailable, letters_and_digits};
use crate::domain::{audit::Sha256, operator::SessionId};

/// Letters and digits of a session's token: 256 bits.
const TOKEN_LEN: usize = 43;

/// What a browser shows in a cookie. `Debug` shows nothing.
pub struct SessionToken(SecretString);

impl SessionToken {
    /// Makes a new one that nobody can guess.
    ///
    /// # Errors
    /// [`RandomUnavailable`].
    pub fn generate() -> Result<Self, RandomUnavailable> {
        Ok(Self(SecretString::from(letters_and_digits(TOKEN_LEN)?.as_str())))
    }

    /// Takes what a cookie holds; `None` if it never was a token.
    #[must_use]
    pub fn of_cookie(text: &str) -> Option<Self> {
        let lawful = text.len() == TOKEN_LEN && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
        lawful.then(|| Self(SecretString::from(text)))
    }

    /// The token in clear, for the cookie.
    #[must_use]
    pub fn reveal(&self) -> &str {
        self.0.expose_secret()
    }

    /// The id of the session that it opens.
    #[must_use]
    pub fn id(&self) -> SessionId {
        SessionId::of(self.reveal().as_bytes())
    }

    /// The token that forms of this session carry.
    #[must_use]
    pub fn form_token(&self) -> FormToken {
        FormToken(Sha256::of(format!("Sealgate form token\n{}", self.reveal()).as_bytes()).to_string())
    }
}

impl fmt::Debug for SessionToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionToken(…)")
    }
}

/// What a form must carry to show that it comes from a page of the same session.
#[derive(Clone)]
pub struct FormToken(String);

impl FormToken {
    /// The token as it stands in a page.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a form carried it; takes equally long whatever it carried.
    #[must_use]
    pub fn matches(&self, sent: &str) -> bool {
        self.0.as_bytes().ct_eq(sent.as_bytes()).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_back_from_its_cookie_and_nothing_else_does() {
        let token = SessionToken::generate().unwrap();
        let back = SessionToken::of_cookie(token.reveal()).unwrap();
        assert!(back.id() == token.id() && back.form_token().matches(token.form_token().as_str()));
        assert!(SessionToken::of_cookie("").is_none() && SessionToken::of_cookie(&"é".repeat(TOKEN_LEN)).is_none());
        assert!(!token.form_token().matches(SessionToken::generate().unwrap().form_token().as_str()));
        assert!(!token.form_token().as_str().contains(token.reveal()) && format!("{token:?}") == "SessionToken(…)");
    }
}
