//! `[[caller]]`: the programs and pages that may ask for signatures.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Listener, Names, PermitSettings, Unique,
    mistakes::{Mistakes, Place},
    raw::{Item, RawAccount, RawCaller, RawClientCertificate, RawRate},
};
use crate::domain::{
    caller::{Account, AccountText, Caller, ConsentPolicy, ConsentRules, KeyAccess, Provenance, Rate, Scope, Scopes},
    certificate::ClientCertificateId,
    ids::{CallerId, KeyName},
};

/// A caller and how it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallerSettings {
    /// What it may do.
    pub caller: Caller,
    /// SHA-256 of its API key.
    pub api_key_sha256: Option<[u8; 32]>,
    /// Its TLS client certificate.
    pub client_certificate: Option<ClientCertificateId>,
    /// Origins of the web pages that are this caller.
    pub origins: Vec<String>,
}

const CONSENT: &[(&str, ConsentPolicy)] = &[
    ("operator", ConsentPolicy::Operator),
    ("two-operators", ConsentPolicy::TwoOperators),
    ("auto", ConsentPolicy::Auto),
    ("deny", ConsentPolicy::Deny),
];

/// What no two callers may share: each must name one caller only.
struct Credentials {
    names: Unique<String>,
    api_keys: Unique<[u8; 32]>,
    certificates: Unique<ClientCertificateId>,
    origins: Unique<String>,
}

pub(super) fn check(
    raw: Vec<Item<RawCaller>>,
    names: &Names,
    permit: &PermitSettings,
    listeners: &[Listener],
    mistakes: &mut Mistakes,
) -> Vec<CallerSettings> {
    let mut used = Credentials { names: Unique::new(), api_keys: Unique::new(), certificates: Unique::new(), origins: Unique::new() };
    let takes_certificates = listeners.iter().any(|listener| listener.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some()));
    let checked = raw.into_iter().filter_map(|Item { at, raw }| {
        let bound = listeners.iter().any(|listener| listener.caller.as_ref().is_some_and(|caller| caller.as_str() == raw.name));
        if raw.api_key_sha256.is_none() && raw.client_certificate.is_none() && raw.origins.is_empty() && !bound {
            let what =
                "nothing identifies this caller; add `api_key_sha256`, `client_certificate`, `origins`, or bind it to a loopback [[listener]]";
            mistakes.note(&at, "", what);
        }
        if raw.client_certificate.is_some() && names.certain && !takes_certificates {
            let what = "no [[listener]] takes client certificates; give one `tls` with `client_ca`";
            mistakes.note(&at, "client_certificate", what);
        }
        one(raw, &at, names, permit, &mut used, mistakes)
    });
    checked.collect()
}

fn one(
    raw: RawCaller,
    at: &Place,
    names: &Names,
    permit: &PermitSettings,
    used: &mut Credentials,
    mistakes: &mut Mistakes,
) -> Option<CallerSettings> {
    used.names.check(raw.name.clone(), at, "name", mistakes);
    let id = mistakes.parse::<CallerId>(at, "name", &raw.name);
    let keys = key_access(raw.keys.as_deref(), at, names, mistakes);
    let default_key = raw.default_key.clone().and_then(|name| known_key(&name, "default_key", at, names, mistakes));
    if let Some(key) = default_key.as_ref().filter(|key| !keys.allows(key)) {
        mistakes.note(at, "default_key", format!("`{key}` is not among the caller's `keys`; add it there"));
    }
    let consent = consent_rules(&raw, at, names, mistakes);
    let api_key_sha256 = raw.api_key_sha256.as_deref().and_then(|text| digest(text, at, mistakes));
    if let Some(hash) = api_key_sha256 {
        used.api_keys.check(hash, at, "api_key_sha256", mistakes);
    }
    let known_otherwise = raw.api_key_sha256.is_some() || raw.client_certificate.is_some();
    let client_certificate = raw.client_certificate.and_then(|raw| certificate_id(raw, at, mistakes));
    if let Some(certificate) = &client_certificate {
        used.certificates.check(certificate.clone(), at, "client_certificate", mistakes);
    }
    for origin in &raw.origins {
        check_origin(origin, at, mistakes);
        // Otherwise the key or the certificate tells callers apart, and a page may be several of them.
        if !known_otherwise {
            used.origins.check(origin.clone(), at, "origins", mistakes);
        }
    }
    let rate = raw.rate.map(|rate| read_rate(&rate, at, mistakes));
    let (scopes, account) = may_use(raw.scopes, raw.account, at, mistakes);
    let caller = Caller {
        id: id?,
        keys,
        default_key,
        consent: consent?,
        permit_uses_max: permit.uses_max,
        scopes,
        account,
        rate,
        from: Provenance::default(),
    };
    Some(CallerSettings { caller, api_key_sha256, client_certificate, origins: raw.origins })
}

/// Who decides about signatures. Whoever is on this machine, and whatever page a browser there shows, can come in as a caller that shows no
/// credentials of its own: for such a one a person is asked.
fn consent_rules(raw: &RawCaller, at: &Place, names: &Names, mistakes: &mut Mistakes) -> Option<ConsentRules> {
    let policy = mistakes.choose(at, "consent", raw.consent.as_deref().unwrap_or("operator"), CONSENT);
    let mut of_keys = BTreeMap::new();
    for (key, policy) in &raw.consent_for {
        let (key, policy) = (known_key(key, "consent_for", at, names, mistakes), mistakes.choose(at, "consent_for", policy, CONSENT));
        of_keys.extend(key.zip(policy));
    }
    let shows_credentials = raw.api_key_sha256.is_some() || raw.client_certificate.is_some();
    let what = "a caller that is known by its origins or its listener alone cannot have policy `auto`: anybody on this machine can be it; \
                give it an `api_key_sha256` or a `client_certificate`, or leave the policy at `operator`";
    if !shows_credentials && policy == Some(ConsentPolicy::Auto) {
        mistakes.note(at, "consent", what);
    }
    if !shows_credentials && of_keys.values().any(|policy| *policy == ConsentPolicy::Auto) {
        mistakes.note(at, "consent_for", what);
    }
    Some(ConsentRules { policy: policy?, of_keys })
}

/// The APIs that a caller may use, and the account for which it does.
fn may_use(
    scopes: Option<Vec<String>>,
    account: Option<RawAccount>,
    at: &Place,
    mistakes: &mut Mistakes,
) -> (Scopes, Option<Arc<Account>>) {
    let (mut certain, has_account) = (true, account.is_some());
    let mut read = |name: String| {
        let scope = mistakes.parse::<Scope>(at, "scopes", &name);
        certain &= scope.is_some();
        scope
    };
    let scopes = scopes.map_or_else(Scopes::default, |names| names.into_iter().filter_map(&mut read).collect());
    let account = account.and_then(|raw| read_account(&raw, at, mistakes));
    // Where something of it could not be read, it would be said twice.
    certain &= account.is_some() == has_account;
    if certain && let Err(mismatch) = Account::check(account.as_ref(), scopes) {
        mistakes.note(at, "scopes", mismatch.to_string());
    }
    (scopes, account.map(Arc::new))
}

fn read_rate(raw: &RawRate, at: &Place, mistakes: &mut Mistakes) -> Rate {
    let mut number = |field, value, least| {
        let checked = mistakes.bounded(at, field, Some(value), value, (least, 1_000_000));
        u32::try_from(checked).unwrap_or(u32::MAX)
    };
    Rate { per_second: number("rate.per_second", raw.per_second, 0), burst: number("rate.burst", raw.burst, 1) }
}

fn read_account(raw: &RawAccount, at: &Place, mistakes: &mut Mistakes) -> Option<Account> {
    let mut text = |field, text| mistakes.parse::<AccountText>(at, field, text);
    let login = text("account.login", &raw.login);
    let full_name = text("account.full_name", &raw.full_name);
    let organisation = text("account.organisation", &raw.organisation);
    Some(Account { login: login?, full_name: full_name?, organisation: organisation?, eio: raw.eio })
}

fn key_access(raw: Option<&[String]>, at: &Place, names: &Names, mistakes: &mut Mistakes) -> KeyAccess {
    match raw {
        None => KeyAccess::All,
        Some([all]) if all == "*" => KeyAccess::All,
        Some([]) => {
            mistakes.note(at, "keys", "this caller could use no key; name some, or write `[\"*\"]` for all");
            KeyAccess::Only(Vec::new())
        }
        Some(keys) => KeyAccess::Only(keys.iter().filter_map(|name| known_key(name, "keys", at, names, mistakes)).collect()),
    }
}

fn known_key(name: &str, field: &str, at: &Place, names: &Names, mistakes: &mut Mistakes) -> Option<KeyName> {
    let key = mistakes.parse::<KeyName>(at, field, name)?;
    if !names.has_key(name) {
        mistakes.note(at, field, format!("there is no [[key]] named `{key}`; add one or correct the name"));
    }
    Some(key)
}

fn certificate_id(raw: RawClientCertificate, at: &Place, mistakes: &mut Mistakes) -> Option<ClientCertificateId> {
    match (raw.subject, raw.sha256) {
        (Some(subject), None) => mistakes.parse(at, "client_certificate.subject", &subject).map(ClientCertificateId::Subject),
        (None, Some(sha256)) => {
            let mut hash = [0; 32];
            // As OpenSSL prints it, too.
            if hex::decode_to_slice(sha256.replace(':', ""), &mut hash).is_err() {
                let what = "write the SHA-256 of the certificate in hex: openssl x509 -noout -fingerprint -sha256 -in FILE";
                mistakes.note(at, "client_certificate.sha256", what);
                return None;
            }
            Some(ClientCertificateId::Sha256(hash.into()))
        }
        _ => {
            mistakes.note(at, "client_certificate", "give exactly one of `subject` and `sha256`");
            None
        }
    }
}

fn digest(text: &str, at: &Place, mistakes: &mut Mistakes) -> Option<[u8; 32]> {
    let mut hash = [0; 32];
    if hex::decode_to_slice(text, &mut hash).is_err() {
        let what =
            "write the SHA-256 of the API key as 64 hex digits, never the key itself; compute it with: printf %s \"$KEY\" | sha256sum";
        mistakes.note(at, "api_key_sha256", what);
        return None;
    }
    Some(hash)
}

/// An origin as browsers send it (RFC 6454 section 6.2): scheme, host and port, nothing after them.
fn check_origin(origin: &str, at: &Place, mistakes: &mut Mistakes) {
    let well_formed = origin.split_once("://").is_some_and(|(scheme, host)| {
        let scheme_ok =
            !scheme.is_empty() && scheme.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '+' | '-' | '.'));
        let host_ok = !host.is_empty()
            && host.chars().all(|c| c.is_ascii_graphic() && !c.is_ascii_uppercase() && !matches!(c, '/' | '?' | '#' | '@' | '*'));
        scheme_ok && host_ok
    });
    if !well_formed {
        mistakes.note(
            at,
            "origins",
            "write origins as browsers send them, in lower case and without a path, say \"https://example.org:8443\"",
        );
    }
}
