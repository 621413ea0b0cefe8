//! The way of one signature.

pub mod verify;
