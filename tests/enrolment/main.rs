//! Certificate requests, from the form to a signature with the certificate: over HTTP as a bank's client does it, with each check made to
//! fail alone, with crashes between the steps, and with a CA that speaks EST.

#![allow(unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

#[path = "../common/mod.rs"]
mod common;

mod checks;
mod est;
mod flow;
mod foreign;
mod notices;
mod real_token;
mod validity;

use common::bank as rig;
