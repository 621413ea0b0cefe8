//! OpenSC with a PIV card.

use crate::{
    common::{
        own_process,
        pcscd::{Pcscd, opensc_module},
        vcard::{CARD_PIN, Kind, VCard},
    },
    load,
    suite::{self, Cannot, Keys, Rig, pin},
};

/// The name in the certificate of key 9A.
const TOKEN_LABEL: &str = "PIV 9A";

pub const CANNOT: &[Cannot] = &[];

pub fn hold_to(test: &str, name: &str, rule: fn(&Rig)) {
    own_process::run_apart(
        test,
        |_| Vec::new(),
        || {
            let directory = own_process::directory();
            let _pcscd = Pcscd::start(&directory);
            let card = VCard::insert_new(Kind::Piv, &directory);
            card.make_piv_keys();
            let rig = Rig {
                module: Box::new(load("opensc", &opensc_module())),
                token_label: TOKEN_LABEL,
                user_pin: pin(CARD_PIN),
                wrong_pin: pin("654321"),
                keys: Keys::OnTheCard(vec![1, 4]),
                add_always_authenticate_key: Box::new(|| ()),
            };
            suite::check(&rig, name, rule, CANNOT);
        },
    );
}
