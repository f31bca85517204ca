//! `purge-decommissioned`.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;

use super::purge::{purge, tell};
use crate::cassandra::facts;
use crate::context::Context;
use crate::error::Failure;
use crate::model::names::Fqdn;
use crate::model::tokenmap::Tokens;
use crate::monitoring::run::{Facts, Purge};
use crate::purge::PurgeOptions;
use crate::purge::bucket::Bucket;
use crate::purge::decommissioned::standing;
use crate::purge::report::PurgeReport;
use crate::purge::retention::Policy;
use crate::screen::output::Output;

/// Deletes the backups of nodes that are no longer in the cluster
///
/// The living nodes are those that Cassandra names, of all datacenters. All backups of the other nodes of the bucket go,
/// whatever their age, but for what belongs to the newest backup that all its nodes finished.
#[derive(Debug, Args)]
pub struct PurgeDecommissionedArgs {
    /// Delete also what belongs to the newest complete backup
    #[arg(long)]
    allow_last: bool,
    /// Print what would be deleted
    #[arg(long)]
    pub dry_run: bool,
}

impl PurgeDecommissionedArgs {
    pub async fn run(&self, context: &Context, output: &Output, facts: &mut Facts) -> anyhow::Result<()> {
        let yaml = context.cassandra_yaml()?;
        let cql = context.cql(&yaml).await?;
        let ring = context.interrupt.or(facts::ring(&cql, &context.resolver)).await?;
        if !ring.iter().any(|node| node.names.contains(context.fqdn.as_str())) {
            let own: Vec<_> = ring.iter().flat_map(|node| node.names.iter().map(String::as_str)).collect();
            return Err(Failure::failed(format!("this node, {}, is not among the nodes that Cassandra names", context.fqdn))
                .details([format!("it names {}", own.join(", "))])
                .hint("so other living nodes may be called differently, too; set fqdn in [storage], or change resolve_ip_addresses in [cassandra]")
                .into());
        }
        let bucket = context.interrupt.or(Bucket::gather(&context.storage)).await?;
        let nodes = context.interrupt.or(tokens(context, &bucket)).await?;
        let standing = standing(&nodes, &ring);
        let retention = context.config.storage.retention;
        if standing.decommissioned.is_empty() && standing.doubtful.is_empty() {
            *facts = Facts::Purge(Purge { kept_for_grace: Some(0), ..Purge::default() });
            let text = |_| format!("no node of {} has left the cluster\n", context.storage.location());
            let grace = retention.backup_grace_period_in_days;
            let nothing = PurgeReport {
                dry_run: self.dry_run,
                grace,
                began: context.now.timestamp(),
                took: Duration::ZERO,
                nodes: Vec::new(),
                failed: Vec::new(),
                storage_failures: 0,
            };
            return output.print(text, || nothing.json());
        }
        let policy = Policy { retention, allow_last: self.allow_last, decommissioned: true };
        let options = PurgeOptions { policy, dry_run: self.dry_run };
        let report = purge(context, &bucket, standing.decommissioned, standing.doubtful, &options).await?;
        tell(context, &report, *output, facts)
    }
}

/// The tokens of each node that has backups, by its newest one that recorded them.
async fn tokens(context: &Context, bucket: &Bucket) -> anyhow::Result<BTreeMap<Fqdn, Option<Tokens>>> {
    let mut nodes = BTreeMap::new();
    for fqdn in bucket.indexed_nodes() {
        let mut tokens = None;
        for name in bucket.newest_first(fqdn) {
            let tokenmap = context.storage.tokenmap(fqdn, name).await?;
            tokens = tokenmap.and_then(|mut map| map.hosts.swap_remove(fqdn.as_str())).map(|entry| entry.tokens);
            if tokens.is_some() {
                break;
            }
        }
        nodes.insert(fqdn.clone(), tokens);
    }
    Ok(nodes)
}
