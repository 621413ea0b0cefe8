//! Many detached signatures in one request, over hashes that the client made.

use futures_util::{StreamExt, TryStreamExt, future::try_join_all, stream};
use tokio::time::timeout;
use tracing::warn;

use super::{
    BulkError, TicketError, TicketService,
    idempotency::NamedRequest,
    level,
    signature::{detached, prepare, value_of},
    spool::blocking,
};
use crate::{
    domain::{
        algorithm::{HashAlgorithm, SignatureAlgorithm},
        caller::Caller,
        consent::ViewSize,
        digest::Digest,
        ids::{IdempotencyKey, JobId, TicketId},
        job::FailureCause,
        signature::SignatureValue,
        ticket::{AsicForm, DataToSign, SignatureOptions, SignatureType, Ticket, TicketSigning},
    },
    permit::{Exactly, PermitAsk, PermitError},
    signing::service::{JobOrder, Payment, SubmitError},
    store::Change,
};

/// How many signatures of one bulk are completed at a time.
const BULK_STAMPS: usize = 8;

impl TicketService {
    /// Makes one detached signature for each hash, in their order, with the ticket's options and key; waits for all of them.
    ///
    /// The hash function of each is known by its length (Ed25519 goes with SHA-512). All are accepted in one step or none is, and all are handed
    /// out or none is: when one fails, those that have not been begun are taken back. With the idempotency key of a request that was made
    /// before, its signatures are handed out.
    ///
    /// # Errors
    /// [`TicketError::Bulk`], or what made one of them fail.
    pub async fn sign_hashes(
        &self,
        caller: &Caller,
        id: TicketId,
        hashes: Vec<Vec<u8>>,
        payment: Payment,
        key: Option<IdempotencyKey>,
    ) -> Result<Vec<Vec<u8>>, TicketError> {
        let ticket = self.load(caller, id).await?;
        if ticket.options.signature_type == SignatureType::Attached || ticket.options.asic_form != AsicForm::None {
            return Err(BulkError::Attached.into());
        }
        if ticket.options.data_to_sign == DataToSign::AlreadySigned {
            return Err(BulkError::AlreadySigned.into());
        }
        let max = self.settings.bulk_max.min(usize::try_from(caller.permit_uses_max).unwrap_or(usize::MAX));
        if hashes.is_empty() || hashes.len() > max {
            return Err(BulkError::Count { max }.into());
        }
        let named = key.map(|key| NamedRequest::new(caller, key, "bulk", id, &hashes));
        let signings = match self.known_request(named.as_ref()).await? {
            Some(signings) => signings,
            None => self.submit_hashes(caller, &ticket, hashes, &payment, named.as_ref()).await?,
        };
        let (embed, options) = (ticket.options.embed_certificate, ticket.options.clone());
        let jobs: Vec<_> = signings.iter().map(|signing| signing.job).collect();
        let made = self.wait_for_all(signings).await;
        if made.is_err() {
            self.take_back(jobs).await;
        }
        let signed = self.complete_all(&options, made?).await?;
        blocking(move || signed.iter().map(|(signing, value)| detached(embed, signing, value)).collect()).await
    }

    /// One permit for all of them and for nothing else, unless the request brings what pays.
    async fn pay_for_all(&self, caller: &Caller, ticket: &Ticket, orders: &mut [JobOrder]) -> Result<(), TicketError> {
        let unpaid = |order: &JobOrder| match order.payment {
            Payment::Permit(_) => false,
            Payment::Pin(_) => !order.authorised.pin_is_consent(),
            Payment::AskNow => true,
        };
        let Some(first) = orders.first().filter(|order| unpaid(order)) else { return Ok(()) };
        let digests = orders.iter().map(|order| order.to_sign.fingerprint()).collect();
        let ask = PermitAsk {
            uses: u32::try_from(orders.len()).unwrap_or(u32::MAX),
            exactly: Some(Exactly { key: first.authorised.key().address.clone(), digests }),
            words: ticket.metadata.clone(),
            view: ViewSize::default(),
        };
        let permit = self.permits.request(caller, ask).await.map_err(not_granted)?;
        // A PIN that is no consent was checked when the key was looked for, and its slot does not need it.
        orders.iter_mut().for_each(|order| order.payment = Payment::Permit(permit.id));
        Ok(())
    }

    /// Accepts a job for each hash, in one step.
    async fn submit_hashes(
        &self,
        caller: &Caller,
        ticket: &Ticket,
        hashes: Vec<Vec<u8>>,
        payment: &Payment,
        named: Option<&NamedRequest>,
    ) -> Result<Vec<TicketSigning>, TicketError> {
        let mut signings = Vec::with_capacity(hashes.len());
        let mut orders = Vec::with_capacity(hashes.len());
        for hash in hashes {
            let (signing, order) = self.order_for(caller, ticket, hash, payment).await?;
            signings.push(signing);
            orders.push(order);
        }
        self.pay_for_all(caller, ticket, &mut orders).await?;
        let keep = named.map(|named| named.keep(signings.clone(), self.store.now()));
        match self.signing.submit_all(orders, keep.into_iter().collect()).await {
            // The same request, which was quicker.
            Err(SubmitError::RequestKnown) => Ok(self.known_request(named).await?.ok_or(TicketError::Overtaken)?),
            submitted => Ok(submitted.map(|()| signings)?),
        }
    }

    async fn order_for(
        &self,
        caller: &Caller,
        ticket: &Ticket,
        hash: Vec<u8>,
        payment: &Payment,
    ) -> Result<(TicketSigning, JobOrder), TicketError> {
        let len = hash.len();
        let pin = if let Payment::Pin(pin) = payment { Some(pin) } else { None };
        let of_key = self.authorise_document(caller, ticket, None, pin).await?;
        let algorithm = algorithm_for_hash(of_key.algorithm(), len).ok_or(BulkError::HashLength { len })?;
        let authorised =
            if algorithm == of_key.algorithm() { of_key } else { self.authorise_document(caller, ticket, Some(algorithm), None).await? };
        let digest = Digest::new(algorithm.message_digest_hash(), hash).map_err(|_| BulkError::HashLength { len })?;
        let content_time_stamp = self.content_time_stamp(&ticket.options, &digest).await?;
        let (signing, to_sign) = prepare(&ticket.options, &digest, &authorised, content_time_stamp.as_ref())?;
        let payment = match payment {
            Payment::Permit(permit) => Payment::Permit(*permit),
            Payment::AskNow => Payment::AskNow,
            Payment::Pin(pin) => Payment::Pin(pin.duplicate()),
        };
        let order = JobOrder { authorised, job: signing.job, to_sign, payment, document: None };
        Ok((signing, order))
    }

    async fn wait_for_all(&self, signings: Vec<TicketSigning>) -> Result<Vec<(TicketSigning, SignatureValue)>, TicketError> {
        let all = try_join_all(signings.into_iter().map(|signing| async move {
            let job = self.signing.wait_for_end(signing.job, self.settings.blocking_get_bound).await?;
            let value = value_of(job)?.ok_or(BulkError::TimedOut)?;
            Ok::<_, TicketError>((signing, value))
        }));
        timeout(self.settings.blocking_get_bound, all).await.unwrap_or(Err(BulkError::TimedOut.into()))
    }

    /// Gets for each signature what the form wants beside it. If that fails, the same request with the same idempotency key completes the same
    /// signatures.
    async fn complete_all(
        &self,
        options: &SignatureOptions,
        signed: Vec<(TicketSigning, SignatureValue)>,
    ) -> Result<Vec<(TicketSigning, SignatureValue)>, TicketError> {
        if !level::is_wanted(options) {
            return Ok(signed);
        }
        let completed = stream::iter(signed.into_iter().map(|(signing, value)| async move {
            let augmentation = Some(self.augment(options, &signing, &value).await?);
            Ok((TicketSigning { augmentation, ..signing }, value))
        }));
        let all = completed.buffered(BULK_STAMPS).try_collect();
        timeout(self.settings.blocking_get_bound, all).await.unwrap_or(Err(BulkError::TimedOut.into()))
    }

    async fn take_back(&self, jobs: Vec<JobId>) {
        if let Err(error) = self.store.commit(jobs.iter().copied().map(Change::CancelJob).collect()).await {
            warn!(error = %error, "the rest of a bulk could not be taken back");
            return;
        }
        for job in jobs {
            self.note_cancelled(job).await;
        }
    }
}

fn not_granted(error: PermitError) -> TicketError {
    match error {
        PermitError::Uses { max } => BulkError::Count { max: max as usize }.into(),
        PermitError::Refused(refusal) => TicketError::Submit(SubmitError::Permit(refusal)),
        PermitError::NotGranted(_) => TicketError::NotSigned { cause: FailureCause::ConsentRefused, detail: String::new() },
        PermitError::TooManyWaiting { limit } | PermitError::TooManyPermits { limit } => {
            TicketError::Submit(SubmitError::TooManyWaiting { limit })
        }
        PermitError::StoreUnavailable => TicketError::StoreUnavailable,
    }
}

/// The key's own way to sign, with the hash function that makes `len` bytes; `None` if there is none.
fn algorithm_for_hash(of_key: SignatureAlgorithm, len: usize) -> Option<SignatureAlgorithm> {
    let hash = HashAlgorithm::of_len(len)?;
    match of_key {
        SignatureAlgorithm::RsaPkcs1(_) => Some(SignatureAlgorithm::RsaPkcs1(hash)),
        SignatureAlgorithm::RsaPss(_) => Some(SignatureAlgorithm::RsaPss(hash)),
        SignatureAlgorithm::Ecdsa(_) => Some(SignatureAlgorithm::Ecdsa(hash)),
        // RFC 8419 section 3.1: Ed25519 goes with SHA-512 only.
        SignatureAlgorithm::Ed25519 => (hash == of_key.message_digest_hash()).then_some(of_key),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_a_hash_says_how_it_is_signed() {
        use HashAlgorithm::{Sha256, Sha384, Sha512};
        let rsa = SignatureAlgorithm::RsaPkcs1(Sha256);
        assert_eq!(algorithm_for_hash(rsa, 48), Some(SignatureAlgorithm::RsaPkcs1(Sha384)));
        assert_eq!(algorithm_for_hash(SignatureAlgorithm::RsaPss(Sha512), 32), Some(SignatureAlgorithm::RsaPss(Sha256)));
        assert_eq!(algorithm_for_hash(SignatureAlgorithm::Ecdsa(Sha384), 64), Some(SignatureAlgorithm::Ecdsa(Sha512)));
        assert_eq!(algorithm_for_hash(SignatureAlgorithm::Ed25519, 64), Some(SignatureAlgorithm::Ed25519));
        for (algorithm, len) in [(rsa, 20), (rsa, 0), (SignatureAlgorithm::Ed25519, 32)] {
            assert_eq!(algorithm_for_hash(algorithm, len), None, "{algorithm} {len}");
        }
    }
}
