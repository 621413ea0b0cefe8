//! The way of one signature: authorise → reserve → submit → sign → verify → record.
//!
//! [`service::SigningService`] is the only place that knows the order of the steps; a dispatcher per token carries them out once a job is
//! accepted. Callers: `ticket` (and later `csc`, `enrolment`), and for tokens as such `http`'s operator routes. Nothing here knows status
//! codes or SQL. Invariants: a job is stored before the token hears of it, its result before anybody else does; a signature leaves only
//! after it was verified in software; what may have been signed is never signed again by itself.

pub mod activity;
pub mod canary;
mod dispatcher;
mod ended;
mod housekeeping;
pub mod jobs;
mod keyring;
mod leases;
mod order;
pub mod own;
mod pin_watch;
mod pins;
pub mod recovery;
mod refusal;
pub mod service;
pub mod tokens;
pub mod verify;
