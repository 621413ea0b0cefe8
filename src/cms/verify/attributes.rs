//! Signed and unsigned attributes as they were received (RFC 5652 sections 5.3 and 11; RFC 5035).

use const_oid::{ObjectIdentifier, db::rfc5911};
use der::{
    Decode, Encode, Reader, Sequence, SliceReader, Tag, Tagged,
    asn1::{AnyRef, OctetStringRef},
};
use spki::AlgorithmIdentifierRef;
use x509_cert::time::Time;

use super::signer::SignerFault;
use crate::{
    cms::{
        certificate::IssuerAndSerialNumber,
        digest,
        tlv::{SEQUENCE, context, wrap},
    },
    domain::{algorithm::HashAlgorithm, algorithm_identifier::hash_of, hash::sha1, timestamp::Timestamp},
};

/// The most attributes of one signer of either kind, and the most values of one.
const ATTRIBUTES_MAX: usize = 64;

/// `Attribute`s as bytes: each with its values, whole.
#[derive(Debug, Default)]
pub(super) struct Attributes<'a>(Vec<(ObjectIdentifier, Vec<&'a [u8]>)>);

impl<'a> Attributes<'a> {
    /// Reads a `SET OF Attribute` whose tag has been made that of a SET. `strict` demands DER's order, which signed attributes must have.
    pub(super) fn read(set: &'a [u8], strict: bool) -> Result<Self, SignerFault> {
        let unreadable = |_| SignerFault::Malformed("its attributes cannot be read");
        let mut found = Vec::new();
        for element in elements(set, Tag::Set, strict)? {
            let mut reader = SliceReader::new(element).map_err(unreadable)?;
            let (oid, values) = reader
                .sequence(|attribute: &mut SliceReader<'a>| Ok::<_, der::Error>((attribute.decode()?, attribute.tlv_bytes()?)))
                .map_err(unreadable)?;
            found.push((oid, elements(values, Tag::Set, strict)?));
        }
        Ok(Self(found))
    }

    /// Refuses attributes that stand twice.
    pub(super) fn without_duplicates(self) -> Result<Self, SignerFault> {
        for (index, (oid, _)) in self.0.iter().enumerate() {
            if self.0[..index].iter().any(|(earlier, _)| earlier == oid) {
                return Err(SignerFault::DuplicateAttribute(*oid));
            }
        }
        Ok(self)
    }

    /// The values of an attribute, each whole.
    pub(super) fn values(&self, oid: ObjectIdentifier) -> Vec<&'a [u8]> {
        self.0.iter().filter(|(found, _)| *found == oid).flat_map(|(_, values)| values.iter().copied()).collect()
    }

    /// The one value of an attribute; `None` if it is not there.
    pub(super) fn value(&self, oid: ObjectIdentifier) -> Result<Option<&'a [u8]>, SignerFault> {
        let Some((_, values)) = self.0.iter().find(|(found, _)| *found == oid) else { return Ok(None) };
        match values.as_slice() {
            [value] => Ok(Some(value)),
            _ => Err(SignerFault::AttributeValues(oid)),
        }
    }

    pub(super) fn content_type(&self) -> Result<ObjectIdentifier, SignerFault> {
        let value = self.value(rfc5911::ID_CONTENT_TYPE)?.ok_or(SignerFault::MissingAttribute("content-type"))?;
        ObjectIdentifier::from_der(value).map_err(|_| SignerFault::Malformed("its content-type cannot be read"))
    }

    pub(super) fn message_digest(&self) -> Result<&'a [u8], SignerFault> {
        let value = self.value(rfc5911::ID_MESSAGE_DIGEST)?.ok_or(SignerFault::MissingAttribute("message-digest"))?;
        let read = <&OctetStringRef>::from_der(value).map_err(|_| SignerFault::Malformed("its message-digest cannot be read"))?;
        Ok(read.as_bytes())
    }

    /// When the signer says that it signed.
    pub(super) fn signing_time(&self) -> Result<Option<Timestamp>, SignerFault> {
        let Some(value) = self.value(rfc5911::ID_SIGNING_TIME)? else { return Ok(None) };
        let time = Time::from_der(value).map_err(|_| SignerFault::Malformed("its signing-time cannot be read"))?;
        Ok(Some(Timestamp::from_millis(time.to_unix_duration().as_secs().saturating_mul(1000))))
    }

    /// What it says of its signer's certificate.
    pub(super) fn signing_certificate(&self) -> Result<Option<SigningCertificate<'a>>, SignerFault> {
        let unreadable = |_| SignerFault::Malformed("its signing-certificate cannot be read");
        let v2 = self.value(rfc5911::ID_AA_SIGNING_CERTIFICATE_V_2)?;
        let v1 = self.value(rfc5911::ID_AA_SIGNING_CERTIFICATE)?;
        let v2 = v2.map(first_id).transpose()?.map(EssCertIdV2::from_der).transpose().map_err(unreadable)?;
        let v1 = v1.map(first_id).transpose()?.map(EssCertId::from_der).transpose().map_err(unreadable)?;
        Ok((v1.is_some() || v2.is_some()).then_some(SigningCertificate { v1, v2 }))
    }
}

/// The elements of a SET or SEQUENCE, whole; `strict` wants those of a SET in DER's order.
fn elements(value: &[u8], tag: Tag, strict: bool) -> Result<Vec<&[u8]>, SignerFault> {
    let unreadable = |_| SignerFault::Malformed("its attributes cannot be read");
    let any = AnyRef::from_der(value).map_err(unreadable)?;
    any.tag().assert_eq(tag).map_err(unreadable)?;
    let mut reader = SliceReader::new(any.value()).map_err(unreadable)?;
    let mut found: Vec<&[u8]> = Vec::new();
    while !reader.is_finished() {
        if found.len() == ATTRIBUTES_MAX {
            return Err(SignerFault::Malformed("it has too many attributes"));
        }
        found.push(reader.tlv_bytes().map_err(unreadable)?);
    }
    if strict && !found.is_sorted() {
        return Err(SignerFault::AttributesNotDer);
    }
    Ok(found)
}

/// `ESSCertIDv2` (RFC 5035 section 4).
#[derive(Debug, Sequence)]
struct EssCertIdV2<'a> {
    hash_algorithm: Option<AlgorithmIdentifierRef<'a>>,
    hash: &'a OctetStringRef,
    issuer_serial: Option<AnyRef<'a>>,
}

/// `ESSCertID` (RFC 2634 section 5.4.1): SHA-1, always.
#[derive(Debug, Sequence)]
struct EssCertId<'a> {
    hash: &'a OctetStringRef,
    issuer_serial: Option<AnyRef<'a>>,
}

/// The signing-certificate attributes of a signer: of either kind, or of both.
#[derive(Debug)]
pub(super) struct SigningCertificate<'a> {
    v1: Option<EssCertId<'a>>,
    v2: Option<EssCertIdV2<'a>>,
}

/// The first id of a `SigningCertificate` or a `SigningCertificateV2`: it is the signer's; the others are its CAs'.
fn first_id(value: &[u8]) -> Result<&[u8], SignerFault> {
    let members = elements(value, Tag::Sequence, false)?;
    let ids = members.first().ok_or(SignerFault::Malformed("its signing-certificate cannot be read"))?;
    elements(ids, Tag::Sequence, false)?.first().copied().ok_or(SignerFault::Malformed("its signing-certificate names no certificate"))
}

impl SigningCertificate<'_> {
    /// Whether this is the certificate that every attribute names.
    pub(super) fn names(&self, certificate: &[u8]) -> Result<bool, SignerFault> {
        let v1 = match &self.v1 {
            None => true,
            Some(id) => sha1(certificate) == id.hash.as_bytes() && is_issuer_serial_of(certificate, id.issuer_serial)?,
        };
        let v2 = match &self.v2 {
            None => true,
            Some(id) => {
                let hash = id.hash_algorithm.as_ref().map_or(Ok(HashAlgorithm::Sha256), hash_of);
                let hash = hash.map_err(|unknown| SignerFault::Algorithm(unknown.to_string()))?;
                digest(hash, certificate).as_bytes() == id.hash.as_bytes() && is_issuer_serial_of(certificate, id.issuer_serial)?
            }
        };
        Ok(v1 && v2)
    }
}

/// Whether an `IssuerSerial`, if there is one, is that of the certificate.
fn is_issuer_serial_of(certificate: &[u8], issuer_serial: Option<AnyRef<'_>>) -> Result<bool, SignerFault> {
    let Some(issuer_serial) = issuer_serial else { return Ok(true) };
    let Ok(IssuerAndSerialNumber { issuer, serial_number }) = IssuerAndSerialNumber::of(certificate) else { return Ok(false) };
    // GeneralNames with one directoryName [4], EXPLICIT because Name is a CHOICE.
    let expected = wrap(SEQUENCE, &[&wrap(SEQUENCE, &[&wrap(context(4), &[issuer])]), serial_number]);
    let got = issuer_serial.to_der().map_err(|_| SignerFault::Malformed("its signing-certificate cannot be read"))?;
    Ok(got == expected)
}
