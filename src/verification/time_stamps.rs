//! Time stamps (RFC 3161): whether a token proves that something was there at its time.
//!
//! Invariants: a token counts only over the very bytes that it must be of, with a signature that holds, of an authority whose certificate holds
//! now, as nothing proves that the token itself is older (EN 319 102-1 clause 5.4), and was valid when the token was made; an authority that was
//! revoked costs its earlier tokens their worth unless the reason says that its key was never lost (RFC 3161 section 4).

use super::{Carried, Judgement, Reason};
use crate::{
    cms::{
        time_stamp::{TimeStamp, TimeStampError},
        verify::SignerCheck,
    },
    domain::{algorithm::HashAlgorithm, digest::Digest, hash::digest, ticket::TimeStampCheck, timestamp::Timestamp},
    pki::{
        Certificate,
        path::{PathError, Purpose, Revocation, RevocationStatus},
        revocation::CLOCK_SKEW,
    },
};

/// The most time stamps of one signer that are looked at, of either kind.
const TIME_STAMPS_MAX: usize = 8;

/// A time stamp that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoodTimeStamp {
    /// Its time.
    pub time: Timestamp,
    /// The authority's certificate.
    pub authority: Certificate,
}

/// Why a time stamp proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TimeStampFault {
    /// The token itself.
    #[error("{0}")]
    Token(#[from] TimeStampError),
    /// The data is not there in a form that could be compared.
    #[error("its imprint is made with {0}, and the data with another hash function")]
    Hash(HashAlgorithm),
    /// It is from the future.
    #[error("it is from the future, of {0}; is this machine's clock right?")]
    FromTheFuture(String),
    /// The authority's certificate was not valid when the token was made.
    #[error("the authority's certificate was not valid at the time of the token, {0}")]
    OutsideValidity(String),
    /// The authority's certificate.
    #[error("of the authority, {0}")]
    Authority(#[from] PathError),
    /// The authority's certificate cannot be read.
    #[error("the authority's certificate cannot be read")]
    UnreadableCertificate,
}

/// Judges a token over data whose digests `imprint` gives.
///
/// Verifies a handful of signatures: never on an event loop.
///
/// # Errors
/// [`TimeStampFault`].
pub fn judge_time_stamp(
    token: &[u8],
    imprint: &dyn Fn(HashAlgorithm) -> Option<Digest>,
    judgement: &Judgement<'_>,
) -> Result<GoodTimeStamp, TimeStampFault> {
    judge_beside(token, imprint, &Carried::default(), judgement)
}

/// The same of a token that stands in a signature which carries this.
fn judge_beside(
    token: &[u8],
    imprint: &dyn Fn(HashAlgorithm) -> Option<Digest>,
    beside: &Carried,
    judgement: &Judgement<'_>,
) -> Result<GoodTimeStamp, TimeStampFault> {
    let known: Vec<&[u8]> = beside.certificates.iter().chain(judgement.certificates).map(Certificate::as_der).collect();
    let stamp = TimeStamp::from_token_beside(token, &known)?;
    let hash = stamp.imprint_hash();
    stamp.check_imprint(&imprint(hash).ok_or(TimeStampFault::Hash(hash))?)?;
    let time = stamp.time();
    if time > judgement.now.after(CLOCK_SKEW) {
        return Err(TimeStampFault::FromTheFuture(time.to_rfc3339()));
    }
    let authority = Certificate::from_der(stamp.certificate()).map_err(|_| TimeStampFault::UnreadableCertificate)?;
    if !authority.valid_at(time) {
        return Err(TimeStampFault::OutsideValidity(time.to_rfc3339()));
    }
    let mut carried = Carried { certificates: beside.certificates.clone(), ..Carried::default() };
    carried.add_certificates(&stamp.carried().certificates);
    stamp.carried().crls.iter().for_each(|crl| carried.evidence.add_crl(crl));
    stamp.carried().ocsp_answers.iter().for_each(|answer| carried.evidence.add_answer(answer));
    stamp.ocsp_responses().iter().for_each(|response| carried.evidence.add_response(response));
    let evidence = [&carried.evidence, &beside.evidence];
    let book = judgement.book(judgement.revocation_of_time_stamps, &evidence, &carried);
    let status = OfAuthority { book: &book, stamped: time };
    judgement.check_path(&authority, Purpose::TimeStamping, judgement.now, &carried, &status)?;
    Ok(GoodTimeStamp { time, authority })
}

/// The status of an authority's certificates for a token that it made at a time.
struct OfAuthority<'a> {
    book: &'a dyn RevocationStatus,
    stamped: Timestamp,
}

impl RevocationStatus for OfAuthority<'_> {
    fn status(&self, certificate: &Certificate, issuer: &Certificate, anchor: &Certificate, at: Timestamp) -> Revocation {
        match self.book.status(certificate, issuer, anchor, at) {
            Revocation::Revoked { since, reason: Some(reason) } if since > self.stamped && reason.leaves_earlier_time_stamps() => {
                Revocation::Good
            }
            status => status,
        }
    }
}

/// Judges the time stamps of a signer as far as that is demanded: the earliest good ones of the content and of the signature.
pub(super) fn judge_all(
    check: &SignerCheck,
    carried: &Carried,
    judgement: &Judgement<'_>,
) -> Result<(Option<GoodTimeStamp>, Option<GoodTimeStamp>), Reason> {
    let of_content = |hash| check.content_digest.clone().filter(|digest| digest.algorithm() == hash);
    let of_signature = |hash| Some(digest(hash, &check.signature));
    let content = earliest("content", &check.content_time_stamps, judgement.content_time_stamp, &of_content, carried, judgement)?;
    let signature = earliest("signature", &check.signature_time_stamps, judgement.signature_time_stamp, &of_signature, carried, judgement)?;
    match (content, signature) {
        // The order of their times, which say seconds, and whose authorities' clocks are a little apart.
        (Some(content), Some(signature)) if content.time > signature.time.after(CLOCK_SKEW) => {
            Err(Reason::TimeStampOrder { content: content.time.to_rfc3339(), signature: signature.time.to_rfc3339() })
        }
        both => Ok(both),
    }
}

fn earliest(
    of: &'static str,
    tokens: &[Vec<u8>],
    demanded: TimeStampCheck,
    imprint: &dyn Fn(HashAlgorithm) -> Option<Digest>,
    carried: &Carried,
    judgement: &Judgement<'_>,
) -> Result<Option<GoodTimeStamp>, Reason> {
    if tokens.is_empty() && demanded == TimeStampCheck::VerifyOrFailIfNotPresent {
        return Err(Reason::NoTimeStamp(of));
    }
    let mut earliest: Option<GoodTimeStamp> = None;
    for token in tokens.iter().take(TIME_STAMPS_MAX) {
        match judge_beside(token, imprint, carried, judgement) {
            Ok(stamp) if earliest.as_ref().is_none_or(|earliest| stamp.time < earliest.time) => earliest = Some(stamp),
            Ok(_) => {}
            Err(_) if demanded == TimeStampCheck::Ignore => {}
            Err(why) => return Err(Reason::TimeStamp { of, why }),
        }
    }
    Ok(earliest)
}
