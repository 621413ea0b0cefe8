//! `[[listener]]`: the addresses the gateway listens on.

use std::{
    fs, io,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use super::{
    Names, Unique,
    mistakes::{FileFault, Mistakes, Place},
    raw::{Item, RawListener, RawTls},
};
use crate::domain::ids::CallerId;

/// The port that is listened on where the configuration names none, on the loopback address.
pub const DEFAULT_PORT: u16 = 9091;

/// An address to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Address and port; port 0 is any free one.
    pub address: SocketAddr,
    /// Who a request without credentials is taken for on this listener.
    pub caller: Option<CallerId>,
    /// The files that it speaks TLS with; `None` for plain HTTP.
    pub tls: Option<TlsSettings>,
}

/// The PEM files of a listener that speaks TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSettings {
    /// The gateway's certificate, and those of its CAs but the root.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The CAs whose certificates clients may show.
    pub client_ca: Option<PathBuf>,
}

pub(super) fn check(raw: Vec<Item<RawListener>>, names: &Names, base: &Path, mistakes: &mut Mistakes) -> Vec<Listener> {
    if raw.is_empty() {
        return vec![Listener { address: SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT)), caller: None, tls: None }];
    }
    let mut addresses = Unique::new();
    raw.into_iter().filter_map(|item| one(item, names, base, &mut addresses, mistakes)).collect()
}

fn one(
    item: Item<RawListener>,
    names: &Names,
    base: &Path,
    addresses: &mut Unique<SocketAddr>,
    mistakes: &mut Mistakes,
) -> Option<Listener> {
    let Item { at, raw } = item;
    let at = &at;
    let caller = raw.caller.as_deref().and_then(|name| mistakes.parse::<CallerId>(at, "caller", name));
    if let Some(caller) = caller.as_ref().filter(|caller| !names.has_caller(caller.as_str())) {
        mistakes.note(at, "caller", format!("there is no [[caller]] named `{caller}`; add one or correct the name"));
    }
    let speaks_tls = raw.tls.is_some();
    let tls = raw.tls.map(|tls| tls_files(tls, at, base, mistakes));
    if speaks_tls && raw.insecure_http {
        mistakes.note(at, "insecure_http", "this listener speaks TLS; remove one of the two");
    }
    let Ok(address) = raw.address.parse::<SocketAddr>() else {
        mistakes.note(at, "address", "write an IP address and a port, say \"127.0.0.1:9091\" or \"[::1]:9091\"");
        return None;
    };
    if address.port() != 0 {
        addresses.check(address, at, "address", mistakes);
    }
    if !address.ip().is_loopback() {
        if !speaks_tls && !raw.insecure_http {
            mistakes.note(
                at,
                "address",
                "other machines can reach this address, and HTTP would show them API keys and PINs; add `tls`, listen on \
                 127.0.0.1 behind a TLS proxy, or set `insecure_http = true` if the network itself is private",
            );
        }
        if caller.is_some() {
            mistakes.note(at, "caller", "everybody who reaches this address would be this caller; only a loopback address may have one");
        }
    }
    Some(Listener { address, caller, tls })
}

/// What can be said of the files without reading them; what is in them is found out when they are loaded.
fn tls_files(raw: RawTls, at: &Place, base: &Path, mistakes: &mut Mistakes) -> TlsSettings {
    let mut file = |field: &str, path: PathBuf| {
        let path = base.join(path);
        let wrong = match fs::metadata(&path) {
            Ok(metadata) if !metadata.is_file() => Some("is not a file".to_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Some("does not exist; correct the path".to_owned()),
            Ok(_) | Err(_) => None,
        };
        if let Some(wrong) = wrong {
            mistakes.note(at, field, format!("{} {wrong}", path.display()));
        }
        path
    };
    let certificate = file("tls.certificate", raw.certificate);
    let key = file("tls.key", raw.key);
    let client_ca = raw.client_ca.map(|path| file("tls.client_ca", path));
    // A group may: that is how several services of a machine share one key.
    if fs::metadata(&key).is_ok_and(|metadata| metadata.permissions().mode() & 0o007 != 0) {
        let what = format!("anybody can read the private key; run: chmod o= {}", key.display());
        mistakes.note_file(at, "tls.key", what, FileFault::TlsKeyExposed(key.clone()));
    }
    TlsSettings { certificate, key, client_ca }
}
