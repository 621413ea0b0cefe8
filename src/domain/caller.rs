//! Callers: the programs and pages that ask for signatures.

use std::{collections::BTreeMap, fmt, net::IpAddr, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{
    consent::KeyScope,
    ids::{CallerId, KeyName},
    request_id::RequestId,
};

/// Who decides about a caller's signatures. The strictest is the greatest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConsentPolicy {
    /// Consent is given by configuration.
    Auto,
    /// An operator is asked.
    #[default]
    Operator,
    /// Two operators are asked, and both must agree.
    TwoOperators,
    /// Nothing is signed.
    Deny,
}

impl ConsentPolicy {
    /// Every policy, from the one that asks least.
    pub const ALL: [Self; 4] = [Self::Auto, Self::Operator, Self::TwoOperators, Self::Deny];

    /// Its name in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Operator => "operator",
            Self::TwoOperators => "two-operators",
            Self::Deny => "deny",
        }
    }

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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
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

/// An API, or a part of one, that a caller may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Scope {
    /// The ticket API.
    #[serde(rename = "ticket-api")]
    TicketApi,
    /// The API of the Cloud Signature Consortium.
    #[serde(rename = "csc-api")]
    CscApi,
    /// Certificate requests for every user of the caller's organisation.
    #[serde(rename = "CRYPTO_CERT_REQUEST_EIO")]
    CryptoCertRequestEio,
    /// Certificate requests for the caller's own account.
    #[serde(rename = "CERTIFICATE_REQUEST")]
    CertificateRequest,
    /// What every user of the organisation has of keys and certificates.
    #[serde(rename = "GET_CRYPTO_INFO_EIO")]
    GetCryptoInfoEio,
    /// What the caller's own account has of them.
    #[serde(rename = "GET_CRYPTO_INFO")]
    GetCryptoInfo,
}

/// A text that names no scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is no such scope; use {}", Scope::ALL.map(Scope::as_str).join(", "))]
pub struct ScopeError;

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 6] =
        [Self::TicketApi, Self::CscApi, Self::CryptoCertRequestEio, Self::CertificateRequest, Self::GetCryptoInfoEio, Self::GetCryptoInfo];

    /// Its name in configurations, on the command line and, of the certificate-request API, on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TicketApi => "ticket-api",
            Self::CscApi => "csc-api",
            Self::CryptoCertRequestEio => "CRYPTO_CERT_REQUEST_EIO",
            Self::CertificateRequest => "CERTIFICATE_REQUEST",
            Self::GetCryptoInfoEio => "GET_CRYPTO_INFO_EIO",
            Self::GetCryptoInfo => "GET_CRYPTO_INFO",
        }
    }

    /// Whether it is about an account, so that a caller needs one.
    #[must_use]
    pub const fn needs_account(self) -> bool {
        !matches!(self, Self::TicketApi | Self::CscApi)
    }

    /// Whether only an account that alone may act for its organisation can use it.
    #[must_use]
    pub const fn needs_eio(self) -> bool {
        matches!(self, Self::CryptoCertRequestEio | Self::GetCryptoInfoEio)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Scope {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text).ok_or(ScopeError)
    }
}

/// What a caller may use. The default is the ticket API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<Scope>", into = "Vec<Scope>")]
pub struct Scopes(u8);

impl Scopes {
    /// Whether `scope` is among them.
    #[must_use]
    pub const fn allow(self, scope: Scope) -> bool {
        self.0 & Self::bit(scope) != 0
    }

    /// Each of them, in the order of [`Scope::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(move |scope| self.allow(*scope))
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    const fn bit(scope: Scope) -> u8 {
        1 << scope as u8
    }
}

impl Default for Scopes {
    fn default() -> Self {
        Self(Self::bit(Scope::TicketApi))
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<T: IntoIterator<Item = Scope>>(scopes: T) -> Self {
        Self(scopes.into_iter().fold(0, |bits, scope| bits | Self::bit(scope)))
    }
}

impl From<Vec<Scope>> for Scopes {
    fn from(scopes: Vec<Scope>) -> Self {
        scopes.into_iter().collect()
    }
}

impl From<Scopes> for Vec<Scope> {
    fn from(scopes: Scopes) -> Self {
        scopes.iter().collect()
    }
}

/// The longest text about an account, in characters.
pub const ACCOUNT_TEXT_MAX: usize = 200;

/// A login, a full name, an organisation: words joined by single spaces, without control characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AccountText(String);

/// A text that says nothing about an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("use 1 to {ACCOUNT_TEXT_MAX} characters, words joined by single spaces")]
pub struct AccountTextError;

impl AccountText {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for AccountText {
    type Error = AccountTextError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let in_words = text.split(' ').all(|word| !word.is_empty() && !word.contains(|c: char| c.is_control() || c.is_whitespace()));
        if in_words && text.chars().count() <= ACCOUNT_TEXT_MAX { Ok(Self(text)) } else { Err(AccountTextError) }
    }
}

impl FromStr for AccountText {
    type Err = AccountTextError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::try_from(text.to_owned())
    }
}

impl From<AccountText> for String {
    fn from(text: AccountText) -> Self {
        text.0
    }
}

impl fmt::Display for AccountText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The person for whom a caller of the certificate-request API acts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// The login, by which others of the organisation name the account.
    pub login: AccountText,
    /// Surname, name and patronymic as they stand in certificates.
    pub full_name: AccountText,
    /// The organisation; callers of one organisation are those with the same text.
    pub organisation: AccountText,
    /// Whether this person alone may act for the organisation (EIO).
    #[serde(default)]
    pub eio: bool,
}

/// Scopes and an account that do not go together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ScopeMismatch {
    /// Scopes are needed.
    #[error("this caller could use no API; give it a scope")]
    NoScope,
    /// An account is needed.
    #[error("scope {0} is about an account; say whose: login, full name and organisation")]
    NoAccount(Scope),
    /// The account is not the right one.
    #[error("scope {0} is for the person who alone may act for the organisation; set the account's EIO flag, or leave the scope out")]
    NotEio(Scope),
}

impl Account {
    /// Checks that whoever has `scopes` and this account can use each of them.
    ///
    /// # Errors
    /// The first [`ScopeMismatch`].
    pub fn check(account: Option<&Self>, scopes: Scopes) -> Result<(), ScopeMismatch> {
        if scopes.is_empty() {
            return Err(ScopeMismatch::NoScope);
        }
        let mismatch = |scope: Scope| match account {
            None if scope.needs_account() => Some(ScopeMismatch::NoAccount(scope)),
            Some(account) if scope.needs_eio() && !account.eio => Some(ScopeMismatch::NotEio(scope)),
            _ => None,
        };
        scopes.iter().find_map(mismatch).map_or(Ok(()), Err)
    }
}

/// So many requests a second, and so many at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// In the long run, a second; 0 for no limit.
    pub per_second: u32,
    /// At once, after a pause; at least 1.
    pub burst: u32,
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
    /// The APIs that it may use.
    pub scopes: Scopes,
    /// For whom it acts; whoever has a scope that is about an account has one.
    pub account: Option<Arc<Account>>,
    /// How much it may ask for, where that is not what all callers may.
    pub rate: Option<Rate>,
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

    fn account(eio: bool) -> Account {
        let text = |text: &str| text.parse().unwrap();
        Account {
            login: text("ivanov"), full_name: text("Иванов Иван Иванович"), organisation: text("ООО Ромашка"), eio
        }
    }

    #[test]
    fn a_scope_is_read_by_the_name_that_it_is_printed_with() {
        for scope in Scope::ALL {
            assert_eq!(scope.to_string().parse(), Ok(scope));
            assert_eq!(serde_json::to_value(scope).unwrap(), scope.as_str());
            assert_eq!([scope].into_iter().collect::<Scopes>().iter().collect::<Vec<_>>(), [scope]);
        }
        assert_eq!("ticket_api".parse::<Scope>(), Err(ScopeError));
        assert!(ScopeError.to_string().contains("ticket-api, csc-api, CRYPTO_CERT_REQUEST_EIO"));
    }

    #[test]
    fn a_caller_of_whom_nothing_else_is_said_uses_the_ticket_api() {
        let scopes = Scopes::default();
        assert!(Scope::ALL.into_iter().all(|scope| scopes.allow(scope) == (scope == Scope::TicketApi)));
        assert_eq!(serde_json::to_string(&scopes).unwrap(), r#"["ticket-api"]"#);
    }

    #[test]
    fn scopes_about_an_account_need_one_and_those_for_all_of_an_organisation_its_eio() {
        let scopes = |scopes: &[Scope]| scopes.iter().copied().collect::<Scopes>();
        let (own, all) = (scopes(&[Scope::GetCryptoInfo]), scopes(&[Scope::TicketApi, Scope::CryptoCertRequestEio]));
        assert_eq!(Account::check(None, Scopes::default()), Ok(()));
        assert_eq!(Account::check(None, scopes(&[])), Err(ScopeMismatch::NoScope));
        assert_eq!(Account::check(None, own), Err(ScopeMismatch::NoAccount(Scope::GetCryptoInfo)));
        assert_eq!(Account::check(Some(&account(false)), own), Ok(()));
        assert_eq!(Account::check(Some(&account(false)), all), Err(ScopeMismatch::NotEio(Scope::CryptoCertRequestEio)));
        assert_eq!(Account::check(Some(&account(true)), all), Ok(()));
    }

    #[test]
    fn texts_about_an_account_are_words_joined_by_single_spaces() {
        assert!("Иванов Иван".parse::<AccountText>().is_ok());
        for bad in ["", " a", "a ", "a  b", "a\tb", "a\u{a0}b", "a\0", &"я".repeat(ACCOUNT_TEXT_MAX + 1)] {
            assert_eq!(bad.parse::<AccountText>(), Err(AccountTextError), "{bad:?}");
        }
    }
}
