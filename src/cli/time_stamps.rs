//! Where the gateway's time stamps and evidence about certificates come from, put together from the configuration.

use std::sync::Arc;

use anyhow::Context as _;

use crate::{
    auth::AllowedPeers,
    cms::time_stamp::RESPONSE_MAX,
    config::{RevocationSettings, RevocationSourceSettings, TsaSettings},
    http::app::TsaDoor,
    pki::{
        fetch::Fetcher,
        revocation::{self, RevocationClient, RevocationSource, SourcePlace},
        trust::Trust,
        tsa::{self, TsaClient},
    },
    signing::service::SigningService,
    stamping::{Authority, AuthoritySettings, StampSettings, StampSource, TimeStamps},
    store::Store,
};

/// How many CRLs and OCSP answers are fetched at a time.
const EVIDENCE_CONCURRENT: usize = 8;

/// What the services and the HTTP side need for time stamps.
pub(super) struct TimeStampParts {
    /// Who asks for time stamps.
    pub(super) client: Arc<TimeStamps>,
    /// The gateway's own authority.
    pub(super) door: TsaDoor,
}

impl TimeStampParts {
    /// Time stamps from the authorities that are configured, or else from the gateway's own.
    pub(super) fn new(
        settings: &TsaSettings,
        signing: &Arc<SigningService>,
        store: &Arc<dyn Store>,
        trust: &Trust,
    ) -> anyhow::Result<Self> {
        let authority = settings.serve.as_ref().map(|serve| {
            let of_authority = AuthoritySettings { key: serve.key.clone(), policy: serve.policy, accuracy_seconds: serve.accuracy_seconds };
            Arc::new(Authority::new(of_authority, Arc::clone(signing), Arc::clone(store)))
        });
        let source = if settings.urls.is_empty() {
            authority.as_ref().map(|authority| StampSource::Own(Arc::clone(authority)))
        } else {
            Some(StampSource::Remote(remote(settings)?))
        };
        let allow = settings.serve.as_ref().map(|serve| serve.allow.clone()).unwrap_or_default();
        let client = TimeStamps::new(source, StampSettings { policy: settings.policy, total: settings.total })
            .trusting(trust.clone(), Arc::clone(store));
        Ok(Self { client: Arc::new(client), door: TsaDoor { authority, allow: AllowedPeers::new(allow) } })
    }
}

/// Who has evidence that certificates are not revoked.
pub(super) fn evidence(settings: &RevocationSettings) -> anyhow::Result<Arc<RevocationClient>> {
    let urls = || settings.sources.iter().flat_map(|source| source.ocsp.iter().chain(&source.crl));
    let fetcher = fetcher(urls().any(|url| url.scheme() == "https"))?;
    let source = |source: &RevocationSourceSettings| RevocationSource {
        issuer: source.issuer.clone(),
        places: [
            source.ocsp.clone().map(SourcePlace::Ocsp),
            source.crl.clone().map(SourcePlace::Crl),
            source.crl_file.clone().map(SourcePlace::CrlFile),
        ]
        .into_iter()
        .flatten()
        .collect(),
    };
    let settings = revocation::RevocationSettings {
        sources: settings.sources.iter().map(source).collect(),
        timeout: settings.timeout,
        crl_max: settings.crl_max,
        concurrent: EVIDENCE_CONCURRENT,
    };
    Ok(Arc::new(RevocationClient::new(fetcher, settings)))
}

fn fetcher(speaks_tls: bool) -> anyhow::Result<Fetcher> {
    Fetcher::new(speaks_tls).context("no certificates are trusted by this machine; install ca-certificates")
}

fn remote(settings: &TsaSettings) -> anyhow::Result<TsaClient> {
    let fetcher = fetcher(settings.urls.iter().any(|url| url.scheme() == "https"))?;
    let settings = tsa::TsaSettings {
        urls: settings.urls.clone(),
        timeout: settings.timeout,
        concurrent: settings.concurrent,
        queue: settings.queue,
        response_max: RESPONSE_MAX,
    };
    Ok(TsaClient::new(fetcher, settings))
}
