//! An X.509 certificate (RFC 5280), parsed once, with the bytes it came from.

use std::fmt;

use aws_lc_rs::digest;
use const_oid::{ObjectIdentifier, db::rfc4519};
use der::{
    Decode, Encode,
    pem::{self, LineEnding},
};
use x509_cert::{
    ext::pkix::{self, name::DirectoryString},
    name::Name,
    time::Time,
};

use crate::domain::{algorithm::KeyKind, public_key::key_kind_of_spki, timestamp::Timestamp};

/// The longest certificate that is parsed, in bytes of DER.
pub const CERTIFICATE_MAX: usize = 64 * 1024;

/// The longest PEM text that is looked at: base64 takes four bytes for three, and line ends and a preamble want room.
const PEM_MAX: usize = 2 * CERTIFICATE_MAX;

/// The PEM label of certificates (RFC 7468 section 5).
const PEM_LABEL: &str = "CERTIFICATE";

/// Bytes that are no certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// Longer than anything that is parsed here.
    #[error("a certificate has at most {CERTIFICATE_MAX} bytes, not {got}")]
    TooLong {
        /// The length that was given, in bytes.
        got: usize,
    },
    /// Not PEM, or PEM of something else.
    #[error("not a PEM certificate: {0}")]
    Pem(String),
    /// Not an X.509 certificate in DER.
    #[error("not an X.509 certificate: {0}")]
    Der(String),
}

/// What a key may be used for, as far as it matters for signatures (RFC 5280 section 4.2.1.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyUsage {
    /// `digitalSignature`.
    pub digital_signature: bool,
    /// `nonRepudiation`, also called contentCommitment.
    pub non_repudiation: bool,
    /// `keyCertSign`.
    pub key_cert_sign: bool,
    /// `cRLSign`.
    pub crl_sign: bool,
}

/// An attribute of a name (X.520) that people are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameAttribute {
    /// `commonName`.
    CommonName,
    /// `organizationName`.
    Organization,
    /// `organizationalUnitName`.
    OrganizationalUnit,
    /// `title`.
    Title,
    /// `countryName`.
    Country,
    /// `stateOrProvinceName`.
    StateOrProvince,
    /// `localityName`.
    Locality,
    /// `serialNumber` of the person or organisation, not of the certificate.
    SerialNumber,
}

/// A parsed certificate. What it says is not checked: neither its signature nor its validity.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    der: Vec<u8>,
    parsed: x509_cert::Certificate,
    spki: Vec<u8>,
    key_usage: Option<KeyUsage>,
}

impl Certificate {
    /// Parses a certificate in DER.
    ///
    /// # Errors
    /// [`CertificateError::TooLong`], [`CertificateError::Der`].
    pub fn from_der(der: &[u8]) -> Result<Self, CertificateError> {
        if der.len() > CERTIFICATE_MAX {
            return Err(CertificateError::TooLong { got: der.len() });
        }
        Self::parse(der).map_err(|error| CertificateError::Der(error.to_string()))
    }

    /// Parses the first certificate of a PEM text.
    ///
    /// # Errors
    /// As [`from_der`](Self::from_der), and [`CertificateError::Pem`].
    pub fn from_pem(text: &str) -> Result<Self, CertificateError> {
        if text.len() > PEM_MAX {
            return Err(CertificateError::TooLong { got: text.len() });
        }
        let (label, der) = pem::decode_vec(text.as_bytes()).map_err(|error| CertificateError::Pem(error.to_string()))?;
        if label != PEM_LABEL {
            return Err(CertificateError::Pem(format!("its label is not {PEM_LABEL}")));
        }
        Self::from_der(&der)
    }

    fn parse(der: &[u8]) -> der::Result<Self> {
        let parsed = x509_cert::Certificate::from_der(der)?;
        let tbs = parsed.tbs_certificate();
        let spki = tbs.subject_public_key_info().to_der()?;
        let key_usage = tbs.get_extension::<pkix::KeyUsage>()?.map(|(_critical, usage)| KeyUsage::from(usage));
        Ok(Self { der: der.to_vec(), parsed, spki, key_usage })
    }

    /// The certificate as it was read, in DER.
    #[must_use]
    pub fn as_der(&self) -> &[u8] {
        &self.der
    }

    /// The same in PEM, with a line feed at each line's end.
    #[must_use]
    pub fn to_pem(&self) -> String {
        let encoded = pem::encode_string(PEM_LABEL, LineEnding::LF, &self.der);
        // INVARIANT: the label is a good one and the length is limited by CERTIFICATE_MAX, so encoding has no way to fail.
        #[allow(clippy::expect_used)]
        encoded.expect("a certificate of limited length has a PEM form")
    }

    /// The subject's name (RFC 4514).
    #[must_use]
    pub fn subject(&self) -> String {
        self.parsed.tbs_certificate().subject().to_string()
    }

    /// The issuer's name (RFC 4514).
    #[must_use]
    pub fn issuer(&self) -> String {
        self.parsed.tbs_certificate().issuer().to_string()
    }

    /// The first common name of the subject; `None` if it has none.
    #[must_use]
    pub fn common_name(&self) -> Option<String> {
        let name = self.parsed.tbs_certificate().subject().common_name().ok()??;
        Some(name.value().into_owned())
    }

    /// An attribute of the subject's name; the first, if there are several.
    #[must_use]
    pub fn subject_attribute(&self, attribute: NameAttribute) -> Option<String> {
        attribute.find_in(self.parsed.tbs_certificate().subject())
    }

    /// An attribute of the issuer's name; the first, if there are several.
    #[must_use]
    pub fn issuer_attribute(&self, attribute: NameAttribute) -> Option<String> {
        attribute.find_in(self.parsed.tbs_certificate().issuer())
    }

    /// The serial number in lower-case hexadecimal digits, two a byte.
    #[must_use]
    pub fn serial(&self) -> String {
        let number = match self.parsed.tbs_certificate().serial_number().as_bytes() {
            // DER puts a zero byte before a number whose first bit is set.
            [0, number @ ..] if !number.is_empty() => number,
            number => number,
        };
        hex::encode(number)
    }

    /// The first moment of its validity.
    #[must_use]
    pub fn not_before(&self) -> Timestamp {
        timestamp(self.parsed.tbs_certificate().validity().not_before)
    }

    /// The last second of its validity.
    #[must_use]
    pub fn not_after(&self) -> Timestamp {
        timestamp(self.parsed.tbs_certificate().validity().not_after)
    }

    /// Whether `time` is within its validity.
    #[must_use]
    pub fn valid_at(&self, time: Timestamp) -> bool {
        // Validity counts whole seconds and includes the last one (RFC 5280 section 4.1.2.5).
        let second = Timestamp::from_millis(time.as_millis() / 1000 * 1000);
        (self.not_before()..=self.not_after()).contains(&second)
    }

    /// `SubjectPublicKeyInfo` in DER.
    #[must_use]
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// What the key is.
    #[must_use]
    pub fn key_kind(&self) -> KeyKind {
        key_kind_of_spki(&self.spki)
    }

    /// What the key may be used for; `None` if the certificate does not say, which means for anything.
    #[must_use]
    pub const fn key_usage(&self) -> Option<KeyUsage> {
        self.key_usage
    }

    /// What `extKeyUsage` limits the key to, and whether the extension is critical; `None` if it is not there. One that cannot be read, or
    /// stands twice, allows nothing.
    #[must_use]
    pub fn extended_key_usage(&self) -> Option<(bool, Vec<ObjectIdentifier>)> {
        match self.parsed.tbs_certificate().get_extension::<pkix::ExtendedKeyUsage>() {
            Ok(found) => found.map(|(critical, usage)| (critical, usage.0)),
            Err(_) => Some((false, Vec::new())),
        }
    }

    /// The `subjectKeyIdentifier`; `None` if it is not there, or cannot be read.
    #[must_use]
    pub fn subject_key_identifier(&self) -> Option<Vec<u8>> {
        let (_, identifier) = self.parsed.tbs_certificate().get_extension::<pkix::SubjectKeyIdentifier>().ok()??;
        Some(identifier.0.into_bytes().into_vec())
    }

    /// The key identifier of the issuer's key, by `authorityKeyIdentifier`.
    #[must_use]
    pub fn authority_key_identifier(&self) -> Option<Vec<u8>> {
        let (_, identifier) = self.parsed.tbs_certificate().get_extension::<pkix::AuthorityKeyIdentifier>().ok()??;
        Some(identifier.key_identifier?.into_bytes().into_vec())
    }

    /// Whether it says that it is a CA's (`basicConstraints`).
    #[must_use]
    pub fn is_ca(&self) -> bool {
        let constraints = self.parsed.tbs_certificate().get_extension::<pkix::BasicConstraints>();
        constraints.is_ok_and(|found| found.is_some_and(|(_, constraints)| constraints.ca))
    }

    /// The critical extensions, by their object identifiers.
    pub(super) fn critical_extensions(&self) -> impl Iterator<Item = ObjectIdentifier> {
        let extensions = self.parsed.tbs_certificate().extensions().into_iter().flatten();
        extensions.filter(|extension| extension.critical).map(|extension| extension.extn_id)
    }

    /// Whether it has an extension, whatever it says.
    pub(super) fn has_extension(&self, oid: ObjectIdentifier) -> bool {
        self.parsed.tbs_certificate().extensions().into_iter().flatten().any(|extension| extension.extn_id == oid)
    }

    /// The certificate as the library has it.
    pub(super) const fn as_parsed(&self) -> &x509_cert::Certificate {
        &self.parsed
    }

    /// SHA-256 of the certificate.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(digest::digest(&digest::SHA256, &self.der).as_ref());
        fingerprint
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({}, serial {})", self.subject(), self.serial())
    }
}

impl NameAttribute {
    fn find_in(self, name: &Name) -> Option<String> {
        let oid = match self {
            Self::CommonName => rfc4519::CN,
            Self::Organization => rfc4519::O,
            Self::OrganizationalUnit => rfc4519::OU,
            Self::Title => rfc4519::TITLE,
            Self::Country => rfc4519::C,
            Self::StateOrProvince => rfc4519::ST,
            Self::Locality => rfc4519::L,
            Self::SerialNumber => rfc4519::SERIAL_NUMBER,
        };
        let value: DirectoryString = name.by_oid(oid).ok()??;
        Some(value.value().into_owned())
    }
}

impl KeyUsage {
    /// Whether signatures of documents are among it.
    #[must_use]
    pub const fn signs_documents(self) -> bool {
        self.digital_signature || self.non_repudiation
    }
}

impl From<pkix::KeyUsage> for KeyUsage {
    fn from(usage: pkix::KeyUsage) -> Self {
        Self {
            digital_signature: usage.digital_signature(),
            non_repudiation: usage.non_repudiation(),
            key_cert_sign: usage.key_cert_sign(),
            crl_sign: usage.crl_sign(),
        }
    }
}

fn timestamp(time: Time) -> Timestamp {
    Timestamp::from_millis(time.to_unix_duration().as_secs().saturating_mul(1000))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// P-256, made with `openssl ca -selfsign`; `O=Ромашка, CN=Test signer`, serial 0x0a1b, 2026-01-02 03:04:05 to 2051-06-07 08:09:10,
    /// keyUsage nonRepudiation.
    const SAMPLE: &str = include_str!("testdata/sample.pem");

    fn sample() -> Certificate {
        Certificate::from_pem(SAMPLE).unwrap()
    }

    #[test]
    fn a_certificate_says_who_when_and_what() {
        let sample = sample();
        assert_eq!(sample.common_name().as_deref(), Some("Test signer"));
        assert_eq!(sample.subject(), "CN=Test signer,O=Ромашка");
        assert_eq!(sample.issuer(), sample.subject());
        assert_eq!(sample.issuer_attribute(NameAttribute::Organization).as_deref(), Some("Ромашка"));
        assert_eq!(sample.subject_attribute(NameAttribute::Country), None);
        assert_eq!(sample.serial(), "0a1b");
        assert_eq!(sample.key_kind().to_string(), "EC P-256");
        let usage = sample.key_usage().unwrap();
        assert_eq!(usage, KeyUsage { digital_signature: false, non_repudiation: true, key_cert_sign: false, crl_sign: false });
        assert!(usage.signs_documents());
    }

    #[test]
    fn validity_includes_its_first_and_its_last_second() {
        let sample = sample();
        assert_eq!(sample.not_before(), Timestamp::from_millis(1_767_323_045_000));
        assert_eq!(sample.not_after(), Timestamp::from_millis(2_569_738_150_000));
        let valid_at = |millis| sample.valid_at(Timestamp::from_millis(millis));
        assert!(!valid_at(1_767_323_044_999) && valid_at(1_767_323_045_000));
        assert!(valid_at(2_569_738_150_999) && !valid_at(2_569_738_151_000));
    }

    #[test]
    fn pem_and_der_are_the_same_certificate() {
        let sample = sample();
        assert_eq!(Certificate::from_der(sample.as_der()), Ok(sample.clone()));
        assert_eq!(sample.to_pem(), SAMPLE);
    }

    #[test]
    fn the_fingerprint_is_that_of_openssl() {
        assert_eq!(hex::encode(sample().fingerprint()), include_str!("testdata/sample.sha256").trim());
    }

    #[test]
    fn what_is_no_certificate_is_refused_with_the_reason() {
        let key = SAMPLE.replace("CERTIFICATE", "PUBLIC KEY");
        assert_eq!(Certificate::from_pem(&key), Err(CertificateError::Pem("its label is not CERTIFICATE".to_owned())));
        assert!(matches!(Certificate::from_pem("no PEM"), Err(CertificateError::Pem(_))));
        assert!(matches!(Certificate::from_der(b"no DER"), Err(CertificateError::Der(_))));
        let long = vec![0x30; CERTIFICATE_MAX + 1];
        assert_eq!(Certificate::from_der(&long), Err(CertificateError::TooLong { got: CERTIFICATE_MAX + 1 }));
        assert!(matches!(Certificate::from_pem(&"A".repeat(PEM_MAX + 1)), Err(CertificateError::TooLong { .. })));
    }

    proptest! {
        #[test]
        fn a_damaged_certificate_is_read_or_refused_without_a_panic(position in 0usize..2000, value in any::<u8>()) {
            let mut der = sample().as_der().to_vec();
            let position = position % der.len();
            der[position] = value;
            if let Ok(read) = Certificate::from_der(&der) {
                let _ = (read.subject(), read.common_name(), read.serial(), read.key_kind(), read.not_after(), format!("{read:?}"));
            }
        }
    }
}
