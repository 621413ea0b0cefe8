//! Signature values, with the two forms of an ECDSA signature kept apart by type.

use der::{Encode, asn1::UintRef};
use serde::{Deserialize, Serialize};

use super::algorithm::{Curve, KeyKind};

/// A signature as a key made it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SignatureValue {
    /// As long as the modulus.
    Rsa(#[serde(with = "super::bytes")] Vec<u8>),
    /// ECDSA, convertible to either form.
    Ecdsa(EcdsaSignature),
    /// 64 bytes R‖S (RFC 8032).
    Ed25519(#[serde(with = "super::bytes")] Vec<u8>),
}

/// Bytes from a token that cannot be a signature of its key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a signature of {key} has {expected} bytes, the token returned {got}")]
pub struct SignatureLengthError {
    key: KeyKind,
    expected: usize,
    got: usize,
}

/// Length of an Ed25519 signature in bytes.
pub const ED25519_SIGNATURE_LEN: usize = 64;

impl SignatureValue {
    /// Takes the bytes that a token returned for a key of this kind (ECDSA: raw r‖s, PKCS#11 v2.40 section 2.3.1).
    ///
    /// # Errors
    /// [`SignatureLengthError`] if the length is not that of such a key's signatures.
    pub fn from_token(key: &KeyKind, bytes: Vec<u8>) -> Result<Self, SignatureLengthError> {
        let expected = match key {
            KeyKind::Rsa { modulus_bits } => modulus_bits.div_ceil(8) as usize,
            KeyKind::Ec(curve) => 2 * curve.field_len(),
            KeyKind::Ed25519 => ED25519_SIGNATURE_LEN,
            KeyKind::Unsupported(_) => 0,
        };
        if bytes.len() != expected {
            return Err(SignatureLengthError { key: key.clone(), expected, got: bytes.len() });
        }
        Ok(match key {
            KeyKind::Ec(curve) => Self::Ecdsa(EcdsaSignature { curve: *curve, raw: bytes }),
            KeyKind::Ed25519 => Self::Ed25519(bytes),
            KeyKind::Rsa { .. } | KeyKind::Unsupported(_) => Self::Rsa(bytes),
        })
    }

    /// The form that X.509 and CMS carry: ECDSA as DER, everything else as it is.
    #[must_use]
    pub fn to_x509_bytes(&self) -> Vec<u8> {
        match self {
            Self::Rsa(bytes) | Self::Ed25519(bytes) => bytes.clone(),
            Self::Ecdsa(signature) => signature.to_der().into_bytes(),
        }
    }

    /// The form that JOSE and PKCS#11 carry: ECDSA as r‖s, everything else as it is.
    #[must_use]
    pub fn as_raw_bytes(&self) -> &[u8] {
        match self {
            Self::Rsa(bytes) | Self::Ed25519(bytes) => bytes,
            Self::Ecdsa(signature) => signature.as_raw(),
        }
    }
}

/// An ECDSA signature: two numbers, r and s.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EcdsaSignature {
    curve: Curve,
    #[serde(with = "super::bytes")]
    raw: Vec<u8>,
}

/// An ECDSA signature as `Ecdsa-Sig-Value ::= SEQUENCE { r INTEGER, s INTEGER }` (RFC 3279 section 2.2.3).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DerEcdsaSignature(Vec<u8>);

#[derive(der::Sequence)]
struct EcdsaSigValue<'a> {
    r: UintRef<'a>,
    s: UintRef<'a>,
}

impl EcdsaSignature {
    /// The curve of the key that made it.
    #[must_use]
    pub const fn curve(&self) -> Curve {
        self.curve
    }

    /// r‖s, each as long as the curve's field.
    #[must_use]
    pub fn as_raw(&self) -> &[u8] {
        &self.raw
    }

    /// The same two numbers in DER.
    #[must_use]
    pub fn to_der(&self) -> DerEcdsaSignature {
        let (r, s) = self.raw.split_at(self.curve.field_len());
        let encoded = UintRef::new(r).and_then(|r| Ok(EcdsaSigValue { r, s: UintRef::new(s)? })).and_then(|value| value.to_der());
        // INVARIANT: r and s have `field_len` bytes each (checked in `from_token`), far below DER's limits.
        #[allow(clippy::expect_used)]
        DerEcdsaSignature(encoded.expect("two short integers have a DER form"))
    }
}

impl DerEcdsaSignature {
    /// The DER bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The DER bytes, taken out.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use der::Decode;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn raw_and_der_hold_the_same_two_numbers(raw in proptest::collection::vec(any::<u8>(), 132), leading in 0usize..66) {
            let mut raw = raw;
            raw[..leading].fill(0);
            let value = SignatureValue::from_token(&KeyKind::Ec(Curve::P521), raw.clone()).unwrap();
            let SignatureValue::Ecdsa(signature) = value else { panic!("not ECDSA") };
            let der = signature.to_der();
            let parsed = EcdsaSigValue::from_der(der.as_bytes()).unwrap();
            let widen = |number: &[u8]| [vec![0; 66 - number.len()], number.to_vec()].concat();
            prop_assert_eq!([widen(parsed.r.as_bytes()), widen(parsed.s.as_bytes())].concat(), raw);
        }
    }

    #[test]
    fn a_signature_of_the_wrong_length_is_refused() {
        let error = SignatureValue::from_token(&KeyKind::Ec(Curve::P256), vec![1; 63]).unwrap_err();
        assert_eq!(error.to_string(), "a signature of EC P-256 has 64 bytes, the token returned 63");
    }
}
