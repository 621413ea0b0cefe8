//! Certificates and evidence that stand beside a signature, and the references to them (EN 319 122-1 annex A.1, RFC 5126 sections 6.2 and 6.3).
//!
//! Nothing here is believed: certificates and evidence are signed by their issuers, and are judged where that is known. Invariants: where both
//! references and values are there, every reference is to one of the values; a reference by SHA-1 is compared as such, and proves nothing.

use const_oid::{ObjectIdentifier, db::rfc5912::ID_SHA_1};
use der::{
    Decode, Encode, Reader, Sequence, SliceReader, Tag, Tagged,
    asn1::{AnyRef, OctetStringRef},
};
use spki::AlgorithmIdentifierRef;

use super::{EMBEDDED_MAX, attributes::Attributes, signer::SignerFault};
use crate::{
    cms::tlv::{SEQUENCE, context},
    domain::{
        algorithm_identifier::hash_of,
        hash::{digest, sha1},
    },
};

/// `id-aa-ets-certificateRefs`.
const CERTIFICATE_REFS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.2.21");
/// `id-aa-ets-revocationRefs`.
const REVOCATION_REFS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.2.22");
/// `id-aa-ets-certValues`.
const CERTIFICATE_VALUES: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.2.23");
/// `id-aa-ets-revocationValues`.
const REVOCATION_VALUES: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.2.24");
/// `id-ri-ocsp-response` (RFC 5940).
const RI_OCSP_RESPONSE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.16.2");

const BAD_CERTIFICATE_VALUES: SignerFault = SignerFault::Malformed("its certificate-values cannot be read");
const BAD_REVOCATION_VALUES: SignerFault = SignerFault::Malformed("its revocation-values cannot be read");
const BAD_CERTIFICATE_REFS: SignerFault = SignerFault::Malformed("its complete-certificate-references cannot be read");
const BAD_REVOCATION_REFS: SignerFault = SignerFault::Malformed("its complete-revocation-references cannot be read");

/// What a signer's unsigned attributes carry, each in DER.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CarriedValues {
    /// Certificates.
    pub certificates: Vec<Vec<u8>>,
    /// CRLs.
    pub crls: Vec<Vec<u8>>,
    /// OCSP answers: `BasicOCSPResponse`s.
    pub ocsp_answers: Vec<Vec<u8>>,
}

/// `RevocationValues`.
#[derive(Sequence)]
struct RevocationValues<'a> {
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    crls: Option<AnyRef<'a>>,
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", optional = "true")]
    answers: Option<AnyRef<'a>>,
    #[asn1(context_specific = "2", tag_mode = "EXPLICIT", optional = "true")]
    other: Option<AnyRef<'a>>,
}

/// `OtherHashAlgAndValue`.
#[derive(Sequence)]
struct OtherHashValue<'a> {
    algorithm: AlgorithmIdentifierRef<'a>,
    value: &'a OctetStringRef,
}

/// `OtherCertID`, and `CrlValidatedID`, which looks the same.
#[derive(Sequence)]
struct HashFirst<'a> {
    hash: AnyRef<'a>,
    identifier: Option<AnyRef<'a>>,
}

/// `OcspResponsesID`.
#[derive(Sequence)]
struct HashLast<'a> {
    identifier: AnyRef<'a>,
    hash: Option<AnyRef<'a>>,
}

/// `CrlOcspRef`.
#[derive(Sequence)]
struct CrlOcspRef<'a> {
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    crls: Option<AnyRef<'a>>,
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", optional = "true")]
    answers: Option<AnyRef<'a>>,
    #[asn1(context_specific = "2", tag_mode = "EXPLICIT", optional = "true")]
    other: Option<AnyRef<'a>>,
}

impl CarriedValues {
    /// Reads the values that there are.
    pub(super) fn read(unsigned: &Attributes<'_>) -> Result<Self, SignerFault> {
        let mut read = Self::default();
        if let Some(values) = unsigned.value(CERTIFICATE_VALUES)? {
            read.certificates = owned(&members(values).ok_or(BAD_CERTIFICATE_VALUES)?);
        }
        if let Some(values) = unsigned.value(REVOCATION_VALUES)? {
            let values = RevocationValues::from_der(values).map_err(|_| BAD_REVOCATION_VALUES)?;
            read.crls = owned(&all(values.crls).ok_or(BAD_REVOCATION_VALUES)?);
            read.ocsp_answers = owned(&all(values.answers).ok_or(BAD_REVOCATION_VALUES)?);
        }
        Ok(read)
    }

    /// Checks that references, where values are there as well, are references to them; `certificates` are those of the signature.
    pub(super) fn check_references(&self, unsigned: &Attributes<'_>, certificates: &[&[u8]]) -> Result<(), SignerFault> {
        let of_certificates = unsigned.value(CERTIFICATE_REFS)?.map(|refs| members(refs).ok_or(BAD_CERTIFICATE_REFS)).transpose()?;
        let of_evidence = unsigned.value(REVOCATION_REFS)?.map(|refs| members(refs).ok_or(BAD_REVOCATION_REFS)).transpose()?;
        let with_values = unsigned.value(CERTIFICATE_VALUES)?.is_some();
        let candidates: Vec<_> = self.certificates.iter().map(Vec::as_slice).chain(certificates.iter().copied()).collect();
        for reference in of_certificates.iter().flatten() {
            let reference = HashFirst::from_der(reference).map_err(|_| BAD_CERTIFICATE_REFS)?;
            if with_values && !is_among(reference.hash, &candidates).ok_or(BAD_CERTIFICATE_REFS)? {
                return Err(SignerFault::References("its complete-certificate-references name a certificate that is not there"));
            }
        }
        let with_values = unsigned.value(REVOCATION_VALUES)?.is_some();
        for reference in of_evidence.iter().flatten() {
            let reference = CrlOcspRef::from_der(reference).map_err(|_| BAD_REVOCATION_REFS)?;
            let crls = listed(reference.crls, |crl| HashFirst::from_der(crl).ok().map(|crl| Some(crl.hash)));
            let answers = listed(reference.answers, |answer| HashLast::from_der(answer).ok().map(|answer| answer.hash));
            let (crls, answers) = (crls.ok_or(BAD_REVOCATION_REFS)?, answers.ok_or(BAD_REVOCATION_REFS)?);
            for (hashes, values, what) in [
                (crls, &self.crls, "its complete-revocation-references name a CRL that is not there"),
                (answers, &self.ocsp_answers, "its complete-revocation-references name an OCSP answer that is not there"),
            ] {
                let values: Vec<_> = values.iter().map(Vec::as_slice).collect();
                for hash in hashes.into_iter().flatten() {
                    if with_values && !is_among(hash, &values).ok_or(BAD_REVOCATION_REFS)? {
                        return Err(SignerFault::References(what));
                    }
                }
            }
        }
        Ok(())
    }
}

/// The OCSP answer in an `OtherRevocationInfoFormat`, if that is what is in it.
pub(super) fn ocsp_response(info: &[u8]) -> Option<Vec<u8>> {
    if info.first() != Some(&context(1)) {
        return None;
    }
    let mut sequence = info.to_vec();
    sequence[0] = SEQUENCE;
    let mut reader = SliceReader::new(&sequence).ok()?;
    let read = reader.sequence(|info: &mut SliceReader<'_>| Ok::<_, der::Error>((ObjectIdentifier::decode(info)?, info.tlv_bytes()?)));
    let (format, response) = read.ok()?;
    (format == RI_OCSP_RESPONSE).then(|| response.to_vec())
}

/// The members of a SEQUENCE, whole; `None` if it is none, or has too many.
fn members(sequence: &[u8]) -> Option<Vec<&[u8]>> {
    let any = AnyRef::from_der(sequence).ok().filter(|any| any.tag() == Tag::Sequence)?;
    let mut reader = SliceReader::new(any.value()).ok()?;
    let mut found = Vec::new();
    while !reader.is_finished() {
        if found.len() == EMBEDDED_MAX {
            return None;
        }
        found.push(reader.tlv_bytes().ok()?);
    }
    Some(found)
}

/// The members of an optional SEQUENCE.
fn all(sequence: Option<AnyRef<'_>>) -> Option<Vec<Vec<u8>>> {
    let Some(sequence) = sequence else { return Some(Vec::new()) };
    let der = sequence.to_der().ok()?;
    Some(members(&der)?.into_iter().map(<[u8]>::to_vec).collect())
}

/// The hashes in a `CRLListID` or an `OcspListID`: a SEQUENCE with one SEQUENCE of identifiers in it.
fn listed<'a>(list: Option<AnyRef<'a>>, hash: impl Fn(&'a [u8]) -> Option<Option<AnyRef<'a>>>) -> Option<Vec<Option<AnyRef<'a>>>> {
    let Some(list) = list else { return Some(Vec::new()) };
    let identifiers = list.tag().assert_eq(Tag::Sequence).ok().and_then(|_| members(list.value()))?;
    identifiers.into_iter().map(hash).collect()
}

/// Whether an `OtherHash` is that of one of these; `None` if it cannot be read.
fn is_among(hash: AnyRef<'_>, candidates: &[&[u8]]) -> Option<bool> {
    let by_sha1 = |value: &[u8]| candidates.iter().any(|candidate| sha1(candidate) == value);
    if hash.tag() == Tag::OctetString {
        return Some(by_sha1(hash.value()));
    }
    let named = hash.decode_as::<OtherHashValue<'_>>().ok()?;
    let value = named.value.as_bytes();
    if named.algorithm.oid == ID_SHA_1 {
        return Some(by_sha1(value));
    }
    let function = hash_of(&named.algorithm).ok()?;
    Some(candidates.iter().any(|candidate| digest(function, candidate).as_bytes() == value))
}

fn owned(values: &[impl AsRef<[u8]>]) -> Vec<Vec<u8>> {
    values.iter().map(|value| value.as_ref().to_vec()).collect()
}
