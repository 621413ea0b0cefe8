//! Certificate revocation lists (RFC 5280 section 5), checked for one certificate.

use const_oid::{
    ObjectIdentifier,
    db::rfc5280::{ID_CE_AUTHORITY_KEY_IDENTIFIER, ID_CE_CRL_NUMBER, ID_CE_FRESHEST_CRL, ID_CE_ISSUING_DISTRIBUTION_POINT},
};
use der::{Decode, Encode};
use x509_cert::{
    crl::CertificateList,
    ext::{Extension, pkix::crl::dp::IssuingDistributionPoint},
};

use super::{CLOCK_SKEW, RevocationError, Subject, time_of, verify_signed};
use crate::domain::timestamp::Timestamp;

/// Extensions of a CRL that are understood when they are critical.
const KNOWN: [ObjectIdentifier; 4] =
    [ID_CE_AUTHORITY_KEY_IDENTIFIER, ID_CE_CRL_NUMBER, ID_CE_FRESHEST_CRL, ID_CE_ISSUING_DISTRIBUTION_POINT];

/// A list that was found to be good, and not to have the certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedCrl {
    /// The list in DER, as it came.
    pub der: Vec<u8>,
    /// Its issuer's name in DER.
    pub issuer: Vec<u8>,
    /// `thisUpdate` in DER.
    pub this_update: Vec<u8>,
    /// Its number as a DER INTEGER, if it has one.
    pub number: Option<Vec<u8>>,
    /// When a newer list is there at the latest.
    pub next_update: Timestamp,
}

/// Checks that a list is its issuer's, is valid at `now`, covers certificates like this one, and does not have it.
///
/// # Errors
/// [`RevocationError`]; [`RevocationError::Revoked`] if the list has the certificate.
pub fn check(der: &[u8], subject: &Subject<'_>, now: Timestamp) -> Result<CheckedCrl, RevocationError> {
    let bad = |what: &'static str| RevocationError::Crl(what.to_owned());
    let list = CertificateList::from_der(der).map_err(|error| RevocationError::Crl(format!("it cannot be read: {error}")))?;
    let tbs = &list.tbs_cert_list;
    if tbs.issuer != *subject.issuer.tbs_certificate().subject() {
        return Err(bad("it is of another issuer"));
    }
    if tbs.signature != list.signature_algorithm {
        return Err(bad("its two signature algorithms differ"));
    }
    verify_signed(subject.issuer, &list.signature_algorithm, &tbs.to_der()?, &list.signature)
        .map_err(|what| RevocationError::Crl(format!("its signature: {what}")))?;
    let extensions = tbs.crl_extensions.as_deref().unwrap_or_default();
    check_extensions(extensions, subject)?;
    let next_update = tbs.next_update.map(time_of).ok_or_else(|| bad("it does not say when the next one comes"))?;
    if time_of(tbs.this_update) > now.after(CLOCK_SKEW) {
        return Err(bad("it is from the future; is this machine's clock right?"));
    }
    if next_update.after(CLOCK_SKEW) < now {
        return Err(bad("it is out of date: a newer one should be there"));
    }
    let serial = subject.certificate.tbs_certificate().serial_number();
    let entry = tbs.revoked_certificates.iter().flatten().find(|entry| entry.serial_number == *serial);
    if let Some(entry) = entry {
        return Err(RevocationError::Revoked { since: time_of(entry.revocation_date) });
    }
    let number = extensions.iter().find(|extension| extension.extn_id == ID_CE_CRL_NUMBER);
    Ok(CheckedCrl {
        der: der.to_vec(),
        issuer: tbs.issuer.to_der()?,
        this_update: tbs.this_update.to_der()?,
        number: number.map(|extension| extension.extn_value.as_bytes().to_vec()),
        next_update,
    })
}

/// A list for a part of the certificates, or of another's certificates, says nothing about this one.
fn check_extensions(extensions: &[Extension], subject: &Subject<'_>) -> Result<(), RevocationError> {
    if let Some(unknown) = extensions.iter().find(|extension| extension.critical && !KNOWN.contains(&extension.extn_id)) {
        return Err(RevocationError::Crl(format!("it has the critical extension {}, which is not known here", unknown.extn_id)));
    }
    let Some(point) = extensions.iter().find(|extension| extension.extn_id == ID_CE_ISSUING_DISTRIBUTION_POINT) else { return Ok(()) };
    let point = IssuingDistributionPoint::from_der(point.extn_value.as_bytes())?;
    let wrong_kind = if subject.is_ca() { point.only_contains_user_certs } else { point.only_contains_ca_certs };
    if wrong_kind || point.indirect_crl || point.only_contains_attribute_certs || point.only_some_reasons.is_some() {
        return Err(RevocationError::Crl("it does not cover this certificate".to_owned()));
    }
    Ok(())
}
