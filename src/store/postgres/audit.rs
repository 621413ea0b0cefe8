//! The audit logs of a database, read by a store or by a command that does nothing else.

use uuid::Uuid;

use super::{readers::Readers, row, settings::PostgresSettings};
use crate::{
    domain::{audit::SealedRecord, ids::GatewayId},
    store::{StoreError, columns::count},
};

/// The audit logs of a database that is only looked at: no gateway's row is made or touched, and gateways that run are not disturbed.
pub struct PostgresAuditReader(Readers);

impl PostgresAuditReader {
    /// Makes one; it connects when it is asked, within a Tokio runtime. The settings' gateway and name do not matter.
    #[must_use]
    pub fn new(settings: PostgresSettings) -> Self {
        Self(Readers::new(settings))
    }

    /// The gateways that have one.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn logs(&self) -> Result<Vec<GatewayId>, StoreError> {
        logs(&self.0).await
    }

    /// At most `limit` records of a gateway's log from number `from` on, in order.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn records(&self, gateway: GatewayId, from: u64, limit: usize) -> Result<Vec<SealedRecord>, StoreError> {
        records(&self.0, gateway, from, limit).await
    }
}

pub(super) async fn logs(readers: &Readers) -> Result<Vec<GatewayId>, StoreError> {
    let sql = "SELECT id FROM gateways WHERE EXISTS (SELECT 1 FROM audit WHERE gateway = id) ORDER BY id";
    let rows = readers.query(sql, &[]).await?;
    rows.iter().map(|row| row::column::<Uuid>(row, 0).map(Into::into)).collect()
}

pub(super) async fn records(readers: &Readers, gateway: GatewayId, from: u64, limit: usize) -> Result<Vec<SealedRecord>, StoreError> {
    let sql = "SELECT seq, text, hash FROM audit WHERE gateway = $1 AND seq >= $2 ORDER BY seq LIMIT $3";
    let rows = readers.query(sql, &[&gateway.as_uuid(), &count(from), &count(limit as u64)]).await?;
    rows.iter().map(row::record).collect()
}
