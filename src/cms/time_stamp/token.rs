//! Tokens: `SignedData` round a `TSTInfo`, read and checked as RFC 3161 section 2.2 wants it of whoever relies on one.

use std::sync::Arc;

use aws_lc_rs::digest as aws;
use const_oid::{
    ObjectIdentifier,
    db::{rfc5280, rfc5911},
};
use der::{
    Any, Decode, Encode,
    asn1::{Int, OctetStringRef},
    referenced::OwnedToRef as _,
};
use x509_cert::ext::pkix::ExtendedKeyUsage;

use super::{
    RESPONSE_MAX, TimeStampError,
    asn1::{EssCertId, ID_AA_SIGNING_CERTIFICATE, ID_CT_TST_INFO, SigningCertificates, TstInfo, hex_of},
    digest_of,
};
use crate::{
    cms::{
        algorithm::hash_of,
        digest,
        outline::{SignedDataOutline, SignerOutline},
    },
    domain::{algorithm::HashAlgorithm, algorithm_identifier::NamedAlgorithm, digest::Digest, timestamp::Timestamp, verify::VerifyError},
};

/// A token that was read and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeStamp {
    token: Arc<[u8]>,
    info: TstInfo,
    imprint: Digest,
    certificate: Vec<u8>,
    certificates: Vec<Vec<u8>>,
}

impl TimeStamp {
    /// Reads a token and checks all that can be checked without knowing whom to trust: exactly one signer, whose certificate is in the token,
    /// named by a signing-certificate attribute of either version, and for time stamping alone, critically; content type, message digest and
    /// signature.
    ///
    /// # Errors
    /// [`TimeStampError`].
    pub fn from_token(der: &[u8]) -> Result<Self, TimeStampError> {
        if der.len() > RESPONSE_MAX {
            return Err(TimeStampError::TooLong { got: der.len() });
        }
        let signed_data = SignedDataOutline::from_content_info(der)?;
        let encapsulated = &signed_data.encap_content_info;
        if encapsulated.content_type != ID_CT_TST_INFO {
            return Err(TimeStampError::Structure("its content is not of the type TSTInfo"));
        }
        let content = encapsulated.content.as_ref().ok_or(TimeStampError::Structure("it has no content"))?;
        let info = TstInfo::from_der(content.as_bytes())?;
        if info.version != 1 {
            return Err(TimeStampError::Structure("the version of its TSTInfo is not 1"));
        }
        let [signer] = signed_data.signer_infos.as_slice() else {
            return Err(TimeStampError::Structure("it does not have exactly one signer"));
        };
        let certificates = signed_data.certificates()?;
        let certificate = certificates.iter().find(|certificate| signer.is_named_by(certificate));
        let certificate = certificate.ok_or(TimeStampError::Certificate("it is not in the token"))?.clone();
        check_purpose(&certificate)?;
        check_named(signer, &certificate)?;
        check_signature(signer, &certificate, content.as_bytes())?;
        let imprint = digest_of(&info.message_imprint).ok_or(TimeStampError::Unsupported("imprint's hash function"))?;
        Ok(Self { token: der.into(), info, imprint, certificate, certificates })
    }

    /// Checks that it is for data with this digest.
    ///
    /// # Errors
    /// [`TimeStampError::Imprint`].
    pub fn check_imprint(&self, expected: &Digest) -> Result<(), TimeStampError> {
        if self.imprint == *expected { Ok(()) } else { Err(TimeStampError::Imprint) }
    }

    /// The hash function of its imprint.
    #[must_use]
    pub const fn imprint_hash(&self) -> HashAlgorithm {
        self.imprint.algorithm()
    }

    /// The token (`ContentInfo`) as it was read.
    #[must_use]
    pub fn as_der(&self) -> &[u8] {
        &self.token
    }

    /// When it was made, by the authority's clock.
    #[must_use]
    pub const fn time(&self) -> Timestamp {
        self.info.gen_time.time()
    }

    /// The policy it was made under.
    #[must_use]
    pub const fn policy(&self) -> ObjectIdentifier {
        self.info.policy
    }

    /// Its serial number in lower-case hexadecimal digits, two a byte.
    #[must_use]
    pub fn serial(&self) -> String {
        hex_of(&self.info.serial_number)
    }

    /// The certificate of the authority in DER.
    #[must_use]
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// All certificates in the token in DER, the authority's among them.
    #[must_use]
    pub fn certificates(&self) -> &[Vec<u8>] {
        &self.certificates
    }

    pub(super) const fn nonce(&self) -> Option<&Int> {
        self.info.nonce.as_ref()
    }
}

/// `extKeyUsage` must be there, critical, and have timeStamping as its only purpose (RFC 3161 section 2.3).
fn check_purpose(certificate: &[u8]) -> Result<(), TimeStampError> {
    let parsed = x509_cert::Certificate::from_der(certificate)?;
    let found = parsed.tbs_certificate().get_extension::<ExtendedKeyUsage>()?;
    match found {
        None => Err(TimeStampError::Certificate("it does not say that it is for time stamping")),
        Some((_, usage)) if usage.0 != [rfc5280::ID_KP_TIME_STAMPING] => {
            Err(TimeStampError::Certificate("it is not for time stamping alone"))
        }
        Some((false, _)) => Err(TimeStampError::Certificate("its purpose, time stamping, is not marked critical")),
        Some((true, _)) => Ok(()),
    }
}

/// The signing-certificate attribute names the certificate by its hash first, so that no other can be put in its place.
fn check_named(signer: &SignerOutline, certificate: &[u8]) -> Result<(), TimeStampError> {
    let v2 = signer.signed_value(rfc5911::ID_AA_SIGNING_CERTIFICATE_V_2).map_err(TimeStampError::Structure)?;
    let v1 = signer.signed_value(ID_AA_SIGNING_CERTIFICATE).map_err(TimeStampError::Structure)?;
    if v1.is_none() && v2.is_none() {
        return Err(TimeStampError::Structure("it has no signing-certificate attribute"));
    }
    let other = TimeStampError::Certificate("the signing-certificate attribute names another one");
    if let Some(v1) = v1 {
        let sha1 = aws::digest(&aws::SHA1_FOR_LEGACY_USE_ONLY, certificate);
        if first_of(v1)?.cert_hash.as_bytes() != sha1.as_ref() {
            return Err(other);
        }
    }
    if let Some(v2) = v2 {
        let named = first_of(v2)?;
        let hash = named.hash_algorithm.as_ref().map_or(Some(HashAlgorithm::Sha256), hash_of);
        let hash = hash.ok_or(TimeStampError::Unsupported("signing-certificate attribute's hash function"))?;
        if named.cert_hash.as_bytes() != digest(hash, certificate).as_bytes() {
            return Err(other);
        }
    }
    Ok(())
}

fn first_of(value: &Any) -> Result<EssCertId, TimeStampError> {
    let mut certs = value.decode_as::<SigningCertificates>()?.certs;
    if certs.is_empty() { Err(TimeStampError::Structure("its signing-certificate attribute is empty")) } else { Ok(certs.swap_remove(0)) }
}

/// Content type, message digest, and the signature over the attributes (RFC 5652 section 5.6).
fn check_signature(signer: &SignerOutline, certificate: &[u8], content: &[u8]) -> Result<(), TimeStampError> {
    let value = |oid| signer.signed_value(oid).map_err(TimeStampError::Structure);
    let content_type = value(rfc5911::ID_CONTENT_TYPE)?.ok_or(TimeStampError::Structure("it has no content-type attribute"))?;
    if content_type.decode_as::<ObjectIdentifier>()? != ID_CT_TST_INFO {
        return Err(TimeStampError::Structure("its content-type attribute is not that of its content"));
    }
    let hash = hash_of(&signer.digest_algorithm).ok_or(TimeStampError::Unsupported("digest algorithm"))?;
    let message_digest = value(rfc5911::ID_MESSAGE_DIGEST)?.ok_or(TimeStampError::Structure("it has no message-digest attribute"))?;
    if message_digest.decode_as::<&OctetStringRef>()?.as_bytes() != digest(hash, content).as_bytes() {
        return Err(TimeStampError::Structure("its message-digest attribute is not the digest of its content"));
    }
    let algorithm = NamedAlgorithm::read(&signer.signature_algorithm.owned_to_ref(), Some(hash));
    let algorithm = algorithm.map_err(|_| TimeStampError::Unsupported("signature algorithm"))?;
    let attributes = signer.signed_attrs.as_ref().ok_or(TimeStampError::Structure("it has no signed attributes"))?.to_der()?;
    let certificate = x509_cert::Certificate::from_der(certificate)?;
    let spki = certificate.tbs_certificate().subject_public_key_info().to_der()?;
    match algorithm.verify_message(&spki, &attributes, signer.signature.as_bytes()) {
        Ok(()) => Ok(()),
        Err(VerifyError::Wrong) => Err(TimeStampError::Signature),
        Err(_) => Err(TimeStampError::Unsupported("authority's key")),
    }
}
