//! Hashing on the host; a token never sees a document.

use aws_lc_rs::digest as aws;

use crate::domain::{algorithm::HashAlgorithm, digest::Digest};

/// Hashes `message`.
#[must_use]
pub fn digest(hash: HashAlgorithm, message: &[u8]) -> Digest {
    let algorithm = match hash {
        HashAlgorithm::Sha256 => &aws::SHA256,
        HashAlgorithm::Sha384 => &aws::SHA384,
        HashAlgorithm::Sha512 => &aws::SHA512,
    };
    let made = Digest::new(hash, aws::digest(algorithm, message).as_ref().to_vec());
    // INVARIANT: a hash function makes digests of its own length.
    #[allow(clippy::expect_used)]
    made.expect("a digest has the length of its hash function")
}
