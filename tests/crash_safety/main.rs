//! `kill -9` at any moment: no accepted job is lost, none is signed twice, every use and every signature is accounted for.
//!
//! The real program over a SoftHSM token behind `pkcs11-faults`, whose log of every `C_Sign` is the truth; real clients that ask again when
//! their gateway goes away under them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod books;
#[path = "../common/mod.rs"]
mod common;
mod random_kills;
mod windows;
