//! The rules of RFC 5280 section 6.1, as the library has them, with our signatures and our words.
//!
//! The only user of `certval`.

use std::sync::{Arc, Mutex, PoisonError};

use certval::{
    CertificationPath, CertificationPathResults, CertificationPathSettings, Error, ObjectIdentifierSet, PDVCertificate,
    PDVTrustAnchorChoice, PathValidationStatus, PkiEnvironment, TimeOfInterest, enforce_trust_anchor_constraints, validate_path_rfc5280,
};
use der::{Encode, asn1::BitString, referenced::OwnedToRef};
use spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};

use super::{PathError, PathFault, PathRequest, fault_of};
use crate::{
    domain::{algorithm_identifier::NamedAlgorithm, timestamp::Timestamp, verify::VerifyError},
    pki::certificate::Certificate,
};

/// Why a signature could not be verified at all, where that is the reason.
type Unverifiable = Arc<Mutex<Option<String>>>;

/// Applies the rules to one path: leaf first, anchor last.
pub(super) fn check(request: &PathRequest<'_>, path: &[&Certificate]) -> Result<(), PathError> {
    let (Some(anchor), below) = (path.last(), &path[..path.len().saturating_sub(1)]) else { return Ok(()) };
    // A leaf that is an anchor itself is trusted as it is, while it lasts.
    let Some((leaf, between)) = below.split_first() else { return in_time(anchor, request.at) };
    let settings = settings(request).map_err(|error| fault_at(request, path, &error, None))?;
    let trusted =
        PDVTrustAnchorChoice::try_from(anchor.as_der()).map_err(|_| fault_of(anchor, PathFault::Malformed("it cannot be an anchor")))?;
    let settings = enforce_trust_anchor_constraints(&settings, &trusted).map_err(|error| anchor_fault(anchor, &error))?;
    let between = between.iter().rev().map(|certificate| link(certificate)).collect::<Result<Vec<_>, _>>()?;
    let path_of_library = CertificationPath::new(trusted, between, link(leaf)?);
    let unverifiable = Unverifiable::default();
    let mut results = CertificationPathResults::new();
    validate_path_rfc5280(&environment(&unverifiable), &settings, &path_of_library, &mut results).map_err(|error| {
        let reason = unverifiable.lock().unwrap_or_else(PoisonError::into_inner).take();
        fault_at(request, path, &error, Some((results.get_failure_index(), reason)))
    })
}

fn link(certificate: &Certificate) -> Result<PDVCertificate, PathError> {
    PDVCertificate::try_from(certificate.as_der()).map_err(|_| fault_of(certificate, PathFault::Malformed("it cannot be read")))
}

fn settings(request: &PathRequest<'_>) -> Result<CertificationPathSettings, Error> {
    let mut settings = CertificationPathSettings::new();
    // Second zero would switch the check off.
    settings.set_time_of_interest(TimeOfInterest::from_unix_secs((request.at.as_millis() / 1000).max(1))?);
    settings.set_enforce_trust_anchor_constraints(true);
    settings.set_enforce_trust_anchor_validity(true);
    settings.set_require_ta_store(false);
    let policies = request.policies;
    settings.set_initial_explicit_policy_indicator(policies.explicit);
    settings.set_initial_policy_mapping_inhibit_indicator(policies.inhibit_mapping);
    settings.set_initial_inhibit_any_policy_indicator(policies.inhibit_any);
    if !policies.acceptable.is_empty() {
        settings.set_initial_policy_set_from_oid_set(policies.acceptable.iter().copied().collect::<ObjectIdentifierSet>());
    }
    Ok(settings)
}

/// What the library asks the outside for: signatures, and nothing else.
fn environment(unverifiable: &Unverifiable) -> PkiEnvironment {
    let mut environment = PkiEnvironment::new();
    let unverifiable = Arc::clone(unverifiable);
    let verify = move |_: &PkiEnvironment,
                       message: &[u8],
                       signature: &BitString,
                       algorithm: &AlgorithmIdentifierOwned,
                       key: &SubjectPublicKeyInfoOwned| {
        verify_signature(message, signature, algorithm, key).map_err(|reason| {
            *unverifiable.lock().unwrap_or_else(PoisonError::into_inner) = reason;
            Error::PathValidation(PathValidationStatus::SignatureVerificationFailure)
        })
    };
    environment.add_verify_signature_message_callback(verify);
    environment
}

/// Verifies a signature; the error says why it cannot be, or nothing if it is wrong.
fn verify_signature(
    message: &[u8],
    signature: &BitString,
    algorithm: &AlgorithmIdentifierOwned,
    key: &SubjectPublicKeyInfoOwned,
) -> Result<(), Option<String>> {
    let named = NamedAlgorithm::read(&algorithm.owned_to_ref(), None).map_err(|unknown| Some(unknown.to_string()))?;
    let key = key.to_der().map_err(|_| None)?;
    let signature = signature.as_bytes().ok_or(None)?;
    named.verify_message(&key, message, signature).map_err(|error| match error {
        VerifyError::Wrong => None,
        cannot => Some(cannot.to_string()),
    })
}

/// The rule that was broken, and by which certificate.
fn fault_at(request: &PathRequest<'_>, path: &[&Certificate], error: &Error, found: Option<(Option<u32>, Option<String>)>) -> PathError {
    let (index, unverifiable) = found.unwrap_or_default();
    // The library counts from the anchor downwards.
    let certificate = index.and_then(|index| path.iter().rev().nth(index as usize)).copied().unwrap_or(request.leaf);
    fault_of(certificate, fault(certificate, error, unverifiable))
}

fn fault(certificate: &Certificate, error: &Error, unverifiable: Option<String>) -> PathFault {
    let Error::PathValidation(status) = error else { return PathFault::Malformed("it cannot be read as RFC 5280 says") };
    match (status, unverifiable) {
        (PathValidationStatus::SignatureVerificationFailure, Some(reason)) => PathFault::UnsupportedAlgorithm(reason),
        (PathValidationStatus::SignatureVerificationFailure, None) => PathFault::BadSignature,
        (PathValidationStatus::InvalidNotBeforeDate, _) => PathFault::NotYetValid { from: certificate.not_before().to_rfc3339() },
        (PathValidationStatus::InvalidNotAfterDate, _) => PathFault::Expired { since: certificate.not_after().to_rfc3339() },
        (PathValidationStatus::MissingBasicConstraints | PathValidationStatus::InvalidBasicConstraints, _) => PathFault::NotCa,
        (PathValidationStatus::InvalidPathLength, _) => PathFault::PathLength,
        (PathValidationStatus::NameChainingFailure, _) => PathFault::NameChaining,
        (PathValidationStatus::NameConstraintsViolation, _) => PathFault::NameConstraints,
        (PathValidationStatus::InvalidKeyUsage, _) => PathFault::KeyUsage("signatures of certificates"),
        (PathValidationStatus::NullPolicySet | PathValidationStatus::InvalidPolicyMapping, _) => PathFault::Policy,
        (PathValidationStatus::UnprocessedCriticalExtension, _) => PathFault::UnknownCriticalExtension(critical_extensions(certificate)),
        (PathValidationStatus::ProcessingLimitExceeded, _) => PathFault::TooComplex,
        (PathValidationStatus::EncodingError, _) => PathFault::Malformed("an extension, or its two algorithm identifiers, are wrong"),
        _ => PathFault::Malformed("it is not as RFC 5280 says"),
    }
}

/// The object identifiers of the critical extensions that no rule is about.
fn critical_extensions(certificate: &Certificate) -> String {
    let known = certval::EXTS_OF_INTEREST;
    let unknown: Vec<_> = certificate.critical_extensions().filter(|oid| !known.contains(oid)).map(|oid| oid.to_string()).collect();
    if unknown.is_empty() { "one that stands twice, or in a place where it has no meaning".to_owned() } else { unknown.join(", ") }
}

fn anchor_fault(anchor: &Certificate, error: &Error) -> PathError {
    match error {
        // The library has no better word for this.
        Error::Unrecognized => fault_of(anchor, PathFault::UnknownCriticalExtension(critical_extensions(anchor))),
        error => fault_of(anchor, fault(anchor, error, None)),
    }
}

fn in_time(certificate: &Certificate, at: Timestamp) -> Result<(), PathError> {
    let fault = if certificate.valid_at(at) {
        return Ok(());
    } else if at < certificate.not_before() {
        PathFault::NotYetValid { from: certificate.not_before().to_rfc3339() }
    } else {
        PathFault::Expired { since: certificate.not_after().to_rfc3339() }
    };
    Err(fault_of(certificate, fault))
}
