//! Tickets: sessions in which a caller says what is to be signed and how, asks for the signature, and fetches it.
//!
//! The service behind the ticket API, without its wire forms. Invariants: a ticket exists for its caller only; from the moment that a signature
//! is asked for its content, options and key do not change; a ticket's job is accepted in the same commit in which the ticket refers to it.

mod bulk;
mod cosign;
mod document;
mod error;
mod idempotency;
mod key;
mod level;
mod modifying;
mod objects;
mod options;
mod shown;
mod signature;
mod spool;
mod time_stamp;
mod verifying;

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use tracing::{error, warn};

pub use self::{
    cosign::ExistingError,
    document::SignatureDocument,
    error::{BulkError, TicketError, UnsupportedOption},
    key::KeyReport,
    level::LevelError,
    modifying::ModifyError,
    signature::SignatureState,
    spool::Upload,
    time_stamp::{TimeStampReport, TokenUpload},
    verifying::Verification,
};
pub use crate::{
    cms::verify::SIGNERS_MAX,
    pki::{Certificate, NameAttribute},
    signing::service::Payment,
    verification::{SignerVerdict, Verdict},
};

use self::{
    level::Attempts,
    modifying::Modifications,
    spool::{Received, Spool},
    verifying::Verifications,
};
use crate::{
    cms::time_stamp::TimeStamp,
    domain::{
        audit::AuditEvent,
        caller::Caller,
        ids::{CallerId, JobId, TicketId},
        key::KeyChoice,
        revocation::RevocationCheck,
        ticket::{Augmentation, ContentPart, SignatureOptions, Ticket},
        timestamp::Timestamp,
    },
    permit::PermitService,
    pki::{
        revocation::RevocationClient,
        trust::{Trust, authority_id},
        tsa::TsaError,
    },
    signing::service::SigningService,
    stamping::{StampError, TimeStamps},
    store::{Change, Conflict, Store, StoreError},
};

/// How often a change is tried again when others change the same ticket at the same time.
const CHANGE_TRIES: usize = 8;
/// How many idle tickets are removed in one step.
const IDLE_BATCH: usize = 100;
/// The fraction of its idle lifetime after which another use of a ticket is noted: not every poll is a write.
const TOUCH_FRACTION: u32 = 32;

/// What a deployment says about tickets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TicketSettings {
    /// How long a ticket lives that nobody uses. Default: 1 hour.
    pub idle_lifetime: Duration,
    /// The most tickets that one caller may have. Default: 10 000.
    pub tickets_per_caller: usize,
    /// The most bytes of one upload. Default: 100 MiB.
    pub upload_bytes_max: u64,
    /// The most bytes of one upload that the store keeps; longer ones go to the spool directory. Default: 256 KiB.
    pub spool_threshold: u64,
    /// Where long uploads are spooled; made if missing, mode 0700, for this gateway alone unless it is shared.
    pub spool_dir: PathBuf,
    /// Other gateways on the same store use this spool directory, too. Default: no.
    pub spool_shared: bool,
    /// The most bytes of content in the store, of all tickets together; what is beyond is spooled. Default: 1 GiB.
    pub content_stored_max: u64,
    /// The most bytes of spooled content, of all tickets together. Default: 10 GiB.
    pub content_disk_max: u64,
    /// How long a request for a signature waits for it. Default: 55 s, since clients give up after 60 s.
    pub blocking_get_bound: Duration,
    /// The most hashes in one bulk; the caller's limit on a permit's uses counts as well. Default: 500.
    pub bulk_max: usize,
    /// What is demanded of evidence that signers' certificates were not revoked, when a signature is verified.
    pub revocation: RevocationCheck,
    /// Whether evidence that a signature does not carry is fetched when it is verified. Default: yes.
    pub fetch_evidence: bool,
}

impl TicketSettings {
    /// The defaults, with this spool directory.
    #[must_use]
    pub fn new(spool_dir: PathBuf) -> Self {
        Self {
            idle_lifetime: Duration::from_secs(60 * 60),
            tickets_per_caller: 10_000,
            upload_bytes_max: 100 << 20,
            spool_threshold: 256 << 10,
            spool_dir,
            spool_shared: false,
            content_stored_max: 1 << 30,
            content_disk_max: 10 << 30,
            blocking_get_bound: Duration::from_secs(55),
            bulk_max: 500,
            revocation: RevocationCheck::default(),
            fetch_evidence: true,
        }
    }
}

/// A CA, as callers choose one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    /// What they name it by.
    pub id: String,
    /// What people call it.
    pub name: String,
}

/// The tickets of a gateway. A clone is another handle to the same tickets.
#[derive(Clone)]
pub struct TicketService {
    store: Arc<dyn Store>,
    signing: Arc<SigningService>,
    permits: Arc<PermitService>,
    time_stamps: Option<Arc<TimeStamps>>,
    evidence: Option<Arc<RevocationClient>>,
    attempts: Arc<Attempts<JobId, Augmentation>>,
    stampings: Arc<Attempts<TicketId, Arc<TimeStamp>>>,
    modifications: Arc<Modifications>,
    spool: Arc<Spool>,
    settings: TicketSettings,
    trust: Trust,
    verifications: Arc<Verifications>,
}

impl TicketService {
    /// Makes the service and opens its spool directory.
    ///
    /// # Errors
    /// The spool directory cannot be made or made private, or another gateway uses it; the store was not reached.
    pub async fn new(
        store: Arc<dyn Store>,
        signing: Arc<SigningService>,
        permits: Arc<PermitService>,
        trust: Trust,
        settings: TicketSettings,
    ) -> io::Result<Self> {
        let referred = store.spooled_files().await.map_err(io::Error::other)?;
        let usage = store.content_usage().await.map_err(io::Error::other)?;
        let spool = Arc::new(Spool::open(settings.clone(), &referred, usage)?);
        Ok(Self {
            store,
            signing,
            permits,
            time_stamps: None,
            evidence: None,
            attempts: Arc::default(),
            stampings: Arc::default(),
            modifications: Arc::default(),
            spool,
            settings,
            trust,
            verifications: Arc::default(),
        })
    }

    /// The same service, with somebody who makes time stamps.
    #[must_use]
    pub fn with_time_stamps(self, time_stamps: Arc<TimeStamps>) -> Self {
        Self { time_stamps: Some(time_stamps), ..self }
    }

    /// The same service, with somebody who has evidence about certificates.
    #[must_use]
    pub fn with_evidence(self, evidence: Arc<RevocationClient>) -> Self {
        Self { evidence: Some(evidence), ..self }
    }

    /// Who makes time stamps.
    fn time_stamps(&self) -> Result<&TimeStamps, LevelError> {
        self.time_stamps.as_deref().ok_or(LevelError::TimeStamp(StampError::Authorities(TsaError::NoneConfigured)))
    }

    /// Makes a ticket.
    ///
    /// # Errors
    /// [`TicketError::TooMany`], [`TicketError::StoreUnavailable`].
    pub async fn create(&self, caller: &Caller) -> Result<TicketId, TicketError> {
        let ticket = Ticket {
            id: TicketId::random(),
            caller: caller.id.clone(),
            touched: self.store.now(),
            options: SignatureOptions::default(),
            content: None,
            signature: None,
            metadata: None,
            key: KeyChoice::Default,
            signing: None,
            verifying: None,
            modifying: None,
            time_stamp: None,
            version: 0,
        };
        let id = ticket.id;
        let opened = AuditEvent::TicketOpened { ticket: id, caller: caller.id.clone(), from: caller.from.clone() };
        let insert = Change::InsertTicket { ticket, limit: self.settings.tickets_per_caller };
        self.store.commit(vec![insert, Change::Audit(opened)]).await?;
        Ok(id)
    }

    /// Removes a ticket and everything of it; its job is cancelled if it is still queued, and its result dropped otherwise.
    ///
    /// # Errors
    /// [`TicketError::Missing`], [`TicketError::StoreUnavailable`].
    pub async fn delete(&self, caller: &Caller, id: TicketId) -> Result<(), TicketError> {
        let (this, caller) = (self.clone(), caller.clone());
        to_the_end(async move { this.delete_whole(&caller, id).await }).await
    }

    async fn delete_whole(&self, caller: &Caller, id: TicketId) -> Result<(), TicketError> {
        for _ in 0..CHANGE_TRIES {
            let ticket = self.load(caller, id).await?;
            let job = ticket.signing.as_ref().map(|signing| signing.job);
            let cancel = job.map(Change::CancelJob);
            let closed = AuditEvent::TicketClosed { ticket: id, caller: caller.id.clone() };
            // It fails if the ticket has been changed since it was read: what was read is all there is to clean up.
            let changes = cancel.into_iter().chain([Change::CloseTicket { ticket: id, version: ticket.version }, Change::Audit(closed)]);
            match self.store.commit(changes.collect()).await {
                Err(StoreError::Conflict(Conflict::TicketChanged)) => {}
                committed => {
                    committed?;
                    ticket.content.into_iter().chain(ticket.signature).for_each(|content| self.spool.discard(content));
                    if let Some(job) = job {
                        self.note_cancelled(job).await;
                    }
                    return Ok(());
                }
            }
        }
        Err(TicketError::Overtaken)
    }

    /// Begins an upload of content to a ticket.
    ///
    /// # Errors
    /// [`TicketError::Missing`], [`TicketError::Frozen`], [`TicketError::StoreUnavailable`].
    pub async fn begin_upload(&self, caller: &Caller, id: TicketId) -> Result<Upload, TicketError> {
        refuse_frozen(&self.load(caller, id).await?)?;
        Ok(self.spool.upload(ContentPart::Document))
    }

    /// Begins an upload of a signature to a ticket, to be verified, changed, or to get a further signer; in DER, PEM or Base64.
    ///
    /// # Errors
    /// [`TicketError::Missing`], [`TicketError::StoreUnavailable`].
    pub async fn begin_signature_upload(&self, caller: &Caller, id: TicketId) -> Result<Upload, TicketError> {
        self.load(caller, id).await?;
        Ok(self.spool.upload(ContentPart::Signature))
    }

    /// Makes an upload the ticket's content, or its signature, in place of what it had.
    ///
    /// # Errors
    /// As [`begin_upload`](Self::begin_upload), and [`TicketError::SpoolFull`], [`TicketError::SpoolUnavailable`], [`TicketError::Armor`].
    pub async fn finish_upload(&self, caller: &Caller, id: TicketId, upload: Upload) -> Result<(), TicketError> {
        let part = upload.part();
        let received = upload.finish().await?;
        let (this, caller) = (self.clone(), caller.clone());
        to_the_end(async move { this.keep_content(&caller, id, part, received).await }).await
    }

    async fn keep_content(&self, caller: &Caller, id: TicketId, part: ContentPart, received: Received) -> Result<(), TicketError> {
        let content = received.content().clone();
        let replace = move |ticket: &mut Ticket| {
            // What was verified, or changed, is not there any more.
            (ticket.verifying, ticket.modifying) = (None, None);
            match part {
                ContentPart::Document => {
                    refuse_frozen(ticket)?;
                    Ok(ticket.content.replace(content.clone()))
                }
                ContentPart::Signature if ticket.signature_frozen() => Err(TicketError::Frozen),
                ContentPart::Signature => Ok(ticket.signature.replace(content.clone())),
            }
        };
        let stored = received.bytes().map(|bytes| Change::PutContent { ticket: id, part, bytes });
        let content = received.content();
        let event = AuditEvent::ContentReceived { ticket: id, caller: caller.id.clone(), sha256: content.sha256_value(), len: content.len };
        let with = stored.into_iter().chain([Change::Audit(event)]).collect::<Vec<_>>();
        // Kept before the ticket refers to it: if this ends in between, a file without a ticket goes with the next start.
        let content = received.keep();
        match self.change_with(caller, id, replace, with).await {
            Ok(replaced) => {
                replaced.into_iter().for_each(|content| self.spool.discard(content));
                Ok(())
            }
            Err(error) => {
                self.spool.discard(content);
                Err(error)
            }
        }
    }

    /// Sets what the operator is shown about a ticket's content.
    ///
    /// # Errors
    /// [`TicketError::NoContent`] if nothing was uploaded before; otherwise as [`begin_upload`](Self::begin_upload).
    pub async fn set_metadata(&self, caller: &Caller, id: TicketId, metadata: String) -> Result<(), TicketError> {
        let set = |ticket: &mut Ticket| {
            if ticket.contents().next().is_none() {
                return Err(TicketError::NoContent);
            }
            refuse_frozen(ticket)?;
            ticket.metadata = Some(metadata.clone());
            Ok(())
        };
        self.change(caller, id, set).await
    }

    /// Chooses the key that a ticket signs with: by name, or by the URI of a key or of its token. Whether it is there is seen when it is used.
    ///
    /// # Errors
    /// As [`begin_upload`](Self::begin_upload).
    pub async fn choose_key(&self, caller: &Caller, id: TicketId, key: KeyChoice) -> Result<(), TicketError> {
        let choose = |ticket: &mut Ticket| {
            refuse_frozen(ticket)?;
            ticket.key = key.clone();
            Ok(())
        };
        self.change(caller, id, choose).await
    }

    /// Checks that a ticket exists for this caller, and notes its use.
    ///
    /// # Errors
    /// [`TicketError::Missing`], [`TicketError::StoreUnavailable`].
    pub async fn check(&self, caller: &Caller, id: TicketId) -> Result<(), TicketError> {
        self.load(caller, id).await.map(drop)
    }

    /// The CAs that the configuration trusts or knows; callers name one by its id.
    #[must_use]
    pub fn authorities(&self) -> Vec<Authority> {
        let name = |certificate: &Certificate| certificate.common_name().unwrap_or_else(|| certificate.subject());
        let describe = |certificate| Authority { id: authority_id(certificate), name: name(certificate) };
        self.trust.current().authorities().map(describe).collect()
    }

    /// Counts the tickets of a caller.
    ///
    /// # Errors
    /// [`TicketError::StoreUnavailable`].
    pub async fn count(&self, caller: &CallerId) -> Result<usize, TicketError> {
        Ok(self.store.count_tickets(caller).await?)
    }

    /// Removes the tickets that have been idle for too long at `now`; returns how many there were.
    ///
    /// # Errors
    /// [`TicketError::StoreUnavailable`].
    pub async fn remove_idle(&self, now: Timestamp) -> Result<usize, TicketError> {
        let lifetime = u64::try_from(self.settings.idle_lifetime.as_millis()).unwrap_or(u64::MAX);
        let idle_since = Timestamp::from_millis(now.as_millis().saturating_sub(lifetime));
        let mut removed = 0;
        loop {
            let tickets = self.store.remove_idle_tickets(idle_since, IDLE_BATCH).await?;
            let last = tickets.len() < IDLE_BATCH;
            removed += tickets.len();
            let contents = tickets.into_iter().flat_map(|ticket| ticket.content.into_iter().chain(ticket.signature));
            contents.for_each(|content| self.spool.discard(content));
            if last {
                if self.store.is_shared() {
                    // Other gateways take content and give it up without our knowing.
                    self.spool.recount(self.store.content_usage().await?);
                }
                return Ok(removed);
            }
        }
    }

    /// Removes idle tickets from time to time. Never returns; dropping it stops it.
    pub async fn remove_idle_forever(&self) {
        let every = (self.settings.idle_lifetime / 10).clamp(Duration::from_secs(1), Duration::from_secs(60));
        let mut ticks = tokio::time::interval(every);
        loop {
            ticks.tick().await;
            if let Err(error) = self.remove_idle(self.store.now()).await {
                warn!(error = %error, "idle tickets could not be removed");
            }
        }
    }

    /// The ticket is gone, whether or not that can be said of its job.
    async fn note_cancelled(&self, job: JobId) {
        if let Err(error) = self.signing.note_cancelled(job).await {
            warn!(job.id = %job, error = %error, "whether job {job} was cancelled cannot be said");
        }
    }

    /// Reads a ticket of this caller and notes its use.
    async fn load(&self, caller: &Caller, id: TicketId) -> Result<Ticket, TicketError> {
        let ticket = self.store.find_ticket(id).await?.filter(|ticket| ticket.caller == caller.id).ok_or(TicketError::Missing)?;
        let now = self.store.now();
        if now.since(ticket.touched) >= self.settings.idle_lifetime / TOUCH_FRACTION
            && let Err(error) = self.store.touch_ticket(id, now).await
        {
            // What is there can be read all the same.
            warn!(error = %error, "the use of a ticket could not be noted");
        }
        Ok(ticket)
    }

    /// Changes a ticket; again from the start if somebody else has changed it meanwhile.
    async fn change<T>(
        &self,
        caller: &Caller,
        id: TicketId,
        change: impl Fn(&mut Ticket) -> Result<T, TicketError>,
    ) -> Result<T, TicketError> {
        self.change_with(caller, id, change, Vec::new()).await
    }

    /// As [`change`](Self::change), and makes other changes in the same commit.
    async fn change_with<T>(
        &self,
        caller: &Caller,
        id: TicketId,
        change: impl Fn(&mut Ticket) -> Result<T, TicketError>,
        with: Vec<Change>,
    ) -> Result<T, TicketError> {
        for _ in 0..CHANGE_TRIES {
            let mut ticket = self.load(caller, id).await?;
            let value = change(&mut ticket)?;
            let changes = [Change::UpdateTicket(ticket)].into_iter().chain(with.iter().cloned());
            match self.store.commit(changes.collect()).await {
                Err(StoreError::Conflict(Conflict::TicketChanged)) => {}
                committed => return Ok(committed.map(|()| value)?),
            }
        }
        Err(TicketError::Overtaken)
    }
}

/// Does `work` to its end, although whoever asked for it goes away: a commit and what belongs to it outside of the store are not torn apart.
async fn to_the_end(work: impl Future<Output = Result<(), TicketError>> + Send + 'static) -> Result<(), TicketError> {
    tokio::spawn(work).await.unwrap_or_else(|error| {
        error!(error = %error, "a change to a ticket did not end well");
        Err(TicketError::StoreUnavailable)
    })
}

fn refuse_frozen(ticket: &Ticket) -> Result<(), TicketError> {
    if ticket.frozen() { Err(TicketError::Frozen) } else { Ok(()) }
}
