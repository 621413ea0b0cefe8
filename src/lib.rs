//! Sealgate puts signing keys that live in USB crypto tokens, smart cards, HSMs or SoftHSM behind HTTP.

pub mod config;
pub mod cms;
pub mod domain;
pub mod shutdown;
pub mod signing;
pub mod store;
pub mod telemetry;
pub mod token;
