//! `delete-backup`.

use std::collections::{BTreeSet, HashSet};

use clap::Args;
use serde_json::json;

use super::{existing_name, no_such_backup};
use crate::context::Context;
use crate::error::{Failure, one_line};
use crate::explain;
use crate::listing;
use crate::model::names::{BackupName, Fqdn};
use crate::model::nearest::{few, nearest};
use crate::model::units::{counted, size};
use crate::monitoring::run::{Facts, Purge};
use crate::purge::delete::{DeletePlan, delete};
use crate::screen::output::Output;
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
        if self.dry_run {
            return output.print(|_| self.text(&plans), || self.json(&plans, &[]));
        }
        let (all, mut done, mut failed) = (plans.len(), Vec::new(), Vec::new());
        let mut deleted = Purge::default();
        if plans.is_empty() {
            *facts = Facts::Purge(deleted);
        }
        for plan in plans {
            context.interrupt.check()?;
            match delete(&context.storage, &plan.name, &plan.fqdn).await {
                Ok(plan) => {
                    deleted.backups += 1;
                    deleted.deleted.files += plan.amount.files;
                    deleted.deleted.bytes += plan.amount.bytes;
                    *facts = Facts::Purge(deleted);
                    done.push(plan);
                }
                // It tells more than its line in a list.
                Err(error) if all == 1 => return Err(error),
                // One node does not keep the backups of others.
                Err(error) => failed.push((plan, one_line(&error))),
            }
        }
        if failed.is_empty() || !done.is_empty() {
            output.print(|_| self.text(&done), || self.json(&done, &failed))?;
        }
        failure(&done, &failed).map_or(Ok(()), |failure| Err(failure.into()))
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
        if plans.is_empty() {
            nothing_to_delete(context, &name).await?;
        }
        Ok(plans)
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

    fn json(&self, plans: &[DeletePlan], failed: &[(DeletePlan, String)]) -> serde_json::Value {
        let plan = |plan: &DeletePlan| {
            json!({
                "name": plan.name.as_str(),
                "fqdn": plan.fqdn.as_str(),
                "mode": plan.mode,
                "objects": plan.amount.files,
                "bytes": plan.amount.bytes,
            })
        };
        let failed_json = |(plan, why): &(DeletePlan, String)| json!({ "name": plan.name.as_str(), "fqdn": plan.fqdn.as_str(), "error": why });
        json!({
            "version": 1,
            "dry_run": self.dry_run,
            "deleted": plans.iter().map(plan).collect::<Vec<_>>(),
            "failed": failed.iter().map(failed_json).collect::<Vec<_>>(),
        })
    }
}

/// What could not be deleted.
fn failure(done: &[DeletePlan], failed: &[(DeletePlan, String)]) -> Option<Failure> {
    let (_, first) = failed.first()?;
    let all = counted((done.len() + failed.len()) as u64, "node backup");
    let failure = if done.is_empty() {
        Failure::failed(format!("none of {all} could be deleted"))
    } else {
        Failure::problems(format!("{} of {all} could not be deleted", failed.len()))
    };
    let again = "the same command, run again, does the rest";
    let hint = explain::hint(first).map_or_else(|| again.to_owned(), |hint| format!("{hint}; {again}"));
    let details = failed.iter().map(|(plan, why)| format!("{} of {}: {why}", plan.name, plan.fqdn));
    Some(failure.details(details).hint(hint))
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

/// A backup that only other nodes have is no error, as in Medusa: the same line runs on all nodes.
///
/// # Errors
/// Nobody has it.
async fn nothing_to_delete(context: &Context, name: &BackupName) -> anyhow::Result<()> {
    let holders = holders(&context.storage, name).await?;
    if holders.is_empty() {
        return Err(no_such_backup(context, name).await.into());
    }
    let names = || holders.iter().map(Fqdn::as_str);
    let forward = match nearest(context.fqdn.as_str(), names()) {
        Some(meant) => format!("did you mean --fqdn {meant}? --all-nodes deletes the backup of every node"),
        None => "--all-nodes deletes the backup of every node, --fqdn NAME that of another one".to_owned(),
    };
    let (own, others) = (&context.fqdn, few(names()));
    tracing::warn!(
        "there is no backup {name} of {own}, and nothing is deleted for it; there is one of {others}; {forward}"
    );
    Ok(())
}
