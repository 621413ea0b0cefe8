//! The `Host` check against DNS rebinding.
//!
//! A page whose own name is made to resolve to this machine reaches the gateway with that name in `Host`, and the browser takes it for the same
//! origin, so neither CORS nor `Origin` stops it. Only the name does.

use std::{collections::HashSet, net::IpAddr, str::FromStr};

use super::origin::split_port;

/// A text that is no host name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a host name: write it without scheme, port and path")]
pub struct HostNameError(String);

/// The host names under which the gateway answers.
#[derive(Debug, Clone, Default)]
pub struct AllowedHosts {
    names: HashSet<String>,
}

impl AllowedHosts {
    /// Takes the configured names; the loopback ones are always among them.
    ///
    /// # Errors
    /// [`HostNameError`] names the first that is none.
    pub fn new(names: impl IntoIterator<Item = String>) -> Result<Self, HostNameError> {
        let lawful = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let checked = names.into_iter().map(|name| {
            let good = !name.is_empty() && name.chars().all(lawful);
            if good { Ok(name.to_ascii_lowercase()) } else { Err(HostNameError(name.chars().take(80).collect())) }
        });
        Ok(Self { names: checked.collect::<Result<_, _>>()? })
    }

    /// Whether a request with this `Host` is answered; one without is not.
    ///
    /// An address is always good: a page that was reached by it cannot be the disguise of a name.
    #[must_use]
    pub fn allow(&self, host: Option<&str>) -> bool {
        let Some((name, _port)) = host.and_then(split_port) else { return false };
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let v6 = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        name == "localhost" || name.ends_with(".localhost") || IpAddr::from_str(v6.unwrap_or(&name)).is_ok() || self.names.contains(&name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_names_addresses_and_configured_names_are_answered() {
        let hosts = AllowedHosts::new(["Sign.example".to_owned()]).unwrap();
        for good in
            ["localhost", "localhost:9091", "LOCALHOST:1", "127.0.0.1:9091", "[::1]:9091", "192.0.2.7", "sign.example:443", "sign.example."]
        {
            assert!(hosts.allow(Some(good)), "{good}");
        }
        for bad in [
            "evil.example",
            "localhost.evil.example",
            "sign.example.evil.example",
            "127.0.0.1.evil.example",
            "",
            "localhost:x",
            "sign.example:1:2",
        ] {
            assert!(!hosts.allow(Some(bad)), "{bad}");
        }
        assert!(!hosts.allow(None));
    }

    #[test]
    fn a_configured_name_is_a_name_and_nothing_more() {
        for bad in ["", "https://sign.example", "sign.example:443", "sign.example/"] {
            assert!(AllowedHosts::new([bad.to_owned()]).is_err(), "{bad}");
        }
    }
}
