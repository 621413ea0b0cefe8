//! A whole log, proved: the chains of all gateways in a store or in an export, one after the other.
//!
//! What is written may come from anybody, so nothing in it is believed and no part of it is kept but the hashes that [`ChainVerifier`]
//! needs. Invariant: a log is sound only if every line and every record of it was looked at.

use std::io::{self, BufRead, Read as _};

use serde::Deserialize;

use super::{
    chain::{Anchors, Broken, ChainVerifier, Fault, SoundChain},
    export::{LogSource, Pages, of_line},
};
use crate::{
    domain::{
        audit::{SealedRecord, Sha256},
        ids::GatewayId,
    },
    store::StoreError,
};

/// The longest line of an export that is looked at, in bytes.
pub const LINE_MAX: usize = 16 << 20;

/// The most chains in one log.
const CHAINS_MAX: usize = 4_096;

/// Why a log is not sound, or not known to be.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// It is broken.
    #[error("record {}: {}", .0.record, .0.fault)]
    Broken(Box<Broken>),
    /// The store was not reached.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The export was not read.
    #[error("the export cannot be read: {0}")]
    Read(#[from] io::Error),
}

impl From<Box<Broken>> for VerifyError {
    fn from(broken: Box<Broken>) -> Self {
        Self::Broken(broken)
    }
}

/// Proves the log that a store holds.
///
/// # Errors
/// [`VerifyError`]; of a broken log the first broken record.
pub async fn verify_store(source: &dyn LogSource, anchors: &Anchors) -> Result<Vec<SoundChain>, VerifyError> {
    let mut sound = Vec::new();
    for gateway in source.logs().await? {
        let mut chain = ChainVerifier::new(gateway, anchors);
        // From 0, so that a record before the first one is seen, too.
        let mut pages = Pages::new(source, gateway, 0);
        loop {
            let page = pages.next().await?;
            if page.is_empty() {
                break;
            }
            page.iter().try_for_each(|record| chain.push(record))?;
        }
        sound.push(chain.finish()?);
    }
    Ok(all_there(sound, anchors)?)
}

/// Proves the log in an export.
///
/// # Errors
/// [`VerifyError`]; of a broken log the first broken record.
pub fn verify_export(mut export: impl BufRead, anchors: &Anchors) -> Result<Vec<SoundChain>, VerifyError> {
    let mut log = ExportVerifier { anchors, sound: Vec::new(), chain: None };
    let mut line = Vec::new();
    loop {
        line.clear();
        let limit = u64::try_from(LINE_MAX).unwrap_or(u64::MAX);
        if export.by_ref().take(limit).read_until(b'\n', &mut line)? == 0 {
            return Ok(log.finish()?);
        }
        log.take(&line)?;
    }
}

/// The names in a record by which it is put into its chain.
#[derive(Deserialize)]
struct Place {
    gateway: GatewayId,
    seq: u64,
}

struct ExportVerifier<'a> {
    anchors: &'a Anchors,
    sound: Vec<SoundChain>,
    chain: Option<ChainVerifier<'a>>,
}

impl<'a> ExportVerifier<'a> {
    fn take(&mut self, line: &[u8]) -> Result<(), Box<Broken>> {
        let record = line.strip_suffix(b"\n").and_then(|line| std::str::from_utf8(line).ok()).and_then(of_line);
        let Some((text, hash)) = record else {
            return Err(self.unreadable("the line is cut off, or not one of an export"));
        };
        let place = serde_json::from_str::<Place>(text);
        if Sha256::of(text.as_bytes()) != hash {
            let of_another = |gateway| self.chain.as_ref().is_none_or(|chain| chain.gateway() != gateway);
            return Err(match place {
                // The first record of the next chain, by all that can be told.
                Ok(Place { gateway, seq: 1 }) if of_another(gateway) => {
                    Box::new(Broken { gateway: Some(gateway), record: 1, fault: Fault::Edited })
                }
                _ => self.here(Fault::Edited),
            });
        }
        let Ok(Place { gateway, seq }) = place else { return Err(self.unreadable("its text is not a record")) };
        if self.chain.as_ref().is_none_or(|chain| chain.gateway() != gateway) {
            self.turn_to(gateway, seq)?;
        }
        let chain = self.chain.get_or_insert_with(|| ChainVerifier::new(gateway, self.anchors));
        chain.push(&SealedRecord { seq, text: text.to_owned(), hash })
    }

    /// Another gateway's record: the next chain begins, unless it is a record that does not belong there.
    fn turn_to(&mut self, gateway: GatewayId, seq: u64) -> Result<(), Box<Broken>> {
        let begins = seq == 1 || self.anchors.heads.iter().any(|kept| kept.gateway == gateway && kept.seq.checked_add(1) == Some(seq));
        if self.chain.is_some() && !begins {
            return Err(self.here(Fault::Foreign(gateway)));
        }
        if let Some(chain) = self.chain.take() {
            self.sound.push(chain.finish()?);
        }
        let known = self.sound.iter().any(|sound| sound.head.gateway == gateway);
        if known || self.sound.len() >= CHAINS_MAX {
            return Err(Box::new(Broken { gateway: Some(gateway), record: seq, fault: Fault::SecondLog }));
        }
        self.chain = Some(ChainVerifier::new(gateway, self.anchors));
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<SoundChain>, Box<Broken>> {
        if let Some(chain) = self.chain.take() {
            self.sound.push(chain.finish()?);
        }
        all_there(self.sound, self.anchors)
    }

    /// The fault of the line that stands where the next record should.
    fn here(&self, fault: Fault) -> Box<Broken> {
        match &self.chain {
            Some(chain) => chain.refuse(fault),
            None => Box::new(Broken { gateway: None, record: 1, fault }),
        }
    }

    fn unreadable(&self, why: &str) -> Box<Broken> {
        self.here(Fault::Unreadable(why.to_owned()))
    }
}

/// No chain is missing of which a head was kept, and there is at least one.
fn all_there(sound: Vec<SoundChain>, anchors: &Anchors) -> Result<Vec<SoundChain>, Box<Broken>> {
    let is_there = |gateway| sound.iter().any(|chain| chain.head.gateway == gateway);
    if let Some(gone) = anchors.heads.iter().find(|kept| kept.seq > 0 && !is_there(kept.gateway)) {
        return Err(Box::new(Broken { gateway: Some(gone.gateway), record: 1, fault: Fault::Gone(gone.seq) }));
    }
    if sound.is_empty() {
        return Err(Box::new(Broken { gateway: None, record: 1, fault: Fault::Empty }));
    }
    Ok(sound)
}
