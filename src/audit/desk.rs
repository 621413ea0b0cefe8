//! The audit log as operators look at it while the gateway runs: page by page, proved as a whole, carried out.
//!
//! Invariant: proving reads and hashes on a thread of its own; pages and exports hold one page of records at a time.

use std::sync::Arc;

use tokio::{runtime::Handle, task::spawn_blocking};

use super::{
    chain::{Anchors, SoundChain},
    export::to_line,
    verify::{VerifyError, verify_store},
};
use crate::{
    domain::{
        audit::{AuditHead, SealedRecord},
        ids::GatewayId,
    },
    store::{Store, StoreError},
};

/// How many records are read at a time.
pub const PAGE_LEN: usize = 50;
/// How many records an export reads at a time.
const EXPORT_AT_ONCE: usize = 500;

/// The audit log was not read: the store was not reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the store is not available")]
pub struct LogUnavailable;

/// The audit logs of a store. Cheap to clone.
#[derive(Clone)]
pub struct AuditDesk(Arc<dyn Store>);

/// Some records of a log, the newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Whose log.
    pub gateway: GatewayId,
    /// The records.
    pub records: Vec<SealedRecord>,
}

impl AuditDesk {
    /// Looks at the logs in `store`.
    #[must_use]
    pub const fn new(store: Arc<dyn Store>) -> Self {
        Self(store)
    }

    /// The gateways that have a log here.
    ///
    /// # Errors
    /// [`LogUnavailable`].
    pub async fn logs(&self) -> Result<Vec<GatewayId>, LogUnavailable> {
        Ok(self.0.audit_logs().await?)
    }

    /// The end of this gateway's own log.
    ///
    /// # Errors
    /// [`LogUnavailable`].
    pub async fn own_head(&self) -> Result<AuditHead, LogUnavailable> {
        Ok(self.0.audit_head().await?)
    }

    /// The page of a log that ends with record `last`, the newest first.
    ///
    /// # Errors
    /// [`LogUnavailable`].
    pub async fn page(&self, gateway: GatewayId, last: u64) -> Result<Page, LogUnavailable> {
        let first = last.saturating_sub(PAGE_LEN as u64 - 1).max(1);
        let mut records = self.0.audit_records(gateway, first, PAGE_LEN).await?;
        records.retain(|record| record.seq <= last);
        records.reverse();
        Ok(Page { gateway, records })
    }

    /// Whether there is a record of this number in a log.
    ///
    /// # Errors
    /// [`LogUnavailable`].
    pub async fn has(&self, gateway: GatewayId, seq: u64) -> Result<bool, LogUnavailable> {
        Ok(!self.0.audit_records(gateway, seq, 1).await?.is_empty())
    }

    /// Proves every chain in the store. Takes about a second for a hundred thousand records, on a thread of its own.
    ///
    /// # Errors
    /// [`VerifyError`]; of a broken log the first broken record.
    pub async fn verify(&self) -> Result<Vec<SoundChain>, VerifyError> {
        let (store, runtime) = (Arc::clone(&self.0), Handle::current());
        let proved = spawn_blocking(move || runtime.block_on(async { verify_store(&store, &Anchors::default()).await }));
        proved.await.unwrap_or_else(|error| Err(StoreError::Unavailable(error.to_string()).into()))
    }

    /// The next lines of a log's export from record `from` on, and where it goes on; `None` at its end.
    ///
    /// # Errors
    /// [`LogUnavailable`].
    pub async fn export(&self, gateway: GatewayId, from: u64) -> Result<Option<(String, u64)>, LogUnavailable> {
        let records = self.0.audit_records(gateway, from, EXPORT_AT_ONCE).await?;
        let Some(last) = records.last() else { return Ok(None) };
        let next = last.seq.saturating_add(1);
        Ok(Some((records.iter().map(to_line).collect(), next)))
    }
}

impl From<StoreError> for LogUnavailable {
    fn from(error: StoreError) -> Self {
        tracing::error!(error = %error, "the audit log cannot be read");
        Self
    }
}
