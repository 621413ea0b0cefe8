//! tpm2-pkcs11 with a software TPM.

use std::path::Path;

use sealgate::{
    domain::{
        algorithm::{Curve, HashAlgorithm, KeyKind, SignatureAlgorithm},
        token::SlotState,
    },
    token::{
        driver::{DeviceError, TokenDriver, TokenModule as _},
        pkcs11::Pkcs11Module,
        slot::SlotError,
        watchdog::CallLimits,
    },
};

use crate::{
    common::{
        own_process,
        softhsm::{SO_PIN, TOKEN_LABEL, USER_PIN},
        swtpm::{ResourceManager, SwTpm},
    },
    gateway::{Gateway, Setting, block_on, unlock},
    load, said, sign,
    suite::{self, Cannot, Keys, NO_SUCH_KEY, Rig, by_id, cannot, pin, spec, to_sign},
};

const P256: KeyKind = KeyKind::Ec(Curve::P256);
const P521: KeyKind = KeyKind::Ec(Curve::P521);
const TOKEN: &str = "pkcs11:token=contract";

pub const CANNOT: &[Cannot] = &[
    cannot("the_flags_tell_of_a_wrong_pin", "no flag ever tells anything of the PIN", "a wrong PIN, and no flag"),
    cannot("no_other_kind_of_key_is_made", "P-521 keys are made, but do not sign", "EC P-521: Ok("),
    cannot("a_key_that_wants_a_pin_each_time_signs_with_it", NO_SUCH_KEYS, NO_SUCH_KEY),
    cannot("a_key_that_wants_a_pin_each_time_is_not_entered_without", NO_SUCH_KEYS, NO_SUCH_KEY),
    cannot("a_wrong_pin_for_one_signature_leaves_a_session_that_must_be_reopened", NO_SUCH_KEYS, NO_SUCH_KEY),
];

const NO_SUCH_KEYS: &str = "has no keys that want their PIN for each signature";

pub fn hold_to(test: &str, name: &str, rule: fn(&Rig)) {
    own_process::run_apart(test, ResourceManager::environment, || {
        let directory = own_process::directory();
        let _tpm = SwTpm::start(&directory);
        let _manager = ResourceManager::start(&directory);
        let rig = Rig {
            module: Box::new(module_with_token()),
            token_label: TOKEN_LABEL,
            user_pin: pin(USER_PIN),
            wrong_pin: pin("654321"),
            keys: Keys::Made(vec![
                KeyKind::Rsa { modulus_bits: 2048 },
                KeyKind::Rsa { modulus_bits: 3072 },
                P256,
                KeyKind::Ec(Curve::P384),
            ]),
            add_always_authenticate_key: Box::new(|| ()),
        };
        suite::check(&rig, name, rule, CANNOT);
    });
}

fn module_with_token() -> Pkcs11Module {
    let module = load("tpm", &SwTpm::module());
    module.create_token(TOKEN_LABEL, &pin(SO_PIN), &pin(USER_PIN)).unwrap();
    module
}

fn logged_in(module: &Pkcs11Module) -> Box<dyn TokenDriver> {
    let mut driver = module.open(module.tokens().unwrap()[0].slot).unwrap();
    driver.login(Some(&pin(USER_PIN))).unwrap();
    driver
}

/// Makes the token and its key, and then runs the test of a gateway; both without a resource manager.
fn with_key(test: &str, body: impl AsyncFnOnce(SwTpm, &Path)) {
    own_process::run_apart(test, SwTpm::environment, || {
        let directory = own_process::directory();
        let tpm = SwTpm::start(&directory);
        logged_in(&module_with_token()).generate_key_pair(&spec(P256, 1, "k")).unwrap();
        block_on(body(tpm, &directory));
    });
}

fn setting(directory: &Path, configured_pin: Option<&'static str>) -> Setting {
    Setting {
        library: SwTpm::module(),
        environment: SwTpm::environment(directory),
        token: TOKEN,
        key: 1,
        algorithm: SignatureAlgorithm::Ecdsa(HashAlgorithm::Sha256),
        configured_pin,
        limits: CallLimits::default(),
    }
}

#[test]
fn a_p521_key_is_made_and_does_not_sign() {
    own_process::run_apart(crate::test_name!(), SwTpm::environment, || {
        let _tpm = SwTpm::start(&own_process::directory());
        let module = module_with_token();
        let mut driver = logged_in(&module);
        driver.generate_key_pair(&spec(P521, 1, "k")).unwrap();
        let key = driver.find_key(&by_id(1)).unwrap();
        let refused =
            driver.sign(&key, &to_sign(SignatureAlgorithm::Ecdsa(HashAlgorithm::Sha512)), None, &mut || panic!("C_Sign was entered"));
        assert_eq!(refused, Err(DeviceError::Failed("CKR_HOST_MEMORY from C_SignInit".to_owned())));
    });
}

#[test]
fn without_a_resource_manager_there_is_room_for_few_keys() {
    own_process::run_apart(crate::test_name!(), SwTpm::environment, || {
        let _tpm = SwTpm::start(&own_process::directory());
        let module = module_with_token();
        let mut driver = logged_in(&module);
        let made = (1..=3).map(|id| driver.generate_key_pair(&spec(P256, id, "k"))).find(Result::is_err);
        assert_eq!(made, Some(Err(DeviceError::Failed("CKR_GENERAL_ERROR from C_GenerateKeyPair".to_owned()))));
    });
}

/// The module answers every call on a key with an error for ever then, although the TPM is back: only a new start of the module heals it.
#[test]
fn a_module_that_its_tpms_restart_has_poisoned_is_replaced() {
    with_key(crate::test_name!(), async |tpm, directory| {
        let gateway = Gateway::start(setting(directory, Some(USER_PIN))).await;
        gateway.until(SlotState::Ready).await;
        gateway.signs().await;
        let epoch = gateway.slot().epoch();
        drop(tpm);
        let mut jobs = Vec::new();
        for _ in 0..10 {
            jobs.push(gateway.submit().await);
        }
        gateway.ended(jobs[0]).await;
        let _tpm = SwTpm::start(directory);
        let (signed, in_doubt) = gateway.signed_and_in_doubt(jobs).await;
        println!("{signed} signed, {in_doubt} in doubt");
        assert!(in_doubt <= 2, "{in_doubt} jobs ended in doubt before the module was replaced");
        assert!(gateway.slot().epoch() > epoch);
        gateway.signs().await;
        gateway.stop().await;
    });
}

/// After three wrong PINs the whole TPM is locked, and no flag says so.
#[test]
fn a_locked_tpm_says_so_when_it_is_asked_and_is_not_asked_again() {
    with_key(crate::test_name!(), async |_tpm, directory| {
        let gateway = Gateway::start(setting(directory, None)).await;
        gateway.until(SlotState::NeedsPin).await;
        for wrong in ["654321", "654322", "654323"] {
            assert_eq!(unlock(&gateway.slot(), wrong, false).await, Err(SlotError::Device(DeviceError::PinRejected)));
        }
        assert_eq!(unlock(&gateway.slot(), USER_PIN, false).await, Err(SlotError::Device(DeviceError::PinLocked)));
        gateway.until(SlotState::PinLocked).await;
        assert!(!gateway.slot().report().flags.user_pin_locked);
        gateway.stop().await;
    });
}

#[test]
fn what_each_call_says_of_a_tpm_that_was_restarted() {
    own_process::run_apart(crate::test_name!(), SwTpm::environment, || {
        let directory = own_process::directory();
        let tpm = SwTpm::start(&directory);
        let module = module_with_token();
        let mut driver = logged_in(&module);
        driver.generate_key_pair(&spec(P256, 1, "k")).unwrap();
        let key = driver.find_key(&by_id(1)).unwrap();
        assert_eq!(sign(&mut *driver, &key), Ok(()));
        drop(tpm);
        assert_eq!(said(sign(&mut *driver, &key)), "CKR_GENERAL_ERROR from C_Sign");
        let _tpm = SwTpm::start(&directory);
        for _ in 0..3 {
            assert_eq!(said(sign(&mut *driver, &key)), "CKR_GENERAL_ERROR from C_Sign");
            assert_eq!(driver.check_presence(), Ok(()));
            assert_eq!(module.tokens().unwrap().len(), 1);
        }
        // Even a new session is of no use.
        drop(driver);
        let mut driver = module.open(module.tokens().unwrap()[0].slot).unwrap();
        assert_eq!(said(driver.login(Some(&pin(USER_PIN)))), "CKR_GENERAL_ERROR from C_Login");
        drop((driver, module));

        let module = load("tpm", &SwTpm::module());
        let mut driver = logged_in(&module);
        let key = driver.find_key(&by_id(1)).unwrap();
        assert_eq!(sign(&mut *driver, &key), Ok(()));
    });
}
