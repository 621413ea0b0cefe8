//! Identifiers: UUIDs that cannot be mixed up, and names that an operator gives in the configuration.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// Makes a new random id (UUID version 4), which nobody can guess.
            #[must_use]
            pub fn random() -> Self {
                Self(Uuid::new_v4())
            }

            /// The id as a UUID.
            #[must_use]
            pub const fn as_uuid(&self) -> Uuid {
                self.0
            }
        }

        impl From<Uuid> for $name {
            fn from(uuid: Uuid) -> Self {
                Self(uuid)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            /// Parses the hyphenated form only: that is what the wire prints, and one spelling per id keeps logs searchable.
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                uuid::fmt::Hyphenated::from_str(text).map(|id| Self(id.into_uuid()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }
    };
}

uuid_id! {
    /// A ticket: one session of the ticket API.
    TicketId
}
uuid_id! {
    /// A signing job.
    JobId
}
uuid_id! {
    /// A permit: consent for N signatures (the ticket API's access token, CSC's SAD).
    PermitId
}

uuid_id! {
    /// A gateway: one data folder, whatever process serves it.
    GatewayId
}
uuid_id! {
    /// A certificate request; see [`EnrolmentId::of`].
    EnrolmentId
}
uuid_id! {
    /// One claim of a job for a token: who has a later one cannot be overwritten by who had this one.
    ClaimId
}

/// The longest name an operator may give, in characters.
pub const NAME_MAX: usize = 64;

/// A name that is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a name: use 1 to {NAME_MAX} letters, digits, `.`, `_` or `-`")]
pub struct NameError(String);

macro_rules! name_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                let lawful = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
                if text.is_empty() || text.len() > NAME_MAX || !text.chars().all(lawful) {
                    return Err(NameError(text.chars().take(NAME_MAX).collect()));
                }
                Ok(Self(text))
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::try_from(text.to_owned())
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name_id! {
    /// The name of an operator.
    OperatorName
}
name_id! {
    /// The name of a configured key; stands for exactly one key on one token.
    KeyName
}
name_id! {
    /// The name of a configured enrolment profile: what certificates of one kind look like and who issues them.
    ProfileName
}
name_id! {
    /// The name of a configured PKCS#11 module.
    ModuleName
}
/// The longest idempotency key, in characters.
pub const IDEMPOTENCY_KEY_MAX: usize = 255;

/// What a client names a request with, so that the same one sent again is known: printable ASCII of its own choice (`Idempotency-Key`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdempotencyKey(String);

/// Text that is no idempotency key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an idempotency key has 1 to {IDEMPOTENCY_KEY_MAX} printable ASCII characters")]
pub struct IdempotencyKeyError;

impl IdempotencyKey {
    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for IdempotencyKey {
    type Err = IdempotencyKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let lawful = !text.is_empty() && text.len() <= IDEMPOTENCY_KEY_MAX && text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        if lawful { Ok(Self(text.to_owned())) } else { Err(IdempotencyKeyError) }
    }
}

name_id! {
    /// The name of a caller: a program or page that may ask for signatures.
    CallerId
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_id_is_read_in_the_form_that_it_is_printed_in_and_in_no_other() {
        let id = TicketId::random();
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!(id.as_uuid().simple().to_string().parse::<TicketId>().is_err());
        assert!(format!("{{{id}}}").parse::<TicketId>().is_err());
    }

    #[test]
    fn a_name_is_short_and_plain() {
        assert!("rsa-2048".parse::<KeyName>().is_ok());
        for bad in ["", "a b", "ключ", "a/b", &"x".repeat(NAME_MAX + 1)] {
            assert!(bad.parse::<KeyName>().is_err(), "{bad}");
        }
    }
}
