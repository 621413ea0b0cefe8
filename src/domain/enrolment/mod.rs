//! Certificate requests: what was asked for, by whom, and how far it has come.
//!
//! Pure: states move by [`Enrolment::step`] and by nothing else, and the store applies what comes of it with a compare-and-set on the version.
//! Invariants: a request belongs to one organisation and is found by the id that its client chose; what was asked for never changes; a
//! request has a certificate from `Issued` on, and one that is active has been proved to belong to its key.

mod external_id;
pub mod profile;
mod state;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::{
    external_id::{ExternalId, ExternalIdError},
    state::{EnrolmentState, Refusal},
};
use super::{
    audit::Sha256,
    ids::{CallerId, EnrolmentId, KeyName, ProfileName},
    job::KeyAddress,
    timestamp::Timestamp,
};

/// The most entries that the history of a request keeps: its first ones, and then the newest.
pub const HISTORY_MAX: usize = 64;

/// So many days before its end a certificate is told of, and at its end; each once.
pub const EXPIRY_MARKS: [u32; 4] = [30, 7, 1, 0];

const DAY: Duration = Duration::from_secs(24 * 3600);

/// What the form says that a person signs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Application {
    /// Its ordinal number, as the client counts.
    pub number: String,
    /// Where the holder is reached.
    pub email: String,
    /// The organisation, where the form names it.
    pub organisation: Option<String>,
    /// Surname, name and patronymic of the holder.
    pub full_name: String,
    /// The holder's position.
    pub position: String,
    /// How the issuing system names the key.
    pub key_identifier: Option<String>,
}

/// A certificate that was issued, and those of its CAs, nearest first. In DER.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuedCertificate {
    /// The certificate.
    #[serde(with = "hex::serde")]
    pub certificate: Vec<u8>,
    /// Its CAs' certificates.
    pub chain: Vec<DerBytes>,
}

/// Bytes that are written as hex.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DerBytes(#[serde(with = "hex::serde")] pub Vec<u8>);

impl IssuedCertificate {
    /// Takes certificates as they come from a CA.
    #[must_use]
    pub fn new(certificate: Vec<u8>, chain: Vec<Vec<u8>>) -> Self {
        Self { certificate, chain: chain.into_iter().map(DerBytes).collect() }
    }

    /// The CAs' certificates.
    #[must_use]
    pub fn chain(&self) -> Vec<Vec<u8>> {
        self.chain.iter().map(|der| der.0.clone()).collect()
    }

    /// SHA-256 of the certificate.
    #[must_use]
    pub fn fingerprint(&self) -> Sha256 {
        Sha256::of(&self.certificate)
    }
}

/// A certificate request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolment {
    /// Its id, made of the two that follow.
    pub id: EnrolmentId,
    /// The organisation that it belongs to.
    pub organisation: String,
    /// The id that the client chose.
    pub external_id: ExternalId,
    /// The program that asked.
    pub caller: CallerId,
    /// The account that the certificate is for.
    pub login: String,
    /// What the certificate is to look like, and who issues it.
    pub profile: ProfileName,
    /// The name that the key signs under once the certificate is active.
    pub key_name: KeyName,
    /// What the form says.
    pub application: Application,
    /// What the client sent, as it is sent back.
    pub body: String,
    /// SHA-256 of what the client sent, in a form in which the same request is the same.
    pub fingerprint: Sha256,
    /// The key, if it is known on which token it is.
    pub key: Option<KeyAddress>,
    /// The gateway made the key for this request.
    pub key_made_here: bool,
    /// The request of the CA (PKCS#10) in DER; `None` until the key and its first signature are made.
    pub request: Option<DerBytes>,
    /// Where it stands.
    pub state: EnrolmentState,
    /// An operator, or the holder's own signature, has let it go to the CA.
    pub approved: bool,
    /// The certificate is the one that its key signs with.
    pub active: bool,
    /// For the client and the operator, in words; may be empty.
    pub comment: String,
    /// What the CA named the request that it has not answered yet.
    pub ca_reference: Option<String>,
    /// When the CA is to be asked again; `None` if it is not.
    pub due: Option<Timestamp>,
    /// How often in a row the CA could not be asked.
    pub attempts: u32,
    /// What was issued.
    pub issued: Option<IssuedCertificate>,
    /// It renews the certificate of this request before that expires, with the same key, and is activated by itself.
    pub renews: Option<EnrolmentId>,
    /// When it was activated first.
    pub activated: Option<Timestamp>,
    /// The last of [`EXPIRY_MARKS`] that was told of its certificate.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub told: Option<u32>,
    /// What happened, oldest first.
    pub history: Vec<HistoryEntry>,
    /// When it was made.
    pub created: Timestamp,
    /// Grows with each change.
    pub version: u64,
}

/// What a new request begins with.
#[derive(Debug, Clone)]
pub struct Draft {
    /// As [`Enrolment::organisation`].
    pub organisation: String,
    /// As [`Enrolment::external_id`].
    pub external_id: ExternalId,
    /// As [`Enrolment::caller`].
    pub caller: CallerId,
    /// As [`Enrolment::login`].
    pub login: String,
    /// As [`Enrolment::profile`].
    pub profile: ProfileName,
    /// As [`Enrolment::key_name`].
    pub key_name: KeyName,
    /// As [`Enrolment::application`].
    pub application: Application,
    /// As [`Enrolment::body`].
    pub body: String,
    /// As [`Enrolment::fingerprint`].
    pub fingerprint: Sha256,
    /// As [`Enrolment::key_made_here`].
    pub key_made_here: bool,
    /// As [`Enrolment::renews`].
    pub renews: Option<EnrolmentId>,
}

impl Draft {
    /// The request as it is when it is accepted, at `at`, because of `by`.
    #[must_use]
    pub fn accepted(self, at: Timestamp, by: &str) -> Enrolment {
        Enrolment {
            id: EnrolmentId::of(&self.organisation, &self.external_id),
            organisation: self.organisation,
            external_id: self.external_id,
            caller: self.caller,
            login: self.login,
            profile: self.profile,
            key_name: self.key_name,
            application: self.application,
            body: self.body,
            fingerprint: self.fingerprint,
            key: None,
            key_made_here: self.key_made_here,
            request: None,
            state: EnrolmentState::Accepted,
            approved: false,
            active: false,
            comment: String::new(),
            ca_reference: None,
            due: None,
            attempts: 0,
            issued: None,
            renews: self.renews,
            activated: None,
            told: None,
            history: vec![HistoryEntry { at, what: StepKind::Created, by: by.to_owned(), detail: String::new() }],
            created: at,
            version: 0,
        }
    }
}

/// One line of a request's history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// When.
    pub at: Timestamp,
    /// What.
    pub what: StepKind,
    /// By whom: a caller, an operator, or the CA.
    pub by: String,
    /// More about it; may be empty.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub detail: String,
}

/// What can happen to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The key is there and the CA's request is made.
    Prepared {
        /// The request in DER.
        request: Vec<u8>,
        /// The key.
        key: Option<KeyAddress>,
        /// The holder is asked to confirm with the key that is active now.
        confirm: bool,
        /// Nobody is asked: the profile lets it go to the CA.
        approved: bool,
    },
    /// The holder has confirmed with a signature.
    Confirmed,
    /// An operator has let it go to the CA.
    Approved,
    /// The CA has it and has not decided; it is asked again at `due`, or never: somebody brings the certificate.
    Submitted {
        /// The CA's name for it.
        reference: Option<String>,
        /// When to ask again.
        due: Option<Timestamp>,
    },
    /// The CA could not be asked; it is asked again at `due`.
    Postponed {
        /// When.
        due: Timestamp,
        /// Why, in words.
        reason: String,
    },
    /// The CA has issued.
    Issued(IssuedCertificate),
    /// The certificate is proved to belong to its key and becomes the one that it signs with.
    Activated,
    /// Another certificate has taken its place.
    Superseded,
    /// It will not be issued.
    Refused {
        /// On what ground.
        ground: Refusal,
        /// Why, in words.
        comment: String,
    },
    /// The key that was made for it is gone from its token.
    KeyDeleted,
}

/// The name of a [`Step`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "each is the step of its name")]
pub enum StepKind {
    Created,
    Prepared,
    Confirmed,
    Approved,
    Submitted,
    Postponed,
    Issued,
    Activated,
    Superseded,
    Refused,
    KeyDeleted,
}

/// A step that a request in its state does not take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a request that is {state} cannot be {}", .step.as_str())]
pub struct WrongStep {
    /// Where the request stands.
    pub state: EnrolmentState,
    /// What was to happen.
    pub step: StepKind,
}

impl StepKind {
    /// The name in a sentence.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Prepared => "prepared",
            Self::Confirmed => "confirmed",
            Self::Approved => "approved",
            Self::Submitted => "submitted",
            Self::Postponed => "postponed",
            Self::Issued => "issued",
            Self::Activated => "activated",
            Self::Superseded => "superseded",
            Self::Refused => "refused",
            Self::KeyDeleted => "key deleted",
        }
    }
}

impl Step {
    /// Its name.
    #[must_use]
    pub const fn kind(&self) -> StepKind {
        match self {
            Self::Prepared { .. } => StepKind::Prepared,
            Self::Confirmed => StepKind::Confirmed,
            Self::Approved => StepKind::Approved,
            Self::Submitted { .. } => StepKind::Submitted,
            Self::Postponed { .. } => StepKind::Postponed,
            Self::Issued(_) => StepKind::Issued,
            Self::Activated => StepKind::Activated,
            Self::Superseded => StepKind::Superseded,
            Self::Refused { .. } => StepKind::Refused,
            Self::KeyDeleted => StepKind::KeyDeleted,
        }
    }

    fn detail(&self) -> String {
        match self {
            Self::Submitted { reference, .. } => reference.clone().unwrap_or_default(),
            Self::Postponed { reason, .. } => reason.clone(),
            Self::Issued(issued) => format!("sha256 {}", issued.fingerprint()),
            Self::Refused { comment, .. } => comment.clone(),
            _ => String::new(),
        }
    }
}

impl Enrolment {
    /// Takes one step, at `at`, because of `by`.
    ///
    /// # Errors
    /// [`WrongStep`]; nothing has changed then.
    pub fn step(&mut self, step: Step, at: Timestamp, by: &str) -> Result<(), WrongStep> {
        let next = self.state.after(&step).ok_or(WrongStep { state: self.state, step: step.kind() })?;
        let idle = matches!(step, Step::Superseded) && !self.active || matches!(step, Step::KeyDeleted) && !self.key_made_here;
        if idle {
            return Err(WrongStep { state: self.state, step: step.kind() });
        }
        self.note(at, step.kind(), by, step.detail());
        self.state = next;
        match step {
            Step::Prepared { request, key, approved, confirm } => {
                self.request = Some(DerBytes(request));
                self.key = key;
                self.approved = approved && !confirm;
                self.due = self.approved.then_some(at);
            }
            Step::Confirmed | Step::Approved => {
                self.approved = true;
                self.due = Some(at);
            }
            Step::Submitted { reference, due } => {
                self.ca_reference = reference;
                self.due = due;
                self.attempts = 0;
            }
            Step::Postponed { due, .. } => {
                self.due = Some(due);
                self.attempts = self.attempts.saturating_add(1);
            }
            Step::Issued(issued) => {
                self.issued = Some(issued);
                self.due = None;
            }
            Step::Activated => {
                self.active = true;
                self.activated = Some(at);
            }
            Step::Superseded => self.active = false,
            Step::KeyDeleted => {
                self.key = None;
                self.key_made_here = false;
            }
            Step::Refused { comment, .. } => {
                self.comment = comment;
                self.due = None;
            }
        }
        Ok(())
    }

    /// Notes that the certificate's end is so far away; whether somebody is to be told of it.
    pub fn note_expiry(&mut self, left: Duration) -> bool {
        let reached = EXPIRY_MARKS.into_iter().filter(|days| left <= DAY * *days).min();
        let is_news = self.active && reached.is_some_and(|mark| self.told.is_none_or(|told| mark < told));
        if is_news {
            self.told = reached;
        }
        is_news
    }

    /// Adds a line to the history.
    pub fn note(&mut self, at: Timestamp, what: StepKind, by: &str, detail: String) {
        let entry = HistoryEntry { at, what, by: by.to_owned(), detail };
        match self.history.last_mut() {
            // A CA that is away for a week is one line.
            Some(last) if last.what == StepKind::Postponed && what == StepKind::Postponed => *last = entry,
            _ => {
                if self.history.len() >= HISTORY_MAX {
                    self.history.remove(HISTORY_MAX / 2);
                }
                self.history.push(entry);
            }
        }
    }
}

impl EnrolmentId {
    /// The id of the request that an organisation calls `external_id`: the same on every gateway, so that a repetition meets the same request.
    #[must_use]
    pub fn of(organisation: &str, external_id: &ExternalId) -> Self {
        let hash =
            Sha256::of(&[b"Sealgate certificate request\0", organisation.as_bytes(), b"\0", external_id.as_str().as_bytes()].concat());
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash.as_bytes()[..16]);
        uuid::Builder::from_custom_bytes(bytes).into_uuid().into()
    }
}

#[cfg(test)]
pub(crate) mod tests;
