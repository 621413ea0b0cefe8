//! What a signature is made over: a digest, or (for EdDSA) the message itself.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{
    algorithm::{HashAlgorithm, SignatureAlgorithm},
    hash,
};

/// The longest message that a token is given to sign as it is (EdDSA), in bytes.
///
/// CMS signed attributes stay far below it; a whole document is never sent to a token.
pub const MESSAGE_MAX: usize = 64 * 1024;

/// The result of a hash function, of the right length for it.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Digest {
    algorithm: HashAlgorithm,
    #[serde(with = "super::bytes")]
    bytes: Vec<u8>,
}

/// Bytes that cannot be what they are said to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// A digest of the wrong length for its hash function.
    #[error("a {algorithm} digest has {} bytes, not {got}", algorithm.output_len())]
    Length {
        /// The hash function it is said to come from.
        algorithm: HashAlgorithm,
        /// The length that was given, in bytes.
        got: usize,
    },
    /// A message too long to be sent to a token.
    #[error("a message for the token has at most {MESSAGE_MAX} bytes, not {got}")]
    MessageTooLong {
        /// The length that was given, in bytes.
        got: usize,
    },
    /// A digest where the algorithm wants a message, or the other way round, or of another hash function.
    #[error("{algorithm} does not sign {what}")]
    Mismatch {
        /// The signature algorithm.
        algorithm: SignatureAlgorithm,
        /// What was given for it to sign.
        what: String,
    },
}

impl Digest {
    /// Takes `bytes` as a digest of `algorithm`.
    ///
    /// # Errors
    /// [`DigestError::Length`] if they are not as many as the hash function makes.
    pub fn new(algorithm: HashAlgorithm, bytes: Vec<u8>) -> Result<Self, DigestError> {
        if bytes.len() != algorithm.output_len() {
            return Err(DigestError::Length { algorithm, got: bytes.len() });
        }
        Ok(Self { algorithm, bytes })
    }

    /// The hash function that made it.
    #[must_use]
    pub const fn algorithm(&self) -> HashAlgorithm {
        self.algorithm
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm, hex::encode(&self.bytes))
    }
}

/// What is handed to the token to be signed, fit for its algorithm by construction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToSign {
    algorithm: SignatureAlgorithm,
    input: SigningInput,
}

/// The two things that a token can be given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SigningInput {
    /// A digest made on the host (RSA, ECDSA).
    Digest(Digest),
    /// The message itself (EdDSA), at most [`MESSAGE_MAX`] bytes.
    Message(#[serde(with = "super::bytes")] Vec<u8>),
}

impl ToSign {
    /// Pairs `input` with the algorithm that is to sign it.
    ///
    /// # Errors
    /// [`DigestError::Mismatch`] if the algorithm wants another digest, or a message; [`DigestError::MessageTooLong`].
    pub fn new(algorithm: SignatureAlgorithm, input: SigningInput) -> Result<Self, DigestError> {
        match (&input, algorithm.hash()) {
            (SigningInput::Digest(digest), Some(hash)) if digest.algorithm() == hash => {}
            (SigningInput::Message(message), None) if message.len() <= MESSAGE_MAX => {}
            (SigningInput::Message(message), None) => return Err(DigestError::MessageTooLong { got: message.len() }),
            (SigningInput::Digest(digest), _) => {
                return Err(DigestError::Mismatch { algorithm, what: format!("a {} digest", digest.algorithm()) });
            }
            (SigningInput::Message(_), Some(_)) => {
                return Err(DigestError::Mismatch { algorithm, what: "a message that is not hashed".to_owned() });
            }
        }
        Ok(Self { algorithm, input })
    }

    /// What a token is given to sign `message`: its digest, or for Ed25519 the message as it is.
    ///
    /// # Errors
    /// [`DigestError::MessageTooLong`].
    pub fn of_message(algorithm: SignatureAlgorithm, message: &[u8]) -> Result<Self, DigestError> {
        let input = match algorithm.hash() {
            Some(hash) => SigningInput::Digest(hash::digest(hash, message)),
            None => SigningInput::Message(message.to_vec()),
        };
        Self::new(algorithm, input)
    }

    /// The algorithm that signs it.
    #[must_use]
    pub const fn algorithm(&self) -> SignatureAlgorithm {
        self.algorithm
    }

    /// What the token is given, short: `hash:hex` of a digest, `message-sha256:hex` of a message.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        match &self.input {
            SigningInput::Digest(digest) => digest.to_string(),
            SigningInput::Message(message) => format!("message-{}", hash::digest(HashAlgorithm::Sha256, message)),
        }
    }

    /// What the token is given.
    #[must_use]
    pub const fn input(&self) -> &SigningInput {
        &self.input
    }
}
