//! What a certificate may be used for: `keyUsage` and `extKeyUsage` of the leaf, read for each purpose as its standard reads them.

use const_oid::{ObjectIdentifier, db::rfc5912};

use super::PathFault;
use crate::pki::certificate::{Certificate, KeyUsage};

/// `id-kp-documentSigning` (RFC 9336).
const DOCUMENT_SIGNING: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.36");
/// Document signing as Microsoft and Adobe named it before there was a standard.
const VENDORS_DOCUMENT_SIGNING: [ObjectIdentifier; 2] =
    [ObjectIdentifier::new_unwrap("1.3.6.1.4.1.311.10.3.12"), ObjectIdentifier::new_unwrap("1.2.840.113583.1.1.5")];
/// Purposes that are somebody else's business. A certificate that is limited to these signs no documents.
const OTHERS: [ObjectIdentifier; 5] = [
    rfc5912::ID_KP_SERVER_AUTH,
    rfc5912::ID_KP_CLIENT_AUTH,
    rfc5912::ID_KP_CODE_SIGNING,
    rfc5912::ID_KP_TIME_STAMPING,
    rfc5912::ID_KP_OCSP_SIGNING,
];

/// What a certificate is needed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Nothing in particular: the path alone counts.
    Any,
    /// Signatures of documents.
    DocumentSigning,
    /// Time stamps (RFC 3161).
    TimeStamping,
    /// Answers of an OCSP responder that its CA delegated (RFC 6960 section 4.2.2.2).
    OcspSigning,
    /// CRLs (RFC 5280 section 6.3.3).
    CrlSigning,
}

impl Purpose {
    /// Whether a certificate may be used so.
    ///
    /// # Errors
    /// [`PathFault::KeyUsage`], [`PathFault::ExtendedKeyUsage`].
    pub fn check(self, certificate: &Certificate) -> Result<(), PathFault> {
        let usage = certificate.key_usage();
        let extended = certificate.extended_key_usage();
        let has = |wanted: ObjectIdentifier| extended.as_ref().is_some_and(|(_, purposes)| purposes.contains(&wanted));
        match self {
            Self::Any => Ok(()),
            Self::CrlSigning if usage.is_none_or(|usage| usage.crl_sign) => Ok(()),
            Self::CrlSigning => Err(PathFault::KeyUsage("signatures of CRLs")),
            // RFC 3161 section 2.3: this purpose, no other, and critical.
            Self::TimeStamping if !matches!(&extended, Some((true, only)) if *only == [rfc5912::ID_KP_TIME_STAMPING]) => {
                Err(PathFault::ExtendedKeyUsage("time stamps, which it must name alone and as critical"))
            }
            Self::OcspSigning if !has(rfc5912::ID_KP_OCSP_SIGNING) => Err(PathFault::ExtendedKeyUsage("answers of an OCSP responder")),
            Self::DocumentSigning if extended.as_ref().is_some_and(|(_, purposes)| !allow_documents(purposes)) => {
                Err(PathFault::ExtendedKeyUsage("signatures of documents"))
            }
            Self::TimeStamping | Self::OcspSigning | Self::DocumentSigning if usage.is_none_or(KeyUsage::signs_documents) => Ok(()),
            Self::TimeStamping | Self::OcspSigning | Self::DocumentSigning => Err(PathFault::KeyUsage("signatures")),
        }
    }
}

/// Whether purposes leave room for documents: one that says so, `emailProtection`, `anyExtendedKeyUsage`, or a purpose that a community has
/// named for itself, as national CAs do for seals and signatures.
fn allow_documents(purposes: &[ObjectIdentifier]) -> bool {
    let says_so = |purpose: &ObjectIdentifier| {
        [DOCUMENT_SIGNING, rfc5912::ID_KP_EMAIL_PROTECTION, rfc5912::ANY_EXTENDED_KEY_USAGE].contains(purpose)
            || VENDORS_DOCUMENT_SIGNING.contains(purpose)
    };
    purposes.iter().any(|purpose| says_so(purpose) || !OTHERS.contains(purpose))
}
