//! Signed attributes: the bytes that a signature is really made over (RFC 5652 section 5.3).

use std::time::Duration;

use const_oid::{ObjectIdentifier, db::rfc5911};
use der::{DateTime, Decode, Encode, Header, Reader, SliceReader, Tag};
use x509_cert::time::Time;

use super::{
    certificate::IssuerAndSerialNumber,
    digest,
    error::CmsError,
    tlv::{OCTET_STRING, SEQUENCE, SET, context, set_of, wrap},
};
use crate::domain::{
    algorithm::{HashAlgorithm, SignatureAlgorithm},
    digest::{Digest, MESSAGE_MAX, SigningInput, ToSign},
    ticket::CadesType,
    timestamp::Timestamp,
};

/// `id-aa-ets-contentTimestamp` (EN 319 122-1 clause 5.2.8).
const ID_AA_ETS_CONTENT_TIME_STAMP: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.2.20");

/// Signed attributes as the DER `SET OF Attribute` that is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedAttributes {
    der: Vec<u8>,
}

/// What signed attributes are made of.
#[derive(Debug, Clone, Copy)]
pub struct AttributeSpec<'a> {
    /// The type of the content; id-data for documents.
    pub content_type: ObjectIdentifier,
    /// [`CadesType::Undefined`]: content-type, message-digest and signing-time (UTCTime through 2049). Every other form: the same and ESS
    /// signing-certificate-v2 (RFC 5035) with the certificate's SHA-256, issuer and serial number.
    pub profile: CadesType,
    /// The digest of the content, made with [`SignatureAlgorithm::message_digest_hash`].
    pub content_digest: &'a Digest,
    /// The time that the signer claims.
    pub signing_time: Timestamp,
    /// The signer's certificate in DER.
    pub signer_certificate: &'a [u8],
    /// CA certificates in DER, nearest first, that signing-certificate-v2 names behind the signer's; the attribute is there in every form then.
    pub ca_certificates: &'a [Vec<u8>],
    /// A time-stamp token over the content, for the content-time-stamp attribute.
    pub content_time_stamp: Option<&'a [u8]>,
}

impl AttributeSpec<'_> {
    /// Makes the attributes for a signature with `algorithm`.
    ///
    /// # Errors
    /// [`CmsError::ContentDigest`] if the content was hashed otherwise, [`CmsError::Certificate`], [`CmsError::SigningTime`],
    /// [`CmsError::SignedAttributes`] if they are longer than a token takes.
    pub fn signed_attributes(&self, algorithm: SignatureAlgorithm) -> Result<SignedAttributes, CmsError> {
        let expected = algorithm.message_digest_hash();
        if self.content_digest.algorithm() != expected {
            return Err(CmsError::ContentDigest { expected, got: self.content_digest.algorithm() });
        }
        let mut attributes = vec![
            attribute(rfc5911::ID_CONTENT_TYPE, &self.content_type.to_der()?)?,
            attribute(rfc5911::ID_MESSAGE_DIGEST, &wrap(OCTET_STRING, &[self.content_digest.as_bytes()]))?,
            attribute(rfc5911::ID_SIGNING_TIME, &time(self.signing_time)?)?,
        ];
        if self.profile != CadesType::Undefined || !self.ca_certificates.is_empty() {
            let named = [self.signer_certificate].into_iter().chain(self.ca_certificates.iter().map(Vec::as_slice));
            attributes.push(attribute(rfc5911::ID_AA_SIGNING_CERTIFICATE_V_2, &signing_certificate_v2(named)?)?);
        }
        if let Some(token) = self.content_time_stamp {
            attributes.push(attribute(ID_AA_ETS_CONTENT_TIME_STAMP, token)?);
        }
        SignedAttributes::from_der(set_of(SET, attributes))
    }
}

/// Says what is to be signed for a document with this digest: see [`AttributeSpec`].
///
/// # Errors
/// As [`AttributeSpec::signed_attributes`].
pub fn signed_attributes(
    profile: CadesType,
    content_digest: &Digest,
    signing_time: Timestamp,
    signer_certificate_der: &[u8],
    algorithm: SignatureAlgorithm,
) -> Result<SignedAttributes, CmsError> {
    let spec = AttributeSpec {
        content_type: rfc5911::ID_DATA,
        profile,
        content_digest,
        signing_time,
        signer_certificate: signer_certificate_der,
        ca_certificates: &[],
        content_time_stamp: None,
    };
    spec.signed_attributes(algorithm)
}

impl SignedAttributes {
    /// Takes back attributes that were kept as [`as_der`](Self::as_der) gave them.
    ///
    /// # Errors
    /// [`CmsError::SignedAttributes`] if the bytes are not one `SET OF SEQUENCE`, or are longer than [`MESSAGE_MAX`].
    pub fn from_der(der: Vec<u8>) -> Result<Self, CmsError> {
        if der.len() > MESSAGE_MAX {
            return Err(CmsError::SignedAttributes(format!("{} bytes are more than {MESSAGE_MAX}", der.len())));
        }
        check_set_of_sequences(&der).map_err(|error| CmsError::SignedAttributes(error.to_string()))?;
        Ok(Self { der })
    }

    /// The DER `SET OF`, tag `31` first: these bytes are signed.
    #[must_use]
    pub fn as_der(&self) -> &[u8] {
        &self.der
    }

    /// What the token is given: their digest, or for Ed25519 (RFC 8419) they themselves.
    ///
    /// # Errors
    /// [`CmsError::ToSign`] never for attributes made here: their length is limited to what a token takes.
    pub fn to_sign(&self, algorithm: SignatureAlgorithm) -> Result<ToSign, CmsError> {
        let input = match algorithm.hash() {
            Some(hash) => SigningInput::Digest(digest(hash, &self.der)),
            None => SigningInput::Message(self.der.clone()),
        };
        Ok(ToSign::new(algorithm, input)?)
    }

    /// The same attributes as `signedAttrs [0] IMPLICIT`: only the tag differs.
    pub(super) fn to_implicit(&self) -> Vec<u8> {
        let mut bytes = self.der.clone();
        // The first byte is the SET's tag: `from_der` lets nothing else in.
        bytes[0] = context(0);
        bytes
    }
}

fn check_set_of_sequences(bytes: &[u8]) -> der::Result<()> {
    let mut reader = SliceReader::new(bytes)?;
    Tag::peek(&reader)?.assert_eq(Tag::Set)?;
    let header = Header::decode(&mut reader)?;
    reader.read_nested(header.length(), |attributes| {
        while !attributes.is_finished() {
            Tag::peek(attributes)?.assert_eq(Tag::Sequence)?;
            attributes.tlv_bytes()?;
        }
        Ok::<_, der::Error>(())
    })?;
    reader.finish()
}

/// `Attribute` with one value (RFC 5652 section 5.3).
pub(super) fn attribute(oid: ObjectIdentifier, value: &[u8]) -> Result<Vec<u8>, CmsError> {
    Ok(wrap(SEQUENCE, &[&oid.to_der()?, &wrap(SET, &[value])]))
}

/// `SigningTime` (RFC 5652 section 11.3): UTCTime through 2049, GeneralizedTime after; whole seconds.
fn time(signing_time: Timestamp) -> Result<Vec<u8>, CmsError> {
    DateTime::from_unix_duration(Duration::from_millis(signing_time.as_millis()))
        .and_then(|time| Time::from(time).to_der())
        .map_err(|error| CmsError::SigningTime(error.to_string()))
}

/// `SigningCertificateV2` with an `ESSCertIDv2` for each certificate (RFC 5035 section 3); the first is the signer's.
///
/// Its hash is SHA-256 whatever the signature's is: that is the default, which DER leaves out.
fn signing_certificate_v2<'a>(certificates: impl Iterator<Item = &'a [u8]>) -> Result<Vec<u8>, CmsError> {
    let named = certificates.map(|certificate| {
        let certificate_hash = wrap(OCTET_STRING, &[digest(HashAlgorithm::Sha256, certificate).as_bytes()]);
        Ok(wrap(SEQUENCE, &[&certificate_hash, &issuer_serial(certificate)?]))
    });
    let named = named.collect::<Result<Vec<_>, CmsError>>()?.concat();
    Ok(wrap(SEQUENCE, &[&wrap(SEQUENCE, &[&named])]))
}

/// `IssuerSerial` (RFC 5035 section 4) of a certificate.
pub(super) fn issuer_serial(certificate: &[u8]) -> Result<Vec<u8>, CmsError> {
    let IssuerAndSerialNumber { issuer, serial_number } = IssuerAndSerialNumber::of(certificate)?;
    // GeneralNames with one directoryName [4], EXPLICIT because Name is a CHOICE.
    let general_names = wrap(SEQUENCE, &[&wrap(context(4), &[issuer])]);
    Ok(wrap(SEQUENCE, &[&general_names, serial_number]))
}

#[cfg(test)]
mod tests {
    use der::asn1::SetOfVec;
    use proptest::prelude::*;
    use x509_cert::attr::Attribute;

    use super::*;
    use crate::cms::certificate::{CERTIFICATE_MAX, tests::outline};

    const ECDSA: SignatureAlgorithm = SignatureAlgorithm::Ecdsa(HashAlgorithm::Sha256);

    fn some_certificate() -> Vec<u8> {
        outline(&wrap(SEQUENCE, &[]), 1)
    }

    fn attributes_at(profile: CadesType, millis: u64) -> Result<SignedAttributes, CmsError> {
        let content = digest(HashAlgorithm::Sha256, b"content");
        signed_attributes(profile, &content, Timestamp::from_millis(millis), &some_certificate(), ECDSA)
    }

    fn value_of(attributes: &SignedAttributes, oid: ObjectIdentifier) -> Vec<u8> {
        let parsed = SetOfVec::<Attribute>::from_der(attributes.as_der()).unwrap();
        let found = parsed.iter().find(|attribute| attribute.oid == oid).unwrap();
        assert_eq!(found.values.len(), 1);
        found.values.get(0).unwrap().to_der().unwrap()
    }

    #[test]
    fn plain_cms_signs_content_type_time_and_digest() {
        let attributes = attributes_at(CadesType::Undefined, 0).unwrap();
        let expected = [
            "3169",
            "301806092a864886f70d010903310b06092a864886f70d010701",
            "301c06092a864886f70d010905310f170d3730303130313030303030305a",
            "302f06092a864886f70d0109043122",
            "0420ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73",
        ];
        // The lengths of the three attributes are 26, 30 and 49 bytes: 105 together.
        assert_eq!(hex::encode(attributes.as_der()), expected.concat());
    }

    #[test]
    fn cades_bes_names_the_certificate_by_its_sha256_issuer_and_serial_number() {
        let attributes = attributes_at(CadesType::Bes, 0).unwrap();
        let hash = digest(HashAlgorithm::Sha256, &some_certificate());
        let value = value_of(&attributes, rfc5911::ID_AA_SIGNING_CERTIFICATE_V_2);
        let issuer_serial = "3009".to_owned() + "3004a4023000" + "020101";
        assert_eq!(hex::encode(value), "3031302f302d0420".to_owned() + &hex::encode(hash.as_bytes()) + &issuer_serial);
    }

    #[test]
    fn the_signing_time_is_utc_time_through_2049_and_generalized_time_after() {
        let last_of_2049 = attributes_at(CadesType::Undefined, 2_524_607_999_999).unwrap();
        assert_eq!(value_of(&last_of_2049, rfc5911::ID_SIGNING_TIME), b"\x17\x0d491231235959Z");
        let first_of_2050 = attributes_at(CadesType::Undefined, 2_524_608_000_000).unwrap();
        assert_eq!(value_of(&first_of_2050, rfc5911::ID_SIGNING_TIME), b"\x18\x0f20500101000000Z");
        assert!(matches!(attributes_at(CadesType::Undefined, u64::MAX), Err(CmsError::SigningTime(_))));
    }

    #[test]
    fn content_must_be_hashed_as_the_algorithm_wants() {
        let content = digest(HashAlgorithm::Sha256, b"content");
        let made =
            signed_attributes(CadesType::Undefined, &content, Timestamp::from_millis(0), &some_certificate(), SignatureAlgorithm::Ed25519);
        assert_eq!(made, Err(CmsError::ContentDigest { expected: HashAlgorithm::Sha512, got: HashAlgorithm::Sha256 }));
    }

    #[test]
    fn the_signer_signs_the_same_in_every_cades_form() {
        let bes = attributes_at(CadesType::Bes, 0).unwrap();
        for form in [CadesType::T, CadesType::C, CadesType::XLong] {
            assert_eq!(attributes_at(form, 0).unwrap(), bes);
        }
    }

    #[test]
    fn ca_certificates_are_named_behind_the_signers_and_a_time_stamp_stands_in_its_attribute() {
        let (certificate, ca) = (some_certificate(), outline(&wrap(SEQUENCE, &[]), 2));
        let content = digest(HashAlgorithm::Sha256, b"content");
        let spec = AttributeSpec {
            content_type: rfc5911::ID_DATA,
            profile: CadesType::Undefined,
            content_digest: &content,
            signing_time: Timestamp::from_millis(0),
            signer_certificate: &certificate,
            ca_certificates: std::slice::from_ref(&ca),
            content_time_stamp: Some(&[0x30, 0]),
        };
        let made = spec.signed_attributes(ECDSA).unwrap();
        let named = hex::encode(value_of(&made, rfc5911::ID_AA_SIGNING_CERTIFICATE_V_2));
        let place = |certificate: &[u8]| named.find(&hex::encode(digest(HashAlgorithm::Sha256, certificate).as_bytes()));
        assert!(place(&certificate).unwrap() < place(&ca).unwrap());
        assert_eq!(value_of(&made, ID_AA_ETS_CONTENT_TIME_STAMP), [0x30, 0]);
    }

    #[test]
    fn a_certificate_without_end_is_refused() {
        let content = digest(HashAlgorithm::Sha256, b"content");
        let long = vec![0x30; CERTIFICATE_MAX + 1];
        let made = signed_attributes(CadesType::Bes, &content, Timestamp::from_millis(0), &long, ECDSA);
        assert!(matches!(made, Err(CmsError::Certificate(_))));
    }

    #[test]
    fn a_token_is_given_the_digest_or_for_ed25519_the_attributes() {
        let attributes = attributes_at(CadesType::Undefined, 0).unwrap();
        let der = attributes.as_der();
        for algorithm in SignatureAlgorithm::ALL {
            let expected = match algorithm.hash() {
                Some(hash) => SigningInput::Digest(digest(hash, der)),
                None => SigningInput::Message(der.to_vec()),
            };
            assert_eq!(attributes.to_sign(algorithm).unwrap().input(), &expected);
        }
    }

    proptest! {
        #[test]
        fn attributes_are_der_and_can_be_kept_and_taken_back(
            millis in 0u64..4_000_000_000_000,
            name in proptest::collection::vec(any::<u8>(), 0..300),
            serial in any::<u64>(),
            bes in any::<bool>(),
        ) {
            let issuer = wrap(SEQUENCE, &[&wrap(OCTET_STRING, &[&name])]);
            let profile = if bes { CadesType::Bes } else { CadesType::Undefined };
            let content = digest(HashAlgorithm::Sha256, &name);
            let made = signed_attributes(profile, &content, Timestamp::from_millis(millis), &outline(&issuer, serial), ECDSA).unwrap();
            // The parser of another library sorts when it reads and again when it writes: if nothing changes, the set was in order.
            let parsed = SetOfVec::<Attribute>::from_der(made.as_der()).unwrap();
            prop_assert_eq!(parsed.to_der().unwrap(), made.as_der());
            prop_assert_eq!(parsed.len(), if bes { 4 } else { 3 });
            prop_assert_eq!(SignedAttributes::from_der(made.as_der().to_vec()).unwrap(), made);
        }

        #[test]
        fn bytes_that_are_no_attributes_are_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = SignedAttributes::from_der(bytes);
        }

        #[test]
        fn attributes_that_were_cut_are_refused(keep in 0usize..107) {
            let whole = attributes_at(CadesType::Undefined, 0).unwrap();
            prop_assert!(SignedAttributes::from_der(whole.as_der()[..keep].to_vec()).is_err());
        }
    }
}
