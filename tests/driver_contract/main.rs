//! The driver contract: one suite of rules for whatever stands behind [`TokenDriver`](sealgate::token::driver::TokenDriver), held against the
//! scripted token and SoftHSM, and what only SoftHSM can show.

#![allow(unreachable_pub, clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;

mod loading;
mod softhsm;
mod suite;

use common::softhsm::TOKEN_LABEL;
use sealgate::domain::algorithm::{Curve, KeyKind};
use suite::{Keys, Rig, pin};

contract!(rules_on_fake, crate::on_fake);
contract!(rules_on_softhsm, crate::on_softhsm);
contract!(
    writing_on_fake,
    crate::on_fake,
    certificates_are_listed_and_removed_one_by_one,
    a_key_pair_is_destroyed_with_both_halves_and_no_other,
);
contract!(
    writing_on_softhsm,
    crate::on_softhsm,
    certificates_are_listed_and_removed_one_by_one,
    a_key_pair_is_destroyed_with_both_halves_and_no_other,
);

fn on_fake(_: &str, rule: &str, body: fn(&Rig)) {
    suite::check(&fake_rig(), rule, body, &[]);
}

fn on_softhsm(test: &str, rule: &str, body: fn(&Rig)) {
    softhsm::in_own_process(test, || suite::check(&softhsm::rig(), rule, body, &[]));
}

fn fake_rig() -> Rig {
    use sealgate::token::fake::{FAKE_PIN, Script};
    let script = Script::new(TOKEN_LABEL);
    Rig {
        module: Box::new(script.module()),
        user_pin: pin(FAKE_PIN),
        wrong_pin: pin("654321"),
        token_label: TOKEN_LABEL,
        keys: Keys::Made(vec![KeyKind::Ec(Curve::P256)]),
        add_always_authenticate_key: Box::new(move || script.add_always_authenticate_key(&[1], "always")),
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
