//! What can go wrong when a signature is prepared or put together.

use crate::domain::{algorithm::HashAlgorithm, digest::DigestError};

/// Why there is no CMS signature.
///
/// The messages are for the log and for operators; they show neither content nor keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CmsError {
    /// Not a CMS that carries what is looked for.
    #[error("not a CMS with what was looked for: {0}")]
    Carrier(&'static str),
    /// The content was hashed with another function than the signature algorithm goes with.
    #[error("the content must be hashed with {expected}, not {got}")]
    ContentDigest {
        /// The hash function that the algorithm wants.
        expected: HashAlgorithm,
        /// The hash function of the digest that was given.
        got: HashAlgorithm,
    },
    /// A certificate that is no X.509 certificate, or is too long to be looked at.
    #[error("not a usable X.509 certificate: {0}")]
    Certificate(String),
    /// More certificates than are embedded.
    #[error("at most {max} certificates are embedded, not {got}", max = super::CERTIFICATES_MAX)]
    TooManyCertificates {
        /// How many were given.
        got: usize,
    },
    /// Bytes that are no signed attributes of ours.
    #[error("not a DER set of signed attributes: {0}")]
    SignedAttributes(String),
    /// A time that no certificate or attribute can say (after the year 9999).
    #[error("the signing time cannot be written: {0}")]
    SigningTime(String),
    /// What is to be signed does not fit the algorithm.
    #[error(transparent)]
    ToSign(#[from] DigestError),
    /// The signature value is of another kind than the algorithm's.
    #[error("the signature value does not fit the algorithm")]
    SignatureValue,
    /// Content that is longer than any length written here.
    #[error("content of {got} bytes is too long to be embedded")]
    ContentTooLong {
        /// Its length in bytes.
        got: u64,
    },
    /// More of something than a signature is read back with.
    #[error("the signature would have more {0} than are looked at")]
    TooMuch(&'static str),
    /// A signer that is not there.
    #[error("the signature has no such signer")]
    NoSuchSigner,
    /// Something has no DER form.
    #[error("no DER form: {0}")]
    Encoding(String),
}

impl From<der::Error> for CmsError {
    fn from(error: der::Error) -> Self {
        Self::Encoding(error.to_string())
    }
}
