//! The driver contract: one suite of rules for whatever stands behind [`TokenDriver`](sealgate::token::driver::TokenDriver), held against the
//! scripted token and SoftHSM, and what only SoftHSM can show.

#![allow(unreachable_pub, clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;

mod loading;
mod softhsm;
mod suite;

use sealgate::{domain::pin::Pin, token::driver::TokenModule};

/// A module with one token and no keys, and the PINs that go with it.
pub struct Rig {
    module: Box<dyn TokenModule>,
    user_pin: Pin,
    wrong_pin: Pin,
    /// Makes a P-256 key that wants the PIN for each signature, with this `CKA_ID`.
    add_always_authenticate_key: Box<dyn Fn(u8)>,
}

fn pin(text: &str) -> Pin {
    Pin::new(text.to_owned()).unwrap()
}

/// Each rule as a test of its own, on each token.
macro_rules! rules {
    ($($rule:ident),+ $(,)?) => {
        mod rules_on_fake {
            $(#[test]
            fn $rule() {
                crate::suite::$rule(&crate::fake_rig());
            })+
        }
        mod rules_on_softhsm {
            $(#[test]
            fn $rule() {
                crate::softhsm::in_own_process(crate::test_name!(), || crate::suite::$rule(&crate::softhsm::rig()));
            })+
        }
    };
}

rules! {
    the_token_is_seen_with_its_names,
    the_token_says_that_it_is_present,
    a_slot_that_does_not_exist_cannot_be_opened,
    the_right_pin_logs_in,
    a_wrong_pin_is_rejected_and_the_flags_tell,
    a_second_login_is_no_proof_of_a_pin,
    a_login_without_a_pin_needs_a_pin_pad,
    closing_the_last_session_logs_out,
    before_a_login_no_key_is_seen,
    a_generated_key_is_kept_on_the_token,
    a_key_outlives_the_session,
    an_id_is_given_once,
    a_key_that_the_token_cannot_make_is_refused,
    a_key_is_found_by_id_and_by_label_and_by_both,
    a_key_that_is_not_there_is_not_found,
    two_keys_with_one_name_are_an_error,
    each_digest_is_signed_and_verifies,
    entering_is_called_once_for_each_signature,
    an_algorithm_of_another_key_is_refused_before_entering,
    the_offered_algorithms_are_those_that_fit_the_key,
    a_logout_elsewhere_loses_the_session,
    a_certificate_is_read_back_beside_its_key,
    what_is_no_certificate_is_not_written,
    a_key_that_wants_a_pin_each_time_signs_with_it,
    a_key_that_wants_a_pin_each_time_is_not_entered_without,
    a_wrong_pin_for_one_signature_leaves_a_session_that_must_be_reopened,
}

fn fake_rig() -> Rig {
    use sealgate::token::fake::{FAKE_PIN, Script};
    let script = Script::new(common::softhsm::TOKEN_LABEL);
    Rig {
        module: Box::new(script.module()),
        user_pin: pin(FAKE_PIN),
        wrong_pin: pin("654321"),
        add_always_authenticate_key: Box::new(move |id| script.add_always_authenticate_key(&[id], "always")),
    }
}

#[test]
fn a_token_is_made_on_the_fake() {
    let script = sealgate::token::fake::Script::uninitialised();
    suite::a_token_is_made_in_a_free_slot(&script.module());
}

#[test]
fn a_token_is_made_on_softhsm() {
    common::own_process::run(
        test_name!(),
        |directory| common::softhsm::SoftHsm::in_directory(directory).environment(),
        || suite::a_token_is_made_in_a_free_slot(&softhsm::load()),
    );
}
