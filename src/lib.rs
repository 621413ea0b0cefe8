//! Sealgate puts signing keys that live in USB crypto tokens, smart cards, HSMs or SoftHSM behind HTTP.

#![doc = include_str!("../docs/architecture.md")]

pub mod audit;
pub mod auth;
pub mod cli;
pub mod cms;
pub mod config;
pub mod domain;
pub mod enrolment;
pub mod http;
pub mod notify;
pub mod permit;
pub mod pki;
pub mod shutdown;
pub mod signing;
pub mod stamping;
pub mod store;
pub mod telemetry;
pub mod ticket;
pub mod token;
pub mod verification;
