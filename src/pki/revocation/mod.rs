//! Whether a certificate is revoked: CRLs (RFC 5280) and OCSP (RFC 6960), checked here, fetched by the [`client`].
//!
//! What is checked is kept byte for byte, for signatures that carry their evidence with them; [`evidence`] judges by what they carry, and by
//! what is fetched for them. Invariants: an answer counts only if it was signed by the issuer, or by somebody whom the issuer has delegated;
//! if it covers the certificate; and if it is valid at the moment that is asked about. "Nobody can say" is never taken for "good" here.

pub mod client;
pub mod crl;
pub mod evidence;
pub mod ocsp;
mod reason;

use std::{fmt, time::Duration};

use der::{Decode, Encode, asn1::BitString, referenced::OwnedToRef as _};
use spki::AlgorithmIdentifierOwned;
use x509_cert::{Certificate, ext::pkix::BasicConstraints, time::Time};

pub use self::{
    client::{RevocationClient, RevocationSettings, RevocationSource, SourcePlace},
    crl::CheckedCrl,
    evidence::{Inquiry, KnownEvidence, StatusBook},
    ocsp::CheckedOcsp,
    reason::RevocationReason,
};
use super::{CERTIFICATE_MAX, fetch::FetchError};
use crate::domain::{algorithm_identifier::NamedAlgorithm, timestamp::Timestamp};

/// How far clocks may be apart.
pub const CLOCK_SKEW: Duration = Duration::from_secs(300);

/// Why it cannot be said that a certificate is good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RevocationError {
    /// It is revoked.
    #[error("it was revoked at {0}")]
    Revoked(Revoked),
    /// Nobody is known who could say: neither certificate nor configuration names a CRL or a responder.
    #[error("neither it nor the configuration says where its revocation can be asked about")]
    NoSource,
    /// The certificate or its issuer cannot be read, or the two do not belong together.
    #[error("{0}")]
    Certificate(String),
    /// Nothing was had from this place.
    #[error("{place}: {error}")]
    Fetch {
        /// Its host, or that it is a file.
        place: String,
        /// Why.
        error: FetchError,
    },
    /// It took too long in all.
    #[error("nothing was had within {} s", .0.as_secs())]
    TooSlow(Duration),
    /// A CRL that does not count.
    #[error("its CRL does not count: {0}")]
    Crl(String),
    /// An OCSP answer that does not count.
    #[error("its OCSP answer does not count: {0}")]
    Ocsp(String),
}

impl From<der::Error> for RevocationError {
    fn from(error: der::Error) -> Self {
        Self::Certificate(format!("it cannot be read: {error}"))
    }
}

/// Since when a certificate is revoked, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revoked {
    /// Since when.
    pub since: Timestamp,
    /// The issuer's reason, if it gave one.
    pub reason: Option<RevocationReason>,
}

impl fmt::Display for Revoked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.since.to_rfc3339())?;
        self.reason.map_or(Ok(()), |reason| write!(f, " ({reason})"))
    }
}

/// When a certificate must have been good, and when that is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// When it must have been good.
    pub at: Timestamp,
    /// Now: evidence may be from any time until then.
    pub now: Timestamp,
}

impl Moment {
    /// A certificate that must be good now.
    #[must_use]
    pub const fn present(now: Timestamp) -> Self {
        Self { at: now, now }
    }
}

/// Evidence that a certificate was good when it was asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Evidence {
    /// A CRL without it.
    Crl(CheckedCrl),
    /// An answer that says so.
    Ocsp(CheckedOcsp),
}

/// A certificate and its issuer, which belong together by name.
pub struct Subject<'a> {
    /// The certificate that is asked about.
    pub certificate: &'a Certificate,
    /// Its issuer's.
    pub issuer: &'a Certificate,
}

impl Subject<'_> {
    fn is_ca(&self) -> bool {
        let constraints = self.certificate.tbs_certificate().get_extension::<BasicConstraints>();
        constraints.is_ok_and(|found| found.is_some_and(|(_, constraints)| constraints.ca))
    }
}

/// Parses a certificate for [`Subject`].
fn parse(der: &[u8]) -> Result<Certificate, RevocationError> {
    if der.len() > CERTIFICATE_MAX {
        return Err(RevocationError::Certificate(format!("it has more than {CERTIFICATE_MAX} bytes")));
    }
    Ok(Certificate::from_der(der)?)
}

fn time_of(time: Time) -> Timestamp {
    Timestamp::from_millis(u64::try_from(time.to_unix_duration().as_millis()).unwrap_or(u64::MAX))
}

/// Whether a certificate was valid; the whole of its last second is.
fn valid_at(certificate: &Certificate, at: Timestamp) -> bool {
    let validity = certificate.tbs_certificate().validity();
    (time_of(validity.not_before)..=time_of(validity.not_after).after(Duration::from_millis(999))).contains(&at)
}

/// Checks the signature of a certificate, CRL or OCSP answer with its issuer's key.
fn verify_signed(issuer: &Certificate, algorithm: &AlgorithmIdentifierOwned, signed: &[u8], signature: &BitString) -> Result<(), String> {
    let algorithm = NamedAlgorithm::read(&algorithm.owned_to_ref(), None).map_err(|unknown| unknown.to_string())?;
    let spki = issuer.tbs_certificate().subject_public_key_info().to_der().map_err(|_| "the issuer's key cannot be read".to_owned())?;
    let signature = signature.as_bytes().ok_or_else(|| "it does not have whole bytes".to_owned())?;
    algorithm.verify_message(&spki, signed, signature).map_err(|error| error.to_string())
}
