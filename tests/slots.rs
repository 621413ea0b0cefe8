//! Slot threads over the scripted token: order, login rules, loss and return of the token, orderly stop.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use sealgate::{
    domain::{
        algorithm::{HashAlgorithm, SignatureAlgorithm},
        digest::{Digest, SigningInput, ToSign},
        pin::{Pin, PinOrigin},
        token::{KeySelector, LoginMode, PinSource, SlotState, TokenPolicy},
    },
    store::pin_ledger::StoredPinLedger,
    token::{
        command::{Command, Reply},
        driver::DeviceError,
        fake::{Call, FAKE_PIN, Script},
        pkcs11::ModuleOptions,
        slot::{SlotError, SlotHandle},
        supervisor::{Isolation, ModuleSettings, ModuleSource, TokenSettings, Tokens},
        watchdog::CallLimits,
    },
};

const OPERATOR: PinOrigin = PinOrigin::Operator { insist: false };

/// After so long a test that waits for an event has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// One scripted token behind a running supervisor.
struct Rig {
    script: Script,
    tokens: Tokens,
    slot: SlotHandle,
}

impl Rig {
    async fn with(script: Script, login: LoginMode, pin: Option<PinSource>) -> Self {
        Self::with_limits(script, login, pin, CallLimits::default()).await
    }

    async fn with_limits(script: Script, login: LoginMode, pin: Option<PinSource>, limits: CallLimits) -> Self {
        Self::start(script, login, pin, limits, ModuleOptions::named("fake".parse().unwrap())).await
    }

    /// A module whose slots all share one thread.
    async fn on_one_thread() -> Self {
        let script = Script::new("scripted");
        script.add_key(&[1], "one");
        let mut options = ModuleOptions::named("fake".parse().unwrap());
        options.quirks.one_thread = Some(true);
        let rig = Self::start(script, LoginMode::Operator, None, CallLimits::default(), options).await;
        rig.login(FAKE_PIN).await.unwrap();
        rig
    }

    async fn start(script: Script, login: LoginMode, pin: Option<PinSource>, limits: CallLimits, options: ModuleOptions) -> Self {
        let rig = Self::begin(script, login, pin, limits, options).await;
        rig.until(|state| state != SlotState::Recovering && state != SlotState::Absent).await;
        rig
    }

    /// The same before the slot has come to rest.
    async fn begin(script: Script, login: LoginMode, pin: Option<PinSource>, limits: CallLimits, options: ModuleOptions) -> Self {
        let policy = TokenPolicy { uri: "pkcs11:".parse().unwrap(), login, pin, queue_bound: 16 };
        let settings = TokenSettings {
            modules: vec![ModuleSettings {
                options,
                source: ModuleSource::Loaded(Arc::new(script.module())),
                isolation: Isolation::Thread,
                limits,
            }],
            policies: vec![policy],
            unlisted: None,
            host_program: "/nonexistent".into(),
            marks: None,
        };
        let tokens = Tokens::start(settings, Arc::new(StoredPinLedger::in_memory().unwrap())).unwrap();
        tokens.settled(PATIENCE).await;
        let slot = tokens.find(&"pkcs11:".parse().unwrap()).unwrap();
        Self { script, tokens, slot }
    }

    async fn new(login: LoginMode) -> Self {
        let script = Script::new("scripted");
        script.add_key(&[1], "one");
        Self::with(script, login, None).await
    }

    async fn unlocked() -> Self {
        let rig = Self::new(LoginMode::Operator).await;
        rig.login(FAKE_PIN).await.unwrap();
        rig
    }

    async fn until(&self, wanted: impl Fn(SlotState) -> bool) {
        let mut status = self.slot.watch();
        let reached = tokio::time::timeout(PATIENCE, status.wait_for(|status| wanted(status.state))).await.map(|seen| seen.is_ok());
        assert_eq!(reached, Ok(true), "the slot is still {:?}", self.slot.status());
    }

    async fn login(&self, pin: &str) -> Result<Reply, SlotError> {
        self.slot.call(Command::Login { pin: Some(a_pin(pin)), origin: OPERATOR }).await
    }

    async fn sign(&self, pin: Option<&str>) -> Result<Reply, SlotError> {
        self.slot.call(sign_command(pin)).await
    }
}

fn a_pin(text: &str) -> Pin {
    Pin::new(text.to_owned()).unwrap()
}

fn sign_command(pin: Option<&str>) -> Command {
    let digest = Digest::new(HashAlgorithm::Sha256, vec![7; 32]).unwrap();
    Command::Sign {
        key: KeySelector { id: Some(vec![1]), label: None },
        to_sign: ToSign::new(SignatureAlgorithm::Ecdsa(HashAlgorithm::Sha256), SigningInput::Digest(digest)).unwrap(),
        pin: pin.map(a_pin),
        mark: None,
    }
}

fn device_error(result: Result<Reply, SlotError>) -> DeviceError {
    match result {
        Err(SlotError::Device(error)) => error,
        other => panic!("expected an error of the device, got {other:?}"),
    }
}

#[tokio::test]
async fn a_locked_slot_signs_nothing_and_an_unlocked_one_signs() {
    let rig = Rig::new(LoginMode::Operator).await;
    assert_eq!(rig.slot.status().state, SlotState::NeedsPin);
    assert!(matches!(device_error(rig.sign(None).await), DeviceError::LoginRequired(_)));
    assert_eq!(rig.script.count(Call::Sign), 0);
    rig.login(FAKE_PIN).await.unwrap();
    assert_eq!(rig.slot.status().state, SlotState::Ready);
    assert!(matches!(rig.sign(None).await, Ok(Reply::Signature(_))));
}

#[tokio::test]
async fn the_key_is_looked_up_once_for_many_signatures() {
    let rig = Rig::unlocked().await;
    for _ in 0..20 {
        rig.sign(None).await.unwrap();
    }
    assert_eq!((rig.script.count(Call::FindKey), rig.script.count(Call::Login), rig.script.count(Call::Sign)), (1, 1, 20));
}

#[tokio::test]
async fn commands_start_in_the_order_in_which_they_were_handed_over() {
    let rig = Rig::unlocked().await;
    let gate = rig.script.hang(Call::Sign, 1);
    let first = rig.slot.start(sign_command(None)).unwrap();
    gate.wait_entered();
    let second = rig.slot.start(Command::ListKeys).unwrap();
    let third = rig.slot.start(sign_command(None)).unwrap();
    assert_eq!(rig.slot.status().state, SlotState::Busy);
    assert_eq!(rig.slot.outstanding(), 3);
    gate.release();
    for pending in [first, second, third] {
        pending.wait().await.unwrap();
    }
    let order: Vec<Call> = rig.script.calls().into_iter().filter(|call| matches!(call, Call::Sign | Call::ListKeys)).collect();
    assert_eq!(order, [Call::Sign, Call::ListKeys, Call::Sign]);
}

#[tokio::test]
async fn a_wrong_pin_of_the_operator_stops_the_slot_after_one_login_and_is_never_tried_again() {
    let rig = Rig::new(LoginMode::Operator).await;
    assert_eq!(device_error(rig.login("000000").await), DeviceError::PinRejected);
    assert_eq!(rig.slot.status().state, SlotState::PinRejected);
    for _ in 0..5 {
        assert!(matches!(device_error(rig.login("000000").await), DeviceError::PinNotTried(_)));
        assert!(matches!(device_error(rig.sign(None).await), DeviceError::LoginRequired(_)));
    }
    assert_eq!(rig.script.count(Call::Login), 1);
    rig.login(FAKE_PIN).await.unwrap();
    assert_eq!(rig.slot.status().state, SlotState::Ready);
}

/// A private file with this PIN.
fn pin_file(directory: &tempfile::TempDir, pin: &str) -> Option<PinSource> {
    let file = directory.path().join("pin");
    std::fs::write(&file, format!("{pin}\n")).unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    Some(PinSource::File(file))
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_needed_before_the_configured_login_was_tried() {
    let directory = tempfile::tempdir().unwrap();
    let script = Script::new("scripted");
    script.add_key(&[1], "one");
    let gate = script.hang(Call::Login, 1);
    let (options, pin) = (ModuleOptions::named("fake".parse().unwrap()), pin_file(&directory, FAKE_PIN));
    let rig = Rig::begin(script, LoginMode::Configured, pin, CallLimits::default(), options).await;
    tokio::task::block_in_place(|| gate.wait_entered());
    let status = rig.slot.status();
    assert_eq!((status.state, status.reason.as_str()), (SlotState::Recovering, "logging in"));
    gate.release();
    rig.until(|state| state == SlotState::Ready).await;
    // What an operator has locked waits for an operator.
    rig.slot.hold(true);
    rig.slot.call(Command::Logout).await.unwrap();
    rig.until(|state| state == SlotState::NeedsPin).await;
}

#[tokio::test]
async fn a_configured_pin_that_cannot_be_read_needs_a_person_who_is_told_why() {
    let source = PinSource::File("/nonexistent/pin".into());
    let rig = Rig::with(Script::new("scripted"), LoginMode::Configured, Some(source)).await;
    let status = rig.slot.status();
    assert!(status.state == SlotState::NeedsPin && status.reason.contains("/nonexistent/pin"), "{status:?}");
}

#[tokio::test]
async fn a_wrong_configured_pin_is_tried_once() {
    let directory = tempfile::tempdir().unwrap();
    let script = Script::new("scripted");
    script.add_key(&[1], "one");
    let rig = Rig::with(script, LoginMode::Configured, pin_file(&directory, "999999")).await;
    rig.until(|state| state == SlotState::PinRejected).await;
    for _ in 0..50 {
        assert!(matches!(device_error(rig.sign(None).await), DeviceError::LoginRequired(_)));
    }
    assert_eq!(rig.script.count(Call::Login), 1);
}

#[tokio::test]
async fn a_configured_pin_logs_in_by_itself_and_again_after_the_session_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    let script = Script::new("scripted");
    script.add_key(&[1], "one");
    let rig = Rig::with(script, LoginMode::Configured, pin_file(&directory, FAKE_PIN)).await;
    rig.until(|state| state == SlotState::Ready).await;
    rig.script.fail(Call::SignInit, 1, DeviceError::SessionLost("CKR_SESSION_HANDLE_INVALID".to_owned()));
    assert!(matches!(rig.sign(None).await, Ok(Reply::Signature(_))));
    assert_eq!(rig.script.count(Call::Sign), 1);
}

#[tokio::test]
async fn what_may_have_been_signed_is_not_signed_again_by_itself() {
    let rig = Rig::unlocked().await;
    rig.script.fail(Call::Sign, 1, DeviceError::Unclear("CKR_DEVICE_ERROR".to_owned()));
    assert!(matches!(device_error(rig.sign(None).await), DeviceError::Unclear(_)));
    assert_eq!(rig.script.count(Call::Sign), 1);
    // The slot itself recovers.
    assert!(matches!(rig.sign(None).await, Ok(Reply::Signature(_))));
}

#[tokio::test]
async fn on_an_unlocked_slot_a_requests_pin_is_compared_and_never_tried() {
    let rig = Rig::unlocked().await;
    assert!(matches!(rig.sign(Some(FAKE_PIN)).await, Ok(Reply::Signature(_))));
    assert_eq!(device_error(rig.sign(Some("000000")).await), DeviceError::PinMismatch);
    assert_eq!(device_error(rig.slot.call(Command::CheckPin { pin: a_pin("111111") }).await), DeviceError::PinMismatch);
    assert_eq!((rig.script.count(Call::Login), rig.script.count(Call::Sign)), (1, 1));
}

#[tokio::test]
async fn a_per_request_slot_logs_in_for_each_signature_and_out_again() {
    let rig = Rig::new(LoginMode::PerRequest).await;
    assert_eq!(rig.slot.status().state, SlotState::Present);
    assert!(matches!(device_error(rig.sign(None).await), DeviceError::LoginRequired(_)));
    for _ in 0..2 {
        assert!(matches!(rig.sign(Some(FAKE_PIN)).await, Ok(Reply::Signature(_))));
        assert!(!rig.script.is_logged_in());
    }
    assert_eq!((rig.script.count(Call::Login), rig.script.count(Call::Logout)), (2, 2));
}

#[tokio::test]
async fn wrong_pins_from_requests_spend_one_try_and_only_their_sender_notices() {
    let rig = Rig::new(LoginMode::PerRequest).await;
    rig.sign(Some(FAKE_PIN)).await.unwrap();
    assert_eq!(device_error(rig.sign(Some("000001")).await), DeviceError::PinRejected);
    for wrong in ["000001", "000002", "000003"] {
        assert!(matches!(device_error(rig.sign(Some(wrong)).await), DeviceError::PinNotTried(_)), "{wrong}");
    }
    assert!(matches!(rig.sign(Some(FAKE_PIN)).await, Ok(Reply::Signature(_))));
    assert_eq!(rig.script.count(Call::Login), 3);
}

#[tokio::test]
async fn after_a_wrong_pin_on_a_fresh_per_request_slot_the_operators_unlock_lets_others_sign() {
    let rig = Rig::new(LoginMode::PerRequest).await;
    assert_eq!(device_error(rig.sign(Some("000001")).await), DeviceError::PinRejected);
    assert!(matches!(device_error(rig.sign(Some(FAKE_PIN)).await), DeviceError::PinNotTried(_)));
    rig.login(FAKE_PIN).await.unwrap();
    assert_eq!(rig.slot.status().state, SlotState::Present);
    assert!(matches!(rig.sign(Some(FAKE_PIN)).await, Ok(Reply::Signature(_))));
    assert!(!rig.script.is_logged_in());
}

#[tokio::test]
async fn the_tokens_own_warnings_are_heeded_before_any_login() {
    let rig = Rig::new(LoginMode::PerRequest).await;
    rig.script.change_flags(|flags| flags.user_pin_count_low = true);
    assert!(matches!(device_error(rig.sign(Some(FAKE_PIN)).await), DeviceError::PinNotTried(_)));
    rig.script.change_flags(|flags| flags.user_pin_final_try = true);
    assert_eq!(device_error(rig.login(FAKE_PIN).await), DeviceError::FinalTry);
    rig.script.change_flags(|flags| flags.user_pin_locked = true);
    assert_eq!(device_error(rig.login(FAKE_PIN).await), DeviceError::PinLocked);
    assert_eq!(rig.slot.status().state, SlotState::PinLocked);
    assert_eq!(rig.script.count(Call::Login), 0);
}

#[tokio::test]
async fn the_flags_that_are_shown_change_although_the_state_does_not() {
    let rig = Rig::new(LoginMode::PerRequest).await;
    let shown = || rig.slot.report().flags;
    assert!(!shown().user_pin_count_low);
    assert_eq!(device_error(rig.sign(Some("000001")).await), DeviceError::PinRejected);
    assert!(shown().user_pin_count_low, "after a request's wrong PIN");
    assert_eq!(rig.slot.status().state, SlotState::Present);
    rig.login(FAKE_PIN).await.unwrap();
    assert!(!shown().user_pin_count_low, "after a good login");
    // Another program's wrong PIN: an idle slot's thread looks every few seconds.
    let mut changes = rig.tokens.changes();
    rig.script.change_flags(|flags| flags.user_pin_final_try = true);
    let seen = async {
        while !shown().user_pin_final_try {
            changes.changed().await.unwrap();
        }
    };
    tokio::time::timeout(PATIENCE, seen).await.expect("the flag is not shown");
}

#[tokio::test]
async fn a_configured_pin_that_comes_after_an_operators_changes_nothing() {
    let rig = Rig::unlocked().await;
    rig.slot.call(Command::Login { pin: Some(a_pin("999999")), origin: PinOrigin::Configured }).await.unwrap();
    assert_eq!((rig.slot.status().state, rig.script.count(Call::Login)), (SlotState::Ready, 1));
    assert!(matches!(rig.sign(None).await, Ok(Reply::Signature(_))));
}

#[tokio::test]
async fn an_operator_who_insists_may_spend_the_last_try() {
    let rig = Rig::new(LoginMode::Operator).await;
    rig.script.change_flags(|flags| flags.user_pin_final_try = true);
    let insisting = Command::Login { pin: Some(a_pin(FAKE_PIN)), origin: PinOrigin::Operator { insist: true } };
    rig.slot.call(insisting).await.unwrap();
    assert_eq!(rig.script.count(Call::Login), 1);
}

#[tokio::test]
async fn a_key_that_wants_its_pin_for_each_signature_is_given_it_right_before_signing() {
    let script = Script::new("scripted");
    script.add_always_authenticate_key(&[1], "one");
    let rig = Rig::with(script, LoginMode::Operator, None).await;
    rig.login(FAKE_PIN).await.unwrap();
    assert!(matches!(device_error(rig.sign(None).await), DeviceError::LoginRequired(_)));
    assert!(matches!(rig.sign(Some(FAKE_PIN)).await, Ok(Reply::Signature(_))));
    let around: Vec<Call> =
        rig.script.calls().into_iter().filter(|call| matches!(call, Call::SignInit | Call::ContextLogin | Call::Sign)).collect();
    assert_eq!(around, [Call::SignInit, Call::ContextLogin, Call::Sign]);
}

#[tokio::test]
async fn a_token_that_is_pulled_and_put_back_is_the_same_token() {
    let rig = Rig::unlocked().await;
    let epoch = rig.slot.epoch();
    rig.script.pull();
    rig.until(|state| state == SlotState::Absent).await;
    assert!(matches!(rig.sign(None).await, Err(SlotError::Away(_))));
    rig.script.put_back();
    rig.until(|state| state == SlotState::NeedsPin).await;
    assert!(rig.slot.epoch() > epoch);
    assert_eq!(rig.tokens.slots().len(), 1);
    rig.login(FAKE_PIN).await.unwrap();
    assert!(matches!(rig.sign(None).await, Ok(Reply::Signature(_))));
}

#[tokio::test]
async fn a_token_pulled_during_a_command_ends_it_as_not_performed() {
    let rig = Rig::unlocked().await;
    rig.script.pull();
    let error = device_error(rig.sign(None).await);
    assert!(matches!(error, DeviceError::TokenGone(_)), "{error}");
    assert_eq!(rig.script.count(Call::Sign), 0);
}

#[tokio::test]
async fn locking_logs_out_and_the_kept_pin_is_gone() {
    let rig = Rig::unlocked().await;
    rig.slot.call(Command::Logout).await.unwrap();
    assert_eq!(rig.slot.status().state, SlotState::NeedsPin);
    assert!(matches!(device_error(rig.sign(None).await), DeviceError::LoginRequired(_)));
    assert!(!rig.script.is_logged_in());
}

#[tokio::test]
async fn a_stop_finishes_what_runs_and_answers_what_waits() {
    let rig = Rig::unlocked().await;
    let gate = rig.script.hang(Call::Sign, 1);
    let running = rig.slot.start(sign_command(None)).unwrap();
    gate.wait_entered();
    let waiting = rig.slot.start(sign_command(None)).unwrap();
    let stopping = tokio::spawn({
        let tokens = rig.tokens.clone();
        async move { tokens.stop().await }
    });
    gate.release();
    assert!(matches!(running.wait().await, Ok(Reply::Signature(_))));
    stopping.await.unwrap();
    let answered = waiting.wait().await;
    assert!(
        matches!(answered, Ok(Reply::Signature(_)) | Err(DeviceError::Stopping | DeviceError::ProcessEnded { entered: false })),
        "{answered:?}"
    );
    assert_eq!(rig.script.count(Call::Close), 1);
}

#[tokio::test]
async fn a_full_slot_says_so_and_takes_no_more() {
    let rig = Rig::unlocked().await;
    let gate = rig.script.hang(Call::Sign, 1);
    let mut taken = vec![rig.slot.start(sign_command(None)).unwrap()];
    gate.wait_entered();
    let refusal = loop {
        match rig.slot.start(Command::ListKeys) {
            Ok(pending) => taken.push(pending),
            Err(error) => break error,
        }
    };
    assert_eq!(refusal, SlotError::Busy);
    assert_eq!(taken.len(), sealgate::token::slot::OUTSTANDING_MAX);
    gate.release();
    for pending in taken {
        pending.wait().await.unwrap();
    }
}

#[tokio::test]
async fn a_call_that_does_not_return_wedges_the_slot_until_it_does() {
    let script = Script::new("scripted");
    script.add_key(&[1], "one");
    let limits = CallLimits { sign: Duration::from_millis(20), ..CallLimits::default() };
    let rig = Rig::with_limits(script, LoginMode::Operator, None, limits).await;
    rig.login(FAKE_PIN).await.unwrap();
    let gate = rig.script.hang(Call::Sign, 1);
    let hanging = rig.slot.start(sign_command(None)).unwrap();
    rig.until(|state| state == SlotState::Wedged).await;
    assert!(rig.slot.status().reason.contains("C_Sign"), "{:?}", rig.slot.status());
    gate.release();
    assert!(matches!(hanging.wait().await, Ok(Reply::Signature(_))));
    rig.until(|state| state == SlotState::Ready).await;
}

#[tokio::test]
async fn a_module_that_fails_again_and_again_is_started_again() {
    let rig = Rig::unlocked().await;
    let epoch = rig.slot.epoch();
    for nth in 1..=2000 {
        rig.script.fail(Call::SignInit, nth, DeviceError::Failed("CKR_GENERAL_ERROR".to_owned()));
    }
    let mut status = rig.slot.watch();
    while rig.slot.epoch() == epoch {
        // Whatever is answered meanwhile: nothing was signed.
        assert!(rig.sign(None).await.is_err());
        if rig.slot.status().state == SlotState::NeedsPin || rig.slot.status().state == SlotState::Absent {
            tokio::time::timeout(PATIENCE, status.wait_for(|_| rig.slot.epoch() > epoch)).await.unwrap().unwrap();
        }
    }
    rig.until(|state| state == SlotState::NeedsPin).await;
    assert_eq!(rig.script.count(Call::Sign), 0);
}

#[tokio::test]
async fn a_queue_of_commands_does_not_make_a_row_of_failures_of_one_moment() {
    let rig = Rig::unlocked().await;
    let gate = rig.script.hang(Call::SignInit, 1);
    rig.script.fail(Call::SignInit, 1, DeviceError::SessionLost("CKR_SESSION_HANDLE_INVALID".to_owned()));
    for nth in 1..=2000 {
        rig.script.fail(Call::Open, nth, DeviceError::Failed("CKR_DEVICE_ERROR".to_owned()));
    }
    let queued: Vec<_> = (0..16).map(|_| rig.slot.start(sign_command(None)).unwrap()).collect();
    gate.wait_entered();
    let began = Instant::now();
    gate.release();
    for reply in queued {
        assert!(reply.wait().await.is_err());
    }
    rig.until(|state| state == SlotState::Absent).await;
    // Four failures in a row replace the module; there is a pause of 100 ms before each but the first.
    assert!(began.elapsed() >= Duration::from_millis(300), "the module was replaced after {:?}", began.elapsed());
}

#[tokio::test]
async fn a_module_that_is_not_initialised_any_more_is_started_again_at_once() {
    let rig = Rig::unlocked().await;
    let epoch = rig.slot.epoch();
    rig.script.fail(Call::SignInit, 1, DeviceError::ModuleLost("CKR_CRYPTOKI_NOT_INITIALIZED".to_owned()));
    rig.script.fail(Call::Open, 1, DeviceError::ModuleLost("CKR_CRYPTOKI_NOT_INITIALIZED".to_owned()));
    assert!(rig.sign(None).await.is_err());
    rig.until(|state| state == SlotState::NeedsPin && rig.slot.epoch() > epoch).await;
}

#[tokio::test]
async fn a_module_that_takes_no_threads_signs_in_order_and_finds_its_token_again() {
    let rig = Rig::on_one_thread().await;
    for _ in 0..3 {
        let pending: Vec<_> = (0..20).map(|_| rig.slot.start(sign_command(None)).unwrap()).collect();
        for reply in pending {
            assert!(matches!(reply.wait().await, Ok(Reply::Signature(_))));
        }
        rig.script.pull();
        rig.until(|state| state == SlotState::Absent).await;
        rig.script.put_back();
        rig.until(|state| state == SlotState::NeedsPin).await;
        rig.login(FAKE_PIN).await.unwrap();
    }
}

#[tokio::test]
async fn a_module_that_takes_no_threads_stops_in_order() {
    let rig = Rig::on_one_thread().await;
    let gate = rig.script.hang(Call::Sign, 1);
    let running = rig.slot.start(sign_command(None)).unwrap();
    gate.wait_entered();
    let waiting = rig.slot.start(sign_command(None)).unwrap();
    let stopping = tokio::spawn({
        let tokens = rig.tokens.clone();
        async move { tokens.stop().await }
    });
    gate.release();
    assert!(matches!(running.wait().await, Ok(Reply::Signature(_))));
    stopping.await.unwrap();
    let answered = waiting.wait().await;
    assert!(matches!(answered, Ok(Reply::Signature(_)) | Err(DeviceError::Stopping)), "{answered:?}");
    assert_eq!(rig.script.count(Call::Close), 1);
}
