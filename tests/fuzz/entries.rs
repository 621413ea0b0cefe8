//! The parsers of what others send, each as a function from bytes to whether they were taken, and what must hold of each whatever comes.
//!
//! The fuzz targets call these, and so does `tests/parsers.rs` with the corpora, so that neither can rot unseen.

use std::{io::Cursor, path::Path, sync::LazyLock};

use sealgate::{
    audit::{chain::Anchors, verify::verify_export},
    cms::{
        armor::Armor,
        attached_content, certificates_of,
        time_stamp::{AskedTimeStamp, TimeStamp, TimeStampError, TimeStampQuery},
        verify::SignedMessage,
    },
    config::Config,
    domain::{
        algorithm::HashAlgorithm, hash::digest, key_uri::Pkcs11Uri, revocation::RevocationCheck, ticket::TimeStampCheck,
        timestamp::Timestamp,
    },
    enrolment::{ca::est::wanted_attributes, read_request},
    pki::{
        Certificate,
        csr::CertificateRequest,
        path::{PathRequest, Policies, Purpose, validate_path},
        revocation::{self, Moment, Subject, ocsp::OcspQuery},
        trust::{TrustStore, read_certificates},
    },
    verification::{Judgement, judge},
};
use x509_cert::der::Decode as _;

/// A parser: its name, which is its corpus's too, and whether it takes these bytes.
pub type Entry = (&'static str, fn(&[u8]) -> bool);

/// All of them.
pub const ENTRIES: &[Entry] = &[
    ("armor", armor),
    ("signature", signature),
    ("time_stamp_token", time_stamp_token),
    ("time_stamp_response", time_stamp_response),
    ("time_stamp_request", time_stamp_request),
    ("ocsp_response", ocsp_response),
    ("crl", crl),
    ("certificate", certificate),
    ("path", path),
    ("certificate_request", certificate_request),
    ("csr_attributes", csr_attributes),
    ("cms_content", cms_content),
    ("key_uri", key_uri),
    ("configuration", configuration),
    ("audit_export", audit_export),
];

/// The time at which certificates are judged, so that the corpora do not age: a month after they were made.
const NOW: Timestamp = Timestamp::from_millis(1_798_675_200_000);

/// What was signed.
const CONTENT: &[u8] = include_bytes!("material/content");

static ROOT: LazyLock<Certificate> = LazyLock::new(|| known(include_bytes!("material/root.der")));
static MIDDLE: LazyLock<Certificate> = LazyLock::new(|| known(include_bytes!("material/middle.der")));
static SIGNER: LazyLock<Certificate> = LazyLock::new(|| known(include_bytes!("material/signer.der")));
static TRUST: LazyLock<TrustStore> = LazyLock::new(|| {
    // The CAs of the gateways whose signatures are in the corpus.
    let (gateway, co_signers) = (known(include_bytes!("material/gateway.der")), known(include_bytes!("material/co-signers.der")));
    TrustStore::new(vec![ROOT.clone(), gateway, co_signers], vec![MIDDLE.clone()])
});

fn known(der: &[u8]) -> Certificate {
    Certificate::from_der(der).expect("a certificate of the material")
}

/// A signature in PEM, Base64 or DER, in pieces as it comes over the wire. What comes out does not depend on how it was cut.
fn armor(bytes: &[u8]) -> bool {
    let take = |piece_len: usize| {
        let (mut armor, mut bare) = (Armor::default(), Vec::new());
        bytes.chunks(piece_len).try_for_each(|piece| armor.push(piece, &mut bare))?;
        armor.finish(&mut bare).map(|()| bare)
    };
    let (whole, cut) = (take(bytes.len().max(1)), take(7));
    assert_eq!(whole, cut, "the way it was cut matters");
    whole.is_ok_and(|bare| !bare.is_empty())
}

/// A signature, attached or of [`CONTENT`]. A good one is of that content and by a certificate of the material's CAs; what was read can be put
/// together again, without its content, and is then as good or as bad as it was.
fn signature(bytes: &[u8]) -> bool {
    let Ok(mut message) = SignedMessage::read(Cursor::new(bytes)) else { return false };
    let detached = !message.is_attached();
    let judgement = Judgement {
        // The certificates name places that are not asked here.
        revocation: RevocationCheck::IfKnown,
        revocation_of_time_stamps: RevocationCheck::IfKnown,
        signature_time_stamp: TimeStampCheck::VerifyIfPresent,
        content_time_stamp: TimeStampCheck::VerifyIfPresent,
        ..Judgement::of_documents(&TRUST, NOW)
    };
    let verdict = judge(&mut message, detached.then_some(&mut &*CONTENT), &judgement);
    let Ok(verdict) = verdict else { return false };
    if let Ok(frame) = message.rework().and_then(|reworked| reworked.frame(None)) {
        let again = [frame.head, frame.tail].concat();
        let mut again = SignedMessage::read(Cursor::new(&again)).expect("what was put together is read");
        // A set has each member once.
        assert!(again.signer_count() <= message.signer_count(), "a signer came from nowhere");
        if verdict.is_good() && again.signer_count() == message.signer_count() {
            let same = judge(&mut again, Some(&mut &*CONTENT), &judgement).expect("it can be judged again");
            assert!(same.is_good(), "a good signature is not good any more");
        }
    }
    if verdict.is_good() {
        for signer in &verdict.signers {
            let signed = signer.content_digest.as_ref().expect("the digest of a good signature's content");
            assert_eq!(*signed, digest(signed.algorithm(), CONTENT), "other content is good");
        }
    }
    verdict.is_good()
}

/// A time stamp token, from a signature or from `ts/verifier`.
fn time_stamp_token(bytes: &[u8]) -> bool {
    TimeStamp::from_token(bytes).is_ok_and(|stamp| stamp.as_der() == bytes)
}

/// What a time-stamping authority answers. Its nonce is never the right one, and is looked at last.
fn time_stamp_response(bytes: &[u8]) -> bool {
    let query = TimeStampQuery::new(digest(HashAlgorithm::Sha256, CONTENT), None).expect("random numbers");
    matches!(query.accept(bytes), Err(TimeStampError::Nonce))
}

/// What is sent to our own time-stamping authority.
fn time_stamp_request(bytes: &[u8]) -> bool {
    AskedTimeStamp::from_der(bytes).is_ok()
}

/// Runs a check of revocation evidence about the material's signer.
fn about_signer(check: impl FnOnce(&Subject<'_>) -> bool) -> bool {
    let parse = |certificate: &Certificate| x509_cert::Certificate::from_der(certificate.as_der()).expect("a certificate of the material");
    let (certificate, issuer) = (parse(&SIGNER), parse(&MIDDLE));
    check(&Subject { certificate: &certificate, issuer: &issuer })
}

/// What an OCSP responder answers, or a signature carries.
fn ocsp_response(bytes: &[u8]) -> bool {
    about_signer(|subject| OcspQuery::new(subject).expect("random numbers").accept(bytes, subject, Moment::present(NOW)).is_ok())
}

/// What a CRL's address has, or a signature carries.
fn crl(bytes: &[u8]) -> bool {
    about_signer(|subject| revocation::crl::check(bytes, subject, Moment::present(NOW)).is_ok())
}

/// One certificate or a file of them, with all that is read out of it.
fn certificate(bytes: &[u8]) -> bool {
    let Ok(certificates) = read_certificates(bytes) else { return false };
    for certificate in &certificates {
        let again = Certificate::from_der(certificate.as_der()).expect("a certificate that was taken");
        assert_eq!(again.as_der(), certificate.as_der());
        let _ = sealgate::enrolment::certificate_facts(certificate.as_der());
        let _ = sealgate::domain::certificate::serial_number(certificate.as_der());
        let _ = sealgate::domain::certificate::validity(certificate.as_der());
        let _ = sealgate::pki::key_kind_of_spki(certificate.spki());
    }
    !certificates.is_empty()
}

/// A certificate and those that may stand above it. What is trusted ends at the material's root.
fn path(bytes: &[u8]) -> bool {
    let Ok(certificates) = read_certificates(bytes) else { return false };
    let Some((leaf, above)) = certificates.split_first() else { return false };
    let intermediates: Vec<_> = above.iter().take(sealgate::pki::path::SUPPLIED_MAX).chain([&*MIDDLE]).collect();
    let request = PathRequest {
        leaf,
        intermediates: &intermediates,
        anchors: &[&ROOT],
        through: None,
        at: NOW,
        purpose: Purpose::DocumentSigning,
        revocation: None,
        policies: &Policies::default(),
    };
    validate_path(&request).is_ok_and(|path| path.anchor().as_der() == ROOT.as_der())
}

/// A certificate request of a client, bare or in a CMS.
fn certificate_request(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let Ok(der) = read_request(text) else { return false };
    CertificateRequest::from_der(&der).is_ok_and(|request| request.as_der() == der)
}

/// The attributes that an EST server wants to see in requests.
fn csr_attributes(bytes: &[u8]) -> bool {
    wanted_attributes(bytes).is_ok()
}

/// A CMS that carries something else than a signature: a certificate request, or certificates from an EST server.
fn cms_content(bytes: &[u8]) -> bool {
    let content = attached_content(bytes).is_ok();
    certificates_of(bytes).is_ok_and(|certificates| content || !certificates.is_empty())
}

/// A PKCS#11 URI. One that was taken is written so that it is read as the same.
fn key_uri(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let Ok(uri) = text.parse::<Pkcs11Uri>() else { return false };
    assert_eq!(uri.to_string().parse::<Pkcs11Uri>().as_ref(), Ok(&uri));
    true
}

/// A configuration. A report of mistakes says something of each.
fn configuration(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    match Config::parse(text, Path::new("sealgate.toml"), Path::new("/nowhere")) {
        Ok(_) => true,
        Err(errors) => {
            assert!(!errors.mistakes().is_empty() && !errors.to_string().is_empty());
            false
        }
    }
}

/// An audit log that somebody hands over for verification.
fn audit_export(bytes: &[u8]) -> bool {
    verify_export(bytes, &Anchors::default()).is_ok_and(|chains| !chains.is_empty())
}
