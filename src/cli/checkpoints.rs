//! The key that signs the audit log's checkpoints: a configured one, asked through the signing service like any other.

use std::sync::Arc;

use async_trait::async_trait;

use crate::{
    audit::checkpoint::{CheckpointSigner, SignedStatement},
    domain::ids::KeyName,
    signing::service::SigningService,
};

/// A key of the configuration.
pub(super) struct ConfiguredSigner {
    pub(super) key: KeyName,
    pub(super) signing: Arc<SigningService>,
}

#[async_trait]
impl CheckpointSigner for ConfiguredSigner {
    fn key_name(&self) -> &KeyName {
        &self.key
    }

    async fn sign(&self, statement: &[u8]) -> Result<SignedStatement, String> {
        let made = self.signing.sign_own(&self.key, statement).await.map_err(|denied| denied.to_string())?;
        Ok(SignedStatement { algorithm: made.algorithm, public_key: made.public_key, signature: made.value.to_x509_bytes() })
    }
}
