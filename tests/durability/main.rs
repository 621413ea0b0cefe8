//! What being durable means: the order in which things reach the disk, what happens when they cannot, what is left of what was deleted,
//! and that memory does not grow with what is kept.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod bounded;
#[path = "../common/mod.rs"]
mod common;
mod disk_full;
mod large;
mod remains;
mod sync_order;
mod trace;
