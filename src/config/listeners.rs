//! `[[listener]]`: the addresses the gateway listens on.

use std::net::{Ipv4Addr, SocketAddr};

use super::{
    Names, Unique,
    mistakes::Mistakes,
    raw::{Item, RawListener},
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
}

pub(super) fn check(raw: Vec<Item<RawListener>>, names: &Names, mistakes: &mut Mistakes) -> Vec<Listener> {
    if raw.is_empty() {
        return vec![Listener { address: SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT)), caller: None }];
    }
    let mut addresses = Unique::new();
    raw.into_iter().filter_map(|item| one(&item, names, &mut addresses, mistakes)).collect()
}

fn one(item: &Item<RawListener>, names: &Names, addresses: &mut Unique<SocketAddr>, mistakes: &mut Mistakes) -> Option<Listener> {
    let Item { at, raw } = item;
    let caller = raw.caller.as_deref().and_then(|name| mistakes.parse::<CallerId>(at, "caller", name));
    if let Some(caller) = caller.as_ref().filter(|caller| !names.has_caller(caller.as_str())) {
        mistakes.note(at, "caller", format!("there is no [[caller]] named `{caller}`; add one or correct the name"));
    }
    let Ok(address) = raw.address.parse::<SocketAddr>() else {
        mistakes.note(at, "address", "write an IP address and a port, say \"127.0.0.1:9091\" or \"[::1]:9091\"");
        return None;
    };
    if address.port() != 0 {
        addresses.check(address, at, "address", mistakes);
    }
    if !address.ip().is_loopback() {
        if !raw.insecure_http {
            mistakes.note(
                at,
                "address",
                "other machines can reach this address, and HTTP would show them API keys and PINs; listen on 127.0.0.1 behind a TLS proxy, \
                 or set `insecure_http = true` if the network itself is private",
            );
        }
        if caller.is_some() {
            mistakes.note(at, "caller", "everybody who reaches this address would be this caller; only a loopback address may have one");
        }
    }
    Some(Listener { address, caller })
}
