//! Path validation against NIST's suite and against certificates that OpenSSL makes, each with the rule that it breaks.

#![allow(clippy::unwrap_used)] // in the helpers of tests

#[path = "../common/mod.rs"]
mod common;
mod generated;
mod pkits;
