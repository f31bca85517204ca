//! What is measured of a run, and where it is sent: cassandra-medusa's providers, and a textfile for Prometheus.
//!
//! Sending never fails a command and never holds it up: what went wrong is returned, to be told as a warning.

pub mod local;
pub mod metrics;
pub mod prometheus;
pub mod run;
pub mod statsd;

use std::time::Duration;

use anyhow::Context as _;
use serde::Serialize;

use self::metrics::Metric;
use self::run::Run;
use self::statsd::Agent;
use crate::config::{Monitoring, Provider};

/// One value of one metric.
#[derive(Debug, Clone, PartialEq)]
pub struct Measurement {
    pub metric: &'static Metric,
    pub value: Value,
    pub subject: Subject,
    /// The command, of metrics that several commands have.
    pub command: Option<&'static str>,
}

/// A value as Medusa's Python prints it: durations with a point, all else without.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Value {
    Whole(i64),
    Seconds(f64),
}

/// What a value is about: the third of Medusa's tags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    Nothing,
    Backup(String),
    /// A word that Medusa puts in the place of a name.
    Marker(&'static str),
}

impl Subject {
    /// Empty where there is none.
    fn tag(&self) -> &str {
        match self {
            Self::Nothing => "",
            Self::Backup(name) => name,
            Self::Marker(word) => word,
        }
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Whole(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Whole(number)
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Whole(flag.into())
    }
}

impl From<Duration> for Value {
    /// In microseconds, as Python's `timedelta` has it.
    fn from(duration: Duration) -> Self {
        Self::Seconds(Duration::new(duration.as_secs(), duration.subsec_micros() * 1000).as_secs_f64())
    }
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Whole(number) => write!(f, "{number}"),
            Self::Seconds(seconds) => write!(f, "{seconds:?}"),
        }
    }
}

/// Sends what was measured of a run to every provider. Returns what could not be sent.
pub async fn send(config: &Monitoring, run: &Run<'_>) -> Vec<anyhow::Error> {
    let measured = run.measurements();
    let mut failures = Vec::new();
    for provider in &config.providers {
        let sent = match provider {
            Provider::Local => local::append(&measured),
            Provider::DogStatsd => Agent::of_environment().send(&measured, config.send_backup_name_tag).await,
            Provider::Prometheus => {
                let path = prometheus::path(&config.prometheus_textfile, run.command);
                prometheus::write(&path, &measured, run.fqdn, config.send_backup_name_tag)
            }
        };
        failures.extend(sent.with_context(|| format!("no metrics were sent ({provider})")).err());
    }
    failures
}

#[cfg(test)]
mod tests;
