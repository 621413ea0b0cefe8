//! The callers of a gateway as they change: those of its configuration, and those that operators add, rotate and revoke while it runs.
//!
//! Used by `http` for each request, by the control socket and the console for operators, and by `cli` without a gateway. Invariants: a request
//! waits for no lock and no IO here; what an operator did is in effect here when they are answered, and on the other gateways of the store as
//! soon as they hear of it; an API key in clear is given out once and kept nowhere.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use tokio::{
    sync::Mutex,
    time::{sleep, timeout},
};
use tracing::warn;

use super::{
    api_key::{AcceptedKey, ApiKey, ApiKeyHash, RandomUnavailable, generate_api_key},
    callers::{AuthError, CallerEntry, Callers, CallersError, Credentials},
    origin::OriginError,
};
use crate::{
    domain::{
        audit::{AuditEvent, CallerChange},
        caller::{Account, Caller, ConsentPolicy, ConsentRules, KeyAccess, Provenance, Scope, ScopeMismatch, Scopes},
        ids::{CallerId, KeyName},
        stored_caller::{NewCaller, RotationRefusal, StoredCaller, StoredKey},
        timestamp::Timestamp,
    },
    store::{Change, Conflict, Store, StoreError},
};

/// The most callers that can be added.
const CALLERS_MAX: usize = 10_000;
/// The most origins of one caller.
const ORIGINS_MAX: usize = 32;
/// The longest time for which an old key may stay good beside a new one.
pub const GRACE_MAX: Duration = Duration::from_secs(90 * 24 * 3600);
/// How often the store is asked in any case, should a change not have been heard of.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// The pause before a store that is away is asked again.
const PAUSE: Duration = Duration::from_secs(1);

/// What the configuration says that is about every caller.
#[derive(Debug, Clone, Default)]
pub struct BookSettings {
    /// The names of the keys that there are.
    pub keys: Vec<KeyName>,
    /// Whether any listener takes client certificates.
    pub takes_certificates: bool,
    /// The most uses of one permit.
    pub permit_uses_max: u32,
}

/// Why a caller was not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallerError {
    /// It is one of the configuration's.
    #[error("caller {0} stands in the configuration; change it there")]
    Configured(CallerId),
    /// It is one of the configuration's and was added as well.
    #[error(
        "caller {0} stands in the configuration and was added by an operator, too; rename the [[caller]], or take the other away with `sealgate callers remove {0}`"
    )]
    Twice(CallerId),
    /// There is none of this name.
    #[error("there is no caller {0}")]
    Missing(CallerId),
    /// There is one of this name.
    #[error("there is a caller {0} already")]
    Known(CallerId),
    /// It could not be told from another.
    #[error(transparent)]
    Same(#[from] CallersError),
    /// Nothing would tell who it is.
    #[error("nothing would identify this caller; give it an API key, a client certificate or an origin")]
    Nameless,
    /// A certificate that nobody could show.
    #[error("no [[listener]] takes client certificates; give one `tls` with `client_ca`")]
    NoCertificates,
    /// A key that does not exist.
    #[error("no configured key has the name {0}")]
    UnknownKey(KeyName),
    /// It could use no key.
    #[error("this caller could use no key; name some, or allow all")]
    NoKeys,
    /// Its default key is not one of its keys.
    #[error("the default key {0} is not among the caller's keys")]
    DefaultKey(KeyName),
    /// It is said who decides about signatures with a key that it cannot use.
    #[error("who decides about signatures with {0} is of no use: the key is not among the caller's keys")]
    ConsentFor(KeyName),
    /// Its scopes and its account do not go together.
    #[error(transparent)]
    Scopes(#[from] ScopeMismatch),
    /// An origin that is none.
    #[error(transparent)]
    Origin(#[from] OriginError),
    /// Too many origins.
    #[error("a caller has at most {ORIGINS_MAX} origins")]
    Origins,
    /// Everybody can say that they are a page of some origin.
    #[error("a caller that is known by its origin alone cannot have consent `auto`: any program can claim an origin")]
    AutoByOrigin,
    /// A rate that is none.
    #[error("a rate has a burst of at least 1")]
    Rate,
    /// An end that has passed, or of a key that there is not.
    #[error("the time at which the API key ends must be in the future, and there must be an API key")]
    Expiry,
    /// A grace that is too long.
    #[error("old keys can stay good for {} days at most", GRACE_MAX.as_secs() / 86_400)]
    Grace,
    /// It gets no new key.
    #[error(transparent)]
    Rotation(#[from] RotationRefusal),
    /// There is no room.
    #[error("{CALLERS_MAX} callers have been added, the most there may be")]
    TooMany,
    /// Somebody else changed it at the same time.
    #[error("somebody else changed the caller at the same time; look at it and try again")]
    Overtaken,
    /// No key was made.
    #[error(transparent)]
    Random(#[from] RandomUnavailable),
    /// The store was not reached.
    #[error("the store is not available")]
    StoreUnavailable,
}

/// A caller as operators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedCaller {
    /// The caller; of one of the configuration's, times and version say nothing.
    pub caller: StoredCaller,
    /// Whether it is one of the configuration's, which cannot be changed here.
    pub configured: bool,
    /// Why it is not known here although it could be.
    pub problem: Option<String>,
}

/// The callers of a gateway.
pub struct CallerBook {
    configured: Vec<CallerEntry>,
    settings: BookSettings,
    store: Arc<dyn Store>,
    now: ArcSwap<Snapshot>,
    /// Held while the store is read, so that an older reading never takes the place of a newer one.
    reading: Mutex<()>,
}

#[derive(Default)]
struct Snapshot {
    callers: Callers,
    stored: Vec<ListedCaller>,
}

impl CallerBook {
    /// Takes the callers of the configuration and reads those of the store.
    ///
    /// # Errors
    /// Two cannot be told apart, one is in both places, or the store was not reached.
    pub async fn open(configured: Vec<CallerEntry>, settings: BookSettings, store: Arc<dyn Store>) -> Result<Self, CallerError> {
        let book = Self::unread(configured, settings, store)?;
        let stored = book.read().await?;
        match stored.iter().find(|stored| book.is_configured(&stored.caller.id)) {
            Some(both) => Err(CallerError::Twice(both.caller.id.clone())),
            None => Ok(book),
        }
    }

    /// The same for who changes callers without letting any in; a caller may be in both places, so that it can be removed from one.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn open_to_change(configured: Vec<CallerEntry>, settings: BookSettings, store: Arc<dyn Store>) -> Result<Self, CallerError> {
        let book = Self::unread(configured, settings, store)?;
        book.read().await?;
        Ok(book)
    }

    fn unread(configured: Vec<CallerEntry>, settings: BookSettings, store: Arc<dyn Store>) -> Result<Self, CallerError> {
        let callers = Callers::new(configured.clone())?;
        let now = ArcSwap::from_pointee(Snapshot { callers, stored: Vec::new() });
        Ok(Self { configured, settings, store, now, reading: Mutex::default() })
    }

    /// Finds out who sent a request, as [`Callers::identify`] does, by the clock of this machine.
    ///
    /// # Errors
    /// [`AuthError`].
    pub fn identify(&self, credentials: Credentials<'_>) -> Result<Arc<Caller>, AuthError> {
        self.now.load().callers.identify(credentials, Timestamp::from(std::time::SystemTime::now()))
    }

    /// Whether pages of this origin may use the gateway at all.
    #[must_use]
    pub fn allow_origin(&self, origin: &str) -> bool {
        self.now.load().callers.allow_origin(origin)
    }

    /// Whether a caller of this name is known now.
    #[must_use]
    pub fn contains(&self, id: &CallerId) -> bool {
        self.now.load().callers.contains(id)
    }

    /// The names of all callers that are known now, in no order.
    #[must_use]
    pub fn ids(&self) -> Vec<CallerId> {
        self.now.load().callers.ids().cloned().collect()
    }

    /// All callers, those of the configuration first.
    ///
    /// # Errors
    /// [`CallerError::StoreUnavailable`].
    pub async fn list(&self) -> Result<Vec<ListedCaller>, CallerError> {
        let stored = self.read().await?;
        let configured = self.configured.iter().map(|entry| ListedCaller { caller: as_stored(entry), configured: true, problem: None });
        Ok(configured.chain(stored).collect())
    }

    /// One of them.
    ///
    /// # Errors
    /// [`CallerError::Missing`], [`CallerError::StoreUnavailable`].
    pub async fn find(&self, id: &CallerId) -> Result<ListedCaller, CallerError> {
        self.list().await?.into_iter().rfind(|listed| listed.caller.id == *id).ok_or_else(|| CallerError::Missing(id.clone()))
    }

    /// Adds a caller on behalf of `by`; returns its API key, if it has one, which nobody can find out later.
    ///
    /// # Errors
    /// [`CallerError`]; nothing is changed then.
    pub async fn add(&self, mut new: NewCaller, by: &str) -> Result<Option<ApiKey>, CallerError> {
        let now = self.store.now();
        self.check(&mut new, now)?;
        if self.read().await?.len() >= CALLERS_MAX {
            return Err(CallerError::TooMany);
        }
        let (key, stored_key) = if new.with_api_key {
            let (key, stored) = new_key(now, new.expires)?;
            (Some(key), Some(stored))
        } else {
            (None, None)
        };
        let what = CallerChange::Added {
            keys: new.keys.clone(),
            scopes: new.scopes,
            consent: new.consent,
            consent_for: new.consent_for.clone(),
            expires: new.expires,
        };
        let caller = StoredCaller::of(new, stored_key, now);
        self.now.load().callers.check(&entry(&caller, &self.settings)?).map_err(|error| match error {
            CallersError::SameName(id) => CallerError::Known(id),
            other => CallerError::Same(other),
        })?;
        self.change(caller.id.clone(), Change::InsertCaller(caller), what, by).await?;
        Ok(key)
    }

    /// Gives a caller a new API key, on behalf of `by`. Those before are good for `grace` more, the new one until `expires`.
    ///
    /// # Errors
    /// [`CallerError`]; nothing is changed then.
    pub async fn rotate(&self, id: &CallerId, grace: Duration, expires: Option<Timestamp>, by: &str) -> Result<ApiKey, CallerError> {
        if grace > GRACE_MAX {
            return Err(CallerError::Grace);
        }
        let now = self.store.now();
        if expires.is_some_and(|expires| expires <= now) {
            return Err(CallerError::Expiry);
        }
        let mut caller = self.stored(id).await?;
        let (key, stored_key) = new_key(now, expires)?;
        caller.rotate(stored_key, grace)?;
        let what = CallerChange::Rotated { old_keys_end: now.after(grace), expires };
        self.change(id.clone(), Change::UpdateCaller(caller), what, by).await?;
        Ok(key)
    }

    /// Ends a caller at once and for good, on behalf of `by`. What it has made stays.
    ///
    /// # Errors
    /// [`CallerError`]; nothing is changed then.
    pub async fn revoke(&self, id: &CallerId, by: &str) -> Result<(), CallerError> {
        let mut caller = self.stored(id).await?;
        caller.revoke(self.store.now());
        self.change(id.clone(), Change::UpdateCaller(caller), CallerChange::Revoked, by).await
    }

    /// Removes a caller, on behalf of `by`; its name may be used again, and whoever has it then owns what this one has made.
    ///
    /// # Errors
    /// [`CallerError`]; nothing is changed then.
    pub async fn remove(&self, id: &CallerId, by: &str) -> Result<(), CallerError> {
        self.stored(id).await?;
        self.change(id.clone(), Change::RemoveCaller(id.clone()), CallerChange::Removed, by).await
    }

    /// Keeps up with what operators do on other gateways of the same store, for as long as the future is polled.
    pub async fn follow(&self) {
        let mut changes = self.store.caller_changes();
        loop {
            changes.mark_unchanged();
            match self.read().await {
                // Past the time it looks for itself; an error means that the store is gone, and its callers with it.
                Ok(_) => drop(timeout(LOOK_EVERY, changes.changed()).await),
                Err(error) => {
                    warn!(error = %error, "the callers that operators have added cannot be read; those that are known stay");
                    sleep(PAUSE).await;
                }
            }
        }
    }

    async fn change(&self, id: CallerId, change: Change, what: CallerChange, by: &str) -> Result<(), CallerError> {
        let event = AuditEvent::CallerChanged { caller: id.clone(), what, by: by.to_owned() };
        self.store.commit(vec![change, Change::Audit(event)]).await.map_err(|error| match error {
            StoreError::Conflict(Conflict::CallerKnown) => CallerError::Known(id),
            StoreError::Conflict(Conflict::CallerGone) => CallerError::Missing(id),
            StoreError::Conflict(_) => CallerError::Overtaken,
            StoreError::Unavailable(_) => CallerError::StoreUnavailable,
        })?;
        // It is done; if it cannot be read now, whoever follows the store will.
        if let Err(error) = self.read().await {
            warn!(error = %error, "a caller was changed, which is not in effect here before the store is back");
        }
        Ok(())
    }

    async fn stored(&self, id: &CallerId) -> Result<StoredCaller, CallerError> {
        let found = self.store.find_caller(id).await.map_err(|_| CallerError::StoreUnavailable)?;
        found.ok_or_else(|| if self.is_configured(id) { CallerError::Configured(id.clone()) } else { CallerError::Missing(id.clone()) })
    }

    fn is_configured(&self, id: &CallerId) -> bool {
        self.configured.iter().any(|entry| entry.caller.id == *id)
    }

    /// Reads the callers of the store; from then on they are known here.
    async fn read(&self) -> Result<Vec<ListedCaller>, CallerError> {
        let _turn = self.reading.lock().await;
        let stored = self.store.list_callers().await.map_err(|_| CallerError::StoreUnavailable)?;
        let mut callers = Callers::new(self.configured.clone())?;
        let mut listed = Vec::with_capacity(stored.len());
        for caller in stored {
            let known = if caller.revoked.is_some() { Ok(()) } else { self.know(&caller, &mut callers) };
            listed.push(ListedCaller { caller, configured: false, problem: known.err().map(|error| error.to_string()) });
        }
        let before = self.now.swap(Arc::new(Snapshot { callers, stored: listed.clone() }));
        for new in listed.iter().filter(|new| new.problem.is_some() && !before.stored.contains(new)) {
            warn!("caller {} is not known here: {}", new.caller.id, new.problem.as_deref().unwrap_or_default());
        }
        Ok(listed)
    }

    fn know(&self, caller: &StoredCaller, callers: &mut Callers) -> Result<(), CallerError> {
        if self.is_configured(&caller.id) {
            return Err(CallerError::Twice(caller.id.clone()));
        }
        Ok(callers.add(entry(caller, &self.settings)?)?)
    }

    /// What can be said of a new caller by itself. Origins are put as browsers send them.
    fn check(&self, new: &mut NewCaller, now: Timestamp) -> Result<(), CallerError> {
        if self.is_configured(&new.id) {
            return Err(CallerError::Configured(new.id.clone()));
        }
        let by_origin_alone = !new.with_api_key && new.client_certificate.is_none();
        if by_origin_alone && new.origins.is_empty() {
            return Err(CallerError::Nameless);
        }
        if by_origin_alone && new.consent_for.values().chain([&new.consent]).any(|policy| *policy == ConsentPolicy::Auto) {
            return Err(CallerError::AutoByOrigin);
        }
        if new.client_certificate.is_some() && !self.settings.takes_certificates {
            return Err(CallerError::NoCertificates);
        }
        if new.origins.len() > ORIGINS_MAX {
            return Err(CallerError::Origins);
        }
        for origin in &mut new.origins {
            *origin = origin.parse::<super::Origin>()?.to_string();
        }
        self.check_keys(new)?;
        Account::check(new.account.as_ref(), new.scopes)?;
        if new.rate.is_some_and(|rate| rate.burst == 0) {
            return Err(CallerError::Rate);
        }
        match new.expires {
            Some(expires) if expires <= now || !new.with_api_key => Err(CallerError::Expiry),
            _ => Ok(()),
        }
    }

    fn check_keys(&self, new: &NewCaller) -> Result<(), CallerError> {
        let named = match &new.keys {
            KeyAccess::All => &[][..],
            KeyAccess::Only(named) if named.is_empty() && signs(new.scopes) => return Err(CallerError::NoKeys),
            KeyAccess::Only(named) => named,
        };
        if let Some(unknown) = named.iter().chain(&new.default_key).find(|key| !self.settings.keys.contains(key)) {
            return Err(CallerError::UnknownKey(unknown.clone()));
        }
        if let Some(key) = new.consent_for.keys().find(|key| !self.settings.keys.contains(key) || !new.keys.allows(key)) {
            return Err(CallerError::ConsentFor(key.clone()));
        }
        match &new.default_key {
            Some(key) if !new.keys.allows(key) => Err(CallerError::DefaultKey(key.clone())),
            _ => Ok(()),
        }
    }
}

/// Whether whoever has these scopes can sign.
const fn signs(scopes: Scopes) -> bool {
    scopes.allow(Scope::TicketApi) || scopes.allow(Scope::CscApi)
}

fn new_key(now: Timestamp, expires: Option<Timestamp>) -> Result<(ApiKey, StoredKey), CallerError> {
    let key = generate_api_key()?;
    let sha256 = (&ApiKeyHash::of(key.reveal())).into();
    Ok((key, StoredKey { sha256, made: now, expires }))
}

/// A stored caller as requests are held against it.
fn entry(stored: &StoredCaller, settings: &BookSettings) -> Result<CallerEntry, CallerError> {
    let caller = Caller {
        id: stored.id.clone(),
        keys: stored.keys.clone(),
        default_key: stored.default_key.clone(),
        consent: ConsentRules { policy: stored.consent, of_keys: stored.consent_for.clone() },
        permit_uses_max: settings.permit_uses_max,
        scopes: stored.scopes,
        account: stored.account.clone().map(Arc::new),
        rate: stored.rate,
        from: Provenance::default(),
    };
    let key = |key: &StoredKey| AcceptedKey { hash: key.sha256.into(), expires: key.expires };
    Ok(CallerEntry {
        caller,
        api_keys: stored.needs_key.then(|| stored.api_keys.iter().map(key).collect()),
        certificate: stored.client_certificate.clone(),
        origins: stored.origins.iter().map(|origin| origin.parse()).collect::<Result<_, OriginError>>()?,
    })
}

/// A caller of the configuration in the form of the others.
fn as_stored(entry: &CallerEntry) -> StoredCaller {
    let caller = &entry.caller;
    let beginning = Timestamp::from_millis(0);
    let key = |key: &AcceptedKey| StoredKey { sha256: (&key.hash).into(), made: beginning, expires: key.expires };
    StoredCaller {
        id: caller.id.clone(),
        keys: caller.keys.clone(),
        default_key: caller.default_key.clone(),
        consent: caller.consent.policy,
        consent_for: caller.consent.of_keys.clone(),
        scopes: caller.scopes,
        account: caller.account.as_deref().cloned(),
        rate: caller.rate,
        api_keys: entry.api_keys.iter().flatten().map(key).collect(),
        needs_key: entry.api_keys.is_some(),
        client_certificate: entry.certificate.clone(),
        origins: entry.origins.iter().map(ToString::to_string).collect(),
        added: beginning,
        revoked: None,
        version: 0,
    }
}

#[cfg(test)]
mod tests;
