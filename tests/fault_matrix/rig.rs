//! A gateway's inside over two modules: the one that suffers, behind `pkcs11-faults`, and one beside it that must not notice.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use pkcs11_faults::{
    bench::Bench,
    control::Control,
    event::Awaited,
    fault::Fault,
    function::Function,
    log::{Log, Outcome},
    module_path,
    rv::Rv,
    variables,
};
use sealgate::{
    domain::{
        algorithm::{Curve, HashAlgorithm, KeyKind, SignatureAlgorithm},
        caller::{Caller, ConsentPolicy, KeyAccess, Provenance, Scopes},
        digest::{SigningInput, ToSign},
        hash::digest,
        ids::JobId,
        job::{JobState, SigningJob},
        key::{ConfiguredKey, KeyChoice},
        token::{KeyPairSpec, LoginMode, PinSource, SlotState, TokenPolicy},
    },
    permit::{PermitService, PermitSettings},
    signing::service::{JobOrder, Payment, SigningService, SigningSettings, SubmitError},
    store::{Store, memory::MemoryStore, pin_ledger::StoredPinLedger},
    token::{
        command::Command,
        pkcs11::ModuleOptions,
        slot::SlotHandle,
        supervisor::{Isolation, ModuleSettings, ModuleSource, TokenSettings, Tokens},
        watchdog::CallLimits,
    },
};
use tokio::task::JoinHandle;

use super::{
    common::softhsm::{SoftHsm, USER_PIN},
    faults::{FaultRow, Moment, What},
};

/// After so long a test that waits for an event has failed.
const PATIENCE: Duration = Duration::from_secs(60);

const ALGORITHM: SignatureAlgorithm = SignatureAlgorithm::Ecdsa(HashAlgorithm::Sha256);

const SOCKET: &str = "bench.sock";
const LOG: &str = "token.log";

/// Where the module that suffers runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolated {
    Process,
    Thread,
}

pub struct Rig {
    isolated: Isolated,
    log: PathBuf,
    bench: Bench,
    pub control: Arc<Control>,
    tokens: Tokens,
    service: Arc<SigningService>,
    beside: Arc<AtomicUsize>,
    beside_stops: Arc<AtomicBool>,
    beside_task: JoinHandle<()>,
    // Last, for it is dropped last: the bench ends itself through its socket.
    _directory: Option<tempfile::TempDir>,
}

impl Rig {
    /// What a process needs in its environment to be the one that suffers.
    pub fn environment_of_a_process(directory: &Path) -> Vec<(&'static str, OsString)> {
        let victim = SoftHsm::in_directory(directory);
        victim.init_token("victim");
        let faults = [
            (variables::MODULE, SoftHsm::module().into_os_string()),
            (variables::CONTROL, directory.join(SOCKET).into_os_string()),
            (variables::LOG, directory.join(LOG).into_os_string()),
        ];
        [victim.environment(), faults.to_vec()].concat()
    }

    pub async fn start(isolated: Isolated) -> Self {
        Self::keeping(isolated, SigningSettings::default().retention, PermitSettings::default().lifetime).await
    }

    /// With a gateway that forgets its jobs so long after their end, and whose permits last so long.
    pub async fn keeping(isolated: Isolated, retention: Duration, permits: Duration) -> Self {
        let (kept, directory, environment) = match isolated {
            Isolated::Process => {
                let kept = tempfile::tempdir().unwrap();
                let (path, environment) = (kept.path().to_owned(), Self::environment_of_a_process(kept.path()));
                (Some(kept), path, environment)
            }
            Isolated::Thread => {
                let socket = PathBuf::from(std::env::var_os(variables::CONTROL).unwrap());
                (None, socket.parent().unwrap().to_owned(), Vec::new())
            }
        };
        let bench = Bench::listen(&directory.join(SOCKET), None).unwrap();
        let beside = SoftHsm::in_directory(&directory.join("beside"));
        beside.init_token("beside");
        let modules = vec![
            module("victim", module_path().unwrap(), (isolated == Isolated::Process).then_some(environment)),
            module("beside", SoftHsm::module(), Some(beside.environment())),
        ];
        let tokens = start_tokens(modules, &directory);
        for label in ["victim", "beside"] {
            let spec = KeyPairSpec { kind: KeyKind::Ec(Curve::P256), id: vec![1], label: label.to_owned() };
            ready(&tokens, label).await.call(Command::GenerateKeyPair(spec)).await.unwrap();
        }
        let service = start_service(tokens.clone(), retention, permits);
        let (count, stops) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let beside_task = tokio::spawn(sign_beside(Arc::clone(&service), Arc::clone(&count), Arc::clone(&stops)));
        Self {
            _directory: kept,
            isolated,
            log: directory.join(LOG),
            control: Arc::new(bench.control()),
            bench,
            tokens,
            service,
            beside: count,
            beside_stops: stops,
            beside_task,
        }
    }

    /// Lets one fault strike at one moment, waits until the token signs again, and looks at what became of every job.
    pub async fn suffer(&self, fault: &FaultRow, moment: Moment) {
        let name = format!("{:?}, {moment:?}, {}", self.isolated, fault.name);
        let (jobs, ended) = self.strike(fault, moment).await;
        let first = self.sign_until_signed(&name).await;
        let took = ended.elapsed();
        for job in jobs.into_iter().chain([first]) {
            let job = self.ended(job).await;
            self.check(&job, &name);
        }
        self.report(fault, moment, took);
        self.control.reset().unwrap();
        let slot = ready(&self.tokens, "victim").await;
        assert_eq!(slot.status().state, SlotState::Ready, "{name}");
    }

    /// Makes the fault happen; gives back the jobs that were accepted meanwhile, and when the fault was over.
    async fn strike(&self, fault: &FaultRow, moment: Moment) -> (Vec<JobId>, Instant) {
        let function = moment.function();
        let mut jobs = Vec::new();
        let armed = fault.armed_on(function);
        // Where something is to happen during a call, the call is held for it; so is the signature that others wait behind.
        let held = if moment == Moment::Queued { Function::C_Sign } else { function };
        let holds = moment == Moment::Queued || armed.is_none();
        if holds {
            self.control.arm(Fault::on(held).hangs()).unwrap();
        } else if let Some(armed) = &armed {
            self.control.watch(function).unwrap();
            self.control.arm(armed.clone()).unwrap();
        }
        if moment == Moment::AtLogin {
            self.control.expire_sessions(None, Rv::SESSION_HANDLE_INVALID).unwrap();
        }
        if !matches!(moment, Moment::Idle | Moment::AtDiscovery) {
            jobs.extend(self.submit().await);
        }
        if holds {
            self.wait_for(Awaited::held(held)).await;
        } else {
            self.wait_for(Awaited::entered(function)).await;
        }
        jobs.extend(self.submit().await);
        jobs.extend(self.submit().await);
        if let Some(armed) = armed.filter(|_| holds) {
            self.control.arm(armed).unwrap();
        }
        self.happen(fault, moment);
        self.until_beside_went_on().await;
        if holds {
            self.control.release().unwrap();
        }
        if fault.what == What::Remove {
            self.until(|state| state == SlotState::Absent).await;
            self.control.insert(None).unwrap();
        }
        (jobs, Instant::now())
    }

    /// The faults that strike no call.
    fn happen(&self, fault: &FaultRow, moment: Moment) {
        match fault.what {
            What::Poison(rv) => {
                let functions =
                    [Function::C_OpenSession, Function::C_Login, Function::C_SignInit, Function::C_Sign, Function::C_FindObjectsInit];
                self.control.poison(functions, rv)
            }
            What::ExpireSessions => self.control.expire_sessions(None, Rv::SESSION_CLOSED),
            What::Renumber => self.control.renumber(None, 4711 + self.beside.load(Ordering::SeqCst) as u64 % 1000),
            What::Logout => self.control.logout(None),
            What::Remove if moment == Moment::AtDiscovery => self.control.remove(None),
            _ => Ok(()),
        }
        .unwrap();
    }

    async fn wait_for(&self, event: Awaited) {
        let control = Arc::clone(&self.control);
        tokio::task::spawn_blocking(move || control.wait_for(event)).await.unwrap().unwrap();
    }

    async fn submit(&self) -> Option<JobId> {
        submit(&self.service, "victim").await
    }

    pub async fn sign_until_signed(&self, name: &str) -> JobId {
        let signed = async {
            loop {
                if let Some(job) = self.submit().await
                    && self.ended(job).await.state == JobState::Signed
                {
                    return job;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let slot = || self.tokens.find(&"pkcs11:token=victim".parse().unwrap()).map(|slot| slot.status());
        tokio::time::timeout(PATIENCE, signed).await.unwrap_or_else(|_| panic!("{name}: the token does not sign again: {:?}", slot()))
    }

    async fn ended(&self, job: JobId) -> SigningJob {
        self.service.wait_for_end(job, PATIENCE).await.unwrap().unwrap()
    }

    /// No job is lost; none is signed twice; no PIN try is spent.
    fn check(&self, job: &SigningJob, name: &str) {
        let log = Log::read(&self.log).unwrap();
        let SigningInput::Digest(digest) = job.to_sign.input() else { panic!("a digest was submitted") };
        let data = hex::encode(digest.as_bytes());
        let ours = log.signings().into_iter().filter(|call| call.signing.data.as_deref() == Some(&data));
        let signed = ours.filter(|call| call.outcome != Outcome::NotSigned).count();
        match job.state {
            JobState::Signed => assert_eq!(signed, 1, "{name}: a job that is signed was signed {signed} times"),
            JobState::InDoubt => assert!(signed <= 1, "{name}: a job in doubt was signed {signed} times"),
            state => panic!("{name}: a job ended as {state}: {:?}", job.outcome),
        }
        let tries = log.logins().into_iter().filter(|login| login.real_rv == Some(Rv::PIN_INCORRECT)).count();
        assert_eq!(tries, 0, "{name}: PIN tries were spent");
    }

    /// Waits until the module beside has made some more signatures.
    async fn until_beside_went_on(&self) {
        let before = self.beside.load(Ordering::SeqCst);
        let went_on = async {
            while self.beside.load(Ordering::SeqCst) < before + 3 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, went_on).await.expect("the module beside does not go on");
    }

    pub fn victim(&self) -> SlotHandle {
        self.tokens.find(&"pkcs11:token=victim".parse().unwrap()).unwrap()
    }

    pub async fn until(&self, wanted: impl Fn(SlotState) -> bool) {
        let slot = self.tokens.find(&"pkcs11:token=victim".parse().unwrap()).unwrap();
        let mut status = slot.watch();
        let reached = tokio::time::timeout(PATIENCE, status.wait_for(|status| wanted(status.state))).await.map(|seen| seen.is_ok());
        assert_eq!(reached, Ok(true), "the slot is still {:?}", slot.status());
    }

    /// One line a fault, for `scripts/fault-report.sh`.
    fn report(&self, fault: &FaultRow, moment: Moment, took: Duration) {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fault-matrix-{:?}-{moment:?}.tsv", self.isolated));
        let mut file = fs::File::options().create(true).append(true).open(path).unwrap();
        writeln!(file, "{:?}\t{moment:?}\t{}\t{}", self.isolated, fault.name, took.as_millis()).unwrap();
    }

    pub async fn end(self) {
        self.beside_stops.store(true, Ordering::SeqCst);
        self.beside_task.await.unwrap();
        self.service.stop().await;
        self.tokens.stop().await;
        self.bench.end();
    }
}

/// Signs with the module beside until it is told to stop; every one of its jobs must be signed.
async fn sign_beside(service: Arc<SigningService>, count: Arc<AtomicUsize>, stops: Arc<AtomicBool>) {
    while !stops.load(Ordering::SeqCst) {
        let job = submit(&service, "beside").await.expect("the module beside takes work");
        let ended = service.wait_for_end(job, PATIENCE).await.unwrap().unwrap();
        assert_eq!(ended.state, JobState::Signed, "beside: {:?}", ended.outcome);
        count.fetch_add(1, Ordering::SeqCst);
        // Leaves the machine's two processors to those who suffer.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn submit(service: &SigningService, key: &str) -> Option<JobId> {
    let caller = Caller {
        id: "ci".parse().unwrap(),
        keys: KeyAccess::All,
        default_key: None,
        consent: ConsentPolicy::Auto.into(),
        permit_uses_max: 1,
        scopes: Scopes::default(),
        account: None,
        rate: None,
        from: Provenance::default(),
    };
    let authorised = service.authorise(&caller, &KeyChoice::Named(key.parse().unwrap()), None, None).await.ok()?;
    let job = JobId::random();
    let input = SigningInput::Digest(digest(HashAlgorithm::Sha256, job.as_uuid().as_bytes()));
    match service
        .submit(
            JobOrder { authorised, job, to_sign: ToSign::new(ALGORITHM, input).unwrap(), payment: Payment::AskNow, document: None },
            Vec::new(),
        )
        .await
    {
        Ok(()) => Some(job),
        Err(SubmitError::Denied(_)) => None,
        Err(error) => panic!("{error}"),
    }
}

fn module(name: &str, library: PathBuf, environment: Option<Vec<(&'static str, OsString)>>) -> ModuleSettings {
    let mut options = ModuleOptions::named(name.parse().unwrap());
    // The module under test lists what its bench says, not what SoftHSM saw at its start.
    options.quirks.sees_new_tokens = Some(true);
    let text = |value: OsString| value.into_string().unwrap();
    let isolation = match environment {
        Some(environment) => {
            Isolation::Process(environment.into_iter().map(|(name, value)| (name.to_owned(), text(value))).collect::<BTreeMap<_, _>>())
        }
        None => Isolation::Thread,
    };
    let limits = CallLimits { sign: Duration::from_secs(2), other: Duration::from_secs(2), ..CallLimits::default() };
    ModuleSettings { options, source: ModuleSource::Library(library), isolation, limits }
}

fn start_tokens(modules: Vec<ModuleSettings>, directory: &Path) -> Tokens {
    let pin = directory.join("pin");
    fs::write(&pin, USER_PIN).unwrap();
    fs::set_permissions(&pin, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let policy =
        TokenPolicy { uri: "pkcs11:".parse().unwrap(), login: LoginMode::Configured, pin: Some(PinSource::File(pin)), queue_bound: 100 };
    let settings =
        TokenSettings { modules, policies: vec![policy], unlisted: None, host_program: env!("CARGO_BIN_EXE_sealgate").into(), marks: None };
    Tokens::start(settings, Arc::new(StoredPinLedger::in_memory().unwrap())).unwrap()
}

fn start_service(tokens: Tokens, retention: Duration, lifetime: Duration) -> Arc<SigningService> {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let permits = Arc::new(PermitService::new(Arc::clone(&store), PermitSettings { lifetime, ..PermitSettings::default() }));
    let key = |name: &str| ConfiguredKey {
        name: name.parse().unwrap(),
        uri: format!("pkcs11:token={name};object={name}").parse().unwrap(),
        algorithm: None,
        certificate: None,
        chain: Vec::new(),
        ignore_validity: false,
        ignore_purpose: false,
        allow_unverified: false,
    };
    let settings = SigningSettings { canary_every: None, retention, ..SigningSettings::default() };
    SigningService::start(tokens, vec![key("victim"), key("beside")], store, permits, settings).unwrap()
}

async fn ready(tokens: &Tokens, label: &str) -> SlotHandle {
    tokens.settled(PATIENCE).await;
    let uri = format!("pkcs11:token={label}").parse().unwrap();
    let slot = tokens.find(&uri).unwrap_or_else(|error| panic!("{label}: {error}; {:?}", tokens.problems()));
    let mut status = slot.watch();
    let waited = tokio::time::timeout(PATIENCE, status.wait_for(|status| status.state == SlotState::Ready)).await.map(|seen| seen.is_ok());
    assert_eq!(waited, Ok(true), "{label} is still {:?}", slot.status());
    slot
}
