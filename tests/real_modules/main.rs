//! The driver contract on real modules and cards, and what each of them does when it is pulled, killed or given a wrong PIN.
//!
//! What these tests need is installed and built by `scripts/real-modules.sh`; a test that misses something says so and fails.

#![allow(unreachable_pub, clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;
#[path = "../driver_contract/suite.rs"]
mod suite;

mod gateway;
mod kryoptic;
mod openpgp;
mod p11kit;
mod piv;
mod tpm;

use std::path::Path;

use sealgate::{
    domain::algorithm::{HashAlgorithm, SignatureAlgorithm},
    token::{
        driver::{CachedKey, DeviceError, TokenDriver, TokenModule as _},
        pkcs11::{ModuleOptions, Pkcs11Module},
    },
};

use suite::{pin, to_sign};

contract!(rules_on_an_openpgp_card, crate::openpgp::hold_to);
contract!(rules_on_a_piv_card, crate::piv::hold_to);
contract!(rules_on_a_tpm, crate::tpm::hold_to);
contract!(rules_on_p11_kit, crate::p11kit::hold_to);
contract!(rules_on_kryoptic, crate::kryoptic::hold_to);

fn load(name: &str, path: &Path) -> Pkcs11Module {
    Pkcs11Module::load(path, ModuleOptions::named(name.parse().unwrap())).unwrap()
}

fn opened_without_login(module: &Pkcs11Module, token_label: &str) -> Box<dyn TokenDriver> {
    let sighting = module.tokens().unwrap().into_iter().find(|sighting| sighting.token.label == token_label).unwrap();
    module.open(sighting.slot).unwrap()
}

fn opened(module: &Pkcs11Module, token_label: &str, user_pin: &str) -> Box<dyn TokenDriver> {
    let mut driver = opened_without_login(module, token_label);
    driver.login(Some(&pin(user_pin))).unwrap();
    driver
}

fn sign(driver: &mut dyn TokenDriver, key: &CachedKey) -> Result<(), DeviceError> {
    driver.sign(key, &to_sign(SignatureAlgorithm::Ecdsa(HashAlgorithm::Sha256)), None, &mut || ()).map(drop)
}

/// The return value and the function that an error is about.
#[track_caller]
fn said(result: Result<(), DeviceError>) -> String {
    let text = result.unwrap_err().to_string();
    let inner = text.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.unwrap_or_else(|| panic!("{text}")).to_owned()
}
