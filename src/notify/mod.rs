//! Notifications: telling a program elsewhere that a person is needed, by signed webhooks.
//!
//! `cli` watches what happens and calls [`Notifier::tell`]; each configured webhook has a queue and a task of its own. Invariants: telling
//! never waits; a queue has a bound, and a notice that finds no room or no listener is dropped with a log line and a metric; no notice holds a
//! secret, a document, or anything that a caller wrote about it.

mod notice;
mod webhook;

use std::sync::Arc;

use tokio::sync::mpsc::{self, error::TrySendError};
use tracing::warn;

pub use notice::{Notice, What};
pub use webhook::{SIGNATURE_HEADER, TIMESTAMP_HEADER, Webhook, WebhookError, WebhookSecret, signature};

use crate::{domain::notice::NoticeKind, telemetry::metrics::WEBHOOK_NOTICES};

/// The most notices that wait for one webhook.
const QUEUE_MAX: usize = 256;

/// How a notice ends, for the metric.
const DELIVERED: &str = "delivered";
const GIVEN_UP: &str = "given-up";
const DROPPED: &str = "dropped";

/// Everybody who is told.
#[derive(Default)]
pub struct Notifier {
    webhooks: Vec<Line>,
}

/// The way to one webhook.
struct Line {
    name: String,
    kinds: Vec<NoticeKind>,
    queue: mpsc::Sender<Arc<Notice>>,
}

impl Notifier {
    /// Starts a task for each webhook. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// [`WebhookError`]: no HTTP client could be made.
    pub fn start(webhooks: Vec<Webhook>) -> Result<Self, WebhookError> {
        let start = |webhook: Webhook| -> Result<Line, WebhookError> {
            let (queue, notices) = mpsc::channel(QUEUE_MAX);
            let (name, kinds) = (webhook.name(), webhook.kinds().to_vec());
            // Ends when nobody can tell anything any more.
            tokio::spawn(webhook.deliverer()?.deliver(notices));
            Ok(Line { name, kinds, queue })
        };
        // They stand at zero before anything happens.
        [DELIVERED, GIVEN_UP, DROPPED].iter().for_each(|result| WEBHOOK_NOTICES.counter(&[result]).increment(0));
        Ok(Self { webhooks: webhooks.into_iter().map(start).collect::<Result<_, _>>()? })
    }

    /// Whether anybody is told anything.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.webhooks.is_empty()
    }

    /// Tells everybody who wants to know. Does not wait.
    pub fn tell(&self, notice: Notice) {
        let notice = Arc::new(notice);
        for line in self.webhooks.iter().filter(|line| line.kinds.contains(&notice.kind())) {
            match line.queue.try_send(Arc::clone(&notice)) {
                Ok(()) => {}
                Err(TrySendError::Full(_) | TrySendError::Closed(_)) => {
                    WEBHOOK_NOTICES.counter(&[DROPPED]).increment(1);
                    warn!("the webhook {} does not keep up; {} was not told", line.name, notice.kind());
                }
            }
        }
    }
}
