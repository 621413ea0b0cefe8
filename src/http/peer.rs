//! Who is at the other end of a request: the peer itself, or, behind a proxy that is trusted, whom the proxy speaks for.
//!
//! Used by everything that goes by address. Invariant: what a request says about where it came from counts only if the connection comes from
//! a trusted proxy, and then only up to the first address that is none.

use std::net::IpAddr;

use actix_web::{
    HttpRequest,
    http::header::{self, HeaderName},
};

use crate::auth::{AllowedHosts, TrustedProxies};

use super::extract::{header_text, host};

/// What proxies add to requests that they pass on.
const FORWARDED: [HeaderName; 4] = [header::FORWARDED, header::X_FORWARDED_FOR, HeaderName::from_static("x-real-ip"), header::VIA];
/// How the client has reached the proxy, as it tells.
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// The name that the client has used, as a proxy tells it.
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// The other end of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Peer {
    /// Its address.
    pub(super) address: IpAddr,
    /// The request says that a proxy has passed it on; whether that is true or not.
    pub(super) forwarded: bool,
}

impl Peer {
    /// Who has sent this request; `None` on a socket without addresses.
    pub(super) fn of(request: &HttpRequest, proxies: &TrustedProxies) -> Option<Self> {
        let direct = request.peer_addr()?.ip().to_canonical();
        // Several headers of one name are one list (RFC 9110 section 5.3). One that is no text ends what can be believed.
        let lines = request.headers().get_all(header::X_FORWARDED_FOR).map(|line| line.to_str().unwrap_or_default());
        let address = proxies.origin_of(direct, lines.collect::<Vec<_>>().join(",").rsplit(','));
        let forwarded = FORWARDED.iter().any(|name| request.headers().contains_key(name));
        Some(Self { address, forwarded })
    }

    /// It is a program on this machine, and no proxy that passes on what others have sent.
    pub(super) const fn is_this_machine(self) -> bool {
        self.address.is_loopback() && !self.forwarded
    }
}

/// Whether the request came by a name that the gateway answers to: the one in `Host`, and the one that a trusted proxy says it was called by.
///
/// Both, because a page can send a header of its own through a proxy that does not set it.
pub(super) fn is_called_by_its_name(request: &HttpRequest, hosts: &AllowedHosts, proxies: &TrustedProxies) -> bool {
    let by_proxy = request.peer_addr().is_some_and(|peer| proxies.trust(peer.ip()));
    let told = header_text(request, FORWARDED_HOST).filter(|_| by_proxy);
    hosts.allow(host(request)) && told.is_none_or(|told| told.split(',').all(|name| hosts.allow(Some(name.trim()))))
}

/// Whether a trusted proxy says that the client has reached it by TLS.
pub(super) fn is_forwarded_by_tls(request: &HttpRequest, proxies: &TrustedProxies) -> bool {
    let by_proxy = request.peer_addr().is_some_and(|peer| proxies.trust(peer.ip()));
    // Several proxies write a list; what counts is how the client came to the first.
    let told = header_text(request, FORWARDED_PROTO).and_then(|told| told.split(',').next());
    by_proxy && told.is_some_and(|told| told.trim().eq_ignore_ascii_case("https"))
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn proxies() -> TrustedProxies {
        TrustedProxies::new(vec!["10.0.0.0/8".parse().unwrap(), "127.0.0.1/32".parse().unwrap()])
    }

    fn address(from: &str, lines: &[&str]) -> String {
        let mut request = TestRequest::default().peer_addr(format!("{from}:1").parse().unwrap());
        for line in lines {
            request = request.append_header((header::X_FORWARDED_FOR, *line));
        }
        Peer::of(&request.to_http_request(), &proxies()).unwrap().address.to_string()
    }

    #[test]
    fn a_trusted_proxy_is_believed_up_to_the_first_address_that_is_none() {
        assert_eq!(address("10.0.0.1", &["192.0.2.7"]), "192.0.2.7");
        assert_eq!(address("10.0.0.1", &["198.51.100.1, 192.0.2.7"]), "192.0.2.7");
        assert_eq!(address("10.0.0.1", &["198.51.100.1, 192.0.2.7, 10.0.0.2 ,127.0.0.1"]), "192.0.2.7");
        assert_eq!(address("10.0.0.1", &["198.51.100.1", "192.0.2.7,10.0.0.2"]), "192.0.2.7");
        assert_eq!(address("10.0.0.1", &["[2001:db8::1]:4711"]), "2001:db8::1");
        assert_eq!(address("10.0.0.1", &["192.0.2.7:4711"]), "192.0.2.7");
        // Where there is nothing but proxies, the farthest of them has sent it.
        assert_eq!(address("10.0.0.1", &["10.0.0.3, 10.0.0.2"]), "10.0.0.3");
        assert_eq!(address("10.0.0.1", &[]), "10.0.0.1");
    }

    #[test]
    fn what_is_no_address_ends_what_is_believed() {
        for broken in ["unknown", "192.0.2.7, x", "192.0.2.7,", "", "192.0.2.7, \u{e9}"] {
            assert_eq!(address("10.0.0.1", &[broken]), "10.0.0.1", "{broken}");
        }
        assert_eq!(address("10.0.0.1", &["x, 10.0.0.2"]), "10.0.0.2");
    }

    #[test]
    fn nobody_else_is_believed() {
        assert_eq!(address("192.0.2.1", &["198.51.100.1"]), "192.0.2.1");
        assert_eq!(address("192.0.2.1", &["127.0.0.1"]), "192.0.2.1");
    }

    #[test]
    fn a_trusted_proxy_tells_by_which_name_it_was_called_and_hosts_count_all_the_same() {
        let hosts = AllowedHosts::new(["sign.example".to_owned()]).unwrap();
        let welcome = |from: &str, host: &str, told: &str| {
            let request = TestRequest::default().peer_addr(format!("{from}:1").parse().unwrap());
            let request = request.insert_header((header::HOST, host)).insert_header((FORWARDED_HOST, told));
            is_called_by_its_name(&request.to_http_request(), &hosts, &proxies())
        };
        assert!(welcome("10.0.0.1", "127.0.0.1:9091", "sign.example"));
        assert!(!welcome("10.0.0.1", "127.0.0.1:9091", "evil.example"));
        assert!(!welcome("10.0.0.1", "evil.example", "sign.example"));
        assert!(!welcome("10.0.0.1", "127.0.0.1:9091", "sign.example, evil.example"));
        assert!(welcome("192.0.2.1", "sign.example", "whatever.example"));
    }
}
