//! Verification of a signature in software: the one implementation, for what leaves the gateway and for the checkpoints of the audit log.
//!
//! [`Verifier`] is a public key, parsed once. A verification may cost as much as a signature, so never call [`Verifier::verify`] on a slot
//! thread or an event loop: `signing` has threads for it.
//! Invariant: `Ok` means that this key made this signature over just what the token was given, with the algorithm it was asked for.

use aws_lc_rs::{
    digest as aws_digest,
    signature::{self as aws, ParsedPublicKey, VerificationAlgorithm},
};

use super::{
    algorithm::{Curve, HashAlgorithm, KeyKind, SignatureAlgorithm},
    digest::{Digest, SigningInput, ToSign},
    public_key::key_kind_of_spki,
    signature::SignatureValue,
};

/// Why a signature is not let out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The signature is not one of this key over this input: the key made a wrong one, or it is another key's.
    #[error("the signature is wrong")]
    Wrong,
    /// Signatures like this cannot be verified here.
    #[error("{0} cannot be verified")]
    Unsupported(String),
    /// The public key cannot be used, although its kind is known.
    #[error("the public key cannot be used: {0}")]
    Key(String),
}

/// A public key, ready to verify with every algorithm that fits it. Cheap to share: wrap it in an `Arc` and keep it.
#[derive(Debug)]
pub struct Verifier {
    kind: KeyKind,
    keys: Vec<(SignatureAlgorithm, ParsedPublicKey)>,
}

/// Verifies one signature with a key that is parsed for it; see [`Verifier`] for keys that are used again.
///
/// # Errors
/// As [`Verifier::for_key`] and [`Verifier::verify`].
pub fn verify(spki_der: &[u8], to_sign: &ToSign, value: &SignatureValue) -> Result<(), VerifyError> {
    Verifier::for_key(spki_der)?.verify(to_sign, value)
}

/// Checks an RSASSA-PSS signature whose salt is the longest that fits the modulus, which some signers take where nobody says otherwise.
///
/// # Errors
/// [`VerifyError::Wrong`], [`VerifyError::Unsupported`], [`VerifyError::Key`].
pub fn verify_long_salt(spki_der: &[u8], digest: &Digest, signature: &[u8]) -> Result<(), VerifyError> {
    const LONG: aws::RsaPssSaltLength = aws::RsaPssSaltLength::Max;
    let kind = key_kind_of_spki(spki_der);
    if !SignatureAlgorithm::RsaPss(digest.algorithm()).fits(&kind) {
        return Err(VerifyError::Unsupported(format!("RSASSA-PSS with {kind}")));
    }
    let algorithm: &'static dyn VerificationAlgorithm = match digest.algorithm() {
        HashAlgorithm::Sha256 => &const { aws::RSA_PSS_2048_8192_SHA256.with_pss_salt_length(LONG) },
        HashAlgorithm::Sha384 => &const { aws::RSA_PSS_2048_8192_SHA384.with_pss_salt_length(LONG) },
        HashAlgorithm::Sha512 => &const { aws::RSA_PSS_2048_8192_SHA512.with_pss_salt_length(LONG) },
    };
    let key = ParsedPublicKey::new(algorithm, spki_der).map_err(|rejected| VerifyError::Key(rejected.to_string()))?;
    import(digest).and_then(|digest| key.verify_digest_sig(&digest, signature)).map_err(|_| VerifyError::Wrong)
}

impl Verifier {
    /// Parses the public key in this DER `SubjectPublicKeyInfo`.
    ///
    /// # Errors
    /// [`VerifyError::Unsupported`] for kinds of keys that do not sign here, [`VerifyError::Key`] for keys that are damaged.
    pub fn for_key(spki_der: &[u8]) -> Result<Self, VerifyError> {
        let kind = key_kind_of_spki(spki_der);
        let parse = |algorithm| {
            let key = ParsedPublicKey::new(verification(algorithm, &kind)?, spki_der);
            Some(key.map(|key| (algorithm, key)).map_err(|rejected| VerifyError::Key(rejected.to_string())))
        };
        let keys = SignatureAlgorithm::ALL.into_iter().filter_map(parse).collect::<Result<Vec<_>, _>>()?;
        if keys.is_empty() {
            return Err(VerifyError::Unsupported(format!("a signature of {kind}")));
        }
        Ok(Self { kind, keys })
    }

    /// What the key is.
    #[must_use]
    pub const fn key_kind(&self) -> &KeyKind {
        &self.kind
    }

    /// Checks that this key made `value` over `to_sign`. Blocks for up to about a millisecond of computing.
    ///
    /// # Errors
    /// [`VerifyError::Wrong`]; [`VerifyError::Unsupported`] if the algorithm does not go with the key.
    pub fn verify(&self, to_sign: &ToSign, value: &SignatureValue) -> Result<(), VerifyError> {
        self.verify_x509(to_sign, &value.to_x509_bytes())
    }

    /// As [`verify`](Self::verify), for a signature in the form that X.509 carries it in (ECDSA in DER).
    ///
    /// # Errors
    /// As [`verify`](Self::verify).
    pub fn verify_x509(&self, to_sign: &ToSign, signature: &[u8]) -> Result<(), VerifyError> {
        let algorithm = to_sign.algorithm();
        let Some((_, key)) = self.keys.iter().find(|(known, _)| *known == algorithm) else {
            return Err(VerifyError::Unsupported(format!("{algorithm} with {}", self.kind)));
        };
        let verified = match to_sign.input() {
            SigningInput::Digest(digest) => import(digest).and_then(|digest| key.verify_digest_sig(&digest, signature)),
            SigningInput::Message(message) => key.verify_sig(message, signature),
        };
        verified.map_err(|_| VerifyError::Wrong)
    }
}

/// The library's own name for an algorithm with a key of this kind; `None` if they do not go together.
///
/// ECDSA is verified in its DER form, which is there for every pair of curve and hash; r‖s is not.
fn verification(algorithm: SignatureAlgorithm, kind: &KeyKind) -> Option<&'static dyn VerificationAlgorithm> {
    use HashAlgorithm::{Sha256, Sha384, Sha512};
    if !algorithm.fits(kind) {
        return None;
    }
    Some(match (algorithm, kind) {
        (SignatureAlgorithm::RsaPkcs1(Sha256), _) => &aws::RSA_PKCS1_2048_8192_SHA256,
        (SignatureAlgorithm::RsaPkcs1(Sha384), _) => &aws::RSA_PKCS1_2048_8192_SHA384,
        (SignatureAlgorithm::RsaPkcs1(Sha512), _) => &aws::RSA_PKCS1_2048_8192_SHA512,
        (SignatureAlgorithm::RsaPss(Sha256), _) => &aws::RSA_PSS_2048_8192_SHA256,
        (SignatureAlgorithm::RsaPss(Sha384), _) => &aws::RSA_PSS_2048_8192_SHA384,
        (SignatureAlgorithm::RsaPss(Sha512), _) => &aws::RSA_PSS_2048_8192_SHA512,
        (SignatureAlgorithm::Ecdsa(hash), KeyKind::Ec(curve)) => ecdsa_verification(*curve, hash),
        (SignatureAlgorithm::Ed25519, _) => &aws::ED25519,
        (SignatureAlgorithm::Ecdsa(_), _) => return None,
    })
}

fn ecdsa_verification(curve: Curve, hash: HashAlgorithm) -> &'static dyn VerificationAlgorithm {
    use HashAlgorithm::{Sha256, Sha384, Sha512};
    match (curve, hash) {
        (Curve::P256, Sha256) => &aws::ECDSA_P256_SHA256_ASN1,
        (Curve::P256, Sha384) => &aws::ECDSA_P256_SHA384_ASN1,
        (Curve::P256, Sha512) => &aws::ECDSA_P256_SHA512_ASN1,
        (Curve::P384, Sha256) => &aws::ECDSA_P384_SHA256_ASN1,
        (Curve::P384, Sha384) => &aws::ECDSA_P384_SHA384_ASN1,
        (Curve::P384, Sha512) => &aws::ECDSA_P384_SHA512_ASN1,
        (Curve::P521, Sha256) => &aws::ECDSA_P521_SHA256_ASN1,
        (Curve::P521, Sha384) => &aws::ECDSA_P521_SHA384_ASN1,
        (Curve::P521, Sha512) => &aws::ECDSA_P521_SHA512_ASN1,
    }
}

fn import(digest: &Digest) -> Result<aws_digest::Digest, aws_lc_rs::error::Unspecified> {
    let algorithm = match digest.algorithm() {
        HashAlgorithm::Sha256 => &aws_digest::SHA256,
        HashAlgorithm::Sha384 => &aws_digest::SHA384,
        HashAlgorithm::Sha512 => &aws_digest::SHA512,
    };
    aws_digest::Digest::import_less_safe(digest.as_bytes(), algorithm)
}

#[cfg(test)]
pub(crate) mod tests;
