//! Callers: the programs and pages that ask for signatures.

use std::{collections::BTreeMap, net::IpAddr};

use serde::{Deserialize, Serialize};

use super::{
    consent::KeyScope,
    ids::{CallerId, KeyName},
    request_id::RequestId,
};

/// Who decides about a caller's signatures. The strictest is the greatest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConsentPolicy {
    /// Consent is given by configuration.
    Auto,
    /// An operator is asked.
    Operator,
    /// Two operators are asked, and both must agree.
    TwoOperators,
    /// Nothing is signed.
    Deny,
}

impl ConsentPolicy {
    /// How many operators must agree.
    #[must_use]
    pub const fn operators(self) -> u8 {
        match self {
            Self::Auto | Self::Deny => 0,
            Self::Operator => 1,
            Self::TwoOperators => 2,
        }
    }
}

/// Who decides about a caller's signatures with each key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsentRules {
    /// Where nothing else is said.
    pub policy: ConsentPolicy,
    /// With these keys.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub of_keys: BTreeMap<KeyName, ConsentPolicy>,
}

impl From<ConsentPolicy> for ConsentRules {
    fn from(policy: ConsentPolicy) -> Self {
        Self { policy, of_keys: BTreeMap::new() }
    }
}

impl ConsentRules {
    /// Who decides about signatures with this key; `None` is one without a configured name.
    #[must_use]
    pub fn with_key(&self, key: Option<&KeyName>) -> ConsentPolicy {
        key.and_then(|key| self.of_keys.get(key)).copied().unwrap_or(self.policy)
    }

    /// Who decides about signatures with whichever of `keys` the caller chooses later, and with which of them those may be made: for a key that
    /// wants a stricter decision there must be another permit. `None` if nothing may be signed with any of them.
    #[must_use]
    pub fn with_any_of(&self, keys: &KeyAccess) -> Option<(ConsentPolicy, KeyScope)> {
        match keys {
            KeyAccess::All if self.policy != ConsentPolicy::Deny => {
                let stricter = self.of_keys.iter().filter(|(_, policy)| **policy > self.policy);
                Some((self.policy, KeyScope::AnyBut(stricter.map(|(key, _)| key.clone()).collect())))
            }
            KeyAccess::All => self.with_any_named(self.of_keys.keys()),
            KeyAccess::Only(names) => self.with_any_named(names),
        }
    }

    /// The caller's own policy, if it is that of any of the keys; otherwise the strictest under which something may be signed.
    fn with_any_named<'a>(&self, names: impl IntoIterator<Item = &'a KeyName>) -> Option<(ConsentPolicy, KeyScope)> {
        let decided: Vec<_> = names.into_iter().map(|name| (name, self.with_key(Some(name)))).collect();
        let allowed = decided.iter().map(|(_, policy)| *policy).filter(|policy| *policy != ConsentPolicy::Deny);
        let policy = if allowed.clone().any(|policy| policy == self.policy) { self.policy } else { allowed.max()? };
        let covered = decided.iter().filter(|(_, of_key)| *of_key <= policy).map(|(name, _)| (*name).clone());
        Some((policy, KeyScope::Named(covered.collect())))
    }
}

/// Which keys a caller may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyAccess {
    /// Every key of the gateway, also those chosen by URI.
    All,
    /// These only.
    Only(Vec<KeyName>),
}

impl KeyAccess {
    /// Whether the named key is among them.
    #[must_use]
    pub fn allows(&self, key: &KeyName) -> bool {
        match self {
            Self::All => true,
            Self::Only(keys) => keys.contains(key),
        }
    }
}

/// Where a request came from, as far as the gateway saw it itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Provenance {
    /// The web page's origin, which its browser told.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub origin: Option<String>,
    /// The peer's address.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub address: Option<IpAddr>,
    /// The request's id, which its log lines have too.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub request: Option<RequestId>,
}

/// A program or page that may ask for signatures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Its name: owner of its tickets, permits and jobs.
    pub id: CallerId,
    /// The keys it may use.
    pub keys: KeyAccess,
    /// The key it signs with when it names none.
    pub default_key: Option<KeyName>,
    /// Who decides about its signatures.
    pub consent: ConsentRules,
    /// The algorithms it may ask for are those of the key; uses of one permit are bounded by this number.
    pub permit_uses_max: u32,
    /// Where its present request came from.
    pub from: Provenance,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<KeyName> {
        list.iter().map(|name| name.parse().unwrap()).collect()
    }

    fn rules(policy: ConsentPolicy, of_keys: &[(&str, ConsentPolicy)]) -> ConsentRules {
        ConsentRules { policy, of_keys: of_keys.iter().map(|(key, policy)| (key.parse().unwrap(), *policy)).collect() }
    }

    #[test]
    fn a_permit_for_any_key_is_good_for_none_that_wants_a_stricter_decision() {
        use ConsentPolicy::{Auto, Deny, Operator, TwoOperators};
        let named = |list: &[&str]| KeyScope::Named(names(list));
        let some = KeyAccess::Only(names(&["a", "b", "c"]));
        let mixed = rules(Operator, &[("a", Auto), ("b", TwoOperators), ("d", Deny)]);
        assert_eq!(mixed.with_any_of(&KeyAccess::All), Some((Operator, KeyScope::AnyBut(names(&["b", "d"])))));
        assert_eq!(mixed.with_any_of(&some), Some((Operator, named(&["a", "c"]))));
        assert_eq!(rules(Auto, &[]).with_any_of(&KeyAccess::All), Some((Auto, KeyScope::AnyBut(Vec::new()))));
        let denied = rules(Deny, &[("a", Operator), ("b", Auto)]);
        assert_eq!(denied.with_any_of(&KeyAccess::All), Some((Operator, named(&["a", "b"]))));
        assert_eq!(denied.with_any_of(&KeyAccess::Only(names(&["b"]))), Some((Auto, named(&["b"]))));
        assert_eq!(rules(Deny, &[]).with_any_of(&KeyAccess::All), None);
        assert_eq!(rules(Deny, &[]).with_any_of(&some), None);
        assert_eq!((mixed.with_key(Some(&names(&["a"])[0])), mixed.with_key(None)), (Auto, Operator));
    }
}
