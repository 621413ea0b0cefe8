//! The configuration as written: the TOML file piece by piece, each with the line it stands on.
//!
//! Used by the parent module only. Values whose form can be wrong are still text here, so that one reading finds every mistake: a piece with
//! a wrong type or an unknown field costs that piece, not the rest of the file.
//! Invariant: no message repeats a value of the file, because the value may be a PIN in the wrong place.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, MapAccess, Visitor, value::MapAccessDeserializer},
};
use toml::{
    Spanned,
    de::{DeTable, DeValue, ValueDeserializer},
};

use super::mistakes::{Mistakes, Place};

/// Every section of the file.
#[derive(Default)]
pub(super) struct RawConfig {
    pub(super) data_dir: Option<Item<PathBuf>>,
    pub(super) development: Option<Item<bool>>,
    pub(super) listeners: Vec<Item<RawListener>>,
    pub(super) modules: Vec<Item<RawModule>>,
    pub(super) token_lists: Vec<Item<RawToken>>,
    pub(super) tokens: Option<Item<RawTokens>>,
    pub(super) keys: Vec<Item<RawKey>>,
    pub(super) callers: Vec<Item<RawCaller>>,
    pub(super) ticket_api: Option<Item<RawTicketApi>>,
    pub(super) permit: Option<Item<RawPermit>>,
    pub(super) http: Option<Item<RawHttp>>,
    pub(super) limits: Option<Item<RawLimits>>,
    pub(super) metrics: Option<Item<RawMetrics>>,
    pub(super) console: Option<Item<RawConsole>>,
    pub(super) log: Option<Item<RawLog>>,
    pub(super) audit: Option<Item<RawAudit>>,
    pub(super) store: Option<Item<RawStore>>,
    pub(super) webhooks: Vec<Item<RawWebhook>>,
    pub(super) consent: Option<Item<RawConsent>>,
    pub(super) enrolment: Option<Item<RawEnrolment>>,
    pub(super) tsa: Option<Item<RawTsa>>,
    pub(super) trust: Option<Item<RawTrust>>,
    pub(super) revocation: Option<Item<RawRevocation>>,
    /// Some piece of a known section could not be read, so what seems to be missing may stand in it.
    pub(super) incomplete: bool,
}

/// A piece of the file and where it stands.
pub(super) struct Item<T> {
    pub(super) at: Place,
    pub(super) raw: T,
}

/// `[[listener]]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawListener {
    pub(super) address: String,
    pub(super) caller: Option<String>,
    #[serde(default)]
    pub(super) insecure_http: bool,
    pub(super) tls: Option<RawTls>,
}

/// `tls` of a `[[listener]]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTls {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
    pub(super) client_ca: Option<PathBuf>,
}

/// `[[module]]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawModule {
    pub(super) name: String,
    pub(super) path: PathBuf,
    #[serde(default)]
    pub(super) env: BTreeMap<String, String>,
    pub(super) isolation: Option<String>,
    pub(super) fence: Option<RawFence>,
    pub(super) init_args: Option<String>,
    #[serde(default = "yes")]
    pub(super) os_locking: bool,
    pub(super) sees_new_tokens: Option<bool>,
    pub(super) idle_limit_seconds: Option<u64>,
    pub(super) settle_millis: Option<u64>,
    pub(super) waits_for_touch: Option<bool>,
    pub(super) one_thread: Option<bool>,
    pub(super) sign_limit_seconds: Option<u64>,
    pub(super) key_generation_limit_seconds: Option<u64>,
    pub(super) person_limit_seconds: Option<u64>,
    pub(super) call_limit_seconds: Option<u64>,
}

/// `fence` of a `[[module]]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawFence {
    #[serde(default)]
    pub(super) no_network: bool,
    #[serde(default)]
    pub(super) restrict_system_calls: bool,
    pub(super) readable: Option<Vec<PathBuf>>,
    pub(super) writable: Option<Vec<PathBuf>>,
}

/// `[[token]]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawToken {
    pub(super) uri: String,
    pub(super) login: String,
    pub(super) pin: Option<RawPin>,
    pub(super) queue: Option<u64>,
}

/// `pin` of a `[[token]]`.
pub(super) enum RawPin {
    /// A table that says where the PIN stands.
    Source(RawPinSource),
    /// The PIN itself, which does not belong here. It is dropped unread.
    InTheFile,
}

/// Where a PIN stands; exactly one of the three is given.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPinSource {
    pub(super) file: Option<PathBuf>,
    pub(super) env: Option<String>,
    pub(super) credential: Option<String>,
}

/// `[tokens]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTokens {
    pub(super) unlisted: Option<String>,
}

/// `[[key]]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawKey {
    pub(super) name: String,
    pub(super) uri: String,
    pub(super) algorithm: Option<String>,
    pub(super) certificate: Option<PathBuf>,
    #[serde(default)]
    pub(super) chain: Vec<PathBuf>,
    #[serde(default)]
    pub(super) ignore_validity: bool,
    #[serde(default)]
    pub(super) ignore_purpose: bool,
    #[serde(default)]
    pub(super) allow_unverified: bool,
}

/// `[[caller]]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawCaller {
    pub(super) name: String,
    pub(super) api_key_sha256: Option<String>,
    pub(super) client_certificate: Option<RawClientCertificate>,
    #[serde(default)]
    pub(super) origins: Vec<String>,
    pub(super) keys: Option<Vec<String>>,
    pub(super) default_key: Option<String>,
    pub(super) consent: Option<String>,
    #[serde(default)]
    pub(super) consent_for: BTreeMap<String, String>,
    pub(super) scopes: Option<Vec<String>>,
    pub(super) account: Option<RawAccount>,
    pub(super) rate: Option<RawRate>,
}

/// `rate` of a `[[caller]]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRate {
    pub(super) per_second: u64,
    pub(super) burst: u64,
}

/// `account` of a `[[caller]]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawAccount {
    pub(super) login: String,
    pub(super) full_name: String,
    pub(super) organisation: String,
    #[serde(default)]
    pub(super) eio: bool,
}

/// `client_certificate` of a `[[caller]]`; exactly one of the two is given.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawClientCertificate {
    pub(super) subject: Option<String>,
    pub(super) sha256: Option<String>,
}

/// `[ticket_api]`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTicketApi {
    pub(super) language: Option<String>,
    pub(super) idle_minutes: Option<u64>,
    pub(super) tickets_per_caller: Option<u64>,
    pub(super) upload_max_bytes: Option<u64>,
    pub(super) spool_threshold_bytes: Option<u64>,
    pub(super) blocking_get_seconds: Option<u64>,
    pub(super) job_deadline_seconds: Option<u64>,
    pub(super) absent_grace_seconds: Option<u64>,
    pub(super) result_minutes: Option<u64>,
}

/// `[store]`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawStore {
    pub(super) url: Option<String>,
    pub(super) password: Option<RawPin>,
    pub(super) name: Option<String>,
    pub(super) spool_dir: Option<PathBuf>,
}

/// `[consent]`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawConsent {
    #[serde(default)]
    pub(super) open_browser: bool,
}

/// `[[webhook]]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawWebhook {
    pub(super) url: String,
    pub(super) secret_file: PathBuf,
    pub(super) events: Option<Vec<String>>,
}

/// `[tsa]`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTsa {
    #[serde(default)]
    pub(super) urls: Vec<String>,
    pub(super) timeout_seconds: Option<u64>,
    pub(super) total_seconds: Option<u64>,
    pub(super) concurrent: Option<u64>,
    pub(super) queue: Option<u64>,
    pub(super) policy: Option<String>,
    pub(super) serve: Option<RawTsaServe>,
}

/// `[tsa.serve]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTsaServe {
    pub(super) key: String,
    pub(super) policy: String,
    pub(super) accuracy_seconds: Option<u64>,
    #[serde(default)]
    pub(super) allow: Vec<String>,
}

/// `[trust]`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTrust {
    #[serde(default)]
    pub(super) anchors: Vec<PathBuf>,
    #[serde(default)]
    pub(super) intermediates: Vec<PathBuf>,
}

/// `[revocation]`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRevocation {
    pub(super) timeout_seconds: Option<u64>,
    pub(super) crl_max_bytes: Option<u64>,
    pub(super) check: Option<String>,
    pub(super) fetch: Option<bool>,
    #[serde(default)]
    pub(super) source: Vec<RawRevocationSource>,
}

/// `[[revocation.source]]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRevocationSource {
    pub(super) issuer: PathBuf,
    pub(super) ocsp: Option<String>,
    pub(super) crl: Option<String>,
    pub(super) crl_file: Option<PathBuf>,
}

/// `[permit]`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPermit {
    pub(super) minutes: Option<u64>,
    pub(super) uses_max: Option<u64>,
    pub(super) decision_seconds: Option<u64>,
    pub(super) waiting_per_caller: Option<u64>,
    pub(super) live_per_caller: Option<u64>,
}

/// `[http]`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawHttp {
    pub(super) workers: Option<u64>,
    #[serde(default)]
    pub(super) allowed_hosts: Vec<String>,
    #[serde(default)]
    pub(super) trusted_proxies: Vec<String>,
}

/// `[limits]`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLimits {
    pub(super) caller_per_second: Option<u64>,
    pub(super) caller_burst: Option<u64>,
    pub(super) address_per_second: Option<u64>,
    pub(super) address_burst: Option<u64>,
    #[serde(default)]
    pub(super) this_machine: bool,
    pub(super) held_open_per_caller: Option<u64>,
    pub(super) body_seconds: Option<u64>,
    pub(super) upload_seconds: Option<u64>,
}

/// `[audit]`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawAudit {
    pub(super) checkpoint_key: Option<String>,
    pub(super) checkpoint_interval_seconds: Option<u64>,
}

/// `[metrics]`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawMetrics {
    pub(super) listen: Option<String>,
    #[serde(default)]
    pub(super) allow: Vec<String>,
}

/// `[console]`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawConsole {
    pub(super) enabled: Option<bool>,
    #[serde(default)]
    pub(super) insecure_http: bool,
    pub(super) idle_minutes: Option<u64>,
    pub(super) session_hours: Option<u64>,
}

/// `[log]`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLog {
    pub(super) format: Option<String>,
}

/// `[enrolment]`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawEnrolment {
    pub(super) renew_days: Option<u64>,
    pub(super) dev_ca: Option<RawDevCa>,
    pub(super) est: Option<RawEst>,
    #[serde(default)]
    pub(super) profile: Vec<RawProfile>,
}

/// `dev_ca` of `[enrolment]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawDevCa {
    pub(super) key: PathBuf,
    pub(super) certificate: PathBuf,
}

/// `[enrolment.est]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawEst {
    pub(super) url: String,
    #[serde(default)]
    pub(super) ca: Vec<PathBuf>,
    pub(super) user: Option<String>,
    pub(super) password: Option<RawPin>,
    pub(super) client_certificate: Option<PathBuf>,
    pub(super) client_key: Option<PathBuf>,
}

/// `[[enrolment.profile]]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawProfile {
    pub(super) name: String,
    pub(super) token: String,
    pub(super) key_type: Option<String>,
    pub(super) key_name: Option<String>,
    #[serde(default)]
    pub(super) subject: Vec<String>,
    #[serde(default)]
    pub(super) email: bool,
    pub(super) key_usage: Option<Vec<String>>,
    #[serde(default)]
    pub(super) extended_key_usage: Vec<String>,
    #[serde(default)]
    pub(super) extensions: Vec<RawExtension>,
    pub(super) ca: Option<String>,
    pub(super) centre_code: Option<String>,
    pub(super) centre_number: Option<String>,
    pub(super) approval: Option<String>,
    #[serde(default)]
    pub(super) confirm: bool,
    #[serde(default)]
    pub(super) anchors: Vec<PathBuf>,
}

/// One of `extensions` of a profile.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawExtension {
    pub(super) oid: String,
    #[serde(default)]
    pub(super) critical: bool,
    pub(super) der: String,
}

const fn yes() -> bool {
    true
}

impl<'de> Deserialize<'de> for RawPin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PinVisitor)
    }
}

struct PinVisitor;

impl<'de> Visitor<'de> for PinVisitor {
    type Value = RawPin;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table with one of `file`, `env`, `credential`")
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(RawPin::InTheFile)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(RawPin::InTheFile)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(RawPin::InTheFile)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        RawPinSource::deserialize(MapAccessDeserializer::new(map)).map(RawPin::Source)
    }
}

const SECTIONS: &str = "`data_dir`, `development`, `[[listener]]`, `[[module]]`, `[[token]]`, `[tokens]`, `[[key]]`, `[[caller]]`, `[ticket_api]`, \
                        `[permit]`, `[http]`, `[limits]`, `[metrics]`, `[console]`, `[log]`, `[audit]`, `[store]`, \
                        `[consent]`, `[[webhook]]`, `[tsa]`, `[trust]`, `[revocation]` and `[enrolment]`";

impl RawConfig {
    /// Reads `text`, noting what cannot be read. A file that is not TOML gives nothing but its mistakes.
    pub(super) fn read(text: &str, mistakes: &mut Mistakes) -> Self {
        let (table, errors) = DeTable::parse_recoverable(text);
        let mut raw = Self::default();
        if !errors.is_empty() {
            for error in errors {
                mistakes.note(&Place::line_of(text, error.span()), "", without_value(error.message()));
            }
            raw.incomplete = true;
            return raw;
        }
        let mut reader = Reader { text, mistakes, incomplete: false };
        for (key, value) in table.into_inner() {
            reader.section(&mut raw, key.get_ref(), key.span().start, value);
        }
        raw.incomplete = reader.incomplete;
        raw
    }
}

struct Reader<'a> {
    text: &'a str,
    mistakes: &'a mut Mistakes,
    incomplete: bool,
}

impl Reader<'_> {
    fn section(&mut self, raw: &mut RawConfig, key: &str, start: usize, value: Spanned<DeValue<'_>>) {
        match key {
            "data_dir" => raw.data_dir = self.one(key, start, value),
            "development" => raw.development = self.one(key, start, value),
            "listener" => raw.listeners = self.many(key, start, value),
            "module" => raw.modules = self.many(key, start, value),
            "token" => raw.token_lists = self.many(key, start, value),
            "tokens" => raw.tokens = self.one(key, start, value),
            "key" => raw.keys = self.many(key, start, value),
            "caller" => raw.callers = self.many(key, start, value),
            "ticket_api" => raw.ticket_api = self.one(key, start, value),
            "permit" => raw.permit = self.one(key, start, value),
            "store" => raw.store = self.one(key, start, value),
            "consent" => raw.consent = self.one(key, start, value),
            "webhook" => raw.webhooks = self.many(key, start, value),
            "tsa" => raw.tsa = self.one(key, start, value),
            "trust" => raw.trust = self.one(key, start, value),
            "revocation" => raw.revocation = self.one(key, start, value),
            "http" => raw.http = self.one(key, start, value),
            "limits" => raw.limits = self.one(key, start, value),
            "metrics" => raw.metrics = self.one(key, start, value),
            "console" => raw.console = self.one(key, start, value),
            "log" => raw.log = self.one(key, start, value),
            "audit" => raw.audit = self.one(key, start, value),
            "enrolment" => raw.enrolment = self.one(key, start, value),
            _ => {
                let at = Place::new(self.text, key.to_owned(), start);
                self.mistakes.note(&at, "", format!("unknown section; the sections are {SECTIONS}"));
            }
        }
    }

    fn many<T: DeserializeOwned>(&mut self, key: &str, start: usize, value: Spanned<DeValue<'_>>) -> Vec<Item<T>> {
        let DeValue::Array(elements) = value.into_inner() else {
            self.incomplete = true;
            let at = Place::new(self.text, key.to_owned(), start);
            self.mistakes.note(&at, "", format!("there may be several of these: write `[[{key}]]`, with two brackets"));
            return Vec::new();
        };
        let numbered = elements.into_iter().enumerate();
        numbered
            .filter_map(|(index, element)| {
                let start = element.span().start;
                self.one(&format!("{key}[{}]", index + 1), start, element)
            })
            .collect()
    }

    fn one<T: DeserializeOwned>(&mut self, path: &str, start: usize, value: Spanned<DeValue<'_>>) -> Option<Item<T>> {
        let at = Place::new(self.text, path.to_owned(), start);
        match T::deserialize(ValueDeserializer::from(value)) {
            Ok(raw) => Some(Item { at, raw }),
            Err(error) => {
                self.incomplete = true;
                let at = error.span().map_or(at, |span| Place::new(self.text, path.to_owned(), span.start));
                self.mistakes.note(&at, "", without_value(error.message()));
                None
            }
        }
    }
}

/// The message of a TOML error without the value it complains about: the value may be a PIN or another secret.
fn without_value(message: &str) -> String {
    let known = ["invalid type: ", "invalid value: ", "unknown variant "];
    if !known.iter().any(|beginning| message.starts_with(beginning)) {
        return message.to_owned();
    }
    // What was expected is the last part; a value that holds the same words only makes the message shorter.
    message
        .rsplit_once(", expected ")
        .map_or_else(|| "a value of the wrong form".to_owned(), |(_, expected)| format!("expected {expected}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_about_a_value_says_what_was_expected_and_not_the_value() {
        assert_eq!(without_value("invalid type: string \"12, expected 34\", expected a boolean"), "expected a boolean");
        assert_eq!(without_value("unknown field `colour`, expected `name`"), "unknown field `colour`, expected `name`");
    }
}
