//! aws-lc-rs: ring's interface, with parsed keys and imported digests.

use anyhow::Result;
use aws_lc_rs::digest::{self, Digest};
use aws_lc_rs::signature::{self, ParsedPublicKey, UnparsedPublicKey, VerificationAlgorithm};

use super::{Check, Input};
use crate::sample::{Algorithm, Key};

pub(super) fn check(key: &Key, input: Input) -> Result<Option<Check<'_>>> {
    let algorithm = verification(key.algorithm);
    let public = ParsedPublicKey::new(algorithm, &key.spki)?;
    Ok(match (input, hash(key.algorithm)) {
        (Input::Message, _) => Some(Box::new(move |s| public.verify_sig(&s.message, &s.signature).is_ok())),
        (Input::Digest, None) => None,
        (Input::Digest, Some(hash)) => Some(Box::new(move |s| {
            Digest::import_less_safe(&s.digest, hash).and_then(|digest| public.verify_digest_sig(&digest, &s.signature)).is_ok()
        })),
        (Input::KeyAndMessage, _) => {
            Some(Box::new(move |s| UnparsedPublicKey::new(algorithm, &key.spki).verify(&s.message, &s.signature).is_ok()))
        }
    })
}

fn verification(algorithm: Algorithm) -> &'static dyn VerificationAlgorithm {
    match algorithm {
        Algorithm::Rsa2048Pkcs1Sha256 | Algorithm::Rsa3072Pkcs1Sha256 => &signature::RSA_PKCS1_2048_8192_SHA256,
        Algorithm::Rsa2048PssSha256 => &signature::RSA_PSS_2048_8192_SHA256,
        Algorithm::EcdsaP256Sha256 => &signature::ECDSA_P256_SHA256_ASN1,
        Algorithm::EcdsaP384Sha384 => &signature::ECDSA_P384_SHA384_ASN1,
        Algorithm::EcdsaP521Sha512 => &signature::ECDSA_P521_SHA512_ASN1,
        Algorithm::Ed25519 => &signature::ED25519,
    }
}

fn hash(algorithm: Algorithm) -> Option<&'static digest::Algorithm> {
    match algorithm {
        Algorithm::Ed25519 => None,
        Algorithm::EcdsaP384Sha384 => Some(&digest::SHA384),
        Algorithm::EcdsaP521Sha512 => Some(&digest::SHA512),
        _ => Some(&digest::SHA256),
    }
}
