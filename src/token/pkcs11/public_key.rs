//! What a key is, and its public half in X.509 form, from the attributes that tokens keep it in.
//!
//! Pure: bytes in, bytes out. Tokens write one and the same key in several ways, above all Ed25519 (three are known, all in use): see
//! [`Material::kind`] and [`Material::spki`].

use cryptoki::object::KeyType;
use cryptoki_sys::CKK_VENDOR_DEFINED;
use der::{
    Decode, Encode, Sequence,
    asn1::{AnyRef, BitString, BitStringRef, ObjectIdentifier, OctetStringRef, PrintableStringRef, UintRef},
    oid::db::{
        rfc5912::{ID_EC_PUBLIC_KEY, ID_RSASSA_PSS, RSA_ENCRYPTION, SECP_256_R_1, SECP_384_R_1, SECP_521_R_1},
        rfc8410::ID_ED_25519,
    },
};
use spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};

use crate::domain::algorithm::{Curve, KeyKind};

/// Ed25519 as OpenPGP cards name it.
const OPENPGP_ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.11591.15.1");
/// Ed25519 as PKCS#11 v3.0 names it (`curveName`); SoftHSM and Kryoptic make such keys.
const CURVE_NAME_ED25519: &str = "edwards25519";
/// Length of an Ed25519 public key in bytes.
const ED25519_POINT_LEN: usize = 32;

/// The attributes of a key object that say what the key is. Private objects have some of them, public objects should have all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Material {
    /// `CKA_KEY_TYPE`.
    pub(super) key_type: Option<KeyType>,
    /// `CKA_MODULUS`.
    pub(super) modulus: Option<Vec<u8>>,
    /// `CKA_PUBLIC_EXPONENT`.
    pub(super) exponent: Option<Vec<u8>>,
    /// `CKA_EC_PARAMS`.
    pub(super) params: Option<Vec<u8>>,
    /// `CKA_EC_POINT`.
    pub(super) point: Option<Vec<u8>>,
}

#[derive(Sequence)]
struct RsaPublicKey<'a> {
    modulus: UintRef<'a>,
    public_exponent: UintRef<'a>,
}

impl Material {
    /// What the key is; `None` if the attributes do not say.
    pub(super) fn kind(&self) -> Option<KeyKind> {
        match self.key_type? {
            KeyType::RSA => Some(KeyKind::Rsa { modulus_bits: bit_length(self.modulus.as_deref()?)? }),
            // The parameters decide, not the type: some modules file Ed25519 under CKK_EC.
            KeyType::EC | KeyType::EC_EDWARDS => Some(curve_of_params(self.params.as_deref()?)),
            other => Some(KeyKind::Unsupported(type_name(other))),
        }
    }

    /// The public key as `SubjectPublicKeyInfo` in DER; `None` if the attributes do not hold it.
    pub(super) fn spki(&self) -> Option<Vec<u8>> {
        let (algorithm, parameters, key) = match self.kind()? {
            KeyKind::Rsa { .. } => (RSA_ENCRYPTION, Some(AnyRef::NULL.into()), self.rsa_public_key()?),
            KeyKind::Ec(curve) => (ID_EC_PUBLIC_KEY, Some((&curve_oid(curve)).into()), uncompressed_point(self.point.as_deref()?, curve)?),
            KeyKind::Ed25519 => (ID_ED_25519, None, unwrapped(self.point.as_deref()?, |point| point.len() == ED25519_POINT_LEN)?),
            KeyKind::Unsupported(_) => return None,
        };
        let algorithm = AlgorithmIdentifierOwned { oid: algorithm, parameters };
        let subject_public_key = BitString::from_bytes(&key).ok()?;
        SubjectPublicKeyInfoOwned { algorithm, subject_public_key }.to_der().ok()
    }

    /// Whether both can be halves of one key, as far as they say.
    pub(super) fn agrees_with(&self, other: &Self) -> bool {
        let same_modulus = match (&self.modulus, &other.modulus) {
            (Some(one), Some(two)) => significant(one) == significant(two),
            _ => true,
        };
        let same_kind = match (self.kind(), other.kind()) {
            (Some(one), Some(two)) => one == two,
            _ => true,
        };
        same_modulus && same_kind
    }

    /// Fills what is missing here from `other`.
    pub(super) fn or(self, other: Self) -> Self {
        Self {
            key_type: self.key_type.or(other.key_type),
            modulus: self.modulus.or(other.modulus),
            exponent: self.exponent.or(other.exponent),
            params: self.params.or(other.params),
            point: self.point.or(other.point),
        }
    }

    fn rsa_public_key(&self) -> Option<Vec<u8>> {
        let modulus = UintRef::new(self.modulus.as_deref()?).ok()?;
        let public_exponent = UintRef::new(self.exponent.as_deref().filter(|exponent| !exponent.is_empty())?).ok()?;
        RsaPublicKey { modulus, public_exponent }.to_der().ok()
    }
}

/// What the key in a `SubjectPublicKeyInfo` is.
pub(super) fn kind_of_spki(spki: &SubjectPublicKeyInfoOwned) -> KeyKind {
    match spki.algorithm.oid {
        // id-RSASSA-PSS keys too: their restriction to PSS is the certificate's matter, the key is an RSA key.
        RSA_ENCRYPTION | ID_RSASSA_PSS => match RsaPublicKey::from_der(spki.subject_public_key.raw_bytes()) {
            Ok(key) => match bit_length(key.modulus.as_bytes()) {
                Some(modulus_bits) => KeyKind::Rsa { modulus_bits },
                None => KeyKind::Unsupported("RSA with an empty modulus".to_owned()),
            },
            Err(_) => KeyKind::Unsupported("RSA in a form that cannot be read".to_owned()),
        },
        ID_EC_PUBLIC_KEY => match spki.algorithm.parameters.as_ref().and_then(|parameters| parameters.to_der().ok()) {
            Some(params) => curve_of_params(&params),
            None => KeyKind::Unsupported("EC without a curve".to_owned()),
        },
        ID_ED_25519 => KeyKind::Ed25519,
        other => KeyKind::Unsupported(format!("of algorithm {other}")),
    }
}

/// Whether two `SubjectPublicKeyInfo` hold one key.
///
/// The key bits alone are compared: the algorithm beside them may be written in more than one way (RSA with or without NULL, or as
/// id-RSASSA-PSS), and no key bits of one algorithm are a key of another.
pub(super) fn same_key(one: &[u8], two: &[u8]) -> bool {
    let bits = |spki: &[u8]| SubjectPublicKeyInfoOwned::from_der(spki).map(|spki| spki.subject_public_key);
    matches!((bits(one), bits(two)), (Ok(one), Ok(two)) if one == two)
}

/// `CKA_EC_PARAMS` for a new key on `curve`.
pub(super) fn params_of_curve(curve: Curve) -> Vec<u8> {
    encoded(&curve_oid(curve))
}

/// `CKA_EC_PARAMS` for a new Ed25519 key, in the order in which they are to be tried: by name, then by object identifier.
pub(super) fn params_of_ed25519() -> [Vec<u8>; 2] {
    let name = PrintableStringRef::new(CURVE_NAME_ED25519).map(|name| encoded(&name)).unwrap_or_default();
    [name, encoded(&ID_ED_25519)]
}

fn encoded(value: &impl Encode) -> Vec<u8> {
    value.to_der().unwrap_or_default()
}

const fn curve_oid(curve: Curve) -> ObjectIdentifier {
    match curve {
        Curve::P256 => SECP_256_R_1,
        Curve::P384 => SECP_384_R_1,
        Curve::P521 => SECP_521_R_1,
    }
}

fn curve_of_params(params: &[u8]) -> KeyKind {
    if PrintableStringRef::from_der(params).is_ok_and(|name| name.as_str() == CURVE_NAME_ED25519) {
        return KeyKind::Ed25519;
    }
    match ObjectIdentifier::from_der(params) {
        Ok(SECP_256_R_1) => KeyKind::Ec(Curve::P256),
        Ok(SECP_384_R_1) => KeyKind::Ec(Curve::P384),
        Ok(SECP_521_R_1) => KeyKind::Ec(Curve::P521),
        Ok(ID_ED_25519 | OPENPGP_ED25519) => KeyKind::Ed25519,
        Ok(other) => KeyKind::Unsupported(format!("EC on curve {other}")),
        Err(_) => KeyKind::Unsupported("EC with parameters that name no curve".to_owned()),
    }
}

fn uncompressed_point(attribute: &[u8], curve: Curve) -> Option<Vec<u8>> {
    unwrapped(attribute, |point| point.len() == 1 + 2 * curve.field_len() && point.first() == Some(&4))
}

/// The content of `CKA_EC_POINT`: by the standard it is wrapped in an OCTET STRING, some modules give it bare or in a BIT STRING.
///
/// Only one reading has the right length: an uncompressed point starts with 04, which is also the tag of an OCTET STRING.
fn unwrapped(attribute: &[u8], is_point: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
    let octets = <&OctetStringRef>::from_der(attribute).ok().map(OctetStringRef::as_bytes);
    let bits = BitStringRef::from_der(attribute).ok().and_then(|bits| bits.as_bytes());
    [octets, bits, Some(attribute)].into_iter().flatten().find(|point| is_point(point)).map(<[u8]>::to_vec)
}

fn significant(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}

fn bit_length(number: &[u8]) -> Option<u32> {
    let number = significant(number);
    let first = number.first()?;
    u32::try_from(number.len() * 8).ok().map(|bits| bits - first.leading_zeros())
}

fn type_name(key_type: KeyType) -> String {
    match *key_type {
        vendor if vendor >= CKK_VENDOR_DEFINED => format!("of the vendor's own type {vendor:#x}"),
        _ => key_type.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        hex::decode(hex).unwrap()
    }

    fn ec(params: &str, point: &[u8]) -> Material {
        Material { key_type: Some(KeyType::EC), params: Some(bytes(params)), point: Some(point.to_vec()), ..Material::default() }
    }

    fn edwards(params: &str, point: Vec<u8>) -> Material {
        Material { key_type: Some(KeyType::EC_EDWARDS), params: Some(bytes(params)), point: Some(point), ..Material::default() }
    }

    fn rsa(modulus: &[u8], exponent: &[u8]) -> Material {
        Material { key_type: Some(KeyType::RSA), modulus: Some(modulus.to_vec()), exponent: Some(exponent.to_vec()), ..Material::default() }
    }

    #[test]
    fn ed25519_is_read_in_each_form_that_tokens_write() {
        let key = vec![7; 32];
        let wrapped = [vec![0x04, 0x20], key.clone()].concat();
        let in_bits = [vec![0x03, 0x21, 0x00], key.clone()].concat();
        let named = "130c656477617264733235353139";
        let forms = [
            edwards(named, wrapped.clone()),
            edwards("06032b6570", key.clone()),
            edwards("06032b6570", wrapped.clone()),
            edwards("06092b06010401da470f01", wrapped.clone()),
            edwards(named, in_bits),
            ec("06032b6570", &wrapped),
        ];
        let spki = [bytes("302a300506032b6570032100"), key].concat();
        for form in forms {
            assert_eq!(form.kind(), Some(KeyKind::Ed25519));
            assert_eq!(form.spki().as_ref(), Some(&spki), "{form:?}");
        }
    }

    #[test]
    fn a_point_is_read_wrapped_and_bare_on_each_curve() {
        for (curve, params, header) in [
            (Curve::P256, "06082a8648ce3d030107", "0441"),
            (Curve::P384, "06052b81040022", "0461"),
            (Curve::P521, "06052b81040023", "048185"),
        ] {
            let point = [vec![4], vec![0x42; 2 * curve.field_len()]].concat();
            let wrapped = ec(params, &[bytes(header), point.clone()].concat());
            let bare = ec(params, &point);
            assert_eq!(wrapped.kind(), Some(KeyKind::Ec(curve)));
            assert!(wrapped.spki().unwrap().ends_with(&point));
            assert_eq!(wrapped.spki(), bare.spki());
            let spki = SubjectPublicKeyInfoOwned::from_der(&bare.spki().unwrap()).unwrap();
            assert_eq!(kind_of_spki(&spki), KeyKind::Ec(curve));
        }
    }

    #[test]
    fn a_point_of_the_wrong_length_gives_no_public_key() {
        assert_eq!(ec("06082a8648ce3d030107", &[4; 64]).spki(), None);
        assert_eq!(edwards("06032b6570", vec![1; 31]).spki(), None);
    }

    #[test]
    fn rsa_is_measured_by_its_modulus_whatever_zeros_stand_before_it() {
        let modulus = [vec![0, 0, 0x80], vec![1; 255]].concat();
        let key = rsa(&modulus, &[1, 0, 1]);
        assert_eq!(key.kind(), Some(KeyKind::Rsa { modulus_bits: 2048 }));
        assert_eq!(key.spki(), rsa(&modulus[2..], &[0, 1, 0, 1]).spki());
        let spki = SubjectPublicKeyInfoOwned::from_der(&key.spki().unwrap()).unwrap();
        assert_eq!(kind_of_spki(&spki), KeyKind::Rsa { modulus_bits: 2048 });
    }

    #[test]
    fn keys_that_cannot_be_used_say_what_they_are() {
        let vendor = Material { key_type: Some(KeyType::new_vendor_defined(CKK_VENDOR_DEFINED | 0x42).unwrap()), ..Material::default() };
        assert_eq!(vendor.kind(), Some(KeyKind::Unsupported("of the vendor's own type 0x80000042".to_owned())));
        assert_eq!(ec("06052b8104000a", &[]).kind(), Some(KeyKind::Unsupported("EC on curve 1.3.132.0.10".to_owned())));
        assert_eq!(Material::default().kind(), None);
    }

    #[test]
    fn a_public_object_of_another_key_is_noticed() {
        let one = rsa(&[0xc1; 256], &[3]);
        assert!(one.agrees_with(&rsa(&[&[0][..], &[0xc1; 256]].concat(), &[])));
        assert!(!one.agrees_with(&rsa(&[0xc2; 256], &[3])));
        assert!(!one.agrees_with(&ec("06082a8648ce3d030107", &[])));
        assert!(one.agrees_with(&Material::default()));
    }
}
