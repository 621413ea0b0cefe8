//! The search for paths: from the leaf upwards by names, key identifiers first, within bounds.

use certval::compare_names;

use super::{PATH_MAX, PathRequest};
use crate::pki::certificate::Certificate;

/// The most steps that a search takes.
const STEPS_MAX: usize = 4096;

/// What to do after a path was judged.
pub(super) enum Search {
    /// It is good.
    Stop,
    /// Look for another.
    GoOn,
    /// There have been enough.
    GiveUp,
}

/// How a search ended.
pub(super) enum Found<'a> {
    /// With a path that was judged good.
    Path(Vec<&'a Certificate>),
    /// Without one. `missing` is the certificate whose issuer is not there.
    Nothing {
        /// The last one on the way up that goes furthest.
        missing: &'a Certificate,
    },
    /// Without one, and not everything was tried.
    TooComplex,
}

struct Searcher<'a, J> {
    request: &'a PathRequest<'a>,
    judge: J,
    path: Vec<&'a Certificate>,
    furthest: Vec<&'a Certificate>,
    steps: usize,
}

/// Shows every path, leaf first and anchor last, to `judge`, until it has seen a good one or enough.
pub(super) fn paths<'a>(request: &'a PathRequest<'a>, judge: impl FnMut(&[&'a Certificate]) -> Search) -> Found<'a> {
    if request.anchors.contains(&request.leaf) {
        // Trusted by itself: it is its own path, without a signature on it that would say more.
        let mut judge = judge;
        let path = vec![request.leaf];
        return match judge(&path) {
            Search::Stop => Found::Path(path),
            Search::GoOn | Search::GiveUp => Found::Nothing { missing: request.leaf },
        };
    }
    let mut searcher = Searcher { request, judge, path: vec![request.leaf], furthest: vec![request.leaf], steps: 0 };
    match searcher.climb() {
        Search::Stop => Found::Path(searcher.path),
        Search::GiveUp => Found::TooComplex,
        Search::GoOn => Found::Nothing { missing: searcher.furthest.last().copied().unwrap_or(request.leaf) },
    }
}

impl<'a, J: FnMut(&[&'a Certificate]) -> Search> Searcher<'a, J> {
    /// Tries everything above the last certificate of the path. Its depth is bounded by [`PATH_MAX`].
    fn climb(&mut self) -> Search {
        let Some(last) = self.path.last().copied() else { return Search::GoOn };
        let request = self.request;
        for anchor in issuers_of(last, request.anchors) {
            self.path.push(anchor);
            match (self.judge)(&self.path) {
                Search::GoOn => {}
                end => return end,
            }
            self.path.pop();
        }
        // Room for one more and its anchor.
        if self.path.len() + 2 > PATH_MAX {
            return Search::GoOn;
        }
        for issuer in issuers_of(last, request.intermediates) {
            self.steps += 1;
            if self.steps > STEPS_MAX {
                return Search::GiveUp;
            }
            if self.path.contains(&issuer) {
                continue;
            }
            self.path.push(issuer);
            if self.path.len() > self.furthest.len() {
                self.furthest.clone_from(&self.path);
            }
            match self.climb() {
                Search::GoOn => {}
                end => return end,
            }
            self.path.pop();
        }
        Search::GoOn
    }
}

/// Those whose name is that of the issuer; first those whose key identifier is the one it names.
fn issuers_of<'a>(certificate: &Certificate, among: &[&'a Certificate]) -> Vec<&'a Certificate> {
    let issuer = certificate.as_parsed().tbs_certificate().issuer();
    let wanted = certificate.authority_key_identifier();
    let named = among.iter().copied().filter(|candidate| compare_names(candidate.as_parsed().tbs_certificate().subject(), issuer));
    let (first, then): (Vec<_>, Vec<_>) = named.partition(|candidate| wanted.is_some() && wanted == candidate.subject_key_identifier());
    first.into_iter().chain(then).collect()
}

/// The certificates above `certificate`, nearest first, as names and key identifiers say; ends at a root, or where one is missing.
pub(crate) fn chain_by_name<'a>(certificate: &Certificate, among: &[&'a Certificate]) -> Vec<&'a Certificate> {
    let mut chain: Vec<&'a Certificate> = Vec::new();
    while chain.len() < PATH_MAX {
        let last = chain.last().copied().unwrap_or(certificate);
        match issuers_of(last, among).first().copied() {
            Some(next) if next != certificate && !chain.contains(&next) => chain.push(next),
            _ => break,
        }
    }
    chain
}
