//! `[revocation]`: where evidence comes from that certificates are not revoked.

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

/// Evidence about certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevocationSettings {
    /// Sources by issuer; for other issuers the certificates themselves say.
    pub sources: Vec<RevocationSourceSettings>,
    /// How long one place may take.
    pub timeout: Duration,
    /// The longest CRL that is taken, in bytes.
    pub crl_max: usize,
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

const MIB: u64 = 1 << 20;

pub(super) fn check(raw: Option<Item<RawRevocation>>, base: &Path, mistakes: &mut Mistakes) -> RevocationSettings {
    let (at, raw) = super::settings::split(raw);
    let timeout = mistakes.bounded(&at, "timeout_seconds", raw.timeout_seconds, 10, (1, 120));
    let crl_max = mistakes.bounded(&at, "crl_max_bytes", raw.crl_max_bytes, 4 * MIB, (1024, 32 * MIB));
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
    RevocationSettings { sources, timeout: Duration::from_secs(timeout), crl_max: usize::try_from(crl_max).unwrap_or(usize::MAX) }
}
