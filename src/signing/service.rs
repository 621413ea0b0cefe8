//! The one place that knows the order of the steps: authorise → reserve → submit → sign → verify → record.

use std::{
    collections::HashSet,
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::timeout,
};
use tracing::error;

use crate::{
    domain::{
        algorithm::SignatureAlgorithm,
        audit::Consent,
        caller::{Caller, ConsentPolicy},
        ids::{JobId, PermitId},
        job::{JobState, SigningJob},
        key::{ConfiguredKey, KeyChoice},
        permit::{Permit, PermitRefusal, PermitState},
        pin::Pin,
        timestamp::Timestamp,
        token::{LoginMode, SlotState},
    },
    permit::{PermitService, UnpaidJob},
    store::{Change, Conflict, Store, StoreError},
    token::{command::Command, supervisor::Tokens},
};

pub use super::{
    keyring::EnrolledKeys,
    order::{Authorised, JobOrder, Payment, SigningKey},
    refusal::{CertificateFault, Denied, SubmitError},
};
pub use crate::store::JobFilter;

use super::{
    canary::{self, Canaries},
    dispatcher::{self, Workshop},
    ended::EndedJobs,
    housekeeping::keep_house,
    keyring::{Keyring, KnownKey, Site, Target, denied},
    leases,
    order::signature_with,
    pin_watch,
    pins::JobPins,
    refusal::refused,
    tokens::TokenDesk,
    verify::VerifyPool,
};

/// The most signatures that wait for a verifier; what is beyond waits where it was made.
const VERIFY_QUEUE: NonZeroUsize = NonZeroUsize::new(256).unwrap();

/// Limits of the signing service.
#[derive(Debug, Clone)]
pub struct SigningSettings {
    /// How long a job may wait before it expires. Default: 5 minutes.
    pub job_deadline: Duration,
    /// How long a token may be away before new work for it is refused. Default: 60 seconds.
    pub absent_grace: Duration,
    /// How long the result of a job is kept after it has ended. Default: 1 hour.
    pub retention: Duration,
    /// How often each key that is logged in by configuration makes a canary signature; `None` for never. Default: 5 minutes.
    pub canary_every: Option<Duration>,
    /// Threads that verify signatures. Default: half of the processors, at least one.
    pub verifier_threads: NonZeroUsize,
}

impl Default for SigningSettings {
    fn default() -> Self {
        Self {
            job_deadline: Duration::from_secs(300),
            absent_grace: Duration::from_secs(60),
            retention: Duration::from_secs(3600),
            canary_every: Some(Duration::from_secs(300)),
            verifier_threads: half_of_the_processors(),
        }
    }
}

fn half_of_the_processors() -> NonZeroUsize {
    let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    NonZeroUsize::new(processors / 2).unwrap_or(NonZeroUsize::MIN)
}

/// The way of one signature, from the caller's wish to the recorded result.
pub struct SigningService {
    workshop: Arc<Workshop>,
    permits: Arc<PermitService>,
    settings: SigningSettings,
    stop: watch::Sender<bool>,
    tasks: Mutex<JoinSet<()>>,
    /// Renews the leases until everything that was claimed is settled; nothing to do where the store is not shared.
    announcer: Mutex<Option<(watch::Sender<bool>, JoinHandle<()>)>>,
}

impl SigningService {
    /// Starts the service: one dispatcher per token, as tokens are seen, and the housekeeping. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// The system gave no thread for the verifiers.
    pub fn start(
        tokens: Tokens,
        keys: Vec<ConfiguredKey>,
        store: Arc<dyn Store>,
        permits: Arc<PermitService>,
        settings: SigningSettings,
    ) -> std::io::Result<Arc<Self>> {
        let verifiers = VerifyPool::start(settings.verifier_threads, VERIFY_QUEUE)?;
        let ended = EndedJobs::of(&keys);
        let keyring = Keyring::new(tokens, keys, store.is_shared());
        let workshop = Workshop { store, keyring, verifiers, pins: JobPins::default(), canaries: Canaries::default(), ended };
        let workshop = Arc::new(workshop);
        let announcer = workshop.store.is_shared().then(|| {
            let stop = watch::Sender::new(false);
            let task = tokio::spawn(leases::keep_announcing(Arc::clone(&workshop), stop.subscribe()));
            (stop, task)
        });
        let (stop, tasks, announcer) = (watch::Sender::new(false), Mutex::default(), Mutex::new(announcer));
        let service = Arc::new(Self { workshop, permits, settings, stop, tasks, announcer });
        let mut tasks = service.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.spawn(dispatch_all(Arc::clone(&service.workshop), service.stop.subscribe()));
        tasks.spawn(pin_watch::watch_pins(Arc::clone(&service.workshop), service.stop.subscribe()));
        let (retention, stop) = (service.settings.retention, service.stop.subscribe());
        tasks.spawn(keep_house(Arc::clone(&service.workshop), Arc::clone(&service.permits), retention, stop));
        if let Some(every) = service.settings.canary_every {
            tasks.spawn(canary::keep_singing(Arc::clone(&service.workshop), every, service.stop.subscribe()));
        }
        drop(tasks);
        Ok(service)
    }

    /// What operators may know of the tokens and do to them.
    #[must_use]
    pub fn desk(&self) -> TokenDesk {
        TokenDesk::new(Arc::clone(&self.workshop))
    }

    /// Finds the key that `caller` chose and checks that the caller may use it, with this algorithm (or the key's own), now.
    ///
    /// `pin` is the one that came with the request, if any: it may be needed to see the key, and is checked here, within the rules.
    ///
    /// # Errors
    /// [`Denied`]; nothing is queued or spent, but for a PIN try where [`Denied::PinRefused`] says so.
    pub async fn authorise(
        &self,
        caller: &Caller,
        choice: &KeyChoice,
        algorithm: Option<SignatureAlgorithm>,
        pin: Option<&Pin>,
    ) -> Result<Authorised, Denied> {
        let authorised = self.check(caller, choice, algorithm, pin).await;
        if let Err(denied) = &authorised
            && denied.is_refusal()
        {
            self.permits.refusals().record(caller, &signature_with(choice), &denied.to_string()).await;
        }
        authorised
    }

    async fn check(
        &self,
        caller: &Caller,
        choice: &KeyChoice,
        algorithm: Option<SignatureAlgorithm>,
        pin: Option<&Pin>,
    ) -> Result<Authorised, Denied> {
        let (target, known) = self.choose_key(caller, choice, pin).await?;
        known.key.check_certificate(self.workshop.store.now())?;
        let algorithm = algorithm_for(&known, algorithm)?;
        if let (Some(pin), Site::Here(slot)) = (pin, &target.site)
            && slot.login_mode() != LoginMode::PerRequest
        {
            let check = Command::CheckPin { pin: pin.duplicate() };
            slot.call(check).await.map_err(|error| denied(slot, error))?;
        }
        Ok(Authorised { caller: caller.clone(), known, site: target.site, algorithm })
    }

    /// What a caller's choice leads to, and what is known of it. If the key's certificate was replaced between the two, it is looked for anew.
    async fn choose_key(&self, caller: &Caller, choice: &KeyChoice, pin: Option<&Pin>) -> Result<(Target, Arc<KnownKey>), Denied> {
        let keyring = &self.workshop.keyring;
        loop {
            let target = keyring.locate(caller, choice)?;
            // A PIN is never passed on from one gateway to another.
            if pin.is_some() && matches!(target.site, Site::Elsewhere(_)) {
                return Err(Denied::PinRefused("the token is at another gateway; send the request there, or without a PIN".to_owned()));
            }
            let known_already = match target.site {
                Site::Here(_) => keyring.cached(&target).is_some(),
                Site::Elsewhere(_) => true,
            };
            self.check_site(&target.site, known_already)?;
            let known = keyring.describe(caller, &target, pin).await?;
            if !known.key.replaced || keyring.is_current(&target) {
                return Ok((target, known));
            }
        }
    }

    /// Refuses what the slot will not do: at once if a person is needed, and after a grace if the token is away.
    fn check_site(&self, site: &Site, key_known: bool) -> Result<(), Denied> {
        let status = site.status();
        let may_come_back = key_known && site.for_how_long() < self.settings.absent_grace;
        match status.state {
            state if state.needs_a_person() && !state.takes_work() => Err(Denied::SlotUnavailable(status)),
            SlotState::Absent | SlotState::Recovering if !may_come_back => Err(Denied::SlotUnavailable(status)),
            _ => Ok(()),
        }
    }

    /// Accepts a job: durable when this returns. `with` is committed in the same step (the ticket that refers to the job).
    ///
    /// # Errors
    /// [`SubmitError`]; nothing was changed or spent then.
    pub async fn submit(&self, order: JobOrder, with: Vec<Change>) -> Result<(), SubmitError> {
        self.submit_all(vec![order], with).await
    }

    /// Accepts several jobs in one step: all of them or none.
    ///
    /// # Errors
    /// [`SubmitError`]; nothing was changed or spent then.
    pub async fn submit_all(&self, orders: Vec<JobOrder>, mut with: Vec<Change>) -> Result<(), SubmitError> {
        let jobs: Vec<_> = orders.iter().map(|order| order.job).collect();
        let asker = orders.first().map(|order| (order.authorised.caller.clone(), order.payment.what()));
        let prepared = orders.into_iter().try_for_each(|order| self.prepare(order, &mut with));
        let accepted = match prepared {
            Ok(()) => self.workshop.store.commit(with).await.map_err(refused),
            Err(error) => Err(error),
        };
        if accepted.is_err() {
            jobs.into_iter().for_each(|job| self.workshop.pins.forget(job));
        }
        if let (Err(SubmitError::Permit(refusal)), Some((caller, what))) = (&accepted, asker) {
            self.permits.refusals().record(&caller, &what, &refusal.to_string()).await;
        }
        accepted
    }

    /// Adds the changes that accept a job.
    fn prepare(&self, order: JobOrder, with: &mut Vec<Change>) -> Result<(), SubmitError> {
        let JobOrder { authorised, job, to_sign, payment, document } = order;
        let pin_is_consent = authorised.pin_is_consent();
        let Authorised { caller, known, site, algorithm } = authorised;
        let key = &known.key.address;
        if caller.consent.with_key(key.name.as_ref()) == ConsentPolicy::Deny {
            return Err(PermitRefusal::ByPolicy.into());
        }
        if to_sign.algorithm() != algorithm {
            return Err(Denied::NotSupported(format!("{algorithm} was allowed, not {}", to_sign.algorithm())).into());
        }
        let with_pin = matches!(payment, Payment::Pin(_));
        let unpaid = UnpaidJob { job, key, to_sign: &to_sign, document };
        let paid = match payment {
            Payment::Permit(permit) => Paid::before(Some(permit)),
            Payment::Pin(pin) => {
                self.workshop.pins.keep(job, pin);
                if pin_is_consent { Paid::before(None) } else { self.permits.pay_for(&caller, unpaid, with)?.into() }
            }
            Payment::AskNow => self.permits.pay_for(&caller, unpaid, with)?.into(),
        };
        let accepted = self.workshop.store.now();
        let queue_bound = site.queue_bound();
        let row = SigningJob {
            id: job,
            caller: caller.id.clone(),
            from: caller.from.clone(),
            key: key.clone(),
            to_sign,
            certificate_serial: known.key.certificate_serial.clone(),
            // The store puts in who gave the permit.
            consent: if paid.permit.is_some() { Consent::Policy } else { Consent::Pin },
            permit: paid.permit,
            with_pin,
            accepted,
            deadline: paid.decide_by.unwrap_or(accepted).after(self.settings.job_deadline),
            state: if paid.decide_by.is_some() { JobState::AwaitingConsent } else { JobState::Queued },
            claim: None,
            outcome: None,
        };
        with.push(Change::AcceptJob { job: row, queue_bound });
        Ok(())
    }

    /// Finds a job.
    ///
    /// # Errors
    /// The store was not reached.
    pub async fn find_job(&self, id: JobId) -> Result<Option<SigningJob>, StoreError> {
        self.workshop.store.find_job(id).await
    }

    /// Counts a job and says that it has ended, if it was cancelled: to be called once, by whoever has had it cancelled.
    ///
    /// # Errors
    /// The store was not reached.
    pub async fn note_cancelled(&self, id: JobId) -> Result<(), StoreError> {
        let Some(job) = self.find_job(id).await?.filter(|job| job.state == JobState::Cancelled) else { return Ok(()) };
        self.workshop.note_queued_end(&job);
        match job.permit {
            Some(permit) => self.permits.note_cancelled(permit).await,
            None => Ok(()),
        }
    }

    /// Waits at most `bound` for the end of a job, and returns it as it then stands; `None` if there is no such job.
    ///
    /// # Errors
    /// The store was not reached.
    pub async fn wait_for_end(&self, id: JobId, bound: Duration) -> Result<Option<SigningJob>, StoreError> {
        match timeout(bound, self.workshop.store.wait_for_end(id)).await {
            Ok(Ok(job)) => Ok(Some(job)),
            Ok(Err(StoreError::Conflict(Conflict::JobGone))) => Ok(None),
            Ok(Err(error)) => Err(error),
            Err(_) => self.find_job(id).await,
        }
    }

    pub(super) fn workshop(&self) -> &Workshop {
        &self.workshop
    }

    /// Claims no more jobs, finishes and records what is claimed. Signatures of the gateway's own are made still.
    pub async fn finish(&self) {
        self.stop.send_replace(true);
        let mut tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                error!(error = %error, "a task of the signing service failed");
            }
        }
        // Only now: what is being signed is ours.
        let announcer = self.announcer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((stop, task)) = announcer {
            stop.send_replace(true);
            if let Err(error) = task.await {
                error!(error = %error, "a task of the signing service failed");
            }
        }
        self.permits.refusals().tell_omitted(true).await;
    }

    /// Stops: [finishes](Self::finish), and verifies nothing more. Tokens are stopped afterwards, by whoever started them.
    pub async fn stop(&self) {
        self.finish().await;
        self.workshop.verifiers.stop().await;
    }
}

/// What pays for a job.
struct Paid {
    permit: Option<PermitId>,
    /// When an operator must have decided about the permit, where one is asked.
    decide_by: Option<Timestamp>,
}

impl Paid {
    const fn before(permit: Option<PermitId>) -> Self {
        Self { permit, decide_by: None }
    }
}

impl From<Permit> for Paid {
    fn from(permit: Permit) -> Self {
        Self { permit: Some(permit.id), decide_by: (permit.state == PermitState::Asked).then_some(permit.expires) }
    }
}

/// The algorithm to sign with: the one asked for or the key's own, if key, token and verifier can do it.
pub(super) fn algorithm_for(known: &KnownKey, asked: Option<SignatureAlgorithm>) -> Result<SignatureAlgorithm, Denied> {
    let key = &known.key;
    let algorithm = asked.or(known.algorithm).or_else(|| key.kind.default_algorithm());
    let algorithm = algorithm.ok_or_else(|| Denied::NotSupported(format!("a key of kind {} cannot sign here", key.kind)))?;
    if !algorithm.fits(&key.kind) {
        return Err(Denied::NotSupported(format!("a key of kind {} does not sign with {algorithm}", key.kind)));
    }
    if !key.algorithms.contains(&algorithm) {
        return Err(Denied::NotSupported(format!("the token does not offer {algorithm} for this key")));
    }
    Ok(algorithm)
}

/// Gives every token that is seen its dispatcher.
async fn dispatch_all(workshop: Arc<Workshop>, mut stop: watch::Receiver<bool>) {
    let mut changes = workshop.keyring.tokens().changes();
    let mut served = HashSet::new();
    let mut dispatchers = JoinSet::new();
    while !*stop.borrow_and_update() {
        changes.mark_unchanged();
        for slot in workshop.keyring.tokens().slots() {
            if served.insert(slot.token().clone()) {
                dispatchers.spawn(dispatcher::run(Arc::clone(&workshop), slot, stop.clone()));
            }
        }
        tokio::select! {
            _ = changes.changed() => {}
            _ = stop.changed() => {}
            Some(Err(error)) = dispatchers.join_next(), if !dispatchers.is_empty() => error!(error = %error, "a dispatcher failed"),
        }
    }
    while dispatchers.join_next().await.is_some() {}
}
