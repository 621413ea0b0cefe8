//! Every form of signature from every kind of key through one gateway, as OpenSSL, pyHanko and a script of asn1crypto see them.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../common/mod.rs"]
mod common;

mod containers;
mod evidence;
mod existing;
mod matrix;
