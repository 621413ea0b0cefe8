//! Waiting for a decision: for those who wait, and what is done when nobody decides or nobody waits.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{runtime::Handle, time::timeout};
use tracing::warn;

use super::{PermitError, PermitService};
use crate::{
    domain::{
        consent::Decision,
        ids::PermitId,
        permit::{Permit, PermitRefusal},
    },
    store::{Change, Conflict, Store, StoreError},
};

/// How much longer than the time to decide somebody waits, before doing the housekeeping's work: every gateway does it each second.
const OVERTIME: Duration = Duration::from_secs(5);

/// The most requests whose time is over that one round of the housekeeping ends.
const LATE_MAX: usize = 200;

impl PermitService {
    /// Waits until a permit that was asked for is decided, within its time, and returns it.
    pub(super) async fn wait_for_decision(&self, id: PermitId) -> Result<Permit, PermitError> {
        let bound = self.settings.decision_time + OVERTIME;
        if let Ok(decided) = timeout(bound, self.store.wait_for_decision(id)).await {
            return Ok(decided?);
        }
        if let Some(permit) = self.store.find_permit(id).await? {
            self.settle(&permit, Decision::TimeOut).await?;
        }
        Ok(self.store.find_permit(id).await?.ok_or(PermitRefusal::Unknown)?)
    }

    /// Refuses what operators have not decided in time: to be called every second, by every gateway.
    pub async fn time_out(&self) {
        let now = self.store.now();
        let late = match self.store.waiting_permits(LATE_MAX).await {
            Ok(waiting) => waiting.into_iter().take_while(|permit| permit.expires <= now),
            Err(error) => return warn!(error = %error, "requests that nobody decided could not be looked for"),
        };
        for permit in late {
            if let Err(error) = self.settle(&permit, Decision::TimeOut).await {
                warn!(permit.id = %permit.id, error = %error, "request {} could not be ended", permit.id);
            }
        }
    }

    /// Refuses what this gateway was asked before it was started again: nobody waits for it any more. To be called before requests are taken.
    ///
    /// # Errors
    /// The store was not reached.
    pub async fn settle_restart(&self) -> Result<(), PermitError> {
        // As many as all callers together may have waiting.
        let own = self.store.gateway();
        for permit in self.store.waiting_permits(usize::MAX).await? {
            if permit.ask.as_ref().is_some_and(|ask| ask.gateway == own) {
                self.settle(&permit, Decision::Restart).await?;
            }
        }
        Ok(())
    }

    /// Ends a request, unless somebody was quicker.
    async fn settle(&self, permit: &Permit, decision: Decision) -> Result<(), PermitError> {
        let restarted = decision == Decision::Restart;
        match self.store.commit(vec![Change::DecidePermit { permit: permit.id, job: permit.waiting_job(), decision }]).await {
            Ok(()) => {
                if let Some(ended) = self.store.find_permit(permit.id).await? {
                    self.note_decision(&ended, restarted);
                }
                Ok(())
            }
            Err(StoreError::Conflict(Conflict::Decision(_))) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Withdraws a request when whoever waits for its decision goes away.
pub(super) struct WithdrawOnDrop {
    store: Arc<dyn Store>,
    permit: PermitId,
    armed: AtomicBool,
}

impl WithdrawOnDrop {
    pub(super) fn new(store: &Arc<dyn Store>, permit: PermitId) -> Self {
        Self { store: Arc::clone(store), permit, armed: AtomicBool::new(true) }
    }

    /// There is nothing to withdraw any more.
    pub(super) fn disarm(&self) {
        self.armed.store(false, Ordering::Relaxed);
    }
}

impl Drop for WithdrawOnDrop {
    fn drop(&mut self) {
        if !self.armed.load(Ordering::Relaxed) {
            return;
        }
        // Without a runtime the gateway is gone, and its next start refuses what was asked.
        let Ok(runtime) = Handle::try_current() else { return };
        let (store, permit) = (Arc::clone(&self.store), self.permit);
        runtime.spawn(async move {
            match store.commit(vec![Change::DecidePermit { permit, job: None, decision: Decision::Withdraw }]).await {
                // It was not stored yet, or was decided just now.
                Ok(()) => crate::telemetry::metrics::CONSENT_DECISIONS.counter(&["withdrawn"]).increment(1),
                Err(StoreError::Conflict(_)) => {}
                // It is refused when its time is over.
                Err(error) => warn!(permit.id = %permit, error = %error, "request {permit} could not be withdrawn"),
            }
        });
    }
}
