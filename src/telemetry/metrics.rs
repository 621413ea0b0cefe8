//! Every metric: its name, labels, unit and meaning in one table, and what renders them for Prometheus.
//!
//! Whoever records takes a handle from the table once and keeps it: recording is an atomic operation then. Nothing is recorded in a process
//! that has installed no [`Exporter`]. Invariant: values of labels come from the configuration, from what is plugged in or from lists in the
//! code, so the number of series is bounded; where a client's choice would stand, [`OTHER`] stands.

use std::{fmt, time::Duration};

use metrics::{Counter, Gauge, Histogram, Label, Unit};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

/// Stands where a label has no value from a bounded list: a key that a client chose by URI, say.
pub const OTHER: &str = "-";

/// How often histograms take in what was recorded while nobody scraped.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// From a signature of a quick HSM to one that a person must touch the token for.
const TOKEN_BUCKETS: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// Up to a job's usual deadline.
const QUEUE_BUCKETS: &[f64] = &[0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0];
const VERIFY_BUCKETS: &[f64] = &[0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1];
const COMMIT_BUCKETS: &[f64] = &[0.000_1, 0.000_5, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];
const BATCH_BUCKETS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];
/// From a quick click to the usual end of the time to decide, and beyond.
const CONSENT_BUCKETS: &[f64] = &[1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 45.0, 60.0, 90.0, 120.0, 300.0, 600.0];
/// Up to the longest wait of a GET that waits for its job.
const HTTP_BUCKETS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// What a metric is to Prometheus.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Only grows, from zero at the start of the process.
    Counter,
    /// Stands at a value.
    Gauge,
    /// Counts values by size; these are the upper bounds.
    Histogram(&'static [f64]),
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        })
    }
}

/// One metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Its labels, in the order in which values are given.
    pub labels: &'static [&'static str],
    /// What it counts.
    pub unit: Unit,
    /// What it means, in one sentence.
    pub meaning: &'static str,
}

impl Metric {
    const fn new(name: &'static str, kind: Kind, labels: &'static [&'static str], unit: Unit, meaning: &'static str) -> Self {
        Self { name, kind, labels, unit, meaning }
    }

    /// The series with these values of its labels, as a counter.
    pub fn counter(&self, values: &[&str]) -> Counter {
        debug_assert_eq!(self.kind, Kind::Counter, "{}", self.name);
        metrics::counter!(self.name, self.labelled(values))
    }

    /// The series with these values of its labels, as a gauge.
    pub fn gauge(&self, values: &[&str]) -> Gauge {
        debug_assert_eq!(self.kind, Kind::Gauge, "{}", self.name);
        metrics::gauge!(self.name, self.labelled(values))
    }

    /// The series with these values of its labels, as a histogram.
    pub fn histogram(&self, values: &[&str]) -> Histogram {
        debug_assert!(matches!(self.kind, Kind::Histogram(_)), "{}", self.name);
        metrics::histogram!(self.name, self.labelled(values))
    }

    fn labelled(&self, values: &[&str]) -> Vec<Label> {
        debug_assert_eq!(self.labels.len(), values.len(), "{}", self.name);
        self.labels.iter().zip(values).map(|(label, value)| Label::new(*label, (*value).to_owned())).collect()
    }

    fn describe(&self) {
        match self.kind {
            Kind::Counter => metrics::describe_counter!(self.name, self.unit, self.meaning),
            Kind::Gauge => metrics::describe_gauge!(self.name, self.unit, self.meaning),
            Kind::Histogram(_) => metrics::describe_histogram!(self.name, self.unit, self.meaning),
        }
    }
}

/// The table: a constant for each metric, and [`ALL`] of them.
macro_rules! metrics_table {
    ($($constant:ident = $name:literal, $kind:expr, $labels:expr, $unit:ident, $meaning:literal;)*) => {
        $(
            #[doc = $meaning]
            pub const $constant: Metric = Metric::new($name, $kind, &$labels, Unit::$unit, $meaning);
        )*

        /// Every metric.
        pub const ALL: &[Metric] = &[$($constant),*];
    };
}

metrics_table! {
    BUILD_INFO = "sealgate_build_info", Kind::Gauge, ["version"], Count, "Always 1; the label is the version that runs.";
    STORE_REACHABLE = "sealgate_store_reachable", Kind::Gauge, [], Count, "1 if the store answered when this was scraped, else 0.";
    TOKEN_STATE = "sealgate_token_state", Kind::Gauge, ["token", "state"], Count, "1 for the state that the token is in, 0 for the others.";
    MODULE_RESTARTS = "sealgate_module_restarts_total", Kind::Counter, ["module", "reason"], Count,
        "New starts of a PKCS#11 module: failed (it ended, hung or could not be loaded) or missing-token (to see whether a token is back).";
    PIN_REJECTIONS = "sealgate_pin_rejections_total", Kind::Counter, ["token"], Count, "PIN tries that the token has rejected.";
    QUEUE_DEPTH = "sealgate_queue_depth", Kind::Gauge, ["token"], Count, "Jobs that wait for the token, when this was scraped.";
    QUEUE_OLDEST_AGE = "sealgate_queue_oldest_age_seconds", Kind::Gauge, ["token"], Seconds,
        "How long ago the oldest job that waits for the token was accepted, when this was scraped; 0 if none waits.";
    JOB_QUEUE_SECONDS = "sealgate_job_queue_seconds", Kind::Histogram(QUEUE_BUCKETS), ["token"], Seconds,
        "Time from the acceptance of a job until the token enters its signature.";
    JOB_TOKEN_SECONDS = "sealgate_job_token_seconds", Kind::Histogram(TOKEN_BUCKETS), ["token"], Seconds,
        "Time that the token takes for a signature, good or failed.";
    VERIFY_SECONDS = "sealgate_verify_seconds", Kind::Histogram(VERIFY_BUCKETS), [], Seconds,
        "Time to verify a signature in software, without waiting for a verifier.";
    SIGNATURES = "sealgate_signatures_total", Kind::Counter, ["key", "result"], Count, "Jobs that have ended, by key and result.";
    CANARIES = "sealgate_canaries_total", Kind::Counter, ["key", "result"], Count, "Canary signatures, by key and result.";
    CERTIFICATE_END = "sealgate_certificate_not_after_timestamp_seconds", Kind::Gauge, ["key"], Seconds,
        "When the certificate that a key signs with ends, in seconds since the Unix epoch.";
    COMMITS = "sealgate_commits_total", Kind::Counter, ["store"], Count, "Commits of the store; each may hold the changes of many requests.";
    COMMIT_BATCH_SIZE = "sealgate_commit_batch_size", Kind::Histogram(BATCH_BUCKETS), ["store"], Count,
        "Sets of changes that were made durable by one commit.";
    COMMIT_SECONDS = "sealgate_commit_seconds", Kind::Histogram(COMMIT_BUCKETS), ["store"], Seconds, "Time that a commit takes.";
    PERMITS_WAITING = "sealgate_permits_waiting", Kind::Gauge, [], Count, "Permissions that wait for an operator, when this was scraped.";
    CONSENT_DECISIONS = "sealgate_consent_decisions_total", Kind::Counter, ["result"], Count,
        "Permissions that operators were asked for: granted, refused, timed-out, withdrawn (nobody waited any more) or restarted.";
    CONSENT_SECONDS = "sealgate_consent_seconds", Kind::Histogram(CONSENT_BUCKETS), [], Seconds,
        "Time until an operator allowed or refused what was asked for.";
    TICKETS = "sealgate_tickets", Kind::Gauge, ["caller"], Count, "Tickets that the caller has, when this was scraped.";
    WEBHOOK_NOTICES = "sealgate_webhook_notices_total", Kind::Counter, ["result"], Count,
        "Notices for webhooks: delivered, given-up after the last try, or dropped since too many waited.";
    HTTP_REQUESTS = "sealgate_http_requests_total", Kind::Counter, ["api", "method", "status"], Count, "HTTP requests that were answered.";
    HTTP_REQUEST_SECONDS = "sealgate_http_request_seconds", Kind::Histogram(HTTP_BUCKETS), ["api"], Seconds,
        "Time until the head of the answer is sent; a GET that waits for its job waits in here.";
}

/// Why nothing can be exported.
#[derive(Debug, thiserror::Error)]
#[error("metrics cannot be recorded: {0}")]
pub struct ExporterError(#[from] BuildError);

/// What was recorded in this process, for Prometheus. Cheap to clone.
#[derive(Clone)]
pub struct Exporter(PrometheusHandle);

impl Exporter {
    /// Starts recording, once in a process. Handles that were taken before record nothing.
    ///
    /// # Errors
    /// [`ExporterError`] if it was started before.
    pub fn install() -> Result<Self, ExporterError> {
        let mut builder = PrometheusBuilder::new();
        for metric in ALL {
            if let Kind::Histogram(buckets) = metric.kind {
                builder = builder.set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), buckets)?;
            }
        }
        let exporter = Self(builder.install_recorder()?);
        ALL.iter().for_each(Metric::describe);
        BUILD_INFO.gauge(&[env!("CARGO_PKG_VERSION")]).set(1.0);
        Ok(exporter)
    }

    /// Everything, in the text format of Prometheus (version 0.0.4).
    #[must_use]
    pub fn render(&self) -> String {
        self.0.render()
    }

    /// Keeps the memory of histograms small while nobody scrapes. Never returns; dropping it stops it.
    pub async fn keep_up_forever(&self) {
        let mut ticks = tokio::time::interval(UPKEEP_EVERY);
        loop {
            ticks.tick().await;
            self.0.run_upkeep();
        }
    }
}

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Exporter(…)")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_follow_the_conventions_of_prometheus() {
        let names: BTreeSet<&str> = ALL.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), ALL.len());
        for metric in ALL {
            assert!(metric.name.starts_with("sealgate_"), "{}", metric.name);
            assert_eq!(metric.name.ends_with("_total"), metric.kind == Kind::Counter, "{}", metric.name);
            assert_eq!(metric.name.ends_with("_seconds"), metric.unit == Unit::Seconds, "{}", metric.name);
        }
    }

    #[test]
    fn buckets_grow() {
        for metric in ALL {
            if let Kind::Histogram(buckets) = metric.kind {
                assert!(buckets.is_sorted_by(|a, b| a < b), "{}", metric.name);
            }
        }
    }
}
