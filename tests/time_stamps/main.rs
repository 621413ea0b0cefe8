//! Time stamps: authorities that answer well or badly, the gateway as one of them, and signatures that get theirs.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../common/mod.rs"]
mod common;

mod authority;
mod client;
mod signatures;
mod tickets;
