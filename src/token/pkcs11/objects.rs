//! Reading keys and certificates from a session.
//!
//! Attributes are read one at a time: `cryptoki` gives up on a whole set when one value is not in its tables, and tokens refuse some. What
//! a token does not show counts as absent. Invariant: a certificate is handed out only with the key that it certifies.

use cryptoki::{
    error::Error,
    object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle},
    session::Session,
};
use der::{Decode, Encode};

use super::{
    public_key::{Material, kind_of_spki, same_key},
    return_value::{classify, from_cryptoki},
};
use crate::{
    domain::{
        algorithm::KeyKind,
        token::{KeyDescription, KeyProtection, KeySelector},
    },
    token::driver::{CachedKey, DeviceError, KeyHandle},
};

/// The objects that a session can see.
#[derive(Debug, Clone, Copy)]
pub(super) struct Objects<'a>(&'a Session);

/// A certificate on the token that parsed.
struct Certificate {
    der: Vec<u8>,
    spki: Vec<u8>,
    kind: KeyKind,
    not_before: std::time::Duration,
}

impl<'a> Objects<'a> {
    /// The objects that `session` can see.
    pub(super) const fn of(session: &'a Session) -> Self {
        Self(session)
    }

    /// The private keys that match `selector`; all of them without one.
    ///
    /// # Errors
    /// What the module said.
    pub(super) fn private_keys(&self, selector: Option<&KeySelector>) -> Result<Vec<ObjectHandle>, DeviceError> {
        let mut template = vec![Attribute::Class(ObjectClass::PRIVATE_KEY)];
        if let Some(selector) = selector {
            template.extend(selector.id.clone().map(Attribute::Id));
            template.extend(selector.label.as_ref().map(|label| Attribute::Label(label.clone().into_bytes())));
        }
        self.find(&template)
    }

    /// Whether a private or public key has this `CKA_ID`.
    ///
    /// # Errors
    /// What the module said.
    pub(super) fn id_in_use(&self, id: &[u8]) -> Result<bool, DeviceError> {
        Ok(!self.halves(id)?.is_empty())
    }

    /// The private and public keys with this `CKA_ID`, private ones first.
    ///
    /// # Errors
    /// What the module said.
    pub(super) fn halves(&self, id: &[u8]) -> Result<Vec<ObjectHandle>, DeviceError> {
        let mut found = Vec::new();
        for class in [ObjectClass::PRIVATE_KEY, ObjectClass::PUBLIC_KEY] {
            found.extend(self.find(&[Attribute::Class(class), Attribute::Id(id.to_vec())])?);
        }
        Ok(found)
    }

    /// The certificates with this `CKA_ID`, in DER; with an empty one, those that have none.
    ///
    /// # Errors
    /// What the module said.
    pub(super) fn certificates(&self, id: &[u8]) -> Result<Vec<(ObjectHandle, Vec<u8>)>, DeviceError> {
        let mut found = Vec::new();
        for object in self.find(&[Attribute::Class(ObjectClass::CERTIFICATE), Attribute::Id(id.to_vec())])? {
            if let Some(value) = self.bytes(object, AttributeType::Value)? {
                found.push((object, value));
            }
        }
        Ok(found)
    }

    /// What signing wants to know of a private key: read once per session, so its certificate is looked at only if nothing else tells.
    ///
    /// # Errors
    /// What the module said.
    pub(super) fn cached(&self, key: ObjectHandle) -> Result<CachedKey, DeviceError> {
        let kind = match self.material(key)?.kind() {
            Some(kind) => self.kind_if_it_signs(key, kind)?,
            None => self.describe(key)?.kind,
        };
        let always_authenticate = self.always_authenticate(key)?;
        Ok(CachedKey { handle: key_handle(key), kind, always_authenticate })
    }

    /// All that can be read of a private key, its public key and its certificate.
    ///
    /// # Errors
    /// What the module said.
    pub(super) fn describe(&self, key: ObjectHandle) -> Result<KeyDescription, DeviceError> {
        let id = self.bytes(key, AttributeType::Id)?.unwrap_or_default();
        let label = self.bytes(key, AttributeType::Label)?.unwrap_or_default();
        let material = self.joint_material(key, &id, &label)?;
        let certificate = self.certificate(&material, &id, &label)?;
        let kind = material.kind().or_else(|| certificate.as_ref().map(|certificate| certificate.kind.clone()));
        let kind = kind.unwrap_or_else(|| KeyKind::Unsupported("of a kind that the token does not tell".to_owned()));
        Ok(KeyDescription {
            kind: self.kind_if_it_signs(key, kind)?,
            public_key: material.spki().or_else(|| certificate.as_ref().map(|certificate| certificate.spki.clone())),
            certificate: certificate.map(|certificate| certificate.der),
            always_authenticate: self.always_authenticate(key)?,
            protection: self.protection(key)?,
            label: String::from_utf8_lossy(&label).into_owned(),
            id,
        })
    }

    /// What the private key object says of itself, completed by the public key object.
    fn joint_material(&self, key: ObjectHandle, id: &[u8], label: &[u8]) -> Result<Material, DeviceError> {
        let mut material = self.material(key)?;
        for public in self.companions(ObjectClass::PUBLIC_KEY, id, label)? {
            let public = self.material(public)?;
            if material.agrees_with(&public) {
                material = material.or(public);
            }
        }
        Ok(material)
    }

    /// The newest certificate of the key, after a renewal there may be several.
    fn certificate(&self, material: &Material, id: &[u8], label: &[u8]) -> Result<Option<Certificate>, DeviceError> {
        let mut newest: Option<Certificate> = None;
        for object in self.companions(ObjectClass::CERTIFICATE, id, label)? {
            let Some(certificate) = self.bytes(object, AttributeType::Value)?.and_then(Certificate::parse) else { continue };
            if !certificate.certifies(material) {
                let (id, label) = (hex::encode(id), String::from_utf8_lossy(label));
                tracing::warn!(key.id = id, key.label = %label, "a certificate beside the key is of another key and is left out");
                continue;
            }
            if newest.as_ref().is_none_or(|found| found.not_before < certificate.not_before) {
                newest = Some(certificate);
            }
        }
        Ok(newest)
    }

    /// Objects that belong to a key: those with its `CKA_ID`, or with its label where it has no id.
    fn companions(&self, class: ObjectClass, id: &[u8], label: &[u8]) -> Result<Vec<ObjectHandle>, DeviceError> {
        let by = match (id, label) {
            ([], []) => return Ok(Vec::new()),
            ([], label) => Attribute::Label(label.to_vec()),
            (id, _) => Attribute::Id(id.to_vec()),
        };
        self.find(&[Attribute::Class(class), by])
    }

    fn material(&self, key: ObjectHandle) -> Result<Material, DeviceError> {
        let key_type = match self.attribute(key, AttributeType::KeyType)? {
            Some(Attribute::KeyType(key_type)) => Some(key_type),
            _ => None,
        };
        let mut material = Material { key_type, ..Material::default() };
        match key_type {
            Some(KeyType::RSA) => {
                material.modulus = self.bytes(key, AttributeType::Modulus)?;
                material.exponent = self.bytes(key, AttributeType::PublicExponent)?;
            }
            Some(KeyType::EC | KeyType::EC_EDWARDS) => {
                material.params = self.bytes(key, AttributeType::EcParams)?;
                material.point = self.bytes(key, AttributeType::EcPoint)?;
            }
            _ => {}
        }
        Ok(material)
    }

    /// A key that the token keeps for other uses is one that the gateway cannot use; a token that does not say is believed to sign.
    fn kind_if_it_signs(&self, key: ObjectHandle, kind: KeyKind) -> Result<KeyKind, DeviceError> {
        Ok(match self.flag(key, AttributeType::Sign)? {
            Some(false) => KeyKind::Unsupported(format!("{kind}, not for signing")),
            _ => kind,
        })
    }

    fn always_authenticate(&self, key: ObjectHandle) -> Result<bool, DeviceError> {
        Ok(self.flag(key, AttributeType::AlwaysAuthenticate)?.unwrap_or(false))
    }

    /// What the token does not say counts against it.
    fn protection(&self, key: ObjectHandle) -> Result<KeyProtection, DeviceError> {
        Ok(KeyProtection {
            sensitive: self.flag(key, AttributeType::Sensitive)?.unwrap_or(false),
            extractable: self.flag(key, AttributeType::Extractable)?.unwrap_or(true),
            local: self.flag(key, AttributeType::Local)?.unwrap_or(false),
        })
    }

    fn find(&self, template: &[Attribute]) -> Result<Vec<ObjectHandle>, DeviceError> {
        self.0.find_objects(template).map_err(from_cryptoki)
    }

    fn bytes(&self, object: ObjectHandle, attribute: AttributeType) -> Result<Option<Vec<u8>>, DeviceError> {
        Ok(match self.attribute(object, attribute)? {
            Some(
                Attribute::Id(bytes)
                | Attribute::Label(bytes)
                | Attribute::Value(bytes)
                | Attribute::Modulus(bytes)
                | Attribute::PublicExponent(bytes)
                | Attribute::EcParams(bytes)
                | Attribute::EcPoint(bytes),
            ) if !bytes.is_empty() => Some(bytes),
            _ => None,
        })
    }

    fn flag(&self, object: ObjectHandle, attribute: AttributeType) -> Result<Option<bool>, DeviceError> {
        Ok(match self.attribute(object, attribute)? {
            Some(
                Attribute::Sign(flag)
                | Attribute::Sensitive(flag)
                | Attribute::Extractable(flag)
                | Attribute::Local(flag)
                | Attribute::AlwaysAuthenticate(flag),
            ) => Some(flag),
            _ => None,
        })
    }

    /// One attribute; `None` where the token does not have it, does not show it, or has something there that makes no sense.
    fn attribute(&self, object: ObjectHandle, attribute: AttributeType) -> Result<Option<Attribute>, DeviceError> {
        match self.0.get_attributes(object, &[attribute]) {
            Ok(found) => Ok(found.into_iter().next()),
            Err(Error::Pkcs11(rv, function)) => match classify(rv, function) {
                lost @ (DeviceError::SessionLost(_) | DeviceError::TokenGone(_) | DeviceError::Failed(_)) => Err(lost),
                _ => Ok(None),
            },
            Err(_) => Ok(None),
        }
    }
}

impl Certificate {
    fn parse(der: Vec<u8>) -> Option<Self> {
        let parsed = x509_cert::Certificate::from_der(&der).ok()?;
        let tbs = parsed.tbs_certificate();
        let spki = tbs.subject_public_key_info();
        let not_before = tbs.validity().not_before.to_unix_duration();
        Some(Self { spki: spki.to_der().ok()?, kind: kind_of_spki(spki), not_before, der })
    }

    /// Whether this is a certificate of the key with `material`, as far as the token tells.
    fn certifies(&self, material: &Material) -> bool {
        match (material.spki(), material.kind()) {
            (Some(spki), _) => same_key(&spki, &self.spki),
            (None, Some(kind)) => kind == self.kind,
            (None, None) => true,
        }
    }
}

/// The handle as the slot's thread keeps it.
pub(super) fn key_handle(key: ObjectHandle) -> KeyHandle {
    // A `CK_OBJECT_HANDLE` has 64 bits here, and 32 elsewhere.
    #[allow(clippy::unnecessary_cast)]
    KeyHandle(key.handle() as u64)
}
