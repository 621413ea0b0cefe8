//! The development CA: certificates for the keys of development mode.
//!
//! Its own key is a software key; keys on tokens never are. It makes bytes and keeps none: where they are stored is the business of `cli`.
//! Invariants: a leaf is for signatures only and never outlives the CA; the private key leaves only as a text that wipes itself.

use std::net::IpAddr;

use aws_lc_rs::rand;
use const_oid::{
    ObjectIdentifier,
    db::{rfc4519::COMMON_NAME, rfc5280, rfc5912::ECDSA_WITH_SHA_256},
};
use der::{
    Any, Decode, Encode, Tag,
    asn1::{Ia5String, OctetString, SetOfVec, Uint},
    pem::LineEnding,
};
use p256::{
    SecretKey,
    ecdsa::{
        DerSignature, SigningKey, VerifyingKey,
        signature::{self, Keypair, Signer},
    },
    elliptic_curve::Generate,
    pkcs8::{DecodePrivateKey, EncodePrivateKey, EncodePublicKey},
};
use spki::{AlgorithmIdentifierOwned, DynSignatureAlgorithmIdentifier, SubjectPublicKeyInfoOwned, SubjectPublicKeyInfoRef};
use x509_cert::{
    TbsCertificate,
    attr::AttributeTypeAndValue,
    builder::{self, Builder, CertificateBuilder, CrlBuilder, profile::BuilderProfile},
    crl::RevokedCert,
    ext::{
        Extension, ToExtension,
        pkix::{
            AuthorityKeyIdentifier, BasicConstraints, CrlNumber, ExtendedKeyUsage, KeyUsage, KeyUsages, SubjectAltName,
            SubjectKeyIdentifier, name::GeneralName,
        },
    },
    name::Name,
    serial_number::SerialNumber,
    time::Time,
};
use zeroize::Zeroizing;

use super::certificate::{Certificate, CertificateError};
use crate::domain::{
    algorithm::KeyKind,
    public_key::{SPKI_MAX, key_kind_of_spki},
    timestamp::Timestamp,
};

/// The longest common name, in characters (`ub-common-name`, RFC 5280 appendix A.1).
pub const COMMON_NAME_MAX: usize = 64;

/// Length of a serial number in bytes; all but two of its bits are random.
const SERIAL_LEN: usize = 16;

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DevCaError {
    /// A name that no certificate can carry.
    #[error("a common name has 1 to {COMMON_NAME_MAX} characters, not {got}")]
    CommonName {
        /// How many were given.
        got: usize,
    },
    /// No name of a server.
    #[error("a server is called by a host name or an address")]
    ServerName,
    /// Times that make no validity, or one that is longer than the CA's.
    #[error("{0}")]
    Validity(&'static str),
    /// A public key that the gateway cannot sign with.
    #[error("the development CA certifies no key of this kind: {0}")]
    Key(KeyKind),
    /// A stored key that cannot be read; nothing of it is shown.
    #[error("the development CA's key is not a P-256 key in PKCS#8 PEM")]
    StoredKey,
    /// A stored certificate that cannot be read.
    #[error("the development CA's certificate: {0}")]
    StoredCertificate(#[from] CertificateError),
    /// A stored certificate of another key.
    #[error("the development CA's key and certificate do not belong together; delete both and they are made again")]
    Mismatch,
    /// No random numbers.
    #[error("the system's random number generator failed")]
    Random,
    /// The certificate has no DER form.
    #[error("the certificate cannot be made: {0}")]
    Build(String),
}

/// From when until when a certificate is valid; whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    not_before: Timestamp,
    not_after: Timestamp,
}

impl Validity {
    /// Valid from `not_before` through `not_after`.
    ///
    /// # Errors
    /// [`DevCaError::Validity`] if it ends before it begins.
    pub fn new(not_before: Timestamp, not_after: Timestamp) -> Result<Self, DevCaError> {
        if not_after <= not_before {
            return Err(DevCaError::Validity("a certificate must not end before it begins"));
        }
        Ok(Self { not_before, not_after })
    }

    fn to_x509(self) -> Result<x509_cert::time::Validity, DevCaError> {
        let time = |at: Timestamp| Time::try_from(at.to_system_time());
        Ok(x509_cert::time::Validity::new(time(self.not_before)?, time(self.not_after)?))
    }
}

/// A certificate authority with a P-256 key in memory.
pub struct DevCa {
    key: SigningKey,
    certificate: Certificate,
}

impl DevCa {
    /// Makes a new key and a self-signed certificate for it.
    ///
    /// # Errors
    /// [`DevCaError::CommonName`], [`DevCaError::Validity`] after the year 9999, [`DevCaError::Random`].
    pub fn create(common_name: &str, validity: Validity) -> Result<Self, DevCaError> {
        let key = SigningKey::try_generate().map_err(|_| DevCaError::Random)?;
        let spki = SubjectPublicKeyInfoOwned::from_key(key.verifying_key())?;
        let profile = Profile::Ca { name: name(common_name)? };
        let certificate = build(profile, validity, spki, &key)?;
        Ok(Self { key, certificate })
    }

    /// Takes up a CA that was stored.
    ///
    /// # Errors
    /// [`DevCaError::StoredKey`], [`DevCaError::StoredCertificate`], [`DevCaError::Mismatch`].
    pub fn load(key_pem: &str, certificate_der: &[u8]) -> Result<Self, DevCaError> {
        let key = SecretKey::from_pkcs8_pem(key_pem).map_err(|_| DevCaError::StoredKey)?;
        let key = SigningKey::from(key);
        let certificate = Certificate::from_der(certificate_der)?;
        let public_key = key.verifying_key().to_public_key_der().map_err(|_| DevCaError::StoredKey)?;
        if public_key.as_bytes() != certificate.spki() {
            return Err(DevCaError::Mismatch);
        }
        Ok(Self { key, certificate })
    }

    /// The private key as PKCS#8 PEM; wiped from memory when it is dropped.
    ///
    /// # Errors
    /// [`DevCaError::Build`] if it has no such form.
    pub fn key_pem(&self) -> Result<Zeroizing<String>, DevCaError> {
        let key = SecretKey::from(&self.key);
        key.to_pkcs8_pem(LineEnding::LF).map_err(|error| DevCaError::Build(error.to_string()))
    }

    /// The CA's own certificate.
    #[must_use]
    pub const fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// Issues a certificate for signatures (digitalSignature and nonRepudiation) to the key `spki_der`.
    ///
    /// # Errors
    /// [`DevCaError::Key`] if no such key signs here, [`DevCaError::CommonName`], [`DevCaError::Validity`] if it would outlive the CA,
    /// [`DevCaError::Random`].
    pub fn issue(&self, spki_der: &[u8], subject_cn: &str, validity: Validity) -> Result<Certificate, DevCaError> {
        self.issue_to(spki_der, &name(subject_cn)?, validity)
    }

    /// As [`issue`](Self::issue), with the whole name of the subject.
    ///
    /// # Errors
    /// As [`issue`](Self::issue).
    pub fn issue_to(&self, spki_der: &[u8], subject: &Name, validity: Validity) -> Result<Certificate, DevCaError> {
        self.issue_as(spki_der, subject, validity, None)
    }

    /// Issues a certificate for time stamping alone (RFC 3161 section 2.3) to the key `spki_der`.
    ///
    /// # Errors
    /// As [`issue`](Self::issue).
    pub fn issue_for_time_stamping(&self, spki_der: &[u8], subject_cn: &str, validity: Validity) -> Result<Certificate, DevCaError> {
        self.issue_as(spki_der, &name(subject_cn)?, validity, Some(rfc5280::ID_KP_TIME_STAMPING))
    }

    /// Makes a CRL with these certificates, revoked from the beginning of its validity.
    ///
    /// # Errors
    /// [`DevCaError::Build`].
    pub fn crl(&self, number: u64, validity: Validity, revoked: &[&Certificate]) -> Result<Vec<u8>, DevCaError> {
        let issuer = x509_cert::Certificate::from_der(self.certificate.as_der())?;
        let validity = validity.to_x509()?;
        let number = CrlNumber(Uint::new(&number.to_be_bytes())?);
        let mut builder: CrlBuilder =
            CrlBuilder::new_with_this_update(&issuer, number, validity.not_before)?.with_next_update(Some(validity.not_after));
        if !revoked.is_empty() {
            let entry = |certificate: &&Certificate| {
                let parsed = x509_cert::Certificate::from_der(certificate.as_der())?;
                let serial_number = parsed.tbs_certificate().serial_number().clone();
                Ok(RevokedCert { serial_number, revocation_date: validity.not_before, crl_entry_extensions: None })
            };
            let entries = revoked.iter().map(entry).collect::<Result<Vec<_>, DevCaError>>()?;
            builder = builder.with_certificates(entries.into_iter());
        }
        Ok(builder.build::<_, DerSignature>(&CaSigner(&self.key))?.to_der()?)
    }

    fn issue_as(
        &self,
        spki_der: &[u8],
        subject: &Name,
        validity: Validity,
        purpose: Option<ObjectIdentifier>,
    ) -> Result<Certificate, DevCaError> {
        let kind = key_kind_of_spki(spki_der);
        if kind.default_algorithm().is_none() || spki_der.len() > SPKI_MAX {
            return Err(DevCaError::Key(kind));
        }
        if validity.not_after > self.certificate.not_after() {
            return Err(DevCaError::Validity("a certificate must not outlive its CA"));
        }
        let profile = Profile::Leaf { issuer: self.name()?, subject: subject.clone(), purpose };
        build(profile, validity, SubjectPublicKeyInfoOwned::from_der(spki_der)?, &self.key)
    }

    /// Makes a key for a TLS server that is called by `names`, host names and addresses, and issues a certificate to it.
    ///
    /// # Errors
    /// [`DevCaError::ServerName`], [`DevCaError::Validity`] if it would outlive the CA, [`DevCaError::Random`].
    pub fn issue_server(&self, names: &[String], validity: Validity) -> Result<ServerIdentity, DevCaError> {
        if validity.not_after > self.certificate.not_after() {
            return Err(DevCaError::Validity("a certificate must not outlive its CA"));
        }
        let first = names.first().ok_or(DevCaError::ServerName)?;
        let subject = name(&first.chars().take(COMMON_NAME_MAX).collect::<String>())?;
        let names = names.iter().map(|name| general_name(name)).collect::<Result<_, _>>()?;
        let key = SigningKey::try_generate().map_err(|_| DevCaError::Random)?;
        let spki = SubjectPublicKeyInfoOwned::from_key(key.verifying_key())?;
        let certificate = build(Profile::Server { issuer: self.name()?, subject, names }, validity, spki, &self.key)?;
        let pem = SecretKey::from(&key).to_pkcs8_pem(LineEnding::LF);
        Ok(ServerIdentity { certificate, key_pem: pem.map_err(|error| DevCaError::Build(error.to_string()))? })
    }

    fn name(&self) -> Result<Name, DevCaError> {
        Ok(x509_cert::Certificate::from_der(self.certificate.as_der())?.tbs_certificate().subject().clone())
    }
}

/// What a TLS server shows, and its private key.
pub struct ServerIdentity {
    /// The certificate.
    pub certificate: Certificate,
    /// The private key as PKCS#8 PEM; wiped from memory when it is dropped.
    pub key_pem: Zeroizing<String>,
}

fn general_name(text: &str) -> Result<GeneralName, DevCaError> {
    if let Ok(address) = text.parse::<IpAddr>() {
        let bytes = match address {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        return Ok(GeneralName::IpAddress(OctetString::new(bytes)?));
    }
    let lawful = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if text.is_empty() || text.len() > 253 || !text.chars().all(lawful) {
        return Err(DevCaError::ServerName);
    }
    Ok(GeneralName::DnsName(Ia5String::new(text)?))
}

/// What the kinds of certificate say of themselves.
///
/// The profiles of the `x509-cert` crate are those of the CA/Browser forum, which insist on a country and an organisation.
enum Profile {
    Ca { name: Name },
    Server { issuer: Name, subject: Name, names: Vec<GeneralName> },
    Leaf { issuer: Name, subject: Name, purpose: Option<ObjectIdentifier> },
}

impl BuilderProfile for Profile {
    fn get_issuer(&self, _subject: &Name) -> Name {
        match self {
            Self::Ca { name: issuer } | Self::Leaf { issuer, .. } | Self::Server { issuer, .. } => issuer.clone(),
        }
    }

    fn get_subject(&self) -> Name {
        match self {
            Self::Ca { name: subject } | Self::Leaf { subject, .. } | Self::Server { subject, .. } => subject.clone(),
        }
    }

    fn build_extensions(
        &self,
        spk: SubjectPublicKeyInfoRef<'_>,
        issuer_spk: SubjectPublicKeyInfoRef<'_>,
        tbs: &TbsCertificate,
    ) -> builder::Result<Vec<Extension>> {
        let (constraints, usage) = match self {
            Self::Ca { .. } => (BasicConstraints { ca: true, path_len_constraint: Some(0) }, KeyUsages::KeyCertSign | KeyUsages::CRLSign),
            Self::Leaf { .. } => {
                (BasicConstraints { ca: false, path_len_constraint: None }, KeyUsages::DigitalSignature | KeyUsages::NonRepudiation)
            }
            Self::Server { .. } => (BasicConstraints { ca: false, path_len_constraint: None }, KeyUsages::DigitalSignature.into()),
        };
        let subject = tbs.subject();
        let mut extensions = vec![
            constraints.to_extension(subject, &[])?,
            KeyUsage(usage).to_extension(subject, &[])?,
            SubjectKeyIdentifier::try_from(spk)?.to_extension(subject, &[])?,
        ];
        if let Self::Leaf { .. } | Self::Server { .. } = self {
            extensions.push(AuthorityKeyIdentifier::try_from(issuer_spk)?.to_extension(subject, &[])?);
        }
        if let Self::Leaf { purpose: Some(purpose), .. } = self {
            // Critical, as RFC 3161 wants it.
            let mut usage = ExtendedKeyUsage(vec![*purpose]).to_extension(subject, &[])?;
            usage.critical = true;
            extensions.push(usage);
        }
        if let Self::Server { names, .. } = self {
            extensions.push(SubjectAltName(names.clone()).to_extension(subject, &[])?);
            extensions.push(ExtendedKeyUsage(vec![rfc5280::ID_KP_SERVER_AUTH]).to_extension(subject, &[])?);
        }
        Ok(extensions)
    }
}

/// The CA's key as the certificate builder wants it.
///
/// [`SigningKey`] would do by itself if it knew the OID of its hash function, which it has only with another feature of another crate.
struct CaSigner<'a>(&'a SigningKey);

impl Keypair for CaSigner<'_> {
    type VerifyingKey = VerifyingKey;

    fn verifying_key(&self) -> VerifyingKey {
        *self.0.verifying_key()
    }
}

impl DynSignatureAlgorithmIdentifier for CaSigner<'_> {
    fn signature_algorithm_identifier(&self) -> spki::Result<AlgorithmIdentifierOwned> {
        Ok(AlgorithmIdentifierOwned { oid: ECDSA_WITH_SHA_256, parameters: None })
    }
}

impl Signer<DerSignature> for CaSigner<'_> {
    fn try_sign(&self, message: &[u8]) -> Result<DerSignature, signature::Error> {
        self.0.try_sign(message)
    }
}

fn build(profile: Profile, validity: Validity, spki: SubjectPublicKeyInfoOwned, ca_key: &SigningKey) -> Result<Certificate, DevCaError> {
    let builder = CertificateBuilder::new(profile, random_serial()?, validity.to_x509()?, spki)?;
    let certificate = builder.build::<_, DerSignature>(&CaSigner(ca_key))?;
    Ok(Certificate::from_der(&certificate.to_der()?)?)
}

/// A name with one common name in it, whatever characters it has.
fn name(common_name: &str) -> Result<Name, DevCaError> {
    let got = common_name.chars().count();
    if !(1..=COMMON_NAME_MAX).contains(&got) {
        return Err(DevCaError::CommonName { got });
    }
    let value = Any::new(Tag::Utf8String, common_name.as_bytes())?;
    let attribute = AttributeTypeAndValue { oid: COMMON_NAME, value };
    let rdn = SetOfVec::try_from(vec![attribute])?;
    Ok(Name::from_der(&vec![rdn].to_der()?)?)
}

fn random_serial() -> Result<SerialNumber, DevCaError> {
    let mut bytes = [0; SERIAL_LEN];
    rand::fill(&mut bytes).map_err(|_| DevCaError::Random)?;
    // Positive, and of the same length always.
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::new(&bytes)?)
}

impl From<der::Error> for DevCaError {
    fn from(error: der::Error) -> Self {
        Self::Build(error.to_string())
    }
}

impl From<spki::Error> for DevCaError {
    fn from(error: spki::Error) -> Self {
        Self::Build(error.to_string())
    }
}

impl From<builder::Error> for DevCaError {
    fn from(error: builder::Error) -> Self {
        Self::Build(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use aws_lc_rs::{
        encoding::AsDer,
        signature::{self, ECDSA_P256_SHA256_ASN1, EcdsaKeyPair, Ed25519KeyPair, KeyPair, ParsedPublicKey},
    };
    use x509_cert::ext::pkix;

    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn days(first: u32, last: u32) -> Validity {
        let at = |day| Timestamp::from_millis(1_790_000_000_000).after(DAY * day);
        Validity::new(at(first), at(last)).unwrap()
    }

    fn ca() -> DevCa {
        DevCa::create("Test CA", days(0, 3650)).unwrap()
    }

    fn ed25519_spki() -> Vec<u8> {
        Ed25519KeyPair::generate().unwrap().public_key().as_der().unwrap().as_ref().to_vec()
    }

    fn parsed(certificate: &Certificate) -> x509_cert::Certificate {
        x509_cert::Certificate::from_der(certificate.as_der()).unwrap()
    }

    /// The extension, which must be there, and whether it is critical.
    fn extension<T: for<'a> Decode<'a, Error = der::Error> + const_oid::AssociatedOid>(certificate: &Certificate) -> (bool, T) {
        parsed(certificate).tbs_certificate().get_extension::<T>().unwrap().unwrap()
    }

    #[test]
    fn the_ca_certificate_is_one_of_a_ca() {
        let ca = ca();
        let certificate = ca.certificate();
        assert_eq!((certificate.subject().as_str(), certificate.issuer().as_str()), ("CN=Test CA", "CN=Test CA"));
        assert_eq!(extension(certificate), (true, BasicConstraints { ca: true, path_len_constraint: Some(0) }));
        assert_eq!(extension(certificate), (true, pkix::KeyUsage(KeyUsages::KeyCertSign | KeyUsages::CRLSign)));
        assert_eq!((certificate.not_before(), certificate.not_after()), (days(0, 3650).not_before, days(0, 3650).not_after));
    }

    #[test]
    fn an_authority_for_time_stamps_is_for_nothing_else_and_says_so_critically() {
        let leaf = ca().issue_for_time_stamping(&ed25519_spki(), "TSA", days(0, 365)).unwrap();
        assert_eq!(extension(&leaf), (true, ExtendedKeyUsage(vec![rfc5280::ID_KP_TIME_STAMPING])));
        let (_, usage) = parsed(&ca().issue(&ed25519_spki(), "leaf", days(0, 365)).unwrap())
            .tbs_certificate()
            .get_extension::<ExtendedKeyUsage>()
            .unwrap()
            .unwrap_or((false, ExtendedKeyUsage(Vec::new())));
        assert_eq!(usage.0, Vec::new());
    }

    #[test]
    fn a_leaf_is_for_signatures_and_points_to_the_ca() {
        let ca = ca();
        let leaf = ca.issue(&ed25519_spki(), "Підписувач, \"1\"", days(0, 365)).unwrap();
        assert_eq!(leaf.common_name().as_deref(), Some("Підписувач, \"1\""));
        assert_eq!(leaf.issuer(), "CN=Test CA");
        assert_eq!(leaf.key_kind(), KeyKind::Ed25519);
        assert_eq!(extension(&leaf), (true, pkix::KeyUsage(KeyUsages::DigitalSignature | KeyUsages::NonRepudiation)));
        assert!(!extension::<BasicConstraints>(&leaf).1.ca);
        let (_, authority) = extension::<AuthorityKeyIdentifier>(&leaf);
        let (_, ca_key) = extension::<SubjectKeyIdentifier>(ca.certificate());
        assert_eq!(authority.key_identifier, Some(ca_key.0));
        assert_ne!(extension::<SubjectKeyIdentifier>(&leaf).1.0, authority.key_identifier.unwrap());
    }

    #[test]
    fn the_ca_signed_the_leaf() {
        let ca = ca();
        let leaf = parsed(&ca.issue(&ed25519_spki(), "Leaf", days(0, 365)).unwrap());
        let ca_key = ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, ca.certificate().spki()).unwrap();
        let signed = leaf.tbs_certificate().to_der().unwrap();
        assert!(ca_key.verify_sig(&signed, leaf.signature().raw_bytes()).is_ok());
    }

    #[test]
    fn serial_numbers_are_random_and_long() {
        let ca = ca();
        let spki = ed25519_spki();
        let serial = || ca.issue(&spki, "Leaf", days(0, 1)).unwrap().serial();
        let (one, other) = (serial(), serial());
        assert_ne!(one, other);
        assert_eq!((one.len(), other.len()), (2 * SERIAL_LEN, 2 * SERIAL_LEN));
    }

    #[test]
    fn a_stored_ca_goes_on_where_it_was() {
        let ca = ca();
        let pem = ca.key_pem().unwrap();
        assert!(pem.starts_with("-----BEGIN PRIVATE KEY-----\n"));
        let loaded = DevCa::load(&pem, ca.certificate().as_der()).unwrap();
        let leaf = loaded.issue(&ed25519_spki(), "Leaf", days(1, 2)).unwrap();
        assert_eq!(leaf.issuer(), ca.certificate().subject());
    }

    #[test]
    fn a_stored_ca_whose_parts_do_not_fit_is_refused_without_showing_the_key() {
        let (one, other) = (ca(), ca());
        let load = |pem: &str| DevCa::load(pem, other.certificate().as_der()).err().unwrap();
        assert!(matches!(load(&one.key_pem().unwrap()), DevCaError::Mismatch));
        let broken = one.key_pem().unwrap().replace("-----END", "A-----END");
        assert_eq!(load(&broken).to_string(), "the development CA's key is not a P-256 key in PKCS#8 PEM");
    }

    #[test]
    fn what_no_certificate_should_say_is_refused() {
        let ca = ca();
        let spki = ed25519_spki();
        assert!(Validity::new(days(2, 3).not_before, days(0, 1).not_after).is_err());
        assert!(matches!(ca.issue(&spki, "Leaf", days(0, 3651)), Err(DevCaError::Validity(_))));
        assert!(matches!(ca.issue(&spki, "", days(0, 1)), Err(DevCaError::CommonName { got: 0 })));
        assert!(matches!(ca.issue(&spki, &"ы".repeat(65), days(0, 1)), Err(DevCaError::CommonName { got: 65 })));
        assert!(ca.issue(&spki, &"ы".repeat(64), days(0, 1)).is_ok());
        let koblitz = EcdsaKeyPair::generate(&signature::ECDSA_P256K1_SHA256_ASN1_SIGNING).unwrap();
        let koblitz = koblitz.public_key().as_der().unwrap();
        assert!(matches!(ca.issue(koblitz.as_ref(), "Leaf", days(0, 1)), Err(DevCaError::Key(KeyKind::Unsupported(_)))));
    }
}
