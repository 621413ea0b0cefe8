//! p11-kit's remoting, with SoftHSM behind it.

use std::{ffi::OsString, path::Path};

use sealgate::{
    domain::{
        algorithm::{HashAlgorithm, SignatureAlgorithm},
        token::SlotState,
    },
    token::{driver::TokenDriver as _, driver::TokenModule as _, watchdog::CallLimits},
};

use crate::{
    common::{
        own_process,
        p11kit::P11Kit,
        softhsm::{SoftHsm, TOKEN_LABEL, USER_PIN},
    },
    gateway::{Gateway, Setting, block_on},
    load, opened, said, sign,
    suite::{self, Cannot, Keys, Rig, by_id, cannot, every_kind, pin},
};

pub const CANNOT: &[Cannot] = &[
    cannot("a_key_that_wants_a_pin_each_time_signs_with_it", NO_PIN_EACH_TIME, AN_INSTANCE),
    cannot("a_key_that_wants_a_pin_each_time_is_not_entered_without", NO_PIN_EACH_TIME, AN_INSTANCE),
    cannot("a_wrong_pin_for_one_signature_leaves_a_session_that_must_be_reopened", NO_PIN_EACH_TIME, AN_INSTANCE),
];

const NO_PIN_EACH_TIME: &str = "each caller in a process has an instance of the module, and the one that could do it is not ours";
const AN_INSTANCE: &str = "through a module that gives each caller an instance";

pub fn hold_to(test: &str, name: &str, rule: fn(&Rig)) {
    own_process::run(test, environment, || {
        let _server = P11Kit::serve(&SoftHsm::of_this_process());
        let rig = Rig {
            module: Box::new(load("p11-kit", &P11Kit::client_module())),
            token_label: TOKEN_LABEL,
            user_pin: pin(USER_PIN),
            wrong_pin: pin("654321"),
            // All but Ed25519, whose mechanisms do not pass.
            keys: Keys::Made(every_kind()[..6].to_vec()),
            add_always_authenticate_key: Box::new(|| make_key(&["--always-auth"])),
        };
        suite::check(&rig, name, rule, CANNOT);
    });
}

fn environment(directory: &Path) -> Vec<(&'static str, OsString)> {
    let mut environment = SoftHsm::in_directory(directory).init_token(TOKEN_LABEL).environment();
    environment.push(P11Kit::address_in(directory));
    environment
}

fn make_key(and: &[&str]) {
    let generate = ["--keypairgen", "--key-type", "EC:prime256v1", "--label", "k", "--usage-sign", "--id", "01"];
    SoftHsm::of_this_process().pkcs11_tool(&[&generate, and].concat());
}

/// The client answers every call with an error for ever then, although the server is back.
#[test]
fn a_client_whose_server_was_killed_is_replaced() {
    own_process::run(crate::test_name!(), environment, || {
        make_key(&[]);
        block_on(async {
            let hsm = SoftHsm::of_this_process();
            let server = P11Kit::serve(&hsm);
            let gateway = Gateway::start(setting()).await;
            gateway.until(SlotState::Ready).await;
            gateway.signs().await;
            let epoch = gateway.slot().epoch();
            server.kill_with_its_connections();
            let mut jobs = Vec::new();
            for _ in 0..10 {
                jobs.push(gateway.submit().await);
            }
            gateway.until(SlotState::Absent).await;
            let _server = P11Kit::serve(&hsm);
            assert_eq!(gateway.signed_and_in_doubt(jobs).await, (10, 0));
            assert!(gateway.slot().epoch() > epoch);
            gateway.stop().await;
        });
    });
}

fn setting() -> Setting {
    Setting {
        library: P11Kit::client_module(),
        environment: vec![P11Kit::address_in(&own_process::directory())],
        token: "pkcs11:token=contract",
        key: 1,
        algorithm: SignatureAlgorithm::Ecdsa(HashAlgorithm::Sha256),
        configured_pin: Some(USER_PIN),
        limits: CallLimits::default(),
    }
}

#[test]
fn what_each_call_says_of_a_server_that_was_restarted() {
    own_process::run(crate::test_name!(), environment, || {
        make_key(&[]);
        let hsm = SoftHsm::of_this_process();
        let server = P11Kit::serve(&hsm);
        let module = load("p11-kit", &P11Kit::client_module());
        let mut driver = opened(&module, TOKEN_LABEL, USER_PIN);
        let key = driver.find_key(&by_id(1)).unwrap();
        assert_eq!(sign(&mut *driver, &key), Ok(()));
        server.kill_with_its_connections();
        assert_eq!(said(sign(&mut *driver, &key)), "CKR_DEVICE_ERROR from C_SignInit");
        let _server = P11Kit::serve(&hsm);
        assert_eq!(said(sign(&mut *driver, &key)), "CKR_DEVICE_ERROR from C_SignInit");
        assert_eq!(said(driver.check_presence()), "CKR_DEVICE_ERROR from C_GetSlotInfo");
        assert_eq!(said(module.tokens().map(drop)), "CKR_DEVICE_ERROR from C_GetSlotList");
        drop((driver, module));

        let module = load("p11-kit", &P11Kit::client_module());
        let mut driver = opened(&module, TOKEN_LABEL, USER_PIN);
        let key = driver.find_key(&by_id(1)).unwrap();
        assert_eq!(sign(&mut *driver, &key), Ok(()));
    });
}

#[test]
fn without_a_server_there_is_no_token() {
    own_process::run(crate::test_name!(), environment, || {
        assert_eq!(load("p11-kit", &P11Kit::client_module()).tokens(), Ok(Vec::new()));
    });
}
