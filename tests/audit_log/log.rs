//! Logs to be tampered with, and software keys that sign their checkpoints.

use aws_lc_rs::{
    encoding::AsDer,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair},
};
use sealgate::{
    audit::export::to_line,
    domain::{
        algorithm::{HashAlgorithm, SignatureAlgorithm},
        audit::{AuditEvent, AuditHead, Checkpoint, SealedRecord, Sha256},
        caller::Provenance,
        ids::{GatewayId, TicketId},
        timestamp::Timestamp,
    },
};

/// The log of one gateway.
#[derive(Clone)]
pub struct Log {
    pub records: Vec<SealedRecord>,
    /// The head that the gateway goes on from.
    pub head: AuditHead,
}

/// A key that signs checkpoints.
pub struct Key {
    pair: EcdsaKeyPair,
    pub public_key: Vec<u8>,
}

/// Something that happened.
pub fn event(n: u64) -> AuditEvent {
    let caller = "ci".parse().unwrap();
    match n % 3 {
        0 => AuditEvent::TicketOpened {
            ticket: TicketId::random(),
            caller,
            from: Provenance { origin: Some("https://ї.example".to_owned()), ..Provenance::default() },
        },
        1 => AuditEvent::ContentReceived { ticket: TicketId::random(), caller, sha256: Sha256::of(&n.to_be_bytes()), len: n },
        _ => AuditEvent::TicketClosed { ticket: TicketId::random(), caller },
    }
}

impl Log {
    /// A log with so many records; each was written at the time of its number.
    pub fn of(count: u64) -> Self {
        let mut log = Self { records: Vec::new(), head: AuditHead::empty(GatewayId::random()) };
        log.grow(count);
        log
    }

    pub fn grow(&mut self, count: u64) {
        (0..count).for_each(|n| self.append(event(n)));
    }

    pub fn append(&mut self, event: AuditEvent) {
        let at = Timestamp::from_millis(self.head.seq + 1);
        self.records.push(self.head.append(at, event));
    }

    pub fn checkpoint(&mut self, key: &Key) {
        self.append(AuditEvent::Checkpoint(key.checkpoint(self.head)));
    }

    /// Adds a record whose text this version of the program would not write.
    pub fn append_text(&mut self, text: impl FnOnce(u64, Sha256, GatewayId) -> String) {
        let seq = self.head.seq + 1;
        let text = text(seq, self.head.hash, self.head.gateway);
        let hash = Sha256::of(text.as_bytes());
        self.records.push(SealedRecord { seq, text, hash });
        self.head = AuditHead { seq, hash, ..self.head };
    }

    pub fn export(&self) -> String {
        self.records.iter().map(to_line).collect()
    }

    pub fn head_at(&self, seq: u64) -> AuditHead {
        AuditHead { seq, hash: self.record(seq).hash, ..self.head }
    }

    fn record(&self, seq: u64) -> &SealedRecord {
        self.records.iter().find(|record| record.seq == seq).unwrap()
    }

    /// Changes the text of a record and hashes it again, and leaves the others alone.
    pub fn rewrite(&mut self, seq: u64, change: impl FnOnce(&str) -> String) {
        let record = self.records.iter_mut().find(|record| record.seq == seq).unwrap();
        let text = change(&record.text);
        assert_ne!(text, record.text, "nothing was changed");
        (record.hash, record.text) = (Sha256::of(text.as_bytes()), text);
    }

    /// Changes record `seq` and adapts all that follow, so that the chain itself fits again.
    pub fn rewrite_from(&mut self, seq: u64) {
        self.rewrite(seq, |text| text.replacen("\"event\":", "\"forged\":true,\"event\":", 1));
        self.link_again_from(seq + 1);
    }

    pub fn link_again_from(&mut self, seq: u64) {
        for at in usize::try_from(seq).unwrap() - 1..self.records.len() {
            let previous = self.records[at - 1].hash;
            let record = &mut self.records[at];
            let (before, rest) = record.text.split_once("\"previous\":\"").unwrap();
            record.text = format!("{before}\"previous\":\"{previous}{}", &rest[64..]);
            record.hash = Sha256::of(record.text.as_bytes());
        }
    }

    pub fn cut_to(&mut self, seq: u64) {
        self.records.retain(|record| record.seq <= seq);
    }
}

impl Key {
    pub fn new() -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        Self { public_key: pair.public_key().as_der().unwrap().as_ref().to_vec(), pair }
    }

    pub fn checkpoint(&self, head: AuditHead) -> Checkpoint {
        let signature = self.pair.sign(&SystemRandom::new(), head.statement().as_bytes()).unwrap();
        Checkpoint {
            signed_seq: head.seq,
            signed_hash: head.hash,
            key_name: "seal".parse().unwrap(),
            algorithm: SignatureAlgorithm::Ecdsa(HashAlgorithm::Sha256),
            public_key: self.public_key.clone(),
            signature: signature.as_ref().to_vec(),
        }
    }
}
