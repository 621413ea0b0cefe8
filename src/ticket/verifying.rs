//! Verification of a signature that was uploaded to a ticket.
//!
//! Asking for it is noted with the ticket, with the time as of which it is judged; the verdict follows from what the ticket holds, and is
//! computed by the gateway that is asked for it: once, however many ask, and again where it was forgotten. Invariants: a verdict is of what the
//! ticket held when it was asked for; the work is done on blocking threads, a few at a time.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Cursor, Read, Seek, Write},
    sync::{Arc, Mutex, PoisonError},
};

use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::bytes::Bytes;
use tracing::{error, warn};

use super::{
    SignatureDocument, TicketError, TicketService,
    cosign::refuse_several,
    document::streamed,
    signature::ContentSource,
    spool::{blocking, unavailable},
};
use crate::{
    cms::verify::{ReadError, SignedMessage},
    domain::{
        audit::AuditEvent,
        caller::Caller,
        ids::TicketId,
        revocation::RevocationCheck,
        ticket::{Content, ContentPart, SignatureOptions, Ticket},
        timestamp::Timestamp,
    },
    pki::revocation::Inquiry,
    store::Change,
    verification::{Examined, Judgement, Verdict, VerificationError, examine},
};

/// The most verifications that run at a time; the rest wait.
const RUNNING_MAX: usize = 4;
/// The most verdicts that are remembered, running ones included.
const REMEMBERED_MAX: usize = 4096;
/// How many pieces of a content are read ahead of a slow client.
const PIECES_AHEAD: usize = 4;

/// What came of a verification.
#[derive(Debug, Clone)]
pub enum Verification {
    /// The signature was judged, signer by signer.
    Judged(Verdict),
    /// It is not one that could be judged; the text says why.
    NotASignature(String),
}

impl Verification {
    /// Whether the signature holds.
    #[must_use]
    pub fn is_good(&self) -> bool {
        matches!(self, Self::Judged(verdict) if verdict.is_good())
    }

    fn reason(&self) -> Option<String> {
        match self {
            Self::Judged(verdict) => verdict.reason().map(ToString::to_string),
            Self::NotASignature(reason) => Some(reason.clone()),
        }
    }

    fn signers(&self) -> Vec<String> {
        let Self::Judged(verdict) = self else { return Vec::new() };
        verdict.signers.iter().filter_map(|signer| Some(signer.certificate.as_ref()?.serial())).collect()
    }
}

type Outcome = Result<Arc<Verification>, TicketError>;
/// What is known of a verification: nothing while it runs.
type Known = watch::Receiver<Option<Outcome>>;
/// How its outcome is told.
type Telling = watch::Sender<Option<Outcome>>;
/// A ticket, and which of its states was verified.
type Subject = (TicketId, u64);

/// The verifications of a gateway.
pub(super) struct Verifications {
    running: Semaphore,
    known: Mutex<HashMap<Subject, Known>>,
}

impl Default for Verifications {
    fn default() -> Self {
        Self { running: Semaphore::new(RUNNING_MAX), known: Mutex::default() }
    }
}

impl Verifications {
    /// The verification of this subject; the sender comes with one that nobody has begun.
    fn join(&self, subject: Subject) -> Result<(Known, Option<Telling>), TicketError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(outcome) = known.get(&subject) {
            return Ok((outcome.clone(), None));
        }
        // An older state of the same ticket is of no use to anybody.
        known.retain(|(ticket, _), _| *ticket != subject.0);
        if known.len() >= REMEMBERED_MAX {
            known.retain(|_, outcome| outcome.borrow().is_none());
        }
        if known.len() >= REMEMBERED_MAX {
            return Err(TicketError::VerifierBusy);
        }
        let (sender, outcome) = watch::channel(None);
        known.insert(subject, outcome.clone());
        Ok((outcome, Some(sender)))
    }

    fn forget(&self, subject: Subject) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(&subject);
    }
}

impl TicketService {
    /// Asks for the uploaded signature to be verified, as of now.
    ///
    /// # Errors
    /// [`TicketError::NoSignature`], [`TicketError::VerifierBusy`], [`TicketError::Missing`], [`TicketError::StoreUnavailable`].
    pub async fn start_verification(&self, caller: &Caller, id: TicketId) -> Result<(), TicketError> {
        let now = self.store.now();
        let ask = |ticket: &mut Ticket| {
            if ticket.signature.is_none() {
                return Err(TicketError::NoSignature);
            }
            ticket.verifying = Some(now);
            Ok(())
        };
        self.change(caller, id, ask).await?;
        let ticket = self.load(caller, id).await?;
        self.begin_verification(caller, ticket).map(drop)
    }

    /// Waits for the verification that was asked for, within the configured bound; `None` if it has not ended by then.
    ///
    /// # Errors
    /// [`TicketError::NotVerified`] if it was not asked for, [`TicketError::NoContent`] if the content is needed and was not uploaded; and as
    /// [`start_verification`](Self::start_verification).
    pub async fn verification(&self, caller: &Caller, id: TicketId) -> Result<Option<Arc<Verification>>, TicketError> {
        let ticket = self.load(caller, id).await?;
        let mut outcome = self.begin_verification(caller, ticket)?;
        let ended = async { outcome.wait_for(Option::is_some).await.ok().and_then(|outcome| outcome.clone()) };
        match tokio::time::timeout(self.settings.blocking_get_bound, ended).await {
            Err(_) => Ok(None),
            Ok(Some(outcome)) => outcome.map(Some),
            Ok(None) => {
                error!("a verification did not end well");
                Err(TicketError::SpoolUnavailable)
            }
        }
    }

    /// The content of an attached signature that was uploaded.
    ///
    /// # Errors
    /// [`TicketError::NoSignature`], [`TicketError::NoSuchSignature`], [`TicketError::Detached`], and as
    /// [`start_verification`](Self::start_verification).
    pub async fn signed_content(&self, caller: &Caller, id: TicketId) -> Result<SignatureDocument, TicketError> {
        let ticket = self.load(caller, id).await?;
        let signature = ticket.signature.as_ref().ok_or(TicketError::NoSignature)?;
        let source = self.source_of(id, ContentPart::Signature, signature).await?;
        let opened = blocking(move || {
            let message = SignedMessage::read(open(source)?).map_err(unreadable)?;
            let len = message.content_len().ok_or(TicketError::Detached)?;
            Ok((message, len))
        });
        let (message, len) = opened.await?;
        Ok(streamed(len, content_pieces(message)))
    }

    /// The verification of what the ticket holds, begun now if it was not.
    fn begin_verification(&self, caller: &Caller, ticket: Ticket) -> Result<Known, TicketError> {
        let as_of = ticket.verifying.ok_or(TicketError::NotVerified)?;
        let subject = (ticket.id, ticket.version);
        let (outcome, begun) = self.verifications.join(subject)?;
        if let Some(sender) = begun {
            let (this, caller) = (self.clone(), caller.clone());
            tokio::spawn(async move {
                let made = this.verify(&caller, &ticket, as_of).await;
                if made.is_err() {
                    // What failed for another reason than the signature may work the next time.
                    this.verifications.forget(subject);
                }
                sender.send_replace(Some(made));
            });
        }
        Ok(outcome)
    }

    async fn verify(&self, caller: &Caller, ticket: &Ticket, as_of: Timestamp) -> Outcome {
        let signature = ticket.signature.as_ref().ok_or(TicketError::NoSignature)?;
        let message = self.source_of(ticket.id, ContentPart::Signature, signature).await?;
        ticket.content.as_ref().map(refuse_several).transpose()?;
        let content = match &ticket.content {
            Some(content) => Some(self.source_of(ticket.id, ContentPart::Document, content).await?),
            None => None,
        };
        // Reading a long content is what takes time here; fetching evidence, which may wait for a network, holds nobody up.
        let examined = {
            // The semaphore is never closed.
            let _running = self.verifications.running.acquire().await.map_err(|_| TicketError::VerifierBusy)?;
            blocking(move || read(message, content)).await?
        };
        let verification = match examined {
            Ok(examined) => {
                self.settle(&ticket.options, as_of, move |judgement| examined.judge(judgement)).await?.map(Verification::Judged)
            }
            Err(reason) => Err(reason),
        };
        let verification = verification.unwrap_or_else(Verification::NotASignature);
        self.record(caller, ticket.id, signature, &verification).await;
        Ok(Arc::new(verification))
    }

    /// Judges something by what this deployment trusts and what a ticket's options demand, with evidence that is fetched as it is wanted. The
    /// inner error says why there is nothing to judge by.
    pub(super) async fn settle<T: Send + 'static>(
        &self,
        options: &SignatureOptions,
        as_of: Timestamp,
        judge: impl Fn(&Judgement<'_>) -> T + Send + Sync + 'static,
    ) -> Result<Result<T, String>, TicketError> {
        let trust = self.trust.current();
        let authority = match &options.ca_id {
            None => None,
            Some(id) => match trust.authority(id) {
                Some(authority) => Some(authority.clone()),
                None => return Ok(Err(format!("the CA {id}, which caId names, is not known here any more"))),
            },
        };
        let (signature_time_stamp, content_time_stamp) = (options.signature_ts_check, options.data_ts_check);
        let revocation = self.settings.revocation;
        let revocation_of_time_stamps = if options.ts_additional_verifying { RevocationCheck::Required } else { revocation };
        let client = self.evidence.as_deref().filter(|_| self.settings.fetch_evidence);
        let judged = Inquiry::settle(client, &self.verifications.running, as_of, move |inquiry| {
            judge(&Judgement {
                authority: authority.as_ref(),
                revocation,
                revocation_of_time_stamps,
                inquiry: Some(inquiry),
                signature_time_stamp,
                content_time_stamp,
                ..Judgement::of_documents(&trust, as_of)
            })
        });
        judged.await.map(Ok).map_err(|error| {
            error!(error = %error, "a verification did not end well");
            TicketError::SpoolUnavailable
        })
    }

    async fn record(&self, caller: &Caller, ticket: TicketId, signature: &Content, verification: &Verification) {
        let event = AuditEvent::Verified {
            ticket,
            caller: caller.id.clone(),
            sha256: signature.sha256_value(),
            valid: verification.is_good(),
            signers: verification.signers(),
            reason: verification.reason(),
        };
        // Nothing was made that the record must come before; the verdict stands without it.
        if let Err(error) = self.store.commit(vec![Change::Audit(event)]).await {
            warn!(error = %error, "a verification is not in the audit log");
        }
    }
}

/// Reads a signature and its content; the inner error says why it is none.
fn read(message: ContentSource, content: Option<ContentSource>) -> Result<Result<Examined, String>, TicketError> {
    let mut content = content.map(open).transpose()?;
    let given = content.as_mut().map(|content| content as &mut dyn Read);
    let message = open(message)?;
    let examined = SignedMessage::read(message).map_err(VerificationError::from).and_then(|mut message| examine(&mut message, given, &[]));
    match examined {
        Ok(examined) => Ok(Ok(examined)),
        Err(VerificationError::Read(ReadError::NoContent)) => Err(TicketError::NoContent),
        Err(VerificationError::Read(ReadError::Io(error))) => Err(unavailable(error)),
        Err(error) => Ok(Err(error.to_string())),
    }
}

/// Bytes that can be read again from the start.
pub(super) trait Source: Read + Seek + Send {}
impl<T: Read + Seek + Send> Source for T {}

/// A signature or a document that is open to be read.
pub(super) type OpenedMessage = Box<dyn Source>;

/// The content that is in a signature, read as it is taken; nothing where there is none.
pub(super) fn content_pieces(mut message: SignedMessage<OpenedMessage>) -> BoxStream<'static, io::Result<Bytes>> {
    if !message.is_attached() {
        return stream::empty().boxed();
    }
    let (sender, receiver) = mpsc::channel(PIECES_AHEAD);
    tokio::task::spawn_blocking(move || {
        let mut pieces = Pieces(sender);
        if let Err(error) = message.copy_content(&mut pieces) {
            // The length that was promised tells the client.
            let _ = pieces.0.blocking_send(Err(io::Error::other(error.to_string())));
        }
    });
    stream::unfold(receiver, |mut receiver| async move { receiver.recv().await.map(|piece| (piece, receiver)) }).boxed()
}

pub(super) fn open(source: ContentSource) -> Result<OpenedMessage, TicketError> {
    Ok(match source {
        ContentSource::Bytes(bytes) => Box::new(Cursor::new(bytes)),
        ContentSource::File(path) => Box::new(File::open(path).map_err(unavailable)?),
    })
}

fn unreadable(error: ReadError) -> TicketError {
    match error {
        ReadError::Io(error) => unavailable(error),
        error => TicketError::NoSuchSignature(error.to_string()),
    }
}

/// Hands on what is written, piece by piece, and stops when nobody takes it.
struct Pieces(mpsc::Sender<io::Result<Bytes>>);

impl Write for Pieces {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Ok(Bytes::copy_from_slice(piece)));
        sent.map(|()| piece.len()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
