//! What is demanded of evidence that certificates were not revoked.

use serde::{Deserialize, Serialize};

/// What becomes of a certificate whose revocation is, or is not, known about. One that is known to have been revoked is refused by every
/// demand but [`Off`](Self::Off).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RevocationCheck {
    /// Nobody is asked.
    Off,
    /// One that nobody can say anything about is taken.
    IfKnown,
    /// One that nobody can say anything about is taken only if neither it nor the configuration names anybody who should.
    #[default]
    WhereNamed,
    /// One that nobody can say anything about is refused.
    Required,
}

impl RevocationCheck {
    /// Every demand, from the least on.
    pub const ALL: [Self; 4] = [Self::Off, Self::IfKnown, Self::WhereNamed, Self::Required];

    /// What it is called in configurations and on command lines.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::IfKnown => "if-known",
            Self::WhereNamed => "where-named",
            Self::Required => "required",
        }
    }
}

impl std::str::FromStr for RevocationCheck {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|check| check.name() == text);
        found.ok_or_else(|| format!("one of {}", Self::ALL.map(Self::name).join(", ")))
    }
}
