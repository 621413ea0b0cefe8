//! The chain of one gateway, proved record by record.
//!
//! Pure: records go in one after the other, and the first one that does not fit comes out, with what is wrong with it. Memory has a bound
//! ([`LAG_MAX`] hashes), however long the chain is. Invariant: after the first fault nothing more is said of a chain.

use std::collections::{BTreeMap, VecDeque};

use serde::Deserialize;

use crate::domain::{
    audit::{AuditHead, Checkpoint, SealedRecord, Sha256},
    ids::{GatewayId, KeyName},
    timestamp::Timestamp,
};

/// The most records that may stand between a checkpoint and the record that it signs.
pub const LAG_MAX: usize = 65_536;

/// The most keys of checkpoints that a report lists; checkpoints of further ones are counted together.
const KEYS_MAX: usize = 64;

/// What whoever verifies has kept in a safe place, and measures the log by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Anchors {
    /// Public keys (`SubjectPublicKeyInfo` in DER); with any of them here, no other key may sign checkpoints.
    pub checkpoint_keys: Vec<Vec<u8>>,
    /// Heads that were exported before. A chain may also begin right after one of them.
    pub heads: Vec<AuditHead>,
}

/// What is wrong with a record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The text and the hash beside it do not go together.
    #[error("it was edited: its text does not have the hash that stands beside it")]
    Edited,
    /// The text is none that a gateway writes.
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    /// The record says that it is in another gateway's log.
    #[error("it is a record of another gateway, {0}")]
    Foreign(GatewayId),
    /// The store has it under another number than its text says.
    #[error("what stands under this number says that it is record {0}")]
    Misplaced(u64),
    /// Records are missing before this one.
    #[error("it is missing: record {next} follows record {last}")]
    Missing {
        /// The last record before the gap; 0 if the log does not begin with the first.
        last: u64,
        /// The first one after it.
        next: u64,
    },
    /// A record with a number that has passed.
    #[error("record {0} stands in its place, repeated or out of order")]
    OutOfOrder(u64),
    /// The hash of this record is not the one that the next one names, which is itself as the one after it says.
    #[error("it was rewritten and hashed again, and maybe others before it: record {} names another hash of it", .0 + 1)]
    Rewritten(u64),
    /// This record names another hash of the one before it.
    #[error("it was rewritten and hashed again: it names another hash of record {}, and the record after it another hash of this one", .0 - 1)]
    RewrittenLink(u64),
    /// Two records do not fit, and nothing follows that would say which of them is right.
    #[error("it or the record after it was rewritten and hashed again: that one names another hash of this one")]
    RewrittenOrNext,
    /// The hash is not that of a head that was kept.
    #[error("it was rewritten, or some before it: the head that was kept has another hash of it")]
    NotAsKept,
    /// The log ends before a head that was kept.
    #[error("it is missing: the log was cut off after record {last}, the head that was kept has records up to {kept}")]
    CutOff {
        /// The last record.
        last: u64,
        /// The last record at the time of the head.
        kept: u64,
    },
    /// There is no record at all of a gateway whose head was kept.
    #[error("it is missing: the whole log of this gateway is gone, the head that was kept has records up to {0}")]
    Gone(u64),
    /// A checkpoint whose signature is not one over what it says.
    #[error("its checkpoint is wrong: {0}")]
    CheckpointSignature(String),
    /// The hash is not the one that a checkpoint signs.
    #[error("it was rewritten and hashed again, or some before it: the checkpoint that is record {checkpoint} signs another hash of it")]
    NotAsSigned {
        /// The number of the checkpoint's record.
        checkpoint: u64,
    },
    /// A checkpoint over a record that is not before it, or too far before it.
    #[error("its checkpoint signs record {0}, which is not one of the {LAG_MAX} records before it")]
    CheckpointTooFar(u64),
    /// A checkpoint by another key than those that were pinned.
    #[error("its checkpoint is signed by a key that was not pinned (SHA-256 of the public key {0})")]
    CheckpointByAnotherKey(Sha256),
    /// Not one checkpoint, although a key was pinned.
    #[error("no checkpoint of a pinned key is in the log: it was rewritten without them, or none was ever made")]
    NoCheckpoint,
    /// A log without any record.
    #[error("it is missing: there is no record at all")]
    Empty,
    /// A second chain of the same gateway.
    #[error("the log of this gateway begins once more")]
    SecondLog,
}

/// The first record that is broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Whose log it is in, if that can be told.
    pub gateway: Option<GatewayId>,
    /// The number of the record, or the one that would have to stand there.
    pub record: u64,
    /// What is wrong.
    pub fault: Fault,
}

/// A key that signed checkpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointKey {
    /// SHA-256 of its `SubjectPublicKeyInfo`.
    pub sha256: Sha256,
    /// Its configured name in its last checkpoint.
    pub name: KeyName,
    /// Whether it was pinned.
    pub pinned: bool,
    /// How many checkpoints it signed.
    pub count: u64,
    /// The last record that it signed.
    pub signed_seq: u64,
}

/// A chain in which nothing is broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SoundChain {
    /// Its first record here.
    pub first: u64,
    /// Its end.
    pub head: AuditHead,
    /// When the last record was written.
    pub last_at: Timestamp,
    /// The keys of its checkpoints.
    pub keys: Vec<CheckpointKey>,
    /// The last record that a checkpoint signs (one of a pinned key, if one was pinned), or that a kept head vouches for; 0 if there is none.
    /// Later ones could have been written, rewritten or cut off by whoever can write the store.
    pub vouched: u64,
}

/// What the chain looks at in a record; all else is covered by the hash, and tolerated, so that later versions may tell more.
#[derive(Deserialize)]
struct Envelope {
    gateway: GatewayId,
    seq: u64,
    at: Timestamp,
    previous: Sha256,
    event: String,
}

/// Proves one chain.
pub struct ChainVerifier<'a> {
    anchors: &'a Anchors,
    head: AuditHead,
    first: Option<u64>,
    last_at: Timestamp,
    /// Hashes of the last records, the newest at the back.
    recent: VecDeque<Sha256>,
    /// The last record did not fit the one before it; the next one says which of the two is wrong.
    suspect: bool,
    keys: BTreeMap<Sha256, CheckpointKey>,
    vouched: u64,
}

impl<'a> ChainVerifier<'a> {
    /// Begins the chain of `gateway`.
    #[must_use]
    pub fn new(gateway: GatewayId, anchors: &'a Anchors) -> Self {
        Self {
            anchors,
            head: AuditHead::empty(gateway),
            first: None,
            last_at: Timestamp::from_millis(0),
            recent: VecDeque::new(),
            suspect: false,
            keys: BTreeMap::new(),
            vouched: 0,
        }
    }

    /// Whose chain it is.
    #[must_use]
    pub const fn gateway(&self) -> GatewayId {
        self.head.gateway
    }

    /// The number that the next record must have.
    #[must_use]
    pub const fn expected(&self) -> u64 {
        self.head.seq + 1
    }

    /// Takes the next record. What does not fit the record before it is told with the next one, or at the end.
    ///
    /// # Errors
    /// The first record that is broken; the chain takes no more then.
    pub fn push(&mut self, record: &SealedRecord) -> Result<(), Box<Broken>> {
        let (suspect, last) = (self.suspect, self.head.seq);
        self.take(record).map_err(|broken| match broken.fault {
            Fault::Rewritten(_) | Fault::RewrittenLink(_) => broken,
            // What is wrong with this record tells nothing of the two before it, which come first.
            _ if suspect => self.at(last - 1, Fault::RewrittenOrNext),
            _ => broken,
        })
    }

    /// The first record that is broken, if something that is no record stands in the place of the next one.
    #[must_use]
    pub fn refuse(&self, fault: Fault) -> Box<Broken> {
        if self.suspect { self.at(self.head.seq - 1, Fault::RewrittenOrNext) } else { self.at_the_next(fault) }
    }

    fn take(&mut self, record: &SealedRecord) -> Result<(), Box<Broken>> {
        if Sha256::of(record.text.as_bytes()) != record.hash {
            return Err(self.at_the_next(Fault::Edited));
        }
        let envelope: Envelope = read(&record.text).map_err(|fault| self.at_the_next(fault))?;
        if envelope.gateway != self.head.gateway {
            return Err(self.at_the_next(Fault::Foreign(envelope.gateway)));
        }
        if envelope.seq != record.seq {
            return Err(self.at(record.seq, Fault::Misplaced(envelope.seq)));
        }
        if self.first.is_none() {
            self.begin_after_a_kept_head(&envelope);
        }
        self.check_order(&envelope)?;
        self.check_link(&envelope)?;
        if envelope.event == "checkpoint" {
            let checkpoint = read(&record.text).map_err(|fault| self.at_the_next(fault))?;
            self.check(&checkpoint)?;
        }
        self.advance(&envelope, record.hash)
    }

    /// Ends the chain.
    ///
    /// # Errors
    /// The first record that is broken.
    pub fn finish(self) -> Result<SoundChain, Box<Broken>> {
        if self.suspect {
            return Err(self.at(self.head.seq - 1, Fault::RewrittenOrNext));
        }
        let Some(first) = self.first else { return Err(self.at_the_next(Fault::Empty)) };
        let kept = self.anchors.heads.iter().filter(|kept| kept.gateway == self.head.gateway).map(|kept| kept.seq).max();
        if let Some(kept) = kept.filter(|kept| *kept > self.head.seq) {
            return Err(self.at_the_next(Fault::CutOff { last: self.head.seq, kept }));
        }
        if !self.anchors.checkpoint_keys.is_empty() && self.keys.is_empty() {
            return Err(self.at(first, Fault::NoCheckpoint));
        }
        let keys = self.keys.into_values().collect();
        Ok(SoundChain { first, head: self.head, last_at: self.last_at, keys, vouched: self.vouched })
    }

    fn at(&self, record: u64, fault: Fault) -> Box<Broken> {
        Box::new(Broken { gateway: Some(self.head.gateway), record, fault })
    }

    /// The fault of what stands in the place of the next record.
    fn at_the_next(&self, fault: Fault) -> Box<Broken> {
        self.at(self.expected(), fault)
    }

    /// An archive may begin where another one ended, if the head of that one was kept.
    fn begin_after_a_kept_head(&mut self, envelope: &Envelope) {
        let before = AuditHead { gateway: envelope.gateway, seq: envelope.seq.wrapping_sub(1), hash: envelope.previous };
        if self.anchors.heads.contains(&before) {
            self.head = before;
            self.vouched = before.seq;
            self.recent.push_back(before.hash);
        }
    }

    fn check_order(&self, envelope: &Envelope) -> Result<(), Box<Broken>> {
        let expected = self.expected();
        match envelope.seq {
            seq if seq == expected => Ok(()),
            next if next > expected => Err(self.at(expected, Fault::Missing { last: self.head.seq, next })),
            passed => Err(self.at(expected, Fault::OutOfOrder(passed))),
        }
    }

    fn check_link(&mut self, envelope: &Envelope) -> Result<(), Box<Broken>> {
        let fits = envelope.previous == self.head.hash;
        let last = self.head.seq;
        if self.suspect {
            let broken = if fits { self.at(last - 1, Fault::Rewritten(last - 1)) } else { self.at(last, Fault::RewrittenLink(last)) };
            return Err(broken);
        }
        if !fits && last == 0 {
            return Err(self.at(1, Fault::Unreadable("the first record names a hash of one before it".to_owned())));
        }
        self.suspect = !fits;
        Ok(())
    }

    fn check(&mut self, checkpoint: &Checkpoint) -> Result<(), Box<Broken>> {
        let key = Sha256::of(&checkpoint.public_key);
        let pins = &self.anchors.checkpoint_keys;
        let pinned = pins.contains(&checkpoint.public_key);
        if !pins.is_empty() && !pinned {
            return Err(self.at_the_next(Fault::CheckpointByAnotherKey(key)));
        }
        let made = checkpoint.verify(self.head.gateway);
        made.map_err(|error| self.at_the_next(Fault::CheckpointSignature(error.to_string())))?;
        let signed = checkpoint.signed_seq;
        let back = self.head.seq.checked_sub(signed).and_then(|back| usize::try_from(back).ok());
        let hash = back.and_then(|back| self.recent.len().checked_sub(back + 1)).and_then(|at| self.recent.get(at));
        match hash {
            None => return Err(self.at_the_next(Fault::CheckpointTooFar(signed))),
            Some(hash) if *hash != checkpoint.signed_hash => {
                return Err(self.at(signed, Fault::NotAsSigned { checkpoint: self.expected() }));
            }
            Some(_) => {}
        }
        self.vouched = self.vouched.max(signed);
        self.count(key, checkpoint, pinned);
        Ok(())
    }

    fn count(&mut self, key: Sha256, checkpoint: &Checkpoint, pinned: bool) {
        if self.keys.len() >= KEYS_MAX && !self.keys.contains_key(&key) {
            return;
        }
        let name = checkpoint.key_name.clone();
        let entry = self.keys.entry(key).or_insert(CheckpointKey { sha256: key, name, pinned, count: 0, signed_seq: 0 });
        entry.name = checkpoint.key_name.clone();
        entry.count += 1;
        entry.signed_seq = checkpoint.signed_seq;
    }

    fn advance(&mut self, envelope: &Envelope, hash: Sha256) -> Result<(), Box<Broken>> {
        self.first.get_or_insert(envelope.seq);
        self.head = AuditHead { seq: envelope.seq, hash, ..self.head };
        self.last_at = envelope.at;
        if self.recent.len() == LAG_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(hash);
        for kept in self.anchors.heads.iter().filter(|kept| kept.gateway == self.head.gateway && kept.seq == self.head.seq) {
            if kept.hash != hash {
                return Err(self.at(self.head.seq, Fault::NotAsKept));
            }
            self.vouched = self.head.seq;
        }
        Ok(())
    }
}

fn read<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, Fault> {
    serde_json::from_str(text).map_err(|error| Fault::Unreadable(error.to_string()))
}
