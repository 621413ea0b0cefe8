//! OpenSC with an OpenPGP card.

use std::path::PathBuf;

use sealgate::{
    domain::{
        algorithm::{HashAlgorithm, SignatureAlgorithm},
        token::SlotState,
    },
    token::{
        driver::{DeviceError, TokenModule as _},
        slot::SlotError,
        watchdog::CallLimits,
    },
};

use crate::{
    common::{
        own_process,
        pcscd::{Pcscd, opensc_module},
        vcard::{CARD_PIN, Kind, VCard},
    },
    gateway::{Gateway, Setting, block_on, unlock, until},
    load, opened, opened_without_login, said, sign,
    suite::{self, Cannot, Keys, NO_SUCH_KEY, Rig, by_id, cannot, pin},
};

/// The slot with the authentication key. The signature key has one of its own: two slots, one card, one PIN.
const TOKEN_LABEL: &str = "OpenPGP card (User PIN)";
const TOKEN: &str = "pkcs11:token=OpenPGP%20card%20%28User%20PIN%29";
const SIGNATURE_TOKEN: &str = "pkcs11:token=OpenPGP%20card%20%28User%20PIN%20%28sig%29%29";

pub const CANNOT: &[Cannot] = &[
    cannot(
        "the_flags_tell_of_a_wrong_pin",
        "of three tries only the last one is announced (`CKF_USER_PIN_FINAL_TRY`)",
        "a wrong PIN, and no flag",
    ),
    cannot("a_generated_key_is_kept_on_the_token", MAKES_NO_KEYS, "CKR_ARGUMENTS_BAD from C_GenerateKeyPair"),
    cannot("an_id_is_given_once", MAKES_NO_KEYS, "CKR_GENERAL_ERROR from C_GenerateKeyPair"),
    cannot("two_keys_with_one_name_are_an_error", MAKES_NO_KEYS, "CKR_GENERAL_ERROR from C_GenerateKeyPair"),
    cannot("no_other_kind_of_key_is_made", MAKES_NO_KEYS, "made with other tools"),
    cannot("a_key_is_found_by_id_and_by_label_and_by_both", "each slot shows one signing key", "the card has no such key"),
    cannot(
        "a_certificate_is_read_back_beside_its_key",
        "certificates are written with the administrator's PIN, which PKCS#11 has no place for",
        "PinUnacceptable",
    ),
    cannot("a_key_that_wants_a_pin_each_time_signs_with_it", NO_SUCH_KEYS, NO_SUCH_KEY),
    cannot("a_key_that_wants_a_pin_each_time_is_not_entered_without", NO_SUCH_KEYS, NO_SUCH_KEY),
    cannot("a_wrong_pin_for_one_signature_leaves_a_session_that_must_be_reopened", NO_SUCH_KEYS, NO_SUCH_KEY),
];

const MAKES_NO_KEYS: &str = "keys are made with the administrator's PIN, which PKCS#11 has no place for";
const NO_SUCH_KEYS: &str = "has no keys that want their PIN for each signature";

/// A reader with a card in it.
struct Bench {
    directory: PathBuf,
    pcscd: Option<Pcscd>,
    card: VCard,
}

impl Bench {
    fn new() -> Self {
        let directory = own_process::directory();
        let pcscd = Some(Pcscd::start(&directory));
        let card = VCard::insert_new(Kind::OpenPgp, &directory);
        card.make_openpgp_keys();
        Self { directory, pcscd, card }
    }

    /// Pulls the card, and waits until the reader has noticed.
    fn pull(&mut self) {
        self.card.pull();
        self.pcscd.as_ref().unwrap().wait_for_removal();
    }
}

pub fn hold_to(test: &str, name: &str, rule: fn(&Rig)) {
    own_process::run_apart(
        test,
        |_| Vec::new(),
        || {
            let _bench = Bench::new();
            suite::check(&rig(TOKEN_LABEL, 3), name, rule, CANNOT);
        },
    );
}

fn rig(token_label: &'static str, key: u8) -> Rig {
    Rig {
        module: Box::new(load("opensc", &opensc_module())),
        token_label,
        user_pin: pin(CARD_PIN),
        wrong_pin: pin("654321"),
        keys: Keys::OnTheCard(vec![key]),
        add_always_authenticate_key: Box::new(|| ()),
    }
}

fn with_card(test: &str, body: impl AsyncFnOnce(Bench)) {
    own_process::run_apart(test, |_| Vec::new(), || block_on(async { body(Bench::new()).await }));
}

fn setting(configured_pin: Option<&'static str>) -> Setting {
    Setting {
        library: opensc_module(),
        environment: Vec::new(),
        token: TOKEN,
        key: 3,
        algorithm: SignatureAlgorithm::Ecdsa(HashAlgorithm::Sha256),
        configured_pin,
        limits: CallLimits::default(),
    }
}

#[test]
fn jobs_wait_for_a_card_that_is_pulled_and_put_back() {
    with_card(crate::test_name!(), async |mut bench| {
        let gateway = Gateway::start(setting(Some(CARD_PIN))).await;
        gateway.until(SlotState::Ready).await;
        gateway.signs().await;
        for round in 1..=3 {
            let mut jobs = Vec::new();
            for _ in 0..30 {
                jobs.push(gateway.submit().await);
            }
            gateway.ended(jobs[0]).await;
            bench.pull();
            gateway.until(SlotState::Absent).await;
            jobs.push(gateway.submit().await);
            bench.card.insert();
            let (signed, in_doubt) = gateway.signed_and_in_doubt(jobs).await;
            println!("round {round}: {signed} signed, {in_doubt} in doubt");
            assert!(in_doubt <= 1, "{in_doubt} jobs were in C_Sign at once");
            gateway.signs().await;
        }
        gateway.stop().await;
    });
}

#[test]
fn jobs_wait_for_a_pcscd_that_is_killed_and_started_again() {
    with_card(crate::test_name!(), async |mut bench| {
        let gateway = Gateway::start(setting(Some(CARD_PIN))).await;
        gateway.until(SlotState::Ready).await;
        gateway.signs().await;
        bench.pcscd = None;
        bench.card.pull();
        gateway.until(SlotState::Absent).await;
        let job = gateway.submit().await;
        bench.pcscd = Some(Pcscd::start(&bench.directory));
        bench.card.insert();
        assert_eq!(gateway.signed_and_in_doubt(vec![job]).await, (1, 0));
        gateway.stop().await;
    });
}

#[test]
fn a_pcscd_that_is_started_after_the_gateway_is_found() {
    with_card(crate::test_name!(), async |mut bench| {
        bench.pcscd = None;
        bench.card.pull();
        let gateway = Gateway::start(setting(Some(CARD_PIN))).await;
        assert_eq!(gateway.tokens.slots().len(), 0);
        bench.pcscd = Some(Pcscd::start(&bench.directory));
        bench.card.insert();
        gateway.until_seen().await;
        gateway.until(SlotState::Ready).await;
        gateway.signs().await;
        gateway.stop().await;
    });
}

#[test]
fn a_wrong_pin_on_one_slot_of_the_card_is_not_tried_on_the_other() {
    with_card(crate::test_name!(), async |bench| {
        let both = Setting { token: "pkcs11:manufacturer=test%20card", ..setting(None) };
        let gateway = Gateway::start(both).await;
        let slots = [TOKEN, SIGNATURE_TOKEN].map(|uri| gateway.slot_at(uri));
        for slot in &slots {
            until(slot, SlotState::NeedsPin).await;
        }
        assert_eq!(bench.card.tries_left(), 3);
        assert_eq!(unlock(&slots[0], "654321", false).await, Err(SlotError::Device(DeviceError::PinRejected)));
        for slot in [&slots[1], &slots[0], &slots[1]] {
            let refused = unlock(slot, "654321", false).await;
            assert!(matches!(refused, Err(SlotError::Device(DeviceError::PinNotTried(_)))), "{refused:?}");
        }
        assert_eq!(bench.card.tries_left(), 2);
        for slot in &slots {
            assert_eq!(unlock(slot, CARD_PIN, false).await, Ok(()));
        }
        assert_eq!(bench.card.tries_left(), 3);
        gateway.stop().await;
    });
}

/// The card answers even the right PIN like a wrong one then, so only the flags tell.
#[test]
fn a_card_that_has_locked_its_pin_is_not_asked_again() {
    with_card(crate::test_name!(), async |bench| {
        let gateway = Gateway::start(setting(None)).await;
        gateway.until(SlotState::NeedsPin).await;
        for (wrong, left) in [("654321", 2), ("654322", 1)] {
            assert_eq!(unlock(&gateway.slot(), wrong, false).await, Err(SlotError::Device(DeviceError::PinRejected)));
            assert_eq!(bench.card.tries_left(), left);
        }
        assert_eq!(unlock(&gateway.slot(), CARD_PIN, false).await, Err(SlotError::Device(DeviceError::FinalTry)));
        assert_eq!(bench.card.tries_left(), 1);
        assert_eq!(unlock(&gateway.slot(), "654323", true).await, Err(SlotError::Device(DeviceError::PinRejected)));
        assert_eq!(bench.card.tries_left(), 0);
        assert_eq!(unlock(&gateway.slot(), CARD_PIN, true).await, Err(SlotError::Device(DeviceError::PinLocked)));
        gateway.until(SlotState::PinLocked).await;
        gateway.stop().await;
    });
}

#[test]
fn the_signature_key_signs_with_all_its_algorithms() {
    own_process::run_apart(
        crate::test_name!(),
        |_| Vec::new(),
        || {
            let _bench = Bench::new();
            suite::each_kind_of_key_signs_with_all_its_algorithms(&rig("OpenPGP card (User PIN (sig))", 1));
        },
    );
}

/// What each call answers while the card is away, and when it is back: the table in `docs/modules.md`.
#[test]
fn what_each_call_says_of_a_card_that_is_pulled_and_put_back() {
    own_process::run_apart(
        crate::test_name!(),
        |_| Vec::new(),
        || {
            let mut bench = Bench::new();
            let module = load("opensc", &opensc_module());
            let mut driver = opened(&module, TOKEN_LABEL, CARD_PIN);
            let key = driver.find_key(&by_id(3)).unwrap();
            bench.card.pull();
            assert_eq!(said(sign(&mut *driver, &key)), "CKR_GENERAL_ERROR from C_Sign");
            bench.pcscd.as_ref().unwrap().wait_for_removal();
            assert_eq!(said(sign(&mut *driver, &key)), "CKR_DEVICE_REMOVED from C_Sign");
            assert_eq!(module.tokens(), Ok(Vec::new()));
            assert_eq!(said(driver.check_presence()), "its slot is empty");
            assert_eq!(said(sign(&mut *driver, &key)), "CKR_SESSION_HANDLE_INVALID from C_SignInit");
            assert_eq!(said(driver.flags().map(drop)), "CKR_TOKEN_NOT_PRESENT from C_GetTokenInfo");
            bench.card.insert();
            assert_eq!(module.tokens().unwrap().len(), 2);
            assert_eq!(said(sign(&mut *driver, &key)), "CKR_SESSION_HANDLE_INVALID from C_SignInit");
            let mut driver = opened(&module, TOKEN_LABEL, CARD_PIN);
            // The module's handles are addresses: an old one names nothing, or by chance whatever lies there now.
            let with_old_handle = sign(&mut *driver, &key);
            if with_old_handle.is_err() {
                assert_eq!(said(with_old_handle), "CKR_KEY_HANDLE_INVALID from C_SignInit");
            }
            let key = driver.find_key(&by_id(3)).unwrap();
            assert_eq!(sign(&mut *driver, &key), Ok(()));
        },
    );
}

#[test]
fn what_each_call_says_without_pcscd() {
    own_process::run_apart(
        crate::test_name!(),
        |_| Vec::new(),
        || {
            let mut bench = Bench::new();
            let module = load("opensc", &opensc_module());
            let mut driver = opened(&module, TOKEN_LABEL, CARD_PIN);
            let key = driver.find_key(&by_id(3)).unwrap();
            bench.pcscd = None;
            assert_eq!(said(sign(&mut *driver, &key)), "CKR_GENERAL_ERROR from C_Sign");
            assert_eq!(module.tokens(), Ok(Vec::new()));
            bench.pcscd = Some(Pcscd::start(&bench.directory));
            bench.card.insert();
            assert_eq!(module.tokens().unwrap().len(), 2);
            assert_eq!(said(sign(&mut *driver, &key)), "CKR_SESSION_HANDLE_INVALID from C_SignInit");
            let mut driver = opened(&module, TOKEN_LABEL, CARD_PIN);
            let key = driver.find_key(&by_id(3)).unwrap();
            assert_eq!(sign(&mut *driver, &key), Ok(()));
        },
    );
}

#[test]
fn a_locked_card_answers_the_right_pin_like_a_wrong_one() {
    own_process::run_apart(
        crate::test_name!(),
        |_| Vec::new(),
        || {
            let _bench = Bench::new();
            let module = load("opensc", &opensc_module());
            let mut driver = opened_without_login(&module, TOKEN_LABEL);
            for wrong in 1..=3 {
                assert_eq!(driver.login(Some(&pin(&format!("65432{wrong}")))), Err(DeviceError::PinRejected));
                let flags = driver.flags().unwrap();
                assert_eq!((flags.user_pin_final_try, flags.user_pin_locked), (wrong == 2, wrong == 3));
            }
            assert_eq!(driver.login(Some(&pin(CARD_PIN))), Err(DeviceError::PinRejected));
        },
    );
}
