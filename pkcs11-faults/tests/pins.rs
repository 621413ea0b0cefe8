//! PIN tries and their flags, PIN pads, keys that want a login for each signature.

#![allow(clippy::unwrap_used)]

mod common;

use std::thread;

use common::{
    Rig, login, rv, sign,
    softhsm::{SO_PIN, USER_PIN},
    with_rig,
};
use cryptoki::{
    context::Pkcs11,
    error::RvError,
    mechanism::Mechanism,
    object::{Attribute, AttributeType},
    session::{Session, UserType},
    types::AuthPin,
};
use pkcs11_faults::{
    event::Awaited,
    log::{Outcome, User},
    protocol::PersonAct,
    rv::Rv,
    token::{PinFlag, PinPolicy},
};

const WRONG_PIN: &str = "000000";

fn flags(pkcs11: &Pkcs11) -> [bool; 3] {
    let info = pkcs11.get_token_info(common::slot_of(pkcs11)).unwrap();
    [info.user_pin_count_low(), info.user_pin_final_try(), info.user_pin_locked()]
}

fn spend(session: &Session, count: usize) -> Vec<RvError> {
    (0..count).map(|_| rv(login(session, WRONG_PIN))).collect()
}

#[test]
fn wrong_pins_lower_the_count_and_lock_the_token_against_the_right_one() {
    with_rig(test_name!(), |rig| {
        rig.control.pin_policy(None, Some(PinPolicy::tries(3))).unwrap();
        let session = rig.open();
        assert_eq!(flags(&rig.pkcs11), [false, false, false]);
        assert_eq!(rv(login(&session, WRONG_PIN)), RvError::PinIncorrect);
        assert_eq!(flags(&rig.pkcs11), [true, false, false]);
        assert_eq!(rv(login(&session, WRONG_PIN)), RvError::PinIncorrect);
        assert_eq!(flags(&rig.pkcs11), [true, true, false]);
        assert_eq!(rv(login(&session, WRONG_PIN)), RvError::PinIncorrect);
        assert_eq!(flags(&rig.pkcs11), [true, false, true]);
        assert_eq!(rv(login(&session, USER_PIN)), RvError::PinLocked);
        assert_eq!(rig.log().wrong_pins(), 3);
        let logins = rig.log().logins();
        assert_eq!(logins.iter().map(|login| login.reached_token).collect::<Vec<_>>(), [true, true, true, false]);
        assert_eq!(logins[0].login.pin, logins[2].login.pin, "the same PIN is seen to be the same");
        assert_ne!(logins[0].login.pin, logins[3].login.pin);
        let text = std::fs::read_to_string(rig.bench.log_path()).unwrap();
        assert!(!text.contains(WRONG_PIN) && !text.contains(USER_PIN), "no PIN in the log");
    });
}

#[test]
fn a_good_login_gives_all_tries_back() {
    with_rig(test_name!(), |rig| {
        rig.control.pin_policy(None, Some(PinPolicy::tries(3))).unwrap();
        let session = rig.open();
        spend(&session, 2);
        login(&session, USER_PIN).unwrap();
        assert_eq!(flags(&rig.pkcs11), [false, false, false]);
        assert_eq!(rv(login(&session, WRONG_PIN)), RvError::UserAlreadyLoggedIn);
        assert_eq!(flags(&rig.pkcs11), [false, false, false], "a PIN that was not looked at costs nothing");
    });
}

#[test]
fn tokens_that_set_no_flags_or_answer_otherwise_can_be_had() {
    with_rig(test_name!(), |rig| {
        // tpm2-pkcs11 sets no flag at all.
        rig.control.pin_policy(None, Some(PinPolicy::tries(1).shows(&[]))).unwrap();
        let session = rig.open();
        spend(&session, 1);
        assert_eq!(flags(&rig.pkcs11), [false, false, false], "SoftHSM's own COUNT_LOW neither");
        assert_eq!(rv(login(&session, USER_PIN)), RvError::PinLocked);
        // The OpenPGP card says PIN_INCORRECT when it is locked, and never COUNT_LOW.
        rig.control.reset().unwrap();
        let openpgp = PinPolicy::tries(3).shows(&[PinFlag::FinalTry, PinFlag::Locked]).says_when_locked(Rv::PIN_INCORRECT);
        rig.control.pin_policy(None, Some(openpgp)).unwrap();
        assert_eq!(spend(&session, 3), [RvError::PinIncorrect; 3]);
        assert_eq!(flags(&rig.pkcs11), [false, false, true]);
        assert_eq!(rv(login(&session, USER_PIN)), RvError::PinIncorrect);
        // Kryoptic says PIN_LOCKED to the PIN that locks it.
        rig.control.reset().unwrap();
        rig.control.pin_policy(None, Some(PinPolicy::tries(2).says_at_the_last_try(Rv::PIN_LOCKED))).unwrap();
        assert_eq!(spend(&session, 2), [RvError::PinIncorrect, RvError::PinLocked]);
    });
}

#[test]
fn the_tries_left_can_be_set_and_the_officer_unlocks() {
    with_rig(test_name!(), |rig| {
        let serial = rig.pkcs11.get_token_info(rig.slot()).unwrap().serial_number().to_owned();
        rig.control.pin_policy(Some(&serial), Some(PinPolicy::tries(3))).unwrap();
        rig.control.pin_tries_left(&serial, 1).unwrap();
        assert_eq!(flags(&rig.pkcs11), [true, true, false]);
        let session = rig.open();
        spend(&session, 1);
        assert_eq!(rv(login(&session, USER_PIN)), RvError::PinLocked);
        session.login(UserType::So, Some(&AuthPin::from(SO_PIN))).unwrap();
        session.init_pin(&AuthPin::from("112233")).unwrap();
        session.logout().unwrap();
        login(&session, "112233").unwrap();
        assert_eq!(
            rig.log().logins().iter().map(|login| login.login.user).collect::<Vec<_>>(),
            [User::User, User::User, User::So, User::User]
        );
    });
}

#[test]
fn a_wrong_old_pin_in_c_setpin_costs_a_try() {
    with_rig(test_name!(), |rig| {
        rig.control.pin_policy(None, Some(PinPolicy::tries(3))).unwrap();
        let (session, _) = rig.ready();
        assert_eq!(rv(session.set_pin(&AuthPin::from(WRONG_PIN), &AuthPin::from("112233"))), RvError::PinIncorrect);
        assert_eq!(flags(&rig.pkcs11), [true, false, false]);
        session.set_pin(&AuthPin::from(USER_PIN), &AuthPin::from("112233")).unwrap();
        assert_eq!(flags(&rig.pkcs11), [false, false, false]);
    });
}

fn at_the_pin_pad(rig: &Rig, act: PersonAct) -> Result<(), RvError> {
    let session = rig.open();
    thread::scope(|scope| {
        let waiting = scope.spawn(move || match session.login(UserType::User, None) {
            Ok(()) => session.logout().map_err(|_| RvError::GeneralError),
            failed => Err(rv(failed)),
        });
        rig.control.wait_for(Awaited::person()).unwrap();
        rig.control.person(None, act).unwrap();
        waiting.join().unwrap()
    })
}

#[test]
fn a_login_at_a_pin_pad_waits_for_the_person() {
    with_rig(test_name!(), |rig| {
        let protected = || rig.pkcs11.get_token_info(rig.slot()).unwrap().protected_authentication_path();
        assert!(!protected());
        rig.control.pin_pad(None, true).unwrap();
        assert!(protected());
        assert_eq!(at_the_pin_pad(rig, PersonAct::Enters(USER_PIN.to_owned())), Ok(()));
        assert_eq!(at_the_pin_pad(rig, PersonAct::Enters(WRONG_PIN.to_owned())), Err(RvError::PinIncorrect));
        assert_eq!(at_the_pin_pad(rig, PersonAct::Answers(Rv::FUNCTION_CANCELED)), Err(RvError::FunctionCanceled));
        let logins = rig.log().logins();
        assert_eq!(logins.iter().map(|login| login.reached_token).collect::<Vec<_>>(), [true, true, false]);
        assert!(logins[0].login.pin.is_some() && logins[2].login.pin.is_none());
        // A person who is quicker than the program.
        rig.control.person(None, PersonAct::Enters(USER_PIN.to_owned())).unwrap();
        rig.open().login(UserType::User, None).unwrap();
    });
}

#[test]
fn wrong_pins_at_the_pin_pad_cost_tries() {
    with_rig(test_name!(), |rig| {
        rig.control.pin_pad(None, true).unwrap();
        rig.control.pin_policy(None, Some(PinPolicy::tries(2))).unwrap();
        for answer in [RvError::PinIncorrect, RvError::PinIncorrect, RvError::PinLocked] {
            assert_eq!(at_the_pin_pad(rig, PersonAct::Enters(WRONG_PIN.to_owned())), Err(answer));
        }
        assert_eq!(rig.log().wrong_pins(), 2);
    });
}

#[test]
fn a_key_that_wants_a_login_for_each_signature_signs_once_for_each() {
    with_rig(test_name!(), |rig| {
        let (session, _) = rig.ready();
        let rsa = rsa_key(&session);
        rig.control.always_authenticate(None, &[&[2]]).unwrap();
        assert_eq!(session.get_attributes(rsa, &[AttributeType::AlwaysAuthenticate]).unwrap(), [Attribute::AlwaysAuthenticate(true)]);
        let ec = common::key(&session);
        assert_eq!(session.get_attributes(ec, &[AttributeType::AlwaysAuthenticate]).unwrap(), [Attribute::AlwaysAuthenticate(false)]);
        sign(&session, ec, 1).unwrap();
        for message in [b"one", b"two"] {
            session.sign_init(&Mechanism::Sha256RsaPkcs, rsa).unwrap();
            session.login(UserType::ContextSpecific, Some(&AuthPin::from(USER_PIN))).unwrap();
            session.sign_update(message).unwrap();
            session.sign_final().unwrap();
            assert_eq!(rig.log().signatures_on(message), 1);
        }
    });
}

#[test]
fn such_a_key_without_the_login_or_with_a_wrong_one_logs_the_user_out() {
    with_rig(test_name!(), |rig| {
        rig.control.always_authenticate(None, &[common::KEY_ID]).unwrap();
        let (session, key) = rig.ready();
        assert_eq!(rv(sign(&session, key, 1)), RvError::UserNotLoggedIn);
        assert_eq!(rv(session.sign_init(&Mechanism::Ecdsa, key)), RvError::UserNotLoggedIn, "the whole token is logged out");
        login(&session, USER_PIN).unwrap();
        let key = common::key(&session);
        session.sign_init(&Mechanism::Ecdsa, key).unwrap();
        assert_eq!(rv(session.login(UserType::ContextSpecific, Some(&AuthPin::from(WRONG_PIN)))), RvError::PinIncorrect);
        assert_eq!(rv(sign(&session, key, 1)), RvError::UserNotLoggedIn);
        assert!(rig.log().signings().iter().all(|call| call.outcome == Outcome::NotSigned));
        let wrong = rig.log().logins().pop().unwrap();
        assert_eq!((wrong.login.user, wrong.rv), (User::ContextSpecific, Some(Rv::PIN_INCORRECT)));
    });
}

fn rsa_key(session: &Session) -> cryptoki::object::ObjectHandle {
    let public = [Attribute::ModulusBits(1024.into()), Attribute::PublicExponent(vec![1, 0, 1])];
    let private = [Attribute::Token(true), Attribute::Private(true), Attribute::Sign(true), Attribute::Id(vec![2])];
    session.generate_key_pair(&Mechanism::RsaPkcsKeyPairGen, &public, &private).unwrap().1
}
