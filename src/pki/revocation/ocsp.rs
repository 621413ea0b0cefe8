//! OCSP (RFC 6960): a question about one certificate, and whether an answer to it is good.

use aws_lc_rs::rand;
use const_oid::{ObjectIdentifier, db::rfc5912::ID_SHA_1};
use der::{
    Any, Choice, Decode, Encode, Enumerated, Sequence,
    asn1::{AnyRef, BitString, GeneralizedTime, Null, OctetString},
    referenced::OwnedToRef as _,
};
use spki::AlgorithmIdentifierOwned;
use x509_cert::{
    Certificate,
    ext::{Extension, Extensions, pkix::CrlReason},
    name::Name,
    serial_number::SerialNumber,
};

use super::{CLOCK_SKEW, Moment, RevocationError, RevocationReason, Revoked, Subject, time_of, valid_at, verify_signed};
use crate::{
    domain::{
        algorithm_identifier::hash_of,
        hash::{digest, sha1},
        timestamp::Timestamp,
    },
    pki,
};

const ID_PKIX_OCSP_BASIC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1.1");
const ID_PKIX_OCSP_NONCE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1.2");
/// `id-pkix-ocsp-archive-cutoff`: the responder goes on answering about certificates that expired after this date.
const ID_PKIX_OCSP_ARCHIVE_CUTOFF: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1.6");
/// Length of a nonce in bytes (RFC 9654 has 32 at most, older responders 16 at least).
const NONCE_LEN: usize = 16;
/// How old an answer may be that does not say when the next one comes.
const FRESH: std::time::Duration = std::time::Duration::from_secs(3600);

#[derive(Sequence)]
struct OcspRequest {
    tbs_request: TbsRequest,
}

#[derive(Sequence)]
struct TbsRequest {
    request_list: Vec<Request>,
    #[asn1(context_specific = "2", tag_mode = "EXPLICIT", optional = "true")]
    extensions: Option<Extensions>,
}

#[derive(Sequence)]
struct Request {
    cert_id: CertId,
}

/// Which certificate a question or an answer is about.
#[derive(Debug, Clone, PartialEq, Eq, Sequence)]
pub struct CertId {
    hash_algorithm: AlgorithmIdentifierOwned,
    issuer_name_hash: OctetString,
    issuer_key_hash: OctetString,
    serial_number: SerialNumber,
}

impl CertId {
    /// Whether it is about this certificate. SHA-1 only names things here (RFC 6960 section 4.3).
    fn is_of(&self, subject: &Subject<'_>) -> Result<bool, RevocationError> {
        if self.serial_number != *subject.certificate.tbs_certificate().serial_number() {
            return Ok(false);
        }
        let hash = |bytes: &[u8]| match self.hash_algorithm.oid {
            ID_SHA_1 => Some(sha1(bytes).to_vec()),
            _ => hash_of(&self.hash_algorithm.owned_to_ref()).ok().map(|hash| digest(hash, bytes).as_bytes().to_vec()),
        };
        let issuer = subject.issuer.tbs_certificate();
        let name = hash(&issuer.subject().to_der()?);
        let key = hash(issuer.subject_public_key_info().subject_public_key.raw_bytes());
        Ok(name.as_deref() == Some(self.issuer_name_hash.as_bytes()) && key.as_deref() == Some(self.issuer_key_hash.as_bytes()))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Enumerated)]
#[repr(u8)]
enum ResponseStatus {
    Successful = 0,
    MalformedRequest = 1,
    InternalError = 2,
    TryLater = 3,
    SigRequired = 5,
    Unauthorized = 6,
}

#[derive(Sequence)]
struct OcspResponse {
    status: ResponseStatus,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    bytes: Option<ResponseBytes>,
}

#[derive(Sequence)]
struct ResponseBytes {
    response_type: ObjectIdentifier,
    response: OctetString,
}

#[derive(Sequence)]
struct BasicResponse {
    tbs: Any,
    signature_algorithm: AlgorithmIdentifierOwned,
    signature: BitString,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    certs: Option<Vec<Certificate>>,
}

#[derive(Sequence)]
struct ResponseData {
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", default = "version_1")]
    version: u8,
    responder_id: ResponderId,
    produced_at: GeneralizedTime,
    responses: Vec<SingleResponse>,
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", optional = "true")]
    extensions: Option<Extensions>,
}

const fn version_1() -> u8 {
    0
}

#[derive(Choice)]
#[allow(clippy::large_enum_variant)]
enum ResponderId {
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", constructed = "true")]
    ByName(Name),
    #[asn1(context_specific = "2", tag_mode = "EXPLICIT", constructed = "true")]
    ByKey(OctetString),
}

#[derive(Sequence)]
struct SingleResponse {
    cert_id: CertId,
    status: CertStatus,
    this_update: GeneralizedTime,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    next_update: Option<GeneralizedTime>,
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", optional = "true")]
    extensions: Option<Extensions>,
}

#[derive(Choice)]
enum CertStatus {
    #[asn1(context_specific = "0", tag_mode = "IMPLICIT")]
    Good(Null),
    #[asn1(context_specific = "1", tag_mode = "IMPLICIT", constructed = "true")]
    Revoked(RevokedInfo),
    #[asn1(context_specific = "2", tag_mode = "IMPLICIT")]
    Unknown(Null),
}

#[derive(Sequence)]
struct RevokedInfo {
    time: GeneralizedTime,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    reason: Option<CrlReason>,
}

/// A question about one certificate.
pub struct OcspQuery {
    cert_id: CertId,
    nonce: Vec<u8>,
}

/// An answer that was found to be good, and to say that the certificate is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedOcsp {
    /// `BasicOCSPResponse` in DER, as it came.
    pub basic: Vec<u8>,
    /// `ResponderID` in DER.
    pub responder_id: Vec<u8>,
    /// `producedAt` in DER.
    pub produced_at: Vec<u8>,
    /// When a newer answer is there at the latest, if it says so.
    pub next_update: Option<Timestamp>,
}

impl OcspQuery {
    /// Asks about a certificate, with a fresh nonce.
    ///
    /// # Errors
    /// [`RevocationError::Ocsp`] without random numbers.
    pub fn new(subject: &Subject<'_>) -> Result<Self, RevocationError> {
        let mut nonce = vec![0; NONCE_LEN];
        rand::fill(&mut nonce).map_err(|_| RevocationError::Ocsp("the system's random number generator failed".to_owned()))?;
        let issuer = subject.issuer.tbs_certificate();
        // SHA-1 only names the issuer here, and is what every responder knows (RFC 5019 section 2.1.1).
        let hash = |bytes: &[u8]| OctetString::new(sha1(bytes).as_slice());
        let cert_id = CertId {
            hash_algorithm: AlgorithmIdentifierOwned { oid: ID_SHA_1, parameters: Some(AnyRef::NULL.into()) },
            issuer_name_hash: hash(&issuer.subject().to_der()?)?,
            issuer_key_hash: hash(issuer.subject_public_key_info().subject_public_key.raw_bytes())?,
            serial_number: subject.certificate.tbs_certificate().serial_number().clone(),
        };
        Ok(Self { cert_id, nonce: OctetString::new(nonce)?.to_der()? })
    }

    /// `OCSPRequest` in DER.
    ///
    /// # Errors
    /// [`RevocationError::Ocsp`] never for certificates.
    pub fn to_der(&self) -> Result<Vec<u8>, RevocationError> {
        let nonce = Extension { extn_id: ID_PKIX_OCSP_NONCE, critical: false, extn_value: OctetString::new(self.nonce.as_slice())? };
        let tbs_request = TbsRequest { request_list: vec![Request { cert_id: self.cert_id.clone() }], extensions: Some(vec![nonce]) };
        Ok(OcspRequest { tbs_request }.to_der()?)
    }

    /// Checks an `OCSPResponse`: successful, with the nonce of this question if it has one, signed by the issuer or by a responder that the
    /// issuer has delegated, about this certificate, valid at the moment, and that the certificate was good then.
    ///
    /// # Errors
    /// [`RevocationError`]; [`RevocationError::Revoked`] if the answer says so.
    pub fn accept(&self, der: &[u8], subject: &Subject<'_>, moment: Moment) -> Result<CheckedOcsp, RevocationError> {
        let basic = basic_of(der)?;
        let answer = Answer::read(&basic)?;
        let checked = answer.check(&basic, subject, moment);
        let nonce = answer.data.extensions.iter().flatten().find(|extension| extension.extn_id == ID_PKIX_OCSP_NONCE);
        // An answer to another question may be an old one; one that says "revoked" is believed all the same.
        if checked.is_ok() && nonce.is_some_and(|nonce| nonce.extn_value.as_bytes() != self.nonce) {
            return Err(bad("it does not repeat the nonce of the question"));
        }
        checked
    }
}

/// The `BasicOCSPResponse` in a successful `OCSPResponse`.
///
/// # Errors
/// [`RevocationError::Ocsp`].
pub fn basic_of(der: &[u8]) -> Result<Vec<u8>, RevocationError> {
    let response = OcspResponse::from_der(der).map_err(unreadable)?;
    if response.status != ResponseStatus::Successful {
        return Err(RevocationError::Ocsp(format!("the responder answered {:?}", response.status)));
    }
    let bytes = response.bytes.ok_or_else(|| bad("it is empty"))?;
    if bytes.response_type != ID_PKIX_OCSP_BASIC {
        return Err(bad("it is not a basic response"));
    }
    Ok(bytes.response.into_bytes().into_vec())
}

/// Checks a `BasicOCSPResponse`: signed by the issuer or by a responder that the issuer has delegated, about this certificate, valid at the
/// moment, and that the certificate was good then. `None` if it is about other certificates.
///
/// # Errors
/// [`RevocationError`]; [`RevocationError::Revoked`] if the answer says so.
pub(super) fn check_basic(basic: &[u8], subject: &Subject<'_>, moment: Moment) -> Result<Option<CheckedOcsp>, RevocationError> {
    let answer = Answer::read(basic)?;
    if answer.about(subject)?.is_none() {
        return Ok(None);
    }
    answer.check(basic, subject, moment).map(Some)
}

/// An answer that was read, and of which nothing is believed yet.
struct Answer {
    basic: BasicResponse,
    data: ResponseData,
}

impl Answer {
    fn read(der: &[u8]) -> Result<Self, RevocationError> {
        let basic = BasicResponse::from_der(der).map_err(unreadable)?;
        let data = basic.tbs.decode_as().map_err(unreadable)?;
        Ok(Self { basic, data })
    }

    /// What it says about a certificate.
    fn about(&self, subject: &Subject<'_>) -> Result<Option<&SingleResponse>, RevocationError> {
        for single in &self.data.responses {
            if single.cert_id.is_of(subject)? {
                return Ok(Some(single));
            }
        }
        Ok(None)
    }

    fn check(&self, basic: &[u8], subject: &Subject<'_>, moment: Moment) -> Result<CheckedOcsp, RevocationError> {
        let produced_at = at(&self.data.produced_at);
        let signer = responder(&self.basic, &self.data.responder_id, subject, produced_at)?;
        verify_signed(signer, &self.basic.signature_algorithm, &self.basic.tbs.to_der()?, &self.basic.signature)
            .map_err(|what| RevocationError::Ocsp(format!("its signature: {what}")))?;
        let single = self.about(subject)?.ok_or_else(|| bad("it is about another certificate"))?;
        if at(&single.this_update) > moment.now.after(CLOCK_SKEW) || produced_at > moment.now.after(CLOCK_SKEW) {
            return Err(bad("it is from the future; is this machine's clock right?"));
        }
        let next_update = single.next_update.as_ref().map(at);
        match &single.status {
            CertStatus::Unknown(_) => return Err(bad("the responder does not know the certificate")),
            CertStatus::Revoked(info) if at(&info.time) <= moment.at => {
                let reason = info.reason.and_then(|reason| RevocationReason::of_code(reason as u8));
                return Err(RevocationError::Revoked(Revoked { since: at(&info.time), reason }));
            }
            // It was revoked afterwards, so it was good until then.
            CertStatus::Revoked(_) => {}
            CertStatus::Good(_) => check_times(single, produced_at, subject, moment)?,
        }
        Ok(CheckedOcsp {
            basic: basic.to_vec(),
            responder_id: self.data.responder_id.to_der()?,
            produced_at: self.data.produced_at.to_der()?,
            next_update,
        })
    }
}

fn bad(what: &str) -> RevocationError {
    RevocationError::Ocsp(what.to_owned())
}

fn unreadable(error: der::Error) -> RevocationError {
    RevocationError::Ocsp(format!("it cannot be read: {error}"))
}

fn at(time: &GeneralizedTime) -> Timestamp {
    time_of((*time).into())
}

/// Who signed: the issuer itself, or a responder with a certificate from that issuer for just this (RFC 6960 section 4.2.2.2).
fn responder<'a>(
    basic: &'a BasicResponse,
    id: &ResponderId,
    subject: &Subject<'a>,
    produced_at: Timestamp,
) -> Result<&'a Certificate, RevocationError> {
    if names(id, subject.issuer)? {
        return Ok(subject.issuer);
    }
    let bad = |what: &str| RevocationError::Ocsp(format!("its responder {what}"));
    let mut candidates = basic.certs.iter().flatten();
    let found = candidates.find(|certificate| names(id, certificate).unwrap_or(false)).ok_or_else(|| bad("has no certificate in it"))?;
    let tbs = found.tbs_certificate();
    if tbs.issuer() != subject.issuer.tbs_certificate().subject() {
        return Err(bad("is not of the issuer of the certificate"));
    }
    verify_signed(subject.issuer, found.signature_algorithm(), &tbs.to_der()?, found.signature())
        .map_err(|what| bad(&format!("was not certified by the issuer: {what}")))?;
    let read = pki::Certificate::from_der(&found.to_der()?).map_err(|error| bad(&error.to_string()))?;
    pki::path::Purpose::OcspSigning.check(&read).map_err(|fault| bad(&format!("is not certified for OCSP: {fault}")))?;
    if !valid_at(found, produced_at) {
        return Err(bad("had an expired certificate, or one that was not valid yet"));
    }
    Ok(found)
}

fn names(id: &ResponderId, certificate: &Certificate) -> Result<bool, RevocationError> {
    let tbs = certificate.tbs_certificate();
    Ok(match id {
        ResponderId::ByName(name) => name == tbs.subject(),
        ResponderId::ByKey(hash) => {
            let key = tbs.subject_public_key_info().subject_public_key.raw_bytes();
            hash.as_bytes() == sha1(key)
        }
    })
}

/// Whether "good" is said of the moment: the answer is fresh enough, and from a time when the responder still knew the certificate.
fn check_times(single: &SingleResponse, produced_at: Timestamp, subject: &Subject<'_>, moment: Moment) -> Result<(), RevocationError> {
    let next_update = single.next_update.as_ref().map(at);
    if next_update.unwrap_or_else(|| produced_at.after(FRESH)).after(CLOCK_SKEW) < moment.at {
        return Err(bad("it is out of date: a newer one should be there"));
    }
    let expired = time_of(subject.certificate.tbs_certificate().validity().not_after);
    let cutoff = single.extensions.iter().flatten().find(|extension| extension.extn_id == ID_PKIX_OCSP_ARCHIVE_CUTOFF);
    let cutoff = cutoff.map(|cutoff| GeneralizedTime::from_der(cutoff.extn_value.as_bytes())).transpose().map_err(unreadable)?;
    if at(&single.this_update) > expired && cutoff.is_none_or(|cutoff| at(&cutoff) > expired) {
        return Err(bad("it was made after the certificate had expired, and may not know it any more"));
    }
    Ok(())
}
