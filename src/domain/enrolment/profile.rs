//! Profiles: what certificates of one kind look like, where their keys are made, and who issues them.

use const_oid::{
    ObjectIdentifier,
    db::rfc4519::{C, CN, GIVEN_NAME, L, O, OU, SERIAL_NUMBER, SN, ST, STREET, TITLE},
};
use der::flagset::FlagSet;
use x509_cert::ext::pkix::KeyUsages;

use super::Application;
use crate::domain::{
    algorithm::{Curve, KeyKind, RSA_BITS_MIN},
    audit::Sha256,
    ids::{KeyName, NAME_MAX, ProfileName},
    key_uri::Pkcs11Uri,
};

/// The longest RSA key that is made on a token for a certificate request, in bits.
pub const RSA_BITS_MADE_MAX: u32 = 4096;

/// `emailAddress` of PKCS#9.
const EMAIL: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.1");

/// Short names of attributes in subjects.
const ATTRIBUTES: [(&str, ObjectIdentifier); 12] = [
    ("CN", CN),
    ("SN", SN),
    ("G", GIVEN_NAME),
    ("T", TITLE),
    ("O", O),
    ("OU", OU),
    ("C", C),
    ("ST", ST),
    ("L", L),
    ("STREET", STREET),
    ("SERIALNUMBER", SERIAL_NUMBER),
    ("E", EMAIL),
];

/// Uses of a key, by the names that X.509 gives them.
const KEY_USAGES: [(&str, KeyUsages); 7] = [
    ("digitalSignature", KeyUsages::DigitalSignature),
    ("nonRepudiation", KeyUsages::NonRepudiation),
    ("keyEncipherment", KeyUsages::KeyEncipherment),
    ("dataEncipherment", KeyUsages::DataEncipherment),
    ("keyAgreement", KeyUsages::KeyAgreement),
    ("encipherOnly", KeyUsages::EncipherOnly),
    ("decipherOnly", KeyUsages::DecipherOnly),
];

/// What stands in braces in a profile's texts.
const PLACEHOLDERS: [&str; 8] = ["login", "full_name", "surname", "given_name", "position", "organisation", "email", "number"];

/// A profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// Its name.
    pub name: ProfileName,
    /// The token on which its keys are made.
    pub token: Pkcs11Uri,
    /// What keys are made.
    pub key_kind: KeyKind,
    /// The name that a key signs under.
    pub key_name: Template,
    /// The subject, in this order. What comes out empty is left out.
    pub subject: Vec<SubjectRule>,
    /// The e-mail address stands in `subjectAltName`.
    pub email: bool,
    /// What the key may be used for.
    pub key_usage: FlagSet<KeyUsages>,
    /// What it may be used for beyond that.
    pub extended_key_usage: Vec<ObjectIdentifier>,
    /// Further extensions.
    pub extensions: Vec<ProfileExtension>,
    /// Who issues.
    pub ca: CaChoice,
    /// An operator lets each request go to the CA.
    pub approval: bool,
    /// The holder confirms a request for another certificate with the key that is active.
    pub confirm: bool,
    /// Certificates, in DER, to which those that are issued must lead.
    pub anchors: Vec<Vec<u8>>,
    /// How clients know the CA by number, where they do.
    pub centre: Option<Centre>,
}

/// How a CA is numbered in key identifiers, which begin with both in eight characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Centre {
    code: String,
    number: String,
}

impl Centre {
    /// Takes a code of 4 or 6 digits and capital letters, and a number of at most as many digits as eight characters leave.
    #[must_use]
    pub fn new(code: String, number: String) -> Option<Self> {
        let code_is_lawful = matches!(code.len(), 4 | 6) && code.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase());
        let number_is_lawful = !number.is_empty() && code.len() + number.len() <= 8 && number.bytes().all(|byte| byte.is_ascii_digit());
        (code_is_lawful && number_is_lawful).then_some(Self { code, number })
    }

    /// The code.
    #[must_use]
    pub fn code(&self) -> &str {
        &self.code
    }

    /// The number.
    #[must_use]
    pub fn number(&self) -> &str {
        &self.number
    }
}

/// Who issues the certificates of a profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CaChoice {
    /// A person takes the request to a CA and brings the certificate.
    Manual,
    /// The CA of development mode.
    Development,
    /// A CA that speaks EST (RFC 7030).
    Est,
}

/// One attribute of a subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubjectRule {
    /// Its type.
    pub kind: ObjectIdentifier,
    /// Its value.
    pub value: Template,
}

/// An extension that every certificate of a profile is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfileExtension {
    /// Its type.
    pub kind: ObjectIdentifier,
    /// Who does not know it must refuse the certificate.
    pub critical: bool,
    /// Its value in DER.
    pub value: Vec<u8>,
}

/// A text with places for what a request says, in braces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(String);

/// A part of a profile that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// A place that is none.
    #[error("in braces stand only {}", PLACEHOLDERS.join(", "))]
    Placeholder,
    /// An attribute that is not known.
    #[error("write `NAME=value` with one of the names {}, or an object identifier", ATTRIBUTES.map(|(name, _)| name).join(", "))]
    Attribute,
    /// A use that is not known.
    #[error("use names out of {}", KEY_USAGES.map(|(name, _)| name).join(", "))]
    KeyUsage,
    /// A kind of key that is not made.
    #[error("use RSA:2048 to RSA:{RSA_BITS_MADE_MAX}, EC:P-256, EC:P-384, EC:P-521 or Ed25519")]
    KeyKind,
}

impl std::str::FromStr for Template {
    type Err = ProfileError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut rest = text;
        while let Some((_, after)) = rest.split_once('{') {
            let (place, after) = after.split_once('}').ok_or(ProfileError::Placeholder)?;
            if !PLACEHOLDERS.contains(&place) {
                return Err(ProfileError::Placeholder);
            }
            rest = after;
        }
        if rest.contains('}') { Err(ProfileError::Placeholder) } else { Ok(Self(text.to_owned())) }
    }
}

impl std::str::FromStr for SubjectRule {
    type Err = ProfileError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, value) = text.split_once('=').ok_or(ProfileError::Attribute)?;
        let known = ATTRIBUTES.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind);
        let kind = known.or_else(|| ObjectIdentifier::new(name).ok()).ok_or(ProfileError::Attribute)?;
        Ok(Self { kind, value: value.parse()? })
    }
}

impl Template {
    /// The text with what a request says in its places.
    #[must_use]
    pub fn fill(&self, application: &Application, login: &str) -> String {
        let (surname, given_name) = application.full_name.split_once(' ').unwrap_or((&application.full_name, ""));
        let organisation = application.organisation.as_deref().unwrap_or_default();
        let values = [
            login,
            &application.full_name,
            surname,
            given_name,
            &application.position,
            organisation,
            &application.email,
            &application.number,
        ];
        let mut filled = String::new();
        let mut rest = self.0.as_str();
        // Piece by piece, so that braces in what a request says are no places.
        while let Some((before, after)) = rest.split_once('{') {
            filled.push_str(before);
            let (place, after) = after.split_once('}').unwrap_or((after, ""));
            let value = PLACEHOLDERS.iter().zip(values).find(|(known, _)| **known == place).map_or("", |(_, value)| value);
            filled.push_str(value);
            rest = after;
        }
        filled.push_str(rest);
        filled
    }
}

/// Reads the names of key usages.
///
/// # Errors
/// [`ProfileError::KeyUsage`].
pub fn key_usages(names: &[String]) -> Result<FlagSet<KeyUsages>, ProfileError> {
    let mut usages = FlagSet::default();
    for name in names {
        let (_, usage) = KEY_USAGES.iter().find(|(known, _)| known == name).ok_or(ProfileError::KeyUsage)?;
        usages |= *usage;
    }
    Ok(usages)
}

/// Reads a kind of key that is made on a token.
///
/// # Errors
/// [`ProfileError::KeyKind`].
pub fn key_kind(text: &str) -> Result<KeyKind, ProfileError> {
    let (family, size) = text.split_once(':').unwrap_or((text, ""));
    match (family, size) {
        ("RSA", bits) => match bits.parse() {
            Ok(modulus_bits) if (RSA_BITS_MIN..=RSA_BITS_MADE_MAX).contains(&modulus_bits) && modulus_bits % 256 == 0 => {
                Ok(KeyKind::Rsa { modulus_bits })
            }
            _ => Err(ProfileError::KeyKind),
        },
        ("EC", "P-256") => Ok(KeyKind::Ec(Curve::P256)),
        ("EC", "P-384") => Ok(KeyKind::Ec(Curve::P384)),
        ("EC", "P-521") => Ok(KeyKind::Ec(Curve::P521)),
        ("Ed25519", "") => Ok(KeyKind::Ed25519),
        _ => Err(ProfileError::KeyKind),
    }
}

impl Profile {
    /// The name of the key of `login`. What a name cannot have is replaced, and then a part of a hash tells logins apart.
    #[must_use]
    pub fn key_name(&self, application: &Application, login: &str) -> Option<KeyName> {
        let text = self.key_name.fill(application, login);
        if let Ok(name) = text.parse() {
            return Some(name);
        }
        let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '-' };
        let hash = hex::encode(&Sha256::of(text.as_bytes()).as_bytes()[..6]);
        let kept: String = text.chars().map(plain).take(NAME_MAX - hash.len() - 1).collect();
        format!("{kept}-{hash}").parse().ok()
    }

    /// The subject for what a request says.
    #[must_use]
    pub fn subject(&self, application: &Application, login: &str) -> Vec<(ObjectIdentifier, String)> {
        let filled = self.subject.iter().map(|rule| (rule.kind, rule.value.fill(application, login)));
        filled.filter(|(_, value)| !value.is_empty()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn application() -> Application {
        Application {
            number: "1".to_owned(),
            email: "a@b.example".to_owned(),
            organisation: None,
            full_name: "Иванов Иван {login}".to_owned(),
            position: "Директор".to_owned(),
            key_identifier: None,
        }
    }

    #[test]
    fn a_template_takes_what_the_request_says_and_nothing_twice() {
        let filled = |text: &str| text.parse::<Template>().unwrap().fill(&application(), "ivanov");
        assert_eq!(filled("{surname} / {given_name}"), "Иванов / Иван {login}");
        assert_eq!(filled("{organisation}"), "");
        assert_eq!(filled("user-{login}-{number}"), "user-ivanov-1");
        for wrong in ["{name}", "{", "}", "{login"] {
            assert_eq!(wrong.parse::<Template>(), Err(ProfileError::Placeholder), "{wrong}");
        }
    }

    #[test]
    fn a_key_is_named_after_its_login_whatever_characters_that_has() {
        let profile = Profile {
            name: "bank".parse().unwrap(),
            token: Pkcs11Uri::default(),
            key_kind: KeyKind::Ed25519,
            key_name: "{login}".parse().unwrap(),
            subject: Vec::new(),
            email: false,
            key_usage: FlagSet::default(),
            extended_key_usage: Vec::new(),
            extensions: Vec::new(),
            ca: CaChoice::Manual,
            approval: true,
            confirm: false,
            anchors: Vec::new(),
            centre: None,
        };
        let name = |login: &str| profile.key_name(&application(), login).unwrap().as_str().to_owned();
        assert_eq!(name("ivanov"), "ivanov");
        assert_ne!(name("иванов"), name("петров"));
        assert!(name(&"я".repeat(200)).len() <= NAME_MAX);
    }

    #[test]
    fn a_centre_has_a_code_and_a_number_that_fit_into_eight_characters() {
        let centre = |code: &str, number: &str| Centre::new(code.to_owned(), number.to_owned()).is_some();
        assert!(centre("A00B", "0001") && centre("A00B0C", "01") && centre("A00B", "7"));
        for (code, number) in [("A00", "0001"), ("A00B0", "001"), ("a00b", "0001"), ("A00B", ""), ("A00B0C", "001"), ("A00B", "00x1")] {
            assert!(!centre(code, number), "{code} {number}");
        }
    }

    #[test]
    fn kinds_of_keys_are_read_as_the_api_writes_them() {
        assert_eq!(key_kind("EC:P-256"), Ok(KeyKind::Ec(Curve::P256)));
        assert_eq!(key_kind("RSA:3072"), Ok(KeyKind::Rsa { modulus_bits: 3072 }));
        for wrong in ["RSA:1024", "RSA:8192", "RSA:2049", "EC:P-224", "GOST", ""] {
            assert_eq!(key_kind(wrong), Err(ProfileError::KeyKind), "{wrong}");
        }
    }

    #[test]
    fn a_subject_rule_names_its_attribute() {
        assert_eq!("CN={full_name}".parse::<SubjectRule>().unwrap().kind, CN);
        assert_eq!("1.2.643.3.131.1.1=7707083893".parse::<SubjectRule>().unwrap().value.0, "7707083893");
        assert_eq!("XX=1".parse::<SubjectRule>(), Err(ProfileError::Attribute));
    }
}
