//! Tokens that are pulled, put back, renumbered, run out of sessions, lose their login or are poisoned; as real modules answer it.

#![allow(clippy::unwrap_used)]

mod common;

use std::thread;

use common::{digest, initialize, key, rv, sign, with_rig};
use cryptoki::{error::RvError, session::SessionState, slot::SlotInfo};
use pkcs11_faults::{event::Awaited, fault::Fault, function::Function, log::Outcome, rv::Rv, token::Reader};

fn present(info: &SlotInfo) -> bool {
    info.token_present()
}

#[test]
fn a_pulled_token_answers_as_opensc_does() {
    with_rig(test_name!(), |rig| {
        let slot = rig.slot();
        let (session, key) = rig.ready();
        let all = rig.pkcs11.get_all_slots().unwrap();
        rig.control.remove(None).unwrap();
        // Not noticed yet: the session seems to live, and the token does not answer.
        assert_eq!(rv(sign(&session, key, 1)), RvError::DeviceRemoved);
        assert_eq!(rv(sign(&session, key, 1)), RvError::DeviceRemoved);
        assert_eq!(session.get_session_info().unwrap().session_state(), SessionState::RwUser);
        assert_eq!(rv(rig.pkcs11.get_token_info(slot)), RvError::TokenNotPresent);
        assert_eq!(rv(rig.pkcs11.open_ro_session(slot)), RvError::TokenNotPresent);
        assert_eq!(rv(rig.pkcs11.get_mechanism_list(slot)), RvError::TokenNotPresent);
        // C_GetSlotInfo looks at the reader.
        assert!(!present(&rig.pkcs11.get_slot_info(slot).unwrap()));
        assert_eq!(rv(sign(&session, key, 1)), RvError::SessionHandleInvalid);
        assert_eq!(rv(session.get_session_info()), RvError::SessionHandleInvalid);
        assert_eq!(rig.pkcs11.get_all_slots().unwrap(), all, "the reader stays");
        assert!(!rig.pkcs11.get_slots_with_token().unwrap().contains(&slot));
        assert!(rig.log().signings().iter().all(|call| call.outcome == Outcome::NotSigned));
    });
}

#[test]
fn after_the_token_is_back_old_sessions_handles_and_logins_are_dead() {
    with_rig(test_name!(), |rig| {
        let slot = rig.slot();
        let (session, old_key) = rig.ready();
        rig.control.remove(None).unwrap();
        rig.control.insert(None).unwrap();
        // Pulled and put back between two calls: nobody has noticed.
        assert_eq!(rv(sign(&session, old_key, 1)), RvError::DeviceRemoved);
        assert_eq!(rig.slot(), slot);
        assert_eq!(rv(sign(&session, old_key, 1)), RvError::SessionHandleInvalid);
        let fresh = rig.open();
        assert_eq!(fresh.get_session_info().unwrap().session_state(), SessionState::RwPublic, "the login is lost");
        assert_eq!(rv(sign(&fresh, old_key, 1)), RvError::KeyHandleInvalid);
        common::login(&fresh, common::softhsm::USER_PIN).unwrap();
        assert_eq!(rv(sign(&fresh, old_key, 1)), RvError::KeyHandleInvalid);
        assert_eq!(rv(fresh.destroy_object(old_key)), RvError::ObjectHandleInvalid);
        let new_key = key(&fresh);
        assert_ne!(new_key, old_key);
        sign(&fresh, new_key, 2).unwrap();
        drop(session);
    });
}

#[test]
fn a_wrong_pin_is_wrong_after_a_replug_although_the_real_module_never_lost_its_login() {
    with_rig(test_name!(), |rig| {
        let slot = rig.slot();
        let (_session, _key) = rig.ready();
        rig.control.remove(None).unwrap();
        rig.control.insert(None).unwrap();
        // Nobody looks at the slots: C_OpenSession itself must notice.
        let fresh = rig.pkcs11.open_rw_session(slot).unwrap();
        assert_eq!(rv(common::login(&fresh, "654321")), RvError::PinIncorrect);
        common::login(&fresh, common::softhsm::USER_PIN).unwrap();
    });
}

#[test]
fn a_token_pulled_during_c_sign_makes_it_fail_signed_or_not() {
    with_rig(test_name!(), |rig| {
        for (number, signed) in [(1, false), (2, true)] {
            let (session, key) = rig.ready();
            let hanging = Fault::on(Function::C_Sign).hangs();
            rig.control.arm(if signed { hanging.after() } else { hanging }).unwrap();
            thread::scope(|scope| {
                let signing = scope.spawn(move || rv(sign(&session, key, number)));
                rig.control.wait_for(Awaited::held(Function::C_Sign)).unwrap();
                rig.control.remove(None).unwrap();
                rig.control.release().unwrap();
                assert_eq!(signing.join().unwrap(), RvError::DeviceRemoved);
            });
            rig.control.insert(None).unwrap();
            assert_eq!(rig.log().signatures_on(&digest(number)), usize::from(signed));
            assert_eq!(rig.log().signings().last().unwrap().rv, Some(Rv::DEVICE_REMOVED));
        }
    });
}

#[test]
fn a_fault_can_pull_the_token_at_the_kth_signature() {
    with_rig(test_name!(), |rig| {
        let (session, key) = rig.ready();
        rig.control.arm(Fault::on(Function::C_Sign).skip(2).removes_the_token()).unwrap();
        let answers: Vec<bool> = (0..4).map(|number| sign(&session, key, number).is_ok()).collect();
        assert_eq!(answers, [true, true, false, false]);
        assert!(common::find_slot(&rig.pkcs11).is_none());
        rig.control.insert(Some(common::softhsm::TOKEN_LABEL)).unwrap();
        let (session, key) = rig.ready();
        rig.control.arm(Fault::on(Function::C_Sign).after().removes_the_token()).unwrap();
        assert_eq!(rv(sign(&session, key, 9)), RvError::DeviceRemoved);
        assert_eq!(rig.log().signatures_on(&digest(9)), 1);
    });
}

#[test]
fn a_usb_tokens_slot_goes_with_it_and_answers_as_the_caller_wishes() {
    with_rig(test_name!(), |rig| {
        let slot = rig.slot();
        let (session, key) = rig.ready();
        rig.control.remove_as(None, Rv::DEVICE_ERROR, Reader::Goes).unwrap();
        assert_eq!(rv(sign(&session, key, 1)), RvError::DeviceError);
        assert!(!rig.pkcs11.get_all_slots().unwrap().contains(&slot));
        assert_eq!(rv(rig.pkcs11.get_slot_info(slot)), RvError::SlotIdInvalid);
        rig.control.insert(None).unwrap();
        assert!(rig.pkcs11.get_all_slots().unwrap().contains(&slot));
    });
}

#[test]
fn a_token_put_into_another_slot_is_found_there_and_works() {
    with_rig(test_name!(), |rig| {
        let old = rig.slot();
        let serial = rig.pkcs11.get_token_info(old).unwrap().serial_number().to_owned();
        rig.control.remove(Some(&serial)).unwrap();
        rig.control.insert_into(Some(&serial), 77).unwrap();
        let new = rig.slot();
        assert_eq!(new.id(), 77);
        assert_eq!(rig.pkcs11.get_token_info(new).unwrap().serial_number(), serial);
        assert_eq!(rv(rig.pkcs11.get_slot_info(old)), RvError::SlotIdInvalid);
        let (session, key) = rig.ready();
        sign(&session, key, 1).unwrap();
        assert_eq!(session.get_session_info().unwrap().slot_id(), new);
        // Renumbered with the token in place: the session goes on.
        rig.control.renumber(Some(&serial), 78).unwrap();
        sign(&session, key, 2).unwrap();
        assert_eq!((rig.slot().id(), session.get_session_info().unwrap().slot_id().id()), (78, 78));
    });
}

#[test]
fn removal_and_insertion_are_slot_events() {
    with_rig(test_name!(), |rig| {
        let slot = rig.slot();
        assert_eq!(rig.pkcs11.get_slot_event().unwrap(), None);
        rig.control.remove(None).unwrap();
        assert_eq!(rig.pkcs11.get_slot_event().unwrap(), Some(slot));
        assert_eq!(rig.pkcs11.get_slot_event().unwrap(), None);
        rig.control.watch(Function::C_WaitForSlotEvent).unwrap();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| rig.pkcs11.wait_for_slot_event().unwrap());
            rig.control.wait_for(Awaited::entered(Function::C_WaitForSlotEvent)).unwrap();
            rig.control.insert(None).unwrap();
            assert_eq!(waiting.join().unwrap(), slot);
        });
    });
}

#[test]
fn expired_sessions_are_dead_and_the_token_is_there() {
    with_rig(test_name!(), |rig| {
        for (answer, expected) in
            [(Rv::SESSION_HANDLE_INVALID, RvError::SessionHandleInvalid), (Rv::SESSION_CLOSED, RvError::SessionClosed)]
        {
            let (session, key) = rig.ready();
            let other = rig.open();
            rig.control.expire_sessions(None, answer).unwrap();
            assert_eq!(rv(sign(&session, key, 1)), expected);
            assert_eq!(rv(sign(&session, key, 1)), expected);
            assert_eq!(rv(other.get_session_info()), expected);
            assert!(present(&rig.pkcs11.get_slot_info(rig.slot()).unwrap()));
            let fresh = rig.open();
            assert_eq!(fresh.get_session_info().unwrap().session_state(), SessionState::RwPublic);
        }
    });
}

#[test]
fn a_lost_login_leaves_the_sessions_and_closes_the_keys_until_the_next_login() {
    with_rig(test_name!(), |rig| {
        let (session, key) = rig.ready();
        rig.control.logout(None).unwrap();
        assert_eq!(rv(sign(&session, key, 1)), RvError::UserNotLoggedIn);
        assert_eq!(rv(sign(&session, key, 1)), RvError::UserNotLoggedIn);
        assert_eq!(session.get_session_info().unwrap().session_state(), SessionState::RwPublic);
        common::login(&session, common::softhsm::USER_PIN).unwrap();
        sign(&session, common::key(&session), 1).unwrap();
    });
}

#[test]
fn a_poisoned_module_fails_until_it_is_initialised_again() {
    with_rig(test_name!(), |rig| {
        let (session, key) = rig.ready();
        rig.control.poison([Function::C_Sign, Function::C_SignInit], Rv::GENERAL_ERROR).unwrap();
        assert_eq!(rv(sign(&session, key, 1)), RvError::GeneralError);
        let another = rig.open();
        assert_eq!(rv(sign(&another, key, 1)), RvError::GeneralError, "a new session does not help");
        drop((session, another));
        rig.pkcs11.clone().finalize().unwrap();
        initialize(&rig.pkcs11);
        let (session, key) = rig.ready();
        sign(&session, key, 1).unwrap();
    });
}

#[test]
fn a_process_gets_no_more_sessions_than_the_limit_and_one_more_when_it_closes_one() {
    with_rig(test_name!(), |rig| {
        let slot = rig.slot();
        rig.control.session_limit(None, Some(2)).unwrap();
        let (first, _second) = (rig.open(), rig.open());
        assert_eq!(rv(rig.pkcs11.open_ro_session(slot)), RvError::SessionCount);
        first.close().unwrap();
        drop(rig.open());
        rig.control.session_limit(None, None).unwrap();
        let many: Vec<_> = (0..20).map(|_| rig.open()).collect();
        assert_eq!(many.len(), 20);
    });
}

#[test]
fn a_thousand_replugs_leave_nothing_behind() {
    with_rig(test_name!(), |rig| {
        let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let mut after_the_first = 0;
        for cycle in 0..1000 {
            let session = rig.open();
            rig.control.remove(None).unwrap();
            assert!(common::find_slot(&rig.pkcs11).is_none());
            rig.control.insert(None).unwrap();
            assert_eq!(rv(session.get_session_info()), RvError::SessionHandleInvalid);
            if cycle == 0 {
                after_the_first = descriptors();
            }
        }
        // The bench closes its connections when it gets round to it.
        let patience = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while descriptors() > after_the_first && std::time::Instant::now() < patience {
            std::thread::yield_now();
        }
        assert!(descriptors() <= after_the_first, "{} descriptors, {after_the_first} after the first replug", descriptors());
        let (session, key) = rig.ready();
        sign(&session, key, 1).unwrap();
    });
}

#[test]
fn resetting_the_bench_heals_everything_but_dead_sessions() {
    with_rig(test_name!(), |rig| {
        let (session, _) = rig.ready();
        rig.control.arm(Fault::on(Function::C_Sign).every_time().returns(Rv::DEVICE_ERROR)).unwrap();
        rig.control.poison(Function::C_Login, Rv::GENERAL_ERROR).unwrap();
        rig.control.session_limit(None, Some(0)).unwrap();
        rig.control.remove_as(None, Rv::DEVICE_REMOVED, Reader::Goes).unwrap();
        rig.control.reset().unwrap();
        assert_eq!(rv(session.generate_random_vec(1)), RvError::DeviceRemoved);
        let (session, key) = rig.ready();
        sign(&session, key, 1).unwrap();
        assert!(rig.control.status().unwrap().faults.is_empty());
    });
}
