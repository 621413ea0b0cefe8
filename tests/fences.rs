//! Fences around a module's process: real SoftHSM signs inside all of them, and a module that tries what is denied (`pkcs11-faults`) is stopped.

#![allow(clippy::unwrap_used, clippy::expect_used)]
#![cfg(target_os = "linux")]

mod common;

use std::{
    collections::BTreeMap,
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use common::{
    program,
    softhsm::{SoftHsm, USER_PIN},
};
use pkcs11_faults::{attempt::Attempt, bench::Bench, control::Control, fault::Fault, function::Function, log::Log, module_path, variables};
use sealgate::{
    domain::{
        algorithm::{Curve, HashAlgorithm, KeyKind, SignatureAlgorithm},
        digest::{Digest, SigningInput, ToSign},
        fence::{Fence, FileFence},
        token::{KeyPairSpec, KeySelector, LoginMode, PinSource, SlotState, TokenPolicy},
        verify::verify,
    },
    store::pin_ledger::StoredPinLedger,
    token::{
        command::{Command, Reply},
        marks,
        pkcs11::ModuleOptions,
        slot::SlotHandle,
        supervisor::{Isolation, ModuleSettings, ModuleSource, TokenSettings, Tokens},
        watchdog::CallLimits,
    },
};
use uuid::Uuid;

/// After so long a test that waits for an event has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// A SoftHSM behind `pkcs11-faults`, in a fenced process.
struct Rig {
    bench: Bench,
    control: Control,
    tokens: Tokens,
    // Last, for it is dropped last: the bench ends itself through its socket.
    directory: tempfile::TempDir,
}

/// A folder with a SoftHSM, a PIN file, and a file that is none of the module's business.
fn prepared() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    SoftHsm::in_directory(directory.path()).init_token("fenced");
    let pin = directory.path().join("pin");
    fs::write(&pin, USER_PIN).unwrap();
    fs::set_permissions(&pin, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(secret(directory.path()), "a secret").unwrap();
    directory
}

fn secret(directory: &Path) -> PathBuf {
    directory.join("secret")
}

/// What SoftHSM, and the wrapper before it, need.
fn its_files(directory: &Path) -> FileFence {
    FileFence {
        readable: vec![directory.join("softhsm2.conf"), directory.join("bench.sock.generation")],
        writable: vec![directory.join("tokens"), directory.join("token.log")],
    }
}

fn all_fences(directory: &Path) -> Fence {
    Fence { no_network: true, files: Some(its_files(directory)), restrict_system_calls: true }
}

impl Rig {
    async fn start(fence: impl FnOnce(&Path) -> Fence) -> Self {
        let directory = prepared();
        let (socket, log) = (directory.path().join("bench.sock"), directory.path().join("token.log"));
        let bench = Bench::listen(&socket, None).unwrap();
        // A fence can be put around what is there.
        fs::write(&log, "").unwrap();
        let faults =
            [(variables::MODULE, SoftHsm::module().into_os_string()), (variables::CONTROL, socket.into()), (variables::LOG, log.into())];
        let environment = [SoftHsm::in_directory(directory.path()).environment(), faults.to_vec()].concat();
        let environment = environment.into_iter().map(|(name, value)| (name.to_owned(), value.into_string().unwrap()));
        let fence = fence(directory.path());
        let isolation = Isolation::Fenced { environment: environment.collect(), fence };
        let tokens = start(directory.path(), module_path().unwrap(), isolation);
        Self { control: bench.control(), bench, tokens, directory }
    }

    /// The slot, logged in.
    async fn slot(&self) -> SlotHandle {
        self.tokens.settled(PATIENCE).await;
        let found = self.tokens.find(&"pkcs11:token=fenced".parse().unwrap());
        let slot = found.unwrap_or_else(|error| panic!("{error}; {:?}", self.tokens.problems()));
        let mut status = slot.watch();
        let ready =
            tokio::time::timeout(PATIENCE, status.wait_for(|status| status.state == SlotState::Ready)).await.map(|seen| seen.is_ok());
        assert_eq!(ready, Ok(true), "the slot is still {:?}", slot.status());
        slot
    }

    /// Makes a key, and checks a signature of it.
    async fn signs(&self) {
        let slot = self.slot().await;
        let spec = KeyPairSpec { kind: KeyKind::Ec(Curve::P256), id: vec![1], label: "one".to_owned() };
        let made = slot.call(Command::GenerateKeyPair(spec)).await.unwrap();
        let Reply::Key { key, .. } = made else { panic!("no key: {made:?}") };
        self.sign(&slot, &key.public_key.unwrap()).await;
    }

    async fn sign(&self, slot: &SlotHandle, public_key: &[u8]) {
        let digest = Digest::new(HashAlgorithm::Sha256, vec![7; 32]).unwrap();
        let to_sign = ToSign::new(SignatureAlgorithm::Ecdsa(HashAlgorithm::Sha256), SigningInput::Digest(digest)).unwrap();
        let key = KeySelector { id: Some(vec![1]), label: None };
        let mark = Uuid::new_v4();
        let signed = slot.call(Command::Sign { key, to_sign: to_sign.clone(), pin: None, mark: Some(mark) }).await.unwrap();
        let Reply::Signature(signature) = signed else { panic!("no signature: {signed:?}") };
        verify(public_key, &to_sign, &signature).unwrap();
        let begun = marks::begun(&self.directory.path().join("begun"), slot.token());
        assert!(begun.is_some_and(|begun| begun.contains(&mark)), "the slot's thread notes what it begins");
    }

    /// Has the module try things while it makes a key and signs, and tells how each went.
    async fn tries(&self, attempts: &[Attempt]) -> Vec<Result<(), String>> {
        let fault = attempts.iter().fold(Fault::on(Function::C_GenerateKeyPair), |fault, attempt| fault.attempts(attempt.clone()));
        self.control.arm(fault).unwrap();
        self.signs().await;
        let log = Log::read(&self.directory.path().join("token.log")).unwrap();
        attempts.iter().map(|attempt| log.attempted(attempt).unwrap_or_else(|| panic!("{attempt} was not tried"))).collect()
    }

    async fn stop(self) {
        self.tokens.stop().await;
        self.bench.end();
    }
}

fn start(directory: &Path, library: PathBuf, isolation: Isolation) -> Tokens {
    let pin = Some(PinSource::File(directory.join("pin")));
    let settings = TokenSettings {
        modules: vec![ModuleSettings {
            options: ModuleOptions::named("fenced".parse().unwrap()),
            source: ModuleSource::Library(library),
            isolation,
            limits: CallLimits::default(),
        }],
        policies: vec![TokenPolicy { uri: "pkcs11:".parse().unwrap(), login: LoginMode::Configured, pin, queue_bound: 16 }],
        unlisted: None,
        host_program: env!("CARGO_BIN_EXE_sealgate").into(),
        marks: Some(directory.join("begun")),
    };
    Tokens::start(settings, Arc::new(StoredPinLedger::in_memory().unwrap())).unwrap()
}

fn is_denied(result: &Result<(), String>) -> bool {
    result.as_ref().is_err_and(|why| why.contains("Operation not permitted") || why.contains("Permission denied"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_fence_a_module_reaches_whatever_it_tries() {
    let rig = Rig::start(|_| Fence::default()).await;
    let somebody = TcpListener::bind("127.0.0.1:0").unwrap();
    let secret = secret(rig.directory.path());
    let attempts = [
        Attempt::Connect(somebody.local_addr().unwrap()),
        Attempt::Read(secret.clone()),
        Attempt::Write(secret),
        Attempt::Run("/bin/true".into()),
        Attempt::Signal(std::process::id()),
    ];
    assert_eq!(rig.tries(&attempts).await, vec![Ok(()); attempts.len()]);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inside_all_fences_a_token_signs_and_the_module_reaches_nothing_else() {
    let rig = Rig::start(all_fences).await;
    let somebody = TcpListener::bind("127.0.0.1:0").unwrap();
    let secret = secret(rig.directory.path());
    let attempts = [
        Attempt::Connect(somebody.local_addr().unwrap()),
        Attempt::Read(secret.clone()),
        Attempt::Write(secret),
        Attempt::Write(rig.directory.path().join("softhsm2.conf")),
        Attempt::Run("/bin/true".into()),
        Attempt::Signal(std::process::id()),
    ];
    for (attempt, result) in attempts.iter().zip(rig.tries(&attempts).await) {
        assert!(is_denied(&result), "{attempt}: {result:?}");
    }
    somebody.set_nonblocking(true).unwrap();
    assert!(somebody.accept().is_err(), "somebody was reached");
    // Nobody was killed for it.
    assert!(rig.tokens.problems().is_empty());
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_network_the_files_and_programs_of_the_machine_are_still_there() {
    let rig = Rig::start(|_| Fence { no_network: true, ..Fence::default() }).await;
    let (four, six) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("[::1]:0"));
    let mut attempts =
        vec![Attempt::Connect(four.local_addr().unwrap()), Attempt::Read(secret(rig.directory.path())), Attempt::Run("/bin/true".into())];
    attempts.extend(six.as_ref().ok().map(|six| Attempt::Connect(six.local_addr().unwrap())));
    let results = rig.tries(&attempts).await;
    assert!(is_denied(&results[0]) && results.get(3).is_none_or(is_denied), "{results:?}");
    assert_eq!(results[1..3], [Ok(()), Ok(())]);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_its_own_files_only_a_module_still_has_the_network() {
    let rig = Rig::start(|directory| Fence { files: Some(its_files(directory)), ..Fence::default() }).await;
    let somebody = TcpListener::bind("127.0.0.1:0").unwrap();
    let secret = secret(rig.directory.path());
    let attempts = [
        Attempt::Read(secret.clone()),
        Attempt::Write(secret),
        Attempt::Read("/etc/shadow".into()),
        // No program: none may be run from where nothing but reading is granted.
        Attempt::Run("/bin/true".into()),
        Attempt::Connect(somebody.local_addr().unwrap()),
        Attempt::Read(rig.directory.path().join("softhsm2.conf")),
    ];
    let results = rig.tries(&attempts).await;
    assert!(results[..4].iter().all(is_denied), "{results:?}");
    assert_eq!(results[4..], [Ok(()), Ok(())]);
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_few_system_calls_no_program_is_run_and_no_other_process_is_touched() {
    let rig = Rig::start(|_| Fence { restrict_system_calls: true, ..Fence::default() }).await;
    let somebody = TcpListener::bind("127.0.0.1:0").unwrap();
    let attempts =
        [Attempt::Run("/bin/true".into()), Attempt::Signal(std::process::id()), Attempt::Connect(somebody.local_addr().unwrap())];
    let results = rig.tries(&attempts).await;
    assert!(results[..2].iter().all(is_denied), "{results:?}");
    assert_eq!(results[2], Ok(()));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_module_that_crashes_comes_back_behind_its_fences() {
    let rig = Rig::start(all_fences).await;
    rig.signs().await;
    let slot = rig.slot().await;
    let epoch = slot.epoch();
    rig.control.arm(Fault::on(Function::C_GetSlotInfo).crashes(pkcs11_faults::fault::Crash::Abort)).unwrap();
    let mut status = slot.watch();
    let again = status.wait_for(|status| status.state == SlotState::Ready && slot.epoch() > epoch);
    tokio::time::timeout(PATIENCE, again).await.expect("the slot does not come back").unwrap();
    let attempts = [Attempt::Read(secret(rig.directory.path()))];
    // The key is there already: what is tried hangs on another call.
    rig.control.arm(Fault::on(Function::C_FindObjectsInit).attempts(attempts[0].clone())).unwrap();
    slot.call(Command::ListKeys).await.unwrap();
    let log = Log::read(&rig.directory.path().join("token.log")).unwrap();
    assert!(is_denied(&log.attempted(&attempts[0]).unwrap()));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fence_that_cannot_be_raised_keeps_the_module_from_running_and_says_why() {
    let directory = prepared();
    let environment = SoftHsm::in_directory(directory.path()).environment();
    let environment: BTreeMap<String, String> =
        environment.into_iter().map(|(name, value)| (name.to_owned(), value.into_string().unwrap())).collect();
    let gone = directory.path().join("gone");
    let files = FileFence { readable: vec![gone.clone()], ..FileFence::default() };
    let fence = Fence { files: Some(files), ..Fence::default() };
    let tokens = start(directory.path(), SoftHsm::module(), Isolation::Fenced { environment, fence });
    tokens.settled(PATIENCE).await;
    let problem = tokens.problems().into_values().next().expect("a problem");
    assert!(problem.contains("fence cannot be raised") && problem.contains(gone.to_str().unwrap()), "{problem}");
    assert!(tokens.slots().is_empty());
    // It is tried again: a fence may be about a folder that comes with a device.
    fs::create_dir(&gone).unwrap();
    let mut changes = tokens.changes();
    let other = async {
        while tokens.problems().values().any(|problem| problem.contains("gone")) {
            tokio::select! {
                changed = changes.changed() => changed.unwrap(),
                () = tokio::time::sleep(Duration::from_millis(50)) => {}
            }
        }
    };
    tokio::time::timeout(PATIENCE, other).await.expect("the module is not tried again");
    tokens.stop().await;
}

#[test]
fn slots_and_doctor_tell_of_a_fence_that_cannot_be_raised() {
    let directory = prepared();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let text = format!(
        "data_dir = \"{data}\"\n[[module]]\nname = \"fenced\"\npath = \"{module}\"\nenv = {{ SOFTHSM2_CONF = \"{conf}\" }}\n\
         fence = {{ no_network = true, readable = [\"{gone}\"] }}\n\
         [[caller]]\nname = \"ci\"\napi_key_sha256 = \"{hash}\"\n",
        data = path("data"),
        module = SoftHsm::module().display(),
        conf = path("softhsm2.conf"),
        gone = path("gone"),
        hash = "0".repeat(64),
    );
    let config = directory.path().join("sealgate.toml");
    fs::write(&config, text).unwrap();
    for verb in ["slots", "doctor"] {
        let output = program::run([verb, "--config", config.to_str().unwrap()]);
        let said = format!("{}{}", program::stdout(&output), program::stderr(&output));
        assert!(said.contains("fence cannot be raised") && said.contains(&path("gone")), "{verb}: {said}");
    }
}
