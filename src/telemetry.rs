//! What the gateway says of itself while it runs: log lines on standard error.
//!
//! Set up once, by `cli`, before anything else starts. `SEALGATE_LOG` chooses what is said (the syntax of `tracing_subscriber::EnvFilter`).
//! Invariant: standard output stays free for results; what is logged never holds a PIN, an API key or document content.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::{EnvFilter, util::SubscriberInitExt as _};

/// The environment variable with the log filter.
pub const LOG_VARIABLE: &str = "SEALGATE_LOG";

/// Libraries that say more than anybody needs, with the level from which on they are heard; where the filter names one, it is heard as that says.
/// (cryptoki reports each mechanism that it has no name for as an error, actix-server each worker that it starts and stops.)
const QUIETED: [(&str, &str); 2] = [("cryptoki", "off"), ("actix_server", "warn")];

/// A log filter that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is not one.
    #[error("{LOG_VARIABLE} is not a log filter ({0}); use for example `info` or `sealgate=debug`")]
    Filter(String),
    /// Logging was set up before.
    #[error("logging was set up twice")]
    Twice,
}

/// Starts logging to standard error, at `default` level where [`LOG_VARIABLE`] is unset or empty. Colours only on a terminal.
///
/// # Errors
/// [`TelemetryError`]; nothing is logged then.
pub fn start(default: &str) -> Result<(), TelemetryError> {
    let filter = parse_filter(std::env::var(LOG_VARIABLE).ok().as_deref(), default)?;
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    subscriber.finish().try_init().map_err(|_| TelemetryError::Twice)
}

fn parse_filter(written: Option<&str>, default: &str) -> Result<EnvFilter, TelemetryError> {
    let directives = written.map(str::trim).filter(|text| !text.is_empty()).unwrap_or(default);
    let quieted = QUIETED.iter().filter(|(library, _)| !directives.contains(library));
    let directives = quieted.fold(directives.to_owned(), |all, (library, level)| format!("{all},{library}={level}"));
    EnvFilter::builder().parse(directives).map_err(|error| TelemetryError::Filter(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_is_none_is_refused_and_an_empty_one_is_the_default() {
        assert!(matches!(parse_filter(Some("sealgate=loud"), "info"), Err(TelemetryError::Filter(_))));
        let filter = |written, default| parse_filter(written, default).unwrap().to_string();
        assert_eq!(filter(Some(" "), "info"), filter(Some("info"), "warn"));
        assert_eq!(filter(None, "warn"), filter(Some("warn"), "info"));
    }

    #[test]
    fn a_noisy_library_is_heard_only_where_it_is_asked_for() {
        let filter = |written| parse_filter(Some(written), "info").unwrap().to_string();
        assert!(filter("debug").contains("cryptoki=off"));
        assert!(!filter("info,cryptoki=debug").contains("cryptoki=off"));
    }
}
