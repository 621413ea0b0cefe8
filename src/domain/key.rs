//! Keys as the configuration declares them, and how a request chooses one.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{
    algorithm::SignatureAlgorithm,
    ids::KeyName,
    key_uri::{Pkcs11Uri, UriError},
};

/// A key that the configuration gives a name. A name stands for exactly one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfiguredKey {
    /// Its name.
    pub name: KeyName,
    /// Where it is: token attributes and `id` or `object`.
    pub uri: Pkcs11Uri,
    /// How it signs; `None` for what suits its kind.
    pub algorithm: Option<SignatureAlgorithm>,
    /// Its certificate in DER, where the token does not carry it.
    pub certificate: Option<Vec<u8>>,
    /// Certificates of its CAs in DER, nearest first, for embedding.
    pub chain: Vec<Vec<u8>>,
    /// It signs although its certificate has expired or is not valid yet.
    pub ignore_validity: bool,
    /// It signs documents although its certificate is for time stamps alone.
    pub ignore_purpose: bool,
    /// Signatures may leave although the gateway cannot verify them.
    pub allow_unverified: bool,
}

/// Which key a request wants.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum KeyChoice {
    /// The caller's default key.
    Default,
    /// A configured key by name.
    Named(KeyName),
    /// A token, or a key on one, by URI.
    Uri(Pkcs11Uri),
}

impl FromStr for KeyChoice {
    type Err = UriError;

    /// Parses a name or a URI; a URI has a colon, which no name has.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self::Named).or_else(|_| text.parse().map(Self::Uri))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_chosen_by_name_or_by_uri() {
        assert_eq!("seal".parse(), Ok(KeyChoice::Named("seal".parse().unwrap())));
        assert_eq!("pkcs11:id=%01".parse(), Ok(KeyChoice::Uri("pkcs11:id=%01".parse().unwrap())));
        for wrong in ["", "a seal", "/media/disk/Key-6.dat"] {
            assert_eq!(wrong.parse::<KeyChoice>(), Err(UriError::Scheme), "{wrong}");
        }
    }
}
