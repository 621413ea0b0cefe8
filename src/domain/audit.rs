//! The audit log: what is recorded, and the hash chain that makes an edit visible.
//!
//! Invariants: a record's text holds the hash of the record before it, and its own hash is the SHA-256 of that text, so nothing in a chain can
//! be changed, removed or inserted without a later hash that no longer fits; each gateway has one chain, numbered from 1 without a gap. A
//! record holds no secret: no PIN, no key, no API key, no document.

mod event;

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{
    algorithm::{HashAlgorithm, SignatureAlgorithm},
    digest::{Digest, ToSign},
    hash::digest,
    ids::{GatewayId, KeyName},
    timestamp::Timestamp,
    verify::{Verifier, VerifyError},
};

pub use self::event::{AccountChange, AuditEvent, CallerChange, Consent, PinIncident, SignatureFacts};

/// A SHA-256 value, printed in hex.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sha256(#[serde(with = "hex::serde")] [u8; 32]);

impl Sha256 {
    /// What stands in place of the hash before the first record.
    pub const ZERO: Self = Self([0; 32]);

    /// Hashes `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self::of_digest(&digest(HashAlgorithm::Sha256, bytes))
    }

    /// The value of a digest that was made with SHA-256.
    #[must_use]
    pub fn of_digest(digest: &Digest) -> Self {
        let mut value = [0; 32];
        // INVARIANT: callers have hashed with SHA-256 in this very step, or keep the digest under that name.
        value.copy_from_slice(digest.as_bytes());
        Self(value)
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for Sha256 {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A signature over the chain as it stood at one of its records. It is itself a record, some way after that one: signing takes its time, and
/// the chain does not wait for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The number of the last record that is signed.
    pub signed_seq: u64,
    /// The hash of that record.
    pub signed_hash: Sha256,
    /// The configured name of the key.
    pub key_name: KeyName,
    /// The signature algorithm.
    pub algorithm: SignatureAlgorithm,
    /// `SubjectPublicKeyInfo` in DER, in hex.
    #[serde(with = "hex::serde")]
    pub public_key: Vec<u8>,
    /// The signature over [`AuditHead::statement`] of the head that is signed, as X.509 carries it, in hex.
    #[serde(with = "hex::serde")]
    pub signature: Vec<u8>,
}

impl Checkpoint {
    /// The head that is signed, in the chain of `gateway`.
    #[must_use]
    pub const fn head(&self, gateway: GatewayId) -> AuditHead {
        AuditHead { gateway, seq: self.signed_seq, hash: self.signed_hash }
    }

    /// Checks that [`public_key`](Self::public_key) made the signature; whose key that is, it does not say. Computes for up to a millisecond.
    ///
    /// # Errors
    /// [`VerifyError`].
    pub fn verify(&self, gateway: GatewayId) -> Result<(), VerifyError> {
        let verifier = Verifier::for_key(&self.public_key)?;
        let statement = self.head(gateway).statement();
        let signed = ToSign::of_message(self.algorithm, statement.as_bytes());
        let signed = signed.map_err(|error| VerifyError::Unsupported(error.to_string()))?;
        verifier.verify_x509(&signed, &self.signature)
    }
}

/// The end of a chain: all that is needed to go on, and to notice that it was cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditHead {
    /// Whose chain.
    pub gateway: GatewayId,
    /// The number of its last record; 0 if there is none.
    pub seq: u64,
    /// The hash of its last record; [`Sha256::ZERO`] if there is none.
    pub hash: Sha256,
}

/// One record of a chain, as it is stored and exported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedRecord {
    /// Its number.
    pub seq: u64,
    /// The JSON text of the [`AuditRecord`]: exactly these bytes were hashed.
    pub text: String,
    /// The SHA-256 of `text`.
    pub hash: Sha256,
}

/// What the text of a record says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// Whose chain it is in.
    pub gateway: GatewayId,
    /// Its number, from 1.
    pub seq: u64,
    /// When it was written, in milliseconds since the Unix epoch.
    pub at: Timestamp,
    /// The hash of the record before it.
    pub previous: Sha256,
    /// What happened.
    #[serde(flatten)]
    pub event: AuditEvent,
}

impl AuditHead {
    /// The head of a chain without records.
    #[must_use]
    pub const fn empty(gateway: GatewayId) -> Self {
        Self { gateway, seq: 0, hash: Sha256::ZERO }
    }

    /// Makes the next record and moves the head to it.
    pub fn append(&mut self, at: Timestamp, event: AuditEvent) -> SealedRecord {
        let record = AuditRecord { gateway: self.gateway, seq: self.seq + 1, at, previous: self.hash, event };
        // INVARIANT: every type above has string keys and no float, so serde_json cannot fail on it.
        #[allow(clippy::expect_used)]
        let text = serde_json::to_string(&record).expect("an audit record is plain data");
        let sealed = SealedRecord { seq: record.seq, hash: Sha256::of(text.as_bytes()), text };
        (self.seq, self.hash) = (sealed.seq, sealed.hash);
        sealed
    }

    /// What a checkpoint signs: no document, and no other chain's head, reads like it.
    #[must_use]
    pub fn statement(&self) -> String {
        format!("Sealgate audit checkpoint\ngateway {}\nseq {}\nsha256 {}\n", self.gateway, self.seq, self.hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{caller::Provenance, ids::TicketId};

    #[test]
    fn records_are_chained_and_read_back_as_they_were_written() {
        let mut head = AuditHead::empty(GatewayId::random());
        let opened = AuditEvent::TicketOpened {
            ticket: TicketId::random(),
            caller: "ci".parse().unwrap(),
            from: Provenance { origin: Some("https://page.example".to_owned()), ..Provenance::default() },
        };
        let first = head.append(Timestamp::from_millis(1), opened.clone());
        let second = head.append(Timestamp::from_millis(2), AuditEvent::GatewayStopped);
        let read = |sealed: &SealedRecord| serde_json::from_str::<AuditRecord>(&sealed.text).unwrap();
        assert_eq!((read(&first).seq, read(&first).previous, read(&first).event), (1, Sha256::ZERO, opened));
        assert_eq!((read(&second).seq, read(&second).previous), (2, first.hash));
        assert_eq!(head, AuditHead { gateway: head.gateway, seq: 2, hash: second.hash });
        assert_eq!(Sha256::of(second.text.as_bytes()), second.hash);
    }
}
