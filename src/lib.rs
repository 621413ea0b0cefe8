//! Sealgate puts signing keys that live in USB crypto tokens, smart cards, HSMs or SoftHSM behind HTTP.

pub mod domain;
pub mod token;
