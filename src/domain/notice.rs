//! What somebody elsewhere may be told of: the one list of its kinds, for the configuration and for what is sent.

use std::fmt;

/// The kinds of notice, to choose from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NoticeKind {
    /// An operator is asked for consent.
    ConsentWaiting,
    /// A token signs nothing before an operator gives it its PIN.
    PinNeeded,
    /// A token that was there is not there any more.
    TokenGone,
    /// A key's certificate ends soon.
    CertificateExpiring,
}

impl NoticeKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::ConsentWaiting, Self::PinNeeded, Self::TokenGone, Self::CertificateExpiring];

    /// Its name in the configuration and in notices.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ConsentWaiting => "consent-waiting",
            Self::PinNeeded => "pin-needed",
            Self::TokenGone => "token-gone",
            Self::CertificateExpiring => "certificate-expiring",
        }
    }
}

impl fmt::Display for NoticeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
