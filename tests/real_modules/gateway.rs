//! A gateway's inside, without HTTP: one module in a process of its own, one key, jobs.

use std::{
    collections::BTreeMap, ffi::OsString, fs, future::Future, os::unix::fs::PermissionsExt as _, path::PathBuf, sync::Arc, time::Duration,
};

use sealgate::{
    domain::{
        algorithm::{HashAlgorithm, SignatureAlgorithm},
        caller::{Caller, ConsentPolicy, KeyAccess, Provenance, Scopes},
        digest::{Digest, SigningInput, ToSign},
        ids::JobId,
        job::{JobState, SigningJob},
        key::{ConfiguredKey, KeyChoice},
        pin::PinOrigin,
        token::{KeySelector, LoginMode, PinSource, SlotState, TokenPolicy},
    },
    permit::{PermitService, PermitSettings},
    signing::service::{JobOrder, Payment, SigningService, SigningSettings},
    store::{Store, memory::MemoryStore, pin_ledger::StoredPinLedger},
    token::{
        command::Command,
        pkcs11::ModuleOptions,
        slot::{SlotError, SlotHandle},
        supervisor::{Isolation, ModuleSettings, ModuleSource, TokenSettings, Tokens},
        watchdog::CallLimits,
    },
};

use crate::{common::own_process, suite::pin};

/// After so long a test that waits for an event has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A module, a token and a key.
pub struct Setting {
    pub library: PathBuf,
    pub environment: Vec<(&'static str, OsString)>,
    /// The token's URI.
    pub token: &'static str,
    /// `CKA_ID` of the key.
    pub key: u8,
    pub algorithm: SignatureAlgorithm,
    /// `None`: nobody has the PIN but those who ask for a signature, or an operator.
    pub configured_pin: Option<&'static str>,
    pub limits: CallLimits,
}

pub struct Gateway {
    pub tokens: Tokens,
    setting: Setting,
    service: Arc<SigningService>,
}

/// Runs a test of a gateway, within a runtime like the gateway's own.
pub fn block_on<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(test)
}

impl Gateway {
    /// Starts it, and waits until the module has told what tokens there are.
    pub async fn start(setting: Setting) -> Self {
        let login = if setting.configured_pin.is_some() { LoginMode::Configured } else { LoginMode::Operator };
        Self::start_with_login(setting, login).await
    }

    pub async fn start_with_login(setting: Setting, login: LoginMode) -> Self {
        // What the gateway says is shown where a test fails.
        let filter = tracing_subscriber::EnvFilter::try_from_env("SEALGATE_LOG").unwrap_or_else(|_| "info".into());
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).try_init();
        let environment: BTreeMap<String, String> =
            setting.environment.iter().map(|(name, value)| ((*name).to_owned(), value.to_str().unwrap().to_owned())).collect();
        let module = ModuleSettings {
            options: ModuleOptions::named("real".parse().unwrap()),
            source: ModuleSource::Library(setting.library.clone()),
            isolation: Isolation::Process(environment),
            limits: setting.limits,
        };
        let policy =
            TokenPolicy { uri: setting.token.parse().unwrap(), login, pin: setting.configured_pin.map(pin_file), queue_bound: 100 };
        let settings = TokenSettings {
            modules: vec![module],
            policies: vec![policy],
            unlisted: None,
            host_program: env!("CARGO_BIN_EXE_sealgate").into(),
            marks: None,
        };
        let tokens = Tokens::start(settings, Arc::new(StoredPinLedger::in_memory().unwrap())).unwrap();
        tokens.settled(PATIENCE).await;
        let service = signing_service(&setting, &tokens);
        Self { tokens, setting, service }
    }

    /// The token, present or not.
    pub fn slot(&self) -> SlotHandle {
        self.slot_at(self.setting.token)
    }

    pub fn slot_at(&self, uri: &str) -> SlotHandle {
        self.tokens
            .find(&uri.parse().unwrap())
            .unwrap_or_else(|error| panic!("{error}; {:?}; {:?}", self.tokens.slots(), self.tokens.problems()))
    }

    pub async fn until(&self, wanted: SlotState) {
        until(&self.slot(), wanted).await;
    }

    /// Waits for a token that was not there at the start.
    pub async fn until_seen(&self) {
        let uri = self.setting.token.parse().unwrap();
        let mut changes = self.tokens.changes();
        let seen = tokio::time::timeout(PATIENCE, changes.wait_for(|_| self.tokens.find(&uri).is_ok())).await.map(|seen| seen.is_ok());
        assert_eq!(seen, Ok(true), "{:?}; {:?}", self.tokens.slots(), self.tokens.problems());
    }

    /// Asks for a signature; the job is accepted when this returns.
    pub async fn submit(&self) -> JobId {
        let caller = Caller {
            id: "test".parse().unwrap(),
            keys: KeyAccess::All,
            default_key: Some("key".parse().unwrap()),
            consent: ConsentPolicy::Auto.into(),
            permit_uses_max: 1000,
            scopes: Scopes::default(),
            account: None,
            rate: None,
            from: Provenance::default(),
        };
        let algorithm = Some(self.setting.algorithm);
        let authorised = self.service.authorise(&caller, &KeyChoice::Default, algorithm, None).await.unwrap();
        let job = JobId::random();
        self.service
            .submit(
                JobOrder { authorised, job, to_sign: to_sign(self.setting.algorithm), payment: Payment::AskNow, document: None },
                Vec::new(),
            )
            .await
            .unwrap();
        job
    }

    /// The job when it has ended.
    pub async fn ended(&self, job: JobId) -> SigningJob {
        let job = self.service.wait_for_end(job, PATIENCE).await.unwrap().unwrap();
        assert!(job.state.is_final(), "job is {}; the token is {:?}; {:?}", job.state, self.slot().status(), self.tokens.problems());
        job
    }

    /// Has one thing signed, and verified on its way out.
    pub async fn signs(&self) {
        let job = self.submit().await;
        let job = self.ended(job).await;
        assert_eq!(job.state, JobState::Signed, "{:?}", job.outcome);
    }

    /// The states in which these jobs ended: how many were signed, and how many are in doubt. Nothing else may happen to them.
    pub async fn signed_and_in_doubt(&self, jobs: Vec<JobId>) -> (usize, usize) {
        let (mut signed, mut in_doubt) = (0, 0);
        for job in jobs {
            let job = self.ended(job).await;
            match job.state {
                JobState::Signed => signed += 1,
                JobState::InDoubt => in_doubt += 1,
                other => panic!("a job is {other}: {:?}", job.outcome),
            }
        }
        (signed, in_doubt)
    }

    /// The command for one signature, as the dispatcher would send it.
    pub fn sign_command(&self, with_pin: Option<&str>) -> Command {
        let key = KeySelector { id: Some(vec![self.setting.key]), label: None };
        Command::Sign { key, to_sign: to_sign(self.setting.algorithm), pin: with_pin.map(pin), mark: None }
    }

    pub async fn stop(self) {
        self.service.stop().await;
        self.tokens.stop().await;
    }
}

/// What an operator does at the command line.
pub async fn unlock(slot: &SlotHandle, with_pin: &str, insist: bool) -> Result<(), SlotError> {
    slot.call(Command::Login { pin: Some(pin(with_pin)), origin: PinOrigin::Operator { insist } }).await.map(drop)
}

pub async fn until(slot: &SlotHandle, wanted: SlotState) {
    let mut status = slot.watch();
    let reached = tokio::time::timeout(PATIENCE, status.wait_for(|status| status.state == wanted)).await.map(|seen| seen.is_ok());
    assert_eq!(reached, Ok(true), "the slot is still {:?}", slot.status());
}

fn signing_service(setting: &Setting, tokens: &Tokens) -> Arc<SigningService> {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let permits = Arc::new(PermitService::new(Arc::clone(&store), PermitSettings::default()));
    let key = ConfiguredKey {
        name: "key".parse().unwrap(),
        uri: format!("{};id=%{:02x}", setting.token, setting.key).parse().unwrap(),
        algorithm: None,
        certificate: None,
        chain: Vec::new(),
        ignore_validity: false,
        ignore_purpose: false,
        allow_unverified: false,
    };
    SigningService::start(tokens.clone(), vec![key], store, permits, SigningSettings::default()).unwrap()
}

fn pin_file(text: &str) -> PinSource {
    let path = own_process::directory().join("pin");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    PinSource::File(path)
}

fn to_sign(algorithm: SignatureAlgorithm) -> ToSign {
    let hash = algorithm.hash().unwrap_or(HashAlgorithm::Sha256);
    let digest = Digest::new(hash, vec![7; hash.output_len()]).unwrap();
    ToSign::new(algorithm, SigningInput::Digest(digest)).unwrap()
}
