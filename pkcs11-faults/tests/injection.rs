//! Errors, hangs and wrong signatures, injected into calls that are otherwise SoftHSM's own.

#![allow(clippy::unwrap_used)]

mod common;

use std::{
    thread,
    time::{Duration, Instant},
};

use common::{digest, rv, sign, verifies, with_rig};
use cryptoki::error::RvError;
use pkcs11_faults::{
    event::{Awaited, Step},
    fault::Fault,
    function::{Function, FunctionSet},
    log::{Entry, Outcome},
    rv::Rv,
};

#[test]
fn without_faults_the_module_is_the_real_one_and_asks_nobody() {
    with_rig(test_name!(), |rig| {
        let (session, key) = rig.ready();
        for number in 0..200 {
            let signature = sign(&session, key, number).unwrap();
            assert!(verifies(&session, number, &signature));
        }
        assert_eq!(rig.control.status().unwrap().calls_ever, 0, "calls that the bench was asked about");
        assert_eq!((0..200).map(|number| rig.log().signatures_on(&digest(number))).collect::<Vec<_>>(), [1; 200]);
    });
}

#[test]
fn the_kth_call_fails_before_the_token_signs_and_the_next_one_signs() {
    with_rig(test_name!(), |rig| {
        let (session, key) = rig.ready();
        rig.control.arm(Fault::on(Function::C_Sign).skip(1).times(2).returns(Rv::FUNCTION_FAILED)).unwrap();
        let answers: Vec<bool> = (0..5).map(|number| sign(&session, key, number).is_ok()).collect();
        assert_eq!(answers, [true, false, false, true, true]);
        let made: Vec<usize> = (0..5).map(|number| rig.log().signatures_on(&digest(number))).collect();
        assert_eq!(made, [1, 0, 0, 1, 1]);
        assert_eq!(rig.log().signings()[1].rv, Some(Rv::FUNCTION_FAILED));
    });
}

#[test]
fn a_token_that_has_signed_and_says_device_error_is_told_apart_in_the_log() {
    with_rig(test_name!(), |rig| {
        let (session, key) = rig.ready();
        rig.control.arm(Fault::on(Function::C_Sign).after().returns(Rv::DEVICE_ERROR)).unwrap();
        assert_eq!(rv(sign(&session, key, 1)), RvError::DeviceError);
        let call = rig.log().signings().remove(0);
        assert_eq!((call.outcome, call.real_rv, call.rv), (Outcome::Signed, Some(Rv::OK), Some(Rv::DEVICE_ERROR)));
        assert_eq!((call.signing.key_id.as_deref(), call.signing.mechanism), (Some("01"), Some(cryptoki_sys::CKM_ECDSA)));
        assert_eq!(call.signing.data, Some(hex::encode(digest(1))));
        assert!(sign(&session, key, 2).is_ok());
    });
}

#[test]
fn any_function_can_fail_with_any_value_in_any_phase() {
    with_rig(test_name!(), |rig| {
        let slot = rig.slot();
        rig.control.arm(Fault::on(Function::C_OpenSession).returns(Rv::SESSION_COUNT)).unwrap();
        assert_eq!(rv(rig.pkcs11.open_rw_session(slot)), RvError::SessionCount);
        rig.control.arm(Fault::on(Function::C_GetSlotList).returns(Rv::CRYPTOKI_NOT_INITIALIZED)).unwrap();
        assert_eq!(rv(rig.pkcs11.get_all_slots()), RvError::CryptokiNotInitialized);
        rig.control.arm(Fault::on(Function::C_Login).returns(Rv(0x8000_0042))).unwrap();
        let session = rig.open();
        assert_eq!(rv(common::login(&session, common::softhsm::USER_PIN)), RvError::VendorDefined(0x8000_0042));
        let login = rig.log().logins().remove(0);
        assert!(!login.reached_token && login.rv == Some(Rv(0x8000_0042)));
        let (_session, key) = rig.ready();
        rig.control.arm(Fault::on(Function::C_FindObjects).returns(Rv::DEVICE_MEMORY)).unwrap();
        assert_eq!(rv(session.find_objects(&[])), RvError::DeviceMemory);
        rig.control.arm(Fault::on(Function::C_SignInit).returns(Rv::KEY_HANDLE_INVALID)).unwrap();
        assert_eq!(rv(sign(&session, key, 1)), RvError::KeyHandleInvalid);
        assert!(sign(&session, key, 1).is_ok());
    });
}

#[test]
fn a_fault_on_every_call_ends_when_it_is_disarmed_or_its_function_has_succeeded() {
    with_rig(test_name!(), |rig| {
        let (session, key) = rig.ready();
        let id = rig.control.arm(Fault::on(Function::C_Sign).every_time().returns(Rv::DEVICE_ERROR)).unwrap();
        for number in 0..3 {
            assert_eq!(rv(sign(&session, key, number)), RvError::DeviceError);
        }
        rig.control.disarm(id).unwrap();
        sign(&session, key, 4).unwrap();
        let again = Fault::on(Function::C_SignInit).every_time().returns(Rv::OBJECT_HANDLE_INVALID).until(Function::C_FindObjectsInit);
        rig.control.arm(again).unwrap();
        assert_eq!(rv(sign(&session, key, 5)), RvError::ObjectHandleInvalid);
        assert_eq!(rv(sign(&session, key, 5)), RvError::ObjectHandleInvalid);
        let found = common::key(&session);
        sign(&session, found, 5).unwrap();
    });
}

#[test]
fn a_wrong_signature_differs_in_one_bit_and_is_named_in_the_log() {
    with_rig(test_name!(), |rig| {
        let (session, key) = rig.ready();
        rig.control.arm(Fault::on(Function::C_Sign).flips_a_bit()).unwrap();
        let wrong = sign(&session, key, 1).unwrap();
        let right = sign(&session, key, 1).unwrap();
        assert!(!verifies(&session, 1, &wrong) && verifies(&session, 1, &right));
        assert_eq!(wrong.len(), right.len());
        let calls = rig.log().signings();
        assert_eq!(calls.iter().map(|call| call.corrupted).collect::<Vec<_>>(), [true, false]);
        assert_eq!(rig.log().signatures_on(&digest(1)), 2);
    });
}

#[test]
fn a_call_hangs_until_it_is_released_and_other_calls_go_on_meanwhile() {
    with_rig(test_name!(), |rig| {
        let (session, key) = rig.ready();
        let other = rig.open();
        rig.control.arm(Fault::on(Function::C_Sign).hangs()).unwrap();
        thread::scope(|scope| {
            let hanging = scope.spawn(move || sign(&session, key, 1).map(|_| session));
            let held = rig.control.wait_for(Awaited::held(Function::C_Sign)).unwrap();
            assert_eq!((held.pid, held.token.is_some()), (std::process::id(), true));
            for number in 2..12 {
                sign(&other, common::key(&other), number).unwrap();
            }
            assert_eq!(rig.log().signatures_on(&digest(1)), 0, "a call that hangs before the token is called");
            assert_eq!(rig.control.status().unwrap().held, 1);
            assert_eq!(rig.control.release().unwrap(), 1);
            hanging.join().unwrap().unwrap();
        });
        assert_eq!(rig.control.wait_for(Awaited::left(Function::C_Sign)).unwrap().step, Step::Left { rv: Rv::OK });
        assert_eq!(rig.log().signatures_on(&digest(1)), 1);
    });
}

#[test]
fn a_call_that_hangs_after_the_signature_is_in_the_log_before_it_is_answered() {
    with_rig(test_name!(), |rig| {
        let (session, key) = rig.ready();
        let other = rig.open();
        rig.control.arm(Fault::on(Function::C_Sign).after().hangs().returns(Rv::GENERAL_ERROR)).unwrap();
        thread::scope(|scope| {
            let hanging = scope.spawn(move || rv(sign(&session, key, 1)));
            rig.control.wait_for(Awaited::held(Function::C_Sign)).unwrap();
            let call = rig.log().signings().remove(0);
            assert_eq!((call.outcome, call.rv), (Outcome::Signed, None));
            sign(&other, common::key(&other), 2).unwrap();
            rig.control.release().unwrap();
            assert_eq!(hanging.join().unwrap(), RvError::GeneralError);
        });
        assert_eq!(rig.log().signings()[0].rv, Some(Rv::GENERAL_ERROR), "the late answer belongs to its call");
        assert!(matches!(rig.log().records().last().unwrap().entry, Entry::Answer { rv: Rv::GENERAL_ERROR, .. }));
    });
}

#[test]
fn a_slow_token_takes_at_least_its_time_and_answers_rightly() {
    with_rig(test_name!(), |rig| {
        let (session, key) = rig.ready();
        let latency = Duration::from_millis(20);
        rig.control.arm(Fault::on([Function::C_SignInit, Function::C_Sign]).every_time().waits(latency)).unwrap();
        let began = Instant::now();
        let signature = sign(&session, key, 1).unwrap();
        assert!(began.elapsed() >= 2 * latency, "{:?}", began.elapsed());
        assert!(verifies(&session, 1, &signature));
    });
}

#[test]
fn a_call_that_was_refused_leaves_no_operation_behind() {
    with_rig(test_name!(), |rig| {
        let (session, key) = rig.ready();
        for function in [Function::C_Sign, Function::C_SignInit, Function::C_FindObjectsFinal] {
            rig.control.arm(Fault::on(function).returns(Rv::DEVICE_ERROR)).unwrap();
            let _ = session.find_objects(&[]);
            let _ = sign(&session, key, 1);
            assert!(sign(&session, key, 2).is_ok(), "after a refused {function}");
            assert!(session.find_objects(&[]).is_ok(), "after a refused {function}");
        }
        // SoftHSM keeps an operation after a length query, and the caller is told that there is none.
        rig.control.arm(Fault { length_queries: true, ..Fault::on(Function::C_Sign).after().returns(Rv::DEVICE_ERROR) }).unwrap();
        assert_eq!(rv(sign(&session, key, 3)), RvError::DeviceError);
        assert!(sign(&session, key, 4).is_ok());
        assert_eq!(rig.log().signatures_on(&digest(3)), 0);
    });
}

#[test]
fn events_are_reported_of_watched_functions() {
    with_rig(test_name!(), |rig| {
        rig.control.watch(FunctionSet::from([Function::C_OpenSession, Function::C_Login])).unwrap();
        let (session, key) = rig.ready();
        sign(&session, key, 1).unwrap();
        rig.control.wait_for(Awaited::left(Function::C_Login)).unwrap();
        let seen: Vec<(Function, Step)> = rig.control.events().unwrap().into_iter().map(|event| (event.function, event.step)).collect();
        let both = |function| [(function, Step::Entered), (function, Step::Left { rv: Rv::OK })];
        assert_eq!(seen, [both(Function::C_OpenSession), both(Function::C_Login)].concat());
        let nothing = rig.control.wait_for_at_most(Awaited::entered(Function::C_Sign), Duration::ZERO);
        assert!(nothing.unwrap_err().to_string().contains("no event"));
    });
}

#[test]
fn a_bench_that_ends_lets_go_of_what_it_holds_and_calls_pass() {
    with_rig(test_name!(), |rig| {
        let (session, key) = rig.ready();
        let directory = tempfile::tempdir().unwrap();
        // A second bench at another place is nothing to this module, and its end neither.
        drop(pkcs11_faults::bench::Bench::start(directory.path()).unwrap());
        rig.control.arm(Fault::on(Function::C_Sign).hangs()).unwrap();
        rig.control.arm(Fault::on(Function::C_GetSessionInfo).every_time().returns(Rv::DEVICE_ERROR)).unwrap();
        thread::scope(|scope| {
            let hanging = scope.spawn(|| (rv(sign(&session, key, 1)), session));
            rig.control.wait_for(Awaited::held(Function::C_Sign)).unwrap();
            rig.bench.end();
            let (answer, session) = hanging.join().unwrap();
            assert_eq!(answer, RvError::GeneralError);
            sign(&session, key, 2).unwrap();
            session.get_session_info().unwrap();
        });
    });
}
