//! `AlgorithmIdentifier`s of signatures that others made, read into the algorithms that can be verified here.
//!
//! Certificates, CMS signatures, time stamps, CRLs and OCSP answers all name their algorithm in this form; whoever verifies one of them
//! comes here. Invariants: what is not known by its object identifier and its parameters is refused and named, never guessed; the length of
//! a PSS salt is one of two that are verified as such, whatever the identifier says.

use const_oid::{
    ObjectIdentifier,
    db::{rfc5912, rfc8410},
};
use der::Sequence;
use spki::AlgorithmIdentifierRef;

use super::{
    algorithm::{HashAlgorithm, KeyKind, SignatureAlgorithm},
    digest::{SigningInput, ToSign},
    hash,
    public_key::key_kind_of_spki,
    verify::{Verifier, VerifyError, verify_long_salt},
};

/// `trailerFieldBC` (RFC 4055 section 3.1): the only trailer there is.
const TRAILER_BC: u32 = 1;
/// What `RSASSA-PSS-params` mean where they say nothing: SHA-1 with 20 bytes of salt.
const PSS_DEFAULT_SALT: u32 = 20;

/// An identifier that names nothing that is verified here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UnknownIdentifier(String);

/// A signature algorithm as an identifier names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NamedAlgorithm {
    algorithm: SignatureAlgorithm,
    /// PSS with another salt than one as long as the digest: its length in bytes.
    salt: Option<u32>,
}

/// `RSASSA-PSS-params` (RFC 4055 section 3.1).
#[derive(Sequence)]
struct PssParameters<'a> {
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    hash: Option<AlgorithmIdentifierRef<'a>>,
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", optional = "true")]
    mask: Option<AlgorithmIdentifierRef<'a>>,
    #[asn1(context_specific = "2", tag_mode = "EXPLICIT", optional = "true")]
    salt: Option<u32>,
    #[asn1(context_specific = "3", tag_mode = "EXPLICIT", optional = "true")]
    trailer: Option<u32>,
}

/// The hash function of a `digestAlgorithm`; parameters are absent or NULL (RFC 5754 section 2).
///
/// # Errors
/// [`UnknownIdentifier`] names what it is.
pub fn hash_of(identifier: &AlgorithmIdentifierRef<'_>) -> Result<HashAlgorithm, UnknownIdentifier> {
    let hash = match identifier.oid {
        rfc5912::ID_SHA_256 => HashAlgorithm::Sha256,
        rfc5912::ID_SHA_384 => HashAlgorithm::Sha384,
        rfc5912::ID_SHA_512 => HashAlgorithm::Sha512,
        oid => return Err(UnknownIdentifier(format!("the hash function {} is not accepted", name_of(oid)))),
    };
    no_parameters(identifier)?;
    Ok(hash)
}

impl NamedAlgorithm {
    /// Reads a `signatureAlgorithm`. `digest` is the hash function that stands beside it in a CMS `SignerInfo`, which must be the same; a
    /// certificate has none, and then RSA must name its own.
    ///
    /// # Errors
    /// [`UnknownIdentifier`] says what is not accepted.
    pub fn read(identifier: &AlgorithmIdentifierRef<'_>, digest: Option<HashAlgorithm>) -> Result<Self, UnknownIdentifier> {
        use HashAlgorithm::{Sha256, Sha384, Sha512};
        let plain = |algorithm| Self { algorithm, salt: None };
        let named = match identifier.oid {
            rfc5912::RSA_ENCRYPTION => {
                let hash = digest.ok_or_else(|| UnknownIdentifier("rsaEncryption names no hash function".to_owned()))?;
                plain(SignatureAlgorithm::RsaPkcs1(hash))
            }
            rfc5912::SHA_256_WITH_RSA_ENCRYPTION => plain(SignatureAlgorithm::RsaPkcs1(Sha256)),
            rfc5912::SHA_384_WITH_RSA_ENCRYPTION => plain(SignatureAlgorithm::RsaPkcs1(Sha384)),
            rfc5912::SHA_512_WITH_RSA_ENCRYPTION => plain(SignatureAlgorithm::RsaPkcs1(Sha512)),
            rfc5912::ID_RSASSA_PSS => return Self::read_pss(identifier).and_then(|named| named.beside(digest)),
            rfc5912::ECDSA_WITH_SHA_256 => plain(SignatureAlgorithm::Ecdsa(Sha256)),
            rfc5912::ECDSA_WITH_SHA_384 => plain(SignatureAlgorithm::Ecdsa(Sha384)),
            rfc5912::ECDSA_WITH_SHA_512 => plain(SignatureAlgorithm::Ecdsa(Sha512)),
            rfc8410::ID_ED_25519 => plain(SignatureAlgorithm::Ed25519),
            oid => return Err(UnknownIdentifier(format!("the signature algorithm {} is not accepted", name_of(oid)))),
        };
        no_parameters(identifier)?;
        named.beside(digest)
    }

    fn read_pss(identifier: &AlgorithmIdentifierRef<'_>) -> Result<Self, UnknownIdentifier> {
        let unreadable = || UnknownIdentifier("the parameters of RSASSA-PSS cannot be read".to_owned());
        let parameters = identifier.parameters.ok_or_else(unreadable)?;
        let pss = parameters.decode_as::<PssParameters<'_>>().map_err(|_| unreadable())?;
        // The default is SHA-1, which is not accepted.
        let hash = hash_of(&pss.hash.ok_or_else(|| UnknownIdentifier("RSASSA-PSS with SHA-1 is not accepted".to_owned()))?)?;
        let mask = pss.mask.and_then(|mask| if mask.oid == rfc5912::ID_MGF_1 { mask.parameters } else { None });
        let mask_hash = mask.and_then(|hash| hash.decode_as::<AlgorithmIdentifierRef<'_>>().ok()).map(|identifier| hash_of(&identifier));
        if mask_hash != Some(Ok(hash)) || pss.trailer.unwrap_or(TRAILER_BC) != TRAILER_BC {
            return Err(UnknownIdentifier("RSASSA-PSS is accepted with MGF1 of its own hash function only".to_owned()));
        }
        let salt = pss.salt.unwrap_or(PSS_DEFAULT_SALT);
        let usual = usize::try_from(salt) == Ok(hash.output_len());
        Ok(Self { algorithm: SignatureAlgorithm::RsaPss(hash), salt: (!usual).then_some(salt) })
    }

    /// The same, if it goes with the hash function beside it.
    fn beside(self, digest: Option<HashAlgorithm>) -> Result<Self, UnknownIdentifier> {
        match digest {
            Some(digest) if digest != self.algorithm.message_digest_hash() => {
                Err(UnknownIdentifier(format!("{} does not go with a digest of {digest}", self.algorithm)))
            }
            _ => Ok(self),
        }
    }

    /// The algorithm.
    #[must_use]
    pub const fn algorithm(self) -> SignatureAlgorithm {
        self.algorithm
    }

    /// Checks that the key in this DER `SubjectPublicKeyInfo` made `signature`, in the form that X.509 has, over `to_sign`.
    ///
    /// # Errors
    /// As [`Verifier::verify`](super::verify::Verifier::verify).
    pub fn verify(self, spki_der: &[u8], to_sign: &ToSign, signature: &[u8]) -> Result<(), VerifyError> {
        match (self.salt, to_sign.input()) {
            (Some(salt), SigningInput::Digest(digest)) => {
                if Some(salt) != longest_salt(&key_kind_of_spki(spki_der), digest.algorithm()) {
                    return Err(VerifyError::Unsupported(format!("RSASSA-PSS with {salt} bytes of salt")));
                }
                verify_long_salt(spki_der, digest, signature)
            }
            _ => Verifier::for_key(spki_der)?.verify_x509(to_sign, signature),
        }
    }

    /// As [`verify`](Self::verify), over a whole message. Ed25519 takes at most [`MESSAGE_MAX`](super::digest::MESSAGE_MAX) bytes.
    ///
    /// # Errors
    /// As [`verify`](Self::verify).
    pub fn verify_message(self, spki_der: &[u8], message: &[u8], signature: &[u8]) -> Result<(), VerifyError> {
        let input = match self.algorithm.hash() {
            Some(hash) => SigningInput::Digest(hash::digest(hash, message)),
            None => SigningInput::Message(message.to_vec()),
        };
        let to_sign = ToSign::new(self.algorithm, input).map_err(|error| VerifyError::Unsupported(error.to_string()))?;
        self.verify(spki_der, &to_sign, signature)
    }
}

/// The longest salt that fits a modulus (RFC 8017 section 9.1.1: `emLen - hLen - 2`): some signers take it where nobody says otherwise.
fn longest_salt(key: &KeyKind, hash: HashAlgorithm) -> Option<u32> {
    let KeyKind::Rsa { modulus_bits } = key else { return None };
    (modulus_bits - 1).div_ceil(8).checked_sub(u32::try_from(hash.output_len()).ok()? + 2)
}

/// Parameters that must be absent, or NULL, which many write.
fn no_parameters(identifier: &AlgorithmIdentifierRef<'_>) -> Result<(), UnknownIdentifier> {
    match identifier.parameters {
        None => Ok(()),
        Some(parameters) if parameters.is_null() => Ok(()),
        Some(_) => Err(UnknownIdentifier(format!("{} takes no parameters", name_of(identifier.oid)))),
    }
}

/// What an object identifier is called, or its numbers.
fn name_of(oid: ObjectIdentifier) -> String {
    const_oid::db::DB.by_oid(&oid).map_or_else(|| oid.to_string(), |name| format!("{name} ({oid})"))
}
