//! `AlgorithmIdentifier`s of a `SignerInfo`, exactly as the standards and the verifiers in the field want them.

use const_oid::{
    ObjectIdentifier,
    db::{rfc5912, rfc8410},
};
use der::{Encode, asn1::AnyRef, referenced::OwnedToRef as _};
use spki::AlgorithmIdentifierOwned;

use super::tlv::{NULL, SEQUENCE, context, wrap};
use crate::domain::{
    algorithm::{HashAlgorithm, SignatureAlgorithm},
    algorithm_identifier,
};

/// `digestAlgorithm`: SHA-2 without parameters (RFC 5754 section 2).
pub(super) fn digest_algorithm(hash: HashAlgorithm) -> der::Result<Vec<u8>> {
    identifier(hash_oid(hash), &[])
}

/// `signatureAlgorithm` of an algorithm.
///
/// RSA PKCS#1 v1.5 is named `rsaEncryption`, which RFC 3370 section 3.2 makes every verifier know, with NULL; the hash stands in
/// `digestAlgorithm`. ECDSA (RFC 5754 section 3.3) and Ed25519 (RFC 8419 section 3.1) have no parameters.
pub(super) fn signature_algorithm(algorithm: SignatureAlgorithm) -> der::Result<Vec<u8>> {
    match algorithm {
        SignatureAlgorithm::RsaPkcs1(_) => identifier(rfc5912::RSA_ENCRYPTION, &[NULL]),
        SignatureAlgorithm::RsaPss(hash) => identifier(rfc5912::ID_RSASSA_PSS, &[&pss_parameters(hash)?]),
        SignatureAlgorithm::Ecdsa(HashAlgorithm::Sha256) => identifier(rfc5912::ECDSA_WITH_SHA_256, &[]),
        SignatureAlgorithm::Ecdsa(HashAlgorithm::Sha384) => identifier(rfc5912::ECDSA_WITH_SHA_384, &[]),
        SignatureAlgorithm::Ecdsa(HashAlgorithm::Sha512) => identifier(rfc5912::ECDSA_WITH_SHA_512, &[]),
        SignatureAlgorithm::Ed25519 => identifier(rfc8410::ID_ED_25519, &[]),
    }
}

/// `RSASSA-PSS-params` (RFC 4055 section 3.1): hash, MGF1 with the same hash, a salt as long as the digest; `trailerField` is the default.
///
/// Its hash identifiers carry NULL, as the RFC's `sha256Identifier` does: some verifiers compare these bytes.
fn pss_parameters(hash: HashAlgorithm) -> der::Result<Vec<u8>> {
    let hash_algorithm = identifier(hash_oid(hash), &[NULL])?;
    let mask_generation = identifier(rfc5912::ID_MGF_1, &[&hash_algorithm])?;
    let salt_length = (hash.output_len() as u64).to_der()?;
    Ok(wrap(SEQUENCE, &[&wrap(context(0), &[&hash_algorithm]), &wrap(context(1), &[&mask_generation]), &wrap(context(2), &[&salt_length])]))
}

/// The hash function of an identifier; `None` for one that is not known here.
pub(super) fn hash_of(identifier: &AlgorithmIdentifierOwned) -> Option<HashAlgorithm> {
    algorithm_identifier::hash_of(&identifier.owned_to_ref()).ok()
}

/// The hash function of a `MessageImprint`, with the NULL that RFC 3161 requests have always had.
pub(super) fn imprint_algorithm(hash: HashAlgorithm) -> AlgorithmIdentifierOwned {
    AlgorithmIdentifierOwned { oid: hash_oid(hash), parameters: Some(AnyRef::NULL.into()) }
}

const fn hash_oid(hash: HashAlgorithm) -> ObjectIdentifier {
    match hash {
        HashAlgorithm::Sha256 => rfc5912::ID_SHA_256,
        HashAlgorithm::Sha384 => rfc5912::ID_SHA_384,
        HashAlgorithm::Sha512 => rfc5912::ID_SHA_512,
    }
}

fn identifier(oid: ObjectIdentifier, parameters: &[&[u8]]) -> der::Result<Vec<u8>> {
    let oid = oid.to_der()?;
    Ok(wrap(SEQUENCE, &[&[oid.as_slice()], parameters].concat()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex_of(encoded: der::Result<Vec<u8>>) -> String {
        hex::encode(encoded.unwrap())
    }

    #[test]
    fn identifiers_are_those_of_the_standards() {
        assert_eq!(hex_of(digest_algorithm(HashAlgorithm::Sha256)), "300b0609608648016503040201");
        let named = |algorithm| hex_of(signature_algorithm(algorithm));
        assert_eq!(named(SignatureAlgorithm::RsaPkcs1(HashAlgorithm::Sha512)), "300d06092a864886f70d0101010500");
        assert_eq!(named(SignatureAlgorithm::Ecdsa(HashAlgorithm::Sha256)), "300a06082a8648ce3d040302");
        assert_eq!(named(SignatureAlgorithm::Ecdsa(HashAlgorithm::Sha512)), "300a06082a8648ce3d040304");
        assert_eq!(named(SignatureAlgorithm::Ed25519), "300506032b6570");
    }

    #[test]
    fn pss_spells_out_hash_mask_and_salt() {
        // The identifier of RFC 4055 section 3.1 for SHA-256 with a salt of 32 bytes, as X.509 verifiers have it in their tables.
        assert_eq!(
            hex_of(signature_algorithm(SignatureAlgorithm::RsaPss(HashAlgorithm::Sha256))),
            "304106092a864886f70d01010a3034a00f300d06096086480165030402010500\
             a11c301a06092a864886f70d010108300d06096086480165030402010500a203020120"
        );
    }
}
