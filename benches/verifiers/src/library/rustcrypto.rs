//! RustCrypto: a crate per algorithm, all in Rust, joined by the traits of `signature`.

use anyhow::Result;
use ed25519_dalek::VerifyingKey as Ed25519Key;
use rsa::{pkcs1v15, pss};
use sha2::Sha256;
use signature::{SignatureEncoding, Verifier, hazmat::PrehashVerifier};
use spki::{DecodePublicKey, Error as SpkiError};

use super::{Check, Input};
use crate::sample::{Algorithm, Key};

pub(super) fn check(key: &Key, input: Input) -> Result<Option<Check<'_>>> {
    Ok(match key.algorithm {
        Algorithm::Rsa2048Pkcs1Sha256 | Algorithm::Rsa3072Pkcs1Sha256 => {
            Some(hashing::<pkcs1v15::VerifyingKey<Sha256>, pkcs1v15::Signature>(key, input)?)
        }
        Algorithm::Rsa2048PssSha256 => Some(hashing::<pss::VerifyingKey<Sha256>, pss::Signature>(key, input)?),
        Algorithm::EcdsaP256Sha256 => Some(hashing::<p256::ecdsa::VerifyingKey, p256::ecdsa::DerSignature>(key, input)?),
        Algorithm::EcdsaP384Sha384 => Some(hashing::<p384::ecdsa::VerifyingKey, p384::ecdsa::DerSignature>(key, input)?),
        Algorithm::EcdsaP521Sha512 => Some(hashing::<p521::ecdsa::VerifyingKey, p521::ecdsa::DerSignature>(key, input)?),
        Algorithm::Ed25519 if input == Input::Digest => None,
        Algorithm::Ed25519 => Some(plain::<Ed25519Key, ed25519_dalek::Signature>(key, input)?),
    })
}

fn hashing<V, S>(key: &Key, input: Input) -> Result<Check<'_>, SpkiError>
where
    V: DecodePublicKey + Verifier<S> + PrehashVerifier<S> + 'static,
    S: SignatureEncoding,
{
    if input != Input::Digest {
        return plain::<V, S>(key, input);
    }
    let public = V::from_public_key_der(&key.spki)?;
    Ok(Box::new(move |s| S::try_from(&s.signature).is_ok_and(|sig| public.verify_prehash(&s.digest, &sig).is_ok())))
}

fn plain<V, S>(key: &Key, input: Input) -> Result<Check<'_>, SpkiError>
where
    V: DecodePublicKey + Verifier<S> + 'static,
    S: SignatureEncoding,
{
    let public = V::from_public_key_der(&key.spki)?;
    let verify = |public: &V, s: &crate::sample::Sample| S::try_from(&s.signature).is_ok_and(|sig| public.verify(&s.message, &sig).is_ok());
    Ok(match input {
        Input::KeyAndMessage => Box::new(move |s| V::from_public_key_der(&key.spki).is_ok_and(|public| verify(&public, s))),
        _ => Box::new(move |s| verify(&public, s)),
    })
}
