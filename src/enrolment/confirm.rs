//! Confirmation: the holder signs the application with the key that is active now, and needs no visit for the next certificate.

use std::io::Cursor;

use super::{
    EnrolmentError, EnrolmentService, Fault, Requester,
    print::{Edition, print},
};
use crate::{
    cms::verify::SignedMessage,
    domain::{
        enrolment::{Enrolment, EnrolmentState, ExternalId, Step},
        ids::EnrolmentId,
    },
};

/// The most signatures that are looked at.
pub const SIGNATURES_MAX: usize = 8;

/// A signature over the application as it is printed: a detached CMS in DER.
#[derive(Debug, Clone)]
pub struct Confirmation {
    /// The CMS.
    pub cms: Vec<u8>,
    /// The request whose certificate signed, if the client says it.
    pub certificate: Option<EnrolmentId>,
}

impl EnrolmentService {
    /// Takes the holder's signature over the printed application, and lets the request go to its CA. Done before, it is done.
    ///
    /// # Errors
    /// [`Fault::Confirmation`] says what is wrong with the signature; [`Fault::State`].
    pub async fn confirm(&self, who: &Requester, id: &ExternalId, given: Vec<Confirmation>) -> Result<Enrolment, EnrolmentError> {
        let mut enrolment = self.find(who, id).await?;
        match enrolment.state {
            EnrolmentState::AwaitingConfirmation => {}
            EnrolmentState::AwaitingIssue | EnrolmentState::Issued | EnrolmentState::Activated => return Ok(enrolment),
            state => return Err(Fault::State(state).into()),
        }
        let wrong = |why: &str| EnrolmentError::from(Fault::Confirmation(why.to_owned()));
        let active = self.active(&enrolment.key_name).await?.ok_or_else(|| wrong("no certificate of the holder is active"))?;
        let meant = |given: &Confirmation| given.certificate.is_none_or(|meant| meant == active.id);
        let confirmation = given.into_iter().find(meant).ok_or_else(|| wrong("none is said to be made with the active certificate"))?;
        let expected = active.issued.ok_or_else(|| wrong("no certificate of the holder is active"))?.certificate;
        let application = print(&enrolment, Edition::Application)?;
        let checked = tokio::task::spawn_blocking(move || check(&confirmation.cms, application, &expected)).await;
        checked.map_err(|error| EnrolmentError::Unavailable(error.to_string()))?.map_err(Fault::Confirmation)?;
        self.step(&mut enrolment, Step::Confirmed, who.caller.id.as_str(), Vec::new()).await?;
        self.wake.notify_one();
        Ok(enrolment)
    }
}

/// Checks that the key of `certificate` signed `application`.
fn check(cms: &[u8], application: Vec<u8>, certificate: &[u8]) -> Result<(), String> {
    let mut message = SignedMessage::read(Cursor::new(cms)).map_err(|error| error.to_string())?;
    let signers = message.check(Some(&mut Cursor::new(application)), &[certificate]).map_err(|error| error.to_string())?;
    let by_holder = signers.into_iter().find(|signer| signer.certificate.as_deref() == Some(certificate));
    match by_holder {
        Some(signer) => signer.outcome.map_err(|fault| fault.to_string()),
        None => Err("no signature is by the active certificate".to_owned()),
    }
}
