//! Claims that stand until there is something to claim.
//!
//! They are made last in a transaction, so a job that a waiting dispatcher is to have is claimed in the commit that accepts it, and not two
//! commits later. Invariants: a claim is answered once, with what a commit made durable; one that nobody wants any more claims nothing.

use std::time::SystemTime;

use tokio::sync::{oneshot, watch};

use super::tables::Tables;
use crate::{
    domain::{job::SigningJob, token::TokenIdentity},
    store::StoreError,
};

/// A wish for the next jobs of one token.
pub(super) struct Claim {
    pub(super) token: TokenIdentity,
    pub(super) limit: usize,
    /// It ends with nothing when this is false.
    pub(super) wanted: watch::Receiver<bool>,
    pub(super) reply: oneshot::Sender<Result<Vec<SigningJob>, StoreError>>,
}

/// The claims that wait for jobs.
#[derive(Default)]
pub(super) struct Claims {
    standing: Vec<Standing>,
}

struct Standing {
    claim: Claim,
    /// It has found nothing: only a job that is queued from now on concerns it.
    looked: bool,
}

/// A claim that has been made, if the transaction is committed.
pub(super) struct Made {
    reply: oneshot::Sender<Result<Vec<SigningJob>, StoreError>>,
    jobs: Result<Vec<SigningJob>, StoreError>,
}

impl Claims {
    /// Takes one up.
    pub(super) fn stand(&mut self, claim: Claim) {
        self.standing.push(Standing { claim, looked: false });
    }

    /// Answers those that are not wanted any more.
    pub(super) fn let_go(&mut self) {
        let unwanted = |standing: &mut Standing| !*standing.claim.wanted.borrow() || standing.claim.reply.is_closed();
        for Standing { claim, .. } in self.standing.extract_if(.., unwanted) {
            // Whoever has gone needs no answer.
            let _ = claim.reply.send(Ok(Vec::new()));
        }
    }

    /// Whether any may find something now that a job was queued for the tokens that are `stirred`.
    pub(super) fn may_find(&self, stirred: &[TokenIdentity]) -> bool {
        self.standing.iter().any(|standing| standing.may_find(stirred))
    }

    /// Makes those that find something, within the transaction.
    pub(super) fn make(&mut self, tables: &mut Tables<'_>, made: &mut Vec<Made>) {
        let stirred = tables.take_stirred();
        let mut waiting = Vec::with_capacity(self.standing.len());
        for mut standing in self.standing.drain(..) {
            if standing.may_find(&stirred) {
                let Claim { token, limit, .. } = &standing.claim;
                let jobs = tables.claim_jobs(token, *limit, SystemTime::now().into());
                if !matches!(&jobs, Ok(jobs) if jobs.is_empty()) {
                    made.push(Made { reply: standing.claim.reply, jobs });
                    continue;
                }
                standing.looked = true;
            }
            waiting.push(standing);
        }
        self.standing = waiting;
    }
}

impl Standing {
    fn may_find(&self, stirred: &[TokenIdentity]) -> bool {
        !self.looked || stirred.contains(&self.claim.token)
    }
}

impl Made {
    /// Tells whoever claimed, now that it is known what became of the transaction.
    pub(super) fn answer(self, committed: Result<(), StoreError>) {
        let _ = self.reply.send(committed.and(self.jobs));
    }
}
