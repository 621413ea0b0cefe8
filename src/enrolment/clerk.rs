//! The clerk: carries requests to their CA and back, renews, and tells in time which certificates expire.
//!
//! Several gateways may have clerks on one store: a request is taken by moving its time on, a compare-and-set, before its CA is asked.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use super::{
    EnrolmentError, EnrolmentService,
    ca::{CaAnswer, CaError, CaRequest},
};
use crate::{
    domain::enrolment::{Enrolment, EnrolmentState, Refusal, Step, StepKind},
    store::Change,
};

/// How often requests are looked for that nobody has told of: other gateways', and those whose time has come.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How often the validity of active certificates is looked at.
const EXPIRY_EVERY: Duration = Duration::from_secs(3600);
/// For how long a request is whoever's who took it.
const TAKEN_FOR: Duration = Duration::from_secs(120);
/// The most requests that are taken at a time.
const AT_A_TIME: usize = 16;
/// The pause after a CA could not be asked, the first time and at most.
const PAUSE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(3600));
/// What the CA is called in a request's history.
const BY_CA: &str = "CA";
/// What the gateway itself is called there.
pub(super) const BY_GATEWAY: &str = "gateway";

impl EnrolmentService {
    /// Does the clerk's work for ever; whoever spawns it aborts it.
    pub async fn work_forever(self: Arc<Self>) {
        let mut looked: Option<Instant> = None;
        loop {
            if let Err(error) = self.work_once().await {
                warn!(error = %error, "certificate requests could not be looked at; the next look is in {} s", LOOK_EVERY.as_secs());
            }
            if looked.is_none_or(|at| at.elapsed() >= EXPIRY_EVERY) {
                looked = Some(Instant::now());
                if let Err(error) = self.look_at_validity().await {
                    warn!(error = %error, "the validity of certificates could not be looked at");
                }
            }
            // Woken or not, there is something to look for.
            let _ = timeout(LOOK_EVERY, self.wake.notified()).await;
        }
    }

    /// Asks the CA of every request whose time has come, and takes up what other gateways activated.
    ///
    /// # Errors
    /// The store was not reached.
    pub async fn work_once(&self) -> Result<(), EnrolmentError> {
        for enrolment in self.parts.store.due_enrolments(self.parts.store.now(), AT_A_TIME).await? {
            match self.ask_ca(enrolment).await {
                Ok(()) | Err(EnrolmentError::Overtaken | EnrolmentError::NotFound) => {}
                Err(error) => warn!(error = %error, "a certificate request could not be brought to its CA"),
            }
        }
        self.take_up().await
    }

    async fn ask_ca(&self, mut enrolment: Enrolment) -> Result<(), EnrolmentError> {
        let profile = self.profile(&enrolment.profile)?;
        let Some(ca) = self.parts.authorities.get(&profile.ca).cloned() else {
            // A person brings the certificate.
            return self.step(&mut enrolment, Step::Submitted { reference: None, due: None }, BY_GATEWAY, Vec::new()).await;
        };
        self.take(&mut enrolment).await?;
        let Some(request) = enrolment.request.clone() else { return Ok(()) };
        let renews = match enrolment.renews {
            Some(former) => self.parts.store.find_enrolment(former).await?.and_then(|former| former.issued),
            None => None,
        };
        let order = CaRequest { request: &request.0, renews: renews.as_ref().map(|issued| issued.certificate.as_slice()) };
        let was_submitted = enrolment.history.iter().any(|entry| entry.what == StepKind::Submitted);
        let answer = if was_submitted { ca.poll(enrolment.ca_reference.as_deref(), order).await } else { ca.submit(order).await };
        let step = self.step_of(&enrolment, answer);
        self.step(&mut enrolment, step, BY_CA, Vec::new()).await?;
        info!(enrolment.id = %enrolment.id, "certificate request {} is {}", enrolment.id, enrolment.state);
        if enrolment.state == EnrolmentState::Issued && enrolment.renews.is_some() {
            self.activate_renewal(enrolment).await;
        }
        Ok(())
    }

    /// Moves a request's time on, so that no other clerk asks as well.
    async fn take(&self, enrolment: &mut Enrolment) -> Result<(), EnrolmentError> {
        enrolment.due = Some(self.parts.store.now().after(TAKEN_FOR));
        self.parts.store.commit(vec![Change::UpdateEnrolment(Box::new(enrolment.clone()))]).await?;
        enrolment.version += 1;
        Ok(())
    }

    fn step_of(&self, enrolment: &Enrolment, answer: Result<CaAnswer, CaError>) -> Step {
        let now = self.parts.store.now();
        match answer {
            Ok(CaAnswer::Issued(issued)) => Step::Issued(issued),
            Ok(CaAnswer::Pending { reference, retry_after }) => {
                Step::Submitted { reference, due: retry_after.map(|after| now.after(after)) }
            }
            Ok(CaAnswer::Rejected(reason)) => Step::Refused { ground: Refusal::ByCa, comment: reason },
            Err(error) => {
                let wanted = if let CaError::Unavailable { retry_after, .. } = &error { *retry_after } else { None };
                warn!(enrolment.id = %enrolment.id, error = %error, "the CA gave no answer that counts; it is asked again");
                let pause = wanted.unwrap_or_else(|| PAUSE.0.saturating_mul(1 << enrolment.attempts.min(9))).min(PAUSE.1);
                Step::Postponed { due: now.after(pause), reason: error.to_string() }
            }
        }
    }

    /// A renewed certificate takes the place of the one that expires; if it cannot, the old one goes on, and an operator is told.
    pub(super) async fn activate_renewal(&self, enrolment: Enrolment) {
        let (id, name) = (enrolment.id, enrolment.key_name.clone());
        match self.activate_found(enrolment, BY_GATEWAY).await {
            Ok(_) => info!(enrolment.id = %id, key.name = %name, "the certificate of {name} was renewed"),
            Err(error) => {
                warn!(enrolment.id = %id, key.name = %name, error = %error, "the renewed certificate of {name} cannot be activated; use `sealgate enrol activate {id}`");
            }
        }
    }
}
