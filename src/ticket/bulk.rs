//! Many detached signatures in one request, over hashes that the client made.

use futures_util::future::try_join_all;
use tokio::time::timeout;
use tracing::warn;

use super::{
    BulkError, TicketError, TicketService,
    signature::{detached, prepare, value_of},
    spool::blocking,
};
use crate::{
    domain::{
        algorithm::{HashAlgorithm, SignatureAlgorithm},
        caller::Caller,
        digest::Digest,
        ids::{JobId, TicketId},
        signature::SignatureValue,
        ticket::{SignatureType, Ticket, TicketSigning},
    },
    permit::PermitError,
    signing::service::{Payment, SubmitError},
    store::Change,
};

impl TicketService {
    /// Makes one detached signature for each hash, in their order, with the ticket's options and key; waits for all of them.
    ///
    /// The hash function of each is known by its length (Ed25519 goes with SHA-512). All are made or none is handed out: when one fails,
    /// those that have not been begun are taken back.
    ///
    /// # Errors
    /// [`TicketError::Bulk`], or what made one of them fail.
    pub async fn sign_hashes(
        &self,
        caller: &Caller,
        id: TicketId,
        hashes: Vec<Vec<u8>>,
        payment: Payment,
    ) -> Result<Vec<Vec<u8>>, TicketError> {
        let ticket = self.load(caller, id).await?;
        if ticket.options.signature_type == SignatureType::Attached {
            return Err(BulkError::Attached.into());
        }
        let max = self.settings.bulk_max.min(usize::try_from(caller.permit_uses_max).unwrap_or(usize::MAX));
        if hashes.is_empty() || hashes.len() > max {
            return Err(BulkError::Count { max }.into());
        }
        let payment = self.pay_for(caller, hashes.len(), payment).await?;
        let mut accepted = Vec::with_capacity(hashes.len());
        let made = self.submit_and_wait(caller, &ticket, hashes, &payment, &mut accepted).await;
        if made.is_err() {
            self.take_back(accepted).await;
        }
        let (signed, embed) = (made?, ticket.options.embed_certificate);
        blocking(move || signed.iter().map(|(signing, value)| detached(embed, signing, value)).collect()).await
    }

    /// One permit for all of them, unless the request brings what pays.
    async fn pay_for(&self, caller: &Caller, count: usize, payment: Payment) -> Result<Payment, TicketError> {
        if !matches!(payment, Payment::AskNow) {
            return Ok(payment);
        }
        let uses = u32::try_from(count).unwrap_or(u32::MAX);
        match self.permits.request(caller, uses).await {
            Ok(permit) => Ok(Payment::Permit(permit.id)),
            Err(PermitError::Uses { max }) => Err(BulkError::Count { max: max as usize }.into()),
            Err(PermitError::Refused(refusal)) => Err(TicketError::Submit(SubmitError::Permit(refusal))),
            Err(PermitError::StoreUnavailable) => Err(TicketError::StoreUnavailable),
        }
    }

    async fn submit_and_wait(
        &self,
        caller: &Caller,
        ticket: &Ticket,
        hashes: Vec<Vec<u8>>,
        payment: &Payment,
        accepted: &mut Vec<JobId>,
    ) -> Result<Vec<(TicketSigning, SignatureValue)>, TicketError> {
        let mut signings = Vec::with_capacity(hashes.len());
        for hash in hashes {
            let signing = self.submit_hash(caller, ticket, hash, payment).await?;
            accepted.push(signing.job);
            signings.push(signing);
        }
        let all = try_join_all(signings.into_iter().map(|signing| async move {
            let job = self.signing.wait_for_end(signing.job, self.settings.blocking_get_bound).await?;
            let value = value_of(job)?.ok_or(BulkError::TimedOut)?;
            Ok::<_, TicketError>((signing, value))
        }));
        timeout(self.settings.blocking_get_bound, all).await.unwrap_or(Err(BulkError::TimedOut.into()))
    }

    async fn submit_hash(&self, caller: &Caller, ticket: &Ticket, hash: Vec<u8>, payment: &Payment) -> Result<TicketSigning, TicketError> {
        let len = hash.len();
        let pin = if let Payment::Pin(pin) = payment { Some(pin) } else { None };
        let of_key = self.authorise(caller, ticket, None, pin).await?;
        let algorithm = algorithm_for_hash(of_key.algorithm(), len).ok_or(BulkError::HashLength { len })?;
        let authorised =
            if algorithm == of_key.algorithm() { of_key } else { self.authorise(caller, ticket, Some(algorithm), None).await? };
        let digest = Digest::new(algorithm.message_digest_hash(), hash).map_err(|_| BulkError::HashLength { len })?;
        let (signing, to_sign) = prepare(&ticket.options, &digest, &authorised)?;
        let payment = match payment {
            Payment::Permit(permit) => Payment::Permit(*permit),
            Payment::AskNow => Payment::AskNow,
            Payment::Pin(pin) => Payment::Pin(pin.duplicate()),
        };
        self.signing.submit(authorised, signing.job, to_sign, payment, Vec::new()).await?;
        Ok(signing)
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
