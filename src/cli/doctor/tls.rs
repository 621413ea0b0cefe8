//! TLS of the listeners: whether the files can be used together, and how long the gateway's certificate is still good.

use std::time::{Duration, SystemTime};

use super::{
    finding::{Findings, Fix},
    site::Site,
};
use crate::{cli::tls, config::TlsSettings, domain::timestamp::Timestamp, http::tls::Tls, pki::Certificate};

const CHECK: &str = "tls";
/// A certificate with less than this left is worth a word.
const EXPIRES_SOON: Duration = Duration::from_secs(14 * 24 * 3600);

/// Looks at every listener that speaks TLS.
pub(super) fn examine(site: &Site, findings: &mut Findings) {
    for settings in site.config.listeners.iter().filter_map(|listener| listener.tls.as_ref()) {
        match tls::load(settings) {
            Ok(tls) => validity(settings, &tls, Timestamp::from(SystemTime::now()), findings),
            Err(error) => {
                let fix = Fix::by_hand("correct the file, or `tls` in the configuration; a gateway that runs goes on with what it has");
                findings.fault(CHECK, error.to_string(), "the gateway does not start", fix);
            }
        }
    }
}

fn validity(settings: &TlsSettings, tls: &Tls, now: Timestamp, findings: &mut Findings) {
    let file = settings.certificate.display();
    let new_one = || Fix::by_hand(format!("put a new certificate into {file}, then send the gateway SIGHUP"));
    let certificate = match Certificate::from_der(&tls.certificate()) {
        Ok(certificate) => certificate,
        Err(error) => return findings.fault(CHECK, format!("{file}: {error}"), "clients refuse it", new_one()),
    };
    let days = certificate.not_after().since(now).as_secs() / (24 * 3600);
    if now < certificate.not_before() {
        findings.fault(CHECK, format!("{file}: the certificate is not valid yet"), "clients refuse it", new_one());
    } else if certificate.not_after() < now {
        findings.fault(CHECK, format!("{file}: the certificate has expired"), "clients refuse it", new_one());
    } else if !certificate.valid_at(now.after(EXPIRES_SOON)) {
        findings.warning(CHECK, format!("{file}: the certificate expires in {days} days"), "clients refuse it then", new_one());
    } else {
        findings.ok(CHECK, format!("{file}: good for {days} days"));
    }
}
