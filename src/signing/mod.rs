//! The way of one signature.

pub mod service;
pub mod tokens;
