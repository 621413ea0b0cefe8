//! TLS of the listeners: the files that the configuration names, loaded at the start and, with the certificates that are trusted, on SIGHUP.

use std::sync::Arc;

use anyhow::Context as _;
use tokio::{
    signal::unix::{SignalKind, signal},
    task::{AbortHandle, spawn_blocking},
};
use tracing::{error, info};

use crate::{
    config::{Config, TlsSettings},
    http::tls::{Tls, TlsError, TlsFiles},
    pki::trust::Trust,
};

/// Loads the files of every listener; `None` for those that speak plain HTTP.
pub(super) fn load_all(config: &Config) -> anyhow::Result<Vec<Option<Arc<Tls>>>> {
    let load = |settings: &TlsSettings| load(settings).map(Arc::new).context("TLS cannot be spoken; correct the file or `tls`");
    config.listeners.iter().map(|listener| listener.tls.as_ref().map(load).transpose()).collect()
}

/// Loads the files of one listener.
pub(super) fn load(settings: &TlsSettings) -> Result<Tls, TlsError> {
    let TlsSettings { certificate, key, client_ca } = settings.clone();
    Tls::load(TlsFiles { certificate, key, client_ca })
}

/// Reads the files again at every SIGHUP. Where new files cannot be used, the old ones stay.
pub(super) fn reload_on_hangup(listeners: Vec<Arc<Tls>>, trust: Trust) -> anyhow::Result<AbortHandle> {
    let mut hangups = signal(SignalKind::hangup()).context("SIGHUP cannot be caught")?;
    let forever = async move {
        while hangups.recv().await.is_some() {
            let (listeners, trust) = (listeners.clone(), trust.clone());
            // Files may be on a network, and it may be away.
            let reload_all = move || {
                listeners.iter().for_each(|tls| reload(tls));
                reload_trust(&trust);
            };
            let _ = spawn_blocking(reload_all).await;
        }
    };
    Ok(tokio::spawn(forever).abort_handle())
}

fn reload_trust(trust: &Trust) {
    match trust.reload() {
        Ok(store) => info!("SIGHUP: {} certificates are trusted, {} others are known", store.anchors().len(), store.intermediates().len()),
        Err(error) => error!(error = %error, "SIGHUP: the trusted certificates cannot be read again, the old ones stay: {error}"),
    }
}

fn reload(tls: &Tls) {
    let file = tls.files().certificate.display();
    match tls.reload() {
        Ok(()) => info!("SIGHUP: {file} and what belongs to it were read again; new connections use them"),
        Err(error) => error!(error = %error, "SIGHUP: new files for TLS cannot be used, the old ones stay: {error}"),
    }
}
