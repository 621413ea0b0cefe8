//! `[tsa]`: where time stamps come from, and the gateway as an authority.

use std::{num::NonZeroUsize, time::Duration};

use const_oid::ObjectIdentifier;
use ipnet::IpNet;
use reqwest::Url;

use super::{
    Names,
    mistakes::{Mistakes, Place},
    raw::{Item, RawTsa, RawTsaServe},
    settings::networks,
};
use crate::domain::ids::KeyName;

/// Time stamps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TsaSettings {
    /// The authorities that are asked, in this order; none: the gateway's own, if there is one.
    pub urls: Vec<Url>,
    /// How long one of them may take.
    pub timeout: Duration,
    /// How long a time stamp may take in all, waiting for a turn included.
    pub total: Duration,
    /// How many requests are on their way at the same time.
    pub concurrent: NonZeroUsize,
    /// How many more may wait for their turn.
    pub queue: usize,
    /// The policy that is asked for.
    pub policy: Option<ObjectIdentifier>,
    /// The gateway as an authority.
    pub serve: Option<TsaServeSettings>,
}

/// The gateway as a time-stamping authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TsaServeSettings {
    /// The key that signs time stamps.
    pub key: KeyName,
    /// The policy under which they are made.
    pub policy: ObjectIdentifier,
    /// How far the clock may be wrong, in seconds.
    pub accuracy_seconds: u64,
    /// The networks that may ask, beside this machine.
    pub allow: Vec<IpNet>,
}

pub(super) fn check(raw: Option<Item<RawTsa>>, names: &Names, mistakes: &mut Mistakes) -> TsaSettings {
    let (at, raw) = super::settings::split(raw);
    let urls = raw.urls.iter().filter_map(|text| url(&at, "urls", text, mistakes)).collect();
    let timeout = mistakes.bounded(&at, "timeout_seconds", raw.timeout_seconds, 10, (1, 120));
    let total = mistakes.bounded(&at, "total_seconds", raw.total_seconds, 40, (1, 300));
    let concurrent = mistakes.bounded(&at, "concurrent", raw.concurrent, 8, (1, 256));
    let queue = mistakes.bounded(&at, "queue", raw.queue, 256, (0, 65_536));
    let policy = raw.policy.as_deref().and_then(|text| policy(&at, "policy", text, mistakes));
    let serve = raw.serve.and_then(|serve| self::serve(&at, &serve, names, mistakes));
    TsaSettings {
        urls,
        timeout: Duration::from_secs(timeout),
        total: Duration::from_secs(total),
        concurrent: usize::try_from(concurrent).ok().and_then(NonZeroUsize::new).unwrap_or(NonZeroUsize::MIN),
        queue: usize::try_from(queue).unwrap_or(usize::MAX),
        policy,
        serve,
    }
}

fn serve(at: &Place, raw: &RawTsaServe, names: &Names, mistakes: &mut Mistakes) -> Option<TsaServeSettings> {
    let key = raw.key.parse::<KeyName>().ok().filter(|_| names.has_key(&raw.key));
    if key.is_none() {
        mistakes.note(at, "serve.key", "no [[key]] of this file has this name; name one of them, whose certificate is for time stamping");
    }
    let policy = policy(at, "serve.policy", &raw.policy, mistakes);
    let accuracy_seconds = mistakes.bounded(at, "serve.accuracy_seconds", raw.accuracy_seconds, 1, (1, 3600));
    let allow = networks(at, "serve.allow", &raw.allow, mistakes);
    Some(TsaServeSettings { key: key?, policy: policy?, accuracy_seconds, allow })
}

/// An address of an authority. Neither it nor the mistake is shown: there may be a password in it.
pub(super) fn url(at: &Place, field: &str, text: &str, mistakes: &mut Mistakes) -> Option<Url> {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    if url.is_none() {
        mistakes.note(at, field, "write addresses that begin with http:// or https://, say \"http://tsa.example.org/tsp\"");
    }
    url
}

fn policy(at: &Place, field: &str, text: &str, mistakes: &mut Mistakes) -> Option<ObjectIdentifier> {
    let policy = ObjectIdentifier::new(text).ok();
    if policy.is_none() {
        mistakes.note(at, field, "write an object identifier, say \"1.2.3.4\"");
    }
    policy
}
