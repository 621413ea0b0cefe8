//! What evidence says about certificates on a path: the evidence that a signature carries, and what is fetched for it.
//!
//! [`KnownEvidence`] is CRLs and OCSP answers from anywhere, not judged; [`StatusBook`] judges them for the certificates of a path;
//! [`Inquiry`] is what a judge would like to have, and what was fetched of it. Invariants: only certificates on a path that holds otherwise
//! are asked about, so that no stranger's certificate says where this gateway sends requests; every number is bounded; each list's
//! signature is verified once for each signer.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use certval::compare_names;
use const_oid::ObjectIdentifier;
use futures_util::future::join_all;
use tokio::{
    sync::Semaphore,
    task::{JoinError, spawn_blocking},
};
use tracing::warn;

use super::{
    Evidence, Moment, RevocationClient, RevocationError, Revoked, Subject,
    client::names_places,
    crl::{Crl, Listing, every_reason},
    ocsp,
};
use crate::{
    domain::{revocation::RevocationCheck, timestamp::Timestamp},
    pki::{
        Certificate,
        path::{PathRequest, Policies, Purpose, Revocation, RevocationStatus, validate_path},
        trust::TrustStore,
    },
};

/// The most CRLs, and the most OCSP answers, that are kept for one signature.
const KEPT_MAX: usize = 128;
/// The most certificates with the name of a CRL's issuer that are tried as its signer.
const SIGNERS_MAX: usize = 4;
/// How deep a CRL's signer is itself looked up.
const DEPTH_MAX: u8 = 2;
/// The most certificates that one signature has evidence fetched for.
const WANTED_MAX: usize = 16;
/// How often evidence is fetched for one signature: for its path, for another if that one does not hold, and once more.
const ROUNDS_MAX: usize = 3;
/// How long fetching may take in one round.
const ROUND_TIMEOUT: Duration = Duration::from_secs(30);
/// `id-ce-noRevAvail` (RFC 9608): the certificate's issuer never says anything about revocation.
const NO_REV_AVAIL: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.56");

/// CRLs and OCSP answers, whoever brought them.
#[derive(Default)]
pub struct KnownEvidence {
    crls: Vec<Result<Crl, RevocationError>>,
    /// `BasicOCSPResponse`s.
    answers: Vec<Result<Vec<u8>, RevocationError>>,
    /// What is known of signatures of lists: by list and signer.
    verified: Mutex<HashMap<ListAndSigner, Result<(), RevocationError>>>,
}

/// The number of a list, and the fingerprint of a certificate that may have signed it.
type ListAndSigner = (usize, [u8; 32]);

impl KnownEvidence {
    /// Adds a CRL in DER.
    pub fn add_crl(&mut self, der: &[u8]) {
        if self.crls.len() < KEPT_MAX {
            self.crls.push(Crl::read(der));
        }
    }

    /// Adds a `BasicOCSPResponse` in DER.
    pub fn add_answer(&mut self, basic: &[u8]) {
        self.push_answer(Ok(basic.to_vec()));
    }

    /// Adds an `OCSPResponse` in DER.
    pub fn add_response(&mut self, response: &[u8]) {
        self.push_answer(ocsp::basic_of(response));
    }

    fn push_answer(&mut self, answer: Result<Vec<u8>, RevocationError>) {
        if self.answers.len() < KEPT_MAX {
            self.answers.push(answer);
        }
    }

    fn verify(&self, number: usize, crl: &Crl, signer: &Certificate) -> Result<(), RevocationError> {
        let key = (number, signer.fingerprint());
        if let Some(known) = lock(&self.verified).get(&key) {
            return known.clone();
        }
        let verified = crl.verify(signer.as_parsed());
        lock(&self.verified).insert(key, verified.clone());
        verified
    }
}

/// A certificate whose evidence a judge would like to have.
#[derive(Clone)]
struct Wanted {
    certificate: Certificate,
    issuer: Certificate,
    at: Timestamp,
}

/// Certificate, issuer and time of a question.
type Question = ([u8; 32], [u8; 32], Timestamp);

impl Wanted {
    fn question(&self) -> Question {
        (self.certificate.fingerprint(), self.issuer.fingerprint(), self.at)
    }
}

/// Evidence that is fetched for one signature, as far as its judges want it.
#[derive(Default)]
pub struct Inquiry {
    fetched: KnownEvidence,
    /// What came of each question that was asked.
    asked: HashMap<Question, Result<(), RevocationError>>,
    wanted: Mutex<Vec<Wanted>>,
    /// Whether more can be asked; what is not known is taken for good until then.
    open: bool,
}

impl Inquiry {
    /// Judges with `judge` until it wants nothing more that `client` could fetch; without a client, once, by what there is. While it judges,
    /// on a blocking thread, it holds one of the `turns`; while it fetches, none.
    ///
    /// # Errors
    /// The judge panicked.
    pub async fn settle<T, F>(client: Option<&RevocationClient>, turns: &Semaphore, now: Timestamp, judge: F) -> Result<T, JoinError>
    where
        T: Send + 'static,
        F: Fn(&Self) -> T + Send + Sync + 'static,
    {
        let judge = Arc::new(judge);
        let mut inquiry = Self { open: client.is_some(), ..Self::default() };
        for _ in 0..ROUNDS_MAX {
            let (judged, back) = judge_with(&judge, turns, inquiry).await?;
            inquiry = back;
            let wanted = std::mem::take(inquiry.wanted.get_mut().unwrap_or_else(PoisonError::into_inner));
            match client {
                Some(client) if !wanted.is_empty() => inquiry.fetch(client, wanted, now).await,
                _ => return Ok(judged),
            }
        }
        inquiry.open = false;
        Ok(judge_with(&judge, turns, inquiry).await?.0)
    }

    async fn fetch(&mut self, client: &RevocationClient, wanted: Vec<Wanted>, now: Timestamp) {
        let ask = |wanted: Wanted| async move {
            let moment = Moment { at: wanted.at, now };
            let had = client.evidence(wanted.certificate.as_der(), wanted.issuer.as_der(), moment);
            let had = tokio::time::timeout(ROUND_TIMEOUT, had).await;
            (wanted.question(), had.unwrap_or(Err(RevocationError::TooSlow(ROUND_TIMEOUT))))
        };
        for (question, had) in join_all(wanted.into_iter().map(ask)).await {
            let outcome = had.map(|evidence| match evidence {
                Evidence::Crl(crl) => self.fetched.add_crl(&crl.der),
                Evidence::Ocsp(answer) => self.fetched.add_answer(&answer.basic),
            });
            self.asked.insert(question, outcome);
        }
    }

    /// Notes that evidence is wanted; `false` if it cannot be had, or not any more.
    fn want(&self, wanted: Wanted) -> bool {
        let mut all = lock(&self.wanted);
        if !self.open || self.asked.contains_key(&wanted.question()) {
            return false;
        }
        if all.iter().any(|earlier| earlier.question() == wanted.question()) {
            return true;
        }
        if all.len() + self.asked.len() >= WANTED_MAX {
            warn!("a signature wants evidence about more certificates than it is fetched for");
            return false;
        }
        all.push(wanted);
        true
    }
}

async fn judge_with<T, F>(judge: &Arc<F>, turns: &Semaphore, inquiry: Inquiry) -> Result<(T, Inquiry), JoinError>
where
    T: Send + 'static,
    F: Fn(&Inquiry) -> T + Send + Sync + 'static,
{
    let judge = Arc::clone(judge);
    // Nobody closes it; without a turn it would only be judged sooner.
    let _turn = turns.acquire().await;
    spawn_blocking(move || (judge(&inquiry), inquiry)).await
}

/// The status of certificates, by evidence that is at hand.
pub struct StatusBook<'a> {
    /// What is demanded.
    pub check: RevocationCheck,
    /// The evidence that the signature carries, in all its parts.
    pub carried: &'a [&'a KnownEvidence],
    /// The evidence that is fetched for it, if any is.
    pub inquiry: Option<&'a Inquiry>,
    /// Certificates that may have signed CRLs, beside the path's and the trust store's.
    pub certificates: &'a [Certificate],
    /// Whom to trust.
    pub trust: &'a TrustStore,
    /// Now.
    pub now: Timestamp,
}

/// A status without a word on what is made of it.
enum Known {
    Good,
    Revoked(Revoked),
    /// Why not; nothing if nobody has said anything.
    Nothing(Option<RevocationError>),
}

impl RevocationStatus for StatusBook<'_> {
    fn status(&self, certificate: &Certificate, issuer: &Certificate, anchor: &Certificate, at: Timestamp) -> Revocation {
        self.status_at_depth(certificate, issuer, anchor, at, 0)
    }
}

impl StatusBook<'_> {
    fn status_at_depth(
        &self,
        certificate: &Certificate,
        issuer: &Certificate,
        anchor: &Certificate,
        at: Timestamp,
        depth: u8,
    ) -> Revocation {
        if self.check == RevocationCheck::Off || certificate.has_extension(NO_REV_AVAIL) {
            return Revocation::Good;
        }
        let wanted = Wanted { certificate: certificate.clone(), issuer: issuer.clone(), at };
        let why = match self.known(certificate, issuer, anchor, at, depth) {
            Known::Good => {
                // What a signature carries may be a little old, and its signer has chosen it: of now, somebody is asked if anybody can be.
                if let Some(inquiry) = self.inquiry.filter(|_| at >= self.now) {
                    inquiry.want(wanted);
                }
                return Revocation::Good;
            }
            Known::Revoked(Revoked { since, reason }) => return Revocation::Revoked { since, reason },
            Known::Nothing(why) => why,
        };
        let question = wanted.question();
        if let Some(inquiry) = self.inquiry
            && inquiry.want(wanted)
        {
            // Asked for; the judge asks again when it is there.
            return Revocation::Good;
        }
        let asked = self.inquiry.and_then(|inquiry| inquiry.asked.get(&question)).and_then(|outcome| outcome.clone().err());
        // Evidence beside a signature that does not count changes nothing here: whoever brings the signature could have left it out.
        let nobody = matches!(asked, None | Some(RevocationError::NoSource)) && !names_places(certificate.as_parsed());
        match self.check {
            RevocationCheck::IfKnown => Revocation::Good,
            RevocationCheck::WhereNamed if nobody => Revocation::Good,
            _ => Revocation::Unknown(why.or(asked).map_or_else(|| "there is no evidence about it".to_owned(), |why| why.to_string())),
        }
    }

    fn known(&self, certificate: &Certificate, issuer: &Certificate, anchor: &Certificate, at: Timestamp, depth: u8) -> Known {
        let subject = Subject { certificate: certificate.as_parsed(), issuer: issuer.as_parsed() };
        let moment = Moment { at, now: self.now };
        let mut why = None;
        let mut good = false;
        for evidence in self.carried.iter().copied().chain(self.inquiry.map(|inquiry| &inquiry.fetched)) {
            for answer in &evidence.answers {
                let checked = answer.as_ref().map_err(Clone::clone).and_then(|answer| ocsp::check_basic(answer, &subject, moment));
                match checked {
                    Ok(found) => good |= found.is_some(),
                    Err(RevocationError::Revoked(revoked)) => return Known::Revoked(revoked),
                    Err(error) => why = Some(error),
                }
            }
            match self.on_lists(evidence, &subject, issuer, anchor, moment, depth) {
                Ok(covered) => good |= covered,
                Err(RevocationError::Revoked(revoked)) => return Known::Revoked(revoked),
                Err(error) => why = Some(error),
            }
        }
        let question = (certificate.fingerprint(), issuer.fingerprint(), at);
        if let Some(Err(RevocationError::Revoked(revoked))) = self.inquiry.and_then(|inquiry| inquiry.asked.get(&question)) {
            return Known::Revoked(*revoked);
        }
        if good { Known::Good } else { Known::Nothing(why) }
    }

    /// Whether the lists together say that a certificate was revoked for no reason; `false` if there is none about it.
    fn on_lists(
        &self,
        evidence: &KnownEvidence,
        subject: &Subject<'_>,
        issuer: &Certificate,
        anchor: &Certificate,
        moment: Moment,
        depth: u8,
    ) -> Result<bool, RevocationError> {
        let mut covered = every_reason() - every_reason();
        let mut why = None;
        for (number, crl) in evidence.crls.iter().enumerate() {
            let crl = match crl {
                Ok(crl) => crl,
                Err(error) => {
                    why = Some(error.clone());
                    continue;
                }
            };
            if crl.is_about(subject).is_err() {
                continue;
            }
            let listing = crl.listing(subject, moment).and_then(|listing| {
                self.verify(evidence, number, crl, issuer, anchor, moment, depth)?;
                Ok(listing)
            });
            match listing {
                Ok(Listing::Revoked(revoked)) => return Err(RevocationError::Revoked(revoked)),
                Ok(Listing::RevokedLater) => covered = every_reason(),
                Ok(Listing::Absent(reasons)) => covered |= reasons,
                Err(error) => why = Some(error),
            }
        }
        if covered == every_reason() {
            return Ok(true);
        }
        if !covered.is_empty() {
            return Err(RevocationError::Crl("the lists that there are do not cover all reasons".to_owned()));
        }
        why.map_or(Ok(false), Err)
    }

    /// Verifies a list with the key of the issuer, or with that of another certificate of the list's issuer (RFC 5280 section 6.3.3, f): one
    /// that holds itself, below the same anchor.
    #[allow(clippy::too_many_arguments)] // one question, asked once
    fn verify(
        &self,
        evidence: &KnownEvidence,
        number: usize,
        crl: &Crl,
        issuer: &Certificate,
        anchor: &Certificate,
        moment: Moment,
        depth: u8,
    ) -> Result<(), RevocationError> {
        let is_of = |certificate: &Certificate| compare_names(certificate.as_parsed().tbs_certificate().subject(), crl.issuer());
        let first = if is_of(issuer) { evidence.verify(number, crl, issuer) } else { Err(no_signer()) };
        if first.is_ok() {
            return first;
        }
        let all = self.certificates.iter().chain(self.trust.authorities());
        let others = all.filter(|certificate| *certificate != issuer && is_of(certificate)).take(SIGNERS_MAX);
        let mut why = first;
        for signer in others {
            if evidence.verify(number, crl, signer).is_ok() {
                match self.check_signer(signer, anchor, moment, depth) {
                    Ok(()) => return Ok(()),
                    Err(error) => why = Err(error),
                }
            }
        }
        why
    }

    fn check_signer(&self, signer: &Certificate, anchor: &Certificate, moment: Moment, depth: u8) -> Result<(), RevocationError> {
        if signer == anchor {
            return Ok(());
        }
        if depth >= DEPTH_MAX {
            return Err(RevocationError::Crl("its signer is one of another list's, and so on".to_owned()));
        }
        let below = Deeper { book: self, depth: depth + 1 };
        let request = PathRequest {
            leaf: signer,
            intermediates: &self.certificates.iter().chain(self.trust.intermediates()).collect::<Vec<_>>(),
            anchors: &[anchor],
            through: None,
            at: moment.at,
            purpose: Purpose::CrlSigning,
            revocation: Some(&below),
            policies: &Policies::default(),
        };
        validate_path(&request).map(drop).map_err(|error| RevocationError::Crl(format!("its signer does not hold: {error}")))
    }
}

/// The same book, asked about the signer of a list.
struct Deeper<'a> {
    book: &'a StatusBook<'a>,
    depth: u8,
}

impl RevocationStatus for Deeper<'_> {
    fn status(&self, certificate: &Certificate, issuer: &Certificate, anchor: &Certificate, at: Timestamp) -> Revocation {
        self.book.status_at_depth(certificate, issuer, anchor, at, self.depth)
    }
}

fn no_signer() -> RevocationError {
    RevocationError::Crl("the certificate of its signer is not there".to_owned())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
