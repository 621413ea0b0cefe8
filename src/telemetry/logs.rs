//! Log lines on standard error, for people or as JSON.
//!
//! `SEALGATE_LOG` chooses what is said (the syntax of `tracing_subscriber::EnvFilter`), `SEALGATE_LOG_FORMAT` how. Fields have the same names in
//! both forms; what happens within a request has its `request.id`.

use std::{
    io::{self, IsTerminal as _},
    str::FromStr,
};

use tracing_subscriber::{EnvFilter, util::SubscriberInitExt as _};

/// The environment variable with the log filter.
pub const LOG_VARIABLE: &str = "SEALGATE_LOG";

/// The environment variable with the form of log lines; goes before what the configuration says.
pub const LOG_FORMAT_VARIABLE: &str = "SEALGATE_LOG_FORMAT";

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl FromStr for LogFormat {
    type Err = TelemetryError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(TelemetryError::Format),
        }
    }
}

/// Libraries that say more than anybody needs, with the level from which on they are heard; where the filter names one, it is heard as that says.
/// (cryptoki reports each mechanism that it has no name for as an error, actix-server each worker that it starts and stops, certval each
/// certificate that it finds good or not.)
const QUIETED: [(&str, &str); 3] = [("cryptoki", "off"), ("actix_server", "warn"), ("certval", "off")];

/// A log filter that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is not one.
    #[error("{LOG_VARIABLE} is not a log filter ({0}); use for example `info` or `sealgate=debug`")]
    Filter(String),
    /// The form of log lines is none.
    #[error("{LOG_FORMAT_VARIABLE} is `text` or `json`")]
    Format,
    /// Logging was set up before.
    #[error("logging was set up twice")]
    Twice,
}

/// Starts logging to standard error, at `default` level where [`LOG_VARIABLE`] is unset or empty, in the form that [`LOG_FORMAT_VARIABLE`]
/// says or else `format`. Colours only on a terminal.
///
/// # Errors
/// [`TelemetryError`]; nothing is logged then.
pub fn start(default: &str, format: LogFormat) -> Result<(), TelemetryError> {
    let filter = parse_filter(std::env::var(LOG_VARIABLE).ok().as_deref(), default)?;
    let format = chosen_format(std::env::var(LOG_FORMAT_VARIABLE).ok().as_deref(), format)?;
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    match format {
        LogFormat::Text => subscriber.finish().try_init(),
        // The innermost span only: there is one, the request.
        LogFormat::Json => subscriber.json().flatten_event(true).with_span_list(false).finish().try_init(),
    }
    .map_err(|_| TelemetryError::Twice)
}

fn chosen_format(written: Option<&str>, configured: LogFormat) -> Result<LogFormat, TelemetryError> {
    written.map(str::trim).filter(|text| !text.is_empty()).map_or(Ok(configured), str::parse)
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
    fn the_environment_chooses_the_form_before_the_configuration() {
        assert_eq!(chosen_format(None, LogFormat::Json).unwrap(), LogFormat::Json);
        assert_eq!(chosen_format(Some(""), LogFormat::Json).unwrap(), LogFormat::Json);
        assert_eq!(chosen_format(Some("text"), LogFormat::Json).unwrap(), LogFormat::Text);
        assert!(matches!(chosen_format(Some("xml"), LogFormat::Text), Err(TelemetryError::Format)));
    }

    #[test]
    fn a_noisy_library_is_heard_only_where_it_is_asked_for() {
        let filter = |written| parse_filter(Some(written), "info").unwrap().to_string();
        assert!(filter("debug").contains("cryptoki=off"));
        assert!(!filter("info,cryptoki=debug").contains("cryptoki=off"));
    }
}
