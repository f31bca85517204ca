//! `purge`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use clap::Args;

use crate::config::Retention;
use crate::context::Context;
use crate::error::one_line;
use crate::listing::suggest;
use crate::model::names::Fqdn;
use crate::monitoring::run::Facts;
use crate::purge::bucket::Bucket;
use crate::purge::report::PurgeReport;
use crate::purge::retention::Policy;
use crate::purge::{PurgeOptions, purge_node};
use crate::screen::output::Output;
use crate::storage::StorageError;

/// Deletes old backups and what no backup needs any more
///
/// What is old is said by `max_backup_age` and `max_backup_count`. The --keep options (and the keys of the same names) keep
/// backups that these would delete: the newest ones, and one for each day, week, month or year that has one. With --keep
/// options only, all others go.
#[derive(Debug, Args)]
pub struct PurgeArgs {
    /// Keep the newest N backups
    #[arg(long, value_name = "N")]
    keep_last: Option<u64>,
    /// Keep one backup for each of the newest N days
    #[arg(long, value_name = "N")]
    keep_daily: Option<u64>,
    /// Keep one backup for each of the newest N weeks
    #[arg(long, value_name = "N")]
    keep_weekly: Option<u64>,
    /// Keep one backup for each of the newest N months
    #[arg(long, value_name = "N")]
    keep_monthly: Option<u64>,
    /// Keep one backup for each of the newest N years
    #[arg(long, value_name = "N")]
    keep_yearly: Option<u64>,
    /// On all nodes of the bucket, not only this one
    #[arg(short, long)]
    all_nodes: bool,
    /// Delete also the last finished backup of a node and the last complete one of the cluster
    #[arg(long)]
    allow_last: bool,
    /// Print what would be deleted, and why the rest stays
    #[arg(long)]
    pub dry_run: bool,
}

impl PurgeArgs {
    pub async fn run(&self, context: &Context, output: &Output, facts: &mut Facts) -> anyhow::Result<()> {
        let policy = Policy { retention: self.retention(context), allow_last: self.allow_last, decommissioned: false };
        let options = PurgeOptions { policy, dry_run: self.dry_run };
        let bucket = context.interrupt.or(Bucket::gather(&context.storage)).await?;
        let mut nodes = BTreeSet::from([context.fqdn.clone()]);
        if self.all_nodes {
            nodes.extend(bucket.indexed_nodes().cloned());
            nodes.extend(context.interrupt.or(context.storage.nodes()).await?);
        } else if bucket.indexed_nodes().all(|node| *node != context.fqdn) {
            suggest::warn_of_unknown_node(&context.storage, &context.fqdn).await;
        }
        let report = purge(context, &bucket, nodes, BTreeMap::new(), &options).await?;
        tell(context, &report, *output, facts)
    }

    fn retention(&self, context: &Context) -> Retention {
        let ini = context.config.storage.retention;
        Retention {
            keep_last: self.keep_last.unwrap_or(ini.keep_last),
            keep_daily: self.keep_daily.unwrap_or(ini.keep_daily),
            keep_weekly: self.keep_weekly.unwrap_or(ini.keep_weekly),
            keep_monthly: self.keep_monthly.unwrap_or(ini.keep_monthly),
            keep_yearly: self.keep_yearly.unwrap_or(ini.keep_yearly),
            ..ini
        }
    }
}

/// Purges nodes one after the other. `left_alone`: those that are not purged, with the reason.
pub(super) async fn purge(
    context: &Context,
    bucket: &Bucket,
    nodes: BTreeSet<Fqdn>,
    left_alone: BTreeMap<Fqdn, String>,
    options: &PurgeOptions,
) -> anyhow::Result<PurgeReport> {
    let grace = options.policy.retention.backup_grace_period_in_days;
    let begin = Instant::now();
    let mut report = PurgeReport {
        dry_run: options.dry_run,
        grace,
        began: context.now.timestamp(),
        took: Duration::ZERO,
        nodes: Vec::new(),
        failed: left_alone.into_iter().collect(),
        storage_failures: 0,
    };
    let transfer = context.monitor.count("nodes", nodes.len());
    for fqdn in nodes {
        match purge_node(context, bucket, &fqdn, options).await {
            Ok(outcome) => report.nodes.push(outcome),
            Err(error) if context.interrupt.is_raised() => return Err(error),
            // One node does not keep the others from being purged.
            Err(error) => {
                report.storage_failures += usize::from(StorageError::is_cause_of(&error));
                report.failed.push((fqdn, one_line(&error)));
            }
        }
        transfer.counters.add_file();
    }
    report.took = begin.elapsed();
    Ok(report)
}

/// Tells what became of the nodes.
pub(super) fn tell(context: &Context, report: &PurgeReport, output: Output, facts: &mut Facts) -> anyhow::Result<()> {
    *facts = Facts::Purge(report.facts());
    output.print(|look| report.text(look, context.storage.location()), || report.json())?;
    report.failure().map_or(Ok(()), |failure| Err(failure.into()))
}
