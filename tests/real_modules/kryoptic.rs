//! Kryoptic.

use sealgate::{
    domain::{
        algorithm::{HashAlgorithm, SignatureAlgorithm},
        token::SlotState,
    },
    token::{driver::DeviceError, driver::TokenModule as _, slot::SlotError, watchdog::CallLimits},
};

use crate::{
    common::{
        kryoptic, own_process,
        softhsm::{SO_PIN, TOKEN_LABEL, USER_PIN, pkcs11_tool},
    },
    gateway::{Gateway, Setting, block_on, unlock},
    load,
    suite::{self, Cannot, Keys, Rig, cannot, every_kind, pin},
};

pub const CANNOT: &[Cannot] = &[cannot(
    "the_flags_tell_of_a_wrong_pin",
    "flags come late: `CKF_USER_PIN_COUNT_LOW` when two or three of ten tries are left, `CKF_USER_PIN_FINAL_TRY` for the last",
    "a wrong PIN, and no flag",
)];

pub fn hold_to(test: &str, name: &str, rule: fn(&Rig)) {
    own_process::run(test, kryoptic::environment, || {
        make_token();
        let rig = Rig {
            module: Box::new(load("kryoptic", &kryoptic::module())),
            token_label: TOKEN_LABEL,
            user_pin: pin(USER_PIN),
            wrong_pin: pin("654321"),
            // All but Ed25519, which wants a newer OpenSSL than Debian's.
            keys: Keys::Made(every_kind()[..6].to_vec()),
            add_always_authenticate_key: Box::new(always_key),
        };
        suite::check(&rig, name, rule, CANNOT);
    });
}

fn make_token() {
    load("kryoptic", &kryoptic::module()).create_token(TOKEN_LABEL, &pin(SO_PIN), &pin(USER_PIN)).unwrap();
}

fn always_key() {
    let generate = ["--keypairgen", "--key-type", "EC:prime256v1", "--label", "always", "--usage-sign", "--always-auth", "--id", "01"];
    pkcs11_tool(&kryoptic::module(), &[], &generate);
}

#[test]
fn ten_wrong_pins_lock_the_token_and_the_last_ones_are_announced() {
    own_process::run(crate::test_name!(), kryoptic::environment, || {
        make_token();
        let module = load("kryoptic", &kryoptic::module());
        let mut driver = module.open(module.tokens().unwrap()[0].slot).unwrap();
        for wrong in 1..=9 {
            assert_eq!(driver.login(Some(&pin(&format!("wrong {wrong}")))), Err(DeviceError::PinRejected));
            let flags = driver.flags().unwrap();
            assert_eq!(
                (flags.user_pin_count_low, flags.user_pin_final_try),
                (matches!(wrong, 7 | 8), wrong == 9),
                "after {wrong} wrong PINs"
            );
        }
        assert_eq!(driver.login(Some(&pin("wrong 10"))), Err(DeviceError::PinLocked));
        assert!(driver.flags().unwrap().user_pin_locked);
        assert_eq!(driver.login(Some(&pin(USER_PIN))), Err(DeviceError::PinLocked));
    });
}

#[test]
fn the_last_try_is_the_operators_and_a_locked_token_is_not_asked_again() {
    own_process::run(crate::test_name!(), kryoptic::environment, || {
        make_token();
        block_on(async {
            let gateway = Gateway::start(setting()).await;
            gateway.until(SlotState::NeedsPin).await;
            let slot = gateway.slot();
            for wrong in 1..=9 {
                assert_eq!(unlock(&slot, &format!("wrong {wrong}"), false).await, Err(SlotError::Device(DeviceError::PinRejected)));
            }
            assert_eq!(unlock(&slot, USER_PIN, false).await, Err(SlotError::Device(DeviceError::FinalTry)));
            assert_eq!(unlock(&slot, "wrong 10", true).await, Err(SlotError::Device(DeviceError::PinLocked)));
            assert_eq!(unlock(&slot, USER_PIN, true).await, Err(SlotError::Device(DeviceError::PinLocked)));
            gateway.until(SlotState::PinLocked).await;
            gateway.stop().await;
        });
    });
}

fn setting() -> Setting {
    Setting {
        library: kryoptic::module(),
        environment: kryoptic::environment(&own_process::directory()),
        token: "pkcs11:token=contract",
        key: 1,
        algorithm: SignatureAlgorithm::Ecdsa(HashAlgorithm::Sha256),
        configured_pin: None,
        limits: CallLimits::default(),
    }
}
