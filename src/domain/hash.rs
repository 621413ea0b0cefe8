//! Hashing on the host; a token never sees a document.

use aws_lc_rs::digest as aws;

use super::{algorithm::HashAlgorithm, digest::Digest};

/// Hashes `message`.
#[must_use]
pub fn digest(hash: HashAlgorithm, message: &[u8]) -> Digest {
    let mut hasher = Hasher::new(hash);
    hasher.update(message);
    hasher.finish()
}

/// The SHA-1 of bytes that something older names by it: a certificate, an issuer's key. Nothing is signed, or believed, for it.
#[must_use]
pub fn sha1(bytes: &[u8]) -> [u8; 20] {
    let mut value = [0; 20];
    value.copy_from_slice(aws::digest(&aws::SHA1_FOR_LEGACY_USE_ONLY, bytes).as_ref());
    value
}

/// Hashes a message that comes in pieces.
#[derive(Clone)]
pub struct Hasher {
    hash: HashAlgorithm,
    context: aws::Context,
}

impl Hasher {
    /// Begins a message.
    #[must_use]
    pub fn new(hash: HashAlgorithm) -> Self {
        let algorithm = match hash {
            HashAlgorithm::Sha256 => &aws::SHA256,
            HashAlgorithm::Sha384 => &aws::SHA384,
            HashAlgorithm::Sha512 => &aws::SHA512,
        };
        Self { hash, context: aws::Context::new(algorithm) }
    }

    /// Takes the next piece.
    pub fn update(&mut self, piece: &[u8]) {
        self.context.update(piece);
    }

    /// Ends the message.
    #[must_use]
    pub fn finish(self) -> Digest {
        let made = Digest::new(self.hash, self.context.finish().as_ref().to_vec());
        // INVARIANT: a hash function makes digests of its own length.
        #[allow(clippy::expect_used)]
        made.expect("a digest has the length of its hash function")
    }
}
