//! CMS signatures (RFC 5652), CAdES (EN 319 122-1) and time stamps (RFC 3161): bytes in, bytes out.
//!
//! Two steps with the key in between, wherever it is: [`signed_attributes`] says what is to be signed, [`SignedData`] puts the finished
//! signature together; [`verify`] judges those that others made. Used by the services that offer signatures; knows only the domain.
//! Invariants: (1) certificates go in and are hashed byte for byte as they were given, never as a parser writes them again;
//! (2) the bytes that are signed are the bytes that are embedded; (3) whatever is parsed has a length limit that is checked first.

mod algorithm;
pub mod armor;
pub mod asic;
mod attributes;
mod carried;
mod certificate;
mod error;
mod reworked;
mod signed_data;
pub mod time_stamp;
mod tlv;
pub mod unsigned;
pub mod verify;

pub use const_oid::db::rfc5911::ID_DATA;

pub use crate::domain::hash::{Hasher, digest};
pub use attributes::{AttributeSpec, SignedAttributes, signed_attributes};
pub use carried::{attached_content, certificates_of};
pub use certificate::CERTIFICATE_MAX;
pub use error::CmsError;
pub use reworked::Reworked;
pub use signed_data::{AttachedFrame, CERTIFICATES_MAX, CONTENT_MAX, SignedData, embedded_certificates};
