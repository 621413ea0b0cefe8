//! `SignedData` as it is read here: its parts, each with the bytes that it came with.
//!
//! The `der` crate takes the encoding apart; what is inside a part is parsed by whoever wants it. Sets lose their order and nothing else, so
//! certificates and attributes are hashed, compared and embedded again byte for byte.

use const_oid::{ObjectIdentifier, db::rfc5911};
use der::{
    Any, Decode, Encode, Sequence,
    asn1::{OctetString, SetOfVec},
};
use spki::AlgorithmIdentifierOwned;
use x509_cert::{attr::Attribute, ext::pkix::SubjectKeyIdentifier};

use super::{certificate::IssuerAndSerialNumber, tlv};

/// `ContentInfo` (RFC 5652 section 3).
#[derive(Debug, Clone, PartialEq, Eq, Sequence)]
pub(super) struct ContentInfoOutline {
    pub(super) content_type: ObjectIdentifier,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    pub(super) content: Any,
}

/// `SignedData` (RFC 5652 section 5.1).
#[derive(Debug, Clone, PartialEq, Eq, Sequence)]
pub(super) struct SignedDataOutline {
    pub(super) version: u8,
    pub(super) digest_algorithms: SetOfVec<Any>,
    pub(super) encap_content_info: EncapsulatedOutline,
    #[asn1(context_specific = "0", tag_mode = "IMPLICIT", constructed = "true", optional = "true")]
    pub(super) certificates: Option<SetOfVec<Any>>,
    #[asn1(context_specific = "1", tag_mode = "IMPLICIT", constructed = "true", optional = "true")]
    pub(super) crls: Option<SetOfVec<Any>>,
    pub(super) signer_infos: SetOfVec<SignerOutline>,
}

/// `EncapsulatedContentInfo` (RFC 5652 section 5.2).
#[derive(Debug, Clone, PartialEq, Eq, Sequence)]
pub(super) struct EncapsulatedOutline {
    pub(super) content_type: ObjectIdentifier,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    pub(super) content: Option<OctetString>,
}

/// `SignerInfo` (RFC 5652 section 5.3).
#[derive(Debug, Clone, PartialEq, Eq, Sequence, der::ValueOrd)]
pub(super) struct SignerOutline {
    pub(super) version: u8,
    /// `SignerIdentifier`.
    pub(super) sid: Any,
    pub(super) digest_algorithm: AlgorithmIdentifierOwned,
    #[asn1(context_specific = "0", tag_mode = "IMPLICIT", constructed = "true", optional = "true")]
    pub(super) signed_attrs: Option<SetOfVec<Attribute>>,
    pub(super) signature_algorithm: AlgorithmIdentifierOwned,
    pub(super) signature: OctetString,
    #[asn1(context_specific = "1", tag_mode = "IMPLICIT", constructed = "true", optional = "true")]
    pub(super) unsigned_attrs: Option<SetOfVec<Attribute>>,
}

impl SignedDataOutline {
    /// Reads a `ContentInfo` with `SignedData` in it; nothing may stand behind.
    pub(super) fn from_content_info(der: &[u8]) -> der::Result<Self> {
        let info = ContentInfoOutline::from_der(der)?;
        if info.content_type != rfc5911::ID_SIGNED_DATA {
            return Err(der::ErrorKind::OidUnknown { oid: info.content_type }.into());
        }
        info.content.decode_as()
    }

    /// The X.509 certificates, byte for byte; attribute certificates and the like are passed over.
    pub(super) fn certificates(&self) -> der::Result<Vec<Vec<u8>>> {
        let all = self.certificates.iter().flat_map(SetOfVec::iter);
        all.map(Encode::to_der).filter(|der| der.as_ref().map_or(true, |der| der.first() == Some(&tlv::SEQUENCE))).collect()
    }
}

impl SignerOutline {
    /// The one value of a signed attribute that must be there once; what is wrong with it otherwise.
    pub(super) fn signed_value(&self, oid: ObjectIdentifier) -> Result<Option<&Any>, &'static str> {
        single_value(self.signed_attrs.as_ref(), oid)
    }

    /// Whether `certificate` is the one that this signer names.
    pub(super) fn is_named_by(&self, certificate: &[u8]) -> bool {
        let Ok(sid) = self.sid.to_der() else { return false };
        match IssuerAndSerialNumber::of(certificate) {
            Ok(IssuerAndSerialNumber { issuer, serial_number }) if sid.first() == Some(&tlv::SEQUENCE) => {
                tlv::wrap(tlv::SEQUENCE, &[issuer, serial_number]) == sid
            }
            Ok(_) => subject_key_id(certificate).is_some_and(|id| id == self.sid.value()),
            Err(_) => false,
        }
    }
}

/// The one value of the one attribute of this type; `None` if there is no such attribute.
fn single_value(attributes: Option<&SetOfVec<Attribute>>, oid: ObjectIdentifier) -> Result<Option<&Any>, &'static str> {
    let mut found = attributes.into_iter().flat_map(SetOfVec::iter).filter(|attribute| attribute.oid == oid);
    match (found.next(), found.next()) {
        (None, _) => Ok(None),
        (Some(attribute), None) => match (attribute.values.get(0), attribute.values.len()) {
            (Some(value), 1) => Ok(Some(value)),
            _ => Err("a signed attribute does not have one value"),
        },
        (Some(_), Some(_)) => Err("a signed attribute stands twice"),
    }
}

fn subject_key_id(certificate: &[u8]) -> Option<Vec<u8>> {
    let certificate = x509_cert::Certificate::from_der(certificate).ok()?;
    let (_, id) = certificate.tbs_certificate().get_extension::<SubjectKeyIdentifier>().ok()??;
    Some(id.0.into_bytes().into_vec())
}
