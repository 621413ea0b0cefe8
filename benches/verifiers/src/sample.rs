//! Keys and signatures to verify, made by OpenSSL.

use anyhow::Result;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::{MessageDigest, hash};
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rand::rand_bytes;
use openssl::rsa::{Padding, Rsa};
use openssl::sign::{RsaPssSaltlen, Signer};
use serde::Serialize;

/// Signatures per key: several, because one and the same would train the branch predictor.
const SAMPLES: usize = 16;

/// Bytes in a message: about what the DER of CMS signed attributes takes.
const MESSAGE_LEN: usize = 256;

/// What is measured: a key and the signature scheme used with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Algorithm {
    Rsa2048Pkcs1Sha256,
    Rsa3072Pkcs1Sha256,
    Rsa2048PssSha256,
    EcdsaP256Sha256,
    EcdsaP384Sha384,
    EcdsaP521Sha512,
    Ed25519,
}

impl Algorithm {
    const ALL: [Self; 7] = [
        Self::Rsa2048Pkcs1Sha256,
        Self::Rsa3072Pkcs1Sha256,
        Self::Rsa2048PssSha256,
        Self::EcdsaP256Sha256,
        Self::EcdsaP384Sha384,
        Self::EcdsaP521Sha512,
        Self::Ed25519,
    ];

    /// The hash over the message; `None` for Ed25519, which signs the message itself.
    pub(crate) fn digest(self) -> Option<MessageDigest> {
        match self {
            Self::Ed25519 => None,
            Self::EcdsaP384Sha384 => Some(MessageDigest::sha384()),
            Self::EcdsaP521Sha512 => Some(MessageDigest::sha512()),
            _ => Some(MessageDigest::sha256()),
        }
    }

    fn generate(self) -> Result<PKey<Private>> {
        let ec = |curve| -> Result<_> { Ok(PKey::from_ec_key(EcKey::generate(&*EcGroup::from_curve_name(curve)?)?)?) };
        match self {
            Self::Rsa2048Pkcs1Sha256 | Self::Rsa2048PssSha256 => Ok(PKey::from_rsa(Rsa::generate(2048)?)?),
            Self::Rsa3072Pkcs1Sha256 => Ok(PKey::from_rsa(Rsa::generate(3072)?)?),
            Self::EcdsaP256Sha256 => ec(Nid::X9_62_PRIME256V1),
            Self::EcdsaP384Sha384 => ec(Nid::SECP384R1),
            Self::EcdsaP521Sha512 => ec(Nid::SECP521R1),
            Self::Ed25519 => Ok(PKey::generate_ed25519()?),
        }
    }
}

/// A public key and signatures made with it.
pub(crate) struct Key {
    pub(crate) algorithm: Algorithm,
    /// SubjectPublicKeyInfo, DER: what a certificate holds.
    pub(crate) spki: Vec<u8>,
    pub(crate) samples: Vec<Sample>,
}

/// A message, its hash (empty for Ed25519) and its signature (ECDSA: DER).
#[derive(Clone)]
pub(crate) struct Sample {
    pub(crate) message: Vec<u8>,
    pub(crate) digest: Vec<u8>,
    pub(crate) signature: Vec<u8>,
}

/// Makes one key for each algorithm, with its signatures.
pub(crate) fn make_keys() -> Result<Vec<Key>> {
    let make = |algorithm: Algorithm| {
        let key = algorithm.generate()?;
        let samples = (0..SAMPLES).map(|_| make_sample(algorithm, &key)).collect::<Result<_>>()?;
        Ok(Key { algorithm, spki: key.public_key_to_der()?, samples })
    };
    Algorithm::ALL.into_iter().map(make).collect()
}

fn make_sample(algorithm: Algorithm, key: &PKey<Private>) -> Result<Sample> {
    let mut message = vec![0; MESSAGE_LEN];
    rand_bytes(&mut message)?;
    let (mut signer, digest) = match algorithm.digest() {
        Some(digest) => (Signer::new(digest, key)?, hash(digest, &message)?.to_vec()),
        None => (Signer::new_without_digest(key)?, Vec::new()),
    };
    if algorithm == Algorithm::Rsa2048PssSha256 {
        signer.set_rsa_padding(Padding::PKCS1_PSS)?;
        signer.set_rsa_pss_saltlen(RsaPssSaltlen::DIGEST_LENGTH)?;
    }
    let signature = signer.sign_oneshot_to_vec(&message)?;
    Ok(Sample { message, digest, signature })
}
