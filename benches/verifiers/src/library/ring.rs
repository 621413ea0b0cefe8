//! ring: parses the key with every signature, and hashes the message itself.

use anyhow::Result;
use ring::signature as ring;
use spki::SubjectPublicKeyInfoRef;

use super::{Check, Input};
use crate::sample::{Algorithm, Key};

pub(super) fn check(key: &Key, input: Input) -> Result<Option<Check<'_>>> {
    let Some(algorithm) = algorithm(key.algorithm).filter(|_| input != Input::Digest) else {
        return Ok(None);
    };
    // It wants what is inside SubjectPublicKeyInfo: an RSAPublicKey, a point, or 32 bytes.
    let bytes = SubjectPublicKeyInfoRef::try_from(key.spki.as_slice())?.subject_public_key.raw_bytes();
    let public = ring::UnparsedPublicKey::new(algorithm, bytes);
    Ok(Some(Box::new(move |s| public.verify(&s.message, &s.signature).is_ok())))
}

fn algorithm(algorithm: Algorithm) -> Option<&'static dyn ring::VerificationAlgorithm> {
    Some(match algorithm {
        Algorithm::Rsa2048Pkcs1Sha256 | Algorithm::Rsa3072Pkcs1Sha256 => &ring::RSA_PKCS1_2048_8192_SHA256,
        Algorithm::Rsa2048PssSha256 => &ring::RSA_PSS_2048_8192_SHA256,
        Algorithm::EcdsaP256Sha256 => &ring::ECDSA_P256_SHA256_ASN1,
        Algorithm::EcdsaP384Sha384 => &ring::ECDSA_P384_SHA384_ASN1,
        Algorithm::EcdsaP521Sha512 => return None,
        Algorithm::Ed25519 => &ring::ED25519,
    })
}
