//! Tokens: `SignedData` round a `TSTInfo`, read and checked as RFC 3161 section 2.2 wants it of whoever relies on one.

use std::{io::Cursor, sync::Arc};

use const_oid::{ObjectIdentifier, db::rfc5280};
use der::{Decode, asn1::Int};
use x509_cert::ext::pkix::ExtendedKeyUsage;

use super::{
    RESPONSE_MAX, TimeStampError,
    asn1::{ID_CT_TST_INFO, TstInfo, hex_of},
    digest_of,
};
use crate::{
    cms::verify::{CarriedValues, ReadError, SignedMessage, SignerFault},
    domain::{algorithm::HashAlgorithm, digest::Digest, timestamp::Timestamp},
};

/// A token that was read and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeStamp {
    token: Arc<[u8]>,
    info: TstInfo,
    imprint: Digest,
    certificate: Vec<u8>,
    carried: CarriedValues,
    responses: Vec<Vec<u8>>,
}

impl TimeStamp {
    /// Reads a token and checks all that can be checked without knowing whom to trust: exactly one signer, whose certificate is in the token,
    /// named by a signing-certificate attribute of either version, and for time stamping alone, critically; content type, message digest and
    /// signature.
    ///
    /// # Errors
    /// [`TimeStampError`].
    pub fn from_token(der: &[u8]) -> Result<Self, TimeStampError> {
        Self::from_token_beside(der, &[])
    }

    /// The same of a token that stands in a signature with these certificates; the authority's may be among them.
    ///
    /// # Errors
    /// [`TimeStampError`].
    pub fn from_token_beside(der: &[u8], certificates: &[&[u8]]) -> Result<Self, TimeStampError> {
        if der.len() > RESPONSE_MAX {
            return Err(TimeStampError::TooLong { got: der.len() });
        }
        let mut message = SignedMessage::read(Cursor::new(der))?;
        if message.content_type() != ID_CT_TST_INFO {
            return Err(TimeStampError::Structure("its content is not of the type TSTInfo"));
        }
        if message.signer_count() != 1 {
            return Err(TimeStampError::Structure("it does not have exactly one signer"));
        }
        let mut content = Vec::new();
        message.copy_content(&mut content)?;
        let info = TstInfo::from_der(&content)?;
        if info.version != 1 {
            return Err(TimeStampError::Structure("the version of its TSTInfo is not 1"));
        }
        let mut checks = message.check(None, certificates)?;
        let check = checks.pop().ok_or(TimeStampError::Structure("it does not have exactly one signer"))?;
        let certificate = check.certificate.ok_or(TimeStampError::Certificate("it is not in the token"))?;
        check_purpose(&certificate)?;
        check.outcome?;
        if !check.names_certificate {
            return Err(TimeStampError::Structure("it has no signing-certificate attribute"));
        }
        let imprint = digest_of(&info.message_imprint).ok_or(TimeStampError::Unsupported("imprint's hash function"))?;
        let mut carried = check.values;
        carried.certificates.extend(message.certificates().iter().cloned());
        carried.crls.extend(message.crls().iter().cloned());
        Ok(Self { token: der.into(), info, imprint, certificate, carried, responses: message.ocsp_responses() })
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

    /// The certificates and the evidence in the token, wherever they stand in it, in DER.
    #[must_use]
    pub const fn carried(&self) -> &CarriedValues {
        &self.carried
    }

    /// The OCSP answers in the token's `SignedData`, each an `OCSPResponse` in DER.
    #[must_use]
    pub fn ocsp_responses(&self) -> &[Vec<u8>] {
        &self.responses
    }

    pub(super) const fn nonce(&self) -> Option<&Int> {
        self.info.nonce.as_ref()
    }
}

impl From<ReadError> for TimeStampError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::NoContent => Self::Structure("it has no content"),
            other => Self::Encoding(other.to_string()),
        }
    }
}

impl From<SignerFault> for TimeStampError {
    fn from(fault: SignerFault) -> Self {
        match fault {
            SignerFault::WrongSignature => Self::Signature,
            SignerFault::NoCertificate => Self::Certificate("it is not in the token"),
            SignerFault::OtherCertificate => Self::Certificate("the signing-certificate attribute names another one"),
            SignerFault::ContentDiffers => Self::Structure("its message-digest attribute is not the digest of its content"),
            other => Self::Signer(other),
        }
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
