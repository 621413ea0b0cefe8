//! Changes of a signature that was uploaded: its content put in or taken out, the form of its signers raised.
//!
//! Asking is noted with the ticket, with what is wanted; what the signers get for it is fetched afterwards and stored with the ticket, and the
//! changed signature is put together for whoever fetches it. Invariants: what signers signed stays byte for byte, so nothing is changed that
//! would not hold afterwards; only a signature all of whose signers hold is changed; an attribute is added once, however often it is asked for.

use std::sync::Arc;

use tokio::{sync::watch, time::timeout};
use tracing::{error, warn};

use super::{
    CHANGE_TRIES, SignatureDocument, TicketError, TicketService,
    cosign::{ExistingError, check_existing, read_existing},
    document,
    level::{Attempts, FAILURE_KEPT, Standing},
    spool::blocking,
    verifying::content_pieces,
};
use crate::{
    cms::{Reworked, digest, time_stamp::TimeStamp, unsigned, verify::FRAME_MAX, verify::SignerCheck},
    domain::{
        audit::AuditEvent,
        caller::Caller,
        digest::Digest,
        ids::TicketId,
        ticket::{AsicForm, Augmentation, CadesType, ContentPart, SignatureType, Ticket, TicketModification},
        timestamp::Timestamp,
    },
    pki::{
        Certificate,
        path::{PathRequest, Policies, Purpose, SUPPLIED_MAX, validate_path},
        trust::TrustStore,
    },
    store::{Change, Conflict, StoreError},
};

/// The most bytes that are added to one signature: what it has already must find room beside it.
const ADDED_MAX: usize = FRAME_MAX / 2;

/// Why a signature is not changed as was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModifyError {
    /// A container is made with its signature.
    #[error("a signature is not put into a container afterwards")]
    Container,
    /// A content time stamp is among what is signed.
    #[error("a time stamp of the content is part of what was signed, and cannot be added")]
    ContentTimeStamp,
    /// A CAdES form wants the signed attribute signing-certificate, which cannot be added.
    #[error("signer {number} has not signed which certificate is its own (signing-certificate), as every CAdES form wants")]
    NotCades {
        /// Which, from 1.
        number: usize,
    },
    /// Attributes that are about those that would be replaced.
    #[error("signer {number} has time stamps over its references or an archive time stamp: what they are about is not replaced")]
    Sealed {
        /// Which, from 1.
        number: usize,
    },
    /// The form wants the path of the signer's certificate, and there is none.
    #[error("signer {number}: {why}")]
    Path {
        /// Which, from 1.
        number: usize,
        /// Why.
        why: String,
    },
    /// It would become too long.
    #[error("more than {ADDED_MAX} bytes would be added")]
    TooLong,
}

/// What a signer needs for its form.
struct Need {
    /// The imprint of a time stamp of the signature.
    stamp: Option<Digest>,
    /// The signer's path, the signer first, for references and values.
    path: Vec<Vec<u8>>,
}

type Added = Arc<Vec<Augmentation>>;

/// The attempts to change signatures: of a ticket, as it was asked at a time.
pub(super) type Modifications = Attempts<(TicketId, Timestamp), Added>;

impl TicketService {
    /// Asks for the uploaded signature to be changed into what the options say. While that is being done, asking again changes nothing.
    ///
    /// # Errors
    /// [`TicketError::NoSignature`], [`TicketError::Modify`], [`TicketError::Missing`], [`TicketError::StoreUnavailable`].
    pub async fn start_modification(&self, caller: &Caller, id: TicketId) -> Result<(), TicketError> {
        let now = self.store.now();
        let ask = |ticket: &mut Ticket| {
            let wanted = wanted(ticket, now)?;
            let runs = |there: &TicketModification| {
                let standing = self.modifications.find((id, there.asked));
                there.added.is_none() && standing.is_some_and(|standing| standing.borrow().is_none())
            };
            if !ticket.modifying.as_deref().is_some_and(runs) {
                ticket.modifying = Some(Box::new(wanted));
            }
            Ok(())
        };
        self.change(caller, id, ask).await?;
        let ticket = self.load(caller, id).await?;
        let asked = ticket.modifying.clone().ok_or(TicketError::NotRequested)?;
        if asked.added.is_none() { self.begin_modification(caller, &ticket, &asked).map(drop) } else { Ok(()) }
    }

    /// Says whether the changed signature is there, without waiting: `false` while it is being made.
    ///
    /// # Errors
    /// [`TicketError::NotRequested`]; and why it was not made, as [`start_modification`](Self::start_modification),
    /// [`TicketError::Existing`], [`TicketError::Level`].
    pub async fn modification_is_made(&self, caller: &Caller, id: TicketId) -> Result<bool, TicketError> {
        let ticket = self.load(caller, id).await?;
        let asked = ticket.modifying.clone().ok_or(TicketError::NotRequested)?;
        if asked.added.is_some() {
            return Ok(true);
        }
        let standing = self.begin_modification(caller, &ticket, &asked)?.borrow().clone();
        standing.map_or(Ok(false), |ended| ended.map(|_| true))
    }

    /// Waits for the changed signature, within the configured bound; `None` if it is still being made by then.
    ///
    /// # Errors
    /// As [`modification_is_made`](Self::modification_is_made).
    pub async fn modified(&self, caller: &Caller, id: TicketId) -> Result<Option<SignatureDocument>, TicketError> {
        let ticket = self.load(caller, id).await?;
        let asked = ticket.modifying.clone().ok_or(TicketError::NotRequested)?;
        let added = match &asked.added {
            Some(added) => Arc::new(added.clone()),
            None => {
                let mut standing = self.begin_modification(caller, &ticket, &asked)?;
                let ended = async { standing.wait_for(Option::is_some).await.ok().and_then(|standing| standing.clone()) };
                match timeout(self.settings.blocking_get_bound, ended).await {
                    Err(_) => return Ok(None),
                    Ok(Some(ended)) => ended?,
                    Ok(None) => {
                        error!("changing a signature did not end well");
                        self.modifications.end((id, asked.asked));
                        return Err(TicketError::StoreUnavailable);
                    }
                }
            }
        };
        self.assemble_modified(&ticket, &asked, added).await.map(Some)
    }

    async fn assemble_modified(&self, ticket: &Ticket, asked: &TicketModification, added: Added) -> Result<SignatureDocument, TicketError> {
        let signature = ticket.signature.as_ref().ok_or(TicketError::NoSignature)?;
        let source = self.source_of(ticket.id, ContentPart::Signature, signature).await?;
        let (document, asked) = (ticket.content.clone(), asked.clone());
        let document_len = document.as_ref().map(|document| document.len);
        let made = blocking(move || {
            let message = read_existing(source)?;
            let mut reworked = message.rework()?;
            for (number, added) in added.iter().enumerate() {
                reworked.add_unsigned(number, &added.unsigned_attrs)?;
            }
            let is_in = message.content_len();
            let len = match asked.signature_type {
                None => is_in,
                Some(SignatureType::Detached) => None,
                Some(SignatureType::Attached) => Some(is_in.or(document_len).ok_or(ExistingError::NoDocument)?),
            };
            Ok((reworked.frame(len)?, message, len.is_some()))
        });
        match made.await? {
            (frame, _, false) => Ok(document::whole([frame.head, frame.tail].concat())),
            (frame, message, true) if message.is_attached() => Ok(document::framed(frame, content_pieces(message))),
            (frame, _, true) => {
                let content = document.ok_or(ExistingError::NoDocument)?;
                document::around(frame, self.source_of(ticket.id, ContentPart::Document, &content).await?).await
            }
        }
    }

    /// How the attempt to make a change stands, begun now if there is none.
    fn begin_modification(
        &self,
        caller: &Caller,
        ticket: &Ticket,
        asked: &TicketModification,
    ) -> Result<watch::Receiver<Standing<Added>>, TicketError> {
        let key = (ticket.id, asked.asked);
        self.modifications.forget_failed(key, FAILURE_KEPT);
        let (standing, begun) = self.modifications.join(key)?;
        if let Some(sender) = begun {
            let (this, caller, ticket, asked) = (self.clone(), caller.clone(), ticket.clone(), asked.clone());
            tokio::spawn(async move {
                let made = this.modify(&caller, &ticket, &asked).await;
                if let Err(error) = &made {
                    warn!(error = %error, "a signature was not changed: {error}");
                }
                let done = made.is_ok();
                sender.send_replace(Some(made));
                if done {
                    this.modifications.end(key);
                }
            });
        }
        Ok(standing)
    }

    /// Fetches what the signers need and stores it.
    async fn modify(&self, caller: &Caller, ticket: &Ticket, asked: &TicketModification) -> Result<Added, TicketError> {
        let signature = ticket.signature.as_ref().ok_or(TicketError::NoSignature)?;
        let source = self.source_of(ticket.id, ContentPart::Signature, signature).await?;
        let document = self.document_beside(ticket, ContentPart::Signature).await?;
        let (trust, wants, now) = (self.trust.current(), asked.clone(), self.store.now());
        let needs = blocking(move || {
            let mut message = read_existing(source)?;
            let checks = check_existing(&mut message, document)?;
            let embedded: Vec<_> = message.certificates().iter().filter_map(|der| Certificate::from_der(der).ok()).collect();
            let reworked = message.rework()?;
            let need = |(index, check)| need_of(index, check, &reworked, &wants, &Links { trust: &trust, embedded: &embedded, now });
            checks.iter().enumerate().map(need).collect::<Result<Vec<_>, TicketError>>()
        });
        let mut added = Vec::new();
        for need in needs.await? {
            added.push(self.fetch(&need, asked.cades_type).await?);
        }
        if added.iter().flat_map(|signer| &signer.unsigned_attrs).map(Vec::len).sum::<usize>() > ADDED_MAX {
            return Err(ModifyError::TooLong.into());
        }
        let event = AuditEvent::SignatureModified {
            ticket: ticket.id,
            caller: caller.id.clone(),
            sha256: signature.sha256_value(),
            time_stamps: added.iter().flat_map(|signer| signer.time_stamps.iter().cloned()).collect(),
        };
        self.keep_modification(ticket.id, asked, added, event).await
    }

    async fn keep_modification(
        &self,
        id: TicketId,
        asked: &TicketModification,
        added: Vec<Augmentation>,
        event: AuditEvent,
    ) -> Result<Added, TicketError> {
        for _ in 0..CHANGE_TRIES {
            let mut ticket = self.store.find_ticket(id).await?.ok_or(TicketError::Missing)?;
            // Another signature may have been uploaded, or another change been asked for, meanwhile.
            let current = ticket.modifying.as_mut().filter(|current| current.asked == asked.asked).ok_or(TicketError::Overtaken)?;
            if let Some(before) = &current.added {
                return Ok(Arc::new(before.clone()));
            }
            current.added = Some(added.clone());
            match self.store.commit(vec![Change::UpdateTicket(ticket), Change::Audit(event.clone())]).await {
                Err(StoreError::Conflict(Conflict::TicketChanged)) => {}
                committed => return Ok(committed.map(|()| Arc::new(added))?),
            }
        }
        Err(TicketError::Overtaken)
    }

    async fn fetch(&self, need: &Need, form: CadesType) -> Result<Augmentation, TicketError> {
        let mut fetched = Augmentation::default();
        if let Some(imprint) = &need.stamp {
            let stamp = self.time_stamps()?.stamp(imprint).await.map_err(super::LevelError::from)?;
            fetched.unsigned_attrs.push(unsigned::signature_time_stamp(&stamp)?);
            fetched.time_stamps.push(stamp.serial());
        }
        if let [signer, authorities @ ..] = need.path.as_slice() {
            fetched.unsigned_attrs.extend(self.path_material(signer, authorities).await?.attributes(form)?);
        }
        Ok(fetched)
    }
}

/// What the ticket's options want of its signature.
fn wanted(ticket: &Ticket, asked: Timestamp) -> Result<TicketModification, TicketError> {
    let options = &ticket.options;
    if ticket.signature.is_none() {
        return Err(TicketError::NoSignature);
    }
    if options.asic_form != AsicForm::None {
        return Err(ModifyError::Container.into());
    }
    let plain = options.cades_type == CadesType::Undefined;
    if plain && options.embed_data_ts {
        return Err(ModifyError::ContentTimeStamp.into());
    }
    Ok(TicketModification {
        asked,
        signature_type: options.signature_type_set.then_some(options.signature_type),
        cades_type: options.cades_type,
        signature_ts: plain && options.embed_signature_ts,
        added: None,
    })
}

/// What a path is made of.
struct Links<'a> {
    trust: &'a TrustStore,
    embedded: &'a [Certificate],
    now: Timestamp,
}

fn need_of(
    index: usize,
    check: &SignerCheck,
    reworked: &Reworked,
    wants: &TicketModification,
    links: &Links<'_>,
) -> Result<Need, TicketError> {
    let number = index + 1;
    let none = Need { stamp: None, path: Vec::new() };
    if wants.cades_type != CadesType::Undefined && !check.names_certificate {
        return Err(ModifyError::NotCades { number }.into());
    }
    let wanted = if wants.signature_ts { CadesType::T } else { wants.cades_type };
    let has = reworked.form(index)?;
    if has.reaches(wanted) {
        return Ok(none);
    }
    if reworked.is_sealed(index)? {
        return Err(ModifyError::Sealed { number }.into());
    }
    let algorithm = check.algorithm.ok_or_else(|| ExistingError::Broken { number, why: "its algorithm is not known".to_owned() })?;
    // The signature time stamp is over the octets of the signature value (EN 319 122-1 clause 5.3).
    let stamp = (!has.reaches(CadesType::T)).then(|| digest(algorithm.message_digest_hash(), &check.signature));
    if !wanted.reaches(CadesType::C) {
        return Ok(Need { stamp, ..none });
    }
    let path = path_of(check, links).map_err(|why| ModifyError::Path { number, why })?;
    Ok(Need { stamp, path })
}

/// The signer's path to an anchor, as of the time of its earliest time stamp, or now.
fn path_of(check: &SignerCheck, links: &Links<'_>) -> Result<Vec<Vec<u8>>, String> {
    let leaf = check.certificate.as_deref().and_then(|der| Certificate::from_der(der).ok()).ok_or("its certificate cannot be read")?;
    let stamped = check.signature_time_stamps.iter().filter_map(|token| Some(TimeStamp::from_token(token).ok()?.time()));
    let intermediates: Vec<_> = links.embedded.iter().filter(|link| **link != leaf).take(SUPPLIED_MAX).collect();
    let request = PathRequest {
        leaf: &leaf,
        intermediates: &intermediates.into_iter().chain(links.trust.intermediates()).collect::<Vec<_>>(),
        anchors: &links.trust.anchors().iter().collect::<Vec<_>>(),
        through: None,
        at: stamped.min().unwrap_or(links.now).min(links.now),
        purpose: Purpose::Any,
        revocation: None,
        policies: &Policies::default(),
    };
    let path = validate_path(&request).map_err(|error| error.to_string())?;
    let path: Vec<_> = path.certificates.iter().map(|certificate| certificate.as_der().to_vec()).collect();
    if path.len() < 2 { Err("its certificate is trusted by itself, and has no path to refer to".to_owned()) } else { Ok(path) }
}
