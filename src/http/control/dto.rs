//! The forms of operators' requests and answers. The command line reads and writes the same ones.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{
    domain::{
        algorithm::SignatureAlgorithm,
        ids::{KeyName, ModuleName},
        key_uri::Pkcs11Uri,
        timestamp::Timestamp,
        token::{KeyProtection, LoginMode, SlotReport, SlotState, SlotStatus, TokenFlags, TokenOffer},
    },
    signing::tokens::KeyReport,
};

/// Whether the gateway works.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthDto {
    /// At least one token can sign now.
    pub can_sign: bool,
    /// Modules that do not run now, and why.
    pub module_problems: BTreeMap<ModuleName, String>,
}

/// Every token that was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotsDto {
    /// The tokens.
    pub slots: Vec<SlotDto>,
    /// Modules that do not run now, and why.
    pub module_problems: BTreeMap<ModuleName, String>,
}

/// Every token that was seen, after a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotChangesDto {
    /// The number of the last change; what to ask for the next one with.
    pub change: u64,
    /// The tokens as they are since.
    #[serde(flatten)]
    pub now: SlotsDto,
}

/// Whether a configured key can sign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyReadinessDto {
    /// It can, as far as is known without signing.
    pub ready: bool,
    /// Why not; empty if it can.
    pub reason: String,
}

/// A token and its slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotDto {
    /// The token's URI.
    pub uri: Pkcs11Uri,
    /// The module that drives it.
    pub module: ModuleName,
    /// The token's manufacturer.
    pub manufacturer: String,
    /// The token's model.
    pub model: String,
    /// The token's serial number; may be empty.
    pub serial: String,
    /// The token's label; may be empty.
    pub label: String,
    /// How the slot is logged in.
    pub login: LoginMode,
    /// What it is doing, or why it does nothing.
    pub state: SlotState,
    /// Why, in words; may be empty.
    pub reason: String,
    /// Since when, in milliseconds since the Unix epoch.
    pub since: Timestamp,
    /// What the token says of itself and of its PIN.
    pub flags: TokenFlags,
    /// Commands sent to the slot and not answered yet.
    pub outstanding: usize,
    /// The gateway that has the token, where that is another one on the same store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
}

impl SlotDto {
    /// Its state, with the reason.
    #[must_use]
    pub fn status(&self) -> SlotStatus {
        SlotStatus { state: self.state, reason: self.reason.clone(), since: self.since }
    }

    /// A token of another gateway.
    #[must_use]
    pub fn elsewhere((gateway, report): (String, SlotReport)) -> Self {
        Self { gateway: Some(gateway), ..Self::from(report) }
    }
}

/// Every key that can be seen now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeysDto {
    /// The keys.
    pub keys: Vec<KeyDto>,
}

/// A key on a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyDto {
    /// Its configured name, if it has one.
    pub name: Option<KeyName>,
    /// Its URI.
    pub uri: Pkcs11Uri,
    /// `CKA_LABEL`.
    pub label: String,
    /// `CKA_ID` in hexadecimal digits.
    pub id: String,
    /// What it is, in words.
    pub kind: String,
    /// How it can sign.
    pub algorithms: Vec<SignatureAlgorithm>,
    /// There is a certificate with it on the token.
    pub has_certificate: bool,
    /// The PIN is wanted for each signature.
    pub always_authenticate: bool,
    /// How well the private key is kept.
    pub protection: KeyProtection,
}

/// What the tokens that are there can do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OffersDto {
    /// Each with its URI.
    pub offers: Vec<OfferDto>,
}

/// What one token can do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfferDto {
    /// The token.
    pub token: Pkcs11Uri,
    /// What it can do.
    pub offer: TokenOffer,
}

/// Asks for a login. No `Debug` and no `Clone`: there may be a PIN in it, which is wiped when this is dropped.
#[derive(Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UnlockDto {
    /// Which token; the only one, if there is none here.
    pub uri: Option<Pkcs11Uri>,
    /// The PIN; without one it is typed at the reader.
    pub pin: Option<SecretText>,
    /// Try although the token warns that one more wrong PIN locks it.
    pub insist: bool,
    /// First forget which PINs the token has rejected.
    pub forget_rejection: bool,
}

/// Asks for a logout.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LockDto {
    /// Which token; the only one, if there is none here.
    pub uri: Option<Pkcs11Uri>,
}

/// The token that a command was for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenDto {
    /// Its URI.
    pub uri: Pkcs11Uri,
}

/// Why a command was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorDto {
    /// What went wrong.
    pub error: String,
    /// What to do about it.
    pub hint: String,
}

/// A PIN or a password on its way through the control socket. Shows nothing, is wiped when it is dropped.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretText(#[serde(with = "wiped")] Zeroizing<String>);

impl SecretText {
    /// Takes a text that an operator typed, or is to be shown.
    #[must_use]
    pub const fn new(text: Zeroizing<String>) -> Self {
        Self(text)
    }

    /// The text in clear: to be made a [`Pin`](crate::domain::pin::Pin) or a password, or to be shown once.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

pub(super) mod wiped {
    use serde::{Deserialize, Deserializer, Serializer};
    use zeroize::Zeroizing;

    pub(in crate::http::control) fn serialize<S: Serializer>(text: &Zeroizing<String>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(text)
    }

    pub(in crate::http::control) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Zeroizing<String>, D::Error> {
        String::deserialize(deserializer).map(Zeroizing::new)
    }
}

impl From<SlotReport> for SlotDto {
    fn from(SlotReport { token, login, status, flags, outstanding }: SlotReport) -> Self {
        Self {
            uri: token.uri(),
            module: token.module,
            manufacturer: token.manufacturer,
            model: token.model,
            serial: token.serial,
            label: token.label,
            login,
            state: status.state,
            reason: status.reason,
            since: status.since,
            flags,
            outstanding,
            gateway: None,
        }
    }
}

impl From<KeyReport> for KeyDto {
    fn from(KeyReport { name, uri, key, algorithms, .. }: KeyReport) -> Self {
        Self {
            name,
            uri,
            label: key.label,
            id: hex::encode(&key.id),
            kind: key.kind.to_string(),
            algorithms,
            has_certificate: key.certificate.is_some(),
            always_authenticate: key.always_authenticate,
            protection: key.protection,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unlock_is_read_as_it_is_written() {
        let pin = SecretText::new(Zeroizing::new("1234".to_owned()));
        let unlock = UnlockDto { uri: "pkcs11:token=one".parse().ok(), pin: Some(pin), insist: true, forget_rejection: false };
        let json = serde_json::to_string(&unlock).unwrap();
        assert_eq!(json, r#"{"uri":"pkcs11:token=one","pin":"1234","insist":true,"forget_rejection":false}"#);
        let read: UnlockDto = serde_json::from_str(&json).unwrap();
        assert_eq!(read.pin.map(|pin| pin.reveal().to_owned()).as_deref(), Some("1234"));
        let least: UnlockDto = serde_json::from_str("{}").unwrap();
        assert!(least.uri.is_none() && least.pin.is_none() && !least.insist);
    }
}
