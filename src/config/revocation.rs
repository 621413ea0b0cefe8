//! `[revocation]`: where evidence comes from that certificates are not revoked, and what is demanded of it.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use reqwest::Url;

use super::{
    keys::certificate,
    mistakes::Mistakes,
    raw::{Item, RawRevocation, RawRevocationSource},
    tsa::url,
};
use crate::domain::revocation::RevocationCheck;

/// Evidence about certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevocationSettings {
    /// Sources by issuer; for other issuers the certificates themselves say.
    pub sources: Vec<RevocationSourceSettings>,
    /// How long one place may take.
    pub timeout: Duration,
    /// The longest CRL that is taken, in bytes.
    pub crl_max: usize,
    /// What is demanded of it when a signature is verified.
    pub check: RevocationCheck,
    /// Whether it is fetched for signatures that are verified and do not carry it.
    pub fetch: bool,
}

/// Where evidence about one issuer's certificates comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevocationSourceSettings {
    /// The issuer's certificate in DER.
    pub issuer: Vec<u8>,
    /// Its OCSP responder.
    pub ocsp: Option<Url>,
    /// Its CRL.
    pub crl: Option<Url>,
    /// Its CRL in a file, in DER.
    pub crl_file: Option<PathBuf>,
}

impl Default for RevocationSettings {
    fn default() -> Self {
        Self {
            sources: Vec::new(),
            timeout: Duration::from_secs(TIMEOUT_SECONDS),
            crl_max: CRL_MAX as usize,
            check: RevocationCheck::default(),
            fetch: true,
        }
    }
}

const MIB: u64 = 1 << 20;
const TIMEOUT_SECONDS: u64 = 10;
const CRL_MAX: u64 = 4 * MIB;

pub(super) fn check(raw: Option<Item<RawRevocation>>, base: &Path, mistakes: &mut Mistakes) -> RevocationSettings {
    let (at, raw) = super::settings::split(raw);
    let timeout = mistakes.bounded(&at, "timeout_seconds", raw.timeout_seconds, TIMEOUT_SECONDS, (1, 120));
    let crl_max = mistakes.bounded(&at, "crl_max_bytes", raw.crl_max_bytes, CRL_MAX, (1024, 32 * MIB));
    let choices = RevocationCheck::ALL.map(|check| (check.name(), check));
    let check = raw.check.as_deref().and_then(|text| mistakes.choose(&at, "check", text, &choices)).unwrap_or_default();
    let source = |raw: &RawRevocationSource| {
        if raw.ocsp.is_none() && raw.crl.is_none() && raw.crl_file.is_none() {
            mistakes.note(&at, "source", "name at least one of `ocsp`, `crl` and `crl_file`");
        }
        let ocsp = raw.ocsp.as_deref().and_then(|text| url(&at, "source.ocsp", text, mistakes));
        let crl = raw.crl.as_deref().and_then(|text| url(&at, "source.crl", text, mistakes));
        let issuer = certificate(&base.join(&raw.issuer), &at, "source.issuer", mistakes)?;
        Some(RevocationSourceSettings { issuer, ocsp, crl, crl_file: raw.crl_file.as_ref().map(|file| base.join(file)) })
    };
    let sources = raw.source.iter().filter_map(source).collect();
    RevocationSettings {
        sources,
        timeout: Duration::from_secs(timeout),
        crl_max: usize::try_from(crl_max).unwrap_or(usize::MAX),
        check,
        fetch: raw.fetch.unwrap_or(true),
    }
}
