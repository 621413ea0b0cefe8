//! The audit log as a whole: proving it, carrying it out, signing it, and keeping refusals from filling it.
//!
//! Records are made in `domain::audit` and written by `store` in the commit of what they tell of; this module adds what is told of no commit.
//! Callers: `permit` and `signing` (refusals), `http` (the operators' desk), `cli` (everything else, and it wires the key that signs checkpoints). Invariant: verifying
//! believes nothing but the bytes in front of it, and the keys and heads that whoever asks has brought along; its memory has a bound.

pub mod chain;
pub mod checkpoint;
pub mod desk;
pub mod export;
pub mod refusals;
pub mod verify;
