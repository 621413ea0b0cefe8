//! Tokens that want a person, through a whole gateway: a PIN pad and a touch button, played by `pkcs11-faults` before real SoftHSM. A person is
//! slow, cancels and errs; none of it is taken for a hang, and the token beside signs on.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use common::{
    gateway::{Gateway, PATIENCE, Plan},
    softhsm::USER_PIN,
};
use pkcs11_faults::{
    bench::Bench,
    control::Control,
    event::{Awaited, Step},
    fault::Fault,
    function::Function,
    log::{Log, Outcome},
    protocol::PersonAct,
    rv::Rv,
    token::PinPolicy,
};
use reqwest::Method;
use sealgate::{
    domain::token::{LoginMode, SlotState, TokenPolicy},
    http::control::dto::{SlotDto, SlotsDto},
    token::{slot::SlotHandle, watchdog::CallLimits},
};
use serde_json::json;
use tokio::task::JoinHandle;

/// What a signature and every other call of the module may take; a person may take far longer.
const IMPATIENT: Duration = Duration::from_millis(500);

/// A gateway over a token that wants a person, and one beside it that does not.
struct Rig {
    // First, for it ends itself through a socket in the gateway's directory.
    bench: Bench,
    control: Arc<Control>,
    gateway: Arc<Gateway>,
}

fn limits(person: Duration) -> CallLimits {
    CallLimits { sign: IMPATIENT, other: IMPATIENT, person, ..CallLimits::default() }
}

impl Rig {
    async fn with_a_pin_pad(person: Duration) -> Self {
        let (mut plan, bench) = Plan::troubled_beside_healthy(["pad", "beside"], limits(person)).await;
        bench.control().pin_pad(None, true).unwrap();
        let protected = TokenPolicy { uri: "pkcs11:token=pad".parse().unwrap(), login: LoginMode::Protected, pin: None, queue_bound: 64 };
        plan.policies.insert(0, protected);
        Self::start(plan, bench).await
    }

    async fn with_a_button(person: Duration) -> Self {
        let (mut plan, bench) = Plan::troubled_beside_healthy(["button", "beside"], limits(person)).await;
        plan.modules[0].options.quirks.waits_for_touch = Some(true);
        Self::start(plan, bench).await
    }

    async fn start(plan: Plan, bench: Bench) -> Self {
        Self { gateway: Arc::new(plan.start().await), control: Arc::new(bench.control()), bench }
    }

    fn slot(&self, label: &str) -> SlotHandle {
        self.gateway.tokens.find(&format!("pkcs11:token={label}").parse().unwrap()).unwrap()
    }

    async fn until(&self, label: &str, wanted: SlotState) {
        let mut status = self.slot(label).watch();
        let reached = tokio::time::timeout(PATIENCE, status.wait_for(|status| status.state == wanted)).await.map(|seen| seen.is_ok());
        assert_eq!(reached, Ok(true), "{label} is still {:?}", self.slot(label).status());
    }

    async fn wait_for(&self, event: Awaited) {
        let control = Arc::clone(&self.control);
        tokio::task::spawn_blocking(move || control.wait_for(event)).await.unwrap().unwrap();
    }

    /// The slot as `sealgate slots` shows it.
    async fn shown(&self, label: &str) -> SlotDto {
        let http = control_client(&self.gateway);
        let slots: SlotsDto = http.get("http://gateway/slots").send().await.unwrap().json().await.unwrap();
        slots.slots.into_iter().find(|slot| slot.label == label).unwrap()
    }

    /// `sealgate unlock` for the token with the PIN pad; it answers when the person has acted.
    fn unlock(&self) -> JoinHandle<(u16, String)> {
        let http = control_client(&self.gateway);
        tokio::spawn(async move {
            let order = json!({ "uri": "pkcs11:token=pad" }).to_string();
            let answer = http.request(Method::POST, "http://gateway/unlock").body(order).send().await.unwrap();
            (answer.status().as_u16(), answer.text().await.unwrap())
        })
    }

    /// Begins a signature with a key and gives back its ticket.
    async fn begin(&self, key: &str) -> String {
        let ticket = self.gateway.ticket_with(b"a document").await;
        let chosen = self
            .gateway
            .put_json(&format!("{ticket}/keyStore"), json!({ "keyStorePath": format!("pkcs11:token={key};object={key}") }))
            .await;
        assert_eq!(chosen.status, 200, "{}", chosen.text());
        let started = self.gateway.post(&format!("{ticket}/ds/creator")).await;
        assert_eq!(started.status, 200, "{}", started.text());
        ticket
    }

    async fn signs(&self, key: &str) {
        let ticket = self.begin(key).await;
        let fetched = self.gateway.get(&format!("{ticket}/ds/data")).await;
        assert_eq!(fetched.status, 200, "{}", fetched.text());
    }

    /// Signs with the token beside for several times as long as a call into a module may take.
    async fn sign_beside_past_every_limit(&self) {
        let began = Instant::now();
        while began.elapsed() < 4 * IMPATIENT {
            self.signs("beside").await;
        }
    }

    fn log(&self) -> Log {
        Log::read(&self.gateway.directory.path().join("token.log")).unwrap()
    }

    /// The module's processes since the gateway was started; the one before made the key.
    fn processes(&self) -> usize {
        self.log().records().iter().map(|record| record.pid).collect::<BTreeSet<_>>().len() - 1
    }

    async fn stop(self) {
        // It ends itself through its socket, which goes with the gateway's directory.
        self.bench.end();
        Arc::into_inner(self.gateway).expect("nobody else has the gateway").stop().await;
    }
}

fn control_client(gateway: &Gateway) -> reqwest::Client {
    reqwest::Client::builder().unix_socket(gateway.control_socket.clone()).timeout(PATIENCE).build().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_at_the_pin_pad_may_be_slow_cancel_and_err_and_the_token_beside_signs_on() {
    let rig = Rig::with_a_pin_pad(PATIENCE).await;
    let epoch = rig.slot("pad").epoch();
    let locked = rig.gateway.ticket_with(b"a document").await;
    let refused = rig.gateway.post(&format!("{locked}/ds/creator")).await;
    assert_eq!(refused.status, 503, "nobody has unlocked it: {}", refused.text());

    // The cancel key.
    let unlocking = rig.unlock();
    rig.wait_for(Awaited::person()).await;
    let waiting = rig.shown("pad").await;
    assert_eq!((waiting.state, waiting.login), (SlotState::WaitingAtReader, LoginMode::Protected));
    assert!(waiting.reason.contains("PIN at the reader"), "{}", waiting.reason);
    rig.control.person(None, PersonAct::Answers(Rv::FUNCTION_CANCELED)).unwrap();
    assert_eq!(unlocking.await.unwrap().0, 409);
    rig.until("pad", SlotState::NeedsPin).await;

    // A wrong PIN.
    let unlocking = rig.unlock();
    rig.control.person(None, PersonAct::Enters("0000".to_owned())).unwrap();
    let (status, said) = unlocking.await.unwrap();
    assert!(status == 409 && !said.contains("0000"), "{said}");
    assert_eq!(rig.shown("pad").await.state, SlotState::PinRejected);

    // The right one, but only after far more than any call that is not a person's may take. Who asks meanwhile is told to ask again.
    let unlocking = rig.unlock();
    rig.wait_for(Awaited::person()).await;
    rig.until("pad", SlotState::WaitingAtReader).await;
    let early = rig.gateway.post(&format!("{locked}/ds/creator")).await;
    assert_eq!((early.status, early.header("retry-after").is_some()), (503, true), "{}", early.text());
    rig.sign_beside_past_every_limit().await;
    assert!(!unlocking.is_finished());
    assert_eq!(rig.shown("pad").await.state, SlotState::WaitingAtReader);
    rig.control.person(None, PersonAct::Enters(USER_PIN.to_owned())).unwrap();
    let (status, said) = unlocking.await.unwrap();
    assert_eq!(status, 200, "{said}");
    rig.gateway.sign(&locked).await;
    for _ in 0..5 {
        rig.signs("pad").await;
    }
    assert_eq!(rig.shown("pad").await.state, SlotState::Ready);

    // Never taken for a hang; every login of the gateway's with the null PIN; one try spent, the person's own.
    assert_eq!((rig.slot("pad").epoch(), rig.processes()), (epoch, 1));
    let at_the_pad = rig.control.events().unwrap().iter().filter(|event| event.step == Step::Person).count();
    assert_eq!((at_the_pad, rig.log().logins().len(), rig.log().wrong_pins()), (3, 4, 1), "one login more made the key");
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_at_the_pin_pad_within_the_persons_limit_is_a_call_that_never_returns() {
    let rig = Rig::with_a_pin_pad(3 * IMPATIENT).await;
    let epoch = rig.slot("pad").epoch();
    let (status, said) = rig.unlock().await.unwrap();
    assert_eq!(status, 409, "{said}");
    let mut seen = rig.slot("pad").watch();
    let slot = rig.slot("pad");
    let again = seen.wait_for(|status| status.state == SlotState::NeedsPin && slot.epoch() > epoch);
    tokio::time::timeout(PATIENCE, again).await.expect("the module does not come back").unwrap();
    // The next person is quicker.
    let unlocking = rig.unlock();
    rig.control.person(None, PersonAct::Enters(USER_PIN.to_owned())).unwrap();
    assert_eq!(unlocking.await.unwrap().0, 200);
    rig.signs("pad").await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_try_at_a_pin_pad_is_left_to_an_operator_who_insists() {
    let rig = Rig::with_a_pin_pad(PATIENCE).await;
    rig.control.pin_policy(Some("pad"), Some(PinPolicy::tries(1))).unwrap();
    let (status, said) = rig.unlock().await.unwrap();
    assert!(status == 409 && said.contains("insist"), "{said}");
    let http = control_client(&rig.gateway);
    let order = json!({ "uri": "pkcs11:token=pad", "insist": true }).to_string();
    rig.control.person(None, PersonAct::Enters(USER_PIN.to_owned())).unwrap();
    let insisted = http.post("http://gateway/unlock").body(order).send().await.unwrap();
    assert_eq!(insisted.status(), 200);
    rig.signs("pad").await;
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_touch_that_takes_its_time_is_no_hang_and_is_shown_as_waiting_at_the_reader() {
    let rig = Rig::with_a_button(PATIENCE).await;
    let epoch = rig.slot("button").epoch();
    rig.control.arm(Fault::on(Function::C_Sign).hangs()).unwrap();
    let ticket = rig.begin("button").await;
    rig.wait_for(Awaited::held(Function::C_Sign)).await;
    rig.until("button", SlotState::WaitingAtReader).await;
    let waiting = rig.shown("button").await;
    assert!(waiting.state == SlotState::WaitingAtReader && waiting.reason.contains("touch"), "{waiting:?}");
    rig.sign_beside_past_every_limit().await;
    assert_eq!(rig.shown("button").await.state, SlotState::WaitingAtReader);
    rig.control.release().unwrap();
    assert_eq!(rig.gateway.get(&format!("{ticket}/ds/data")).await.status, 200);
    rig.until("button", SlotState::Ready).await;
    // The finger was taken away: certainly nothing was signed.
    rig.control.arm(Fault::on(Function::C_Sign).returns(Rv::FUNCTION_CANCELED)).unwrap();
    let ticket = rig.begin("button").await;
    assert_eq!(rig.gateway.get(&format!("{ticket}/ds/data")).await.status, 500);
    rig.signs("button").await;
    assert_eq!((rig.slot("button").epoch(), rig.processes()), (epoch, 1));
    assert_eq!(rig.log().signings().iter().filter(|call| call.outcome == Outcome::Signed).count(), 2);
    rig.stop().await;
}
