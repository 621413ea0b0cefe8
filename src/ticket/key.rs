//! The key that a ticket signs with, and what a caller may know of it.

use super::{TicketError, TicketService};
use crate::{
    domain::{algorithm::SignatureAlgorithm, caller::Caller, ids::TicketId, key::KeyChoice, pin::Pin, ticket::Ticket},
    pki::Certificate,
    signing::service::{Authorised, Denied},
};

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

    /// The certificate of the key that a ticket signs with; `None` if the key has none. The key is usable if this is no error.
    ///
    /// A PIN that comes with the request is checked, within the rules.
    ///
    /// # Errors
    /// [`TicketError::Missing`], [`TicketError::Denied`], [`TicketError::UnknownToken`], [`TicketError::StoreUnavailable`].
    pub async fn certificate(&self, caller: &Caller, id: TicketId, pin: Option<&Pin>) -> Result<Option<Certificate>, TicketError> {
        let ticket = self.load(caller, id).await?;
        Ok(certificate_of(&self.authorise(caller, &ticket, None, pin).await?))
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
