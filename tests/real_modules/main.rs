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

use sealgate::token::pkcs11::{ModuleOptions, Pkcs11Module};

contract!(rules_on_an_openpgp_card, crate::openpgp::hold_to);
contract!(rules_on_a_piv_card, crate::piv::hold_to);
contract!(rules_on_a_tpm, crate::tpm::hold_to);
contract!(rules_on_p11_kit, crate::p11kit::hold_to);
contract!(rules_on_kryoptic, crate::kryoptic::hold_to);

fn load(name: &str, path: &Path) -> Pkcs11Module {
    Pkcs11Module::load(path, ModuleOptions::named(name.parse().unwrap())).unwrap()
}
