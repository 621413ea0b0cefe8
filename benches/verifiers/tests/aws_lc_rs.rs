//! What the gateway relies on in aws-lc-rs, and where its interface surprises; an update that changes either fails here.
#![allow(clippy::unwrap_used)]

use aws_lc_rs::digest::{self, Digest};
use aws_lc_rs::signature::{
    self as lc, EcdsaVerificationAlgorithm, ParsedPublicKey, RsaParameters, RsaPssSaltLength, VerificationAlgorithm,
};
use openssl::bn::{BigNum, BigNumContext};
use openssl::ec::{EcGroup, EcKey, PointConversionForm};
use openssl::ecdsa::EcdsaSig;
use openssl::hash::{MessageDigest, hash};
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::{Padding, Rsa};
use openssl::sign::{RsaPssSaltlen, Signer};
use spki::der::asn1::{BitStringRef, OctetStringRef};
use spki::der::{Decode, Encode};
use spki::{ObjectIdentifier, SubjectPublicKeyInfoRef};

const MESSAGE: &[u8] = b"what the operator was shown";

#[test]
fn rsa_keys_from_2048_to_8192_bits_are_read_from_spki_and_from_rsapublickey() {
    for bits in [2048, 3072, 4096, 8192] {
        let key = rsa(bits);
        let signature = sign(&key, MessageDigest::sha256());
        let digest = Digest::import_less_safe(&hashed(MessageDigest::sha256()), &digest::SHA256).unwrap();
        for der in [spki(&key), key.rsa().unwrap().public_key_to_der_pkcs1().unwrap()] {
            let public = parse(&lc::RSA_PKCS1_2048_8192_SHA256, &der);
            assert!(public.verify_sig(MESSAGE, &signature).is_ok(), "{bits}");
            assert!(public.verify_digest_sig(&digest, &signature).is_ok(), "{bits}");
        }
    }
}

#[test]
fn an_rsa_key_of_1024_bits_is_parsed_but_verifies_nothing() {
    let key = rsa(1024);
    let signature = sign(&key, MessageDigest::sha256());
    assert!(parse(&lc::RSA_PKCS1_2048_8192_SHA256, &spki(&key)).verify_sig(MESSAGE, &signature).is_err());
    let legacy = parse(&lc::RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY, &spki(&key));
    assert!(legacy.verify_sig(MESSAGE, &signature).is_ok());
}

#[test]
fn an_rsa_exponent_of_more_than_33_bits_is_rejected_with_the_key() {
    let with_exponent = |bits| {
        let mut e = BigNum::new().unwrap();
        e.set_bit(bits).unwrap();
        e.set_bit(0).unwrap();
        let key = PKey::from_rsa(Rsa::generate_with_e(2048, &e).unwrap()).unwrap();
        ParsedPublicKey::new(&lc::RSA_PKCS1_2048_8192_SHA256, spki(&key)).is_ok()
    };
    assert!(with_exponent(1), "3");
    assert!(with_exponent(32), "2^32 + 1");
    assert!(!with_exponent(33), "2^33 + 1");
}

#[test]
fn an_rsa_signature_that_lost_its_leading_zero_is_refused() {
    let key = rsa(2048);
    let public = parse(&lc::RSA_PKCS1_2048_8192_SHA256, &spki(&key));
    let (message, signature) = (0..20_000_u32)
        .map(|n| n.to_be_bytes())
        .map(|message| (message, Signer::new(MessageDigest::sha256(), &key).unwrap().sign_oneshot_to_vec(&message).unwrap()))
        .find(|(_, signature)| signature[0] == 0)
        .unwrap();
    assert!(public.verify_sig(&message, &signature).is_ok());
    assert!(public.verify_sig(&message, &signature[1..]).is_err());
}

#[test]
fn pss_takes_the_salt_length_that_the_algorithm_names_and_no_other() {
    const EMPTY: RsaParameters = lc::RSA_PSS_2048_8192_SHA256.with_pss_salt_length(RsaPssSaltLength::Custom(0));
    const TWENTY: RsaParameters = lc::RSA_PSS_2048_8192_SHA256.with_pss_salt_length(RsaPssSaltLength::Custom(20));
    const MAX: RsaParameters = lc::RSA_PSS_2048_8192_SHA256.with_pss_salt_length(RsaPssSaltLength::Max);
    let cases: [(&'static RsaParameters, i32); 4] = [(&lc::RSA_PSS_2048_8192_SHA256, 32), (&EMPTY, 0), (&TWENTY, 20), (&MAX, 222)];
    let key = rsa(2048);
    for (algorithm, named) in cases {
        let public = parse(algorithm, &spki(&key));
        for (_, salt) in cases {
            let signature = sign_pss(&key, salt, MessageDigest::sha256());
            assert_eq!(public.verify_sig(MESSAGE, &signature).is_ok(), salt == named, "{algorithm:?}, salt {salt}");
        }
    }
}

#[test]
fn pss_with_another_hash_for_mgf1_is_refused() {
    let key = rsa(2048);
    let public = parse(&lc::RSA_PSS_2048_8192_SHA256, &spki(&key));
    assert!(public.verify_sig(MESSAGE, &sign_pss(&key, 32, MessageDigest::sha256())).is_ok());
    assert!(public.verify_sig(MESSAGE, &sign_pss(&key, 32, MessageDigest::sha1())).is_err());
}

/// So the caller must compare the key's OID with the algorithm: the library does not.
#[test]
fn a_key_marked_rsassa_pss_verifies_pss_even_under_a_pkcs1_algorithm() {
    let key = rsa(2048);
    let der = spki(&key);
    let mut info = SubjectPublicKeyInfoRef::from_der(&der).unwrap();
    info.algorithm.oid = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");
    info.algorithm.parameters = None;
    let marked = info.to_der().unwrap();
    let (pss, pkcs1) = (sign_pss(&key, 32, MessageDigest::sha256()), sign(&key, MessageDigest::sha256()));
    let proper = parse(&lc::RSA_PSS_2048_8192_SHA256, &marked);
    assert!(proper.verify_sig(MESSAGE, &pss).is_ok());
    let confused = parse(&lc::RSA_PKCS1_2048_8192_SHA256, &marked);
    assert!(confused.verify_sig(MESSAGE, &pss).is_ok());
    assert!(confused.verify_sig(MESSAGE, &pkcs1).is_err());
}

#[test]
fn fixed_is_raw_r_and_s_of_full_length_and_asn1_is_der() {
    let key = ec(Nid::X9_62_PRIME256V1);
    let der = sign(&key, MessageDigest::sha256());
    let raw = raw(&der, 32);
    let fixed = parse(&lc::ECDSA_P256_SHA256_FIXED, &spki(&key));
    let asn1 = parse(&lc::ECDSA_P256_SHA256_ASN1, &spki(&key));
    assert!(fixed.verify_sig(MESSAGE, &raw).is_ok() && asn1.verify_sig(MESSAGE, &der).is_ok());
    assert!(fixed.verify_sig(MESSAGE, &der).is_err() && asn1.verify_sig(MESSAGE, &raw).is_err());
    let longer = [&[0], &raw[..32], &[0], &raw[32..]].concat();
    assert!(fixed.verify_sig(MESSAGE, &longer).is_err());
}

#[test]
fn an_ecdsa_signature_that_is_ber_but_not_der_is_refused() {
    let key = ec(Nid::X9_62_PRIME256V1);
    let der = sign(&key, MessageDigest::sha256());
    let long_form = [&[0x30, 0x81], &der[1..]].concat();
    let trailing = [&der[..], &[0]].concat();
    let asn1 = parse(&lc::ECDSA_P256_SHA256_ASN1, &spki(&key));
    assert!(asn1.verify_sig(MESSAGE, &long_form).is_err());
    assert!(asn1.verify_sig(MESSAGE, &trailing).is_err());
}

#[test]
fn asn1_has_every_pair_of_curve_and_hash_and_fixed_has_not() {
    let keys = [Nid::X9_62_PRIME256V1, Nid::SECP384R1, Nid::SECP521R1].map(ec);
    let hashes = [MessageDigest::sha256(), MessageDigest::sha384(), MessageDigest::sha512()];
    let pairs: [[&'static EcdsaVerificationAlgorithm; 3]; 3] = [
        [&lc::ECDSA_P256_SHA256_ASN1, &lc::ECDSA_P256_SHA384_ASN1, &lc::ECDSA_P256_SHA512_ASN1],
        [&lc::ECDSA_P384_SHA256_ASN1, &lc::ECDSA_P384_SHA384_ASN1, &lc::ECDSA_P384_SHA512_ASN1],
        [&lc::ECDSA_P521_SHA256_ASN1, &lc::ECDSA_P521_SHA384_ASN1, &lc::ECDSA_P521_SHA512_ASN1],
    ];
    for (key, algorithms) in keys.iter().zip(pairs) {
        for (hash, algorithm) in hashes.into_iter().zip(algorithms) {
            assert!(parse(algorithm, &spki(key)).verify_sig(MESSAGE, &sign(key, hash)).is_ok(), "{algorithm:?}");
        }
    }
    // Raw r and s: P-256 has SHA-256 only, P-384 SHA-384 only, P-521 all three.
    let raw = raw(&sign(&keys[2], MessageDigest::sha256()), 66);
    assert!(parse(&lc::ECDSA_P521_SHA256_FIXED, &spki(&keys[2])).verify_sig(MESSAGE, &raw).is_ok());
}

/// ECDSA takes the leftmost bits of the hash as a number, so zeros in front and bytes cut off the end change nothing.
#[test]
fn any_hash_fits_any_curve_when_it_is_brought_to_the_length_of_the_curves_own() {
    let curves: [(Nid, i32, &'static EcdsaVerificationAlgorithm, &'static digest::Algorithm); 3] = [
        (Nid::X9_62_PRIME256V1, 32, &lc::ECDSA_P256_SHA256_FIXED, &digest::SHA256),
        (Nid::SECP384R1, 48, &lc::ECDSA_P384_SHA384_FIXED, &digest::SHA384),
        (Nid::SECP521R1, 66, &lc::ECDSA_P521_SHA512_FIXED, &digest::SHA512),
    ];
    let hashes = [
        MessageDigest::sha1(),
        MessageDigest::sha224(),
        MessageDigest::sha256(),
        MessageDigest::sha384(),
        MessageDigest::sha512(),
        MessageDigest::sha3_256(),
        MessageDigest::sha3_512(),
    ];
    for (curve, field, algorithm, own) in curves {
        let key = ec(curve);
        let public = parse(algorithm, &spki(&key));
        for hash in hashes {
            let signature = raw(&sign(&key, hash), field);
            let mut digest = fitted(&hashed(hash), own.output_len());
            let verifies = |digest: &[u8]| public.verify_digest_sig(&Digest::import_less_safe(digest, own).unwrap(), &signature).is_ok();
            assert!(verifies(&digest), "{curve:?} {:?}", hash.type_());
            digest[own.output_len() - 1] ^= 1;
            assert!(!verifies(&digest), "{curve:?} {:?}", hash.type_());
        }
    }
}

#[test]
fn a_digest_of_another_algorithm_fails_like_a_wrong_signature() {
    let key = ec(Nid::X9_62_PRIME256V1);
    let signature = sign(&key, MessageDigest::sha384());
    let sha384 = Digest::import_less_safe(&hashed(MessageDigest::sha384()), &digest::SHA384).unwrap();
    assert!(parse(&lc::ECDSA_P256_SHA384_ASN1, &spki(&key)).verify_digest_sig(&sha384, &signature).is_ok());
    assert!(parse(&lc::ECDSA_P256_SHA256_ASN1, &spki(&key)).verify_digest_sig(&sha384, &signature).is_err());
    assert!(Digest::import_less_safe(&[0; 31], &digest::SHA256).is_err());
}

#[test]
fn ed25519_reads_spki_and_32_bytes_and_verifies_no_digest() {
    let key = PKey::generate_ed25519().unwrap();
    let signature = Signer::new_without_digest(&key).unwrap().sign_oneshot_to_vec(MESSAGE).unwrap();
    for bytes in [spki(&key), key.raw_public_key().unwrap()] {
        let public = parse(&lc::ED25519, &bytes);
        assert!(public.verify_sig(MESSAGE, &signature).is_ok());
        assert!(public.verify_digest_sig(&digest::digest(&digest::SHA512, MESSAGE), &signature).is_err());
    }
}

#[test]
fn ec_keys_are_read_from_spki_and_points_but_not_from_a_wrapped_point() {
    let key = ec(Nid::SECP384R1);
    let (info, ec_key) = (spki(&key), key.ec_key().unwrap());
    let point = |form| ec_key.public_key().to_bytes(ec_key.group(), form, &mut BigNumContext::new().unwrap()).unwrap();
    let (plain, compressed) = (point(PointConversionForm::UNCOMPRESSED), point(PointConversionForm::COMPRESSED));
    let mut compressed_info = SubjectPublicKeyInfoRef::from_der(&info).unwrap();
    compressed_info.subject_public_key = BitStringRef::from_bytes(&compressed).unwrap();
    let compressed_info = compressed_info.to_der().unwrap();
    for bytes in [&info, &plain, &compressed, &compressed_info] {
        assert!(ParsedPublicKey::new(&lc::ECDSA_P384_SHA384_ASN1, bytes).is_ok());
    }
    // CKA_EC_POINT is such an OCTET STRING.
    let wrapped = OctetStringRef::new(&plain).unwrap().to_der().unwrap();
    assert!(ParsedPublicKey::new(&lc::ECDSA_P384_SHA384_ASN1, wrapped).is_err());
    assert!(ParsedPublicKey::new(&lc::ECDSA_P256_SHA384_ASN1, &info).is_err());
    assert!(ParsedPublicKey::new(&lc::RSA_PKCS1_2048_8192_SHA256, &info).is_err());
}

/// So bytes that are kept or compared must come from a parser that minds.
#[test]
fn bytes_after_the_spki_are_ignored() {
    let keys: [(PKey<Private>, &'static dyn VerificationAlgorithm); 3] = [
        (rsa(2048), &lc::RSA_PKCS1_2048_8192_SHA256),
        (ec(Nid::X9_62_PRIME256V1), &lc::ECDSA_P256_SHA256_ASN1),
        (PKey::generate_ed25519().unwrap(), &lc::ED25519),
    ];
    for (key, algorithm) in keys {
        let longer = [&spki(&key)[..], b"more"].concat();
        assert!(ParsedPublicKey::new(algorithm, longer).is_ok(), "{algorithm:?}");
    }
}

#[test]
fn a_parsed_key_is_shared_between_threads() {
    fn shared<T: Send + Sync + Clone>() {}
    shared::<ParsedPublicKey>();
}

fn parse(algorithm: &'static dyn VerificationAlgorithm, bytes: &[u8]) -> ParsedPublicKey {
    ParsedPublicKey::new(algorithm, bytes).unwrap()
}

fn rsa(bits: u32) -> PKey<Private> {
    PKey::from_rsa(Rsa::generate(bits).unwrap()).unwrap()
}

fn ec(curve: Nid) -> PKey<Private> {
    PKey::from_ec_key(EcKey::generate(&EcGroup::from_curve_name(curve).unwrap()).unwrap()).unwrap()
}

fn spki(key: &PKey<Private>) -> Vec<u8> {
    key.public_key_to_der().unwrap()
}

fn hashed(algorithm: MessageDigest) -> Vec<u8> {
    hash(algorithm, MESSAGE).unwrap().to_vec()
}

/// `hash` as `len` bytes that ECDSA reads as the same number: zeros in front, or cut at the end.
fn fitted(hash: &[u8], len: usize) -> Vec<u8> {
    let mut out = vec![0; len.saturating_sub(hash.len())];
    out.extend(&hash[..hash.len().min(len)]);
    out
}

fn sign(key: &PKey<Private>, hash: MessageDigest) -> Vec<u8> {
    Signer::new(hash, key).unwrap().sign_oneshot_to_vec(MESSAGE).unwrap()
}

fn sign_pss(key: &PKey<Private>, salt: i32, mgf1: MessageDigest) -> Vec<u8> {
    let mut signer = Signer::new(MessageDigest::sha256(), key).unwrap();
    signer.set_rsa_padding(Padding::PKCS1_PSS).unwrap();
    signer.set_rsa_pss_saltlen(RsaPssSaltlen::custom(salt)).unwrap();
    signer.set_rsa_mgf1_md(mgf1).unwrap();
    signer.sign_oneshot_to_vec(MESSAGE).unwrap()
}

/// A DER signature as a token gives it: r and s, each as long as the field.
fn raw(der: &[u8], field: i32) -> Vec<u8> {
    let signature = EcdsaSig::from_der(der).unwrap();
    [signature.r(), signature.s()].map(|number| number.to_vec_padded(field).unwrap()).concat()
}
