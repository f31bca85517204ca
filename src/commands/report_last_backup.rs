//! `report-last-backup`.

use clap::Args;

use crate::context::Context;
use crate::listing::contents::failure;
use crate::listing::last::LastBackups;
use crate::listing::suggest;
use crate::monitor::Amount;
use crate::monitoring::run::{Facts, Latest, Report};
use crate::screen::output::Output;

/// Says what was backed up last, by this node and by all nodes
#[derive(Debug, Args)]
pub struct ReportLastBackupArgs {
    /// Send it as metrics, see `[monitoring]`
    #[arg(long)]
    pub push_metrics: bool,
}

impl ReportLastBackupArgs {
    pub async fn run(&self, context: &Context, output: &Output, facts: &mut Facts) -> anyhow::Result<()> {
        if self.push_metrics {
            *facts = Facts::Report(None);
            if context.config.monitoring.providers.is_empty() {
                tracing::warn!("no metrics are sent: monitoring_provider in [monitoring] is None");
            }
        }
        let last = context.interrupt.or(LastBackups::gather(&context.storage, &context.fqdn)).await?;
        if last.node.is_none() {
            suggest::warn_of_unknown_node(&context.storage, &context.fqdn).await;
        }
        let now = context.now.timestamp();
        if self.push_metrics {
            *facts = Facts::Report(Some(measured(&last, now)));
        }
        output.print(|_| last.text(now), || last.json(now))?;
        let listed = last.latest.as_ref().map(|(backup, contents)| (backup, contents));
        failure(listed).map_or(Ok(()), |failure| Err(failure.into()))
    }
}

fn measured(last: &LastBackups, now: i64) -> Report {
    let latest = last.latest.as_ref().map(|(backup, contents)| {
        // As Medusa counts: the nodes of the token map only.
        let held = backup.expected_nodes().into_iter().filter_map(|node| contents.get(node.fqdn.as_str()));
        let (files, bytes) = held.fold((0, 0), |(files, bytes), node| (files + node.num_objects, bytes + node.size));
        Latest {
            name: backup.name.to_string(),
            complete_nodes: backup.complete_nodes().len() as u64,
            incomplete_nodes: backup.incomplete_nodes().len() as u64,
            missing_nodes: backup.missing_nodes().len() as u64,
            all: Amount { files, bytes },
        }
    });
    let finished = |last: &crate::listing::last::Finished| (last.name.to_string(), last.at);
    Report { now, node: last.node.as_ref().map(finished), complete: last.complete.as_ref().map(finished), latest }
}
