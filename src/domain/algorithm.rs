//! What keys are and how they sign, in the words that every layer above the token uses.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A hash function that the gateway computes on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HashAlgorithm {
    /// SHA-256 (FIPS 180-4).
    Sha256,
    /// SHA-384 (FIPS 180-4).
    Sha384,
    /// SHA-512 (FIPS 180-4).
    Sha512,
}

impl HashAlgorithm {
    /// Every hash function, weakest first.
    pub const ALL: [Self; 3] = [Self::Sha256, Self::Sha384, Self::Sha512];

    /// Length of a digest in bytes.
    #[must_use]
    pub const fn output_len(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    /// The hash function whose digests have `len` bytes; `None` if there is none here.
    #[must_use]
    pub fn of_len(len: usize) -> Option<Self> {
        Self::ALL.into_iter().find(|hash| hash.output_len() == len)
    }
}

impl fmt::Display for HashAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        })
    }
}

/// A NIST curve (FIPS 186-5, SP 800-186).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Curve {
    /// secp256r1.
    P256,
    /// secp384r1.
    P384,
    /// secp521r1.
    P521,
}

impl Curve {
    /// Length of a field element in bytes: half of a raw signature r‖s.
    #[must_use]
    pub const fn field_len(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }

    /// The hash function of the curve's own strength.
    #[must_use]
    pub const fn natural_hash(self) -> HashAlgorithm {
        match self {
            Self::P256 => HashAlgorithm::Sha256,
            Self::P384 => HashAlgorithm::Sha384,
            Self::P521 => HashAlgorithm::Sha512,
        }
    }
}

/// The smallest RSA modulus that signs here, in bits.
pub const RSA_BITS_MIN: u32 = 2048;
/// The largest RSA modulus that signs here, in bits.
pub const RSA_BITS_MAX: u32 = 8192;

/// What a key is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum KeyKind {
    /// RSA with a modulus of so many bits.
    Rsa {
        /// Length of the modulus in bits.
        modulus_bits: u32,
    },
    /// An elliptic-curve key on a NIST curve.
    Ec(Curve),
    /// Ed25519 (RFC 8032).
    Ed25519,
    /// A key that is on the token and that the gateway cannot use; the text says what the token calls it.
    Unsupported(String),
}

impl KeyKind {
    /// The algorithm that such a key signs with when nobody says otherwise; `None` if it cannot sign here.
    #[must_use]
    pub fn default_algorithm(&self) -> Option<SignatureAlgorithm> {
        match self {
            Self::Rsa { .. } => Some(SignatureAlgorithm::RsaPkcs1(HashAlgorithm::Sha256)),
            Self::Ec(curve) => Some(SignatureAlgorithm::Ecdsa(curve.natural_hash())),
            Self::Ed25519 => Some(SignatureAlgorithm::Ed25519),
            Self::Unsupported(_) => None,
        }
    }
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rsa { modulus_bits } => write!(f, "RSA {modulus_bits}"),
            Self::Ec(Curve::P256) => f.write_str("EC P-256"),
            Self::Ec(Curve::P384) => f.write_str("EC P-384"),
            Self::Ec(Curve::P521) => f.write_str("EC P-521"),
            Self::Ed25519 => f.write_str("Ed25519"),
            Self::Unsupported(what) => write!(f, "{what} (not supported)"),
        }
    }
}

/// How a signature is made: the scheme, and the hash function that goes with it.
///
/// Its text form (`rsa-pkcs1-sha256`, `rsa-pss-sha384`, `ecdsa-sha256`, `ed25519`) stands in configuration and logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum SignatureAlgorithm {
    /// RSASSA-PKCS1-v1_5 (RFC 8017 section 8.2).
    RsaPkcs1(HashAlgorithm),
    /// RSASSA-PSS with MGF1 of the same hash and a salt as long as the digest (RFC 8017 section 8.1, RFC 4055).
    RsaPss(HashAlgorithm),
    /// ECDSA (FIPS 186-5); the curve is the key's.
    Ecdsa(HashAlgorithm),
    /// Pure Ed25519 (RFC 8032): the token signs the message itself.
    Ed25519,
}

impl SignatureAlgorithm {
    /// Every algorithm the gateway signs with.
    pub const ALL: [Self; 10] = [
        Self::RsaPkcs1(HashAlgorithm::Sha256),
        Self::RsaPkcs1(HashAlgorithm::Sha384),
        Self::RsaPkcs1(HashAlgorithm::Sha512),
        Self::RsaPss(HashAlgorithm::Sha256),
        Self::RsaPss(HashAlgorithm::Sha384),
        Self::RsaPss(HashAlgorithm::Sha512),
        Self::Ecdsa(HashAlgorithm::Sha256),
        Self::Ecdsa(HashAlgorithm::Sha384),
        Self::Ecdsa(HashAlgorithm::Sha512),
        Self::Ed25519,
    ];

    /// The hash function applied to the message before the token sees it; `None` for Ed25519, which takes the message.
    #[must_use]
    pub const fn hash(self) -> Option<HashAlgorithm> {
        match self {
            Self::RsaPkcs1(hash) | Self::RsaPss(hash) | Self::Ecdsa(hash) => Some(hash),
            Self::Ed25519 => None,
        }
    }

    /// The digest algorithm that a CMS `SignerInfo` names for this algorithm.
    ///
    /// Ed25519 goes with SHA-512 (RFC 8419 section 3.1).
    #[must_use]
    pub const fn message_digest_hash(self) -> HashAlgorithm {
        match self.hash() {
            Some(hash) => hash,
            None => HashAlgorithm::Sha512,
        }
    }

    /// Whether a key of this kind can make such signatures.
    #[must_use]
    pub fn fits(self, key: &KeyKind) -> bool {
        match (self, key) {
            (Self::RsaPkcs1(_) | Self::RsaPss(_), KeyKind::Rsa { modulus_bits }) => {
                (RSA_BITS_MIN..=RSA_BITS_MAX).contains(modulus_bits)
            }
            (Self::Ecdsa(_), KeyKind::Ec(_)) | (Self::Ed25519, KeyKind::Ed25519) => true,
            _ => false,
        }
    }
}

impl fmt::Display for SignatureAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RsaPkcs1(hash) => write!(f, "rsa-pkcs1-{hash}"),
            Self::RsaPss(hash) => write!(f, "rsa-pss-{hash}"),
            Self::Ecdsa(hash) => write!(f, "ecdsa-{hash}"),
            Self::Ed25519 => f.write_str("ed25519"),
        }
    }
}

/// A text that names no signature algorithm.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a signature algorithm; use one of rsa-pkcs1-sha256|384|512, rsa-pss-sha256|384|512, ecdsa-sha256|384|512, ed25519")]
pub struct UnknownAlgorithm(String);

impl FromStr for SignatureAlgorithm {
    type Err = UnknownAlgorithm;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|algorithm| algorithm.to_string() == text)
            .ok_or_else(|| UnknownAlgorithm(text.chars().take(40).collect()))
    }
}

impl TryFrom<String> for SignatureAlgorithm {
    type Error = UnknownAlgorithm;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<SignatureAlgorithm> for String {
    fn from(algorithm: SignatureAlgorithm) -> Self {
        algorithm.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_algorithm_is_read_as_it_is_written() {
        for algorithm in SignatureAlgorithm::ALL {
            assert_eq!(algorithm.to_string().parse(), Ok(algorithm));
        }
        assert!("ecdsa".parse::<SignatureAlgorithm>().is_err());
    }

    #[test]
    fn a_short_rsa_key_cannot_sign() {
        let short = KeyKind::Rsa { modulus_bits: 1024 };
        assert!(!SignatureAlgorithm::RsaPkcs1(HashAlgorithm::Sha256).fits(&short));
    }
}
