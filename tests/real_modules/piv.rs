//! OpenSC with a PIV card.

use sealgate::{
    domain::{
        algorithm::{HashAlgorithm, SignatureAlgorithm},
        token::{LoginMode, SlotState},
    },
    token::{
        command::Reply,
        driver::{CachedKey, DeviceError, TokenDriver as _, TokenModule as _},
        slot::{PendingReply, SlotError},
        watchdog::CallLimits,
    },
};

use crate::{
    common::{
        own_process,
        pcscd::{Pcscd, opensc_module},
        vcard::{CARD_PIN, Kind, VCard},
    },
    gateway::{Gateway, Setting, block_on, unlock},
    load, opened, opened_without_login, said, sign,
    suite::{self, Cannot, Keys, Rig, by_id, cannot, pin},
};

/// The name in the certificate of key 9A.
const TOKEN_LABEL: &str = "PIV 9A";
const TOKEN: &str = "pkcs11:token=PIV%209A";
/// `CKA_ID` of the key that wants its PIN for each signature.
const KEY_9C: u8 = 2;

pub const CANNOT: &[Cannot] = &[
    cannot(
        "the_flags_tell_of_a_wrong_pin",
        "of three tries only the last one is announced (`CKF_USER_PIN_FINAL_TRY`)",
        "a wrong PIN, and no flag",
    ),
    cannot("before_a_login_no_key_is_seen", "key 9E needs no PIN and is always seen", "CARD AUTH key"),
    cannot("a_generated_key_is_kept_on_the_token", MAKES_NO_KEYS, NO_KEY_PAIR_GEN),
    cannot("an_id_is_given_once", MAKES_NO_KEYS, NO_KEY_PAIR_GEN),
    cannot("two_keys_with_one_name_are_an_error", MAKES_NO_KEYS, NO_KEY_PAIR_GEN),
    cannot("no_other_kind_of_key_is_made", MAKES_NO_KEYS, "made with other tools"),
    cannot(
        "a_certificate_is_read_back_beside_its_key",
        "certificates are written with the management key (`piv-tool`)",
        "CKR_FUNCTION_NOT_SUPPORTED from C_CreateObject",
    ),
    cannot(
        "a_logout_elsewhere_loses_the_session",
        "`C_Logout` does not log the card out: a key that was found before still signs",
        "on an `Ok` value",
    ),
];

const MAKES_NO_KEYS: &str = "keys are made with the management key (`piv-tool`)";
const NO_KEY_PAIR_GEN: &str = "its mechanism list has no CKM_EC_KEY_PAIR_GEN";

/// A reader with a card in it.
struct Bench {
    pcscd: Pcscd,
    card: VCard,
}

impl Bench {
    fn new() -> Self {
        let directory = own_process::directory();
        let pcscd = Pcscd::start(&directory);
        let card = VCard::insert_new(Kind::Piv, &directory);
        card.make_piv_keys();
        Self { pcscd, card }
    }
}

pub fn hold_to(test: &str, name: &str, rule: fn(&Rig)) {
    own_process::run_apart(
        test,
        |_| Vec::new(),
        || {
            let _bench = Bench::new();
            let rig = Rig {
                module: Box::new(load("opensc", &opensc_module())),
                token_label: TOKEN_LABEL,
                user_pin: pin(CARD_PIN),
                wrong_pin: pin("654321"),
                keys: Keys::OnTheCard(vec![1, 4]),
                add_always_authenticate_key: Box::new(|| ()),
            };
            suite::check(&rig, name, rule, CANNOT);
        },
    );
}

fn with_card(test: &str, body: impl AsyncFnOnce(Bench)) {
    own_process::run_apart(test, |_| Vec::new(), || block_on(async { body(Bench::new()).await }));
}

fn setting(key: u8, configured_pin: Option<&'static str>) -> Setting {
    Setting {
        library: opensc_module(),
        environment: Vec::new(),
        token: TOKEN,
        key,
        algorithm: SignatureAlgorithm::Ecdsa(HashAlgorithm::Sha256),
        configured_pin,
        limits: CallLimits { sign: std::time::Duration::from_secs(2), ..CallLimits::default() },
    }
}

/// OpenSC's PIV driver never returns from `C_Sign` when the card was pulled just before, or while it runs.
#[test]
fn a_call_that_hangs_because_the_card_was_pulled_is_answered_and_the_module_replaced() {
    with_card(crate::test_name!(), async |mut bench| {
        let gateway = Gateway::start(setting(1, Some(CARD_PIN))).await;
        gateway.until(SlotState::Ready).await;
        gateway.signs().await;
        let slot = gateway.slot();
        let epoch = slot.epoch();
        let pending: Vec<PendingReply> = (0..16).map(|_| slot.start(gateway.sign_command(None)).unwrap()).collect();
        bench.card.pull();
        let mut unknown = Vec::new();
        for reply in pending {
            match reply.wait().await {
                Ok(Reply::Signature(_)) => {}
                Err(error) if error.outcome() == sealgate::token::driver::Outcome::Unknown => unknown.push(error),
                Err(error) => println!("not performed: {error}"),
                Ok(other) => panic!("{other:?}"),
            }
        }
        assert_eq!(unknown, [DeviceError::ProcessEnded { entered: true }]);
        bench.pcscd.wait_for_removal();
        bench.card.insert();
        gateway.until(SlotState::Ready).await;
        assert!(slot.epoch() > epoch);
        gateway.signs().await;
        gateway.stop().await;
    });
}

#[test]
fn the_key_that_wants_its_pin_each_time_signs_with_the_pin_of_each_request() {
    with_card(crate::test_name!(), async |_bench| {
        let gateway = Gateway::start_with_login(setting(KEY_9C, None), LoginMode::PerRequest).await;
        gateway.until(SlotState::Present).await;
        let slot = gateway.slot();
        for _ in 0..3 {
            let signed = slot.call(gateway.sign_command(Some(CARD_PIN))).await;
            assert!(matches!(signed, Ok(Reply::Signature(_))), "{signed:?}");
        }
        let refused = slot.call(gateway.sign_command(None)).await;
        assert!(matches!(refused, Err(SlotError::Device(DeviceError::LoginRequired(_)))), "{refused:?}");
        gateway.stop().await;
    });
}

/// With a configured PIN the gateway answers the card's question for each signature itself.
#[test]
fn the_key_that_wants_its_pin_each_time_signs_with_a_configured_pin() {
    with_card(crate::test_name!(), async |_bench| {
        let gateway = Gateway::start(setting(KEY_9C, Some(CARD_PIN))).await;
        gateway.until(SlotState::Ready).await;
        for _ in 0..3 {
            gateway.signs().await;
        }
        gateway.stop().await;
    });
}

#[test]
fn a_locked_card_says_so_and_is_not_asked_again() {
    with_card(crate::test_name!(), async |bench| {
        let gateway = Gateway::start(setting(1, None)).await;
        gateway.until(SlotState::NeedsPin).await;
        for (wrong, left) in [("654321", 2), ("654322", 1)] {
            assert_eq!(unlock(&gateway.slot(), wrong, false).await, Err(SlotError::Device(DeviceError::PinRejected)));
            assert_eq!(bench.card.tries_left(), left);
        }
        assert_eq!(unlock(&gateway.slot(), CARD_PIN, false).await, Err(SlotError::Device(DeviceError::FinalTry)));
        assert_eq!(bench.card.tries_left(), 1);
        assert_eq!(unlock(&gateway.slot(), "654323", true).await, Err(SlotError::Device(DeviceError::PinLocked)));
        assert_eq!(bench.card.tries_left(), 0);
        assert_eq!(unlock(&gateway.slot(), CARD_PIN, true).await, Err(SlotError::Device(DeviceError::PinLocked)));
        gateway.until(SlotState::PinLocked).await;
        gateway.stop().await;
    });
}

#[test]
fn a_locked_card_answers_the_right_pin_with_pin_locked() {
    own_process::run_apart(
        crate::test_name!(),
        |_| Vec::new(),
        || {
            let _bench = Bench::new();
            let module = load("opensc", &opensc_module());
            let mut driver = opened_without_login(&module, TOKEN_LABEL);
            for (wrong, answer) in [("1", DeviceError::PinRejected), ("2", DeviceError::PinRejected), ("3", DeviceError::PinLocked)] {
                assert_eq!(driver.login(Some(&pin(&format!("65432{wrong}")))), Err(answer));
            }
            assert!(driver.flags().unwrap().user_pin_locked);
            assert_eq!(driver.login(Some(&pin(CARD_PIN))), Err(DeviceError::PinLocked));
        },
    );
}

#[test]
fn what_each_call_says_of_a_card_that_is_pulled_and_put_back() {
    own_process::run_apart(
        crate::test_name!(),
        |_| Vec::new(),
        || {
            let mut bench = Bench::new();
            let module = load("opensc", &opensc_module());
            let mut driver = opened(&module, TOKEN_LABEL, CARD_PIN);
            let key = driver.find_key(&by_id(1)).unwrap();
            assert_eq!(sign(&mut *driver, &key), Ok(()));
            bench.card.pull();
            bench.pcscd.wait_for_removal();
            assert_eq!(module.tokens(), Ok(Vec::new()));
            assert_eq!(said(driver.check_presence()), "its slot is empty");
            assert_eq!(said(sign(&mut *driver, &key)), "CKR_SESSION_HANDLE_INVALID from C_SignInit");
            bench.card.insert();
            assert_eq!(module.tokens().unwrap().len(), 1);
            assert_eq!(said(sign(&mut *driver, &key)), "CKR_SESSION_HANDLE_INVALID from C_SignInit");
            let mut driver = opened(&module, TOKEN_LABEL, CARD_PIN);
            let key = driver.find_key(&by_id(1)).unwrap();
            assert_eq!(sign(&mut *driver, &key), Ok(()));
        },
    );
}

#[test]
fn a_signature_without_its_pin_logs_the_card_out() {
    own_process::run_apart(
        crate::test_name!(),
        |_| Vec::new(),
        || {
            let _bench = Bench::new();
            let module = load("opensc", &opensc_module());
            let mut driver = opened(&module, TOKEN_LABEL, CARD_PIN);
            // As a program would that does not ask for CKA_ALWAYS_AUTHENTICATE.
            let key = CachedKey { always_authenticate: false, ..driver.find_key(&by_id(KEY_9C)).unwrap() };
            assert_eq!(said(sign(&mut *driver, &key)), "CKR_USER_NOT_LOGGED_IN from C_Sign");
            assert_eq!(driver.login(Some(&pin(CARD_PIN))), Ok(()));
        },
    );
}
