//! What the audit log tells of.

use std::{collections::BTreeMap, net::IpAddr};

use serde::{Deserialize, Serialize};

use super::{AuditHead, Checkpoint, Sha256};
use crate::domain::{
    caller::{ConsentPolicy, KeyAccess, Provenance, Scopes},
    consent::RefusalReason,
    enrolment::{Enrolment, ExternalId, IssuedCertificate, StepKind},
    ids::{CallerId, EnrolmentId, JobId, KeyName, ModuleName, OperatorName, PermitId, TicketId},
    job::{FailureCause, JobOutcome, JobState, SigningJob},
    operator::Role,
    timestamp::Timestamp,
};

/// Who consented to a signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Consent {
    /// The caller's policy in the configuration.
    Policy,
    /// The PIN that came with the request.
    Pin,
    /// An operator, by name.
    Operator(OperatorName),
    /// Several operators, by name: each of them had to agree.
    Operators(Vec<OperatorName>),
}

/// What one signature was asked for with: the same in every event about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignatureFacts {
    /// The job.
    pub job: JobId,
    /// Who asked.
    pub caller: CallerId,
    /// From where.
    #[serde(flatten)]
    pub from: Provenance,
    /// The configured name of the key.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub key_name: Option<KeyName>,
    /// The key as an RFC 7512 URI.
    pub key: String,
    /// The signature algorithm.
    pub algorithm: String,
    /// What the token was given: `hash:hex`; for EdDSA, which is given the message, its SHA-256 as `message-sha256:hex`.
    pub digest: String,
    /// The permit that paid.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub permit: Option<PermitId>,
    /// Serial number of the signer's certificate, in hex.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub certificate_serial: Option<String>,
}

impl SignatureFacts {
    /// The facts of a job.
    #[must_use]
    pub fn of(job: &SigningJob) -> Self {
        Self {
            job: job.id,
            caller: job.caller.clone(),
            from: job.from.clone(),
            key_name: job.key.name.clone(),
            key: job.key.uri(),
            algorithm: job.to_sign.algorithm().to_string(),
            digest: job.to_sign.fingerprint(),
            permit: job.permit,
            certificate_serial: job.certificate_serial.clone(),
        }
    }
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum AuditEvent {
    /// The gateway started with this configuration.
    ConfigurationLoaded {
        /// The program's version.
        version: String,
        /// SHA-256 of the configuration file.
        sha256: Sha256,
    },
    /// The state was restored from a backup. The log that stands in the backup ends at `head`; this one is new, since what that gateway wrote
    /// after the backup is not in it.
    Restored {
        /// The end of the log in the backup.
        head: AuditHead,
        /// Permits that could still be used, and were revoked.
        permits_revoked: u64,
        /// Jobs that had not ended, and are in doubt.
        jobs_in_doubt: u64,
    },
    /// The gateway stopped in order.
    GatewayStopped,
    /// A session of the ticket API began.
    TicketOpened {
        /// The ticket.
        ticket: TicketId,
        /// Who opened it.
        caller: CallerId,
        /// From where.
        #[serde(flatten)]
        from: Provenance,
    },
    /// A session ended by request.
    TicketClosed {
        /// The ticket.
        ticket: TicketId,
        /// Whose it was.
        caller: CallerId,
    },
    /// Content was uploaded.
    ContentReceived {
        /// The ticket.
        ticket: TicketId,
        /// Who sent it.
        caller: CallerId,
        /// Its SHA-256.
        sha256: Sha256,
        /// Its length in bytes.
        len: u64,
    },
    /// Operators were asked for their consent to a number of signatures.
    ConsentAsked {
        /// The permit that there will be.
        permit: PermitId,
        /// For whom.
        caller: CallerId,
        /// From where.
        #[serde(flatten)]
        from: Provenance,
        /// For how many signatures.
        uses: u32,
        /// How many operators must agree.
        operators: u8,
        /// With which keys, in words.
        keys: String,
        /// For these only, each as the audit log has it.
        #[serde(skip_serializing_if = "Vec::is_empty", default)]
        digests: Vec<String>,
        /// Until when, in milliseconds since the Unix epoch.
        decide_by: Timestamp,
        /// The job that waits for it.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        job: Option<JobId>,
        /// The ticket of that job.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        ticket: Option<TicketId>,
    },
    /// One of the operators who must agree did; the others have not yet.
    ConsentSeconded {
        /// The permit.
        permit: PermitId,
        /// For whom.
        caller: CallerId,
        /// For how many signatures.
        uses: u32,
        /// By whom.
        by: OperatorName,
    },
    /// Consent was asked for and not given.
    ConsentRefused {
        /// The permit that there is not.
        permit: PermitId,
        /// For whom.
        caller: CallerId,
        /// From where.
        #[serde(flatten)]
        from: Provenance,
        /// Why.
        reason: RefusalReason,
        /// The operator who refused.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        by: Option<OperatorName>,
    },
    /// Consent for a number of signatures was given.
    ConsentGiven {
        /// The permit.
        permit: PermitId,
        /// For whom.
        caller: CallerId,
        /// From where it was asked for.
        #[serde(flatten)]
        from: Provenance,
        /// For how many signatures.
        uses: u32,
        /// Until when, in milliseconds since the Unix epoch.
        expires: Timestamp,
        /// With which keys, in words; absent for whichever the caller may use.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        keys: Option<String>,
        /// By whom.
        by: Consent,
    },
    /// Consent was taken back.
    PermitRevoked {
        /// The permit.
        permit: PermitId,
        /// By whom: its caller or an operator.
        by: String,
    },
    /// Something was asked for and not allowed.
    Refused {
        /// Who asked.
        caller: CallerId,
        /// From where.
        #[serde(flatten)]
        from: Provenance,
        /// What for.
        what: String,
        /// Why not.
        reason: String,
        /// How many other refusals of this caller were counted before this one, and not recorded one by one.
        #[serde(skip_serializing_if = "is_zero", default)]
        omitted: u64,
    },
    /// A signature was made, verified and recorded.
    Signed {
        /// What was asked for.
        #[serde(flatten)]
        facts: SignatureFacts,
        /// Who consented.
        consent: Consent,
        /// SHA-256 of the signature value, as the token returned it.
        signature_sha256: Sha256,
    },
    /// A signature that was uploaded was verified.
    Verified {
        /// The ticket.
        ticket: TicketId,
        /// Who asked.
        caller: CallerId,
        /// SHA-256 of the signature as it was verified.
        sha256: Sha256,
        /// Whether it holds.
        valid: bool,
        /// Serial numbers of the signers' certificates, in hex; empty where they are not known.
        signers: Vec<String>,
        /// Why it does not hold.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        reason: Option<String>,
    },
    /// A job ended without a signature that was handed out.
    NotSigned {
        /// What was asked for.
        #[serde(flatten)]
        facts: SignatureFacts,
        /// The state it ended in.
        state: JobState,
        /// Why.
        cause: FailureCause,
        /// Detail in words.
        detail: String,
    },
    /// A result came for a job that had been settled without it; it was never handed out.
    LateResult {
        /// The job.
        job: JobId,
        /// SHA-256 of the signature value.
        signature_sha256: Sha256,
    },
    /// An operator said what became of a job in doubt.
    DoubtResolved {
        /// The job.
        job: JobId,
        /// Whether the token had signed: the permit's use is kept then, and given back otherwise.
        signed: bool,
        /// The operator.
        by: String,
    },
    /// Signatures for the gateway's own purposes. A checkpoint that was made is an event of its own.
    OwnSignature {
        /// What for: `canary`, `checkpoint`, `certificate request` …
        purpose: String,
        /// The configured name of the key.
        key_name: KeyName,
        /// How many were made since the last record of this purpose and key.
        count: u64,
        /// Why the one after them was not; absent if nothing went wrong.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        failure: Option<String>,
    },
    /// A signature got what its form wants beside it.
    SignatureCompleted {
        /// The job that made the signature.
        job: JobId,
        /// The ticket that it is for.
        ticket: TicketId,
        /// Serial numbers of the time stamps that it got, in hex.
        time_stamps: Vec<String>,
    },
    /// A signature that was uploaded was changed: its content put in or taken out, or unsigned attributes added.
    SignatureModified {
        /// The ticket.
        ticket: TicketId,
        /// Who asked.
        caller: CallerId,
        /// SHA-256 of the signature as it was uploaded.
        sha256: Sha256,
        /// Serial numbers of the time stamps that it got, in hex.
        time_stamps: Vec<String>,
    },
    /// A time stamp was made for somebody: recorded before it is handed out, so that its serial number is never used again.
    TimeStamped {
        /// The configured name of the authority's key.
        key_name: KeyName,
        /// Its serial number, in hex.
        serial: String,
        /// Its time, in milliseconds since the Unix epoch.
        time: Timestamp,
        /// What it is for: `hash:hex`.
        imprint: String,
        /// The address that asked; absent if the gateway itself did.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        address: Option<std::net::IpAddr>,
    },
    /// Something happened to the PIN of a token.
    Pin {
        /// The token as an RFC 7512 URI.
        token: String,
        /// What.
        what: PinIncident,
        /// The same in the words of the slot; may be empty.
        #[serde(skip_serializing_if = "String::is_empty", default)]
        detail: String,
        /// Who acted, where a person did.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        by: Option<String>,
    },
    /// A certificate request has come one step further.
    CertificateRequest {
        /// The request.
        enrolment: EnrolmentId,
        /// The id that its client chose.
        external_id: ExternalId,
        /// Whose it is.
        organisation: String,
        /// For whom the certificate is.
        login: String,
        /// The name that the key signs under once its certificate is active.
        key_name: KeyName,
        /// The step.
        step: StepKind,
        /// Because of whom: a caller, an operator, the CA.
        by: String,
        /// More about it; may be empty.
        #[serde(skip_serializing_if = "String::is_empty", default)]
        detail: String,
        /// SHA-256 of the certificate, once there is one.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        certificate_sha256: Option<Sha256>,
    },
    /// A certificate comes to its end.
    CertificateExpires {
        /// Its request.
        enrolment: EnrolmentId,
        /// Whose it is.
        organisation: String,
        /// The account that has it.
        login: String,
        /// The name that its key signs under.
        key_name: KeyName,
        /// Whole days until its end.
        days_left: u32,
        /// It is over.
        expired: bool,
    },
    /// A stored caller was changed.
    CallerChanged {
        /// Which.
        caller: CallerId,
        /// What was done.
        what: CallerChange,
        /// By whom: an operator's name, or who was at the control socket.
        by: String,
    },
    /// An operator had a module started again.
    ModuleRestarted {
        /// The module.
        module: ModuleName,
        /// By whom.
        by: String,
    },
    /// An operator logged in to the console.
    OperatorLoggedIn {
        /// Who.
        operator: OperatorName,
        /// From where.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        address: Option<IpAddr>,
    },
    /// Somebody did not get into the console.
    LogInFailed {
        /// Whose password was wrong; absent where there is no such operator, for what was typed there may be a password.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        operator: Option<OperatorName>,
        /// From where.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        address: Option<IpAddr>,
        /// Why not.
        reason: String,
        /// How many others were counted before this one, and not recorded one by one.
        #[serde(skip_serializing_if = "is_zero", default)]
        omitted: u64,
    },
    /// An operator logged out.
    OperatorLoggedOut {
        /// Who.
        operator: OperatorName,
    },
    /// An operator's account was changed.
    OperatorChanged {
        /// Whose.
        operator: OperatorName,
        /// What was done.
        what: AccountChange,
        /// By whom: an operator's name, or who was at the control socket.
        by: String,
    },
    /// The log up to here, signed with a key on a token.
    Checkpoint(Checkpoint),
}

impl AuditEvent {
    /// The event of a job's end.
    #[must_use]
    pub fn of_end(job: &SigningJob, outcome: &JobOutcome) -> Self {
        let facts = SignatureFacts::of(job);
        match outcome {
            JobOutcome::Signed(value) => {
                Self::Signed { facts, consent: job.consent.clone(), signature_sha256: Sha256::of(value.as_raw_bytes()) }
            }
            JobOutcome::NotSigned { cause, detail } => {
                Self::NotSigned { facts, state: cause.final_state(), cause: *cause, detail: detail.clone() }
            }
        }
    }

    /// The event of the step that a certificate request has just taken.
    #[must_use]
    pub fn of_step(enrolment: &Enrolment) -> Self {
        let last = enrolment.history.last();
        Self::CertificateRequest {
            enrolment: enrolment.id,
            external_id: enrolment.external_id.clone(),
            organisation: enrolment.organisation.clone(),
            login: enrolment.login.clone(),
            key_name: enrolment.key_name.clone(),
            step: last.map_or(StepKind::Created, |entry| entry.what),
            by: last.map(|entry| entry.by.clone()).unwrap_or_default(),
            detail: last.map(|entry| entry.detail.clone()).unwrap_or_default(),
            certificate_sha256: enrolment.issued.as_ref().map(IssuedCertificate::fingerprint),
        }
    }
}

/// What was done to a stored caller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CallerChange {
    /// It was added.
    Added {
        /// The keys that it may use.
        keys: KeyAccess,
        /// The APIs that it may use.
        scopes: Scopes,
        /// Who decides about its signatures.
        consent: ConsentPolicy,
        /// Who decides about those with these keys.
        #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
        consent_for: BTreeMap<KeyName, ConsentPolicy>,
        /// When its API key ends.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        expires: Option<Timestamp>,
    },
    /// It got a new API key.
    Rotated {
        /// Until when the old ones are good.
        old_keys_end: Timestamp,
        /// When the new one ends.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        expires: Option<Timestamp>,
    },
    /// It is known no more.
    Revoked,
    /// It was removed.
    Removed,
}

/// What was done to an operator's account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AccountChange {
    /// It was made.
    Added {
        /// What they may do.
        role: Role,
        /// For which keys.
        keys: KeyAccess,
    },
    /// They may do something else now.
    Rights {
        /// What they may do.
        role: Role,
        /// For which keys.
        keys: KeyAccess,
    },
    /// They have another password; they are logged in nowhere.
    Password,
    /// They cannot log in any more.
    Disabled,
    /// They can log in again.
    Enabled,
    /// Every session of theirs was ended.
    LoggedOutEverywhere,
    /// It was removed.
    Removed,
}

/// What happened to the PIN of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PinIncident {
    /// An operator logged the token in.
    Unlocked,
    /// An operator logged the token out.
    Locked,
    /// The token rejected a PIN.
    Rejected,
    /// The token has locked its PIN.
    TokenLocked,
    /// An operator cleared what the token had rejected.
    RejectionForgotten,
}

/// What serde asks of a count that is left out where there is nothing to tell.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde wants")]
const fn is_zero(count: &u64) -> bool {
    *count == 0
}
