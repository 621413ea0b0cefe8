//! What `sealgate callers add` and `rotate` are told.

use std::{fmt, str::FromStr, time::Duration};

use anyhow::Context as _;

use crate::{
    cli::{Usage, place::GatewayArgs},
    domain::{
        caller::{Account, AccountText, ConsentPolicy, KeyAccess, Rate, Scope, Scopes},
        certificate::ClientCertificateId,
        ids::{CallerId, KeyName, NameError},
        stored_caller::NewCaller,
        timestamp::Timestamp,
    },
};

/// How long an old API key stays good if nothing is said.
const GRACE: Lasting = Lasting(Duration::from_secs(24 * 3600));

/// Arguments of `callers add`.
#[derive(Debug, clap::Args)]
pub(super) struct AddArgs {
    #[command(flatten)]
    pub(super) gateway: GatewayArgs,
    /// Its name: letters, digits, `.`, `_`, `-`.
    name: CallerId,
    /// A configured key that it may use; may be given several times.
    #[arg(long = "key", value_name = "KEY", conflicts_with = "all_keys")]
    keys: Vec<KeyName>,
    /// It may use every key of the gateway, also by URI.
    #[arg(long)]
    all_keys: bool,
    /// The key that it signs with when it names none. Default: the only one of --key.
    #[arg(long, value_name = "KEY")]
    default_key: Option<KeyName>,
    /// What it may use: ticket-api, csc-api, CRYPTO_CERT_REQUEST_EIO, CERTIFICATE_REQUEST, GET_CRYPTO_INFO_EIO, GET_CRYPTO_INFO; may be given several times.
    #[arg(long = "scope", value_name = "SCOPE", default_value = "ticket-api")]
    scopes: Vec<Scope>,
    /// Who decides about its signatures, as `consent` of a `[[caller]]`.
    #[arg(long, value_name = "POLICY", value_parser = consent)]
    consent: Option<ConsentPolicy>,
    /// Who decides about its signatures with one key, where that is another; may be given several times.
    #[arg(long, value_name = "KEY=POLICY", value_parser = consent_for)]
    consent_for: Vec<(KeyName, ConsentPolicy)>,
    /// The login of its account; for the scopes of the certificate-request API.
    #[arg(long, value_name = "LOGIN", requires_all = ["full_name", "organisation"])]
    login: Option<AccountText>,
    /// Surname, name and patronymic of the account, as they stand in certificates.
    #[arg(long, value_name = "NAME", requires = "login")]
    full_name: Option<AccountText>,
    /// The organisation of the account.
    #[arg(long, value_name = "NAME", requires = "login")]
    organisation: Option<AccountText>,
    /// The account alone may act for the organisation.
    #[arg(long, requires = "login")]
    eio: bool,
    /// An origin of its web pages, say `https://example.org`; may be given several times.
    #[arg(long = "origin", value_name = "ORIGIN")]
    origins: Vec<String>,
    /// Its TLS client certificate: the SHA-256 of one, or a subject such as CN=erp,O=Example.
    #[arg(long, value_name = "SHA256-or-SUBJECT", value_parser = certificate)]
    client_cert: Option<ClientCertificateId>,
    /// It gets no API key: it is known by its certificate or its origins.
    #[arg(long)]
    no_api_key: bool,
    /// When its API key ends: 90d, 12h, 2027-01-31, 2027-01-31T12:00:00Z. Default: never.
    #[arg(long, value_name = "WHEN")]
    expires: Option<When>,
    /// Requests a second, and at once, where that is not what all callers may: 10 or 10/50.
    #[arg(long, value_name = "N[/BURST]", value_parser = rate)]
    rate: Option<Rate>,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

/// Arguments of `callers rotate`.
#[derive(Debug, clap::Args)]
pub(super) struct RotateArgs {
    #[command(flatten)]
    pub(super) gateway: GatewayArgs,
    /// The caller.
    pub(super) name: CallerId,
    /// How long the old API key stays good, say 0, 30m, 12h or 7d; 90 days at most.
    #[arg(long, value_name = "TIME", default_value_t = GRACE)]
    pub(super) grace: Lasting,
    /// When the new API key ends: 90d, 12h, 2027-01-31, 2027-01-31T12:00:00Z. Default: never.
    #[arg(long, value_name = "WHEN")]
    pub(super) expires: Option<When>,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

impl AddArgs {
    /// The caller that they describe, at `now`.
    pub(super) fn caller(&self, now: Timestamp) -> anyhow::Result<NewCaller> {
        let scopes: Scopes = self.scopes.iter().copied().collect();
        if self.keys.is_empty() && !self.all_keys && (scopes.allow(Scope::TicketApi) || scopes.allow(Scope::CscApi)) {
            return Err(Usage("say which keys it may use: --key KEY, several times if need be, or --all-keys".to_owned()).into());
        }
        let only = if let [only] = &self.keys[..] { Some(only.clone()) } else { None };
        let account = match (&self.login, &self.full_name, &self.organisation) {
            (Some(login), Some(full_name), Some(organisation)) => {
                Some(Account { login: login.clone(), full_name: full_name.clone(), organisation: organisation.clone(), eio: self.eio })
            }
            _ => None,
        };
        Ok(NewCaller {
            id: self.name.clone(),
            keys: if self.all_keys { KeyAccess::All } else { KeyAccess::Only(self.keys.clone()) },
            default_key: self.default_key.clone().or(only),
            consent: self.consent.unwrap_or_default(),
            consent_for: self.consent_for.iter().cloned().collect(),
            scopes,
            account,
            rate: self.rate,
            with_api_key: !self.no_api_key,
            expires: self.expires.map(|expires| until(expires, now)).transpose()?,
            client_certificate: self.client_cert.clone(),
            origins: self.origins.clone(),
        })
    }
}

fn consent_for(text: &str) -> Result<(KeyName, ConsentPolicy), String> {
    let (key, policy) = text.split_once('=').ok_or("write KEY=POLICY")?;
    Ok((key.parse().map_err(|error: NameError| error.to_string())?, consent(policy)?))
}

fn consent(text: &str) -> Result<ConsentPolicy, String> {
    serde_json::from_value(text.into()).map_err(|_| "use one of the policies of `consent` in docs/configuration.md".to_owned())
}

fn certificate(text: &str) -> Result<ClientCertificateId, String> {
    let mut hash = [0; 32];
    // As OpenSSL prints it, too.
    if hex::decode_to_slice(text.replace(':', ""), &mut hash).is_ok() {
        return Ok(ClientCertificateId::Sha256(hash.into()));
    }
    text.parse().map(ClientCertificateId::Subject).map_err(|error: crate::domain::certificate::SubjectNameError| error.to_string())
}

fn rate(text: &str) -> Result<Rate, String> {
    let number = |text: &str| text.parse::<u32>().ok().filter(|number| *number <= 1_000_000);
    let (per_second, burst) = match text.split_once('/') {
        Some((per_second, burst)) => (number(per_second), number(burst)),
        None => (number(text), number(text).map(|number| number.saturating_mul(2).max(1))),
    };
    match (per_second, burst) {
        (Some(per_second), Some(burst)) if burst > 0 => Ok(Rate { per_second, burst }),
        _ => Err("write requests a second, and at once if you like: 10 or 10/50".to_owned()),
    }
}

/// A span of time as it is written: a number of seconds, minutes, hours or days.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lasting(pub(super) Duration);

impl Lasting {
    pub(super) fn as_millis(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }
}

impl FromStr for Lasting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unit = |suffix: char| match suffix {
            's' => Some(1),
            'm' => Some(60),
            'h' => Some(3600),
            'd' => Some(24 * 3600),
            _ => None,
        };
        let seconds = match text.chars().last() {
            _ if text == "0" => Some(0),
            Some(last) => unit(last).and_then(|unit| text[..text.len() - last.len_utf8()].parse::<u64>().ok()?.checked_mul(unit)),
            None => None,
        };
        // More is beyond every calendar.
        let seconds = seconds.filter(|seconds| *seconds <= 1000 * 366 * 24 * 3600);
        seconds.map(|seconds| Self(Duration::from_secs(seconds))).ok_or_else(|| "write a time such as 0, 30m, 12h or 7d".to_owned())
    }
}

impl fmt::Display for Lasting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        match [(24 * 3600, 'd'), (3600, 'h'), (60, 'm')].into_iter().find(|(unit, _)| seconds >= *unit && seconds.is_multiple_of(*unit)) {
            Some((unit, suffix)) => write!(f, "{}{suffix}", seconds / unit),
            None => write!(f, "{seconds}s"),
        }
    }
}

/// A time that is to come: a span from now, a day, or an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    In(Lasting),
    At(Timestamp),
}

impl FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let instant = if text.contains('T') { text.to_owned() } else { format!("{text}T00:00:00Z") };
        if let Ok(time) = instant.parse::<der::DateTime>() {
            return Ok(Self::At(time.to_system_time().into()));
        }
        let wrong = "write 90d, 12h, a day (2027-01-31) or an instant in UTC (2027-01-31T12:00:00Z)";
        text.parse().map(Self::In).map_err(|_: String| wrong.to_owned())
    }
}

/// The instant, seen from `now`.
pub(super) fn until(when: When, now: Timestamp) -> anyhow::Result<Timestamp> {
    let instant = match when {
        When::In(lasting) => now.after(lasting.0),
        When::At(instant) => instant,
    };
    Some(instant).filter(|instant| *instant > now).context("the time at which the API key ends must be in the future")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_of_time_are_read_as_they_are_printed() {
        for (text, seconds) in [("45s", 45), ("30m", 1800), ("12h", 43_200), ("7d", 604_800)] {
            let lasting: Lasting = text.parse().unwrap();
            assert_eq!((lasting.0.as_secs(), lasting.to_string().as_str()), (seconds, text));
        }
        assert_eq!("0".parse(), Ok(Lasting(Duration::ZERO)));
        for bad in ["", "7", "d", "-1d", "7w", "1.5h", "99999999999999999999d", "7д"] {
            assert!(bad.parse::<Lasting>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_end_is_a_span_a_day_or_an_instant_and_not_past() {
        let now = Timestamp::from_millis(1_000);
        let end = |text: &str| until(text.parse().unwrap(), now).ok().map(Timestamp::to_rfc3339);
        assert_eq!(end("1h").as_deref(), Some("1970-01-01T01:00:01Z"));
        assert_eq!(end("2027-01-31").as_deref(), Some("2027-01-31T00:00:00Z"));
        assert_eq!(end("2027-01-31T12:00:00Z").as_deref(), Some("2027-01-31T12:00:00Z"));
        assert_eq!(end("1970-01-01"), None);
        for bad in ["", "soon", "2027-13-01", "31.01.2027"] {
            assert!(bad.parse::<When>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_rate_without_a_burst_gets_twice_as_much_at_once() {
        assert_eq!(rate("10"), Ok(Rate { per_second: 10, burst: 20 }));
        assert_eq!(rate("10/5"), Ok(Rate { per_second: 10, burst: 5 }));
        assert_eq!(rate("0"), Ok(Rate { per_second: 0, burst: 1 }));
        for bad in ["", "x", "1/0", "1/", "-1", "2000000"] {
            assert!(rate(bad).is_err(), "{bad}");
        }
    }
}
