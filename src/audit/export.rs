//! The form in which a log leaves its store: one record a line, chain after chain.
//!
//! A line is `{"record":TEXT,"hash":"HEX"}` and a line feed: TEXT is the record byte for byte as it was hashed, HEX its SHA-256 in small
//! letters. It is JSON, and there is exactly one way to write it, so that a byte that was changed anywhere in an export shows.

use std::{io, sync::Arc};

use async_trait::async_trait;

use crate::{
    domain::{
        audit::{SealedRecord, Sha256},
        ids::GatewayId,
    },
    store::{Store, StoreError, postgres::PostgresAuditReader, sqlite::AuditReader},
};

const BEGINNING: &str = "{\"record\":";
const BETWEEN: &str = ",\"hash\":\"";
const END: &str = "\"}";
/// Digits of a SHA-256.
const HASH_DIGITS: usize = 64;

/// How many records are read from a store at a time.
const PAGE: usize = 1_000;

/// Why an export was not made.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The store was not reached.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The export was not written.
    #[error("the export cannot be written: {0}")]
    Write(#[from] io::Error),
}

/// The line of a record, with its line feed.
#[must_use]
pub fn to_line(record: &SealedRecord) -> String {
    format!("{BEGINNING}{}{BETWEEN}{}{END}\n", record.text, record.hash)
}

/// The text and the hash in a line without its line feed; `None` if it is not of the one form.
#[must_use]
pub fn of_line(line: &str) -> Option<(&str, Sha256)> {
    let inner = line.strip_prefix(BEGINNING)?.strip_suffix(END)?;
    let (rest, digits) = inner.split_at_checked(inner.len().checked_sub(HASH_DIGITS)?)?;
    let mut hash = [0; 32];
    hex::decode_to_slice(digits, &mut hash).ok()?;
    let hash = Sha256::from(hash);
    (hash.to_string() == digits).then_some((rest.strip_suffix(BETWEEN)?, hash))
}

/// Where logs are read from: a store that is in use, or a database that is only looked at.
#[async_trait(?Send)]
pub trait LogSource {
    /// The gateways that have one.
    ///
    /// # Errors
    /// They cannot be read.
    async fn logs(&self) -> Result<Vec<GatewayId>, StoreError>;

    /// At most `limit` records of a gateway's log from number `from` on, in order.
    ///
    /// # Errors
    /// They cannot be read.
    async fn records(&self, gateway: GatewayId, from: u64, limit: usize) -> Result<Vec<SealedRecord>, StoreError>;
}

#[async_trait(?Send)]
impl LogSource for Arc<dyn Store> {
    async fn logs(&self) -> Result<Vec<GatewayId>, StoreError> {
        self.audit_logs().await
    }

    async fn records(&self, gateway: GatewayId, from: u64, limit: usize) -> Result<Vec<SealedRecord>, StoreError> {
        self.audit_records(gateway, from, limit).await
    }
}

/// Reads without waiting for anybody: for a command that does nothing else meanwhile.
#[async_trait(?Send)]
impl LogSource for AuditReader {
    async fn logs(&self) -> Result<Vec<GatewayId>, StoreError> {
        Self::logs(self)
    }

    async fn records(&self, gateway: GatewayId, from: u64, limit: usize) -> Result<Vec<SealedRecord>, StoreError> {
        Self::records(self, gateway, from, limit)
    }
}

#[async_trait(?Send)]
impl LogSource for PostgresAuditReader {
    async fn logs(&self) -> Result<Vec<GatewayId>, StoreError> {
        Self::logs(self).await
    }

    async fn records(&self, gateway: GatewayId, from: u64, limit: usize) -> Result<Vec<SealedRecord>, StoreError> {
        Self::records(self, gateway, from, limit).await
    }
}

/// The records of one chain, page after page, from number `from` on.
pub struct Pages<'a> {
    source: &'a dyn LogSource,
    gateway: GatewayId,
    next: Option<u64>,
}

impl<'a> Pages<'a> {
    /// Begins at record `from` of `gateway`.
    #[must_use]
    pub fn new(source: &'a dyn LogSource, gateway: GatewayId, from: u64) -> Self {
        Self { source, gateway, next: Some(from) }
    }

    /// The next records; none when all have been given.
    ///
    /// # Errors
    /// The store was not reached.
    pub async fn next(&mut self) -> Result<Vec<SealedRecord>, StoreError> {
        let Some(from) = self.next else { return Ok(Vec::new()) };
        let page = self.source.records(self.gateway, from, PAGE).await?;
        self.next = page.last().filter(|_| page.len() == PAGE).and_then(|last| last.seq.checked_add(1));
        Ok(page)
    }
}

/// Writes every chain, each from record `from` on; returns how many records there were.
///
/// # Errors
/// [`ExportError`]; what was written until then is there.
pub async fn export(source: &dyn LogSource, from: u64, mut out: impl io::Write) -> Result<u64, ExportError> {
    let mut count = 0;
    for gateway in source.logs().await? {
        let mut pages = Pages::new(source, gateway, from);
        loop {
            let page = pages.next().await?;
            if page.is_empty() {
                break;
            }
            for record in &page {
                out.write_all(to_line(record).as_bytes())?;
                count += 1;
            }
        }
    }
    out.flush()?;
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_as_it_is_written_and_in_no_other_form() {
        let text = "{\"gateway\":\"a\",\"hash\":\"b\"}".to_owned();
        let record = SealedRecord { seq: 1, hash: Sha256::of(text.as_bytes()), text };
        let line = to_line(&record);
        let line = line.strip_suffix('\n').unwrap();
        assert_eq!(of_line(line), Some((record.text.as_str(), record.hash)));
        assert!(serde_json::from_str::<serde_json::Value>(line).is_ok());
        let others = [
            format!(" {line}"),
            format!("{line} "),
            line.replace("\"}}", "\"} }"),
            line.replace(&record.hash.to_string(), &record.hash.to_string().to_uppercase()),
            line.replace(",\"hash\":\"", ", \"hash\":\""),
            String::new(),
            "ї".repeat(60),
        ];
        for other in others.iter().filter(|other| *other != line) {
            let same_text = of_line(other).filter(|(text, hash)| Sha256::of(text.as_bytes()) == *hash);
            assert_eq!(same_text, None, "{other}");
        }
    }
}
