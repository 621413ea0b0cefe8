//! Path validation: whether a certificate was good for a purpose at a time (RFC 5280 section 6), and if not, why.
//!
//! Paths are found here, within bounds; each is judged by a library (`rules`), and what a certificate may be used for by [`Purpose`].
//! Nothing is fetched and no clock is read: certificates, time and revocation come with the request.
//! Invariants: every signature on a path is verified with `domain::verify`; a failure names the certificate and the rule; a path that no
//! rule forbids but that costs too much to find is refused.

mod build;
mod purpose;
mod rules;

use std::fmt;

use const_oid::ObjectIdentifier;

pub(super) use build::chain_by_name;
pub use purpose::Purpose;

use super::{certificate::Certificate, revocation::RevocationReason};
use crate::domain::timestamp::Timestamp;

/// The most certificates on a path, the anchor among them.
pub const PATH_MAX: usize = 10;
/// The most certificates that are looked at as links of a path, apart from those of the trust store.
pub const SUPPLIED_MAX: usize = 64;
/// The most paths that are tried for one certificate.
const TRIES_MAX: usize = 32;

/// What is asked of a certificate.
pub struct PathRequest<'a> {
    /// The certificate.
    pub leaf: &'a Certificate,
    /// CAs that may stand between it and an anchor: of the trust store, of the signature, of anywhere. None is trusted.
    pub intermediates: &'a [&'a Certificate],
    /// Those that are trusted.
    pub anchors: &'a [&'a Certificate],
    /// A CA that must be on the path above the leaf.
    pub through: Option<&'a Certificate>,
    /// When it must have been good.
    pub at: Timestamp,
    /// What it must have been good for.
    pub purpose: Purpose,
    /// Whether it had been revoked; `None` asks nobody.
    pub revocation: Option<&'a dyn RevocationStatus>,
    /// The policies that are wanted; usually none.
    pub policies: &'a Policies,
}

/// Inputs about certificate policies (RFC 5280 section 6.1.1); the default wants none and forbids nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policies {
    /// The policies of which one must be valid along the path; empty for any.
    pub acceptable: Vec<ObjectIdentifier>,
    /// A policy must be valid along the path.
    pub explicit: bool,
    /// Policies are not mapped to others.
    pub inhibit_mapping: bool,
    /// `anyPolicy` matches nothing.
    pub inhibit_any: bool,
}

/// Says whether certificates had been revoked, from CRLs or OCSP answers that it has.
pub trait RevocationStatus {
    /// The status at a time of `certificate`, which `issuer` issued, on a path that ends at `anchor`.
    fn status(&self, certificate: &Certificate, issuer: &Certificate, anchor: &Certificate, at: Timestamp) -> Revocation;
}

/// The status of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revocation {
    /// It had not been revoked.
    Good,
    /// It had been revoked.
    Revoked {
        /// When.
        since: Timestamp,
        /// The issuer's reason (RFC 5280 section 5.3.1), if it gave one.
        reason: Option<RevocationReason>,
    },
    /// Nobody can say; the text says why.
    Unknown(String),
}

/// A path that was found good: leaf first, anchor last. A leaf that is an anchor itself stands alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidPath {
    /// The certificates.
    pub certificates: Vec<Certificate>,
}

impl ValidPath {
    /// The anchor that the path ends at.
    #[must_use]
    pub fn anchor(&self) -> &Certificate {
        // INVARIANT: a path has at least one certificate.
        #[allow(clippy::expect_used)]
        self.certificates.last().expect("a path has an anchor")
    }
}

/// Why there is no good path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathError {
    /// The subject of the certificate that is at fault.
    pub certificate: String,
    /// What is wrong with it.
    pub fault: PathFault,
}

impl std::error::Error for PathError {}

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "certificate \"{}\": {}", self.certificate, self.fault)
    }
}

/// What is wrong with a certificate on its path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathFault {
    /// No chain of issuers leads to an anchor.
    #[error("no trusted certificate was found for its issuer \"{issuer}\"")]
    NoAnchor {
        /// The issuer that is missing.
        issuer: String,
    },
    /// Before its validity.
    #[error("it was not yet valid: it is from {from} on")]
    NotYetValid {
        /// When its validity begins (RFC 3339).
        from: String,
    },
    /// After its validity.
    #[error("it had expired on {since}")]
    Expired {
        /// When its validity ended (RFC 3339).
        since: String,
    },
    /// Its issuer's key did not sign it.
    #[error("its signature is wrong")]
    BadSignature,
    /// It is signed in a way, or with a key, that is not accepted.
    #[error("its signature cannot be verified: {0}")]
    UnsupportedAlgorithm(String),
    /// It issued a certificate and is no CA's.
    #[error("it is not a CA's certificate and has issued one")]
    NotCa,
    /// There are more CAs below one than it allows.
    #[error("there are more CAs on its path than one of them allows")]
    PathLength,
    /// Issuer and subject do not follow each other.
    #[error("its issuer's name is not that of the certificate above it")]
    NameChaining,
    /// Its name is outside of what a CA above it may certify.
    #[error("its name is not among those that a CA above it may certify")]
    NameConstraints,
    /// Its key may not be used so.
    #[error("its keyUsage does not allow {0}")]
    KeyUsage(&'static str),
    /// Its key may not be used so.
    #[error("its extKeyUsage does not allow {0}")]
    ExtendedKeyUsage(&'static str),
    /// No certificate policy that is wanted is valid along the path.
    #[error("no acceptable certificate policy is valid along its path")]
    Policy,
    /// It has a critical extension that is not understood.
    #[error("it has a critical extension that is not understood: {0}")]
    UnknownCriticalExtension(String),
    /// It is not as RFC 5280 wants it.
    #[error("it is malformed: {0}")]
    Malformed(&'static str),
    /// It had been revoked.
    #[error("it was revoked on {since}{}", reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default())]
    Revoked {
        /// When (RFC 3339).
        since: String,
        /// The issuer's reason.
        reason: Option<RevocationReason>,
    },
    /// Whether it had been revoked cannot be said.
    #[error("whether it was revoked cannot be said: {0}")]
    RevocationUnknown(String),
    /// No path leads through the CA that it must lead through.
    #[error("its path does not lead through the CA \"{0}\"")]
    OtherAuthority(String),
    /// There are too many ways to go.
    #[error("its path is too long, or there are too many to try")]
    TooComplex,
}

/// Finds a path from the certificate to an anchor that was good at the time for the purpose.
///
/// Costs up to a few hundred signature verifications in the worst case, and a handful in any other: never on an event loop.
///
/// # Errors
/// [`PathError`]: of the first path that was tried, if there are several and none is good.
pub fn validate_path(request: &PathRequest<'_>) -> Result<ValidPath, PathError> {
    let mut first = None;
    let mut tried = 0;
    let found = build::paths(request, |path| {
        tried += 1;
        match judge(request, path) {
            Ok(()) => build::Search::Stop,
            Err(error) => {
                first.get_or_insert(error);
                if tried < TRIES_MAX { build::Search::GoOn } else { build::Search::GiveUp }
            }
        }
    });
    match (found, first) {
        (build::Found::Path(path), _) => {
            // A purpose is about the leaf alone and the same on every path.
            request.purpose.check(request.leaf).map_err(|fault| fault_of(request.leaf, fault))?;
            Ok(ValidPath { certificates: path.into_iter().cloned().collect() })
        }
        (build::Found::Nothing { .. }, Some(error)) => Err(error),
        (build::Found::Nothing { missing }, None) => Err(fault_of(missing, PathFault::NoAnchor { issuer: missing.issuer() })),
        (build::Found::TooComplex, error) => Err(error.unwrap_or_else(|| fault_of(request.leaf, PathFault::TooComplex))),
    }
}

/// Judges one path: leaf first, anchor last.
fn judge(request: &PathRequest<'_>, path: &[&Certificate]) -> Result<(), PathError> {
    rules::check(request, path)?;
    if let Some(through) = request.through
        && !path[1..].contains(&through)
    {
        return Err(fault_of(request.leaf, PathFault::OtherAuthority(through.subject())));
    }
    let (Some(revocation), Some(anchor)) = (request.revocation, path.last()) else { return Ok(()) };
    for pair in path.windows(2) {
        let [certificate, issuer] = pair else { continue };
        match revocation.status(certificate, issuer, anchor, request.at) {
            Revocation::Good => {}
            Revocation::Revoked { since, reason } => {
                return Err(fault_of(certificate, PathFault::Revoked { since: since.to_rfc3339(), reason }));
            }
            Revocation::Unknown(why) => return Err(fault_of(certificate, PathFault::RevocationUnknown(why))),
        }
    }
    Ok(())
}

fn fault_of(certificate: &Certificate, fault: PathFault) -> PathError {
    PathError { certificate: certificate.subject(), fault }
}
