//! X.509: certificates as the gateway reads them, the development CA that makes them, and the clients of authorities.
//!
//! Bytes in, bytes out, but for [`fetch`] and the clients on it: the only outgoing HTTP of the gateway. Nothing here reads files or a wall
//! clock: whoever calls passes the time in. Uses the domain only.
//! Invariants: a certificate keeps the very bytes it was read from; a certificate that is too long is not parsed.

mod certificate;
mod dev_ca;
pub mod fetch;
pub mod tsa;

pub use crate::domain::public_key::key_kind_of_spki;
pub use certificate::{CERTIFICATE_MAX, Certificate, CertificateError, KeyUsage, NameAttribute};
pub use dev_ca::{COMMON_NAME_MAX, DevCa, DevCaError, Validity};
