//! Signatures of the gateway's own: canaries, checkpoints of the audit log, time stamps.
//!
//! No permit pays for them and they are no jobs: whoever asks puts them into the audit log, with what they were for. Invariant: like any other
//! signature they are verified before anybody gets them, and a wrong one quarantines its key.

use std::sync::Arc;

use tracing::error;

use crate::{
    domain::{
        algorithm::SignatureAlgorithm, caller::Caller, digest::ToSign, ids::KeyName, job::KeyAddress, key::KeyChoice, key_uri::Pkcs11Uri,
        signature::SignatureValue, token::TokenIdentity, verify::VerifyError,
    },
    token::command::{Command, Reply},
};

use super::{
    dispatcher::Workshop,
    keyring::{EnrolledKeys, Site, Target, denied},
    service::{Denied, SigningKey, SigningService, algorithm_for},
    verify::PoolError,
};

/// Only jobs are handed from one gateway to another.
const ELSEWHERE: &str = "another gateway has the token of this key; a gateway signs its own things with tokens of its own";

/// A signature of the gateway's own, and all that verifies it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnSignature {
    /// How it was made.
    pub algorithm: SignatureAlgorithm,
    /// `SubjectPublicKeyInfo` of the key in DER.
    pub public_key: Vec<u8>,
    /// The signature.
    pub value: SignatureValue,
}

/// A configured key as the gateway itself signs with it.
#[derive(Debug, Clone)]
pub struct OwnKey {
    /// How it signs.
    pub algorithm: SignatureAlgorithm,
    /// What is known of it.
    pub key: Arc<SigningKey>,
}

impl SigningService {
    /// Finds the configured key of this name on a token of this gateway.
    ///
    /// # Errors
    /// [`Denied`].
    pub async fn own_key(&self, key: &KeyName) -> Result<OwnKey, Denied> {
        let workshop = self.workshop();
        let target = workshop.keyring.target_of(key).ok_or_else(|| Denied::UnknownKey(key.clone()))??;
        let Site::Here(_) = &target.site else { return Err(Denied::Device(ELSEWHERE.to_owned())) };
        let known = workshop.keyring.known(&target, None).await?;
        Ok(OwnKey { algorithm: algorithm_for(&known, None)?, key: Arc::clone(&known.key) })
    }

    /// Signs `message`, a text of the gateway's own, with the configured key of this name. Works until [`stop`](Self::stop), also after
    /// [`finish`](Self::finish).
    ///
    /// # Errors
    /// [`Denied`].
    pub async fn sign_own(&self, key: &KeyName, message: &[u8]) -> Result<OwnSignature, Denied> {
        let workshop = self.workshop();
        let target = workshop.keyring.target_of(key).ok_or_else(|| Denied::UnknownKey(key.clone()))??;
        if !target.site.status().state.takes_work() {
            return Err(Denied::SlotUnavailable(target.site.status()));
        }
        sign(workshop, &target, message).await
    }
}

impl SigningService {
    /// As [`sign_own`](Self::sign_own), with a key that has no name yet and is at a token of this gateway.
    ///
    /// # Errors
    /// [`Denied`].
    pub async fn sign_own_at(&self, key: &KeyAddress, message: &[u8]) -> Result<OwnSignature, Denied> {
        let workshop = self.workshop();
        let target = workshop.keyring.target_at(key)?;
        if !target.site.status().state.takes_work() {
            return Err(Denied::SlotUnavailable(target.site.status()));
        }
        sign(workshop, &target, message).await
    }

    /// The key at a URI, if the caller may use it and its token is at this gateway. Whether its certificate is in force does not matter.
    ///
    /// # Errors
    /// [`Denied`].
    pub async fn find_key(&self, caller: &Caller, uri: &Pkcs11Uri) -> Result<Arc<SigningKey>, Denied> {
        let keyring = &self.workshop().keyring;
        let target = keyring.locate(caller, &KeyChoice::Uri(uri.clone()))?;
        match &target.site {
            Site::Elsewhere(_) => return Err(Denied::Device(ELSEWHERE.to_owned())),
            Site::Here(_) if !target.site.status().state.takes_work() => return Err(Denied::SlotUnavailable(target.site.status())),
            Site::Here(_) => {}
        }
        Ok(Arc::clone(&keyring.describe(caller, &target, None).await?.key))
    }

    /// The name of another gateway that has the token which `uri` names, if one has: what is done with it is done there.
    #[must_use]
    pub fn gateway_with(&self, uri: &Pkcs11Uri) -> Option<String> {
        self.workshop().keyring.gateway_with(uri)
    }

    /// From now on the keys with these certificates sign under their names, and those that were taken up before do not.
    pub fn enrol(&self, keys: EnrolledKeys) {
        self.workshop().keyring.enrol(keys);
    }

    /// Whether the configuration has a key of this name, which no certificate request can take.
    #[must_use]
    pub fn is_configured(&self, name: &KeyName) -> bool {
        self.workshop().keyring.is_configured(name)
    }

    /// Forgets what was read from a token, because its objects were changed.
    pub fn token_changed(&self, token: &TokenIdentity) {
        self.workshop().keyring.forget(token);
    }
}

/// Signs a message and verifies the signature.
pub(super) async fn sign(workshop: &Workshop, target: &Target, message: &[u8]) -> Result<OwnSignature, Denied> {
    let Site::Here(slot) = &target.site else { return Err(Denied::Device(ELSEWHERE.to_owned())) };
    let known = workshop.keyring.known(target, None).await?;
    let algorithm = algorithm_for(&known, None)?;
    let to_sign = ToSign::of_message(algorithm, message).map_err(|error| Denied::NotSupported(error.to_string()))?;
    let command = Command::Sign { key: known.key.address.selector.clone(), to_sign: to_sign.clone(), pin: None, mark: None };
    let value = match slot.call(command).await {
        Ok(Reply::Signature(signature)) => signature,
        Ok(_) => return Err(Denied::Device("the token answered something else than it was asked".to_owned())),
        Err(error) => return Err(denied(slot, error)),
    };
    let signed = |value| OwnSignature { algorithm, public_key: known.key.public_key.clone(), value };
    let Some(verifier) = known.verifier.as_ref() else { return Ok(signed(value)) };
    match workshop.verifiers.verify(Arc::clone(verifier), to_sign, value).await {
        Ok(value) => Ok(signed(value)),
        Err(PoolError::Verify(VerifyError::Wrong)) => {
            error!(key.id = %known.key.address.selector, "a signature of the gateway's own does not verify; the key is quarantined");
            workshop.keyring.quarantine(slot, &known.key.address);
            Err(Denied::Quarantined)
        }
        Err(error) => Err(Denied::Device(format!("the signature could not be verified: {error}"))),
    }
}
