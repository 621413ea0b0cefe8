//! Callers that an operator has added, as they are stored: the rules of their API keys.
//!
//! Invariants: a key is kept as its SHA-256 only; at most [`API_KEYS_MAX`] keys of a caller are good at a time; who is revoked has none and
//! never has one again.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    audit::Sha256,
    caller::{Account, ConsentPolicy, KeyAccess, Rate, Scopes},
    certificate::ClientCertificateId,
    ids::{CallerId, KeyName},
    timestamp::Timestamp,
};

/// The most API keys of one caller that are good at a time: the newest, and those that it replaces.
pub const API_KEYS_MAX: usize = 4;

/// An API key of a stored caller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredKey {
    /// Its SHA-256.
    pub sha256: Sha256,
    /// When it was made.
    pub made: Timestamp,
    /// From when on it is good no more; `None` for never.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub expires: Option<Timestamp>,
}

impl StoredKey {
    /// Whether it is good at `now`.
    #[must_use]
    pub fn is_good(&self, now: Timestamp) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }
}

/// A caller that an operator has added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredCaller {
    /// Its name.
    pub id: CallerId,
    /// The keys that it may use.
    pub keys: KeyAccess,
    /// The key that it signs with when it names none.
    pub default_key: Option<KeyName>,
    /// Who decides about its signatures.
    pub consent: ConsentPolicy,
    /// Who decides about those with these keys.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub consent_for: BTreeMap<KeyName, ConsentPolicy>,
    /// The APIs that it may use.
    pub scopes: Scopes,
    /// For whom it acts.
    pub account: Option<Account>,
    /// How much it may ask for, where that is not what all callers may.
    pub rate: Option<Rate>,
    /// Its API keys, oldest first; those that are good no more may still be among them.
    pub api_keys: Vec<StoredKey>,
    /// Whether it ever had an API key, so that it is known by nothing less.
    pub needs_key: bool,
    /// The TLS client certificate that it is known by.
    pub client_certificate: Option<ClientCertificateId>,
    /// Where its web pages may come from.
    pub origins: Vec<String>,
    /// When it was added.
    pub added: Timestamp,
    /// When it was revoked.
    pub revoked: Option<Timestamp>,
    /// Counts the changes: of two who change a caller, the second is refused.
    pub version: u64,
}

/// A caller to be added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewCaller {
    /// Its name.
    pub id: CallerId,
    /// The keys that it may use.
    pub keys: KeyAccess,
    /// The key that it signs with when it names none.
    pub default_key: Option<KeyName>,
    /// Who decides about its signatures.
    pub consent: ConsentPolicy,
    /// Who decides about those with these keys.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub consent_for: BTreeMap<KeyName, ConsentPolicy>,
    /// The APIs that it may use.
    pub scopes: Scopes,
    /// For whom it acts.
    pub account: Option<Account>,
    /// How much it may ask for, where that is not what all callers may.
    pub rate: Option<Rate>,
    /// Whether it gets an API key.
    pub with_api_key: bool,
    /// When that key ends.
    pub expires: Option<Timestamp>,
    /// The TLS client certificate that it is known by.
    pub client_certificate: Option<ClientCertificateId>,
    /// Where its web pages may come from.
    pub origins: Vec<String>,
}

/// Whether a stored caller can come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CallerState {
    /// It can.
    Active,
    /// None of its API keys is good any more.
    Expired,
    /// An operator has revoked it.
    Revoked,
}

/// Why a caller gets no new key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RotationRefusal {
    /// It was revoked.
    #[error("the caller was revoked; remove it and add it anew")]
    Revoked,
    /// It has no key to be replaced.
    #[error("the caller has no API key: it is known by its certificate or its origins")]
    NoKey,
    /// Too many of its keys are good already.
    #[error("{API_KEYS_MAX} API keys of the caller are good already; end the old ones with a grace of 0")]
    TooMany,
}

impl StoredCaller {
    /// The caller as it is first stored, with its API key.
    #[must_use]
    pub fn of(new: NewCaller, api_key: Option<StoredKey>, added: Timestamp) -> Self {
        Self {
            id: new.id,
            keys: new.keys,
            default_key: new.default_key,
            consent: new.consent,
            consent_for: new.consent_for,
            scopes: new.scopes,
            account: new.account,
            rate: new.rate,
            needs_key: new.with_api_key,
            api_keys: api_key.into_iter().collect(),
            client_certificate: new.client_certificate,
            origins: new.origins,
            added,
            revoked: None,
            version: 0,
        }
    }

    /// Whether it can come in at `now`.
    #[must_use]
    pub fn state(&self, now: Timestamp) -> CallerState {
        if self.revoked.is_some() {
            CallerState::Revoked
        } else if self.needs_key && !self.api_keys.iter().any(|key| key.is_good(now)) {
            CallerState::Expired
        } else {
            CallerState::Active
        }
    }

    /// Gives it a new key. The ones before are good for `grace` more, or shorter if they end before.
    ///
    /// # Errors
    /// [`RotationRefusal`]; nothing is changed then.
    pub fn rotate(&mut self, new: StoredKey, grace: Duration) -> Result<(), RotationRefusal> {
        if self.revoked.is_some() {
            return Err(RotationRefusal::Revoked);
        }
        if !self.needs_key {
            return Err(RotationRefusal::NoKey);
        }
        let (now, end) = (new.made, new.made.after(grace));
        let mut keys = self.api_keys.clone();
        for key in &mut keys {
            key.expires = Some(key.expires.map_or(end, |expires| expires.min(end)));
        }
        keys.retain(|key| key.is_good(now));
        if keys.len() >= API_KEYS_MAX {
            return Err(RotationRefusal::TooMany);
        }
        keys.push(new);
        self.api_keys = keys;
        Ok(())
    }

    /// Ends it, at once and for good.
    pub fn revoke(&mut self, now: Timestamp) {
        self.revoked.get_or_insert(now);
        self.api_keys.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8, made: u64, expires: Option<u64>) -> StoredKey {
        StoredKey { sha256: Sha256::of(&[n]), made: Timestamp::from_millis(made), expires: expires.map(Timestamp::from_millis) }
    }

    fn caller(keys: Vec<StoredKey>) -> StoredCaller {
        StoredCaller {
            id: "erp".parse().unwrap(),
            keys: KeyAccess::All,
            default_key: None,
            consent: ConsentPolicy::Auto,
            consent_for: BTreeMap::new(),
            scopes: Scopes::default(),
            account: None,
            rate: None,
            needs_key: !keys.is_empty(),
            api_keys: keys,
            client_certificate: None,
            origins: Vec::new(),
            added: Timestamp::from_millis(1),
            revoked: None,
            version: 0,
        }
    }

    fn good(caller: &StoredCaller, now: u64) -> usize {
        caller.api_keys.iter().filter(|key| key.is_good(Timestamp::from_millis(now))).count()
    }

    #[test]
    fn an_old_key_is_good_for_the_grace_and_no_longer_than_it_was() {
        let mut erp = caller(vec![key(1, 0, None), key(2, 0, Some(1_005))]);
        erp.rotate(key(3, 1_000, None), Duration::from_millis(10)).unwrap();
        assert_eq!([1_000, 1_005, 1_009, 1_010].map(|now| good(&erp, now)), [3, 2, 2, 1]);
        assert_eq!(caller(vec![key(1, 0, Some(5))]).state(Timestamp::from_millis(5)), CallerState::Expired);
        erp.rotate(key(4, 2_000, None), Duration::ZERO).unwrap();
        assert_eq!(erp.api_keys, [key(4, 2_000, None)]);
    }

    #[test]
    fn the_keys_that_are_good_at_a_time_have_a_bound() {
        let mut erp = caller(vec![key(1, 0, None)]);
        let grace = Duration::from_secs(60);
        for n in 2..=4 {
            erp.rotate(key(n, 1_000, None), grace).unwrap();
        }
        assert_eq!(erp.rotate(key(5, 1_000, None), grace), Err(RotationRefusal::TooMany));
        assert_eq!(erp.api_keys.len(), API_KEYS_MAX);
        assert_eq!(erp.rotate(key(5, 1_000, None), Duration::ZERO), Ok(()));
    }

    #[test]
    fn who_is_revoked_has_no_key_and_gets_none() {
        let mut erp = caller(vec![key(1, 0, None)]);
        erp.revoke(Timestamp::from_millis(5));
        erp.revoke(Timestamp::from_millis(6));
        assert_eq!((erp.api_keys.len(), erp.revoked), (0, Some(Timestamp::from_millis(5))));
        assert_eq!(erp.state(Timestamp::from_millis(7)), CallerState::Revoked);
        assert_eq!(erp.rotate(key(2, 7, None), Duration::ZERO), Err(RotationRefusal::Revoked));
        assert_eq!(caller(Vec::new()).rotate(key(2, 7, None), Duration::ZERO), Err(RotationRefusal::NoKey));
    }
}
