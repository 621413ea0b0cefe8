//! What operators can see of a ticket whose signature waits for their consent.

use super::{SignatureDocument, TicketError, TicketService, cosign::shown_sha256, document};
use crate::{
    domain::{ids::PermitId, operator::Operator, permit::PermitState, ticket::ContentPart},
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
        let beside = ticket.signing.as_ref().and_then(|signing| signing.beside.clone()).filter(|beside| beside.attached);
        if let Some(beside) = beside.filter(|beside| beside.sha256 == shown.sha256) {
            return self.document_in(&ticket, &beside).await;
        }
        let content = ticket.content.clone().filter(|content| shown_sha256(content) == shown.sha256).ok_or(TicketError::Missing)?;
        if content.is_several() {
            // As they will stand in the container, with what will be signed.
            return self.contain(ticket, None).await;
        }
        document::plain(content.len, self.source_of(ticket.id, ContentPart::Document, &content).await?).await
    }
}
