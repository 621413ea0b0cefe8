//! From a signature to the form that was asked for: time stamps and evidence, fetched when the job has ended well.
//!
//! The signature is the job's, and is made once. What stands beside it is fetched afterwards, as often as it takes: an outage of an authority
//! costs no signature and no permission. Invariants: one attempt for a job at a time in this gateway; what an attempt brings is stored with the
//! ticket before anybody gets it, and never replaced; a crash before that leaves a signed job and a ticket that the next request completes.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::watch;
use tracing::{error, warn};

use super::{CHANGE_TRIES, TicketError, TicketService, options::path_up_to, signature::value_of};
use crate::{
    cms::{
        digest,
        unsigned::{self, PathEvidence, PathMaterial},
    },
    domain::{
        audit::AuditEvent,
        ids::{JobId, TicketId},
        job::SigningJob,
        signature::SignatureValue,
        ticket::{Augmentation, CadesType, SignatureOptions, Ticket, TicketSigning},
    },
    pki::revocation::{CheckedCrl, CheckedOcsp, Evidence, Moment, RevocationError},
    stamping::StampError,
    store::{Change, Conflict, StoreError},
};

/// How long a failed attempt is remembered, so that whoever asks is told of it and not of a new one.
pub(super) const FAILURE_KEPT: Duration = Duration::from_secs(300);
/// The most attempts that are remembered, running ones included.
const ATTEMPTS_MAX: usize = 65_536;

/// Why a signature that was made did not get its form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LevelError {
    /// No time stamp was had.
    #[error("{0}")]
    TimeStamp(#[from] StampError),
    /// The form wants the signer's path, and the key's CA certificates are not configured.
    #[error("the CA certificates of the key are not configured")]
    NoPath,
    /// The key's certificate does not come from the CA that `caId` names.
    #[error("the key's certificate does not come from the CA that caId names")]
    OtherPath,
    /// No evidence was had about a certificate of the signer's path.
    #[error("certificate {number} of the signer's path: {error}")]
    Evidence {
        /// Which, from the signer's, which is 1.
        number: usize,
        /// Why.
        error: RevocationError,
    },
    /// The gateway is too busy to begin.
    #[error("too many signatures are being completed; try again in a moment")]
    Busy,
}

/// How an attempt stands; `None` while it runs.
pub(super) type Standing<T> = Option<Result<T, TicketError>>;

struct Attempt<T> {
    began: Instant,
    standing: watch::Receiver<Standing<T>>,
}

/// A receiver of an attempt's standing, and its sender if the attempt is a new one.
type Joined<T> = (watch::Receiver<Standing<T>>, Option<watch::Sender<Standing<T>>>);

/// The attempts of a gateway: one at a time for each key.
pub(super) struct Attempts<K, T>(Mutex<HashMap<K, Attempt<T>>>);

impl<K, T> Default for Attempts<K, T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Copy + Eq + Hash, T> Attempts<K, T> {
    /// Joins the attempt for a key, or begins one; the sender comes with a new one.
    pub(super) fn join(&self, key: K) -> Result<Joined<T>, LevelError> {
        let mut attempts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(attempt) = attempts.get(&key) {
            return Ok((attempt.standing.clone(), None));
        }
        if attempts.len() >= ATTEMPTS_MAX {
            attempts.retain(|_, attempt| attempt.standing.borrow().is_none() || attempt.began.elapsed() < FAILURE_KEPT);
        }
        if attempts.len() >= ATTEMPTS_MAX {
            return Err(LevelError::Busy);
        }
        let (sender, standing) = watch::channel(None);
        attempts.insert(key, Attempt { began: Instant::now(), standing: standing.clone() });
        Ok((standing, Some(sender)))
    }

    /// The attempt for a key, if there is one.
    pub(super) fn find(&self, key: K) -> Option<watch::Receiver<Standing<T>>> {
        let attempts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        attempts.get(&key).map(|attempt| attempt.standing.clone())
    }

    /// Forgets an attempt that has failed, so that the next request begins another.
    pub(super) fn forget_failed(&self, key: K, older_than: Duration) {
        let mut attempts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = |attempt: &Attempt<T>| attempt.standing.borrow().is_some() && attempt.began.elapsed() >= older_than;
        if attempts.get(&key).is_some_and(failed) {
            attempts.remove(&key);
        }
    }

    pub(super) fn end(&self, key: K) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
    }
}

/// Whether these options want more than a signer makes alone.
pub(super) fn is_wanted(options: &SignatureOptions) -> bool {
    match options.cades_type {
        CadesType::Undefined => options.embed_signature_ts,
        CadesType::Bes => false,
        CadesType::T | CadesType::C | CadesType::XLong => true,
    }
}

impl TicketService {
    /// Sees to it that a ticket's signature gets its form when its job ends, whether or not anybody asks again.
    pub(super) fn follow(&self, id: TicketId, job: JobId) {
        let this = self.clone();
        tokio::spawn(async move {
            let ended = this.store.wait_for_end(job).await;
            if let Ok(Some(value)) = ended.map_err(TicketError::from).and_then(|job| value_of(Some(job)))
                && let Ok(Some(ticket)) = this.store.find_ticket(id).await
                && let Some(signing) = ticket.signing.clone().filter(|signing| signing.job == job)
            {
                // Whoever fetches the signature is told how it went.
                let _ = this.begin_level(&ticket, &signing, &value);
            }
        });
    }

    /// The standing of the attempt to complete a signature, begun now if there is none.
    pub(super) fn begin_level(
        &self,
        ticket: &Ticket,
        signing: &TicketSigning,
        value: &SignatureValue,
    ) -> Result<watch::Receiver<Standing<Augmentation>>, TicketError> {
        self.attempts.forget_failed(signing.job, FAILURE_KEPT);
        let (standing, begun) = self.attempts.join(signing.job)?;
        if let Some(sender) = begun {
            let (this, id, options) = (self.clone(), ticket.id, ticket.options.clone());
            let (signing, value) = (signing.clone(), value.clone());
            tokio::spawn(async move {
                let made = this.complete(id, &options, &signing, &value).await;
                if let Err(error) = &made {
                    warn!(job.id = %signing.job, error = %error, "signature of job {} was made and not completed: {error}", signing.job);
                }
                let done = made.is_ok();
                sender.send_replace(Some(made));
                if done {
                    this.attempts.end(signing.job);
                }
            });
        }
        Ok(standing)
    }

    /// Waits for a signature to be completed. An attempt that ended without a word is begun again by the next request.
    pub(super) async fn level(
        &self,
        ticket: &Ticket,
        signing: &TicketSigning,
        value: &SignatureValue,
    ) -> Result<Augmentation, TicketError> {
        let mut standing = self.begin_level(ticket, signing, value)?;
        let ended = standing.wait_for(Option::is_some).await.ok().and_then(|standing| standing.clone());
        ended.unwrap_or_else(|| {
            error!(job.id = %signing.job, "completing a signature did not end well");
            self.attempts.end(signing.job);
            Err(TicketError::StoreUnavailable)
        })
    }

    /// Begins to complete a signature anew, if that is what is missing: the same signature, without a new job and without a permission.
    /// `true` if there is nothing else to be done for a request to sign.
    pub(super) fn retry_level(&self, ticket: &Ticket, job: Option<SigningJob>) -> bool {
        let Some(signing) = ticket.signing.as_ref().filter(|signing| signing.augmentation.is_none() && is_wanted(&ticket.options)) else {
            return false;
        };
        let Ok(Some(value)) = value_of(job) else { return false };
        self.attempts.forget_failed(signing.job, Duration::ZERO);
        self.begin_level(ticket, signing, &value).is_ok()
    }

    /// Fetches what the form wants and stores it.
    async fn complete(
        &self,
        id: TicketId,
        options: &SignatureOptions,
        signing: &TicketSigning,
        value: &SignatureValue,
    ) -> Result<Augmentation, TicketError> {
        let augmentation = self.augment(options, signing, value).await?;
        for _ in 0..CHANGE_TRIES {
            let mut ticket = self.store.find_ticket(id).await?.ok_or(TicketError::Missing)?;
            let current = ticket.signing.as_mut().filter(|current| current.job == signing.job).ok_or(TicketError::Missing)?;
            if let Some(before) = &current.augmentation {
                // Another gateway was quicker; there is one result.
                return Ok(before.clone());
            }
            current.augmentation = Some(augmentation.clone());
            let event = AuditEvent::SignatureCompleted { job: signing.job, ticket: id, time_stamps: augmentation.time_stamps.clone() };
            match self.store.commit(vec![Change::UpdateTicket(ticket), Change::Audit(event)]).await {
                Err(StoreError::Conflict(Conflict::TicketChanged)) => {}
                committed => return Ok(committed.map(|()| augmentation)?),
            }
        }
        Err(TicketError::Overtaken)
    }

    /// What stands beside this signature in the form that was asked for.
    pub(super) async fn augment(
        &self,
        options: &SignatureOptions,
        signing: &TicketSigning,
        value: &SignatureValue,
    ) -> Result<Augmentation, TicketError> {
        if !is_wanted(options) {
            return Ok(Augmentation::default());
        }
        // The signature time stamp is over the octets of the signature value (EN 319 122-1 clause 5.3).
        let imprint = digest(signing.algorithm.message_digest_hash(), &value.to_x509_bytes());
        let time_stamp = self.time_stamps()?.stamp(&imprint).await.map_err(LevelError::from)?;
        let mut unsigned_attrs = vec![unsigned::signature_time_stamp(&time_stamp)?];
        if matches!(options.cades_type, CadesType::C | CadesType::XLong) {
            let authorities = match &options.ca_id {
                Some(id) => path_up_to(&signing.chain, id).ok_or(LevelError::OtherPath)?,
                None => &signing.chain,
            };
            let material = self.path_material(&signing.certificate, authorities).await?;
            unsigned_attrs.extend(material.attributes(options.cades_type)?);
        }
        Ok(Augmentation { unsigned_attrs, time_stamps: vec![time_stamp.serial()] })
    }

    /// A signer's path, and evidence about all of it but the CA at its end, which is the one that is trusted.
    pub(super) async fn path_material(&self, signer: &[u8], authorities: &[Vec<u8>]) -> Result<PathMaterial, LevelError> {
        let client = self.evidence.as_ref().ok_or(LevelError::NoPath)?;
        if authorities.is_empty() {
            return Err(LevelError::NoPath);
        }
        let path = [&[signer.to_vec()], authorities].concat();
        let mut evidence = Vec::new();
        for (number, pair) in (1..).zip(path.windows(2)) {
            let had = client.evidence(&pair[0], &pair[1], Moment::present(self.store.now())).await;
            evidence.push(path_evidence(had.map_err(|error| LevelError::Evidence { number, error })?));
        }
        evidence.push(PathEvidence::Trusted);
        Ok(PathMaterial { signer: signer.to_vec(), authorities: authorities.to_vec(), evidence })
    }
}

fn path_evidence(evidence: Evidence) -> PathEvidence {
    match evidence {
        Evidence::Crl(CheckedCrl { der: list, issuer, this_update, number, .. }) => PathEvidence::Crl { list, issuer, this_update, number },
        Evidence::Ocsp(CheckedOcsp { basic, responder_id, produced_at, .. }) => PathEvidence::Ocsp { basic, responder_id, produced_at },
    }
}
