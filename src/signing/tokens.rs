//! What operators and clients may know of tokens and do to them, without knowing PKCS#11.

use crate::domain::{
    algorithm::SignatureAlgorithm,
    ids::KeyName,
    key_uri::Pkcs11Uri,
    pin::Pin,
    token::{KeyDescription, SlotReport, TokenIdentity},
};

/// A key on a token that is plugged in.
#[derive(Debug, Clone)]
pub struct KeyReport {
    /// Its configured name, if it has one.
    pub name: Option<KeyName>,
    /// Its URI.
    pub uri: Pkcs11Uri,
    /// The token it is on.
    pub token: TokenIdentity,
    /// The key.
    pub key: KeyDescription,
    /// What the token can sign with it.
    pub algorithms: Vec<SignatureAlgorithm>,
}

/// Why an operator's command was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenCommandError {
    /// No token matches the URI.
    #[error("no token that is plugged in matches this URI")]
    NotFound,
    /// More than one does.
    #[error("{0} tokens match this URI; add the serial number")]
    Ambiguous(usize),
    /// The token, or the rules around its PIN, said no.
    #[error("{0}")]
    Refused(String),
}

/// The tokens of a gateway.
pub struct TokenDesk {}

impl TokenDesk {
    /// Every token that has been seen, with its state now.
    pub fn slots(&self) -> Vec<SlotReport> {
        unimplemented!()
    }

    /// Every key that can be seen now. Asks each token.
    pub async fn keys(&self) -> Vec<KeyReport> {
        unimplemented!()
    }

    /// Whether at least one token can sign now.
    pub fn any_can_sign(&self) -> bool {
        unimplemented!()
    }

    /// Logs in with an operator's PIN (`None`: at the reader). `insist`: although the token warns of its last try.
    ///
    /// # Errors
    /// [`TokenCommandError`].
    pub async fn unlock(
        &self,
        uri: &Pkcs11Uri,
        pin: Option<Pin>,
        insist: bool,
        forget_rejection: bool,
    ) -> Result<TokenIdentity, TokenCommandError> {
        unimplemented!()
    }

    /// Logs out, so that nothing is signed before the next unlock.
    ///
    /// # Errors
    /// [`TokenCommandError`].
    pub async fn lock(&self, uri: &Pkcs11Uri) -> Result<TokenIdentity, TokenCommandError> {
        unimplemented!()
    }
}
