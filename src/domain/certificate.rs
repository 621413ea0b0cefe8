//! What the domain reads from certificates: their numbers, and who the holder of a TLS client certificate is.

use std::{fmt, str::FromStr};

use der::Decode as _;
use serde::{Deserialize, Serialize};
use x509_cert::{Certificate, name::Name, time::Time};

use super::{audit::Sha256, timestamp::Timestamp};

/// The serial number of a certificate in DER, in hex; `None` if it is not one.
#[must_use]
pub fn serial_number(certificate: &[u8]) -> Option<String> {
    let certificate = Certificate::from_der(certificate).ok()?;
    Some(hex::encode(certificate.tbs_certificate().serial_number().as_bytes()))
}

/// When a certificate is in force: from the first moment to the last second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// The first moment.
    pub not_before: Timestamp,
    /// The beginning of the last second.
    pub not_after: Timestamp,
}

impl Validity {
    /// Whether `time` is within it; the last second counts (RFC 5280 section 4.1.2.5).
    #[must_use]
    pub fn includes(&self, time: Timestamp) -> bool {
        let second = Timestamp::from_millis(time.as_millis() / 1000 * 1000);
        (self.not_before..=self.not_after).contains(&second)
    }
}

/// When a certificate in DER is in force; `None` if it is not one.
#[must_use]
pub fn validity(certificate: &[u8]) -> Option<Validity> {
    let certificate = Certificate::from_der(certificate).ok()?;
    let validity = certificate.tbs_certificate().validity();
    let at = |time: Time| Timestamp::from_millis(u64::try_from(time.to_unix_duration().as_millis()).unwrap_or(u64::MAX));
    Some(Validity { not_before: at(validity.not_before), not_after: at(validity.not_after) })
}

/// The whole name of a certificate's subject, kept as RFC 4514 writes it, so that the kind of string in the certificate does not matter.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SubjectName(String);

/// A text that is no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not a subject's name; write what this prints after `subject=`: openssl x509 -noout -subject -nameopt RFC2253 -in FILE")]
pub struct SubjectNameError;

impl FromStr for SubjectName {
    type Err = SubjectNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let name = text.parse::<Name>().map_err(|_| SubjectNameError)?;
        // A certificate without a name names nobody.
        if name.is_empty() { Err(SubjectNameError) } else { Ok(Self(name.to_string())) }
    }
}

impl TryFrom<String> for SubjectName {
    type Error = SubjectNameError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<SubjectName> for String {
    fn from(name: SubjectName) -> Self {
        name.0
    }
}

impl fmt::Display for SubjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// By what a caller's TLS client certificate is known.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClientCertificateId {
    /// Any certificate with this subject.
    Subject(SubjectName),
    /// This certificate alone: SHA-256 of its DER.
    Sha256(Sha256),
}

/// A certificate that a TLS client has shown, and whose key it has proved to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    subject: Option<SubjectName>,
    sha256: Sha256,
}

impl ClientCertificate {
    /// Reads it from DER; `None` if that is no certificate.
    #[must_use]
    pub fn from_der(der: &[u8]) -> Option<Self> {
        let certificate = Certificate::from_der(der).ok()?;
        let subject = certificate.tbs_certificate().subject();
        let subject = (!subject.is_empty()).then(|| SubjectName(subject.to_string()));
        Some(Self { subject, sha256: Sha256::of(der) })
    }

    /// What it may be known by, the most exact first.
    pub fn ids(&self) -> impl Iterator<Item = ClientCertificateId> {
        let subject = self.subject.clone().map(ClientCertificateId::Subject);
        [Some(ClientCertificateId::Sha256(self.sha256)), subject].into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_the_same_however_it_is_written() {
        let name = |text: &str| text.parse::<SubjectName>().unwrap();
        assert_eq!(name("CN=erp,O=Example"), name("cn=erp,o=Example"));
        assert_ne!(name("CN=erp,O=Example"), name("O=Example,CN=erp"));
        assert_ne!(name("CN=erp"), name("CN=ERP"));
        for bad in ["", "erp", "CN", "/CN=erp"] {
            assert_eq!(bad.parse::<SubjectName>(), Err(SubjectNameError), "{bad}");
        }
    }

    #[test]
    fn a_comma_in_a_name_does_not_make_it_another() {
        let name = |text: &str| text.parse::<SubjectName>().unwrap();
        assert_ne!(name("CN=erp\\,O=Example"), name("CN=erp,O=Example"));
        assert_eq!(name("CN=erp\\,O=Example").to_string(), "CN=erp\\,O=Example");
    }
}
