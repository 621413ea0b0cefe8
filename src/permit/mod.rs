//! Consent: who may have how many signatures made, for how long.
//!
//! Used by `signing` (a single-use permit in the same step as the job it pays for) and by the APIs (a permit for N signatures). Who decides is
//! the caller's [`ConsentPolicy`]. Invariant: a permit is stored only after it was granted; what it pays for is counted by the store, by the
//! rules of `domain::permit`.

use std::{sync::Arc, time::Duration};

use crate::{
    audit::refusals::RefusalLog,
    domain::{
        audit::{AuditEvent, Consent},
        caller::{Caller, ConsentPolicy},
        ids::PermitId,
        permit::{Permit, PermitRefusal},
    },
    store::{Change, Conflict, Store, StoreError},
};

/// What a deployment says about permits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PermitSettings {
    /// How long a permit lasts, spent or not; 15 minutes by default.
    pub lifetime: Duration,
}

impl Default for PermitSettings {
    fn default() -> Self {
        Self { lifetime: Duration::from_secs(15 * 60) }
    }
}

/// Why there is no permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PermitError {
    /// More uses than the caller may ask for, or none.
    #[error("a permission is for 1 to {max} signatures")]
    Uses {
        /// The most that this caller may ask for.
        max: u32,
    },
    /// The permit cannot be used, or is not this caller's.
    #[error("{0}")]
    Refused(#[from] PermitRefusal),
    /// The store was not reached; nothing was changed.
    #[error("the store is not available")]
    StoreUnavailable,
}

/// Gives permits and takes them back.
pub struct PermitService {
    store: Arc<dyn Store>,
    settings: PermitSettings,
    refusals: RefusalLog,
}

impl PermitService {
    /// Makes the service.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, settings: PermitSettings) -> Self {
        let refusals = RefusalLog::new(Arc::clone(&store));
        Self { store, settings, refusals }
    }

    /// Where what callers were refused is recorded.
    #[must_use]
    pub fn refusals(&self) -> &RefusalLog {
        &self.refusals
    }

    /// Asks for a permit for `uses` signatures, and stores it once it is granted.
    ///
    /// # Errors
    /// [`PermitError::Uses`], [`PermitError::StoreUnavailable`].
    pub async fn request(&self, caller: &Caller, uses: u32) -> Result<Permit, PermitError> {
        if uses == 0 || uses > caller.permit_uses_max {
            let error = PermitError::Uses { max: caller.permit_uses_max };
            self.refusals.record(caller, &format!("a permit for {uses} signatures"), &error.to_string()).await;
            return Err(error);
        }
        let permit = match caller.consent {
            ConsentPolicy::Auto => self.grant(caller, uses),
        };
        self.store.commit(self.stored(caller, permit.clone())).await?;
        Ok(permit)
    }

    /// Makes a permit for one signature that is asked for now. It is not stored: that happens in the same commit as the job's.
    #[must_use]
    pub fn single_use(&self, caller: &Caller) -> Permit {
        match caller.consent {
            ConsentPolicy::Auto => self.grant(caller, 1),
        }
    }

    /// The changes that store a permit which was granted to `caller`.
    #[must_use]
    pub fn stored(&self, caller: &Caller, permit: Permit) -> Vec<Change> {
        let by = match caller.consent {
            ConsentPolicy::Auto => Consent::Policy,
        };
        let given = AuditEvent::ConsentGiven {
            permit: permit.id,
            caller: caller.id.clone(),
            from: caller.from.clone(),
            uses: permit.uses,
            expires: permit.expires,
            by,
        };
        vec![Change::InsertPermit(permit), Change::Audit(given)]
    }

    /// Finds a permit of this caller; another's looks like none.
    ///
    /// # Errors
    /// [`PermitError::Refused`] with [`PermitRefusal::Unknown`]; [`PermitError::StoreUnavailable`].
    pub async fn find(&self, caller: &Caller, id: PermitId) -> Result<Permit, PermitError> {
        let permit = self.store.find_permit(id).await?;
        match permit.filter(|permit| permit.caller == caller.id) {
            Some(permit) => Ok(permit),
            None => {
                self.refusals.record(caller, &format!("permit {id}"), &PermitRefusal::Unknown.to_string()).await;
                Err(PermitRefusal::Unknown.into())
            }
        }
    }

    /// Takes a permit of this caller back. Jobs that it pays for already go on.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    pub async fn revoke(&self, caller: &Caller, id: PermitId) -> Result<(), PermitError> {
        self.find(caller, id).await?;
        let revoked = AuditEvent::PermitRevoked { permit: id, by: caller.id.to_string() };
        Ok(self.store.commit(vec![Change::RevokePermit(id), Change::Audit(revoked)]).await?)
    }

    fn grant(&self, caller: &Caller, uses: u32) -> Permit {
        Permit {
            id: PermitId::random(),
            caller: caller.id.clone(),
            uses,
            reserved: 0,
            committed: 0,
            expires: self.store.now().after(self.settings.lifetime),
            revoked: false,
        }
    }
}

impl From<StoreError> for PermitError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict(Conflict::Permit(refusal)) => Self::Refused(refusal),
            StoreError::Conflict(_) | StoreError::Unavailable(_) => Self::StoreUnavailable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::caller::{KeyAccess, Provenance, Scopes},
        store::memory::MemoryStore,
    };

    fn caller(id: &str) -> Caller {
        Caller {
            id: id.parse().unwrap(),
            keys: KeyAccess::All,
            default_key: None,
            consent: ConsentPolicy::Auto,
            permit_uses_max: 3,
            scopes: Scopes::default(),
            account: None,
            rate: None,
            from: Provenance::default(),
        }
    }

    fn service() -> PermitService {
        PermitService::new(Arc::new(MemoryStore::new()), PermitSettings::default())
    }

    #[tokio::test]
    async fn a_caller_with_policy_auto_is_granted_what_it_may_ask_for() {
        let (service, caller) = (service(), caller("a"));
        let permit = service.request(&caller, 3).await.unwrap();
        assert_eq!(service.find(&caller, permit.id).await, Ok(permit.clone()));
        assert_eq!((permit.uses, permit.uses_left()), (3, 3));
        for uses in [0, 4] {
            assert_eq!(service.request(&caller, uses).await, Err(PermitError::Uses { max: 3 }));
        }
    }

    #[tokio::test]
    async fn a_permit_exists_for_its_caller_only() {
        let (service, owner, other) = (service(), caller("a"), caller("b"));
        let permit = service.request(&owner, 1).await.unwrap();
        let unknown = Err(PermitError::Refused(PermitRefusal::Unknown));
        assert_eq!(service.find(&other, permit.id).await, unknown);
        assert_eq!(service.revoke(&other, permit.id).await, Err(PermitRefusal::Unknown.into()));
        assert_eq!(service.find(&owner, PermitId::random()).await, unknown);
        service.revoke(&owner, permit.id).await.unwrap();
        assert!(service.find(&owner, permit.id).await.unwrap().revoked);
    }
}
