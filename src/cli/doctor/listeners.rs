//! Whether the addresses of the configuration can be listened on. Only while no gateway runs: it has them then.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
};

use super::{
    finding::{Findings, Fix},
    shell,
    site::Site,
};

const CHECK: &str = "listener";
const WHY: &str = "the gateway does not start";

/// Looks at every address.
pub(super) fn examine(site: &Site, findings: &mut Findings) {
    let for_callers = site.config.listeners.iter().map(|listener| listener.address);
    for address in for_callers.chain(site.config.metrics.listen) {
        one(site, address, findings);
    }
}

fn one(site: &Site, address: SocketAddr, findings: &mut Findings) {
    let error = match TcpListener::bind(address) {
        Ok(_) => return findings.ok(CHECK, format!("{address} can be listened on")),
        Err(error) => error,
    };
    let fix = match error.kind() {
        io::ErrorKind::AddrInUse => another_port(site, address)
            .unwrap_or_else(|| Fix::by_hand(format!("end the program that listens on {address}, or choose another port"))),
        io::ErrorKind::AddrNotAvailable => {
            let here = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), address.port());
            replaced(site, address, here).unwrap_or_else(|| Fix::by_hand("write an address of this machine"))
        }
        io::ErrorKind::PermissionDenied => {
            Fix::command(shell::as_root(&format!("setcap cap_net_bind_service=+ep {}", shell::program_file())))
        }
        _ => Fix::by_hand("choose another address"),
    };
    findings.fault(CHECK, format!("{address} cannot be listened on: {error}"), WHY, fix);
}

/// Has the gateway listen on a port that is free now. Whoever holds the other one may need it.
fn another_port(site: &Site, address: SocketAddr) -> Option<Fix> {
    let free = TcpListener::bind(SocketAddr::new(address.ip(), 0)).ok()?.local_addr().ok()?;
    replaced(site, address, free)
}

fn replaced(site: &Site, old: SocketAddr, new: SocketAddr) -> Option<Fix> {
    site.replace(&format!("\"{old}\""), &format!("\"{new}\""))
}
