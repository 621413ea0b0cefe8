//! The CA of development mode: it issues to everybody, at once, what was asked for.

use std::time::{Duration, SystemTime};

use async_trait::async_trait;

use super::{CaAnswer, CaError, CaRequest, CertificateAuthority};
use crate::{
    domain::{enrolment::IssuedCertificate, timestamp::Timestamp},
    pki::{DevCa, Validity, csr::CertificateRequest},
};

/// How long its certificates are valid.
const VALID_FOR: Duration = Duration::from_secs(365 * 24 * 3600);

/// The CA of development mode.
pub struct DevelopmentCa(DevCa);

impl DevelopmentCa {
    /// Takes a CA into service.
    #[must_use]
    pub const fn new(ca: DevCa) -> Self {
        Self(ca)
    }

    fn issue(&self, request: &[u8]) -> Result<IssuedCertificate, String> {
        let request = CertificateRequest::from_der(request).map_err(|error| error.to_string())?;
        let now = Timestamp::from(SystemTime::now());
        let validity = Validity::new(now, now.after(VALID_FOR)).map_err(|error| error.to_string())?;
        let certificate = self.0.issue_to(request.spki(), request.subject(), validity).map_err(|error| error.to_string())?;
        Ok(IssuedCertificate::new(certificate.as_der().to_vec(), vec![self.0.certificate().as_der().to_vec()]))
    }
}

#[async_trait]
impl CertificateAuthority for DevelopmentCa {
    async fn submit(&self, request: CaRequest<'_>) -> Result<CaAnswer, CaError> {
        Ok(self.issue(request.request).map_or_else(CaAnswer::Rejected, CaAnswer::Issued))
    }

    async fn poll(&self, _: Option<&str>, request: CaRequest<'_>) -> Result<CaAnswer, CaError> {
        self.submit(request).await
    }
}
