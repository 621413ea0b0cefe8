//! Unsigned attributes: what stands beside a signature to keep it verifiable (EN 319 122-1 clause 5.3 and annex A, RFC 5126 section 6).
//!
//! Invariants: a reference is the SHA-256 of the very bytes that the value attributes carry; references to evidence stand in the order of the
//! certificates that they are about, as RFC 5126 section 6.2.2 wants it.

use const_oid::ObjectIdentifier;

use super::{
    algorithm::digest_algorithm,
    attributes::{attribute, issuer_serial},
    digest,
    error::CmsError,
    time_stamp::TimeStamp,
    tlv::{OCTET_STRING, SEQUENCE, context, wrap},
};
use crate::domain::{algorithm::HashAlgorithm, ticket::CadesType};

/// `id-aa-signatureTimeStampToken`.
pub(super) const ID_AA_SIGNATURE_TIME_STAMP: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.2.14");
/// `id-aa-ets-certificateRefs`.
const ID_AA_ETS_CERTIFICATE_REFS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.2.21");
/// `id-aa-ets-revocationRefs`.
const ID_AA_ETS_REVOCATION_REFS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.2.22");
/// `id-aa-ets-certValues`.
const ID_AA_ETS_CERT_VALUES: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.2.23");
/// `id-aa-ets-revocationValues`.
const ID_AA_ETS_REVOCATION_VALUES: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.2.24");

/// Attributes that are about the ones above: the time stamps of the forms X (EN 319 122-1 clause A.1.5) and archive time stamps (clause 5.5).
pub(super) const FORMS_DEPENDENTS: [ObjectIdentifier; 5] = [
    ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.2.25"),
    ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.2.26"),
    ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.2.27"),
    ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.2.48"),
    ObjectIdentifier::new_unwrap("0.4.0.1733.2.4"),
];

/// Evidence that one certificate of a path was good, with what a reference says about it; every field is DER.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathEvidence {
    /// None: the certificate is the one that is trusted.
    Trusted,
    /// A CRL.
    Crl {
        /// `CertificateList`.
        list: Vec<u8>,
        /// The issuer's `Name`.
        issuer: Vec<u8>,
        /// `thisUpdate`.
        this_update: Vec<u8>,
        /// The CRL's number, an `INTEGER`.
        number: Option<Vec<u8>>,
    },
    /// An OCSP answer.
    Ocsp {
        /// `BasicOCSPResponse`.
        basic: Vec<u8>,
        /// `ResponderID`.
        responder_id: Vec<u8>,
        /// `producedAt`.
        produced_at: Vec<u8>,
    },
}

/// A signer's path and the evidence about it: what the forms C and X Long are made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathMaterial {
    /// The signer's certificate in DER.
    pub signer: Vec<u8>,
    /// The CAs above it in DER, nearest first, the trusted one last.
    pub authorities: Vec<Vec<u8>>,
    /// Evidence about the signer's certificate, then about each of `authorities`, in their order.
    pub evidence: Vec<PathEvidence>,
}

/// The signature-time-stamp attribute.
///
/// # Errors
/// [`CmsError::Encoding`].
pub fn signature_time_stamp(time_stamp: &TimeStamp) -> Result<Vec<u8>, CmsError> {
    attribute(ID_AA_SIGNATURE_TIME_STAMP, time_stamp.as_der())
}

/// The form of a signer with these unsigned attributes: [`CadesType::Bes`] where there are none of the forms above it.
pub(super) fn form_of(has: impl Fn(ObjectIdentifier) -> bool) -> CadesType {
    let references = has(ID_AA_ETS_CERTIFICATE_REFS) && has(ID_AA_ETS_REVOCATION_REFS);
    let values = has(ID_AA_ETS_CERT_VALUES) && has(ID_AA_ETS_REVOCATION_VALUES);
    match (has(ID_AA_SIGNATURE_TIME_STAMP), references, values) {
        (true, true, true) => CadesType::XLong,
        (true, true, false) => CadesType::C,
        (true, false, _) => CadesType::T,
        (false, ..) => CadesType::Bes,
    }
}

impl PathMaterial {
    /// The attributes of a form beside its time stamp: references for C, references and values for X Long, nothing for the others.
    ///
    /// # Errors
    /// [`CmsError::Certificate`], [`CmsError::Encoding`].
    pub fn attributes(&self, form: CadesType) -> Result<Vec<Vec<u8>>, CmsError> {
        let references = || Ok::<_, CmsError>(vec![self.certificate_references()?, self.revocation_references()?]);
        match form {
            CadesType::Undefined | CadesType::Bes | CadesType::T => Ok(Vec::new()),
            CadesType::C => references(),
            CadesType::XLong => Ok([references()?, vec![self.certificate_values()?, self.revocation_values()?]].concat()),
        }
    }

    /// `CompleteCertificateRefs`: every CA of the path, not the signer, whom signing-certificate names.
    fn certificate_references(&self) -> Result<Vec<u8>, CmsError> {
        let reference = |certificate: &Vec<u8>| Ok(wrap(SEQUENCE, &[&other_hash(certificate)?, &issuer_serial(certificate)?]));
        let references = self.authorities.iter().map(reference).collect::<Result<Vec<_>, CmsError>>()?;
        attribute(ID_AA_ETS_CERTIFICATE_REFS, &wrap(SEQUENCE, &[&references.concat()]))
    }

    /// `CompleteRevocationRefs`: a `CrlOcspRef` for the signer and for each CA; empty for the trusted one.
    fn revocation_references(&self) -> Result<Vec<u8>, CmsError> {
        let references = self.evidence.iter().map(crl_ocsp_ref).collect::<Result<Vec<_>, CmsError>>()?;
        attribute(ID_AA_ETS_REVOCATION_REFS, &wrap(SEQUENCE, &[&references.concat()]))
    }

    /// `CertificateValues`: the signer's and all that are referred to.
    fn certificate_values(&self) -> Result<Vec<u8>, CmsError> {
        attribute(ID_AA_ETS_CERT_VALUES, &wrap(SEQUENCE, &[&self.signer, &self.authorities.concat()]))
    }

    /// `RevocationValues`: what is referred to, each once.
    fn revocation_values(&self) -> Result<Vec<u8>, CmsError> {
        let mut lists: Vec<&[u8]> = Vec::new();
        let mut answers: Vec<&[u8]> = Vec::new();
        for evidence in &self.evidence {
            let (values, value) = match evidence {
                PathEvidence::Trusted => continue,
                PathEvidence::Crl { list, .. } => (&mut lists, list),
                PathEvidence::Ocsp { basic, .. } => (&mut answers, basic),
            };
            if !values.contains(&value.as_slice()) {
                values.push(value);
            }
        }
        let values = |number, values: &[&[u8]]| match values {
            [] => Vec::new(),
            values => wrap(context(number), &[&wrap(SEQUENCE, values)]),
        };
        attribute(ID_AA_ETS_REVOCATION_VALUES, &wrap(SEQUENCE, &[&values(0, &lists), &values(1, &answers)]))
    }
}

fn crl_ocsp_ref(evidence: &PathEvidence) -> Result<Vec<u8>, CmsError> {
    // crlids [0] and ocspids [1] are EXPLICIT; each list has one member here.
    let listed = |number, reference: &[u8]| wrap(context(number), &[&wrap(SEQUENCE, &[&wrap(SEQUENCE, &[reference])])]);
    Ok(match evidence {
        PathEvidence::Trusted => wrap(SEQUENCE, &[]),
        PathEvidence::Crl { list, issuer, this_update, number } => {
            let identifier = wrap(SEQUENCE, &[issuer, this_update, number.as_deref().unwrap_or_default()]);
            wrap(SEQUENCE, &[&listed(0, &wrap(SEQUENCE, &[&other_hash(list)?, &identifier]))])
        }
        PathEvidence::Ocsp { basic, responder_id, produced_at } => {
            let identifier = wrap(SEQUENCE, &[responder_id, produced_at]);
            wrap(SEQUENCE, &[&listed(1, &wrap(SEQUENCE, &[&identifier, &other_hash(basic)?]))])
        }
    })
}

/// `OtherHash` with SHA-256: the choice `sha1Hash` is the only shorter one.
fn other_hash(value: &[u8]) -> Result<Vec<u8>, CmsError> {
    let hash = digest(HashAlgorithm::Sha256, value);
    Ok(wrap(SEQUENCE, &[&digest_algorithm(HashAlgorithm::Sha256)?, &wrap(OCTET_STRING, &[hash.as_bytes()])]))
}
