//! One `SignerInfo` (RFC 5652 section 5.3), judged.

use const_oid::{ObjectIdentifier, db::rfc5911};
use der::{Decode, Encode, Reader, SliceReader, Tag, TagNumber, asn1::OctetStringRef};
use spki::AlgorithmIdentifierRef;
use x509_cert::ext::pkix::SubjectKeyIdentifier;

use super::{ContentDigests, attributes::Attributes, values::CarriedValues};
use crate::{
    cms::{
        certificate::{CERTIFICATE_MAX, IssuerAndSerialNumber},
        tlv::SET,
    },
    domain::{
        algorithm::{HashAlgorithm, SignatureAlgorithm},
        algorithm_identifier::{NamedAlgorithm, hash_of},
        digest::{Digest, SigningInput, ToSign},
        timestamp::Timestamp,
        verify::VerifyError,
    },
};

/// `id-aa-ets-contentTimestamp` (EN 319 122-1 section 5.2.8).
const CONTENT_TIME_STAMP: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.2.20");
/// `id-aa-signatureTimeStampToken` (EN 319 122-1 section 5.3).
const SIGNATURE_TIME_STAMP: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.2.14");

/// Why a signer did not sign this.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignerFault {
    /// It cannot be read.
    #[error("{0}")]
    Malformed(&'static str),
    /// Its certificate is neither in the signature nor elsewhere.
    #[error("its certificate is not in the signature and was not given")]
    NoCertificate,
    /// The attribute that names the certificate names another one.
    #[error("its signing-certificate attribute names another certificate")]
    OtherCertificate,
    /// An algorithm that is not accepted.
    #[error("{0}")]
    Algorithm(String),
    /// Signed attributes must be DER, and are not.
    #[error("its signed attributes are not in DER's order")]
    AttributesNotDer,
    /// An attribute that must be there.
    #[error("its signed attributes have no {0}")]
    MissingAttribute(&'static str),
    /// An attribute that may stand once stands twice.
    #[error("its signed attribute {0} stands twice")]
    DuplicateAttribute(ObjectIdentifier),
    /// An attribute that has one value has none, or several.
    #[error("its attribute {0} has not exactly one value")]
    AttributeValues(ObjectIdentifier),
    /// The content is of another type than the one that was signed.
    #[error("the type of the content is not the one that was signed")]
    ContentType,
    /// The content is not the one that was signed.
    #[error("the content is not the one that was signed")]
    ContentDiffers,
    /// The content that was given is not the one in the signature.
    #[error("the content that was given is not the one in the signature")]
    GivenContentDiffers,
    /// The key in the certificate did not make this signature.
    #[error("the signature value is wrong")]
    WrongSignature,
    /// What its unsigned attributes refer to is not what they carry.
    #[error("{0}")]
    References(&'static str),
    /// The key in the certificate cannot verify it.
    #[error("the signature cannot be verified: {0}")]
    Key(String),
}

/// What was found out about one signer.
#[derive(Debug, Clone)]
pub struct SignerCheck {
    /// Whether its key signed the content.
    pub outcome: Result<(), SignerFault>,
    /// The certificate that the signature names, in DER, if it was found. Believe it only where the outcome is good.
    pub certificate: Option<Vec<u8>>,
    /// The algorithm, if it is known.
    pub algorithm: Option<SignatureAlgorithm>,
    /// When the signer says that it signed; nobody else does.
    pub signing_time: Option<Timestamp>,
    /// Whether a signed attribute names the certificate, as CAdES wants.
    pub names_certificate: bool,
    /// The digest of the content that was judged.
    pub content_digest: Option<Digest>,
    /// The value of the signature: what a signature time stamp is of.
    pub signature: Vec<u8>,
    /// Time stamps of the signature, in DER, not judged.
    pub signature_time_stamps: Vec<Vec<u8>>,
    /// Time stamps of the content, in DER, not judged.
    pub content_time_stamps: Vec<Vec<u8>>,
    /// Certificates and evidence that stand beside the signature; nobody has judged them.
    pub values: CarriedValues,
}

/// `SignerIdentifier`.
#[derive(Debug)]
enum SignerIdentifier<'a> {
    /// Issuer and serial number, each whole.
    IssuerAndSerialNumber {
        issuer: &'a [u8],
        serial_number: &'a [u8],
    },
    SubjectKeyIdentifier(&'a [u8]),
}

/// A `SignerInfo`, its parts as they were received.
#[derive(Debug)]
pub(super) struct SignerInfo<'a> {
    identifier: SignerIdentifier<'a>,
    digest_algorithm: AlgorithmIdentifierRef<'a>,
    /// With the tag of a SET: what was signed.
    signed_attrs: Option<Vec<u8>>,
    signature_algorithm: AlgorithmIdentifierRef<'a>,
    signature: &'a [u8],
    unsigned_attrs: Option<Vec<u8>>,
}

impl<'a> SignerInfo<'a> {
    /// Reads a `SignerInfo` in DER.
    pub(super) fn read(der: &'a [u8]) -> Result<Self, SignerFault> {
        Self::read_der(der).map_err(|_| SignerFault::Malformed("its SignerInfo cannot be read"))
    }

    fn read_der(der: &'a [u8]) -> der::Result<Self> {
        const SIGNED: Tag = Tag::ContextSpecific { constructed: true, number: TagNumber(0) };
        const UNSIGNED: Tag = Tag::ContextSpecific { constructed: true, number: TagNumber(1) };
        let mut reader = SliceReader::new(der)?;
        let read = reader.sequence(|info: &mut SliceReader<'a>| {
            u8::decode(info)?; // the version follows from the identifier
            Ok::<_, der::Error>(Self {
                identifier: SignerIdentifier::read(info)?,
                digest_algorithm: info.decode()?,
                signed_attrs: read_set(info, SIGNED)?,
                signature_algorithm: info.decode()?,
                signature: info.decode::<&OctetStringRef>()?.as_bytes(),
                unsigned_attrs: read_set(info, UNSIGNED)?,
            })
        })?;
        reader.finish()?;
        Ok(read)
    }

    /// The hash function of the content.
    pub(super) fn hash(&self) -> Result<HashAlgorithm, SignerFault> {
        hash_of(&self.digest_algorithm).map_err(|unknown| SignerFault::Algorithm(unknown.to_string()))
    }
}

/// The bytes of an optional `[n] IMPLICIT SET`, with the tag of a SET.
fn read_set(reader: &mut SliceReader<'_>, tag: Tag) -> der::Result<Option<Vec<u8>>> {
    if reader.is_finished() || Tag::peek(reader)? != tag {
        return Ok(None);
    }
    let mut bytes = reader.tlv_bytes()?.to_vec();
    bytes[0] = SET;
    Ok(Some(bytes))
}

impl<'a> SignerIdentifier<'a> {
    fn read(reader: &mut SliceReader<'a>) -> der::Result<Self> {
        if Tag::peek(reader)? == Tag::Sequence {
            return reader.sequence(|identifier: &mut SliceReader<'a>| {
                let (issuer, serial_number) = (identifier.tlv_bytes()?, identifier.tlv_bytes()?);
                Ok(Self::IssuerAndSerialNumber { issuer, serial_number })
            });
        }
        Tag::peek(reader)?.assert_eq(Tag::ContextSpecific { constructed: false, number: TagNumber(0) })?;
        let any = der::asn1::AnyRef::from_der(reader.tlv_bytes()?)?;
        Ok(Self::SubjectKeyIdentifier(any.value()))
    }

    /// Whether it is this certificate's.
    fn names(&self, certificate: &[u8]) -> bool {
        match self {
            Self::IssuerAndSerialNumber { issuer, serial_number } => IssuerAndSerialNumber::of(certificate)
                .is_ok_and(|of_certificate| of_certificate.issuer == *issuer && of_certificate.serial_number == *serial_number),
            Self::SubjectKeyIdentifier(identifier) => parse(certificate).is_some_and(|certificate| {
                let found = certificate.tbs_certificate().get_extension::<SubjectKeyIdentifier>();
                found.is_ok_and(|found| found.is_some_and(|(_, own)| own.0.as_bytes() == *identifier))
            }),
        }
    }
}

/// The content of a signature.
pub(super) struct Content<'a> {
    pub(super) content_type: ObjectIdentifier,
    pub(super) digests: &'a ContentDigests,
    /// One was given beside the one in the signature, and it is another.
    pub(super) differs: bool,
}

/// Judges a signer. `certificates` are all that may be the signer's.
pub(super) fn check(signer: Result<SignerInfo<'_>, SignerFault>, content: &Content<'_>, certificates: &[&[u8]]) -> SignerCheck {
    let mut check = SignerCheck {
        outcome: Ok(()),
        certificate: None,
        algorithm: None,
        signing_time: None,
        names_certificate: false,
        content_digest: None,
        signature: Vec::new(),
        signature_time_stamps: Vec::new(),
        content_time_stamps: Vec::new(),
        values: CarriedValues::default(),
    };
    check.outcome = signer.and_then(|signer| {
        judge(&signer, content, certificates, &mut check)?;
        check_unsigned(&signer, certificates, &mut check)
    });
    check
}

fn judge(signer: &SignerInfo<'_>, content: &Content<'_>, certificates: &[&[u8]], check: &mut SignerCheck) -> Result<(), SignerFault> {
    check.signature = signer.signature.to_vec();
    let named: Vec<&[u8]> = certificates.iter().copied().filter(|certificate| signer.identifier.names(certificate)).collect();
    check.certificate = named.first().map(|certificate| certificate.to_vec());
    let hash = signer.hash()?;
    check.content_digest = content.digests.by(hash).cloned();
    let algorithm = NamedAlgorithm::read(&signer.signature_algorithm, Some(hash));
    let algorithm = algorithm.map_err(|unknown| SignerFault::Algorithm(unknown.to_string()))?;
    check.algorithm = Some(algorithm.algorithm());
    let Some(signed) = &signer.signed_attrs else {
        // Nothing but the content was signed, so nothing says of what type it is.
        if content.content_type != rfc5911::ID_DATA {
            return Err(SignerFault::MissingAttribute("content-type"));
        }
        let certificate = named.first().ok_or(SignerFault::NoCertificate)?;
        let to_sign = of_content(algorithm.algorithm(), content)?;
        return verify(algorithm, certificate, &to_sign, signer.signature).and_then(|()| same_content(content));
    };
    let attributes = Attributes::read(signed, true)?.without_duplicates()?;
    check.signing_time = attributes.signing_time()?;
    check.content_time_stamps = owned(attributes.values(CONTENT_TIME_STAMP));
    let signing_certificate = attributes.signing_certificate()?;
    check.names_certificate = signing_certificate.is_some();
    let mut certificate = *named.first().ok_or(SignerFault::NoCertificate)?;
    if let Some(signing_certificate) = &signing_certificate {
        let matching = named.iter().map(|certificate| Ok((*certificate, signing_certificate.names(certificate)?)));
        let matching = matching.collect::<Result<Vec<_>, SignerFault>>()?.into_iter().find(|(_, is_named)| *is_named);
        certificate = matching.ok_or(SignerFault::OtherCertificate)?.0;
        check.certificate = Some(certificate.to_vec());
    }
    if attributes.content_type()? != content.content_type {
        return Err(SignerFault::ContentType);
    }
    let message_digest = attributes.message_digest()?;
    // The signature first: it says whether the attributes are to be believed at all.
    let to_sign = ToSign::of_message(algorithm.algorithm(), signed).map_err(|error| SignerFault::Algorithm(error.to_string()))?;
    verify(algorithm, certificate, &to_sign, signer.signature)?;
    if check.content_digest.as_ref().is_none_or(|digest| digest.as_bytes() != message_digest) {
        return Err(SignerFault::ContentDiffers);
    }
    same_content(content)
}

/// Takes out what stands beside a signature that holds.
fn check_unsigned(signer: &SignerInfo<'_>, certificates: &[&[u8]], check: &mut SignerCheck) -> Result<(), SignerFault> {
    let Some(unsigned) = &signer.unsigned_attrs else { return Ok(()) };
    let unsigned = Attributes::read(unsigned, false)?;
    check.signature_time_stamps = owned(unsigned.values(SIGNATURE_TIME_STAMP));
    check.values = CarriedValues::read(&unsigned)?;
    check.values.check_references(&unsigned, certificates)
}

fn same_content(content: &Content<'_>) -> Result<(), SignerFault> {
    if content.differs { Err(SignerFault::GivenContentDiffers) } else { Ok(()) }
}

/// What was signed where there are no signed attributes.
fn of_content(algorithm: SignatureAlgorithm, content: &Content<'_>) -> Result<ToSign, SignerFault> {
    let input = match algorithm.hash() {
        Some(hash) => content.digests.by(hash).cloned().map(SigningInput::Digest),
        None => content.digests.whole().map(|content| SigningInput::Message(content.to_vec())),
    };
    let input = input.ok_or(SignerFault::Malformed("its content is too long to be signed without attributes"))?;
    ToSign::new(algorithm, input).map_err(|error| SignerFault::Algorithm(error.to_string()))
}

fn verify(algorithm: NamedAlgorithm, certificate: &[u8], to_sign: &ToSign, signature: &[u8]) -> Result<(), SignerFault> {
    let parsed = parse(certificate).ok_or(SignerFault::Malformed("its certificate cannot be read"))?;
    let key = parsed.tbs_certificate().subject_public_key_info().to_der();
    let key = key.map_err(|_| SignerFault::Malformed("its certificate cannot be read"))?;
    algorithm.verify(&key, to_sign, signature).map_err(|error| match error {
        VerifyError::Wrong => SignerFault::WrongSignature,
        cannot => SignerFault::Key(cannot.to_string()),
    })
}

fn parse(certificate: &[u8]) -> Option<x509_cert::Certificate> {
    (certificate.len() <= CERTIFICATE_MAX).then(|| x509_cert::Certificate::from_der(certificate).ok()).flatten()
}

fn owned(values: Vec<&[u8]>) -> Vec<Vec<u8>> {
    values.into_iter().map(<[u8]>::to_vec).collect()
}
