//! What being durable means: the order in which things reach the disk, what happens when they cannot, and what is left of what was deleted.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod bounded;
#[path = "../common/mod.rs"]
mod common;
mod disk_full;
mod remains;
mod sync_order;
mod trace;
