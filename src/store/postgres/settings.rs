//! Where the database is and how it is reached: the URL as an operator writes it, made into what the driver wants.
//!
//! Invariant: the password is in nothing that can be printed.

use std::{fmt, path::PathBuf, time::Duration};

use secrecy::{ExposeSecret as _, SecretString};
use tokio_postgres::{Config, config::SslMode};

use super::tls::{Trust, Verification};
use crate::domain::ids::GatewayId;

/// The longest time that anything waits for a database that is away.
const WAIT: Duration = Duration::from_secs(5);

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(3);

/// After so long without an answer to what was sent, a connection is broken.
const SILENCE: Duration = Duration::from_secs(10);

/// Where the database is, and for whom.
#[derive(Clone)]
pub struct PostgresSettings {
    pub(super) config: Config,
    pub(super) trust: Trust,
    pub(super) gateway: GatewayId,
    /// What operators call the gateway.
    pub(super) name: String,
    pub(super) wait: Duration,
}

/// Why a database URL cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// It is no PostgreSQL URL.
    #[error("not a PostgreSQL URL; write postgres://USER@HOST/DATABASE")]
    NotPostgres,
    /// A part of it is not understood.
    #[error("the database URL cannot be used: {0}")]
    Part(String),
    /// The `sslmode` is not known.
    #[error("sslmode={0} is not known; use disable, prefer, require, verify-ca or verify-full")]
    SslMode(String),
}

impl fmt::Debug for PostgresSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresSettings").field("gateway", &self.gateway).field("trust", &self.trust).finish_non_exhaustive()
    }
}

impl PostgresSettings {
    /// Reads a URL `postgres://USER@HOST/DATABASE?sslmode=…&sslrootcert=…` (a directory as `host=` means a Unix socket).
    ///
    /// `sslmode` means what it means to `psql`: `prefer` and `require` encrypt without asking who answers, `verify-ca` and `verify-full`
    /// check the server's certificate against `sslrootcert`, a PEM file, or against the system's if there is none.
    ///
    /// # Errors
    /// [`UrlError`], which never shows the URL: a password may stand in it.
    pub fn new(url: &str, gateway: GatewayId) -> Result<Self, UrlError> {
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err(UrlError::NotPostgres);
        }
        let (place, query) = url.split_once('?').unwrap_or((url, ""));
        let (mut mode, mut root, mut rest) = ("prefer".to_owned(), None, Vec::new());
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("sslmode", value)) => value.clone_into(&mut mode),
                Some(("sslrootcert", "system")) => {}
                Some(("sslrootcert", value)) => root = Some(PathBuf::from(percent_decoded(value)?)),
                _ => rest.push(pair),
            }
        }
        let plain = format!("{place}?{}", rest.join("&"));
        let mut config: Config = plain.parse().map_err(|error: tokio_postgres::Error| {
            UrlError::Part(std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string))
        })?;
        let (ssl_mode, verification) = ssl(&mode, root.is_some())?;
        config.ssl_mode(ssl_mode).connect_timeout(CONNECT).tcp_user_timeout(SILENCE).keepalives_idle(SILENCE);
        Ok(Self { config, trust: Trust { verification, root }, name: gateway.to_string(), gateway, wait: WAIT })
    }

    /// The same, with a password that was read from elsewhere.
    #[must_use]
    pub fn with_password(mut self, password: &SecretString) -> Self {
        self.config.password(password.expose_secret());
        self
    }

    /// The same, for a gateway that operators call by this name rather than by its id.
    #[must_use]
    pub fn with_name(mut self, name: String) -> Self {
        self.name = name;
        self
    }

    /// The same, with another bound for how long anything waits for a database that is away.
    #[must_use]
    pub const fn with_wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }
}

/// How the words of libpq map to what the driver does and what we check. As with libpq, `require` checks the chain if a root is given.
fn ssl(mode: &str, has_root: bool) -> Result<(SslMode, Verification), UrlError> {
    Ok(match mode {
        "disable" => (SslMode::Disable, Verification::None),
        "prefer" => (SslMode::Prefer, Verification::None),
        "require" if has_root => (SslMode::Require, Verification::Chain),
        "require" => (SslMode::Require, Verification::None),
        "verify-ca" => (SslMode::Require, Verification::Chain),
        "verify-full" => (SslMode::Require, Verification::Full),
        other => return Err(UrlError::SslMode(other.to_owned())),
    })
}

fn percent_decoded(text: &str) -> Result<String, UrlError> {
    let bad = || UrlError::Part("sslrootcert is not percent-encoded as it should be".to_owned());
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        if byte == b'%' {
            let code = tail.get(..2).and_then(|code| hex::decode(code).ok()).ok_or_else(bad)?;
            bytes.extend(code);
            rest = &tail[2..];
        } else {
            bytes.push(byte);
            rest = tail;
        }
    }
    String::from_utf8(bytes).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> Result<PostgresSettings, UrlError> {
        PostgresSettings::new(url, GatewayId::random())
    }

    #[test]
    fn a_url_says_where_the_database_is_and_how_it_is_trusted() {
        let settings = read("postgres://sealgate@db.example:5433/state?sslmode=verify-full&sslrootcert=%2Fetc%2Fca.pem").unwrap();
        assert_eq!(settings.config.get_ports(), [5433]);
        assert_eq!((settings.config.get_user(), settings.config.get_dbname()), (Some("sealgate"), Some("state")));
        assert_eq!(settings.config.get_ssl_mode(), SslMode::Require);
        assert_eq!(settings.trust, Trust { verification: Verification::Full, root: Some(PathBuf::from("/etc/ca.pem")) });
        assert_eq!(read("postgres://h/d").unwrap().config.get_ssl_mode(), SslMode::Prefer);
        assert_eq!(read("postgres:///d?host=/run/postgresql&sslmode=disable").unwrap().config.get_ssl_mode(), SslMode::Disable);
    }

    #[test]
    fn what_is_wrong_with_a_url_is_said_without_its_password() {
        assert_eq!(read("mysql://h/d").unwrap_err(), UrlError::NotPostgres);
        assert_eq!(read("postgres://h/d?sslmode=sometimes").unwrap_err(), UrlError::SslMode("sometimes".to_owned()));
        let wrong = read("postgres://u:secret@h:port/d").unwrap_err().to_string();
        assert!(!wrong.contains("secret"), "{wrong}");
        let settings = read("postgres://u@h/d").unwrap().with_password(&"secret".into());
        assert!(!format!("{settings:?}").contains("secret"));
    }
}
