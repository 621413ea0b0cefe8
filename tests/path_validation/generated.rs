//! Certificates that OpenSSL makes: every algorithm as a CA's and as a leaf's, and every rule broken alone.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use crate::common::openssl::openssl_ok;
use sealgate::{
    domain::timestamp::Timestamp,
    pki::{
        Certificate,
        path::{PathError, PathFault, PathRequest, Policies, Purpose, Revocation, RevocationStatus, ValidPath, validate_path},
        revocation::RevocationReason,
    },
};
use tempfile::TempDir;

const DAY: Duration = Duration::from_secs(24 * 3600);

const P256: &[&str] = &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
const CA: &str = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash";
const LEAF: &str = "basicConstraints=CA:FALSE\nkeyUsage=critical,digitalSignature,nonRepudiation";

/// A folder in which OpenSSL makes keys and certificates.
struct Lab(TempDir);

/// What a certificate is to be.
struct Wanted<'a> {
    subject: &'a str,
    extensions: &'a str,
    days: &'a str,
    key: &'a [&'a str],
    /// How its issuer signs.
    signing: &'a [&'a str],
}

const fn wanted<'a>(subject: &'a str, extensions: &'a str) -> Wanted<'a> {
    Wanted { subject, extensions, days: "400", key: P256, signing: &["-sha256"] }
}

impl Lab {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str, suffix: &str) -> String {
        let path: PathBuf = self.0.path().join(format!("{name}.{suffix}"));
        path.to_str().unwrap().to_owned()
    }

    /// A certificate called `name`, issued by the one called `issuer`, or by itself.
    fn make(&self, name: &str, issuer: Option<&str>, wanted: &Wanted<'_>) -> Certificate {
        let file = |suffix| self.path(name, suffix);
        openssl_ok([&["genpkey", "-out", &file("key")], wanted.key].concat());
        fs::write(file("ext"), wanted.extensions).unwrap();
        openssl_ok(["req", "-new", "-utf8", "-key", &file("key"), "-subj", wanted.subject, "-out", &file("csr")]);
        let (issuer_key, issuer_file) = (issuer.map(|issuer| self.path(issuer, "key")), issuer.map(|issuer| self.path(issuer, "pem")));
        let own_key = file("key");
        let signer: Vec<&str> = match (&issuer_key, &issuer_file) {
            (Some(key), Some(certificate)) => vec!["-CA", certificate, "-CAkey", key],
            _ => vec!["-signkey", &own_key],
        };
        let (csr, ext, out) = (file("csr"), file("ext"), file("pem"));
        let common = ["x509", "-req", "-in", &csr, "-days", wanted.days, "-extfile", &ext, "-out", &out];
        openssl_ok([&common[..], &signer, wanted.signing].concat());
        Certificate::from_pem(&fs::read_to_string(out).unwrap()).unwrap()
    }
}

/// A root, a CA below it, and a leaf, with one of them other than usual.
struct Chain {
    lab: Lab,
    root: Certificate,
    ca: Certificate,
    leaf: Certificate,
}

impl Chain {
    fn new(root: &Wanted<'_>, ca: &Wanted<'_>, leaf: &Wanted<'_>) -> Self {
        let lab = Lab::new();
        let root = lab.make("root", None, root);
        let ca = lab.make("ca", Some("root"), ca);
        let leaf = lab.make("leaf", Some("ca"), leaf);
        Self { lab, root, ca, leaf }
    }

    fn with_leaf(extensions: &str) -> Self {
        Self::new(&wanted("/CN=Root", CA), &wanted("/CN=CA", CA), &wanted("/CN=Leaf", extensions))
    }

    fn with_ca(extensions: &str) -> Self {
        Self::new(&wanted("/CN=Root", CA), &wanted("/CN=CA", extensions), &wanted("/CN=Leaf/O=Firm", LEAF))
    }

    fn judge(&self, purpose: Purpose, at: Timestamp) -> Result<ValidPath, PathError> {
        judge(&self.leaf, &[&self.ca], &[&self.root], purpose, at)
    }

    fn fault(&self, purpose: Purpose) -> (String, PathFault) {
        let error = self.judge(purpose, now()).unwrap_err();
        (error.certificate, error.fault)
    }
}

fn now() -> Timestamp {
    // Certificates made just now are valid from this second on.
    Timestamp::from(SystemTime::now()).after(Duration::from_secs(60))
}

fn judge(
    leaf: &Certificate,
    intermediates: &[&Certificate],
    anchors: &[&Certificate],
    purpose: Purpose,
    at: Timestamp,
) -> Result<ValidPath, PathError> {
    let policies = Policies::default();
    validate_path(&PathRequest { leaf, intermediates, anchors, through: None, at, purpose, revocation: None, policies: &policies })
}

/// Keys that sign here, as OpenSSL makes them and signs certificates with them.
const ALGORITHMS: [(&str, &[&str], &[&str]); 9] = [
    ("RSA 2048", &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"], &["-sha256"]),
    ("RSA 3072, SHA-384", &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:3072"], &["-sha384"]),
    ("RSA 2048, SHA-512", &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"], &["-sha512"]),
    (
        "PSS with a salt as long as the digest",
        &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
        &["-sha256", "-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest"],
    ),
    (
        "PSS with the longest salt",
        &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
        &["-sha384", "-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:max"],
    ),
    ("P-256", P256, &["-sha256"]),
    ("P-384", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"], &["-sha384"]),
    ("P-521", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521"], &["-sha512"]),
    ("Ed25519", &["-algorithm", "ED25519"], &[]),
];

#[test]
fn every_algorithm_is_good_as_a_cas_and_as_a_leafs() {
    for (name, key, signing) in ALGORITHMS {
        let ca = |subject| Wanted { key, signing, ..wanted(subject, CA) };
        let leaf = Wanted { key, signing, ..wanted("/CN=Підписувач", LEAF) };
        let chain = Chain::new(&ca("/CN=Root"), &ca("/CN=CA"), &leaf);
        let path = chain.judge(Purpose::DocumentSigning, now()).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(path.certificates, [chain.leaf.clone(), chain.ca.clone(), chain.root.clone()], "{name}");
        let mut damaged = chain.leaf.as_der().to_vec();
        *damaged.last_mut().unwrap() ^= 1;
        let error = judge(&Certificate::from_der(&damaged).unwrap(), &[&chain.ca], &[&chain.root], Purpose::Any, now()).unwrap_err();
        assert_eq!(error.fault, PathFault::BadSignature, "{name}");
    }
}

#[test]
fn validity_is_that_of_the_time_asked_for() {
    let short = Wanted { days: "100", ..wanted("/CN=CA", CA) };
    let chain = Chain::new(&wanted("/CN=Root", CA), &short, &wanted("/CN=Leaf", LEAF));
    let judge = |at| chain.judge(Purpose::DocumentSigning, at);
    assert!(judge(now()).is_ok());
    let early = judge(Timestamp::from_millis(now().as_millis() - DAY.as_millis() as u64)).unwrap_err();
    assert!(matches!((early.certificate.as_str(), &early.fault), ("CN=Leaf", PathFault::NotYetValid { .. })), "{early}");
    let late = judge(now().after(DAY * 200)).unwrap_err();
    assert_eq!(late.certificate, "CN=CA");
    assert_eq!(late.fault, PathFault::Expired { since: chain.ca.not_after().to_rfc3339() });
    let later = judge(now().after(DAY * 500)).unwrap_err();
    assert_eq!(later.fault, PathFault::Expired { since: chain.leaf.not_after().to_rfc3339() });
    // Second zero switches nothing off.
    assert!(matches!(judge(Timestamp::from_millis(0)).unwrap_err().fault, PathFault::NotYetValid { .. }));
}

#[test]
fn each_rule_that_is_broken_by_a_ca_is_named() {
    let ca = |fault: PathFault| ("CN=CA".to_owned(), fault);
    let fault = |extensions: &str| Chain::with_ca(extensions).fault(Purpose::DocumentSigning);
    assert_eq!(fault("basicConstraints=critical,CA:FALSE\nkeyUsage=keyCertSign"), ca(PathFault::NotCa));
    assert_eq!(fault("keyUsage=keyCertSign"), ca(PathFault::NotCa));
    assert_eq!(fault("basicConstraints=critical,CA:TRUE\nkeyUsage=cRLSign"), ca(PathFault::KeyUsage("signatures of certificates")));
    let leaf = |fault: PathFault| ("CN=Leaf,O=Firm".to_owned(), fault);
    let named = |constraints: &str| format!("{CA}\nnameConstraints=critical,{constraints}\n[dn]\nO=Firm\n[other]\nO=Other");
    assert_eq!(fault(&named("permitted;dirName:other")).1, PathFault::NameConstraints);
    assert_eq!(fault(&named("permitted;dirName:other")).0, leaf(PathFault::NameConstraints).0.replace("CN=Leaf,O=Firm", "O=Firm,CN=Leaf"));
    let unknown = fault(&format!("{CA}\n1.2.3.4=critical,ASN1:NULL"));
    assert_eq!(unknown, ca(PathFault::UnknownCriticalExtension("1.2.3.4".to_owned())));
}

#[test]
fn a_path_length_and_a_name_constraint_of_the_root_itself_count() {
    let short = format!("{CA}\nbasicConstraints=critical,CA:TRUE,pathlen:0").replacen("basicConstraints=critical,CA:TRUE\n", "", 1);
    let chain = Chain::new(&wanted("/CN=Root", &short), &wanted("/CN=CA", CA), &wanted("/CN=Leaf", LEAF));
    assert_eq!(chain.fault(Purpose::Any), ("CN=CA".to_owned(), PathFault::PathLength));
    let constrained = format!("{CA}\nnameConstraints=critical,permitted;dirName:dn\n[dn]\nO=Firm");
    let chain = Chain::new(&wanted("/CN=Root", &constrained), &wanted("/O=Firm/CN=CA", CA), &wanted("/O=Other/CN=Leaf", LEAF));
    assert_eq!(chain.fault(Purpose::Any).1, PathFault::NameConstraints);
}

#[test]
fn a_leaf_is_good_for_what_its_usages_say() {
    let documents = PathFault::ExtendedKeyUsage("signatures of documents");
    let usage = "basicConstraints=CA:FALSE\nkeyUsage=critical,nonRepudiation\nextendedKeyUsage=";
    let judged = |extended: &str| Chain::with_leaf(&format!("{usage}{extended}")).judge(Purpose::DocumentSigning, now());
    for good in ["emailProtection", "1.3.6.1.5.5.7.3.36", "clientAuth,emailProtection", "1.2.804.2.1.1.1.3.9", "anyExtendedKeyUsage"] {
        assert!(judged(good).is_ok(), "{good}");
    }
    for bad in ["codeSigning", "serverAuth,clientAuth", "critical,timeStamping", "OCSPSigning"] {
        assert_eq!(judged(bad).unwrap_err().fault, documents, "{bad}");
    }
    let encipher = Chain::with_leaf("basicConstraints=CA:FALSE\nkeyUsage=keyEncipherment");
    assert_eq!(encipher.fault(Purpose::DocumentSigning).1, PathFault::KeyUsage("signatures"));
    assert!(encipher.judge(Purpose::Any, now()).is_ok());
}

#[test]
fn a_time_stamping_certificate_names_that_alone_and_as_critical() {
    let usage = "basicConstraints=CA:FALSE\nkeyUsage=digitalSignature\n";
    let judged = |extended: &str| Chain::with_leaf(&format!("{usage}{extended}")).judge(Purpose::TimeStamping, now());
    assert!(judged("extendedKeyUsage=critical,timeStamping").is_ok());
    for bad in ["", "extendedKeyUsage=timeStamping", "extendedKeyUsage=critical,timeStamping,emailProtection"] {
        assert!(matches!(judged(bad).unwrap_err().fault, PathFault::ExtendedKeyUsage(_)), "{bad}");
    }
}

#[test]
fn without_an_anchor_the_missing_issuer_is_named() {
    let chain = Chain::with_leaf(LEAF);
    let missing = |error: PathError| match error.fault {
        PathFault::NoAnchor { issuer } => (error.certificate, issuer),
        other => panic!("{other:?}"),
    };
    let nothing = judge(&chain.leaf, &[], &[&chain.root], Purpose::Any, now()).unwrap_err();
    assert_eq!(missing(nothing), ("CN=Leaf".to_owned(), "CN=CA".to_owned()));
    let no_root = judge(&chain.leaf, &[&chain.ca], &[], Purpose::Any, now()).unwrap_err();
    assert_eq!(missing(no_root), ("CN=CA".to_owned(), "CN=Root".to_owned()));
    // A stranger of the same name does not help.
    let stranger = Lab::new().make("root", None, &wanted("/CN=Root", CA));
    assert!(judge(&chain.leaf, &[&chain.ca], &[&stranger], Purpose::Any, now()).is_err());
    // An intermediate that is trusted itself ends the path.
    let path = judge(&chain.leaf, &[&chain.ca], &[&chain.ca], Purpose::Any, now()).unwrap();
    assert_eq!(path.anchor(), &chain.ca);
    let itself = judge(&chain.leaf, &[], &[&chain.leaf], Purpose::DocumentSigning, now()).unwrap();
    assert_eq!(itself.certificates, std::slice::from_ref(&chain.leaf));
}

#[test]
fn a_good_path_is_found_beside_bad_ones_of_the_same_names() {
    let chain = Chain::with_leaf(LEAF);
    let strangers: Vec<_> = (0..5).map(|_| Lab::new().make("ca", None, &wanted("/CN=CA", CA))).collect();
    let all: Vec<_> = strangers.iter().chain([&chain.ca]).collect();
    let roots: Vec<_> = strangers.iter().chain([&chain.root]).collect();
    assert!(judge(&chain.leaf, &all, &roots, Purpose::DocumentSigning, now()).is_ok());
}

#[test]
fn cas_that_certify_each_other_end_the_search() {
    let chain = Chain::with_leaf(LEAF);
    // Self-issued CAs with the same name and other keys: each may stand above each other one.
    let ring: Vec<_> = (0..12).map(|_| Lab::new().make("ca", None, &wanted("/CN=CA", CA.split("\nsubjectKey").next().unwrap()))).collect();
    let ring: Vec<_> = ring.iter().collect();
    let error = judge(&chain.leaf, &ring, &[&chain.root], Purpose::Any, now()).unwrap_err();
    assert!(matches!(error.fault, PathFault::TooComplex | PathFault::NoAnchor { .. }), "{error}");
}

#[test]
fn weak_signatures_are_refused_by_name() {
    let sha1 = Wanted { signing: &["-sha1"], ..wanted("/CN=Leaf", LEAF) };
    let chain = Chain::new(&wanted("/CN=Root", CA), &wanted("/CN=CA", CA), &sha1);
    let PathFault::UnsupportedAlgorithm(reason) = chain.fault(Purpose::Any).1 else { panic!("not refused for its algorithm") };
    assert!(reason.contains("1.2.840.10045.4.1"), "{reason}");
    let short = Wanted { key: &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"], ..wanted("/CN=CA", CA) };
    let chain = Chain::new(&wanted("/CN=Root", CA), &short, &wanted("/CN=Leaf", LEAF));
    assert!(matches!(chain.fault(Purpose::Any).1, PathFault::UnsupportedAlgorithm(_)));
}

#[test]
fn a_policy_that_is_wanted_must_be_there() {
    let chain = Chain::with_leaf(LEAF);
    let policies = Policies { explicit: true, ..Policies::default() };
    let (leaf, intermediates, anchors): (_, [&Certificate; 1], [&Certificate; 1]) = (&chain.leaf, [&chain.ca], [&chain.root]);
    let request = PathRequest {
        leaf,
        intermediates: &intermediates,
        anchors: &anchors,
        through: None,
        at: now(),
        purpose: Purpose::Any,
        revocation: None,
        policies: &policies,
    };
    assert_eq!(validate_path(&request).unwrap_err().fault, PathFault::Policy);
    drop(chain.lab);
}

/// Says the same of the certificate with this subject, and good of every other.
struct Says(&'static str, Revocation);

impl RevocationStatus for Says {
    fn status(&self, certificate: &Certificate, _issuer: &Certificate, _anchor: &Certificate, _at: Timestamp) -> Revocation {
        if certificate.subject() == self.0 { self.1.clone() } else { Revocation::Good }
    }
}

#[test]
fn every_certificate_below_the_anchor_is_asked_about() {
    let chain = Chain::with_leaf(LEAF);
    let policies = Policies::default();
    let fault = |says: Says| {
        let request = PathRequest {
            leaf: &chain.leaf,
            intermediates: &[&chain.ca],
            anchors: &[&chain.root],
            through: None,
            at: now(),
            purpose: Purpose::DocumentSigning,
            revocation: Some(&says),
            policies: &policies,
        };
        validate_path(&request).map(drop).map_err(|error| (error.certificate, error.fault.to_string()))
    };
    let revoked = || Revocation::Revoked { since: Timestamp::from_millis(0), reason: Some(RevocationReason::KeyCompromise) };
    for subject in ["CN=Leaf", "CN=CA"] {
        let (certificate, why) = fault(Says(subject, revoked())).unwrap_err();
        assert_eq!((certificate.as_str(), why.as_str()), (subject, "it was revoked on 1970-01-01T00:00:00Z (keyCompromise)"));
    }
    assert!(fault(Says("CN=CA", Revocation::Unknown("no CRL".to_owned()))).unwrap_err().1.contains("no CRL"));
    assert!(fault(Says("CN=Root", revoked())).is_ok());
}
