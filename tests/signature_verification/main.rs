//! Signatures that other programs make, and broken ones: what holds, what does not, and the reason that is given.

#![allow(clippy::unwrap_used)] // in the helpers of tests

mod broken;
mod command;
#[path = "../common/mod.rs"]
mod common;
mod edit;
mod flips;
mod lab;
mod others;
mod over_http;
mod revocation;
mod stamps;
mod tools;
