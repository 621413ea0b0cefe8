//! From a caller's wish to exactly one key: names, URIs, and what is known of a key without signing with it.
//!
//! What a key is was read from its token once per epoch (each time the token is taken up) and is then cached: the hot path asks no token.
//! Invariant: a key that made a wrong signature is quarantined until the gateway starts again.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use crate::{
    domain::{
        algorithm::SignatureAlgorithm,
        audit::Sha256,
        caller::{Caller, KeyAccess},
        certificate::{serial_number, validity},
        ids::KeyName,
        job::KeyAddress,
        key::{ConfiguredKey, KeyChoice},
        key_uri::Pkcs11Uri,
        lease::AnnouncedKey,
        pin::Pin,
        timestamp::Timestamp,
        token::{KeyDescription, KeySelector, LoginMode, SlotState, SlotStatus, TokenIdentity},
        verify::{Verifier, VerifyError},
    },
    token::{
        command::{Command, Reply},
        driver::{DeviceError, Retry},
        slot::{SlotError, SlotHandle, status_now},
        supervisor::{FindError, Tokens},
    },
};

use super::{
    leases::{LeaseBook, Remote},
    service::{Denied, SigningKey},
};

/// A key and what verifies its signatures.
#[derive(Debug)]
pub(super) struct KnownKey {
    pub(super) key: Arc<SigningKey>,
    /// How it signs unless the request says otherwise.
    pub(super) algorithm: Option<SignatureAlgorithm>,
    /// `None` for a key that may sign unverified and that the gateway cannot verify.
    pub(super) verifier: Option<Arc<Verifier>>,
}

/// Where a token is: at this gateway, or at another one on the same store, which signs then.
#[derive(Debug, Clone)]
pub(super) enum Site {
    Here(SlotHandle),
    Elsewhere(Remote),
}

impl Site {
    pub(super) fn token(&self) -> &TokenIdentity {
        match self {
            Self::Here(slot) => slot.token(),
            Self::Elsewhere(remote) => remote.token.token(),
        }
    }

    pub(super) fn status(&self) -> SlotStatus {
        match self {
            Self::Here(slot) => slot.status(),
            Self::Elsewhere(remote) => remote.status(),
        }
    }

    /// For how long it has been in this state.
    pub(super) fn for_how_long(&self) -> Duration {
        match self {
            Self::Elsewhere(remote) if !remote.lives() => remote.silent_for(),
            site => Timestamp::from(SystemTime::now()).since(site.status().since),
        }
    }

    pub(super) fn login_mode(&self) -> LoginMode {
        match self {
            Self::Here(slot) => slot.login_mode(),
            Self::Elsewhere(remote) => remote.token.announced.slot.login,
        }
    }

    pub(super) fn queue_bound(&self) -> usize {
        match self {
            Self::Here(slot) => slot.policy().queue_bound,
            Self::Elsewhere(remote) => remote.token.announced.queue_bound,
        }
    }
}

/// Keys whose certificates were requested through the gateway.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct EnrolledKeys {
    /// Those whose certificate is active, by name.
    pub keys: HashMap<KeyName, Arc<ConfiguredKey>>,
    /// SHA-256 of certificates that others have replaced: they sign nothing more.
    pub replaced: HashSet<Sha256>,
}

/// What a caller's choice leads to: a token and the object attributes that name the key on its token.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) site: Site,
    selector: KeySelector,
    configured: Option<Arc<ConfiguredKey>>,
    /// [`Keyring::generation`] before it was looked for.
    generation: u64,
}

impl Target {
    fn place(&self) -> Place {
        (self.site.token().clone(), self.selector.clone(), self.configured.as_ref().map(|entry| entry.name.clone()))
    }
}

/// A token, how a URI or a job names a key on it, and the name that was asked for: each has a certificate, an algorithm and rules of its own.
type Place = (TokenIdentity, KeySelector, Option<KeyName>);

/// [`SlotHandle::epoch`] of the time when something was read.
type Epoch = u64;

/// Every key the gateway knows of.
pub(super) struct Keyring {
    tokens: Tokens,
    /// Keys that the configuration names.
    configured: BTreeMap<KeyName, Arc<ConfiguredKey>>,
    /// Keys with a certificate that was requested here, and certificates that have been replaced.
    enrolled: RwLock<EnrolledKeys>,
    /// Counts the times at which those were others.
    generation: AtomicU64,
    /// Who has which token.
    pub(super) leases: LeaseBook,
    known: Mutex<HashMap<Place, (Epoch, Arc<KnownKey>)>>,
    /// Keys of other gateways' tokens, with what was announced of them.
    known_elsewhere: Mutex<HashMap<Place, (AnnouncedKey, Arc<KnownKey>)>>,
    quarantined: Mutex<HashSet<KeyAddress>>,
}

impl Keyring {
    /// `shared`: whether the store is shared with other gateways.
    pub(super) fn new(tokens: Tokens, keys: Vec<ConfiguredKey>, shared: bool) -> Self {
        let configured = keys.into_iter().map(|key| (key.name.clone(), Arc::new(key))).collect();
        Self {
            tokens,
            configured,
            enrolled: RwLock::default(),
            generation: AtomicU64::default(),
            leases: LeaseBook::new(shared),
            known: Mutex::default(),
            known_elsewhere: Mutex::default(),
            quarantined: Mutex::default(),
        }
    }

    pub(super) fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// The configured name of a key, if it has one.
    pub(super) fn name_of(&self, token: &TokenIdentity, key: &KeyDescription) -> Option<KeyName> {
        self.entry_of(token, key).map(|entry| entry.name.clone())
    }

    /// The names of configured keys, and of those with a certificate that was requested here.
    pub(super) fn key_names(&self) -> Vec<KeyName> {
        let names: BTreeSet<_> = self.configured.keys().cloned().chain(self.enrolled().keys.keys().cloned()).collect();
        names.into_iter().collect()
    }

    /// Whether a key of this name is, or should be, on this token.
    pub(super) fn is_on(&self, name: &KeyName, token: &TokenIdentity) -> bool {
        self.find(name).is_some_and(|entry| entry.uri.matches_token(token))
    }

    /// The ends of the certificates that keys with names sign with, as far as they are known without asking a token.
    pub(super) fn certificate_ends(&self) -> Vec<(KeyName, Timestamp)> {
        let end = |name: KeyName| {
            let cached = || self.cached(&self.target_of(&name)?.ok()?)?.key.certificate.clone();
            let certificate = self.find(&name)?.certificate.clone().or_else(cached)?;
            Some((name, validity(&certificate)?.not_after))
        };
        self.key_names().into_iter().filter_map(end).collect()
    }

    /// The certificate that the configuration, or a request, has for a key.
    pub(super) fn configured_certificate(&self, token: &TokenIdentity, key: &KeyDescription) -> Option<Vec<u8>> {
        self.entry_of(token, key)?.certificate.clone()
    }

    /// Finds the token of the key that `caller` chose.
    pub(super) fn locate(&self, caller: &Caller, choice: &KeyChoice) -> Result<Target, Denied> {
        let generation = self.generation();
        let named = match choice {
            KeyChoice::Default => self.named(caller, caller.default_key.as_ref().ok_or(Denied::NoKey)?)?,
            KeyChoice::Named(name) => self.named(caller, name)?,
            KeyChoice::Uri(uri) => return self.target(uri, None, generation),
        };
        self.target(&named.uri, Some(Arc::clone(&named)), generation)
    }

    /// Every configured key whose token is known.
    pub(super) fn configured_targets(&self) -> Vec<(KeyName, Target)> {
        self.key_names().into_iter().filter_map(|name| Some((name.clone(), self.target_of(&name)?.ok()?))).collect()
    }

    /// The target of a configured key; `None` if there is no such key.
    pub(super) fn target_of(&self, name: &KeyName) -> Option<Result<Target, Denied>> {
        let generation = self.generation();
        let entry = self.find(name)?;
        Some(self.target(&entry.uri, Some(Arc::clone(&entry)), generation))
    }

    /// The target of a key that is named by where it is.
    pub(super) fn target_at(&self, address: &KeyAddress) -> Result<Target, Denied> {
        let KeySelector { id, label } = address.selector.clone();
        let uri = Pkcs11Uri { id, object: label, ..address.token.uri() };
        self.target(&uri, None, self.generation())
    }

    fn target(&self, uri: &Pkcs11Uri, configured: Option<Arc<ConfiguredKey>>, generation: u64) -> Result<Target, Denied> {
        Ok(Target { site: self.site(uri)?, selector: uri.key_selector(), configured, generation })
    }

    /// Whether the keys with active certificates are those that the target was found among.
    pub(super) fn is_current(&self, target: &Target) -> bool {
        self.generation() == target.generation
    }

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    /// Whoever has the lease of a token signs with it, so what that gateway says of it counts, although the token may be here, too.
    fn site(&self, uri: &Pkcs11Uri) -> Result<Site, Denied> {
        match self.tokens.find(uri) {
            Ok(slot) => {
                let present = slot.status().state != SlotState::Absent;
                let elsewhere = self.leases.elsewhere(slot.token()).filter(|remote| remote.lives() || !present);
                Ok(elsewhere.map_or(Site::Here(slot), Site::Elsewhere))
            }
            Err(FindError::Ambiguous(count)) => Err(Denied::TokenAmbiguous(count)),
            Err(FindError::None) => match self.leases.find(uri).as_slice() {
                [] => Err(Denied::TokenAbsent),
                [remote] => Ok(Site::Elsewhere(remote.clone())),
                several => Err(Denied::TokenAmbiguous(several.len())),
            },
        }
    }

    /// The name of the gateway that has a token, if that is another one.
    pub(super) fn gateway_with(&self, uri: &Pkcs11Uri) -> Option<String> {
        let remote = match self.tokens.find(uri) {
            Ok(slot) => self.leases.elsewhere(slot.token()),
            Err(_) => self.leases.find(uri).into_iter().next(),
        };
        remote.filter(Remote::lives).map(|remote| remote.token.name.clone())
    }

    fn named(&self, caller: &Caller, name: &KeyName) -> Result<Arc<ConfiguredKey>, Denied> {
        self.find(name).filter(|_| caller.keys.allows(name)).ok_or_else(|| Denied::UnknownKey(name.clone()))
    }

    fn enrolled(&self) -> RwLockReadGuard<'_, EnrolledKeys> {
        self.enrolled.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The key of this name; what the configuration says goes first.
    fn find(&self, name: &KeyName) -> Option<Arc<ConfiguredKey>> {
        self.configured.get(name).cloned().or_else(|| self.enrolled().keys.get(name).cloned())
    }

    /// What names a key that was found on a token.
    fn entry_of(&self, token: &TokenIdentity, key: &KeyDescription) -> Option<Arc<ConfiguredKey>> {
        let fits = |entry: &&Arc<ConfiguredKey>| entry.uri.matches_token(token) && entry.uri.matches_key(key);
        self.configured.values().find(fits).cloned().or_else(|| self.enrolled().keys.values().find(fits).cloned())
    }

    /// Takes up the keys with active certificates in place of those that were known so far, at once for all.
    pub(super) fn enrol(&self, new: EnrolledKeys) {
        // Told again and again; what is cached stays while it is the same.
        if *self.enrolled() == new {
            return;
        }
        // Before and after, so that whoever looked at the one and at the other can tell.
        self.generation.fetch_add(1, Ordering::SeqCst);
        *self.enrolled.write().unwrap_or_else(PoisonError::into_inner) = new;
        self.generation.fetch_add(1, Ordering::SeqCst);
        // What is cached holds certificates as they were.
        lock(&self.known).clear();
        lock(&self.known_elsewhere).clear();
    }

    /// Whether the configuration itself has a key of this name.
    pub(super) fn is_configured(&self, name: &KeyName) -> bool {
        self.configured.contains_key(name)
    }

    /// What is known of the target's key; asks the token if it was not asked since it was taken up. `pin` helps to see it.
    pub(super) async fn describe(&self, caller: &Caller, target: &Target, pin: Option<&Pin>) -> Result<Arc<KnownKey>, Denied> {
        let known = self.known(target, pin).await?;
        if target.configured.is_none() {
            may_use(caller, known.key.address.name.as_ref())?;
        }
        Ok(known)
    }

    /// As [`describe`](Self::describe), for the gateway itself.
    pub(super) async fn known(&self, target: &Target, pin: Option<&Pin>) -> Result<Arc<KnownKey>, Denied> {
        let known = match (&target.site, self.cached(target)) {
            (_, Some(known)) => known,
            // The question would stand behind a person, and whoever asks with it, for minutes.
            (Site::Here(slot), None) if slot.status().state == SlotState::WaitingAtReader => {
                return Err(Denied::SlotUnavailable(slot.status()));
            }
            (Site::Here(slot), None) => self.ask_token(slot, target, pin).await?,
            (Site::Elsewhere(remote), None) => self.read_announced(remote, target)?,
        };
        if lock(&self.quarantined).contains(&known.key.address) {
            return Err(Denied::Quarantined);
        }
        Ok(known)
    }

    /// What is known of the target's key without asking anybody.
    pub(super) fn cached(&self, target: &Target) -> Option<Arc<KnownKey>> {
        let place = target.place();
        match &target.site {
            Site::Here(slot) => {
                lock(&self.known).get(&place).filter(|(epoch, _)| *epoch == slot.epoch()).map(|(_, known)| Arc::clone(known))
            }
            Site::Elsewhere(remote) => {
                let announced = &remote.token.announced.keys;
                lock(&self.known_elsewhere).get(&place).filter(|(key, _)| announced.contains(key)).map(|(_, known)| Arc::clone(known))
            }
        }
    }

    /// What verifies a job's signature: its key was described when it was accepted, or is described now (after a restart).
    pub(super) async fn verifier_for(&self, slot: &SlotHandle, address: &KeyAddress) -> Result<Arc<KnownKey>, Denied> {
        let generation = self.generation();
        let configured = address.name.as_ref().and_then(|name| self.find(name));
        let target = Target { site: Site::Here(slot.clone()), selector: address.selector.clone(), configured, generation };
        match self.cached(&target) {
            Some(known) => Ok(known),
            None => self.ask_token(slot, &target, None).await,
        }
    }

    /// What another gateway announced of the target's key.
    fn read_announced(&self, remote: &Remote, target: &Target) -> Result<Arc<KnownKey>, Denied> {
        let KeySelector { id, label } = &target.selector;
        let meant = |announced: &&AnnouncedKey| {
            id.as_ref().is_none_or(|id| *id == announced.key.id) && label.as_ref().is_none_or(|label| *label == announced.key.label)
        };
        let announced: Vec<_> = remote.token.announced.keys.iter().filter(meant).collect();
        let announced = match announced.as_slice() {
            [] if remote.token.announced.keys.is_empty() => return Err(Denied::SlotUnavailable(unread(remote))),
            [] => return Err(Denied::KeyNotFound),
            [announced] => (*announced).clone(),
            several => return Err(Denied::KeyAmbiguous(several.len())),
        };
        let known = Arc::new(self.make_known(target, announced.key.clone(), announced.algorithms.clone())?);
        let mut cache = lock(&self.known_elsewhere);
        if !self.is_current(target) {
            return Ok(known);
        }
        cache.retain(|(token, ..), (key, _)| token != remote.token.token() || remote.token.announced.keys.contains(key));
        cache.insert(target.place(), (announced, Arc::clone(&known)));
        Ok(known)
    }

    async fn ask_token(&self, slot: &SlotHandle, target: &Target, pin: Option<&Pin>) -> Result<Arc<KnownKey>, Denied> {
        let epoch = slot.epoch();
        let command = Command::DescribeKey { key: target.selector.clone(), pin: pin.map(Pin::duplicate) };
        let (key, algorithms) = match slot.call(command).await {
            Ok(Reply::Key { key, algorithms }) => (key, algorithms),
            Ok(_) => return Err(Denied::Device("the token answered something else than it was asked".to_owned())),
            Err(error) => return Err(denied(slot, error)),
        };
        let known = Arc::new(self.make_known(target, key, algorithms)?);
        let token = slot.token();
        let mut cache = lock(&self.known);
        // Its certificate was replaced while it was asked for: it is good for whoever asked before that, and nobody else.
        if !self.is_current(target) {
            return Ok(known);
        }
        cache.retain(|(of, ..), (since, _)| of != token || *since == epoch);
        // Under the URI's words and under the key's own, which is how its jobs name it.
        let address = known.key.address.clone();
        for place in [target.place(), (address.token, address.selector, address.name)] {
            cache.insert(place, (epoch, Arc::clone(&known)));
        }
        Ok(known)
    }

    fn make_known(&self, target: &Target, key: KeyDescription, algorithms: Vec<SignatureAlgorithm>) -> Result<KnownKey, Denied> {
        let token = target.site.token();
        let configured = target.configured.clone().or_else(|| self.entry_of(token, &key));
        let configured = configured.as_deref();
        let public_key = key.public_key.ok_or(Denied::NoPublicKey)?;
        let unverified_allowed = configured.is_some_and(|entry| entry.allow_unverified);
        let verifier = match Verifier::for_key(&public_key) {
            Ok(verifier) => Some(Arc::new(verifier)),
            Err(VerifyError::Unsupported(_)) if unverified_allowed => None,
            Err(error) => return Err(Denied::NotSupported(format!("signatures of this key could not be verified: {error}"))),
        };
        let selector = KeySelector { id: (!key.id.is_empty()).then_some(key.id), label: (!key.label.is_empty()).then_some(key.label) };
        let address = KeyAddress { token: token.clone(), selector, name: configured.map(|entry| entry.name.clone()) };
        let certificate = configured.and_then(|entry| entry.certificate.clone()).or(key.certificate);
        let replaced = certificate.as_deref().is_some_and(|der| self.enrolled().replaced.contains(&Sha256::of(der)));
        let in_force = certificate.as_deref().filter(|_| !configured.is_some_and(|entry| entry.ignore_validity)).and_then(validity);
        let signing_key = SigningKey {
            address,
            kind: key.kind,
            public_key,
            certificate_serial: certificate.as_deref().and_then(serial_number),
            certificate,
            chain: configured.map(|entry| entry.chain.clone()).unwrap_or_default(),
            algorithms,
            in_force,
            replaced,
            ignore_purpose: configured.is_some_and(|entry| entry.ignore_purpose),
        };
        Ok(KnownKey { key: Arc::new(signing_key), algorithm: configured.and_then(|entry| entry.algorithm), verifier })
    }

    /// Stops the use of a key that made a wrong signature, and says so of its token.
    pub(super) fn quarantine(&self, slot: &SlotHandle, address: &KeyAddress) {
        lock(&self.quarantined).insert(address.clone());
        let key = address.name.as_ref().map_or_else(|| address.selector.to_string(), ToString::to_string);
        slot.quarantine(&format!("key {key} made a signature that does not verify; the other keys sign on"));
    }

    /// Forgets what was read from a token, because it was changed.
    pub(super) fn forget(&self, token: &TokenIdentity) {
        lock(&self.known).retain(|(of, ..), _| of != token);
        self.leases.token_changed(token);
    }
}

/// A key chosen by URI is open to callers that may use all keys, or this one by its name.
fn may_use(caller: &Caller, name: Option<&KeyName>) -> Result<(), Denied> {
    match (&caller.keys, name) {
        (KeyAccess::All, _) => Ok(()),
        (KeyAccess::Only(_), Some(name)) if caller.keys.allows(name) => Ok(()),
        (KeyAccess::Only(_), _) => Err(Denied::ForeignKey),
    }
}

/// The keys of a token that its gateway has not read yet, or cannot read without a request's PIN.
fn unread(remote: &Remote) -> SlotStatus {
    let reason = format!("gateway {} has the token and has not read its keys yet, or needs a PIN to see them", remote.token.name);
    SlotStatus { reason, ..remote.status() }
}

/// What a token's refusal means to a caller.
pub(super) fn denied(slot: &SlotHandle, error: SlotError) -> Denied {
    match error {
        SlotError::Away(status) => Denied::SlotUnavailable(status),
        SlotError::Device(DeviceError::LoginRequired(_)) if !slot.status().state.takes_work() => Denied::SlotUnavailable(slot.status()),
        SlotError::Device(DeviceError::LoginRequired(why)) => Denied::PinRefused(why),
        SlotError::Device(DeviceError::KeyNotFound(_)) => Denied::KeyNotFound,
        SlotError::Device(DeviceError::KeyAmbiguous { count, .. }) => Denied::KeyAmbiguous(count),
        SlotError::Device(error) if concerns_pin(&error) => Denied::PinRefused(error.to_string()),
        SlotError::Device(DeviceError::Unsupported(why)) => Denied::NotSupported(why),
        SlotError::Busy => Denied::SlotUnavailable(status_now(SlotState::Busy, "it has too much to do")),
        // It may not have been noticed yet: whoever asks again finds the token recovering, or back.
        SlotError::Device(error) if error.retry() == Retry::AfterReopen => {
            Denied::SlotUnavailable(status_now(SlotState::Recovering, &error.to_string()))
        }
        SlotError::Device(_) => Denied::Device("the token could not be asked; try again".to_owned()),
    }
}

/// Whether an error is about the PIN that was given.
pub(super) const fn concerns_pin(error: &DeviceError) -> bool {
    matches!(
        error,
        DeviceError::PinRejected
            | DeviceError::PinUnacceptable
            | DeviceError::PinLocked
            | DeviceError::FinalTry
            | DeviceError::PinNotTried(_)
            | DeviceError::PinMismatch
    )
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
