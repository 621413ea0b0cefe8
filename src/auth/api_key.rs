//! API keys, and the hashes of them that are kept.

use std::{
    collections::{HashMap, hash_map::RandomState},
    fmt,
    hash::BuildHasher as _,
    str::FromStr,
};

use aws_lc_rs::{
    digest,
    rand::{SecureRandom, SystemRandom},
};
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::domain::{audit::Sha256, ids::CallerId, timestamp::Timestamp};

/// How many letters and digits an API key has: 226 bits that nobody can guess, in a form that survives copying.
pub const API_KEY_LEN: usize = 38;

const LETTERS_AND_DIGITS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// An API key. No `Clone`, `Display` or `Serialize`; `Debug` shows nothing; the memory is wiped when it is dropped.
pub struct ApiKey(SecretString);

impl ApiKey {
    /// The key in clear: to be shown once to whoever is to use it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(…)")
    }
}

/// The system gave no random numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system gave no random numbers")]
pub struct RandomUnavailable;

/// Makes a new API key.
///
/// # Errors
/// [`RandomUnavailable`].
pub fn generate_api_key() -> Result<ApiKey, RandomUnavailable> {
    Ok(ApiKey(SecretString::from(letters_and_digits(API_KEY_LEN)?.as_str())))
}

/// Random letters and digits, each as likely as the others.
pub(super) fn letters_and_digits(len: usize) -> Result<Zeroizing<String>, RandomUnavailable> {
    let random = SystemRandom::new();
    let mut text = Zeroizing::new(String::with_capacity(len));
    let mut bytes = Zeroizing::new([0u8; 64]);
    while text.len() < len {
        random.fill(&mut bytes[..]).map_err(|_| RandomUnavailable)?;
        // Bytes from the last, incomplete run of 62 are left out, or some characters would be likelier than others.
        let even = bytes.iter().map(|byte| usize::from(*byte)).filter(|byte| *byte < 62 * 4);
        let missing = len - text.len();
        text.extend(even.take(missing).map(|byte| char::from(LETTERS_AND_DIGITS[byte % 62])));
    }
    Ok(text)
}

/// The SHA-256 of an API key, as it stands in a configuration: 64 hexadecimal digits.
///
/// A plain hash is enough for a key that is random: there is nothing to guess it from.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKeyHash([u8; 32]);

/// A text that is no hash of an API key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the hash of an API key is its SHA-256 in 64 hexadecimal digits")]
pub struct ApiKeyHashError;

impl ApiKeyHash {
    /// The hash of a key in clear.
    #[must_use]
    pub fn of(key: &str) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, key.as_bytes()).as_ref());
        Self(hash)
    }

    /// Whether this is the hash of the same key; takes equally long whichever byte differs.
    #[must_use]
    pub fn matches(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl From<Sha256> for ApiKeyHash {
    fn from(hash: Sha256) -> Self {
        Self(*hash.as_bytes())
    }
}

impl From<&ApiKeyHash> for Sha256 {
    fn from(hash: &ApiKeyHash) -> Self {
        hash.0.into()
    }
}

impl FromStr for ApiKeyHash {
    type Err = ApiKeyHashError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut hash = [0; 32];
        hex::decode_to_slice(text, &mut hash).map_err(|_| ApiKeyHashError)?;
        Ok(Self(hash))
    }
}

impl fmt::Display for ApiKeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for ApiKeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKeyHash({self})")
    }
}

/// An API key that lets a caller in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AcceptedKey {
    /// Its hash.
    pub hash: ApiKeyHash,
    /// From when on it is good no more; `None` for never.
    pub expires: Option<Timestamp>,
}

impl From<ApiKeyHash> for AcceptedKey {
    /// A key that is good for ever.
    fn from(hash: ApiKeyHash) -> Self {
        Self { hash, expires: None }
    }
}

/// Which caller has which key.
///
/// Where a key stands depends on a secret of this process, so the time of a look-up says nothing about the other keys; those at one place are
/// compared in constant time. It does not grow with the number of callers.
#[derive(Debug, Default)]
pub(super) struct KeyTable {
    secret: RandomState,
    places: HashMap<u64, Vec<(AcceptedKey, CallerId)>>,
}

impl KeyTable {
    /// Whose key this is, be it good or not.
    pub(super) fn owner(&self, key: &ApiKeyHash) -> Option<&CallerId> {
        self.find(key).map(|(_, owner)| owner)
    }

    /// Whose key this is, if it is good at `now`.
    pub(super) fn caller(&self, key: &ApiKeyHash, now: Timestamp) -> Option<&CallerId> {
        let good = |accepted: &AcceptedKey| accepted.expires.is_none_or(|expires| now < expires);
        self.find(key).filter(|(accepted, _)| good(accepted)).map(|(_, owner)| owner)
    }

    pub(super) fn insert(&mut self, key: AcceptedKey, owner: &CallerId) {
        self.places.entry(self.secret.hash_one(key.hash.0)).or_default().push((key, owner.clone()));
    }

    fn find(&self, key: &ApiKeyHash) -> Option<&(AcceptedKey, CallerId)> {
        // Looks at every key of the place, whatever it finds.
        let place = self.places.get(&self.secret.hash_one(key.0))?;
        place.iter().fold(None, |found, stored| if stored.0.hash.matches(key) { Some(stored) } else { found })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn keys_are_letters_and_digits_and_never_the_same_twice() {
        let keys: HashSet<String> = (0..100).map(|_| generate_api_key().unwrap().reveal().to_owned()).collect();
        assert_eq!(keys.len(), 100);
        for key in &keys {
            assert_eq!(key.len(), API_KEY_LEN);
            assert!(key.chars().all(|c| c.is_ascii_alphanumeric()), "{key}");
        }
        let used: HashSet<char> = keys.iter().flat_map(|key| key.chars()).collect();
        assert_eq!(used.len(), 62);
    }

    #[test]
    fn a_key_shows_nothing_and_its_hash_is_read_as_it_is_written() {
        let key = generate_api_key().unwrap();
        assert_eq!(format!("{key:?}"), "ApiKey(…)");
        let hash = ApiKeyHash::of(key.reveal());
        assert!(hash.to_string().parse::<ApiKeyHash>().unwrap().matches(&hash));
        assert!(!ApiKeyHash::of("another").matches(&hash));
        assert_eq!("abc".parse::<ApiKeyHash>(), Err(ApiKeyHashError));
    }

    #[test]
    fn a_key_is_found_among_many_until_it_expires() {
        let mut table = KeyTable::default();
        let (hash, end) = (|n: u32| ApiKeyHash::of(&n.to_string()), Timestamp::from_millis(10));
        for n in 0..1000 {
            let expires = (n == 7).then_some(end);
            table.insert(AcceptedKey { hash: hash(n), expires }, &format!("caller-{n}").parse().unwrap());
        }
        let found = |n, now| table.caller(&hash(n), Timestamp::from_millis(now)).map(ToString::to_string);
        assert!((0..1000).all(|n| found(n, 9) == Some(format!("caller-{n}"))));
        assert_eq!((found(7, 10), found(8, u64::MAX), found(1000, 0)), (None, Some("caller-8".to_owned()), None));
        assert!(table.owner(&hash(7)).is_some());
    }
}
