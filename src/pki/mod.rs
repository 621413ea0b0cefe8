//! X.509: certificates as the gateway reads them, whom it trusts, whether a certificate was good at a time, and the development CA.
//!
//! Nothing here reads a clock: whoever calls passes the time in. Files are read by [`trust`] only. Uses the domain only.
//! Invariants: a certificate keeps the very bytes it was read from; a certificate that is too long is not parsed; nothing is trusted that
//! the configuration does not name.

mod certificate;
pub mod csr;
mod dev_ca;
pub mod path;
pub mod trust;

pub use crate::domain::public_key::key_kind_of_spki;
pub use certificate::{CERTIFICATE_MAX, Certificate, CertificateError, KeyUsage, NameAttribute};
pub use dev_ca::{COMMON_NAME_MAX, DevCa, DevCaError, Validity};
