use std::sync::Arc;

use aws_lc_rs::{
    encoding::AsDer,
    rsa::KeySize,
    signature::{EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, RsaKeyPair, RsaSignatureEncoding},
};
use proptest::prelude::*;

use super::*;

/// A software key of each kind, to sign with what a token would.
pub(crate) enum SoftwareKey {
    Rsa(RsaKeyPair),
    Ec(Curve, EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

pub(crate) fn ed25519() -> SoftwareKey {
    SoftwareKey::Ed25519(Ed25519KeyPair::generate().unwrap())
}

/// Some signature of a new key over `message`, with all that is needed to verify it.
pub(crate) fn ed25519_signature(message: &[u8]) -> (Arc<Verifier>, ToSign, SignatureValue) {
    ed25519().signature(message)
}

fn ec(curve: Curve) -> SoftwareKey {
    let algorithm: &'static EcdsaSigningAlgorithm = match curve {
        Curve::P256 => &aws::ECDSA_P256_SHA256_FIXED_SIGNING,
        Curve::P384 => &aws::ECDSA_P384_SHA384_FIXED_SIGNING,
        Curve::P521 => &aws::ECDSA_P521_SHA512_FIXED_SIGNING,
    };
    SoftwareKey::Ec(curve, EcdsaKeyPair::generate(algorithm).unwrap())
}

fn rsa(size: KeySize) -> SoftwareKey {
    SoftwareKey::Rsa(RsaKeyPair::generate(size).unwrap())
}

fn every_kind_of_key() -> Vec<SoftwareKey> {
    vec![rsa(KeySize::Rsa2048), rsa(KeySize::Rsa3072), ec(Curve::P256), ec(Curve::P384), ec(Curve::P521), ed25519()]
}

fn hashed(hash: HashAlgorithm, message: &[u8]) -> Digest {
    let algorithm = match hash {
        HashAlgorithm::Sha256 => &aws_digest::SHA256,
        HashAlgorithm::Sha384 => &aws_digest::SHA384,
        HashAlgorithm::Sha512 => &aws_digest::SHA512,
    };
    Digest::new(hash, aws_digest::digest(algorithm, message).as_ref().to_vec()).unwrap()
}

fn to_sign(algorithm: SignatureAlgorithm, message: &[u8]) -> ToSign {
    let input = match algorithm.hash() {
        Some(hash) => SigningInput::Digest(hashed(hash, message)),
        None => SigningInput::Message(message.to_vec()),
    };
    ToSign::new(algorithm, input).unwrap()
}

impl SoftwareKey {
    fn spki(&self) -> Vec<u8> {
        match self {
            Self::Rsa(key) => key.public_key().as_der().unwrap().as_ref().to_vec(),
            Self::Ec(_, key) => key.public_key().as_der().unwrap().as_ref().to_vec(),
            Self::Ed25519(key) => key.public_key().as_der().unwrap().as_ref().to_vec(),
        }
    }

    fn kind(&self) -> KeyKind {
        key_kind_of_spki(&self.spki())
    }

    fn algorithms(&self) -> Vec<SignatureAlgorithm> {
        SignatureAlgorithm::ALL.into_iter().filter(|algorithm| algorithm.fits(&self.kind())).collect()
    }

    fn sign(&self, to_sign: &ToSign) -> SignatureValue {
        let bytes = match (self, to_sign.input()) {
            (Self::Rsa(key), SigningInput::Digest(digest)) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign_digest(rsa_encoding(to_sign.algorithm()), &import(digest).unwrap(), &mut signature).unwrap();
                signature
            }
            (Self::Ec(curve, key), SigningInput::Digest(digest)) => key.sign_digest(&fitted_to(*curve, digest)).unwrap().as_ref().to_vec(),
            (Self::Ed25519(key), SigningInput::Message(message)) => key.sign(message).as_ref().to_vec(),
            _ => panic!("the input does not fit the key"),
        };
        SignatureValue::from_token(&self.kind(), bytes).unwrap()
    }

    pub(crate) fn signature(&self, message: &[u8]) -> (Arc<Verifier>, ToSign, SignatureValue) {
        let to_sign = to_sign(self.algorithms()[0], message);
        let value = self.sign(&to_sign);
        (Arc::new(Verifier::for_key(&self.spki()).unwrap()), to_sign, value)
    }
}

fn rsa_encoding(algorithm: SignatureAlgorithm) -> &'static RsaSignatureEncoding {
    match algorithm {
        SignatureAlgorithm::RsaPkcs1(HashAlgorithm::Sha256) => &aws::RSA_PKCS1_SHA256,
        SignatureAlgorithm::RsaPkcs1(HashAlgorithm::Sha384) => &aws::RSA_PKCS1_SHA384,
        SignatureAlgorithm::RsaPkcs1(HashAlgorithm::Sha512) => &aws::RSA_PKCS1_SHA512,
        SignatureAlgorithm::RsaPss(HashAlgorithm::Sha256) => &aws::RSA_PSS_SHA256,
        SignatureAlgorithm::RsaPss(HashAlgorithm::Sha384) => &aws::RSA_PSS_SHA384,
        SignatureAlgorithm::RsaPss(HashAlgorithm::Sha512) => &aws::RSA_PSS_SHA512,
        SignatureAlgorithm::Ecdsa(_) | SignatureAlgorithm::Ed25519 => panic!("not RSA"),
    }
}

/// The digest as long as the curve's own hash function makes it, standing for the same number (FIPS 186-5 section 6.4.1): a longer one
/// loses its end, a shorter one gets zeros before it. So the key signs what a token signs, whatever the hash function was.
fn fitted_to(curve: Curve, digest: &Digest) -> aws_digest::Digest {
    let len = curve.natural_hash().output_len();
    let bytes = digest.as_bytes();
    let fitted = [vec![0; len.saturating_sub(bytes.len())], bytes[..len.min(bytes.len())].to_vec()].concat();
    import(&Digest::new(curve.natural_hash(), fitted).unwrap()).unwrap()
}

fn damaged(value: &SignatureValue, kind: &KeyKind, byte: usize) -> SignatureValue {
    let mut bytes = value.as_raw_bytes().to_vec();
    let byte = byte % bytes.len();
    bytes[byte] ^= 1;
    SignatureValue::from_token(kind, bytes).unwrap()
}

#[test]
fn a_signature_is_right_only_over_its_own_input_with_its_own_key() {
    for (key, other) in every_kind_of_key().iter().zip(&every_kind_of_key()) {
        let verifier = Verifier::for_key(&key.spki()).unwrap();
        let stranger = Verifier::for_key(&other.spki()).unwrap();
        for algorithm in key.algorithms() {
            let signed = to_sign(algorithm, b"what was signed");
            let value = key.sign(&signed);
            let said = format!("{algorithm} with {}", key.kind());
            assert_eq!(verifier.verify(&signed, &value), Ok(()), "{said}");
            assert_eq!(verify(&key.spki(), &signed, &value), Ok(()), "{said}");
            assert_eq!(verifier.verify(&to_sign(algorithm, b"what was not"), &value), Err(VerifyError::Wrong), "{said}");
            assert_eq!(stranger.verify(&signed, &value), Err(VerifyError::Wrong), "{said}");
            for byte in [0, 31, 32, value.as_raw_bytes().len() - 1] {
                assert_eq!(verifier.verify(&signed, &damaged(&value, &key.kind(), byte)), Err(VerifyError::Wrong), "{said}");
            }
        }
    }
}

#[test]
fn a_signature_with_one_algorithm_is_not_one_with_another() {
    let key = rsa(KeySize::Rsa2048);
    let verifier = Verifier::for_key(&key.spki()).unwrap();
    for signed_with in key.algorithms() {
        let value = key.sign(&to_sign(signed_with, b"message"));
        for asked_for in key.algorithms() {
            let expected = if asked_for == signed_with { Ok(()) } else { Err(VerifyError::Wrong) };
            assert_eq!(verifier.verify(&to_sign(asked_for, b"message"), &value), expected, "{signed_with} as {asked_for}");
        }
    }
}

#[test]
fn a_truncated_signature_is_wrong() {
    for key in [rsa(KeySize::Rsa2048), ed25519()] {
        let (verifier, to_sign, value) = key.signature(b"message");
        let mut bytes = value.as_raw_bytes().to_vec();
        bytes.pop();
        let truncated = match key {
            SoftwareKey::Rsa(_) => SignatureValue::Rsa(bytes),
            _ => SignatureValue::Ed25519(bytes),
        };
        assert_eq!(verifier.verify(&to_sign, &truncated), Err(VerifyError::Wrong));
    }
}

#[test]
fn a_signature_of_another_curve_or_kind_is_wrong() {
    let (verifier, to_sign, _) = ec(Curve::P256).signature(b"message");
    let (_, _, of_p384) = ec(Curve::P384).signature(b"message");
    let (_, _, of_ed25519) = ed25519_signature(b"message");
    assert_eq!(verifier.verify(&to_sign, &of_p384), Err(VerifyError::Wrong));
    assert_eq!(verifier.verify(&to_sign, &of_ed25519), Err(VerifyError::Wrong));
}

#[test]
fn zeros_are_no_signature() {
    for key in every_kind_of_key() {
        let (verifier, to_sign, value) = key.signature(b"message");
        let zeros = SignatureValue::from_token(&key.kind(), vec![0; value.as_raw_bytes().len()]).unwrap();
        assert_eq!(verifier.verify(&to_sign, &zeros), Err(VerifyError::Wrong), "{}", key.kind());
    }
}

#[test]
fn an_algorithm_that_does_not_go_with_the_key_is_not_called_wrong() {
    let (verifier, _, value) = ed25519_signature(b"message");
    let refused = verifier.verify(&to_sign(SignatureAlgorithm::Ecdsa(HashAlgorithm::Sha256), b"message"), &value);
    assert_eq!(refused, Err(VerifyError::Unsupported("ecdsa-sha256 with Ed25519".to_owned())));
}

#[test]
fn keys_that_cannot_be_verified_with_are_refused_and_named() {
    let koblitz = EcdsaKeyPair::generate(&aws::ECDSA_P256K1_SHA256_ASN1_SIGNING).unwrap();
    let refused = Verifier::for_key(koblitz.public_key().as_der().unwrap().as_ref()).unwrap_err();
    assert_eq!(refused.to_string(), "a signature of EC curve 1.3.132.0.10 (not supported) cannot be verified");
    assert!(matches!(Verifier::for_key(b"no key"), Err(VerifyError::Unsupported(_))));
    let short = include_bytes!("testdata/rsa-1024.spki.der");
    assert_eq!(Verifier::for_key(short).unwrap_err(), VerifyError::Unsupported("a signature of RSA 1024".to_owned()));
}

#[test]
fn a_point_that_is_not_on_the_curve_is_no_key() {
    let mut spki = ec(Curve::P256).spki();
    *spki.last_mut().unwrap() ^= 1;
    assert!(matches!(Verifier::for_key(&spki), Err(VerifyError::Key(_))));
}

/// Made with `openssl pkeyutl`: a key of 8192 bits takes too long to make in a test.
#[test]
fn the_longest_rsa_key_is_verified_with() {
    let spki = include_bytes!("testdata/rsa-8192.spki.der");
    let value = SignatureValue::from_token(&key_kind_of_spki(spki), include_bytes!("testdata/rsa-8192.pss-sha512.sig").to_vec()).unwrap();
    let algorithm = SignatureAlgorithm::RsaPss(HashAlgorithm::Sha512);
    assert_eq!(verify(spki, &to_sign(algorithm, b"message"), &value), Ok(()));
    assert_eq!(verify(spki, &to_sign(algorithm, b"another"), &value), Err(VerifyError::Wrong));
}

#[test]
fn pss_with_a_salt_of_another_length_is_wrong() {
    let spki = include_bytes!("testdata/rsa-8192.spki.der");
    let salt_of_20 = include_bytes!("testdata/rsa-8192.pss-sha512-salt20.sig").to_vec();
    let value = SignatureValue::from_token(&key_kind_of_spki(spki), salt_of_20).unwrap();
    let algorithm = SignatureAlgorithm::RsaPss(HashAlgorithm::Sha512);
    assert_eq!(verify(spki, &to_sign(algorithm, b"message"), &value), Err(VerifyError::Wrong));
}

proptest! {
    #[test]
    fn no_changed_bit_of_an_ecdsa_signature_goes_unnoticed(byte in 0usize..96, bit in 0u8..8) {
        let key = ec(Curve::P384);
        let (verifier, to_sign, value) = key.signature(b"message");
        let mut bytes = value.as_raw_bytes().to_vec();
        bytes[byte] ^= 1 << bit;
        let changed = SignatureValue::from_token(&key.kind(), bytes).unwrap();
        prop_assert_eq!(verifier.verify(&to_sign, &changed), Err(VerifyError::Wrong));
    }
}
