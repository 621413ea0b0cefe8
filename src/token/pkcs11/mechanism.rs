//! What a token can do, and how an algorithm of ours becomes a mechanism of PKCS#11.
//!
//! The gateway hashes; the token is given a `DigestInfo` (RSA v1.5), a digest (PSS, ECDSA) or the message (EdDSA). So one mechanism a
//! scheme is enough, and it is the one that every token has: the raw one. Invariant: what the token's own list does not hold is refused
//! here, before anything is called.

use std::fmt;

use cryptoki::{
    context::Pkcs11,
    mechanism::{
        Mechanism, MechanismType,
        eddsa::{EddsaParams, EddsaSignatureScheme},
        rsa::{PkcsMgfType, PkcsPssParams},
    },
    slot::Slot,
};

use super::return_value::from_cryptoki;
use crate::{
    domain::{
        algorithm::{Curve, HashAlgorithm, KeyKind, SignatureAlgorithm},
        digest::{SigningInput, ToSign},
        token::TokenOffer,
    },
    token::driver::DeviceError,
};

/// The mechanisms that the gateway has a use for.
const WANTED: [MechanismType; 7] = [
    MechanismType::RSA_PKCS,
    MechanismType::RSA_PKCS_PSS,
    MechanismType::ECDSA,
    MechanismType::EDDSA,
    MechanismType::RSA_PKCS_KEY_PAIR_GEN,
    MechanismType::ECC_KEY_PAIR_GEN,
    MechanismType::ECC_EDWARDS_KEY_PAIR_GEN,
];

/// The kinds of keys that a token is asked about without having one.
const KINDS: [KeyKind; 7] = [
    KeyKind::Rsa { modulus_bits: 2048 },
    KeyKind::Rsa { modulus_bits: 3072 },
    KeyKind::Rsa { modulus_bits: 4096 },
    KeyKind::Ec(Curve::P256),
    KeyKind::Ec(Curve::P384),
    KeyKind::Ec(Curve::P521),
    KeyKind::Ed25519,
];

/// The part of a token's mechanism list that the gateway has a use for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mechanisms(Vec<Offer>);

/// One mechanism as the token offers it (`CK_MECHANISM_INFO`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Offer {
    mechanism: MechanismType,
    sign: bool,
    generate_key_pair: bool,
    min_bits: usize,
    max_bits: usize,
}

/// A signature, ready to be asked for.
#[derive(Debug)]
pub(super) struct Plan {
    /// For `C_SignInit`.
    pub(super) mechanism: Mechanism<'static>,
    /// For `C_Sign`.
    pub(super) data: Vec<u8>,
}

impl Mechanisms {
    /// Asks the token (`C_GetMechanismList`, `C_GetMechanismInfo`).
    ///
    /// # Errors
    /// What the module said.
    pub(super) fn read(pkcs11: &Pkcs11, slot: Slot) -> Result<Self, DeviceError> {
        let listed = pkcs11.get_mechanism_list(slot).map_err(from_cryptoki)?;
        Ok(Self(WANTED.into_iter().filter(|wanted| listed.contains(wanted)).map(|wanted| Offer::read(pkcs11, slot, wanted)).collect()))
    }

    /// Says whether the token signs so with such a key.
    ///
    /// # Errors
    /// [`DeviceError::Unsupported`], with the reason.
    pub(super) fn check_sign(&self, key: &KeyKind, algorithm: SignatureAlgorithm) -> Result<(), DeviceError> {
        if !algorithm.fits(key) {
            return Err(DeviceError::Unsupported(format!("{algorithm} does not go with a key {key}")));
        }
        let wanted = match algorithm {
            SignatureAlgorithm::RsaPkcs1(_) => MechanismType::RSA_PKCS,
            SignatureAlgorithm::RsaPss(_) => MechanismType::RSA_PKCS_PSS,
            SignatureAlgorithm::Ecdsa(_) => MechanismType::ECDSA,
            SignatureAlgorithm::Ed25519 => MechanismType::EDDSA,
        };
        self.check(wanted, key, |offer| offer.sign, format_args!("{algorithm} with a key {key}"))
    }

    /// The mechanism that makes such keys.
    ///
    /// # Errors
    /// [`DeviceError::Unsupported`], with the reason.
    pub(super) fn check_generate(&self, key: &KeyKind) -> Result<Mechanism<'static>, DeviceError> {
        let mechanism = match key {
            KeyKind::Rsa { .. } => Mechanism::RsaPkcsKeyPairGen,
            KeyKind::Ec(_) => Mechanism::EccKeyPairGen,
            KeyKind::Ed25519 => Mechanism::EccEdwardsKeyPairGen,
            KeyKind::Unsupported(what) => return Err(DeviceError::Unsupported(format!("making a key {what}"))),
        };
        let usable = key.default_algorithm().is_some_and(|algorithm| algorithm.fits(key));
        if !usable {
            return Err(DeviceError::Unsupported(format!("making a key {key}: it could not sign here")));
        }
        self.check(mechanism.mechanism_type(), key, |offer| offer.generate_key_pair, format_args!("making a key {key}"))?;
        Ok(mechanism)
    }

    /// Every algorithm that the token offers for such a key.
    pub(super) fn algorithms(&self, key: &KeyKind) -> Vec<SignatureAlgorithm> {
        SignatureAlgorithm::ALL.into_iter().filter(|algorithm| self.check_sign(key, *algorithm).is_ok()).collect()
    }

    /// The kinds of keys that can be made, and every algorithm that goes with any of them.
    pub(super) fn offer(&self) -> TokenOffer {
        let signs = |algorithm: &SignatureAlgorithm| KINDS.iter().any(|kind| self.check_sign(kind, *algorithm).is_ok());
        TokenOffer {
            makes: KINDS.into_iter().filter(|kind| self.check_generate(kind).is_ok()).collect(),
            signs: SignatureAlgorithm::ALL.into_iter().filter(signs).collect(),
        }
    }

    fn check(
        &self,
        wanted: MechanismType,
        key: &KeyKind,
        permits: impl Fn(&Offer) -> bool,
        purpose: fmt::Arguments<'_>,
    ) -> Result<(), DeviceError> {
        let reason = match self.0.iter().find(|offer| offer.mechanism == wanted) {
            None => format!("its mechanism list has no {wanted}"),
            Some(offer) if !permits(offer) => format!("its {wanted} is not for that"),
            Some(offer) if !offer.takes(key) => format!("its {wanted} takes {} to {} bits", offer.min_bits, offer.max_bits),
            Some(_) => return Ok(()),
        };
        Err(DeviceError::Unsupported(format!("{purpose}: {reason}")))
    }
}

impl Offer {
    fn read(pkcs11: &Pkcs11, slot: Slot, mechanism: MechanismType) -> Self {
        match pkcs11.get_mechanism_info(slot, mechanism) {
            Ok(info) => Self {
                mechanism,
                sign: info.sign(),
                generate_key_pair: info.generate_key_pair(),
                min_bits: info.min_key_size(),
                max_bits: info.max_key_size(),
            },
            // The token lists it and will not say more: it is believed, and `C_SignInit` has the last word.
            Err(_) => Self { mechanism, sign: true, generate_key_pair: true, min_bits: 0, max_bits: 0 },
        }
    }

    /// Whether the key's size lies in the offer's range; a maximum of zero is a token that does not say.
    fn takes(&self, key: &KeyKind) -> bool {
        let fits = |bits: usize| self.max_bits == 0 || (self.min_bits..=self.max_bits).contains(&bits);
        match key {
            KeyKind::Rsa { modulus_bits } => fits(*modulus_bits as usize),
            KeyKind::Ec(Curve::P256) => fits(256),
            KeyKind::Ec(Curve::P384) => fits(384),
            KeyKind::Ec(Curve::P521) => fits(521),
            // Tokens call Ed25519 a curve of 255 bits or of 256.
            KeyKind::Ed25519 => fits(255) || fits(256),
            KeyKind::Unsupported(_) => false,
        }
    }
}

/// Plans a signature: the mechanism, and what the token is given.
///
/// # Errors
/// [`DeviceError::Unsupported`], with the reason.
pub(super) fn plan(mechanisms: &Mechanisms, key: &KeyKind, to_sign: &ToSign) -> Result<Plan, DeviceError> {
    let algorithm = to_sign.algorithm();
    mechanisms.check_sign(key, algorithm)?;
    let bytes = match to_sign.input() {
        SigningInput::Digest(digest) => digest.as_bytes(),
        SigningInput::Message(message) => message,
    };
    Ok(match algorithm {
        SignatureAlgorithm::RsaPkcs1(hash) => Plan { mechanism: Mechanism::RsaPkcs, data: digest_info(hash, bytes) },
        SignatureAlgorithm::RsaPss(hash) => Plan { mechanism: Mechanism::RsaPkcsPss(pss_params(hash)), data: bytes.to_vec() },
        SignatureAlgorithm::Ecdsa(_) => Plan { mechanism: Mechanism::Ecdsa, data: leftmost(bytes, key).to_vec() },
        SignatureAlgorithm::Ed25519 => {
            // Without parameters: that is how PKCS#11 v3.0 section 2.3.14 tells Ed25519 from Ed25519ctx and Ed25519ph.
            Plan { mechanism: Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Pure)), data: bytes.to_vec() }
        }
    })
}

/// The part of a digest that ECDSA uses (FIPS 186-5 section 6.4.1): its leftmost bits, as many as the curve's order has.
///
/// PKCS#11 leaves the cut to the token. SoftHSM makes it; others answer `CKR_DATA_LEN_RANGE` to SHA-512 on P-256. Here it is made for all of
/// them: the orders of these curves are as long as their fields, and those of P-256 and P-384 are whole bytes (P-521 is longer than any digest).
fn leftmost<'a>(digest: &'a [u8], key: &KeyKind) -> &'a [u8] {
    match key {
        KeyKind::Ec(curve) => &digest[..digest.len().min(curve.field_len())],
        _ => digest,
    }
}

/// `DigestInfo` in DER (RFC 8017 section 9.2, note 1): what `CKM_RSA_PKCS` pads and signs.
fn digest_info(hash: HashAlgorithm, digest: &[u8]) -> Vec<u8> {
    let (last_arc, digest_len) = match hash {
        HashAlgorithm::Sha256 => (1, 32),
        HashAlgorithm::Sha384 => (2, 48),
        HashAlgorithm::Sha512 => (3, 64),
    };
    // SEQUENCE { SEQUENCE { OID 2.16.840.1.101.3.4.2.x, NULL }, OCTET STRING }
    let header = [
        &[0x30, 17 + digest_len, 0x30, 13][..],
        &[0x06, 9, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, last_arc],
        &[0x05, 0, 0x04, digest_len],
    ];
    [header.concat(), digest.to_vec()].concat()
}

fn pss_params(hash: HashAlgorithm) -> PkcsPssParams {
    let (hash_alg, mgf, salt_len) = match hash {
        HashAlgorithm::Sha256 => (MechanismType::SHA256, PkcsMgfType::MGF1_SHA256, 32),
        HashAlgorithm::Sha384 => (MechanismType::SHA384, PkcsMgfType::MGF1_SHA384, 48),
        HashAlgorithm::Sha512 => (MechanismType::SHA512, PkcsMgfType::MGF1_SHA512, 64),
    };
    PkcsPssParams { hash_alg, mgf, s_len: salt_len.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::digest::Digest;

    const RSA: KeyKind = KeyKind::Rsa { modulus_bits: 3072 };
    const P256: KeyKind = KeyKind::Ec(Curve::P256);

    fn offer(mechanism: MechanismType, min_bits: usize, max_bits: usize) -> Offer {
        Offer { mechanism, sign: true, generate_key_pair: true, min_bits, max_bits }
    }

    fn all() -> Mechanisms {
        Mechanisms(WANTED.into_iter().map(|mechanism| offer(mechanism, 0, 0)).collect())
    }

    fn digest(hash: HashAlgorithm) -> ToSign {
        counting(SignatureAlgorithm::RsaPkcs1(hash), hash)
    }

    fn counting(algorithm: SignatureAlgorithm, hash: HashAlgorithm) -> ToSign {
        let bytes = (0..).take(hash.output_len()).collect();
        ToSign::new(algorithm, SigningInput::Digest(Digest::new(hash, bytes).unwrap())).unwrap()
    }

    #[test]
    fn digest_info_has_the_headers_of_rfc_8017() {
        let headers = [
            (HashAlgorithm::Sha256, "3031300d060960864801650304020105000420"),
            (HashAlgorithm::Sha384, "3041300d060960864801650304020205000430"),
            (HashAlgorithm::Sha512, "3051300d060960864801650304020305000440"),
        ];
        for (hash, header) in headers {
            let data = plan(&all(), &RSA, &digest(hash)).unwrap().data;
            assert_eq!(hex::encode(&data[..19]), header);
            assert_eq!(data[19..], (0..).take(hash.output_len()).collect::<Vec<u8>>());
        }
    }

    #[test]
    fn a_digest_longer_than_the_order_is_cut_on_the_host() {
        let long = counting(SignatureAlgorithm::Ecdsa(HashAlgorithm::Sha512), HashAlgorithm::Sha512);
        let lengths = [Curve::P256, Curve::P384, Curve::P521].map(|curve| plan(&all(), &KeyKind::Ec(curve), &long).unwrap().data.len());
        assert_eq!(lengths, [32, 48, 64]);
        assert_eq!(plan(&all(), &P256, &long).unwrap().data, (0..32).collect::<Vec<u8>>());
    }

    #[test]
    fn what_the_token_does_not_list_is_refused_by_name() {
        let only_v15 = Mechanisms(vec![offer(MechanismType::RSA_PKCS, 1024, 4096)]);
        let pss = counting(SignatureAlgorithm::RsaPss(HashAlgorithm::Sha256), HashAlgorithm::Sha256);
        let error = plan(&only_v15, &RSA, &pss).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the token cannot do this: rsa-pss-sha256 with a key RSA 3072: its mechanism list has no CKM_RSA_PKCS_PSS"
        );
        assert_eq!(only_v15.algorithms(&RSA).len(), 3);
        assert_eq!(only_v15.algorithms(&P256), []);
    }

    #[test]
    fn a_key_outside_the_offered_sizes_is_refused() {
        let small = Mechanisms(vec![offer(MechanismType::RSA_PKCS, 1024, 2048), offer(MechanismType::RSA_PKCS_KEY_PAIR_GEN, 1024, 2048)]);
        assert!(plan(&small, &RSA, &digest(HashAlgorithm::Sha256)).unwrap_err().to_string().contains("takes 1024 to 2048 bits"));
        assert!(small.check_generate(&RSA).is_err());
        assert!(small.check_generate(&KeyKind::Rsa { modulus_bits: 2048 }).is_ok());
    }

    #[test]
    fn a_mechanism_that_is_not_for_signing_is_not_used() {
        let verify_only = Mechanisms(vec![Offer { sign: false, ..offer(MechanismType::RSA_PKCS, 0, 0) }]);
        assert_eq!(verify_only.algorithms(&RSA), []);
    }

    #[test]
    fn keys_that_could_not_sign_here_are_not_made() {
        for kind in [KeyKind::Rsa { modulus_bits: 1024 }, KeyKind::Unsupported("DSA".to_owned())] {
            assert!(matches!(all().check_generate(&kind), Err(DeviceError::Unsupported(_))), "{kind}");
        }
    }
}
