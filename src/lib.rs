//! Sealgate puts signing keys that live in USB crypto tokens, smart cards, HSMs or SoftHSM behind HTTP.

pub mod auth;
pub mod cms;
pub mod domain;
pub mod http;
pub mod permit;
pub mod pki;
pub mod signing;
pub mod store;
pub mod ticket;
pub mod token;
