//! Which machines may see the gateway's numbers.

use std::net::IpAddr;

use ipnet::IpNet;

/// The networks whose peers are let in, beside this machine itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowedPeers(Vec<IpNet>);

impl AllowedPeers {
    /// Lets in the peers of these networks.
    #[must_use]
    pub const fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    /// Whether a connection from `peer` is let in. `forwarded`: the request says that a proxy passed it on, so that a peer on this machine is
    /// not who asks.
    #[must_use]
    pub fn allow(&self, peer: IpAddr, forwarded: bool) -> bool {
        // A socket for both families shows IPv4 peers as IPv6 addresses.
        let peer = peer.to_canonical();
        self.0.iter().any(|network| network.contains(&peer)) || (peer.is_loopback() && !forwarded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_and_the_named_networks_are_let_in() {
        let peers = AllowedPeers::new(vec!["192.0.2.0/24".parse().unwrap(), "2001:db8::7/128".parse().unwrap()]);
        for good in ["127.0.0.1", "::1", "::ffff:127.0.0.1", "192.0.2.9", "::ffff:192.0.2.9", "2001:db8::7"] {
            assert!(peers.allow(good.parse().unwrap(), false), "{good}");
        }
        for bad in ["192.0.3.1", "10.0.0.1", "2001:db8::8", "::ffff:10.0.0.1"] {
            assert!(!peers.allow(bad.parse().unwrap(), false), "{bad}");
        }
        assert!(!AllowedPeers::default().allow("192.0.2.9".parse().unwrap(), false));
    }

    #[test]
    fn a_proxy_on_this_machine_does_not_lend_its_address() {
        let peers = AllowedPeers::new(vec!["192.0.2.0/24".parse().unwrap()]);
        assert!(!peers.allow("127.0.0.1".parse().unwrap(), true));
        assert!(peers.allow("192.0.2.1".parse().unwrap(), true));
    }
}
