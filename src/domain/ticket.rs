//! Tickets: sessions of the ticket API, with what is to be signed and how.
//!
//! Invariant: from the moment that a job (or consent for one) is asked for, content, options and key do not change: [`Ticket::frozen`].

use serde::{Deserialize, Serialize};

use super::{
    algorithm::SignatureAlgorithm,
    audit::Sha256,
    digest::Digest,
    ids::{CallerId, JobId, TicketId},
    key::KeyChoice,
    timestamp::Timestamp,
};

/// One session of the ticket API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// Its id: the API's `ticketUuid`.
    pub id: TicketId,
    /// Who made it; to everybody else it does not exist.
    pub caller: CallerId,
    /// When a request last named it; it ends when it has been idle for too long.
    pub touched: Timestamp,
    /// How to sign.
    pub options: SignatureOptions,
    /// What to sign.
    pub content: Option<Content>,
    /// A signature that was uploaded, to be verified.
    pub signature: Option<Content>,
    /// The caller's own words for the operator; text or HTML, not trusted.
    pub metadata: Option<String>,
    /// The key chosen for this ticket.
    pub key: KeyChoice,
    /// The signature asked for last.
    pub signing: Option<TicketSigning>,
    /// When the uploaded signature was last asked to be verified: it is judged as of then.
    pub verifying: Option<Timestamp>,
    /// A time-stamp token over the content, made here or uploaded.
    pub time_stamp: Option<Vec<u8>>,
    /// Counts changes, so that two writers do not overwrite each other.
    pub version: u64,
}

impl Ticket {
    /// What it keeps of this part.
    #[must_use]
    pub const fn part(&self, part: ContentPart) -> Option<&Content> {
        match part {
            ContentPart::Document => self.content.as_ref(),
            ContentPart::Signature => self.signature.as_ref(),
        }
    }

    /// Everything that it keeps.
    pub fn contents(&self) -> impl Iterator<Item = &Content> {
        self.content.iter().chain(&self.signature)
    }

    /// Whether content, options and key may no longer be changed.
    #[must_use]
    pub const fn frozen(&self) -> bool {
        self.signing.is_some()
    }
}

/// The bytes to be signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// Where the bytes are.
    pub place: ContentPlace,
    /// How many there are.
    pub len: u64,
    /// Their SHA-256, computed while they were received.
    pub sha256: Digest,
}

impl Content {
    /// Its SHA-256 as the audit log has it.
    #[must_use]
    pub fn sha256_value(&self) -> Sha256 {
        let mut value = [0; 32];
        // INVARIANT: `sha256` is what its name says.
        value.copy_from_slice(self.sha256.as_bytes());
        value.into()
    }
}

/// What a ticket keeps bytes of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ContentPart {
    /// The document.
    Document,
    /// The signature that was uploaded.
    Signature,
}

impl ContentPart {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Document, Self::Signature];
}

/// Where a ticket's content is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ContentPlace {
    /// In the store, with the ticket.
    Stored,
    /// In a private file of this name in the spool directory.
    Spooled(String),
}

/// A signature that was asked for: what will be assembled when the job has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicketSigning {
    /// The job.
    pub job: JobId,
    /// The algorithm it signs with.
    pub algorithm: SignatureAlgorithm,
    /// The CMS signed attributes, as the DER `SET OF` that is signed.
    #[serde(with = "super::bytes")]
    pub signed_attrs: Vec<u8>,
    /// The signer's certificate in DER.
    #[serde(with = "super::bytes")]
    pub certificate: Vec<u8>,
    /// Certificates of its CAs in DER, nearest first, for embedding.
    #[serde(with = "super::bytes::list")]
    pub chain: Vec<Vec<u8>>,
    /// What was fetched for the signature after it was made; `None` until then, and where nothing is wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub augmentation: Option<Augmentation>,
}

/// What stands beside a signature in the forms that want more than a signer makes alone.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Augmentation {
    /// Unsigned attributes in DER.
    #[serde(with = "super::bytes::list")]
    pub unsigned_attrs: Vec<Vec<u8>>,
    /// Serial numbers of the time stamps among them, in hex.
    pub time_stamps: Vec<String>,
}

/// Whether the content stands inside the signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum SignatureType {
    /// The content is in `encapContentInfo`.
    Attached,
    /// The content is not in the signature.
    #[default]
    Detached,
}

/// Which CAdES form is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum CadesType {
    /// Plain CMS.
    #[default]
    Undefined,
    /// CAdES-BES.
    Bes,
    /// CAdES-T.
    T,
    /// CAdES-C.
    C,
    /// CAdES-X Long.
    XLong,
}

/// Which certificates are embedded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum EmbedCertificate {
    /// None.
    Nothing,
    /// The signer's.
    #[default]
    SignerCert,
    /// The signer's and its CA's.
    SignerAndCaCert,
    /// The signer's, and information about its CA.
    SignerCertAndCaInfo,
}

/// How a time stamp is looked at when a signature is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum TimeStampCheck {
    /// Not at all.
    #[default]
    Ignore,
    /// If it is there it must be valid.
    VerifyIfPresent,
    /// It must be there and valid.
    VerifyOrFailIfNotPresent,
}

/// Whether the uploaded data is a document or already a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum DataToSign {
    /// A document.
    #[default]
    NotSignedBefore,
    /// A signature to which a signer is added.
    AlreadySigned,
}

/// Which ASiC container is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum AsicForm {
    /// No container.
    #[default]
    None,
    /// ASiC-S.
    S,
    /// ASiC-E.
    E,
}

/// Every option of a ticket, with the API's defaults.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SignatureOptions {
    /// `signatureType`.
    pub signature_type: SignatureType,
    /// `cadesType`.
    pub cades_type: CadesType,
    /// `embedCertificateType`.
    pub embed_certificate: EmbedCertificate,
    /// `embedSignatureTs`.
    pub embed_signature_ts: bool,
    /// `embedDataTs`.
    pub embed_data_ts: bool,
    /// `signatureTsVerifyOption`.
    pub signature_ts_check: TimeStampCheck,
    /// `dataTsVerifyOption`.
    pub data_ts_check: TimeStampCheck,
    /// `tsAdditionalVerifying`.
    pub ts_additional_verifying: bool,
    /// `duplicateSign`.
    pub duplicate_sign: bool,
    /// `dataToSignQualifier`.
    pub data_to_sign: DataToSign,
    /// `caId`.
    pub ca_id: Option<String>,
    /// `asicForm`.
    pub asic_form: AsicForm,
}
