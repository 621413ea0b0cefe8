//! X.509: certificates as the gateway reads them, whom it trusts, whether a certificate was good at a time, the development CA, and the clients of
//! authorities.
//!
//! Nothing here reads a wall clock: whoever calls passes the time in. Files are read by [`trust`], the network by [`fetch`] and the clients on it
//! only: the only outgoing HTTP of the gateway. Uses the domain only.
//! Invariants: a certificate keeps the very bytes it was read from; a certificate that is too long is not parsed; nothing is trusted that
//! the configuration does not name.

mod certificate;
pub mod csr;
mod dev_ca;
pub mod fetch;
pub mod path;
pub mod revocation;
pub mod trust;
pub mod tsa;

pub use crate::domain::public_key::key_kind_of_spki;
pub use certificate::{CERTIFICATE_MAX, Certificate, CertificateError, KeyUsage, NameAttribute};
pub use dev_ca::{COMMON_NAME_MAX, DevCa, DevCaError, ServerIdentity, Validity};
