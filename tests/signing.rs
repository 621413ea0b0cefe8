//! The way of one signature over the scripted token: what is accepted, what becomes of it, and what is never done twice.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use sealgate::{
    domain::{
        algorithm::{HashAlgorithm, SignatureAlgorithm},
        audit::Sha256,
        caller::{Caller, ConsentPolicy, KeyAccess, Provenance, Scopes},
        digest::{Digest, SigningInput, ToSign},
        ids::{JobId, PermitId},
        job::{FailureCause, JobOutcome, JobState, SigningJob},
        key::{ConfiguredKey, KeyChoice},
        pin::Pin,
        token::{LoginMode, PinSource, SlotState, TokenPolicy},
    },
    permit::{PermitService, PermitSettings},
    signing::service::{Denied, EnrolledKeys, JobOrder, Payment, SigningService, SigningSettings, SubmitError},
    store::{Store, memory::MemoryStore, pin_ledger::StoredPinLedger},
    token::{
        driver::DeviceError,
        fake::{Call, FAKE_PIN, Script},
        pkcs11::ModuleOptions,
        supervisor::{Isolation, ModuleSettings, ModuleSource, TokenSettings, Tokens},
        watchdog::CallLimits,
    },
};

/// After so long a test that waits for an event has failed.
const PATIENCE: Duration = Duration::from_secs(60);

const QUEUE_BOUND: usize = 4;

const ALGORITHM: SignatureAlgorithm = SignatureAlgorithm::Ecdsa(HashAlgorithm::Sha256);

/// A gateway's inside, without HTTP: one scripted token with the key `one`.
struct Rig {
    script: Script,
    tokens: Tokens,
    store: Arc<dyn Store>,
    permits: Arc<PermitService>,
    service: Arc<SigningService>,
}

impl Rig {
    async fn new(login: LoginMode) -> Self {
        Self::with(login, SigningSettings::default()).await
    }

    async fn with(login: LoginMode, settings: SigningSettings) -> Self {
        let rig = Self::start(login, None, settings).await;
        rig.until(|state| matches!(state, SlotState::NeedsPin | SlotState::Present)).await;
        rig
    }

    /// A token that logs in by itself.
    async fn configured(settings: SigningSettings) -> Self {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), FAKE_PIN).unwrap();
        let rig = Self::start(LoginMode::Configured, Some(PinSource::File(file.path().to_owned())), settings).await;
        rig.until(|state| state == SlotState::Ready).await;
        rig
    }

    async fn start(login: LoginMode, pin: Option<PinSource>, settings: SigningSettings) -> Self {
        let script = Script::new("scripted");
        script.add_key(&[1], "one");
        let tokens = Tokens::start(
            TokenSettings {
                modules: vec![ModuleSettings {
                    options: ModuleOptions::named("fake".parse().unwrap()),
                    source: ModuleSource::Loaded(Arc::new(script.module())),
                    isolation: Isolation::Thread,
                    limits: CallLimits::default(),
                }],
                policies: vec![TokenPolicy { uri: "pkcs11:".parse().unwrap(), login, pin, queue_bound: QUEUE_BOUND }],
                unlisted: None,
                host_program: "/nonexistent".into(),
                marks: None,
            },
            Arc::new(StoredPinLedger::in_memory().unwrap()),
        )
        .unwrap();
        tokens.settled(PATIENCE).await;
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let permits = Arc::new(PermitService::new(Arc::clone(&store), PermitSettings::default()));
        let keys = vec![key("one")];
        let service = SigningService::start(tokens.clone(), keys, Arc::clone(&store), Arc::clone(&permits), settings).unwrap();
        Self { script, tokens, store, permits, service }
    }

    async fn unlocked() -> Self {
        let rig = Self::new(LoginMode::Operator).await;
        rig.unlock().await;
        rig
    }

    async fn unlock(&self) {
        let pin = Pin::new(FAKE_PIN.to_owned()).unwrap();
        self.service.desk().unlock(&"pkcs11:".parse().unwrap(), Some(pin), false, false, "test").await.unwrap();
    }

    async fn until(&self, wanted: impl Fn(SlotState) -> bool) {
        let slot = self.tokens.find(&"pkcs11:".parse().unwrap()).unwrap();
        let mut status = slot.watch();
        let reached = tokio::time::timeout(PATIENCE, status.wait_for(|status| wanted(status.state))).await.map(|seen| seen.is_ok());
        assert_eq!(reached, Ok(true), "the slot is still {:?}", slot.status());
    }

    async fn submit(&self, caller: &Caller, payment: Payment) -> Result<JobId, SubmitError> {
        let pin = match &payment {
            Payment::Pin(pin) => Some(pin.duplicate()),
            _ => None,
        };
        let authorised = self.service.authorise(caller, &KeyChoice::Default, None, pin.as_ref()).await?;
        let job = JobId::random();
        self.service.submit(JobOrder { authorised, job, to_sign: to_sign(), payment, document: None }, Vec::new()).await.map(|()| job)
    }

    async fn ended(&self, job: JobId) -> SigningJob {
        let job = self.service.wait_for_end(job, PATIENCE).await.unwrap().unwrap();
        assert!(job.state.is_final(), "job is {}", job.state);
        job
    }

    async fn uses(&self, permit: PermitId) -> (u32, u32) {
        let permit = self.store.find_permit(permit).await.unwrap().unwrap();
        (permit.reserved, permit.committed)
    }
}

/// A name for the key of the scripted token.
fn key(name: &str) -> ConfiguredKey {
    ConfiguredKey {
        name: name.parse().unwrap(),
        uri: "pkcs11:object=one".parse().unwrap(),
        algorithm: None,
        certificate: None,
        chain: Vec::new(),
        ignore_validity: false,
        ignore_purpose: false,
        allow_unverified: false,
    }
}

fn to_sign() -> ToSign {
    let digest = Digest::new(HashAlgorithm::Sha256, vec![7; 32]).unwrap();
    ToSign::new(ALGORITHM, SigningInput::Digest(digest)).unwrap()
}

fn caller(name: &str) -> Caller {
    Caller {
        id: name.parse().unwrap(),
        keys: KeyAccess::All,
        default_key: Some("one".parse().unwrap()),
        consent: ConsentPolicy::Auto.into(),
        permit_uses_max: 1000,
        scopes: Scopes::default(),
        account: None,
        rate: None,
        from: Provenance::default(),
    }
}

fn cause(job: &SigningJob) -> FailureCause {
    match job.outcome {
        Some(JobOutcome::NotSigned { cause, .. }) => cause,
        ref other => panic!("expected a failure, got {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_signed_verified_and_its_use_committed() {
    let rig = Rig::unlocked().await;
    let ci = caller("ci");
    let permit = rig.permits.request(&ci, 2).await.unwrap().id;
    let job = rig.submit(&ci, Payment::Permit(permit)).await.unwrap();
    let job = rig.ended(job).await;
    assert_eq!(job.state, JobState::Signed);
    assert_eq!(rig.uses(permit).await, (0, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_parallel_jobs_spend_just_the_uses_there_are() {
    let rig = Rig::unlocked().await;
    let ci = caller("ci");
    let permit = rig.permits.request(&ci, 10).await.unwrap().id;
    let mut signed = 0;
    let mut waiting = Vec::new();
    for _ in 0..100 {
        match rig.submit(&ci, Payment::Permit(permit)).await {
            Ok(job) => waiting.push(job),
            Err(SubmitError::QueueFull { .. }) => {
                // The bound is small on purpose: let the queue run empty and go on.
                for job in waiting.drain(..) {
                    rig.ended(job).await;
                    signed += 1;
                }
            }
            Err(SubmitError::Permit(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    for job in waiting {
        rig.ended(job).await;
        signed += 1;
    }
    assert_eq!((signed, rig.script.count(Call::Sign)), (10, 10));
    assert_eq!(rig.uses(permit).await, (0, 10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_outcome_is_in_doubt_and_keeps_its_use() {
    let rig = Rig::unlocked().await;
    let ci = caller("ci");
    let permit = rig.permits.request(&ci, 1).await.unwrap().id;
    rig.script.fail(Call::Sign, 1, DeviceError::Unclear("CKR_DEVICE_ERROR".to_owned()));
    let job = rig.submit(&ci, Payment::Permit(permit)).await.unwrap();
    assert_eq!(rig.ended(job).await.state, JobState::InDoubt);
    assert_eq!(rig.uses(permit).await, (0, 1));
    assert_eq!(rig.script.count(Call::Sign), 1);
    // The slot goes on with the next job.
    let next = rig.submit(&ci, Payment::AskNow).await.unwrap();
    assert_eq!(rig.ended(next).await.state, JobState::Signed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_of_two_names_of_a_key_keeps_what_is_configured_for_it() {
    let rig = Rig::unlocked().await;
    let (store, permits) = (Arc::clone(&rig.store), Arc::clone(&rig.permits));
    let keys = vec![key("one"), ConfiguredKey { ignore_purpose: true, ..key("seal") }];
    let service = SigningService::start(rig.tokens.clone(), keys, store, permits, SigningSettings::default()).unwrap();
    // Both ways round, and again when they are known.
    for name in ["one", "seal", "seal", "one"] {
        let authorised = service.authorise(&caller("ci"), &KeyChoice::Named(name.parse().unwrap()), None, None).await.unwrap();
        let key = authorised.key();
        assert_eq!(key.address.name.as_ref().map(|name| name.as_str()), Some(name));
        assert_eq!(key.ignore_purpose, name == "seal");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_is_replaced_while_its_key_is_looked_at_refuses_nobody() {
    let rig = Rig::unlocked().await;
    let enrolled = |certificate: &[u8], replaced: &[u8]| {
        let entry = ConfiguredKey { certificate: Some(certificate.to_vec()), ..key("enrolled") };
        EnrolledKeys { keys: HashMap::from([(entry.name.clone(), Arc::new(entry))]), replaced: HashSet::from([Sha256::of(replaced)]) }
    };
    rig.service.enrol(enrolled(b"the former one", b"an older one"));
    let gate = rig.script.hang(Call::ListKeys, 1);
    let service = Arc::clone(&rig.service);
    let asking = tokio::spawn(async move {
        let choice = KeyChoice::Named("enrolled".parse().unwrap());
        service.authorise(&caller("ci"), &choice, None, None).await.map(|authorised| authorised.key().certificate.clone())
    });
    let gate = tokio::task::spawn_blocking(move || {
        gate.wait_entered();
        gate
    });
    let gate = gate.await.unwrap();
    rig.service.enrol(enrolled(b"the new one", b"the former one"));
    gate.release();
    assert_eq!(asking.await.unwrap().unwrap().as_deref(), Some(&b"the new one"[..]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failure_before_signing_gives_the_use_back() {
    let rig = Rig::unlocked().await;
    let ci = caller("ci");
    let permit = rig.permits.request(&ci, 1).await.unwrap().id;
    rig.script.fail(Call::SignInit, 1, DeviceError::Refused("CKR_KEY_FUNCTION_NOT_PERMITTED".to_owned()));
    let job = rig.submit(&ci, Payment::Permit(permit)).await.unwrap();
    let job = rig.ended(job).await;
    assert_eq!((job.state, cause(&job)), (JobState::Failed, FailureCause::Device));
    assert_eq!(rig.uses(permit).await, (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queued_job_waits_for_its_token_to_come_back() {
    let rig = Rig::unlocked().await;
    let ci = caller("ci");
    rig.submit(&ci, Payment::AskNow).await.unwrap();
    rig.script.pull();
    rig.until(|state| state == SlotState::Absent).await;
    // The key is known and the token is away for less than the grace: work is accepted.
    let job = rig.submit(&ci, Payment::AskNow).await.unwrap();
    rig.script.put_back();
    rig.until(|state| state == SlotState::NeedsPin).await;
    assert_eq!(rig.service.find_job(job).await.unwrap().unwrap().state, JobState::Queued);
    rig.unlock().await;
    assert_eq!(rig.ended(job).await.state, JobState::Signed);
}

/// Seen with OpenSC while a card is being pulled: the session is lost, a new one opens, and the login in it fails like everything else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_that_fails_for_no_fault_of_the_pin_does_not_fail_the_job() {
    let rig = Rig::unlocked().await;
    rig.script.fail(Call::SignInit, 1, DeviceError::SessionLost("CKR_SESSION_HANDLE_INVALID".to_owned()));
    for nth in 1..=2 {
        rig.script.fail(Call::Login, nth, DeviceError::Failed("CKR_GENERAL_ERROR".to_owned()));
    }
    let job = rig.submit(&caller("ci"), Payment::AskNow).await.unwrap();
    assert_eq!(rig.ended(job).await.state, JobState::Signed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_nobody_could_sign_in_time_expires_and_gives_its_use_back() {
    let settings = SigningSettings { job_deadline: Duration::from_millis(1), ..SigningSettings::default() };
    let rig = Rig::with(LoginMode::Operator, settings).await;
    rig.unlock().await;
    let ci = caller("ci");
    let gate = rig.script.hang(Call::ListKeys, 2);
    rig.service.authorise(&ci, &KeyChoice::Default, None, None).await.unwrap();
    let slot = rig.tokens.find(&"pkcs11:".parse().unwrap()).unwrap();
    let busy = slot.start(sealgate::token::command::Command::ListKeys).unwrap();
    gate.wait_entered();
    let permit = rig.permits.request(&ci, 1).await.unwrap().id;
    rig.script.pull();
    gate.release();
    drop(busy.wait().await);
    rig.until(|state| state == SlotState::Absent).await;
    let job = rig.submit(&ci, Payment::Permit(permit)).await.unwrap();
    let job = rig.ended(job).await;
    assert_eq!((job.state, cause(&job)), (JobState::Expired, FailureCause::DeadlinePassed));
    assert_eq!(rig.uses(permit).await, (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_is_an_answer_and_spends_nothing() {
    let rig = Rig::unlocked().await;
    let ci = caller("ci");
    let permit = rig.permits.request(&ci, 1000).await.unwrap().id;
    let gate = rig.script.hang(Call::Sign, 1);
    let mut jobs = vec![rig.submit(&ci, Payment::Permit(permit)).await.unwrap()];
    gate.wait_entered();
    let refusal = loop {
        match rig.submit(&ci, Payment::Permit(permit)).await {
            Ok(job) => jobs.push(job),
            Err(error) => break error,
        }
    };
    assert!(matches!(refusal, SubmitError::QueueFull { bound: QUEUE_BOUND, .. }), "{refusal}");
    gate.release();
    let accepted = u32::try_from(jobs.len()).unwrap();
    for job in jobs {
        assert_eq!(rig.ended(job).await.state, JobState::Signed);
    }
    assert_eq!(rig.uses(permit).await, (0, accepted));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_needs_a_person_takes_no_new_work() {
    let rig = Rig::new(LoginMode::Operator).await;
    let refusal = rig.submit(&caller("ci"), Payment::AskNow).await.unwrap_err();
    assert!(matches!(refusal, SubmitError::Denied(Denied::SlotUnavailable(_))), "{refusal}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_pin_on_an_unlocked_slot_is_refused_without_a_login_or_a_signature() {
    let rig = Rig::unlocked().await;
    let logins = rig.script.count(Call::Login);
    let wrong = Payment::Pin(Pin::new("000000".to_owned()).unwrap());
    let refusal = rig.submit(&caller("ci"), wrong).await.unwrap_err();
    assert!(matches!(refusal, SubmitError::Denied(Denied::PinRefused(_))), "{refusal}");
    assert_eq!((rig.script.count(Call::Login), rig.script.count(Call::Sign)), (logins, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_per_request_slot_the_pin_is_the_consent() {
    let rig = Rig::new(LoginMode::PerRequest).await;
    let ci = caller("ci");
    let job = rig.submit(&ci, Payment::Pin(Pin::new(FAKE_PIN.to_owned()).unwrap())).await.unwrap();
    let job = rig.ended(job).await;
    assert_eq!((job.state, job.permit), (JobState::Signed, None));
    assert!(!rig.script.is_logged_in());
    // The key is known now, so the wrong PIN is found out when the job is signed.
    let wrong = rig.submit(&ci, Payment::Pin(Pin::new("000000".to_owned()).unwrap())).await.unwrap();
    assert_eq!(cause(&rig.ended(wrong).await), FailureCause::PinRefused);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_permit_looks_like_none() {
    let rig = Rig::unlocked().await;
    let permit = rig.permits.request(&caller("ci"), 1).await.unwrap().id;
    let refusal = rig.submit(&caller("other"), Payment::Permit(permit)).await.unwrap_err();
    assert_eq!(refusal, SubmitError::Permit(sealgate::domain::permit::PermitRefusal::Unknown));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_uses_only_the_keys_that_are_its_own() {
    let rig = Rig::unlocked().await;
    let mut narrow = caller("narrow");
    narrow.keys = KeyAccess::Only(vec!["other".parse().unwrap()]);
    for choice in [KeyChoice::Default, KeyChoice::Named("one".parse().unwrap())] {
        let refusal = rig.service.authorise(&narrow, &choice, None, None).await.unwrap_err();
        assert_eq!(refusal, Denied::UnknownKey("one".parse().unwrap()));
    }
    narrow.keys = KeyAccess::Only(vec!["one".parse().unwrap()]);
    let by_uri = KeyChoice::Uri("pkcs11:object=one".parse().unwrap());
    assert!(rig.service.authorise(&narrow, &by_uri, None, None).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_algorithm_that_the_key_does_not_have_is_refused_early() {
    let rig = Rig::unlocked().await;
    let refusal = rig.service.authorise(&caller("ci"), &KeyChoice::Default, Some(SignatureAlgorithm::Ed25519), None).await.unwrap_err();
    assert!(matches!(refusal, Denied::NotSupported(_)), "{refusal}");
    assert_eq!(rig.script.count(Call::SignInit), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_signature_never_leaves_spends_its_use_and_quarantines_the_key() {
    let rig = Rig::unlocked().await;
    let ci = caller("ci");
    let permit = rig.permits.request(&ci, 1).await.unwrap().id;
    rig.script.sign_wrongly();
    let job = rig.submit(&ci, Payment::Permit(permit)).await.unwrap();
    let job = rig.ended(job).await;
    assert_eq!((job.state, cause(&job)), (JobState::Failed, FailureCause::WrongSignature));
    assert_eq!(rig.uses(permit).await, (0, 1));
    let refusal = rig.submit(&ci, Payment::AskNow).await.unwrap_err();
    assert_eq!(refusal, SubmitError::Denied(Denied::Quarantined));
    let status = rig.tokens.slots()[0].status();
    assert_eq!(status.state, SlotState::Quarantined, "{status}");
    assert!(status.reason.contains("key one made a signature that does not verify"), "{status}");
    // So it is after a replug, too, and the token's other keys sign.
    rig.script.add_key(&[2], "two");
    rig.script.pull();
    rig.until(|state| state == SlotState::Absent).await;
    rig.script.put_back();
    rig.until(|state| state == SlotState::NeedsPin).await;
    rig.unlock().await;
    rig.until(|state| state == SlotState::Quarantined).await;
    let other = KeyChoice::Uri("pkcs11:object=two".parse().unwrap());
    let authorised = rig.service.authorise(&ci, &other, None, None).await.unwrap();
    let job = JobId::random();
    let order = JobOrder { authorised, job, to_sign: to_sign(), payment: Payment::AskNow, document: None };
    rig.service.submit(order, Vec::new()).await.unwrap();
    assert_eq!(rig.ended(job).await.state, JobState::Signed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_settles_what_was_claimed() {
    let rig = Rig::unlocked().await;
    let ci = caller("ci");
    let gate = rig.script.hang(Call::Sign, 1);
    let job = rig.submit(&ci, Payment::AskNow).await.unwrap();
    gate.wait_entered();
    let stopping = tokio::spawn({
        let service = Arc::clone(&rig.service);
        async move { service.stop().await }
    });
    gate.release();
    stopping.await.unwrap();
    assert_eq!(rig.ended(job).await.state, JobState::Signed);
    rig.tokens.stop().await;
}

fn with_canaries() -> SigningSettings {
    SigningSettings { canary_every: Some(Duration::from_millis(20)), ..SigningSettings::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_canary_that_does_not_verify_quarantines_its_key_before_a_client_needs_it() {
    let rig = Rig::configured(with_canaries()).await;
    let name = "one".parse().unwrap();
    assert_eq!(rig.service.desk().key_readiness(&name).await, Some(Ok(())));
    rig.script.sign_wrongly();
    while rig.service.desk().key_readiness(&name).await != Some(Err(Denied::Quarantined)) {
        tokio::task::yield_now().await;
    }
    let refusal = rig.submit(&caller("ci"), Payment::AskNow).await.unwrap_err();
    assert_eq!(refusal, SubmitError::Denied(Denied::Quarantined));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_needs_an_operator_has_no_canary() {
    let rig = Rig::with(LoginMode::Operator, with_canaries()).await;
    rig.unlock().await;
    let job = rig.submit(&caller("ci"), Payment::AskNow).await.unwrap();
    rig.ended(job).await;
    rig.service.stop().await;
    assert_eq!(rig.script.count(Call::Sign), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn canaries_bring_no_pin_to_a_token_that_has_rejected_one() {
    let rig = Rig::configured(with_canaries()).await;
    let name = "one".parse().unwrap();
    assert_eq!(rig.service.desk().key_readiness(&name).await, Some(Ok(())));
    while rig.script.count(Call::Sign) == 0 {
        tokio::task::yield_now().await;
    }
    rig.script.change_pin("another");
    // The next canary finds its session lost, and the slot logs in again with the PIN that it kept.
    rig.script.fail(Call::SignInit, 1, DeviceError::SessionLost("CKR_SESSION_HANDLE_INVALID".to_owned()));
    rig.until(|state| state == SlotState::PinRejected).await;
    let began = tokio::time::Instant::now();
    // Several canaries' time.
    while began.elapsed() < Duration::from_millis(200) {
        assert!(rig.submit(&caller("ci"), Payment::AskNow).await.is_err());
    }
    rig.service.stop().await;
    assert_eq!(rig.script.count(Call::Login), 2, "the good one, and the one that was rejected");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readiness_of_a_key_says_why_it_cannot_sign() {
    let rig = Rig::new(LoginMode::Operator).await;
    let name = "one".parse().unwrap();
    assert!(matches!(rig.service.desk().key_readiness(&name).await, Some(Err(Denied::SlotUnavailable(_)))));
    rig.unlock().await;
    assert_eq!(rig.service.desk().key_readiness(&name).await, Some(Ok(())));
    assert_eq!(rig.service.desk().key_readiness(&"nothing".parse().unwrap()).await, None);
}
