//! Fetches evidence about certificates: from where the configuration says, or from where the certificate does.
//!
//! Invariants: what is fetched has a limit on time and length; what is kept has one on count and length, and is thrown away when a newer answer
//! should be there; an answer from the cache is checked again like a fresh one.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use const_oid::ObjectIdentifier;
use reqwest::Url;
use tokio::{io::AsyncReadExt, sync::Semaphore};
use tracing::warn;
use x509_cert::{
    Certificate,
    ext::pkix::{
        AuthorityInfoAccessSyntax, CrlDistributionPoints,
        name::{DistributionPointName, GeneralName},
    },
};

use super::{CheckedCrl, CheckedOcsp, Evidence, Moment, RevocationError, Subject, crl, ocsp::OcspQuery, parse};
use crate::{
    domain::timestamp::Timestamp,
    pki::fetch::{Exchange, FetchError, Fetcher},
};

const ID_AD_OCSP: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.1");
const OCSP_REQUEST: &str = "application/ocsp-request";
const OCSP_RESPONSE: &str = "application/ocsp-response";
/// The longest OCSP answer that is taken, in bytes.
const OCSP_MAX: usize = 64 * 1024;
/// The most places that a certificate may name and that are tried.
const PLACES_MAX: usize = 4;
/// The most CRLs that are kept.
const KEPT_MAX: usize = 64;
/// The most bytes of them together.
const KEPT_BYTES_MAX: usize = 64 << 20;

/// Where evidence about the certificates of one issuer comes from, whatever they themselves say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevocationSource {
    /// The issuer's certificate in DER.
    pub issuer: Vec<u8>,
    /// The places, in the order in which they are tried.
    pub places: Vec<SourcePlace>,
}

/// A place where evidence comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourcePlace {
    /// An OCSP responder.
    Ocsp(Url),
    /// A CRL.
    Crl(Url),
    /// A CRL in a file, which somebody else keeps fresh.
    CrlFile(PathBuf),
}

/// What a deployment says about evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevocationSettings {
    /// Sources by issuer.
    pub sources: Vec<RevocationSource>,
    /// How long one place may take.
    pub timeout: Duration,
    /// The longest CRL that is taken, in bytes.
    pub crl_max: usize,
    /// How many places are asked at a time.
    pub concurrent: usize,
}

/// A client for evidence.
pub struct RevocationClient {
    fetcher: Fetcher,
    settings: RevocationSettings,
    turns: Semaphore,
    crls: Mutex<HashMap<String, Kept>>,
}

struct Kept {
    der: Arc<[u8]>,
    until: Timestamp,
}

impl RevocationClient {
    /// A client with these settings.
    #[must_use]
    pub fn new(fetcher: Fetcher, settings: RevocationSettings) -> Self {
        let turns = Semaphore::new(settings.concurrent.clamp(1, Semaphore::MAX_PERMITS));
        Self { fetcher, settings, turns, crls: Mutex::default() }
    }

    /// Evidence that `certificate` was good at a moment; both certificates are in DER.
    ///
    /// # Errors
    /// [`RevocationError`]: that of the last place that was tried, but [`RevocationError::Revoked`] as soon as one says so.
    pub async fn evidence(&self, certificate: &[u8], issuer: &[u8], moment: Moment) -> Result<Evidence, RevocationError> {
        let (parsed, issuer_parsed) = (parse(certificate)?, parse(issuer)?);
        if parsed.tbs_certificate().issuer() != issuer_parsed.tbs_certificate().subject() {
            return Err(RevocationError::Certificate("the certificate behind it is not its issuer's".to_owned()));
        }
        let subject = Subject { certificate: &parsed, issuer: &issuer_parsed };
        let mut last = RevocationError::NoSource;
        for place in self.places(&parsed, issuer) {
            match self.ask(&place, &subject, moment).await {
                Err(error @ RevocationError::Revoked(_)) => return Err(error),
                Err(error) => {
                    warn!(error = %error, "evidence about a certificate was not had: {error}");
                    last = error;
                }
                had => return had,
            }
        }
        Err(last)
    }

    fn places(&self, certificate: &Certificate, issuer: &[u8]) -> Vec<SourcePlace> {
        let configured = self.settings.sources.iter().find(|source| source.issuer == issuer);
        configured.map_or_else(|| places_of(certificate), |source| source.places.clone())
    }

    async fn ask(&self, place: &SourcePlace, subject: &Subject<'_>, moment: Moment) -> Result<Evidence, RevocationError> {
        let _turn = self.turns.acquire().await.map_err(|_| RevocationError::NoSource)?;
        match place {
            SourcePlace::Ocsp(url) => self.ask_responder(url, subject, moment).await.map(Evidence::Ocsp),
            SourcePlace::Crl(url) => self.ask_list(url, subject, moment).await.map(Evidence::Crl),
            SourcePlace::CrlFile(file) => {
                let fetched = read_file(file, self.settings.crl_max).await;
                let der = fetched.map_err(|error| RevocationError::Fetch { place: "the CRL's file".to_owned(), error })?;
                crl::check(&der, subject, moment).map(Evidence::Crl)
            }
        }
    }

    async fn ask_responder(&self, url: &Url, subject: &Subject<'_>, moment: Moment) -> Result<CheckedOcsp, RevocationError> {
        let query = OcspQuery::new(subject)?;
        let request = query.to_der()?;
        let exchange =
            Exchange { post: Some((&request, OCSP_REQUEST)), accept: Some(OCSP_RESPONSE), max: OCSP_MAX, timeout: self.settings.timeout };
        let answer = self.fetcher.fetch(url, &exchange).await.map_err(|error| not_had(url, error))?;
        query.accept(&answer, subject, moment)
    }

    async fn ask_list(&self, url: &Url, subject: &Subject<'_>, moment: Moment) -> Result<CheckedCrl, RevocationError> {
        if let Some(kept) = self.kept(url.as_str(), moment.now)
            && let Ok(checked) = crl::check(&kept, subject, moment)
        {
            return Ok(checked);
        }
        let exchange = Exchange { post: None, accept: None, max: self.settings.crl_max, timeout: self.settings.timeout };
        let der = self.fetcher.fetch(url, &exchange).await.map_err(|error| not_had(url, error))?;
        let checked = crl::check(&der, subject, moment)?;
        self.keep(url.as_str(), &der, checked.next_update, moment.now);
        Ok(checked)
    }

    fn kept(&self, url: &str, now: Timestamp) -> Option<Arc<[u8]>> {
        let crls = self.crls.lock().unwrap_or_else(PoisonError::into_inner);
        crls.get(url).filter(|kept| kept.until > now).map(|kept| Arc::clone(&kept.der))
    }

    fn keep(&self, url: &str, der: &[u8], until: Timestamp, now: Timestamp) {
        let mut crls = self.crls.lock().unwrap_or_else(PoisonError::into_inner);
        crls.retain(|_, kept| kept.until > now);
        let bytes: usize = crls.values().map(|kept| kept.der.len()).sum();
        if crls.len() >= KEPT_MAX || bytes.saturating_add(der.len()) > KEPT_BYTES_MAX {
            crls.clear();
        }
        crls.insert(url.to_owned(), Kept { der: der.into(), until });
    }
}

/// Whether a certificate itself says where its revocation can be asked about.
pub(super) fn names_places(certificate: &Certificate) -> bool {
    !places_of(certificate).is_empty()
}

/// What the certificate itself says: its responders first, whose answers are short, then its CRLs.
fn places_of(certificate: &Certificate) -> Vec<SourcePlace> {
    let tbs = certificate.tbs_certificate();
    let access = tbs.get_extension::<AuthorityInfoAccessSyntax>().ok().flatten();
    let access = access.into_iter().flat_map(|(_, access)| access.0);
    let responders = access.filter(|description| description.access_method == ID_AD_OCSP);
    let responders = responders.filter_map(|description| url_of(&description.access_location)).map(SourcePlace::Ocsp);
    let points = tbs.get_extension::<CrlDistributionPoints>().ok().flatten();
    let points = points.into_iter().flat_map(|(_, points)| points.0);
    let lists =
        points.filter(|point| point.reasons.is_none() && point.crl_issuer.is_none()).flat_map(|point| match point.distribution_point {
            Some(DistributionPointName::FullName(names)) => names.iter().filter_map(url_of).collect(),
            _ => Vec::new(),
        });
    responders.take(PLACES_MAX).chain(lists.take(PLACES_MAX).map(SourcePlace::Crl)).collect()
}

fn url_of(name: &GeneralName) -> Option<Url> {
    let GeneralName::UniformResourceIdentifier(text) = name else { return None };
    Url::parse(text.as_str()).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
}

fn not_had(url: &Url, error: FetchError) -> RevocationError {
    RevocationError::Fetch { place: url.host_str().unwrap_or_default().to_owned(), error }
}

async fn read_file(file: &PathBuf, max: usize) -> Result<Vec<u8>, FetchError> {
    let unreadable = |error: std::io::Error| FetchError::Unreachable(error.to_string());
    let mut der = Vec::new();
    let file = tokio::fs::File::open(file).await.map_err(unreadable)?;
    file.take(max as u64 + 1).read_to_end(&mut der).await.map_err(unreadable)?;
    if der.len() > max { Err(FetchError::TooLong(max)) } else { Ok(der) }
}
