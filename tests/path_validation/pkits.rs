//! NIST's Public Key Interoperability Test Suite (PKITS), as a table of cases that another project publishes with it.
//!
//! Every case is judged twice: by its path alone, where it is no matter of revocation, and with its CRLs, as if evidence were demanded.

use std::{env, fs, path::PathBuf};

use const_oid::ObjectIdentifier;
use sealgate::{
    domain::{revocation::RevocationCheck, timestamp::Timestamp},
    pki::{
        Certificate,
        path::{PathFault, PathRequest, Policies, Purpose, RevocationStatus, ValidPath, validate_path},
        revocation::{KnownEvidence, StatusBook},
        trust::TrustStore,
    },
};
use serde::Deserialize;

/// 2022-05-01: within the validity of everything that is not about validity.
const WHEN: Timestamp = Timestamp::from_millis(1_651_363_200_000);

/// Whether a fault is the one that a rule is broken with.
type IsFault = fn(&PathFault) -> bool;

/// Good certificates that are refused here: those signed with DSA, which is not accepted, and one from before 1970, which cannot be read.
const NOT_ACCEPTED: [&str; 3] =
    ["valid_dsa_signatures_test4", "valid_dsa_parameter_inheritance_test5", "valid_pre2000_utc_notbefore_date_test3"];

#[derive(Deserialize)]
struct Case {
    id: String,
    name: String,
    cert: String,
    #[serde(default)]
    other_certs: Vec<String>,
    #[serde(default)]
    crls: Vec<String>,
    error: Option<Expected>,
    #[serde(default)]
    params: Params,
}

#[derive(Deserialize)]
struct Expected {
    msg_regex: String,
}

#[derive(Default, Deserialize)]
struct Params {
    #[serde(default)]
    user_initial_policy_set: Vec<ObjectIdentifierText>,
    #[serde(default)]
    initial_explicit_policy: bool,
    #[serde(default)]
    initial_policy_mapping_inhibit: bool,
    #[serde(default)]
    initial_any_policy_inhibit: bool,
}

#[derive(Deserialize)]
struct ObjectIdentifierText(String);

impl Case {
    /// Whether it is refused for what stands, or does not stand, on a CRL.
    fn is_about_revocation(&self) -> bool {
        self.error.as_ref().is_some_and(|error| error.msg_regex.contains("CRL") || error.msg_regex.contains("no revocation information"))
    }

    fn policies(&self) -> Policies {
        let oid = |text: &ObjectIdentifierText| ObjectIdentifier::new(&text.0).unwrap();
        Policies {
            acceptable: self.params.user_initial_policy_set.iter().map(oid).collect(),
            explicit: self.params.initial_explicit_policy,
            inhibit_mapping: self.params.initial_policy_mapping_inhibit,
            inhibit_any: self.params.initial_any_policy_inhibit,
        }
    }

    fn judge(&self) -> Result<ValidPath, PathFault> {
        self.judge_by(None)
    }

    /// The same, with the CRLs of the case and no other evidence.
    fn judge_with_lists(&self) -> Result<ValidPath, PathFault> {
        let mut lists = KnownEvidence::default();
        // The table leaves out the list that every case has.
        for name in self.crls.iter().map(String::as_str).chain(["TrustAnchorRootCRL.crl"]) {
            lists.add_crl(&fs::read(folder().join("crls").join(name)).unwrap());
        }
        self.judge_by(Some(&lists))
    }

    fn judge_by(&self, lists: Option<&KnownEvidence>) -> Result<ValidPath, PathFault> {
        let read = |name: &String| certificate(name);
        // A certificate that cannot even be read is refused as one that is wrong.
        let Some(leaf) = certificate(&self.cert) else { return Err(PathFault::Malformed("not read")) };
        let anchor = certificate("TrustAnchorRootCertificate.crt").unwrap();
        let others: Vec<_> = self.other_certs.iter().filter_map(read).collect();
        let trust = TrustStore::new(vec![anchor.clone()], Vec::new());
        let check = RevocationCheck::Required;
        let carried: Vec<_> = lists.into_iter().collect();
        let book = lists.map(|_| StatusBook { check, carried: &carried, inquiry: None, certificates: &others, trust: &trust, now: WHEN });
        let request = PathRequest {
            leaf: &leaf,
            intermediates: &others.iter().collect::<Vec<_>>(),
            anchors: &[&anchor],
            through: None,
            at: WHEN,
            purpose: Purpose::Any,
            revocation: book.as_ref().map(|book| book as &dyn RevocationStatus),
            policies: &self.policies(),
        };
        validate_path(&request).map_err(|error| error.fault)
    }
}

fn folder() -> PathBuf {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let folder = root.join(env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into())).join("pkits");
    assert!(folder.exists(), "the path-validation suite is not there; run scripts/python-env.sh");
    folder
}

fn certificate(name: &str) -> Option<Certificate> {
    let bytes = fs::read(folder().join("certs").join(name)).unwrap();
    Certificate::from_der(&bytes).or_else(|_| Certificate::from_pem(&String::from_utf8_lossy(&bytes))).ok()
}

fn cases() -> Vec<Case> {
    serde_json::from_slice(&fs::read(folder().join("pkits.json")).unwrap()).unwrap()
}

#[test]
fn every_case_of_pkits_ends_as_nist_says() {
    let (mut judged, mut wrong) = (0, Vec::new());
    for case in cases().iter().filter(|case| !case.is_about_revocation()) {
        let outcome = case.judge();
        judged += 1;
        let as_expected = match (&case.error, &outcome) {
            (None, Ok(_)) | (Some(_), Err(_)) => true,
            (None, Err(PathFault::UnsupportedAlgorithm(_) | PathFault::Malformed(_))) => NOT_ACCEPTED.contains(&case.name.as_str()),
            (None, Err(_)) | (Some(_), Ok(_)) => false,
        };
        if !as_expected {
            wrong.push(format!("{} {}: {outcome:?}", case.id, case.name));
        }
    }
    assert!(wrong.is_empty(), "{} of {judged}:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(judged, 200, "cases of the suite that are no matter of CRLs");
}

#[test]
fn refusals_of_pkits_name_the_rule_that_is_broken() {
    let rules: [(&str, IsFault); 8] = [
        ("signature of", |fault| matches!(fault, PathFault::BadSignature | PathFault::UnsupportedAlgorithm(_))),
        ("not valid until", |fault| matches!(fault, PathFault::NotYetValid { .. })),
        ("expired", |fault| matches!(fault, PathFault::Expired { .. })),
        ("issuer name could not be matched", |fault| matches!(fault, PathFault::NoAnchor { .. } | PathFault::NameChaining)),
        ("is not a CA", |fault| matches!(fault, PathFault::NotCa)),
        ("maximum path length", |fault| matches!(fault, PathFault::PathLength)),
        ("names of the end-entity", |fault| matches!(fault, PathFault::NameConstraints)),
        (
            "unsupported critical extension",
            |fault| matches!(fault, PathFault::UnknownCriticalExtension(oids) if oids == "2.16.840.1.101.2.1.12.2"),
        ),
    ];
    let mut wrong = Vec::new();
    for case in cases().iter().filter(|case| !case.is_about_revocation()) {
        let Some(expected) = &case.error else { continue };
        let rule = rules.iter().find(|(words, _)| expected.msg_regex.contains(words));
        let policy: IsFault = |fault| matches!(fault, PathFault::Policy);
        let is_right = match rule {
            Some((_, is_right)) => *is_right,
            None if expected.msg_regex.contains("polic") => policy,
            None => |fault: &PathFault| matches!(fault, PathFault::KeyUsage(_)),
        };
        let fault = case.judge().unwrap_err();
        if !is_right(&fault) {
            wrong.push(format!("{} {}: {fault:?}, not {}", case.id, case.name, expected.msg_regex));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Cases that end otherwise here when CRLs are looked at, and why.
const OTHERWISE_WITH_LISTS: [(&str, &str); 3] = [
    ("valid_crlissuer_test30", "the list's signer is on no list but its own, which would have to be believed first"),
    ("invalid_deltacrl_test4", "delta lists are not used, and the revocation stands on one only"),
    ("valid_deltacrl_test5", "delta lists are not used, and the end of the suspension stands on one only"),
];

#[test]
fn every_case_of_pkits_with_its_crls_ends_as_nist_says() {
    let mut wrong = Vec::new();
    let cases = cases();
    for case in &cases {
        let outcome = case.judge_with_lists();
        let otherwise = OTHERWISE_WITH_LISTS.iter().any(|(name, _)| *name == case.name) || NOT_ACCEPTED.contains(&case.name.as_str());
        if (case.error.is_none() == outcome.is_ok()) == otherwise {
            wrong.push(format!("{} {}: {outcome:?}, expected {:?}", case.id, case.name, case.error.as_ref().map(|error| &error.msg_regex)));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}
