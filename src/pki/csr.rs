//! Certificate requests (PKCS#10, RFC 2986): made for a key whose signature comes from elsewhere, and read as clients send them.
//!
//! Pure: [`RequestTemplate::info`] gives the bytes that are to be signed, [`CertificateRequest::assemble`] puts the signature under them.
//! Invariants: a request that was made or read verifies with its own key; what is longer than [`REQUEST_MAX`] is not read; an algorithm that
//! is not known here is an error that names it.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use const_oid::{
    AssociatedOid, ObjectIdentifier,
    db::{rfc4519, rfc5912, rfc8410},
};
use der::{
    Any, Decode, Encode, Tag,
    asn1::{BitString, Ia5StringRef, Null, OctetString, SetOfVec},
    flagset::FlagSet,
    pem::{self, LineEnding},
};
use spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};
use x509_cert::{
    attr::AttributeTypeAndValue,
    ext::{
        Extension,
        pkix::{ExtendedKeyUsage, KeyUsage, KeyUsages, SubjectAltName, name::GeneralName},
    },
    name::Name,
    request::{CertReq, CertReqInfo, ExtensionReq, Version},
};

use crate::domain::{
    algorithm::{HashAlgorithm, KeyKind, SignatureAlgorithm},
    algorithm_identifier::NamedAlgorithm,
    public_key::key_kind_of_spki,
    verify::VerifyError,
};

/// The longest request that is read, in bytes of DER.
pub const REQUEST_MAX: usize = 32 * 1024;
/// The longest value of an attribute in a subject, in characters: the longest of X.520's own bounds is 64, and names of organisations are longer.
pub const SUBJECT_VALUE_MAX: usize = 256;
/// The PEM label of requests (RFC 7468 section 7).
pub const PEM_LABEL: &str = "CERTIFICATE REQUEST";

/// Key algorithms that clients send and nothing here knows, by the arcs that they stand under.
const FOREIGN_ALGORITHMS: [(&str, &str); 5] = [
    ("1.2.643.7.1.1.1.1", "GOST R 34.10-2012 with 256 bits"),
    ("1.2.643.7.1.1.1.2", "GOST R 34.10-2012 with 512 bits"),
    ("1.2.643.2.2.19", "GOST R 34.10-2001"),
    ("1.2.804.2.1.1.1.1.3", "DSTU 4145-2002"),
    ("1.2.156.10197.1.301", "SM2"),
];

/// Why there is no request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// Longer than anything that is read.
    #[error("a certificate request has at most {REQUEST_MAX} bytes")]
    TooLong,
    /// Not PEM of a request.
    #[error("not PEM: {0}")]
    Pem(String),
    /// Not a request in DER.
    #[error("not a certificate request (PKCS#10): {0}")]
    Der(String),
    /// The key is of an algorithm that neither tokens nor verification know here.
    #[error("keys of the algorithm {0} are not supported; RSA, ECDSA on P-256, P-384 and P-521, and Ed25519 are")]
    UnknownKey(String),
    /// The signature is of an algorithm that is not known here.
    #[error("{0}")]
    UnknownSignature(String),
    /// The request's signature is not one of its key.
    #[error("the signature of the certificate request is wrong")]
    WrongSignature,
    /// The subject cannot be written.
    #[error("the subject's {0} is empty, too long, or has characters that it cannot have")]
    Subject(String),
}

impl From<der::Error> for RequestError {
    fn from(error: der::Error) -> Self {
        Self::Der(error.to_string())
    }
}

/// An attribute of a subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubjectPart {
    /// Its type.
    pub kind: ObjectIdentifier,
    /// Its value.
    pub value: String,
}

/// An extension that the CA is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestedExtension {
    /// Its type.
    pub kind: ObjectIdentifier,
    /// Who does not know it must refuse the certificate.
    pub critical: bool,
    /// Its value in DER.
    pub value: Vec<u8>,
}

/// What a certificate is asked to look like.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestTemplate {
    /// The subject, in this order.
    pub subject: Vec<SubjectPart>,
    /// What the key may be used for.
    pub key_usage: FlagSet<KeyUsages>,
    /// What it may be used for beyond that.
    pub extended_key_usage: Vec<ObjectIdentifier>,
    /// Further extensions.
    pub extensions: Vec<RequestedExtension>,
    /// An address for `subjectAltName`.
    pub email: Option<String>,
}

impl RequestTemplate {
    /// The `CertificationRequestInfo` for the key in this DER `SubjectPublicKeyInfo`: what the key is to sign.
    ///
    /// # Errors
    /// [`RequestError::Subject`], or [`RequestError::Der`] if a part has no DER form.
    pub fn info(&self, spki_der: &[u8]) -> Result<Vec<u8>, RequestError> {
        let mut attributes = SetOfVec::new();
        let extensions = self.requested_extensions()?;
        if !extensions.is_empty() {
            attributes.insert(ExtensionReq(extensions).try_into()?)?;
        }
        let public_key = SubjectPublicKeyInfoOwned::from_der(spki_der)?;
        Ok(CertReqInfo { version: Version::V1, subject: self.name()?, public_key, attributes }.to_der()?)
    }

    fn name(&self) -> Result<Name, RequestError> {
        let mut names = Vec::with_capacity(self.subject.len());
        for part in &self.subject {
            names.push(SetOfVec::try_from(vec![part.encoded()?])?);
        }
        Ok(Name::from_der(&names.to_der()?)?)
    }

    fn requested_extensions(&self) -> Result<Vec<Extension>, RequestError> {
        let extension = |extn_id, critical, value: Vec<u8>| -> Result<Extension, RequestError> {
            Ok(Extension { extn_id, critical, extn_value: OctetString::new(value)? })
        };
        let mut requested = Vec::new();
        if !self.key_usage.is_empty() {
            requested.push(extension(KeyUsage::OID, true, KeyUsage(self.key_usage).to_der()?)?);
        }
        if !self.extended_key_usage.is_empty() {
            requested.push(extension(ExtendedKeyUsage::OID, false, ExtendedKeyUsage(self.extended_key_usage.clone()).to_der()?)?);
        }
        if let Some(email) = &self.email {
            let address = Ia5StringRef::new(email).map_err(|_| RequestError::Subject("e-mail address".to_owned()))?;
            let names = SubjectAltName(vec![GeneralName::Rfc822Name(address.into())]);
            requested.push(extension(SubjectAltName::OID, false, names.to_der()?)?);
        }
        for own in &self.extensions {
            requested.push(extension(own.kind, own.critical, own.value.clone())?);
        }
        Ok(requested)
    }
}

impl SubjectPart {
    /// The attribute with the kind of string that its type wants; UTF8String where none does.
    fn encoded(&self) -> Result<AttributeTypeAndValue, RequestError> {
        let unfit = || RequestError::Subject(name_of(self.kind));
        let length = self.value.chars().count();
        if length == 0 || length > SUBJECT_VALUE_MAX || self.value.chars().any(char::is_control) {
            return Err(unfit());
        }
        let digits_only = self.value.bytes().all(|byte| byte.is_ascii_digit());
        let tag = match self.kind {
            rfc4519::C | rfc4519::SERIAL_NUMBER => Tag::PrintableString,
            pkcs9::EMAIL => Tag::Ia5String,
            // Numbers of persons and organisations of national schemes.
            kind if digits_only && const_oid::db::DB.by_oid(&kind).is_none() => Tag::NumericString,
            _ => Tag::Utf8String,
        };
        let lawful = match tag {
            Tag::PrintableString => self.value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b" '()+,-./:=?".contains(&byte)),
            Tag::Ia5String => self.value.is_ascii(),
            _ => true,
        };
        if !lawful || (self.kind == rfc4519::C && length != 2) {
            return Err(unfit());
        }
        Ok(AttributeTypeAndValue { oid: self.kind, value: Any::new(tag, self.value.as_bytes())? })
    }
}

/// Attributes of names that PKCS#9 has.
mod pkcs9 {
    use const_oid::ObjectIdentifier;

    pub(super) const EMAIL: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.1");
}

/// A certificate request whose signature has been checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateRequest {
    der: Vec<u8>,
    subject: Name,
    spki: Vec<u8>,
    kind: KeyKind,
}

impl CertificateRequest {
    /// Puts a signature, in the form that X.509 has, under a `CertificationRequestInfo`, and checks it.
    ///
    /// # Errors
    /// [`RequestError`].
    pub fn assemble(info: &[u8], algorithm: SignatureAlgorithm, signature: &[u8]) -> Result<Self, RequestError> {
        let info = CertReqInfo::from_der(info)?;
        let request = CertReq { info, algorithm: identifier(algorithm)?, signature: BitString::from_bytes(signature)? };
        Self::from_der(&request.to_der()?)
    }

    /// Reads a request in DER and checks its signature.
    ///
    /// # Errors
    /// [`RequestError`].
    pub fn from_der(der: &[u8]) -> Result<Self, RequestError> {
        if der.len() > REQUEST_MAX {
            return Err(RequestError::TooLong);
        }
        let parsed = CertReq::from_der(der)?;
        let spki = parsed.info.public_key.to_der()?;
        let kind = key_kind_of_spki(&spki);
        if kind.default_algorithm().is_none() {
            return Err(RequestError::UnknownKey(key_algorithm_name(&parsed.info.public_key, &kind)));
        }
        let identifier = parsed.algorithm.to_der()?;
        let named = NamedAlgorithm::read(&spki::AlgorithmIdentifierRef::from_der(&identifier)?, None);
        let named = named.map_err(|error| RequestError::UnknownSignature(error.to_string()))?;
        // What was signed are the bytes that stand there, which DER makes those that are written again.
        named.verify_message(&spki, &parsed.info.to_der()?, parsed.signature.raw_bytes()).map_err(|error| match error {
            VerifyError::Unsupported(what) => RequestError::UnknownSignature(what),
            _ => RequestError::WrongSignature,
        })?;
        Ok(Self { der: der.to_vec(), subject: parsed.info.subject, spki, kind })
    }

    /// The request in DER.
    #[must_use]
    pub fn as_der(&self) -> &[u8] {
        &self.der
    }

    /// The request in PEM.
    #[must_use]
    pub fn to_pem(&self) -> String {
        request_pem(&self.der)
    }

    /// The subject.
    #[must_use]
    pub const fn subject(&self) -> &Name {
        &self.subject
    }

    /// `SubjectPublicKeyInfo` in DER.
    #[must_use]
    pub fn spki(&self) -> &[u8] {
        &self.spki
    }

    /// What the key is.
    #[must_use]
    pub const fn key_kind(&self) -> &KeyKind {
        &self.kind
    }
}

/// A request in PEM.
#[must_use]
pub fn request_pem(der: &[u8]) -> String {
    // The label is a good one and the length has a bound, so encoding has no way to fail; nothing is better than a panic.
    pem::encode_string(PEM_LABEL, LineEnding::LF, der).unwrap_or_default()
}

/// What stands between the first `BEGIN` and `END` of a PEM text, with its label. Lines may have any length.
///
/// # Errors
/// [`RequestError::TooLong`], [`RequestError::Pem`].
pub fn decode_pem(text: &str, max: usize) -> Result<(String, Vec<u8>), RequestError> {
    let wrong = |what: &str| RequestError::Pem(what.to_owned());
    // Base64 takes four characters for three bytes; line ends and labels want room.
    if text.len() > 2 * max {
        return Err(RequestError::TooLong);
    }
    let (_, rest) = text.split_once("-----BEGIN ").ok_or_else(|| wrong("there is no BEGIN line"))?;
    let (label, rest) = rest.split_once("-----").ok_or_else(|| wrong("the BEGIN line is cut off"))?;
    let (body, _) = rest.split_once(&format!("-----END {label}-----")).ok_or_else(|| wrong("there is no END line of the same label"))?;
    let base64: String = body.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    let der = STANDARD.decode(base64).map_err(|_| wrong("what stands between BEGIN and END is not base64"))?;
    if der.len() > max { Err(RequestError::TooLong) } else { Ok((label.to_owned(), der)) }
}

/// The `signatureAlgorithm` of a request or certificate (RFC 4055, RFC 5758, RFC 8410).
fn identifier(algorithm: SignatureAlgorithm) -> der::Result<AlgorithmIdentifierOwned> {
    use HashAlgorithm::{Sha256, Sha384, Sha512};
    let oid = match algorithm {
        SignatureAlgorithm::RsaPkcs1(Sha256) => rfc5912::SHA_256_WITH_RSA_ENCRYPTION,
        SignatureAlgorithm::RsaPkcs1(Sha384) => rfc5912::SHA_384_WITH_RSA_ENCRYPTION,
        SignatureAlgorithm::RsaPkcs1(Sha512) => rfc5912::SHA_512_WITH_RSA_ENCRYPTION,
        SignatureAlgorithm::RsaPss(_) => rfc5912::ID_RSASSA_PSS,
        SignatureAlgorithm::Ecdsa(Sha256) => rfc5912::ECDSA_WITH_SHA_256,
        SignatureAlgorithm::Ecdsa(Sha384) => rfc5912::ECDSA_WITH_SHA_384,
        SignatureAlgorithm::Ecdsa(Sha512) => rfc5912::ECDSA_WITH_SHA_512,
        SignatureAlgorithm::Ed25519 => rfc8410::ID_ED_25519,
    };
    let parameters = match algorithm {
        SignatureAlgorithm::RsaPkcs1(_) => Some(Any::from(Null)),
        SignatureAlgorithm::RsaPss(hash) => Some(Any::from_der(&pss_parameters(hash)?)?),
        SignatureAlgorithm::Ecdsa(_) | SignatureAlgorithm::Ed25519 => None,
    };
    Ok(AlgorithmIdentifierOwned { oid, parameters })
}

/// `RSASSA-PSS-params` (RFC 4055 section 3.1).
#[derive(der::Sequence)]
struct PssParameters {
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    hash: AlgorithmIdentifierOwned,
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT")]
    mask: AlgorithmIdentifierOwned,
    #[asn1(context_specific = "2", tag_mode = "EXPLICIT")]
    salt: u32,
}

fn pss_parameters(hash: HashAlgorithm) -> der::Result<Vec<u8>> {
    let oid = match hash {
        HashAlgorithm::Sha256 => rfc5912::ID_SHA_256,
        HashAlgorithm::Sha384 => rfc5912::ID_SHA_384,
        HashAlgorithm::Sha512 => rfc5912::ID_SHA_512,
    };
    let digest = AlgorithmIdentifierOwned { oid, parameters: Some(Any::from(Null)) };
    let mask = AlgorithmIdentifierOwned { oid: rfc5912::ID_MGF_1, parameters: Some(Any::from_der(&digest.to_der()?)?) };
    PssParameters { hash: digest, mask, salt: u32::try_from(hash.output_len()).unwrap_or(0) }.to_der()
}

/// What the algorithm of a key is called: by its name, or by what the domain says of it.
fn key_algorithm_name(spki: &SubjectPublicKeyInfoOwned, kind: &KeyKind) -> String {
    let oid = spki.algorithm.oid.to_string();
    let under = |arc: &str| oid == arc || oid.strip_prefix(arc).is_some_and(|rest| rest.starts_with('.'));
    match FOREIGN_ALGORITHMS.iter().find(|(arc, _)| under(arc)) {
        Some((_, name)) => format!("{name} ({oid})"),
        None => kind.to_string(),
    }
}

/// The name of an attribute's type, or its numbers.
fn name_of(kind: ObjectIdentifier) -> String {
    const_oid::db::DB.by_oid(&kind).map_or_else(|| kind.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::{fs, process::Command};

    use aws_lc_rs::encoding::AsDer;
    use aws_lc_rs::{
        rand::SystemRandom,
        signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair},
    };

    use super::*;

    fn template() -> RequestTemplate {
        let part = |kind, value: &str| SubjectPart { kind, value: value.to_owned() };
        RequestTemplate {
            subject: vec![
                part(rfc4519::CN, "Иванов Иван Иванович"),
                part(rfc4519::C, "RU"),
                part(ObjectIdentifier::new_unwrap("1.2.643.3.131.1.1"), "007707083893"),
                part(rfc4519::TITLE, "Директор"),
            ],
            key_usage: KeyUsages::DigitalSignature | KeyUsages::NonRepudiation,
            extended_key_usage: vec![rfc5912::ID_KP_CLIENT_AUTH],
            extensions: vec![RequestedExtension {
                kind: ObjectIdentifier::new_unwrap("1.2.643.100.111"),
                critical: false,
                value: "Sealgate".to_der().unwrap(),
            }],
            email: Some("ivanov@romashka.example".to_owned()),
        }
    }

    fn signed(template: &RequestTemplate) -> CertificateRequest {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        let info = template.info(key.public_key().as_der().unwrap().as_ref()).unwrap();
        let signature = key.sign(&SystemRandom::new(), &info).unwrap();
        CertificateRequest::assemble(&info, SignatureAlgorithm::Ecdsa(HashAlgorithm::Sha256), signature.as_ref()).unwrap()
    }

    #[test]
    fn openssl_reads_what_was_asked_for_and_verifies_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), signed(&template()).to_pem()).unwrap();
        let said = Command::new("openssl")
            .args(["req", "-verify", "-noout", "-text", "-nameopt", "utf8,sep_comma_plus_space,sname", "-in"])
            .arg(file.path())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned();
        for wanted in [
            "verify OK",
            "CN=Иванов Иван Иванович, C=RU, INN=007707083893, title=Директор",
            "Digital Signature, Non Repudiation",
            "TLS Web Client Authentication",
            "email:ivanov@romashka.example",
            "Signing Tool of Subject",
        ] {
            assert!(text.contains(wanted), "{wanted} is not in {text}");
        }
    }

    #[test]
    fn a_request_is_read_back_from_pem_of_any_line_length() {
        let request = signed(&template());
        let on_one_line = STANDARD.encode(request.as_der());
        for text in [
            request.to_pem(),
            format!("junk\n-----BEGIN NEW CERTIFICATE REQUEST-----\r\n{on_one_line}\r\n-----END NEW CERTIFICATE REQUEST-----"),
        ] {
            let (_, der) = decode_pem(&text, REQUEST_MAX).unwrap();
            assert_eq!(CertificateRequest::from_der(&der).unwrap(), request);
        }
    }

    #[test]
    fn a_request_with_another_keys_signature_is_refused() {
        let (mut one, other) = (CertReq::from_der(signed(&template()).as_der()).unwrap(), signed(&template()));
        one.signature = CertReq::from_der(other.as_der()).unwrap().signature;
        assert_eq!(CertificateRequest::from_der(&one.to_der().unwrap()), Err(RequestError::WrongSignature));
    }

    #[test]
    fn an_algorithm_that_nobody_here_knows_is_named() {
        let mut request = CertReq::from_der(signed(&template()).as_der()).unwrap();
        for (oid, name) in [("1.2.643.7.1.1.1.1", "GOST R 34.10-2012"), ("1.2.804.2.1.1.1.1.3.1.1", "DSTU 4145-2002")] {
            request.info.public_key.algorithm.oid = ObjectIdentifier::new_unwrap(oid);
            let Err(RequestError::UnknownKey(said)) = CertificateRequest::from_der(&request.to_der().unwrap()) else { panic!("{oid}") };
            assert!(said.starts_with(name) && said.contains(oid), "{said}");
        }
    }

    #[test]
    fn a_subject_that_cannot_be_written_is_refused_by_its_attribute() {
        for (kind, value) in [(rfc4519::CN, ""), (rfc4519::C, "RUS"), (rfc4519::CN, "a\nb"), (pkcs9::EMAIL, "иванов@ромашка")]
        {
            let template = RequestTemplate { subject: vec![SubjectPart { kind, value: value.to_owned() }], ..template() };
            let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
            assert!(matches!(template.info(key.public_key().as_der().unwrap().as_ref()), Err(RequestError::Subject(_))), "{value}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300), text in ".{0,200}") {
            let _ = CertificateRequest::from_der(&bytes);
            let _ = decode_pem(&text, REQUEST_MAX);
        }

        #[test]
        fn a_damaged_request_is_refused(at in 0usize..400, flip in 1u8..) {
            let mut der = signed(&template()).as_der().to_vec();
            let at = at % der.len();
            der[at] ^= flip;
            proptest::prop_assert!(CertificateRequest::from_der(&der).is_err());
        }
    }
}
