//! Tokens, slots and the keys on them, as every layer above PKCS#11 sees them.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{
    algorithm::{KeyKind, SignatureAlgorithm},
    ids::ModuleName,
    key_uri::Pkcs11Uri,
    timestamp::Timestamp,
};

/// What a token is, wherever it is plugged: never a slot number, which changes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TokenIdentity {
    /// The module that drives it.
    pub module: ModuleName,
    /// `CK_TOKEN_INFO.manufacturerID`, without padding.
    pub manufacturer: String,
    /// `CK_TOKEN_INFO.model`, without padding.
    pub model: String,
    /// `CK_TOKEN_INFO.serialNumber`, without padding; may be empty.
    pub serial: String,
    /// `CK_TOKEN_INFO.label`, without padding; may be empty.
    pub label: String,
}

impl TokenIdentity {
    /// The token's RFC 7512 URI.
    #[must_use]
    pub fn uri(&self) -> Pkcs11Uri {
        let named = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Pkcs11Uri {
            manufacturer: named(&self.manufacturer),
            model: named(&self.model),
            serial: named(&self.serial),
            token: named(&self.label),
            ..Pkcs11Uri::default()
        }
    }
}

impl fmt::Display for TokenIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.uri().fmt(f)
    }
}

/// What the token says of itself and of its PIN (`C_GetTokenInfo`), at the time it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TokenFlags {
    /// `CKF_TOKEN_INITIALIZED`.
    pub initialized: bool,
    /// `CKF_LOGIN_REQUIRED`: private keys are unusable before a login.
    pub login_required: bool,
    /// `CKF_USER_PIN_INITIALIZED`.
    pub user_pin_initialized: bool,
    /// `CKF_PROTECTED_AUTHENTICATION_PATH`: the PIN is typed at the reader.
    pub protected_authentication_path: bool,
    /// `CKF_WRITE_PROTECTED`.
    pub write_protected: bool,
    /// `CKF_USER_PIN_COUNT_LOW`: a wrong PIN was entered since the last good login.
    pub user_pin_count_low: bool,
    /// `CKF_USER_PIN_FINAL_TRY`: one more wrong PIN locks the token.
    pub user_pin_final_try: bool,
    /// `CKF_USER_PIN_LOCKED`.
    pub user_pin_locked: bool,
}

/// How a slot is logged in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LoginMode {
    /// With a PIN that the configuration points to.
    Configured,
    /// By an operator, who types the PIN.
    Operator,
    /// For each signature, with the PIN that comes with the request.
    PerRequest,
    /// At the reader's own PIN pad.
    Protected,
}

impl fmt::Display for LoginMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Configured => "configured",
            Self::Operator => "operator",
            Self::PerRequest => "per-request",
            Self::Protected => "protected",
        })
    }
}

/// What a slot is doing, or why it does nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SlotState {
    /// The token is not there.
    Absent,
    /// The token is there and each request brings its own PIN.
    Present,
    /// An operator must unlock the token.
    NeedsPin,
    /// The token signs.
    Ready,
    /// The token is signing or making a key.
    Busy,
    /// A person must act at the reader.
    WaitingAtReader,
    /// The session is being opened again.
    Recovering,
    /// The token rejected the configured or typed PIN; an operator must act.
    PinRejected,
    /// The token has locked its PIN.
    PinLocked,
    /// A call into the module does not return.
    Wedged,
    /// A key of the token made a wrong signature and is used no more before the gateway starts again; its other keys sign.
    Quarantined,
}

impl SlotState {
    /// Whether a person should do something: until then nothing is signed or, of one that [takes work](Self::takes_work), not with every key.
    #[must_use]
    pub const fn needs_a_person(self) -> bool {
        matches!(self, Self::NeedsPin | Self::PinRejected | Self::PinLocked | Self::Wedged | Self::Quarantined)
    }

    /// Whether what needs a login now may find one later: an operator unlocks the token, or the configured login is under way.
    #[must_use]
    pub const fn may_log_in(self) -> bool {
        matches!(self, Self::NeedsPin | Self::Recovering)
    }

    /// Whether work sent to the slot now is taken up.
    #[must_use]
    pub const fn takes_work(self) -> bool {
        matches!(self, Self::Present | Self::Ready | Self::Busy | Self::WaitingAtReader | Self::Quarantined)
    }
}

impl fmt::Display for SlotState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Absent => "absent",
            Self::Present => "present",
            Self::NeedsPin => "needs PIN",
            Self::Ready => "ready",
            Self::Busy => "busy",
            Self::WaitingAtReader => "waiting at the reader",
            Self::Recovering => "recovering",
            Self::PinRejected => "PIN rejected",
            Self::PinLocked => "PIN locked",
            Self::Wedged => "wedged",
            Self::Quarantined => "quarantined",
        })
    }
}

/// A slot's state, why, and since when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotStatus {
    /// The state.
    pub state: SlotState,
    /// Why, in words for the operator; empty where the state says it all.
    pub reason: String,
    /// When the slot came into this state.
    pub since: Timestamp,
}

impl fmt::Display for SlotStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { state, reason, .. } = self;
        if reason.is_empty() { write!(f, "{state}") } else { write!(f, "{state} ({reason})") }
    }
}

/// One token in one slot: what operators and clients are shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotReport {
    /// The token.
    pub token: TokenIdentity,
    /// How the slot is logged in.
    pub login: LoginMode,
    /// Its state.
    pub status: SlotStatus,
    /// The token's own flags when it was last asked.
    pub flags: TokenFlags,
    /// Commands sent to the slot and not answered yet.
    pub outstanding: usize,
}

/// Which key on a token: by `CKA_ID`, by label, or both. Exactly one key must match.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct KeySelector {
    /// `CKA_ID`.
    pub id: Option<Vec<u8>>,
    /// `CKA_LABEL`.
    pub label: Option<String>,
}

impl fmt::Display for KeySelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let uri = Pkcs11Uri { id: self.id.clone(), object: self.label.clone(), ..Pkcs11Uri::default() };
        uri.fmt(f)
    }
}

/// A signing key on a token, as far as it can be read without signing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyDescription {
    /// `CKA_ID`; empty where the token has none.
    pub id: Vec<u8>,
    /// `CKA_LABEL`.
    pub label: String,
    /// What it is.
    pub kind: KeyKind,
    /// `SubjectPublicKeyInfo` in DER, from the public key object or the certificate; `None` where the token has neither.
    pub public_key: Option<Vec<u8>>,
    /// The X.509 certificate with the same `CKA_ID`, in DER.
    pub certificate: Option<Vec<u8>>,
    /// `CKA_ALWAYS_AUTHENTICATE`: the PIN is wanted for each signature.
    pub always_authenticate: bool,
    /// Attributes of the private key that show how well it is kept.
    pub protection: KeyProtection,
}

/// How well a private key is kept by its token (PKCS#11 section 4.9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct KeyProtection {
    /// `CKA_SENSITIVE`.
    pub sensitive: bool,
    /// `CKA_EXTRACTABLE`.
    pub extractable: bool,
    /// `CKA_LOCAL`: made on the token.
    pub local: bool,
}

impl KeyProtection {
    /// Whether the key was made on its token and cannot leave it.
    #[must_use]
    pub const fn is_bound_to_token(&self) -> bool {
        self.sensitive && !self.extractable && self.local
    }
}

/// What a token can do with the keys that the gateway knows, by its own list of mechanisms.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenOffer {
    /// The kinds of keys that can be made on it.
    pub makes: Vec<KeyKind>,
    /// How it can sign, with whatever key goes with that.
    pub signs: Vec<SignatureAlgorithm>,
}

/// What key pair to make on a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyPairSpec {
    /// RSA with a modulus length, a curve, or Ed25519.
    pub kind: KeyKind,
    /// `CKA_ID` of both halves.
    pub id: Vec<u8>,
    /// `CKA_LABEL` of both halves.
    pub label: String,
}

/// How the configuration wants a token treated. The first policy whose URI matches a token counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenPolicy {
    /// Which tokens it is for.
    pub uri: Pkcs11Uri,
    /// How they are logged in.
    pub login: LoginMode,
    /// Where the PIN is read, in mode `configured`.
    pub pin: Option<PinSource>,
    /// The most jobs that may be queued for the token.
    pub queue_bound: usize,
}

/// Where a configured PIN stands. It is read when it is needed and not kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PinSource {
    /// A file of the operator's; its first line.
    File(std::path::PathBuf),
    /// An environment variable of the gateway.
    Environment(String),
    /// A systemd credential (`LoadCredential=`): a file of this name in `$CREDENTIALS_DIRECTORY`.
    Credential(String),
}
