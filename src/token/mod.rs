//! The PKCS#11 side: modules, tokens, sessions, keys.
//!
//! Whoever wants a signature speaks to a slot; only the slot's own thread speaks to the token, through the traits in [`driver`].
//! This module knows nothing of jobs, callers or HTTP. Invariant: `cryptoki` is named in [`pkcs11`] and nowhere else.

pub mod driver;
#[cfg(any(test, feature = "fake-token"))]
pub mod fake;
pub mod pkcs11;
