//! Unsigned attributes: what stands beside a signature to keep it verifiable (EN 319 122-1 clause 5.3 and annex A).

use const_oid::ObjectIdentifier;

use super::{attributes::attribute, error::CmsError, time_stamp::TimeStamp};

/// `id-aa-signatureTimeStampToken`.
const ID_AA_SIGNATURE_TIME_STAMP: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.2.14");

/// The signature-time-stamp attribute.
///
/// # Errors
/// [`CmsError::Encoding`].
pub fn signature_time_stamp(time_stamp: &TimeStamp) -> Result<Vec<u8>, CmsError> {
    attribute(ID_AA_SIGNATURE_TIME_STAMP, time_stamp.as_der())
}
