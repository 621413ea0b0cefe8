//! The callers of a gateway, and which of them a request comes from.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{api_key::ApiKeyHash, origin::Origin};
use crate::domain::{caller::Caller, ids::CallerId};

/// A caller as the configuration declares it.
#[derive(Debug, Clone)]
pub struct CallerEntry {
    /// The caller.
    pub caller: Caller,
    /// The hash of its API key; a caller without one is known by its origins, or by the listener that is bound to it.
    pub api_key_hash: Option<ApiKeyHash>,
    /// Where its web pages may come from. With an API key they need both.
    pub origins: Vec<Origin>,
}

/// What a request says about who sent it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Credentials<'a> {
    /// The `Authorization` header.
    pub authorization: Option<&'a str>,
    /// The `Origin` header.
    pub origin: Option<&'a str>,
    /// The caller to which the listener is bound.
    pub listener: Option<&'a CallerId>,
}

/// Why a request is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// No credentials, or wrong ones.
    #[error("the caller is not known")]
    UnknownCaller,
    /// The page comes from an origin that is not configured, or not for this caller.
    #[error("pages of this origin may not use the gateway")]
    ForeignOrigin,
}

/// Callers that cannot be told apart, or cannot be told at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallersError {
    /// Two callers of one name.
    #[error("caller {0} is declared twice")]
    SameName(CallerId),
    /// Two callers with one API key.
    #[error("callers {0} and {1} have the same API key")]
    SameKey(CallerId, CallerId),
    /// Two callers that are known by one origin only.
    #[error("callers {0} and {1} have no API key and the same origin {2}")]
    SameOrigin(CallerId, CallerId, String),
}

/// All callers of a gateway.
#[derive(Debug, Default)]
pub struct Callers {
    entries: HashMap<CallerId, Known>,
    /// Callers that are known by their origin alone.
    by_origin: HashMap<Origin, CallerId>,
    origins: HashSet<Origin>,
}

#[derive(Debug)]
struct Known {
    caller: Arc<Caller>,
    key: Option<ApiKeyHash>,
    origins: HashSet<Origin>,
}

impl Callers {
    /// Takes the callers of a configuration.
    ///
    /// # Errors
    /// [`CallersError`] if two of them could not be told apart.
    pub fn new(entries: Vec<CallerEntry>) -> Result<Self, CallersError> {
        entries.into_iter().try_fold(Self::default(), Self::with)
    }

    fn with(mut self, entry: CallerEntry) -> Result<Self, CallersError> {
        let CallerEntry { caller, api_key_hash: key, origins } = entry;
        let id = caller.id.clone();
        if self.entries.contains_key(&id) {
            return Err(CallersError::SameName(id));
        }
        if let Some(other) = key.as_ref().and_then(|key| self.find_by_key(key)) {
            return Err(CallersError::SameKey(other.caller.id.clone(), id));
        }
        for origin in &origins {
            self.origins.insert(origin.clone());
            if key.is_none()
                && let Some(other) = self.by_origin.insert(origin.clone(), id.clone())
                && other != id
            {
                return Err(CallersError::SameOrigin(other, id, origin.to_string()));
            }
        }
        self.entries.insert(id, Known { caller: Arc::new(caller), key, origins: origins.into_iter().collect() });
        Ok(self)
    }

    /// Whether a caller of this name is declared.
    #[must_use]
    pub fn contains(&self, id: &CallerId) -> bool {
        self.entries.contains_key(id)
    }

    /// The names of all callers, in no order.
    pub fn ids(&self) -> impl Iterator<Item = &CallerId> {
        self.entries.keys()
    }

    /// Whether pages of this origin may use the gateway at all: what a preflight asks, before anybody says who they are.
    #[must_use]
    pub fn allow_origin(&self, origin: &str) -> bool {
        origin.parse().is_ok_and(|origin| self.origins.contains(&origin))
    }

    /// Finds out who sent a request: by its key if it has one, else by the listener, else by its origin.
    ///
    /// A page must come from an origin of the caller that it turns out to be.
    ///
    /// # Errors
    /// [`AuthError`].
    pub fn identify(&self, credentials: Credentials<'_>) -> Result<Arc<Caller>, AuthError> {
        let origin = credentials.origin.map(str::parse::<Origin>).transpose().map_err(|_| AuthError::ForeignOrigin)?;
        if origin.as_ref().is_some_and(|origin| !self.origins.contains(origin)) {
            return Err(AuthError::ForeignOrigin);
        }
        let by_name = |id: &CallerId| self.entries.get(id);
        let known = match (credentials.authorization, credentials.listener, &origin) {
            (Some(authorization), _, _) => bearer(authorization).and_then(|key| self.find_by_key(&ApiKeyHash::of(key))),
            (None, Some(listener), _) => by_name(listener),
            (None, None, Some(origin)) => self.by_origin.get(origin).and_then(by_name),
            (None, None, None) => None,
        };
        let known = known.ok_or(AuthError::UnknownCaller)?;
        match origin {
            Some(origin) if !known.origins.contains(&origin) => Err(AuthError::ForeignOrigin),
            _ => Ok(Arc::clone(&known.caller)),
        }
    }

    /// Looks at every caller whatever it finds, so that the time says nothing.
    fn find_by_key(&self, key: &ApiKeyHash) -> Option<&Known> {
        let matches = |known: &&Known| known.key.as_ref().is_some_and(|hash| hash.matches(key));
        self.entries.values().filter(matches).last()
    }
}

/// The key of `Authorization: Bearer KEY` (RFC 6750 section 2.1; the scheme's name ignores case).
fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, key) = authorization.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::caller::{ConsentPolicy, KeyAccess, Provenance};

    const PAGE: &str = "https://page.example";
    const SHOP: &str = "https://shop.example";

    fn entry(id: &str, key: Option<&str>, origins: &[&str]) -> CallerEntry {
        let caller = Caller {
            id: id.parse().unwrap(),
            keys: KeyAccess::All,
            default_key: None,
            consent: ConsentPolicy::Auto,
            permit_uses_max: 1,
            from: Provenance::default(),
        };
        CallerEntry {
            caller,
            api_key_hash: key.map(ApiKeyHash::of),
            origins: origins.iter().map(|origin| origin.parse().unwrap()).collect(),
        }
    }

    fn callers() -> Callers {
        Callers::new(vec![entry("ci", Some("ci-key"), &[SHOP]), entry("page", None, &[PAGE]), entry("old", None, &[])]).unwrap()
    }

    fn who(credentials: Credentials<'_>) -> Result<String, AuthError> {
        callers().identify(credentials).map(|caller| caller.id.to_string())
    }

    #[test]
    fn a_key_says_who_is_calling() {
        let with = |authorization| who(Credentials { authorization: Some(authorization), ..Credentials::default() });
        assert_eq!(with("Bearer ci-key").as_deref(), Ok("ci"));
        assert_eq!(with("bearer  ci-key").as_deref(), Ok("ci"));
        for bad in ["Bearer other", "Bearer", "Bearer ", "Basic ci-key", "ci-key", ""] {
            assert_eq!(with(bad), Err(AuthError::UnknownCaller), "{bad}");
        }
        assert_eq!(who(Credentials::default()), Err(AuthError::UnknownCaller));
    }

    #[test]
    fn a_page_is_known_by_its_origin_only_where_there_is_no_key_to_show() {
        let from = |origin| who(Credentials { origin: Some(origin), ..Credentials::default() });
        assert_eq!(from(PAGE).as_deref(), Ok("page"));
        assert_eq!(from(SHOP), Err(AuthError::UnknownCaller));
        for foreign in ["https://evil.example", "http://page.example", "null", ""] {
            assert_eq!(from(foreign), Err(AuthError::ForeignOrigin), "{foreign}");
        }
    }

    #[test]
    fn a_key_is_worth_nothing_on_a_page_of_another_origin() {
        let with_key = |origin| who(Credentials { authorization: Some("Bearer ci-key"), origin: Some(origin), listener: None });
        assert_eq!(with_key(SHOP).as_deref(), Ok("ci"));
        assert_eq!(with_key(PAGE), Err(AuthError::ForeignOrigin));
        assert_eq!(with_key("https://evil.example"), Err(AuthError::ForeignOrigin));
    }

    #[test]
    fn a_bound_listener_stands_in_for_missing_credentials_but_not_for_wrong_ones() {
        let old: CallerId = "old".parse().unwrap();
        let at = |authorization, origin| who(Credentials { authorization, origin, listener: Some(&old) });
        assert_eq!(at(None, None).as_deref(), Ok("old"));
        assert_eq!(at(Some("Bearer ci-key"), None).as_deref(), Ok("ci"));
        assert_eq!(at(Some("Bearer wrong"), None), Err(AuthError::UnknownCaller));
        assert_eq!(at(None, Some(PAGE)), Err(AuthError::ForeignOrigin));
    }

    #[test]
    fn a_preflight_is_granted_to_every_configured_origin_and_no_other() {
        assert!(callers().allow_origin(PAGE) && callers().allow_origin(SHOP));
        assert!(!callers().allow_origin("https://evil.example") && !callers().allow_origin("null"));
    }

    #[test]
    fn callers_that_cannot_be_told_apart_are_refused() {
        let name = |id: &str| id.parse::<CallerId>().unwrap();
        let error = |entries| Callers::new(entries).unwrap_err();
        assert_eq!(error(vec![entry("a", None, &[]), entry("a", None, &[])]), CallersError::SameName(name("a")));
        let same_key = error(vec![entry("a", Some("k"), &[]), entry("b", Some("k"), &[])]);
        assert_eq!(same_key, CallersError::SameKey(name("a"), name("b")));
        let same_origin = error(vec![entry("a", None, &[PAGE]), entry("b", None, &[PAGE])]);
        assert_eq!(same_origin, CallersError::SameOrigin(name("a"), name("b"), PAGE.to_owned()));
        assert!(Callers::new(vec![entry("a", Some("k"), &[PAGE]), entry("b", None, &[PAGE])]).is_ok());
    }
}
