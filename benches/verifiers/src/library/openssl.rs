//! OpenSSL: the libcrypto of the system, through its EVP interface.

use anyhow::Result;
use openssl::error::ErrorStack;
use openssl::md::{Md, MdRef};
use openssl::pkey::{PKey, PKeyRef, Public};
use openssl::pkey_ctx::PkeyCtx;
use openssl::rsa::Padding;
use openssl::sign::{RsaPssSaltlen, Verifier};

use super::{Check, Input};
use crate::sample::{Algorithm, Key, Sample};

pub(super) fn check(key: &Key, input: Input) -> Result<Option<Check<'_>>> {
    let algorithm = key.algorithm;
    let public = PKey::public_key_from_der(&key.spki)?;
    Ok(match (input, hash(algorithm)) {
        (Input::Message, _) => Some(Box::new(move |s| message(algorithm, &public, s).unwrap_or(false))),
        (Input::Digest, None) => None,
        (Input::Digest, Some(hash)) => Some(Box::new(move |s| digest(algorithm, &public, hash, s).unwrap_or(false))),
        (Input::KeyAndMessage, _) => {
            Some(Box::new(move |s| PKey::public_key_from_der(&key.spki).and_then(|public| message(algorithm, &public, s)).unwrap_or(false)))
        }
    })
}

fn message(algorithm: Algorithm, public: &PKeyRef<Public>, sample: &Sample) -> Result<bool, ErrorStack> {
    let mut verifier = match algorithm.digest() {
        Some(digest) => Verifier::new(digest, public)?,
        None => Verifier::new_without_digest(public)?,
    };
    if algorithm == Algorithm::Rsa2048PssSha256 {
        verifier.set_rsa_padding(Padding::PKCS1_PSS)?;
        verifier.set_rsa_pss_saltlen(RsaPssSaltlen::DIGEST_LENGTH)?;
    }
    verifier.verify_oneshot(&sample.signature, &sample.message)
}

fn digest(algorithm: Algorithm, public: &PKeyRef<Public>, hash: &MdRef, sample: &Sample) -> Result<bool, ErrorStack> {
    let mut context = PkeyCtx::new(public)?;
    context.verify_init()?;
    context.set_signature_md(hash)?;
    if algorithm == Algorithm::Rsa2048PssSha256 {
        context.set_rsa_padding(Padding::PKCS1_PSS)?;
        context.set_rsa_pss_saltlen(RsaPssSaltlen::DIGEST_LENGTH)?;
    }
    context.verify(&sample.digest, &sample.signature)
}

fn hash(algorithm: Algorithm) -> Option<&'static MdRef> {
    match algorithm {
        Algorithm::Ed25519 => None,
        Algorithm::EcdsaP384Sha384 => Some(Md::sha384()),
        Algorithm::EcdsaP521Sha512 => Some(Md::sha512()),
        _ => Some(Md::sha256()),
    }
}
