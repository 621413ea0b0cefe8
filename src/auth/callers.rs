//! The callers of a gateway, and which of them a request comes from.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{
    api_key::{AcceptedKey, ApiKeyHash, KeyTable},
    origin::Origin,
};
use crate::domain::{
    caller::Caller,
    certificate::{ClientCertificate, ClientCertificateId},
    ids::CallerId,
    timestamp::Timestamp,
};

/// A caller, and what it is known by.
#[derive(Debug, Clone)]
pub struct CallerEntry {
    /// The caller.
    pub caller: Caller,
    /// Its API keys, of which it must show one. `None`: it has none and is known by its certificate, its origins, or the listener that is
    /// bound to it.
    pub api_keys: Option<Vec<AcceptedKey>>,
    /// The TLS client certificate that it is known by. With an API key it needs both.
    pub certificate: Option<ClientCertificateId>,
    /// Where its web pages may come from. With an API key or a certificate they need both.
    pub origins: Vec<Origin>,
}

/// What a request says about who sent it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Credentials<'a> {
    /// The `Authorization` header.
    pub authorization: Option<&'a str>,
    /// The `Origin` header.
    pub origin: Option<&'a str>,
    /// The TLS client certificate of its connection, which a client CA has issued.
    pub certificate: Option<&'a ClientCertificate>,
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
    /// Two callers with one certificate.
    #[error("callers {0} and {1} have the same client certificate")]
    SameCertificate(CallerId, CallerId),
    /// Two callers that are known by one origin only.
    #[error("callers {0} and {1} have no API key and the same origin {2}")]
    SameOrigin(CallerId, CallerId, String),
}

/// All callers of a gateway.
#[derive(Debug, Default)]
pub struct Callers {
    entries: HashMap<CallerId, Known>,
    by_key: KeyTable,
    by_certificate: HashMap<ClientCertificateId, CallerId>,
    /// Callers that are known by their origin alone.
    by_origin: HashMap<Origin, CallerId>,
    origins: HashSet<Origin>,
}

#[derive(Debug)]
struct Known {
    caller: Arc<Caller>,
    has_key: bool,
    has_certificate: bool,
    origins: HashSet<Origin>,
}

impl Callers {
    /// Takes the callers of a configuration.
    ///
    /// # Errors
    /// [`CallersError`] if two of them could not be told apart.
    pub fn new(entries: Vec<CallerEntry>) -> Result<Self, CallersError> {
        let mut callers = Self::default();
        entries.into_iter().try_for_each(|entry| callers.add(entry))?;
        Ok(callers)
    }

    /// Takes one more caller.
    ///
    /// # Errors
    /// [`CallersError`] if it could not be told from another; nothing has changed then.
    pub fn add(&mut self, entry: CallerEntry) -> Result<(), CallersError> {
        self.check(&entry)?;
        let CallerEntry { caller, api_keys, certificate, origins } = entry;
        let id = caller.id.clone();
        let (has_key, has_certificate) = (api_keys.is_some(), certificate.is_some());
        api_keys.into_iter().flatten().for_each(|key| self.by_key.insert(key, &id));
        if let Some(certificate) = certificate {
            self.by_certificate.insert(certificate, id.clone());
        }
        for origin in &origins {
            self.origins.insert(origin.clone());
            if !has_key && !has_certificate {
                self.by_origin.insert(origin.clone(), id.clone());
            }
        }
        let known = Known { caller: Arc::new(caller), has_key, has_certificate, origins: origins.into_iter().collect() };
        self.entries.insert(id, known);
        Ok(())
    }

    /// Checks that a new caller could be told from the others.
    ///
    /// # Errors
    /// [`CallersError`].
    pub fn check(&self, entry: &CallerEntry) -> Result<(), CallersError> {
        let id = entry.caller.id.clone();
        if self.entries.contains_key(&id) {
            return Err(CallersError::SameName(id));
        }
        if let Some(other) = entry.api_keys.iter().flatten().find_map(|key| self.by_key.owner(&key.hash)) {
            return Err(CallersError::SameKey(other.clone(), id));
        }
        if let Some(other) = entry.certificate.as_ref().and_then(|certificate| self.by_certificate.get(certificate)) {
            return Err(CallersError::SameCertificate(other.clone(), id));
        }
        let by_origin_alone = entry.api_keys.is_none() && entry.certificate.is_none();
        let taken = entry.origins.iter().filter(|_| by_origin_alone).find_map(|origin| Some((self.by_origin.get(origin)?, origin)));
        match taken {
            Some((other, origin)) => Err(CallersError::SameOrigin(other.clone(), id, origin.to_string())),
            None => Ok(()),
        }
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

    /// Finds out who sent a request: by its key or its certificate if it has one, else by the listener, else by its origin.
    ///
    /// Whoever has both a key and a certificate must show both, and no request may show those of two callers. A certificate that no caller is
    /// known by says nothing. A page must come from an origin of the caller that it turns out to be. A key that has expired at `now` is an
    /// unknown one.
    ///
    /// # Errors
    /// [`AuthError`].
    pub fn identify(&self, credentials: Credentials<'_>, now: Timestamp) -> Result<Arc<Caller>, AuthError> {
        let origin = credentials.origin.map(str::parse::<Origin>).transpose().map_err(|_| AuthError::ForeignOrigin)?;
        if origin.as_ref().is_some_and(|origin| !self.origins.contains(origin)) {
            return Err(AuthError::ForeignOrigin);
        }
        let by_name = |id: &CallerId| self.entries.get(id);
        let certified = credentials.certificate.and_then(|certificate| self.find_by_certificate(certificate));
        let known = match (credentials.authorization, certified, credentials.listener, &origin) {
            (Some(authorization), _, _, _) => {
                let known = bearer(authorization).and_then(|key| self.by_key.caller(&ApiKeyHash::of(key), now)).and_then(by_name);
                known.filter(|known| match certified {
                    Some(certified) => certified.caller.id == known.caller.id,
                    None => !known.has_certificate,
                })
            }
            (None, Some(certified), _, _) => Some(certified).filter(|known| !known.has_key),
            (None, None, Some(listener), _) => by_name(listener),
            (None, None, None, Some(origin)) => self.by_origin.get(origin).and_then(by_name),
            (None, None, None, None) => None,
        };
        let known = known.ok_or(AuthError::UnknownCaller)?;
        match origin {
            Some(origin) if !known.origins.contains(&origin) => Err(AuthError::ForeignOrigin),
            _ => Ok(Arc::clone(&known.caller)),
        }
    }

    fn find_by_certificate(&self, certificate: &ClientCertificate) -> Option<&Known> {
        certificate.ids().find_map(|id| self.by_certificate.get(&id)).and_then(|id| self.entries.get(id))
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
    use crate::{
        domain::caller::{ConsentPolicy, KeyAccess, Provenance, Scopes},
        pki::{DevCa, Validity},
    };

    const PAGE: &str = "https://page.example";
    const SHOP: &str = "https://shop.example";

    fn entry(id: &str, key: Option<&str>, origins: &[&str]) -> CallerEntry {
        let caller = Caller {
            id: id.parse().unwrap(),
            keys: KeyAccess::All,
            default_key: None,
            consent: ConsentPolicy::Auto.into(),
            permit_uses_max: 1,
            scopes: Scopes::default(),
            account: None,
            rate: None,
            from: Provenance::default(),
        };
        CallerEntry {
            caller,
            api_keys: key.map(|key| vec![ApiKeyHash::of(key).into()]),
            certificate: None,
            origins: origins.iter().map(|origin| origin.parse().unwrap()).collect(),
        }
    }

    fn callers() -> Callers {
        Callers::new(vec![entry("ci", Some("ci-key"), &[SHOP]), entry("page", None, &[PAGE]), entry("old", None, &[])]).unwrap()
    }

    const NOW: Timestamp = Timestamp::from_millis(1_000);

    fn who(credentials: Credentials<'_>) -> Result<String, AuthError> {
        callers().identify(credentials, NOW).map(|caller| caller.id.to_string())
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
    fn who_has_several_keys_is_let_in_by_each_until_it_ends_and_by_nothing_less_then() {
        let key = |text, expires| AcceptedKey { hash: ApiKeyHash::of(text), expires: Some(Timestamp::from_millis(expires)) };
        let keys = Some(vec![key("old", 1_001), key("new", 2_000)]);
        let callers = Callers::new(vec![CallerEntry { api_keys: keys, ..entry("erp", None, &[PAGE]) }]).unwrap();
        let with = |authorization, now| {
            let credentials = Credentials { authorization: Some(authorization), ..Credentials::default() };
            callers.identify(credentials, Timestamp::from_millis(now)).is_ok()
        };
        assert!(with("Bearer old", 1_000) && !with("Bearer old", 1_001) && with("Bearer new", 1_001) && !with("Bearer new", 2_000));
        let page = Credentials { origin: Some(PAGE), ..Credentials::default() };
        assert_eq!(callers.identify(page, NOW).unwrap_err(), AuthError::UnknownCaller);
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
        let with_key = |origin| who(Credentials { authorization: Some("Bearer ci-key"), origin: Some(origin), ..Credentials::default() });
        assert_eq!(with_key(SHOP).as_deref(), Ok("ci"));
        assert_eq!(with_key(PAGE), Err(AuthError::ForeignOrigin));
        assert_eq!(with_key("https://evil.example"), Err(AuthError::ForeignOrigin));
    }

    #[test]
    fn a_bound_listener_stands_in_for_missing_credentials_but_not_for_wrong_ones() {
        let old: CallerId = "old".parse().unwrap();
        let at = |authorization, origin| who(Credentials { authorization, origin, listener: Some(&old), certificate: None });
        assert_eq!(at(None, None).as_deref(), Ok("old"));
        assert_eq!(at(Some("Bearer ci-key"), None).as_deref(), Ok("ci"));
        assert_eq!(at(Some("Bearer wrong"), None), Err(AuthError::UnknownCaller));
        assert_eq!(at(None, Some(PAGE)), Err(AuthError::ForeignOrigin));
    }

    /// Someone's certificate, and callers of whom `erp` is known by its subject, `hsm` by it alone, and `both` needs a key beside it.
    fn certified(subject: &str) -> ClientCertificate {
        let now = Timestamp::from(std::time::SystemTime::now());
        let valid = Validity::new(now, now.after(std::time::Duration::from_secs(3600))).unwrap();
        ClientCertificate::from_der(DevCa::create(subject, valid).unwrap().certificate().as_der()).unwrap()
    }

    fn known_by(id: &str, key: Option<&str>, certificate: ClientCertificateId, origins: &[&str]) -> CallerEntry {
        CallerEntry { certificate: Some(certificate), ..entry(id, key, origins) }
    }

    #[test]
    fn a_certificate_says_who_is_calling_by_itself_or_by_its_subject() {
        let (erp, hsm) = (certified("erp"), certified("hsm"));
        let subject = ClientCertificateId::Subject("CN=erp".parse().unwrap());
        let fingerprint = hsm.ids().next().unwrap();
        let callers = Callers::new(vec![
            known_by("erp", None, subject.clone(), &[PAGE]),
            known_by("hsm", None, fingerprint, &[]),
            known_by("both", Some("key"), ClientCertificateId::Subject("CN=both".parse().unwrap()), &[]),
            entry("ci", Some("ci-key"), &[]),
            entry("old", None, &[]),
        ])
        .unwrap();
        let old: CallerId = "old".parse().unwrap();
        let who = |certificate: &ClientCertificate, authorization, origin, listener| {
            let credentials = Credentials { authorization, origin, listener, certificate: Some(certificate) };
            callers.identify(credentials, NOW).map(|caller| caller.id.to_string())
        };
        let unknown = Err(AuthError::UnknownCaller);
        assert_eq!(who(&erp, None, None, None).as_deref(), Ok("erp"));
        assert_eq!(who(&hsm, None, None, None).as_deref(), Ok("hsm"));
        // Another certificate with the same subject is the same caller by subject, and not by fingerprint.
        assert_eq!(who(&certified("erp"), None, None, None).as_deref(), Ok("erp"));
        assert_eq!(who(&certified("hsm"), None, None, None), unknown);
        // A certificate goes before the listener, and one that says nothing leaves it at that.
        assert_eq!(who(&erp, None, None, Some(&old)).as_deref(), Ok("erp"));
        assert_eq!(who(&certified("nobody"), None, None, Some(&old)).as_deref(), Ok("old"));
        // Where both are declared both are needed, and nobody is two callers at once.
        let both = certified("both");
        assert_eq!(who(&both, Some("Bearer key"), None, None).as_deref(), Ok("both"));
        assert_eq!(who(&both, None, None, None), unknown);
        assert_eq!(who(&certified("nobody"), Some("Bearer key"), None, None), unknown);
        assert_eq!(who(&erp, Some("Bearer ci-key"), None, None), unknown);
        assert_eq!(who(&certified("nobody"), Some("Bearer ci-key"), None, None).as_deref(), Ok("ci"));
        assert_eq!(who(&erp, Some("Bearer wrong"), None, None), unknown);
        // A browser shows its certificate to any page; so the page must be of this caller.
        assert_eq!(who(&erp, None, Some(PAGE), None).as_deref(), Ok("erp"));
        assert_eq!(who(&hsm, None, Some(PAGE), None), Err(AuthError::ForeignOrigin));
        let same = Callers::new(vec![known_by("a", None, subject.clone(), &[]), known_by("b", None, subject, &[])]);
        assert_eq!(same.unwrap_err(), CallersError::SameCertificate("a".parse().unwrap(), "b".parse().unwrap()));
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
