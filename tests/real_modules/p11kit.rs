//! p11-kit's remoting, with SoftHSM behind it.

use crate::{
    common::{
        own_process,
        p11kit::P11Kit,
        softhsm::{SoftHsm, TOKEN_LABEL, USER_PIN},
    },
    load,
    suite::{self, Cannot, Keys, Rig, every_kind, pin},
};

pub const CANNOT: &[Cannot] = &[];

pub fn hold_to(test: &str, name: &str, rule: fn(&Rig)) {
    own_process::run(
        test,
        |directory| {
            let mut environment = SoftHsm::in_directory(directory).init_token(TOKEN_LABEL).environment();
            environment.push(P11Kit::address_in(directory));
            environment
        },
        || {
            let _server = P11Kit::serve(&SoftHsm::of_this_process());
            let rig = Rig {
                module: Box::new(load("p11-kit", &P11Kit::client_module())),
                token_label: TOKEN_LABEL,
                user_pin: pin(USER_PIN),
                wrong_pin: pin("654321"),
                keys: Keys::Made(every_kind()[..6].to_vec()),
                add_always_authenticate_key: Box::new(always_key),
            };
            suite::check(&rig, name, rule, CANNOT);
        },
    );
}

fn always_key() {
    let generate = ["--keypairgen", "--key-type", "EC:prime256v1", "--label", "always", "--usage-sign", "--always-auth", "--id", "01"];
    SoftHsm::of_this_process().pkcs11_tool(&generate);
}
