//! tpm2-pkcs11 with a software TPM.

use sealgate::{
    domain::algorithm::{Curve, KeyKind},
    token::driver::TokenModule as _,
};

use crate::{
    common::{
        own_process,
        softhsm::{SO_PIN, TOKEN_LABEL, USER_PIN},
        swtpm::{ResourceManager, SwTpm},
    },
    load,
    suite::{self, Cannot, Keys, Rig, pin},
};

pub const CANNOT: &[Cannot] = &[];

pub fn hold_to(test: &str, name: &str, rule: fn(&Rig)) {
    own_process::run_apart(test, ResourceManager::environment, || {
        let directory = own_process::directory();
        let _tpm = SwTpm::start(&directory);
        let _manager = ResourceManager::start(&directory);
        let module = load("tpm", &SwTpm::module());
        module.create_token(TOKEN_LABEL, &pin(SO_PIN), &pin(USER_PIN)).unwrap();
        let rig = Rig {
            module: Box::new(module),
            token_label: TOKEN_LABEL,
            user_pin: pin(USER_PIN),
            wrong_pin: pin("654321"),
            keys: Keys::Made(vec![
                KeyKind::Rsa { modulus_bits: 2048 },
                KeyKind::Rsa { modulus_bits: 3072 },
                KeyKind::Ec(Curve::P256),
                KeyKind::Ec(Curve::P384),
            ]),
            add_always_authenticate_key: Box::new(|| ()),
        };
        suite::check(&rig, name, rule, CANNOT);
    });
}
