//! The key that a ticket signs with, and what a caller may know of it.

use const_oid::db::rfc5912::ID_KP_TIME_STAMPING;

use super::{TicketError, TicketService};
use crate::{
    domain::{algorithm::SignatureAlgorithm, caller::Caller, ids::TicketId, key::KeyChoice, pin::Pin, ticket::Ticket},
    pki::Certificate,
    signing::service::{Authorised, Denied},
};

/// What a caller may know of the key that its ticket signs with.
#[derive(Debug, Clone)]
pub struct KeyReport {
    /// Its certificate; a key without one signs no CMS.
    pub certificate: Option<Certificate>,
    /// Its certificate is for time stamps alone, and the key signs no documents therefore.
    pub time_stamps_alone: bool,
}

impl TicketService {
    /// The certificate of the caller's default key; `None` if there is no such key, or no certificate of it.
    ///
    /// # Errors
    /// [`TicketError::Denied`].
    pub async fn default_certificate(&self, caller: &Caller) -> Result<Option<Certificate>, TicketError> {
        match self.signing.authorise(caller, &KeyChoice::Default, None, None).await {
            Ok(authorised) => Ok(certificate_of(&authorised)),
            Err(Denied::NoKey) => Ok(None),
            Err(denied) => Err(denied.into()),
        }
    }

    /// What there is to be known of the key that a ticket signs with. The key is usable if this is no error.
    ///
    /// A PIN that comes with the request is checked, within the rules.
    ///
    /// # Errors
    /// [`TicketError::Missing`], [`TicketError::Denied`], [`TicketError::UnknownToken`], [`TicketError::StoreUnavailable`].
    pub async fn key_report(&self, caller: &Caller, id: TicketId, pin: Option<&Pin>) -> Result<KeyReport, TicketError> {
        let ticket = self.load(caller, id).await?;
        let authorised = self.authorise(caller, &ticket, None, pin).await?;
        Ok(KeyReport { certificate: certificate_of(&authorised), time_stamps_alone: is_for_time_stamps_alone(&authorised) })
    }

    /// As [`authorise`](Self::authorise), for a signature of a document.
    pub(super) async fn authorise_document(
        &self,
        caller: &Caller,
        ticket: &Ticket,
        algorithm: Option<SignatureAlgorithm>,
        pin: Option<&Pin>,
    ) -> Result<Authorised, TicketError> {
        let authorised = self.authorise(caller, ticket, algorithm, pin).await?;
        if is_for_time_stamps_alone(&authorised) { Err(TicketError::TimeStampsAlone) } else { Ok(authorised) }
    }

    /// Finds the ticket's key and checks that it can sign now: the one that was chosen for it, or the caller's default.
    pub(super) async fn authorise(
        &self,
        caller: &Caller,
        ticket: &Ticket,
        algorithm: Option<SignatureAlgorithm>,
        pin: Option<&Pin>,
    ) -> Result<Authorised, TicketError> {
        self.signing.authorise(caller, &ticket.key, algorithm, pin).await.map_err(|denied| match denied {
            // The token of a configured key may come; one that a client made up will not.
            Denied::TokenAbsent if matches!(ticket.key, KeyChoice::Uri(_)) => TicketError::UnknownToken,
            denied => denied.into(),
        })
    }
}

fn certificate_of(authorised: &Authorised) -> Option<Certificate> {
    Certificate::from_der(authorised.key().certificate.as_deref()?).ok()
}

/// Whether the certificate's `extKeyUsage` names time stamps and nothing else. Who relies on such a certificate must not meet it under a document
/// (RFC 3161 section 2.3), so the key signs none unless its configuration insists.
fn is_for_time_stamps_alone(authorised: &Authorised) -> bool {
    let purposes = certificate_of(authorised).and_then(|certificate| certificate.extended_key_usage());
    let alone =
        purposes.is_some_and(|(_, purposes)| !purposes.is_empty() && purposes.iter().all(|purpose| *purpose == ID_KP_TIME_STAMPING));
    alone && !authorised.key().ignore_purpose
}
