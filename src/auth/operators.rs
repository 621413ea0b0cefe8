//! Operators' accounts: logging in and out, and looking after them.
//!
//! Used by `http` (the console, the control socket) and `cli`. Invariants: a password is checked only when neither its account nor its address
//! has to wait; an answer does not tell whether there is such an account; every change stands in the audit log, in the same commit; there
//! is always an administrator who can log in, once there is one.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::Mutex;
use tracing::{info, warn};

use super::{
    api_key::RandomUnavailable,
    back_off::{BackOff, Patience},
    password::{HashError, Hasher, Password, PasswordError},
    rate::{Rate, RateLimiter, address_key},
    sessions::SessionToken,
};
use crate::{
    domain::{
        audit::{AccountChange, AuditEvent},
        caller::KeyAccess,
        ids::OperatorName,
        operator::{Operator, OperatorAccount, OperatorSession, Role, SessionId},
        timestamp::Timestamp,
    },
    store::{Change, Conflict, Store, StoreError},
};

/// The most sessions of one operator; the oldest ends when there is another one.
const SESSIONS_MAX: usize = 16;
/// The most operators.
pub const OPERATORS_MAX: usize = 1_000;
/// How exactly the last use of a session is kept.
const SEEN_TO: Duration = Duration::from_secs(60);
/// An operator mistypes; whoever tries on for longer waits. Not longer than a minute, or anybody could keep an operator out.
const BY_NAME: Patience = Patience { free: 4, pause_max: Duration::from_secs(60) };
/// Several people may share an address, and mistype.
const BY_ADDRESS: Patience = Patience { free: 12, pause_max: Duration::from_secs(900) };
/// Failed logins that are recorded one by one; others are counted.
const RECORDED: Rate = Rate { per_second: 1, burst: 30 };

/// What a deployment says about operators' sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionSettings {
    /// How long a session may be idle. Default: 30 minutes.
    pub idle_max: Duration,
    /// How long it lasts in any case. Default: 12 hours.
    pub lifetime: Duration,
}

impl Default for SessionSettings {
    fn default() -> Self {
        Self { idle_max: Duration::from_secs(30 * 60), lifetime: Duration::from_secs(12 * 3600) }
    }
}

/// Why somebody is not logged in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// There is no such operator, the password is wrong, or the account is disabled: nobody is told which.
    #[error("the name or the password is wrong")]
    Wrong,
    /// Too many tries have failed.
    #[error("too many tries have failed")]
    Wait(Duration),
    /// Passwords cannot be checked now.
    #[error(transparent)]
    Hash(#[from] HashError),
    /// The store was not reached, or the system has no random numbers.
    #[error("the gateway cannot log anybody in now")]
    Unavailable,
}

/// Why an account was not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OperatorError {
    /// There is one of this name.
    #[error("there is an operator of this name already")]
    Known,
    /// There is none of this name.
    #[error("there is no operator of this name")]
    Gone,
    /// Somebody else changed it at the same time.
    #[error("the account was changed meanwhile")]
    Changed,
    /// There are as many as there may be.
    #[error("there are {OPERATORS_MAX} operators, the most there may be")]
    TooMany,
    /// Nobody could look after the gateway any more.
    #[error("this is the last administrator who can log in")]
    LastAdministrator,
    /// The password is none.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// It could not be hashed.
    #[error(transparent)]
    Hash(#[from] HashError),
    /// No password could be made.
    #[error(transparent)]
    Random(#[from] RandomUnavailable),
    /// The store was not reached; nothing was changed.
    #[error("the store is not available")]
    StoreUnavailable,
}

/// A session that lets its operator in.
#[derive(Debug, Clone)]
pub struct OpenSession {
    /// Who.
    pub operator: Operator,
    /// The session.
    pub session: OperatorSession,
}

/// Operators' accounts and sessions.
pub struct Operators {
    store: Arc<dyn Store>,
    settings: SessionSettings,
    hasher: Hasher,
    names: BackOff<OperatorName>,
    addresses: BackOff<IpAddr>,
    recorded: RateLimiter<()>,
    omitted: AtomicU64,
    /// Held while an account is changed, so that of two administrators the last one stays.
    changing: Mutex<()>,
}

impl Operators {
    /// Looks after the operators in `store`.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, settings: SessionSettings) -> Self {
        Self {
            store,
            settings,
            hasher: Hasher::new(),
            names: BackOff::new(BY_NAME),
            addresses: BackOff::new(BY_ADDRESS),
            recorded: RateLimiter::new(RECORDED),
            omitted: AtomicU64::new(0),
            changing: Mutex::default(),
        }
    }

    /// Logs an operator in: a new session, whose token the browser gets.
    ///
    /// # Errors
    /// [`LoginError`].
    pub async fn log_in(&self, name: &str, password: &str, address: Option<IpAddr>) -> Result<(SessionToken, OpenSession), LoginError> {
        // What cannot be a name or a password is as wrong as any other, and costs a try.
        let password = Password::typed(password).or_else(|_| Password::typed("")).map_err(|_| LoginError::Wrong)?;
        let account = self.check(name.parse().ok(), password, address).await?;
        let token = SessionToken::generate().map_err(|_| LoginError::Unavailable)?;
        let now = self.store.now();
        let name = account.operator.name.clone();
        let session = OperatorSession {
            id: token.id(),
            operator: name.clone(),
            epoch: account.epoch,
            began: now,
            seen: now,
            expires: now.after(self.settings.lifetime),
            address,
        };
        let open = self.store.list_sessions(&name, now).await.map_err(|_| LoginError::Unavailable)?;
        let mut changes: Vec<_> = open.iter().skip(SESSIONS_MAX - 1).map(|session| Change::EndSession(session.id)).collect();
        changes.push(Change::InsertSession(session.clone()));
        changes.push(Change::Audit(AuditEvent::OperatorLoggedIn { operator: name.clone(), address }));
        self.store.commit(changes).await.map_err(|_| LoginError::Unavailable)?;
        info!(operator = %name, "operator {name} logged in");
        Ok((token, OpenSession { operator: account.operator, session }))
    }

    /// Checks a password, unless its name or its address has to wait.
    async fn check(&self, name: Option<OperatorName>, password: Password, address: Option<IpAddr>) -> Result<OperatorAccount, LoginError> {
        let (now, address_key) = (Instant::now(), address.map(address_key));
        if let Err(wait) = self.begin(name.as_ref(), address_key, now) {
            self.omitted.fetch_add(1, Ordering::Relaxed);
            return Err(LoginError::Wait(wait));
        }
        let account = match &name {
            Some(name) => self.store.find_operator(name).await.map_err(|_| LoginError::Unavailable),
            None => Ok(None),
        };
        let checked = match account {
            Ok(account) => {
                let hash = account.as_ref().map(|account| account.password.clone());
                self.hasher.verify(password, hash).await.map(|good| (account, good)).map_err(LoginError::from)
            }
            Err(error) => Err(error),
        };
        match checked {
            Ok((Some(account), true)) if !account.disabled => {
                self.names.succeeded(&account.operator.name);
                address_key.iter().for_each(|address| self.addresses.took_back(address));
                Ok(account)
            }
            Ok((account, good)) => {
                self.record_failure(account, good, address).await;
                Err(LoginError::Wrong)
            }
            Err(error) => {
                name.iter().for_each(|name| self.names.took_back(name));
                address_key.iter().for_each(|address| self.addresses.took_back(address));
                Err(error)
            }
        }
    }

    fn begin(&self, name: Option<&OperatorName>, address: Option<IpAddr>, now: Instant) -> Result<(), Duration> {
        address.map_or(Ok(()), |address| self.addresses.begin(&address, now))?;
        name.map_or(Ok(()), |name| self.names.begin(name, now)).inspect_err(|_| {
            // It cost nothing to say no; the address pays for tries that were made.
            address.iter().for_each(|address| self.addresses.took_back(address));
        })
    }

    async fn record_failure(&self, account: Option<OperatorAccount>, good: bool, address: Option<IpAddr>) {
        if self.recorded.take((), Instant::now()).is_err() {
            self.omitted.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let reason = match (&account, good) {
            (None, _) => "there is no such operator",
            (Some(_), true) => "the account is disabled",
            (Some(_), false) => "the password is wrong",
        };
        let operator = account.map(|account| account.operator.name);
        let omitted = self.omitted.swap(0, Ordering::Relaxed);
        let event = AuditEvent::LogInFailed { operator, address, reason: reason.to_owned(), omitted };
        if let Err(error) = self.store.commit(vec![Change::Audit(event)]).await {
            warn!(error = %error, "a failed login is not in the audit log");
        }
    }

    /// The session with this token, if it lets its operator in. `used`: it counts as used now.
    ///
    /// # Errors
    /// [`OperatorError::StoreUnavailable`].
    pub async fn session(&self, token: &SessionToken, used: bool) -> Result<Option<OpenSession>, OperatorError> {
        let Some(session) = self.store.find_session(token.id()).await? else { return Ok(None) };
        let open = self.reopen(session).await?;
        if let Some(open) = open.as_ref().filter(|_| used) {
            let now = self.store.now();
            if now.since(open.session.seen) >= SEEN_TO {
                self.store.commit(vec![Change::TouchSession { id: open.session.id, seen: now }]).await?;
            }
        }
        Ok(open)
    }

    /// Whether a session that was open lets its operator in still, with what they may now. Does not count as a use.
    ///
    /// # Errors
    /// [`OperatorError::StoreUnavailable`].
    pub async fn is_still_open(&self, id: SessionId) -> Result<Option<OpenSession>, OperatorError> {
        match self.store.find_session(id).await? {
            Some(session) => self.reopen(session).await,
            None => Ok(None),
        }
    }

    async fn reopen(&self, session: OperatorSession) -> Result<Option<OpenSession>, OperatorError> {
        let account = self.store.find_operator(&session.operator).await?;
        let open = account.filter(|account| session.is_open(account, self.store.now(), self.settings.idle_max));
        Ok(open.map(|account| OpenSession { operator: account.operator, session }))
    }

    /// Ends a session.
    ///
    /// # Errors
    /// [`OperatorError::StoreUnavailable`].
    pub async fn log_out(&self, open: &OpenSession) -> Result<(), OperatorError> {
        let event = AuditEvent::OperatorLoggedOut { operator: open.operator.name.clone() };
        Ok(self.store.commit(vec![Change::EndSession(open.session.id), Change::Audit(event)]).await?)
    }

    /// The sessions of an operator that are open now, the newest first.
    ///
    /// # Errors
    /// [`OperatorError`].
    pub async fn sessions(&self, name: &OperatorName) -> Result<Vec<OperatorSession>, OperatorError> {
        let account = self.find(name).await?;
        let now = self.store.now();
        let mut sessions = self.store.list_sessions(name, now).await?;
        sessions.retain(|session| session.is_open(&account, now, self.settings.idle_max));
        Ok(sessions)
    }

    /// Every account, by name.
    ///
    /// # Errors
    /// [`OperatorError::StoreUnavailable`].
    pub async fn list(&self) -> Result<Vec<OperatorAccount>, OperatorError> {
        Ok(self.store.list_operators().await?)
    }

    /// Makes an account.
    ///
    /// # Errors
    /// [`OperatorError`].
    pub async fn add(&self, operator: Operator, password: Password, by: &str) -> Result<(), OperatorError> {
        let password = self.hasher.hash(password).await?;
        let _turn = self.changing.lock().await;
        if self.list().await?.len() >= OPERATORS_MAX {
            return Err(OperatorError::TooMany);
        }
        let now = self.store.now();
        let event = AuditEvent::OperatorChanged {
            operator: operator.name.clone(),
            what: AccountChange::Added { role: operator.role, keys: operator.keys.clone() },
            by: by.to_owned(),
        };
        let account = OperatorAccount { operator, password, disabled: false, added: now, epoch: now, version: 0 };
        Ok(self.store.commit(vec![Change::InsertOperator(account), Change::Audit(event)]).await?)
    }

    /// Gives an operator another password, and ends all their sessions.
    ///
    /// # Errors
    /// [`OperatorError`].
    pub async fn set_password(&self, name: &OperatorName, password: Password, by: &str) -> Result<(), OperatorError> {
        let hash = self.hasher.hash(password).await?;
        self.change(name, AccountChange::Password, by, |account, now| {
            account.password = hash;
            account.log_out_everywhere(now);
        })
        .await?;
        // Whoever was kept out by somebody else's tries gets in now.
        self.names.succeeded(name);
        Ok(())
    }

    /// Checks an operator's own password before they change it; counts as a login that may fail.
    ///
    /// # Errors
    /// [`LoginError`].
    pub async fn confirm(&self, name: &OperatorName, password: &str, address: Option<IpAddr>) -> Result<(), LoginError> {
        let password = Password::typed(password).map_err(|_| LoginError::Wrong)?;
        self.check(Some(name.clone()), password, address).await.map(drop)
    }

    /// Lets an operator log in no more, or again.
    ///
    /// # Errors
    /// [`OperatorError`].
    pub async fn set_disabled(&self, name: &OperatorName, disabled: bool, by: &str) -> Result<(), OperatorError> {
        let what = if disabled { AccountChange::Disabled } else { AccountChange::Enabled };
        self.change(name, what, by, |account, now| {
            account.disabled = disabled;
            account.log_out_everywhere(now);
        })
        .await
    }

    /// Changes what an operator may do, from their next request on.
    ///
    /// # Errors
    /// [`OperatorError`].
    pub async fn set_rights(&self, name: &OperatorName, role: Role, keys: KeyAccess, by: &str) -> Result<(), OperatorError> {
        let what = AccountChange::Rights { role, keys: keys.clone() };
        self.change(name, what, by, |account, _| (account.operator.role, account.operator.keys) = (role, keys)).await
    }

    /// Ends every session of an operator.
    ///
    /// # Errors
    /// [`OperatorError`].
    pub async fn log_out_everywhere(&self, name: &OperatorName, by: &str) -> Result<(), OperatorError> {
        self.change(name, AccountChange::LoggedOutEverywhere, by, OperatorAccount::log_out_everywhere).await
    }

    /// Removes an account.
    ///
    /// # Errors
    /// [`OperatorError`].
    pub async fn remove(&self, name: &OperatorName, by: &str) -> Result<(), OperatorError> {
        let _turn = self.changing.lock().await;
        self.keep_an_administrator(&self.find(name).await?, None).await?;
        let event = AuditEvent::OperatorChanged { operator: name.clone(), what: AccountChange::Removed, by: by.to_owned() };
        Ok(self.store.commit(vec![Change::DeleteOperator(name.clone()), Change::Audit(event)]).await?)
    }

    async fn change(
        &self,
        name: &OperatorName,
        what: AccountChange,
        by: &str,
        change: impl FnOnce(&mut OperatorAccount, Timestamp),
    ) -> Result<(), OperatorError> {
        let _turn = self.changing.lock().await;
        let before = self.find(name).await?;
        let mut account = before.clone();
        change(&mut account, self.store.now());
        self.keep_an_administrator(&before, Some(&account)).await?;
        let event = AuditEvent::OperatorChanged { operator: name.clone(), what, by: by.to_owned() };
        Ok(self.store.commit(vec![Change::UpdateOperator(account), Change::Audit(event)]).await?)
    }

    async fn keep_an_administrator(&self, before: &OperatorAccount, after: Option<&OperatorAccount>) -> Result<(), OperatorError> {
        let counts = |account: &OperatorAccount| account.operator.is_administrator() && !account.disabled;
        if !counts(before) || after.is_some_and(counts) {
            return Ok(());
        }
        let others = self.list().await?;
        let another = others.iter().any(|other| other.operator.name != before.operator.name && counts(other));
        if another { Ok(()) } else { Err(OperatorError::LastAdministrator) }
    }

    async fn find(&self, name: &OperatorName) -> Result<OperatorAccount, OperatorError> {
        self.store.find_operator(name).await?.ok_or(OperatorError::Gone)
    }
}

impl From<StoreError> for OperatorError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict(Conflict::OperatorKnown) => Self::Known,
            StoreError::Conflict(Conflict::OperatorGone) => Self::Gone,
            StoreError::Conflict(_) => Self::Changed,
            StoreError::Unavailable(_) => Self::StoreUnavailable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{domain::audit::AuditRecord, store::memory::MemoryStore};

    const PASSWORD: &str = "a good long password";

    fn operator(name: &str, role: Role) -> Operator {
        Operator { name: name.parse().unwrap(), role, keys: KeyAccess::All }
    }

    async fn with(accounts: &[(&str, Role)]) -> (Operators, Arc<MemoryStore>) {
        let store = Arc::new(MemoryStore::new());
        let operators = Operators::new(Arc::clone(&store) as Arc<dyn Store>, SessionSettings::default());
        for (name, role) in accounts {
            operators.add(operator(name, *role), Password::chosen(PASSWORD).unwrap(), "test").await.unwrap();
        }
        (operators, store)
    }

    async fn events(store: &MemoryStore) -> Vec<AuditEvent> {
        let gateway = store.audit_head().await.unwrap().gateway;
        let records = store.audit_records(gateway, 1, 1_000).await.unwrap();
        records.iter().map(|record| serde_json::from_str::<AuditRecord>(&record.text).unwrap().event).collect()
    }

    #[tokio::test]
    async fn a_session_lasts_until_its_operator_logs_out_or_is_logged_out_everywhere() {
        let (operators, store) = with(&[("ann", Role::Administrator)]).await;
        let (token, open) = operators.log_in("ann", PASSWORD, None).await.unwrap();
        let (other, _) = operators.log_in("ann", PASSWORD, None).await.unwrap();
        assert_eq!(operators.session(&token, true).await.unwrap().unwrap().operator, open.operator);
        assert_eq!(operators.sessions(&open.operator.name).await.unwrap().len(), 2);
        operators.log_out(&open).await.unwrap();
        assert!(operators.session(&token, true).await.unwrap().is_none());
        assert!(operators.session(&other, true).await.unwrap().is_some());
        operators.log_out_everywhere(&open.operator.name, "ann").await.unwrap();
        assert!(operators.session(&other, true).await.unwrap().is_none());
        assert!(operators.session(&SessionToken::generate().unwrap(), true).await.unwrap().is_none());
        let told = events(&store).await;
        let count = |wanted: fn(&AuditEvent) -> bool| told.iter().filter(|event| wanted(event)).count();
        assert_eq!(count(|event| matches!(event, AuditEvent::OperatorLoggedIn { .. })), 2);
        assert_eq!(count(|event| matches!(event, AuditEvent::OperatorLoggedOut { .. })), 1);
        assert_eq!(count(|event| matches!(event, AuditEvent::OperatorChanged { what: AccountChange::LoggedOutEverywhere, .. })), 1);
    }

    #[tokio::test]
    async fn a_new_password_a_disabled_account_and_a_removed_one_end_sessions() {
        let (operators, _) = with(&[("root", Role::Administrator), ("ann", Role::Approver)]).await;
        let ann = "ann".parse().unwrap();
        let token = operators.log_in("ann", PASSWORD, None).await.unwrap().0;
        operators.set_password(&ann, Password::chosen("another long password").unwrap(), "root").await.unwrap();
        assert!(operators.session(&token, true).await.unwrap().is_none());
        assert_eq!(operators.log_in("ann", PASSWORD, None).await.err(), Some(LoginError::Wrong));
        let token = operators.log_in("ann", "another long password", None).await.unwrap().0;
        operators.set_disabled(&ann, true, "root").await.unwrap();
        assert!(operators.session(&token, true).await.unwrap().is_none());
        assert_eq!(operators.log_in("ann", "another long password", None).await.err(), Some(LoginError::Wrong));
        operators.set_disabled(&ann, false, "root").await.unwrap();
        assert!(operators.session(&token, true).await.unwrap().is_none(), "a session does not come back");
        let token = operators.log_in("ann", "another long password", None).await.unwrap().0;
        operators.remove(&ann, "root").await.unwrap();
        operators.add(operator("ann", Role::Approver), Password::chosen(PASSWORD).unwrap(), "root").await.unwrap();
        assert!(operators.session(&token, true).await.unwrap().is_none(), "a later account of the same name is another one");
    }

    #[tokio::test]
    async fn whoever_guesses_waits_and_the_log_tells_of_no_name_that_is_none() {
        let (operators, store) = with(&[("ann", Role::Administrator)]).await;
        for _ in 0..BY_NAME.free {
            assert_eq!(operators.log_in("ann", "wrong", None).await.err(), Some(LoginError::Wrong));
        }
        // The right one has to wait as well, and another operator has not.
        assert!(matches!(operators.log_in("ann", PASSWORD, None).await, Err(LoginError::Wait(_))));
        assert_eq!(operators.log_in("hunter2-typed-in-the-wrong-field", "x", None).await.err(), Some(LoginError::Wrong));
        let told = serde_json::to_string(&events(&store).await).unwrap();
        assert_eq!(told.matches("log-in-failed").count(), BY_NAME.free as usize + 1);
        assert!(!told.contains("hunter2") && told.contains("\"omitted\":1"), "{told}");
    }

    #[tokio::test]
    async fn an_address_that_tries_many_names_waits_too() {
        let (operators, _) = with(&[("ann", Role::Administrator)]).await;
        let from = Some("192.0.2.1".parse().unwrap());
        for n in 0..BY_ADDRESS.free {
            assert_eq!(operators.log_in(&format!("name-{n}"), "x", from).await.err(), Some(LoginError::Wrong));
        }
        assert!(matches!(operators.log_in("ann", PASSWORD, from).await, Err(LoginError::Wait(_))));
        assert!(operators.log_in("ann", PASSWORD, Some("192.0.2.2".parse().unwrap())).await.is_ok());
    }

    #[tokio::test]
    async fn the_last_administrator_stays() {
        let (operators, _) = with(&[("root", Role::Administrator), ("ann", Role::Approver)]).await;
        let root = "root".parse().unwrap();
        let last = Err(OperatorError::LastAdministrator);
        assert_eq!(operators.remove(&root, "x").await, last);
        assert_eq!(operators.set_disabled(&root, true, "x").await, last);
        assert_eq!(operators.set_rights(&root, Role::Approver, KeyAccess::All, "x").await, last);
        operators.set_rights(&"ann".parse().unwrap(), Role::Administrator, KeyAccess::All, "x").await.unwrap();
        assert_eq!(operators.remove(&root, "x").await, Ok(()));
        assert_eq!(operators.remove(&root, "x").await, Err(OperatorError::Gone));
    }

    #[tokio::test]
    async fn an_operator_has_a_bounded_number_of_sessions() {
        let (operators, _) = with(&[("ann", Role::Administrator)]).await;
        let first = operators.log_in("ann", PASSWORD, None).await.unwrap().0;
        for _ in 0..SESSIONS_MAX {
            operators.log_in("ann", PASSWORD, None).await.unwrap();
        }
        assert_eq!(operators.sessions(&"ann".parse().unwrap()).await.unwrap().len(), SESSIONS_MAX);
        assert!(operators.session(&first, true).await.unwrap().is_none());
    }
}
