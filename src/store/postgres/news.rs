//! What gateways tell each other: which jobs ended, for which tokens there is work, which permits were asked for or decided.
//!
//! One broadcast channel; a notification that is lost is made good by the poll. Tokens are told by a short hash: waking somebody for nothing
//! costs one look.

use std::collections::BTreeSet;

use super::session::Step;
use crate::{
    domain::{
        audit::Sha256,
        ids::{JobId, PermitId},
        token::TokenIdentity,
    },
    store::{columns::token_text, rows::Moved},
};

/// The channel's name.
pub(super) const CHANNEL: &str = "sealgate";

const NOTIFY: &str = "SELECT pg_notify('sealgate', $1)";

/// PostgreSQL takes less than 8,000 bytes.
const PAYLOAD_MAX: usize = 7_900;

/// The word for stored callers.
const CALLERS: &str = "c";

/// One thing that was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum News {
    /// A job ended.
    Ended(JobId),
    /// There is work for the token with this [`token_mark`].
    Work(String),
    /// A permit was asked for, decided or revoked.
    Permit(PermitId),
    /// A stored caller is another now.
    Callers,
}

/// Statements that tell everybody what moved.
pub(super) fn tell(moved: &[Moved]) -> Vec<Step> {
    payloads(moved).into_iter().map(|payload| Step::new(NOTIFY, vec![Box::new(payload)])).collect()
}

fn payloads(moved: &[Moved]) -> Vec<String> {
    // The same token once, however many jobs it got.
    let words: BTreeSet<String> = moved
        .iter()
        .map(|moved| match moved {
            Moved::Ended(job) => format!("e{}", job.as_uuid().simple()),
            Moved::Queued(token) => format!("q{}", token_mark(token)),
            Moved::Permit(permit) => format!("p{}", permit.as_uuid().simple()),
            Moved::Callers => CALLERS.to_owned(),
        })
        .collect();
    let mut payloads: Vec<String> = Vec::new();
    for word in words {
        match payloads.last_mut() {
            Some(last) if last.len() + word.len() < PAYLOAD_MAX => {
                last.push(' ');
                last.push_str(&word);
            }
            _ => payloads.push(word),
        }
    }
    payloads
}

/// What a payload tells; what is not understood comes from a newer version and is left out.
pub(super) fn heard(payload: &str) -> Vec<News> {
    let news = |word: &str| {
        if word == CALLERS {
            return Some(News::Callers);
        }
        if let Some(id) = word.strip_prefix('e') {
            return uuid::Uuid::try_parse(id).ok().map(|id| News::Ended(id.into()));
        }
        if let Some(id) = word.strip_prefix('p') {
            return uuid::Uuid::try_parse(id).ok().map(|id| News::Permit(id.into()));
        }
        word.strip_prefix('q').map(|mark| News::Work(mark.to_owned()))
    };
    payload.split(' ').filter_map(news).collect()
}

/// The short hash of a token.
pub(super) fn token_mark(token: &TokenIdentity) -> String {
    let text = token_text(token).unwrap_or_default();
    hex::encode(&Sha256::of(text.as_bytes()).as_bytes()[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_heard_in_payloads_that_postgresql_takes() {
        let token = TokenIdentity {
            module: "softhsm".parse().unwrap(),
            manufacturer: String::new(),
            model: String::new(),
            serial: "1".to_owned(),
            label: "one".to_owned(),
        };
        let ended: Vec<JobId> = (0..1_000).map(|_| JobId::random()).collect();
        let mut moved: Vec<_> = ended.iter().copied().map(Moved::Ended).collect();
        let permit = PermitId::random();
        moved.extend([Moved::Queued(token.clone()), Moved::Queued(token.clone()), Moved::Permit(permit), Moved::Callers]);
        let told = payloads(&moved);
        assert!(told.len() > 1 && told.iter().all(|payload| payload.len() < 8_000));
        let news: Vec<_> = told.iter().flat_map(|payload| heard(payload)).collect();
        assert_eq!(news.len(), 1_003);
        assert!(news.contains(&News::Permit(permit)));
        assert!(news.contains(&News::Callers));
        assert!(ended.iter().all(|job| news.contains(&News::Ended(*job))));
        assert!(news.contains(&News::Work(token_mark(&token))));
        assert_eq!(heard("x1 e2"), []);
    }
}
