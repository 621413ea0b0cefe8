//! OCSP (RFC 6960): a question about one certificate, and whether an answer to it is good.

use aws_lc_rs::{
    digest::{SHA1_FOR_LEGACY_USE_ONLY, digest},
    rand,
};
use const_oid::{
    ObjectIdentifier,
    db::{rfc5280::ID_KP_OCSP_SIGNING, rfc5912::ID_SHA_1},
};
use der::{
    Any, Choice, Decode, Encode, Enumerated, Sequence,
    asn1::{AnyRef, BitString, GeneralizedTime, Null, OctetString},
};
use spki::AlgorithmIdentifierOwned;
use x509_cert::{
    Certificate,
    ext::{Extension, Extensions, pkix::ExtendedKeyUsage},
    name::Name,
    serial_number::SerialNumber,
};

use super::{CLOCK_SKEW, RevocationError, Subject, time_of, valid_at, verify_signed};
use crate::domain::timestamp::Timestamp;

const ID_PKIX_OCSP_BASIC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1.1");
const ID_PKIX_OCSP_NONCE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1.2");
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
    reason: Option<Any>,
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
        let hash = |bytes: &[u8]| OctetString::new(digest(&SHA1_FOR_LEGACY_USE_ONLY, bytes).as_ref());
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

    /// Checks an `OCSPResponse`: successful, signed by the issuer or by a responder that the issuer has delegated, about this certificate, fresh
    /// at `now`, with the nonce of this question if it has one, and that the certificate is good.
    ///
    /// # Errors
    /// [`RevocationError`]; [`RevocationError::Revoked`] if the answer says so.
    pub fn accept(&self, der: &[u8], subject: &Subject<'_>, now: Timestamp) -> Result<CheckedOcsp, RevocationError> {
        let bad = |what: &str| RevocationError::Ocsp(what.to_owned());
        let unreadable = |error: der::Error| RevocationError::Ocsp(format!("it cannot be read: {error}"));
        let response = OcspResponse::from_der(der).map_err(unreadable)?;
        if response.status != ResponseStatus::Successful {
            return Err(RevocationError::Ocsp(format!("the responder answered {:?}", response.status)));
        }
        let bytes = response.bytes.ok_or_else(|| bad("it is empty"))?;
        if bytes.response_type != ID_PKIX_OCSP_BASIC {
            return Err(bad("it is not a basic response"));
        }
        let basic = BasicResponse::from_der(bytes.response.as_bytes()).map_err(unreadable)?;
        let data: ResponseData = basic.tbs.decode_as().map_err(unreadable)?;
        let produced_at = Timestamp::from_millis(u64::try_from(data.produced_at.to_unix_duration().as_millis()).unwrap_or(u64::MAX));
        let signer = responder(&basic, &data.responder_id, subject, produced_at)?;
        verify_signed(signer, &basic.signature_algorithm, &basic.tbs.to_der()?, &basic.signature)
            .map_err(|what| RevocationError::Ocsp(format!("its signature: {what}")))?;
        let nonce = data.extensions.iter().flatten().find(|extension| extension.extn_id == ID_PKIX_OCSP_NONCE);
        if nonce.is_some_and(|nonce| nonce.extn_value.as_bytes() != self.nonce) {
            return Err(bad("it does not repeat the nonce of the question"));
        }
        let single = data.responses.iter().find(|single| single.cert_id == self.cert_id);
        let single = single.ok_or_else(|| bad("it is about another certificate"))?;
        let next_update = check_times(single, produced_at, now)?;
        match &single.status {
            CertStatus::Good(_) => {}
            CertStatus::Unknown(_) => return Err(bad("the responder does not know the certificate")),
            CertStatus::Revoked(info) => {
                let since = u64::try_from(info.time.to_unix_duration().as_millis()).unwrap_or(u64::MAX);
                return Err(RevocationError::Revoked { since: Timestamp::from_millis(since) });
            }
        }
        Ok(CheckedOcsp {
            basic: bytes.response.as_bytes().to_vec(),
            responder_id: data.responder_id.to_der()?,
            produced_at: data.produced_at.to_der()?,
            next_update,
        })
    }
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
    match tbs.get_extension::<ExtendedKeyUsage>()? {
        Some((_, usage)) if usage.0.contains(&ID_KP_OCSP_SIGNING) => {}
        _ => return Err(bad("is not certified for OCSP")),
    }
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
            hash.as_bytes() == digest(&SHA1_FOR_LEGACY_USE_ONLY, key).as_ref()
        }
    })
}

fn check_times(single: &SingleResponse, produced_at: Timestamp, now: Timestamp) -> Result<Option<Timestamp>, RevocationError> {
    let at = |time: GeneralizedTime| time_of(time.into());
    if at(single.this_update) > now.after(CLOCK_SKEW) || produced_at > now.after(CLOCK_SKEW) {
        return Err(RevocationError::Ocsp("it is from the future; is this machine's clock right?".to_owned()));
    }
    let next_update = single.next_update.map(at);
    if next_update.unwrap_or_else(|| produced_at.after(FRESH)).after(CLOCK_SKEW) < now {
        return Err(RevocationError::Ocsp("it is out of date: a newer one should be there".to_owned()));
    }
    Ok(next_update)
}
