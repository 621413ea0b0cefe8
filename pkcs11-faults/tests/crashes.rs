//! Processes that die in calls, and what the bench and the token-side log know of it afterwards.

// A worker speaks to its test through standard output.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod common;

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    os::unix::{ffi::OsStrExt, process::ExitStatusExt},
    process::{Child, Command, Stdio},
    time::Instant,
};

use common::{
    Lab, digest,
    own_process::Environment,
    p11kit::P11Kit,
    softhsm::{SoftHsm, USER_PIN},
};
use cryptoki::{mechanism::Mechanism, session::Session};
use pkcs11_faults::{
    bench::Bench,
    control::PATIENCE,
    event::Awaited,
    fault::{Crash, Fault},
    function::Function,
    log::{Entry, Log, Outcome},
    protocol::PersonAct,
    rv::Rv,
    token::PinPolicy,
    variables,
};
use rustix::process::{Pid, Signal, kill_process};

/// Set for a process that signs until it is killed.
const WORKER: &str = "PKCS11_FAULTS_TEST_WORKER";

fn lab() -> (tempfile::TempDir, Lab) {
    let directory = tempfile::tempdir().unwrap();
    let lab = Lab::in_directory(directory.path());
    (directory, lab)
}

#[test]
fn a_process_crashes_before_or_after_the_signature_and_the_log_knows_which() {
    let (directory, lab) = lab();
    let bench = Bench::start(directory.path()).unwrap();
    let control = bench.control();
    let crashes = [(Crash::Abort, Some(6)), (Crash::Segfault, Some(11)), (Crash::Kill, Some(9)), (Crash::Exit(3), None)];
    for (number, (crash, signal)) in (1..).zip(crashes) {
        control.arm(Fault::on(Function::C_Sign).crashes(crash)).unwrap();
        let output = lab.sign_with_tool(lab.environment_of_a_bench(), USER_PIN, number);
        assert_eq!(output.status.signal(), signal, "{crash:?}");
        assert_eq!(output.status.code().is_some(), signal.is_none(), "{crash:?}");
        control.wait_for(Awaited::died(Function::C_Sign)).unwrap();
        assert_eq!(lab.log().signings().len(), usize::from(number) - 1, "nothing was begun before the crash");
        control.arm(Fault::on(Function::C_Sign).after().crashes(crash)).unwrap();
        lab.sign_with_tool(lab.environment_of_a_bench(), USER_PIN, number);
        let call = lab.log().signings().pop().unwrap();
        assert_eq!((call.outcome, call.rv, lab.log().signatures_on(&digest(number))), (Outcome::Signed, None, 1));
        control.wait_for(Awaited::died(Function::C_Sign)).unwrap();
    }
    assert_eq!(control.status().unwrap().calls, 0);
    assert!(lab.sign_with_tool(lab.environment_of_a_bench(), USER_PIN, 9).status.success(), "the faults are spent");
}

#[test]
fn a_crash_at_login_or_discovery_is_one_of_that_function() {
    let (directory, lab) = lab();
    let bench = Bench::start(directory.path()).unwrap();
    let control = bench.control();
    for function in [Function::C_Initialize, Function::C_GetSlotList, Function::C_Login, Function::C_FindObjectsInit] {
        control.arm(Fault::on(function).crashes(Crash::Segfault)).unwrap();
        assert_eq!(lab.sign_with_tool(lab.environment_of_a_bench(), USER_PIN, 1).status.signal(), Some(11), "{function}");
        control.wait_for(Awaited::died(function)).unwrap();
    }
    assert_eq!(lab.log().wrong_pins(), 0);
    assert!(lab.log().signings().is_empty());
}

#[test]
fn what_is_true_of_the_token_outlives_the_process() {
    let (directory, lab) = lab();
    let bench = Bench::start(directory.path()).unwrap();
    let control = bench.control();
    control.pin_policy(None, Some(PinPolicy::tries(3))).unwrap();
    for left in [2, 1] {
        control.arm(Fault::on(Function::C_Login).after().crashes(Crash::Kill)).unwrap();
        lab.sign_with_tool(lab.environment_of_a_bench(), "000000", 1);
        assert_eq!(lab.log().wrong_pins(), 3 - left, "a try is spent although the process died before the answer");
    }
    let flags = lab.tool(lab.environment_of_a_bench(), &["--list-slots"]);
    assert!(String::from_utf8_lossy(&flags.stdout).contains("final user PIN try"), "{flags:?}");
    control.remove(None).unwrap();
    let slots = lab.tool(lab.environment_of_a_bench(), &["--list-slots"]);
    assert!(!String::from_utf8_lossy(&slots.stdout).contains("contract"), "{slots:?}");
}

/// A process that signs the digests of 1, 2, 3 … and says of each that it begins (`?`) and that it has a signature (`!`).
fn signs_until_killed() {
    let pkcs11 = common::load();
    let session = pkcs11.open_rw_session(common::slot_of(&pkcs11)).unwrap();
    common::login(&session, USER_PIN).unwrap();
    let key = common::key(&session);
    let sign = |session: &Session, number: u64| session.sign(&Mechanism::Ecdsa, key, &numbered(number)).unwrap();
    // The test harness has begun a line.
    println!();
    for number in 1.. {
        println!("?{number}");
        sign(&session, number);
        println!("!{number}");
    }
}

fn numbered(number: u64) -> [u8; 32] {
    let mut digest = [0; 32];
    digest[..8].copy_from_slice(&number.to_le_bytes());
    digest
}

fn start_worker(test: &str, environment: Environment) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(WORKER, "1")
        .envs(environment)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// What a worker said of one number.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    began: bool,
    has_signature: bool,
}

fn listen(lines: impl Iterator<Item = String>) -> BTreeMap<u64, Said> {
    let mut said: BTreeMap<u64, Said> = BTreeMap::new();
    for line in lines {
        let said_of = |text: &str| text.parse::<u64>().ok();
        if let Some(number) = line.strip_prefix('?').and_then(said_of) {
            said.entry(number).or_default().began = true;
        } else if let Some(number) = line.strip_prefix('!').and_then(said_of) {
            said.entry(number).or_default().has_signature = true;
        }
    }
    said
}

/// The log against what one killed process has said of its signatures.
fn check(log: &Log, pid: u32, said: &BTreeMap<u64, Said>) {
    let calls: Vec<_> = log.signings().into_iter().filter(|call| call.pid == pid).collect();
    let outcome_of = |number: u64| {
        let data = Some(hex::encode(numbered(number)));
        let outcomes: Vec<Outcome> = calls.iter().filter(|call| call.signing.data == data).map(|call| call.outcome).collect();
        assert!(outcomes.len() <= 1, "{number} was signed {outcomes:?}");
        outcomes.first().copied()
    };
    let last = said.keys().copied().max().unwrap();
    for (number, said) in said {
        assert!(said.began);
        let outcome = outcome_of(*number);
        if said.has_signature {
            assert_eq!(outcome, Some(Outcome::Signed), "{number} has a signature");
        } else {
            assert_eq!(*number, last, "only the last one is without a signature");
        }
    }
    // The pipe holds what a killed process wrote, so the log knows of no call that it had not begun.
    assert!(calls.len() as u64 <= last, "{} calls, {last} begun", calls.len());
    let unknown = calls.iter().filter(|call| call.outcome == Outcome::Unknown).count();
    assert!(unknown <= 1, "{unknown} of one thread");
}

#[test]
fn the_log_is_true_of_a_process_that_is_killed_at_any_moment() {
    if std::env::var_os(WORKER).is_some() {
        return signs_until_killed();
    }
    let (_directory, lab) = lab();
    for round in 0..20 {
        let mut worker = start_worker(test_name!(), lab.environment());
        let pid = worker.id();
        let mut lines = BufReader::new(worker.stdout.take().unwrap()).lines().map_while(Result::ok);
        // After some signatures, and at another place in the next call each time.
        let heard: Vec<String> = lines.by_ref().take(10 + round).collect();
        worker.kill().unwrap();
        worker.wait().unwrap();
        let said = listen(heard.into_iter().chain(lines));
        check(&lab.log(), pid, &said);
    }
}

#[test]
fn a_process_killed_in_a_hanging_call_is_known_to_have_signed_or_not() {
    if std::env::var_os(WORKER).is_some() {
        return signs_until_killed();
    }
    let (directory, lab) = lab();
    let bench = Bench::start(directory.path()).unwrap();
    let control = bench.control();
    for (fault, expected) in
        [(Fault::on(Function::C_Sign).skip(4).hangs(), None), (Fault::on(Function::C_Sign).skip(4).after().hangs(), Some(Outcome::Signed))]
    {
        control.arm(fault).unwrap();
        let mut worker = start_worker(test_name!(), lab.environment_of_a_bench());
        let held = control.wait_for(Awaited::held(Function::C_Sign)).unwrap();
        assert_eq!(held.pid, worker.id());
        worker.kill().unwrap();
        worker.wait().unwrap();
        control.wait_for(Awaited::died(Function::C_Sign)).unwrap();
        let calls: Vec<_> = lab.log().signings().into_iter().filter(|call| call.pid == worker.id()).collect();
        let fifth = calls.iter().find(|call| call.signing.data == Some(hex::encode(numbered(5))));
        assert_eq!(fifth.map(|call| call.outcome), expected);
        assert_eq!(fifth.and_then(|call| call.rv), None);
        assert_eq!(control.release().unwrap(), 0, "nothing hangs any more");
    }
}

/// The process of p11-kit's that serves this SoftHSM's clients.
fn remote_of(hsm: &SoftHsm) -> Pid {
    let wanted = [b"SOFTHSM2_CONF=", hsm.configuration().as_os_str().as_bytes()].concat();
    let serves = |pid: &u32| {
        let read = |name: &str| fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
        read("comm").starts_with(b"p11-kit-remote") && read("environ").split(|byte| *byte == 0).any(|variable| variable == wanted)
    };
    let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse::<u32>().ok());
    let pid = processes.into_iter().find(serves).expect("p11-kit-remote");
    Pid::from_raw(pid.try_into().unwrap()).unwrap()
}

#[test]
fn a_process_killed_in_the_real_module_may_have_signed_and_the_log_says_so() {
    if std::env::var_os(WORKER).is_some() {
        return signs_until_killed();
    }
    let (directory, lab) = lab();
    let bench = Bench::start(directory.path()).unwrap();
    let control = bench.control();
    // The real module is p11-kit's client, so that it can be stopped in the middle of C_Sign from outside.
    let _server = P11Kit::serve(&lab.hsm);
    let mut environment = lab.environment_of_a_bench();
    environment.extend([(variables::MODULE, P11Kit::client_module().into()), P11Kit::address_in(directory.path())]);
    control.arm(Fault::on(Function::C_Sign).skip(4).hangs()).unwrap();
    let mut worker = start_worker(test_name!(), environment);
    control.wait_for(Awaited::held(Function::C_Sign)).unwrap();
    let remote = remote_of(&lab.hsm);
    kill_process(remote, Signal::STOP).unwrap();
    control.release().unwrap();
    let fifth = || lab.log().signings().into_iter().find(|call| call.signing.data == Some(hex::encode(numbered(5))));
    let began = Instant::now();
    while fifth().is_none() {
        assert!(began.elapsed() < PATIENCE, "the log does not tell of a call in the real module");
        assert!(worker.try_wait().unwrap().is_none(), "the worker is in the fifth C_Sign");
        std::thread::yield_now();
    }
    worker.kill().unwrap();
    worker.wait().unwrap();
    kill_process(remote, Signal::KILL).unwrap();
    control.wait_for(Awaited::died(Function::C_Sign)).unwrap();
    let call = fifth().unwrap();
    assert_eq!((call.outcome, call.real_rv, call.rv), (Outcome::Unknown, None, None));
}

#[test]
fn a_call_that_hangs_for_ever_is_not_released() {
    if std::env::var_os(WORKER).is_some() {
        return signs_until_killed();
    }
    let (directory, lab) = lab();
    let bench = Bench::start(directory.path()).unwrap();
    let control = bench.control();
    control.arm(Fault::on(Function::C_Sign).hangs_for_ever()).unwrap();
    let mut worker = start_worker(test_name!(), lab.environment_of_a_bench());
    control.wait_for(Awaited::held(Function::C_Sign)).unwrap();
    assert_eq!(control.release().unwrap(), 0);
    control.reset().unwrap();
    assert_eq!(control.status().unwrap().calls, 1);
    assert!(worker.try_wait().unwrap().is_none());
    worker.kill().unwrap();
    worker.wait().unwrap();
    control.wait_for(Awaited::died(Function::C_Sign)).unwrap();
}

#[test]
fn processes_that_wait_at_the_pin_pad_are_each_answered_once() {
    let (directory, lab) = lab();
    let bench = Bench::start(directory.path()).unwrap();
    let control = bench.control();
    control.pin_pad(None, true).unwrap();
    control.person(None, PersonAct::Enters(USER_PIN.to_owned())).unwrap();
    control.person(None, PersonAct::Answers(Rv::FUNCTION_CANCELED)).unwrap();
    let login = ["--token-label", "contract", "--login", "--list-objects"];
    assert!(lab.tool(lab.environment_of_a_bench(), &login).status.success());
    let canceled = lab.tool(lab.environment_of_a_bench(), &login);
    assert!(String::from_utf8_lossy(&canceled.stderr).contains("CKR_FUNCTION_CANCELED"), "{canceled:?}");
}

#[test]
fn lines_of_several_processes_do_not_mix() {
    let (_directory, lab) = lab();
    // Without a login: SoftHSM 2.6.1 writes its token file at each, and processes that do so at once destroy the token.
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert!(lab.tool(lab.environment(), &["--list-slots"]).status.success()));
        }
    });
    let mut lines: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    for record in lab.log().records() {
        match record.entry {
            Entry::Log { .. } => assert_eq!(record.seq, 0),
            _ => lines.entry(record.pid).or_default().push(record.seq),
        }
    }
    assert_eq!(lines.into_values().collect::<Vec<_>>(), [[1, 2]; 8], "initialised and finalised, in this order");
}
