//! Certificate requests: from a form and a key on a token to an active certificate, and on to its renewal.
//!
//! [`EnrolmentService`] is what the APIs and operators ask; [`ca`] is the port to whoever issues; the clerk (`clerk`) carries requests between
//! the two. Invariants: a request belongs to one organisation, and to everybody else it does not exist; what was done for a request is done
//! once, however often it is asked for, and by however many gateways; a certificate is active only after its key has proved to be on the
//! token and to sign; no step that fails changes what signs now.

mod activate;
pub mod ca;
mod clerk;
mod confirm;
mod create;
mod error;
mod operator;
pub mod print;
mod renewal;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use tokio::sync::{Mutex, Notify, mpsc};
use tracing::warn;

pub use crate::{pki::csr::request_pem as request_in_pem, store::EnrolmentFilter};

use self::ca::CertificateAuthority;
pub use self::{
    confirm::{Confirmation, SIGNATURES_MAX},
    create::{KeyWish, NewRequest, read_request},
    error::{EnrolmentError, Fault, RequestFault},
    operator::UploadedCertificate,
    renewal::{Expiring, ExpiryWarning},
};
use crate::{
    domain::{
        audit::AuditEvent,
        caller::{Account, Caller},
        enrolment::{
            Enrolment, EnrolmentState, ExternalId, IssuedCertificate, Step,
            profile::{CaChoice, Profile},
        },
        ids::{EnrolmentId, KeyName, ProfileName},
        key::ConfiguredKey,
        key_uri::Pkcs11Uri,
    },
    pki::{Certificate, csr::CertificateRequest},
    signing::service::{EnrolledKeys, SigningService},
    store::{Change, Store},
    token::supervisor::Tokens,
};

/// The most active certificates, and the most replaced ones, that are taken up.
const ACTIVE_MAX: usize = 10_000;

/// Who asks, and in which of the two forms.
#[derive(Debug, Clone)]
pub struct Requester {
    /// The program.
    pub caller: Arc<Caller>,
    /// For whom it acts.
    pub account: Arc<Account>,
    /// Whether it asks for everybody of its organisation, and not for its own account.
    pub for_all: bool,
}

impl Requester {
    /// Whether a request is one of theirs; any other does not exist for them.
    fn owns(&self, enrolment: &Enrolment) -> bool {
        let organisation = enrolment.organisation == self.account.organisation.as_str();
        organisation && (self.for_all || enrolment.login == self.account.login.as_str())
    }
}

/// What the service is made of.
pub struct EnrolmentParts {
    /// Where requests are kept.
    pub store: Arc<dyn Store>,
    /// What signs.
    pub signing: Arc<SigningService>,
    /// The tokens.
    pub tokens: Tokens,
    /// The profiles; the first is the one that is taken where nothing is said.
    pub profiles: Vec<Profile>,
    /// Who issues. A profile's choice that is not here is brought by a person.
    pub authorities: HashMap<CaChoice, Arc<dyn CertificateAuthority>>,
    /// Certificates are renewed by themselves so many days before they expire, where the CA can; `None` for never.
    pub renew_days: Option<u32>,
    /// Where it is told that certificates come to their end, for whoever listens.
    pub warnings: Option<mpsc::Sender<ExpiryWarning>>,
}

/// Certificate requests.
pub struct EnrolmentService {
    parts: EnrolmentParts,
    wake: Notify,
    /// Activations come one after the other: they are rare, and two of one request would do the same work twice.
    activating: Mutex<()>,
}

impl EnrolmentService {
    /// Puts the service together and takes up the certificates that are active.
    ///
    /// # Errors
    /// The store was not reached.
    pub async fn new(parts: EnrolmentParts) -> Result<Self, EnrolmentError> {
        let service = Self { parts, wake: Notify::new(), activating: Mutex::default() };
        service.take_up().await?;
        Ok(service)
    }

    /// The profiles.
    #[must_use]
    pub fn profiles(&self) -> &[Profile] {
        &self.parts.profiles
    }

    /// Finds a request of theirs.
    ///
    /// # Errors
    /// [`EnrolmentError::NotFound`], also if it is somebody else's; the store was not reached.
    pub async fn find(&self, who: &Requester, external_id: &ExternalId) -> Result<Enrolment, EnrolmentError> {
        let id = EnrolmentId::of(who.account.organisation.as_str(), external_id);
        let found = self.parts.store.find_enrolment(id).await?;
        found.filter(|enrolment| who.owns(enrolment)).ok_or(EnrolmentError::NotFound)
    }

    /// The requests of theirs that have a certificate, newest first.
    ///
    /// # Errors
    /// The store was not reached.
    pub async fn certificates(&self, who: &Requester, limit: usize) -> Result<Vec<Enrolment>, EnrolmentError> {
        let login = (!who.for_all).then(|| who.account.login.as_str().to_owned());
        let filter =
            EnrolmentFilter { organisation: Some(who.account.organisation.as_str().to_owned()), login, ..EnrolmentFilter::default() };
        let found = self.parts.store.list_enrolments(&filter, limit).await?;
        Ok(found.into_iter().filter(|enrolment| enrolment.issued.is_some()).collect())
    }

    /// The certificates of CAs that the profiles' certificates must lead to.
    #[must_use]
    pub fn anchors(&self) -> Vec<Certificate> {
        let mut anchors: Vec<Certificate> = Vec::new();
        for der in self.parts.profiles.iter().flat_map(|profile| &profile.anchors) {
            if let Ok(anchor) = Certificate::from_der(der)
                && !anchors.contains(&anchor)
            {
                anchors.push(anchor);
            }
        }
        anchors
    }

    /// Has the active certificates sign under their keys' names, and no others.
    ///
    /// # Errors
    /// The store was not reached; what was active stays so.
    pub async fn take_up(&self) -> Result<(), EnrolmentError> {
        let active = EnrolmentFilter { active: true, ..EnrolmentFilter::default() };
        let active = self.parts.store.list_enrolments(&active, ACTIVE_MAX).await?;
        let ended = EnrolmentFilter { state: Some(EnrolmentState::Activated), ..EnrolmentFilter::default() };
        let ended = self.parts.store.list_enrolments(&ended, ACTIVE_MAX).await?;
        let replaced = ended.iter().filter(|enrolment| !enrolment.active).filter_map(|enrolment| enrolment.issued.as_ref());
        let replaced: HashSet<_> = replaced.map(|issued| issued.fingerprint()).collect();
        let keys = active.iter().filter_map(key_of).map(|key| (key.name.clone(), Arc::new(key))).collect();
        self.parts.signing.enrol(EnrolledKeys { keys, replaced });
        Ok(())
    }

    fn profile(&self, name: &ProfileName) -> Result<&Profile, EnrolmentError> {
        self.parts.profiles.iter().find(|profile| profile.name == *name).ok_or_else(|| Fault::NoProfile.into())
    }

    /// The request whose certificate is active under this name.
    async fn active(&self, name: &KeyName) -> Result<Option<Enrolment>, EnrolmentError> {
        let filter = EnrolmentFilter { active: true, ..EnrolmentFilter::default() };
        let all = self.parts.store.list_enrolments(&filter, ACTIVE_MAX).await?;
        Ok(all.into_iter().find(|enrolment| enrolment.key_name == *name))
    }

    /// Takes a step and stores it, with what else is to be told.
    async fn step(&self, enrolment: &mut Enrolment, step: Step, by: &str, also: Vec<AuditEvent>) -> Result<(), EnrolmentError> {
        let mut next = enrolment.clone();
        let activates = matches!(step, Step::Activated);
        next.step(step, self.parts.store.now(), by)?;
        let mut changes = vec![Change::Audit(AuditEvent::of_step(&next))];
        changes.extend(also.into_iter().map(Change::Audit));
        let stored = Box::new(next.clone());
        changes.insert(0, if activates { Change::ActivateEnrolment(stored) } else { Change::UpdateEnrolment(stored) });
        self.parts.store.commit(changes).await?;
        next.version += 1;
        *enrolment = next;
        Ok(())
    }
}

/// A request with an active certificate as a key that has a name.
fn key_of(enrolment: &Enrolment) -> Option<ConfiguredKey> {
    let (Some(address), Some(issued)) = (&enrolment.key, &enrolment.issued) else {
        warn!(enrolment.id = %enrolment.id, "an active certificate has no key and is left out");
        return None;
    };
    Some(ConfiguredKey {
        name: enrolment.key_name.clone(),
        uri: Pkcs11Uri { id: address.selector.id.clone(), object: address.selector.label.clone(), ..address.token.uri() },
        algorithm: None,
        certificate: Some(issued.certificate.clone()),
        chain: issued.chain(),
        ignore_validity: false,
        ignore_purpose: false,
        allow_unverified: false,
    })
}

/// The event of a signature of our own.
fn own_signature(purpose: &str, key_name: &KeyName) -> AuditEvent {
    AuditEvent::OwnSignature { purpose: purpose.to_owned(), key_name: key_name.clone(), count: 1, failure: None }
}

/// What is told of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFacts {
    /// The certificate in DER.
    pub der: Vec<u8>,
    /// Its issuer's name.
    pub issuer: String,
    /// Its serial number in hex.
    pub serial: String,
    /// What its key is.
    pub key_kind: String,
}

/// Reads what is told of a certificate in DER; `None` if it is not one.
#[must_use]
pub fn certificate_facts(der: &[u8]) -> Option<CertificateFacts> {
    let certificate = Certificate::from_der(der).ok()?;
    Some(CertificateFacts {
        der: der.to_vec(),
        issuer: certificate.issuer(),
        serial: certificate.serial(),
        key_kind: certificate.key_kind().to_string(),
    })
}

/// What is told of a certificate request (PKCS#10).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestFacts {
    /// The subject that the CA is asked to certify, as RFC 4514 writes it.
    pub subject: String,
    /// What its key is.
    pub key_kind: String,
}

/// Reads what is told of a request in DER; `None` if it is not one.
#[must_use]
pub fn request_facts(der: &[u8]) -> Option<RequestFacts> {
    let request = CertificateRequest::from_der(der).ok()?;
    Some(RequestFacts { subject: request.subject().to_string(), key_kind: request.key_kind().to_string() })
}

/// A certificate and its chain in PEM, nearest first.
#[must_use]
pub fn certificates_in_pem(issued: &IssuedCertificate) -> String {
    let all = std::iter::once(issued.certificate.clone()).chain(issued.chain());
    all.filter_map(|der| Certificate::from_der(&der).ok()).map(|certificate| certificate.to_pem()).collect()
}
