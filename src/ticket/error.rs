//! What can go wrong with a ticket, in domain terms.

use crate::{
    cms::{CmsError, armor::ArmorError},
    domain::{
        job::FailureCause,
        ticket::{AsicForm, CadesType, EmbedCertificate},
    },
    signing::service::{Denied, SubmitError},
    store::{Conflict, StoreError},
};

use super::{cosign::ExistingError, level::LevelError, modifying::ModifyError};

/// Why a ticket could not do as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// There is no such ticket, or it is another caller's: the two look the same.
    #[error("there is no such ticket")]
    Missing,
    /// The caller has as many tickets as it may.
    #[error("a caller may have {limit} tickets at a time")]
    TooMany {
        /// The most it may have.
        limit: usize,
    },
    /// A job was asked for, so content, options and key do not change any more.
    #[error("a signature was asked for, so the ticket cannot be changed any more")]
    Frozen,
    /// The content is too long.
    #[error("an upload may have {limit} bytes")]
    TooLarge {
        /// The most it may have, in bytes.
        limit: u64,
    },
    /// All tickets together hold as much content as they may.
    #[error("there is no room for more content now")]
    SpoolFull,
    /// The spool directory cannot be written or read.
    #[error("content cannot be kept or read back")]
    SpoolUnavailable,
    /// Several data objects where there can be one.
    #[error("several data objects are signed in an ASiC-E container only")]
    SeveralObjects,
    /// Two data objects of one name.
    #[error("two data objects are called {0}")]
    SameName(String),
    /// More data objects than are taken.
    #[error("more than {max} data objects")]
    TooManyObjects {
        /// The most there may be.
        max: usize,
    },
    /// Nothing was uploaded.
    #[error("nothing was uploaded to be signed")]
    NoContent,
    /// No signature was uploaded.
    #[error("no signature was uploaded to be verified")]
    NoSignature,
    /// The signature was not asked to be verified.
    #[error("the signature was not asked to be verified")]
    NotVerified,
    /// The content is not in the signature.
    #[error("the content is not in the signature")]
    Detached,
    /// What was uploaded as a signature is no such.
    #[error("{0}")]
    NoSuchSignature(String),
    /// What was uploaded looks like PEM or Base64 and is not.
    #[error("the signature is neither DER nor whole PEM or Base64")]
    Armor,
    /// Too many signatures are being verified.
    #[error("too many signatures are being verified")]
    VerifierBusy,
    /// No signature was asked for.
    #[error("no signature was asked for")]
    NotRequested,
    /// An option asks for what is not made yet.
    #[error("{0}")]
    Unsupported(#[from] UnsupportedOption),
    /// The client chose a token that has not been seen.
    #[error("no token that is plugged in matches the URI that was chosen")]
    UnknownToken,
    /// The key has no certificate, and CMS names the signer by it.
    #[error("the key has no certificate")]
    NoCertificate,
    /// The key's certificate is for time stamps, and this is a document.
    #[error("the key's certificate is for time stamps alone")]
    TimeStampsAlone,
    /// The key is not usable.
    #[error("{0}")]
    Denied(#[from] Denied),
    /// The job was not accepted.
    #[error("{0}")]
    Submit(SubmitError),
    /// The job ended without a signature.
    #[error("not signed: {detail}")]
    NotSigned {
        /// Why.
        cause: FailureCause,
        /// Detail for the client.
        detail: String,
    },
    /// No time stamp over the content was had, so nothing was signed.
    #[error("not signed: {0}")]
    ContentTimeStamp(LevelError),
    /// The signature was made; what its form wants beside it was not had.
    #[error("signed, but not completed: {0}")]
    Level(#[from] LevelError),
    /// A signature that is there already is not taken.
    #[error("{0}")]
    Existing(#[from] ExistingError),
    /// A signature is not changed as was asked.
    #[error("{0}")]
    Modify(#[from] ModifyError),
    /// The signatures of a bulk were not all made.
    #[error("{0}")]
    Bulk(#[from] BulkError),
    /// The signature could not be prepared or put together.
    #[error("{0}")]
    Cms(#[from] CmsError),
    /// The idempotency key was used for another request.
    #[error("this idempotency key was used for another request")]
    KeyReused,
    /// Others changed the ticket again and again at the same time.
    #[error("the ticket is being changed by other requests")]
    Overtaken,
    /// The store was not reached.
    #[error("the store is not available")]
    StoreUnavailable,
}

/// An option whose value this gateway cannot serve yet, or that does not go with another.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnsupportedOption {
    /// A form that wants a time stamp, where nobody makes any.
    #[error("signatures of the form {0:?} need a time-stamping authority")]
    CadesType(CadesType),
    /// A signature time stamp.
    #[error("signature time stamps need a time-stamping authority")]
    SignatureTs,
    /// A content time stamp.
    #[error("content time stamps need a time-stamping authority")]
    DataTs,
    /// A choice of certificates that cannot be embedded.
    #[error("certificates cannot be embedded as {0:?}")]
    EmbedCertificate(EmbedCertificate),
    /// A CAdES form without any certificate.
    #[error("a CAdES signature carries its signer's certificate")]
    CadesWithoutCertificate,
    /// A CA that is not known here.
    #[error("this CA is not known")]
    UnknownAuthority {
        /// The ids of those that are, as far as they are told.
        known: Vec<String>,
    },
    /// Evidence by a CA that the key's certificate does not come from.
    #[error("the key's certificate does not come from this CA")]
    ForeignAuthority,
    /// An ASiC container round an attached signature, or round one that is there already.
    #[error("a container has its document beside a detached signature")]
    AsicForm(AsicForm),
}

/// Why a bulk of signatures was not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BulkError {
    /// No hash, or too many.
    #[error("a bulk has 1 to {max} hashes")]
    Count {
        /// The most there may be.
        max: usize,
    },
    /// The content would have to stand inside signatures of hashes.
    #[error("signatures of hashes are detached")]
    Attached,
    /// Hashes beside whose signatures there is none.
    #[error("signatures of hashes are the first of their documents")]
    AlreadySigned,
    /// A hash whose length is that of no hash function, or of none that goes with the key.
    #[error("no hash function of this key makes {len} bytes")]
    HashLength {
        /// Its length in bytes.
        len: usize,
    },
    /// Not all were made in time; what was not begun was taken back.
    #[error("the signatures were not made in time")]
    TimedOut,
}

impl From<ArmorError> for TicketError {
    fn from(_: ArmorError) -> Self {
        Self::Armor
    }
}

impl From<StoreError> for TicketError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict(Conflict::TicketGone) => Self::Missing,
            StoreError::Conflict(Conflict::TooManyTickets { limit }) => Self::TooMany { limit },
            StoreError::Conflict(_) => Self::Overtaken,
            StoreError::Unavailable(reason) => {
                tracing::error!(error = %reason, "the store is not available");
                Self::StoreUnavailable
            }
        }
    }
}

impl From<SubmitError> for TicketError {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::Denied(denied) => Self::Denied(denied),
            SubmitError::Overtaken => Self::Overtaken,
            SubmitError::StoreUnavailable => Self::StoreUnavailable,
            other => Self::Submit(other),
        }
    }
}
