//! What a public key is, read from its `SubjectPublicKeyInfo` (RFC 5280 section 4.1.2.7).
//!
//! Every layer may ask: `token` for the keys it lists, `pki` for certificates, `signing` for what it verifies with.
//! Invariant: no input makes it fail or panic; what it cannot use it calls [`KeyKind::Unsupported`] and says what it is.

use const_oid::{
    ObjectIdentifier,
    db::{rfc5912, rfc8410},
};
use der::{Decode, asn1::UintRef};
use spki::SubjectPublicKeyInfoRef;

use super::algorithm::{Curve, KeyKind};

/// The longest `SubjectPublicKeyInfo` that is looked at, in bytes; RSA with [`RSA_BITS_MAX`](super::algorithm::RSA_BITS_MAX) takes about 1,100.
pub const SPKI_MAX: usize = 16 * 1024;

/// `RSAPublicKey` (RFC 8017 appendix A.1.1).
#[derive(der::Sequence)]
struct RsaPublicKey<'a> {
    modulus: UintRef<'a>,
    public_exponent: UintRef<'a>,
}

/// Says what the key in this DER `SubjectPublicKeyInfo` is; [`KeyKind::Unsupported`] names the algorithm by its OID.
#[must_use]
pub fn key_kind_of_spki(spki_der: &[u8]) -> KeyKind {
    if spki_der.len() > SPKI_MAX {
        return unreadable();
    }
    let Ok(spki) = SubjectPublicKeyInfoRef::from_der(spki_der) else { return unreadable() };
    match spki.algorithm.oid {
        rfc5912::RSA_ENCRYPTION => rsa_kind(&spki).unwrap_or_else(unreadable),
        rfc5912::ID_EC_PUBLIC_KEY => ec_kind(&spki),
        rfc8410::ID_ED_25519 => KeyKind::Ed25519,
        oid => KeyKind::Unsupported(format!("key algorithm {oid}")),
    }
}

fn rsa_kind(spki: &SubjectPublicKeyInfoRef<'_>) -> Option<KeyKind> {
    let key = RsaPublicKey::from_der(spki.subject_public_key.as_bytes()?).ok()?;
    let bytes = key.modulus.as_bytes();
    let top = bytes.first()?;
    let modulus_bits = u32::try_from(bytes.len()).ok()? * 8 - top.leading_zeros();
    Some(KeyKind::Rsa { modulus_bits })
}

fn ec_kind(spki: &SubjectPublicKeyInfoRef<'_>) -> KeyKind {
    let named = spki.algorithm.parameters.and_then(|parameters| parameters.decode_as::<ObjectIdentifier>().ok());
    match named {
        Some(rfc5912::SECP_256_R_1) => KeyKind::Ec(Curve::P256),
        Some(rfc5912::SECP_384_R_1) => KeyKind::Ec(Curve::P384),
        Some(rfc5912::SECP_521_R_1) => KeyKind::Ec(Curve::P521),
        Some(curve) => KeyKind::Unsupported(format!("EC curve {curve}")),
        None => KeyKind::Unsupported("EC curve without a name".to_owned()),
    }
}

fn unreadable() -> KeyKind {
    KeyKind::Unsupported("unreadable public key".to_owned())
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::{
        encoding::AsDer,
        rsa::KeySize,
        signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair},
    };
    use proptest::prelude::*;

    use super::*;

    fn ec_spki(algorithm: &'static signature::EcdsaSigningAlgorithm) -> Vec<u8> {
        EcdsaKeyPair::generate(algorithm).unwrap().public_key().as_der().unwrap().as_ref().to_vec()
    }

    #[test]
    fn each_kind_of_key_is_recognised() {
        let rsa = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        assert_eq!(key_kind_of_spki(rsa.public_key().as_der().unwrap().as_ref()), KeyKind::Rsa { modulus_bits: 2048 });
        assert_eq!(key_kind_of_spki(&ec_spki(&signature::ECDSA_P256_SHA256_ASN1_SIGNING)), KeyKind::Ec(Curve::P256));
        assert_eq!(key_kind_of_spki(&ec_spki(&signature::ECDSA_P384_SHA384_ASN1_SIGNING)), KeyKind::Ec(Curve::P384));
        assert_eq!(key_kind_of_spki(&ec_spki(&signature::ECDSA_P521_SHA512_ASN1_SIGNING)), KeyKind::Ec(Curve::P521));
        let ed25519 = Ed25519KeyPair::generate().unwrap();
        assert_eq!(key_kind_of_spki(ed25519.public_key().as_der().unwrap().as_ref()), KeyKind::Ed25519);
    }

    #[test]
    fn a_curve_that_is_not_supported_is_named_by_its_oid() {
        let kind = key_kind_of_spki(&ec_spki(&signature::ECDSA_P256K1_SHA256_ASN1_SIGNING));
        assert_eq!(kind, KeyKind::Unsupported("EC curve 1.3.132.0.10".to_owned()));
    }

    #[test]
    fn an_algorithm_that_is_not_supported_is_named_by_its_oid() {
        // X25519 (RFC 8410): an all-zero key is enough, only the algorithm is read.
        let mut x25519 = hex::decode("302a300506032b656e032100").unwrap();
        x25519.extend([0; 32]);
        assert_eq!(key_kind_of_spki(&x25519), KeyKind::Unsupported("key algorithm 1.3.101.110".to_owned()));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = key_kind_of_spki(&bytes);
        }

        #[test]
        fn a_damaged_key_is_still_read_without_a_panic(position in 0usize..91, flip in 1u8..) {
            let mut spki = ec_spki(&signature::ECDSA_P256_SHA256_ASN1_SIGNING);
            spki[position] ^= flip;
            let _ = key_kind_of_spki(&spki);
        }
    }
}
