//! A new certificate request: stored first, then its key is made or found, then the CA's request is signed with it.
//!
//! A crash on the way leaves a request in state `Accepted`; the client's repetition goes on where it stopped, with the same key.

use tracing::{info, warn};

use super::{EnrolmentError, EnrolmentService, Fault, RequestFault, Requester, clerk::BY_GATEWAY, own_signature};
use crate::{
    domain::{
        algorithm::KeyKind,
        audit::{AuditEvent, Sha256},
        enrolment::{
            Application, Draft, Enrolment, EnrolmentState, ExternalId, Refusal, Step,
            profile::{CaChoice, Profile},
        },
        ids::{EnrolmentId, ProfileName},
        job::KeyAddress,
        key_uri::Pkcs11Uri,
        token::{KeyDescription, KeyPairSpec, KeySelector, LoginMode},
    },
    pki::csr::{CertificateRequest, RequestTemplate, RequestedExtension, SubjectPart},
    store::{Change, Conflict, EnrolmentFilter, StoreError},
    token::{
        command::{Command, Reply},
        driver::DeviceError,
        slot::{SlotError, SlotHandle},
    },
};

/// The most requests of an organisation that have not ended.
const OPEN_MAX: usize = 1_000;
/// What a signature under a CA's request is called in the audit log.
const PURPOSE: &str = "certificate request";

/// What a client asks for.
#[derive(Debug, Clone)]
pub struct NewRequest {
    /// The id that it chose.
    pub external_id: ExternalId,
    /// The account that the certificate is for, where the form says it.
    pub login: Option<String>,
    /// What the form says.
    pub application: Application,
    /// The key.
    pub key: KeyWish,
    /// The profile; the first one if nothing is said.
    pub profile: Option<ProfileName>,
    /// What the client sent, as it is sent back.
    pub body: String,
    /// SHA-256 of it, in a form in which the same request is the same.
    pub fingerprint: Sha256,
}

/// Which key a certificate is wanted for.
#[derive(Debug, Clone)]
pub enum KeyWish {
    /// One that is made on the token: of this kind, or of the profile's.
    Make(Option<KeyKind>),
    /// One that is on a token of the gateway.
    Named(Pkcs11Uri),
    /// The one of this request (PKCS#10 in DER), which the client made itself.
    Requested(Vec<u8>),
}

/// A key that was found or made, and the CA's request for it.
struct Prepared {
    request: CertificateRequest,
    key: Option<KeyAddress>,
    signed_here: bool,
}

impl EnrolmentService {
    /// Takes a request, or gives the one that was taken for the same id and content before.
    ///
    /// # Errors
    /// [`Fault`] says what is wrong with it; [`EnrolmentError::Unavailable`] if the token is away: the same may be sent again.
    pub async fn create(&self, who: &Requester, new: NewRequest) -> Result<Enrolment, EnrolmentError> {
        let id = EnrolmentId::of(who.account.organisation.as_str(), &new.external_id);
        if let Some(known) = self.parts.store.find_enrolment(id).await? {
            return self.take_again(who, known, &new).await;
        }
        let draft = self.draft(who, &new).await?;
        let changes = vec![Change::InsertEnrolment(Box::new(draft.clone())), Change::Audit(AuditEvent::of_step(&draft))];
        match self.parts.store.commit(changes).await {
            Ok(()) => self.prepare_or_refuse(who, draft, &new).await,
            Err(StoreError::Conflict(Conflict::EnrolmentChanged)) => {
                let known = self.parts.store.find_enrolment(id).await?.ok_or(EnrolmentError::Overtaken)?;
                self.take_again(who, known, &new).await
            }
            Err(error) => Err(error.into()),
        }
    }

    /// A request that is known: the same one goes on where it stopped.
    async fn take_again(&self, who: &Requester, known: Enrolment, new: &NewRequest) -> Result<Enrolment, EnrolmentError> {
        if known.fingerprint != new.fingerprint || !who.owns(&known) {
            return Err(Fault::OtherRequest.into());
        }
        if known.state == EnrolmentState::Accepted { self.prepare_or_refuse(who, known, new).await } else { Ok(known) }
    }

    async fn draft(&self, who: &Requester, new: &NewRequest) -> Result<Enrolment, EnrolmentError> {
        let account = &who.account;
        let login = new.login.as_deref().filter(|_| who.for_all).unwrap_or(account.login.as_str());
        if login == account.login.as_str() && new.application.full_name != account.full_name.as_str() {
            return Err(Fault::OtherName.into());
        }
        let profile = match &new.profile {
            Some(name) => self.profile(name)?,
            None => self.parts.profiles.first().ok_or(Fault::NoProfile)?,
        };
        let key_name = profile.key_name(&new.application, login).ok_or(Fault::NoProfile)?;
        let former = self.active(&key_name).await?;
        let taken = former.is_some_and(|former| former.organisation != account.organisation.as_str() || former.login != login);
        if taken || self.parts.signing.is_configured(&key_name) {
            return Err(Fault::NameTaken(key_name.to_string()).into());
        }
        self.check_request(who, new, profile).await?;
        self.check_room(account.organisation.as_str()).await?;
        let draft = Draft {
            organisation: account.organisation.as_str().to_owned(),
            external_id: new.external_id.clone(),
            caller: who.caller.id.clone(),
            login: login.to_owned(),
            profile: profile.name.clone(),
            key_name,
            application: new.application.clone(),
            body: new.body.clone(),
            fingerprint: new.fingerprint,
            key_made_here: matches!(new.key, KeyWish::Make(_)),
            renews: None,
        };
        Ok(draft.accepted(self.parts.store.now(), who.caller.id.as_str()))
    }

    /// Refuses what will not work before anything is stored.
    async fn check_request(&self, who: &Requester, new: &NewRequest, profile: &Profile) -> Result<(), EnrolmentError> {
        match &new.key {
            KeyWish::Requested(der) => drop(CertificateRequest::from_der(der)?),
            KeyWish::Make(_) => drop(self.slot(&profile.token)?),
            KeyWish::Named(uri) => drop(self.named_key(who, uri).await?),
        }
        Ok(())
    }

    async fn check_room(&self, organisation: &str) -> Result<(), EnrolmentError> {
        let mut open = 0;
        for state in [EnrolmentState::Accepted, EnrolmentState::AwaitingIssue, EnrolmentState::AwaitingConfirmation] {
            let filter = EnrolmentFilter { organisation: Some(organisation.to_owned()), state: Some(state), ..EnrolmentFilter::default() };
            open += self.parts.store.list_enrolments(&filter, OPEN_MAX).await?.len();
        }
        if open < OPEN_MAX { Ok(()) } else { Err(Fault::TooMany(OPEN_MAX).into()) }
    }

    /// As [`prepare`](Self::prepare); what the token or the profile will never take does not stay open, and its key does not stay on the token.
    async fn prepare_or_refuse(&self, who: &Requester, draft: Enrolment, new: &NewRequest) -> Result<Enrolment, EnrolmentError> {
        let id = draft.id;
        let fault = match self.prepare(who, draft, new).await {
            Err(EnrolmentError::Fault(fault)) => fault,
            other => return other,
        };
        let refusal = Step::Refused { ground: Refusal::Particulars, comment: fault.to_string() };
        let refused = match self.parts.store.find_enrolment(id).await {
            // The same request that was sent twice at once may have come further.
            Ok(Some(mut stored)) if stored.state == EnrolmentState::Accepted => {
                self.step(&mut stored, refusal, BY_GATEWAY, Vec::new()).await
            }
            _ => return Err(fault.into()),
        };
        match refused {
            Ok(()) if matches!(new.key, KeyWish::Make(_)) => {
                if let Err(error) = self.delete_key(id, BY_GATEWAY).await {
                    warn!(enrolment.id = %id, error = %error, "the key of a refused request may be on its token; use `sealgate enrol delete-key {id}`");
                }
            }
            Ok(()) => {}
            Err(error) => warn!(enrolment.id = %id, error = %error, "a request that cannot be prepared is still open"),
        }
        Err(fault.into())
    }

    /// Has the key made or found and the CA's request signed.
    async fn prepare(&self, who: &Requester, mut draft: Enrolment, new: &NewRequest) -> Result<Enrolment, EnrolmentError> {
        let profile = self.profile(&draft.profile)?;
        let Prepared { request, key, signed_here } = match &new.key {
            KeyWish::Requested(der) => {
                let request = CertificateRequest::from_der(der)?;
                let key = self.find_by_public_key(request.spki()).await;
                Prepared { request, key, signed_here: false }
            }
            KeyWish::Named(uri) => {
                let key = self.named_key(who, uri).await?;
                self.sign_request(&draft, profile, key).await?
            }
            KeyWish::Make(kind) => {
                let key = self.make_key(&draft, profile, kind.clone().unwrap_or_else(|| profile.key_kind.clone())).await?;
                self.sign_request(&draft, profile, key).await?
            }
        };
        let confirm = profile.confirm && self.active(&draft.key_name).await?.is_some();
        let approved = !profile.approval && profile.ca != CaChoice::Manual;
        let step = Step::Prepared { request: request.as_der().to_vec(), key, confirm, approved };
        let also = signed_here.then(|| own_signature(PURPOSE, &draft.key_name)).into_iter().collect();
        match self.step(&mut draft, step, who.caller.id.as_str(), also).await {
            Ok(()) => {
                info!(enrolment.id = %draft.id, key.name = %draft.key_name, "certificate request {} is {}", draft.id, draft.state);
                self.wake.notify_one();
                Ok(draft)
            }
            // The same request was sent twice at once, and the other one was quicker.
            Err(EnrolmentError::Overtaken) => self.parts.store.find_enrolment(draft.id).await?.ok_or(EnrolmentError::Overtaken),
            Err(error) => Err(error),
        }
    }

    async fn sign_request(&self, draft: &Enrolment, profile: &Profile, key: (KeyAddress, Vec<u8>)) -> Result<Prepared, EnrolmentError> {
        let (address, spki) = key;
        let info = template(profile, draft).info(&spki)?;
        let signed = self.parts.signing.sign_own_at(&address, &info).await;
        let signed = signed.map_err(|error| EnrolmentError::of_signature(&error, &address))?;
        let request = CertificateRequest::assemble(&info, signed.algorithm, &signed.value.to_x509_bytes())?;
        Ok(Prepared { request, key: Some(address), signed_here: true })
    }

    /// Makes the key of a request, or finds the one that an earlier try has made.
    async fn make_key(&self, draft: &Enrolment, profile: &Profile, kind: KeyKind) -> Result<(KeyAddress, Vec<u8>), EnrolmentError> {
        let slot = self.slot(&profile.token)?;
        if slot.login_mode() == LoginMode::PerRequest {
            return Err(Fault::Key("its token wants the PIN in each request, and none comes with this one".to_owned()).into());
        }
        let id = key_id(draft.id);
        let spec = KeyPairSpec { kind: kind.clone(), id: id.clone(), label: draft.key_name.to_string() };
        let made = match slot.call(Command::GenerateKeyPair(spec)).await {
            // Nobody else has this id.
            Err(SlotError::Device(DeviceError::Refused(_))) => self.describe(&slot, id).await?,
            Ok(Reply::Key { key, .. }) => key,
            Ok(_) => return Err(EnrolmentError::Unavailable("the token answered something else than it was asked".to_owned())),
            Err(SlotError::Device(DeviceError::Unsupported(why))) => return Err(Fault::Key(why).into()),
            Err(error) => return Err(EnrolmentError::Unavailable(error.to_string())),
        };
        if made.kind != kind {
            return Err(Fault::Key(format!("there is a key {} under its CKA_ID already", made.kind)).into());
        }
        self.parts.signing.token_changed(slot.token());
        address_of(&slot, made, draft)
    }

    async fn named_key(&self, who: &Requester, uri: &Pkcs11Uri) -> Result<(KeyAddress, Vec<u8>), EnrolmentError> {
        let found = self.parts.signing.find_key(&who.caller, uri).await.map_err(|error| match error {
            crate::signing::service::Denied::SlotUnavailable(_) | crate::signing::service::Denied::TokenAbsent => {
                EnrolmentError::Unavailable(error.to_string())
            }
            other => Fault::Key(other.to_string()).into(),
        })?;
        Ok((KeyAddress { name: None, ..found.address.clone() }, found.public_key.clone()))
    }

    /// The key with this public half, on whichever token it is; `None` if no token that is here has it.
    pub(super) async fn find_by_public_key(&self, spki: &[u8]) -> Option<KeyAddress> {
        for slot in self.parts.tokens.slots() {
            if !slot.status().state.takes_work() {
                continue;
            }
            let Ok(Reply::Keys(keys)) = slot.call(Command::ListKeys).await else { continue };
            let has = |key: &&KeyDescription| key.public_key.as_deref().is_some_and(|public| same_public_key(public, spki));
            if let Some(key) = keys.iter().find(has).filter(|key| !key.id.is_empty()) {
                let selector = KeySelector { id: Some(key.id.clone()), label: None };
                return Some(KeyAddress { token: slot.token().clone(), selector, name: None });
            }
        }
        None
    }

    /// The token that a URI names, if it can work now.
    pub(super) fn slot(&self, uri: &Pkcs11Uri) -> Result<SlotHandle, EnrolmentError> {
        let unavailable = |why: String| EnrolmentError::Unavailable(why);
        // Another gateway signs with it, so this one neither makes keys there nor writes.
        if let Some(gateway) = self.parts.signing.gateway_with(uri) {
            return Err(unavailable(format!("gateway {gateway} has the token; ask that one")));
        }
        let slot = self.parts.tokens.find(uri).map_err(|error| unavailable(format!("the token is not there: {error}")))?;
        let status = slot.status();
        if status.state.takes_work() { Ok(slot) } else { Err(unavailable(format!("the token cannot be used now: {status}"))) }
    }

    /// The one private key with this `CKA_ID`.
    pub(super) async fn describe(&self, slot: &SlotHandle, id: Vec<u8>) -> Result<KeyDescription, EnrolmentError> {
        let command = Command::DescribeKey { key: KeySelector { id: Some(id), label: None }, pin: None };
        match slot.call(command).await.map_err(EnrolmentError::of_lookup)? {
            Reply::Key { key, .. } => Ok(key),
            _ => Err(EnrolmentError::Unavailable("the token answered something else than it was asked".to_owned())),
        }
    }
}

/// The `CKA_ID` of the key that is made for a request: the same at every try, and nobody else's.
pub(super) fn key_id(id: EnrolmentId) -> Vec<u8> {
    Sha256::of(&[b"Sealgate key\0", id.as_uuid().as_bytes().as_slice()].concat()).as_bytes()[..16].to_vec()
}

fn address_of(slot: &SlotHandle, key: KeyDescription, draft: &Enrolment) -> Result<(KeyAddress, Vec<u8>), EnrolmentError> {
    let spki = key.public_key.ok_or_else(|| Fault::Key("its public half cannot be read".to_owned()))?;
    let selector = KeySelector { id: Some(key.id), label: None };
    Ok((KeyAddress { token: slot.token().clone(), selector, name: Some(draft.key_name.clone()) }, spki))
}

/// Whether two `SubjectPublicKeyInfo` hold one key: the bits count, for the algorithm beside them is written in more than one way.
pub(super) fn same_public_key(one: &[u8], two: &[u8]) -> bool {
    use der::Decode as _;
    let bits = |spki: &[u8]| spki::SubjectPublicKeyInfoOwned::from_der(spki).map(|spki| spki.subject_public_key);
    matches!((bits(one), bits(two)), (Ok(one), Ok(two)) if one == two)
}

fn template(profile: &Profile, draft: &Enrolment) -> RequestTemplate {
    let subject = profile.subject(&draft.application, &draft.login);
    let extension = |own: &crate::domain::enrolment::profile::ProfileExtension| RequestedExtension {
        kind: own.kind,
        critical: own.critical,
        value: own.value.clone(),
    };
    RequestTemplate {
        subject: subject.into_iter().map(|(kind, value)| SubjectPart { kind, value }).collect(),
        key_usage: profile.key_usage,
        extended_key_usage: profile.extended_key_usage.clone(),
        extensions: profile.extensions.iter().map(extension).collect(),
        email: profile.email.then(|| draft.application.email.clone()),
    }
}

/// Reads what a client sent as its certificate request: PEM of a PKCS#10, or of a CMS around one.
///
/// # Errors
/// [`RequestFault`].
pub fn read_request(pem: &str) -> Result<Vec<u8>, RequestFault> {
    use crate::{
        cms::attached_content,
        pki::csr::{REQUEST_MAX, RequestError, decode_pem},
    };
    // A CMS has certificates beside the request.
    let (label, der) = decode_pem(pem, 4 * REQUEST_MAX)?;
    let request = match label.as_str() {
        "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST" => der,
        "CMS" | "PKCS7" => attached_content(&der).map_err(|error| RequestFault::Cms(error.to_string()))?,
        _ => return Err(RequestError::Pem("its label is neither CERTIFICATE REQUEST nor CMS".to_owned()).into()),
    };
    if request.len() > REQUEST_MAX { Err(RequestError::TooLong.into()) } else { Ok(request) }
}
