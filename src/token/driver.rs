//! The seam to the device: two narrow, blocking traits, and what can go wrong behind them.
//!
//! [`TokenModule`] is a loaded PKCS#11 module; [`TokenDriver`] is one session on one token. The slot thread calls them and nobody else does.
//! Invariant: an error says both what to do next ([`DeviceError::retry`]) and whether a signature may exist ([`DeviceError::outcome`]).

use serde::{Deserialize, Serialize};

use super::quirks::LibraryInfo;
use crate::domain::{
    algorithm::{KeyKind, SignatureAlgorithm},
    digest::ToSign,
    pin::Pin,
    signature::SignatureValue,
    token::{KeyDescription, KeyPairSpec, KeySelector, TokenFlags, TokenIdentity, TokenOffer},
};

/// A slot number of a module; meaningful within one run of the module only, and no name for a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SlotId(pub u64);

/// A token that was seen in a slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenSighting {
    /// Where it was.
    pub slot: SlotId,
    /// What it is.
    pub token: TokenIdentity,
    /// What it says of itself.
    pub flags: TokenFlags,
    /// The slot's device can be taken out (`CKF_REMOVABLE_DEVICE`).
    pub removable: bool,
}

/// A loaded module. All methods block.
pub trait TokenModule: Send + Sync {
    /// How the module describes itself.
    ///
    /// # Errors
    /// The module did not answer.
    fn library(&self) -> Result<LibraryInfo, DeviceError>;

    /// Lists the initialised tokens that are present, in no particular order.
    ///
    /// # Errors
    /// The module did not answer; what was there before may still be there.
    fn tokens(&self) -> Result<Vec<TokenSighting>, DeviceError>;

    /// Opens a session on the token in `slot`.
    ///
    /// # Errors
    /// [`DeviceError::TokenGone`] if it is not there any more, or what the module said.
    fn open(&self, slot: SlotId) -> Result<Box<dyn TokenDriver>, DeviceError>;

    /// Makes a token in a free slot: initialises it with `label` and `so_pin` and sets the user PIN (`C_InitToken`, `C_InitPIN`).
    ///
    /// The new token's slot number may change with the next `C_Initialize`.
    ///
    /// # Errors
    /// [`DeviceError::TokenGone`] if no slot holds an uninitialised token, or what the module said.
    fn create_token(&self, label: &str, so_pin: &Pin, user_pin: &Pin) -> Result<(), DeviceError>;
}

/// A key found in a session. It dies with the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyHandle(pub u64);

/// A key as the slot thread keeps it for signing: found once per session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedKey {
    /// The private key object.
    pub handle: KeyHandle,
    /// What it is.
    pub kind: KeyKind,
    /// `CKA_ALWAYS_AUTHENTICATE`.
    pub always_authenticate: bool,
}

/// One session on one token. All methods block; none is ever called from two threads.
pub trait TokenDriver: Send {
    /// Checks that the token is still in its slot (`C_GetSlotInfo`).
    ///
    /// Cheap, and wanted before each signature on removable slots: some modules answer a late `C_Sign` with an error that would leave it
    /// open whether they signed, and one never returns.
    ///
    /// # Errors
    /// [`DeviceError::TokenGone`], or what the module said.
    fn check_presence(&mut self) -> Result<(), DeviceError>;

    /// Uses the session, so that it does not end as idle (`C_GetSessionInfo`), and checks whether it is still logged in as `logged_in` says.
    ///
    /// # Errors
    /// [`DeviceError::SessionLost`] also if the login is gone; else what the module said.
    fn check_session(&mut self, logged_in: bool) -> Result<(), DeviceError>;

    /// Reads the token's own flags (`C_GetTokenInfo`).
    ///
    /// # Errors
    /// What the module said.
    fn flags(&mut self) -> Result<TokenFlags, DeviceError>;

    /// Logs the user in; without a PIN, at the reader's own PIN pad.
    ///
    /// # Errors
    /// [`DeviceError::AlreadyLoggedIn`] says nothing about the PIN. [`DeviceError::PinRejected`]: a try is spent.
    fn login(&mut self, pin: Option<&Pin>) -> Result<(), DeviceError>;

    /// Logs the user out, on every session of the process with this token.
    ///
    /// # Errors
    /// What the module said.
    fn logout(&mut self) -> Result<(), DeviceError>;

    /// Lists the private keys that can be seen, with their public keys and certificates. Before a login most tokens show none.
    ///
    /// # Errors
    /// What the module said.
    fn list_keys(&mut self) -> Result<Vec<KeyDescription>, DeviceError>;

    /// Finds the one private key that `selector` names.
    ///
    /// # Errors
    /// [`DeviceError::KeyNotFound`], [`DeviceError::KeyAmbiguous`], or what the module said. [`DeviceError::SessionLost`] if no key matches
    /// while nobody is logged in: that proves nothing about the key.
    fn find_key(&mut self, selector: &KeySelector) -> Result<CachedKey, DeviceError>;

    /// Signs; ECDSA comes back as r‖s. `pin` is given to keys that want one for each signature, with nothing between it and `C_Sign`.
    ///
    /// `entering` is called once, right before the call from which on a signature may exist.
    ///
    /// # Errors
    /// [`DeviceError::Unsupported`] if the token cannot do it (nothing was called then); else what the module said.
    fn sign(
        &mut self,
        key: &CachedKey,
        to_sign: &ToSign,
        pin: Option<&Pin>,
        entering: &mut dyn FnMut(),
    ) -> Result<SignatureValue, DeviceError>;

    /// Makes a key pair on the token: sensitive, not extractable, private, for signing.
    ///
    /// # Errors
    /// [`DeviceError::Unsupported`] if the token does not make such keys; else what the module said.
    fn generate_key_pair(&mut self, spec: &KeyPairSpec) -> Result<KeyDescription, DeviceError>;

    /// Writes an X.509 certificate beside the key with the same `CKA_ID`.
    ///
    /// # Errors
    /// What the module said; the token is as it was then.
    fn write_certificate(&mut self, id: &[u8], label: &str, certificate: &[u8]) -> Result<(), DeviceError>;

    /// The X.509 certificates with this `CKA_ID`, in DER and in no order; with an empty one, those that have none.
    ///
    /// # Errors
    /// What the module said.
    fn certificates(&mut self, id: &[u8]) -> Result<Vec<Vec<u8>>, DeviceError>;

    /// Removes the certificates with this `CKA_ID` whose DER is `certificate`.
    ///
    /// # Errors
    /// What the module said.
    fn remove_certificate(&mut self, id: &[u8], certificate: &[u8]) -> Result<(), DeviceError>;

    /// Removes the private and the public key with this `CKA_ID`.
    ///
    /// # Errors
    /// What the module said; one of them may be gone.
    fn destroy_key_pair(&mut self, id: &[u8]) -> Result<(), DeviceError>;

    /// The algorithms that the token's mechanism list allows for this kind of key.
    ///
    /// # Errors
    /// What the module said.
    fn algorithms(&mut self, key: &KeyKind) -> Result<Vec<SignatureAlgorithm>, DeviceError>;

    /// What the token's mechanism list allows, whatever keys are on it.
    ///
    /// # Errors
    /// What the module said.
    fn offer(&mut self) -> Result<TokenOffer, DeviceError>;
}

/// What to do after an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// The same call would fail again.
    Never,
    /// Open the session again (and log in, and find the keys), then once more.
    AfterReopen,
    /// A person must act first.
    AfterOperator,
}

/// Whether the call may have had its effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Certainly not.
    NotPerformed,
    /// Nobody knows.
    Unknown,
}

/// What went wrong at the token. Texts name return values and functions, never PINs or data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum DeviceError {
    /// The token is not in its slot.
    #[error("the token is not there ({0})")]
    TokenGone(String),
    /// The session, the login or an object handle is not valid any more.
    #[error("the session with the token was lost ({0})")]
    SessionLost(String),
    /// `CKR_USER_ALREADY_LOGGED_IN`.
    #[error("the token is logged in already")]
    AlreadyLoggedIn,
    /// The module is not initialised any more (`CKR_CRYPTOKI_NOT_INITIALIZED`).
    #[error("the module must be started again ({0})")]
    ModuleLost(String),
    /// The token rejected the PIN.
    #[error("the token rejected the PIN")]
    PinRejected,
    /// The PIN cannot be one of this token (length, characters); no try is spent.
    #[error("the token does not take a PIN of this form")]
    PinUnacceptable,
    /// The PIN is locked.
    #[error("the token has locked its PIN; unblock it with the vendor's tool")]
    PinLocked,
    /// The token warns that the next wrong PIN locks it.
    #[error("the token warns that one more wrong PIN locks it; an operator must insist")]
    FinalTry,
    /// The PIN was not tried: rule of the PIN ledger.
    #[error("{0}")]
    PinNotTried(String),
    /// The PIN differs from the one that logged in; the token was not asked.
    #[error("this is not the PIN that the token was unlocked with")]
    PinMismatch,
    /// The token must be unlocked first.
    #[error("the token is locked: {0}")]
    LoginRequired(String),
    /// No key matches.
    #[error("there is no private key {0} on the token")]
    KeyNotFound(String),
    /// More than one key matches.
    #[error("{count} private keys on the token match {selector}; name one by its id")]
    KeyAmbiguous {
        /// What was looked for.
        selector: String,
        /// How many there are.
        count: usize,
    },
    /// The token cannot do this.
    #[error("the token cannot do this: {0}")]
    Unsupported(String),
    /// The token has no room, or is write-protected.
    #[error("the token cannot be written ({0})")]
    NotWritable(String),
    /// The module refused the arguments: nothing was done.
    #[error("the module refused the call ({0})")]
    Refused(String),
    /// The module failed, and before the call that could have had an effect.
    #[error("the module failed before anything was signed ({0})")]
    Failed(String),
    /// The module failed in the call itself.
    #[error("the module failed and may have signed ({0})")]
    Unclear(String),
    /// The gateway is shutting down; the command was not begun.
    #[error("the gateway is shutting down")]
    Stopping,
    /// The module's process ended; `entered` says whether a signature may exist.
    #[error("the module's process ended")]
    ProcessEnded {
        /// `C_Sign` had been entered.
        entered: bool,
    },
}

impl DeviceError {
    /// What to do next.
    #[must_use]
    pub const fn retry(&self) -> Retry {
        match self {
            Self::TokenGone(_)
            | Self::ModuleLost(_)
            | Self::SessionLost(_)
            | Self::Failed(_)
            | Self::Unclear(_)
            | Self::Stopping
            | Self::ProcessEnded { .. } => Retry::AfterReopen,
            Self::PinRejected | Self::PinLocked | Self::FinalTry | Self::LoginRequired(_) => Retry::AfterOperator,
            Self::AlreadyLoggedIn
            | Self::PinUnacceptable
            | Self::PinNotTried(_)
            | Self::PinMismatch
            | Self::KeyNotFound(_)
            | Self::KeyAmbiguous { .. }
            | Self::Unsupported(_)
            | Self::NotWritable(_)
            | Self::Refused(_) => Retry::Never,
        }
    }

    /// Whether a signature may exist.
    #[must_use]
    pub const fn outcome(&self) -> Outcome {
        match self {
            Self::Unclear(_) | Self::ProcessEnded { entered: true } => Outcome::Unknown,
            _ => Outcome::NotPerformed,
        }
    }
}
