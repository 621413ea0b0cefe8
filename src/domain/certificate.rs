//! The one thing that the domain reads from a certificate: its number.

use der::Decode as _;
use x509_cert::Certificate;

/// The serial number of a certificate in DER, in hex; `None` if it is not one.
#[must_use]
pub fn serial_number(certificate: &[u8]) -> Option<String> {
    let certificate = Certificate::from_der(certificate).ok()?;
    Some(hex::encode(certificate.tbs_certificate().serial_number().as_bytes()))
}
