//! What the gateway says of itself while it runs: log lines on standard error, and numbers for Prometheus.
//!
//! [`logs`] and [`metrics::Exporter`] are set up once, by `cli`, before anything else starts. [`metrics`] has every metric's name, labels and
//! meaning in one table, so that those who record (`token`, `store`, `signing`, `http`) cannot differ about them. Invariants: standard output
//! stays free for results; neither a line nor a label holds a PIN, an API key or document content; no label takes a value that a client
//! chooses.

pub mod logs;
pub mod metrics;

pub use self::logs::{LOG_FORMAT_VARIABLE, LOG_VARIABLE, LogFormat, TelemetryError, start};
