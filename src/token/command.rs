//! What can be asked of a slot, and what it answers: plain owned values, for they cross a process boundary.
//!
//! Reply channel, deadline and watchdog are not part of them.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::domain::{
    algorithm::SignatureAlgorithm,
    digest::ToSign,
    pin::Pin,
    signature::SignatureValue,
    token::{KeyDescription, KeyPairSpec, KeySelector, TokenOffer},
};

use super::host::pin_codec;

/// A command to the thread of one slot.
#[derive(Debug, Serialize, Deserialize)]
pub enum Command {
    /// Sign; on a per-request slot, or with a key that wants it, the PIN comes along.
    Sign {
        /// Which key.
        key: KeySelector,
        /// What, and how.
        to_sign: ToSign,
        /// The PIN that came with the request.
        #[serde(with = "pin_codec::optional")]
        pin: Option<Pin>,
        /// Noted by the slot's thread before it enters `C_Sign`, where a crash does not reach: see `marks`.
        mark: Option<Uuid>,
    },
    /// Describe one key: public key, certificate, protection, and what it can sign with.
    DescribeKey {
        /// Which key.
        key: KeySelector,
        /// The PIN that came with the request: per-request slots show private keys only after a login.
        #[serde(with = "pin_codec::optional")]
        pin: Option<Pin>,
    },
    /// List the keys that can be seen.
    ListKeys,
    /// Say what the token can do.
    Offer,
    /// Make a key pair.
    GenerateKeyPair(KeyPairSpec),
    /// Remove both halves of a key pair that nothing was done with yet.
    DestroyKeyPair {
        /// `CKA_ID` of both halves.
        id: Vec<u8>,
    },
    /// Have a certificate beside its key, whether it has to be written or is there: a repetition changes nothing.
    WriteCertificate(CertificateOrder),
    /// Log in for all, until logged out: configured PINs and operators.
    Login {
        /// The PIN; `None` at a reader with its own PIN pad.
        #[serde(with = "pin_codec::optional")]
        pin: Option<Pin>,
        /// Who brought it.
        origin: crate::domain::pin::PinOrigin,
    },
    /// Check a PIN that came with a request, within the rules for such PINs.
    CheckPin {
        /// The PIN.
        #[serde(with = "pin_codec::required")]
        pin: Pin,
    },
    /// Log out.
    Logout,
}

/// What certificate a key is to have on its token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateOrder {
    /// `CKA_ID` of the key.
    pub id: Vec<u8>,
    /// `CKA_LABEL` of the certificate.
    pub label: String,
    /// The certificate in DER.
    pub certificate: Vec<u8>,
    /// Certificates of its CAs in DER, which are wanted on the token, too.
    pub chain: Vec<Vec<u8>>,
    /// Whether other certificates with this `CKA_ID` are removed, once this one is there.
    pub replace: bool,
}

/// The answer to a [`Command`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// To `Sign`.
    Signature(SignatureValue),
    /// To `DescribeKey` and `GenerateKeyPair`.
    Key {
        /// The key.
        key: KeyDescription,
        /// What the token can sign with it.
        algorithms: Vec<SignatureAlgorithm>,
    },
    /// To `ListKeys`.
    Keys(Vec<KeyDescription>),
    /// To `Offer`.
    Offer(TokenOffer),
    /// To everything else.
    Done,
}
