//! What an operator is shown of a ticket before deciding.

use super::{SignatureDocument, TicketError, TicketService, document};
use crate::domain::consent::ShownDocument;

impl TicketService {
    /// The content that an operator is asked about, as long as it is there and is the one that will be signed.
    ///
    /// # Errors
    /// [`TicketError::Missing`], [`TicketError::StoreUnavailable`], [`TicketError::SpoolUnavailable`].
    pub async fn shown(&self, asked: &ShownDocument) -> Result<SignatureDocument, TicketError> {
        let ticket = self.store.find_ticket(asked.ticket).await?.ok_or(TicketError::Missing)?;
        let content = ticket.content.filter(|content| content.sha256_value() == asked.sha256).ok_or(TicketError::Missing)?;
        let source = self.source_of(asked.ticket, &content).await?;
        document::plain(content.len, source).await
    }
}
