//! The other side: what an authority reads of a request, and what it answers.

use std::fmt;

use const_oid::ObjectIdentifier;
use der::{
    Any, Decode, Encode,
    asn1::{BitString, Int, Utf8StringRef},
};

use super::{
    ID_CT_TST_INFO, REQUEST_MAX,
    asn1::{Accuracy, GenTime, MessageImprint, PkiStatusInfo, TimeStampReq, TimeStampResp, TstInfo, positive},
    digest_of,
};
use crate::{
    cms::{
        attributes::{AttributeSpec, SignedAttributes},
        digest,
        error::CmsError,
    },
    domain::{algorithm::SignatureAlgorithm, ticket::CadesType, timestamp::Timestamp},
};

/// Why an authority refuses (`PKIFailureInfo`, RFC 3161 section 2.4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PkiFailure {
    /// The hash function is not known.
    BadAlg,
    /// The request cannot be served.
    BadRequest,
    /// The bytes are not a request.
    BadDataFormat,
    /// There is no time.
    TimeNotAvailable,
    /// The policy is not served.
    UnacceptedPolicy,
    /// An extension is not known.
    UnacceptedExtension,
    /// Additional information is not available.
    AddInfoNotAvailable,
    /// The authority failed.
    SystemFailure,
}

impl PkiFailure {
    const ALL: [Self; 8] = [
        Self::BadAlg,
        Self::BadRequest,
        Self::BadDataFormat,
        Self::TimeNotAvailable,
        Self::UnacceptedPolicy,
        Self::UnacceptedExtension,
        Self::AddInfoNotAvailable,
        Self::SystemFailure,
    ];

    const fn bit(self) -> usize {
        match self {
            Self::BadAlg => 0,
            Self::BadRequest => 2,
            Self::BadDataFormat => 5,
            Self::TimeNotAvailable => 14,
            Self::UnacceptedPolicy => 15,
            Self::UnacceptedExtension => 16,
            Self::AddInfoNotAvailable => 17,
            Self::SystemFailure => 25,
        }
    }

    pub(super) fn of_bit(bit: usize) -> Option<Self> {
        Self::ALL.into_iter().find(|failure| failure.bit() == bit)
    }
}

impl fmt::Display for PkiFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BadAlg => "badAlg",
            Self::BadRequest => "badRequest",
            Self::BadDataFormat => "badDataFormat",
            Self::TimeNotAvailable => "timeNotAvailable",
            Self::UnacceptedPolicy => "unacceptedPolicy",
            Self::UnacceptedExtension => "unacceptedExtension",
            Self::AddInfoNotAvailable => "addInfoNotAvailable",
            Self::SystemFailure => "systemFailure",
        })
    }
}

/// A request that is not served: the reason for programs and for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{failure}: {text}")]
pub struct TimeStampRefusal {
    /// The reason.
    pub failure: PkiFailure,
    /// The same in words.
    pub text: &'static str,
}

/// A request that can be served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskedTimeStamp {
    imprint: MessageImprint,
    /// The policy that was asked for, if one was.
    pub policy: Option<ObjectIdentifier>,
    /// The authority's certificate is wanted in the token.
    pub with_certificate: bool,
    nonce: Option<Int>,
}

impl AskedTimeStamp {
    /// Reads `TimeStampReq`: version 1, an imprint of a known hash function and of its length, no extensions.
    ///
    /// # Errors
    /// [`TimeStampRefusal`], to be answered with [`rejection`].
    pub fn from_der(request: &[u8]) -> Result<Self, TimeStampRefusal> {
        let refuse = |failure, text| Err(TimeStampRefusal { failure, text });
        if request.len() > REQUEST_MAX {
            return refuse(PkiFailure::BadDataFormat, "the request is too long");
        }
        let Ok(request) = TimeStampReq::from_der(request) else {
            return refuse(PkiFailure::BadDataFormat, "the body is not a TimeStampReq in DER");
        };
        if request.version != 1 {
            return refuse(PkiFailure::BadRequest, "only version 1 is known");
        }
        if super::hash_of(&request.message_imprint.hash_algorithm).is_none() {
            return refuse(PkiFailure::BadAlg, "imprints are of SHA-256, SHA-384 or SHA-512");
        }
        if digest_of(&request.message_imprint).is_none() {
            return refuse(PkiFailure::BadDataFormat, "the imprint does not have the length of its hash function");
        }
        if request.extensions.is_some() {
            return refuse(PkiFailure::UnacceptedExtension, "no extension is known");
        }
        let TimeStampReq { message_imprint: imprint, req_policy: policy, nonce, cert_req: with_certificate, .. } = request;
        Ok(Self { imprint, policy, with_certificate, nonce })
    }

    /// The imprint in hex, with its hash function: `sha256:…`.
    #[must_use]
    pub fn imprint(&self) -> String {
        digest_of(&self.imprint).map(|digest| digest.to_string()).unwrap_or_default()
    }
}

/// What an authority says about a time stamp that it makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeStampFacts {
    /// The policy it is made under.
    pub policy: ObjectIdentifier,
    /// Its serial number: big-endian, unique among all time stamps of this authority.
    pub serial: Vec<u8>,
    /// Its time; whole seconds are said.
    pub time: Timestamp,
    /// How far the authority's clock may be wrong, in seconds.
    pub accuracy_seconds: u64,
}

/// The `TSTInfo` of a time stamp, and the attributes that are signed for it.
///
/// # Errors
/// [`CmsError`].
pub fn time_stamp_attributes(
    asked: &AskedTimeStamp,
    facts: &TimeStampFacts,
    certificate: &[u8],
    algorithm: SignatureAlgorithm,
) -> Result<(Vec<u8>, SignedAttributes), CmsError> {
    let info = TstInfo {
        version: 1,
        policy: facts.policy,
        message_imprint: asked.imprint.clone(),
        serial_number: positive(&facts.serial)?,
        gen_time: GenTime::at(facts.time)?,
        accuracy: Some(Accuracy { seconds: Some(facts.accuracy_seconds), millis: None, micros: None }),
        ordering: false,
        nonce: asked.nonce.clone(),
        tsa: None,
        extensions: None,
    };
    let info = info.to_der()?;
    let attributes = AttributeSpec {
        content_type: ID_CT_TST_INFO,
        profile: CadesType::Bes,
        content_digest: &digest(algorithm.message_digest_hash(), &info),
        signing_time: facts.time,
        signer_certificate: certificate,
        ca_certificates: &[],
        content_time_stamp: None,
    };
    Ok((info, attributes.signed_attributes(algorithm)?))
}

/// `TimeStampResp` with a token.
///
/// # Errors
/// [`CmsError::Encoding`].
pub fn response(token: &[u8]) -> Result<Vec<u8>, CmsError> {
    let status = PkiStatusInfo { status: 0, status_string: None, fail_info: None };
    Ok(TimeStampResp { status, time_stamp_token: Some(Any::from_der(token)?) }.to_der()?)
}

/// `TimeStampResp` that refuses.
///
/// # Errors
/// [`CmsError::Encoding`].
pub fn rejection(refusal: TimeStampRefusal) -> Result<Vec<u8>, CmsError> {
    const REJECTION: u8 = 2;
    let bit = refusal.failure.bit();
    // A named bit list ends with its last bit that is set (X.690 section 11.2.2).
    let mut bytes = vec![0; bit / 8 + 1];
    bytes[bit / 8] = 0x80 >> (bit % 8);
    let unused = u8::try_from(7 - bit % 8).unwrap_or_default();
    let text = Any::encode_from(&Utf8StringRef::new(refusal.text)?)?;
    let status = PkiStatusInfo { status: REJECTION, status_string: Some(vec![text]), fail_info: Some(BitString::new(unused, bytes)?) };
    Ok(TimeStampResp { status, time_stamp_token: None }.to_der()?)
}
