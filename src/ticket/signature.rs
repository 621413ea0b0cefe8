//! Asking for a ticket's signature, and fetching it.

use std::{
    io::Seek,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::time::{Instant, timeout_at};

use super::{
    SignatureDocument, TicketError, TicketService, UnsupportedOption,
    cosign::Subject,
    document,
    idempotency::NamedRequest,
    level,
    spool::{blocking, hash_file, unavailable},
    verifying::open,
};
use crate::{
    cms::{self, AttributeSpec, CmsError, ID_DATA, SignedAttributes, asic, time_stamp::TimeStamp},
    domain::{
        algorithm::HashAlgorithm,
        caller::Caller,
        digest::{Digest, ToSign},
        ids::{IdempotencyKey, JobId, TicketId},
        job::{JobOutcome, JobState, SigningJob},
        signature::SignatureValue,
        ticket::{
            AsicForm, CadesType, Content, ContentPart, ContentPlace, EmbedCertificate, SignatureOptions, SignatureType, Ticket,
            TicketSigning,
        },
    },
    signing::service::{Authorised, JobOrder, Payment, SubmitError},
    store::Change,
};

/// Where a ticket's signature stands, if nothing went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignatureState {
    /// The job has not ended.
    Pending,
    /// The signature is there.
    Signed,
}

impl TicketService {
    /// Asks for the ticket's signature. While its job is open, asking again changes and spends nothing; afterwards it is a new job, unless
    /// the request carries the idempotency key of one that was made before.
    ///
    /// # Errors
    /// [`TicketError`]; nothing was accepted or spent then, but for a PIN try where [`Denied::PinRefused`] says so.
    ///
    /// [`Denied::PinRefused`]: crate::signing::service::Denied::PinRefused
    pub async fn start_signature(
        &self,
        caller: &Caller,
        id: TicketId,
        payment: Payment,
        key: Option<IdempotencyKey>,
    ) -> Result<(), TicketError> {
        let mut ticket = self.load(caller, id).await?;
        let named = key.map(|key| NamedRequest::new(caller, key, "signature", id, &[]));
        let known = self.known_request(named.as_ref()).await?.is_some();
        let job = self.job_of(&ticket).await?;
        if job.as_ref().is_some_and(|job| !job.state.is_final()) || self.retry_level(&ticket, job) || known {
            return Ok(());
        }
        if ticket.contents().next().is_none() {
            return Err(TicketError::NoContent);
        }
        let pin = if let Payment::Pin(pin) = &payment { Some(pin) } else { None };
        let authorised = self.authorise_document(caller, &ticket, None, pin).await?;
        let Subject { digest, document, beside } = self.subject_of(&ticket, &authorised).await?;
        let content_time_stamp = self.content_time_stamp(&ticket.options, &digest).await?;
        let (signing, to_sign) = prepare(&ticket.options, &digest, &authorised, content_time_stamp.as_ref())?;
        let signing = TicketSigning { beside, ..signing };
        let (job, level_wanted) = (signing.job, level::is_wanted(&ticket.options));
        let keep = named.as_ref().map(|named| named.keep(vec![signing.clone()], self.store.now()));
        let order = JobOrder { authorised, job: signing.job, to_sign, payment, document: Some(document) };
        let before = ticket.signing.replace(signing);
        let with = [Change::UpdateTicket(ticket)].into_iter().chain(keep).collect();
        let submitted = self.signing.submit(order, with).await;
        if submitted == Err(SubmitError::RequestKnown) {
            return self.known_request(named.as_ref()).await.map(drop);
        }
        if submitted == Err(SubmitError::Overtaken) {
            // If the request that was quicker asked for the signature too, its job is this one's.
            let after = self.load(caller, id).await?.signing;
            if after.map(|signing| signing.job) != before.map(|signing| signing.job) {
                return Ok(());
            }
        }
        submitted?;
        if level_wanted {
            self.follow(id, job);
        }
        Ok(())
    }

    /// Says where the ticket's signature stands, without waiting.
    ///
    /// # Errors
    /// [`TicketError::NotRequested`], [`TicketError::NotSigned`], [`TicketError::Missing`], [`TicketError::StoreUnavailable`].
    pub async fn signature_state(&self, caller: &Caller, id: TicketId) -> Result<SignatureState, TicketError> {
        let ticket = self.load(caller, id).await?;
        let signing = ticket.signing.as_ref().ok_or(TicketError::NotRequested)?;
        let Some(value) = value_of(self.signing.find_job(signing.job).await?)? else { return Ok(SignatureState::Pending) };
        if signing.augmentation.is_some() || !level::is_wanted(&ticket.options) {
            return Ok(SignatureState::Signed);
        }
        let standing = self.begin_level(&ticket, signing, &value)?.borrow().clone();
        standing.map_or(Ok(SignatureState::Pending), |ended| ended.map(|_| SignatureState::Signed))
    }

    /// Waits for the ticket's signature, within the configured bound, which begins when operators have decided where they are asked; `None` if its job has not ended by then.
    ///
    /// # Errors
    /// As [`signature_state`](Self::signature_state), and [`TicketError::Cms`], [`TicketError::SpoolUnavailable`].
    pub async fn signature(&self, caller: &Caller, id: TicketId) -> Result<Option<SignatureDocument>, TicketError> {
        let mut signing = self.load(caller, id).await?.signing.ok_or(TicketError::NotRequested)?;
        let bound = self.settings.blocking_get_bound + self.time_to_decide(signing.job).await?;
        let until = Instant::now() + bound;
        let job = self.signing.wait_for_end(signing.job, bound).await?;
        let Some(value) = value_of(job)? else { return Ok(None) };
        // It may have been deleted meanwhile, and its signature with it.
        let ticket = self.load(caller, id).await?;
        if signing.augmentation.is_none() && level::is_wanted(&ticket.options) {
            let Ok(reached) = timeout_at(until, self.level(&ticket, &signing, &value)).await else { return Ok(None) };
            signing.augmentation = Some(reached?);
        }
        self.assemble(ticket, signing, value).await.map(Some)
    }

    /// How long operators may still take to decide about a job that waits for them.
    async fn time_to_decide(&self, job: JobId) -> Result<Duration, TicketError> {
        let waiting = self.signing.find_job(job).await?.filter(|job| job.state == JobState::AwaitingConsent);
        let Some(permit) = waiting.and_then(|job| job.permit) else { return Ok(Duration::ZERO) };
        let permit = self.store.find_permit(permit).await?;
        Ok(permit.map_or(Duration::ZERO, |permit| permit.expires.since(self.store.now())))
    }

    /// Puts the signature together, around the content where it is attached.
    async fn assemble(&self, ticket: Ticket, signing: TicketSigning, value: SignatureValue) -> Result<SignatureDocument, TicketError> {
        let embed = ticket.options.embed_certificate;
        if let Some(beside) = signing.beside.clone() {
            return self.assemble_beside(ticket, &beside, signing, value).await;
        }
        match ticket.options.signature_type {
            SignatureType::Detached if ticket.options.asic_form != AsicForm::None => {
                let signature = blocking(move || detached(embed, &signing, &value)).await?;
                self.contain(ticket, Some(signature)).await
            }
            SignatureType::Detached => blocking(move || detached(embed, &signing, &value)).await.map(document::whole),
            SignatureType::Attached => {
                let content = ticket.content.ok_or(TicketError::NoContent)?;
                let (source, len) = (self.source_of(ticket.id, ContentPart::Document, &content).await?, content.len);
                let frame = blocking(move || with_signed_data(embed, &signing, &value, |signed_data| signed_data.attached_frame(len)));
                document::around(frame.await?, source).await
            }
        }
    }

    /// Puts documents and signature into a container, in a file that goes when it has been handed out.
    pub(super) async fn contain(&self, ticket: Ticket, signature: Option<Vec<u8>>) -> Result<SignatureDocument, TicketError> {
        let content = ticket.content.ok_or(TicketError::NoContent)?;
        let source = self.source_of(ticket.id, ContentPart::Document, &content).await?;
        let form = ticket.options.asic_form;
        let spool = Arc::clone(&self.spool);
        let made = blocking(move || {
            let objects = content.data_objects();
            let signature_len = signature.as_ref().map_or(0, |signature| signature.len() as u64);
            let (mut file, share) = spool.scratch(content.len + signature_len + asic::overhead_max(objects.len()))?;
            asic::write(form, &mut file, &mut open(source)?, &objects, signature.as_deref()).map_err(unavailable)?;
            let len = file.stream_position().map_err(unavailable)?;
            file.rewind().map_err(unavailable)?;
            Ok((file, len, share))
        });
        let (file, len, share) = made.await?;
        Ok(document::of_file(file, len, share))
    }

    /// Hashes content with the hash function that a signature wants; the SHA-256 is there already.
    pub(super) async fn digest_of(&self, ticket: TicketId, content: &Content, hash: HashAlgorithm) -> Result<Digest, TicketError> {
        if hash == HashAlgorithm::Sha256 {
            return Ok(content.sha256.clone());
        }
        match self.source_of(ticket, ContentPart::Document, content).await? {
            ContentSource::Bytes(bytes) => blocking(move || Ok(cms::digest(hash, &bytes))).await,
            ContentSource::File(path) => blocking(move || hash_file(&path, hash).map_err(unavailable)).await,
        }
    }

    pub(super) async fn source_of(&self, ticket: TicketId, part: ContentPart, content: &Content) -> Result<ContentSource, TicketError> {
        Ok(match &content.place {
            ContentPlace::Spooled(name) => ContentSource::File(self.spool.path_of(name)),
            ContentPlace::Stored => ContentSource::Bytes(self.store.read_content(ticket, part).await?.ok_or(TicketError::Missing)?),
        })
    }

    /// A time stamp over the content, if the options ask for one: it is signed with the rest, so it is had before.
    pub(super) async fn content_time_stamp(&self, options: &SignatureOptions, content: &Digest) -> Result<Option<TimeStamp>, TicketError> {
        if !(options.cades_type == CadesType::Undefined && options.embed_data_ts) {
            return Ok(None);
        }
        let stamped = self.time_stamps().map_err(TicketError::ContentTimeStamp)?.stamp(content).await;
        stamped.map(Some).map_err(|error| TicketError::ContentTimeStamp(error.into()))
    }

    /// The job of the signature that was asked for last.
    async fn job_of(&self, ticket: &Ticket) -> Result<Option<SigningJob>, TicketError> {
        let Some(signing) = &ticket.signing else { return Ok(None) };
        Ok(self.signing.find_job(signing.job).await?)
    }
}

/// What is signed of a document with this digest: in ASiC-E not the document, but the manifest that names it and others.
pub(super) fn signed_digest(options: &SignatureOptions, content: &Content, digest: Digest) -> Digest {
    match options.asic_form {
        AsicForm::None | AsicForm::S => digest,
        AsicForm::E => cms::digest(digest.algorithm(), &asic::manifest(&content.data_objects())),
    }
}

/// Where content can be read now.
pub(super) enum ContentSource {
    /// In memory, as the store gave it.
    Bytes(Arc<[u8]>),
    /// In a file.
    File(PathBuf),
}

/// What is signed for content with this digest, and what is needed to put the signature together afterwards.
pub(super) fn prepare(
    options: &SignatureOptions,
    digest: &Digest,
    authorised: &Authorised,
    content_time_stamp: Option<&TimeStamp>,
) -> Result<(TicketSigning, ToSign), TicketError> {
    let (key, algorithm) = (authorised.key(), authorised.algorithm());
    let certificate = key.certificate.clone().ok_or(TicketError::NoCertificate)?;
    let wants_cas = matches!(options.embed_certificate, EmbedCertificate::SignerAndCaCert | EmbedCertificate::SignerCertAndCaInfo);
    if wants_cas && key.chain.is_empty() {
        return Err(UnsupportedOption::EmbedCertificate(options.embed_certificate).into());
    }
    let spec = AttributeSpec {
        content_type: ID_DATA,
        profile: options.cades_type,
        content_digest: digest,
        signing_time: SystemTime::now().into(),
        signer_certificate: &certificate,
        ca_certificates: if options.embed_certificate == EmbedCertificate::SignerCertAndCaInfo { &key.chain } else { &[] },
        content_time_stamp: content_time_stamp.map(TimeStamp::as_der),
    };
    let attributes = spec.signed_attributes(algorithm)?;
    let to_sign = attributes.to_sign(algorithm)?;
    let signed_attrs = attributes.as_der().to_vec();
    let chain = key.chain.clone();
    Ok((TicketSigning { job: JobId::random(), algorithm, signed_attrs, certificate, chain, augmentation: None, beside: None }, to_sign))
}

/// The signature that a job made; `None` if it has not ended.
pub(super) fn value_of(job: Option<SigningJob>) -> Result<Option<SignatureValue>, TicketError> {
    // A job that a ticket refers to is not forgotten; if it is gone all the same, so is the ticket.
    match job.ok_or(TicketError::Missing)?.outcome {
        None => Ok(None),
        Some(JobOutcome::Signed(value)) => Ok(Some(value)),
        Some(JobOutcome::NotSigned { cause, detail }) => Err(TicketError::NotSigned { cause, detail }),
    }
}

/// A detached signature in DER.
pub(super) fn detached(embed: EmbedCertificate, signing: &TicketSigning, value: &SignatureValue) -> Result<Vec<u8>, TicketError> {
    with_signed_data(embed, signing, value, |signed_data| signed_data.detached())
}

/// Makes something of a signature whose value is there.
pub(super) fn with_signed_data<T>(
    embed: EmbedCertificate,
    signing: &TicketSigning,
    value: &SignatureValue,
    make: impl FnOnce(&cms::SignedData<'_>) -> Result<T, CmsError>,
) -> Result<T, TicketError> {
    let signed_attrs = SignedAttributes::from_der(signing.signed_attrs.clone())?;
    let certificates = cms::embedded_certificates(embed, &signing.certificate, &signing.chain);
    Ok(make(&cms::SignedData {
        algorithm: signing.algorithm,
        signed_attrs: &signed_attrs,
        signature: value,
        signer_certificate: &signing.certificate,
        certificates: &certificates,
        unsigned_attrs: signing.augmentation.as_ref().map_or(&[], |augmentation| &augmentation.unsigned_attrs),
    })?)
}
