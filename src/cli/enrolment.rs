//! Certificate requests as the configuration wants them: profiles, and the CAs behind them.

use std::{collections::HashMap, fs, sync::Arc};

use anyhow::Context as _;
use secrecy::SecretString;
use tokio::{sync::mpsc, task::AbortHandle};
use tracing::warn;
use zeroize::Zeroizing;

use super::store::password;
use crate::{
    config::{Config, EstCredentials as ConfiguredCredentials, EstSettings as ConfiguredEst},
    domain::enrolment::profile::CaChoice,
    enrolment::{
        EnrolmentParts, EnrolmentService, ExpiryWarning,
        ca::{
            CertificateAuthority, DevelopmentCa,
            est::{EstCa, EstCredentials, EstSettings},
        },
    },
    pki::{Certificate, DevCa},
    signing::service::SigningService,
    store::Store,
    token::supervisor::Tokens,
};

/// The most warnings that wait to be told.
const WARNINGS_MAX: usize = 256;

/// The service, its clerk, and what is told of certificates that come to their end.
pub(super) struct Started {
    pub(super) service: Arc<EnrolmentService>,
    pub(super) clerk: AbortHandle,
    pub(super) warnings: mpsc::Receiver<ExpiryWarning>,
}

/// Puts the service together.
pub(super) async fn start(config: &Config, store: Arc<dyn Store>, signing: Arc<SigningService>, tokens: Tokens) -> anyhow::Result<Started> {
    let settings = &config.enrolment;
    let mut authorities: HashMap<CaChoice, Arc<dyn CertificateAuthority>> = HashMap::new();
    if let Some((key, certificate)) = &settings.dev_ca {
        let unreadable = |file: &std::path::Path| format!("{} cannot be read; correct `dev_ca` in the configuration", file.display());
        let key_pem = Zeroizing::new(fs::read_to_string(key).with_context(|| unreadable(key))?);
        let pem = fs::read_to_string(certificate).with_context(|| unreadable(certificate))?;
        let certificate = Certificate::from_pem(&pem).with_context(|| unreadable(certificate))?;
        let ca = DevCa::load(&key_pem, certificate.as_der()).context("the development CA cannot be used")?;
        warn!("certificates are issued to everybody by the development CA, whose key is a file; use it for development only");
        authorities.insert(CaChoice::Development, Arc::new(DevelopmentCa::new(ca)));
    }
    if let Some(est) = &settings.est {
        authorities.insert(CaChoice::Est, Arc::new(EstCa::new(est_settings(est)?).context("`[enrolment.est]` cannot be used")?));
    }
    let (profiles, renew_days) = (settings.profiles.clone(), settings.renew_days);
    let (sender, warnings) = mpsc::channel(WARNINGS_MAX);
    let parts = EnrolmentParts { store, signing, tokens, profiles, authorities, renew_days, warnings: Some(sender) };
    let service = Arc::new(EnrolmentService::new(parts).await.context("the active certificates cannot be read")?);
    let clerk = tokio::spawn(Arc::clone(&service).work_forever()).abort_handle();
    Ok(Started { service, clerk, warnings })
}

fn est_settings(settings: &ConfiguredEst) -> anyhow::Result<EstSettings> {
    let credentials = match &settings.credentials {
        ConfiguredCredentials::Password(user, source) => EstCredentials::Basic { user: user.clone(), password: password(source)? },
        ConfiguredCredentials::Certificate(certificate, key) => {
            let mut pem = Zeroizing::new(String::new());
            for file in [certificate, key] {
                let text =
                    fs::read_to_string(file).with_context(|| format!("{} cannot be read; correct `[enrolment.est]`", file.display()))?;
                pem.push_str(&Zeroizing::new(text));
                pem.push('\n');
            }
            EstCredentials::Certificate(SecretString::from(pem.as_str()))
        }
    };
    let url = settings.url.parse().context("`url` of `[enrolment.est]` is no address")?;
    Ok(EstSettings { url, anchors: settings.anchors.clone(), credentials })
}
