//! What operators can see of a ticket whose signature waits for their consent.

use super::{SignatureDocument, TicketError, TicketService, document};
use crate::{
    domain::{ids::PermitId, operator::Operator, permit::PermitState},
    permit::DecisionError,
};

impl TicketService {
    /// The document that an operator is asked about: the very content that will be signed, for it does not change any more. Only while it waits.
    ///
    /// # Errors
    /// [`TicketError::Missing`] if there is no such request, it is about keys that are not this operator's, or it is decided;
    /// [`TicketError::StoreUnavailable`], [`TicketError::SpoolUnavailable`].
    pub async fn document_asked_about(&self, operator: &Operator, permit: PermitId) -> Result<SignatureDocument, TicketError> {
        let found = self.permits.look(operator, permit).await.map_err(|error| match error {
            DecisionError::StoreUnavailable => TicketError::StoreUnavailable,
            _ => TicketError::Missing,
        })?;
        let waiting = found.ask.filter(|_| found.state == PermitState::Asked).and_then(|ask| ask.waiting);
        let shown = waiting.and_then(|waiting| waiting.document).ok_or(TicketError::Missing)?;
        let ticket = self.store.find_ticket(shown.ticket).await?.ok_or(TicketError::Missing)?;
        let content = ticket.content.filter(|content| content.sha256_value() == shown.sha256).ok_or(TicketError::Missing)?;
        document::plain(content.len, self.source_of(ticket.id, &content).await?).await
    }
}
