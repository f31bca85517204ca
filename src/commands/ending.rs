//! Who is told how a command ended: monitoring, and the hook for failures.

use std::time::Instant;

use chrono::Local;

use super::command::Command;
use crate::config::{Config, Hooks, Monitoring};
use crate::error::one_line;
use crate::hooks;
use crate::monitoring::run::{Facts, Run};
use crate::monitoring::send;
use crate::screen::report;

/// Made before the command runs.
#[derive(Debug)]
pub(super) struct Ending {
    monitoring: Monitoring,
    hooks: Hooks,
    /// What this node is called if its name cannot be found out.
    fallback: String,
    begin: Instant,
}

impl Ending {
    pub(super) fn of(config: &Config) -> Self {
        let host = || nix::unistd::gethostname().unwrap_or_default().to_string_lossy().into_owned();
        Self {
            monitoring: config.monitoring.clone(),
            hooks: config.hooks.clone(),
            fallback: config.storage.fqdn.clone().unwrap_or_else(host),
            begin: Instant::now(),
        }
    }

    /// Tells it. Changes nothing of the outcome. Of a dry run nobody is told, nor of a part that did
    /// its part.
    pub(super) async fn tell(
        &self,
        command: &Command,
        fqdn: Option<&str>,
        facts: &Facts,
        outcome: &anyhow::Result<()>,
    ) {
        if command.is_dry_run() || (command.is_part() && outcome.is_ok()) {
            return;
        }
        let exit_code = outcome.as_ref().err().map_or(0, report::exit_code);
        let run = Run {
            command: command.name(),
            fqdn: fqdn.unwrap_or(&self.fallback),
            exit_code,
            took: self.begin.elapsed(),
            ended: Local::now().timestamp(),
            facts,
        };
        for failure in send(&self.monitoring, &run).await {
            // Who only looks may be somebody who must not write metrics.
            if command.is_watched() {
                tracing::warn!("{}", one_line(&failure));
            } else {
                tracing::debug!("{}", one_line(&failure));
            }
        }
        if let (true, Err(error)) = (command.writes(), outcome) {
            hooks::on_failure(&self.hooks, run.command, error, exit_code).await;
        }
    }
}
