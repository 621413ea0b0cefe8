//! What a ticket signs: a document, or the document of a signature that is there already, beside whose signers another one is set.
//!
//! The earlier signature is what was uploaded as one (`ds/data`), or, where nothing was, the content itself. Invariants: a signer is added only
//! beside signers whose signatures hold; what the new signer signs is the digest of the document that the others signed, read here and not
//! taken from them; the earlier signature does not change between the asking and the putting together.

use std::io::{self, Read, Write};

use super::{
    SignatureDocument, TicketError, TicketService, document,
    signature::{signed_digest, with_signed_data},
    spool::{blocking, unavailable},
    verifying::{OpenedMessage, content_pieces, open},
};
use crate::{
    cms::{
        Hasher, asic,
        verify::{ReadError, SIGNERS_MAX, SignerCheck},
    },
    domain::{
        algorithm::HashAlgorithm,
        audit::Sha256,
        consent::ShownDocument,
        digest::Digest,
        signature::SignatureValue,
        ticket::{AsicForm, Beside, Content, ContentPart, DataToSign, Ticket, TicketSigning},
    },
    pki::Certificate,
    signing::service::Authorised,
};

/// Why an existing signature is not taken: no signer is added to it, and it is not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExistingError {
    /// Not a signature of a document.
    #[error("what was uploaded is no signature of a document: {0}")]
    NotASignature(String),
    /// One of its signers did not sign this, or that cannot be checked.
    #[error("signer {number} of the uploaded signature: {why}")]
    Broken {
        /// Which, from 1.
        number: usize,
        /// Why.
        why: String,
    },
    /// The document is not in the signature and was not uploaded beside it.
    #[error("the document is not in the uploaded signature, and was not uploaded beside it")]
    NoDocument,
    /// There are as many signers as a signature may have.
    #[error("the uploaded signature has {SIGNERS_MAX} signers, and no more are added")]
    TooManySigners,
    /// The same signer has signed.
    #[error("the same signer has signed before")]
    SameSigner,
}

/// What is signed.
pub(super) struct Subject {
    /// The digest of the content, or of what stands for it.
    pub(super) digest: Digest,
    /// What operators are shown.
    pub(super) document: ShownDocument,
    /// The signature that the new one stands beside.
    pub(super) beside: Option<Box<Beside>>,
}

impl TicketService {
    /// What this ticket signs.
    pub(super) async fn subject_of(&self, ticket: &Ticket, authorised: &Authorised) -> Result<Subject, TicketError> {
        let hash = authorised.algorithm().message_digest_hash();
        if ticket.options.data_to_sign == DataToSign::AlreadySigned {
            return self.subject_beside(ticket, authorised, hash).await;
        }
        let content = ticket.content.as_ref().ok_or(TicketError::NoContent)?;
        if ticket.options.asic_form != AsicForm::E {
            refuse_several(content)?;
        }
        let digest = signed_digest(&ticket.options, content, self.digest_of(ticket.id, content, hash).await?);
        let document = ShownDocument { ticket: ticket.id, sha256: shown_sha256(content), len: content.len };
        Ok(Subject { digest, document, beside: None })
    }

    async fn subject_beside(&self, ticket: &Ticket, authorised: &Authorised, hash: HashAlgorithm) -> Result<Subject, TicketError> {
        let signer = if ticket.options.duplicate_sign { None } else { authorised.key().certificate.clone() };
        let part = if ticket.signature.is_some() { ContentPart::Signature } else { ContentPart::Document };
        let signature = ticket.part(part).ok_or(TicketError::NoContent)?;
        let source = self.source_of(ticket.id, part, signature).await?;
        let document = self.document_beside(ticket, part).await?;
        let examined = blocking(move || {
            let mut message = read_existing(source)?;
            if message.signer_count() >= SIGNERS_MAX {
                return Err(ExistingError::TooManySigners.into());
            }
            let checks = check_existing(&mut message, document)?;
            if let Some(signer) = &signer {
                refuse_same_signer(&checks, signer)?;
            }
            hash_attached(&mut message, hash)
        });
        let (attached, digest, sha256, len) = match (examined.await?, &ticket.content) {
            (Some(Hashed { digest, sha256, len }), _) => (true, digest, sha256, len),
            (None, Some(content)) => (false, self.digest_of(ticket.id, content, hash).await?, content.sha256_value(), content.len),
            (None, None) => return Err(ExistingError::NoDocument.into()),
        };
        let document = ShownDocument { ticket: ticket.id, sha256, len };
        Ok(Subject { digest, document, beside: Some(Box::new(Beside { part, attached, sha256, len })) })
    }

    /// The document that was uploaded beside a signature, if one was.
    pub(super) async fn document_beside(&self, ticket: &Ticket, signature: ContentPart) -> Result<Option<OpenedMessage>, TicketError> {
        let Some(content) = ticket.content.as_ref().filter(|_| signature == ContentPart::Signature) else { return Ok(None) };
        refuse_several(content)?;
        let source = self.source_of(ticket.id, ContentPart::Document, content).await?;
        blocking(move || open(source)).await.map(Some)
    }

    /// Puts a signature together with those that it stands beside.
    pub(super) async fn assemble_beside(
        &self,
        ticket: Ticket,
        beside: &Beside,
        signing: TicketSigning,
        value: SignatureValue,
    ) -> Result<SignatureDocument, TicketError> {
        let signature = ticket.part(beside.part).ok_or(TicketError::NoSignature)?;
        let source = self.source_of(ticket.id, beside.part, signature).await?;
        let embed = ticket.options.embed_certificate;
        let made = blocking(move || {
            let message = read_existing(source)?;
            let mut reworked = message.rework()?;
            with_signed_data(embed, &signing, &value, |signer| reworked.add_signer(signer))?;
            Ok((reworked.frame(message.content_len())?, message))
        });
        let (frame, message) = made.await?;
        Ok(document::framed(frame, content_pieces(message)))
    }

    /// The document in the signature that a ticket sets a signer beside, for operators.
    pub(super) async fn document_in(&self, ticket: &Ticket, beside: &Beside) -> Result<SignatureDocument, TicketError> {
        let signature = ticket.part(beside.part).ok_or(TicketError::Missing)?;
        let source = self.source_of(ticket.id, beside.part, signature).await?;
        let message = blocking(move || read_existing(source)).await?;
        Ok(document::streamed(beside.len, content_pieces(message)))
    }
}

/// Only an ASiC-E container has several data objects.
pub(super) fn refuse_several(content: &Content) -> Result<(), TicketError> {
    if content.is_several() { Err(TicketError::SeveralObjects) } else { Ok(()) }
}

/// What operators are told of a content: its own digest, or, of several data objects, that of the manifest that names them.
pub(super) fn shown_sha256(content: &Content) -> Sha256 {
    if content.is_several() { Sha256::of(&asic::manifest(&content.data_objects())) } else { content.sha256_value() }
}

type Message = crate::cms::verify::SignedMessage<OpenedMessage>;

/// Takes a signature apart that is to be one of a document, with signers.
pub(super) fn read_existing(source: super::signature::ContentSource) -> Result<Message, TicketError> {
    let message = Message::read(open(source)?).map_err(unreadable)?;
    let not = |why: &str| TicketError::from(ExistingError::NotASignature(why.to_owned()));
    if !message.is_of_data() {
        return Err(not("its content is of another type"));
    }
    if message.signer_count() == 0 {
        return Err(not("nobody has signed"));
    }
    Ok(message)
}

/// Checks that every signer signed this. Whether their certificates are trusted is nothing to whoever signs beside them.
pub(super) fn check_existing(message: &mut Message, mut document: Option<OpenedMessage>) -> Result<Vec<SignerCheck>, TicketError> {
    let checks = message.check(document.as_mut().map(|document| document as &mut dyn Read), &[]).map_err(unreadable)?;
    for (number, check) in (1..).zip(&checks) {
        if let Err(fault) = &check.outcome {
            return Err(ExistingError::Broken { number, why: fault.to_string() }.into());
        }
    }
    Ok(checks)
}

/// The same certificate, or another one of the same key.
fn refuse_same_signer(checks: &[SignerCheck], signer: &[u8]) -> Result<(), TicketError> {
    let key_of = |der: &[u8]| Certificate::from_der(der).ok().map(|certificate| certificate.spki().to_vec());
    let key = key_of(signer);
    let same = |certificate: &[u8]| certificate == signer || (key.is_some() && key_of(certificate) == key);
    if checks.iter().filter_map(|check| check.certificate.as_deref()).any(same) { Err(ExistingError::SameSigner.into()) } else { Ok(()) }
}

struct Hashed {
    digest: Digest,
    sha256: Sha256,
    len: u64,
}

/// Hashes the document that is in the signature; `None` if it is not there.
fn hash_attached(message: &mut Message, hash: HashAlgorithm) -> Result<Option<Hashed>, TicketError> {
    if !message.is_attached() {
        return Ok(None);
    }
    let mut both = Both { wanted: Hasher::new(hash), sha256: Hasher::new(HashAlgorithm::Sha256) };
    let len = message.copy_content(&mut both).map_err(unreadable)?;
    Ok(Some(Hashed { digest: both.wanted.finish(), sha256: Sha256::of_digest(&both.sha256.finish()), len }))
}

struct Both {
    wanted: Hasher,
    sha256: Hasher,
}

impl Write for Both {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.wanted.update(piece);
        self.sha256.update(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn unreadable(error: ReadError) -> TicketError {
    match error {
        ReadError::Io(error) => unavailable(error),
        ReadError::NoContent => ExistingError::NoDocument.into(),
        error => ExistingError::NotASignature(error.to_string()).into(),
    }
}
