//! Why an issuer revoked a certificate (RFC 5280 section 5.3.1).

use std::fmt;

/// `CRLReason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RevocationReason {
    /// No reason that has a name.
    Unspecified,
    /// Somebody else may have the key.
    KeyCompromise,
    /// Somebody else may have the CA's key.
    CaCompromise,
    /// The subject's name has changed.
    AffiliationChanged,
    /// There is another certificate in its place.
    Superseded,
    /// It is not needed any more.
    CessationOfOperation,
    /// It is suspended.
    CertificateHold,
    /// A privilege was taken away.
    PrivilegeWithdrawn,
    /// An attribute authority's key may be somebody else's.
    AaCompromise,
}

impl RevocationReason {
    /// The reason with this number; `None` for `removeFromCRL` and for numbers without a meaning.
    pub(super) const fn of_code(code: u8) -> Option<Self> {
        Some(match code {
            0 => Self::Unspecified,
            1 => Self::KeyCompromise,
            2 => Self::CaCompromise,
            3 => Self::AffiliationChanged,
            4 => Self::Superseded,
            5 => Self::CessationOfOperation,
            6 => Self::CertificateHold,
            9 => Self::PrivilegeWithdrawn,
            10 => Self::AaCompromise,
            _ => return None,
        })
    }

    /// Whether what a time-stamping authority stamped before stays good (RFC 3161 section 4, item 1).
    #[must_use]
    pub const fn leaves_earlier_time_stamps(self) -> bool {
        matches!(self, Self::Unspecified | Self::AffiliationChanged | Self::Superseded | Self::CessationOfOperation)
    }
}

impl fmt::Display for RevocationReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unspecified => "unspecified",
            Self::KeyCompromise => "keyCompromise",
            Self::CaCompromise => "cACompromise",
            Self::AffiliationChanged => "affiliationChanged",
            Self::Superseded => "superseded",
            Self::CessationOfOperation => "cessationOfOperation",
            Self::CertificateHold => "certificateHold",
            Self::PrivilegeWithdrawn => "privilegeWithdrawn",
            Self::AaCompromise => "aACompromise",
        })
    }
}
