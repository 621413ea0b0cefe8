//! What operators do with certificate requests.

use super::{
    ACTIVE_MAX, EnrolmentError, EnrolmentService, Fault,
    create::{key_id, same_public_key},
};
use crate::{
    domain::{
        enrolment::{Enrolment, EnrolmentState, IssuedCertificate, Refusal, Step, StepKind},
        ids::EnrolmentId,
    },
    pki::{Certificate, csr::CertificateRequest},
    store::EnrolmentFilter,
    token::{command::Command, driver::DeviceError, slot::SlotError},
};

/// Certificates as an operator brings them, in DER and in any order.
#[derive(Debug, Clone)]
pub struct UploadedCertificate(pub Vec<Vec<u8>>);

/// The most certificates that are looked at.
const UPLOAD_MAX: usize = 16;
/// The longest PEM text that is looked at, in bytes.
const PEM_MAX: usize = 512 * 1024;

impl UploadedCertificate {
    /// Reads PEM.
    ///
    /// # Errors
    /// [`Fault::Certificate`].
    pub fn from_pem(text: &str) -> Result<Self, EnrolmentError> {
        let wrong = |what: String| EnrolmentError::from(Fault::Certificate(what));
        if text.len() > PEM_MAX {
            return Err(wrong(format!("there are more than {PEM_MAX} bytes")));
        }
        let mut found = Vec::new();
        for part in text.split_inclusive("-----END CERTIFICATE-----").filter(|part| part.contains("-----BEGIN CERTIFICATE-----")) {
            let certificate = Certificate::from_pem(part.trim_start()).map_err(|error| wrong(error.to_string()))?;
            found.push(certificate.as_der().to_vec());
        }
        if found.is_empty() { Err(wrong("there is no certificate in PEM".to_owned())) } else { Ok(Self(found)) }
    }
}

impl EnrolmentService {
    /// The newest requests that fit `filter`.
    ///
    /// # Errors
    /// The store was not reached.
    pub async fn list(&self, filter: &EnrolmentFilter, limit: usize) -> Result<Vec<Enrolment>, EnrolmentError> {
        Ok(self.parts.store.list_enrolments(filter, limit).await?)
    }

    /// Any request.
    ///
    /// # Errors
    /// [`EnrolmentError::NotFound`]; the store was not reached.
    pub async fn show(&self, id: EnrolmentId) -> Result<Enrolment, EnrolmentError> {
        self.parts.store.find_enrolment(id).await?.ok_or(EnrolmentError::NotFound)
    }

    /// Lets a request go to its CA.
    ///
    /// # Errors
    /// [`Fault::State`] if it does not wait for that.
    pub async fn approve(&self, id: EnrolmentId, operator: &str) -> Result<Enrolment, EnrolmentError> {
        let mut enrolment = self.show(id).await?;
        if enrolment.approved && enrolment.state.is_open() {
            return Ok(enrolment);
        }
        self.step(&mut enrolment, Step::Approved, operator, Vec::new()).await?;
        self.wake.notify_one();
        Ok(enrolment)
    }

    /// Refuses a request.
    ///
    /// # Errors
    /// [`Fault::State`] if its certificate was issued, or it was refused before.
    pub async fn refuse(&self, id: EnrolmentId, ground: Refusal, comment: &str, operator: &str) -> Result<Enrolment, EnrolmentError> {
        let mut enrolment = self.show(id).await?;
        self.step(&mut enrolment, Step::Refused { ground, comment: comment.to_owned() }, operator, Vec::new()).await?;
        Ok(enrolment)
    }

    /// Removes the key that was made for a request which has been refused. Done before, it is done.
    ///
    /// # Errors
    /// [`Fault::State`] if it was not refused, [`Fault::Key`] if the key was not made for it or serves another request; the token is away.
    pub async fn delete_key(&self, id: EnrolmentId, operator: &str) -> Result<Enrolment, EnrolmentError> {
        let mut enrolment = self.show(id).await?;
        if !matches!(enrolment.state, EnrolmentState::Refused(_)) {
            return Err(Fault::State(enrolment.state).into());
        }
        if enrolment.history.iter().any(|entry| entry.what == StepKind::KeyDeleted) {
            return Ok(enrolment);
        }
        if !enrolment.key_made_here || enrolment.renews.is_some() {
            return Err(Fault::Key("it was not made for this request".to_owned()).into());
        }
        let key = key_id(id);
        let uses = |other: &Enrolment| {
            let same = other.key.as_ref().is_some_and(|address| address.selector.id.as_ref() == Some(&key));
            same && other.id != id && !matches!(other.state, EnrolmentState::Refused(_))
        };
        if let Some(other) =
            self.parts.store.list_enrolments(&EnrolmentFilter::default(), ACTIVE_MAX).await?.iter().find(|other| uses(other))
        {
            return Err(Fault::Key(format!("request {} is for it as well", other.id)).into());
        }
        let token = match &enrolment.key {
            Some(address) => address.token.uri(),
            None => self.profile(&enrolment.profile)?.token.clone(),
        };
        let slot = self.slot(&token)?;
        match slot.call(Command::DestroyKeyPair { id: key }).await {
            Ok(_) | Err(SlotError::Device(DeviceError::KeyNotFound(_))) => {}
            Err(error) => return Err(EnrolmentError::Unavailable(error.to_string())),
        }
        self.parts.signing.token_changed(slot.token());
        self.step(&mut enrolment, Step::KeyDeleted, operator, Vec::new()).await?;
        Ok(enrolment)
    }

    /// Takes the certificate that a CA has issued, and with it the operator's word that the request was let go to it.
    ///
    /// # Errors
    /// [`Fault::Certificate`] if none is of the request's key, [`Fault::State`] if it does not wait for one.
    pub async fn upload(&self, id: EnrolmentId, uploaded: UploadedCertificate, operator: &str) -> Result<Enrolment, EnrolmentError> {
        let mut enrolment = self.show(id).await?;
        let issued = sorted(&enrolment, uploaded)?;
        if enrolment.issued.as_ref() == Some(&issued) {
            return Ok(enrolment);
        }
        if !enrolment.approved {
            self.step(&mut enrolment, Step::Approved, operator, Vec::new()).await?;
        }
        self.step(&mut enrolment, Step::Issued(issued), operator, Vec::new()).await?;
        Ok(enrolment)
    }

    /// As [`activate`](Self::activate), by an operator.
    ///
    /// # Errors
    /// The first check that fails.
    pub async fn activate_by_operator(&self, id: EnrolmentId, operator: &str) -> Result<Enrolment, EnrolmentError> {
        let enrolment = self.show(id).await?;
        self.activate_found(enrolment, operator).await
    }
}

/// Which of the certificates is the request's own; the others are its chain.
fn sorted(enrolment: &Enrolment, uploaded: UploadedCertificate) -> Result<IssuedCertificate, EnrolmentError> {
    let wrong = |what: String| EnrolmentError::from(Fault::Certificate(what));
    let request = enrolment.request.as_ref().ok_or(Fault::State(enrolment.state))?;
    let request = CertificateRequest::from_der(&request.0)?;
    if uploaded.0.len() > UPLOAD_MAX {
        return Err(wrong(format!("there are more than {UPLOAD_MAX} certificates")));
    }
    let (mut own, mut chain) = (None, Vec::new());
    for der in uploaded.0 {
        let certificate = Certificate::from_der(&der).map_err(|error| wrong(error.to_string()))?;
        if same_public_key(certificate.spki(), request.spki()) { own = Some(der) } else { chain.push(der) }
    }
    let own = own.ok_or_else(|| wrong("none of the certificates has the key of the request".to_owned()))?;
    Ok(IssuedCertificate::new(own, chain))
}
