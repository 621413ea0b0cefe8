//! Certificate revocation lists (RFC 5280 sections 5 and 6.3), judged for one certificate.
//!
//! Invariants: a list counts only for the certificates and the reasons that it covers, and only with a signature that was verified; a list
//! with a critical extension that is not known, of its own or of an entry, counts for nothing. Delta lists are not used.

use certval::compare_names;
use const_oid::{
    ObjectIdentifier,
    db::rfc5280::{
        ID_CE_AUTHORITY_KEY_IDENTIFIER, ID_CE_CERTIFICATE_ISSUER, ID_CE_CRL_NUMBER, ID_CE_CRL_REASONS, ID_CE_FRESHEST_CRL,
        ID_CE_INVALIDITY_DATE, ID_CE_ISSUING_DISTRIBUTION_POINT,
    },
};
use der::{
    Decode, Encode, Reader, SliceReader,
    asn1::{GeneralizedTime, ObjectIdentifier as Oid},
};
use x509_cert::{
    Certificate,
    crl::{CertificateList, RevokedCert},
    ext::{
        Extension,
        pkix::{
            CrlDistributionPoints, CrlReason,
            crl::dp::{DistributionPoint, IssuingDistributionPoint, ReasonFlags, Reasons},
            name::{DistributionPointName, GeneralName, GeneralNames},
        },
    },
    name::{Name, RdnSequence},
};

use super::{CLOCK_SKEW, Moment, RevocationError, RevocationReason, Revoked, Subject, time_of, verify_signed};
use crate::{domain::timestamp::Timestamp, pki};

/// Extensions of a CRL that are understood when they are critical.
const KNOWN: [ObjectIdentifier; 4] =
    [ID_CE_AUTHORITY_KEY_IDENTIFIER, ID_CE_CRL_NUMBER, ID_CE_FRESHEST_CRL, ID_CE_ISSUING_DISTRIBUTION_POINT];
/// Extensions of an entry that are understood when they are critical.
const KNOWN_OF_ENTRIES: [ObjectIdentifier; 3] = [ID_CE_CRL_REASONS, ID_CE_INVALIDITY_DATE, ID_CE_CERTIFICATE_ISSUER];
/// `id-ce-expiredCertsOnCRL` (X.509 clause 9.5.2.8): the list goes on naming certificates that expired after this date.
const EXPIRED_CERTS_ON_CRL: Oid = Oid::new_unwrap("2.5.29.60");

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

/// A list that was read, and of which nothing is believed yet.
pub(super) struct Crl {
    der: Vec<u8>,
    list: CertificateList,
    point: Option<IssuingDistributionPoint>,
}

/// What a list says about a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Listing {
    /// It does not stand there: it was not revoked for any of these reasons.
    Absent(ReasonFlags),
    /// It was revoked.
    Revoked(Revoked),
    /// It was revoked after the moment in question.
    RevokedLater,
}

/// Checks that a list is its issuer's, is valid at the moment, covers certificates like this one for all reasons, and does not have it.
///
/// # Errors
/// [`RevocationError`]; [`RevocationError::Revoked`] if the list has the certificate.
pub fn check(der: &[u8], subject: &Subject<'_>, moment: Moment) -> Result<CheckedCrl, RevocationError> {
    let crl = Crl::read(der)?;
    crl.is_about(subject)?;
    crl.verify(subject.issuer)?;
    match crl.listing(subject, moment)? {
        Listing::Revoked(revoked) => Err(RevocationError::Revoked(revoked)),
        Listing::Absent(reasons) if reasons != every_reason() => Err(bad("it does not cover all reasons")),
        Listing::Absent(_) | Listing::RevokedLater => crl.into_checked(),
    }
}

/// Every reason that a list can be for.
pub(super) fn every_reason() -> ReasonFlags {
    let every = ReasonFlags::full();
    every - Reasons::Unused
}

impl Crl {
    /// Reads a list, and refuses one that is not understood.
    pub(super) fn read(der: &[u8]) -> Result<Self, RevocationError> {
        let list = CertificateList::from_der(der).map_err(|error| RevocationError::Crl(format!("it cannot be read: {error}")))?;
        let extensions = list.tbs_cert_list.crl_extensions.as_deref().unwrap_or_default();
        refuse_unknown(extensions, &KNOWN, "it")?;
        for entry in list.tbs_cert_list.revoked_certificates.iter().flatten() {
            refuse_unknown(entry.crl_entry_extensions.as_deref().unwrap_or_default(), &KNOWN_OF_ENTRIES, "an entry")?;
        }
        if list.tbs_cert_list.signature != list.signature_algorithm {
            return Err(bad("its two signature algorithms differ"));
        }
        let point = extensions.iter().find(|extension| extension.extn_id == ID_CE_ISSUING_DISTRIBUTION_POINT);
        let point = point.map(|point| IssuingDistributionPoint::from_der(point.extn_value.as_bytes())).transpose();
        let point = point.map_err(|_| bad("its issuing distribution point cannot be read"))?;
        Ok(Self { der: der.to_vec(), list, point })
    }

    /// The name of its issuer.
    pub(super) const fn issuer(&self) -> &Name {
        &self.list.tbs_cert_list.issuer
    }

    /// Whether it may be asked about the certificate at all: it is of its issuer, or of one that the certificate names for this.
    pub(super) fn is_about(&self, subject: &Subject<'_>) -> Result<(), RevocationError> {
        let own = compare_names(self.issuer(), subject.certificate.tbs_certificate().issuer());
        if own || points_of(subject.certificate).iter().any(|point| self.is_named_by(point)) {
            return Ok(());
        }
        Err(bad("it is of another issuer"))
    }

    /// Whether a certificate's distribution point names its issuer as another than the certificate's.
    fn is_named_by(&self, point: &DistributionPoint) -> bool {
        let names = point.crl_issuer.iter().flatten();
        names.into_iter().any(|name| matches!(name, GeneralName::DirectoryName(name) if compare_names(name, self.issuer())))
    }

    /// Verifies its signature with the key of `signer`, whose key must be for CRLs.
    pub(super) fn verify(&self, signer: &Certificate) -> Result<(), RevocationError> {
        let signer_is = pki::Certificate::from_der(&signer.to_der()?).map_err(|error| bad(&error.to_string()))?;
        pki::path::Purpose::CrlSigning
            .check(&signer_is)
            .map_err(|fault| RevocationError::Crl(format!("its issuer's certificate: {fault}")))?;
        verify_signed(signer, &self.list.signature_algorithm, self.signed()?, &self.list.signature)
            .map_err(|what| RevocationError::Crl(format!("its signature: {what}")))
    }

    /// `tbsCertList` as it came.
    fn signed(&self) -> Result<&[u8], RevocationError> {
        let read = || -> der::Result<&[u8]> {
            let mut outer = SliceReader::new(&self.der)?;
            outer.sequence(|list: &mut SliceReader<'_>| {
                let signed = list.tlv_bytes()?;
                list.drain(list.remaining_len())?;
                Ok(signed)
            })
        };
        Ok(read()?)
    }

    /// What it says about a certificate at a moment; its signature is not looked at here.
    pub(super) fn listing(&self, subject: &Subject<'_>, moment: Moment) -> Result<Listing, RevocationError> {
        let tbs = &self.list.tbs_cert_list;
        let reasons = self.covered(subject)?;
        let this_update = time_of(tbs.this_update);
        if this_update > moment.now.after(CLOCK_SKEW) {
            return Err(bad("it is from the future; is this machine's clock right?"));
        }
        // A revocation is for good, however old the list is.
        match self.entry(subject)? {
            Some(revoked) if revoked.since <= moment.at => return Ok(Listing::Revoked(revoked)),
            Some(_) => return Ok(Listing::RevokedLater),
            None => {}
        }
        let next_update = tbs.next_update.map(time_of).ok_or_else(|| bad("it does not say when the next one comes"))?;
        if next_update.after(CLOCK_SKEW) < moment.at {
            return Err(bad("it is out of date: a newer one should be there"));
        }
        let expired = time_of(subject.certificate.tbs_certificate().validity().not_after);
        if this_update > expired && self.expired_since()?.is_none_or(|since| since > expired) {
            return Err(bad("it was made after the certificate had expired, and may not name it any more"));
        }
        Ok(Listing::Absent(reasons))
    }

    /// From when on certificates that expire stay on the list.
    fn expired_since(&self) -> Result<Option<Timestamp>, RevocationError> {
        let extensions = self.list.tbs_cert_list.crl_extensions.as_deref().unwrap_or_default();
        let found = extensions.iter().find(|extension| extension.extn_id == EXPIRED_CERTS_ON_CRL);
        let since = found.map(|found| GeneralizedTime::from_der(found.extn_value.as_bytes())).transpose();
        Ok(since?.map(|since| time_of(since.into())))
    }

    /// The entry of a certificate.
    fn entry(&self, subject: &Subject<'_>) -> Result<Option<Revoked>, RevocationError> {
        let tbs = subject.certificate.tbs_certificate();
        // Entries of an indirect list are its own issuer's until one names another (RFC 5280 section 5.3.3).
        let mut issued_by_subjects = compare_names(self.issuer(), tbs.issuer());
        for entry in self.list.tbs_cert_list.revoked_certificates.iter().flatten() {
            if let Some(names) = extension_of(entry, ID_CE_CERTIFICATE_ISSUER) {
                let names = GeneralNames::from_der(names).map_err(|_| bad("the issuer of an entry cannot be read"))?;
                issued_by_subjects =
                    names.iter().any(|name| matches!(name, GeneralName::DirectoryName(name) if compare_names(name, tbs.issuer())));
            }
            if issued_by_subjects && entry.serial_number == *tbs.serial_number() {
                return revoked(entry).map(Some);
            }
        }
        Ok(None)
    }

    /// The reasons for which it covers a certificate (RFC 5280 section 6.3.3, b and d).
    fn covered(&self, subject: &Subject<'_>) -> Result<ReasonFlags, RevocationError> {
        let points = points_of(subject.certificate);
        let own = compare_names(self.issuer(), subject.certificate.tbs_certificate().issuer());
        let Some(scope) = &self.point else {
            let reasons = reasons_of(points.iter().filter(|point| point.crl_issuer.is_none()).map(|point| point.reasons));
            return if own { Ok(reasons) } else { Err(bad("it is of another issuer, and no indirect one")) };
        };
        let wrong_kind = if subject.is_ca() { scope.only_contains_user_certs } else { scope.only_contains_ca_certs };
        if wrong_kind || scope.only_contains_attribute_certs || !(own || scope.indirect_crl) {
            return Err(bad("it does not cover this certificate"));
        }
        let covers = |point: &&DistributionPoint| {
            let for_issuer = if point.crl_issuer.is_some() { self.is_named_by(point) } else { own };
            for_issuer && self.is_at(point, scope)
        };
        let reasons = if points.is_empty() {
            // Without a point of its own the certificate means the list for all of its issuer's.
            if scope.distribution_point.is_some() || !own {
                return Err(bad("it does not cover this certificate"));
            }
            every_reason()
        } else {
            let covered: Vec<_> = points.iter().filter(covers).map(|point| point.reasons).collect();
            if covered.is_empty() {
                return Err(bad("it is not for the certificate's distribution point"));
            }
            reasons_of(covered.into_iter())
        };
        Ok(scope.only_some_reasons.map_or(reasons, |only| reasons & only))
    }

    /// Whether one of the names of its place is one of the point's.
    fn is_at(&self, point: &DistributionPoint, scope: &IssuingDistributionPoint) -> bool {
        let Some(place) = &scope.distribution_point else { return true };
        let places = self.names(place, self.issuer());
        let named = match (&point.distribution_point, &point.crl_issuer) {
            (Some(name), of_issuer) => {
                let directory = of_issuer.iter().flatten().find_map(|name| match name {
                    GeneralName::DirectoryName(name) => Some(name),
                    _ => None,
                });
                self.names(name, directory.unwrap_or_else(|| self.issuer()))
            }
            (None, Some(issuer)) => issuer.clone(),
            (None, None) => return false,
        };
        named.iter().any(|name| places.contains(name))
    }

    /// The full names of a point, one that is relative to its issuer among them.
    fn names(&self, point: &DistributionPointName, issuer: &Name) -> GeneralNames {
        match point {
            DistributionPointName::FullName(names) => names.clone(),
            DistributionPointName::NameRelativeToCRLIssuer(relative) => {
                let full = || -> der::Result<Name> {
                    let mut names = RdnSequence::from_der(&issuer.to_der()?)?;
                    names.push(relative.clone());
                    Name::from_der(&names.to_der()?)
                };
                full().map(GeneralName::DirectoryName).into_iter().collect()
            }
        }
    }

    fn into_checked(self) -> Result<CheckedCrl, RevocationError> {
        let tbs = &self.list.tbs_cert_list;
        let next_update = tbs.next_update.map(time_of).ok_or_else(|| bad("it does not say when the next one comes"))?;
        let extensions = tbs.crl_extensions.as_deref().unwrap_or_default();
        let number = extensions.iter().find(|extension| extension.extn_id == ID_CE_CRL_NUMBER);
        Ok(CheckedCrl {
            issuer: tbs.issuer.to_der()?,
            this_update: tbs.this_update.to_der()?,
            number: number.map(|extension| extension.extn_value.as_bytes().to_vec()),
            next_update,
            der: self.der,
        })
    }
}

fn bad(what: &str) -> RevocationError {
    RevocationError::Crl(what.to_owned())
}

fn refuse_unknown(extensions: &[Extension], known: &[ObjectIdentifier], who: &str) -> Result<(), RevocationError> {
    match extensions.iter().find(|extension| extension.critical && !known.contains(&extension.extn_id)) {
        None => Ok(()),
        Some(unknown) => {
            Err(RevocationError::Crl(format!("{who} has the critical extension {}, which is not known here", unknown.extn_id)))
        }
    }
}

/// Where a certificate says that its revocation is told; nothing if it does not, or not readably.
fn points_of(certificate: &Certificate) -> Vec<DistributionPoint> {
    let found = certificate.tbs_certificate().get_extension::<CrlDistributionPoints>().ok().flatten();
    found.map(|(_, points)| points.0).unwrap_or_default()
}

/// All reasons of several points together; without a point, and for one that names none, every reason.
fn reasons_of(points: impl Iterator<Item = Option<ReasonFlags>>) -> ReasonFlags {
    let all = points.map(|reasons| reasons.unwrap_or_else(every_reason)).reduce(|one, other| one | other);
    all.unwrap_or_else(every_reason) & every_reason()
}

fn extension_of(entry: &RevokedCert, oid: ObjectIdentifier) -> Option<&[u8]> {
    let extension = entry.crl_entry_extensions.iter().flatten().find(|extension| extension.extn_id == oid)?;
    Some(extension.extn_value.as_bytes())
}

/// What an entry says. A key that was lost earlier than it was revoked was lost then (RFC 5280 section 5.3.2).
fn revoked(entry: &RevokedCert) -> Result<Revoked, RevocationError> {
    let unreadable = |_| bad("an entry cannot be read");
    let since = time_of(entry.revocation_date);
    let invalid = extension_of(entry, ID_CE_INVALIDITY_DATE).map(GeneralizedTime::from_der).transpose().map_err(unreadable)?;
    let reason = extension_of(entry, ID_CE_CRL_REASONS).map(CrlReason::from_der).transpose().map_err(unreadable)?;
    Ok(Revoked {
        since: invalid.map_or(since, |invalid| since.min(time_of(invalid.into()))),
        reason: reason.and_then(|reason| RevocationReason::of_code(reason as u8)),
    })
}
