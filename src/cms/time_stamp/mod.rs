//! Time stamps (RFC 3161): what is asked, what is answered, and whether an answer is good.
//!
//! Bytes in, bytes out: who carries them over the network is the business of `pki`, who signs them that of the services. Invariants: a
//! [`TimeStamp`] has a token whose signature, signer's certificate and purpose were checked when it was made; whether its signer is trusted
//! depends on the relying party, and is not said here; the token is kept byte for byte.

mod asn1;
mod authority;
mod token;

use aws_lc_rs::rand;
use const_oid::ObjectIdentifier;
use der::{Decode, Encode, asn1::Int};

use self::asn1::{MessageImprint, PkiStatusInfo, TimeStampReq, TimeStampResp, positive};
use super::algorithm::{hash_of, imprint_algorithm};
use super::verify::SignerFault;
use crate::domain::digest::Digest;

pub(super) use self::asn1::ID_CT_TST_INFO;
pub use self::{
    authority::{AskedTimeStamp, PkiFailure, TimeStampFacts, TimeStampRefusal, rejection, response, time_stamp_attributes},
    token::TimeStamp,
};

/// The longest response that is looked at, in bytes: a token with the certificates of its signer has a few kilobytes.
pub const RESPONSE_MAX: usize = 256 * 1024;
/// The longest request that is looked at, in bytes.
pub const REQUEST_MAX: usize = 16 * 1024;

/// Length of a nonce in bytes.
const NONCE_LEN: usize = 8;

/// Why a response or a token is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TimeStampError {
    /// Longer than anything that is looked at.
    #[error("{got} bytes are too long for a time stamp")]
    TooLong {
        /// The length that was given, in bytes.
        got: usize,
    },
    /// Not a response or a token in DER.
    #[error("it cannot be read: {0}")]
    Encoding(String),
    /// The authority refused.
    #[error("the authority answered with status {status}{detail}")]
    Refused {
        /// The `PKIStatus`.
        status: u8,
        /// What it said about the reason; begins with a separator, or is empty.
        detail: String,
    },
    /// The response has no token.
    #[error("the answer has no token in it")]
    NoToken,
    /// The token is not for what was asked.
    #[error("the token is for other data: its imprint is not the one that was asked for")]
    Imprint,
    /// The token does not have the nonce of the request: it may be an old one.
    #[error("the token does not repeat the nonce of the request")]
    Nonce,
    /// The token was made under another policy than the one that was asked for.
    #[error("the token's policy is {got}, not {wanted}")]
    Policy {
        /// The policy that was asked for.
        wanted: ObjectIdentifier,
        /// The policy of the token.
        got: ObjectIdentifier,
    },
    /// Its structure is not that of a time-stamp token.
    #[error("it is no time-stamp token: {0}")]
    Structure(&'static str),
    /// The signer's certificate is missing, or not one of a time-stamping authority.
    #[error("the authority's certificate: {0}")]
    Certificate(&'static str),
    /// An algorithm that is not verified here.
    #[error("its {0} is not supported")]
    Unsupported(&'static str),
    /// The signature is wrong.
    #[error("the token's signature is wrong")]
    Signature,
    /// Its signer did not sign it as a signer must.
    #[error("the token's signature: {0}")]
    Signer(SignerFault),
    /// No random numbers for a nonce.
    #[error("the system's random number generator failed")]
    Random,
}

impl From<der::Error> for TimeStampError {
    fn from(error: der::Error) -> Self {
        Self::Encoding(error.to_string())
    }
}

/// A request for a time stamp, with a fresh nonce.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeStampQuery {
    imprint: Digest,
    policy: Option<ObjectIdentifier>,
    nonce: Int,
}

impl TimeStampQuery {
    /// Asks for a time stamp of data with this digest, under a policy if one is wanted.
    ///
    /// # Errors
    /// [`TimeStampError::Random`].
    pub fn new(imprint: Digest, policy: Option<ObjectIdentifier>) -> Result<Self, TimeStampError> {
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).map_err(|_| TimeStampError::Random)?;
        // All nonces have one length, and none is zero.
        nonce[0] = nonce[0] & 0x7f | 0x40;
        Ok(Self { imprint, policy, nonce: positive(&nonce)? })
    }

    /// `TimeStampReq` in DER; the certificate of the authority is asked for.
    ///
    /// # Errors
    /// [`TimeStampError::Encoding`] never for digests.
    pub fn to_der(&self) -> Result<Vec<u8>, TimeStampError> {
        let request = TimeStampReq {
            version: 1,
            message_imprint: MessageImprint {
                hash_algorithm: imprint_algorithm(self.imprint.algorithm()),
                hashed_message: der::asn1::OctetString::new(self.imprint.as_bytes())?,
            },
            req_policy: self.policy,
            nonce: Some(self.nonce.clone()),
            cert_req: true,
            extensions: None,
        };
        Ok(request.to_der()?)
    }

    /// Takes the time stamp out of `TimeStampResp`, if it is a good answer to this request: granted, for the same imprint, with the same nonce
    /// and policy, and a token as [`TimeStamp::from_token`] wants it.
    ///
    /// # Errors
    /// [`TimeStampError`].
    pub fn accept(&self, response: &[u8]) -> Result<TimeStamp, TimeStampError> {
        if response.len() > RESPONSE_MAX {
            return Err(TimeStampError::TooLong { got: response.len() });
        }
        let TimeStampResp { status, time_stamp_token } = TimeStampResp::from_der(response)?;
        refuse_status(&status)?;
        let token = time_stamp_token.ok_or(TimeStampError::NoToken)?.to_der()?;
        let time_stamp = TimeStamp::from_token(&token)?;
        time_stamp.check_imprint(&self.imprint)?;
        if time_stamp.nonce() != Some(&self.nonce) {
            return Err(TimeStampError::Nonce);
        }
        match self.policy {
            Some(wanted) if wanted != time_stamp.policy() => Err(TimeStampError::Policy { wanted, got: time_stamp.policy() }),
            _ => Ok(time_stamp),
        }
    }
}

/// Only `granted` (0) and `grantedWithMods` (1) come with a token.
fn refuse_status(status: &PkiStatusInfo) -> Result<(), TimeStampError> {
    if status.status <= 1 {
        return Ok(());
    }
    let bits = status.fail_info.as_ref().map(|bits| {
        let set = bits.bits().enumerate().filter_map(|(bit, set)| set.then_some(bit));
        set.map(|bit| PkiFailure::of_bit(bit).map_or_else(|| format!("failure {bit}"), |failure| failure.to_string())).collect::<Vec<_>>()
    });
    let reasons = bits.into_iter().flatten().chain(Some(status.text()).filter(|text| !text.is_empty()));
    let detail = reasons.map(|reason| format!(", {reason}")).collect();
    Err(TimeStampError::Refused { status: status.status, detail })
}

/// The digest that an imprint says.
fn digest_of(imprint: &MessageImprint) -> Option<Digest> {
    Digest::new(hash_of(&imprint.hash_algorithm)?, imprint.hashed_message.as_bytes().to_vec()).ok()
}
