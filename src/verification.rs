//! Whether a signature holds: who signed what ([`cms::verify`]), with a certificate that was good for it ([`pki::path`]), and since when.
//!
//! For the services that are shown signatures (`ticket`, `enrolment`), for `stamping` and for `cli`. Nothing is fetched and no clock is read;
//! what would have to be fetched is told through an [`Inquiry`]. Invariants: a signer is good only if the signature, its certificate's path at
//! the best time that is proved, and every check that was asked for are; a signature is good only if it has signers and all of them are; every
//! refusal has one reason, in words; a time is proved by a time stamp that holds now, and by nothing else (EN 319 102-1 clause 5.5).
//!
//! [`cms::verify`]: crate::cms::verify
//! [`pki::path`]: crate::pki::path

mod time_stamps;

use std::io::{Cursor, Read, Seek};

pub use self::time_stamps::{GoodTimeStamp, TimeStampFault, judge_time_stamp};
use crate::{
    cms::verify::{ReadError, SignedMessage, SignerCheck, SignerFault},
    domain::{algorithm::SignatureAlgorithm, digest::Digest, revocation::RevocationCheck, ticket::TimeStampCheck, timestamp::Timestamp},
    pki::{
        Certificate,
        path::{PathError, PathRequest, Policies, Purpose, RevocationStatus, SUPPLIED_MAX, validate_path},
        revocation::{Inquiry, KnownEvidence, StatusBook},
        trust::TrustStore,
    },
};

/// What a signature is judged by.
pub struct Judgement<'a> {
    /// Whom to trust.
    pub trust: &'a TrustStore,
    /// The CA that the signers' certificates must come from, directly or by others; any, if it is `None`. Time stamps may come from any.
    pub authority: Option<&'a Certificate>,
    /// Now: when the certificates must have been good where nothing proves an earlier time.
    pub now: Timestamp,
    /// What the signers' certificates must be good for.
    pub purpose: Purpose,
    /// Certificates beside those in the signature and in the trust store: a signer's that is not embedded, CAs'.
    pub certificates: &'a [Certificate],
    /// What is demanded of evidence that the certificates were not revoked.
    pub revocation: RevocationCheck,
    /// The same for the certificates of time-stamping authorities.
    pub revocation_of_time_stamps: RevocationCheck,
    /// What was fetched, and what is wanted.
    pub inquiry: Option<&'a Inquiry>,
    /// What is demanded of a time stamp of the signature.
    pub signature_time_stamp: TimeStampCheck,
    /// What is demanded of a time stamp of the content.
    pub content_time_stamp: TimeStampCheck,
}

impl<'a> Judgement<'a> {
    /// Documents' signatures, judged as of `now` by `trust` and by the evidence that they carry.
    #[must_use]
    pub const fn of_documents(trust: &'a TrustStore, now: Timestamp) -> Self {
        Self {
            trust,
            authority: None,
            now,
            purpose: Purpose::DocumentSigning,
            certificates: &[],
            revocation: RevocationCheck::WhereNamed,
            revocation_of_time_stamps: RevocationCheck::WhereNamed,
            inquiry: None,
            signature_time_stamp: TimeStampCheck::Ignore,
            content_time_stamp: TimeStampCheck::Ignore,
        }
    }

    /// A path for a certificate, with what the signature brings along.
    fn check_path(
        &self,
        leaf: &Certificate,
        purpose: Purpose,
        at: Timestamp,
        carried: &Carried,
        revocation: &dyn RevocationStatus,
    ) -> Result<(), PathError> {
        let supplied = carried.certificates.iter().chain(self.certificates).filter(|certificate| *certificate != leaf).take(SUPPLIED_MAX);
        let intermediates: Vec<_> = supplied.chain(self.trust.intermediates()).collect();
        let request = PathRequest {
            leaf,
            intermediates: &intermediates,
            anchors: &self.trust.anchors().iter().collect::<Vec<_>>(),
            through: self.authority.filter(|_| purpose != Purpose::TimeStamping),
            at,
            purpose,
            revocation: Some(revocation),
            policies: &Policies::default(),
        };
        validate_path(&request).map(drop)
    }

    fn book<'b>(&'b self, check: RevocationCheck, evidence: &'b [&'b KnownEvidence], carried: &'b Carried) -> StatusBook<'b> {
        StatusBook {
            check,
            carried: evidence,
            inquiry: self.inquiry,
            certificates: &carried.certificates,
            trust: self.trust,
            now: self.now,
        }
    }
}

/// What a signature, or a time stamp, brings along for others to judge it by. None of it is believed as it is.
#[derive(Default)]
struct Carried {
    certificates: Vec<Certificate>,
    evidence: KnownEvidence,
}

impl Carried {
    fn add_certificates<'a>(&mut self, all: impl IntoIterator<Item = &'a Vec<u8>>) {
        for certificate in all.into_iter().filter_map(|der| Certificate::from_der(der).ok()) {
            if !self.certificates.contains(&certificate) {
                self.certificates.push(certificate);
            }
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
    /// The time stamp of the signature that proves it.
    pub signature_time_stamp: Option<GoodTimeStamp>,
    /// The earliest time stamp of the content that holds.
    pub content_time_stamp: Option<GoodTimeStamp>,
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
        why: TimeStampFault,
    },
    /// The content was stamped after the signature, which is over that stamp.
    #[error("the time stamp of the content, of {content}, is later than that of the signature, of {signature}")]
    TimeStampOrder {
        /// When the content was stamped (RFC 3339).
        content: String,
        /// When the signature was stamped (RFC 3339).
        signature: String,
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

/// A signature that was read whole, with what it brings along: to be judged, once or several times.
pub struct Examined {
    checks: Vec<SignerCheck>,
    carried: Carried,
    attached: bool,
}

/// Reads a signature of a document. `content` is needed where none is in the signature; where one is, a given one must be the same.
/// `certificates` may be the signers'.
///
/// Reads the content, and verifies one signature a signer: never on an event loop.
///
/// # Errors
/// [`VerificationError`]; what is wrong with a signer is said when it is judged.
pub fn examine<R: Read + Seek>(
    message: &mut SignedMessage<R>,
    content: Option<&mut dyn Read>,
    certificates: &[Certificate],
) -> Result<Examined, VerificationError> {
    if !message.is_of_data() {
        return Err(VerificationError::NotOfData(message.content_type().to_string()));
    }
    if message.signer_count() == 0 {
        return Err(VerificationError::NoSigner);
    }
    let given: Vec<&[u8]> = certificates.iter().map(Certificate::as_der).collect();
    let checks = message.check(content, &given)?;
    let mut carried = Carried::default();
    carried.add_certificates(message.certificates());
    message.crls().iter().for_each(|crl| carried.evidence.add_crl(crl));
    message.ocsp_responses().iter().for_each(|response| carried.evidence.add_response(response));
    for values in checks.iter().map(|check| &check.values) {
        carried.add_certificates(&values.certificates);
        values.crls.iter().for_each(|crl| carried.evidence.add_crl(crl));
        values.ocsp_answers.iter().for_each(|answer| carried.evidence.add_answer(answer));
    }
    Ok(Examined { checks, carried, attached: message.is_attached() })
}

impl Examined {
    /// Judges every signer.
    ///
    /// Verifies a handful of signatures a signer: never on an event loop.
    #[must_use]
    pub fn judge(&self, judgement: &Judgement<'_>) -> Verdict {
        let signers = self.checks.iter().map(|check| self.judge_signer(check, judgement)).collect();
        Verdict { signers, attached: self.attached }
    }

    fn judge_signer(&self, check: &SignerCheck, judgement: &Judgement<'_>) -> SignerVerdict {
        let certificate = check.certificate.as_deref().and_then(|der| Certificate::from_der(der).ok());
        let mut verdict = SignerVerdict {
            outcome: Ok(()),
            certificate,
            algorithm: check.algorithm,
            signing_time: check.signing_time,
            best_time: judgement.now,
            signature_time_stamp: None,
            content_time_stamp: None,
            content_digest: check.content_digest.clone(),
        };
        verdict.outcome = check.outcome.clone().map_err(Reason::Signature).and_then(|()| {
            (verdict.content_time_stamp, verdict.signature_time_stamp) = time_stamps::judge_all(check, &self.carried, judgement)?;
            // A stamp from the future has not been refused where clocks are a little apart; it proves nothing beyond now.
            verdict.best_time = verdict.signature_time_stamp.as_ref().map_or(judgement.now, |stamp| stamp.time.min(judgement.now));
            let certificate = verdict.certificate.as_ref().ok_or(Reason::UnreadableCertificate)?;
            let evidence = [&self.carried.evidence];
            let book = judgement.book(judgement.revocation, &evidence, &self.carried);
            judgement.check_path(certificate, judgement.purpose, verdict.best_time, &self.carried, &book).map_err(Reason::Certificate)
        });
        verdict
    }
}

/// Reads a signature and judges it: [`examine`] and [`Examined::judge`].
///
/// # Errors
/// As [`examine`].
pub fn judge<R: Read + Seek>(
    message: &mut SignedMessage<R>,
    content: Option<&mut dyn Read>,
    judgement: &Judgement<'_>,
) -> Result<Verdict, VerificationError> {
    Ok(examine(message, content, judgement.certificates)?.judge(judgement))
}

/// Judges a detached signature of content that is at hand.
///
/// # Errors
/// As [`judge`].
pub fn judge_detached(signature: &[u8], content: &[u8], judgement: &Judgement<'_>) -> Result<Verdict, VerificationError> {
    let mut message = SignedMessage::read(Cursor::new(signature))?;
    judge(&mut message, Some(&mut &*content), judgement)
}
