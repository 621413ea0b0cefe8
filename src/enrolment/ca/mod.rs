//! The port to whoever issues certificates, and what stands behind it: a person, the CA of development mode, or a CA that speaks EST.

mod development;
pub mod est;

use std::time::Duration;

use async_trait::async_trait;

pub use self::development::DevelopmentCa;
use crate::domain::enrolment::IssuedCertificate;

/// What a CA is asked to certify.
#[derive(Debug, Clone, Copy)]
pub struct CaRequest<'a> {
    /// The request (PKCS#10) in DER.
    pub request: &'a [u8],
    /// The certificate that is renewed, in DER.
    pub renews: Option<&'a [u8]>,
}

/// What a CA answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CaAnswer {
    /// The certificate, and those of its CAs.
    Issued(IssuedCertificate),
    /// It has not decided.
    Pending {
        /// What it is to be asked for.
        reference: Option<String>,
        /// When it wants to be asked again; `None`: it does not, somebody brings the certificate.
        retry_after: Option<Duration>,
    },
    /// It will not issue, for this reason.
    Rejected(String),
}

/// Why a CA gave no answer that counts. It is asked again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CaError {
    /// It was not reached, or is not able now.
    #[error("the CA is not available: {why}")]
    Unavailable {
        /// Why.
        why: String,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// What it answered is against its protocol, or is no certificate of this key.
    #[error("the CA's answer is not right: {0}")]
    Misbehaved(String),
}

/// Who issues certificates.
#[async_trait]
pub trait CertificateAuthority: Send + Sync {
    /// Hands a request in.
    ///
    /// # Errors
    /// [`CaError`]: whether the CA has it is not known, and it is handed in again.
    async fn submit(&self, request: CaRequest<'_>) -> Result<CaAnswer, CaError>;

    /// Asks for a request that was handed in before.
    ///
    /// # Errors
    /// [`CaError`].
    async fn poll(&self, reference: Option<&str>, request: CaRequest<'_>) -> Result<CaAnswer, CaError>;

    /// Whether it renews certificates by itself, for the same key.
    fn renews(&self) -> bool {
        false
    }
}
