//! Origins of web pages (RFC 6454), as browsers send them.

use std::{fmt, str::FromStr};

/// The origin of a web page: scheme, host and port.
///
/// Browsers send it in lower case and without a default port, and it is compared as text; so it is kept in just that form.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin(String);

/// A text that is no origin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an origin: write https://host or https://host:port, with nothing behind it")]
pub struct OriginError(String);

impl Origin {
    /// The origin as a browser sends it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Origin {
    type Err = OriginError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || OriginError(text.chars().take(80).collect());
        let lower = text.to_ascii_lowercase();
        let (scheme, rest) = lower.split_once("://").ok_or_else(error)?;
        let default_port = match scheme {
            "https" => Some(443),
            "http" => Some(80),
            // Browser extensions have schemes of their own, and no ports.
            "chrome-extension" | "moz-extension" => None,
            _ => return Err(error()),
        };
        let (host, port) = split_port(rest).ok_or_else(error)?;
        let in_host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
        if host.is_empty() || !host.chars().all(in_host) {
            return Err(error());
        }
        Ok(Self(match port {
            Some(port) if Some(port) != default_port => format!("{scheme}://{host}:{port}"),
            _ => format!("{scheme}://{host}"),
        }))
    }
}

/// Splits `host`, `host:port`, `[v6]` or `[v6]:port`; `None` if there is a port that is none.
pub(super) fn split_port(authority: &str) -> Option<(&str, Option<u16>)> {
    let after_v6 = authority.rfind(']').map_or(0, |end| end + 1);
    match authority[after_v6..].split_once(':') {
        None => Some((authority, None)),
        Some((rest, port)) => {
            let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
            Some((&authority[..after_v6 + rest.len()], Some(port.parse().ok().filter(|_| digits)?)))
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_kept_as_browsers_send_it() {
        let kept = |text: &str| text.parse::<Origin>().unwrap().as_str().to_owned();
        assert_eq!(kept("https://Bank.Example"), "https://bank.example");
        assert_eq!(kept("https://bank.example:443"), "https://bank.example");
        assert_eq!(kept("http://localhost:8080"), "http://localhost:8080");
        assert_eq!(kept("http://[::1]:8080"), "http://[::1]:8080");
    }

    #[test]
    fn what_a_browser_never_sends_is_refused() {
        for bad in [
            "null",
            "*",
            "bank.example",
            "https://",
            "https://a/b",
            "https://a/",
            "ftp://a",
            "https://a:port",
            "https://a:+1",
            "https://a b",
        ] {
            assert!(bad.parse::<Origin>().is_err(), "{bad}");
        }
    }
}
