//! Activation: nine checks in a fixed order, the first of which that fails decides.
//!
//! Everything before the last one may be repeated without harm: the certificate is on the token already, and another proof is another
//! signature of our own. The last one is a compare-and-set, so of two that come this far one has done the work.

use std::time::Duration;

use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use tokio::time::{sleep, timeout};
use tracing::info;

use super::{EnrolmentError, EnrolmentService, Fault, Requester, create::same_public_key, own_signature};
use crate::{
    domain::{
        audit::Sha256,
        digest::ToSign,
        enrolment::{Enrolment, EnrolmentState, ExternalId, IssuedCertificate, Step, profile::Profile},
        job::KeyAddress,
        timestamp::Timestamp,
        token::KeyDescription,
        verify::Verifier,
    },
    pki::{
        Certificate,
        path::{PathRequest, Policies, Purpose, validate_path},
    },
    token::{
        command::{CertificateOrder, Command},
        slot::SlotHandle,
    },
};

/// What a proof of possession begins with: nothing else that is signed here does.
const PROOF_TAG: &[u8] = b"Sealgate proof of possession\0";
/// What it is called in the audit log.
const PURPOSE: &str = "proof of possession";
/// How long an activation that another gateway may be at work on is waited for, and how often it is looked for meanwhile.
const OTHER_MAX: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How often somebody who was overtaken looks again.
const TRIES: usize = 3;

impl EnrolmentService {
    /// Makes the certificate of a request the one that its key signs with. Asked again, it does nothing more.
    ///
    /// # Errors
    /// The first check that fails; nothing that signs now has changed then.
    pub async fn activate(&self, who: &Requester, external_id: &ExternalId) -> Result<Enrolment, EnrolmentError> {
        let enrolment = self.find(who, external_id).await?;
        self.activate_found(enrolment, who.caller.id.as_str()).await
    }

    /// As [`activate`](Self::activate), of a request that was found, because of `by`.
    pub(super) async fn activate_found(&self, mut enrolment: Enrolment, by: &str) -> Result<Enrolment, EnrolmentError> {
        let turn = self.activating.lock().await;
        let mut tries = 0;
        let error = loop {
            // It may have waited for its turn.
            enrolment = self.parts.store.find_enrolment(enrolment.id).await?.ok_or(EnrolmentError::NotFound)?;
            tries += 1;
            match self.check_and_activate(&mut enrolment, by).await {
                Err(EnrolmentError::Overtaken) if tries < TRIES => {}
                Err(error) => break error,
                Ok(()) => return Ok(enrolment),
            }
        };
        drop(turn);
        let elsewhere = enrolment.key.as_ref().is_some_and(|key| self.parts.signing.gateway_with(&key.token.uri()).is_some());
        if elsewhere && matches!(error, EnrolmentError::Unavailable(_)) { self.wait_for_other(enrolment, error).await } else { Err(error) }
    }

    /// Another gateway has the token, and may be at work on this very request.
    async fn wait_for_other(&self, enrolment: Enrolment, otherwise: EnrolmentError) -> Result<Enrolment, EnrolmentError> {
        let active = async {
            loop {
                let stored = self.parts.store.find_enrolment(enrolment.id).await?.ok_or(EnrolmentError::NotFound)?;
                if stored.active {
                    self.take_up().await?;
                    return Ok(stored);
                }
                sleep(LOOK_EVERY).await;
            }
        };
        timeout(OTHER_MAX, active).await.unwrap_or(Err(otherwise))
    }

    async fn check_and_activate(&self, enrolment: &mut Enrolment, by: &str) -> Result<(), EnrolmentError> {
        match enrolment.state {
            EnrolmentState::Activated if enrolment.active => return self.take_up().await,
            EnrolmentState::Activated => return Err(Fault::Replaced.into()),
            EnrolmentState::Issued => {}
            state => return Err(Fault::State(state).into()),
        }
        let issued = enrolment.issued.clone().ok_or(Fault::State(enrolment.state))?;
        let certificate = Certificate::from_der(&issued.certificate).map_err(|error| Fault::Path(error.to_string()))?;
        let (address, slot, key) = self.key_on_token(enrolment).await?;
        check_public_keys(&certificate, enrolment, &key)?;
        let now = self.parts.store.now();
        check_path(self.profile(&enrolment.profile)?.clone(), certificate.clone(), issued.clone(), now).await?;
        check_certificate(&certificate, now)?;
        write(&slot, enrolment, &key, &issued).await?;
        self.parts.signing.token_changed(slot.token());
        self.prove(enrolment, &address, &certificate).await?;
        enrolment.key = Some(KeyAddress { name: Some(enrolment.key_name.clone()), ..address });
        self.step(enrolment, Step::Activated, by, vec![own_signature(PURPOSE, &enrolment.key_name.clone())]).await?;
        info!(enrolment.id = %enrolment.id, key.name = %enrolment.key_name, "the certificate of {} is active", enrolment.key_name);
        // The next look takes them up if the store is away just now.
        let _ = self.take_up().await;
        Ok(())
    }

    /// The one key on the token that the certificate belongs to.
    async fn key_on_token(&self, enrolment: &Enrolment) -> Result<(KeyAddress, SlotHandle, KeyDescription), EnrolmentError> {
        let address = match &enrolment.key {
            Some(address) => address.clone(),
            None => self.key_of_request(enrolment).await?,
        };
        let slot = self.slot(&address.token.uri())?;
        let id = address.selector.id.clone().ok_or(Fault::NoKey)?;
        let key = self.describe(&slot, id).await?;
        Ok((address, slot, key))
    }

    async fn key_of_request(&self, enrolment: &Enrolment) -> Result<KeyAddress, EnrolmentError> {
        let request = enrolment.request.as_ref().ok_or(Fault::NoKey)?;
        let request = crate::pki::csr::CertificateRequest::from_der(&request.0)?;
        Ok(self.find_by_public_key(request.spki()).await.ok_or(Fault::NoKey)?)
    }

    /// Has the key sign something new, and verifies it with the certificate's key.
    async fn prove(&self, enrolment: &Enrolment, address: &KeyAddress, certificate: &Certificate) -> Result<(), EnrolmentError> {
        let mut fresh = [0; 32];
        SystemRandom::new().fill(&mut fresh).map_err(|_| EnrolmentError::Unavailable("the system gave no random numbers".to_owned()))?;
        let statement =
            [PROOF_TAG, enrolment.external_id.as_str().as_bytes(), Sha256::of(certificate.as_der()).as_bytes(), &fresh].concat();
        let signed = self.parts.signing.sign_own_at(address, &statement).await;
        let signed = signed.map_err(|error| EnrolmentError::of_signature(&error, address))?;
        let spki = certificate.spki().to_vec();
        let verified = tokio::task::spawn_blocking(move || {
            let to_sign = ToSign::of_message(signed.algorithm, &statement).map_err(drop)?;
            Verifier::for_key(&spki).and_then(|verifier| verifier.verify(&to_sign, &signed.value)).map_err(drop)
        });
        if matches!(verified.await, Ok(Ok(()))) { Ok(()) } else { Err(Fault::Proof.into()) }
    }
}

/// Certificate, request and token must have one public key.
fn check_public_keys(certificate: &Certificate, enrolment: &Enrolment, key: &KeyDescription) -> Result<(), EnrolmentError> {
    let request = enrolment.request.as_ref().ok_or(Fault::OtherKey)?;
    let request = crate::pki::csr::CertificateRequest::from_der(&request.0)?;
    let on_token = key.public_key.as_deref().ok_or(Fault::OtherKey)?;
    let same = same_public_key(certificate.spki(), request.spki()) && same_public_key(certificate.spki(), on_token);
    if same { Ok(()) } else { Err(Fault::OtherKey.into()) }
}

/// The chain must lead to an anchor of the profile. Whether the certificate itself is valid now is the next check's question.
async fn check_path(profile: Profile, leaf: Certificate, issued: IssuedCertificate, now: Timestamp) -> Result<(), EnrolmentError> {
    let checked = tokio::task::spawn_blocking(move || {
        let read = |der: &Vec<u8>| Certificate::from_der(der).map_err(|error| Fault::Path(error.to_string()));
        let anchors = profile.anchors.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let intermediates = issued.chain().iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let at = now.clamp(leaf.not_before(), leaf.not_after().max(leaf.not_before()));
        let request = PathRequest {
            leaf: &leaf,
            intermediates: &intermediates.iter().collect::<Vec<_>>(),
            anchors: &anchors.iter().collect::<Vec<_>>(),
            through: None,
            at,
            purpose: Purpose::Any,
            revocation: None,
            policies: &Policies::default(),
        };
        validate_path(&request).map(drop).map_err(|error| Fault::Path(error.to_string()))
    });
    match checked.await {
        Ok(checked) => Ok(checked?),
        Err(error) => Err(EnrolmentError::Unavailable(error.to_string())),
    }
}

fn check_certificate(certificate: &Certificate, now: Timestamp) -> Result<(), EnrolmentError> {
    if now < certificate.not_before() {
        return Err(Fault::NotYetValid.into());
    }
    if !certificate.valid_at(now) {
        return Err(Fault::Expired.into());
    }
    if certificate.key_usage().is_some_and(|usage| usage.digital_signature) { Ok(()) } else { Err(Fault::KeyUsage.into()) }
}

/// Has the certificate on the token beside its key; the former one goes when it is there.
async fn write(slot: &SlotHandle, enrolment: &Enrolment, key: &KeyDescription, issued: &IssuedCertificate) -> Result<(), EnrolmentError> {
    let order = CertificateOrder {
        id: key.id.clone(),
        label: if key.label.is_empty() { enrolment.key_name.to_string() } else { key.label.clone() },
        certificate: issued.certificate.clone(),
        chain: issued.chain(),
        replace: true,
    };
    slot.call(Command::WriteCertificate(order)).await.map(drop).map_err(|error| EnrolmentError::Unavailable(error.to_string()))
}
