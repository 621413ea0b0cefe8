//! `pkcs11:` URIs (RFC 7512): the one way in which tokens and keys are named.
//!
//! Only what names a token or a key by what it *is* is understood. Slot numbers and library versions change under one's feet, and
//! `pin-value`, `pin-source` and `module-path` would let a caller choose what the gateway loads or tries, so they are refused by name.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::token::{KeyDescription, KeySelector, TokenIdentity};

/// The longest URI that is read, in bytes.
pub const URI_MAX: usize = 2048;

const SCHEME: &str = "pkcs11:";

/// A `pkcs11:` URI. Attributes that are `None` match anything.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pkcs11Uri {
    /// `token`: the token's label.
    pub token: Option<String>,
    /// `manufacturer` of the token.
    pub manufacturer: Option<String>,
    /// `model` of the token.
    pub model: Option<String>,
    /// `serial` number of the token.
    pub serial: Option<String>,
    /// `object`: the label (`CKA_LABEL`) of an object on the token.
    pub object: Option<String>,
    /// `id`: the `CKA_ID` of an object on the token.
    pub id: Option<Vec<u8>>,
    /// `type` of the object.
    pub object_type: Option<ObjectType>,
    /// `module-name`: the configured name of the module that drives the token.
    pub module_name: Option<String>,
}

/// The `type` attribute of a URI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ObjectType {
    /// `private`: a private key.
    Private,
    /// `public`: a public key.
    Public,
    /// `cert`: a certificate.
    Cert,
}

impl ObjectType {
    const ALL: [Self; 3] = [Self::Private, Self::Public, Self::Cert];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Private => "private",
            Self::Public => "public",
            Self::Cert => "cert",
        }
    }
}

/// A text that is not a usable `pkcs11:` URI. Messages never repeat the text, which may hold a PIN.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UriError {
    /// It does not begin with `pkcs11:`.
    #[error("a key or token URI begins with `{SCHEME}`")]
    Scheme,
    /// It is longer than [`URI_MAX`] bytes.
    #[error("a key or token URI has at most {URI_MAX} bytes")]
    TooLong,
    /// A part is not `name=value`.
    #[error("each part of a `{SCHEME}` URI is `name=value`")]
    Syntax,
    /// A character that must be written as `%XX`, or a `%` that two hex digits do not follow.
    #[error("the value of `{0}` has a character that must be percent-encoded, or a broken `%XX`")]
    Encoding(&'static str),
    /// A text attribute whose bytes are not UTF-8.
    #[error("the value of `{0}` is not UTF-8")]
    NotUtf8(&'static str),
    /// The same attribute twice.
    #[error("`{0}` stands twice")]
    Duplicate(&'static str),
    /// A value the attribute cannot have.
    #[error("`type` is one of private, public, cert")]
    Type,
    /// An attribute that RFC 7512 does not define.
    #[error("unknown attribute; known are token, manufacturer, model, serial, object, id, type and ?module-name")]
    Unknown,
    /// An attribute that RFC 7512 defines and that is refused here.
    #[error("`{0}` is not taken here: {1}")]
    Refused(&'static str, &'static str),
}

impl Pkcs11Uri {
    /// Whether the URI says anything about an object on a token, and not about the token alone.
    #[must_use]
    pub const fn names_an_object(&self) -> bool {
        self.object.is_some() || self.id.is_some()
    }

    /// Whether `token` is one that the URI's token attributes name.
    #[must_use]
    pub fn matches_token(&self, token: &TokenIdentity) -> bool {
        let agrees = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|wanted| wanted == is);
        agrees(&self.token, &token.label)
            && agrees(&self.manufacturer, &token.manufacturer)
            && agrees(&self.model, &token.model)
            && agrees(&self.serial, &token.serial)
            && agrees(&self.module_name, token.module.as_str())
    }

    /// Whether `key` is one that the URI's object attributes name.
    #[must_use]
    pub fn matches_key(&self, key: &KeyDescription) -> bool {
        self.object.as_ref().is_none_or(|label| *label == key.label) && self.id.as_ref().is_none_or(|id| *id == key.id)
    }

    /// The object attributes, to find the key on its token.
    #[must_use]
    pub fn key_selector(&self) -> KeySelector {
        KeySelector { id: self.id.clone(), label: self.object.clone() }
    }

    /// The URI of `key` on the token that this URI names.
    #[must_use]
    pub fn with_key(&self, key: &KeyDescription) -> Self {
        Self {
            object: (!key.label.is_empty()).then(|| key.label.clone()),
            id: (!key.id.is_empty()).then(|| key.id.clone()),
            object_type: Some(ObjectType::Private),
            ..self.clone()
        }
    }

    fn set_path(&mut self, name: &str, value: &str) -> Result<(), UriError> {
        match name {
            "token" => set_text(&mut self.token, "token", value),
            "manufacturer" => set_text(&mut self.manufacturer, "manufacturer", value),
            "model" => set_text(&mut self.model, "model", value),
            "serial" => set_text(&mut self.serial, "serial", value),
            "object" => set_text(&mut self.object, "object", value),
            "id" => set_once(&mut self.id, "id", decode("id", value)?),
            "type" => {
                let known = ObjectType::ALL.into_iter().find(|known| known.as_str() == value).ok_or(UriError::Type)?;
                set_once(&mut self.object_type, "type", known)
            }
            "slot-id" => Err(UriError::Refused("slot-id", "slot numbers change; name the token by serial or label")),
            "slot-description" => Err(UriError::Refused("slot-description", "name the token by serial or label")),
            "slot-manufacturer" => Err(UriError::Refused("slot-manufacturer", "name the token by serial or label")),
            "library-description" => Err(UriError::Refused("library-description", "use ?module-name")),
            "library-manufacturer" => Err(UriError::Refused("library-manufacturer", "use ?module-name")),
            "library-version" => Err(UriError::Refused("library-version", "use ?module-name")),
            _ => Err(UriError::Unknown),
        }
    }

    fn set_query(&mut self, name: &str, value: &str) -> Result<(), UriError> {
        match name {
            "module-name" => set_text(&mut self.module_name, "module-name", value),
            "module-path" => Err(UriError::Refused("module-path", "modules are chosen by the configuration")),
            "pin-value" => Err(UriError::Refused("pin-value", "a PIN does not belong in a URI")),
            "pin-source" => Err(UriError::Refused("pin-source", "PIN sources are chosen by the configuration")),
            _ => Err(UriError::Unknown),
        }
    }
}

impl FromStr for Pkcs11Uri {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > URI_MAX {
            return Err(UriError::TooLong);
        }
        let rest = match text.get(..SCHEME.len()) {
            Some(scheme) if scheme.eq_ignore_ascii_case(SCHEME) => &text[SCHEME.len()..],
            _ => return Err(UriError::Scheme),
        };
        let (path, query) = rest.split_once('?').map_or((rest, ""), |(path, query)| (path, query));
        let mut uri = Self::default();
        for (name, value) in attributes(path, ';') {
            uri.set_path(name, value.ok_or(UriError::Syntax)?)?;
        }
        for (name, value) in attributes(query, '&') {
            uri.set_query(name, value.ok_or(UriError::Syntax)?)?;
        }
        // What was taken is written down in its longest form, every byte of the id encoded, and has to be read again.
        if uri.to_string().len() > URI_MAX { Err(UriError::TooLong) } else { Ok(uri) }
    }
}

fn attributes(text: &str, separator: char) -> impl Iterator<Item = (&str, Option<&str>)> {
    let parts = (!text.is_empty()).then(|| text.split(separator)).into_iter().flatten();
    parts.map(|part| part.split_once('=').map_or((part, None), |(name, value)| (name, Some(value))))
}

fn set_once<T>(slot: &mut Option<T>, name: &'static str, value: T) -> Result<(), UriError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(UriError::Duplicate(name)),
    }
}

fn set_text(slot: &mut Option<String>, name: &'static str, value: &str) -> Result<(), UriError> {
    let text = String::from_utf8(decode(name, value)?).map_err(|_| UriError::NotUtf8(name))?;
    set_once(slot, name, text)
}

fn decode(name: &'static str, value: &str) -> Result<Vec<u8>, UriError> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let pair = [rest.next().ok_or(UriError::Encoding(name))?, rest.next().ok_or(UriError::Encoding(name))?];
                let mut decoded = [0u8];
                hex::decode_to_slice(pair, &mut decoded).map_err(|_| UriError::Encoding(name))?;
                bytes.push(decoded[0]);
            }
            _ if stands_for_itself(byte) || matches!(byte, b'&' | b'/' | b'?' | b'|') => bytes.push(byte),
            _ => return Err(UriError::Encoding(name)),
        }
    }
    Ok(bytes)
}

/// RFC 3986 `unreserved` and RFC 7512 `pk11-res-avail`: characters that need no encoding in any attribute.
const fn stands_for_itself(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'-' | b'.' | b'_' | b'~')
        || matches!(byte, b':' | b'[' | b']' | b'@' | b'!' | b'$' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b'=')
}

impl fmt::Display for Pkcs11Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SCHEME)?;
        let texts = [
            ("token", &self.token),
            ("manufacturer", &self.manufacturer),
            ("model", &self.model),
            ("serial", &self.serial),
            ("object", &self.object),
        ];
        let mut separator = "";
        for (name, text) in texts {
            if let Some(text) = text {
                write!(f, "{separator}{name}={}", Encoded(text.as_bytes()))?;
                separator = ";";
            }
        }
        if let Some(id) = &self.id {
            write!(f, "{separator}id=")?;
            id.iter().try_for_each(|byte| write!(f, "%{byte:02X}"))?;
            separator = ";";
        }
        if let Some(object_type) = self.object_type {
            write!(f, "{separator}type={}", object_type.as_str())?;
        }
        match &self.module_name {
            Some(module) => write!(f, "?module-name={}", Encoded(module.as_bytes())),
            None => Ok(()),
        }
    }
}

struct Encoded<'a>(&'a [u8]);

impl fmt::Display for Encoded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(
            |&byte| {
                if stands_for_itself(byte) { write!(f, "{}", char::from(byte)) } else { write!(f, "%{byte:02X}") }
            },
        )
    }
}

impl TryFrom<String> for Pkcs11Uri {
    type Error = UriError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Pkcs11Uri> for String {
    fn from(uri: Pkcs11Uri) -> Self {
        uri.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_text() -> impl Strategy<Value = Option<String>> {
        proptest::option::of(any::<String>().prop_map(|text| text.chars().take(40).collect()))
    }

    fn any_uri() -> impl Strategy<Value = Pkcs11Uri> {
        let texts = (any_text(), any_text(), any_text(), any_text(), any_text(), any_text());
        let object_type = proptest::option::of(proptest::sample::select(ObjectType::ALL.to_vec()));
        (texts, proptest::option::of(any::<Vec<u8>>()), object_type).prop_map(
            |((token, manufacturer, model, serial, object, module_name), id, object_type)| Pkcs11Uri {
                token,
                manufacturer,
                model,
                serial,
                object,
                id,
                object_type,
                module_name,
            },
        )
    }

    #[test]
    fn a_uri_that_would_be_too_long_in_its_written_form_is_refused() {
        let longest = "a".repeat((URI_MAX - "pkcs11:id=".len()) / 3);
        let uri: Pkcs11Uri = format!("pkcs11:id={longest}").parse().unwrap();
        assert_eq!(uri.to_string().parse(), Ok(uri));
        assert_eq!(format!("pkcs11:id={longest}aa").parse::<Pkcs11Uri>(), Err(UriError::TooLong));
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back_the_same(uri in any_uri()) {
            let text = uri.to_string();
            prop_assume!(text.len() <= URI_MAX);
            prop_assert_eq!(text.parse::<Pkcs11Uri>(), Ok(uri));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in any::<String>()) {
            let _ = text.parse::<Pkcs11Uri>();
            let _ = format!("pkcs11:{text}").parse::<Pkcs11Uri>();
            let _ = format!("pkcs11:token={text}?{text}").parse::<Pkcs11Uri>();
        }

        #[test]
        fn every_byte_may_be_percent_encoded(bytes in any::<Vec<u8>>(), upper in any::<bool>()) {
            prop_assume!(bytes.len() < 500);
            let hex = bytes.iter().map(|b| if upper { format!("%{b:02X}") } else { format!("%{b:02x}") }).collect::<String>();
            let uri: Pkcs11Uri = format!("pkcs11:id={hex}").parse().unwrap();
            prop_assert_eq!(uri.id, Some(bytes));
        }
    }

    fn error(text: &str) -> UriError {
        text.parse::<Pkcs11Uri>().unwrap_err()
    }

    #[test]
    fn path_attributes_are_divided_by_semicolons_and_query_attributes_by_ampersands() {
        let uri: Pkcs11Uri = "pkcs11:token=My%20token;object=a&b;id=%01%ff?module-name=softhsm".parse().unwrap();
        assert_eq!(uri.token.as_deref(), Some("My token"));
        assert_eq!(uri.object.as_deref(), Some("a&b"));
        assert_eq!(uri.id.as_deref(), Some(&[1, 255][..]));
        assert_eq!(uri.module_name.as_deref(), Some("softhsm"));
        assert_eq!("PKCS11:".parse(), Ok(Pkcs11Uri::default()));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        assert_eq!(error("https://example.test"), UriError::Scheme);
        assert_eq!(error("pkcs11:token=a;token=b"), UriError::Duplicate("token"));
        assert_eq!(error("pkcs11:colour=red"), UriError::Unknown);
        assert_eq!(error("pkcs11:?colour=red"), UriError::Unknown);
        assert_eq!(error("pkcs11:token"), UriError::Syntax);
        assert_eq!(error("pkcs11:token=a;"), UriError::Syntax);
        assert_eq!(error("pkcs11:token=%zz"), UriError::Encoding("token"));
        assert_eq!(error("pkcs11:token=%4"), UriError::Encoding("token"));
        assert_eq!(error("pkcs11:token=a b"), UriError::Encoding("token"));
        assert_eq!(error("pkcs11:token=%ff"), UriError::NotUtf8("token"));
        assert_eq!(error("pkcs11:type=secret"), UriError::Type);
        assert_eq!(error(&format!("pkcs11:token={}", "a".repeat(URI_MAX))), UriError::TooLong);
    }

    #[test]
    fn what_would_choose_a_module_or_a_pin_is_refused_without_repeating_it() {
        for uri in ["pkcs11:?pin-value=1234", "pkcs11:?pin-source=/etc/1234", "pkcs11:?module-path=/1234.so", "pkcs11:slot-id=1234"] {
            let error = error(uri);
            assert!(matches!(error, UriError::Refused(..)), "{uri}");
            assert!(!error.to_string().contains("1234"), "{error}");
        }
    }
}
