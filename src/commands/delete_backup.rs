//! `delete-backup`.

use std::collections::{BTreeSet, HashSet};

use clap::Args;
use serde_json::json;

use super::{existing_name, no_such_backup};
use crate::cli::output::Output;
use crate::context::Context;
use crate::error::Failure;
use crate::listing;
use crate::model::names::{BackupName, Fqdn};
use crate::model::units::{counted, size};
use crate::monitoring::run::{Facts, Purge};
use crate::purge::delete::{DeletePlan, delete};
use crate::storage::Storage;

/// Deletes backups by name
///
/// Files that other differential backups may need stay.
#[derive(Debug, Args)]
pub struct DeleteBackupArgs {
    /// May be given several times
    #[arg(long, value_name = "NAME", required = true)]
    backup_name: Vec<String>,
    /// On all nodes
    #[arg(short, long, overrides_with = "_current_node")]
    all_nodes: bool,
    /// On this node only (the default)
    #[arg(short = 'c', long = "current-node")]
    _current_node: bool,
    /// Print what would be deleted
    #[arg(long)]
    pub dry_run: bool,
}

impl DeleteBackupArgs {
    pub async fn run(&self, context: &Context, output: &Output, facts: &mut Facts) -> anyhow::Result<()> {
        // All names are looked up before anything is deleted.
        let mut plans = Vec::new();
        let mut seen = HashSet::new();
        for name in self.backup_name.iter().filter(|name| seen.insert(*name)) {
            plans.extend(context.interrupt.or(self.plan(context, name)).await?);
        }
        if !self.dry_run {
            let mut deleted = Purge::default();
            for plan in &mut plans {
                context.interrupt.check()?;
                *plan = delete(&context.storage, &plan.name, &plan.fqdn).await?;
                deleted.backups += 1;
                deleted.deleted.files += plan.amount.files;
                deleted.deleted.bytes += plan.amount.bytes;
                *facts = Facts::Purge(deleted);
            }
        }
        let (text, json) = (self.text(&plans), self.json(&plans));
        output.print(|| text, || json)
    }

    async fn plan(&self, context: &Context, name: &str) -> anyhow::Result<Vec<DeletePlan>> {
        let name = existing_name(name)?;
        let storage = &context.storage;
        let mut nodes = vec![context.fqdn.clone()];
        if self.all_nodes {
            nodes.extend(holders(storage, &name).await?);
            nodes.sort();
            nodes.dedup();
        }
        let mut plans = Vec::new();
        for fqdn in nodes {
            let plan = DeletePlan::gather(storage, &name, &fqdn).await?;
            if !plan.is_empty() {
                plans.push(plan);
            }
        }
        if plans.is_empty() { Err(nothing_to_delete(context, &name).await?.into()) } else { Ok(plans) }
    }

    fn text(&self, plans: &[DeletePlan]) -> String {
        let verb = if self.dry_run { "would delete" } else { "deleted" };
        let line = |plan: &DeletePlan| {
            let (files, bytes) = (counted(plan.amount.files, "object"), size(plan.amount.bytes));
            let mode = plan.mode.map_or_else(|| "remains".to_owned(), |mode| mode.to_string());
            format!("{verb} {} ({mode}) of {}: {files}, {bytes}\n", plan.name, plan.fqdn)
        };
        plans.iter().map(line).collect()
    }

    fn json(&self, plans: &[DeletePlan]) -> serde_json::Value {
        let plan = |plan: &DeletePlan| {
            json!({
                "name": plan.name.as_str(),
                "fqdn": plan.fqdn.as_str(),
                "mode": plan.mode,
                "objects": plan.amount.files,
                "bytes": plan.amount.bytes,
            })
        };
        json!({ "version": 1, "dry_run": self.dry_run, "deleted": plans.iter().map(plan).collect::<Vec<_>>() })
    }
}

/// The nodes that have a backup of that name.
async fn holders(storage: &Storage, name: &BackupName) -> anyhow::Result<Vec<Fqdn>> {
    // Also of what an interrupted deletion left.
    let indexed =
        storage.index_entries().await?.into_iter().filter(|entry| entry.name == *name).map(|entry| entry.fqdn);
    let backup = listing::confirmed(storage, name).await?;
    let nodes = backup.into_iter().flat_map(|backup| backup.nodes).map(|node| node.fqdn);
    Ok(indexed.chain(nodes).collect::<BTreeSet<_>>().into_iter().collect())
}

async fn nothing_to_delete(context: &Context, name: &BackupName) -> anyhow::Result<Failure> {
    let holders = holders(&context.storage, name).await?;
    if holders.is_empty() {
        return Ok(no_such_backup(context, name));
    }
    let message = format!("there is no backup {name} of {} in {}", context.fqdn, context.storage.location());
    Ok(Failure::failed(message)
        .details(holders.iter().map(|fqdn| format!("there is one of {fqdn}")))
        .hint("--all-nodes deletes the backup of every node, --fqdn NAME that of another one"))
}
