//! Kryoptic.

use sealgate::token::driver::TokenModule as _;

use crate::{
    common::{
        kryoptic, own_process,
        softhsm::{SO_PIN, TOKEN_LABEL, USER_PIN, pkcs11_tool},
    },
    load,
    suite::{self, Cannot, Keys, Rig, every_kind, pin},
};

pub const CANNOT: &[Cannot] = &[];

pub fn hold_to(test: &str, name: &str, rule: fn(&Rig)) {
    own_process::run(test, kryoptic::environment, || {
        let module = load("kryoptic", &kryoptic::module());
        module.create_token(TOKEN_LABEL, &pin(SO_PIN), &pin(USER_PIN)).unwrap();
        let rig = Rig {
            module: Box::new(module),
            token_label: TOKEN_LABEL,
            user_pin: pin(USER_PIN),
            wrong_pin: pin("654321"),
            keys: Keys::Made(every_kind()[..6].to_vec()),
            add_always_authenticate_key: Box::new(always_key),
        };
        suite::check(&rig, name, rule, CANNOT);
    });
}

fn always_key() {
    let generate = ["--keypairgen", "--key-type", "EC:prime256v1", "--label", "always", "--usage-sign", "--always-auth", "--id", "01"];
    pkcs11_tool(&kryoptic::module(), &[], &generate);
}
