//! A time stamp over a ticket's content: made, uploaded, handed out and checked.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

use super::{
    TicketError, TicketService,
    cosign::refuse_several,
    level::{LevelError, Standing},
    spool::blocking,
};
use crate::{
    cms::{
        armor::Armor,
        time_stamp::{RESPONSE_MAX, TimeStamp},
    },
    domain::{
        algorithm::HashAlgorithm,
        caller::Caller,
        ids::TicketId,
        ticket::{Content, Ticket},
        timestamp::Timestamp,
    },
    pki::Certificate,
    verification::{Judgement, judge_time_stamp},
};

/// A time-stamp token that is being uploaded: in DER, PEM or Base64.
#[derive(Default)]
pub struct TokenUpload {
    armor: Armor,
    bytes: Vec<u8>,
}

impl TokenUpload {
    /// The most bytes that are taken.
    #[must_use]
    pub const fn limit(&self) -> u64 {
        RESPONSE_MAX as u64
    }

    /// Takes the next piece.
    ///
    /// # Errors
    /// [`TicketError::TooLarge`], [`TicketError::Armor`].
    pub fn write(&mut self, piece: &[u8]) -> Result<(), TicketError> {
        self.armor.push(piece, &mut self.bytes)?;
        if self.bytes.len() > RESPONSE_MAX { Err(TicketError::TooLarge { limit: self.limit() }) } else { Ok(()) }
    }

    fn finish(mut self) -> Result<Vec<u8>, TicketError> {
        self.armor.finish(&mut self.bytes)?;
        Ok(self.bytes)
    }
}

/// What a time stamp says, and whether it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeStampReport {
    /// Why it does not hold; `None` if it does.
    pub fault: Option<String>,
    /// Its time.
    pub time: Option<Timestamp>,
    /// The authority's certificate.
    pub authority: Option<Certificate>,
}

impl TicketService {
    /// Asks for a time stamp over the ticket's content, in place of the one that it has. While one is being made, asking again changes nothing.
    ///
    /// # Errors
    /// [`TicketError::NoContent`], [`TicketError::ContentTimeStamp`], [`TicketError::Missing`], [`TicketError::StoreUnavailable`].
    pub async fn start_time_stamp(&self, caller: &Caller, id: TicketId) -> Result<(), TicketError> {
        let ticket = self.load(caller, id).await?;
        let content = ticket.content.clone().ok_or(TicketError::NoContent)?;
        refuse_several(&content)?;
        self.time_stamps().map_err(TicketError::ContentTimeStamp)?;
        self.stampings.forget_failed(id, Duration::ZERO);
        let (_, begun) = self.stampings.join(id).map_err(TicketError::ContentTimeStamp)?;
        let Some(sender) = begun else { return Ok(()) };
        if ticket.time_stamp.is_some()
            && let Err(error) = self.keep_time_stamp(caller, id, None).await
        {
            self.stampings.end(id);
            return Err(error);
        }
        let (this, caller) = (self.clone(), caller.clone());
        tokio::spawn(async move {
            let made = this.make_time_stamp(&caller, id, &content).await;
            let done = made.is_ok();
            sender.send_replace(Some(made));
            if done {
                this.stampings.end(id);
            }
        });
        Ok(())
    }

    async fn make_time_stamp(&self, caller: &Caller, id: TicketId, content: &Content) -> Result<Arc<TimeStamp>, TicketError> {
        let imprint = self.digest_of(id, content, HashAlgorithm::Sha256).await?;
        let stamped = self.time_stamps().map_err(TicketError::ContentTimeStamp)?.stamp(&imprint).await;
        let stamp = stamped.map_err(|error| TicketError::ContentTimeStamp(error.into()))?;
        self.keep_time_stamp(caller, id, Some(stamp.as_der())).await?;
        Ok(Arc::new(stamp))
    }

    /// Makes an uploaded token the ticket's time stamp. Whether it is one, and of what, is said when it is checked.
    ///
    /// # Errors
    /// [`TicketError::Armor`], [`TicketError::Missing`], [`TicketError::StoreUnavailable`].
    pub async fn put_time_stamp(&self, caller: &Caller, id: TicketId, token: TokenUpload) -> Result<(), TicketError> {
        self.keep_time_stamp(caller, id, Some(&token.finish()?)).await
    }

    async fn keep_time_stamp(&self, caller: &Caller, id: TicketId, token: Option<&[u8]>) -> Result<(), TicketError> {
        let keep = |ticket: &mut Ticket| {
            ticket.time_stamp = token.map(<[u8]>::to_vec);
            Ok(())
        };
        self.change(caller, id, keep).await
    }

    /// Says whether the ticket's time stamp is there, without waiting: `false` while it is being made.
    ///
    /// # Errors
    /// [`TicketError::NotRequested`], [`TicketError::ContentTimeStamp`], [`TicketError::Missing`], [`TicketError::StoreUnavailable`].
    pub async fn time_stamp_is_made(&self, caller: &Caller, id: TicketId) -> Result<bool, TicketError> {
        let ticket = self.load(caller, id).await?;
        match (ticket.time_stamp.is_some(), self.stampings.find(id)) {
            (true, _) => Ok(true),
            (false, None) => Err(TicketError::NotRequested),
            (false, Some(standing)) => standing.borrow().clone().map_or(Ok(false), |ended| ended.map(|_| true)),
        }
    }

    /// Waits for the ticket's time stamp, within the configured bound; `None` if it is still being made by then.
    ///
    /// # Errors
    /// As [`time_stamp_is_made`](Self::time_stamp_is_made).
    pub async fn time_stamp(&self, caller: &Caller, id: TicketId) -> Result<Option<Vec<u8>>, TicketError> {
        let until = Instant::now() + self.settings.blocking_get_bound;
        let ticket = self.load(caller, id).await?;
        match (ticket.time_stamp, self.stampings.find(id)) {
            (Some(token), _) => Ok(Some(token)),
            (None, None) => Err(TicketError::NotRequested),
            (None, Some(standing)) => match timeout_at(until, ended(standing)).await {
                Ok(stamp) => Ok(Some(stamp?.as_der().to_vec())),
                Err(_) => Ok(None),
            },
        }
    }

    /// Checks the ticket's time stamp: that it is one, of this content, of an authority that is trusted and has a certificate for nothing else.
    ///
    /// # Errors
    /// [`TicketError::NotRequested`] if there is none, [`TicketError::NoContent`], [`TicketError::Missing`], [`TicketError::StoreUnavailable`].
    pub async fn check_time_stamp(&self, caller: &Caller, id: TicketId) -> Result<TimeStampReport, TicketError> {
        let ticket: Ticket = self.load(caller, id).await?;
        let token = ticket.time_stamp.ok_or(TicketError::NotRequested)?;
        let content = ticket.content.ok_or(TicketError::NoContent)?;
        refuse_several(&content)?;
        let read = blocking(move || Ok((TimeStamp::from_token(&token), token))).await?;
        let (stamp, token) = match read {
            (Ok(stamp), token) => (stamp, token),
            (Err(error), _) => return Ok(TimeStampReport { fault: Some(error.to_string()), time: None, authority: None }),
        };
        let digest = self.digest_of(id, &content, stamp.imprint_hash()).await?;
        let imprint = move |hash| Some(digest.clone()).filter(|digest| digest.algorithm() == hash);
        let judge = move |judgement: &Judgement<'_>| judge_time_stamp(&token, &imprint, judgement).err().map(|fault| fault.to_string());
        let fault = self.settle(&ticket.options, self.store.now(), judge).await?.unwrap_or_else(Some);
        Ok(TimeStampReport { fault, time: Some(stamp.time()), authority: Certificate::from_der(stamp.certificate()).ok() })
    }
}

async fn ended(mut standing: watch::Receiver<Standing<Arc<TimeStamp>>>) -> Result<Arc<TimeStamp>, TicketError> {
    let ended = standing.wait_for(Option::is_some).await.ok().and_then(|standing| standing.clone());
    ended.unwrap_or(Err(TicketError::ContentTimeStamp(LevelError::Busy)))
}
