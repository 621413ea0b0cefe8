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
    /// What the uploaded signature was last asked to be changed into.
    pub modifying: Option<Box<TicketModification>>,
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

    /// Whether the uploaded signature may no longer be changed: a signer was added to it.
    #[must_use]
    pub fn signature_frozen(&self) -> bool {
        let beside = self.signing.as_ref().and_then(|signing| signing.beside.as_ref());
        beside.is_some_and(|beside| beside.part == ContentPart::Signature)
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
    /// The data objects that they are, one behind the other; none where they came without a form to say so, as one object without a name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub objects: Vec<DataObject>,
}

/// One of the data objects of a content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataObject {
    /// What it is called in a container.
    pub name: String,
    /// Its media type, as its sender says.
    pub media_type: String,
    /// How many bytes it has.
    pub len: u64,
    /// Their SHA-256.
    pub sha256: Digest,
}

/// What a data object is called that came without a name.
pub const DOCUMENT_NAME: &str = "document";
/// The media type of a data object of which nothing is said.
pub const UNKNOWN_MEDIA_TYPE: &str = "application/octet-stream";
/// The longest name of a data object, in bytes.
const OBJECT_NAME_MAX: usize = 255;
/// The longest media type, in bytes.
const MEDIA_TYPE_MAX: usize = 127;

impl DataObject {
    /// What a file of this name is called: the name without the folders before it. `None` if nothing is left that a container may hold.
    #[must_use]
    pub fn name_of(file: &str) -> Option<&str> {
        let name = file.rsplit(['/', '\\']).next()?.trim();
        // The names that mean something in a container are not for objects.
        let reserved = ["", ".", "..", "mimetype", "meta-inf"].iter().any(|reserved| name.eq_ignore_ascii_case(reserved));
        (!reserved && name.len() <= OBJECT_NAME_MAX && !name.chars().any(char::is_control)).then_some(name)
    }

    /// The media type that this says, if it is the plain form of one.
    #[must_use]
    pub fn media_type_of(text: &str) -> Option<&str> {
        let is_token =
            |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte));
        let (kind, rest) = text.split_once('/')?;
        (text.len() <= MEDIA_TYPE_MAX && is_token(kind) && is_token(rest)).then_some(text)
    }
}

impl Content {
    /// Its data objects; one, where nothing was said.
    #[must_use]
    pub fn data_objects(&self) -> Vec<DataObject> {
        if !self.objects.is_empty() {
            return self.objects.clone();
        }
        let (name, media_type) = (DOCUMENT_NAME.to_owned(), UNKNOWN_MEDIA_TYPE.to_owned());
        vec![DataObject { name, media_type, len: self.len, sha256: self.sha256.clone() }]
    }

    /// Whether it is several data objects.
    #[must_use]
    pub fn is_several(&self) -> bool {
        self.objects.len() > 1
    }

    /// Its SHA-256 as the audit log has it.
    #[must_use]
    pub fn sha256_value(&self) -> Sha256 {
        Sha256::of_digest(&self.sha256)
    }
}

/// What a ticket keeps bytes of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
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
    /// The signature that this one stands beside; `None` where it is the first of its document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beside: Option<Box<Beside>>,
}

/// An existing signature that a signer is added to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beside {
    /// What was uploaded as the signature.
    pub part: ContentPart,
    /// Whether the document is in the signature.
    pub attached: bool,
    /// The document's SHA-256.
    pub sha256: Sha256,
    /// Its length in bytes.
    pub len: u64,
}

/// A change of an uploaded signature that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicketModification {
    /// When.
    pub asked: Timestamp,
    /// Where the content is to be; `None` for where it is.
    pub signature_type: Option<SignatureType>,
    /// The form that every signer is to have at least; [`CadesType::Undefined`] for the one it has.
    pub cades_type: CadesType,
    /// Every signer is to have a signature time stamp, whatever its form.
    pub signature_ts: bool,
    /// What every signer gets for that, in their order; `None` until it was had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub added: Option<Vec<Augmentation>>,
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

impl CadesType {
    /// Whether a signature of this form has all that another one wants.
    #[must_use]
    pub const fn reaches(self, other: Self) -> bool {
        const fn height(form: CadesType) -> u8 {
            match form {
                CadesType::Undefined => 0,
                CadesType::Bes => 1,
                CadesType::T => 2,
                CadesType::C => 3,
                CadesType::XLong => 4,
            }
        }
        height(self) >= height(other)
    }
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
    /// Whether the caller has set `signatureType`, and does not just have its default.
    #[serde(default)]
    pub signature_type_set: bool,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_object_keeps_the_name_of_its_file_without_the_way_to_it() {
        for (file, name) in
            [("a.txt", "a.txt"), ("/home/x/a b.txt", "a b.txt"), (r"C:\x\акт.pdf", "акт.pdf"), ("../../etc/passwd", "passwd"), (" a ", "a")]
        {
            assert_eq!(DataObject::name_of(file), Some(name), "{file}");
        }
        let long = "a".repeat(256);
        for bad in ["", "/", "..", "x/.", "mimetype", "META-INF", "a\0b", "a\nb", long.as_str()] {
            assert_eq!(DataObject::name_of(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_media_type_is_a_plain_one_or_none() {
        assert_eq!(DataObject::media_type_of("application/vnd.ms-excel"), Some("application/vnd.ms-excel"));
        for bad in ["", "text", "text/", "/x", "a/b\"c", "a/b c", "text/plain; charset=utf-8"] {
            assert_eq!(DataObject::media_type_of(bad), None, "{bad}");
        }
    }
}
