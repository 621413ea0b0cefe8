//! Whether a signature holds: who signed what ([`cms::verify`]), with a certificate that was good for it ([`pki::path`]), and since when.
//!
//! For the services that are shown signatures (`ticket`, `enrolment`) and for `cli`. Nothing is fetched and no clock is read.
//! Invariants: a signer is good only if the signature, its certificate's path at the best time that is proved, and every check that was asked
//! for are; a signature is good only if it has signers and all of them are; every refusal has one reason, in words.
//!
//! [`cms::verify`]: crate::cms::verify
//! [`pki::path`]: crate::pki::path

use std::io::{Cursor, Read, Seek};

use crate::{
    cms::verify::{ReadError, SignedMessage, SignerCheck, SignerFault},
    domain::{
        algorithm::{HashAlgorithm, SignatureAlgorithm},
        digest::Digest,
        hash::digest,
        ticket::TimeStampCheck,
        timestamp::Timestamp,
    },
    pki::{
        Certificate,
        path::{PathError, PathRequest, Policies, Purpose, RevocationStatus, SUPPLIED_MAX, validate_path},
        trust::TrustStore,
    },
};

/// The most time stamps of one signer that are looked at.
const TIME_STAMPS_MAX: usize = 8;

/// What a signature is judged by.
pub struct Judgement<'a> {
    /// Whom to trust.
    pub trust: &'a TrustStore,
    /// Now: when the certificates must have been good where nothing proves an earlier time.
    pub now: Timestamp,
    /// What the signers' certificates must be good for.
    pub purpose: Purpose,
    /// Certificates beside those in the signature and in the trust store: a signer's that is not embedded, CAs'.
    pub certificates: &'a [Certificate],
    /// Who knows what was revoked; `None` asks nobody.
    pub revocation: Option<&'a dyn RevocationStatus>,
    /// Who judges time stamps; with `None` no time stamp proves anything.
    pub time_stamps: Option<&'a dyn TimeStamps>,
    /// What is demanded of a time stamp of the signature.
    pub signature_time_stamp: TimeStampCheck,
    /// What is demanded of a time stamp of the content.
    pub content_time_stamp: TimeStampCheck,
}

/// Judges time stamps (RFC 3161).
pub trait TimeStamps {
    /// Checks a token over data whose digests `imprint` gives, and says when it was made.
    ///
    /// # Errors
    /// Why it proves nothing, in words.
    fn judge(
        &self,
        token: &[u8],
        imprint: &dyn Fn(HashAlgorithm) -> Option<Digest>,
        judgement: &Judgement<'_>,
    ) -> Result<Timestamp, String>;
}

impl<'a> Judgement<'a> {
    /// Documents' signatures, judged as of `now` by `trust` alone: nothing was revoked, no time stamp is looked at.
    #[must_use]
    pub const fn of_documents(trust: &'a TrustStore, now: Timestamp) -> Self {
        Self {
            trust,
            now,
            purpose: Purpose::DocumentSigning,
            certificates: &[],
            revocation: None,
            time_stamps: None,
            signature_time_stamp: TimeStampCheck::Ignore,
            content_time_stamp: TimeStampCheck::Ignore,
        }
    }
}

/// What was found out about a signature.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// Its signers, in their order.
    pub signers: Vec<SignerVerdict>,
    /// Whether the content is in the signature.
    pub attached: bool,
}

/// What was found out about a signer.
#[derive(Debug, Clone)]
pub struct SignerVerdict {
    /// Whether the signature of this signer holds.
    pub outcome: Result<(), Reason>,
    /// The certificate that the signature names, where it was found. Only a good outcome says that its key signed.
    pub certificate: Option<Certificate>,
    /// How it was signed, where that is known.
    pub algorithm: Option<SignatureAlgorithm>,
    /// When the signer says that it signed.
    pub signing_time: Option<Timestamp>,
    /// The time at which the certificate was judged: the best that is proved.
    pub best_time: Timestamp,
    /// The digest of the content.
    pub content_digest: Option<Digest>,
}

/// Why a signature of a signer does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// The signature itself.
    #[error("{0}")]
    Signature(#[from] SignerFault),
    /// The signer's certificate.
    #[error("{0}")]
    Certificate(#[from] PathError),
    /// A time stamp that must be there.
    #[error("there is no time stamp of the {0}")]
    NoTimeStamp(&'static str),
    /// A time stamp that proves nothing.
    #[error("the time stamp of the {of} is not valid: {why}")]
    TimeStamp {
        /// What it is of.
        of: &'static str,
        /// Why.
        why: String,
    },
    /// The signer's certificate, which cannot even be read.
    #[error("the signer's certificate cannot be read")]
    UnreadableCertificate,
}

/// Why there is nothing to judge.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerificationError {
    /// Not a signature.
    #[error("{0}")]
    Read(#[from] ReadError),
    /// A signature of something that is no document.
    #[error("the signature is not one of a document: its content is of the type {0}")]
    NotOfData(String),
    /// Nobody signed.
    #[error("nobody signed: there are certificates only")]
    NoSigner,
}

impl Verdict {
    /// Whether every signer is good.
    #[must_use]
    pub fn is_good(&self) -> bool {
        !self.signers.is_empty() && self.signers.iter().all(|signer| signer.outcome.is_ok())
    }

    /// The first reason why it is not good.
    #[must_use]
    pub fn reason(&self) -> Option<&Reason> {
        self.signers.iter().find_map(|signer| signer.outcome.as_ref().err())
    }
}

/// Judges a signature of a document. `content` is needed where none is in the signature; where one is, a given one must be the same.
///
/// Reads the content, and verifies a handful of signatures a signer: never on an event loop.
///
/// # Errors
/// [`VerificationError`]; what is wrong with a signer stands in its verdict.
pub fn judge<R: Read + Seek>(
    message: &mut SignedMessage<R>,
    content: Option<&mut dyn Read>,
    judgement: &Judgement<'_>,
) -> Result<Verdict, VerificationError> {
    if !message.is_of_data() {
        return Err(VerificationError::NotOfData(message.content_type().to_string()));
    }
    if message.signer_count() == 0 {
        return Err(VerificationError::NoSigner);
    }
    let given: Vec<&[u8]> = judgement.certificates.iter().map(Certificate::as_der).collect();
    let checks = message.check(content, &given)?;
    let embedded: Vec<_> = message.certificates().iter().filter_map(|der| Certificate::from_der(der).ok()).collect();
    let signers = checks.into_iter().map(|check| judge_signer(check, &embedded, judgement)).collect();
    Ok(Verdict { signers, attached: message.is_attached() })
}

/// Judges a detached signature of content that is at hand.
///
/// # Errors
/// As [`judge`].
pub fn judge_detached(signature: &[u8], content: &[u8], judgement: &Judgement<'_>) -> Result<Verdict, VerificationError> {
    let mut message = SignedMessage::read(Cursor::new(signature))?;
    judge(&mut message, Some(&mut &*content), judgement)
}

fn judge_signer(check: SignerCheck, embedded: &[Certificate], judgement: &Judgement<'_>) -> SignerVerdict {
    let certificate = check.certificate.as_deref().and_then(|der| Certificate::from_der(der).ok());
    let mut best_time = judgement.now;
    let outcome = check.outcome.clone().map_err(Reason::Signature).and_then(|()| {
        let stamped = judge_time_stamps(&check, judgement)?;
        best_time = stamped.unwrap_or(judgement.now).min(judgement.now);
        let certificate = certificate.as_ref().ok_or(Reason::UnreadableCertificate)?;
        judge_certificate(certificate, embedded, best_time, judgement).map_err(Reason::Certificate)
    });
    SignerVerdict {
        outcome,
        certificate,
        algorithm: check.algorithm,
        signing_time: check.signing_time,
        best_time,
        content_digest: check.content_digest,
    }
}

/// Judges the time stamps of a signer as far as that is demanded; the earliest good one of the signature is the best time.
fn judge_time_stamps(check: &SignerCheck, judgement: &Judgement<'_>) -> Result<Option<Timestamp>, Reason> {
    let of_content = |hash| check.content_digest.clone().filter(|digest| digest.algorithm() == hash);
    let of_signature = |hash| Some(digest(hash, &check.signature));
    earliest("content", &check.content_time_stamps, judgement.content_time_stamp, &of_content, judgement)?;
    earliest("signature", &check.signature_time_stamps, judgement.signature_time_stamp, &of_signature, judgement)
}

fn earliest(
    of: &'static str,
    tokens: &[Vec<u8>],
    demanded: TimeStampCheck,
    imprint: &dyn Fn(HashAlgorithm) -> Option<Digest>,
    judgement: &Judgement<'_>,
) -> Result<Option<Timestamp>, Reason> {
    if tokens.is_empty() && demanded == TimeStampCheck::VerifyOrFailIfNotPresent {
        return Err(Reason::NoTimeStamp(of));
    }
    let mut earliest: Option<Timestamp> = None;
    for token in tokens.iter().take(TIME_STAMPS_MAX) {
        let judged = match judgement.time_stamps {
            Some(judge) => judge.judge(token, imprint, judgement),
            None => Err("time stamps are not verified here".to_owned()),
        };
        match judged {
            Ok(time) => earliest = Some(earliest.map_or(time, |earliest| earliest.min(time))),
            Err(_) if demanded == TimeStampCheck::Ignore => {}
            Err(why) => return Err(Reason::TimeStamp { of, why }),
        }
    }
    Ok(earliest)
}

/// Judges a certificate by the trust store, with the CAs of the signature as links.
fn judge_certificate(leaf: &Certificate, embedded: &[Certificate], at: Timestamp, judgement: &Judgement<'_>) -> Result<(), PathError> {
    let supplied = embedded.iter().chain(judgement.certificates).filter(|certificate| *certificate != leaf).take(SUPPLIED_MAX);
    let intermediates: Vec<_> = supplied.chain(judgement.trust.intermediates()).collect();
    let request = PathRequest {
        leaf,
        intermediates: &intermediates,
        anchors: &judgement.trust.anchors().iter().collect::<Vec<_>>(),
        at,
        purpose: judgement.purpose,
        revocation: judgement.revocation,
        policies: &Policies::default(),
    };
    validate_path(&request).map(drop)
}
