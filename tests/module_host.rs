//! Modules in processes of their own, with real SoftHSM: the same answers as in-process, two configurations side by side, a child that hangs
//! or dies, and PIN tries counted across all of it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command as Program,
    sync::Arc,
    time::Duration,
};

use common::softhsm::{self, SO_PIN, SoftHsm, USER_PIN};
use sealgate::{
    domain::{
        algorithm::{Curve, HashAlgorithm, KeyKind, SignatureAlgorithm},
        digest::{Digest, SigningInput, ToSign},
        pin::{Pin, PinOrigin},
        token::{KeyPairSpec, KeySelector, LoginMode, PinSource, SlotState, TokenPolicy},
        verify::verify,
    },
    store::pin_ledger::StoredPinLedger,
    token::{
        command::{Command, Reply},
        driver::DeviceError,
        pkcs11::ModuleOptions,
        slot::{PendingReply, SlotError, SlotHandle},
        supervisor::{Isolation, ModuleSettings, ModuleSource, TokenSettings, Tokens},
        watchdog::CallLimits,
    },
};

/// After so long a test that waits for an event has failed.
const PATIENCE: Duration = Duration::from_secs(60);

const OPERATOR: PinOrigin = PinOrigin::Operator { insist: false };

/// A module in a child, with an environment of its own.
fn hosted(name: &str, library: PathBuf, environment: &[(&str, std::ffi::OsString)]) -> ModuleSettings {
    let environment: BTreeMap<String, String> =
        environment.iter().map(|(name, value)| ((*name).to_owned(), value.to_str().unwrap().to_owned())).collect();
    ModuleSettings {
        options: ModuleOptions::named(name.parse().unwrap()),
        source: ModuleSource::Library(library),
        isolation: Isolation::Process(environment),
        limits: CallLimits::default(),
    }
}

fn start(modules: Vec<ModuleSettings>, login: LoginMode, pin: Option<PinSource>) -> Tokens {
    start_for("pkcs11:", modules, login, pin)
}

fn start_for(uri: &str, modules: Vec<ModuleSettings>, login: LoginMode, pin: Option<PinSource>) -> Tokens {
    let settings = TokenSettings {
        modules,
        policies: vec![TokenPolicy { uri: uri.parse().unwrap(), login, pin, queue_bound: 16 }],
        unlisted: None,
        host_program: env!("CARGO_BIN_EXE_sealgate").into(),
        marks: None,
    };
    Tokens::start(settings, Arc::new(StoredPinLedger::in_memory().unwrap())).unwrap()
}

async fn slot_of(tokens: &Tokens, uri: &str) -> SlotHandle {
    tokens.settled(PATIENCE).await;
    let slot = tokens.find(&uri.parse().unwrap()).unwrap_or_else(|error| panic!("{error}; {:?}", tokens.problems()));
    until(&slot, |state| !matches!(state, SlotState::Absent | SlotState::Recovering)).await;
    slot
}

async fn until(slot: &SlotHandle, wanted: impl Fn(SlotState) -> bool) {
    let mut status = slot.watch();
    let reached = tokio::time::timeout(PATIENCE, status.wait_for(|status| wanted(status.state))).await.map(|seen| seen.is_ok());
    assert_eq!(reached, Ok(true), "the slot is still {:?}", slot.status());
}

fn pin(text: &str) -> Pin {
    Pin::new(text.to_owned()).unwrap()
}

async fn unlock(slot: &SlotHandle) {
    slot.call(Command::Login { pin: Some(pin(USER_PIN)), origin: OPERATOR }).await.unwrap();
}

async fn make_key(slot: &SlotHandle) -> Vec<u8> {
    let spec = KeyPairSpec { kind: KeyKind::Ec(Curve::P256), id: vec![1], label: "one".to_owned() };
    match slot.call(Command::GenerateKeyPair(spec)).await.unwrap() {
        Reply::Key { key, .. } => {
            assert!(key.protection.sensitive && key.protection.local && !key.protection.extractable, "{:?}", key.protection);
            key.public_key.unwrap()
        }
        other => panic!("expected a key, got {other:?}"),
    }
}

fn to_sign() -> ToSign {
    let digest = Digest::new(HashAlgorithm::Sha256, vec![7; 32]).unwrap();
    ToSign::new(SignatureAlgorithm::Ecdsa(HashAlgorithm::Sha256), SigningInput::Digest(digest)).unwrap()
}

fn sign_command(with_pin: Option<&str>) -> Command {
    Command::Sign { key: KeySelector { id: Some(vec![1]), label: None }, to_sign: to_sign(), pin: with_pin.map(pin), mark: None }
}

fn begin(slot: &SlotHandle) -> PendingReply {
    slot.start(sign_command(None)).unwrap()
}

async fn signs(slot: &SlotHandle, public_key: &[u8]) {
    match slot.call(sign_command(None)).await.unwrap() {
        Reply::Signature(signature) => verify(public_key, &to_sign(), &signature).unwrap(),
        other => panic!("expected a signature, got {other:?}"),
    }
}

/// The process that hosts this module for this test: the child of ours that was started last with its name.
fn child_of(module: &str) -> u32 {
    let words = |pid: u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect::<Vec<_>>()
    };
    let is_ours = |pid: u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().any(|line| line.strip_prefix("PPid:").is_some_and(|parent| parent.trim() == std::process::id().to_string()))
    };
    let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let found: Vec<u32> =
        pids.filter(|pid| is_ours(*pid) && words(*pid).get(1..3).is_some_and(|words| words == ["module-host", module])).collect();
    assert_eq!(found.len(), 1, "processes of {module}: {found:?}");
    found[0]
}

fn signal(name: &str, pid: u32) {
    assert!(Program::new("kill").args([name, &pid.to_string()]).status().unwrap().success());
}

fn device_error(result: Result<Reply, SlotError>) -> DeviceError {
    match result {
        Err(SlotError::Device(error)) => error,
        other => panic!("expected an error of the device, got {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_made_and_used_through_a_child_process() {
    let directory = tempfile::tempdir().unwrap();
    let hsm = SoftHsm::in_directory(directory.path());
    let module = || vec![hosted("softhsm", SoftHsm::module(), &hsm.environment())];
    let maker = start(module(), LoginMode::Operator, None);
    maker.settled(PATIENCE).await;
    maker.create_token(&"softhsm".parse().unwrap(), "made-here", pin(SO_PIN), pin(USER_PIN)).await.unwrap();
    maker.stop().await;
    let tokens = start(module(), LoginMode::Operator, None);
    let slot = slot_of(&tokens, "pkcs11:token=made-here").await;
    assert!(matches!(device_error(slot.call(sign_command(None)).await), DeviceError::LoginRequired(_)));
    unlock(&slot).await;
    let public_key = make_key(&slot).await;
    signs(&slot, &public_key).await;
    tokens.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_softhsm_configurations_live_side_by_side() {
    let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let hsms = directories.each_ref().map(|directory| SoftHsm::in_directory(directory.path()));
    hsms[0].init_token("left");
    hsms[1].init_token("right");
    let modules =
        vec![hosted("left", SoftHsm::module(), &hsms[0].environment()), hosted("right", SoftHsm::module(), &hsms[1].environment())];
    let tokens = start(modules, LoginMode::Operator, None);
    for uri in ["pkcs11:token=left", "pkcs11:token=right"] {
        let slot = slot_of(&tokens, uri).await;
        unlock(&slot).await;
        let public_key = make_key(&slot).await;
        signs(&slot, &public_key).await;
    }
    assert_eq!(tokens.slots().len(), 2);
    tokens.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_one_child_hangs_another_modules_jobs_finish() {
    let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let hsms = directories.each_ref().map(|directory| SoftHsm::in_directory(directory.path()));
    hsms[0].init_token("hangs");
    hsms[1].init_token("works");
    let modules =
        vec![hosted("hangs", SoftHsm::module(), &hsms[0].environment()), hosted("works", SoftHsm::module(), &hsms[1].environment())];
    let tokens = start(modules, LoginMode::Operator, None);
    let (hangs, works) = (slot_of(&tokens, "pkcs11:token=hangs").await, slot_of(&tokens, "pkcs11:token=works").await);
    let mut public_keys = Vec::new();
    for slot in [&hangs, &works] {
        unlock(slot).await;
        public_keys.push(make_key(slot).await);
    }
    let child = child_of("hangs");
    signal("-STOP", child);
    let hanging: Vec<PendingReply> = (0..20).map(|_| begin(&hangs)).collect();
    for _ in 0..50 {
        signs(&works, &public_keys[1]).await;
    }
    // All of the one module's work was done while none of the other's was.
    assert_eq!(hangs.outstanding(), 20);
    signal("-CONT", child);
    for pending in hanging {
        assert!(matches!(pending.wait().await, Ok(Reply::Signature(_))));
    }
    tokens.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_killed_under_load_answers_everything_and_comes_back() {
    let directory = tempfile::tempdir().unwrap();
    let hsm = SoftHsm::in_directory(directory.path());
    hsm.init_token("t");
    let pin_file = directory.path().join("pin");
    fs::write(&pin_file, format!("{USER_PIN}\n")).unwrap();
    fs::set_permissions(&pin_file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let modules = vec![hosted("killed", SoftHsm::module(), &hsm.environment())];
    let tokens = start(modules, LoginMode::Configured, Some(PinSource::File(pin_file)));
    let slot = slot_of(&tokens, "pkcs11:token=t").await;
    until(&slot, |state| state == SlotState::Ready).await;
    let public_key = make_key(&slot).await;
    for _ in 0..3 {
        let epoch = slot.epoch();
        let pending: Vec<PendingReply> = (0..200).map(|_| begin(&slot)).collect();
        signal("-KILL", child_of("killed"));
        let mut unknown = 0;
        for reply in pending {
            match reply.wait().await {
                Ok(Reply::Signature(_)) | Err(DeviceError::ProcessEnded { entered: false }) => {}
                Err(DeviceError::ProcessEnded { entered: true }) => unknown += 1,
                other => panic!("{other:?}"),
            }
        }
        assert!(unknown <= 1, "{unknown} calls were in C_Sign at once");
        until(&slot, |state| state == SlotState::Ready && slot.epoch() > epoch).await;
        signs(&slot, &public_key).await;
    }
    tokens.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_configured_pin_is_tried_once_and_not_again_after_a_crash_of_the_child() {
    let directory = tempfile::tempdir().unwrap();
    let hsm = SoftHsm::in_directory(directory.path());
    hsm.init_token("t");
    let pin_file = directory.path().join("pin");
    fs::write(&pin_file, "999999\n").unwrap();
    fs::set_permissions(&pin_file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let spy_log = directory.path().join("spy.log");
    let environment = [hsm.environment(), softhsm::spy_environment(&spy_log)].concat();
    let modules = vec![hosted("wrong-pin", softhsm::spy_module(), &environment)];
    let tokens = start(modules, LoginMode::Configured, Some(PinSource::File(pin_file)));
    let slot = slot_of(&tokens, "pkcs11:token=t").await;
    for _ in 0..2 {
        until(&slot, |state| state == SlotState::PinRejected).await;
        for _ in 0..50 {
            assert!(matches!(device_error(slot.call(sign_command(None)).await), DeviceError::LoginRequired(_)));
        }
        let epoch = slot.epoch();
        signal("-KILL", child_of("wrong-pin"));
        until(&slot, |state| state == SlotState::PinRejected && slot.epoch() > epoch).await;
    }
    assert_eq!(softhsm::spy_count(&spy_log, "C_Login"), 1);
    tokens.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_signature_is_one_call_of_the_module() {
    let directory = tempfile::tempdir().unwrap();
    let hsm = SoftHsm::in_directory(directory.path());
    hsm.init_token("t");
    let spy_log = directory.path().join("spy.log");
    let environment = [hsm.environment(), softhsm::spy_environment(&spy_log)].concat();
    let tokens = start(vec![hosted("spied", softhsm::spy_module(), &environment)], LoginMode::PerRequest, None);
    let slot = slot_of(&tokens, "pkcs11:token=t").await;
    assert!(matches!(device_error(slot.call(sign_command(Some("000000"))).await), DeviceError::PinRejected));
    assert!(matches!(device_error(slot.call(sign_command(Some("000001"))).await), DeviceError::PinNotTried(_)));
    assert_eq!(softhsm::spy_count(&spy_log, "C_Login"), 1);
    tokens.stop().await;

    hsm.pkcs11_tool(&[
        "--token-label",
        "t",
        "--login",
        "--pin",
        USER_PIN,
        "--keypairgen",
        "--key-type",
        "EC:prime256v1",
        "--id",
        "01",
        "--label",
        "one",
        "--usage-sign",
    ]);
    fs::remove_file(&spy_log).unwrap();
    let tokens = start(vec![hosted("spied", softhsm::spy_module(), &environment)], LoginMode::Operator, None);
    let slot = slot_of(&tokens, "pkcs11:token=t").await;
    unlock(&slot).await;
    for _ in 0..10 {
        slot.call(sign_command(None)).await.unwrap();
    }
    tokens.stop().await;
    assert_eq!(softhsm::spy_count(&spy_log, "C_Sign"), 10);
    assert_eq!(softhsm::spy_count(&spy_log, "C_Login"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_module_that_cannot_be_loaded_is_named_with_the_reason() {
    let tokens = start(vec![hosted("missing", "/nonexistent/module.so".into(), &[])], LoginMode::Operator, None);
    tokens.settled(PATIENCE).await;
    let problems = tokens.problems();
    let problem = &problems[&"missing".parse().unwrap()];
    assert!(problem.contains("/nonexistent/module.so"), "{problem}");
    tokens.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gateways_end_is_the_childs_end() {
    let directory = tempfile::tempdir().unwrap();
    let hsm = SoftHsm::in_directory(directory.path());
    hsm.init_token("t");
    let tokens = start(vec![hosted("ended", SoftHsm::module(), &hsm.environment())], LoginMode::Operator, None);
    slot_of(&tokens, "pkcs11:token=t").await;
    let child = child_of("ended");
    tokens.stop().await;
    assert!(!Path::new(&format!("/proc/{child}")).exists(), "the child is still there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_softhsm_token_directory_moved_away_and_back_heals_by_itself() {
    let directory = tempfile::tempdir().unwrap();
    let hsm = SoftHsm::in_directory(directory.path());
    hsm.init_token("t");
    let pin_file = directory.path().join("pin");
    fs::write(&pin_file, format!("{USER_PIN}\n")).unwrap();
    fs::set_permissions(&pin_file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let modules = vec![hosted("moved", SoftHsm::module(), &hsm.environment())];
    let tokens = start_for("pkcs11:token=t", modules, LoginMode::Configured, Some(PinSource::File(pin_file)));
    let slot = slot_of(&tokens, "pkcs11:token=t").await;
    until(&slot, |state| state == SlotState::Ready).await;
    let public_key = make_key(&slot).await;
    signs(&slot, &public_key).await;
    let (there, away) = (hsm.token_directory(), directory.path().join("away"));
    fs::rename(&there, &away).unwrap();
    fs::create_dir(&there).unwrap();
    let mut status = slot.watch();
    // A key that was never used may be gone for good; one that has signed is worth a fresh start of the module.
    while slot.status().state != SlotState::Absent {
        assert!(slot.call(sign_command(None)).await.is_err());
        // Either the slot is working on it, or it says what it found next.
        let _ = tokio::time::timeout(Duration::from_millis(100), status.changed()).await;
    }
    fs::remove_dir(&there).unwrap();
    fs::rename(&away, &there).unwrap();
    until(&slot, |state| state == SlotState::Ready).await;
    signs(&slot, &public_key).await;
    tokens.stop().await;
}
