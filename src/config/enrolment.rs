//! `[enrolment]` and `[[enrolment.profile]]`: what certificates look like, where their keys are made, and who issues them.

use std::path::{Path, PathBuf};

use const_oid::ObjectIdentifier;

use super::{
    Names,
    keys::certificates,
    mistakes::{Mistakes, Place},
    raw::{Item, RawEnrolment, RawEst, RawExtension, RawProfile},
    tokens::pin_source,
};
use crate::domain::{
    enrolment::profile::{CaChoice, Centre, Profile, ProfileExtension, SubjectRule, key_kind, key_usages},
    ids::ProfileName,
    key_uri::Pkcs11Uri,
    token::PinSource,
};

/// The longest value of an extension, in bytes.
const EXTENSION_MAX: usize = 4096;

const CAS: &[(&str, CaChoice)] = &[("manual", CaChoice::Manual), ("dev", CaChoice::Development), ("est", CaChoice::Est)];
const APPROVALS: &[(&str, bool)] = &[("operator", true), ("auto", false)];

/// Certificate requests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EnrolmentSettings {
    /// The profiles; the first is taken where nothing is said.
    pub profiles: Vec<Profile>,
    /// Certificates of CAs that renew are renewed so many days before their end.
    pub renew_days: Option<u32>,
    /// The CA of development mode: its key in PKCS#8 PEM, and its certificate.
    pub dev_ca: Option<(PathBuf, PathBuf)>,
    /// The CA that speaks EST.
    pub est: Option<EstSettings>,
}

/// How a CA that speaks EST is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EstSettings {
    /// Its address up to `/.well-known/est`.
    pub url: String,
    /// Anchors of its TLS certificate, in DER.
    pub anchors: Vec<Vec<u8>>,
    /// How it knows the gateway.
    pub credentials: EstCredentials,
}

/// How a CA knows the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EstCredentials {
    /// By a name and a password.
    Password(String, PinSource),
    /// By a TLS client certificate: files of certificates and key, in PEM.
    Certificate(PathBuf, PathBuf),
}

pub(super) fn check(
    raw: Option<Item<RawEnrolment>>,
    development: bool,
    names: &Names,
    base: &Path,
    mistakes: &mut Mistakes,
) -> EnrolmentSettings {
    let Some(Item { at, raw }) = raw else { return EnrolmentSettings::default() };
    let est = raw.est.and_then(|est| self::est(est, &at, base, mistakes));
    if raw.dev_ca.is_some() && !development {
        let what = "this CA certifies whoever asks, with a key in a file; use another `ca`, or, for development alone, write `development = true` \
                    as the first line of this file";
        mistakes.note(&at, "dev_ca", what);
    }
    let dev_ca = raw.dev_ca.map(|ca| (base.join(ca.key), base.join(ca.certificate)));
    let renew_days = raw.renew_days.map(|days| mistakes.bounded(&at, "renew_days", Some(days), 0, (1, 365)));
    let mut profiles: Vec<Profile> = Vec::new();
    for (number, raw) in (1..).zip(raw.profile) {
        let field = |name: &str| format!("profile[{number}].{name}");
        if profiles.iter().any(|profile| profile.name.as_str() == raw.name) {
            mistakes.note(&at, &field("name"), "stands twice in this file; each needs its own");
        }
        let ca = mistakes.choose(&at, &field("ca"), raw.ca.as_deref().unwrap_or("manual"), CAS);
        match ca {
            Some(CaChoice::Development) if dev_ca.is_none() => mistakes.note(&at, &field("ca"), "add `dev_ca` to [enrolment]"),
            Some(CaChoice::Est) if est.is_none() => mistakes.note(&at, &field("ca"), "add [enrolment.est]"),
            _ => {}
        }
        profiles.extend(profile(raw, ca, &at, &field, names, base, mistakes));
    }
    EnrolmentSettings { profiles, renew_days: renew_days.and_then(|days| u32::try_from(days).ok()), dev_ca, est }
}

fn profile(
    raw: RawProfile,
    ca: Option<CaChoice>,
    at: &Place,
    field: &impl Fn(&str) -> String,
    names: &Names,
    base: &Path,
    mistakes: &mut Mistakes,
) -> Option<Profile> {
    let name = mistakes.parse::<ProfileName>(at, &field("name"), &raw.name);
    let token = mistakes.parse::<Pkcs11Uri>(at, &field("token"), &raw.token);
    if let Some(token) = &token {
        check_token(token, at, &field("token"), names, mistakes);
    }
    let key_kind = noted(key_kind(raw.key_type.as_deref().unwrap_or("EC:P-256")), at, &field("key_type"), mistakes);
    let key_name = mistakes.parse(at, &field("key_name"), raw.key_name.as_deref().unwrap_or("{login}"));
    let subject: Vec<SubjectRule> = raw.subject.iter().filter_map(|rule| mistakes.parse(at, &field("subject"), rule)).collect();
    if raw.subject.is_empty() {
        mistakes.note(at, &field("subject"), "say what stands in the subject, say [\"CN={full_name}\", \"O={organisation}\"]");
    }
    let usages = raw.key_usage.unwrap_or_else(|| vec!["digitalSignature".to_owned(), "nonRepudiation".to_owned()]);
    let key_usage = noted(key_usages(&usages), at, &field("key_usage"), mistakes);
    let identifier = |text: &String, mistakes: &mut Mistakes| oid(text, at, &field("extended_key_usage"), mistakes);
    let extended_key_usage = raw.extended_key_usage.iter().filter_map(|text| identifier(text, mistakes)).collect();
    let extensions = raw.extensions.iter().filter_map(|raw| extension(raw, at, &field("extensions"), mistakes)).collect();
    let approval = mistakes.choose(at, &field("approval"), raw.approval.as_deref().unwrap_or("operator"), APPROVALS);
    if raw.anchors.is_empty() {
        mistakes.note(
            at,
            &field("anchors"),
            "name files with the certificates of CAs that are trusted; no certificate becomes active without",
        );
    }
    let anchors = raw.anchors.iter().flat_map(|file| certificates(&base.join(file), at, &field("anchors"), mistakes)).collect();
    let centre = centre(raw.centre_code, raw.centre_number, at, &field("centre_code"), mistakes);
    Some(Profile {
        name: name?,
        token: token?,
        key_kind: key_kind?,
        key_name: key_name?,
        subject,
        email: raw.email,
        key_usage: key_usage?,
        extended_key_usage,
        extensions,
        ca: ca?,
        approval: approval?,
        confirm: raw.confirm,
        anchors,
        centre,
    })
}

/// How a bank numbers its CA: the two make at most the eight characters that a key identifier begins with.
fn centre(code: Option<String>, number: Option<String>, at: &Place, field: &str, mistakes: &mut Mistakes) -> Option<Centre> {
    let (code, number) = match (code, number) {
        (None, None) => return None,
        (code, number) => (code.unwrap_or_default(), number.unwrap_or_default()),
    };
    let centre = Centre::new(code, number);
    if centre.is_none() {
        mistakes.note(
            at,
            field,
            "write `centre_code` with 4 or 6 digits and capital letters, and `centre_number` with the digits that make up eight",
        );
    }
    centre
}

fn check_token(token: &Pkcs11Uri, at: &Place, field: &str, names: &Names, mistakes: &mut Mistakes) {
    if token.names_an_object() {
        mistakes.note(at, field, "this names a key; keys are made on a token, so leave `id` and `object` out");
    }
    if token.token.is_none() && token.serial.is_none() {
        mistakes.note(at, field, "this matches any token; add `serial=` or `token=` (`sealgate slots` prints them)");
    }
    if let Some(module) = token.module_name.as_deref().filter(|module| !names.has_module(module)) {
        mistakes.note(at, field, format!("there is no [[module]] named `{}`", module.escape_debug()));
    }
}

fn noted<T, E: std::fmt::Display>(read: Result<T, E>, at: &Place, field: &str, mistakes: &mut Mistakes) -> Option<T> {
    read.map_err(|error| mistakes.note(at, field, error.to_string())).ok()
}

fn oid(text: &str, at: &Place, field: &str, mistakes: &mut Mistakes) -> Option<ObjectIdentifier> {
    let wrong = |_| mistakes.note(at, field, "write object identifiers in numbers, say \"1.3.6.1.5.5.7.3.4\"");
    ObjectIdentifier::new(text).map_err(wrong).ok()
}

fn extension(raw: &RawExtension, at: &Place, field: &str, mistakes: &mut Mistakes) -> Option<ProfileExtension> {
    let kind = oid(&raw.oid, at, field, mistakes);
    let value = hex::decode(&raw.der).ok().filter(|value| !value.is_empty() && value.len() <= EXTENSION_MAX);
    if value.is_none() {
        mistakes.note(at, field, format!("`der` is the value in DER, as 1 to {EXTENSION_MAX} bytes in hex"));
    }
    Some(ProfileExtension { kind: kind?, critical: raw.critical, value: value? })
}

fn est(raw: RawEst, at: &Place, base: &Path, mistakes: &mut Mistakes) -> Option<EstSettings> {
    if !raw.url.starts_with("https://") || raw.url.contains('@') {
        mistakes.note(at, "est.url", "write the address up to EST's own path, say \"https://ca.example.org/.well-known/est\"");
    }
    if raw.ca.is_empty() {
        mistakes.note(at, "est.ca", "name files with the CAs that the server's TLS certificate leads to");
    }
    let anchors = raw.ca.iter().flat_map(|file| certificates(&base.join(file), at, "est.ca", mistakes)).collect();
    let password = raw.password.and_then(|password| pin_source(password, at, "est.password", base, mistakes));
    let credentials = match (raw.user, password, raw.client_certificate, raw.client_key) {
        (Some(user), Some(password), None, None) => Some(EstCredentials::Password(user, password)),
        (None, None, Some(certificate), Some(key)) => Some(EstCredentials::Certificate(base.join(certificate), base.join(key))),
        _ => {
            mistakes.note(at, "est", "the CA must know the gateway: give `user` and `password`, or `client_certificate` and `client_key`");
            None
        }
    };
    Some(EstSettings { url: raw.url, anchors, credentials: credentials? })
}
