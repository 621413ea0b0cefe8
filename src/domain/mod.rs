//! The words of the field as types: what a key, a signature, a job, a permit is and which of their changes are lawful.
//!
//! Everything here is pure: no IO, no clock, no async, no PKCS#11, no HTTP. Every other module may use this one and it uses none of them.
//! Invariant: a value of one of these types is valid by construction; nobody downstream checks it again.

pub mod algorithm;
pub mod algorithm_identifier;
pub mod audit;
pub mod bytes;
pub mod caller;
pub mod certificate;
pub mod consent;
pub mod digest;
pub mod enrolment;
pub mod fence;
pub mod hash;
pub mod idempotency;
pub mod ids;
pub mod job;
pub mod key;
pub mod key_uri;
pub mod lease;
pub mod notice;
pub mod operator;
pub mod permit;
pub mod pin;
pub mod public_key;
pub mod request_id;
pub mod revocation;
pub mod signature;
pub mod stored_caller;
pub mod ticket;
pub mod timestamp;
pub mod token;
pub mod verify;
