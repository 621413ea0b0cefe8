//! The gateway as a time-stamping authority (RFC 3161): requests in, responses out, signed by a configured key.
//!
//! Invariants: every request gets a response, a bad one a rejection that says why; a time stamp is in the audit log, with its serial number,
//! before anybody gets it; its time is that of the store's clock, and is read after the key was found to be there.

use std::{net::IpAddr, sync::Arc};

use const_oid::ObjectIdentifier;
use tracing::error;
use uuid::Uuid;

use crate::{
    cms::{
        CmsError, SignedData,
        time_stamp::{AskedTimeStamp, PkiFailure, TimeStampFacts, TimeStampRefusal, rejection, response, time_stamp_attributes},
    },
    domain::{audit::AuditEvent, ids::KeyName},
    signing::service::{Denied, SigningService},
    store::{Change, Store, StoreError},
};

/// What the authority is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthoritySettings {
    /// The key that signs; its certificate is for time stamping alone.
    pub key: KeyName,
    /// The policy under which time stamps are made.
    pub policy: ObjectIdentifier,
    /// How far the clock may be wrong, in seconds.
    pub accuracy_seconds: u64,
}

/// The gateway's own authority.
pub struct Authority {
    settings: AuthoritySettings,
    signing: Arc<SigningService>,
    store: Arc<dyn Store>,
}

/// Why there is no time stamp.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Refused(#[from] TimeStampRefusal),
    #[error("{0}")]
    Key(#[from] Denied),
    #[error("the authority's key has no certificate")]
    NoCertificate,
    #[error("{0}")]
    Cms(#[from] CmsError),
    #[error("{0}")]
    Store(#[from] StoreError),
}

impl Authority {
    /// An authority that signs through `signing` and writes to the audit log of `store`.
    #[must_use]
    pub fn new(settings: AuthoritySettings, signing: Arc<SigningService>, store: Arc<dyn Store>) -> Self {
        Self { settings, signing, store }
    }

    /// The name of its key.
    #[must_use]
    pub const fn key(&self) -> &KeyName {
        &self.settings.key
    }

    /// Answers a `TimeStampReq` with a `TimeStampResp`, both in DER. `address` is where it comes from; the gateway itself has none.
    pub async fn answer(&self, request: &[u8], address: Option<IpAddr>) -> Vec<u8> {
        let failure = match self.stamp(request, address).await {
            Ok(response) => return response,
            Err(Failure::Refused(refusal)) => refusal,
            Err(failure) => {
                error!(key.name = %self.settings.key, error = %failure, "no time stamp was made: {failure}");
                TimeStampRefusal { failure: PkiFailure::SystemFailure, text: "the authority cannot sign now; try again later" }
            }
        };
        rejection(failure).unwrap_or_default()
    }

    async fn stamp(&self, request: &[u8], address: Option<IpAddr>) -> Result<Vec<u8>, Failure> {
        let asked = AskedTimeStamp::from_der(request)?;
        if asked.policy.is_some_and(|policy| policy != self.settings.policy) {
            return Err(TimeStampRefusal { failure: PkiFailure::UnacceptedPolicy, text: "this policy is not served" }.into());
        }
        let own = self.signing.own_key(&self.settings.key).await?;
        let certificate = own.key.certificate.as_deref().ok_or(Failure::NoCertificate)?;
        let facts = self.facts();
        let (info, attributes) = time_stamp_attributes(&asked, &facts, certificate, own.algorithm)?;
        let signed = self.signing.sign_own(&self.settings.key, attributes.as_der()).await?;
        let chain = [certificate].into_iter().chain(own.key.chain.iter().map(Vec::as_slice));
        let certificates: Vec<&[u8]> = if asked.with_certificate { chain.collect() } else { Vec::new() };
        let token = SignedData {
            algorithm: signed.algorithm,
            signed_attrs: &attributes,
            signature: &signed.value,
            signer_certificate: certificate,
            certificates: &certificates,
            unsigned_attrs: &[],
        };
        let answer = response(&token.time_stamp_token(&info)?)?;
        self.record(&asked, &facts, address).await?;
        Ok(answer)
    }

    /// The serial number is a UUID of version 7: unique without asking anybody, for all gateways that share a key, across crashes and restores.
    fn facts(&self) -> TimeStampFacts {
        TimeStampFacts {
            policy: self.settings.policy,
            serial: Uuid::now_v7().as_bytes().to_vec(),
            time: self.store.now(),
            accuracy_seconds: self.settings.accuracy_seconds,
        }
    }

    async fn record(&self, asked: &AskedTimeStamp, facts: &TimeStampFacts, address: Option<IpAddr>) -> Result<(), StoreError> {
        let made = AuditEvent::TimeStamped {
            key_name: self.settings.key.clone(),
            serial: hex::encode(&facts.serial),
            time: facts.time,
            imprint: asked.imprint(),
            address,
        };
        self.store.commit(vec![Change::Audit(made)]).await
    }
}
